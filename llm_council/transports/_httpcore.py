"""httpx's own transport, for every event loop but asyncio's: proxies, stale connections and garbage told apart."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx

from llm_council.errors._secrets import Secret
from llm_council.transports._environment import Proxies, tls_context
from llm_council.transports._response_head import NotHttp, ResponseHead, build_request, response_head

__all__ = ["HttpcoreTransport"]

IDLE = 30.0
"""Seconds that an unused connection is kept."""


class HttpcoreTransport(httpx.AsyncBaseTransport):
    """Send httpx requests over httpx's stock pool, without a size, so that it is never the queue.

    Args:
        trust_env: honour ``HTTP_PROXY`` and its kin.
    """

    def __init__(self, *, trust_env: bool = True) -> None:
        self._proxies = Proxies(trust_env=trust_env)
        self._pools: dict[tuple[Secret | None, bool], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; once more on a fresh connection when a kept one was just being closed.

        Raises:
            httpx.TransportError: as stock httpx does; ``NotHttp`` where the head of the reply cannot be read.
        """
        connected = False

        async def trace(event: str, info: dict[str, Any]) -> None:
            nonlocal connected
            connected = connected or event.endswith("connect_tcp.started")

        request.extensions = {"trace": trace, **request.extensions}
        whole = isinstance(request.stream, httpx.ByteStream)
        if whole:
            request.stream = _Whole(request.content)
        try:
            return await self._send(request, fresh=False)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as exc:
            if connected or isinstance(exc, NotHttp) or not whole:
                raise
        return await self._send(request, fresh=True)

    async def open(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        connect: float | None,
        read: float | None,
    ) -> ResponseHead:
        """Send a request; see ``AiohttpTransport.open``."""
        request = build_request(method, url, headers, body, connect=connect, read=read)
        return response_head(await self.handle_async_request(request))

    async def aclose(self) -> None:
        """Close every connection."""
        while self._pools:
            await self._pools.popitem()[1].aclose()

    async def _send(self, request: httpx.Request, *, fresh: bool) -> httpx.Response:
        proxy = self._proxies.find(str(request.url))
        pool = self._pool(proxy, fresh=fresh)
        try:
            return await pool.handle_async_request(request)
        except httpx.ConnectError as exc:
            if proxy is None:
                raise
            raise httpx.ProxyError(str(exc), request=request) from exc
        except httpx.RemoteProtocolError as exc:
            if not _unparsed(exc):
                raise
            raise NotHttp(str(exc), request=request) from exc

    def _pool(self, proxy: str | None, *, fresh: bool) -> httpx.AsyncHTTPTransport:
        key = (Secret(proxy) if proxy else None, fresh)  # the address may hold a password
        pool = self._pools.get(key)
        if pool is None:
            tls = tls_context()
            keep = httpx.Limits(
                max_connections=None, max_keepalive_connections=0 if fresh else None, keepalive_expiry=IDLE
            )
            try:
                via = httpx.Proxy(proxy, ssl_context=tls if proxy.startswith("https:") else None) if proxy else None
                pool = httpx.AsyncHTTPTransport(verify=tls, proxy=via, limits=keep)
            except (ImportError, ValueError):
                raise httpx.UnsupportedProtocol("this kind of proxy needs a client of your own") from None
            self._pools[key] = pool
        return pool


class _Whole(httpx.ByteStream):
    """A body in one piece, without the generator of httpx's: trio complains about it when sending is cancelled."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Pieces([self._body])


class _Pieces:
    def __init__(self, left: list[bytes]) -> None:
        self._left = left

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _unparsed(exc: BaseException | None) -> bool:
    """Tell a head that h11 could not read from one that never came: both are the same class to httpx."""
    while exc is not None:
        if type(exc).__module__.startswith("h11."):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
