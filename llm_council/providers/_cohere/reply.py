"""Whole replies of Cohere's chat dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_council._wire.openai_chat.calls import arguments_text, call_id
from llm_council._wire.openai_chat.reply import finish_word, get_id, picked
from llm_council._wire.payloads import get_text, malformed, need_list, need_object, tokens
from llm_council.models.messages import ReasoningPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._cohere.errors import error_inside
from llm_council.providers._cohere.request import PLAN, VENDOR, plan_part

__all__ = ["decode_response", "end_facts", "parts_to_echo", "read_call"]

_SAID = ("error", "error_type")  # why an answer failed, beside the finish reason ERROR
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
