"""Count the runs that may still make a call, so that a middleware knows when it has gathered all there are.

A council counts its runs (``LiveRuns``), a run its calls (``LiveRun``), and the engine enters each call (``LiveCall``).
A middleware that holds a call back marks it as held. A run whose calls are all held can make no further call until one
of them is answered; when that is so for every run, the middleware need not wait for more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["LiveCall", "LiveRun", "LiveRuns", "current_call", "entered_call"]


class LiveRuns:
    """The runs in progress of one council, in any number of threads and event loops.

    Attributes:
        moving: runs that may make a call at any moment; all others wait for calls that are held.
        changes: grows with each change of any run.
    """

    def __init__(self) -> None:
        self.moving = 0
        self.changes = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> LiveRuns:
        """Return a new count, because the copy of a council has no runs yet."""
        return LiveRuns()

    def __reduce__(self) -> tuple[type[LiveRuns], tuple[()]]:
        return LiveRuns, ()

    @contextmanager
    def entered(self) -> Iterator[LiveRun]:
        """Count a run of this context as long as the block lasts. At its start it is moving."""
        run = LiveRun(self)
        self._add(1)
        token = _run.set(run)
        try:
            yield run
        finally:
            _run.reset(token)
            run._end()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Count as a moving run as long as the block lasts: its code may be about to start another run."""
        self._add(1)
        try:
            yield
        finally:
            self._add(-1)

    def _add(self, moving: int) -> None:
        with self._lock:
            self.moving += moving
            self.changes += 1


class LiveRun:
    """One run: how many calls it has in progress, and how many of them are held."""

    def __init__(self, runs: LiveRuns) -> None:
        self.runs = runs
        self._calls = 0
        self._held = 0
        self._is_moving = True
        self._has_ended = False

    def _count(self, *, calls: int = 0, held: int = 0) -> None:
        with self.runs._lock:
            self._calls += calls
            self._held += held
            self._update()

    def _end(self) -> None:
        with self.runs._lock:
            self._has_ended = True
            self._update()

    def _update(self) -> None:
        is_moving = not self._has_ended and (self._calls == 0 or self._held < self._calls)
        self.runs.moving += is_moving - self._is_moving
        self.runs.changes += 1
        self._is_moving = is_moving


class LiveCall:
    """One call of a run."""

    __slots__ = ("_holders", "run")

    def __init__(self, run: LiveRun) -> None:
        self.run = run
        self._holders = 0  # two if a hedged call is held twice

    def hold(self) -> None:
        """Record that a middleware holds this call back; ``release`` must follow."""
        self._holders += 1
        if self._holders == 1:
            self.run._count(held=1)

    def release(self) -> None:
        """Record that the call goes on."""
        self._holders -= 1
        if self._holders == 0:
            self.run._count(held=-1)


_run: ContextVar[LiveRun | None] = ContextVar("llm_council_live_run", default=None)
_call: ContextVar[LiveCall | None] = ContextVar("llm_council_live_call", default=None)


def current_call() -> LiveCall | None:
    """Return the call of a run that this code belongs to; None outside such calls."""
    return _call.get()


class entered_call:  # noqa: N801 - used like a function; a generator would cost each waiting call more memory
    """Count a call of the current run within a ``with`` block; does nothing outside a counted run."""

    __slots__ = ("_run", "_token")

    def __enter__(self) -> None:
        self._run = run = _run.get()
        if run is not None:
            run._count(calls=1)
            self._token = _call.set(LiveCall(run))

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            _call.reset(self._token)
            self._run._count(calls=-1)
