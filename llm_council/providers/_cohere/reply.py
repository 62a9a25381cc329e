"""Whole replies of Cohere's chat dialect, and the mirror half: replies and streams as the vendor writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_council._wire.openai_chat.calls import arguments_text, call_id
from llm_council._wire.openai_chat.reply import finish_word, get_id, picked
from llm_council._wire.payloads import dumps, get_text, malformed, need_list, need_object, tokens
from llm_council.models.messages import ReasoningPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._cohere.errors import error_inside
from llm_council.providers._cohere.request import PLAN, VENDOR, plan_part

__all__ = [
    "DONE",
    "decode_response",
    "encode_events",
    "encode_response",
    "end_facts",
    "frame",
    "parts_to_echo",
    "read_call",
]

DONE = b"data: [DONE]\n\n"
_SAID = ("error", "error_type")  # why an answer failed, beside the finish reason ERROR
_WORDS = {
    FinishReason.STOP: "COMPLETE",
    FinishReason.LENGTH: "MAX_TOKENS",
    FinishReason.TOOL_CALLS: "TOOL_CALL",
    FinishReason.ERROR: "ERROR",
}
_UNKNOWN = Usage()


def decode_response(data: Any, *, request_id: str | None = None, model: str | None = None) -> GenerateResponse:
    """Read a whole reply.

    Args:
        data: the reply's JSON value.
        request_id: the id from the reply's headers; None takes the one in the reply.
        model: the model that was asked; the reply does not say which one answered.

    Returns:
        The answer. The plan that the model made before it called tools, citations, and what is billed are in
        ``extra``: ``tool_plan``, ``citations``, ``billed_units``.

    Raises:
        ApiError: the reply is an error.
        MalformedReply: the reply is not one of this dialect.
    """
    reply = need_object(data, "$")
    request_id = request_id or get_id(reply)
    error = error_inside(reply, request_id=request_id)
    if error is not None:
        raise error
    message = need_object(reply.get("message"), "$.message")
    texts, thoughts = _read_content(message.get("content"))
    plan = get_text(message, PLAN, "$.message") or ""
    calls = message.get("tool_calls")
    listed = [] if calls is None else need_list(calls, "$.message.tool_calls")
    extra = {**({PLAN: plan} if plan else {}), **picked(message, ("citations",))}
    facts = end_facts(reply)
    return GenerateResponse(
        text="".join(texts) if texts else None,
        reasoning="".join(thoughts) or None,
        reasoning_parts=parts_to_echo(thoughts, plan),
        tool_calls=[read_call(call, index, f"$.message.tool_calls[{index}]") for index, call in enumerate(listed)],
        model=model,
        request_id=request_id,
        extra={**extra, **facts.pop("extra", {})},
        raw=data,
        **facts,
    )


def _read_content(value: Any) -> tuple[list[str], list[str]]:
    """Return texts and thoughts; blocks of other types are left out."""
    if value is None or isinstance(value, str):
        return ([] if value is None else [value]), []
    found: dict[str, list[str]] = {"text": [], "thinking": []}
    for index, item in enumerate(need_list(value, "$.message.content")):
        path = f"$.message.content[{index}]"
        block = need_object(item, path)
        word = block.get("type")
        if isinstance(word, str) and word in found:
            found[word].append(get_text(block, word, path) or "")
    return found["text"], found["thinking"]


def parts_to_echo(thoughts: Iterable[str], plan: str) -> tuple[ReasoningPart, ...]:
    """Return what goes back on an assistant's turn beside its text and calls."""
    blocks = tuple(ReasoningPart(text=text, vendor=VENDOR) for text in thoughts if text)
    return (*blocks, plan_part(plan)) if plan else blocks


def read_call(value: Any, index: int, path: str) -> ToolCall:
    """Read a tool call; the text of its arguments may be missing, and is ``null`` for some models without any."""
    call = need_object(value, path)
    function = need_object(call.get("function"), f"{path}.function")
    name = get_text(function, "name", f"{path}.function")
    if not name:
        raise malformed(f"{path}.function.name", "a name", function.get("name"))
    arguments = arguments_text(function.get("arguments"), f"{path}.function.arguments")
    return ToolCall(id=call_id(call.get("id"), index), name=name, arguments=arguments)


def end_facts(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return finish reason, usage and what is billed, which stand in a reply and in the last event alike."""
    facts: dict[str, Any] = {}
    word = finish_word(source.get("finish_reason"))
    if word is not None:
        facts["raw_finish_reason"] = word
        finish = FinishReason.of(word)
        if finish is not None:
            facts["finish_reason"] = finish
    found = source.get("usage")
    usage = found if isinstance(found, dict) else {}
    counted = read_usage(usage)
    if counted is not None:
        facts["usage"] = counted
    extra = {**picked(usage, ("billed_units",)), **picked(source, _SAID)}
    return {**facts, "extra": extra} if extra else facts


def read_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Read the tokens that were used, which are more than those that are billed; None when the vendor says none."""
    found = usage.get("tokens")
    used = found if isinstance(found, dict) else {}
    counted = Usage(
        input_tokens=tokens(used.get("input_tokens")),
        output_tokens=tokens(used.get("output_tokens")),
        cached_tokens=tokens(usage.get("cached_tokens")),
    )
    return None if counted == _UNKNOWN else counted


# The mirror half.


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply: the mirror of ``decode_response``, for fake vendors."""
    message: dict[str, Any] = {"role": "assistant"}
    content = [{"type": "thinking", "thinking": text} for text in _thoughts(response)]
    if response.text is not None:
        content.append({"type": "text", "text": response.text})
    if content:
        message["content"] = content
    plan = response.extra.get(PLAN)
    if plan:
        message[PLAN] = plan
    if response.tool_calls:
        message["tool_calls"] = [_written(call) for call in response.tool_calls]
    message.update(picked(response.extra, ("citations",)))
    return {"id": response.request_id, "message": message, **_end(response)}


def _thoughts(response: GenerateResponse) -> list[str]:
    return [part.text for part in response.reasoning_parts if part.text]


def _written(call: ToolCall, **changes: Any) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments, **changes}
    return {"id": call.id, "type": "function", "function": function}


def _end(response: GenerateResponse) -> dict[str, Any]:
    finish = response.finish_reason
    word = response.raw_finish_reason or (None if finish is None else _WORDS.get(FinishReason(finish), "COMPLETE"))
    end: dict[str, Any] = {"finish_reason": word, **picked(response.extra, _SAID)}
    usage = response.usage or Usage()
    counts = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    known = {key: count for key, count in counts.items() if count is not None}
    end["usage"] = {
        **picked(response.extra, ("billed_units",)),
        **({"tokens": known} if known else {}),
        **({} if usage.cached_tokens is None else {"cached_tokens": usage.cached_tokens}),
    }
    return end


def frame(payload: Mapping[str, Any]) -> bytes:
    """Write one event of a stream, named after its type."""
    named = f"event: {payload['type']}\n".encode() if "type" in payload else b""  # an error has none
    return named + b"data: " + dumps(payload) + b"\n\n"


def encode_events(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream: the mirror of ``EventDecoder``, for fake vendors.

    Args:
        response: the answer.
        size: most characters of text in one event.
    """

    def event(kind: str, message: Mapping[str, Any] | None = None, *, index: int | None = None) -> dict[str, Any]:
        at = {} if index is None else {"index": index}
        return {"type": kind, **at, **({"delta": {"message": message}} if message else {})}

    empty: dict[str, Any] = {"content": [], PLAN: "", "tool_calls": [], "citations": []}
    yield {"id": response.request_id, **event("message-start", {"role": "assistant", **empty})}
    blocks = [("thinking", text) for text in _thoughts(response)]
    blocks += [] if response.text is None else [("text", response.text)]
    for index, (kind, text) in enumerate(blocks):
        yield event("content-start", {"content": {"type": kind, kind: ""}}, index=index)
        for piece in _pieces(text, size):
            yield event("content-delta", {"content": {kind: piece}}, index=index)
        yield event("content-end", index=index)
    for piece in _pieces(response.extra.get(PLAN) or "", size):
        yield event("tool-plan-delta", {PLAN: piece})
    for index, call in enumerate(response.tool_calls):
        yield event("tool-call-start", {"tool_calls": _written(call, arguments="")}, index=index)
        for piece in _pieces(call.arguments, size):
            yield event("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, index=index)
        yield event("tool-call-end", index=index)
    for index, citation in enumerate(response.extra.get("citations", ())):
        yield event("citation-start", {"citations": citation}, index=index)
        yield event("citation-end", index=index)
    yield {"type": "message-end", "delta": _end(response)}


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))
