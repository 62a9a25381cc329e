"""The facts of a run that every call below it can read: its id, deadline, clock and retry tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from llm_council.errors import CouncilError

__all__ = ["RetryTokens", "RunScope", "current", "entered", "limited"]


@attrs.define
class RetryTokens:
    """A limit on the retries of all calls of one run together.

    A retry costs 5 tokens, after a timeout 10; a success gives 1 back.

    Attributes:
        left: the remaining tokens.
        most: the tokens at the start, which is also the maximum.
    """

    # The figures are those of botocore's standard retry mode.

    left: int = 100
    most: int = 100

    def take(self, *, timeout: bool) -> bool:
        """Pay for one retry; return False if too few tokens are left."""
        price = 10 if timeout else 5
        if self.left < price:
            return False
        self.left -= price
        return True

    def give_back(self) -> None:
        """Add the token that a success gives back."""
        self.left = min(self.most, self.left + 1)


@attrs.frozen(kw_only=True, slots=False)
class RunScope:
    """The facts that every call of a run shares.

    Attributes:
        run_id: the run's id; None for a call outside any run.
        deadline: when the run, or a call with a limit of its own, must end, as a reading of ``clock``; None sets no
            deadline.
        allowed: seconds that the whole run may take; None sets no limit.
        clock: returns monotonic seconds.
        tokens: the run's retry tokens; None sets no limit.
        on_failed_attempt: called after each failed attempt, with the error and the seconds until the next attempt; None
            if there is none.
        afford: called after a failed attempt; returns True if the run's budget has room for another, and reserves it.
        asked_at: when the call was made first, as a reading of ``clock``; None outside a call of a run. Calls that wait
            for a provider go in this order.
        on_refused: called when a vendor has refused a call that waits for its turn again, with the error and the
            seconds that the vendor asks to wait. Such a call counts as no attempt.
    """

    run_id: str | None = None
    deadline: float | None = None
    allowed: float | None = None
    clock: Callable[[], float] = time.monotonic
    tokens: RetryTokens | None = None
    on_failed_attempt: Callable[[CouncilError, float | None], None] | None = None
    afford: Callable[[CouncilError], bool] | None = None
    asked_at: float | None = None
    on_refused: Callable[[CouncilError, float], None] | None = None

    def left(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - self.clock())


NOWHERE = RunScope()

_current: ContextVar[RunScope] = ContextVar("llm_council_scope", default=NOWHERE)


def current() -> RunScope:
    """Return the scope of the run that this code belongs to; an empty scope outside any run."""
    return _current.get()


class entered:  # noqa: N801 - used like a function; a generator would cost each waiting call more memory
    """Make a scope the current one within a ``with`` block, and in the tasks that start there."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: RunScope) -> None:
        self._scope = scope

    def __enter__(self) -> RunScope:
        self._token = _current.set(self._scope)
        return self._scope

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


@contextmanager
def limited(seconds: float) -> Iterator[RunScope]:
    """Make a scope the current one in which no more than so many seconds are left."""
    scope = current()
    end = scope.clock() + seconds
    is_earlier = scope.deadline is None or end < scope.deadline
    with entered(attrs.evolve(scope, deadline=end) if is_earlier else scope) as narrower:
        yield narrower
