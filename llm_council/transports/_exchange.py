"""What every transport does with a reply: read its head, bound its body, let go of it early."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from typing import NoReturn

import anyio

from llm_council.errors import MalformedReply, ReplyTooLarge
from llm_council.models.limits import Limits, Timeouts
from llm_council.transports._base import (
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUTS,
    HttpReply,
    HttpRequest,
    ReplyStream,
    bare,
    incoming,
    refuse_redirect,
    where,
)
from llm_council.transports._decompress import BadEncoding, Overflow, Unpacker
from llm_council.transports._translate import translate

__all__ = ["Exchanging", "body_of", "head_of", "raise_typed", "unwind"]

LEFTOVER = 64 * 1024
"""Bytes that are taken to reach the end of a body whose reader has left."""


def head_of(request: HttpRequest, status: int, headers: Iterable[tuple[bytes, bytes]], limits: Limits) -> HttpReply:
    """Build the head of a reply.

    Raises:
        RedirectRefused: a status of 3xx.
        MalformedReply: headers that are too large or hold what no header can; a status that ends no exchange.
    """
    if status < 200:
        raise MalformedReply(f"{where(request.url)} answered with status {status}, behind which an answer should come")
    head = HttpReply(status=status, headers=incoming(headers, limits.header_block), url=bare(request.url))
    refuse_redirect(head)
    return head


async def body_of(
    head: HttpReply, arriving: AsyncIterable[bytes], *, limit: int, error_body: int
) -> AsyncGenerator[bytes, None]:
    """Yield the body, unpacked and bounded; that of a status of 400 or more is cut at ``error_body`` bytes.

    Raises:
        ReplyTooLarge: a good reply larger than ``limit``.
        MalformedReply: what came does not decompress.
    """
    failed = head.status >= 400
    try:
        unpacker = Unpacker(head.headers.get("content-encoding", ""), error_body if failed else limit)
        async for chunk in arriving:
            for piece in unpacker.feed(chunk):
                yield piece
        unpacker.finish()
    except Overflow:
        if not failed:
            raise ReplyTooLarge(f"the reply of {where(head.url)} is larger than {limit} bytes", limit=limit) from None
    except BadEncoding as exc:
        raise MalformedReply(f"the reply of {where(head.url)}: {exc}") from None


async def unwind(*generators: AsyncGenerator[bytes, None], close: Callable[[], Awaitable[None]]) -> None:
    """Take the little that has already arrived, close, and end these generators and those below.

    Generators inside generators, httpcore's above all, do not end with the outermost: trio complains about each when it
    is collected. A cancelled read ends them all. And where the end of the body has arrived, its connection is kept.

    Args:
        generators: those that may be in the middle of a body.
        close: drops the connection, unless the body has ended.
    """
    left = [generator for generator in generators if getattr(generator, "ag_frame", None) is not None]  # not ended
    if left:
        with anyio.CancelScope(shield=True) as scope:
            scope.cancel()
            for generator in left:
                await _exhaust(generator, LEFTOVER)
    await close()
    if left:
        with anyio.CancelScope(shield=True) as scope:
            scope.cancel()
            for generator in left:
                await _exhaust(generator, sys.maxsize)


async def _exhaust(generator: AsyncGenerator[bytes, None], most: int) -> None:
    with suppress(Exception):  # what a dropped connection raises, in the words of whichever library is below
        async for chunk in generator:
            most -= len(chunk)
            if most < 0:  # a flood can outrun a cancellation
                return


def raise_typed(exc: BaseException, request: HttpRequest) -> NoReturn:
    """Raise the typed error for a foreign exception; the exception itself when it says nothing about a call."""
    error = translate(exc, where(request.url))
    if error is None:
        raise exc
    raise error


class Exchanging:
    """Both ways of ``Transport`` over the one exchange that a subclass writes: a reply read whole, or as it arrives."""

    def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AbstractAsyncContextManager[ReplyStream]:
        """Send a request and enter with the reply's head; leaving before the end drops the connection.

        Args:
            request: what to send.
            limits: bounds on sizes.
            limit: most bytes of a body that is no refusal.
            timeouts: bounds on single waits.
            deadline: seconds left in all, a hint; see ``Transport.send``.
        """
        raise NotImplementedError

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
        """Send a request and enter with the reply's head; see ``Transport.stream``."""
        return self._exchange(request, limits, limits.stream, timeouts, deadline)
