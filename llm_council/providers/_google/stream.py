"""Streams of Google's dialect: server-sent events, or one JSON array where ``alt=sse`` is not asked for."""

from __future__ import annotations

import re
from functools import partial

from llm_council._wire.reading import BodyReader
from llm_council._wire.sse import SseEvent, SseSplitter, event_text
from llm_council.errors import ReplyTooLarge
from llm_council.models.limits import Limits
from llm_council.providers._google.reply import FrameDecoder, decode_response

__all__ = ["ArraySplitter", "GeminiStream"]

_LIMITS = Limits()
_INSIDE = re.compile(rb'["\\]')
_OUTSIDE = re.compile(rb'["\[\]{}]')


class ArraySplitter:
    """Cut the bytes of a JSON array into its objects, as they end: each is an event without a name.

    Args:
        limits: no object is larger than ``event`` bytes.

    Attributes:
        closed: the array has ended: nothing follows.
        before: once ``feed`` has raised, the objects that ended within the same piece before the fault.
        stray: nothing: what stands between the objects is not looked at.
    """

    def __init__(self, limits: Limits = _LIMITS) -> None:
        self.closed = False
        self.before: list[SseEvent] = []
        self.stray: list[bytes] = []
        self._limit = limits.event
        self._text = bytearray()  # from the object that has not ended yet
        self._at = 0  # the first byte that was not looked at
        self._begin = 0
        self._depth = 0
        self._quoted = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the objects that end within this piece.

        Raises:
            ReplyTooLarge: an object is too large.
            MalformedReply: an object is not UTF-8.
        """
        found: list[bytes] = []
        text = self._text
        text += data
        while not self.closed:
            mark = (_INSIDE if self._quoted else _OUTSIDE).search(text, self._at)
            if mark is None:
                self._at = len(text)
                break
            sign, start, end = mark[0], mark.start(), mark.end()
            del mark  # it holds the bytes, which could not be cut then
            if sign == b"\\":
                if end == len(text):  # what it escapes comes next
                    self._at = start
                    break
                self._at = end + 1
                continue
            self._at = end
            if sign == b'"':
                self._quoted = not self._quoted
            elif sign in b"[{":
                self._depth += 1
                if self._depth == 2:
                    self._begin = start
            else:
                self._depth -= 1
                if self._depth == 1:
                    found.append(bytes(text[self._begin : end]))
                    del text[:end]
                    self._at = self._begin = 0
                self.closed = self._depth <= 0
        events = self.before = list[SseEvent]()
        for item in found:
            if len(item) > self._limit:
                raise self._too_large()
            events.append(SseEvent(event_text(item)))
        if len(text) > self._limit:
            raise self._too_large()
        return events

    def _too_large(self) -> ReplyTooLarge:
        return ReplyTooLarge(f"one event of the stream is larger than {self._limit} bytes", limit=self._limit)

    def finish(self) -> list[SseEvent]:
        """Return nothing: an object that has not ended is none."""
        return []


class GeminiStream(BodyReader):
    """Read the body of a stream as it arrives: bytes in, pieces of the answer out.

    Events have no end mark; an array that has ended is one.

    Args:
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the reply's headers; None takes the one in the stream.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None) -> None:
        frames = FrameDecoder(limits, request_id=request_id)
        super().__init__(frames, SseSplitter(limits), limits, whole=partial(decode_response, request_id=request_id))
        self._array: ArraySplitter | None = None

    @property
    def done(self) -> bool:
        """Whether the array has ended, or a fault came: nothing follows. Events have no end mark."""
        return super().done or (self._array is not None and self._array.closed)

    def _begin(self, sign: bytes) -> None:
        if sign == b"[":
            self._splitter = self._array = ArraySplitter(self._limits)
        else:
            super()._begin(sign)
