"""The ``httpx.AsyncClient`` that adapters get: shared TLS, no redirects, bounded bodies, fast under concurrency."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import httpx
import sniffio

from llm_council.errors._secrets import Secret
from llm_council.transports._base import ACCEPT_ENCODING, AGENT, DEFAULT_LIMITS, DEFAULT_TIMEOUTS
from llm_council.transports._decompress import BadEncoding, Overflow, unpacked
from llm_council.transports._errors import BodyTooLarge
from llm_council.transports._exchange import unwind

if TYPE_CHECKING:
    from llm_council.transports._aiohttp import AiohttpTransport
    from llm_council.transports._httpcore import HttpcoreTransport

__all__ = ["AsyncClient", "BoundedTransport", "PooledTransport", "new_client"]

AsyncClient = httpx.AsyncClient

_CREDENTIAL = re.compile(rb"(?:authorization|cookie|token|secret|password|(?<!idempotency-)key)$", re.IGNORECASE)
# What is said of plain words would be masked in what models write: a credential is long, or holds a digit.
_ODD = re.compile(r"(?=[^\d]*\d)\S{8,}|\S{20,}")
_MOST = 64  # credentials that are remembered
_BODILY = ("content-encoding", "content-length", "transfer-encoding")


def new_client(*, trust_env: bool = True) -> httpx.AsyncClient:
    """Build the ``httpx.AsyncClient`` that stands behind ``ProviderAdapter._get_client()``; it costs microseconds.

    It has no timeout but 10 seconds to connect (the call's deadline rules), follows no redirect, asks for gzip at
    most, and reads at most 16 MiB of a body, 64 KiB of an error's, counted after decompression. A larger body raises
    ``httpx.DecodingError``, which ``translate`` turns into ``ReplyTooLarge``; an error's body is cut.

    Args:
        trust_env: honour the proxy variables of the environment.

    Returns:
        A client for the event loop in which its first request is sent; ``aclose()`` it there.
    """
    return httpx.AsyncClient(
        transport=BoundedTransport(PooledTransport(trust_env=trust_env)),
        headers={"Accept-Encoding": ACCEPT_ENCODING, "User-Agent": AGENT},
        timeout=httpx.Timeout(None, connect=DEFAULT_TIMEOUTS.connect),
        follow_redirects=False,
        trust_env=False,  # the transport reads the environment; httpx would build a pool for each proxy
    )


class PooledTransport(httpx.AsyncBaseTransport):
    """Send over aiohttp under asyncio, over httpx's own pool elsewhere; chosen by the first request.

    What a request carries as a credential is a secret from then on: an adapter that keeps its key as a plain string
    shows it no more than one that keeps a ``Secret``, whatever its server repeats.

    Args:
        trust_env: honour ``HTTP_PROXY`` and its kin.
    """

    def __init__(self, *, trust_env: bool = True) -> None:
        self._trust_env = trust_env
        self._inner: AiohttpTransport | HttpcoreTransport | None = None
        self._carried: dict[bytes, list[Secret]] = {}

    @property
    def inner(self) -> AiohttpTransport | HttpcoreTransport:
        """The transport for the event loop that runs now."""
        if self._inner is None:
            if sniffio.current_async_library() == "asyncio":
                from llm_council.transports._aiohttp import AiohttpTransport  # trio programs need not load aiohttp

                self._inner = AiohttpTransport(trust_env=self._trust_env)
            else:
                from llm_council.transports._httpcore import HttpcoreTransport

                self._inner = HttpcoreTransport(trust_env=self._trust_env)
        return self._inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; a header with a line break or a NUL raises ``httpx.LocalProtocolError`` before any socket."""
        for name, value in request.headers.raw:
            if b"\n" in value or b"\r" in value or b"\0" in value or not name.strip():
                raise httpx.LocalProtocolError("a header has a line break or a NUL", request=request)
            if value not in self._carried and _CREDENTIAL.search(name):
                self._remember(name, value)
        return await self.inner.handle_async_request(request)

    def _remember(self, name: bytes, value: bytes) -> None:
        words = value.decode("latin-1").split()
        words = words[len(words) > 1 :] if b"authorization" in name.lower() else words  # without "Bearer"
        self._carried[value] = kept = []
        for word in words:
            with suppress(ValueError):  # no key is outside of ASCII
                kept += [Secret(word)] if _ODD.fullmatch(word) else []
        while len(self._carried) > _MOST:  # tokens that change from call to call
            del self._carried[next(iter(self._carried))]

    async def aclose(self) -> None:
        """Close every connection."""
        inner, self._inner = self._inner, None
        if inner is not None:
            await inner.aclose()


class BoundedTransport(httpx.AsyncBaseTransport):
    """Decompress and count what another transport brings, so that httpx above has nothing left to unpack.

    Args:
        inner: the transport that moves the bytes.
        body: bytes allowed in a body.
        error_body: bytes kept of the body of a reply with status 400 or more.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        body: int = DEFAULT_LIMITS.body,
        error_body: int = DEFAULT_LIMITS.error_body,
    ) -> None:
        self._inner = inner
        self._body = body
        self._error_body = error_body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the response with a bounded body."""
        response = await self._inner.handle_async_request(request)
        failed = response.status_code >= 400
        response.stream = _BoundedBody(response, request, self._error_body if failed else self._body, cut=failed)
        if "content-encoding" in response.headers:
            for name in _BODILY:
                response.headers.pop(name, None)
        return response

    async def aclose(self) -> None:
        """Close the transport within."""
        await self._inner.aclose()


class _BoundedBody(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response, request: httpx.Request, limit: int, *, cut: bool) -> None:
        self._source = cast("httpx.AsyncByteStream", response.stream)
        self._encoding = response.headers.get("content-encoding", "")
        self._request = request
        self._limit = limit
        self._cut = cut
        self._running: AsyncIterator[bytes] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._running = source = aiter(self._source)
        try:
            async for piece in unpacked(source, self._encoding, self._limit):
                yield piece
        except Overflow as exc:
            await self.aclose()
            if not self._cut:
                raise BodyTooLarge(exc.limit, request=self._request) from None
        except BadEncoding as exc:
            await self.aclose()
            raise httpx.DecodingError(str(exc), request=self._request) from None

    async def aclose(self) -> None:
        running = [] if self._running is None else [cast("AsyncGenerator[bytes, None]", self._running)]
        await unwind(*running, close=self._source.aclose)
