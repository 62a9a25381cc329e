"""The mirror half of Anthropic's Messages dialect: replies and streams as the vendor writes them, for fake vendors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_council._wire.payloads import dumps, loads
from llm_council.models.reply import GenerateResponse
from llm_council.providers._anthropic.reply import REPLY_EXTRA, USAGE_EXTRA, picked
from llm_council.providers._anthropic.thinking import block_of

__all__ = ["encode_events", "encode_response", "frame"]

_STOP = ("stop_details", "stop_sequence")
_WORDS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply: the mirror of ``decode_response``, for fake vendors."""
    reply = {**_envelope(response), **_about(response), "content": _blocks(response), "stop_reason": _stop(response)}
    usage = _usage(response)
    return reply if usage is None else {**reply, "usage": usage}


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    return {"id": response.request_id, "type": "message", "role": "assistant", "model": response.model}


def _about(response: GenerateResponse) -> dict[str, Any]:
    found = picked(response.extra, REPLY_EXTRA)
    if response.refusal is not None and "stop_details" not in found:
        found["stop_details"] = {"type": "refusal", "category": None, "explanation": response.refusal}
    return found


def _stop(response: GenerateResponse) -> str | None:
    word = response.finish_reason
    return response.raw_finish_reason or (None if word is None else _WORDS.get(str(word), str(word)))


def _blocks(response: GenerateResponse) -> list[dict[str, Any]]:
    blocks = [block for part in response.reasoning_parts if (block := block_of(part, part.vendor or "")) is not None]
    said = "".join(block["text"] for block in blocks if block["type"] == "text")
    if response.text is not None and (response.text != said or not said):
        text: dict[str, Any] = {"type": "text", "text": response.text.removeprefix(said)}
        blocks.append(text if said else {**text, **picked(response.extra, ("citations",))})
    blocks += [block for block in response.extra.get("blocks", []) if block not in blocks]
    called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    for call in response.tool_calls:
        if call.id not in called:
            given = loads(call.arguments) if call.arguments.strip() else {}
            blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given, **call.extra})
    return blocks


def _usage(response: GenerateResponse) -> dict[str, Any] | None:
    usage = response.usage
    told = picked(response.extra, USAGE_EXTRA)
    if usage is None:
        return told or None
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    fresh = None if usage.input_tokens is None else usage.input_tokens - (cached or 0) - (written or 0)
    thoughts = usage.reasoning_tokens
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": None if thoughts is None else {"thinking_tokens": thoughts},
        **told,
    }


def frame(payload: dict[str, Any]) -> bytes:
    """Write one event of a stream; its name is its type."""
    return b"event: %b\ndata: %b\n\n" % (payload["type"].encode(), dumps(payload))


def encode_events(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream: the mirror of ``EventDecoder``, for fake vendors.

    Args:
        response: the answer.
        size: most characters of text in one event.
    """
    usage = _usage(response)
    begun = {} if response.usage is None or usage is None else {"usage": {**usage, "output_tokens": 1}}
    about = _about(response)
    message = {**_envelope(response), "content": [], "stop_reason": None, **begun}
    message |= {key: value for key, value in about.items() if key not in _STOP}
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}
    for index, block in enumerate(_blocks(response)):
        start, deltas = _taken_apart(block, size)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": _stop(response), **{key: about[key] for key in _STOP if key in about}}
    yield {"type": "message_delta", "delta": stop, **({} if usage is None else {"usage": usage})}
    yield {"type": "message_stop"}


def _taken_apart(block: dict[str, Any], size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it begins, and the pieces that make it whole."""
    word = block["type"]
    if word == "text":
        pieces = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"], size)]
        cited = [{"type": "citations_delta", "citation": found} for found in block.get("citations", [])]
        return {"type": "text", "text": ""}, pieces + cited
    if word == "thinking":
        pieces = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"], size)]
        signed = [{"type": "signature_delta", "signature": block["signature"]}]
        return {"type": "thinking", "thinking": "", "signature": ""}, pieces + signed
    if isinstance(block.get("input"), dict):
        text = dumps(block["input"]).decode() if block["input"] else ""
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *_pieces(text, size)]]
        return {**block, "input": {}}, pieces
    return block, []


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
