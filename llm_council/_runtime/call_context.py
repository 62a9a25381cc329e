"""The facts of a run that reach everything below it: which run, until when, by which clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from llm_council.errors import CouncilError

__all__ = ["RetryTokens", "RunScope", "current", "entered"]


@attrs.define
class RetryTokens:
    """What the calls of one run may spend on retries together, so that seats times phases cannot become a storm.

    A retry costs 5, after a timeout 10; a success gives 1 back. The figures are those of botocore's standard mode.

    Attributes:
        left: tokens left.
        most: tokens at the start, and the most there can be.
    """

    left: int = 100
    most: int = 100

    def take(self, *, timeout: bool) -> bool:
        """Pay for one retry; return False when there is too little left."""
        price = 10 if timeout else 5
        if self.left < price:
            return False
        self.left -= price
        return True

    def give_back(self) -> None:
        """Note a success."""
        self.left = min(self.most, self.left + 1)


@attrs.frozen(kw_only=True)
class RunScope:
    """What every call of a run shares.

    Attributes:
        run_id: the run's id; None for a call outside any run.
        deadline: when the run must end, as a reading of ``clock``; None is never.
        clock: monotonic seconds.
        seed: the seed of shuffles, fences and tie-breaks.
        tokens: what the run may still spend on retries; None is without bound.
        tried: told of each failed try of the call that goes on: the error, and the seconds until the next try.
        afford: asked after a failed try whether the run's budget has room for another, which it then reserves.
    """

    run_id: str | None = None
    deadline: float | None = None
    clock: Callable[[], float] = time.monotonic
    seed: str = ""
    tokens: RetryTokens | None = None
    tried: Callable[[CouncilError, float | None], None] | None = None
    afford: Callable[[CouncilError], bool] | None = None

    def left(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - self.clock())


NOWHERE = RunScope()

_current: ContextVar[RunScope] = ContextVar("llm_council_scope", default=NOWHERE)


def current() -> RunScope:
    """Return the scope of the run that this code works for; an empty one outside any run."""
    return _current.get()


@contextmanager
def entered(scope: RunScope) -> Iterator[RunScope]:
    """Make a scope the current one, for this context and the tasks started in it."""
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)
