"""The connection pool for event loops other than asyncio's: httpx's own, with proxies and a retry after a stale one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

import anyio
import httpcore
import httpx
import sniffio

from llm_council.errors._secrets import Secret
from llm_council.transports._lookups import is_address, look_up
from llm_council.transports._pool import (
    IDLE,
    NotHttp,
    Proxies,
    ResponseHead,
    build_request,
    response_head,
    tls_context,
)

__all__ = ["HttpcoreTransport"]

_STAGGER = 0.25
"""Seconds after which the next address of a host is tried beside the last one: RFC 8305, section 5."""


class HttpcoreTransport(httpx.AsyncBaseTransport):
    """Send httpx requests over httpx's own pool, without a limit on the number of connections.

    Args:
        trust_env: use the proxy variables of the environment.
    """

    def __init__(self, *, trust_env: bool = True) -> None:
        self._proxies = Proxies(trust_env=trust_env)
        self._pools: dict[tuple[Secret | None, bool], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; if the server just closed a reused connection, once more on a new one.

        Raises:
            httpx.TransportError: as httpx raises it; ``NotHttp`` if the head of the reply is invalid.
        """
        connected = False

        async def trace(event: str, info: dict[str, Any]) -> None:
            nonlocal connected
            connected = connected or event.endswith("connect_tcp.started")

        request.extensions = {"trace": trace, **request.extensions}
        repeatable = isinstance(request.stream, httpx.ByteStream)
        if repeatable:
            request.stream = _BytesBody(request.content)
        try:
            return await self._send(request, fresh=False)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as exc:
            if connected or isinstance(exc, NotHttp) or not repeatable:
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
        """Send a request given by its parts; see ``AiohttpTransport.open``."""
        request = build_request(method, url, headers, body, connect=connect, read=read)
        return response_head(await self.handle_async_request(request))

    async def aclose(self) -> None:
        """Close all connections."""
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
            # httpx raises the same class if no head arrived and if h11 could not parse one.
            if not _is_parse_error(exc):
                raise
            raise NotHttp(str(exc), request=request) from exc

    def _pool(self, proxy: str | None, *, fresh: bool) -> httpx.AsyncHTTPTransport:
        key = (Secret(proxy) if proxy else None, fresh)  # the URL may contain a password
        pool = self._pools.get(key)
        if pool is None:
            tls = tls_context()
            limits = httpx.Limits(
                max_connections=None, max_keepalive_connections=0 if fresh else None, keepalive_expiry=IDLE
            )
            via = httpx.Proxy(proxy, ssl_context=tls if proxy.startswith("https:") else None) if proxy else None
            pool = httpx.AsyncHTTPTransport(verify=tls, proxy=via, limits=limits)
            # Private: httpx has no parameter for the backend that httpcore connects with.
            inner: Any = pool._pool
            inner._network_backend = _Backend()
            self._pools[key] = pool
        return pool


class _Backend(httpcore.AsyncNetworkBackend):
    """Connect to hosts whose names are looked up by ``look_up``."""

    def __init__(self) -> None:
        trio = sniffio.current_async_library() == "trio"
        self._inner: httpcore.AsyncNetworkBackend = httpcore.TrioBackend() if trio else httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own name
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        connect = partial(
            self._inner.connect_tcp, port=port, local_address=local_address, socket_options=socket_options
        )
        if is_address(host):
            return await connect(host, timeout=timeout)
        try:
            with anyio.fail_after(timeout):
                return await _first_of(connect, await look_up(host, port))
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(f"{host} took longer than {timeout} s") from exc
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def _first_of(connect: Any, addresses: list[str]) -> httpcore.AsyncNetworkStream:
    """Return the first connection to one of several addresses, which are tried one after another, each a bit later.

    Raises:
        httpcore.ConnectError: all fail; the error is that of the last one.
    """
    made: list[httpcore.AsyncNetworkStream] = []
    failures: list[httpcore.ConnectError] = []

    async def attempt(address: str, failed: anyio.Event) -> None:
        try:
            stream = await connect(address)
        except httpcore.ConnectError as exc:
            failures.append(exc)
            failed.set()
            return
        made.append(stream)
        attempts.cancel_scope.cancel()

    async with anyio.create_task_group() as attempts:
        for address in addresses:
            failed = anyio.Event()
            attempts.start_soon(attempt, address, failed)
            with anyio.move_on_after(_STAGGER):
                await failed.wait()
    for stream in made[1:]:
        await stream.aclose()
    if not made:
        raise failures[-1] if failures else httpcore.ConnectError("the name has no address")
    return made[0]


class _BytesBody(httpx.ByteStream):
    """A body in one piece whose iterator is not an async generator.

    trio warns about an async generator that is not finished, such as httpx's when sending is cancelled.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._body = body
        self._sent = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._sent = False  # the request may be sent once more
        return self

    async def __anext__(self) -> bytes:
        if self._sent:
            raise StopAsyncIteration
        self._sent = True
        return self._body


def _is_parse_error(exc: BaseException | None) -> bool:
    while exc is not None:
        if type(exc).__module__.startswith("h11."):
            return True
        exc = exc.__cause__ or exc.__context__
    return False
