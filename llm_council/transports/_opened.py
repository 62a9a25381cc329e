"""A reply whose head has come, as httpx gives it or cheaper: its nouns cost as much as the rest of a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import httpx

__all__ = ["Opened", "message", "opened"]


class Opened(NamedTuple):
    """A status, headers as they came, and the body still to come."""

    status: int
    headers: Iterable[tuple[bytes, bytes]]
    body: httpx.AsyncByteStream


def message(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    connect: float | None,
    read: float | None,
    pool: float | None = None,
) -> httpx.Request:
    """Build httpx's request; the seconds bound a connection, the wait between two bytes, and that for a free place."""
    timeout = {"connect": connect, "read": read, "write": None, "pool": pool}
    return httpx.Request(method, url, headers=list(headers), content=body, extensions={"timeout": timeout})


def opened(response: httpx.Response) -> Opened:
    """Take httpx's response apart."""
    body = cast("httpx.AsyncByteStream", response.stream)
    if response.is_stream_consumed:  # a mock's comes read and unpacked
        body = httpx.ByteStream(response.content)
        response.headers.pop("content-encoding", None)
        response.headers.pop("content-length", None)
    return Opened(response.status_code, response.headers.raw, body)
