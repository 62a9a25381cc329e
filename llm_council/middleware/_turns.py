"""Who is next: the runs take turns, and within a run the first that came."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable

import anyio

from llm_council._runtime import loops

__all__ = ["Turns", "Waiter"]


class Waiter:
    """One that waits, in a loop of its own; anybody may wake it, from any thread."""

    __slots__ = ("_event", "_loop", "run")

    def __init__(self, run: Hashable) -> None:
        self.run = run
        self._loop = loops.current()
        self._event = anyio.Event()

    def arm(self) -> anyio.Event:
        """Return the event of the next waking."""
        self._event = anyio.Event()
        return self._event

    def wake(self) -> None:
        """Wake it."""
        self._loop.soon(self._event.set)


class Turns:
    """A queue in which no run waits for all of another's calls. Not safe in threads: its owner locks.

    Attributes:
        head: whose turn it is; it stays so until it leaves.
    """

    __slots__ = ("_runs", "head")

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, deque[Waiter]] = OrderedDict()
        self.head: Waiter | None = None

    def join(self, waiter: Waiter) -> None:
        """Stand in line; at once at its head where nobody else stands there."""
        if self.head is None:
            self.head = waiter
        else:
            self._runs.setdefault(waiter.run, deque()).append(waiter)

    def leave(self, waiter: Waiter) -> Waiter | None:
        """Leave the line, and return the new head where that makes one: it is to be woken."""
        if self.head is not waiter:
            line = self._runs.get(waiter.run)
            if line is not None and waiter in line:
                line.remove(waiter)
                if not line:
                    del self._runs[waiter.run]
            return None
        self.head = None
        if self._runs:
            run, line = next(iter(self._runs.items()))
            self.head = line.popleft()
            del self._runs[run]
            if line:
                self._runs[run] = line  # behind all the others
        return self.head
