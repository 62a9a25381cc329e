"""Fake OpenAI: read requests to ``POST /chat/completions``, and write replies, streams and errors.

The documentation of the dialect: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_council._wire.openai_chat.reply import CHOICE_EXTRA, MESSAGE_EXTRA, REPLY_EXTRA, reasoning_part
from llm_council._wire.openai_chat.request import (
    CUSTOM,
    DEFAULT,
    THINKING,
    USAGE_IN_STREAM,
    ChatOptions,
    ReasoningStyle,
    encode_choice,
    encode_reasoning,
    encode_tool,
)
from llm_council._wire.payloads import get_text, kind, malformed, need_list, need_object, pick_non_empty
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import AudioPart, DocumentPart, Message, Part, ReasoningPart, TextPart, ToolCall
from llm_council.models.reply import GenerateResponse, Usage
from llm_council.models.request import GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.testing._mirrors import _shared

__all__ = ["DONE", "decode_request", "encode_chunks", "encode_error", "encode_response", "frame"]

DONE = b"data: [DONE]\n\n"
_FORMATS = {"mp3": "mpeg", "m4a": "mp4"}  # the formats of sound whose media types have another name
# OpenAI's schema allows these characters, at most 64, in the name of a JSON schema.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


def decode_request(payload: Any, options: ChatOptions = DEFAULT) -> GenerateRequest:
    """Read the body of ``POST /chat/completions``.

    Fields that a ``GenerateRequest`` has no place for, or that ``encode_request`` writes in another form, stay in
    ``extra``.

    Raises:
        MalformedReply: the payload is not a request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    turns = _shared.enumerate_paths(rest.pop("messages", None), "$.messages")
    if isinstance(rest.get("stop"), str):
        rest["stop"] = [rest["stop"]]
    facts: dict[str, Any] = {
        "messages": [_decode_turn(turn, path, options) for turn, path in turns],
        "model": _shared.take_text(rest, "model"),
        "stream": rest.pop("stream", False) is True,
        **_shared.take(rest, options.max_tokens_field, "max_tokens"),
        **_shared.take(rest, "temperature"),
        **_shared.take(rest, "top_p"),
        **_shared.take_stop(rest, "stop"),
        **_decode_tools(rest),
        **_decode_format(rest),
        **(_shared.take_cache(rest) if options.cache_control else {}),
        **_decode_reasoning(rest, options),
    }
    # The encoder adds this to every stream, so it is not a wish of the caller.
    if facts["stream"] and options.stream_usage and rest.get("stream_options") == USAGE_IN_STREAM:
        del rest["stream_options"]
    _shared.drop_common(rest, options.body)
    return _shared.build_request(facts, rest)


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = _shared.take_tools(rest, lambda tool: Tool.of(tool["function"]), encode_tool)
    choice = rest.get("tool_choice")
    named = choice.get("function") if isinstance(choice, dict) else None
    name = named.get("name") if isinstance(named, dict) else choice
    if isinstance(name, str) and encode_choice(name) == choice:
        facts["tool_choice"] = name
        del rest["tool_choice"]
    return facts


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    wanted = rest.pop("response_format", None)
    if wanted is None:
        return {}
    if not isinstance(wanted, dict):
        raise malformed("$.response_format", "an object", wanted)
    inner = wanted.get("json_schema")
    if (
        isinstance(inner, dict)
        and inner.keys() == {"name", "schema", "strict"}
        and wanted.keys() == {"type", "json_schema"}
    ):
        name, schema, strict = inner["name"], inner["schema"], inner["strict"]
        plain = isinstance(name, str) and 0 < len(name) <= 64 and not _NOT_IN_NAMES.search(name)
        if plain and isinstance(schema, dict) and isinstance(strict, bool):
            return {"structured_output": StructuredOutput(json_schema=schema, name=name, strict=strict)}
    return {"response_format": wanted}


def _decode_reasoning(rest: dict[str, Any], options: ChatOptions) -> dict[str, Any]:
    found: Mapping[str, Any] = rest
    budget_key = "thinking_token_budget"
    if options.reasoning is ReasoningStyle.OBJECT:
        inner = rest.get("reasoning")
        found, budget_key = (inner if isinstance(inner, dict) else {}), "max_tokens"
    effort = found.get("effort" if options.reasoning is ReasoningStyle.OBJECT else "reasoning_effort")
    # Servers differ in where effort and budget stand; the encoder for the same options decides.
    budget = found.get(budget_key)
    try:
        config = ReasoningConfig(effort=effort, budget_tokens=budget)
    except (InvalidOption, TypeError):
        return {}
    written = encode_reasoning(config, options)
    if not written or any(rest.get(key) != value for key, value in written.items()):
        return {}
    for key in written:
        del rest[key]
    return {"reasoning": config}


def _decode_turn(value: Any, path: str, options: ChatOptions) -> Message:
    turn = need_object(value, path)
    role = _shared.need_text(turn, "role", path, "a role")
    parts = [*_decode_thoughts(turn, path, options), *_decode_content(turn.get("content"), f"{path}.content", options)]
    calls = _shared.enumerate_paths(turn.get("tool_calls"), f"{path}.tool_calls", optional=True)
    return Message(
        role,
        parts,
        name=get_text(turn, "name", path),
        tool_calls=[_decode_call(call, here, options) for call, here in calls],
        tool_call_id=get_text(turn, "tool_call_id", path),
    )


def _read_file(block: Mapping[str, Any], word: str, path: str) -> DocumentPart | AudioPart:
    inner = f"{path}.{word}"
    found = need_object(block.get(word), inner)
    if word == "file":  # an address, or a ``data:`` URL
        where = _shared.need_text(found, "file_data", inner, "a URL")
        return _shared.build_part(DocumentPart, path, url=where, name=get_text(found, "filename", inner))
    short = _shared.need_text(found, "format", inner, "a format")
    media_type = f"audio/{_FORMATS.get(short, short)}"
    return _shared.build_part(AudioPart, path, data=get_text(found, "data", inner), media_type=media_type)


def _decode_content(value: Any, path: str, options: ChatOptions) -> list[Part]:
    if isinstance(value, str):
        return [TextPart(text=value)]
    parts: list[Part] = []
    for block, here in _shared.enumerate_paths(value, path, optional=True):
        word = get_text(need_object(block, here), "type", here)
        if word == "text":
            parts.append(TextPart(text=get_text(block, "text", here) or "", cache="cache_control" in block))
        elif word == "image_url":
            parts.append(_shared.image_from_url(block, here))
        elif word in ("file", "input_audio"):
            parts.append(_read_file(block, word, here))
        elif word == THINKING and options.echo == "content":
            parts.append(reasoning_part(block, options.vendor))
        else:
            raise MalformedReply(f"{here}.type: a part of type {word!r:.80} is not known ({kind(word)})", path=here)
    return parts


def _decode_call(value: Any, path: str, options: ChatOptions) -> ToolCall:
    # A call of a custom tool has free text as its input, in place of JSON arguments.
    call = need_object(value, path)
    word, key = (CUSTOM, "input") if call.get("type") == CUSTOM else ("function", "arguments")
    inner = need_object(call.get(word), f"{path}.{word}")
    name = _shared.need_text(inner, "name", f"{path}.{word}", "a name")
    extra = {key: call[key] for key in options.tool_call_keys if key in call}
    return ToolCall(
        id=get_text(call, "id", path) or "",
        name=name,
        arguments=get_text(inner, key, f"{path}.{word}") or "",
        extra={**extra, "type": CUSTOM} if word == CUSTOM else extra,
    )


def _decode_thoughts(turn: Mapping[str, Any], path: str, options: ChatOptions) -> Iterable[ReasoningPart]:
    """Read the reasoning of an assistant's turn.

    Raises:
        MalformedReply: the reasoning has the wrong type.
    """
    key = options.echo
    if key in (None, "content") or turn.get(key) is None:
        return ()
    if key != "reasoning_details":
        return (ReasoningPart(text=get_text(turn, key, path) or "", vendor=options.vendor),)
    blocks = need_list(turn[key], f"{path}.{key}")
    return [reasoning_part(block, options.vendor) for block in blocks if isinstance(block, dict)]


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply."""
    extra = response.extra
    message: dict[str, Any] = {"role": "assistant", "content": response.text, **pick_non_empty(extra, MESSAGE_EXTRA)}
    if response.refusal is not None:
        message["refusal"] = response.refusal
    thoughts, blocks = _reasoned(response)
    if thoughts:  # Mistral writes reasoning as parts of the content
        message["content"] = [*thoughts, {"type": "text", "text": response.text}] if response.text else thoughts
    elif response.reasoning is not None:
        message["reasoning"] = response.reasoning
    if blocks:
        message["reasoning_details"] = blocks
    if response.tool_calls:
        message["tool_calls"] = [_call(call) for call in response.tool_calls]
    choice = {"index": 0, "message": message, "finish_reason": _finish(response), **pick_non_empty(extra, CHOICE_EXTRA)}
    reply = {**_envelope(response), "object": "chat.completion", "choices": [choice]}
    usage = _usage(response)
    return reply if usage is None else {**reply, "usage": usage}


def _reasoned(response: GenerateResponse) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the blocks of reasoning that are parts of the content, and those for ``reasoning_details``."""
    blocks = [dict(part.data) for part in response.reasoning_parts if part.data is not None]
    thoughts = [block for block in blocks if block.get("type") == THINKING]
    return thoughts, [block for block in blocks if block.get("type") != THINKING]


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    """Write the fields that a reply and each event of a stream have in common."""
    extra = pick_non_empty(response.extra, REPLY_EXTRA)
    return {"id": response.request_id, "created": 0, "model": response.model, **extra}


def _finish(response: GenerateResponse) -> str | None:
    """Return the vendor's finish reason."""
    return response.raw_finish_reason or (None if response.finish_reason is None else str(response.finish_reason))


def _call(call: ToolCall) -> dict[str, Any]:
    """Write a tool call."""
    word, key = _call_keys(call)
    return {**call.extra, "id": call.id, "type": word, word: {"name": call.name, key: call.arguments}}


def _call_keys(call: ToolCall) -> tuple[str, str]:
    """Return the type of a call, which is also the key of its body, and the key of its arguments."""
    return (CUSTOM, "input") if call.extra.get("type") == CUSTOM else ("function", "arguments")


def _usage(response: GenerateResponse) -> dict[str, Any] | None:
    """Write the usage with tokens and cost; return None if both are unknown."""
    usage = response.usage or Usage()
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    if response.cost is not None and response.cost.usd is not None:
        counts["cost"] = response.cost.usd
    elif response.usage is None:
        return None
    return counts


def frame(payload: Any) -> bytes:
    """Write one event of a stream."""
    return _shared.sse_frame(payload)


def encode_chunks(response: GenerateResponse, *, size: int = 8, usage: bool = True) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream.

    Args:
        response: the answer.
        size: the maximum number of characters of text in one event.
        usage: end with the event that counts tokens, as ``stream_options.include_usage`` asks.
    """
    common = {**_envelope(response), "object": "chat.completion.chunk"}

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
        return {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]}

    # OpenAI starts a stream with the role and an empty text.
    yield event({"role": "assistant", "content": ""})
    thoughts, blocks = _reasoned(response)
    for block in thoughts:
        yield event({"content": [block]})
    for key, text in (
        ("reasoning", None if thoughts else response.reasoning),
        ("content", response.text),
        ("refusal", response.refusal),
    ):
        for piece in _shared.split(text, size):
            yield event({key: piece})
    for block in blocks:
        yield event({"reasoning_details": [block]})
    for index, call in enumerate(response.tool_calls):
        word, key = _call_keys(call)
        # Only the first piece of a call has its id and name; the others are matched by ``index``.
        first = {"name": call.name, key: ""}
        yield event({"tool_calls": [{**call.extra, "index": index, "id": call.id, "type": word, word: first}]})
        for piece in _shared.split(call.arguments, size):
            yield event({"tool_calls": [{"index": index, word: {key: piece}}]})
    more = pick_non_empty(response.extra, CHOICE_EXTRA)
    yield event(pick_non_empty(response.extra, MESSAGE_EXTRA), _finish(response), **more)
    # The event that counts tokens has no choice: clients must not expect one in every event.
    counted = _usage(response) if usage else None
    if counted is not None:
        yield {**common, "choices": [], "usage": counted}


def encode_error(
    message: str, *, code: str | int | None = None, kind: str | None = None, metadata: Any = None
) -> dict[str, Any]:
    """Write the body of an error."""
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    if metadata is not None:
        error["metadata"] = metadata
    return {"error": error}
