"""Streams of Anthropic's Messages dialect."""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_council._wire.payloads import dumps, get_text, loads, malformed, need_list, need_object
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.errors import MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.reply import FinishReason, GenerateChunk, ToolCallDelta
from llm_council.providers._anthropic.errors import error_inside
from llm_council.providers._anthropic.options import DEFAULT, MessagesOptions
from llm_council.providers._anthropic.reply import (
    about,
    call_extra,
    decode_response,
    get_id,
    kept,
    read_usage,
    refusal_in,
    stop_word,
)
from llm_council.providers._anthropic.thinking import BLOCKS, SAID, parts_to_echo

__all__ = ["EventDecoder", "MessageStream"]

_LIMITS = Limits()


class _Block:
    """A content block that is arriving.

    Attributes:
        start: the block as it began, and at its end as it has become.
        call: which of our tool calls it is; None for other blocks.
        input: the pieces of its input.
        place: how many pieces of text had come before it.
    """

    __slots__ = ("call", "input", "place", "start")

    def __init__(self, start: dict[str, Any], call: int | None, place: int) -> None:
        self.start = start
        self.call = call
        self.input: list[str] = []
        self.place = place


class EventDecoder(Decoder):
    """Read the events of one stream, in order.

    ``message_stop`` is the end mark; a stop reason says that the model has stopped. An error's class is that of its own
    type.

    Args:
        options: in what the model differs.
        limits: ``json_depth`` bounds each event.
        request_id: the id from the reply's headers; None takes the message's own.
    """

    def __init__(
        self, options: MessagesOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(limits, request_id=request_id)
        self._options = options
        self._begun = False
        self._blocks: dict[Any, _Block] = {}  # by index, those that are arriving
        self._calls = 0
        self._held: list[dict[str, Any]] = []  # that go back if one follows that a turn cannot say
        self._others: list[Any] = []
        self._citations: list[Any] = []
        self._usage: dict[str, Any] = {}
        self._by_type = {
            "message_start": self._start,
            "content_block_start": self._open,
            "content_block_delta": self._add,
            "content_block_stop": self._close,
            "message_delta": self._stop,
        }

    def close(self) -> list[GenerateChunk]:
        """Return what was kept back until the answer was whole."""
        chunks = []
        for index in list(self._blocks):  # a model that ran out of tokens leaves its last block open
            facts: dict[str, Any] = {}
            self._close({"index": index}, facts)
            if facts:
                chunks.append(GenerateChunk(**facts))
        extra = kept(self._others, self._citations)
        if extra:
            chunks.append(GenerateChunk(extra=extra))
        return chunks

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        value = need_object(loads(event.data, self._limits), "$")
        word = value.get("type") or event.event
        if word == "message_stop":
            self.done = True
            return None
        if word == "error" or value.get("error"):
            error = error_inside(value, request_id=self._request_id, partial=self.partial or None)
            if error is not None:
                raise error
        read = self._by_type.get(word) if isinstance(word, str) else None
        facts: dict[str, Any] = {}
        if read is not None:
            read(value, facts)
        return GenerateChunk(**facts) if facts else None

    def _start(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        message = need_object(value.get("message"), "$.message")
        first, self._begun = not self._begun, True
        if first:
            self._request_id = self._request_id or get_id(message)
            if self._request_id is not None:
                facts["request_id"] = self._request_id
        model = get_text(message, "model", "$.message")
        if model:
            facts["model"] = model
        self._count(message, facts)
        if first and message.get("content"):
            self._continue(message, facts)

    def _continue(self, message: dict[str, Any], facts: dict[str, Any]) -> None:
        """Take what a message begins with, all of it where the vendor's own tools left nothing to wait for."""
        for place, block in enumerate(need_list(message["content"], "$.message.content"), 1):
            at = {"index": -place}  # no place of those that arrive
            self._open({**at, "content_block": block}, facts)
            self._close(at, facts)
        word = stop_word(message.get("stop_reason"))
        if word is not None:
            facts.update(finish_reason=FinishReason.of(word), raw_finish_reason=word)

    def _count(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        """Take in usage, whose later numbers replace the earlier ones, and what else is said of the message."""
        usage = value.get("usage")
        if isinstance(usage, dict):
            self._usage.update((key, found) for key, found in usage.items() if found is not None)
            counted = read_usage(self._usage)
            if counted is not None:
                facts["usage"] = counted
        extra = about(value, usage)
        if extra:
            facts["extra"] = extra

    def _open(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        index = _index(value)
        if index in self._blocks:  # its end was never said
            self._close({"index": index}, facts)
        path = "$.content_block"
        start = need_object(value.get("content_block"), path)
        call = None
        if start.get("type") == "tool_use":
            call = self._calls
            self._calls += 1
            name = get_text(start, "name", path)
            if not name:
                raise malformed(f"{path}.name", "a name", start.get("name"))
            delta = ToolCallDelta(
                index=call, id=get_text(start, "id", path) or f"call_{name}", name=name, extra=call_extra(start)
            )
            facts["tool_calls"] = (*facts.get("tool_calls", ()), delta)
        self._blocks[index] = block = _Block(dict(start), call, len(self._texts))
        for kind, key in (("text", "text"), ("thinking", "thinking")):
            if start.get("type") == kind:  # blocks begin empty; some servers put the first words there
                self._say(kind, get_text(start, key, path) or "", facts)
        cited = start.get("citations")
        if isinstance(cited, list):
            self._citations += cited
            block.start["citations"] = [*cited]

    def _say(self, kind: str, words: str, facts: dict[str, Any]) -> None:
        if words and kind == "text":
            self._texts.append(words)
            facts["text"] = facts.get("text", "") + words
        elif words:
            facts["reasoning"] = facts.get("reasoning", "") + words

    def _add(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        path = "$.delta"
        delta = need_object(value.get("delta"), path)
        block = self._blocks.get(_index(value))
        word = delta.get("type")
        if word == "text_delta":
            self._say("text", get_text(delta, "text", path) or "", facts)
        elif word == "citations_delta":
            if delta.get("citation") is not None:
                self._citations.append(delta["citation"])
                if block is not None:
                    block.start["citations"] = [*(block.start.get("citations") or ()), delta["citation"]]
        elif block is None:
            return  # a piece of a block that never began
        elif word == "input_json_delta":
            self._argue(block, get_text(delta, "partial_json", path) or "", facts)
        elif word in ("thinking_delta", "signature_delta"):
            key = "thinking" if word == "thinking_delta" else "signature"
            words = get_text(delta, key, path) or ""
            block.start[key] = (get_text(block.start, key, "$.content_block") or "") + words
            if key == "thinking":
                self._say(key, words, facts)

    def _argue(self, block: _Block, words: str, facts: dict[str, Any]) -> None:
        if not words:
            return
        block.input.append(words)
        if block.call is not None:
            facts["tool_calls"] = (ToolCallDelta(index=block.call, arguments=words),)

    def _close(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        block = self._blocks.pop(_index(value), None)
        if block is None:
            return
        start, word = block.start, block.start.get("type")
        thinks = isinstance(word, str) and word in BLOCKS
        if block.input:
            start["input"] = self._whole("".join(block.input))
        if block.call is not None:
            given = start.get("input")
            if not isinstance(given, dict):  # a block that goes back has an object there
                start["input"] = {} if given is None else {"invalid_json": given}
            if not block.input:  # a call without arguments has no pieces
                call = ToolCallDelta(index=block.call, arguments=dumps(start["input"]).decode())
                facts["tool_calls"] = (*facts.get("tool_calls", ()), call)
        elif word == "text":
            start["text"] = "".join(self._texts[block.place :])
        elif not thinks:
            self._others.append(start)
        self._held.append(start)
        if word not in SAID:
            parts = parts_to_echo(self._held, self._options.vendor)
            facts["reasoning_parts"] = (*facts.get("reasoning_parts", ()), *parts)
            self._held = []

    def _whole(self, text: str) -> Any:
        try:
            return loads(text, self._limits)
        except MalformedReply:  # cut by max_tokens
            return text

    def _stop(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        delta = value.get("delta")
        delta = {} if delta is None else need_object(delta, "$.delta")
        word = stop_word(delta.get("stop_reason"))
        if word is not None:
            self.finished = True
            facts["raw_finish_reason"] = word
            finish = FinishReason.of(word)
            if finish is not None:
                facts["finish_reason"] = finish
        refusal = refusal_in(delta.get("stop_details"))
        if refusal is not None:
            facts["refusal"] = refusal
        self._count({**delta, **value}, facts)


def _index(value: dict[str, Any]) -> int:
    """Return which block an event is about; some servers leave it out where there is but one."""
    index = value.get("index")
    index = 0 if index is None else index
    if isinstance(index, int):
        return index
    raise malformed("$.index", "a number", index)


class MessageStream(BodyReader):
    """Read the body of a stream as it arrives: bytes in, pieces of the answer out.

    A server that answers a streaming request with one whole JSON reply is understood too.

    Args:
        options: in what the model differs.
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the reply's headers; None takes the message's own.
    """

    def __init__(
        self, options: MessagesOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(
            EventDecoder(options, limits, request_id=request_id),
            SseSplitter(limits),
            limits,
            whole=partial(decode_response, options=options, request_id=request_id),
        )
