"""What both connection pools share: TLS and proxy settings of the environment, requests and response heads."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from llm_council.errors import InvalidOption

__all__ = ["IDLE", "NotHttp", "Proxies", "ResponseHead", "build_request", "response_head", "tls_context"]

IDLE = 30.0
"""Seconds after which a pool closes an unused connection."""


@lru_cache(maxsize=1)  # loading certifi's authorities takes 20 ms
def tls_context() -> ssl.SSLContext:
    """Return the TLS context that all connections share.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are used if set, and certifi's authorities otherwise.

    Raises:
        InvalidOption: the certificates that those variables name cannot be read.
    """
    cert_file = os.environ.get("SSL_CERT_FILE")
    try:
        # Some versions of httpx ignore SSL_CERT_FILE if it does not exist, and trust certifi's authorities.
        if cert_file and not Path(cert_file).is_file():
            raise FileNotFoundError(cert_file)
        context = httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as exc:
        place = cert_file or os.environ.get("SSL_CERT_DIR") or "certifi"
        raise InvalidOption(
            f"cannot read the certificates in {place}: {exc}; set SSL_CERT_FILE or SSL_CERT_DIR to readable ones"
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class Proxies:
    """Choose the proxy for a URL from ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.

    The proxy variables are read once, and ``NO_PROXY`` once for each host.

    Args:
        trust_env: False uses no proxy.
    """

    def __init__(self, *, trust_env: bool = True) -> None:
        self._by_scheme = getproxies() if trust_env else {}
        self._by_host: dict[tuple[str, str], str | None] = {}

    def find(self, url: str) -> str | None:
        """Return the URL of the proxy for a URL, or None."""
        if not self._by_scheme:
            return None
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        if key not in self._by_host:
            proxy = self._by_scheme.get(parts.scheme) or self._by_scheme.get("all")
            if proxy and proxy_bypass(parts.netloc):
                proxy = None
            if proxy and "://" not in proxy:  # curl takes a proxy without a scheme for an HTTP proxy
                proxy = f"http://{proxy}"
            self._by_host[key] = proxy or None
        return self._by_host[key]


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
