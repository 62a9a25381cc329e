"""The transport over a ``requests.Session``, with its proxies, adapters and auth, in worker threads."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import attrs
import requests
import urllib3
import urllib3.util.response
from requests.adapters import HTTPAdapter

from llm_council._runtime import per_loop
from llm_council.errors import ConnectFailed, TimedOut
from llm_council.models.limits import Limits, Timeouts
from llm_council.transports._base import (
    HttpReply,
    HttpRequest,
    ReplyStream,
    build_headers,
    host_of,
    refuse_redirect,
    strip_url,
)
from llm_council.transports._environment import check_proxy, is_exempt, tls_context
from llm_council.transports._lookups import is_address, look_up
from llm_council.transports._reply import BaseTransport, close_body, raise_translated, read_body, read_head

__all__ = ["RequestsTransport"]

T = TypeVar("T")

STEP = 64 * 1024
"""Maximum number of bytes that one read returns."""

GRACE = 1.0
"""Seconds that a thread may wait longer than its call, so that the deadline of the call is what ends it."""

NAME_IS_GOOD = 30.0
"""Seconds after a look-up in which a name is not looked up again before a call."""

# The body is read from urllib3 directly, which raises its own exceptions and those of the socket.
_REQUESTS_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class RequestsTransport(BaseTransport):
    """Send requests over a ``requests.Session`` in worker threads, under asyncio and trio.

    A cancelled call returns at once and shuts its socket down, which wakes its thread. A thread that is still
    connecting goes on until the connect timeout, and sends nothing then. A name that is new to the session is first
    looked up outside the worker threads: hung look-ups would use them up.

    Args:
        session: the session, which is not closed here; None makes one. Standard adapters whose pool is smaller than
            ``max_workers`` are replaced by larger ones with the same retries.
        timeout: seconds to connect and seconds between two bytes; None uses the call's ``Timeouts`` and deadline.
        max_workers: maximum number of threads of each event loop.
    """

    def __init__(
        self,
        session: requests.Session | None = None,
        timeout: tuple[float | None, float | None] = (None, None),
        max_workers: int = 40,
    ) -> None:
        self._owned = session is None
        if session is None:
            session = requests.Session()
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
            session.mount("https://", _TlsAdapter(pool_maxsize=max_workers))
        self._session = session
        self._timeout = timeout
        self._max_workers = max_workers
        self._pid = os.getpid()
        self._looked_up: dict[tuple[str, int], float] = {}  # host and port -> when, as a reading of time.monotonic
        _enlarge_pools(session, max_workers)

    async def aclose(self) -> None:
        """Close the connections of our own session; it can be used again."""
        if self._owned:
            self._session.close()

    @asynccontextmanager
    async def _exchange(
        self, request: HttpRequest, limits: Limits, limit: int, timeouts: Timeouts, deadline: float | None
    ) -> AsyncIterator[ReplyStream]:
        if self._pid != os.getpid():  # a forked child shares the sockets with its parent
            self._pid = os.getpid()
            for adapter in self._session.adapters.values():
                adapter.close()
        limiter = await per_loop.get(self, "limiter", partial(anyio.CapacityLimiter, self._max_workers), _do_nothing)
        seconds = self._socket_timeouts(timeouts, deadline)
        await self._look_up(request.url, seconds[0])
        call = _Call(self._session, request, seconds, limiter, self._owned)
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
            call.abort()
            await close_body(*reading, close=_do_nothing)

    async def _look_up(self, url: str, seconds: float | None) -> None:
        """Wait until the host of a URL, or its proxy, has been looked up; whether it was found is reported later.

        Raises:
            TimedOut: the name server did not answer in time.
        """
        # Other adapters, and the `responses` package in place of ``send``, may open no connection at all.
        is_plain = type(self._session.get_adapter(url)) in (HTTPAdapter, _TlsAdapter)
        if not is_plain or HTTPAdapter.send.__module__ != HTTPAdapter.__module__:
            return
        settings = self._session.merge_environment_settings(url, {}, stream=True, verify=None, cert=None)
        proxy = requests.utils.select_proxy(url, settings["proxies"])
        if proxy:
            url = proxy if "://" in proxy else f"http://{proxy}"
        with contextlib.suppress(ValueError):  # an address that cannot be read is refused later
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 0
            now = time.monotonic()
            if not host or is_address(host) or now - self._looked_up.get((host, port), -NAME_IS_GOOD) < NAME_IS_GOOD:
                return
            with anyio.move_on_after(seconds) as scope, contextlib.suppress(OSError):
                await look_up(host, port)
                self._looked_up[host, port] = now
            if scope.cancelled_caught:
                raise TimedOut(f"{host_of(url)} did not accept the connection in time", phase="connect")

    def _socket_timeouts(self, timeouts: Timeouts, deadline: float | None) -> tuple[float | None, float]:
        """Return the seconds to connect and to read; reading always has a limit."""
        connect, read = self._timeout
        left = None if deadline is None else max(deadline, 0.0) + GRACE
        connects = [bound for bound in (connect, timeouts.connect, left) if bound is not None]
        reads = [bound for bound in (read, timeouts.read, left) if bound is not None]
        return min(connects, default=None), min(reads, default=timeouts.total or 600.0)


@attrs.define(eq=False, repr=False)
class _Call:
    """One exchange. Its steps run in worker threads; the event loop can abort it at any time."""

    _session: requests.Session
    _request: HttpRequest
    _timeouts: tuple[float | None, float]
    _limiter: anyio.CapacityLimiter
    _owned: bool
    _lock: threading.Lock = attrs.field(factory=threading.Lock)  # guards the fields that thread and event loop share
    _response: requests.Response | None = None
    _connection: Any = None
    _started_body: bool = False
    _busy: bool = False
    _aborted: bool = False

    async def run(self, step: Callable[[], T]) -> T:
        """Run a step in a worker thread; a cancellation returns at once.

        Raises:
            CouncilError: the error that ``translate`` makes of an exception of requests.
        """
        try:
            return await anyio.to_thread.run_sync(self._run_step, step, abandon_on_cancel=True, limiter=self._limiter)
        except _REQUESTS_ERRORS as exc:
            try:
                raise_translated(exc, self._request)
            except ConnectFailed as error:
                if error.kind == "tls" and not self._owned:
                    # The caller's session does not read our variables.
                    said = error.message.partition("; ")[0]
                    error.args = (f"{said}; a session of your own trusts what its verify or REQUESTS_CA_BUNDLE names",)
                raise

    def open(self) -> requests.Response:
        """Send the request and return the response with its body unread."""
        _current_call.set(self)  # anyio runs each step in a copy of the context, so this need not be reset
        prepared = self._session.prepare_request(
            requests.Request(
                self._request.method,
                self._request.url,
                headers=build_headers(self._request.headers),
                data=self._request.body,
                # Without an auth, requests replaces our Authorization header by a password from ~/.netrc.
                auth=(lambda prepared: prepared) if self._session.auth is None else None,
            )
        )
        prepared.hooks["response"].append(self._refuse_redirect)
        settings: dict[str, Any] = {
            **self._session.merge_environment_settings(prepared.url or "", {}, stream=True, verify=None, cert=None)
        }
        settings.update(timeout=self._timeouts, allow_redirects=False)
        self._check_proxy(prepared.url or "", settings)
        # The server may close a reused connection before it answers. The request is then sent once more; on a new
        # connection it is not.
        connections = self._count_connections(prepared, settings)
        try:
            self._response = self._session.send(prepared, **settings)
        except requests.ConnectionError as exc:
            reused = connections is not None and connections == self._count_connections(prepared, settings)
            if not reused or not _closed_before_reply(exc):
                raise
            self._response = self._session.send(prepared, **settings)
        return self._response

    def read(self) -> bytes:
        """Return the next bytes of the undecoded body; empty at the end."""
        if self._response is None:
            return b""
        raw = self._response.raw
        # If the connection ends inside the head, http.client takes that for the end of the head and expects a body of
        # unknown length. An error needs no body, and its status is known although headers may be missing.
        first, self._started_body = not self._started_body, True
        no_length = first and raw.connection is not None and raw.length_remaining is None and not raw.chunked
        if first and not no_length:
            _check_head(raw)  # now, because the connection is given back at the end of the body
        data = bytes(raw.read1(STEP, decode_content=False) or b"")
        if no_length and not data:
            if self._response.status_code < 400 and self._response.status_code != 204:
                raise ConnectionResetError("the connection ended before the body")
        elif no_length:
            _check_head(raw)
        return data

    @property
    def is_finished(self) -> bool:
        """True if the body was read to its end, so that reading on needs no thread."""
        return self._response is not None and bool(self._response.raw.closed)

    def abort(self) -> None:
        """Close the connection unless the reply was read to its end. Does not wait for a running step."""
        with self._lock:
            self._aborted = True
            response = self._response
            if self._busy:
                # A thread is blocked on the socket. Shutting it down wakes the thread, which then closes it.
                with contextlib.suppress(ValueError, RuntimeError, OSError):
                    if response is not None:
                        response.raw.shutdown()
                    elif getattr(self._connection, "sock", None) is not None:
                        self._connection.sock.shutdown(socket.SHUT_RDWR)
                return
        if response is not None:
            response.close()

    def attach(self, connection: Any) -> None:
        """Store the connection of this call, so that ``abort`` can shut its socket down.

        Raises:
            ConnectionAbortedError: the call was aborted before.
        """
        with self._lock:
            if self._aborted:
                raise ConnectionAbortedError("the call was aborted before it was sent")
            self._connection = connection

    def _run_step(self, step: Callable[[], T]) -> T:
        with self._lock:
            if self._aborted:
                raise ConnectionAbortedError("the call was aborted before this step")
            self._busy = True
        try:
            return step()
        finally:
            self._finish_step()

    def _finish_step(self) -> None:
        with self._lock:
            self._busy = False
            aborted = self._aborted
        if aborted and self._response is not None:
            self._response.close()

    def _refuse_redirect(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
        # A response hook, because requests reads and decompresses the whole body of a redirect before it returns.
        if 300 <= response.status_code < 400:
            location = {"location": response.headers.get("location", "")}
            response.close()
            refuse_redirect(HttpReply(status=response.status_code, headers=location, url=strip_url(self._request.url)))

    def _check_proxy(self, url: str, settings: dict[str, Any]) -> None:
        """Name a proxy that requests cannot use; its own errors do not say which setting it comes from."""
        host = urlsplit(url).hostname or ""
        if is_exempt(urlsplit(url).netloc) and not self._session.proxies:  # requests knows no networks of IPv6
            settings["proxies"] = {}
        proxy = requests.utils.select_proxy(url, settings["proxies"])
        if proxy:
            kind = "all" if proxy == settings["proxies"].get("all") else urlsplit(url).scheme
            has_socks = importlib.util.find_spec("socks") is not None
            check_proxy(proxy if "://" in proxy else f"http://{proxy}", host, kind=kind, socks=has_socks)

    def _count_connections(self, prepared: requests.PreparedRequest, settings: dict[str, Any]) -> int | None:
        """Return how many connections the pool for this request has opened; None for an adapter without pools."""
        adapter = self._session.get_adapter(prepared.url or "")
        if not isinstance(adapter, HTTPAdapter):
            return None
        pool = adapter.get_connection_with_tls_context(
            prepared, settings["verify"], proxies=settings["proxies"], cert=settings["cert"]
        )
        # urllib3 has no hook for connections. Changing the class works for pools of proxies and of the caller's own
        # adapters as well.
        if not isinstance(pool, _TrackedPool):
            kind: Any = type(pool)
            pool.__class__ = _tracked(kind)
        return int(getattr(pool, "num_connections", 0))


_current_call: ContextVar[_Call] = ContextVar("llm_council_requests_call")


class _TlsAdapter(HTTPAdapter):
    """Trust the authorities that our other transports trust; requests reads ``REQUESTS_CA_BUNDLE`` alone."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=tls_context(), **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=tls_context(), **options)


class _Response(http.client.HTTPResponse):
    """Skip any interim response; http.client skips those of status 100 only.

    RFC 9110, section 15.2: a client must accept any number of 1xx responses before the final one. After a 101 the
    connection speaks another protocol, so nothing can be skipped.
    """

    def _read_status(self) -> tuple[str, int, str]:
        reply: Any = super()
        version, status, reason = reply._read_status()
        return version, http.client.CONTINUE if 101 < status < 200 else status, reason


class _TrackedPool:
    """Mixin for urllib3's pools that attaches each connection to the call that uses it."""

    def _get_conn(self, *args: Any, **options: Any) -> Any:
        pool: Any = super()
        connection = pool._get_conn(*args, **options)
        call = _current_call.get(None)
        if call is not None:
            connection.debuglevel = 0  # http.client would print what it sends, with the key, past all loggers
            try:
                call.attach(connection)
            except ConnectionAbortedError:
                connection.close()
                raise
        return connection

    def _validate_conn(self, connection: Any) -> None:
        pool: Any = super()
        pool._validate_conn(connection)
        call = _current_call.get(None)
        if call is not None:
            connection.response_class = _Response
            if connection.sock is None:  # urllib3 would connect while it sends, too late for ``attach`` to stop it
                connection.connect()
            call.attach(connection)


@lru_cache(maxsize=64)  # one class for each kind of pool, not one for each pool
def _tracked(pool: type[Any]) -> type[Any]:
    return type(f"Tracked{pool.__name__}", (_TrackedPool, pool), {})


def _check_head(raw: Any) -> None:
    """Raise for a head with an invalid line: http.client would treat this line and all after it as the body."""
    head = getattr(getattr(raw, "_original_response", None), "msg", None)
    if isinstance(head, http.client.HTTPMessage):
        urllib3.util.response.assert_header_parsing(head)


async def _arriving(call: _Call) -> AsyncGenerator[bytes, None]:
    while chunk := await call.run(call.read):
        yield chunk
        if call.is_finished:
            return


def _enlarge_pools(session: requests.Session, size: int) -> None:
    for prefix, adapter in list(session.adapters.items()):
        current = getattr(adapter, "_pool_maxsize", size)  # private, but part of how an adapter is pickled
        if type(adapter) is HTTPAdapter and current < size:
            session.mount(prefix, HTTPAdapter(pool_maxsize=size, max_retries=adapter.max_retries))
            adapter.close()


def _closed_before_reply(exc: BaseException) -> bool:
    """Return True if the connection ended before a byte of the reply arrived."""
    inner = exc.args[0] if exc.args else None
    parts = inner.args if isinstance(inner, urllib3.exceptions.ProtocolError) else ()
    return any(isinstance(part, ConnectionError) for part in parts)


async def _do_nothing(*_: object) -> None:
    """Close what needs no closing: a limiter, and a call that was aborted before."""
