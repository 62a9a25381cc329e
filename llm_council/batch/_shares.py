"""Shares of a map's budget: each chunk that is sent to a worker holds one, and what it did not use comes back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from llm_council.errors import BudgetExceeded, DeadlineExceeded, RunError
from llm_council.models import Budget

__all__ = ["Share", "Shares"]

_WHOLE: Final = ("tokens", "calls")  # limits in whole numbers


@attrs.frozen(eq=False)
class Share:
    """What one chunk may spend.

    Attributes:
        amounts: by the names of the limits that the budget has.
        deadline: seconds left; None without a deadline.
        is_rest: True if no other chunk holds a share: what does not fit into this one fits nowhere.
    """

    amounts: Mapping[str, float]
    deadline: float | None
    is_rest: bool

    def as_budget(self) -> Budget:
        """Return the share as the budget of a smaller map."""
        limits = {name: int(amount) if name in _WHOLE else amount for name, amount in self.amounts.items()}
        return Budget(deadline=self.deadline, **limits)  # type: ignore[arg-type]  # whole numbers where they must be


class Shares:
    """Divides a budget among the chunks that are on their way.

    Together the shares never exceed what is left, so no chunk has to ask before it spends. When a share was too small
    for the tasks of its chunk, the next one waits until all others have come back, and gets everything.

    Args:
        budget: the budget of the map.
        chunks: how many chunks may be on their way at the same time.
        clock: returns monotonic seconds; the deadline counts from now.
    """

    def __init__(self, budget: Budget, chunks: int, clock: Callable[[], float] = time.monotonic) -> None:
        limits = {"usd": budget.usd, "tokens": budget.tokens, "calls": budget.calls}
        self._limits = {name: float(limit) for name, limit in limits.items() if limit is not None}
        self._spent = dict.fromkeys(self._limits, 0.0)
        self._held: list[Share] = []
        self._chunks = chunks
        self._clock = clock
        self._deadline = budget.deadline if budget._has_own_deadline() else None
        self._began = clock()
        self._alone = False
        self._ended_tasks, self._spent_by_ended = 0, dict.fromkeys(self._limits, 0.0)

    def seconds_left(self) -> float | None:
        """Return the seconds until the deadline, not below 0; None if there is none."""
        return None if self._deadline is None else max(0.0, self._began + self._deadline - self._clock())

    def hold(self) -> Share | None:
        """Return a share for a chunk; None if the chunk has to wait until another one comes back.

        Raises:
            DeadlineExceeded: the deadline has passed.
            BudgetExceeded: nothing is left, and no other chunk holds a share.
        """
        left = self.seconds_left()
        if left == 0.0:
            raise self.too_late()
        nobody_else = not self._held
        if self._alone and not nobody_else:
            return None
        parts = 1 if self._alone else self._chunks - len(self._held)
        amounts = self._parts(parts)
        if amounts is None and nobody_else:
            parts = 1
            amounts = self._parts(parts)
            if amounts is None:
                raise self.exceeded()
        if amounts is None:
            return None
        share = Share(amounts, left, nobody_else and parts == 1)
        self._held.append(share)
        return share

    def give_back(self, share: Share, spent: Mapping[str, float], *, tasks: int, refused: bool) -> None:
        """Count what a chunk has spent; the rest of its share is free again.

        Args:
            share: its share.
            spent: what it has spent.
            tasks: how many of its tasks were run.
            refused: True if the share was too small for one of its tasks.
        """
        self._held.remove(share)
        self._alone = refused
        self._ended_tasks += tasks
        for name in self._limits:
            amount = float(spent.get(name, 0.0))
            self._spent[name] += amount
            self._spent_by_ended[name] += amount

    def lose(self, share: Share, tasks: int) -> None:
        """Count a chunk whose worker was lost: as many of its tasks as it had at the average, at most its share."""
        self._held.remove(share)
        for name, amount in share.amounts.items():
            if self._ended_tasks:
                amount = min(amount, tasks * self._spent_by_ended[name] / self._ended_tasks)
            self._spent[name] += amount

    def exceeded(self) -> RunError:
        """Return the error of a task for which nothing is left."""
        shown = ", ".join(
            f"{limit:g} {'US dollars' if name == 'usd' else name}" for name, limit in self._limits.items()
        )
        return BudgetExceeded(
            f"the budget of this map is {shown}, and what is left is too little for this task: its run was not begun",
            spent=dict(self._spent),
        )

    def too_late(self) -> RunError:
        """Return the error of a task after the deadline."""
        return DeadlineExceeded(
            f"the deadline of this map, {self._deadline:g} s, has passed: the run of this task was not begun"
        )

    def _parts(self, parts: int) -> dict[str, float] | None:
        """Return an equal part of what is free of each limit; None if a part is too small for anything."""
        amounts = {}
        for name, limit in self._limits.items():
            free = limit - self._spent[name] - sum(share.amounts[name] for share in self._held)
            part = free / max(1, parts)
            amounts[name] = float(math.floor(part)) if name in _WHOLE else max(0.0, part)
            # Calls may be free of charge: a budget of 0 dollars is one, too.
            if amounts[name] < 1 if name in _WHOLE else part <= 0 < limit:
                return None
        return amounts
