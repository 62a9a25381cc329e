"""Rates and the windows that count by them, in one process."""

from __future__ import annotations

import re
from collections import deque
from typing import Self

import attrs

from llm_council.errors import InvalidOption

__all__ = ["Rate", "Window"]

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
    """So many in so many seconds.

    Attributes:
        amount: how many.
        seconds: the length of the window, whole.
        text: as it was written.
    """

    amount: int
    seconds: int
    text: str = attrs.field(eq=False)

    @classmethod
    def of(cls, text: object, option: str) -> Self:
        """Read a rate such as ``"60/minute"``, ``"90k/minute"``, ``"1.5M/day"`` or ``"10/30 seconds"``.

        Raises:
            InvalidOption: it is no rate.
        """
        written = text.strip() if isinstance(text, str) else ""
        found = _RATE.fullmatch(written)
        seconds = _UNITS.get(found["unit"], 0) * int(found["times"] or 1) if found else 0
        amount = int(float(found["amount"]) * _SCALES[found["scale"].lower()]) if found else 0
        if not seconds or not amount:
            raise InvalidOption(f'{option}: a rate such as "60/minute" or "90k/minute", got {text!r:.80}')
        return cls(amount, seconds, written)


@attrs.define(eq=False)
class Entry:
    """What one call took of a window."""

    at: float
    cost: int


class Window:
    """A log of what was taken in the last seconds: in no stretch of that length is it more than the rate's amount.

    A single cost beyond the amount counts as the amount: alone it must be able to pass.
    """

    __slots__ = ("_log", "_rate", "_sum")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._log: deque[Entry] = deque()
        self._sum = 0

    def wait(self, now: float, cost: int) -> float:
        """Return the seconds until a cost fits; 0 when it does."""
        over = now - self._rate.seconds
        while self._log and self._log[0].at <= over:
            self._sum -= self._log.popleft().cost
        surplus = self._sum + min(cost, self._rate.amount) - self._rate.amount
        if surplus <= 0:
            return 0.0
        for entry in self._log:
            surplus -= entry.cost
            if surplus <= 0:
                return entry.at - over
        raise AssertionError("a cost within the amount fits an empty window")

    def take(self, now: float, cost: int) -> Entry:
        """Note a cost."""
        entry = Entry(now, min(cost, self._rate.amount))
        self._log.append(entry)
        self._sum += entry.cost
        return entry

    def correct(self, entry: Entry, cost: int) -> None:
        """Put what a call really took in the place of what it was expected to; an entry that is over is left."""
        if self._log and entry.at >= self._log[0].at:
            self._sum += cost - entry.cost
            entry.cost = cost
