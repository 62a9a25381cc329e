"""What our httpx transports raise where httpx has no exception of its own; ``httpx.HTTPError`` is a base of both."""

from __future__ import annotations

import httpx

__all__ = ["BodyTooLarge", "NotHttp"]


class NotHttp(httpx.RemoteProtocolError):
    """What came before the body is not HTTP, or larger than allowed; the connection was dropped."""


class BodyTooLarge(httpx.DecodingError):
    """The body is larger than allowed.

    Args:
        limit: bytes allowed, after decompression.
        request: the request.
    """

    def __init__(self, limit: int, *, request: httpx.Request | None = None) -> None:
        super().__init__(f"the body is larger than {limit} bytes", request=request)
        self.limit = limit
