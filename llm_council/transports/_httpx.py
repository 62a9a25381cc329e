"""The transport of every built-in HTTP provider: our own pools, or an httpx client or transport of the caller."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import httpx

from llm_council._runtime import per_loop
from llm_council.errors import InvalidOption
from llm_council.models.limits import Limits, Timeouts
from llm_council.transports._base import (
    DEFAULT_LIMITS,
    DEFAULT_TIMEOUTS,
    USER_AGENT,
    HttpReply,
    HttpRequest,
    ReplyStream,
    Transport,
    build_headers,
)
from llm_council.transports._client import PooledTransport
from llm_council.transports._pool import ResponseHead, build_request, response_head
from llm_council.transports._reply import BaseTransport, close_body, raise_translated, read_body, read_head, read_whole

__all__ = ["HttpxTransport", "as_transport"]

# InvalidURL and StreamError are not subclasses of HTTPError, and a transport of the caller may raise an OSError.
_HTTPX_ERRORS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)


class HttpxTransport(BaseTransport):
    """Send requests over our own connection pools, one for each event loop, or over an httpx client or transport.

    Args:
        client: a client with its own proxies, certificates and auth, used in one event loop and not closed here. Only
            its pool timeout is used; redirects are not followed, and bodies are decompressed and bounded here.
        transport: an httpx transport, such as ``httpx.MockTransport`` in tests.
        trust_env: use the proxy variables of the environment for our own pools.

    Raises:
        InvalidOption: both a client and a transport are given.
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
        """Close our pool of the current event loop; the next request opens a new one."""
        await per_loop.aclose(self)

    async def prepare(self) -> None:
        """Import the HTTP library of our pool."""
        if self._client is None and self._transport is None:
            _ = (await self._pool()).inner

    async def send(
        self,
        request: HttpRequest,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        deadline: float | None = None,
    ) -> HttpReply:
        """Send a request and return the whole reply; see ``Transport.send``."""
        # Not through ``_exchange``: generators inside each other cost more CPU than reading the body does.
        try:
            reply = await self._open(request, timeouts)
            arriving = cast("AsyncGenerator[bytes, None]", aiter(reply.body))
            try:
                head = read_head(request, reply.status, reply.headers, limits)
                return await read_whole(head, arriving, limit=limits.body, error_body=limits.error_body)
            finally:
                await close_body(arriving, close=reply.body.aclose)
        except _HTTPX_ERRORS as exc:
            raise_translated(exc, request)

    @asynccontextmanager
    async def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AsyncIterator[ReplyStream]:
        try:
            reply = await self._open(request, timeouts)
        except _HTTPX_ERRORS as exc:
            raise_translated(exc, request)
        reading: list[AsyncGenerator[bytes, None]] = []
        try:
            head = read_head(request, reply.status, reply.headers, limits)
            arriving = _arriving(reply.body, request)
            chunks = read_body(head, arriving, limit=limit, error_body=limits.error_body)
            reading = [chunks, arriving]
            yield ReplyStream(head, chunks)
        finally:
            await close_body(*reading, close=reply.body.aclose)

    async def _open(self, request: HttpRequest, timeouts: Timeouts) -> ResponseHead:
        """Send a request and return the head of the response."""
        headers = build_headers(request.headers, user_agent=None if self._client else USER_AGENT)
        parts = (request.method, request.url, headers.items(), request.body)
        if self._client is None and self._transport is None:
            pool = await self._pool()
            return await pool.inner.open(*parts, connect=timeouts.connect, read=timeouts.read)
        wait = self._client.timeout.pool if self._client else None
        message = build_request(*parts, connect=timeouts.connect, read=timeouts.read, pool=wait)
        if self._transport is not None:
            return response_head(await self._transport.handle_async_request(message))
        client = cast("httpx.AsyncClient", self._client)
        # ``send`` does not add the client's default headers to a request that the client has not built.
        defaults = [pair for pair in client.headers.raw if pair[0].decode("ascii") not in message.headers]
        message.headers = httpx.Headers([*defaults, *message.headers.raw])
        return response_head(await client.send(message, stream=True, follow_redirects=False))

    async def _pool(self) -> PooledTransport:
        """Return our pool of the current event loop."""
        new_pool = partial(PooledTransport, trust_env=self._trust_env)
        return await per_loop.get(self, "pool", new_pool, PooledTransport.aclose)


async def _arriving(body: httpx.AsyncByteStream, request: HttpRequest) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in body:
            yield chunk
    except _HTTPX_ERRORS as exc:
        raise_translated(exc, request)


def as_transport(value: Any) -> Transport:
    """Return a value as a transport.

    Args:
        value: a ``Transport``, an ``httpx.AsyncClient``, an httpx transport such as ``httpx.MockTransport``, or a
            ``requests.Session``.

    Raises:
        InvalidOption: the value is none of these.
    """
    if isinstance(value, httpx.AsyncClient):
        return HttpxTransport(value)
    if isinstance(value, httpx.AsyncBaseTransport):
        return HttpxTransport(transport=value)
    # Compared by name, so that a program without a Session does not import requests.
    if any(f"{cls.__module__}.{cls.__name__}" == "requests.sessions.Session" for cls in type(value).__mro__):
        from llm_council.transports._requests import RequestsTransport

        return RequestsTransport(value)
    if isinstance(value, httpx.Client):
        raise InvalidOption("transport: an httpx.Client blocks; pass an httpx.AsyncClient, or a requests.Session")
    if isinstance(value, type) or not all(
        callable(getattr(value, name, None)) for name in ("send", "stream", "aclose")
    ):
        raise InvalidOption(
            f"transport: a Transport, an httpx.AsyncClient, an httpx transport or a requests.Session, got {value!r:.80}"
        )
    transport: Transport = value
    return transport
