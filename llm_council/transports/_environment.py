"""What the environment says about TLS and proxies; all transports of ours read it here, so that it means the same."""

from __future__ import annotations

import ipaddress
import os
import ssl
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from llm_council.errors import InvalidOption

__all__ = ["Proxies", "check_key_log", "check_proxy", "is_exempt", "tls_context", "trusted_authorities"]

_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


def tls_context() -> ssl.SSLContext:
    """Return the TLS context that all connections share.

    It trusts certifi's authorities and those that ``SSL_CERT_FILE``, ``SSL_CERT_DIR`` and ``REQUESTS_CA_BUNDLE`` name.

    Raises:
        InvalidOption: the certificates that those variables name cannot be read, or the file of ``SSLKEYLOGFILE``
            cannot be written.
    """
    import certifi

    return _context(certifi.where(), tuple((name, os.environ.get(name, "")) for name in _AUTHORITIES))


def trusted_authorities() -> str:
    """Return, for a message, which authorities are trusted, and how to trust another one."""
    named = [name for name in _AUTHORITIES if os.environ.get(name)]
    if not named:
        return "certifi's authorities are trusted; set SSL_CERT_FILE to trust another one too"
    return f"certifi's authorities and those of {', '.join(named)} are trusted; SSL_CERT_FILE names further ones"


@lru_cache(maxsize=4)  # loading certifi's authorities takes 20 ms
def _context(bundle: str, variables: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    check_key_log()
    context = ssl.create_default_context(cafile=bundle)
    for name, places in variables:
        # OpenSSL takes several folders, as PATH has them.
        for place in places.split(os.pathsep) if name == "SSL_CERT_DIR" else [places]:
            if not place:
                continue
            try:
                if Path(place).is_dir():
                    context.load_verify_locations(capath=place)
                elif name == "SSL_CERT_DIR":
                    raise FileNotFoundError("no such folder")
                else:
                    context.load_verify_locations(cafile=place)
            except (OSError, ssl.SSLError) as exc:
                reason = exc.strerror or str(exc)
                raise InvalidOption(
                    f"{name} names {place}, whose certificates cannot be read: {reason}; correct it or unset it"
                ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def check_key_log() -> None:
    """Refuse a key log that cannot be written, before Python does, whose error does not name the variable.

    Raises:
        InvalidOption: the file of ``SSLKEYLOGFILE`` cannot be written.
    """
    path = os.environ.get("SSLKEYLOGFILE")
    if not path:
        return
    try:
        with open(path, "ab"):  # noqa: PTH123 - as Python itself opens it
            pass
    except OSError as exc:
        raise InvalidOption(f"SSLKEYLOGFILE names {path}, which cannot be written: {exc.strerror}; unset it") from None


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
        """Return the URL of the proxy for a URL, or None.

        Raises:
            InvalidOption: the proxy cannot be used; the message names the variable.
        """
        if not self._by_scheme:
            return None
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        if key not in self._by_host:
            kind = parts.scheme if self._by_scheme.get(parts.scheme) else "all"
            proxy = self._by_scheme.get(kind)
            if proxy and is_exempt(parts.netloc):
                proxy = None
            if proxy and "://" not in proxy:  # curl takes a proxy without a scheme for an HTTP proxy
                proxy = f"http://{proxy}"
            if proxy:
                check_proxy(proxy, parts.hostname or "", kind=kind)
            self._by_host[key] = proxy or None
        return self._by_host[key]


def is_exempt(netloc: str) -> bool:
    """Return True if ``NO_PROXY`` names a host, its domain or a network that its address is in."""
    if proxy_bypass(netloc):
        return True
    host = urlsplit(f"//{netloc}").hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for word in (word.strip() for word in listed.split(",")):
        if "/" not in word:
            continue
        try:
            if address in ipaddress.ip_network(word, strict=False):
                return True
        except ValueError:  # no network
            continue
    return False


def check_proxy(proxy: str, host: str, *, kind: str = "", socks: bool = False) -> None:
    """Refuse a proxy that cannot be used.

    Args:
        proxy: its address.
        host: the host that is to be reached.
        kind: the scheme for which it is set, or "all"; shown as the variable.
        socks: True if SOCKS can be used.

    Raises:
        InvalidOption: it is of another kind than HTTP, or no address; the message names the variable and the remedy,
            and no password.
    """
    variable = _variable(kind)
    remedy = f"name an http:// proxy there, or exempt {host} with NO_PROXY"
    try:
        parts = urlsplit(proxy)
        scheme, port, named = parts.scheme.lower(), parts.port, parts.hostname
    except ValueError:
        raise InvalidOption(f"{variable} is not the address of a proxy, http://HOST:PORT: {remedy}") from None
    if scheme.startswith("socks"):
        if not socks:
            raise InvalidOption(
                f"{variable} names a SOCKS proxy ({scheme}), which this transport cannot use: {remedy}, "
                "or pass an httpx client of your own that can"
            )
        return
    if scheme not in ("http", "https"):
        raise InvalidOption(f"{variable} names a proxy of the unknown kind {scheme!r:.40}: {remedy}")
    if not named or port == 0:
        raise InvalidOption(f"{variable} is not the address of a proxy, http://HOST:PORT: {remedy}")


def _variable(kind: str) -> str:
    names = (f"{kind}_proxy", f"{kind.upper()}_PROXY")
    found = next((name for name in names if os.environ.get(name)), None)
    return found or "the proxy setting of this machine"
