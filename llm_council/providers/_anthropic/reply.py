"""Whole replies of Anthropic's Messages dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council._wire.payloads import dumps, get_text, malformed, need_list, need_object, tokens
from llm_council.models.messages import ToolCall
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._anthropic.errors import error_inside
from llm_council.providers._anthropic.options import DEFAULT, MessagesOptions
from llm_council.providers._anthropic.thinking import BLOCKS, parts_to_echo

__all__ = ["decode_response"]

REPLY_EXTRA = ("container", "context_management", "input_transformations", "stop_details", "stop_sequence")
USAGE_EXTRA = ("service_tier",)
_UNKNOWN = Usage()


def decode_response(
    data: Any, options: MessagesOptions = DEFAULT, *, request_id: str | None = None
) -> GenerateResponse:
    """Read a whole reply.

    Args:
        data: the reply's JSON value.
        options: in what the model differs.
        request_id: the id from the reply's headers; None takes the message's own.

    Returns:
        The answer as it is: empty text stays empty, no text is None. Blocks of thinking are in ``reasoning_parts``,
        as they were signed, with what must stand between them and those of the vendor's own tools, which are in
        ``extra["blocks"]`` too; citations are in ``extra["citations"]``. The stop reason ``pause_turn`` is no finish
        reason of ours: the vendor's tools are still at work, and go on when the turn is sent back.

    Raises:
        ApiError: the reply holds an error.
        MalformedReply: the reply is not one of this dialect.
    """
    reply = need_object(data, "$")
    request_id = request_id or get_id(reply)
    error = error_inside(reply, request_id=request_id)
    if error is not None:
        raise error
    said = _read_content(reply)
    word = stop_word(reply.get("stop_reason"))
    usage = reply.get("usage")
    return GenerateResponse(
        text="".join(said.texts) if said.texts else None,
        reasoning="".join(said.thoughts) or None,
        reasoning_parts=parts_to_echo(said.blocks, options.vendor),
        refusal=refusal_in(reply.get("stop_details")),
        tool_calls=tuple(said.calls),
        usage=read_usage(usage),
        model=get_text(reply, "model", "$") or None,
        finish_reason=FinishReason.of(word),
        raw_finish_reason=word,
        request_id=request_id,
        extra={**about(reply, usage), **kept(said.others, said.citations)},
        raw=data,
    )


@attrs.define
class _Content:
    """The blocks of a message, by what they are."""

    blocks: list[dict[str, Any]] = attrs.field(factory=list)
    texts: list[str] = attrs.field(factory=list)
    thoughts: list[str] = attrs.field(factory=list)
    calls: list[ToolCall] = attrs.field(factory=list)
    others: list[Any] = attrs.field(factory=list)
    citations: list[Any] = attrs.field(factory=list)


def _read_content(reply: Mapping[str, Any]) -> _Content:
    said = _Content()
    content = reply.get("content")
    nothing = content is None and reply.get("type") == "message"  # a refusal, for one
    for index, found in enumerate([] if nothing else need_list(content, "$.content")):
        if found is None:
            continue
        path = f"$.content[{index}]"
        block = need_object(found, path)
        word = block.get("type")
        said.blocks.append(block)
        if word == "text":
            said.texts.append(get_text(block, "text", path) or "")
            cited = block.get("citations")
            said.citations += cited if isinstance(cited, list) else []
        elif word == "tool_use":
            said.calls.append(tool_call(block, path))
        elif isinstance(word, str) and word in BLOCKS:
            found = block.get("thinking")
            said.thoughts.append(found if isinstance(found, str) else "")
        else:
            said.others.append(block)
    return said


def get_id(reply: Mapping[str, Any]) -> str | None:
    """Return the id that a message gives itself."""
    found = reply.get("id")
    return found if isinstance(found, str) and found else None


def stop_word(word: Any) -> str | None:
    """Return the vendor's word for why the model stopped."""
    return word if isinstance(word, str) and word else None


def refusal_in(details: Any) -> str | None:
    """Return why a request was refused, where ``stop_details`` says it."""
    found = details.get("explanation") if isinstance(details, dict) and details.get("type") == "refusal" else None
    return found if isinstance(found, str) and found else None


def picked(source: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return the named keys that say something."""
    return {key: source[key] for key in keys if source.get(key) not in (None, "", [], {})}


def about(reply: Mapping[str, Any], usage: Any) -> dict[str, Any]:
    """Return the vendor's own additions to a message."""
    return {**picked(reply, REPLY_EXTRA), **picked(usage if isinstance(usage, dict) else {}, USAGE_EXTRA)}


def kept(others: list[Any], citations: list[Any]) -> dict[str, Any]:
    """Return the blocks of other types, and the citations, under the names that ``extra`` has for them."""
    found = {"blocks": others, "citations": citations}
    return {key: value for key, value in found.items() if value}


def tool_call(block: Mapping[str, Any], path: str) -> ToolCall:
    """Read a call of one of the caller's tools."""
    name = get_text(block, "name", path)
    if not name:
        raise malformed(f"{path}.name", "a name", block.get("name"))
    value = block.get("input")
    return ToolCall(
        id=get_text(block, "id", path) or f"call_{name}",
        name=name,
        arguments=dumps({} if value is None else need_object(value, f"{path}.input")).decode(),
        extra=call_extra(block),
    )


def call_extra(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vendor's own keys of a call that say something."""
    own = ("type", "id", "name", "input")
    return {key: value for key, value in block.items() if key not in own and value is not None}


def read_usage(value: Any) -> Usage | None:
    """Read the tokens; None when the vendor says none.

    ``input_tokens`` on the wire leaves out what was read from and written to the cache; ours counts everything.
    """
    if not isinstance(value, dict):
        return None
    details = value.get("output_tokens_details")
    fresh = tokens(value.get("input_tokens"))
    written = tokens(value.get("cache_creation_input_tokens"))
    cached = tokens(value.get("cache_read_input_tokens"))
    usage = Usage(
        input_tokens=None if fresh is None else fresh + (written or 0) + (cached or 0),
        output_tokens=tokens(value.get("output_tokens")),
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=tokens(details.get("thinking_tokens")) if isinstance(details, dict) else None,
    )
    return None if usage == _UNKNOWN else usage
