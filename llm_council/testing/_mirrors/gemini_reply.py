"""The mirror half of Google's dialect: replies and streams as its servers write them, for fake vendors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_council._wire.payloads import dumps
from llm_council.models.reply import FinishReason, GenerateResponse
from llm_council.providers._google.contents import model_parts
from llm_council.providers._google.reply import CANDIDATE_EXTRA, REPLY_EXTRA

__all__ = ["encode_array", "encode_chunks", "encode_response", "frame"]

_WORDS = {
    FinishReason.STOP: "STOP",
    FinishReason.TOOL_CALLS: "STOP",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.CONTENT_FILTER: "SAFETY",
    FinishReason.ERROR: "OTHER",
}


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply: the mirror of ``decode_response``, for fake vendors.

    Thoughts stand before the answer, the signed ones last; a reply to a blocked prompt has no candidate.
    """
    return {**_candidates(response, _parts(response), last=True), **_tail(response)}


def encode_chunks(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream: the mirror of ``FrameDecoder``, for fake vendors.

    Args:
        response: the answer.
        size: most characters of text in one event.
    """
    for part in _parts(response):
        text = part.get("text", "")
        whole = "functionCall" in part or (part.get("thought") and "thoughtSignature" in part)
        cuts = [0] if whole else range(0, len(text), size)
        for start in cuts:
            last = whole or start + size >= len(text)
            piece = part if last else {key: value for key, value in part.items() if key != "thoughtSignature"}
            cut = piece if whole or "text" not in part else {**piece, "text": text[start : start + size]}
            yield {**_candidates(response, [cut], last=False), **_envelope(response)}
        if not cuts:
            yield {**_candidates(response, [part], last=False), **_envelope(response)}
    yield {**_candidates(response, [], last=True), **_tail(response)}


def frame(payload: Any) -> bytes:
    """Write one event of a stream, with the line ends that this vendor writes."""
    return b"data: " + dumps(payload) + b"\r\n\r\n"


def encode_array(payloads: Iterable[Mapping[str, Any]]) -> bytes:
    """Write a stream as the one JSON array that it is without ``alt=sse``."""
    return b"[" + b",\r\n".join(dumps(payload) for payload in payloads) + b"]"


def _parts(response: GenerateResponse) -> list[dict[str, Any]]:
    signed = "".join(part.text for part in response.reasoning_parts)
    lead = (response.reasoning or "").removesuffix(signed)
    return [*([{"text": lead, "thought": True}] if lead else []), *model_parts(response.to_message())]


def _candidates(response: GenerateResponse, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
    feedback = response.extra.get("promptFeedback")
    if isinstance(feedback, Mapping) and feedback.get("blockReason"):
        return {}
    candidate: dict[str, Any] = {"content": {"role": "model", **({"parts": parts} if parts else {})}, "index": 0}
    if last:
        word = response.raw_finish_reason or (
            None if response.finish_reason is None else _WORDS[FinishReason(response.finish_reason)]
        )
        candidate.update({} if word is None else {"finishReason": word})
        candidate.update((key, response.extra[key]) for key in CANDIDATE_EXTRA if key in response.extra)
    return {"candidates": [candidate]}


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    said = {"modelVersion": response.model, "responseId": response.request_id}
    return {key: value for key, value in said.items() if value is not None}


def _tail(response: GenerateResponse) -> dict[str, Any]:
    """Write what only the last event of a stream says."""
    tail = {**_envelope(response), **{key: response.extra[key] for key in REPLY_EXTRA if key in response.extra}}
    usage = response.usage
    if usage is None:
        return tail
    thoughts, output = usage.reasoning_tokens, usage.output_tokens
    counts = {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cached_tokens,
        "candidatesTokenCount": None if output is None else output - (thoughts or 0),
        "thoughtsTokenCount": thoughts,
        "totalTokenCount": usage.total_tokens,
    }
    return {**tail, "usageMetadata": {key: count for key, count in counts.items() if count is not None}}
