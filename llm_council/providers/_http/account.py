"""A provider's address, its key, and the headers that carry credentials."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
from functools import lru_cache
from urllib.parse import urlsplit

from llm_council.errors import InvalidKey, InvalidOption, MissingCredentials
from llm_council.errors._secrets import Secret

__all__ = [
    "Header",
    "address",
    "hash_of_extras",
    "is_loopback",
    "read_key",
    "refuse_wrapped",
    "revealed",
    "sealed",
    "without_endpoint",
]

Header = str | tuple[Secret, ...]
"""The value of a header: text, or for a credential its words as secrets."""

# Broad on purpose: a hidden header is still sent as it is.
_CREDENTIAL = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
_QUOTES = "'\"`\u2018\u2019\u201c\u201d"
_ASSIGNED = re.compile(r"[A-Z][A-Z0-9_]{3,}=")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read_key(given: str | Secret | None, variable: str | None, name: str) -> tuple[Secret | None, str | None]:
    """Find a provider's key.

    Args:
        given: the caller's argument: a key, or ``"${VARIABLE}"``; None reads ``variable``.
        variable: the provider's own environment variable.
        name: the provider's name.

    Returns:
        The key, or None; and what is wrong with the key in the environment, for the error of a call that needs it.

    Raises:
        MissingCredentials: the environment variable that the caller named is not set.
        InvalidKey: the caller's key has a character that no header can carry.
    """
    if isinstance(given, Secret):
        return given, None
    named = _VARIABLE.fullmatch(given.strip()) if given is not None else None
    source = variable if given is None else None
    if named:
        source = named[1]
    text = (os.environ.get(source, "") if source else given) or ""
    if not text.strip():
        if given is None:
            return None, None
        remedy = f"set {source}" if source else "api_key is empty"
        variables = (source,) if source else ()
        raise MissingCredentials(f"{name} needs a key: {remedy}", provider=name).fill(variables=variables)
    try:
        refuse_wrapped(text.strip(), source)
        return Secret(text, env=source), None
    except ValueError as error:
        if given is None:
            return None, str(error)
        raise InvalidKey(str(error), provider=name) from None


def refuse_wrapped(key: str, variable: str | None) -> None:
    """Raise ValueError for a key that was copied with what stood around it.

    Args:
        key: the key, without blanks at its ends.
        variable: the environment variable that it came from, for the message.
    """
    where = f" in {variable}" if variable else ""
    if key[0] in _QUOTES or key[-1] in _QUOTES:
        raise ValueError(f"the key{where} stands in quotation marks: remove them")
    if _ASSIGNED.match(key):
        raise ValueError(f"the key{where} begins with the name of a variable and '=': give what stands behind it")
    if key.lower().startswith("bearer "):
        raise ValueError(f"the key{where} begins with 'Bearer': give what stands behind it")


def without_endpoint(url: str, endpoints: re.Pattern[str]) -> str:
    """Return a base address without the endpoint that was copied with it.

    Args:
        url: the address, as ``address`` returns it.
        endpoints: matches the paths of the vendor's endpoints at the end of an address.
    """
    parts = urlsplit(url)
    found = endpoints.search(parts.path)
    return url if found is None else url[: len(url) - len(parts.path) + found.start()].rstrip("/")


def sealed(name: str, value: str | Secret | tuple[Secret, ...]) -> Header:
    """Return the value of a header; if its name speaks of a credential, as secrets, which are not shown or pickled."""
    if isinstance(value, Secret):
        return (value,)
    if isinstance(value, tuple) and all(isinstance(word, Secret) for word in value):
        return value
    if not isinstance(value, str):
        raise InvalidOption(f"the value of header {name!r} must be text")
    if not _CREDENTIAL.search(name):
        return value
    try:
        # Word by word, as a Secret holds no space: "Bearer KEY" is two.
        return tuple(Secret(word) for word in value.split(" "))
    except ValueError:
        raise InvalidKey(f"the value of header {name!r} has a character that no header can carry") from None


def revealed(value: Header) -> str:
    """Return the text of a header, secrets included; call it only where headers are sent."""
    return value if isinstance(value, str) else " ".join(word.reveal() for word in value)


def hash_of_extras(*extras: object) -> str:
    """Return a hash of what a provider sends beside a request, for ``cache_identity``.

    Args:
        *extras: headers, fields of the body, profiles; secrets count by their fingerprints.

    Returns:
        A colon and twelve hexadecimal digits, the same in every process; an empty string if all extras are empty.
    """
    present = {place: extra for place, extra in enumerate(extras) if extra}
    if not present:
        return ""

    def plain_form(extra: object) -> str:
        return extra.fingerprint() if isinstance(extra, Secret) else repr(extra)

    text = json.dumps(present, sort_keys=True, separators=(",", ":"), default=plain_form)
    return f":{hashlib.blake2b(text.encode(), digest_size=6, person=b'llm-council').hexdigest()}"


def address(url: str, *, allow_http: bool) -> str:
    """Return a base address without its trailing slash.

    Raises:
        InvalidOption: a key or a prompt must not be sent to it; the message says why.
    """
    url = url.strip().rstrip("/")
    if not url:
        return ""
    if url[0] in _QUOTES or url[-1] in _QUOTES:
        raise InvalidOption("base_url stands in quotation marks: remove them")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise InvalidOption("base_url is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidOption("base_url must begin with https:// (or http:// on this machine) and name a host")
    # Addresses appear in messages, logs and cache keys, so they must hold no credentials.
    if "@" in parts.netloc:
        raise InvalidOption(f"base_url of {host} holds a user or a password: pass api_key or headers instead")
    if parts.query or parts.fragment:
        raise InvalidOption(f"base_url of {host} has a query or a fragment: keys and parameters do not belong there")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise InvalidOption(
            f"base_url of {host} is plain http: keys and prompts could be read on the way; use https or allow_http=True"
        )
    return url


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Return True for a host of this machine alone: a loopback address, or a name that stands for one."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
