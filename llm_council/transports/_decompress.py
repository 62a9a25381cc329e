"""Bodies taken apart under a bound: a small reply that unpacks to gigabytes must cost no memory."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator

__all__ = ["BadEncoding", "Overflow", "Unpacker", "unpacked"]

STEP = 64 * 1024
"""Bytes that one step of decompression may give."""

MEMBERS = 256
"""Gzip members that one body may have; each costs work, and may unpack to nothing."""

_AUTO = 32 + zlib.MAX_WBITS  # gzip or zlib, by their own heads
_KNOWN = frozenset(("gzip", "x-gzip", "deflate"))


class BadEncoding(Exception):
    """The body is not what its content-encoding says."""


class Overflow(Exception):
    """The body is larger than allowed.

    Args:
        limit: bytes allowed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


class Unpacker:
    """Decompress and count one body.

    Args:
        encoding: the reply's ``content-encoding``.
        limit: bytes allowed, before and after decompression.

    Raises:
        BadEncoding: an encoding that was not asked for.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        encoding = encoding.strip().lower()
        if encoding in ("", "identity"):
            self._zlib = None
        elif encoding in _KNOWN:
            self._zlib = zlib.decompressobj(_AUTO)
        else:
            raise BadEncoding(f"the body has content-encoding {encoding!r:.40}, which was not asked for")
        self._limit = limit
        self._taken = 0
        self._given = 0
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what these bytes unpack to, in pieces of at most 64 KiB where they were compressed.

        Raises:
            Overflow: before the first piece beyond the limit is given.
            BadEncoding: the data is not what the encoding says.
        """
        self._taken += len(data)
        if self._taken > self._limit:
            # What still fits is given first, so that a cut body is as long as its limit.
            if self._zlib is None and (room := len(data) - (self._taken - self._limit)) > 0:
                yield data[:room]
            raise Overflow(self._limit)
        if self._zlib is None:
            if data:
                yield data
            return
        more = True
        while data or more:
            piece, data = self._step(data)
            more = len(piece) == STEP  # zlib may hold back output that did not fit
            self._given += len(piece)
            if (over := self._given - self._limit) > 0:
                if over < len(piece):
                    yield piece[:-over]
                raise Overflow(self._limit)
            if piece:
                yield piece

    def finish(self) -> None:
        """Raise ``BadEncoding`` when the compressed body ended early."""
        if self._zlib is not None and self._taken and not self._zlib.eof:
            raise BadEncoding("the compressed body ends early")

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        """Return at most ``STEP`` unpacked bytes, and the packed bytes that are left."""
        if self._zlib is None:
            return data, b""
        if self._zlib.eof and data:
            if not data.strip(b"\0"):  # padding
                return b"", b""
            self._members += 1
            if self._members > MEMBERS:
                raise BadEncoding(f"the compressed body has more than {MEMBERS} members")
            self._zlib = zlib.decompressobj(_AUTO)  # gzip allows members in a row
        try:
            piece = self._zlib.decompress(data, STEP)
        except zlib.error as exc:
            raise BadEncoding("the compressed body is damaged") from exc
        return piece, self._zlib.unconsumed_tail or self._zlib.unused_data


async def unpacked(chunks: AsyncIterable[bytes], encoding: str, limit: int) -> AsyncIterator[bytes]:
    """Yield what a whole body unpacks to.

    Args:
        chunks: the body as it arrives.
        encoding: the reply's ``content-encoding``.
        limit: bytes allowed, before and after decompression.

    Raises:
        Overflow: the limit is passed; what fits has been given.
        BadEncoding: the body is not what the encoding says.
    """
    unpacker = Unpacker(encoding, limit)
    async for chunk in chunks:
        for piece in unpacker.feed(chunk):
            yield piece
    unpacker.finish()
