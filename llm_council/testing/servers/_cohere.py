"""A server of Cohere's v2 chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.testing._mirrors import cohere as mirror
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._said import Asked, Refuse

__all__ = ["Cohere"]


class Cohere(Dialect):
    """``/v2/chat``, and a list of models."""

    name = "cohere"
    stream_end: ClassVar[bytes] = mirror.DONE

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a request to ``/v2/chat``."""
        if asked.method != "POST" or not asked.path.endswith("/v2/chat"):
            return None
        return mirror.decode_request(asked.json)

    def whole(self, response: GenerateResponse) -> Any:
        """Write a reply."""
        return mirror.encode_response(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write a stream."""
        return mirror.encode_events(response)

    def frame(self, event: Any) -> bytes:
        """Write an event."""
        return mirror.frame(event)

    def refusal(self, refuse: Refuse) -> Any:
        """Write an error."""
        return mirror.encode_error(refuse.message, request_id="refused-1")

    def facts(self, asked: Asked) -> Any:
        """List one model."""
        if asked.method == "GET" and asked.path.endswith("/v1/models"):
            return {"models": [{"name": "fake-model", "endpoints": ["chat"]}]}
        return None
