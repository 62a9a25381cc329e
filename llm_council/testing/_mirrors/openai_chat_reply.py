"""The mirror half of the OpenAI chat dialect: replies and streams as servers write them, for fake vendors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_council._wire.openai_chat.calls import CUSTOM
from llm_council._wire.openai_chat.reply import CHOICE_EXTRA, MESSAGE_EXTRA, REPLY_EXTRA, picked
from llm_council._wire.openai_chat.thoughts import THINKING
from llm_council._wire.payloads import dumps
from llm_council.models.messages import ToolCall
from llm_council.models.reply import GenerateResponse, Usage

__all__ = ["DONE", "encode_chunks", "encode_response", "frame"]

DONE = b"data: [DONE]\n\n"


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply: the mirror of ``decode_response``, for fake vendors."""
    extra = response.extra
    message: dict[str, Any] = {"role": "assistant", "content": response.text, **picked(extra, MESSAGE_EXTRA)}
    if response.refusal is not None:
        message["refusal"] = response.refusal
    thoughts, blocks = _reasoned(response)
    if thoughts:  # they say the reasoning themselves
        message["content"] = [*thoughts, {"type": "text", "text": response.text}] if response.text else thoughts
    elif response.reasoning is not None:
        message["reasoning"] = response.reasoning
    if blocks:
        message["reasoning_details"] = blocks
    if response.tool_calls:
        message["tool_calls"] = [_call(call) for call in response.tool_calls]
    choice = {"index": 0, "message": message, "finish_reason": _finish(response), **picked(extra, CHOICE_EXTRA)}
    reply = {**_envelope(response), "object": "chat.completion", "choices": [choice]}
    usage = _usage(response)
    return reply if usage is None else {**reply, "usage": usage}


def _reasoned(response: GenerateResponse) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the blocks of reasoning that are parts of the content, and those that stand beside it."""
    blocks = [dict(part.data) for part in response.reasoning_parts if part.data is not None]
    thoughts = [block for block in blocks if block.get("type") == THINKING]
    return thoughts, [block for block in blocks if block.get("type") != THINKING]


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    """Write what a reply and each of its stream's events say about themselves."""
    return {
        "id": response.request_id,
        "created": 0,
        "model": response.model,
        **picked(response.extra, REPLY_EXTRA),
    }


def _finish(response: GenerateResponse) -> str | None:
    """Return the vendor's word for why the model stopped."""
    return response.raw_finish_reason or (None if response.finish_reason is None else str(response.finish_reason))


def _call(call: ToolCall) -> dict[str, Any]:
    """Write a tool call."""
    word, key = _spelt(call)
    return {**call.extra, "id": call.id, "type": word, word: {"name": call.name, key: call.arguments}}


def _spelt(call: ToolCall) -> tuple[str, str]:
    """Return the type of a call, under which it stands, and the key of its arguments."""
    return (CUSTOM, "input") if call.extra.get("type") == CUSTOM else ("function", "arguments")


def _usage(response: GenerateResponse) -> dict[str, Any] | None:
    """Write tokens and money; None when both are unknown."""
    usage = response.usage or Usage()
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if response.cost is not None and response.cost.usd is not None:
        counts["cost"] = response.cost.usd
    elif response.usage is None:
        return None
    return counts


def frame(payload: Any) -> bytes:
    """Write one event of a stream."""
    return b"data: " + dumps(payload) + b"\n\n"


def encode_chunks(response: GenerateResponse, *, size: int = 8, usage: bool = True) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream: the mirror of ``ChunkDecoder``, for fake vendors.

    Args:
        response: the answer.
        size: most characters of text in one event.
        usage: end with the event that counts the tokens, as ``stream_options.include_usage`` asks.
    """
    common = {**_envelope(response), "object": "chat.completion.chunk"}

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        return {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}

    yield event({"role": "assistant", "content": ""})
    thoughts, blocks = _reasoned(response)
    for block in thoughts:
        yield event({"content": [block]})
    for key, text in (
        ("reasoning", None if thoughts else response.reasoning),
        ("content", response.text),
        ("refusal", response.refusal),
    ):
        for piece in _pieces(text or "", size):
            yield event({key: piece})
    for block in blocks:
        yield event({"reasoning_details": [block]})
    for index, call in enumerate(response.tool_calls):
        word, key = _spelt(call)
        first = {"name": call.name, key: ""}
        yield event({"tool_calls": [{**call.extra, "index": index, "id": call.id, "type": word, word: first}]})
        for piece in _pieces(call.arguments, size):
            yield event({"tool_calls": [{"index": index, word: {key: piece}}]})
    more = picked(response.extra, CHOICE_EXTRA)
    yield event(picked(response.extra, MESSAGE_EXTRA), _finish(response), **more)
    counted = _usage(response) if usage else None
    if counted is not None:
        yield {**common, "choices": [], "usage": counted}


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
