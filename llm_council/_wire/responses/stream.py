"""Streams of OpenAI's Responses dialect: named events about output items, and at the end the whole reply.

Event names and fields are those of the API reference, "Streaming events".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.openai_chat.reply import call_id, read_cost, read_usage
from llm_council._wire.payloads import get_text, loads, malformed, need_object, text_or_none
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.responses.reply import (
    TOKENS,
    call_arguments,
    call_extra,
    decode_response,
    failure_in,
    message_parts,
    message_texts,
    of_type,
    parts_to_echo,
    read_finish,
    read_items,
    reasoning_texts,
    reply_extra,
)
from llm_council._wire.responses.request import CALLS, DEFAULT, ResponsesOptions
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council._wire.think import LONE_TAG, ThoughtSplitter
from llm_council.errors import MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.reply import GenerateChunk, ToolCallDelta

__all__ = ["EventDecoder", "ResponseStream"]

_LIMITS = Limits()
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_THOUGHTS = ("summary", "content")  # kinds of reasoning; only the kind that arrives first is read from an item

Facts = dict[str, Any]


class _Item:
    """An output item that is arriving.

    Attributes:
        pieces: the pieces so far, by kind (``text``, ``refusal``, ``summary``, ``content``, ``arguments``) and index.
        call: the index of its tool call; None for other items.
        thoughts: the kind of reasoning that is read from it, ``summary`` or ``content``.
    """

    def __init__(self) -> None:
        self.pieces: dict[tuple[str, int], list[str]] = {}
        self.call: int | None = None
        self.thoughts: str | None = None


class EventDecoder(Decoder):
    """Read the events of one stream, in order.

    The event with the whole reply is the end mark. Texts that arrived in no piece are taken from the end of their item
    or from the whole reply: some servers leave pieces out.

    Args:
        options: the server's differences.
        limits: ``json_depth`` bounds each event.
        request_id: the id from the reply's headers; None takes the id in the reply.
    """

    def __init__(
        self, options: ResponsesOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(limits, request_id=request_id)
        self._options = options
        self._begun = False
        self._model: str | None = None
        self._by_index: dict[int, _Item] = {}
        self._by_id: dict[str, _Item] = {}
        self._latest = _Item()
        self._called: list[str] = []  # the ids of the calls, by index
        self._own_id: str | None = None  # the id of the reply that has begun
        self._closed: dict[int, dict[str, Any]] = {}  # whole items, by their place in the output
        self._refused = False
        self._thought = False
        self._splitter = ThoughtSplitter() if options.think_tags else None
        self._written: list[str] = []  # the texts with the tags, if they are looked for
        self._thoughts: list[str] = []  # the reasoning, which is repeated where the answer begins anew
        self._in_tags = False  # reasoning has come from the text
        self._by_type: dict[str, Callable[[dict[str, Any], Facts], None]] = {
            "response.created": self._begin,
            "response.in_progress": self._begin,
            "response.queued": self._begin,  # of a reply in the background
            "response.output_item.added": self._open,
            "response.output_item.done": self._close,
            "response.output_text.delta": partial(self._add, "text", "content_index"),
            "response.refusal.delta": partial(self._add, "refusal", "content_index"),
            "response.function_call_arguments.delta": partial(self._add, "arguments", ""),
            "response.custom_tool_call_input.delta": partial(self._add, "arguments", ""),
            "response.reasoning_summary_text.delta": partial(self._add, "summary", "summary_index"),
            "response.reasoning_text.delta": partial(self._add, "content", "content_index"),
        }

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        data = event.data
        if len(data) < 20 and data.strip() == "[DONE]":  # OpenRouter ends its streams with it
            self.done = True
            return None
        value = need_object(loads(data, self._limits), "$")
        if "type" not in value and value.get("object") == "response":
            return self.take_whole(decode_response(value, self._options, request_id=self._request_id))
        word = text_or_none(value.get("type") or event.event) or ""
        # The API reference has a flat event of type "error"; servers also send the chat dialect's nested object.
        if word == "error" or value.get("error"):
            self._fail(value)
        facts: Facts = {}
        if word in _ENDS:
            reply = need_object(value.get("response"), "$.response")
            has_status = reply.get("status") is not None  # some servers leave it to the event's name
            self._end(reply if has_status else {**reply, "status": word.removeprefix("response.")}, facts)
        else:
            read = self._by_type.get(word)
            if read is not None:
                read(value, facts)
        return GenerateChunk(**facts) if facts else None

    def _fail(self, value: dict[str, Any]) -> None:
        """Raise the error of an event: flat as the API reference says, or nested as servers send it."""
        inner = value.get("error")
        if not inner:
            inner = {key: value.get(key) for key in ("message", "code")}
        error = error_inside({**value, "error": inner}, request_id=self._request_id, partial=self.partial or None)
        if error is not None:
            raise error

    def raise_if_error(self, value: Any) -> Any:
        """Return a JSON value that is not an event.

        Raises:
            ApiError: the value is an error.
        """
        if isinstance(value, dict) and (value.get("error") or value.get("type") == "error"):
            self._fail(value)
        return value

    def _begin(self, value: dict[str, Any], facts: Facts) -> None:
        reply = value.get("response")
        if reply is not None:
            begins = value.get("type") == "response.created"
            self._read_head(need_object(reply, "$.response"), facts, begins=begins)

    def _read_head(self, reply: dict[str, Any], facts: Facts, *, begins: bool = False) -> None:
        own = text_or_none(reply.get("id"))
        if begins and self._own_id is not None and own not in (None, self._own_id):
            raise MalformedReply("a second reply begins in the middle of the stream", path="$.response.id")
        self._own_id = self._own_id or own
        if not self._begun:
            self._begun = True
            self._request_id = self._request_id or text_or_none(reply.get("id"))
            if self._request_id is not None:
                facts["request_id"] = self._request_id
        model = get_text(reply, "model", "$.response")
        if model and model != self._model:
            self._model = facts["model"] = model

    # Items

    def _item(self, value: dict[str, Any], item: dict[str, Any] | None = None, *, begins: bool = False) -> _Item:
        """Return the item of an event. Some servers leave its index out, others change its id during the stream."""
        index, own = value.get("output_index"), value.get("item_id")
        if own is None and item is not None:
            own = item.get("id")
        found = self._latest
        if isinstance(index, int):
            found = self._by_index.get(index) or _Item()
        elif isinstance(own, str):
            found = self._by_id.get(own) or _Item()
        elif begins:
            found = _Item()
        if isinstance(index, int):
            self._by_index[index] = found
        if isinstance(own, str):
            self._by_id[own] = found
        self._latest = found
        return found

    def _open(self, value: dict[str, Any], facts: Facts) -> None:
        item = need_object(value.get("item"), "$.item")
        known = self._item(value, item, begins=True)
        if item.get("type") in CALLS:
            self._call(known, item, facts)

    def _call(self, known: _Item, item: dict[str, Any], facts: Facts) -> None:
        """Begin a call, and add the arguments that have arrived."""
        if known.call is None:
            name = get_text(item, "name", "$.item")
            if not name:
                raise malformed("$.item.name", "a name", item.get("name"))
            self._end_splitting(facts)  # a call that was reported cannot be taken back
            known.call = len(self._called)
            own = call_id(item.get("call_id") or item.get("id"), known.call)
            self._called.append(own)
            early = "".join(known.pieces.get(("arguments", 0), ()))
            begun = ToolCallDelta(index=known.call, id=own, name=name, arguments=early, extra=call_extra(item))
            facts["tool_calls"] = (*facts.get("tool_calls", ()), begun)
        self._catch_up(known, "arguments", 0, call_arguments(item, "$.item"), facts)

    def _close(self, value: dict[str, Any], facts: Facts) -> None:
        item = need_object(value.get("item"), "$.item")
        known = self._item(value, item)
        place = value.get("output_index")
        self._closed[place if isinstance(place, int) else len(self._closed)] = item
        word = item.get("type")
        if word in CALLS:
            self._call(known, item, facts)
        elif word == "message":
            for index, part in enumerate(message_parts(item, "$.item")):
                for kind, key in (("output_text", "text"), ("refusal", "refusal")):
                    if part.get("type") == kind:
                        self._catch_up(known, key, index, get_text(part, key, "$.part") or "", facts)
        elif word == "reasoning":
            kind = known.thoughts or ("content" if item.get("content") else "summary")
            listed = item.get(kind)
            for index, part in enumerate(listed if isinstance(listed, list) else ()):
                if isinstance(part, dict):
                    self._catch_up(known, kind, index, get_text(part, "text", "$.item") or "", facts)

    # Texts

    def _add(self, kind: str, key: str, value: dict[str, Any], facts: Facts) -> None:
        words = get_text(value, "delta", "$")
        if words:
            place = value.get(key, 0)
            self._add_text(self._item(value), kind, place if isinstance(place, int) else 0, words, facts)

    def _catch_up(self, item: _Item, kind: str, index: int, whole: str, facts: Facts) -> None:
        """Add the part of a text that no piece has brought."""
        so_far = "".join(item.pieces.get((kind, index), ()))
        if len(whole) > len(so_far) and whole.startswith(so_far):
            self._add_text(item, kind, index, whole[len(so_far) :], facts)

    def _add_text(self, item: _Item, kind: str, index: int, words: str, facts: Facts) -> None:
        pieces = item.pieces.get((kind, index))
        if kind in _THOUGHTS:
            item.thoughts = item.thoughts or kind
            if item.thoughts != kind:
                return
            # Each index is a paragraph of its own ("summary_index", "content_index").
            if pieces is None and self._thought:
                self._add_reasoning("\n\n", facts)
            self._thought = True
        if pieces is None:
            pieces = item.pieces[kind, index] = []
        pieces.append(words)
        if kind == "arguments":
            if item.call is not None:
                facts["tool_calls"] = (*facts.get("tool_calls", ()), ToolCallDelta(index=item.call, arguments=words))
            return
        if kind == "text":
            self._add_answer(words, facts)
        elif kind in _THOUGHTS:
            self._add_reasoning(words, facts)
        else:
            facts[kind] = facts.get(kind, "") + words
        self._refused = self._refused or kind == "refusal"

    def _add_reasoning(self, words: str, facts: Facts) -> None:
        facts["reasoning"] = facts.get("reasoning", "") + words
        if self._splitter is not None:
            self._thoughts.append(words)

    def _add_answer(self, words: str, facts: Facts) -> None:
        if self._splitter is not None:
            self._written.append(words)
            words = self._without_thoughts(self._splitter, self._splitter.feed(words), facts)
        self._show(words, facts)

    def _show(self, words: str, facts: Facts) -> None:
        if words:
            self._texts.append(words)
            facts["text"] = facts.get("text", "") + words

    def _without_thoughts(self, splitter: ThoughtSplitter, found: tuple[str, str], facts: Facts) -> str:
        """Add the reasoning that a piece of text brought, and return its words of the answer.

        After a closing tag that no opening tag preceded, the answer begins anew: the text so far was reasoning.
        """
        thoughts, words = found
        if splitter.restarted and self.partial:
            self._texts.clear()
            facts.pop("text", None)
            again = {"reset": LONE_TAG, "request_id": self._request_id, "model": self._model}
            facts.update((key, fact) for key, fact in again.items() if fact is not None)
            facts["reasoning"] = "".join(self._thoughts)
        if thoughts:
            if self._thoughts and not self._in_tags:
                self._add_reasoning("\n\n", facts)
            self._in_tags = True
            self._add_reasoning(thoughts, facts)
        return words

    def _end_splitting(self, facts: Facts) -> None:
        """Return the text that was held back; no tag is looked for in later text."""
        if self._splitter is not None:
            self._show(self._without_thoughts(self._splitter, self._splitter.finish(), facts), facts)
            self._splitter = None

    # The end

    def _end(self, reply: dict[str, Any], facts: Facts) -> None:
        self._read_head(reply, facts)
        error = failure_in(reply, request_id=self._request_id, partial=self.partial or None)
        if error is not None:
            raise error
        self.finished = self.done = True
        items = self._whole_items(read_items({"output": reply.get("output") or []}))
        self._catch_up_all(items, facts)
        self._end_splitting(facts)
        word, finish = read_finish(reply, called=bool(self._called), refused=self._refused)
        last = {
            "raw_finish_reason": word,
            "finish_reason": finish,
            "usage": read_usage(reply.get("usage"), *TOKENS),
            "cost": read_cost(reply.get("usage")),
            "reasoning_parts": parts_to_echo(items, self._options) or None,
            "extra": reply_extra(reply, items) or None,
        }
        facts.update((key, fact) for key, fact in last.items() if fact is not None)

    def _whole_items(self, listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the items of the whole reply, with what only their own events brought.

        Codex's server and some gateways end a stream with an empty output, or leave encrypted reasoning out of it.
        """
        closed = [self._closed[place] for place in sorted(self._closed)]
        if not listed:
            return closed
        by_id = {item["id"]: item for item in closed if text_or_none(item.get("id"))}
        return [
            {**by_id.get(item.get("id"), {}), **{key: value for key, value in item.items() if value is not None}}
            if text_or_none(item.get("id")) in by_id
            else item
            for item in listed
        ]

    def _catch_up_all(self, items: list[dict[str, Any]], facts: Facts) -> None:
        """Add the texts that only the whole reply holds."""
        text, so_far = "".join(message_texts(items, "output_text", "text")), "".join(self._written) or self.partial
        if len(text) > len(so_far) and text.startswith(so_far):
            self._add_text(_Item(), "text", 0, text[len(so_far) :], facts)
        if not self._refused:
            for words in message_texts(items, "refusal", "refusal"):
                self._add_text(_Item(), "refusal", 0, words, facts)
        if not self._thought:
            for _, item in of_type(items, "reasoning"):
                for words in reasoning_texts(item):
                    self._add_text(_Item(), "content", 0, words, facts)
        calls = of_type(items, *CALLS)
        for at, item in calls[: len(self._called)]:
            known = self._by_index.get(at)
            if known is not None and known.call is not None:
                self._catch_up(known, "arguments", 0, call_arguments(item, "$.item"), facts)
        for _, item in calls[len(self._called) :]:
            self._call(_Item(), item, facts)


class ResponseStream(BodyReader):
    """Read the body of a stream as it arrives: bytes in, pieces of the answer out.

    Some servers answer a streaming request with one whole JSON reply; it is decoded too.

    Args:
        options: the server's differences.
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the reply's headers; None takes the id in the reply.
    """

    def __init__(
        self, options: ResponsesOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(
            EventDecoder(options, limits, request_id=request_id),
            SseSplitter(limits),
            limits,
            whole=partial(decode_response, options=options, request_id=request_id),
        )
