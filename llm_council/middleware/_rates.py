"""Rates such as ``60/minute``, and sliding windows that count them: in this process, or in Redis for many processes."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Final, Self
from urllib.parse import urlsplit

import anyio.to_thread
import attrs

from llm_council._runtime import per_loop
from llm_council.errors import ConnectFailed, InvalidOption, MissingDependency
from llm_council.errors._secrets import Secret

__all__ = ["Rate", "SharedRates", "Usage", "Window"]

_log = logging.getLogger("llm_council")

_RATE = re.compile(
    r"(?P<amount>[0-9][0-9_]*(?:\.[0-9]+)?)\s*(?P<scale>[kKmM]?)\s*(?:/|per)\s*(?P<times>[0-9]*)\s*(?P<unit>[a-z]+)"
)
_SCALES = {"": 1, "k": 1_000, "m": 1_000_000}
_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}


@attrs.frozen
class Rate:
    """An amount per period.

    Attributes:
        amount: how many.
        seconds: the length of the period, a whole number.
        text: the text that it was read from.
    """

    amount: int
    seconds: int
    text: str = attrs.field(eq=False)

    @classmethod
    def of(cls, text: object, option: str) -> Self:
        """Read a rate such as ``"60/minute"``, ``"90k/minute"``, ``"1.5M/day"`` or ``"10/30 seconds"``.

        Raises:
            InvalidOption: the text is not a rate; the message names the option.
        """
        stripped = text.strip() if isinstance(text, str) else ""
        found = _RATE.fullmatch(stripped)
        seconds = _UNITS.get(found["unit"], 0) * int(found["times"] or 1) if found else 0
        amount = int(float(found["amount"]) * _SCALES[found["scale"].lower()]) if found else 0
        if not seconds or not amount:
            raise InvalidOption(f'{option}: a rate such as "60/minute" or "90k/minute", got {text!r:.80}')
        return cls(amount, seconds, stripped)


@attrs.define(eq=False)
class Usage:
    """The share of a window that one call has used, and when."""

    at: float
    cost: int


class Window:
    """A sliding window: in no period of the rate's length is more used than the rate's amount.

    A single cost above the amount counts as the amount, or such a call could never pass.
    """

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._log: deque[Usage] = deque()
        self._sum = 0

    def wait(self, now: float, cost: int) -> float:
        """Return the seconds until a cost fits; 0 if it fits now."""
        start = now - self._rate.seconds
        while self._log and self._log[0].at <= start:
            self._sum -= self._log.popleft().cost
        surplus = self._sum + min(cost, self._rate.amount) - self._rate.amount
        if surplus <= 0:
            return 0.0
        for usage in self._log:
            surplus -= usage.cost
            if surplus <= 0:
                return usage.at - start
        raise AssertionError("a cost within the amount fits an empty window")

    def take(self, now: float, cost: int) -> Usage:
        """Count a cost."""
        usage = Usage(now, min(cost, self._rate.amount))
        self._log.append(usage)
        self._sum += usage.cost
        return usage

    def correct(self, usage: Usage, cost: int) -> None:
        """Replace an estimated cost by the real one; does nothing once the usage has left the window."""
        if self._log and usage.at >= self._log[0].at:
            self._sum += cost - usage.cost
            usage.cost = cost


# Redis keeps an entry for each unit of a moving window, so a large amount is counted in at most this many parts.
_MAX_PARTS: Final = 1000
_REDIS_TIMEOUT: Final = 2.0  # seconds for one command
_PAUSE: Final = 5.0  # seconds without further attempts after Redis has failed
_RETRY_DELAY: Final = 0.005  # seconds
_REFUSED_PAUSE: Final = 0.5  # seconds without calls after a vendor's refusal that names no time
_MAX_REFUSED_PAUSE: Final = 3600.0  # most seconds that a vendor's Retry-After is followed
_SCHEMES: Final = ("redis", "rediss", "redis+unix", "valkey", "valkeys", "valkey+unix")


class SharedRates:
    """Moving windows in Redis, by the library ``limits``. Its blocking calls run in a worker thread.

    Args:
        url: ``redis://[:password@]host:port/db``.
        key: the name under which processes count together; never a secret.
        rates: the rates by name.
        clock: returns monotonic seconds.

    Raises:
        MissingDependency: the extra ``redis`` is not installed.
        InvalidOption: the URL is invalid.
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
        try:
            import_module("redis")
            limits = import_module("limits")
        except ImportError:
            raise MissingDependency("shared limits need: pip install 'llm-council-sdk[redis]'") from None
        self._key = key
        self._pause_key = f"llm_council/pause/{key}"
        self._clock = clock
        self._windows: dict[str, tuple[Any, int]] = {}  # by name: the item of ``limits``, and the units of one part
        for name, rate in rates.items():
            units = max(1, -(-rate.amount // _MAX_PARTS))
            item = limits.RateLimitItemPerSecond(rate.amount // units, rate.seconds, f"llm_council/{name}")
            self._windows[name] = (item, units)
        self._limiter: Any = None
        self._lost_until = 0.0
        self.is_lost = False

    async def take(self, costs: dict[str, int]) -> float | None:
        """Count costs in all windows, or in none.

        Returns:
            0 if they are counted; otherwise the seconds after which to try again. None if Redis cannot be reached; it
            is not asked again for some seconds then.
        """
        return await self._ask(partial(self._take, costs))

    async def pause(self, seconds: float | None) -> None:
        """Keep all processes that count under this name from further calls: the vendor has refused one.

        Args:
            seconds: how long, as the vendor's Retry-After says; None is half a second.
        """
        wait = _REFUSED_PAUSE if seconds is None or not seconds > 0 else min(seconds, _MAX_REFUSED_PAUSE)
        await self._ask(partial(self._pause, wait))

    async def _ask(self, command: Callable[[], float]) -> float | None:
        """Return what a blocking command of Redis returns; None if Redis cannot be reached."""
        if self.is_lost and self._clock() < self._lost_until:
            return None
        # Threads of our own: a slow Redis must not use up the 40 worker threads that anyio shares.
        threads = await per_loop.get(self, "threads", lambda: anyio.CapacityLimiter(4), _do_nothing)
        try:
            wait = await anyio.to_thread.run_sync(command, abandon_on_cancel=True, limiter=threads)
        except Exception as error:  # noqa: BLE001 - redis, valkey and the socket each have their own errors
            self._lost_until = self._clock() + _PAUSE
            if not self.is_lost:
                self.is_lost = True
                _log.warning("the shared limits at %s cannot be reached: %s", self.where, type(error).__name__)
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

    def unreachable_error(self) -> ConnectFailed:
        """Return the error of a call that must not be counted in this process alone."""
        return ConnectFailed(f"the shared limits at {self.where} cannot be reached", retry_after=_PAUSE)

    def _take(self, costs: dict[str, int]) -> float:
        limiter = self._limiter = self._limiter or _connect(self._url.reveal())
        paused = limiter.storage.storage.pttl(self._pause_key)  # milliseconds; negative without a pause
        if paused > 0:
            return float(paused) / 1000
        wait = 0.0
        for name, (item, units) in self._windows.items():
            if not limiter.test(item, self._key, cost=_parts(costs[name], item, units)):
                reset = limiter.get_window_stats(item, self._key).reset_time
                wait = max(wait, reset - time.time(), _RETRY_DELAY)
        if wait:
            return wait
        for name, (item, units) in self._windows.items():
            if not limiter.hit(item, self._key, cost=_parts(costs[name], item, units)):
                # Another process was faster. The windows before this one keep the cost, so less passes, never more.
                return _RETRY_DELAY
        return 0.0

    def _pause(self, seconds: float) -> float:
        limiter = self._limiter = self._limiter or _connect(self._url.reveal())
        redis, milliseconds = limiter.storage.storage, max(1, int(seconds * 1000))
        if redis.pttl(self._pause_key) < milliseconds:  # the longest pause counts
            redis.set(self._pause_key, 1, px=milliseconds)
        return seconds

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.where}>"


def _parts(cost: int, item: Any, units: int) -> int:
    """Return a cost in whole parts, rounded up; at most the amount of the window."""
    return min(int(item.amount), -(-cost // units))


def _connect(url: str) -> Any:
    redis, limits = import_module("redis"), import_module("limits")
    # One retry: the server may have closed a pooled connection in the meantime.
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 1, supported_errors=(redis.exceptions.ConnectionError,))
    options = {"socket_timeout": _REDIS_TIMEOUT, "socket_connect_timeout": _REDIS_TIMEOUT, "retry": retry}
    return limits.strategies.MovingWindowRateLimiter(limits.storage.RedisStorage(url, **options))


async def _do_nothing(_: object) -> None:
    """Close a capacity limiter: it has nothing to close."""
