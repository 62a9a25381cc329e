"""What the machine says about TLS and proxies: read once, shared by every client."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from llm_council.errors import InvalidOption

__all__ = ["Proxies", "tls_context"]


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return the one TLS context: building one costs 20 ms.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured; without them certifi's authorities are trusted.

    Raises:
        InvalidOption: what those variables name cannot be read.
    """
    named = os.environ.get("SSL_CERT_FILE")
    try:
        if named and not Path(named).is_file():  # some versions of httpx would silently trust certifi's instead
            raise FileNotFoundError(named)
        context = httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as exc:
        places = named or os.environ.get("SSL_CERT_DIR") or "certifi"
        raise InvalidOption(f"no certificates can be read from SSL_CERT_FILE or its kin, {places}: {exc}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class Proxies:
    """Which proxy a host is reached through, by ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.

    The environment is read when this is made, and ``NO_PROXY`` once for each host.

    Args:
        trust_env: False uses no proxy at all.
    """

    def __init__(self, *, trust_env: bool = True) -> None:
        self._by_scheme = getproxies() if trust_env else {}
        self._by_host: dict[tuple[str, str], str | None] = {}

    def of(self, url: str) -> str | None:
        """Return the address of the proxy for this URL, or None."""
        if not self._by_scheme:
            return None
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        if key not in self._by_host:
            proxy = self._by_scheme.get(parts.scheme) or self._by_scheme.get("all")
            self._by_host[key] = None if not proxy or proxy_bypass(parts.netloc) else _with_scheme(proxy)
        return self._by_host[key]


def _with_scheme(proxy: str) -> str:
    return proxy if "://" in proxy else f"http://{proxy}"
