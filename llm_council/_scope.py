"""The facts of a run that reach everything below it: which run, until when, by which clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

__all__ = ["RunScope", "current", "entered"]


@attrs.frozen(kw_only=True)
class RunScope:
    """What every call of a run shares.

    Attributes:
        run_id: the run's id; None for a call outside any run.
        deadline: when the run must end, as a reading of ``clock``; None is never.
        clock: monotonic seconds.
        seed: the seed of shuffles and fences.
    """

    run_id: str | None = None
    deadline: float | None = None
    clock: Callable[[], float] = time.monotonic
    seed: str = ""

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
