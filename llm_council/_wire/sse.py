"""Split a byte stream into events, however the bytes arrive: SSE and NDJSON.

Lines end at LF, CRLF or CR and nowhere else (WHATWG HTML, section 9.2.6). ``str.splitlines`` and httpx's
``aiter_lines`` also split at U+2028 and U+0085, which JSON strings may hold unescaped.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from llm_council.errors import MalformedReply, ReplyTooLarge
from llm_council.models.limits import Limits

__all__ = ["LineSplitter", "NdjsonSplitter", "SseEvent", "SseSplitter", "event_text"]

_LIMITS = Limits()
_BOM = b"\xef\xbb\xbf"
_STRAY = 16 * 1024  # bytes to keep of lines that belong to no event; an error may be among them


class SseEvent(NamedTuple):
    """One event of a stream.

    Attributes:
        data: its data lines, joined by LF.
        event: its name, if it has one.
    """

    data: str
    event: str | None = None


class LineSplitter:
    """Splits bytes into lines without their ends.

    Args:
        limits: no unfinished line is longer than ``event`` bytes.

    Attributes:
        events_before_error: after ``feed`` raised, the events of the same bytes before the error.
        stray: lines that belong to no event, from the first line that begins as JSON.
    """

    def __init__(self, limits: Limits = _LIMITS) -> None:
        self._limit = limits.event
        self._rest: list[bytes] = []  # parts of the unfinished line, joined once it ends
        self._size = 0
        self._head: bytes | None = b""  # until the byte order mark is ruled out
        self._after_cr = False
        self.events_before_error: list[SseEvent] = []
        self.stray: list[bytes] = []

    def lines(self, data: bytes) -> list[bytes]:
        """Return the lines that end within these bytes.

        Raises:
            ReplyTooLarge: the unfinished line is too long.
        """
        lines = self._cut(data)
        if self._size > self._limit:
            raise self.too_large()
        return lines

    def _cut(self, data: bytes) -> list[bytes]:
        if self._head is not None:
            data = self._head + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._head = data
                return []
            self._head = None
            data = data.removeprefix(_BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")  # its LF may come first in the next bytes
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            self._rest.append(lines[0])
            lines[0] = b"".join(self._rest)
        if lines:
            self._rest.clear()
            self._size = 0
        if rest:
            self._rest.append(rest)
            self._size += len(rest)
        return lines

    def last(self) -> list[bytes]:
        """Return the last line if no line end follows it."""
        line = (self._head or b"") + b"".join(self._rest)
        self._head = None
        self._rest.clear()
        self._size = 0
        return [line] if line else []

    def too_large(self) -> ReplyTooLarge:
        """Build the error for an event over the limit."""
        return ReplyTooLarge(f"one event of the stream is larger than {self._limit} bytes", limit=self._limit)


def _is_object(line: bytes) -> bool:
    """Return True for a line that is a JSON object by itself: an event, or an error, that lacks its ``data:``."""
    if not (line.startswith(b"{") and line.endswith(b"}")):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class SseSplitter(LineSplitter):
    """Splits bytes into server-sent events.

    ``feed`` does not return comments and events without data, so that a timer that restarts on events counts content
    alone. Servers also fail outside the standard: a line ``error: ...`` is an event with that name, and a line that is
    a JSON object is an event without a name.

    Args:
        limits: no event is larger than ``event`` bytes.

    Attributes:
        comments: the number of comment lines so far; servers send them to keep a connection open.
    """

    def __init__(self, limits: Limits = _LIMITS) -> None:
        super().__init__(limits)
        self._data: list[str] = []
        self._data_size = 0
        self._event: str | None = None
        self._stray_size = 0
        self.comments = 0

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the events that end within these bytes.

        Raises:
            ReplyTooLarge: an event is too large.
            MalformedReply: an event is not UTF-8.
        """
        events = self.events_before_error = list[SseEvent]()
        self._events(self._cut(data), events)
        if self._size > self._limit:
            raise self.too_large()
        return events

    def finish(self) -> list[SseEvent]:
        """Return the last event if no blank line follows it; it may be cut."""
        events: list[SseEvent] = []
        self._events([*self.last(), b""], events)
        return events

    def _events(self, lines: list[bytes], events: list[SseEvent]) -> None:
        for line in lines:
            if not line:
                if self._data:
                    found = self._data
                    events.append(SseEvent(found[0] if len(found) == 1 else "\n".join(found), self._event))
                    self._data = []
                    self._data_size = 0
                self._event = None
            # WHATWG HTML, section 9.2.6: one space after the colon is no part of the value, and a line without a colon
            # is a field without a value. The fields "id" and "retry" are ignored, since a stream is never resumed.
            elif line.startswith(b"data:"):
                self._add(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b":"):
                self.comments += 1
            elif line == b"data":
                self._add(b"")
            elif line.startswith(b"event:"):
                self._event = event_text(line[7:] if line[6:7] == b" " else line[6:]) or None
            elif line.startswith(b"error:"):
                # Not a field of the standard: llama.cpp's server wrote failures so until its pull request 16109
                # (2025-09).
                events.append(SseEvent(event_text(line[6:].strip()), "error"))
            elif not self.stray and not self._data and _is_object(line):
                events.append(SseEvent(event_text(line)))
            elif (self.stray or line[:1] in (b"{", b"[")) and self._stray_size < _STRAY:
                self._stray_size += len(line) + 1
                self.stray.append(line)

    def _add(self, value: bytes) -> None:
        self._data_size += len(value) + 1  # empty lines count too: a million of them are a large event
        if self._data_size > self._limit:
            raise self.too_large()
        self._data.append(event_text(value))


class NdjsonSplitter(LineSplitter):
    """Splits bytes into lines of newline-delimited JSON; blank lines are left out.

    Args:
        limits: no line is longer than ``event`` bytes.
    """

    def feed(self, data: bytes) -> list[SseEvent]:
        """Return the lines that end within these bytes, as events without a name.

        Raises:
            ReplyTooLarge: a line is too long.
            MalformedReply: a line is not UTF-8.
        """
        events = self.events_before_error = list[SseEvent]()
        for line in self._cut(data):
            if len(line) > self._limit:
                raise self.too_large()
            if line.strip():
                events.append(SseEvent(event_text(line)))
        if self._size > self._limit:
            raise self.too_large()
        return events

    def finish(self) -> list[SseEvent]:
        """Return the last line if no line end follows it; it may be cut."""
        return [SseEvent(event_text(line)) for line in self.last() if line.strip()]


def event_text(line: bytes) -> str:
    """Return the text of an event, or raise ``MalformedReply``."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise MalformedReply(f"an event of the stream is not UTF-8: {error.reason}", path="$") from None
