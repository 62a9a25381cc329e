"""A transport over the caller's ``requests.Session``: proxies, adapters and auth plugins as configured there."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import requests
import urllib3
import urllib3.util.response
from requests.adapters import HTTPAdapter

from llm_council._runtime import per_loop
from llm_council.models.limits import Limits, Timeouts
from llm_council.transports._base import (
    HttpReply,
    HttpRequest,
    ReplyStream,
    build_headers,
    refuse_redirect,
    strip_url,
)
from llm_council.transports._reply import BaseTransport, close_body, raise_translated, read_body, read_head

__all__ = ["RequestsTransport"]

T = TypeVar("T")

STEP = 64 * 1024
GRACE = 1.0
"""Seconds that a thread may wait longer than its call, so that the call's own deadline is the one that speaks."""

_FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class RequestsTransport(BaseTransport):
    """Send over a ``requests.Session`` in worker threads, for asyncio and trio alike.

    A cancelled call returns at once, and shuts its socket down, which wakes its thread. A thread that is still looking
    up a name or connecting lives on until ``connect`` is over, and sends nothing then.

    Args:
        session: not closed here; None makes one. Plain adapters whose pool is smaller than ``max_workers`` are
            replaced by larger ones with the same retries.
        timeout: seconds to connect, and between two bytes; None leaves it to the call's ``Timeouts`` and deadline.
        max_workers: threads at a time, for each event loop.
    """

    def __init__(
        self,
        session: requests.Session | None = None,
        timeout: tuple[float | None, float | None] = (None, None),
        max_workers: int = 40,
    ) -> None:
        self._owned = session is None
        self._session = _own_session() if session is None else session
        self._timeout = timeout
        self._max_workers = max_workers
        self._pid = os.getpid()
        _widen(self._session, max_workers)

    async def aclose(self) -> None:
        """Close the connections of a session of our own; it may be used again."""
        if self._owned:
            self._session.close()

    @asynccontextmanager
    async def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AsyncIterator[ReplyStream]:
        if self._pid != os.getpid():  # the sockets are shared with the parent process
            self._pid = os.getpid()
            for adapter in self._session.adapters.values():
                adapter.close()
        limiter = await per_loop.get(self, "limiter", self._limiter, _keep)
        call = _Call(self._session, request, self._waits(timeouts, deadline), limiter)
        reading: list[AsyncGenerator[bytes, None]] = []
        try:
            response = await call.run(call.open)
            pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.raw.headers.items()]
            head = read_head(request, response.status_code, pairs, limits)
            arriving = _arriving(call)
            chunks = read_body(head, arriving, limit=limit, error_body=limits.error_body)
            reading = [chunks, arriving]
            yield ReplyStream(head, chunks)
        finally:
            call.drop()
            await close_body(*reading, close=_done)

    def _waits(self, timeouts: Timeouts, deadline: float | None) -> tuple[float | None, float]:
        """Return the bounds on connecting and on reading; there is always one on reading."""
        connect, read = self._timeout
        left = None if deadline is None else max(deadline, 0.0) + GRACE
        connects = [bound for bound in (connect, timeouts.connect, left) if bound is not None]
        reads = [bound for bound in (read, timeouts.read, left) if bound is not None]
        return min(connects, default=None), min(reads, default=timeouts.total or 600.0)

    def _limiter(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(self._max_workers)


class _Call:
    """One exchange: what runs in threads, and how the event loop lets go of it."""

    def __init__(
        self,
        session: requests.Session,
        request: HttpRequest,
        waits: tuple[float | None, float],
        limiter: anyio.CapacityLimiter,
    ) -> None:
        self._session = session
        self._request = request
        self._waits = waits
        self._limiter = limiter
        self._lock = threading.Lock()
        self._response: requests.Response | None = None
        self._connection: Any = None
        self._begun = False
        self._busy = False
        self._dropped = False

    async def run(self, work: Callable[[], T]) -> T:
        """Run a step in a worker thread; a cancellation returns at once.

        Raises:
            CouncilError: the typed error for whatever requests raises.
        """
        try:
            return await anyio.to_thread.run_sync(self._step, work, abandon_on_cancel=True, limiter=self._limiter)
        except _FOREIGN as exc:
            raise_translated(exc, self._request)

    def open(self) -> requests.Response:
        """Send the request and return the response with its body unread."""
        _calling.set(self)  # this thread's step has a context of its own
        prepared = self._session.prepare_request(
            requests.Request(
                self._request.method,
                self._request.url,
                headers=build_headers(self._request.headers),
                data=self._request.body,
                # Without an auth of its own, requests puts ~/.netrc's in place of our Authorization header.
                auth=_as_it_is if self._session.auth is None else None,
            )
        )
        prepared.hooks["response"].append(self._refuse)
        settings: dict[str, Any] = {
            **self._session.merge_environment_settings(prepared.url or "", {}, stream=True, verify=None, cert=None)
        }
        # A kept connection that the server was just closing, before a byte of the reply came: once more.
        opened = self._connections(prepared, settings)
        try:
            self._response = self._send(prepared, settings)
        except requests.ConnectionError as exc:
            if opened is None or opened != self._connections(prepared, settings) or not _lost_unanswered(exc):
                raise
            self._response = self._send(prepared, settings)
        return self._response

    def read(self) -> bytes:
        """Return the next bytes as they came over the wire; empty at the end."""
        if self._response is None:
            return b""
        raw = self._response.raw
        # http.client takes an end inside the head for the end of the head, and then waits for a body without length. An
        # error needs no body, and its status stands whatever the head has lost.
        first, self._begun = not self._begun, True
        unbounded = first and raw.connection is not None and raw.length_remaining is None and not raw.chunked
        if first and not unbounded:
            _check_head(raw)  # before the end of the body, which gives the connection back
        data = bytes(raw.read1(STEP, decode_content=False) or b"")
        if unbounded and not data:
            if self._response.status_code < 400 and self._response.status_code != 204:
                raise ConnectionResetError("the connection ended before a body came")
        elif unbounded:
            _check_head(raw)
        return data

    @property
    def is_over(self) -> bool:
        """Whether the body was read to its end, so that asking for more needs no thread."""
        return self._response is not None and bool(self._response.raw.closed)

    def drop(self) -> None:
        """Let go: close the connection unless the reply was read to its end; from the event loop, without waiting."""
        with self._lock:
            self._dropped = True
            response = self._response
            if self._busy:  # a thread is in a call on the socket: wake it, it will close
                with contextlib.suppress(ValueError, RuntimeError, OSError):
                    if response is not None:
                        response.raw.shutdown()
                    elif getattr(self._connection, "sock", None) is not None:
                        self._connection.sock.shutdown(socket.SHUT_RDWR)
                return
        if response is not None:
            response.close()

    def hold(self, connection: Any) -> None:
        """Take note of the connection on which this call is made, so that ``drop`` can reach its socket.

        Raises:
            ConnectionAbortedError: the call was dropped before.
        """
        with self._lock:
            if self._dropped:
                raise ConnectionAbortedError("the call was dropped before it was sent")
            self._connection = connection

    def _step(self, work: Callable[[], T]) -> T:
        with self._lock:
            if self._dropped:
                raise ConnectionAbortedError("the call was dropped before this step began")
            self._busy = True
        try:
            return work()
        finally:
            self._settle()

    def _settle(self) -> None:
        with self._lock:
            self._busy = False
            dropped = self._dropped
        if dropped and self._response is not None:
            self._response.close()

    def _send(self, prepared: requests.PreparedRequest, settings: dict[str, Any]) -> requests.Response:
        return self._session.send(prepared, timeout=self._waits, allow_redirects=False, **settings)

    def _refuse(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
        """Refuse a redirect before requests looks at it: it would read the whole body, unpacked."""
        if 300 <= response.status_code < 400:
            location = {"location": response.headers.get("location", "")}
            response.close()
            refuse_redirect(HttpReply(status=response.status_code, headers=location, url=strip_url(self._request.url)))

    def _connections(self, prepared: requests.PreparedRequest, settings: dict[str, Any]) -> int | None:
        """Return how many connections were opened to this origin so far: one more tells a fresh one from a kept one."""
        adapter = self._session.get_adapter(prepared.url or "")
        if not isinstance(adapter, HTTPAdapter):
            return None
        pool = adapter.get_connection_with_tls_context(
            prepared, settings["verify"], proxies=settings["proxies"], cert=settings["cert"]
        )
        if not isinstance(pool, _Watched):  # the one way that serves pools of proxies and of users' adapters too
            kind: Any = type(pool)
            pool.__class__ = _watched(kind)
        return int(getattr(pool, "num_connections", 0))


_calling: ContextVar[_Call] = ContextVar("llm_council_requests_call")


class _Reply(http.client.HTTPResponse):
    """A reply behind any number of interim ones: http.client itself skips those of status 100 alone."""

    def _read_status(self) -> tuple[str, int, str]:
        reply: Any = super()
        version, status, reason = reply._read_status()
        return version, http.client.CONTINUE if 101 < status < 200 else status, reason


class _Watched:
    """What is mixed into urllib3's pools: calls of ours learn which connection they are made on."""

    def _get_conn(self, *args: Any, **options: Any) -> Any:
        pool: Any = super()
        connection = pool._get_conn(*args, **options)
        call = _calling.get(None)
        if call is not None:
            connection.debuglevel = 0  # http.client prints what it sends, the key in its header too, past every logger
            try:
                call.hold(connection)
            except ConnectionAbortedError:
                connection.close()
                raise
        return connection

    def _validate_conn(self, connection: Any) -> None:
        pool: Any = super()
        pool._validate_conn(connection)
        call = _calling.get(None)
        if call is not None:
            connection.response_class = _Reply
            if connection.sock is None:  # urllib3 would connect when it sends, too late to be stopped
                connection.connect()
            call.hold(connection)


@lru_cache(maxsize=64)
def _watched(pool: type[Any]) -> type[Any]:
    return type(f"Watched{pool.__name__}", (_Watched, pool), {})


def _check_head(raw: Any) -> None:
    """Refuse a head with a line that is no header: http.client takes it, and all behind it, for something else."""
    head = getattr(getattr(raw, "_original_response", None), "msg", None)
    if isinstance(head, http.client.HTTPMessage):
        urllib3.util.response.assert_header_parsing(head)


async def _arriving(call: _Call) -> AsyncGenerator[bytes, None]:
    while chunk := await call.run(call.read):
        yield chunk
        if call.is_over:
            return


def _own_session() -> requests.Session:
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.verify = os.environ.get("SSL_CERT_FILE") or True  # requests itself reads REQUESTS_CA_BUNDLE only
    return session


def _widen(session: requests.Session, size: int) -> None:
    for prefix, adapter in list(session.adapters.items()):
        size_now = getattr(adapter, "_pool_maxsize", size)  # private, but what an adapter pickles itself by
        if type(adapter) is HTTPAdapter and size_now < size:
            session.mount(prefix, HTTPAdapter(pool_maxsize=size, max_retries=adapter.max_retries))
            adapter.close()


def _as_it_is(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
    return prepared


def _lost_unanswered(exc: BaseException) -> bool:
    """Tell whether the connection ended without a byte of the reply, by the exceptions inside."""
    inner = exc.args[0] if exc.args else None
    parts = inner.args if isinstance(inner, urllib3.exceptions.ProtocolError) else ()
    return any(isinstance(part, ConnectionError) for part in parts)


async def _keep(resource: object) -> None:
    """Do nothing: a limiter holds nothing that needs closing."""


async def _done() -> None:
    """Do nothing: the call was dropped before."""
