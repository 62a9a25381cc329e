"""Whole replies of OpenAI's Responses dialect (API reference, "The response object")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.openai_chat.reply import (
    arguments_text,
    call_id,
    read_cost,
    read_usage,
    usage_extra,
)
from llm_council._wire.openai_chat.request import CUSTOM
from llm_council._wire.other_content import OtherContent, declare
from llm_council._wire.payloads import (
    get_object,
    get_text,
    malformed,
    need_list,
    need_object,
    pick_non_empty,
    text_or_none,
)
from llm_council._wire.responses.request import CALLS, DEFAULT, ResponsesOptions
from llm_council._wire.think import split_thoughts
from llm_council.errors import ProviderError
from llm_council.models.messages import ReasoningPart, ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse

__all__ = ["decode_response"]

# API reference, "The response object", output and status: pictures, and tools that the caller runs.
declare(
    OtherContent(
        parts=frozenset(
            {
                "image_generation_call",
                "computer_call",
                "local_shell_call",
                "shell_call",
                "apply_patch_call",
                "mcp_approval_request",
            }
        ),
        client_parts=frozenset({"tool_search_call"}),
        waiting=("queued", "in_progress"),
    )
)
REPLY_EXTRA = ("service_tier",)
TOKENS = ("input_tokens", "output_tokens")
"""The keys of the tokens, see ``read_usage``."""
# The keys of a call's item that ToolCall holds, and its status; the others go into ``extra``.
CALL = ("type", "call_id", "name", "arguments", "input", "status")
_BARREN = ("cancelled", "queued", "in_progress", "incomplete")
_PARAGRAPH = "\n\n"  # paragraphs of reasoning


def decode_response(
    data: Any, options: ResponsesOptions = DEFAULT, *, request_id: str | None = None
) -> GenerateResponse:
    """Decode a whole reply.

    Args:
        data: the reply's JSON value.
        options: the server's differences.
        request_id: the id from the reply's headers; None takes the id in the reply.

    Returns:
        The answer. The finish reason of a refusal is ``content_filter``, of a call ``tool_calls``.
        ``raw_finish_reason`` is the reason why the reply is incomplete, else its status. ``extra["response_id"]`` is
        the value for ``previous_response_id``, for exchanges that the vendor keeps.

    Raises:
        ApiError: the reply holds an error, or has failed.
        MalformedReply: the reply is not one of this dialect.
    """
    reply = need_object(data, "$")
    request_id = request_id or text_or_none(reply.get("id"))
    error = failure_in(reply, request_id=request_id)
    if error is not None:
        raise error
    items = read_items(reply)
    texts, refusals = message_texts(items, "output_text", "text"), message_texts(items, "refusal", "refusal")
    refusal = "".join(refusals) or None
    calls = [read_call(item, index, f"$.output[{at}]") for index, (at, item) in enumerate(of_type(items, *CALLS))]
    word, finish = read_finish(reply, called=bool(calls), refused=refusal is not None)
    text = "".join(texts) if texts else None
    thoughts = [part for _, item in of_type(items, "reasoning") for part in reasoning_texts(item)]
    if options.think_tags and text:
        found, answer = split_thoughts(text)
        if found or answer != text:
            text = answer or None
            thoughts += [found] if found else []
    return GenerateResponse(
        text=text,
        reasoning=_PARAGRAPH.join(thoughts) or None,
        reasoning_parts=parts_to_echo(items, options),
        refusal=refusal,
        tool_calls=calls,
        usage=read_usage(reply.get("usage"), *TOKENS),
        cost=read_cost(reply.get("usage")),
        model=get_text(reply, "model", "$") or None,
        finish_reason=finish,
        raw_finish_reason=word,
        request_id=request_id,
        extra=reply_extra(reply, items),
        raw=data,
    )


def failure_in(
    reply: Mapping[str, Any], *, request_id: str | None = None, partial: str | None = None
) -> ProviderError | None:
    """Return the error in a reply with HTTP status 200, or of its status ``"failed"``; None if it has none.

    The error's own code decides its class.
    """
    if reply.get("error"):
        return error_inside(reply, request_id=request_id, partial=partial)
    if reply.get("status") == "failed":
        stand_in = {"error": {"message": "the model's server failed while it answered", "code": "server_error"}}
        return error_inside({**reply, **stand_in}, request_id=request_id, partial=partial)
    return None


def read_items(reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the output items of a reply; a reply that was cancelled or has not ended may have none."""
    output = reply.get("output")
    listed = [] if output is None and reply.get("status") in _BARREN else need_list(output, "$.output")
    return [need_object(item, f"$.output[{index}]") for index, item in enumerate(listed)]


def of_type(items: Sequence[dict[str, Any]], *words: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the items of these types, with their indices."""
    return [(index, item) for index, item in enumerate(items) if item.get("type") in words]


def message_parts(item: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    """Return the parts of an output message."""
    content = item.get("content")
    listed = [] if content is None else need_list(content, f"{path}.content")
    return [need_object(part, f"{path}.content[{index}]") for index, part in enumerate(listed)]


def message_texts(items: Sequence[dict[str, Any]], word: str, key: str) -> list[str]:
    """Return the texts of all message parts of one type."""
    return [
        get_text(part, key, f"$.output[{at}].content[{index}]") or ""
        for at, item in of_type(items, "message")
        for index, part in enumerate(message_parts(item, f"$.output[{at}]"))
        if part.get("type") == word
    ]


def reasoning_texts(item: Mapping[str, Any]) -> list[str]:
    """Return the paragraphs of a reasoning item: the reasoning itself if the server shows it, else its summary."""
    # OpenAI shows summaries alone; servers of open models show the reasoning itself, as parts of type reasoning_text.
    for key in ("content", "summary"):
        listed = item.get(key)
        found = [part.get("text") for part in listed if isinstance(part, dict)] if isinstance(listed, list) else []
        words = [text for text in found if isinstance(text, str) and text]
        if words:
            return words
    return []


def read_call(item: Mapping[str, Any], index: int, path: str) -> ToolCall:
    """Decode a call. Its result refers to ``call_id``; the item's own ``id`` stays in ``extra``."""
    name = get_text(item, "name", path)
    if not name:
        raise malformed(f"{path}.name", "a name", item.get("name"))
    return ToolCall(
        id=call_id(item.get("call_id") or item.get("id"), index),
        name=name,
        arguments=call_arguments(item, path),
        extra=call_extra(item),
    )


def call_arguments(item: Mapping[str, Any], path: str) -> str:
    """Return the arguments of a call: JSON text, or free text for a custom tool."""
    if item.get("type") == "custom_tool_call":
        return get_text(item, "input", path) or ""
    return arguments_text(item.get("arguments"), f"{path}.arguments")


def call_extra(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vendor's own keys of a call; ``type`` marks the call of a custom tool."""
    extra = {key: value for key, value in item.items() if key not in CALL and value is not None}
    return {**extra, "type": CUSTOM} if item.get("type") == "custom_tool_call" else extra


def read_finish(reply: Mapping[str, Any], *, called: bool, refused: bool) -> tuple[str | None, FinishReason | None]:
    """Return the finish reason, as the vendor names it and as a ``FinishReason``."""
    status = reply.get("status")
    # API reference, incomplete_details.reason: max_output_tokens or content_filter.
    reason = text_or_none(get_object(reply, "incomplete_details").get("reason")) if status == "incomplete" else None
    word = reason or text_or_none(status)
    if refused:
        return word, FinishReason.CONTENT_FILTER
    finish = FinishReason.of(word)
    # The status of a reply that ends with calls is "completed", as of any other.
    return word, FinishReason.TOOL_CALLS if called and finish is FinishReason.STOP else finish


def parts_to_echo(items: Sequence[dict[str, Any]], options: ResponsesOptions) -> tuple[ReasoningPart, ...]:
    """Return the items that must be sent back unchanged, up to the last one that a ``Message`` cannot express.

    A ``Message`` holds text and calls. It cannot express reasoning (which the vendor refuses without the item after
    it), calls of the vendor's own tools, or a message's ``phase`` (a comment before the answer).
    """
    # Guide "Reasoning models": a reasoning item without the item that it led to is answered with 400.
    last = -1
    for index, item in enumerate(items):
        if item.get("type") not in ("message", *CALLS) or item.get("phase") is not None:
            last = index
    parts = []
    for item in items[: last + 1]:
        text, signature = "", None
        if item.get("type") == "reasoning":
            text, signature = _PARAGRAPH.join(reasoning_texts(item)), text_or_none(item.get("encrypted_content"))
        parts.append(ReasoningPart(text=text, signature=signature, vendor=options.vendor, data=item))
    return tuple(parts)


def reply_extra(reply: Mapping[str, Any], items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of a reply beside its answer, for ``extra``."""
    extra = {**pick_non_empty(reply, REPLY_EXTRA), **usage_extra(reply.get("usage"))}
    if text_or_none(reply.get("id")):
        extra["response_id"] = reply["id"]
    parts = [part for at, item in of_type(items, "message") for part in message_parts(item, f"$.output[{at}]")]
    for key in ("annotations", "logprobs"):
        listed = [note for part in parts if isinstance(part.get(key), list) for note in part[key]]
        if listed:
            extra[key] = listed
    return extra
