"""A vendor of the OpenAI chat dialect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.testing._mirrors import openai_chat as mirror
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._said import Asked, Refuse

__all__ = ["OpenAI"]

_CODES = {401: "invalid_api_key", 403: "forbidden", 404: "model_not_found", 429: "rate_limit_exceeded"}


class OpenAI(Dialect):
    """Chat completions, a list of models, and OpenRouter's word about a key."""

    name = "openai"
    path: ClassVar[str] = "/v1"
    stream_end: ClassVar[bytes] = mirror.DONE

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a request to ``/chat/completions``."""
        if asked.method != "POST" or not asked.path.endswith("/chat/completions"):
            return None
        return mirror.decode_request(asked.json)

    def whole(self, response: GenerateResponse) -> Any:
        """Write a reply."""
        return {"system_fingerprint": None, **mirror.encode_response(response)}

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write a stream; it ends with the count of tokens, asked for or not, as many servers do it."""
        return ({"system_fingerprint": None, **event} for event in mirror.encode_chunks(response))

    def frame(self, event: Any) -> bytes:
        """Write an event."""
        return mirror.frame(event)

    def refusal(self, refuse: Refuse) -> Any:
        """Write an error."""
        return mirror.encode_error(refuse.message, code=refuse.code or _CODES.get(refuse.status), kind="error")

    def facts(self, asked: Asked) -> Any:
        """List one model; say that a key is good."""
        if asked.method != "GET":
            return None
        if asked.path.endswith("/key"):
            return {"data": {"label": "a key", "limit_remaining": None, "usage": 0.0}}
        if asked.path.endswith("/models"):
            row = {"id": "fake-model", "object": "model", "created": 0, "owned_by": "nobody"}
            return {"object": "list", "data": [row]}
        return None
