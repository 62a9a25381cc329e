"""The budget of a whole map: it decides whether one more run may begin."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import anyio

from llm_council.errors import BudgetExceeded, DeadlineExceeded, InvalidOption
from llm_council.models import Budget

__all__ = ["Account", "SharedBudget", "check_budget"]

_ROUNDING: Final = 1e-9  # US dollars: tolerance, so that ten runs of 0.1 fit into a budget of 1

_SMALLEST: Final = {"usd": 0.0, "tokens": 1.0, "calls": 1.0}
"""The least that a run can use, by the names of the limits. Calls may be free."""


class Account(Protocol):
    """What all runs of a map have spent together, and what their calls hold: the engine's ``Ledger``."""

    @property
    def spent(self) -> Mapping[str, float]:
        """The amounts spent so far, by the names of the budget's limits."""
        ...


def check_budget(budget: object) -> None:
    """Refuse what cannot limit a map.

    Raises:
        InvalidOption: it is no ``Budget``, or has a limit that belongs to each run.
    """
    if budget is None:
        return
    if not isinstance(budget, Budget):
        raise InvalidOption(f"budget: expected a Budget, such as Budget(usd=20), got {type(budget).__name__}")
    for name in ("quorum", "grace"):
        if getattr(budget, name) is not None:
            raise InvalidOption(
                f"budget: {name} belongs to each run, and this budget is one for all runs together: pass"
                f" Council(..., budget=Budget({name}=...))"
            )


class SharedBudget:
    """Admits the runs of a map while its budget has room for them.

    The account of the map refuses each call that does not fit; nothing can exceed the limits by more than an estimate
    of a call is wrong. This class keeps runs from beginning that could not be finished: it lets one more begin if all
    that go on, and it, fit at the average of the runs that have ended. Until one has ended, an estimate takes the
    place of the average. A run that does not fit waits until others have ended, for they may have taken less.

    Args:
        budget: the limits.
        account: what the runs have spent.
        clock: returns monotonic seconds; the deadline counts from now.
    """

    def __init__(self, budget: Budget, account: Account, clock: Callable[[], float] = time.monotonic) -> None:
        self._account = account
        limits = {name: getattr(budget, name) for name in _SMALLEST}
        self._limits: dict[str, float] = {name: limit for name, limit in limits.items() if limit is not None}
        self._clock = clock
        self._deadline = budget.deadline if budget._has_own_deadline() else None
        self._began = clock()
        self._running = 0
        self._ended = 0
        self._spent_by_ended = dict.fromkeys(_SMALLEST, 0.0)
        self._least: dict[str, float] = {}
        self._expected: Mapping[str, float] | None = None
        self._turn = anyio.Lock()
        self._news = anyio.Event()

    def seconds_left(self) -> float | None:
        """Return the seconds until the deadline, 0 or less once it has passed; None if there is none."""
        return None if self._deadline is None else self._began + self._deadline - self._clock()

    def check(self) -> None:
        """Raise if no further run can begin, whatever it would use.

        Raises:
            DeadlineExceeded: the deadline has passed.
            BudgetExceeded: nothing is left, and no run could give something back.
        """
        left = self.seconds_left()
        if left is not None and left <= 0:
            raise self._too_late()
        if not self._running:
            for name, limit in self._limits.items():
                if self._account.spent[name] + _SMALLEST[name] > limit + _ROUNDING:
                    raise self._exceeded(name)

    async def begin(self, estimate: Callable[[], Mapping[str, float]]) -> None:
        """Wait until one more run may begin; ``end`` must follow.

        Args:
            estimate: returns what the run may use, by the names of the limits.

        Raises:
            DeadlineExceeded: the deadline has passed.
            BudgetExceeded: there is no room for the run, and no other run goes on.
        """
        self.check()
        with anyio.move_on_after(self.seconds_left()):
            async with self._turn:  # in the order of the tasks
                while (lacking := self._lacking(estimate)) is not None:
                    if not self._running:
                        raise self._exceeded(lacking)
                    self._news = anyio.Event()
                    await self._news.wait()
                self._running += 1
                return
        raise self._too_late()

    def end(self, spent: Mapping[str, float]) -> None:
        """Count a run that has ended, with what it has spent."""
        self._running -= 1
        self._ended += 1
        for name in _SMALLEST:
            self._spent_by_ended[name] += spent[name]
            self._least[name] = min(self._least.get(name, spent[name]), spent[name])
        self._news.set()

    def _lacking(self, estimate: Callable[[], Mapping[str, float]]) -> str | None:
        """Return the limit without room for one more run; None if there is room."""
        for name, limit in self._limits.items():
            smallest = _SMALLEST[name]
            spent = self._account.spent[name]
            if not self._running:
                # Alone, even a run that may be larger than what is left is tried: the account keeps the limit.
                needed = spent + max(smallest, self._least.get(name, smallest))
            else:
                each = max(smallest, self._average(name, estimate))
                needed = max(spent + smallest, self._spent_by_ended[name] + (self._running + 1) * each)
            if needed > limit + _ROUNDING:
                return name
        return None

    def _average(self, name: str, estimate: Callable[[], Mapping[str, float]]) -> float:
        if self._ended:
            return self._spent_by_ended[name] / self._ended
        if self._expected is None:
            self._expected = estimate()
        return self._expected[name]

    def _exceeded(self, name: str) -> BudgetExceeded:
        unit = {"usd": "US dollars"}.get(name, name)
        return BudgetExceeded(
            f"the budget of this map is {self._limits[name]:g} {unit}, and what is left is too little for this task:"
            " its run was not begun",
            spent=dict(self._account.spent),
            scope="map",
        )

    def _too_late(self) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"the deadline of this map, {self._deadline:g} s, has passed: the run of this task was not begun"
        )
