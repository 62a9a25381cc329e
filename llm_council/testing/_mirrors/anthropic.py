"""Fake Anthropic: read requests to ``POST /v1/messages``, and write replies, streams and errors.

The documentation of the dialect: https://docs.claude.com/en/api/messages
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_council._wire.payloads import dumps, get_text, kind, loads, need_object, pick_non_empty
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import DocumentPart, ImagePart, Message, Part, Role, TextPart, ToolCall
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers._anthropic.reply import (
    REPLY_EXTRA,
    THINKING,
    USAGE_EXTRA,
    read_call,
    reasoning_part,
)
from llm_council.providers._anthropic.request import (
    DEFAULT,
    MessagesOptions,
    encode_block,
    encode_choice,
    encode_thinking,
    encode_tool,
)
from llm_council.testing._mirrors import _shared

__all__ = ["decode_request", "encode_error", "encode_events", "encode_response", "frame"]


def decode_request(payload: Any, options: MessagesOptions = DEFAULT) -> GenerateRequest:
    """Read the body of ``POST /v1/messages``.

    Fields that a ``GenerateRequest`` has no place for, or that ``encode_request`` writes in another form, stay in
    ``extra``.

    Raises:
        MalformedReply: the payload is not a request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    turns = list(_decode_system(rest.pop("system", None)))
    for message, path in _shared.enumerate_paths(rest.pop("messages", None), "$.messages"):
        turns += _decode_message(message, path, options)
    max_tokens = rest.pop("max_tokens", None)
    if isinstance(rest.get("output_config"), dict):
        rest["output_config"] = dict(rest["output_config"])
    facts: dict[str, Any] = {
        "messages": turns,
        "model": _shared.take_text(rest, "model"),
        "stream": rest.pop("stream", False) is True,
        "max_tokens": max_tokens,
        **{key: rest.pop(key) for key in ("temperature", "top_p") if rest.get(key) is not None},
        **_shared.take_stop(rest, "stop_sequences"),
        **_decode_tools(rest),
        **_decode_thinking(rest, max_tokens, options),
        **_decode_format(rest),
        **(_shared.take_cache(rest) if options.cache_control else {}),
    }
    _shared.drop_common(rest, options.body)
    return _shared.build_request(facts, rest)


def _decode_system(value: Any) -> Iterable[Message]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (Message("system", value),)
    parts = [_decode_part(block, path, "") for block, path in _shared.enumerate_paths(value, "$.system")]
    return (Message("system", parts),)


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = _shared.take_tools(rest, _read_tool, encode_tool)
    choice = rest.get("tool_choice")
    if facts and isinstance(choice, dict):
        name = choice.get("name") if choice.get("type") == "tool" else choice.get("type")
        # Anthropic's word for "required" is "any".
        name = "required" if name == "any" and choice.get("type") == "any" else name
        if isinstance(name, str) and encode_choice(name) == choice:
            facts["tool_choice"] = name
            del rest["tool_choice"]
    return facts


def _read_tool(tool: Any) -> Tool:
    schema, strict = tool["input_schema"], tool.get("strict")
    return Tool(name=tool["name"], description=tool.get("description"), parameters=schema, strict=strict)


def _decode_thinking(rest: dict[str, Any], max_tokens: Any, options: MessagesOptions) -> dict[str, Any]:
    """Remove the fields that ``encode_thinking`` writes; those that it would write otherwise stay."""
    thinking, output = rest.get("thinking"), rest.get("output_config")
    if not isinstance(thinking, dict):
        return {}
    effort = output.get("effort") if isinstance(output, dict) else None
    budget = thinking.get("budget_tokens")
    if thinking.get("type") in ("disabled", "between_tools"):
        effort = Effort.NONE
    try:
        config = ReasoningConfig(effort=effort, budget_tokens=budget)
        # The encoder limits a budget by ``max_tokens``, which has to be known to compare what it writes.
        asked = GenerateRequest(prompt="x", reasoning=config, max_tokens=max_tokens)
    except (InvalidOption, TypeError):
        return {}
    written, word = encode_thinking(asked, options)
    if written != thinking or (word is not None and word != effort):
        return {}
    del rest["thinking"]
    if word is not None and isinstance(output, dict):
        del output["effort"]
    return {"reasoning": config}


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    # ``output_config`` holds the effort, too, which was removed before.
    output = rest.get("output_config")
    if not isinstance(output, dict):
        return {}
    facts: dict[str, Any] = {}
    wanted = output.get("format")
    schema = wanted.get("schema") if isinstance(wanted, dict) and wanted.keys() == {"type", "schema"} else None
    if isinstance(wanted, dict) and wanted.get("type") == "json_schema" and isinstance(schema, dict):
        facts["structured_output"] = StructuredOutput(json_schema=schema)
        del output["format"]
    if not output:
        del rest["output_config"]
    return facts


class _Turn:
    """A turn while it is read."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.calls: list[ToolCall] = []

    def takes(self, part: Part) -> bool:
        """Return True if a part belongs to this turn.

        Nothing follows tool calls in a turn. Two plain texts are two turns: as one, they would be joined into one text.
        """
        if self.calls:
            return False
        return not (self.parts and _is_plain(part) and all(map(_is_plain, self.parts)))


def _is_plain(part: Part) -> bool:
    return isinstance(part, TextPart) and not part.cache


def _decode_message(value: Any, path: str, options: MessagesOptions) -> Iterable[Message]:
    """Return the turns of which a message was made: the encoder merges consecutive turns of one role."""
    message = need_object(value, path)
    role = _shared.need_text(message, "role", path, "a role")
    content = message.get("content")
    if isinstance(content, str):
        return [Message(role, content)]
    results: list[Message] = []
    turns = [_Turn()]
    for item, here in _shared.enumerate_paths(content, f"{path}.content"):
        block = need_object(item, here)
        word = block.get("type")
        if word == "tool_result":
            results.append(_decode_result(block, here, options))
        elif word == "tool_use":
            turns[-1].calls.append(read_call(block, len(turns[-1].calls), here))
        else:
            # Blocks of the model that we do not model, and texts with citations, go back to it unchanged.
            own = role == Role.ASSISTANT and (word != "text" or "citations" in block)
            part = reasoning_part(block, options.vendor) if own else _decode_part(block, here, options.vendor)
            if not turns[-1].takes(part):
                turns.append(_Turn())
            turns[-1].parts.append(part)
    return results + [Message(role, turn.parts, tool_calls=turn.calls) for turn in turns if turn.parts or turn.calls]


def _decode_result(block: Mapping[str, Any], path: str, options: MessagesOptions) -> Message:
    content = block.get("content")
    if not isinstance(content, str | None):
        parts = _shared.enumerate_paths(content, f"{path}.content")
        content = [_decode_part(part, here, options.vendor) for part, here in parts]
    return Message("tool", content or "", tool_call_id=get_text(block, "tool_use_id", path))


def _decode_part(value: Any, path: str, vendor: str) -> Part:
    block = need_object(value, path)
    word = block.get("type")
    if word == "text":
        return TextPart(text=get_text(block, "text", path) or "", cache="cache_control" in block)
    if isinstance(word, str) and word in THINKING:
        return reasoning_part(block, vendor)
    if word == "image":
        source = need_object(block.get("source"), f"{path}.source")
        facts = {key: get_text(source, key, f"{path}.source") for key in ("url", "data", "media_type")}
        return _shared.build_part(ImagePart, path, **facts)
    if word == "document":
        return _read_document(block, path)
    raise MalformedReply(f"{path}.type: a part of type {word!r:.80} is not known ({kind(word)})", path=path)


def _read_document(block: Mapping[str, Any], path: str) -> DocumentPart:
    inner = f"{path}.source"
    source = need_object(block.get("source"), inner)
    facts = {key: get_text(source, key, inner) for key in ("url", "data", "media_type")}
    if source.get("type") == "text":
        facts["data"] = base64.b64encode((facts["data"] or "").encode()).decode()
    return _shared.build_part(DocumentPart, path, **facts, name=get_text(block, "title", path))


# Fields of a reply that a stream has in its last events.
_STOP = ("stop_details", "stop_sequence")
_WORDS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply."""
    reply = {
        **_envelope(response),
        **_extra_fields(response),
        "content": _blocks(response),
        "stop_reason": _stop(response),
    }
    usage = _usage(response)
    return reply if usage is None else {**reply, "usage": usage}


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    return {"id": response.request_id, "type": "message", "role": "assistant", "model": response.model}


def _extra_fields(response: GenerateResponse) -> dict[str, Any]:
    found = pick_non_empty(response.extra, REPLY_EXTRA)
    if response.refusal is not None and "stop_details" not in found:
        found["stop_details"] = {"type": "refusal", "category": None, "explanation": response.refusal}
    return found


def _stop(response: GenerateResponse) -> str | None:
    word = response.finish_reason
    return response.raw_finish_reason or (None if word is None else _WORDS.get(str(word), str(word)))


def _blocks(response: GenerateResponse) -> list[dict[str, Any]]:
    blocks = [
        block for part in response.reasoning_parts if (block := encode_block(part, part.vendor or "")) is not None
    ]
    texts = "".join(block["text"] for block in blocks if block["type"] == "text")
    if response.text is not None and (response.text != texts or not texts):
        text: dict[str, Any] = {"type": "text", "text": response.text.removeprefix(texts)}
        blocks.append(text if texts else {**text, **pick_non_empty(response.extra, ("citations",))})
    blocks += [block for block in response.extra.get("blocks", []) if block not in blocks]
    # Blocks of calls may be among those that are sent back unchanged.
    called = [block["id"] for block in blocks if block["type"] == "tool_use"]
    for call in response.tool_calls:
        if call.id not in called:
            given = loads(call.arguments) if call.arguments.strip() else {}
            blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": given, **call.extra})
    return blocks


def _usage(response: GenerateResponse) -> dict[str, Any] | None:
    usage = response.usage
    extra = pick_non_empty(response.extra, USAGE_EXTRA)
    if usage is None:
        return extra or None
    cached, written = usage.cached_tokens, usage.cache_write_tokens
    # Anthropic counts cached tokens beside ``input_tokens``, we count them among them.
    uncached = None if usage.input_tokens is None else usage.input_tokens - (cached or 0) - (written or 0)
    thoughts = usage.reasoning_tokens
    return {
        "input_tokens": uncached,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": None if thoughts is None else {"thinking_tokens": thoughts},
        **extra,
    }


def frame(payload: dict[str, Any]) -> bytes:
    """Write one event of a stream: the event's name is also its ``type``."""
    return _shared.sse_frame(payload, payload["type"])


def encode_events(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream.

    Args:
        response: the answer.
        size: the maximum number of characters of text in one event.
    """
    usage = _usage(response)
    # The first event counts the prompt, and one token of output; the last one has the final counts.
    begun = {} if response.usage is None or usage is None else {"usage": {**usage, "output_tokens": 1}}
    extra = _extra_fields(response)
    message = {**_envelope(response), "content": [], "stop_reason": None, **begun}
    message |= {key: value for key, value in extra.items() if key not in _STOP}
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}  # the API may send pings anywhere; clients have to ignore them
    for index, block in enumerate(_blocks(response)):
        start, deltas = _split_block(block, size)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {"stop_reason": _stop(response), **{key: extra[key] for key in _STOP if key in extra}}
    yield {"type": "message_delta", "delta": stop, **({} if usage is None else {"usage": usage})}
    yield {"type": "message_stop"}


def _split_block(block: dict[str, Any], size: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as ``content_block_start`` has it, and the deltas that complete it."""
    word = block["type"]
    if word == "text":
        pieces = [{"type": "text_delta", "text": piece} for piece in _shared.split(block["text"], size)]
        cited = [{"type": "citations_delta", "citation": found} for found in block.get("citations", [])]
        return {"type": "text", "text": ""}, pieces + cited
    if word == "thinking":
        pieces = [{"type": "thinking_delta", "thinking": piece} for piece in _shared.split(block["thinking"], size)]
        signed = [{"type": "signature_delta", "signature": block["signature"]}]
        return {"type": "thinking", "thinking": "", "signature": ""}, pieces + signed
    if isinstance(block.get("input"), dict):
        text = dumps(block["input"]).decode() if block["input"] else ""
        # The API starts the arguments of every call with an empty piece, and sends none for a call without arguments.
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *_shared.split(text, size)]]
        return {**block, "input": {}}, pieces
    return block, []


def encode_error(message: str, *, kind: str, request_id: str | None = None) -> dict[str, Any]:
    """Write the body of an error, which is also an error event."""
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    return body if request_id is None else {**body, "request_id": request_id}
