"""What OpenAI finds the cached prefix of a request by: a key, and marks at the ends of prefixes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import attrs

from llm_council._wire.payloads import dumps
from llm_council.models.messages import Message, Role, TextPart
from llm_council.models.request import GenerateRequest

__all__ = ["BREAKPOINT", "mark_instructions", "prefix_key"]

BREAKPOINT: Mapping[str, Any] = {"prompt_cache_breakpoint": {"mode": "explicit"}}
"""Marks the text of a block as the end of a prefix to cache. From GPT-5.6 on, a cached prefix is found at marks alone,
and without this one there is only the vendor's own mark, at the last turn (guide "Prompt caching", cache breakpoints;
openai.types.responses.ResponseInputTextParam)."""

_INSTRUCTIONS = (Role.SYSTEM, Role.DEVELOPER)


def prefix_key(request: GenerateRequest, model: str | None) -> str:
    """Return a key that requests with the same model, tools and leading instructions share.

    OpenAI routes requests with one ``prompt_cache_key`` to the server that has cached their prefix (guide "Prompt
    caching", how it works). Without instructions, the first turn is the prefix.
    """
    turns = request.turns()
    leading = []
    for turn in turns:
        if turn.role not in _INSTRUCTIONS:
            break
        leading.append(turn.text)
    tools = [[tool.name, tool.description, dict(tool.parameters)] for tool in request.tools]
    prefix = [model, tools, leading or [turns[0].text]]
    return hashlib.sha256(dumps(prefix, sort=True)).hexdigest()[:32]


def mark_instructions(turns: Sequence[Message]) -> tuple[Message, ...]:
    """Mark the end of the leading instructions for a cache, unless the caller has marked a part of the conversation."""
    leading = list(takewhile(lambda turn: turn.role in _INSTRUCTIONS, turns))
    parts = [part for turn in turns if not isinstance(turn.content, str) for part in turn.content]
    if not leading or any(isinstance(part, TextPart) and part.cache for part in parts):
        return tuple(turns)
    last = leading[-1]
    marked = attrs.evolve(last, content=(TextPart(text=last.text, cache=True),)) if last.text else last
    return (*leading[:-1], marked, *turns[len(leading) :])
