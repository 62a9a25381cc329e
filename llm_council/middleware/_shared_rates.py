"""Rates that several processes and machines count together, in Redis."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

import anyio.to_thread

from llm_council._runtime import per_loop
from llm_council.errors import ConnectFailed, InvalidOption, MissingDependency
from llm_council.errors._secrets import Secret
from llm_council.middleware._rates import Rate

__all__ = ["SharedRates"]

_log = logging.getLogger("llm_council")

_PARTS: Final = 1000
"""Into how many parts a large amount is cut: Redis keeps an entry for each; a cost is rounded up to whole parts."""

_TIMEOUT: Final = 2.0  # seconds for a word with Redis
_ABSENCE: Final = 5.0  # seconds for which a Redis that failed is not asked again
_SCHEMES: Final = ("redis", "rediss", "redis+unix", "valkey", "valkeys", "valkey+unix")


class SharedRates:
    """Moving windows in Redis, by the ``limits`` library, in a worker thread: the loop never waits for it.

    Args:
        url: ``redis://[:password@]host:port/db``.
        key: under which name they count together; never a secret.
        rates: by name.
        clock: monotonic seconds.

    Raises:
        MissingDependency: the extra is not installed.
        InvalidOption: the URL is none.
    """

    def __init__(self, url: str, key: str, rates: dict[str, Rate], clock: Callable[[], float]) -> None:
        try:
            parts = urlsplit(url)
            self.where = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
            self._url = Secret(url)  # it may hold a password
        except ValueError:
            raise InvalidOption("shared: not a URL; write redis://host:port/0") from None
        if parts.scheme not in _SCHEMES:
            raise InvalidOption(f"shared: a URL that begins with {', '.join(_SCHEMES[:2])}, got {parts.scheme!r:.20}")
        self._key = key
        self._clock = clock
        self._windows = _windows(rates)
        self._limiter: Any = None
        self._lost_until = 0.0
        self.is_lost = False

    async def take(self, costs: dict[str, int]) -> float | None:
        """Take costs from all windows, or nothing.

        Returns:
            0 when they were taken, else the seconds after which to ask again; None when Redis cannot be reached, which
            is then not asked for some seconds.
        """
        if self.is_lost and self._clock() < self._lost_until:
            return None
        threads = await per_loop.get(self, "threads", lambda: anyio.CapacityLimiter(4), _nothing_to_close)
        try:
            wait = await anyio.to_thread.run_sync(self._take, costs, abandon_on_cancel=True, limiter=threads)
        except Exception as error:  # noqa: BLE001 - of redis, valkey or the socket; none is the call's fault
            self._lose(error)
            return None
        if self.is_lost:
            self.is_lost = False
            _log.info("the shared limits at %s are counted there again", self.where)
        return wait

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter.storage.storage.close()

    def refusal(self) -> ConnectFailed:
        """Return the error for those who rather fail than count alone."""
        return ConnectFailed(f"the shared limits at {self.where} cannot be reached", retry_after=_ABSENCE)

    def _lose(self, error: Exception) -> None:
        self._lost_until = self._clock() + _ABSENCE
        if not self.is_lost:
            self.is_lost = True
            _log.warning("the shared limits at %s cannot be reached: %s", self.where, type(error).__name__)

    def _take(self, costs: dict[str, int]) -> float:
        limiter = self._limiter = self._limiter or _connect(self._url.reveal())
        wait = 0.0
        for name, (item, part) in self._windows.items():
            cost = min(item.amount, -(-costs[name] // part))
            if not limiter.test(item, self._key, cost=cost):
                wait = max(wait, limiter.get_window_stats(item, self._key).reset_time - time.time(), 0.005)
        if wait:
            return wait
        for name, (item, part) in self._windows.items():
            if not limiter.hit(item, self._key, cost=min(item.amount, -(-costs[name] // part))):
                return 0.005  # another was quicker; what was taken until here stays taken, which errs on the safe side
        return 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.where}>"


def _windows(rates: dict[str, Rate]) -> dict[str, tuple[Any, int]]:
    try:
        import_module("redis")
        items = import_module("limits")
    except ImportError:
        raise MissingDependency("shared limits need: pip install 'llm-council-sdk[redis]'") from None
    windows = {}
    for name, rate in rates.items():
        part = max(1, -(-rate.amount // _PARTS))
        item = items.RateLimitItemPerSecond(rate.amount // part, rate.seconds, f"llm_council/{name}")
        windows[name] = (item, part)
    return windows


def _connect(url: str) -> Any:
    redis, limits = import_module("redis"), import_module("limits")
    lost = (redis.exceptions.ConnectionError,)  # once: a pooled connection may have been closed meanwhile
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 1, supported_errors=lost)
    options = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT, "retry": retry}
    return limits.strategies.MovingWindowRateLimiter(limits.storage.RedisStorage(url, **options))


async def _nothing_to_close(_: object) -> None:
    """Let a loop's share of threads go."""
