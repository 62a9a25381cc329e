"""What both connection pools share: requests and response heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import httpx

from llm_council.transports._environment import Proxies, tls_context

__all__ = ["IDLE", "NotHttp", "Proxies", "ResponseHead", "build_request", "response_head", "tls_context"]

IDLE = 30.0
"""Seconds after which a pool closes an unused connection."""


class NotHttp(httpx.RemoteProtocolError):
    """The head of the response is not valid HTTP, or is too large; the connection was closed.

    httpx has one class for this and for a connection that ends early; the latter is worth a retry on a new connection.
    """


class ResponseHead(NamedTuple):
    """A response whose body has not been read. Making an ``httpx.Response`` costs as much CPU as the rest of a call.

    Attributes:
        status: the HTTP status.
        headers: names and values as they were received.
        body: the undecoded body.
    """

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    body: httpx.AsyncByteStream


def build_request(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    connect: float | None,
    read: float | None,
    pool: float | None = None,
) -> httpx.Request:
    """Return an httpx request; ``connect``, ``read`` and ``pool`` are its timeouts in seconds."""
    timeout = {"connect": connect, "read": read, "write": None, "pool": pool}
    return httpx.Request(method, url, headers=list(headers), content=body, extensions={"timeout": timeout})


def response_head(response: httpx.Response) -> ResponseHead:
    """Convert an httpx response."""
    body = cast("httpx.AsyncByteStream", response.stream)
    # httpx.MockTransport and errors of vendors' SDKs have responses that are already read and decoded.
    if response.is_stream_consumed:
        body = httpx.ByteStream(response.content)
        response.headers.pop("content-encoding", None)
        response.headers.pop("content-length", None)
    return ResponseHead(response.status_code, response.headers.raw, body)
