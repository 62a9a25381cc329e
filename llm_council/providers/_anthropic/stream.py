"""Streams of Anthropic's Messages dialect: named events that open, extend and close content blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from llm_council._wire.payloads import dumps, get_text, loads, malformed, need_list, need_object, text_or_none
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.errors import MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.messages import new_call_id
from llm_council.models.reply import FinishReason, GenerateChunk, ToolCallDelta
from llm_council.providers._anthropic.errors import error_inside
from llm_council.providers._anthropic.reply import (
    PLAIN_BLOCKS,
    THINKING,
    call_extra,
    content_extra,
    decode_response,
    later_counts,
    message_extra,
    parts_to_echo,
    read_refusal,
    read_usage,
)
from llm_council.providers._anthropic.request import DEFAULT, MessagesOptions

__all__ = ["EventDecoder", "MessageStream"]

_LIMITS = Limits()


@attrs.define
class _Block:
    """A content block that is arriving.

    Attributes:
        data: the block as it started; deltas complete it.
        first_text: the index of the block's first piece in the decoder's texts.
        call: the index of the block's tool call; None for a block of another type.
        input: the pieces of the block's input, which is JSON.
    """

    data: dict[str, Any]
    first_text: int
    call: int | None = None
    input: list[str] = attrs.field(factory=list)


class EventDecoder(Decoder):
    """Decode the events of one stream, in order. ``message_stop`` ends it; a stop reason means the model has finished.

    Args:
        options: how the model differs.
        limits: ``json_depth`` bounds each event.
        request_id: the id from the HTTP headers; None means the message's own id.
    """

    def __init__(
        self, options: MessagesOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(limits, request_id=request_id)
        self._options = options
        self._started = False
        self._own_id: str | None = None  # the id of the message that has begun
        self._has_content = False  # in the event that began it
        self._blocks_seen = False  # in events of their own
        self._blocks: dict[int, _Block] = {}  # the open blocks, by index
        self._calls = 0
        self._pending: list[dict[str, Any]] = []  # text and calls, echoed only if another type of block follows
        self._others: list[Any] = []
        self._citations: list[Any] = []
        self._usage: dict[str, Any] = {}
        self._by_type = {
            "message_start": self._start,
            "content_block_start": self._open,
            "content_block_delta": self._extend,
            "content_block_stop": self._close,
            "message_delta": self._stop,
        }

    def close(self) -> list[GenerateChunk]:
        """Close open blocks, and return the collected blocks of other types and citations in one last chunk."""
        chunks = []
        for index in list(self._blocks):  # a model that runs out of tokens leaves its last block open
            facts: dict[str, Any] = {}
            self._close({"index": index}, facts)
            if facts:
                chunks.append(GenerateChunk(**facts))
        extra = content_extra(self._others, self._citations)
        if extra:
            chunks.append(GenerateChunk(extra=extra))
        return chunks

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        value = need_object(loads(event.data, self._limits), "$")
        kind = value.get("type") or event.event
        if kind == "message_stop":
            self.done = True
            return None
        if kind == "message" and "content" in value:
            return self.take_whole(decode_response(value, self._options, request_id=self._request_id))
        self.raise_if_error({**value, "type": "error"} if kind == "error" else value)
        # New event types may be added at any time and are skipped (Anthropic's docs, "Streaming messages").
        read = self._by_type.get(kind) if isinstance(kind, str) else None
        facts: dict[str, Any] = {}
        if read is not None:
            read(value, facts)
        return GenerateChunk(**facts) if facts else None

    def raise_if_error(self, value: Any) -> Any:
        """Return a JSON value that is not an error.

        Raises:
            ApiError: it is one.
        """
        if isinstance(value, dict):
            error = error_inside(value, request_id=self._request_id, partial=self.partial or None)
            if error is not None:
                raise error
        return value

    def _start(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        message = need_object(value.get("message"), "$.message")
        is_first = not self._started
        self._started = True
        own = text_or_none(message.get("id"))
        is_other = self._has_content and own != self._own_id  # one that is begun twice may hold its content twice
        if not is_first and (self.finished or self._blocks_seen or is_other):
            raise MalformedReply("a second message begins in the middle of the stream", path="$.message")
        self._own_id = own
        if is_first:
            self._request_id = self._request_id or text_or_none(message.get("id"))
            if self._request_id is not None:
                facts["request_id"] = self._request_id
        model = get_text(message, "model", "$.message")
        if model:
            facts["model"] = model
        self._count(message, facts)
        if is_first and message.get("content"):
            self._add_content(message, facts)

    def _add_content(self, message: dict[str, Any], facts: dict[str, Any]) -> None:
        """Add blocks that ``message_start`` holds already: all of them, if the vendor's own tools made the answer."""
        self._has_content = True
        for place, block in enumerate(need_list(message["content"], "$.message.content"), 1):
            index = {"index": -place}  # negative, so that it differs from the index of every block that follows
            self._open({**index, "content_block": block}, facts)
            self._close(index, facts)
        word = text_or_none(message.get("stop_reason"))
        if word is not None:
            facts.update(finish_reason=FinishReason.of(word), raw_finish_reason=word)

    def _count(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        """Read usage and extra fields."""
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._usage = later_counts(self._usage, usage, answered=bool(self._texts or self._calls))
            counted = read_usage(self._usage)
            if counted is not None:
                facts["usage"] = counted
        extra = message_extra(value, usage)
        if extra:
            facts["extra"] = extra

    def _open(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        index = _read_index(value)
        if index in self._blocks:  # the event that closes it was missing
            self._close({"index": index}, facts)
        path = "$.content_block"
        data = need_object(value.get("content_block"), path)
        kind = data.get("type")
        self._blocks_seen = self._blocks_seen or index >= 0
        self._blocks[index] = block = _Block(dict(data), len(self._texts))
        if kind == "tool_use":
            block.call = self._calls
            self._calls += 1
            name = get_text(data, "name", path)
            if not name:
                raise malformed(f"{path}.name", "a name", data.get("name"))
            call_id = get_text(data, "id", path) or new_call_id(block.call)
            delta = ToolCallDelta(index=block.call, id=call_id, name=name, extra=call_extra(data))
            facts["tool_calls"] = (*facts.get("tool_calls", ()), delta)
        elif kind == "text":  # blocks start empty, but some servers put the first words here
            self._add_text(get_text(data, "text", path) or "", facts)
        elif kind == "thinking":
            _add_thinking(get_text(data, "thinking", path) or "", facts)
        citations = data.get("citations")
        if isinstance(citations, list):
            self._citations += citations
            block.data["citations"] = [*citations]

    def _add_text(self, text: str, facts: dict[str, Any]) -> None:
        if text:
            self._texts.append(text)
            facts["text"] = facts.get("text", "") + text

    def _extend(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        path = "$.delta"
        delta = need_object(value.get("delta"), path)
        block = self._blocks.get(_read_index(value))
        kind = delta.get("type")
        if kind == "text_delta":
            self._add_text(get_text(delta, "text", path) or "", facts)
        elif kind == "citations_delta":
            if delta.get("citation") is not None:
                self._citations.append(delta["citation"])
                if block is not None:
                    block.data["citations"] = [*(block.data.get("citations") or ()), delta["citation"]]
        elif block is None:
            return  # a delta for a block that never started
        elif kind == "input_json_delta":
            piece = get_text(delta, "partial_json", path)
            if piece:
                block.input.append(piece)
                if block.call is not None:
                    facts["tool_calls"] = (ToolCallDelta(index=block.call, arguments=piece),)
        elif kind == "thinking_delta":
            thinking = get_text(delta, "thinking", path) or ""
            block.data["thinking"] = (get_text(block.data, "thinking", "$.content_block") or "") + thinking
            _add_thinking(thinking, facts)
        elif kind == "signature_delta":
            signature = get_text(delta, "signature", path) or ""
            block.data["signature"] = (get_text(block.data, "signature", "$.content_block") or "") + signature
        else:
            _add_fields(block.data, delta)

    def _close(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        block = self._blocks.pop(_read_index(value), None)
        if block is None:
            return
        data, kind = block.data, block.data.get("type")
        if block.input:
            text = "".join(block.input)
            try:
                data["input"] = loads(text, self._limits)
            except MalformedReply:  # cut off by max_tokens
                data["input"] = text
        if block.call is not None:
            arguments = data.get("input")
            if not isinstance(arguments, dict):  # the API takes back only objects
                data["input"] = {} if arguments is None else {"invalid_json": arguments}
            if not block.input:  # a call without arguments has no input deltas
                delta = ToolCallDelta(index=block.call, arguments=dumps(data["input"]).decode())
                facts["tool_calls"] = (*facts.get("tool_calls", ()), delta)
        elif kind == "text":
            data["text"] = "".join(self._texts[block.first_text :])
        elif not (isinstance(kind, str) and kind in THINKING):
            self._others.append(data)
        self._pending.append(data)
        if kind not in PLAIN_BLOCKS:
            parts = parts_to_echo(self._pending, self._options.vendor)
            facts["reasoning_parts"] = (*facts.get("reasoning_parts", ()), *parts)
            self._pending = []

    def _stop(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        found = value.get("delta")
        delta = {} if found is None else need_object(found, "$.delta")
        word = text_or_none(delta.get("stop_reason"))
        if word is not None:
            self.finished = True
            facts["raw_finish_reason"] = word
            finish = FinishReason.of(word)
            if finish is not None:
                facts["finish_reason"] = finish
        refusal = read_refusal(delta.get("stop_details"))
        if refusal is not None:
            facts["refusal"] = refusal
        self._count({**delta, **value}, facts)


def _add_fields(data: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add the fields of a delta of another type to its block: texts and lists are continued, other values replaced.

    ``compaction_delta``, for one, brings the summary of a block that begins with null (Anthropic's docs, "Compaction",
    streaming).
    """
    for key, value in delta.items():
        known = data.get(key)
        if key == "type" or value is None:
            continue
        both = (isinstance(known, str) and isinstance(value, str)) or (
            isinstance(known, list) and isinstance(value, list)
        )
        data[key] = known + value if both else value


def _add_thinking(thinking: str, facts: dict[str, Any]) -> None:
    if thinking:
        facts["reasoning"] = facts.get("reasoning", "") + thinking


def _read_index(value: dict[str, Any]) -> int:
    """Return the index of an event's block; 0 if it is missing, as some servers leave it out for a single block."""
    index = value.get("index")
    if index is None:
        return 0
    if isinstance(index, int):
        return index
    raise malformed("$.index", "a number", index)


class MessageStream(BodyReader):
    """Decode the body of a stream as it arrives, from bytes to chunks.

    A server that answers a streaming request with one whole JSON reply is understood too.

    Args:
        options: how the model differs.
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the HTTP headers; None means the message's own id.
    """

    def __init__(
        self, options: MessagesOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        events = EventDecoder(options, limits, request_id=request_id)
        whole = partial(decode_response, options=options, request_id=request_id)
        super().__init__(events, SseSplitter(limits), limits, whole=whole)
