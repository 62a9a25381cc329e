"""A server of Ollama's own dialect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.testing._mirrors import ollama as mirror
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._said import Asked, Refuse

__all__ = ["Ollama"]


class Ollama(Dialect):
    """``/api/chat``, the models that were pulled, and the version."""

    name = "ollama"
    stream_type: ClassVar[str] = "application/x-ndjson"
    usage: ClassVar[tuple[str, ...]] = ("prompt_eval_count", "eval_count")

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a request to ``/api/chat``."""
        if asked.method != "POST" or not asked.path.endswith("/api/chat"):
            return None
        return mirror.decode_request(asked.json)

    def whole(self, response: GenerateResponse) -> Any:
        """Write a reply."""
        return mirror.encode_response(response)

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write a stream."""
        return mirror.encode_chunks(response)

    def frame(self, event: Any) -> bytes:
        """Write one object of a stream."""
        return mirror.frame(event)

    def refusal(self, refuse: Refuse) -> Any:
        """Write an error, which is a text and no more here."""
        return mirror.encode_error(refuse.message)

    def facts(self, asked: Asked) -> Any:
        """List one model; say the version."""
        if asked.method != "GET":
            return None
        if asked.path.endswith("/api/version"):
            return {"version": "0.12.0"}
        if asked.path.endswith("/api/tags"):
            return {"models": [{"name": "fake-model:latest", "model": "fake-model:latest"}]}
        return None
