"""The key under which OpenAI finds the cached prefix of a request."""

from __future__ import annotations

import hashlib

from llm_council._wire.payloads import dumps
from llm_council.models.messages import Role
from llm_council.models.request import GenerateRequest

__all__ = ["prefix_key"]


def prefix_key(request: GenerateRequest, model: str | None) -> str:
    """Return a key that requests with the same model, tools and leading instructions share.

    OpenAI routes requests with one ``prompt_cache_key`` to the server that has cached their prefix (guide "Prompt
    caching", how it works). Without instructions, the first turn is the prefix.
    """
    turns = request.turns()
    leading = []
    for turn in turns:
        if turn.role not in (Role.SYSTEM, Role.DEVELOPER):
            break
        leading.append(turn.text)
    tools = [[tool.name, tool.description, dict(tool.parameters)] for tool in request.tools]
    prefix = [model, tools, leading or [turns[0].text]]
    return hashlib.sha256(dumps(prefix, sort=True)).hexdigest()[:32]
