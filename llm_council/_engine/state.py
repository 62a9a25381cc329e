"""The state of one run: its progress so far, its deadlines, and what its calls wait for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from math import inf
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from anyio.lowlevel import RunVar, checkpoint

from llm_council._engine.budget import Ledger, phase_ends
from llm_council._engine.partial_output import NOTHING
from llm_council._engine.seat_texts import SeatTexts
from llm_council._engine.shared_prefix import PrefixWriters
from llm_council.errors import StrategyFailed
from llm_council.events import Degraded, Event, PartialOutput, PhaseFinished, PhaseStarted, emit, is_listened_to
from llm_council.models import Critique, Draft, GenerateRequest, Phase, PhaseTiming, Plan, Problem, Ranking, SeatSpec
from llm_council.models._attrs import copy_with
from llm_council.models._journal import NO_JOURNAL, Journal
from llm_council.providers.base import ProviderAdapter
from llm_council.results import CallReport

if TYPE_CHECKING:
    from llm_council._schema.typed import OutputType

__all__ = ["CallDeadline", "RunState", "StartSlot"]

MAX_STARTING: Final = 4
"""Runs of one event loop that may start at the same time."""

START_TURNS: Final = 3
"""Turns of the event loop that the first calls of a run need until they are sent."""

MAX_WAIT_SHARE: Final = 1 / 3
"""Share of a call's time that it may wait for another call whose cost cannot be estimated."""

# One semaphore for each event loop, because a semaphore cannot wake a task of another loop.
_starting: RunVar[anyio.Semaphore] = RunVar("llm_council.starting")


class StartSlot:
    """Limits how many runs of an event loop start at the same time.

    Without a limit, all runs would be planned before the first one sends a request. Starting four at a time saves
    memory, and the last run ends sooner. A run gives its slot back once its first calls are sent; it never waits for a
    model here.

    Args:
        end: when the run must end, on the event loop's clock. A run that waits until then starts without its slot.
    """

    def __init__(self, end: float) -> None:
        self._end = end
        self._held: anyio.Semaphore | None = None

    async def __aenter__(self) -> StartSlot:
        slots = _starting.get(None)
        if slots is None:
            slots = anyio.Semaphore(MAX_STARTING)
            _starting.set(slots)
        try:
            slots.acquire_nowait()
            self._held = slots
        except anyio.WouldBlock:
            with anyio.CancelScope(deadline=self._end):
                await slots.acquire()
                self._held = slots
        return self

    async def wait_started(self) -> None:
        """Give the calls that were started time to be sent, then let the next run start."""
        for _ in range(START_TURNS):
            await checkpoint()
            if self._held is None or not self._held.statistics().tasks_waiting:
                break
        self._release()

    async def __aexit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()


@attrs.define
class RunState:
    """The state of one run. Nothing else holds any of it.

    Attributes:
        plan: the plan of the run.
        adapters: the provider of each seat, by the seat's name.
        ledger: the account of the run's budget.
        clock: returns monotonic seconds, for events and reports.
        deltas: the phases in which somebody listens to the seats' text as it arrives.
        journal: records the run.
        output_type: the type of the output; None if the caller gave none, to this process at least.
        start_slot: the slot that the run needs to start.
        started: the clock's reading at the start.
        ends: when each phase must end, on the event loop's clock.
        end: when the run must end, on the event loop's clock; infinite without a deadline.
        calls: reports of all calls so far, by seat.
        drafts: drafts, failed ones included, by seat.
        critiques: critiques, failed ones included, by reviewer.
        ranking: the tally of the rankings.
        timings: when each phase ran.
        warnings: messages for the result.
        degraded: True once something is missing.
        abandoned: True once the result was made in another thread, because the event loop is blocked.
        texts: drafts and reviews as other seats are shown them.
        asked_by_schema: requests for answers in the form of the schema that are not the chair's, by name of the call.
        prefixes: the prefixes that calls share in vendors' caches, and who writes them.
    """

    plan: Plan
    adapters: Mapping[str, ProviderAdapter]
    ledger: Ledger
    clock: Callable[[], float]
    deltas: Collection[Phase] = ()
    journal: Journal = NO_JOURNAL
    output_type: OutputType | None = None
    start_slot: StartSlot = attrs.field(init=False)
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
    abandoned: bool = False
    texts: SeatTexts = attrs.field(init=False)
    asked_by_schema: dict[str, GenerateRequest] = attrs.field(factory=dict)
    prefixes: PrefixWriters = attrs.field(factory=PrefixWriters)
    _numbers: dict[str, int] = attrs.field(factory=dict)
    _calls_made: int = 0
    _types_checked: int = 0
    _partial: Any = NOTHING

    def __attrs_post_init__(self) -> None:
        # Two clocks: ``clock`` for events, reports and adapters, the event loop's for cancel scopes.
        self.started = self.clock()
        now = anyio.current_time()
        self.ends = phase_ends(self.plan, now)
        self.end = inf if self.plan.budget.deadline is None else now + self.plan.budget.deadline
        self.start_slot = StartSlot(self.end)
        self.texts = SeatTexts(self.plan)

    def emit(self, kind: type[Event], **facts: Any) -> None:
        """Emit an event of this run. It is only made if there is a listener."""
        if is_listened_to():
            emit(kind(run_id=self.plan.run_id, **facts))

    def elapsed(self, moment: str = "") -> float:
        """Return the seconds since the start of the run; for a named moment, a replay returns the stored time."""
        return self.journal.record_moment(moment, self.clock() - self.started)

    def overdue(self) -> bool:
        """Return True once the deadline of the run has passed."""
        return self.journal.record_decision("overdue", now=anyio.current_time() >= self.end)

    def report_partial(self, value: Any, at: float | None = None) -> None:
        """Emit ``PartialOutput`` in a streamed run, unless the last one had the same value; ``at`` None is now."""
        if value is not NOTHING and self.deltas and (type(value), value) != (type(self._partial), self._partial):
            self._partial = value
            self.emit(PartialOutput, at=self.elapsed() if at is None else at, value=value)

    def record_type_problems(self, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        """Record whether the type of the output takes an answer that is valid by the schema.

        Returns:
            The problems that the run must use. A replay without the type knows that there were some, not which.
        """
        if self.plan.output_type is None:
            return ()
        self._types_checked += 1
        is_refused = self.journal.record_decision(f"refused:{self._types_checked}", now=bool(problems))
        if is_refused and not problems:
            return (Problem(path="$", message=f"{self.plan.output_type} does not take this answer"),)
        return problems if is_refused else ()

    def open(self, phase: Phase) -> None:
        """Record that a phase has started; a second call does nothing."""
        if phase not in self.timings:
            # The names of moments are part of stored runs: a replay looks its times up by them.
            at = self.elapsed(f"opened:{phase}")
            self.timings[phase] = PhaseTiming(phase=phase, started=at, elapsed=0.0)
            self.emit(PhaseStarted, at=at, phase=phase)

    def close(self, phase: Phase) -> None:
        """Record that a phase has ended; does nothing for a phase that never started."""
        timing = self.timings.get(phase)
        if timing is not None:
            at = self.elapsed(f"closed:{phase}")
            self.timings[phase] = copy_with(timing, elapsed=at - timing.started)
            self.emit(PhaseFinished, at=at, phase=phase, elapsed=at - timing.started)

    def degrade(self, reason: str, *seats: str) -> None:
        """Record that the run continues with something missing."""
        self.degraded = True
        self.warnings.append(reason)
        self.emit(Degraded, at=self.elapsed("degraded"), reason=reason, seats=seats)

    def name_call(self, phase: Phase, seat: str, place: str = "") -> str:
        """Return the name of a new call, such as ``"draft/local-1/1"``: the same in a replay and in a resumed run.

        Args:
            phase: the phase.
            seat: name of the seat.
            place: where the strategy makes the call, such as ``"2."`` for round 2.

        Raises:
            StrategyFailed: the run has made all calls of its plan.
        """
        most = self.plan.most_calls
        if most is not None and self._calls_made >= most:
            raise StrategyFailed(
                f"the strategy {self.plan.strategy!r} makes more calls than the {most} of its plan",
                run_id=self.plan.run_id,
            )
        self._calls_made += 1
        stem = f"{phase}/{seat}/{place}"
        self._numbers[stem] = self._numbers.get(stem, 0) + 1
        return f"{stem}{self._numbers[stem]}"

    def successful_drafts(self) -> list[Draft]:
        """Return the successful drafts by seat and number, independent of the order of arrival."""
        places = {seat.name: place for place, seat in enumerate(self.plan.seats)}
        drafts = [draft for draft in self.drafts.values() if draft.error is None]
        return sorted(drafts, key=lambda draft: (places[draft.seat], draft.number))

    def wait_turn(self, seat: SeatSpec, end: float) -> AbstractAsyncContextManager[None]:
        """Let calls whose cost cannot be estimated run one at a time; all others run at once.

        Args:
            seat: the seat to be asked.
            end: when the call must end, on the event loop's clock. It waits for another call for at most a third of
                its time, so that enough is left for itself.
        """
        return self._wait_alone(seat, end) if self.ledger.has_unknown_cost(seat) else nullcontext()

    @asynccontextmanager
    async def _wait_alone(self, seat: SeatSpec, end: float) -> AsyncIterator[None]:
        alone = False
        turn = self.ledger.unpriced_turn
        with anyio.move_on_after((end - anyio.current_time()) * MAX_WAIT_SHARE):
            await turn.acquire()
            alone = True
        try:
            if alone and not self.ledger.has_unknown_cost(seat):  # the previous call has shown the cost
                turn.release()
                alone = False
            yield
        finally:
            if alone:
                turn.release()


@attrs.define
class CallDeadline:
    """When a call must end, and why. Both may change while the call runs.

    Attributes:
        reason: the end of the sentence "was cut after 3.0 s: ...".
        scope: the cancel scope of the call.
    """

    reason: str
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)

    @classmethod
    def at(cls, end: float, reason: str) -> CallDeadline:
        """Return a deadline at a reading of the event loop's clock."""
        return cls(reason, anyio.CancelScope(deadline=end))

    def renew(self) -> CallDeadline:
        """Return the same deadline for another call: a cancel scope can be entered once."""
        return CallDeadline.at(self.scope.deadline, self.reason)

    def tighten(self, end: float, reason: str) -> None:
        """Make the deadline earlier; a later end changes nothing."""
        if end < self.scope.deadline:
            self.scope.deadline = end
            self.reason = reason

    def cancel(self, reason: str) -> None:
        """End the call now."""
        self.reason = reason
        self.scope.cancel()
