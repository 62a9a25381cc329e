"""Which run begins next, where many do at once in one event loop.

Runs that began together would advance together: all of them planned before the first had sent anything, and all of
their answers there at the same moment. A few at a time, they overlap: the models work for the first runs while the
next ones begin, the last run ends sooner, and a run holds little until its turn has come.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

import anyio
from anyio.lowlevel import RunVar, checkpoint

__all__ = ["Admission"]

AT_ONCE: Final = 4
"""Runs of one event loop that may be at their beginning."""

TURNS: Final = 3
"""Turns of the event loop after which the first calls of a run are on their way."""

_entrance: RunVar[anyio.Semaphore] = RunVar("llm_council.admission")


class Admission:
    """A run's own turn to begin, held from entering until it has ``begun``, which never waits for a model.

    Args:
        end: when the run must end, on the event loop's clock: it waits no longer for its turn.
    """

    __slots__ = ("_end", "_held")

    def __init__(self, end: float) -> None:
        self._end = end
        self._held: anyio.Semaphore | None = None

    async def __aenter__(self) -> Admission:
        entrance = _entrance.get(None)
        if entrance is None:
            entrance = anyio.Semaphore(AT_ONCE)
            _entrance.set(entrance)
        try:
            entrance.acquire_nowait()
            self._held = entrance
        except anyio.WouldBlock:
            with anyio.CancelScope(deadline=self._end):
                await entrance.acquire()
                self._held = entrance
        return self

    async def begun(self) -> None:
        """Let the calls that were started get on their way, and then the next run begin."""
        for _ in range(TURNS):
            await checkpoint()
            if self._held is None or not self._held.statistics().tasks_waiting:
                break
        self._pass_on()

    def _pass_on(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pass_on()
