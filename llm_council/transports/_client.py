"""httpx clients over our own connection pools: shared TLS settings, no redirects, bounded bodies.

``new_client`` makes the client for adapters of third parties, ``pooled_transport`` a transport for the client of a
vendor's SDK.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from functools import lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import httpx
import sniffio

from llm_council.errors._secrets import Secret
from llm_council.transports._base import ACCEPT_ENCODING, DEFAULT_LIMITS, DEFAULT_TIMEOUTS, USER_AGENT
from llm_council.transports._environment import check_key_log
from llm_council.transports._reply import BadEncoding, BodyOverflow, close_body, decompress

if TYPE_CHECKING:
    from llm_council.transports._aiohttp import AiohttpTransport
    from llm_council.transports._httpcore import HttpcoreTransport

__all__ = ["AsyncClient", "BodyTooLarge", "BoundedTransport", "PooledTransport", "new_client", "pooled_transport"]

AsyncClient = httpx.AsyncClient

# A key that makes a request idempotent is random, but not a credential.
_CREDENTIAL_HEADER = re.compile(rb"(?:authorization|cookie|token|secret|password|(?<!idempotency-)key)$", re.IGNORECASE)
# Every secret is masked in the answers of models. A short word without a digit would be masked in ordinary prose.
_LOOKS_SECRET = re.compile(r"(?=[^\d]*\d)\S{8,}|\S{20,}")
_MAX_REMEMBERED = 64  # header values whose secrets are kept
_BODY_HEADERS = ("content-encoding", "content-length", "transfer-encoding")


class BodyTooLarge(httpx.DecodingError):
    """The body is larger than allowed; httpx has no exception of its own for it.

    Args:
        limit: the number of bytes allowed after decompression.
        request: the request.
    """

    def __init__(self, limit: int, *, request: httpx.Request | None = None) -> None:
        super().__init__(f"the body is larger than {limit} bytes", request=request)
        self.limit = limit


def new_client(*, trust_env: bool = True) -> httpx.AsyncClient:
    """Return the ``httpx.AsyncClient`` that ``ProviderAdapter.http_client()`` returns. Making one takes microseconds.

    The client has no timeout except 10 seconds to connect, because the call has a deadline. It follows no redirects and
    accepts gzip at most. It reads at most 16 MiB of a body, or 64 KiB if the status is 400 or more, counted after
    decompression. A larger body raises ``httpx.DecodingError``, which ``translate`` converts to ``ReplyTooLarge``; a
    larger body of an error is cut.

    Args:
        trust_env: use the proxy variables of the environment.

    Returns:
        A client for the event loop in which its first request is sent; close it there with ``aclose()``.
    """
    return httpx.AsyncClient(
        transport=BoundedTransport(PooledTransport(trust_env=trust_env)),
        headers={"Accept-Encoding": ACCEPT_ENCODING, "User-Agent": USER_AGENT},
        timeout=httpx.Timeout(None, connect=DEFAULT_TIMEOUTS.connect),
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # keeps none
        trust_env=False,  # PooledTransport reads the environment; httpx would make one more pool for each proxy
    )


class PooledTransport(httpx.AsyncBaseTransport):
    """Send requests over aiohttp under asyncio and over httpx's own pool elsewhere, decided by the first request.

    The values of credential headers are registered as secrets, so that the key of an adapter that stores it as a plain
    string is masked in messages and logs as well.

    Args:
        trust_env: use the proxy variables of the environment.
    """

    def __init__(self, *, trust_env: bool = True) -> None:
        self._trust_env = trust_env
        self._inner: AiohttpTransport | HttpcoreTransport | None = None
        self._secrets: dict[bytes, list[Secret]] = {}  # by header value

    @property
    def inner(self) -> AiohttpTransport | HttpcoreTransport:
        """The pool for the running event loop."""
        if self._inner is None:
            # Imported on first use, so that a program that uses trio does not load aiohttp.
            if sniffio.current_async_library() == "asyncio":
                check_key_log()  # aiohttp makes TLS contexts as it is imported
                from llm_council.transports._aiohttp import AiohttpTransport

                self._inner = AiohttpTransport(trust_env=self._trust_env)
            else:
                from llm_council.transports._httpcore import HttpcoreTransport

                self._inner = HttpcoreTransport(trust_env=self._trust_env)
        return self._inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            httpx.LocalProtocolError: a header has a line break or a NUL; nothing was sent.
        """
        for name, value in request.headers.raw:
            if b"\n" in value or b"\r" in value or b"\0" in value or not name.strip():
                raise httpx.LocalProtocolError("a header has a line break or a NUL", request=request)
            if value not in self._secrets and _CREDENTIAL_HEADER.search(name):
                self._remember(name, value)
        return await self.inner.handle_async_request(request)

    def _remember(self, name: bytes, value: bytes) -> None:
        words = value.decode("latin-1").split()
        if b"authorization" in name.lower() and len(words) > 1:
            del words[0]  # the scheme, such as "Bearer"
        self._secrets[value] = secrets = []
        for word in words:
            if _LOOKS_SECRET.fullmatch(word):
                with suppress(ValueError):  # Secret takes ASCII only; no vendor's key has other characters
                    secrets.append(Secret(word))
        while len(self._secrets) > _MAX_REMEMBERED:  # short-lived tokens would accumulate
            del self._secrets[next(iter(self._secrets))]

    async def aclose(self) -> None:
        """Close all connections."""
        inner, self._inner = self._inner, None
        if inner is not None:
            await inner.aclose()


class BoundedTransport(httpx.AsyncBaseTransport):
    """Decompress the bodies of another transport and bound their size; httpx itself decompresses without a limit.

    Args:
        inner: the transport that sends the requests.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response with a bounded body."""
        response = await self._inner.handle_async_request(request)
        response.stream = _BoundedBody(response, request)
        if "content-encoding" in response.headers:
            for name in _BODY_HEADERS:
                response.headers.pop(name, None)
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()


class _BoundedBody(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response, request: httpx.Request) -> None:
        self._source = cast("httpx.AsyncByteStream", response.stream)
        self._encoding = response.headers.get("content-encoding", "")
        self._request = request
        self._failed = response.status_code >= 400
        self._reading: list[AsyncGenerator[bytes, None]] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        limit = DEFAULT_LIMITS.error_body if self._failed else DEFAULT_LIMITS.body
        arriving = aiter(self._source)
        self._reading = [cast("AsyncGenerator[bytes, None]", arriving)]
        try:
            async for piece in decompress(arriving, self._encoding, limit):
                yield piece
        except BodyOverflow as exc:
            await self.aclose()
            if not self._failed:
                raise BodyTooLarge(exc.limit, request=self._request) from None
        except BadEncoding as exc:
            await self.aclose()
            raise httpx.DecodingError(str(exc), request=self._request) from None

    async def aclose(self) -> None:
        await close_body(*self._reading, close=self._source.aclose)


def pooled_transport(library: ModuleType) -> Any:
    """Return a transport over our connection pools for an ``AsyncClient`` of ``httpx`` or ``httpx2``.

    Vendors' SDKs are built on one of the two. The exceptions are always those of ``httpx``. The body of a redirect or
    an error is decompressed and cut, because the clients of SDKs read it whole.

    Args:
        library: the module whose ``Request`` and ``Response`` classes the client uses.
    """
    transport = _pooled_transport_class(library)()
    _ = transport._pools.inner  # imports the HTTP library of the pools
    return transport


@lru_cache(maxsize=2)
def _pooled_transport_class(library: ModuleType) -> type[Any]:
    class Body(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self, source: Any, encoding: str, *, failed: bool) -> None:
            self._source = source
            self._encoding = encoding
            self._failed = failed
            self._reading: list[Any] = []

        def __aiter__(self) -> AsyncIterator[bytes]:
            arriving: Any = aiter(self._source)
            if not self._failed:
                return cast("AsyncIterator[bytes]", arriving)
            pieces = decompress(arriving, self._encoding, DEFAULT_LIMITS.error_body)
            self._reading = [pieces, arriving]
            return _until_invalid(pieces)

        async def aclose(self) -> None:
            await close_body(*self._reading, close=self._source.aclose)

    class SdkTransport(library.AsyncBaseTransport):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self._pools = PooledTransport()

        async def handle_async_request(self, request: Any) -> Any:
            timeout = request.extensions.get("timeout", {})
            status, raw_headers, source = await self._pools.inner.open(
                request.method,
                str(request.url),
                [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw],
                await request.aread(),
                connect=timeout.get("connect"),
                read=timeout.get("read"),
            )
            headers = library.Headers(list(raw_headers))
            failed = status >= 300
            encoding = headers.pop("content-encoding", "") if failed else ""
            return library.Response(status, headers=headers, stream=Body(source, encoding, failed=failed))

        async def aclose(self) -> None:
            await self._pools.aclose()

    return SdkTransport


async def _until_invalid(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    with suppress(BodyOverflow, BadEncoding):
        async for piece in pieces:
            yield piece
