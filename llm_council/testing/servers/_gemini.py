"""A vendor of Google's ``generateContent`` dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import unquote

from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.testing._mirrors import gemini as wire
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._said import Asked, Refuse

__all__ = ["Gemini"]

_CALL = re.compile(r"/([^/:]+):(generateContent|streamGenerateContent)$")
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class Gemini(Dialect):
    """``generateContent``, its stream, and a list of models."""

    name = "gemini"
    usage: ClassVar[tuple[str, ...]] = ("usageMetadata",)

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a request to ``/models/NAME:generateContent`` or ``:streamGenerateContent``."""
        found = _CALL.search(unquote(asked.path))
        if asked.method != "POST" or found is None:
            return None
        return wire.decode_request(asked.json, model=found[1], stream=found[2].startswith("stream"))

    def whole(self, response: GenerateResponse) -> Any:
        """Write a reply."""
        return wire.encode_response(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write a stream."""
        return wire.encode_chunks(response)

    def frame(self, event: Any) -> bytes:
        """Write an event."""
        return wire.frame(event)

    def refusal(self, refuse: Refuse) -> Any:
        """Write an error."""
        word = refuse.code or _STATUSES.get(refuse.status, "INTERNAL")
        return wire.encode_error(refuse.message, code=refuse.status, status=word)

    def facts(self, asked: Asked) -> Any:
        """List one model."""
        if asked.method == "GET" and asked.path.endswith("/models"):
            return {"models": [{"name": "models/fake-model", "supportedGenerationMethods": ["generateContent"]}]}
        return None
