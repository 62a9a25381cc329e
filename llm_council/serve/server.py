"""The server: its addresses, its sockets, and how it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import attrs
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from llm_council.errors import InvalidOption
from llm_council.models._attrs import strict_init
from llm_council.serve.access import FEWEST_CHARACTERS, Access, Key, can_be_sent, read_keys
from llm_council.serve.guard import Guard

__all__ = ["DEFAULT_PORT", "Serving", "all_keys", "bind", "guarded", "hosts_of", "serve"]

DEFAULT_PORT: Final = 8642
TOKEN_VARIABLE: Final = "LLM_COUNCIL_SERVE_TOKEN"  # noqa: S105 - the name of a variable
_OWNER: Final = "owner"

HEAD_SECONDS: Final = 20.0
"""Seconds in which the head of a request must arrive."""

LAST_SECONDS: Final = 5
"""Seconds after the time of grace in which requests that were cut off must end."""


@strict_init
@attrs.frozen(kw_only=True)
class Serving:
    """How to serve.

    Attributes:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        keys: a file of keys, see ``read_keys``; None takes the token alone.
        allow_hosts: further values of ``Host``, such as ``council.example.com``.
        certificate: file of a TLS certificate; None serves without TLS.
        private_key: file of its private key.
        behind_proxy: True if a proxy ends TLS, and alone can reach the server.
        grace: seconds that running requests have to end when the server is told to stop.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    keys: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    behind_proxy: bool = False
    grace: float = 30.0

    def __attrs_post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise InvalidOption("TLS needs both files: name the certificate and the private key")
        if _is_loopback(self.host):
            return
        if self.keys is None:
            raise InvalidOption(
                f"{self.host} can be reached by others: name a file of keys with --keys, or listen on 127.0.0.1"
            )
        if self.certificate is None and not self.behind_proxy:
            raise InvalidOption(
                f"{self.host} can be reached by others, who could read the keys: name --certificate and --private-key,"
                " or say --behind-proxy if a proxy ends TLS"
            )

    @property
    def scheme(self) -> str:
        """``https`` or ``http``."""
        return "http" if self.certificate is None else "https"


def _check_certificate(certificate: Path, private_key: Path) -> None:
    """Refuse files that TLS cannot use, before the server says that it listens."""
    try:
        # The empty password keeps OpenSSL from asking for one on the terminal.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, private_key, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise InvalidOption(
            f"TLS cannot use {certificate} with {private_key}: {getattr(error, 'strerror', None) or error}: name a"
            " certificate in PEM and its private key without a password"
        ) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(serving: Serving) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InvalidOption: the address cannot be used, most often because another program has the port, or the files for
            TLS cannot be used.
    """
    if serving.certificate is not None and serving.private_key is not None:
        _check_certificate(serving.certificate, serving.private_key)
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((serving.host, serving.port))
        listening.listen(2048)
    except socket.gaierror:
        listening.close()
        raise InvalidOption(f"cannot listen on {serving.host}: no such address: name one with --host") from None
    except OSError as error:
        listening.close()
        raise InvalidOption(
            f"cannot listen on {serving.host}:{serving.port}: {error.strerror or error}: name another port with --port"
        ) from None
    return listening


def hosts_of(serving: Serving, port: int) -> frozenset[str]:
    """Return the values of ``Host`` that are ours."""
    shown = f"[{serving.host}]" if ":" in serving.host else serving.host
    names = {shown, "localhost", "127.0.0.1"} if _is_loopback(serving.host) else {shown}
    ours = {f"{name}:{port}" for name in names}
    for name in serving.allow_hosts:
        ours |= {name.lower(), f"{name.lower()}:{port}"}
    return frozenset(ours)


def owner_key() -> Key:
    """Return the key of who started the server: the variable's, or a new one.

    Raises:
        InvalidOption: that of the variable is too short, or no client could send it.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is not None and (len(given) < FEWEST_CHARACTERS or not can_be_sent(given)):
        raise InvalidOption(
            f"{TOKEN_VARIABLE}: {FEWEST_CHARACTERS} characters or more, in printable ASCII without spaces, or leave it"
            " out for a new token at each start"
        )
    return Key(name=_OWNER, secret=given or secrets.token_urlsafe(24), per_minute=6_000, at_once=1_000)


class _Connection(H11Protocol):
    """A connection that is closed if a request's head does not arrive in time, which uvicorn waits for without end."""

    _head_limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request."""
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and wait for the rest of a head that has begun."""
        super().data_received(data)
        cycle: Any = self.cycle  # None before the first request, which uvicorn does not declare
        if cycle is not None and not cycle.response_complete:
            self._forget_limit()
        elif self._head_limit is None:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the limit."""
        self._forget_limit()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head_limit = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _forget_limit(self) -> None:
        if self._head_limit is not None:
            self._head_limit.cancel()
            self._head_limit = None


class _Server(uvicorn.Server):
    """A server that says when it begins to stop, and that a second Ctrl-C ends quietly."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a signal; at a second Ctrl-C without waiting."""
        super().handle_exit(sig, frame)
        if self.force_exit:
            # What is running is cancelled now, and uvicorn would log that with tracebacks.
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new request, and let those that are running end."""
        if self._on_stop is not None:
            self._on_stop()
        await super().shutdown(sockets)


def serve(app: ASGIApp, serving: Serving, listening: socket.socket, on_stop: Callable[[], None] | None = None) -> None:
    """Serve an application until the process is told to stop (SIGINT or SIGTERM).

    Running requests then have ``Serving.grace`` seconds to end. What is cut off then can be resumed, if it is stored.

    Args:
        app: the application.
        serving: how to serve.
        listening: the socket.
        on_stop: called once the server is told to stop.
    """
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        http=_Connection,
        # The application cuts runs off after the time of grace: this is for what it cannot end.
        timeout_graceful_shutdown=math.ceil(serving.grace) + LAST_SECONDS,
        ssl_certfile=None if serving.certificate is None else str(serving.certificate),
        ssl_keyfile=None if serving.private_key is None else str(serving.private_key),
        h11_max_incomplete_event_size=64 * 1024,
        lifespan="on",
    )
    _Server(config, on_stop).run(sockets=[listening])


def guarded(app: ASGIApp, serving: Serving, listening: socket.socket, keys: Sequence[Key]) -> ASGIApp:
    """Return an application behind checks of host, origin and key."""
    return Guard(app, hosts_of(serving, listening.getsockname()[1]), Access(keys))


def all_keys(serving: Serving) -> tuple[Key, ...]:
    """Return the owner's key and those of the file.

    Raises:
        InvalidOption: the file cannot be used.
    """
    return (owner_key(), *(() if serving.keys is None else read_keys(serving.keys)))
