"""Vertex AI, with models of Google's or of Anthropic's."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from llm_council.models import GenerateRequest
from llm_council.testing._mirrors import anthropic
from llm_council.testing.servers._anthropic import Anthropic
from llm_council.testing.servers._gemini import Gemini
from llm_council.testing.servers._said import Asked

__all__ = ["ClaudeOnVertex", "Vertex"]

_CALL = re.compile(r"/publishers/anthropic/models/([^/:]+):(rawPredict|streamRawPredict)$")


class Vertex(Gemini):
    """Google's models on Vertex AI."""

    name = "vertex"

    def facts(self, asked: Asked) -> Any:
        """List one model."""
        if asked.method == "GET" and asked.path.endswith("/publishers/google/models"):
            return {"publisherModels": [{"name": "publishers/google/models/fake-model"}]}
        return None


class ClaudeOnVertex(Anthropic):
    """Anthropic's models on Vertex AI, which lists none of them."""

    name = "vertex-claude"

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a request to ``/models/NAME:rawPredict`` or ``:streamRawPredict``."""
        found = _CALL.search(unquote(asked.path))
        if asked.method != "POST" or found is None:
            return None
        body = asked.json
        return anthropic.decode_request({**body, "model": found[1]} if isinstance(body, dict) else body)

    def facts(self, asked: Asked) -> Any:
        """Say nothing: every request makes a model work."""
        return None
