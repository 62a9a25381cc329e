"""Whole replies of Cohere's chat dialect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llm_council._wire.openai_chat.reply import is_empty_call, read_call
from llm_council._wire.other_content import OtherContent, declare
from llm_council._wire.payloads import (
    get_object,
    get_text,
    need_list,
    need_object,
    pick_non_empty,
    text_or_none,
    tokens,
)
from llm_council.models.messages import ReasoningPart
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._cohere.errors import error_inside
from llm_council.providers._cohere.request import PLAN, VENDOR

__all__ = ["decode_response", "end_facts", "parts_to_echo"]

declare(OtherContent(errors=("error",)))
_FAILURE = ("error", "error_type")  # the cause of the finish reason ERROR


def decode_response(data: Any, *, request_id: str | None = None, model: str | None = None) -> GenerateResponse:
    """Decode a whole reply.

    Args:
        data: the JSON value of the reply.
        request_id: the id from the HTTP headers; None means the ``id`` in the reply.
        model: the model that the request named; the reply does not name one.

    Returns:
        The answer. ``extra`` holds ``tool_plan``, ``citations`` and ``billed_units`` where the reply has them.

    Raises:
        ApiError: the reply is an error.
        MalformedReply: the reply is not of this dialect.
    """
    reply = need_object(data, "$")
    request_id = request_id or text_or_none(reply.get("id"))
    error = error_inside(reply, request_id=request_id)
    if error is not None:
        raise error
    message = need_object(reply.get("message"), "$.message")
    # The content may be null or missing beside tool calls.
    texts, thoughts = _read_content(message.get("content"))
    plan = get_text(message, PLAN, "$.message") or ""
    calls = message.get("tool_calls")
    listed = [] if calls is None else need_list(calls, "$.message.tool_calls")
    listed = [call for call in listed if not (isinstance(call, dict) and is_empty_call(call.get("function")))]
    facts = end_facts(reply)
    own = {**pick_non_empty(message, (PLAN, "citations")), **pick_non_empty(reply, ("logprobs",))}
    extra = {**own, **facts.pop("extra", {})}
    return GenerateResponse(
        text="".join(texts) if texts else None,
        reasoning="".join(thoughts) or None,
        reasoning_parts=parts_to_echo(thoughts, plan),
        tool_calls=[read_call(call, index, f"$.message.tool_calls[{index}]") for index, call in enumerate(listed)],
        model=model,
        request_id=request_id,
        extra=extra,
        raw=data,
        **facts,
    )


def _read_content(value: Any) -> tuple[list[str], list[str]]:
    """Return the texts and the thoughts of a message's content. Blocks of unknown types are skipped."""
    if value is None:
        return [], []
    if isinstance(value, str):
        return [value], []
    found: dict[str, list[str]] = {"text": [], "thinking": []}
    listed = value
    if isinstance(value, dict):  # one block alone, or an answer that a gateway has decoded already
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in found:
            return [json.dumps(value, ensure_ascii=False)], []
        listed = [value]
    for index, item in enumerate(need_list(listed, "$.message.content")):
        path = f"$.message.content[{index}]"
        block = need_object(item, path)
        kind = block.get("type")
        if isinstance(kind, str) and kind in found:
            found[kind].append(get_text(block, kind, path) or "")  # the key of the text is the block's type
    return found["text"], found["thinking"]


def parts_to_echo(thoughts: Iterable[str], plan: str) -> tuple[ReasoningPart, ...]:
    """Return the thinking and the plan as parts of the assistant's message in a later request."""
    parts = [ReasoningPart(text=text, vendor=VENDOR) for text in thoughts if text]
    if plan:
        parts.append(ReasoningPart(vendor=VENDOR, data={PLAN: plan}))
    return tuple(parts)


def end_facts(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return finish reason, usage and billed units, which a whole reply and the last event of a stream share."""
    facts: dict[str, Any] = {}
    word = text_or_none(source.get("finish_reason"))
    if word is not None:
        facts["raw_finish_reason"] = word
        finish = FinishReason.of(word)
        if finish is not None:
            facts["finish_reason"] = finish
    usage = get_object(source, "usage")
    counted = read_usage(usage)
    if counted is not None:
        facts["usage"] = counted
    extra = {**pick_non_empty(usage, ("billed_units",)), **pick_non_empty(source, _FAILURE)}
    return {**facts, "extra": extra} if extra else facts


def read_usage(usage: Mapping[str, Any]) -> Usage | None:
    """Return the counts of the tokens that were used, not of those that are billed; None if the reply has none."""
    # "billed_units" has smaller numbers (cohere.types.UsageBilledUnits).
    used = get_object(usage, "tokens")
    counted = Usage(
        input_tokens=tokens(used.get("input_tokens")),
        output_tokens=tokens(used.get("output_tokens")),
        cached_tokens=tokens(usage.get("cached_tokens")),
    )
    return None if counted == Usage() else counted
