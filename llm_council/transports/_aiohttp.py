"""httpx's transport over aiohttp: the same API, a third of the CPU at 32 calls in flight."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
from yarl import URL

from llm_council.transports._base import DEFAULT_LIMITS
from llm_council.transports._environment import Proxies, tls_context
from llm_council.transports._response_head import NotHttp, ResponseHead

__all__ = ["AiohttpTransport"]

IDLE = 30.0
"""Seconds that an unused connection is kept."""

LARGE = 2**19
"""Bytes of a body above which it is written in pieces: in one go it would hold up the loop, and aiohttp warns."""

# Nearest class first. httpx has no class for a name that does not resolve or a port that refuses: the cause tells.
_HTTPX_OF: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (TimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientConnectionError, httpx.ReadError),
    (aiohttp.ClientPayloadError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, NotHttp),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol),
    (OSError, httpx.ReadError),
)
_FOREIGN = (aiohttp.ClientError, OSError)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Send httpx requests over an aiohttp session of its own, in one asyncio loop.

    The pool has no size: it must never be the queue. Bodies are handed on as they come, compressed or not; no cookie
    is kept, no redirect followed. A request that meets a kept connection which the server is just closing is sent
    once more, on a fresh one.

    Args:
        trust_env: honour ``HTTP_PROXY`` and its kin.
        header_block: bytes that a reply's headers may have.
    """

    def __init__(self, *, trust_env: bool = True, header_block: int = DEFAULT_LIMITS.header_block) -> None:
        self._proxies = Proxies(trust_env=trust_env)
        self._header_block = header_block
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response with its body still to come.

        Raises:
            httpx.TransportError: of the kind that stock httpx raises; ``__cause__`` is aiohttp's.
        """
        timeout = request.extensions.get("timeout", {})
        try:
            reply = await self.open(
                request.method,
                str(request.url),
                _pairs(request),
                _body(request),
                connect=timeout.get("connect"),
                read=timeout.get("read"),
            )
        except httpx.RequestError as exc:
            exc.request = request
            raise
        return httpx.Response(reply.status, headers=list(reply.headers), stream=reply.body)

    async def open(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | AsyncIterator[bytes],
        *,
        connect: float | None,
        read: float | None,
    ) -> ResponseHead:
        """Send a request without httpx's nouns.

        Args:
            method: upper case.
            url: absolute and encoded.
            headers: each pair as it is sent, ``Host`` optional.
            body: what is sent; an iterator goes in chunks, and cannot be sent again.
            connect: seconds for a connection, name and TLS included.
            read: seconds between two bytes.

        Raises:
            httpx.TransportError: as ``handle_async_request`` does.
        """
        trip = SimpleNamespace(reused=False)
        timeout = _timeout(connect, read)
        try:
            response = await self._send(method, url, headers, body, timeout, trip, fresh=False)
        except _FOREIGN as exc:
            if not (trip.reused and isinstance(body, bytes) and _stale(exc)):
                raise self._as_httpx(exc, url) from exc
            try:
                response = await self._send(method, url, headers, body, timeout, trip, fresh=True)
            except _FOREIGN as again:
                raise self._as_httpx(again, url) from again
        if sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > self._header_block:
            response.close()
            raise NotHttp(f"the headers are larger than {self._header_block} bytes")
        return ResponseHead(response.status, response.raw_headers, _Arriving(response))

    async def aclose(self) -> None:
        """Close every connection."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def _send(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | AsyncIterator[bytes],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own noun
        trip: SimpleNamespace,
        *,
        fresh: bool,
    ) -> aiohttp.ClientResponse:
        data: bytes | io.BytesIO | AsyncIterator[bytes] | None = body or None
        if isinstance(body, bytes) and len(body) > LARGE:
            data = io.BytesIO(body)
        target = _parsed(url)
        return await self._session(fresh=fresh).request(
            method,
            target,
            headers=headers,
            data=data,
            allow_redirects=False,
            timeout=timeout,
            ssl=tls_context() if target.scheme == "https" else True,
            proxy=self._proxy(url),
            trace_request_ctx=trip,
        )

    def _as_httpx(self, exc: BaseException, url: str) -> httpx.TransportError:
        if isinstance(exc, aiohttp.ClientConnectorDNSError) and self._proxies.find(url):
            return httpx.ProxyError(str(exc))  # the name is the proxy's: it looks up the server's
        return _as_httpx(exc)

    def _proxy(self, url: str) -> str | None:
        proxy = self._proxies.find(url)
        if proxy and not proxy.startswith(("http://", "https://")):
            raise httpx.UnsupportedProtocol(
                f"proxies of the kind {proxy.partition('://')[0]!r} need a client of your own"
            )
        return proxy

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(fresh)
        if session is None:
            keeping: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": IDLE}
            session = aiohttp.ClientSession(
                connector=_Connector(limit=0, **keeping),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
                max_line_size=self._header_block,
                max_field_size=self._header_block,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
                trace_configs=[_tracing()],
            )
            # aiohttp would send a GET again after any loss, on fresh connections too; how often is ours to say.
            session._retry_connection = False
            self._sessions[fresh] = session
        return session


class _Connector(aiohttp.TCPConnector):
    """A pool that drops a kept connection on which something came unasked: it would be taken for the next answer."""

    async def _get(self, key: Any, traces: Any) -> Any:
        kept: Any = self._conns.get(key)
        while kept and kept[0][0].should_close:
            kept.popleft()[0].close()
        return await super()._get(key, traces)


class _Arriving(httpx.AsyncByteStream):
    """The bytes of one response as they arrive."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except _FOREIGN as exc:
            if content._buffer:  # once the connection has broken, aiohttp hands on no more of what had arrived
                yield content._read_nowait(-1)
            # A connection that was closed here raises one exception of aiohttp's module, every time: what it was raised
            # in the midst of, and the frames that it passed, would be held by it for ever.
            exc.__context__ = None
            raise _as_httpx(exc) from exc.with_traceback(None)

    async def aclose(self) -> None:
        self._response.close()  # keeps the connection when the body was read to its end


def _as_httpx(exc: BaseException) -> httpx.TransportError:
    kind = next((ours for theirs, ours in _HTTPX_OF if isinstance(exc, theirs)), httpx.TransportError)
    return kind(str(exc))


def _stale(exc: BaseException) -> bool:
    """Tell whether the connection ended before a byte of the reply came."""
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return isinstance(exc.message, str)  # else it is the beginning of a reply
    if isinstance(exc, aiohttp.ClientConnectorError):
        return False
    return any(isinstance(link, ConnectionError) or _is_reset(link) for link in (exc, exc.__cause__))


def _is_reset(exc: BaseException | None) -> bool:
    return isinstance(exc, OSError) and isinstance(OSError(*exc.args), ConnectionError)  # the errno tells


def _tracing() -> aiohttp.TraceConfig:
    """Note on the trip when a kept connection is taken."""

    async def reused(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
        context.trace_request_ctx.reused = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(reused)
    return tracing


def _pairs(request: httpx.Request) -> list[tuple[str, str]]:
    """Return the headers as text; the framing of a streamed body is aiohttp's to write."""
    return [
        (name.decode("ascii"), value.decode("latin-1"))
        for name, value in request.headers.raw
        if name.lower() != b"transfer-encoding"
    ]


def _body(request: httpx.Request) -> bytes | AsyncIterator[bytes]:
    if isinstance(request.stream, httpx.ByteStream):
        return request.content
    if isinstance(request.stream, httpx.AsyncByteStream):
        return aiter(request.stream)
    raise RuntimeError("an asynchronous client cannot send a synchronous stream")


@lru_cache(maxsize=256)
def _parsed(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=64)
def _timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read)
