"""Read a stream: bytes to events, events to chunks of an answer. Base classes for every dialect.

A new dialect writes one subclass of each::

    class EventDecoder(Decoder):  # events in, chunks out
        def _read(self, event: SseEvent) -> GenerateChunk | None:
            value = need_object(loads(event.data, self._limits), "$")
            if value.get("type") == "end":
                self.finished = self.done = True
                return GenerateChunk(finish_reason=FinishReason.STOP)
            text = get_text(value, "text", "$") or ""
            self._texts.append(text)
            return GenerateChunk(text=text)


    class ChatStream(BodyReader):  # what adapters use
        def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None) -> None:
            events = EventDecoder(limits, request_id=request_id)
            whole = partial(decode_response, request_id=request_id)
            super().__init__(events, SseSplitter(limits), limits, whole=whole)

The base classes handle keep-alives, bytes cut anywhere, a body that ends too early, a whole reply or a proxy's page
instead of a stream, and the partial answer that an error carries.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from operator import attrgetter
from typing import Any, NoReturn, Protocol

import attrs

from llm_council._wire.payloads import loads
from llm_council._wire.sse import SseEvent
from llm_council.errors import MalformedReply, ProviderError, ReplyError, ReplyTooLarge, TruncatedReply
from llm_council.models.limits import Limits
from llm_council.models.reply import GenerateChunk, GenerateResponse, Usage

__all__ = ["BodyReader", "Decoder", "Splitter", "join_texts", "later_usage", "looks_like_stream", "share_texts"]

_LIMITS = Limits()
_BOM = b"\xef\xbb\xbf"
_SHOWN = 300  # characters of a server's own words in a message
_HEAD = 64 * 1024  # bytes in which a stream shows that it is one
_FIELD = re.compile(rb"^(?:data|event|id|retry|error)?:", re.MULTILINE)
_COUNTS = tuple(field.name for field in attrs.fields(Usage) if field.name != "estimated")


class Decoder(ABC):
    """Base class: reads the events of one stream, in order.

    A subclass writes ``_read``, which adds the answer's text to ``_texts`` and sets ``finished`` and ``done``; and
    ``close`` where the end of a stream adds something.

    Args:
        limits: ``json_depth`` bounds each event.
        request_id: the id from the reply's headers; None takes the one in the stream.

    Attributes:
        done: True after the dialect's end mark; nothing follows.
        finished: True once the model has stopped; at most usage and the end mark follow.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None) -> None:
        self.done = False
        self.finished = False
        self._limits = limits
        self._request_id = request_id
        self._texts: list[str] = []
        self._usage_so_far: Usage | None = None

    @property
    def partial(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    def feed(self, event: SseEvent) -> GenerateChunk | str | None:
        """Return what an event adds to the answer: a chunk, or a plain text if it adds nothing else; None for nothing.

        Raises:
            ApiError: the event is an error.
            MalformedReply: the event is not one of this dialect.
        """
        if self.done or not event.data or event.data.isspace():
            return None
        if event.event == "error":
            self._refuse_named(event)
        try:
            piece = self._read(event)
        except MalformedReply as error:
            if event.data.strip() == "[DONE]":  # gateways end streams of every dialect with OpenAI's mark
                return None
            raise error.fill(partial=self.partial or None, request_id=self._request_id) from None
        if isinstance(piece, GenerateChunk) and piece.usage is not None:
            self._usage_so_far = usage = later_usage(self._usage_so_far, piece.usage, answered=bool(self._texts))
            return piece if usage == piece.usage else attrs.evolve(piece, usage=usage)
        return piece

    def _refuse_named(self, event: SseEvent) -> None:
        """Raise the error of an event named ``error`` whose data is plain text, or the bare inside of an error."""
        try:
            value = loads(event.data, self._limits)
        except MalformedReply:
            value = {"message": event.data[:_SHOWN]}
        if isinstance(value, dict) and not value.get("error") and value.get("type") != "error":
            self.raise_if_error({"error": value})

    def take_whole(self, response: GenerateResponse) -> GenerateChunk:
        """Return what a whole reply adds that arrives as one event of a stream; it ends the stream.

        After pieces of the answer, a whole reply repeats them: only the rest of its text and its end are new.
        """
        self.finished = self.done = True
        chunk = GenerateChunk.whole(response)
        shown = self.partial
        if shown:
            chunk = attrs.evolve(chunk, text=chunk.text.removeprefix(shown), reasoning="", refusal="", tool_calls=())
        self._texts.append(chunk.text)
        return chunk

    def finish(self, events: Iterable[SseEvent] = ()) -> list[GenerateChunk]:
        """Return what the end of the stream adds.

        Args:
            events: the events that the end of the body completed; the last one may be cut.

        Raises:
            TruncatedReply: the stream ended before the answer did.
            MalformedReply: the stream holds no complete answer.
        """
        chunks = []
        for event in events:
            try:
                chunk = self.feed(event)
            except MalformedReply as error:
                if error.code is not None:  # the vendor's own
                    raise
                self.cut()  # the body ended inside this event
            if chunk is not None:
                chunks.append(GenerateChunk(text=chunk) if isinstance(chunk, str) else chunk)
        if not self.is_whole():
            self.cut()
        return chunks + self.close()

    def is_whole(self) -> bool:
        """Return True if a stream that ends now holds the whole answer."""
        return self.finished or self.done

    def cut(self) -> NoReturn:
        """Raise the error of a stream that ended too early."""
        raise TruncatedReply(
            "the stream ended before the answer did", partial=self.partial or None, request_id=self._request_id
        ) from None

    def close(self) -> list[GenerateChunk]:
        """Return what only the end of a stream completes, such as blocks of thinking that are sent back."""
        return []

    def raise_if_error(self, value: Any) -> Any:
        """Raise the error that a JSON value holds; return a value that holds none.

        The value may stand between the events and be none itself, or be that of an event named ``error``.

        Raises:
            ApiError: the value is an error of this dialect.
        """
        return value

    @abstractmethod
    def _read(self, event: SseEvent) -> GenerateChunk | str | None:
        """Return what an event with data adds, see ``feed``."""


class Splitter(Protocol):
    """Splits bytes into events, see ``llm_council._wire.sse``."""

    events_before_error: list[SseEvent]
    stray: list[bytes]

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that end within these bytes."""
        ...

    def finish(self) -> list[SseEvent]:
        """Return the event that the end of the body completes."""
        ...


class BodyReader:
    """Base class: reads the body of a stream as it arrives, bytes in, chunks of the answer out.

    Args:
        decoder: reads the events.
        splitter: splits the bytes into events.
        limits: ``json_depth`` bounds a whole reply.
        whole: decodes the JSON of a whole reply, which some servers send instead of a stream; None if a whole reply is
            itself a stream of the dialect.

    Attributes:
        has_usage: True once usage has arrived.
    """

    def __init__(
        self,
        decoder: Decoder,
        splitter: Splitter,
        limits: Limits = _LIMITS,
        *,
        whole: Callable[[Any], GenerateResponse] | None = None,
    ) -> None:
        self._decoder = decoder
        self._splitter = splitter
        self._limits = limits
        self._decode_whole = whole
        self._head: bytes | None = None if whole is None else b""  # until the first character
        self._whole: list[bytes] | None = None
        self._fault: ProviderError | None = None  # raised after the chunks before it were returned
        self.has_usage = False

    @property
    def done(self) -> bool:
        """True after the dialect's end mark, and after a fault, which ``finish`` raises."""
        return self._decoder.done or self._fault is not None

    @property
    def finished(self) -> bool:
        """True once the model has stopped; at most usage and the end mark follow."""
        return self._decoder.finished

    @property
    def partial(self) -> str:
        """The text so far."""
        return self._decoder.partial

    def feed(self, data: bytes) -> list[GenerateChunk]:
        """Return what these bytes add to the answer; texts that arrive at once are one chunk.

        Chunks before a fault are returned first, however the bytes are cut. The reader is then ``done``, and the next
        call or ``finish`` raises.

        Raises:
            ApiError: the server sent an error.
            MalformedReply: these are not events of this dialect.
            ReplyTooLarge: an event is too large.
        """
        self._raise_fault()
        if self._head is not None:
            # The first visible character decides. A byte order mark, blank lines and comments may stand before it
            # (WHATWG HTML, section 9.2.6); OpenRouter writes comments before a whole reply, too.
            data = self._head + data
            beginning = _after_comments(data.removeprefix(_BOM))
            if not beginning or (len(data) < len(_BOM) and _BOM.startswith(data)):
                if len(data) > self._limits.event:
                    raise ReplyTooLarge("the stream holds nothing but comments", limit=self._limits.event)
                self._head = data
                return []
            self._head = None
            self._begin(beginning[:1])
            if self._whole is not None:
                data = beginning
        if self._whole is not None:
            self._whole.append(data)
            return []
        split_fault: ReplyError | None = None
        try:
            events = self._splitter.feed(data)
        except ReplyError as error:
            events, split_fault = self._splitter.events_before_error, error
        known = len(self._decoder._texts)
        chunks = join_texts(self._read_events(events))
        share_texts(self._decoder._texts, known, chunks)
        # An event before the place where splitting failed comes first. The frame must not hold the error: see
        # ``_raise_fault``.
        self._fault, split_fault = self._fault or split_fault, None
        if self._fault is not None:
            if isinstance(self._fault, ReplyError):
                self._fault.fill(partial=self.partial or None)
            if not chunks:
                self._raise_fault()
        return chunks

    def _read_events(self, events: Iterable[SseEvent]) -> list[GenerateChunk | str]:
        """Return what events add to the answer, up to a fault."""
        chunks: list[GenerateChunk | str] = []
        try:
            for event in events:
                chunk = self._decoder.feed(event)
                if chunk is None:
                    continue
                chunks.append(chunk)
                if not isinstance(chunk, str) and chunk.usage is not None:
                    self.has_usage = True
        except ProviderError as error:  # stored until the chunks before it have been returned
            self._fault = error
        return chunks

    def _raise_fault(self) -> None:
        fault, self._fault = self._fault, None
        if fault is None:
            return
        try:
            raise fault.with_traceback(None)  # the old traceback keeps the frames of an earlier call alive
        finally:
            # The error's traceback holds this frame: as long as the frame held the error, its text of many MiB would
            # stay in memory until the garbage collector runs (tests/faults/test_memory.py).
            del fault

    def finish(self) -> list[GenerateChunk]:
        """Return what the end of the body adds.

        Raises:
            TruncatedReply: the body ended before the answer did.
            MalformedReply: the body is neither a stream nor a reply of this dialect.
            ApiError: the body is a reply that holds an error.
        """
        self._raise_fault()
        if self._whole is not None and self._decode_whole is not None:
            reply = loads(without_end_mark(b"".join(self._whole)), self._limits)
            return [GenerateChunk.whole(self._decode_whole(reply))]
        try:
            events = self._splitter.finish()
        except MalformedReply:  # cut inside a character
            events = []
        if self._splitter.stray:  # some servers write an error between or after the events as plain JSON
            with suppress(MalformedReply):
                self._decoder.raise_if_error(loads(b"\n".join(self._splitter.stray), self._limits))
        return self._decoder.finish(events)

    def _begin(self, first_byte: bytes) -> None:
        """Choose how to read the body by its first visible byte."""
        if first_byte in (b"{", b"<"):  # no line of an event stream begins so: a reply, or a proxy's page
            self._whole = []


def later_usage(known: Usage | None, new: Usage, *, answered: bool) -> Usage:
    """Return the counts after a later report in one stream: a count is cumulative, so that 0 does not replace a number.

    Servers of several dialects count the input at the beginning and write 0 for it at the end, or leave it out. Only
    the tokens of an answer that has no text may become 0: a refusal that is not charged.

    Args:
        known: the counts so far.
        new: the later report.
        answered: whether text of the answer has arrived.
    """
    if known is None:
        return new
    counts = {}
    for name in _COUNTS:
        before, now = getattr(known, name), getattr(new, name)
        is_final = now == 0 and not answered and name in ("output_tokens", "reasoning_tokens")
        counts[name] = now if now or is_final or before is None else before
    return Usage(**counts, estimated=new.estimated)


def looks_like_stream(body: bytes) -> bool:
    """Return True for a body that is no JSON value by itself but may be a stream: of events, or of JSON lines."""
    start = body[:_HEAD].removeprefix(_BOM).lstrip()
    if _FIELD.search(start):
        return True
    first, _, rest = start.partition(b"\n")
    return first.rstrip().endswith((b"}", b"]")) and rest.lstrip().startswith((b"{", b"data:"))


def without_end_mark(body: bytes) -> bytes:
    """Return the bytes of a whole reply without what the end of a stream adds: ``data: [DONE]``, and comments."""
    lines = body.rstrip().split(b"\n")
    while len(lines) > 1 and (lines[-1].strip() in (b"", b"data: [DONE]", b"data:[DONE]") or lines[-1][:1] == b":"):
        lines.pop()
    return b"\n".join(lines)


def _after_comments(data: bytes) -> bytes:
    """Return the bytes after blank lines and whole comments; nothing while a comment has not ended."""
    data = data.lstrip()
    while data.startswith(b":"):
        end = re.search(rb"[\r\n]", data)
        if end is None:
            return b""
        data = data[end.end() :].lstrip()
    return data


def join_texts(chunks: Iterable[GenerateChunk | str]) -> list[GenerateChunk]:
    """Join neighbouring chunks that hold nothing but text.

    Every chunk costs each of its readers a step, so chunks that arrive at once become one.
    """
    joined: list[GenerateChunk] = []
    texts: list[str] = []
    for chunk in chunks:
        if isinstance(chunk, str):
            texts.append(chunk)
        elif chunk.text and _fields_except_text(chunk) == _NOTHING:
            texts.append(chunk.text)
        else:
            if texts:
                joined.append(GenerateChunk(text="".join(texts)))
                texts = []
            joined.append(chunk)
    if texts:
        joined.append(GenerateChunk(text="".join(texts)))
    return joined


def share_texts(texts: list[str], known: int, chunks: list[GenerateChunk]) -> None:
    """Replace the texts of single events by those of the joined chunks if both are the same words.

    A reader of the stream collects the chunks, and the decoder collects the texts, for a partial answer. Sharing the
    strings keeps a long answer in memory once (tests/faults/test_memory.py).

    Args:
        texts: the answer's texts so far; changed in place.
        known: how many of them there were before these chunks.
        chunks: the chunks that were made of the texts since then.
    """
    new = texts[known:]
    if len(new) > 1:
        words = [chunk.text for chunk in chunks if chunk.text]
        if len(words) < len(new) and "".join(words) == "".join(new):
            texts[known:] = words


_fields_except_text = attrgetter(*(field.name for field in attrs.fields(GenerateChunk) if field.name != "text"))
_NOTHING = _fields_except_text(GenerateChunk())
