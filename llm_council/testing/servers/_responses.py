"""A vendor of OpenAI's Responses dialect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import attrs

from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, Usage
from llm_council.testing._mirrors import responses as mirror
from llm_council.testing.servers._openai import OpenAI
from llm_council.testing.servers._said import Asked

__all__ = ["Responses"]

_BESIDE = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
_WORDS = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}


class Responses(OpenAI):
    """``/responses``; models and refusals are those of the chat dialect."""

    name = "responses"
    stream_end: ClassVar[bytes] = b""

    def read(self, asked: Asked) -> GenerateRequest | None:
        """Read a request to ``/responses``."""
        if asked.method != "POST" or not asked.path.endswith("/responses"):
            return None
        return mirror.decode_request(asked.json)

    def whole(self, response: GenerateResponse) -> Any:
        """Write a reply."""
        return {**_BESIDE, **mirror.encode_response(_worded(response))}

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        """Write a stream."""
        for number, event in enumerate(mirror.encode_events(_worded(response))):
            beside: dict[str, Any] = {"sequence_number": number}
            if "response" in event:
                beside["response"] = {**_BESIDE, **event["response"]}
            if "item_id" in event and event["item_id"] is None:
                beside["item_id"] = f"item_{event['output_index']}"
            if event["type"].startswith("response.output_text."):
                beside["logprobs"] = []
            yield {**event, **beside}

    def frame(self, event: Any) -> bytes:
        """Write an event; a refusal in the middle is one of its own type."""
        return mirror.frame(event if "type" in event else {"type": "error", **event})


def _worded(response: GenerateResponse) -> GenerateResponse:
    """Return an answer with the vendor's own words and ids."""
    known = FinishReason.of(response.finish_reason)
    word = response.raw_finish_reason or (None if known is None else _WORDS.get(known))
    said = response.usage or Usage()
    usage = attrs.evolve(
        said,
        cached_tokens=said.cached_tokens or 0,
        cache_write_tokens=said.cache_write_tokens or 0,
        reasoning_tokens=said.reasoning_tokens or 0,
    )
    extra = {"response_id": response.request_id, **response.extra}
    return attrs.evolve(response, raw_finish_reason=word, usage=usage, extra=extra)
