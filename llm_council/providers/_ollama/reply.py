"""Whole replies of Ollama's chat dialect, and the mirror half: replies and streams as the server writes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_council._wire.openai_chat.calls import arguments_text, call_id
from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.openai_chat.reply import finish_word, picked
from llm_council._wire.payloads import dumps, get_text, loads, malformed, need_list, need_object, tokens
from llm_council._wire.think import split_thoughts
from llm_council.errors import MalformedReply
from llm_council.models.messages import ReasoningPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._ollama.request import DEFAULT, VENDOR, ChatOptions

__all__ = [
    "EXTRA",
    "decode_response",
    "encode_chunks",
    "encode_error",
    "encode_response",
    "frame",
    "read_calls",
    "read_finish",
    "read_usage",
    "thoughts_to_echo",
]

EXTRA = (
    "total_duration",  # nanoseconds, like the others
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
    "remote_model",
    "remote_host",
    "logprobs",
)


def decode_response(data: Any, options: ChatOptions = DEFAULT, *, request_id: str | None = None) -> GenerateResponse:
    """Read a whole reply.

    Args:
        data: the reply's JSON value.
        options: in what the model differs.
        request_id: the id from the reply's headers; the dialect itself has none.

    Returns:
        The answer. A reply with tool calls has them as its finish reason, though the server says ``"stop"``. The
        durations, in nanoseconds, are in ``extra``.

    Raises:
        ApiError: the reply is an error.
        MalformedReply: the reply is not one of this dialect.
    """
    reply = need_object(data, "$")
    error = error_inside(reply, request_id=request_id)
    if error is not None:
        raise error
    message = need_object(reply.get("message"), "$.message")
    text = get_text(message, "content", "$.message")
    thoughts = get_text(message, "thinking", "$.message") or ""
    if options.think_tags and text:
        inside, answer = split_thoughts(text)
        if inside or answer != text:
            text, thoughts = answer or None, thoughts + inside
    calls = read_calls(message.get("tool_calls"))
    word = finish_word(reply.get("done_reason"))
    return GenerateResponse(
        text=text,
        reasoning=thoughts or None,
        reasoning_parts=thoughts_to_echo(thoughts),
        tool_calls=calls,
        usage=read_usage(reply),
        model=get_text(reply, "model", "$") or None,
        finish_reason=read_finish(word, has_calls=bool(calls)),
        raw_finish_reason=word,
        request_id=request_id,
        extra=picked(reply, EXTRA),
        raw=data,
    )


def thoughts_to_echo(thoughts: str) -> tuple[ReasoningPart, ...]:
    """Return reasoning as it goes back on an assistant's turn."""
    return (ReasoningPart(text=thoughts, vendor=VENDOR),) if thoughts else ()


def read_calls(value: Any, first: int = 0) -> tuple[ToolCall, ...]:
    """Read tool calls, which are always whole; ids that are missing are made, counting from ``first``."""
    path = "$.message.tool_calls"
    listed = [] if value is None else need_list(value, path)
    return tuple(_call(call, first + index, f"{path}[{index}]") for index, call in enumerate(listed))


def _call(value: Any, index: int, path: str) -> ToolCall:
    call = need_object(value, path)
    function = need_object(call.get("function"), f"{path}.function")
    name = get_text(function, "name", f"{path}.function")
    if not name:
        raise malformed(f"{path}.function.name", "a name", function.get("name"))
    arguments = arguments_text(function.get("arguments"), f"{path}.function.arguments")
    return ToolCall(id=call_id(call.get("id"), index), name=name, arguments=arguments)


def read_finish(word: str | None, *, has_calls: bool) -> FinishReason | None:
    """Return why the model stopped; ``load`` and ``unload`` are words about the server, not the answer."""
    found = FinishReason.of(word)
    return FinishReason.TOOL_CALLS if has_calls and found in (None, FinishReason.STOP) else found


def read_usage(reply: Mapping[str, Any]) -> Usage | None:
    """Read the tokens; the count of a prompt that was cached may be missing."""
    usage = Usage(input_tokens=tokens(reply.get("prompt_eval_count")), output_tokens=tokens(reply.get("eval_count")))
    return None if usage.total_tokens is None else usage


# The mirror half.


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply: the mirror of ``decode_response``, for fake vendors."""
    message: dict[str, Any] = {"role": "assistant", "content": response.text}
    if response.reasoning is not None:
        message["thinking"] = response.reasoning
    if response.tool_calls:
        message["tool_calls"] = [_written(call) for call in response.tool_calls]
    return {**_envelope(response), "message": message, **_end(response)}


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    return {"model": response.model, "created_at": "1970-01-01T00:00:00Z"}


def _end(response: GenerateResponse) -> dict[str, Any]:
    """Write what the last object alone says."""
    word = response.raw_finish_reason or ("length" if response.finish_reason == FinishReason.LENGTH else "stop")
    usage = response.usage or Usage()
    counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
    known = {key: value for key, value in counts.items() if value is not None}
    return {"done": True, "done_reason": word, **picked(response.extra, EXTRA), **known}


def _written(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = loads(call.arguments)
    except MalformedReply:
        arguments = call.arguments
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments}}


def frame(payload: Any) -> bytes:
    """Write one object of a stream."""
    return dumps(payload) + b"\n"


def encode_chunks(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the objects of a stream: the mirror of ``ChatStream``, for fake vendors.

    Args:
        response: the answer.
        size: most characters of text in one object.
    """
    common = _envelope(response)

    def piece(**said: Any) -> dict[str, Any]:
        return {**common, "message": {"role": "assistant", "content": "", **said}, "done": False}

    for key, text in (("thinking", response.reasoning or ""), ("content", response.text or "")):
        for start in range(0, len(text), size):
            yield piece(**{key: text[start : start + size]})
    if response.tool_calls:
        yield piece(tool_calls=[_written(call) for call in response.tool_calls])
    yield {**common, "message": {"role": "assistant", "content": ""}, **_end(response)}


def encode_error(message: str) -> dict[str, Any]:
    """Build an error body, or the line of a stream that is one: the mirror of ``decode_error``."""
    return {"error": message}
