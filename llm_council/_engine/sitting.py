"""One run while it lasts: what it set out to do, and what it has written down so far."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf

import anyio
import attrs

from llm_council._engine.admission import Admission
from llm_council._engine.budget import Ledger, phase_ends
from llm_council.events import Degraded, PhaseFinished, PhaseStarted, emit
from llm_council.models import Critique, Draft, Phase, PhaseTiming, Plan, Ranking, SeatSpec
from llm_council.models._attrs import copy_with
from llm_council.models._journal import NO_JOURNAL, Journal
from llm_council.providers.base import ProviderAdapter
from llm_council.results import CallReport

__all__ = ["Bound", "Sitting"]

PATIENCE = 1 / 3
"""Of the time that a call has, what it may wait for another whose cost nobody can foresee."""


@attrs.define
class Sitting:
    """What one run knows and has written down so far. It belongs to that run alone.

    Attributes:
        plan: what the run set out to do.
        adapters: what sits in each seat, by its name.
        ledger: what is spent.
        clock: monotonic seconds, for events and reports.
        deltas: whether somebody wants the seats' words as they come.
        journal: what keeps a journal of the run.
        admission: its turn to begin.
        started: the clock's reading at the start.
        ends: when each phase must end, on the event loop's clock.
        end: when the run must end, on the event loop's clock.
        calls: every call so far, by seat.
        drafts: drafts and failures to draft, by seat.
        critiques: critiques and failures to criticise, by seat.
        ranking: the tally of the rankings.
        timings: when each phase ran.
        warnings: what a person should know.
        degraded: whether something is missing.
        over: whether the result was made without the event loop, which stood still.
    """

    plan: Plan
    adapters: Mapping[str, ProviderAdapter]
    ledger: Ledger
    clock: Callable[[], float]
    deltas: bool = False
    journal: Journal = NO_JOURNAL
    admission: Admission = attrs.field(init=False)
    started: float = attrs.field(init=False)
    ends: dict[Phase, float] = attrs.field(init=False)
    end: float = attrs.field(init=False)
    calls: dict[str, list[CallReport]] = attrs.field(factory=dict)
    drafts: dict[str, Draft] = attrs.field(factory=dict)
    critiques: dict[str, Critique] = attrs.field(factory=dict)
    ranking: Ranking = attrs.field(factory=Ranking)
    timings: dict[Phase, PhaseTiming] = attrs.field(factory=dict)
    warnings: list[str] = attrs.field(factory=list)
    degraded: bool = False
    over: bool = False
    _blind: anyio.Lock = attrs.field(init=False, factory=anyio.Lock)

    def __attrs_post_init__(self) -> None:
        self.started = self.clock()
        now = anyio.current_time()
        self.ends = phase_ends(self.plan, now)
        self.end = inf if self.plan.budget.deadline is None else now + self.plan.budget.deadline
        self.admission = Admission(self.end)

    def at(self, moment: str = "") -> float:
        """Return the seconds since the run's start; at a moment of note, those that its journal has for it."""
        return self.journal.at(moment, self.clock() - self.started)

    def overdue(self) -> bool:
        """Tell whether the time of the run is over."""
        return self.journal.decided("overdue", now=anyio.current_time() >= self.end)

    def open(self, phase: Phase) -> None:
        """Note that a phase has begun; again is nothing new."""
        if phase not in self.timings:
            at = self.at(f"opened:{phase}")
            self.timings[phase] = PhaseTiming(phase=phase, started=at, elapsed=0.0)
            emit(PhaseStarted(run_id=self.plan.run_id, at=at, phase=phase))

    def close(self, phase: Phase) -> None:
        """Note that a phase has ended; one that never began is left out."""
        timing = self.timings.get(phase)
        if timing is not None:
            at = self.at(f"closed:{phase}")
            self.timings[phase] = copy_with(timing, elapsed=at - timing.started)
            emit(PhaseFinished(run_id=self.plan.run_id, at=at, phase=phase, elapsed=at - timing.started))

    def degrade(self, reason: str, *seats: str) -> None:
        """Note that the run goes on with something missing."""
        self.degraded = True
        self.warnings.append(reason)
        emit(Degraded(run_id=self.plan.run_id, at=self.at("degraded"), reason=reason, seats=seats))

    def finished(self) -> list[Draft]:
        """Return the finished drafts in the order of the seats, whatever order they came in."""
        drafts = (self.drafts.get(seat.name) for seat in self.plan.seats)
        return [draft for draft in drafts if draft is not None and draft.error is None]

    @asynccontextmanager
    async def turn(self, seat: SeatSpec, end: float) -> AsyncIterator[None]:
        """Wait for a call's turn, which is at once but for calls whose cost nobody can foresee: those go one by one.

        Args:
            seat: who is to be asked.
            end: when the call must end, on the event loop's clock. It does not wait so long for one that hangs that no
                time is left for itself.
        """
        if not self.ledger.is_blind(seat):
            yield
            return
        alone = False
        with anyio.move_on_after((end - anyio.current_time()) * PATIENCE):
            await self._blind.acquire()
            alone = True
        try:
            if alone and not self.ledger.is_blind(seat):  # the one before told what this one costs
                self._blind.release()
                alone = False
            yield
        finally:
            if alone:
                self._blind.release()


@attrs.define
class Bound:
    """Until when a call may last, and why it ends there: both can change while it runs.

    Attributes:
        why: the end of the sentence "was cut after 3.0 s: ...".
        scope: what cancels the call.
    """

    why: str
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)

    @classmethod
    def until(cls, end: float, why: str) -> Bound:
        """Return a bound at a reading of the event loop's clock."""
        return cls(why, anyio.CancelScope(deadline=end))

    def again(self) -> Bound:
        """Return the same bound for another call."""
        return Bound.until(self.scope.deadline, self.why)

    def tighten(self, end: float, why: str) -> None:
        """Move the bound forward; a later end changes nothing."""
        if end < self.scope.deadline:
            self.scope.deadline = end
            self.why = why

    def cut(self, why: str) -> None:
        """End the call now."""
        self.why = why
        self.scope.cancel()
