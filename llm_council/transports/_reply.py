"""Read a reply within its limits: check the head, decompress and bound the body, close it early.

``BaseTransport`` implements both methods of ``Transport`` over one exchange that a subclass writes.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import NoReturn
from urllib.parse import urlsplit

import anyio

from llm_council.errors import MalformedReply, ReplyTooLarge
from llm_council.models.limits import Limits, Timeouts
from llm_council.transports._base import (
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUTS,
    HttpReply,
    HttpRequest,
    ReplyStream,
    host_of,
    parse_headers,
    refuse_redirect,
    strip_url,
)
from llm_council.transports._translate import proxy_refused, translate

__all__ = [
    "BadEncoding",
    "BaseTransport",
    "BodyOverflow",
    "Decompressor",
    "close_body",
    "decompress",
    "raise_translated",
    "read_body",
    "read_head",
    "read_whole",
]

STEP = 64 * 1024
"""Maximum number of bytes that one step of decompression returns."""

MAX_MEMBERS = 256
"""Maximum number of gzip members in a body. Each costs time, even if it decompresses to nothing."""

MAX_LEFTOVER = 64 * 1024
"""Bytes to read from an abandoned body in order to reach its end and keep the connection."""

_AUTO_DETECT = 32 + zlib.MAX_WBITS  # zlib's inflateInit2: adding 32 detects gzip and zlib headers
_COMPRESSED = frozenset(("gzip", "x-gzip", "deflate"))


class BadEncoding(Exception):
    """The body does not match its content encoding."""


class BodyOverflow(Exception):
    """The body is larger than allowed.

    Args:
        limit: the number of bytes allowed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


class Decompressor:
    """Decompress one body and count its bytes, so that a small reply cannot expand to gigabytes of memory.

    Args:
        encoding: the ``content-encoding`` of the reply.
        limit: the number of bytes allowed, both before and after decompression.

    Raises:
        BadEncoding: the encoding was not requested.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        encoding = encoding.strip().lower()
        if encoding in ("", "identity"):
            self._zlib = None
        elif encoding in _COMPRESSED:
            self._zlib = zlib.decompressobj(_AUTO_DETECT)
        else:
            raise BadEncoding(f"the body has content-encoding {encoding!r:.40}, which was not requested")
        self._limit = limit
        self._bytes_in = 0
        self._bytes_out = 0
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed data, in pieces of at most 64 KiB if it was compressed.

        Raises:
            BodyOverflow: the limit is exceeded; the bytes within the limit were yielded before.
            BadEncoding: the data does not match the encoding.
        """
        self._bytes_in += len(data)
        if self._bytes_in > self._limit:
            room = len(data) - (self._bytes_in - self._limit)
            if self._zlib is None and room > 0:
                yield data[:room]
            raise BodyOverflow(self._limit)
        if self._zlib is None:
            if data:
                yield data
            return
        more = True
        while data or more:
            piece, data = self._step(data)
            more = len(piece) == STEP  # zlib may hold back output that did not fit into the step
            self._bytes_out += len(piece)
            excess = self._bytes_out - self._limit
            if excess > 0:
                if excess < len(piece):
                    yield piece[:-excess]
                raise BodyOverflow(self._limit)
            if piece:
                yield piece

    def finish(self) -> None:
        """Raise ``BadEncoding`` if the compressed body ended early."""
        if self._zlib is not None and self._bytes_in and not self._zlib.eof:
            raise BadEncoding("the compressed body ends early")

    def _step(self, data: bytes) -> tuple[bytes, bytes]:
        """Return at most ``STEP`` decompressed bytes, and the compressed bytes that are left."""
        if self._zlib is None:
            return data, b""
        if self._zlib.eof and data:
            if not data.strip(b"\0"):  # gzip files may be padded with zeros
                return b"", b""
            self._members += 1
            if self._members > MAX_MEMBERS:
                raise BadEncoding(f"the compressed body has more than {MAX_MEMBERS} members")
            self._zlib = zlib.decompressobj(_AUTO_DETECT)  # RFC 1952, section 2.2: members follow each other
        try:
            piece = self._zlib.decompress(data, STEP)
        except zlib.error as exc:
            raise BadEncoding("the compressed body is damaged") from exc
        return piece, self._zlib.unconsumed_tail or self._zlib.unused_data


async def decompress(chunks: AsyncIterable[bytes], encoding: str, limit: int) -> AsyncIterator[bytes]:
    """Yield a decompressed body as it arrives; see ``Decompressor`` for the arguments and errors."""
    decompressor = Decompressor(encoding, limit)
    async for chunk in chunks:
        for piece in decompressor.feed(chunk):
            yield piece
    decompressor.finish()


def read_head(request: HttpRequest, status: int, headers: Iterable[tuple[bytes, bytes]], limits: Limits) -> HttpReply:
    """Return the head of a reply.

    Raises:
        RedirectRefused: the status is 3xx.
        MalformedReply: the headers are too large or invalid, or the status is 1xx.
    """
    if status < 200:
        raise MalformedReply(f"{host_of(request.url)} answered with status {status} and sent no final reply after it")
    # A proxy's answer, where no tunnel leads through it; a server on this machine may say so of itself.
    if status == 407 and request.url.startswith("http://") and not _is_local(request.url):
        raise proxy_refused(host_of(request.url))
    head = HttpReply(status=status, headers=parse_headers(headers, limits.header_block), url=strip_url(request.url))
    refuse_redirect(head)
    return head


def _is_local(url: str) -> bool:
    return (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")


async def read_body(
    head: HttpReply, arriving: AsyncIterable[bytes], *, limit: int, error_body: int
) -> AsyncGenerator[bytes, None]:
    """Yield the decompressed body. If the status is 400 or more, cut the body at ``error_body`` bytes.

    Raises:
        ReplyTooLarge: the body is larger than ``limit`` and the status is below 400.
        MalformedReply: the body does not decompress.
    """
    failed = head.status >= 400
    try:
        # Not ``decompress``: ``close_body`` must be able to end each generator between the reader and the socket.
        decompressor = Decompressor(head.headers.get("content-encoding", ""), error_body if failed else limit)
        async for chunk in arriving:
            for piece in decompressor.feed(chunk):
                yield piece
        decompressor.finish()
    except BodyOverflow:
        if not failed:
            raise _too_large(head, limit) from None
    except BadEncoding as exc:
        raise _badly_encoded(head, exc) from None


async def read_whole(head: HttpReply, arriving: AsyncIterable[bytes], *, limit: int, error_body: int) -> HttpReply:
    """Return the reply with its decompressed body; limits and errors are those of ``read_body``."""
    pieces: list[bytes] = []
    failed = head.status >= 400
    try:
        decompressor = Decompressor(head.headers.get("content-encoding", ""), error_body if failed else limit)
        async for chunk in arriving:
            for piece in decompressor.feed(chunk):
                pieces.append(piece)  # noqa: PERF402 - the pieces before an overflow count
        decompressor.finish()
    except BodyOverflow:
        if not failed:
            raise _too_large(head, limit) from None
    except BadEncoding as exc:
        raise _badly_encoded(head, exc) from None
    return HttpReply(status=head.status, headers=head.headers, body=b"".join(pieces), url=head.url)


def _too_large(head: HttpReply, limit: int) -> ReplyTooLarge:
    return ReplyTooLarge(f"the reply of {host_of(head.url)} is larger than {limit} bytes", limit=limit)


def _badly_encoded(head: HttpReply, cause: BadEncoding) -> MalformedReply:
    return MalformedReply(f"the reply of {host_of(head.url)}: {cause}")


async def close_body(*generators: AsyncGenerator[bytes, None], close: Callable[[], Awaitable[None]]) -> None:
    """Close a body that may not be read to its end, and finish the generators over it.

    If the end of the body has already arrived, it is read first, so that the connection can be reused.

    Args:
        generators: the generators that may be suspended inside the body, outermost first.
        close: closes the connection unless the body has ended.
    """
    # A generator that is closed does not close the generators it iterates over, such as httpcore's. trio then warns
    # when those are collected. A read in a cancelled scope raises inside the innermost one and ends all of them.
    unfinished = [generator for generator in generators if getattr(generator, "ag_frame", None) is not None]
    if unfinished:
        await _exhaust(unfinished, MAX_LEFTOVER)
    await close()
    if unfinished:
        await _exhaust(unfinished, sys.maxsize)


async def _exhaust(generators: Iterable[AsyncGenerator[bytes, None]], limit: int) -> None:
    """Read, without waiting, what has arrived: at most ``limit`` bytes of each generator."""
    with anyio.CancelScope(shield=True) as scope:
        scope.cancel()
        for generator in generators:
            size = 0
            with suppress(Exception):  # each HTTP library has its own exceptions for a closed connection
                async for chunk in generator:
                    size += len(chunk)
                    if size > limit:  # reads that do not have to wait are not cancelled
                        break


def raise_translated(exc: BaseException, request: HttpRequest) -> NoReturn:
    """Raise our error for a library's exception; the exception itself if ``translate`` does not know its type."""
    error = translate(exc, host_of(request.url))
    if error is None:
        raise exc
    raise error


class BaseTransport:
    """Implement ``Transport.send`` and ``Transport.stream`` over the ``_exchange`` of a subclass."""

    def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AbstractAsyncContextManager[ReplyStream]:
        """Send a request and yield the reply once its head has arrived; close the connection if it is left early.

        Args:
            request: the request.
            limits: maximum sizes.
            limit: maximum number of bytes of a body if the status is below 400.
            timeouts: maximum duration of each single wait.
            deadline: seconds until the caller's cancel scope ends the call; see ``Transport.send``.
        """
        raise NotImplementedError

    async def prepare(self) -> None:
        """Import what the first request needs, so that this is not taken for silence of the server."""

    async def send(
        self,
        request: HttpRequest,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        deadline: float | None = None,
    ) -> HttpReply:
        """Send a request and return the whole reply; see ``Transport.send``."""
        async with self._exchange(request, limits, limits.body, timeouts, deadline) as reply:
            return await reply.read()

    def stream(
        self,
        request: HttpRequest,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        deadline: float | None = None,
    ) -> AbstractAsyncContextManager[ReplyStream]:
        """Send a request and yield the reply as it arrives; see ``Transport.stream``."""
        return self._exchange(request, limits, limits.stream, timeouts, deadline)
