"""Whole replies of Ollama's chat dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.openai_chat.reply import is_empty_call, read_call
from llm_council._wire.payloads import get_text, need_list, need_object, pick_non_empty, text_or_none, tokens
from llm_council._wire.think import split_thoughts
from llm_council.models.messages import ReasoningPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._ollama.request import DEFAULT, VENDOR, ChatOptions

__all__ = ["EXTRA", "decode_response", "read_calls", "read_finish", "read_text", "read_usage", "thoughts_to_echo"]

_DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")  # nanoseconds
# "remote_model" and "remote_host" are the upstream model and server of a cloud model (api.ChatResponse in its source).
EXTRA = (*_DURATIONS, "remote_model", "remote_host", "logprobs")


def decode_response(data: Any, options: ChatOptions = DEFAULT, *, request_id: str | None = None) -> GenerateResponse:
    """Decode a whole reply.

    Args:
        data: the JSON value of the reply.
        options: how the model differs.
        request_id: the id from the HTTP headers; the dialect itself has none.

    Returns:
        The answer. Its finish reason is ``tool_calls`` where it has some, although the server writes ``"stop"``.
        ``extra`` holds the durations, in nanoseconds.

    Raises:
        ApiError: the reply is an error.
        MalformedReply: the reply is not of this dialect.
    """
    reply = need_object(data, "$")
    error = error_inside(reply, request_id=request_id)
    if error is not None:
        raise error
    message = need_object(reply.get("message"), "$.message")
    # "thinking" is set by servers that know the model's template; older ones leave <think> tags in the text.
    text = read_text(message)
    thoughts = get_text(message, "thinking", "$.message") or ""
    if options.think_tags and text:
        inside, answer = split_thoughts(text)
        if inside or answer != text:
            text, thoughts = answer or None, thoughts + inside
    calls = read_calls(message.get("tool_calls"))
    word = text_or_none(reply.get("done_reason"))
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
        extra=pick_non_empty(reply, EXTRA),
        raw=data,
    )


def read_text(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message; for a content that a gateway has decoded already, its JSON."""
    content = message.get("content")
    if isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    return get_text(message, "content", "$.message")


def thoughts_to_echo(thoughts: str) -> tuple[ReasoningPart, ...]:
    """Return the reasoning as parts of the assistant's message in a later request."""
    return (ReasoningPart(text=thoughts, vendor=VENDOR),) if thoughts else ()


def read_calls(value: Any, first: int = 0) -> tuple[ToolCall, ...]:
    """Decode tool calls, which always arrive whole. A missing id becomes a new one.

    Args:
        value: the calls.
        first: the index of the first one in the answer.
    """
    path = "$.message.tool_calls"
    listed = [] if value is None else need_list(value, path)
    listed = [call for call in listed if not (isinstance(call, dict) and is_empty_call(call.get("function")))]
    return tuple(read_call(call, first + index, f"{path}[{index}]") for index, call in enumerate(listed))


def read_finish(word: str | None, *, has_calls: bool) -> FinishReason | None:
    """Return the finish reason; None for ``load`` and ``unload``, which are about the server and not the answer."""
    # The server writes "stop" after tool calls too.
    found = FinishReason.of(word)
    return FinishReason.TOOL_CALLS if has_calls and found in (None, FinishReason.STOP) else found


def read_usage(reply: Mapping[str, Any]) -> Usage | None:
    """Return the token counts. The server may leave out the count of a prompt that it had cached."""
    usage = Usage(input_tokens=tokens(reply.get("prompt_eval_count")), output_tokens=tokens(reply.get("eval_count")))
    return None if usage.total_tokens is None else usage
