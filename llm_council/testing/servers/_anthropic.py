"""A vendor of Anthropic's Messages dialect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.testing._mirrors import anthropic as wire
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._said import Asked, Refuse

__all__ = ["Anthropic"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


class Anthropic(Dialect):
    """Messages, and a list of models."""

    name = "anthropic"

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a request to ``/v1/messages``."""
        if asked.method != "POST" or not asked.path.endswith("/v1/messages"):
            return None
        return wire.decode_request(asked.json)

    def whole(self, response: GenerateResponse) -> Any:
        """Write a reply."""
        return wire.encode_response(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write a stream."""
        return wire.encode_events(response)

    def frame(self, event: Any) -> bytes:
        """Write an event."""
        return wire.frame(event)

    def refusal(self, refuse: Refuse) -> Any:
        """Write an error."""
        usual = "invalid_request_error" if refuse.status < 500 else "api_error"
        return wire.encode_error(refuse.message, kind=refuse.code or _TYPES.get(refuse.status, usual))

    def facts(self, asked: Asked) -> Any:
        """List one model."""
        if asked.method == "GET" and asked.path.endswith("/v1/models"):
            row = {"type": "model", "id": "fake-model", "display_name": "Fake", "lifecycle": "active"}
            row["created_at"] = "2026-01-01T00:00:00Z"
            return {"data": [row], "has_more": False, "first_id": "fake-model", "last_id": "fake-model"}
        return None
