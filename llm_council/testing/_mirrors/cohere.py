"""Fake Cohere: read requests to ``POST /v2/chat``, and write replies, streams and errors.

The documentation of the dialect: https://docs.cohere.com/v2/reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llm_council._wire.payloads import get_text, need_object
from llm_council.errors import MalformedReply
from llm_council.models.messages import Message, Part, ReasoningPart, TextPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.testing._mirrors import _shared

__all__ = ["DONE", "decode_request", "encode_error", "encode_events", "encode_response", "frame"]

DONE = b"data: [DONE]\n\n"
# https://docs.cohere.com/v2/reference/chat: ``finish_reason`` in upper case.
_FINISH_REASONS = {
    FinishReason.STOP: "COMPLETE",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.TOOL_CALLS: "TOOL_CALL",
    FinishReason.ERROR: "ERROR",
}


def decode_request(payload: Any) -> GenerateRequest:
    """Read the body of ``POST /v2/chat``.

    Fields that a ``GenerateRequest`` has no place for stay in ``extra``.

    Raises:
        MalformedReply: the payload is not a request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    facts: dict[str, Any] = {
        "messages": [_decode_turn(*item) for item in _shared.enumerate_paths(rest.pop("messages", None), "$.messages")],
        "model": _shared.take_text(rest, "model"),
        "stream": rest.pop("stream", False) is True,
        **_shared.take(rest, "max_tokens"),
        **_shared.take(rest, "temperature"),
        **_shared.take(rest, "p", "top_p"),
        **_shared.take_stop(rest, "stop_sequences"),
        **_decode_tools(rest),
        **_decode_format(rest),
        **_decode_thinking(rest),
    }
    return _shared.build_request(facts, rest)


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    strict = {"strict": True} if rest.get("strict_tools") is True else {}
    facts: dict[str, Any] = _shared.take_tools(
        rest, lambda tool: Tool.of({**tool["function"], **strict}), _shared.write_function
    )
    if facts and strict:
        del rest["strict_tools"]
    # Cohere has no ``auto``: leaving the field out means that. It cannot name one tool either.
    if facts and rest.get("tool_choice") in ("NONE", "REQUIRED"):
        facts["tool_choice"] = rest.pop("tool_choice").lower()
    return facts


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    wanted = rest.get("response_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_object":
        return {}
    schema = wanted.get("json_schema")
    if wanted.keys() == {"type"}:
        facts: dict[str, Any] = {"response_format": wanted}
    elif wanted.keys() == {"type", "json_schema"} and isinstance(schema, dict):
        facts = {"structured_output": StructuredOutput(json_schema=schema)}
    else:
        return {}
    del rest["response_format"]
    return facts


def _decode_thinking(rest: dict[str, Any]) -> dict[str, Any]:
    found = rest.get("thinking")
    if found == {"type": "disabled"}:
        config = ReasoningConfig(effort=Effort.NONE)
    elif found == {"type": "enabled"}:  # no level: every effort is sent like this
        config = ReasoningConfig(effort=Effort.MEDIUM)
    elif isinstance(found, dict) and found.keys() == {"type", "token_budget"} and found["type"] == "enabled":
        budget = found["token_budget"]
        if type(budget) is not int or budget < 1:
            return {}
        config = ReasoningConfig(budget_tokens=budget)
    else:
        return {}
    del rest["thinking"]
    return {"reasoning": config}


def _decode_turn(value: Any, path: str) -> Message:
    turn = need_object(value, path)
    role = _shared.need_text(turn, "role", path, "a role")
    parts: list[Part] = []
    plan = get_text(turn, "tool_plan", path)
    if plan is not None:
        # Cohere expects the plan back beside the calls that it planned.
        parts.append(ReasoningPart(vendor="cohere", data={"tool_plan": plan}))
    parts += _decode_content(turn.get("content"), f"{path}.content")
    calls = _shared.enumerate_paths(turn.get("tool_calls"), f"{path}.tool_calls", optional=True)
    return Message(
        role,
        parts,
        tool_calls=[_decode_call(*call) for call in calls],
        tool_call_id=get_text(turn, "tool_call_id", path),
    )


def _decode_content(value: Any, path: str) -> list[Part]:
    if isinstance(value, str):
        return [TextPart(text=value)]
    parts: list[Part] = []
    for item, here in _shared.enumerate_paths(value, path, optional=True):
        block = need_object(item, here)
        word = block.get("type")
        if word == "text":
            parts.append(TextPart(text=get_text(block, "text", here) or ""))
        elif word == "thinking":
            parts.append(ReasoningPart(text=get_text(block, "thinking", here) or "", vendor="cohere"))
        elif word == "image_url":
            parts.append(_shared.image_from_url(block, here))
        else:
            raise MalformedReply(f"{here}.type: a part of type {word!r:.80} is not known", path=here)
    return parts


def _decode_call(value: Any, path: str) -> ToolCall:
    call = need_object(value, path)
    function = need_object(call.get("function"), f"{path}.function")
    name = _shared.need_text(function, "name", f"{path}.function", "a name")
    arguments = get_text(function, "arguments", f"{path}.function") or ""
    return ToolCall(id=get_text(call, "id", path) or "", name=name, arguments=arguments)


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply."""
    message: dict[str, Any] = {"role": "assistant"}
    content = [{"type": kind, kind: text} for kind, text in _blocks(response)]
    if content:
        message["content"] = content
    for key in ("tool_plan", "citations"):
        if response.extra.get(key):
            message[key] = response.extra[key]
    if response.tool_calls:
        message["tool_calls"] = [_encode_call(call) for call in response.tool_calls]
    return {"id": response.request_id, "message": message, **_encode_end(response)}


def _blocks(response: GenerateResponse) -> list[tuple[str, str]]:
    """Return the type and the text of each content block; the text has the type as its key."""
    blocks = [("thinking", part.text) for part in response.reasoning_parts if part.text]
    if response.text is not None:
        blocks.append(("text", response.text))
    return blocks


def _encode_call(call: ToolCall, **changes: Any) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments, **changes}
    return {"id": call.id, "type": "function", "function": function}


def _encode_end(response: GenerateResponse) -> dict[str, Any]:
    """Write finish reason and usage, the fields of a reply that are also in the last event of a stream."""
    usage = response.usage or Usage()
    counts = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    # Cohere leaves unknown counts out.
    counts = {key: count for key, count in counts.items() if count is not None}
    written: dict[str, Any] = {}
    if response.extra.get("billed_units"):
        written["billed_units"] = response.extra["billed_units"]
    if counts:
        written["tokens"] = counts
    if usage.cached_tokens is not None:
        written["cached_tokens"] = usage.cached_tokens
    word = response.raw_finish_reason
    if not word and response.finish_reason is not None:
        word = _FINISH_REASONS.get(FinishReason(response.finish_reason), "COMPLETE")
    end: dict[str, Any] = {"finish_reason": word, "usage": written}
    for key in ("error", "error_type"):
        if response.extra.get(key):
            end[key] = response.extra[key]
    return end


def frame(payload: Mapping[str, Any]) -> bytes:
    """Write one event of a stream as SSE. An error has no type, and its event no name."""
    return _shared.sse_frame(payload, payload.get("type"))


def encode_events(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream.

    Args:
        response: the answer.
        size: the maximum number of characters of text in one event.
    """

    def event(kind: str, message: Mapping[str, Any] | None = None, *, index: int | None = None) -> dict[str, Any]:
        written: dict[str, Any] = {"type": kind}
        if index is not None:
            written["index"] = index
        if message:
            written["delta"] = {"message": message}
        return written

    # Order of the events: https://docs.cohere.com/v2/docs/streaming
    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield {"id": response.request_id, **event("message-start", start)}
    for index, (kind, text) in enumerate(_blocks(response)):
        yield event("content-start", {"content": {"type": kind, kind: ""}}, index=index)
        for piece in _shared.split(text, size):
            yield event("content-delta", {"content": {kind: piece}}, index=index)
        yield event("content-end", index=index)
    for piece in _shared.split(response.extra.get("tool_plan"), size):
        yield event("tool-plan-delta", {"tool_plan": piece})
    for index, call in enumerate(response.tool_calls):
        yield event("tool-call-start", {"tool_calls": _encode_call(call, arguments="")}, index=index)
        for piece in _shared.split(call.arguments, size):
            yield event("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, index=index)
        yield event("tool-call-end", index=index)
    for index, citation in enumerate(response.extra.get("citations", ())):
        yield event("citation-start", {"citations": citation}, index=index)
        yield event("citation-end", index=index)
    yield {"type": "message-end", "delta": _encode_end(response)}


def encode_error(message: str, *, request_id: str | None = None) -> dict[str, Any]:
    """Write the body of an error."""
    return {"message": message} if request_id is None else {"id": request_id, "message": message}
