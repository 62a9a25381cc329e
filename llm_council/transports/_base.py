"""What a transport takes and gives: bytes with an address, and bytes with a status."""

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

__all__ = ["HttpReply", "HttpRequest", "ReplyStream", "Transport", "check_headers", "refuse_redirect", "where"]

DEFAULT_LIMITS = Limits()
DEFAULT_TIMEOUTS = Timeouts()

ACCEPT_ENCODING = "gzip, identity"
"""All we can take apart with a bound on memory."""

AGENT = "llm-council"

_LABEL = 63  # characters between two dots of a host's name

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD = re.compile(r"[\t\x20-\x7e]*")
# Everything else may be a credential: vendors invent header names for keys.
_SHOWN = frozenset(
    ("accept", "accept-encoding", "content-encoding", "content-length", "content-type", "date", "retry-after", "server")
).union(failures.REQUEST_ID_HEADERS)


@attrs.frozen(kw_only=True, repr=False)
class HttpRequest:
    """One HTTP request. ``repr`` shows neither credentials, query nor body.

    Attributes:
        method: upper case.
        url: absolute, ``http`` or ``https``, without user and password.
        headers: values are printable ASCII.
        body: what is sent, whole.

    Raises:
        InvalidOption: a part that HTTP cannot carry; its value is not shown.
    """

    method: str = "POST"
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""

    def __attrs_post_init__(self) -> None:
        if not _TOKEN.fullmatch(self.method):
            raise InvalidOption(f"{self.method!r:.40} is not an HTTP method")
        _split(self.url)
        check_headers(self.headers)

    def __repr__(self) -> str:
        return (
            f"<HttpRequest {self.method} {bare(self.url)} headers={_shown(self.headers)} body={len(self.body)} bytes>"
        )


@attrs.frozen(kw_only=True, repr=False)
class HttpReply:
    """One HTTP reply. ``repr`` shows neither cookies nor body.

    Attributes:
        status: the HTTP status; never 3xx.
        headers: names in lower case; a repeated header's values are joined by ``", "``.
        body: after decompression; empty on the head of a stream.
        url: who answered, without query.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = b""
    url: str = ""

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def request_id(self) -> str | None:
        """The vendor's id of the request, where a known header carries it."""
        return failures.request_id(self.headers)

    @property
    def retry_after(self) -> float | None:
        """Seconds that the vendor asks us to wait; None when it asks nothing, or nothing that makes sense."""
        return failures.retry_after(self.headers, time.time())

    @property
    def should_retry(self) -> bool | None:
        """The vendor's own word on whether to try again (``x-should-retry``); None when it has none."""
        return failures.should_retry(self.headers)

    def __repr__(self) -> str:
        return f"<HttpReply {self.status} {self.url} headers={_shown(self.headers)} body={len(self.body)} bytes>"


class ReplyStream:
    """A reply whose body is still arriving: the head, and an async iterator over the bytes.

    Args:
        head: status and headers.
        chunks: the body after decompression, in the pieces in which it arrives, bounded.
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
        """The headers, names in lower case."""
        return self.head.headers

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def read(self) -> HttpReply:
        """Read what is left and return the whole reply.

        Raises:
            ReplyTooLarge, MalformedReply, ConnectionLost, TimedOut: as iterating does.
        """
        body = b"".join([chunk async for chunk in self._chunks])
        return HttpReply(status=self.head.status, headers=self.head.headers, body=body, url=self.head.url)


class Transport(Protocol):
    """Move one request's bytes there and one reply's bytes back.

    Nothing here knows what the bytes mean. A status is not an error here, except 3xx: no redirect is followed. The
    total deadline is a cancel scope of the caller: both methods may be cancelled at any point and then drop the
    connection.
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
            request: what to send.
            limits: bounds on sizes; the body of a reply with status 400 or more is cut, any other refused.
            timeouts: bounds on single waits.
            deadline: seconds left in all: a hint that bounds threads which outlive a cancellation. It is the caller's
                cancel scope that ends the call.

        Raises:
            TransportError: bytes could not be moved.
            MalformedReply: what came is not HTTP, or does not decompress.
            ReplyTooLarge: the reply is larger than ``limits`` says.
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
        """Send a request and enter with the reply's head; leaving before the end drops the connection."""
        ...

    async def aclose(self) -> None:
        """Close what was opened in the current event loop."""
        ...


def outgoing(headers: Mapping[str, str], *, agent: str | None = None) -> dict[str, str]:
    """Return a request's headers with what we can unpack and, where they are silent on it, who asks."""
    sent = {} if any(name.lower() == "user-agent" for name in headers) or not agent else {"user-agent": agent}
    sent.update((name, value) for name, value in headers.items() if name.lower() != "accept-encoding")
    sent["accept-encoding"] = ACCEPT_ENCODING
    return sent


def incoming(pairs: Iterable[tuple[bytes, bytes]], limit: int) -> dict[str, str]:
    """Return a reply's headers with names in lower case and repeated values joined.

    Raises:
        MalformedReply: more than ``limit`` bytes, a NUL or a line break inside, or no clear length.
    """
    headers: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in pairs:
        size += len(raw_name) + len(raw_value) + 4  # ": " and the line's end
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if size > limit:
        raise MalformedReply(f"the headers of the reply are larger than {limit} bytes")
    everything = "".join(headers.values())
    if "\0" in everything or "\n" in everything or "\r" in everything:
        raise MalformedReply("a header of the reply has a NUL or a line break")
    length = headers.get("content-length", "0")
    if not length.isdecimal():  # the same length twice is allowed
        lengths = {part.strip() for part in length.split(",")}
        if len(lengths) > 1 or not lengths.pop().isdecimal():
            raise MalformedReply("the reply has two lengths, or one that is no number")
    return headers


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ``InvalidOption`` for a header that HTTP cannot carry, a line break for one; the value is not shown."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise InvalidOption(f"{name!r:.40} is not the name of an HTTP header")
        if not _carries(value):
            raise InvalidOption(f"the value of header {name!r} has a line break or a character outside printable ASCII")


def _carries(value: object) -> bool:
    return isinstance(value, str) and _FIELD.fullmatch(value) is not None


def refuse_redirect(reply: HttpReply) -> None:
    """Raise ``RedirectRefused`` for a 3xx: neither keys nor prompts follow a redirect."""
    if 300 <= reply.status < 400:
        target = where(reply.headers.get("location", ""))
        raise RedirectRefused(
            f"{where(reply.url)} answered {reply.status} and points to {target or 'nowhere'}; "
            "keys and prompts do not follow redirects: set base_url to the final address"
        )


def where(url: str) -> str:
    """Return ``host:port`` (or the path of a relative address) for a message: no user, no query."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "an unreadable address"
    if not parts.hostname:
        return parts.path
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or {'http': 80, 'https': 443}.get(parts.scheme, '')}".rstrip(":")


def bare(url: str) -> str:
    """Return an address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unreadable address"
    return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()


@lru_cache(maxsize=256)
def _split(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise InvalidOption("the address is not a URL: " + MASK) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidOption(f"{bare(url)!r:.200} is not an http:// or https:// address")
    if "@" in parts.netloc:
        raise InvalidOption(f"the address of {where(url)} holds a user or a password; send credentials in a header")
    if not _FIELD.fullmatch(url) or " " in url:
        raise InvalidOption(f"the address of {where(url)} has a space, a line break or a character outside ASCII")
    if not {".", ".."}.isdisjoint(parts.path.split("/")):  # a model's name may stand there
        raise InvalidOption(f"the path of {bare(url)!r:.200} leads elsewhere than it says: a part of it is dots")
    labels = parts.hostname.removesuffix(".").split(".")
    if not all(0 < len(label) <= _LABEL for label in labels) and ":" not in parts.hostname:
        raise InvalidOption(f"{parts.hostname!r:.80} is no name of a host: a part of it is empty or too long")


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: redact(value) if name.lower() in _SHOWN else MASK for name, value in headers.items()}
