"""Fake OpenAI: read requests to ``POST /responses``, and write replies and streams. Errors are those of chat.

The documentation of the dialect: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llm_council._wire.openai_chat.request import CUSTOM
from llm_council._wire.payloads import get_text, need_object, pick_non_empty
from llm_council._wire.responses.reply import REPLY_EXTRA
from llm_council._wire.responses.request import (
    DEFAULT,
    ENCRYPTED,
    ResponsesOptions,
    encode_choice,
    encode_tool,
    text_in,
    thinks,
)
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import DocumentPart, ImagePart, Message, Part, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.reply import GenerateResponse, Usage
from llm_council.models.request import GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.testing._mirrors import _shared

__all__ = ["decode_request", "encode_events", "encode_response", "frame"]

Item = dict[str, Any]

_ARGUMENTS = {"function_call": "arguments", "custom_tool_call": "input"}  # the key that holds a call's arguments
_STATUSES = ("completed", "complete", "incomplete", "failed", "cancelled", "queued", "in_progress")
# The keys of a function call as the encoder writes it; it writes the id beside reasoning alone.
_PLAIN_CALL = {"type", "call_id", "name", "arguments", "namespace"}
_CALL = {*_PLAIN_CALL, "id"}
# The name of a schema: https://platform.openai.com/docs/guides/structured-outputs
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def decode_request(payload: Any, options: ResponsesOptions = DEFAULT) -> GenerateRequest:
    """Read the body of ``POST /responses``.

    Fields that a ``GenerateRequest`` has no place for, or that ``encode_request`` writes in another form, stay in
    ``extra``.

    Raises:
        MalformedReply: the payload is not a request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    _shared.drop_common(rest, options.body)
    turns = _decode_input(rest.pop("input", None), options)
    # ``instructions`` is the system prompt of this API, and not an item of the input.
    instructions = get_text(rest, "instructions", "$")
    if instructions:
        del rest["instructions"]  # an empty text stays in `extra`
        turns = [Message(Role.SYSTEM, instructions), *turns]
    facts: dict[str, Any] = {
        "messages": turns,
        "model": _shared.take_text(rest, "model"),
        "stream": rest.pop("stream", False) is True,
        **_shared.take(rest, "max_output_tokens", "max_tokens"),
        **_shared.take(rest, "temperature"),
        **_shared.take(rest, "top_p"),
        **_decode_tools(rest),
        **_decode_format(rest),
    }
    facts.update(_decode_reasoning(rest, options))
    return _shared.build_request(facts, rest)


def _decode_reasoning(rest: dict[str, Any], options: ResponsesOptions) -> dict[str, Any]:
    """Remove the effort, and what the encoder adds to it: a summary, and reasoning in encrypted form."""
    found = rest.get("reasoning")
    left = dict(found) if isinstance(found, dict) else {}
    config = None
    if options.effort and left.get("effort") is not None:
        try:
            config = ReasoningConfig(effort=left["effort"])
        except (InvalidOption, TypeError):
            config = None
        else:
            del left["effort"]
    does = thinks(config, options)
    if does and options.summary is not None and left.get("summary") == options.summary:
        del left["summary"]
    if isinstance(found, dict):
        del rest["reasoning"]
        if left or not found:
            rest["reasoning"] = left
    if options.store is not None and rest.get("store") is options.store:
        del rest["store"]
    if does and options.store is False and rest.get("include") == [ENCRYPTED]:
        del rest["include"]
    return {} if config is None else {"reasoning": config}


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = _shared.take_tools(rest, Tool.of, encode_tool)
    choice = rest.get("tool_choice")
    name = choice.get("name") if isinstance(choice, dict) else choice
    if isinstance(name, str) and encode_choice(name) == choice:
        facts["tool_choice"] = name
        del rest["tool_choice"]
    return facts


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    text = rest.get("text")
    wanted = text.get("format") if isinstance(text, dict) else None
    if not isinstance(text, dict) or not isinstance(wanted, dict):
        return {}
    facts: dict[str, Any] = {}
    name, schema, strict = wanted.get("name"), wanted.get("schema"), wanted.get("strict")
    is_ours = wanted.keys() == {"type", "name", "schema", "strict"} and wanted["type"] == "json_schema"
    if (
        is_ours
        and isinstance(name, str)
        and _NAME.fullmatch(name)
        and isinstance(schema, dict)
        and isinstance(strict, bool)
    ):
        facts = {"structured_output": StructuredOutput(json_schema=schema, name=name, strict=strict)}
    if not facts and "json_schema" not in wanted:
        facts = {"response_format": wanted}
    if facts:
        rest["text"] = {key: value for key, value in text.items() if key != "format"}
        if not rest["text"]:
            del rest["text"]
    return facts


def _decode_input(value: Any, options: ResponsesOptions) -> list[Message]:
    if isinstance(value, str):
        return [Message(Role.USER, value)]
    turns: list[Message] = []
    answer = _Answer(options)
    for found, path in _shared.enumerate_paths(value, "$.input"):
        item = need_object(found, path)
        role = get_text(item, "role", path)
        word = get_text(item, "type", path) or "message"
        if word == "function_call_output":
            turns += [*answer.end(), _decode_result(item, path)]
        elif word == "message" and role != Role.ASSISTANT:
            role = _shared.need_text(item, "role", path, "a role")
            turns += [*answer.end(), Message(role, _decode_content(item.get("content"), f"{path}.content"))]
        else:
            turns += answer.add(word, item, path)
    return turns + answer.end()


def _decode_result(item: Mapping[str, Any], path: str) -> Message:
    content = _decode_content(item.get("output"), f"{path}.output")
    call_id = get_text(item, "call_id", path)
    return Message(Role.TOOL, content, tool_call_id=call_id, name=get_text(item, "name", path))


class _Answer:
    """Collects an assistant's turn from its items: first items that are sent back unchanged, then text, then calls."""

    def __init__(self, options: ResponsesOptions) -> None:
        self._vendor = options.vendor
        self._unchanged: list[ReasoningPart] = []
        self._content: list[Part] | None = None
        self._calls: list[ToolCall] = []

    def add(self, word: str, item: dict[str, Any], path: str) -> list[Message]:
        """Add an item; return the turn that ended before it, if one did."""
        if word == "function_call" and item.keys() <= (_CALL if self._unchanged else _PLAIN_CALL):
            self._calls.append(_read_call(item, path))
            return []
        is_plain = word == "message" and "id" not in item and "status" not in item
        before = self.end() if self._calls or self._content is not None else []
        if is_plain:
            said = "".join(text_in(part.data) for part in self._unchanged if part.data is not None)
            content = _decode_content(item.get("content"), f"{path}.content")
            self._content = [TextPart(text=said), *content] if said else content
        else:
            self._unchanged.append(ReasoningPart(vendor=self._vendor, data=item))
        return before

    def end(self) -> list[Message]:
        """Return the turn so far, if there is one, and start another."""
        if not (self._unchanged or self._calls or self._content is not None):
            return []
        turn = Message(Role.ASSISTANT, [*self._unchanged, *(self._content or ())], tool_calls=self._calls)
        self._unchanged, self._content, self._calls = [], None, []
        return [turn]


def _decode_content(value: Any, path: str) -> list[Part]:
    if isinstance(value, str):
        return [TextPart(text=value)]
    parts: list[Part] = []
    for item, here in _shared.enumerate_paths(value, path):
        part = need_object(item, here)
        word = get_text(part, "type", here)
        if word in ("input_text", "output_text"):
            parts.append(TextPart(text=get_text(part, "text", here) or ""))
        elif word == "input_image" and part.get("image_url") is not None:
            url, detail = get_text(part, "image_url", here), get_text(part, "detail", here)
            parts.append(_shared.build_part(ImagePart, here, url=url, detail=detail))
        elif word == "input_file" and "file_id" not in part:
            where = get_text(part, "file_url", here) or get_text(part, "file_data", here)
            parts.append(_shared.build_part(DocumentPart, here, url=where, name=get_text(part, "filename", here)))
        else:
            raise MalformedReply(f"{here}.type: a part of type {word!r:.80} is not known", path=here)
    return parts


def _read_call(item: Mapping[str, Any], path: str) -> ToolCall:
    return ToolCall(
        id=get_text(item, "call_id", path) or "",
        name=_shared.need_text(item, "name", path, "a name"),
        arguments=get_text(item, "arguments", path) or "",
        extra={key: item[key] for key in ("id", "namespace") if key in item},
    )


def encode_response(response: GenerateResponse) -> dict[str, Any]:
    """Write a whole reply."""
    # The finish reason is the status, or the reason of the status ``incomplete``.
    word = response.raw_finish_reason or "completed"
    is_status = word in _STATUSES
    return {
        **_envelope(response),
        "status": word if is_status else "incomplete",
        "incomplete_details": None if is_status else {"reason": word},
        "output": _items(response),
        "usage": _usage(response),
    }


def _envelope(response: GenerateResponse) -> dict[str, Any]:
    return {
        "id": response.extra.get("response_id"),
        "object": "response",
        "created_at": 0,  # constant, so that tests can compare replies
        "model": response.model,
        "error": None,
        **pick_non_empty(response.extra, REPLY_EXTRA),
    }


def _items(response: GenerateResponse) -> list[Item]:
    # Items of reasoning and of the vendor's own tools precede the message that they led to.
    items: list[Item] = [dict(part.data) for part in response.reasoning_parts if part.data is not None]
    texts = "".join(text_in(item) for item in items)
    text = None if response.text is None else response.text.removeprefix(texts)
    content: list[Item] = []
    if text is not None and (text or not texts):
        notes = list(response.extra.get("annotations", ()))
        content.append({"type": "output_text", "text": text, "annotations": notes})
    if response.refusal is not None:
        content.append({"type": "refusal", "refusal": response.refusal})
    if content:
        items.append({"type": "message", "id": "msg", "role": "assistant", "status": "completed", "content": content})
    known = {item.get("call_id") for item in items}
    items += [_call(call) for call in response.tool_calls if call.id not in known]
    return items


def _call(call: ToolCall) -> Item:
    is_custom = call.extra.get("type") == CUSTOM
    word, key = ("custom_tool_call", "input") if is_custom else ("function_call", "arguments")
    fields = {"call_id": call.id, "name": call.name, key: call.arguments}
    return {**call.extra, "type": word, **fields, "status": "completed"}


def _usage(response: GenerateResponse) -> dict[str, Any] | None:
    usage = response.usage or Usage()
    counts: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
    if response.cost is not None and response.cost.usd is not None:
        counts["cost"] = response.cost.usd
    elif response.usage is None:
        return None
    return counts


def frame(event: dict[str, Any]) -> bytes:
    """Write one event of a stream: the event's name is also its ``type``."""
    return _shared.sse_frame(event, str(event.get("type", "message")))


def encode_events(response: GenerateResponse, *, size: int = 8) -> Iterator[dict[str, Any]]:
    """Write an answer as the events of a stream.

    Args:
        response: the answer.
        size: the maximum number of characters of text in one event.
    """
    reply = encode_response(response)
    # The first event has the response as it is before any output.
    begun = {**reply, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for index, item in enumerate(reply["output"]):
        place = {"output_index": index, "item_id": item.get("id")}
        empty = {key: [] if key in ("content", "summary") else value for key, value in item.items()}
        if item["type"] in _ARGUMENTS:
            empty[_ARGUMENTS[item["type"]]] = ""
        yield {"type": "response.output_item.added", "output_index": index, "item": empty}
        for event in _pieces(item, size):
            yield {**event, **place}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    done = "response.incomplete" if reply["incomplete_details"] else "response.completed"
    yield {"type": done, "response": reply}


def _pieces(item: Item, size: int) -> Iterator[dict[str, Any]]:
    if item["type"] in _ARGUMENTS:
        key = _ARGUMENTS[item["type"]]
        for words in _shared.split(item[key], size):
            yield {"type": f"response.{item['type']}_{key}.delta", "delta": words}
        yield {"type": f"response.{item['type']}_{key}.done", key: item[key]}
    elif item["type"] == "message":
        for index, part in enumerate(item["content"]):
            kind, key = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
            for words in _shared.split(part[key], size):
                yield {"type": f"response.{kind}.delta", "content_index": index, "delta": words}
            yield {"type": f"response.{kind}.done", "content_index": index, key: part[key]}
            yield {"type": "response.content_part.done", "content_index": index, "part": part}
    elif item["type"] == "reasoning":
        # Open models show their reasoning in full; OpenAI's own show only a summary.
        shown = ("content", "reasoning_text", "content_index") if item.get("content") else None
        key, kind, place = shown or ("summary", "reasoning_summary_text", "summary_index")
        for index, part in enumerate(item.get(key) or ()):
            for words in _shared.split(part["text"], size):
                yield {"type": f"response.{kind}.delta", place: index, "delta": words}
            yield {"type": f"response.{kind}.done", place: index, "text": part["text"]}
