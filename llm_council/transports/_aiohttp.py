"""httpx's transport over aiohttp: the same API, a third of the CPU at 32 calls in flight."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
from yarl import URL

from llm_council.transports._base import DEFAULT_LIMITS
from llm_council.transports._errors import NotHttp
from llm_council.transports._surroundings import Proxies, tls_context

__all__ = ["AiohttpTransport"]

IDLE = 30.0
"""Seconds that an unused connection is kept."""

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
        trip = SimpleNamespace(reused=False)
        try:
            response = await self._send(request, trip, fresh=False)
        except _FOREIGN as exc:
            if not (trip.reused and _stale(exc) and isinstance(request.stream, httpx.ByteStream)):
                raise _as_httpx(exc, request) from exc
            try:
                response = await self._send(request, trip, fresh=True)
            except _FOREIGN as again:
                raise _as_httpx(again, request) from again
        if sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > self._header_block:
            response.close()
            raise NotHttp(f"the headers are larger than {self._header_block} bytes", request=request)
        version = response.version or aiohttp.HttpVersion11
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response, request),
            extensions={
                "http_version": b"HTTP/%d.%d" % version,
                "reason_phrase": (response.reason or "").encode("ascii", "ignore"),
            },
        )

    async def aclose(self) -> None:
        """Close every connection."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def _send(self, request: httpx.Request, trip: SimpleNamespace, *, fresh: bool) -> aiohttp.ClientResponse:
        url = request.url
        timeout = request.extensions.get("timeout", {})
        # Headers are never a local name here: this frame may stand in a traceback that shows its variables.
        return await self._session(fresh=fresh).request(
            request.method,
            _yarl(str(url)),
            headers=_pairs(request),
            data=_body(request),
            chunked=True if "transfer-encoding" in request.headers else None,
            allow_redirects=False,
            timeout=_timeout(timeout.get("connect"), timeout.get("read")),
            ssl=tls_context() if url.scheme == "https" else True,
            proxy=self._proxy(url),
            trace_request_ctx=trip,
        )

    def _proxy(self, url: httpx.URL) -> str | None:
        proxy = self._proxies.of(url)
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
                connector=aiohttp.TCPConnector(limit=0, **keeping),
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


class _Body(httpx.AsyncByteStream):
    """The bytes of one response as they arrive."""

    def __init__(self, response: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._response = response
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except _FOREIGN as exc:
            raise _as_httpx(exc, self._request) from exc

    async def aclose(self) -> None:
        self._response.close()  # keeps the connection when the body was read to its end


def _as_httpx(exc: BaseException, request: httpx.Request) -> httpx.TransportError:
    kind = next((ours for theirs, ours in _HTTPX_OF if isinstance(exc, theirs)), httpx.TransportError)
    return kind(str(exc), request=request)


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


def _body(request: httpx.Request) -> bytes | io.BytesIO | AsyncIterator[bytes] | None:
    if isinstance(request.stream, httpx.ByteStream):
        # aiohttp writes bytes in one go and warns above 1 MiB; a file it writes in pieces.
        return io.BytesIO(request.content) if len(request.content) > 2**19 else request.content or None
    if isinstance(request.stream, httpx.AsyncByteStream):
        return aiter(request.stream)
    raise RuntimeError("an asynchronous client cannot send a synchronous stream")


@lru_cache(maxsize=256)
def _yarl(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=64)
def _timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read)
