"""The contract of a transport: ``HttpRequest``, ``HttpReply``, ``ReplyStream`` and the ``Transport`` protocol.

Beside them stand the rules for headers and addresses that every transport applies.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import attrs

from llm_council._wire import failures
from llm_council.errors import InvalidOption, MalformedReply, RedirectRefused
from llm_council.errors._secrets import MASK, redact
from llm_council.models.limits import Limits, Timeouts

__all__ = [
    "HttpReply",
    "HttpRequest",
    "ReplyStream",
    "Transport",
    "build_headers",
    "host_of",
    "parse_headers",
    "refuse_redirect",
    "strip_url",
]

DEFAULT_LIMITS = Limits()
DEFAULT_TIMEOUTS = Timeouts()

ACCEPT_ENCODING = "gzip, identity"
"""The content encodings that ``Decompressor`` can unpack within a memory limit."""

USER_AGENT = "llm-council"

_MAX_LABEL = 63  # characters of one label of a host name, RFC 1035, section 2.3.4

# RFC 9110, section 5.6.2: the characters of a "token", which methods and header names are made of.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, section 5.5 also allows bytes above 0x7F; HTTP libraries disagree on their encoding, so they are refused.
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
# Any other header may hold a credential, because vendors invent header names for their keys.
_LOGGED_HEADERS = frozenset(
    ("accept", "accept-encoding", "content-encoding", "content-length", "content-type", "date", "retry-after", "server")
).union(failures.REQUEST_ID_HEADERS)


@attrs.frozen(kw_only=True, repr=False)
class HttpRequest:
    """One HTTP request. ``repr`` shows neither credentials, query nor body.

    Attributes:
        method: the HTTP method in upper case.
        url: an absolute ``http`` or ``https`` URL without user and password.
        headers: names and values; values are printable ASCII.
        body: the whole body.

    Raises:
        InvalidOption: a part is not valid in HTTP. The message does not contain the value.
    """

    method: str = "POST"
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    def __attrs_post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.method):
            raise InvalidOption(f"{self.method!r:.40} is not an HTTP method")
        _check_url(self.url)
        headers: Mapping[str, object] = self.headers  # callers may pass a value that is not text
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise InvalidOption(f"{name!r:.40} is not a valid HTTP header name")
            if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
                raise InvalidOption(
                    f"the value of header {name!r} has a line break or a character outside printable ASCII"
                )

    def __repr__(self) -> str:
        return (
            f"<HttpRequest {self.method} {strip_url(self.url)} "
            f"headers={_masked(self.headers)} body={len(self.body)} bytes>"
        )


@attrs.frozen(kw_only=True, repr=False)
class HttpReply:
    """One HTTP reply. ``repr`` shows neither cookies nor body.

    Attributes:
        status: the HTTP status; never 3xx.
        headers: names in lower case; the values of a repeated header are joined by ``", "``.
        body: the decompressed body; empty for the head of a stream.
        url: the URL of the request without its query.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    url: str = ""

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty if the header is missing."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def request_id(self) -> str | None:
        """The vendor's request id; None if no known header has one."""
        return failures.request_id(self.headers)

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before a retry; None if the header is missing or cannot be read."""
        return failures.retry_after(self.headers, time.time())

    @property
    def should_retry(self) -> bool | None:
        """The vendor's advice on retrying, from ``x-should-retry``; None if the header is missing."""
        return failures.should_retry(self.headers)

    def __repr__(self) -> str:
        return f"<HttpReply {self.status} {self.url} headers={_masked(self.headers)} body={len(self.body)} bytes>"


class ReplyStream:
    """A reply whose body is still arriving; iterate over it asynchronously to read the body.

    Args:
        head: status and headers.
        chunks: the decompressed body as it arrives, bounded in size.
    """

    def __init__(self, head: HttpReply, chunks: AsyncIterator[bytes]) -> None:
        self.head = head
        self._chunks = chunks

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.head.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, with names in lower case."""
        return self.head.headers

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def read(self) -> HttpReply:
        """Read the rest of the body and return it as a reply.

        Raises:
            ReplyTooLarge, MalformedReply, ConnectionLost, TimedOut: reading failed, as when iterating.
        """
        body = b"".join([chunk async for chunk in self._chunks])
        return HttpReply(status=self.head.status, headers=self.head.headers, body=body, url=self.head.url)


class Transport(Protocol):
    """Send the bytes of a request and return the bytes of the reply, without interpreting them.

    A status of 400 or more is not an error here. A 3xx is: redirects are not followed. The total deadline is a cancel
    scope of the caller. Both methods may be cancelled at any point; the connection is then closed. A transport may
    have a coroutine method ``prepare`` besides, which imports what the first request needs: its time does not count as
    silence of a stream.
    """

    async def send(
        self,
        request: HttpRequest,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        deadline: float | None = None,
    ) -> HttpReply:
        """Send a request and return the whole reply.

        Args:
            request: the request.
            limits: maximum sizes. A larger body is cut if the status is 400 or more, and an error otherwise.
            timeouts: maximum duration of each single wait.
            deadline: seconds until the caller's cancel scope ends the call. It does not end the call itself; it bounds
                worker threads, which may outlive a cancellation.

        Raises:
            TransportError: the request could not be sent, or the reply not be received.
            MalformedReply: the reply is not valid HTTP, or does not decompress.
            ReplyTooLarge: the reply is larger than ``limits`` allows.
            InvalidOption: the request cannot be sent over HTTP.
        """
        ...

    def stream(
        self,
        request: HttpRequest,
        *,
        limits: Limits = DEFAULT_LIMITS,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        deadline: float | None = None,
    ) -> AbstractAsyncContextManager[ReplyStream]:
        """Send a request and yield the reply once its head has arrived.

        Leaving the block before the end of the body closes the connection.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections that were opened in the current event loop."""
        ...


def build_headers(headers: Mapping[str, str], *, user_agent: str | None = None) -> dict[str, str]:
    """Return the headers to send: our ``accept-encoding``, and ``user_agent`` if the request has none of its own."""
    sent = {name: value for name, value in headers.items() if name.lower() != "accept-encoding"}
    sent["accept-encoding"] = ACCEPT_ENCODING
    if user_agent and not any(name.lower() == "user-agent" for name in headers):
        sent["user-agent"] = user_agent
    return sent


def parse_headers(pairs: Iterable[tuple[bytes, bytes]], limit: int) -> dict[str, str]:
    """Return a reply's headers with names in lower case and repeated values joined by ``", "``.

    Raises:
        MalformedReply: the headers have more than ``limit`` bytes, a NUL or a line break, or no clear content length.
    """
    headers: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in pairs:
        size += len(raw_name) + len(raw_value) + 4  # ": " and CRLF
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if size > limit:
        raise MalformedReply(f"the headers of the reply are larger than {limit} bytes")
    values = "".join(headers.values())
    if "\0" in values or "\n" in values or "\r" in values:
        raise MalformedReply("a header of the reply contains a NUL or a line break")
    # RFC 9110, section 8.6 allows a list of equal lengths; different lengths may hide a second reply in the body.
    lengths = {part.strip() for part in headers.get("content-length", "0").split(",")}
    if len(lengths) > 1 or not lengths.pop().isdecimal():
        raise MalformedReply("the reply has two content lengths, or one that is not a number")
    return headers


def refuse_redirect(reply: HttpReply) -> None:
    """Raise ``RedirectRefused`` for a 3xx, because keys and prompts must not be sent to another host."""
    if 300 <= reply.status < 400:
        target = host_of(reply.headers.get("location", ""))
        raise RedirectRefused(
            f"{host_of(reply.url)} answered {reply.status} and redirects to {target or 'no address'}; "
            "keys and prompts do not follow redirects: set base_url to the final address"
        )


def host_of(url: str) -> str:
    """Return ``host:port`` for a message, without user and query; the path if the URL is relative."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "an unreadable address"
    if not parts.hostname:
        return parts.path
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or {'http': 80, 'https': 443}.get(parts.scheme, '')}".rstrip(":")


@lru_cache(maxsize=64)
def strip_url(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable address"
    return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()


@lru_cache(maxsize=64)  # a provider sends its requests to few addresses
def _check_url(url: str) -> None:
    """Raise ``InvalidOption`` unless a request can be sent to the URL as it is written."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InvalidOption("the address is not a URL: " + MASK) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidOption(f"{strip_url(url)!r:.200} is not an http:// or https:// address")
    if "@" in parts.netloc:
        raise InvalidOption(f"the address of {host_of(url)} contains a user or a password; use a header instead")
    if not _HEADER_VALUE.fullmatch(url) or " " in url:
        raise InvalidOption(f"the address of {host_of(url)} has a space, a line break or a character outside ASCII")
    # A model's name may be part of the path. HTTP libraries resolve dots, so "../admin" would reach another endpoint.
    if not {".", ".."}.isdisjoint(parts.path.split("/")):
        raise InvalidOption(f"the path of {strip_url(url)!r:.200} has a segment '.' or '..', which changes the target")
    labels = parts.hostname.removesuffix(".").split(".")
    if not all(0 < len(label) <= _MAX_LABEL for label in labels) and ":" not in parts.hostname:
        raise InvalidOption(f"{parts.hostname!r:.80} is not a host name: one of its labels is empty or too long")


def _masked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers for ``repr``; values that may be credentials are masked."""
    return {name: redact(value) if name.lower() in _LOGGED_HEADERS else MASK for name, value in headers.items()}
