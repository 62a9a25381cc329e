"""Replay a stored run: return its endings and its times again, in the order in which they happened."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

import anyio
import anyio.lowlevel
import attrs

from llm_council.errors import StoreError
from llm_council.models import GenerateRequest, Plan, Status
from llm_council.models._journal import Call, CallRecord, Journal
from llm_council.store._encoding import request_digest

__all__ = ["PastCall", "PastRun", "Replay", "ReplayJournal", "repeat_warnings"]

MAX_IDLE_TURNS: Final = 100
"""Turns of the event loop without progress after which a missing moment is no longer waited for."""


@attrs.frozen(kw_only=True)
class PastCall:
    """A call of a stored run.

    Attributes:
        digest: the ``request_digest`` of its request.
        ending: how it ended; None if it was in flight when the run was interrupted.
        repeats: how often it was made again because it was in flight.
        must_repeat: True if its ending is an error that a resumed run must not reuse.
    """

    digest: str
    ending: CallRecord | None
    repeats: int = 0
    must_repeat: bool = False


@attrs.frozen(kw_only=True)
class PastRun:
    """A stored run.

    Attributes:
        plan: its plan.
        session: number of the process that worked on it last, from 1.
        status: how it ended; None if it was interrupted.
        calls: its calls by name; those that ended come in the order of their ends.
        moments: its moments, each with its seconds since the start, in order.
        last: the latest of these times.
    """

    plan: Plan
    session: int
    status: Status | None
    calls: Mapping[str, PastCall]
    moments: tuple[tuple[str, float], ...]
    last: float

    def for_resuming(self) -> PastRun:
        """Return the part of the run that a resumed run may reuse.

        That is all of an interrupted run. A failed run repeats the calls that failed. The moments of a failed or
        cancelled run lead to that end, so they are dropped.
        """
        if self.status is None:
            return self
        calls = dict(self.calls)
        if self.status == Status.FAILED:
            for name, call in calls.items():
                if call.ending is not None and call.ending.error is not None:
                    calls[name] = attrs.evolve(call, must_repeat=True)
        return attrs.evolve(self, calls=calls, moments=())


class Replay:
    """Returns the endings and the moments of a stored run.

    An ending is returned once every moment before it has happened again. So concurrent calls end in the stored order,
    whatever order the event loop runs their tasks in.

    Args:
        past: the stored run.
    """

    def __init__(self, past: PastRun) -> None:
        self._past = past
        self._order = deque(moment for moment, _ in past.moments)
        self._times: dict[str, deque[float]] = {}
        for moment, at in past.moments:
            self._times.setdefault(moment, deque()).append(at)
        self._happened: Counter[str] = Counter()
        self._waiting: dict[str, anyio.Event] = {}
        self._call_order = {f"settled:{name}": place for place, name in enumerate(past.calls)}
        self._progress = 0

    def take_time(self, moment: str) -> float | None:
        """Record that a moment has happened, and return its time in the stored run; None if it has none."""
        times = self._times.get(moment)
        self._happened[moment] += 1
        self._advance()
        return times.popleft() if times else None

    def has_moment(self, moment: str) -> bool:
        """Return True if the stored run has this moment."""
        return moment in self._times

    def ending(self, name: str, request: GenerateRequest) -> CallRecord | None:
        """Return the stored ending of a call; None if there is none for this request."""
        call = self._past.calls.get(name)
        if call is None or call.ending is None or call.must_repeat:
            return None
        if call.digest != request_digest(request):  # a different request: the stored call's time does not hold either
            self._times.pop(f"settled:{name}", None)
            return None
        return call.ending

    async def wait_in_order(self, name: str) -> None:
        """Wait until everything before a call's ending has happened again."""
        moment = f"settled:{name}"
        event = self._waiting[moment] = anyio.Event()
        self._advance()
        idle_turns, seen = 0, -1
        while not event.is_set():
            await anyio.lowlevel.checkpoint()
            idle_turns = idle_turns + 1 if seen == self._progress else 0
            seen = self._progress
            if idle_turns > MAX_IDLE_TURNS:
                self._skip_missing()
                idle_turns = 0

    def _advance(self) -> None:
        """Drop moments that have happened, and release the next ending if its turn has come."""
        self._progress += 1
        while self._order:
            moment = self._order[0]
            if self._happened[moment]:
                self._happened[moment] -= 1
                self._order.popleft()
            else:
                if moment in self._waiting:  # the one after it is released when this one has happened
                    self._waiting.pop(moment).set()
                return
        # The stored run has no moments for the rest: release it in the order in which the endings were stored.
        for moment in sorted(self._waiting, key=self._call_order.__getitem__):
            self._waiting.pop(moment).set()

    def _skip_missing(self) -> None:
        """Drop moments that do not happen again, because a resumed run may take another course."""
        while self._order and self._order[0] not in self._waiting:
            self._order.popleft()
        self._advance()


class ReplayJournal(Journal):
    """A journal that replays a whole run. No call is made, and nothing is written.

    Args:
        past: the run.

    Attributes:
        error: the reason why the run cannot be replayed; None while it can.
        scope: cancelled once there is an error.
    """

    def __init__(self, past: PastRun) -> None:
        self._past = past
        self._replay = Replay(past)
        self._last = 0.0
        self.error: StoreError | None = None
        self.scope = anyio.CancelScope()

    def record_moment(self, moment: str, now: float) -> float:
        """Return the stored time of a moment, or that of the moment before it."""
        at = self._replay.take_time(moment) if moment else None
        if at is not None:
            self._last = at
        return self._last

    def record_decision(self, moment: str, *, now: bool) -> bool:
        """Return the stored decision."""
        if not self._replay.has_moment(moment):
            return False
        self._replay.take_time(moment)
        return True

    def stored_ending(self, call: Call) -> CallRecord | None:
        """Return a stored ending; a call without one ends the replay."""
        ending = self._replay.ending(call.name, call.request)
        if ending is not None:
            return ending
        past = self._past.calls.get(call.name)
        reason = "was never answered" if past is None or past.ending is None else "was asked otherwise"
        self.error = StoreError(f"the run {self._past.plan.run_id}: {call.name} {reason}", kind="diverged")
        self.scope.cancel()
        return CallRecord(error=self.error, sent=False)

    async def wait_in_order(self, call: Call) -> None:
        """Wait until everything before a call's ending has happened again."""
        if self.error is not None:
            await anyio.sleep_forever()  # until the cancelled scope ends this task
        await self._replay.wait_in_order(call.name)

    def warnings(self) -> tuple[str, ...]:
        """Return a warning for each call that was made twice."""
        return repeat_warnings({name: call.repeats for name, call in self._past.calls.items() if call.repeats})


def repeat_warnings(repeats: Mapping[str, int]) -> tuple[str, ...]:
    """Return a warning for each call that was made again, by the call's name."""
    warnings = []
    for name in sorted(repeats):
        phase, _, rest = name.partition("/")
        seat = rest.rpartition("/")[0]
        warnings.append(
            f"{seat} was asked again for its {phase}, by the same key: the first call was in flight when the run was"
            " interrupted, and may have been billed"
        )
    return tuple(warnings)
