"""What a journal remembers of a run, told again in the order in which it happened."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Final

import anyio.lowlevel
import attrs

from llm_council.models import GenerateRequest, Plan, Status
from llm_council.models._journal import Ending
from llm_council.store._records import digest

__all__ = ["Past", "PastCall", "Recall"]

IDLE: Final = 100
"""Turns of the event loop without any progress after which a moment is no longer waited for."""


@attrs.frozen(kw_only=True)
class PastCall:
    """A call of the earlier run.

    Attributes:
        digest: what was asked.
        ending: how it ended; None when it was in flight at the end.
        repeats: how often it was found in flight before.
        failed: whether its ending, an error, does not hold any more.
    """

    digest: str
    ending: Ending | None
    repeats: int = 0
    failed: bool = False


@attrs.frozen(kw_only=True)
class Past:
    """An earlier run, as its journal has it.

    Attributes:
        plan: what it set out to do.
        session: which of the run's processes it was, from 1.
        status: how it ended; None when it was interrupted.
        calls: its calls by name, those that ended in the order of their ends.
        moments: its moments and their seconds since the start, in order.
        last: the latest of these seconds.
    """

    plan: Plan
    session: int
    status: Status | None
    calls: Mapping[str, PastCall]
    moments: tuple[tuple[str, float], ...]
    last: float

    def to_go_on(self) -> Past:
        """Return what of it holds for a resumption.

        All of it does for a run that was interrupted. One that failed asks again where a call failed, and one that was
        cancelled or failed has moments that tell of that end alone.
        """
        if self.status is None:
            return self
        calls = self.calls
        if self.status == Status.FAILED:
            calls = {
                name: call if call.ending is None or call.ending.error is None else attrs.evolve(call, failed=True)
                for name, call in calls.items()
            }
        return attrs.evolve(self, calls=calls, moments=())


class Recall:
    """Tell the endings and the moments of an earlier run.

    An ending is told when everything that came before it has happened again: so what happens at the same time keeps
    its order, whatever the event loop makes of it.

    Args:
        past: the earlier run.
    """

    def __init__(self, past: Past) -> None:
        self._past = past
        self._order = deque(moment for moment, _ in past.moments)
        self._times: dict[str, deque[float]] = {}
        for moment, at in past.moments:
            self._times.setdefault(moment, deque()).append(at)
        self._happened: Counter[str] = Counter()
        self._waiting: dict[str, anyio.Event] = {}
        self._places = {name: place for place, name in enumerate(past.calls)}
        self._progress = 0

    def at(self, moment: str) -> float | None:
        """Note that a moment has come, and return when it came in the earlier run; None when it did not."""
        times = self._times.get(moment)
        self._happened[moment] += 1
        self._advance()
        return times.popleft() if times else None

    def had(self, moment: str) -> bool:
        """Tell whether the earlier run had this moment."""
        return moment in self._times

    def ending(self, name: str, request: GenerateRequest) -> Ending | None:
        """Return the ending of a call; None where there is none for this request."""
        call = self._past.calls.get(name)
        if call is None or call.ending is None or call.failed:
            return None
        if call.digest != digest(request):  # what is asked now was never asked: nothing of that call holds
            self._times.pop(f"settled:{name}", None)
            return None
        return call.ending

    async def turn(self, name: str) -> None:
        """Wait until it is time for an ending."""
        moment = f"settled:{name}"
        event = self._waiting[moment] = anyio.Event()
        self._advance()
        idle, seen = 0, -1
        while not event.is_set():
            await anyio.lowlevel.checkpoint()
            idle = idle + 1 if seen == self._progress else 0
            seen = self._progress
            if idle > IDLE:
                self._skip()
                idle = 0

    def _advance(self) -> None:
        """Let go of what has happened, and tell the next ending that can be told."""
        self._progress += 1
        while self._order:
            moment = self._order[0]
            if self._happened[moment]:
                self._happened[moment] -= 1
                self._order.popleft()
            elif moment in self._waiting:
                self._waiting.pop(moment).set()  # the next one once this has happened
                return
            else:
                return
        self._release(self._waiting)

    def _skip(self) -> None:
        """Give up waiting for what does not come again: a run that goes on may take another way."""
        while self._order and self._order[0] not in self._waiting:
            self._order.popleft()
        self._advance()

    def _release(self, moments: Iterable[str]) -> None:
        """Tell the endings whose place nobody noted in the order in which they were written."""
        for moment in sorted(moments, key=lambda moment: self._places[moment.removeprefix("settled:")]):
            self._waiting.pop(moment).set()
