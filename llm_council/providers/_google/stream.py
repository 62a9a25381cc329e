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
_IN_STRING = re.compile(rb'["\\]')
_OUTSIDE_STRING = re.compile(rb'["\[\]{}]')


class ArraySplitter:
    """Split the bytes of a JSON array into its objects as they end; each becomes an event without a name.

    Args:
        limits: ``event`` bounds the size of one object, in bytes.

    Attributes:
        closed: the array has ended.
        events_before_error: after ``feed`` has raised, the objects of the same bytes that ended before the fault.
        stray: always empty; bytes between the objects are ignored.
    """

    def __init__(self, limits: Limits = _LIMITS) -> None:
        self.closed = False
        self.events_before_error: list[SseEvent] = []
        self.stray: list[bytes] = []
        self._limit = limits.event
        self._buffer = bytearray()  # from the start of the object that has not ended yet
        self._position = 0  # the first byte of the buffer that has not been scanned
        self._start = 0  # of the object
        self._depth = 0
        self._in_string = False

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the objects that end within these bytes.

        Raises:
            ReplyTooLarge: an object is too large.
            MalformedReply: an object is not UTF-8.
        """
        objects: list[bytes] = []
        buffer = self._buffer
        buffer += data
        while not self.closed:
            match = (_IN_STRING if self._in_string else _OUTSIDE_STRING).search(buffer, self._position)
            if match is None:
                self._position = len(buffer)
                break
            sign, start, end = match[0], match.start(), match.end()
            del match  # a match exports the buffer, and a bytearray that is exported cannot be resized
            if sign == b"\\":
                if end == len(buffer):  # the escaped character is in the next bytes
                    self._position = start
                    break
                self._position = end + 1
                continue
            self._position = end
            if sign == b'"':
                self._in_string = not self._in_string
            elif sign in b"[{":
                self._depth += 1
                if self._depth == 2:
                    self._start = start
            else:
                self._depth -= 1
                if self._depth == 1:
                    objects.append(bytes(buffer[self._start : end]))
                    del buffer[:end]
                    self._position = self._start = 0
                self.closed = self._depth <= 0
        events = self.events_before_error = list[SseEvent]()
        for found in objects:
            self._check_size(found)
            events.append(SseEvent(event_text(found)))
        self._check_size(buffer)
        return events

    def _check_size(self, data: bytes | bytearray) -> None:
        if len(data) > self._limit:
            raise ReplyTooLarge(f"one event of the stream is larger than {self._limit} bytes", limit=self._limit)

    def finish(self) -> list[SseEvent]:
        """Return an empty list: an object that has not ended is no event."""
        return []


class GeminiStream(BodyReader):
    """Decode the body of a stream as it arrives, from bytes to chunks.

    Server-sent events end with the body; an array ends with its closing bracket.

    Args:
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the HTTP headers; None means the one in the stream.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None) -> None:
        frames = FrameDecoder(limits, request_id=request_id)
        super().__init__(frames, SseSplitter(limits), limits, whole=partial(decode_response, request_id=request_id))
        self._array: ArraySplitter | None = None

    @property
    def done(self) -> bool:
        """Return True once nothing follows: the array has ended, or a fault occurred. Events have no end mark."""
        return super().done or (self._array is not None and self._array.closed)

    def _begin(self, sign: bytes) -> None:
        if sign == b"[":
            self._splitter = self._array = ArraySplitter(self._limits)
        else:
            super()._begin(sign)
