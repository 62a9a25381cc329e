"""Who may use the server: keys with their limits, and checks of each request before anything reads it."""

from __future__ import annotations

import hmac
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import is_number, optional, positive, positive_int, strict_init
from llm_council.serve.chat import RequestRefused

__all__ = ["FEWEST_CHARACTERS", "Access", "Key", "can_be_sent", "check_origin", "read_keys"]

PER_MINUTE: Final = 120
"""Requests of a key in a minute, unless the file says otherwise."""

AT_ONCE: Final = 100
"""Runs of a key at once, unless the file says otherwise."""

FEWEST_CHARACTERS: Final = 16
"""A shorter key could be guessed."""


@strict_init
@attrs.define(kw_only=True, eq=False)
class Key:
    """A key of the server, with what was used of it.

    Attributes:
        name: a name for logs and messages, which never show the key.
        secret: the key.
        usd: US dollars that its runs may cost as long as the server runs; None is no limit.
        per_minute: requests in a minute.
        at_once: runs that may go on at once.
    """

    name: str
    secret: str = attrs.field(repr=False)
    usd: float | None = attrs.field(default=None, validator=optional(positive))
    per_minute: int = attrs.field(default=PER_MINUTE, validator=positive_int)
    at_once: int = attrs.field(default=AT_ONCE, validator=positive_int)
    spent: float = attrs.field(default=0.0, init=False)
    reserved: float = attrs.field(default=0.0, init=False)
    running: int = attrs.field(default=0, init=False)
    _allowed: float = attrs.field(default=0.0, init=False)
    _at: float | None = attrs.field(default=None, init=False)

    def count_request(self, now: float) -> None:
        """Count a request at a time in seconds.

        Raises:
            RequestRefused: there were too many in the last minute; it says when the next one may come.
        """
        rate = self.per_minute / 60
        # A bucket that fills as time passes, and holds the requests of one minute.
        self._allowed = (
            float(self.per_minute)
            if self._at is None
            else min(float(self.per_minute), self._allowed + (now - self._at) * rate)
        )
        self._at = now
        if self._allowed < 1:
            wait = (1 - self._allowed) / rate
            raise RequestRefused(
                f"the key {self.name} has {self.per_minute} requests in a minute: wait {wait:.0f} s",
                status=429,
                code="rate_limit_exceeded",
                kind="rate_limit_error",
                retry_after=wait,
            )
        self._allowed -= 1

    def begin_run(self) -> None:
        """Count a run that begins; ``end_run`` must follow.

        Raises:
            RequestRefused: as many as the key may have go on.
        """
        if self.running >= self.at_once:
            raise RequestRefused(
                f"the key {self.name} has {self.at_once} runs at once: wait until one has ended",
                status=429,
                code="rate_limit_exceeded",
                kind="rate_limit_error",
                retry_after=1.0,
            )
        self.running += 1

    def end_run(self) -> None:
        """Count a run that has ended."""
        self.running -= 1

    def reserve(self, most: float | None) -> float | None:
        """Reserve the money of a run, and return the most that it may cost; None is no limit.

        Args:
            most: the most that the run may cost by itself; None is no limit of its own.

        Raises:
            RequestRefused: nothing is left.
        """
        if self.usd is None:
            return most
        left = self.usd - self.spent - self.reserved
        if left <= 0:
            budget = f"the key {self.name} has a budget of {self.usd:g} US dollars"
            if self.spent < self.usd:
                raise RequestRefused(
                    f"{budget}, and its running requests have reserved the rest: wait until one has ended",
                    status=429,
                    code="rate_limit_exceeded",
                    kind="rate_limit_error",
                    retry_after=1.0,
                )
            raise RequestRefused(
                f"{budget}, and it is spent",
                status=429,
                code="insufficient_quota",
                kind="insufficient_quota",
            )
        taken = left if most is None else min(left, most)
        self.reserved += taken
        return taken

    def settle(self, reserved: float | None, cost: float | None) -> None:
        """Return what a run reserved, and count what it cost; an unknown cost counts as all that was reserved."""
        if self.usd is not None and reserved is not None:
            self.reserved -= reserved
            self.spent += reserved if cost is None else cost


class Access:
    """Finds the key of a request.

    Args:
        keys: the keys.
        clock: seconds, on a monotonic clock.
    """

    def __init__(self, keys: Iterable[Key], clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = tuple(keys)
        self._clock = clock

    def key_of(self, authorization: str | None) -> Key:
        """Return the key that a header ``Authorization`` names, and count the request.

        Raises:
            RequestRefused: there is none, it is unknown, or it has had too many requests.
        """
        kind, _, given = (authorization or "").partition(" ")
        found: Key | None = None
        for key in self._keys:  # all of them, so that the time does not tell which one is alike
            if hmac.compare_digest(key.secret.encode(), given.strip().encode("utf-8", "surrogateescape")):
                found = key
        if kind.lower() != "bearer" or found is None:
            raise RequestRefused(
                "a key is needed: send the token that the server printed, or a key of its file, as"
                " 'Authorization: Bearer KEY'",
                status=401,
                code="invalid_api_key",
            )
        found.count_request(self._clock())
        return found


def can_be_sent(secret: str) -> bool:
    """Return True for printable ASCII without spaces: what every client can send in a header, and nothing strips."""
    return secret.isascii() and secret.isprintable() and " " not in secret


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read a file of keys: TOML with a table ``[keys.NAME]`` for each, whose settings are those of ``Key``.

    Raises:
        InvalidOption: it cannot be read, or a key is missing, short or listed twice. No message shows a key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(f"keys: {path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidOption(f"keys: {path} is no TOML: {error}") from None
    tables = data.get("keys")
    if not isinstance(tables, Mapping) or not tables:
        raise InvalidOption(f'keys: {path} lists no key: write a table [keys.NAME] with key = "..."')
    keys = tuple(_key(name, table, path) for name, table in tables.items())
    if len({key.secret for key in keys}) < len(keys):
        raise InvalidOption(f"keys: {path} has one key under two names: make another one")
    return keys


def _key(name: str, table: Any, path: Path) -> Key:
    where = f"keys: {path}: [keys.{name}]"
    if not isinstance(table, Mapping):
        raise InvalidOption(f"{where} is no table")
    unknown = set(table) - {"key", "usd", "per_minute", "at_once"}
    if unknown:
        raise InvalidOption(
            f"{where} has the unknown setting {min(unknown)!r:.40}: key, usd, per_minute and at_once are known"
        )
    secret = table.get("key")
    if not isinstance(secret, str) or len(secret) < FEWEST_CHARACTERS or not can_be_sent(secret):
        raise InvalidOption(
            f"{where}: key: {FEWEST_CHARACTERS} or more printable ASCII characters without spaces, such as python -c"
            " 'import secrets; print(secrets.token_urlsafe())' prints"
        )
    usd = table.get("usd")
    if usd is not None and (not is_number(usd) or usd <= 0):
        raise InvalidOption(f"{where}: usd: an amount above 0, got {usd!r:.40}")
    counts = {"per_minute": PER_MINUTE, "at_once": AT_ONCE}
    for setting in counts:
        given = table.get(setting, counts[setting])
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise InvalidOption(f"{where}: {setting}: a whole number of 1 or more, got {given!r:.40}")
        counts[setting] = given
    return Key(name=name, secret=secret, usd=usd, **counts)


def check_origin(headers: Mapping[str, str], hosts: frozenset[str]) -> None:
    """Refuse what a page of another site may send.

    A name that leads to this machine (DNS rebinding) has another ``Host``; a page of another site sends its ``Origin``.

    Args:
        headers: those of the request, with names in lower case.
        hosts: the values of ``Host`` that are ours, in lower case.

    Raises:
        RequestRefused: host or origin is of another site.
    """
    host = headers.get("host", "").lower()
    if host not in hosts:
        raise RequestRefused(
            f"the host {host!r:.80} is not served: use the address that the server printed, or name it with"
            " --allow-host",
            status=421,
        )
    origin = headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != host:
        raise RequestRefused("the request comes from a page of another site", status=403)
