"""The transport of every built-in HTTP provider: httpx's API, over aiohttp under asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import cast

import httpx

from llm_council import _loop_local
from llm_council.errors import InvalidOption
from llm_council.models.limits import Limits, Timeouts
from llm_council.transports._base import (
    AGENT,
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUTS,
    HttpReply,
    HttpRequest,
    ReplyStream,
    outgoing,
)
from llm_council.transports._client import PooledTransport
from llm_council.transports._exchange import body_of, head_of, raise_typed, unwind

__all__ = ["HttpxTransport"]

_FOREIGN = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)


class HttpxTransport:
    """Send over pools of our own, one for each event loop; or over what the caller brings.

    Args:
        client: a client of the caller's, with its proxies, certificates and auth; it is not closed here, and belongs
            to the event loop it is used in. Its timeouts, redirects and decompression do not apply: ours do.
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

    async def send(
        self,
        request: HttpRequest,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        deadline: float | None = None,
    ) -> HttpReply:
        """Send a request and return the whole reply; see ``Transport.send``."""
        async with self._exchange(request, limits, limits.body, timeouts) as reply:
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
        return self._exchange(request, limits, limits.stream, timeouts)

    async def aclose(self) -> None:
        """Close the pool of the current event loop; the next request opens a new one."""
        await _loop_local.aclose(self)

    @asynccontextmanager
    async def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts
    ) -> AsyncIterator[ReplyStream]:
        try:
            response = await self._open(request, timeouts)
        except _FOREIGN as exc:
            raise_typed(exc, request)
        try:
            head = head_of(request, response.status_code, response.headers.raw, limits)
            arriving = _arriving(response, request)
            chunks = body_of(head, arriving, limit=limit, error_body=limits.error_body)
            try:
                yield ReplyStream(head, chunks)
            finally:
                await unwind(chunks, arriving)
        finally:
            await response.aclose()

    async def _open(self, request: HttpRequest, timeouts: Timeouts) -> httpx.Response:
        waits = {"connect": timeouts.connect, "read": timeouts.read, "write": None, "pool": None}
        url = _parsed(request.url)
        if self._client is not None:
            return await self._client.send(
                self._client.build_request(
                    request.method,
                    url,
                    headers=outgoing(request.headers),
                    content=request.body,
                    extensions={"timeout": waits},
                ),
                stream=True,
                follow_redirects=False,
            )
        transport = self._transport
        if transport is None:
            transport = await _loop_local.get(self, "pool", self._pool, PooledTransport.aclose)
        return await transport.handle_async_request(
            httpx.Request(
                request.method,
                url,
                headers=outgoing(request.headers, agent=AGENT),
                content=request.body,
                extensions={"timeout": waits},
            )
        )

    def _pool(self) -> PooledTransport:
        return PooledTransport(trust_env=self._trust_env)


async def _arriving(response: httpx.Response, request: HttpRequest) -> AsyncGenerator[bytes, None]:
    if response.is_stream_consumed:  # a mock's response comes read and unpacked
        yield response.content
        return
    try:
        async for chunk in cast("httpx.AsyncByteStream", response.stream):
            yield chunk
    except _FOREIGN as exc:
        raise_typed(exc, request)


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)
