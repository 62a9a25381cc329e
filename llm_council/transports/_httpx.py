"""The transport of every built-in HTTP provider: httpx's API, over aiohttp under asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpx

from llm_council._runtime import per_loop
from llm_council.errors import InvalidOption
from llm_council.models.limits import Limits, Timeouts
from llm_council.transports._base import (
    AGENT,
    HttpRequest,
    ReplyStream,
    outgoing,
)
from llm_council.transports._client import PooledTransport
from llm_council.transports._exchange import Exchanging, body_of, head_of, raise_typed, unwind
from llm_council.transports._opened import Opened, message, opened

__all__ = ["HttpxTransport"]

_FOREIGN = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)


class HttpxTransport(Exchanging):
    """Send over pools of our own, one for each event loop; or over what the caller brings.

    Args:
        client: a client of the caller's, with its proxies, certificates and auth; it is not closed here, and belongs
            to the event loop it is used in. Of its timeouts only the pool's applies; it follows no redirect here, and
            what it brings is decompressed and bounded by us.
        transport: an httpx transport instead, such as ``httpx.MockTransport`` in tests.
        trust_env: honour the proxy variables of the environment, for pools of our own.

    Raises:
        InvalidOption: both a client and a transport.
    """

    def __init__(
        self,
        client: httpx.AsyncClient | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = True,
    ) -> None:
        if client is not None and transport is not None:
            raise InvalidOption("HttpxTransport takes a client or a transport, not both")
        self._client = client
        self._transport = transport
        self._trust_env = trust_env

    async def aclose(self) -> None:
        """Close the pool of the current event loop; the next request opens a new one."""
        await per_loop.aclose(self)

    @asynccontextmanager
    async def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AsyncIterator[ReplyStream]:
        try:
            reply = await self._open(request, timeouts)
        except _FOREIGN as exc:
            raise_typed(exc, request)
        reading: list[AsyncGenerator[bytes, None]] = []
        try:
            head = head_of(request, reply.status, reply.headers, limits)
            arriving = _arriving(reply.body, request)
            chunks = body_of(head, arriving, limit=limit, error_body=limits.error_body)
            reading = [chunks, arriving]
            yield ReplyStream(head, chunks)
        finally:
            await unwind(*reading, close=reply.body.aclose)

    async def _open(self, request: HttpRequest, timeouts: Timeouts) -> Opened:
        if self._client is None and self._transport is None:
            pool = await per_loop.get(self, "pool", self._pool, PooledTransport.aclose)
            return await pool.inner.open(
                request.method,
                request.url,
                outgoing(request.headers, agent=AGENT).items(),
                request.body,
                connect=timeouts.connect,
                read=timeouts.read,
            )
        asked = message(
            request.method,
            request.url,
            outgoing(request.headers, agent=None if self._client else AGENT).items(),
            request.body,
            connect=timeouts.connect,
            read=timeouts.read,
            pool=self._client.timeout.pool if self._client else None,
        )
        if self._transport is not None:
            return opened(await self._transport.handle_async_request(asked))
        client = cast("httpx.AsyncClient", self._client)
        asked.headers = httpx.Headers([*_additions(client, asked), *asked.headers.raw])
        return opened(await client.send(asked, stream=True, follow_redirects=False))

    def _pool(self) -> PooledTransport:
        return PooledTransport(trust_env=self._trust_env)


async def _arriving(body: httpx.AsyncByteStream, request: HttpRequest) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in body:
            yield chunk
    except _FOREIGN as exc:
        raise_typed(exc, request)


def _additions(client: httpx.AsyncClient, asked: httpx.Request) -> list[tuple[bytes, bytes]]:
    """Return what the caller's client says in its headers and the request does not."""
    return [(name, value) for name, value in client.headers.raw if name.decode("ascii") not in asked.headers]
