"""Whole replies of Anthropic's Messages dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from llm_council._wire.other_content import OtherContent, declare
from llm_council._wire.payloads import (
    dumps,
    get_text,
    malformed,
    need_list,
    need_object,
    pick_non_empty,
    text_or_none,
    tokens,
)
from llm_council.models.messages import ReasoningPart, ToolCall, new_call_id
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._anthropic.errors import error_inside
from llm_council.providers._anthropic.request import DEFAULT, MessagesOptions

__all__ = ["decode_response"]

declare(OtherContent(continued=("pause_turn", "compaction")))  # docs, "Handling stop reasons"
REPLY_EXTRA = ("container", "context_management", "input_transformations", "stop_details", "stop_sequence")
USAGE_EXTRA = ("service_tier", "server_tool_use", "iterations")

THINKING = frozenset({"thinking", "redacted_thinking"})
"""The types of content blocks that hold thinking."""

PLAIN_BLOCKS = ("text", "tool_use")
"""The types of content blocks that an assistant's message can express without reasoning parts."""


def decode_response(
    data: Any, options: MessagesOptions = DEFAULT, *, request_id: str | None = None
) -> GenerateResponse:
    """Decode a whole reply.

    Args:
        data: the JSON value of the reply.
        options: how the model differs.
        request_id: the id from the HTTP headers; None means the message's own id.

    Returns:
        The answer. Empty text stays empty; without a text block it is None. ``reasoning_parts`` holds the blocks that a
        later request must send back unchanged: signed thinking, the blocks of the vendor's own tools, and what stands
        between them. ``extra`` holds ``blocks`` of other types and ``citations``. The stop reason ``pause_turn`` has no
        finish reason: the vendor's tools are still running, and continue once the turn is sent back.

    Raises:
        ApiError: the reply is an error.
        MalformedReply: the reply is not of this dialect.
    """
    reply = need_object(data, "$")
    request_id = request_id or text_or_none(reply.get("id"))
    error = error_inside(reply, request_id=request_id)
    if error is not None:
        raise error
    blocks = _read_blocks(reply)  # by path, which errors name
    kinds = {path: text_or_none(block.get("type")) for path, block in blocks.items()}
    texts = {path: block for path, block in blocks.items() if kinds[path] == "text"}
    calls = [path for path in blocks if kinds[path] == "tool_use"]
    thoughts = [block.get("thinking") for path, block in blocks.items() if kinds[path] in THINKING]
    others = [block for path, block in blocks.items() if kinds[path] not in (*PLAIN_BLOCKS, *THINKING)]
    citations = [block["citations"] for block in texts.values() if isinstance(block.get("citations"), list)]
    word = text_or_none(reply.get("stop_reason"))
    usage = reply.get("usage")
    return GenerateResponse(
        text="".join(get_text(block, "text", path) or "" for path, block in texts.items()) if texts else None,
        reasoning="".join(thought for thought in thoughts if isinstance(thought, str)) or None,
        reasoning_parts=parts_to_echo(blocks.values(), options.vendor),
        refusal=read_refusal(reply.get("stop_details")),
        tool_calls=[read_call(blocks[path], index, path) for index, path in enumerate(calls)],
        usage=read_usage(usage),
        model=get_text(reply, "model", "$") or None,
        finish_reason=FinishReason.of(word),
        raw_finish_reason=word,
        request_id=request_id,
        extra={**message_extra(reply, usage), **content_extra(others, list(chain(*citations)))},
        raw=data,
    )


def _read_blocks(reply: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the content blocks of a message, by their path in the reply."""
    content = reply.get("content")
    if content is None and reply.get("type") == "message":  # servers write null for a refusal
        return {}
    paths = {f"$.content[{index}]": item for index, item in enumerate(need_list(content, "$.content"))}
    return {path: need_object(item, path) for path, item in paths.items() if item is not None}


def parts_to_echo(blocks: Iterable[Mapping[str, Any]], vendor: str) -> tuple[ReasoningPart, ...]:
    """Return the blocks that a later request must send back unchanged, as reasoning parts.

    These are all blocks up to the last one that is neither text nor a tool call. A message expresses text and calls
    itself, but not thinking, nor the results of the vendor's own tools; and the API checks their order.
    """
    parts: list[ReasoningPart] = []
    pending: list[ReasoningPart] = []
    for block in blocks:
        if block.get("type") not in PLAIN_BLOCKS:
            parts += [*pending, reasoning_part(block, vendor)]
            pending = []
        elif block.get("type") != "text" or block.get("text"):  # the API rejects empty text
            non_empty = {key: value for key, value in block.items() if value not in (None, [])}
            pending.append(reasoning_part(non_empty, vendor))
    return tuple(parts)


def reasoning_part(block: Mapping[str, Any], vendor: str) -> ReasoningPart:
    """Wrap a content block, unchanged, in a reasoning part with the block's thinking and signature."""
    text, signature = block.get("thinking"), block.get("signature")
    return ReasoningPart(
        text=text if isinstance(text, str) else "",
        signature=signature if isinstance(signature, str) and signature else None,
        vendor=vendor,
        data=block,
    )


def read_refusal(details: Any) -> str | None:
    """Return the explanation of a refusal in ``stop_details``; None if there is none."""
    if not isinstance(details, dict) or details.get("type") != "refusal":
        return None
    explanation = details.get("explanation")
    return explanation if isinstance(explanation, str) and explanation else None


def message_extra(reply: Mapping[str, Any], usage: Any) -> dict[str, Any]:
    """Return the fields of a message and its usage that go into ``extra``."""
    counts = usage if isinstance(usage, dict) else {}
    return {**pick_non_empty(reply, REPLY_EXTRA), **pick_non_empty(counts, USAGE_EXTRA)}


def content_extra(others: list[Any], citations: list[Any]) -> dict[str, Any]:
    """Return the blocks of other types and the citations as they go into ``extra``."""
    return pick_non_empty({"blocks": others, "citations": citations}, ("blocks", "citations"))


def read_call(block: Mapping[str, Any], index: int, path: str) -> ToolCall:
    """Decode the ``tool_use`` block with this index among the calls; its input is an object."""
    name = get_text(block, "name", path)
    if not name:
        raise malformed(f"{path}.name", "a name", block.get("name"))
    value = block.get("input")
    return ToolCall(
        id=get_text(block, "id", path) or new_call_id(index),
        name=name,
        arguments=dumps({} if value is None else need_object(value, f"{path}.input")).decode(),
        extra=call_extra(block),
    )


def call_extra(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``tool_use`` block that ``ToolCall`` lacks, such as ``caller``."""
    known = ("type", "id", "name", "input")
    return {key: value for key, value in block.items() if key not in known and value is not None}


def read_usage(value: Any) -> Usage | None:
    """Return the token counts; None when the reply has none.

    Where the vendor samples several times for one answer, the top-level counts leave those of a compaction out. All
    that the model took in and wrote is the sum over ``iterations`` (Anthropic's docs, "Compaction at a token
    threshold", usage). Tokens of an advisor are those of another model, with other prices; ``extra`` keeps them.
    """
    if not isinstance(value, dict):
        return None
    details = value.get("output_tokens_details")
    usage = _read_counts(value, tokens(details.get("thinking_tokens")) if isinstance(details, dict) else None)
    iterations = value.get("iterations")
    rows = [row for row in iterations if isinstance(row, dict)] if isinstance(iterations, list) else []
    rows = [row for row in rows if row.get("type") != _ADVISOR]
    if rows:
        total = sum((_read_counts(row) for row in rows), Usage())
        # Programs that add up several turns list the iterations of the last turn only.
        usage = Usage.counted(**{name: _larger(getattr(usage, name), getattr(total, name)) for name in _COUNTS})
    return None if usage == Usage() else usage


_ADVISOR = "advisor_message"  # anthropic.types.beta.BetaAdvisorMessageIterationUsage
_COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def _read_counts(value: Mapping[str, Any], reasoning: int | None = None) -> Usage:
    uncached = tokens(value.get("input_tokens"))
    written = tokens(value.get("cache_creation_input_tokens"))
    cached = tokens(value.get("cache_read_input_tokens"))
    return Usage(
        # The API's input_tokens excludes cached tokens; Usage counts them (anthropic.types.Message, "usage").
        input_tokens=None if uncached is None else uncached + (written or 0) + (cached or 0),
        output_tokens=tokens(value.get("output_tokens")),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


def _larger(one: int | None, other: int | None) -> int | None:
    known = [count for count in (one, other) if count is not None]
    return max(known, default=None)


def later_counts(known: dict[str, Any], usage: Mapping[str, Any], *, answered: bool) -> dict[str, Any]:
    """Return the usage of a stream after another report; see ``reading.later_usage``, which does so for one sum.

    Servers of the dialect count the input in ``message_start`` and write 0 for it in ``message_delta``, or the reverse.
    """

    def replaces(key: str, value: Any) -> bool:
        return value != 0 or not known.get(key) or (key == "output_tokens" and not answered)

    return {**known, **{key: value for key, value in usage.items() if value is not None and replaces(key, value)}}
