"""A fake vendor without a socket: a transport for httpx, and ``responses`` for requests."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import httpx

from llm_council.errors import MissingDependency
from llm_council.testing.servers._exchange import Asked, Ending, Sent

if TYPE_CHECKING:
    import requests
    import responses

    from llm_council.testing.servers._vendor import FakeVendor

__all__ = ["Mock", "mocked"]

# httpx's own message for a body that ends too early.
_CUT = "peer closed connection without sending complete message body"


class Mock(httpx.MockTransport):
    """Passes a vendor's replies to httpx. If the vendor hangs, async clients wait and blocking clients time out."""

    def __init__(self, vendor: FakeVendor) -> None:
        super().__init__(self.handle_request)
        self._vendor = vendor

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a blocking client."""
        request.read()
        sent = self._vendor.reply(_asked_of(request))
        time.sleep(sent.delay)
        # A blocking client cannot be cancelled: a vendor that hangs is a timeout at once.
        self._vendor.end(left=sent.ending is Ending.HANG)
        if sent.silent:
            raise httpx.ReadTimeout("the fake vendor hangs", request=request)
        return httpx.Response(sent.status, headers=_headers(sent), stream=_SyncBody(sent, request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer an async client."""
        await request.aread()  # a streamed body has no ``content`` before it was read
        sent = self._vendor.reply(_asked_of(request))
        if sent.silent or sent.delay:
            try:
                await (anyio.sleep_forever() if sent.silent else anyio.sleep(sent.delay))
            except anyio.get_cancelled_exc_class():
                self._vendor.end(left=True)
                raise
        return httpx.Response(sent.status, headers=_headers(sent), stream=_AsyncBody(sent, request, self._vendor))


class _SyncBody(httpx.SyncByteStream):
    def __init__(self, sent: Sent, request: httpx.Request) -> None:
        self._sent = sent
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        yield from self._sent.pieces
        if self._sent.ending is Ending.HANG:
            raise httpx.ReadTimeout("the fake vendor hangs", request=self._request)
        if self._sent.ending is Ending.CUT:
            raise httpx.RemoteProtocolError(_CUT, request=self._request)


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, sent: Sent, request: httpx.Request, vendor: FakeVendor) -> None:
        self._sent = sent
        self._request = request
        self._vendor = vendor
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._sent.pieces:
            await anyio.lowlevel.checkpoint()
            yield piece
        if self._sent.ending is Ending.HANG:
            await anyio.sleep_forever()
        if self._sent.ending is Ending.CUT:
            raise httpx.RemoteProtocolError(_CUT, request=self._request)
        self._end(left=False)

    async def aclose(self) -> None:
        self._end(left=True)

    def _end(self, *, left: bool) -> None:
        if not self._ended:
            self._ended = True
            self._vendor.end(left=left)


@contextmanager
def mocked(vendor: FakeVendor) -> Iterator[responses.RequestsMock]:
    """Answer everything that requests sends. A reply that hangs times out, and a stream arrives in one piece."""
    try:
        import requests  # here: a vendor for httpx needs neither
        import responses
    except ModuleNotFoundError:
        raise MissingDependency("a mocked vendor needs: pip install 'llm-council-sdk[testing]'") from None

    def answer(request: requests.PreparedRequest) -> tuple[int, dict[str, str], Any]:
        body = request.body if isinstance(request.body, bytes) else (request.body or "").encode()
        sent = vendor.reply(_build_asked(request.method or "", request.url or "", dict(request.headers), body))
        time.sleep(sent.delay)
        vendor.end(left=sent.ending is Ending.HANG)
        if sent.ending is Ending.HANG:
            raise requests.ReadTimeout("the fake vendor hangs")
        if sent.ending is Ending.CUT:
            raise requests.exceptions.ChunkedEncodingError(_CUT)
        return sent.status, dict(sent.headers), b"".join(sent.pieces)

    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        # ``content_type=None``: the vendor's headers hold the type, and a second one would be added.
        for method in (responses.GET, responses.POST, responses.DELETE):
            mock.add_callback(method, re.compile(".*"), callback=answer, content_type=None)
        yield mock


def _asked_of(request: httpx.Request) -> Asked:
    return _build_asked(request.method, str(request.url), dict(request.headers), request.content)


def _build_asked(method: str, url: str, headers: dict[str, str], body: bytes) -> Asked:
    parts = urlsplit(url)
    low = {name.lower(): str(value) for name, value in headers.items()}
    return Asked(method=method, path=parts.path, query=parts.query, headers=low, body=body)


def _headers(sent: Sent) -> dict[str, str]:
    return dict(sent.headers) if sent.stream else {**sent.headers, "content-length": str(sent.length)}
