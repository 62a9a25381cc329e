"""The connection pool for asyncio: an httpx transport over aiohttp, with a third of the CPU at 32 calls in flight."""

from __future__ import annotations

import io
import warnings
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import aiohttp
import httpx
from yarl import URL

from llm_council.transports._base import DEFAULT_LIMITS
from llm_council.transports._lookups import Lookups
from llm_council.transports._pool import IDLE, NotHttp, Proxies, ResponseHead, tls_context

__all__ = ["AiohttpTransport"]

LARGE = 2**19
"""Bytes above which a body is written in pieces. aiohttp warns about a larger write, which would block the loop."""

_is_reused: ContextVar[bool] = ContextVar("llm_council_connection_is_reused")
"""True if the request that this task is sending goes over a connection that was used before."""

_MAX_HEADERS = DEFAULT_LIMITS.header_block

# The first match counts, so subclasses come before their bases. httpx has no classes for an unknown host and a refused
# connection; ``translate`` reads those from the cause.
_HTTPX_CLASSES: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
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
_AIOHTTP_ERRORS = (aiohttp.ClientError, OSError)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Send httpx requests over an aiohttp session, in one asyncio loop.

    The number of connections is not limited, because concurrency is limited elsewhere. Bodies are returned undecoded,
    cookies are not stored, and redirects are not followed. If the server closes a reused connection before it answers,
    the request is sent once more on a new connection.

    Args:
        trust_env: use the proxy variables of the environment.
    """

    def __init__(self, *, trust_env: bool = True) -> None:
        self._proxies = Proxies(trust_env=trust_env)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}  # by whether each request gets a new connection

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response with its body unread.

        Raises:
            httpx.TransportError: the class that httpx's own transport would raise; ``__cause__`` is aiohttp's error.
        """
        timeout = request.extensions.get("timeout", {})
        headers = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.lower() != b"transfer-encoding"  # aiohttp adds its own for a streamed body
        ]
        try:
            head = await self.open(
                request.method,
                str(request.url),
                headers,
                _body(request),
                connect=timeout.get("connect"),
                read=timeout.get("read"),
            )
        except httpx.RequestError as exc:
            exc.request = request
            raise
        return httpx.Response(head.status, headers=list(head.headers), stream=head.body)

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
        """Send a request given by its parts; ``handle_async_request`` without the cost of httpx's objects.

        Args:
            method: the HTTP method in upper case.
            url: an absolute, encoded URL.
            headers: names and values; ``Host`` is added if missing.
            body: the body; an iterator is sent in chunks, and cannot be sent again.
            connect: seconds to connect, including name resolution and TLS.
            read: maximum number of seconds between two bytes.

        Raises:
            httpx.TransportError: as ``handle_async_request`` does.
        """
        _is_reused.set(False)
        proxied = self._proxies.find(url) is not None
        timeout = _timeout(connect, read)
        try:
            response = await self._send(method, url, headers, body, timeout, fresh=False)
        except _AIOHTTP_ERRORS as exc:
            if not (_is_reused.get() and isinstance(body, bytes) and _closed_before_reply(exc)):
                raise _httpx_error(exc, proxied=proxied) from exc
            try:
                response = await self._send(method, url, headers, body, timeout, fresh=True)
            except _AIOHTTP_ERRORS as again:
                raise _httpx_error(again, proxied=proxied) from again
        # aiohttp limits each line of a head, and not all of them together.
        if sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > _MAX_HEADERS:
            response.close()
            raise NotHttp(f"the headers are larger than {_MAX_HEADERS} bytes")
        return ResponseHead(response.status, response.raw_headers, _ResponseBody(response))

    async def aclose(self) -> None:
        """Close all connections."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def _send(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | AsyncIterator[bytes],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own name
        *,
        fresh: bool,
    ) -> aiohttp.ClientResponse:
        proxy = self._proxies.find(url)
        data: bytes | io.BytesIO | AsyncIterator[bytes] | None = body or None
        if isinstance(body, bytes) and len(body) > LARGE:
            data = io.BytesIO(body)
        target = URL(url, encoded=True)
        return await self._session(fresh=fresh).request(
            method,
            target,
            headers=headers,
            data=data,
            allow_redirects=False,
            timeout=timeout,
            ssl=tls_context() if target.scheme == "https" else True,
            proxy=proxy,
        )

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(fresh)
        if session is None:
            reuse: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": IDLE}
            session = _Session(
                connector=_Connector(limit=0, resolver=_resolver(), **reuse),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
                max_line_size=_MAX_HEADERS,
                max_field_size=_MAX_HEADERS,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            )
            # Private: aiohttp sends an idempotent request again after any loss, also on a new connection, and has no
            # public setting against it. Whether a call is retried is decided by the caller.
            session._retry_connection = False
            self._sessions[fresh] = session
        return session


@lru_cache(maxsize=16)
def _timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect, sock_read=read)


def _resolver() -> aiohttp.ThreadedResolver:
    lookups: Any = Lookups()  # in place of the event loop, whose executor would be waited for
    return aiohttp.ThreadedResolver(lookups)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # aiohttp discourages subclasses

    class _Session(aiohttp.ClientSession):
        """Do not complain of being left open by a loop that was closed: nobody could close the session in it any more.

        A program that makes a loop for each call, and closes it, does nothing wrong; see ``per_loop``.
        """

        def __del__(self, _warnings: Any = warnings) -> None:
            if not self._loop.is_closed():
                super().__del__()


class _Connector(aiohttp.TCPConnector):
    """Do not reuse a connection on which the server sent bytes while it was idle, and end with its loop in silence.

    aiohttp would take these bytes for the answer to the next request. ``_get``, ``_conns`` and ``_loop`` are private to
    aiohttp, and ``_call_connection_lost`` to asyncio: a closed loop runs no callbacks, so that sockets are closed here.
    """

    def __del__(self, _warnings: Any = warnings) -> None:
        if self._loop.is_closed():
            idle: Any = self._conns
            for protocol, _ in [pair for pairs in idle.values() for pair in pairs]:
                with suppress(Exception):
                    transport = getattr(protocol, "transport", None)
                    close = getattr(transport, "_call_connection_lost", None)
                    if close is not None:
                        close(None)
            idle.clear()
        super().__del__()

    async def _get(self, key: Any, traces: Any) -> Any:
        idle: Any = self._conns.get(key)
        while idle and idle[0][0].should_close:
            idle.popleft()[0].close()
        connection = await super()._get(key, traces)
        if connection is not None:
            _is_reused.set(True)
        return connection


class _ResponseBody(httpx.AsyncByteStream):
    """The undecoded body of an aiohttp response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except _AIOHTTP_ERRORS as exc:
            # Private: after a connection has broken, readany() raises even if the buffer still holds data.
            if content._buffer:
                yield content._read_nowait(-1)
            # aiohttp raises one module-level exception for every connection that was closed by this side. Its context
            # and traceback would keep the frames of the latest caller in memory.
            exc.__context__ = None
            raise _httpx_error(exc) from exc.with_traceback(None)

    async def aclose(self) -> None:
        self._response.close()  # returns the connection to the pool if the body was read to its end


def _body(request: httpx.Request) -> bytes | AsyncIterator[bytes]:
    if isinstance(request.stream, httpx.ByteStream):
        return request.content
    if isinstance(request.stream, httpx.AsyncByteStream):
        return aiter(request.stream)
    raise RuntimeError("an asynchronous client cannot send a synchronous stream")


def _httpx_error(exc: BaseException, *, proxied: bool = False) -> httpx.TransportError:
    # With a proxy, aiohttp resolves the name of the proxy only; the proxy resolves the server's.
    if proxied and isinstance(exc, aiohttp.ClientConnectorDNSError):
        return httpx.ProxyError(str(exc))
    for theirs, ours in _HTTPX_CLASSES:
        if isinstance(exc, theirs):
            return ours(str(exc))
    return httpx.TransportError(str(exc))


def _closed_before_reply(exc: BaseException) -> bool:
    """Return True if the connection ended before a byte of the reply arrived."""
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return isinstance(exc.message, str)  # otherwise aiohttp puts the partially parsed head here
    if isinstance(exc, aiohttp.ClientConnectorError):
        return False
    for link in (exc, exc.__cause__):
        if isinstance(link, ConnectionError):
            return True
        # aiohttp.ClientOSError is not a ConnectionError; the OSError that Python makes of its errno may be one.
        if isinstance(link, OSError) and isinstance(OSError(*link.args), ConnectionError):
            return True
    return False
