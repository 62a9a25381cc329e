"""Streams of the OpenAI chat dialect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import attrs

from llm_council._wire.openai_chat.errors import choice_error, error_inside
from llm_council._wire.openai_chat.reply import (
    CHOICE_EXTRA,
    CHOICE_PIECES,
    MESSAGE_EXTRA,
    PARTS,
    REPLY_EXTRA,
    all_extra,
    call_extra,
    call_input,
    call_key,
    decode_response,
    is_empty_call,
    is_foreign,
    other_parts,
    read_content,
    read_cost,
    read_usage,
    reasoning_part,
    reasoning_parts_of,
    thoughts_to_echo,
    usage_extra,
    usage_in,
)
from llm_council._wire.openai_chat.request import CUSTOM, DEFAULT, THINKING, ChatOptions
from llm_council._wire.payloads import get_object, get_text, loads, need_list, need_object, pick_non_empty, text_or_none
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council._wire.think import LONE_TAG, ThoughtSplitter
from llm_council.errors import MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.messages import new_call_id
from llm_council.models.reply import FinishReason, GenerateChunk, ToolCallDelta

__all__ = ["ChatStream", "ChunkDecoder"]

_LIMITS = Limits()
# The keys of nearly every delta. A burst of such events is a goal of tests/benchmarks (stream CPU per chunk).
_PLAIN = frozenset({"role", "content"})


@attrs.define(eq=False)
class _Call:
    """A call that is arriving.

    Attributes:
        number: the server's index of the call.
        id: the server's id of the call.
        place: the index among our calls; None for a call of the server's own tools.
        is_custom: True if its argument is free text.
        is_named: True once its name has arrived.
        arguments: the pieces of its arguments.
    """

    number: Any
    id: str
    place: int | None
    is_custom: bool
    is_named: bool = False
    arguments: list[str] = attrs.field(factory=list)

    def is_whole(self) -> bool:
        """Return True if its arguments are a complete JSON object."""
        try:
            return isinstance(loads("".join(self.arguments)), dict)
        except MalformedReply:
            return False


class CallPieces:
    """Finds the call to which each piece of a stream belongs.

    Servers count from 0 or 1, leave the index out, or write 0 for each of several calls. Some leave out the ids, some
    repeat id and name in every piece.
    """

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def add(self, values: Iterable[Any], path: str) -> tuple[ToolCallDelta, ...]:
        """Return the deltas of one event's pieces.

        Raises:
            MalformedReply: a piece has the wrong type.
        """
        begun: set[int] = set()
        deltas = [self._add(value, f"{path}[{index}]", begun) for index, value in enumerate(values)]
        return tuple(delta for delta in deltas if delta is not None)

    def is_named(self) -> bool:
        """Return True if every call has a name."""
        return all(call.is_named or call.place is None for call in self._calls)

    def _add(self, value: Any, path: str, begun: set[int]) -> ToolCallDelta | None:
        piece = need_object(value, path)
        found = piece.get("id")
        own_id = str(found) if isinstance(found, str | int) and found != "" else ""
        key = call_key(piece)
        inner = piece.get(key)
        inner = {} if inner is None else need_object(inner, f"{path}.{key}")
        name = get_text(inner, "name", f"{path}.{key}") or None
        arguments = call_input(inner, key, f"{path}.{key}")
        call = self._find(piece.get("index"), own_id, name, arguments, begun)
        is_new = call is None
        if is_new and not own_id and not is_foreign(piece) and is_empty_call(inner):
            return None
        if call is None:
            place = None if is_foreign(piece) else sum(known.place is not None for known in self._calls)
            call = _Call(piece.get("index"), own_id, place, is_custom=key == CUSTOM)
            self._calls.append(call)
            begun.add(id(call))
        if call.place is None:
            return None
        if call.is_named:
            name = None  # some servers repeat it in every piece
        call.is_named = call.is_named or name is not None
        call.arguments.append(arguments)
        return ToolCallDelta(
            index=call.place,
            id=(own_id or new_call_id(call.place)) if is_new else None,
            name=name,
            arguments=arguments,
            extra=all_extra(piece) if is_new or not call.is_custom else call_extra(piece),
        )

    def _find(self, number: Any, own_id: str, name: str | None, arguments: str, begun: set[int]) -> _Call | None:
        """Return the call to which a piece belongs; None if the piece begins a call.

        Another id together with a name begins another call, and so does a name without an id once the call before it
        was begun by the same event, or is whole.
        """
        numbered = [call for call in reversed(self._calls) if number is None or number == call.number]
        known = next((call for call in numbered if own_id and call.id == own_id), None)
        if known is not None:
            return known
        call = numbered[0] if numbered else None
        if call is None or name is None:
            return call
        if own_id:
            return None
        again = call.is_named and (id(call) in begun or (bool(arguments.strip()) and call.is_whole()))
        return None if again else call


class ChunkDecoder(Decoder):
    """Read the events of one stream, in order.

    ``[DONE]`` is the end mark. A finish reason means that the model has stopped.

    Args:
        options: the server's differences.
        limits: ``json_depth`` bounds each event.
        request_id: the id from the reply's headers; None takes the id in the stream.
    """

    def __init__(
        self, options: ChatOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(limits, request_id=request_id)
        self._options = options
        self._model: str | None = None
        self._begun = False
        self._thoughts: list[str] = []
        self._refused = False
        self._splitter = ThoughtSplitter() if options.think_tags else None
        self._calls = CallPieces()
        self._blocks: list[dict[str, Any]] = []
        self._reported: dict[str, Any] = {}
        self._last_extra: list[Any] = []
        self._pieces: dict[str, Any] = {}  # facts that arrive in pieces
        self._first_id: str | None = None

    def is_whole(self) -> bool:
        """Return True if a stream that ends now holds the whole answer."""
        return self.finished or self.done or (self._begun and not self._options.finish_required)

    def _read(self, event: SseEvent) -> GenerateChunk | str | None:
        data = event.data
        # API reference, "Streaming": this text, which is not JSON, ends a stream.
        if len(data) < 20 and data.strip() == "[DONE]":
            self.done = True
            return None
        value = need_object(loads(data, self._limits), "$")
        if value.get("error") or "choices" not in value:
            self.raise_if_error({"error": value} if event.event == "error" and not value.get("error") else value)
        # Groq's API reference: a stream's events may hold usage and errors under x_groq.
        failed = get_object(value, "x_groq").get("error")
        if failed:
            self.raise_if_error({"error": failed})
        facts: dict[str, Any] = {}
        if not self._begun or self._model is None:
            self._begin(value, facts)
        choices = value.get("choices")
        choice: dict[str, Any] = {}
        if choices is not None and need_list(choices, "$.choices"):
            choice = need_object(choices[0], "$.choices[0]")
            # Answers that extra={"n": 2} adds arrive between the pieces of the first.
            if choice.get("index") in (0, None):
                self._refuse_second(value, choice)
                self._read_choice(choice, facts)
        # API reference, stream_options.include_usage: the usage comes in a last event, whose choices are empty.
        usage = usage_in(value, choice, get_object(choice, "delta"), get_object(choice, "message"))
        if usage is not None:
            self._read_usage(usage, facts)
        extra = [value.get(key) for key in REPLY_EXTRA]
        if extra != self._last_extra:  # nearly every event repeats these facts
            self._last_extra = extra
            self._report_extra(pick_non_empty(value, REPLY_EXTRA), facts)
        if len(facts) == 1 and "text" in facts:
            return self._texts[-1]
        return GenerateChunk(**facts) if facts else None

    def _read_usage(self, usage: Any, facts: dict[str, Any]) -> None:
        counted, cost = read_usage(usage), read_cost(usage)
        if counted is not None:
            facts["usage"] = counted
        if cost is not None:
            facts["cost"] = cost
        self._report_extra(usage_extra(usage), facts)

    def _refuse_second(self, value: dict[str, Any], choice: dict[str, Any]) -> None:
        """Raise if an answer that has ended is followed by the pieces of another one."""
        if self._first_id is None:
            self._first_id = text_or_none(value.get("id"))
        # Some servers change the id from event to event, some repeat the finish reason: together they tell.
        if self.finished and get_object(choice, "delta").get("content") and value.get("id") != self._first_id:
            raise MalformedReply("a second answer begins in the middle of the stream", path="$.choices[0]")

    def raise_if_error(self, value: Any) -> Any:
        """Return a JSON value that is not a part of an answer.

        Raises:
            ApiError: the value is an error.
        """
        if isinstance(value, dict):
            found = self._request_id or text_or_none(value.get("id"))
            error = error_inside(value, request_id=found, partial=self.partial or None)
            if error is not None:
                raise error
        return value

    def _begin(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        if not self._begun:
            self._begun = True
            self._request_id = self._request_id or text_or_none(value.get("id"))
            if self._request_id is not None:
                facts["request_id"] = self._request_id
        model = get_text(value, "model", "$")
        if model:
            self._model = facts["model"] = model

    def _read_choice(self, choice: dict[str, Any], facts: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if delta is None:
            delta = self._rest_of(choice.get("message"))
        delta = need_object(delta, "$.choices[0].delta")
        content = delta.get("content")
        if content:
            self._add_content(content, facts)
        if not delta.keys() <= _PLAIN:
            self._read_rare_keys(delta, facts)
        word = choice.get("finish_reason")
        if word or choice.get("error"):
            self._read_finish(choice, facts)
        self._report_extra(pick_non_empty(choice, CHOICE_EXTRA), facts)
        for key in CHOICE_PIECES:
            if choice.get(key):
                self._pieces[key] = join_pieces(self._pieces.get(key), choice[key])

    def _rest_of(self, message: Any) -> dict[str, Any]:
        """Return what a whole message adds to the pieces; some servers send one instead of the last piece."""
        if not isinstance(message, dict):
            return {}
        content = message.get("content")
        return {**message, "content": content.removeprefix(self.partial)} if isinstance(content, str) else message

    def _add_content(self, content: Any, facts: dict[str, Any]) -> None:
        if not isinstance(content, str):
            parts = other_parts(content)
            if parts:
                self._pieces.setdefault(PARTS, []).extend(parts)
            if self._options.echo == "content":
                for piece in reasoning_parts_of(content):
                    _add_thinking(self._blocks, piece)
            content, refusal, thoughts = read_content(content, "$.choices[0].delta.content")
            self._add_thoughts(thoughts, facts)
            if refusal:
                self._refused = True
                facts["refusal"] = refusal
            if not content:
                return
        if self._splitter is not None:
            thoughts, content = self._splitter.feed(content)
            self._restart(self._splitter, facts)
            self._add_thoughts(thoughts, facts)
        if content:
            self._texts.append(content)
            facts["text"] = content

    def _restart(self, splitter: ThoughtSplitter, facts: dict[str, Any]) -> None:
        """Begin the answer anew if its text so far turns out to be reasoning; what else was reported is repeated."""
        if not splitter.restarted or not self.partial:
            return
        self._texts.clear()
        again = {"reset": LONE_TAG, "request_id": self._request_id, "model": self._model}
        facts.update((key, fact) for key, fact in again.items() if fact is not None)
        if self._thoughts:
            facts["reasoning"] = "".join(self._thoughts)
        if self._reported:
            facts["extra"] = {**facts.get("extra", {}), **self._reported}

    def _add_thoughts(self, thoughts: str, facts: dict[str, Any]) -> None:
        if thoughts:
            self._thoughts.append(thoughts)
            facts["reasoning"] = facts.get("reasoning", "") + thoughts

    def _read_rare_keys(self, delta: dict[str, Any], facts: dict[str, Any]) -> None:
        path = "$.choices[0].delta"
        thoughts = get_text(delta, "reasoning", path) or get_text(delta, "reasoning_content", path)
        self._add_thoughts(thoughts or "", facts)
        refusal = get_text(delta, "refusal", path)
        if refusal:
            self._refused = True
            facts["refusal"] = facts.get("refusal", "") + refusal
        blocks = delta.get("reasoning_details")
        if isinstance(blocks, list):
            for block in blocks:
                if isinstance(block, dict):
                    _add_block(self._blocks, block)
        calls = delta.get("tool_calls")
        legacy = delta.get("function_call")  # deprecated (API reference); a message holds one at most
        if not calls and legacy:
            calls = [{"index": 0, "function": legacy}]
        deltas = self._calls.add(need_list(calls, f"{path}.tool_calls"), f"{path}.tool_calls") if calls else ()
        if deltas:
            facts["tool_calls"] = deltas
        for key in MESSAGE_EXTRA:
            if delta.get(key):
                self._pieces[key] = join_pieces(self._pieces.get(key), delta[key])

    def _read_finish(self, choice: dict[str, Any], facts: dict[str, Any]) -> None:
        error = choice_error(choice, request_id=self._request_id, partial=self.partial or None)
        if error is not None:
            raise error
        word = text_or_none(choice.get("finish_reason"))
        if word is not None:
            self.finished = True
            facts["raw_finish_reason"] = word
            # OpenAI ends a refusal with "stop" (guide "Structured model outputs", refusals).
            finish = FinishReason.CONTENT_FILTER if self._refused else FinishReason.of(word)
            if finish is not None:
                facts["finish_reason"] = finish

    def _report_extra(self, extra: dict[str, Any], facts: dict[str, Any]) -> None:
        for key, value in extra.items():
            if self._reported.get(key) != value:
                self._reported[key] = value
                facts.setdefault("extra", {})[key] = value

    def close(self) -> list[GenerateChunk]:
        """Return what only the end of the stream completes: blocks of reasoning, and held-back text.

        Raises:
            MalformedReply: a tool call has no name.
        """
        facts: dict[str, Any] = {}
        if self._splitter is not None:
            thoughts, content = self._splitter.finish()
            self._restart(self._splitter, facts)
            self._add_thoughts(thoughts, facts)
            if content:
                self._texts.append(content)
                facts["text"] = content
        if not self._calls.is_named():
            raise MalformedReply(
                "a tool call of the stream has no name",
                path="$.choices[0].delta.tool_calls",
                partial=self.partial or None,
                request_id=self._request_id,
            )
        parts = tuple(reasoning_part(block, self._options.vendor) for block in self._blocks)
        parts = parts or thoughts_to_echo("".join(self._thoughts), self._options)
        if parts:
            facts["reasoning_parts"] = parts
        if self._pieces:
            facts["extra"] = dict(self._pieces)
        return [GenerateChunk(**facts)] if facts else []


def join_pieces(known: Any, piece: Any) -> Any:
    """Join a fact that arrives in pieces: lists are concatenated, objects joined key by key.

    An item with the index of an earlier one, as of Groq's executed tools, adds to it. Of an object, the texts ``data``
    and ``transcript``, which are those of a sound, are concatenated; of any other key, the last value counts.
    """
    if isinstance(known, list) and isinstance(piece, list):
        joined = list(known)
        for item in piece:
            place = _place_of(joined, item)
            if place is None:
                joined.append(item)
            else:
                joined[place] = {**joined[place], **{key: value for key, value in item.items() if value is not None}}
        return joined
    if isinstance(known, dict) and isinstance(piece, dict):
        both = dict(known)
        for key, value in piece.items():
            if key in _CONCATENATED and isinstance(value, str) and isinstance(both.get(key), str):
                both[key] += value
            elif value is not None or key not in both:
                both[key] = join_pieces(both.get(key), value)
        return both
    return piece


_CONCATENATED = ("data", "transcript")


def _place_of(items: list[Any], item: Any) -> int | None:
    """Return the place of the item with the same index; None if there is none."""
    index = item.get("index") if isinstance(item, dict) else None
    if index is None:
        return None
    places = [place for place, known in enumerate(items) if isinstance(known, dict) and known.get("index") == index]
    return places[0] if places else None


def _add_block(blocks: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Join the pieces of one block of ``reasoning_details``: those with the same index and type."""
    kind = piece.get("type")
    block = next((b for b in reversed(blocks) if b.get("index") == piece.get("index") and b.get("type") == kind), None)
    if block is None or kind == "reasoning.encrypted":  # encrypted blocks arrive whole
        blocks.append(dict(piece))
        return
    for key, value in piece.items():
        if key in ("text", "summary") and isinstance(value, str) and isinstance(block.get(key), str):
            block[key] += value
        elif value not in (None, ""):
            block[key] = value


def _add_thinking(blocks: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Join neighbouring pieces of one ``thinking`` part; its last signature counts."""
    texts = piece.get(THINKING)
    if isinstance(texts, str):
        texts = [{"type": "text", "text": texts}]
    if not blocks or blocks[-1].get("signature"):  # a signature ends a part
        blocks.append({"type": THINKING, THINKING: []})
    block = blocks[-1]
    for item in texts if isinstance(texts, list) else ():
        last = block[THINKING][-1] if block[THINKING] else {}
        if isinstance(item, dict) and _is_words(item) and _is_words(last):
            last["text"] += item["text"]
        elif isinstance(item, dict):
            block[THINKING].append(dict(item))
    block.update((key, value) for key, value in piece.items() if key not in ("type", THINKING) and value is not None)


def _is_words(item: Mapping[str, Any]) -> bool:
    return item.keys() == {"type", "text"} and item["type"] == "text" and isinstance(item["text"], str)


class ChatStream(BodyReader):
    """Read the body of a stream as it arrives: bytes in, pieces of the answer out.

    Some servers answer a streaming request with one whole JSON reply; it is decoded too.

    Args:
        options: the server's differences.
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the reply's headers; None takes the id in the stream.
    """

    def __init__(
        self, options: ChatOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(
            ChunkDecoder(options, limits, request_id=request_id),
            SseSplitter(limits),
            limits,
            whole=partial(decode_response, options=options, request_id=request_id),
        )
