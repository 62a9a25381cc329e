"""The phases that strategies share: draft, critique (or rank) and synthesise. Their seats are asked concurrently.

There is no barrier between draft and critique: a reviewer starts as soon as the drafts that it will see have arrived
or failed, even while its own is still being written. The chair is asked once all reviews have ended. A seat whose draft
failed is asked again only as the last choice for the chair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.abc
import attrs

from llm_council._engine import prompts
from llm_council._engine.budget import chair_end, quorum_of
from llm_council._engine.calls import ask
from llm_council._engine.ranking import read_ranking, tally, tie_order
from llm_council._engine.state import CallDeadline, RunState
from llm_council._schema import drop_thinking
from llm_council.errors import BudgetExceeded, ContextTooLong, CouncilError, DeadlineExceeded, QuorumLost, RunError
from llm_council.events import Ranked
from llm_council.models import Critique, Draft, GenerateRequest, GenerateResponse, Phase, Plan
from llm_council.models._attrs import copy_with

__all__ = [
    "ChairAnswer",
    "DraftBoard",
    "Material",
    "QuorumWait",
    "chair_deadline",
    "chair_order",
    "critique",
    "draft",
    "spare_calls",
    "synthesise",
    "unmet_quorum",
]

CHAIR_CALLS = 1
"""Calls of the budget that drafts and critiques must leave for the chair."""


def spare_calls(plan: Plan) -> int:
    """Return how many calls of the budget a call must leave for the phases after it."""
    return CHAIR_CALLS if len(plan.phases) > 1 else 0


@attrs.define
class DraftBoard:
    """Receives drafts, and lets reviewers wait for the drafts of others."""

    _settled: dict[str, anyio.Event] = attrs.field(factory=dict)
    _events: list[tuple[str, anyio.Event]] = attrs.field(factory=list)  # the same, in the order of their start
    _reviewing: dict[str, CallDeadline] = attrs.field(factory=dict)

    def expect(self, draft: Draft) -> None:
        """Register a draft that will come, by its seat and number; a second call does nothing."""
        if draft.name not in self._settled:
            self._settled[draft.name] = anyio.Event()
            self._events.append((draft.seat, self._settled[draft.name]))

    def put(self, draft: Draft) -> None:
        """Wake the reviewers that wait for this draft; if it failed, cancel the review by the same seat."""
        self._settled[draft.name].set()
        reviewing = self._reviewing.get(draft.seat)
        if draft.error is not None and reviewing is not None:
            reviewing.cancel("its own draft had failed")

    async def wait_for_others(self, reviewer: str) -> None:
        """Wait until every registered draft except the reviewer's own has arrived or failed."""
        passed = 0  # a reserve may start to draft meanwhile, which adds to the end
        while passed < len(self._events):
            seat, event = self._events[passed]
            if seat != reviewer and not event.is_set():
                await event.wait()
            passed += 1

    def register_review(self, seat: str, deadline: CallDeadline) -> None:
        """Register the deadline of a seat's review, so that the review can be cancelled."""
        self._reviewing[seat] = deadline


@attrs.define
class QuorumWait:
    """Deadlines of the calls of one phase. Once a quorum has answered, the other calls get the grace period.

    Attributes:
        phase: the phase.
        quorum: answers needed.
        grace: seconds for the remaining calls once the quorum is reached; None sets no limit.
        end: end of the phase's share of the run's time, on the event loop's clock.
        end_without_quorum: when the calls must end while the quorum is not reached, likewise.
    """

    phase: Phase
    quorum: int
    grace: float | None
    end: float
    end_without_quorum: float
    _deadlines: list[CallDeadline] = attrs.field(factory=list)
    _answers: int = 0

    @property
    def met(self) -> bool:
        """True once the quorum has answered."""
        return self._answers >= self.quorum

    def new_deadline(self) -> CallDeadline:
        """Return the deadline of one more call."""
        deadline = CallDeadline.at(self.end_without_quorum, "the time of the run was over")
        self._deadlines.append(deadline)
        if self.met or self.end_without_quorum <= self.end:
            self._tighten(deadline)
        return deadline

    def answered(self) -> None:
        """Count an answer; the one that completes the quorum tightens all deadlines."""
        self._answers += 1
        if self._answers == self.quorum:
            for deadline in self._deadlines:
                self._tighten(deadline)

    def _tighten(self, deadline: CallDeadline) -> None:
        deadline.tighten(self.end, f"the time of the {self.phase} phase was over")
        if self.met and self.grace is not None:
            end = anyio.current_time() + self.grace
            deadline.tighten(end, f"enough seats had answered, and the {self.grace:g} s of grace were over")


async def draft(
    state: RunState,
    board: DraftBoard,
    seats: Sequence[str] | None = None,
    samples: int = 1,
    instructions: str = "",
    enough: Callable[[Sequence[Draft]], bool] | None = None,
) -> None:
    """Ask all drafters concurrently; ``state.drafts`` holds their drafts and failures afterwards.

    Until the quorum is reached, drafts may take all of the run's time: nothing can follow without them. When too many
    drafters fail to reach the quorum, a seat that was not meant to draft replaces one.

    Args:
        state: the run.
        board: receives the drafts.
        seats: the seats to ask, which nobody replaces; None means the drafters of the plan. A draft that has been
            asked for is not asked for again.
        samples: how many drafts each seat is to have been asked for.
        instructions: what to add to the question.
        enough: called with the drafts so far, failed ones included, once the quorum is there; True cancels the others.
    """
    plan = state.plan
    names = plan.drafters if seats is None else dict.fromkeys(seats)
    wanted = [Draft(seat=name, number=number) for name in names for number in range(1, samples + 1)]
    reserves = [name for name in plan.chairs if name not in plan.drafters] if seats is None else []
    quorum = quorum_of(plan, len(plan.seats) if seats is None else len(seats))
    missing = max(1, quorum - len(_drafted(state)))
    wait = QuorumWait(Phase.DRAFT, missing, plan.budget.grace, state.ends[Phase.DRAFT], state.end)
    state.open(Phase.DRAFT)
    async with anyio.create_task_group() as group:
        drafting = _Drafting(state, board, wait, reserves, instructions, enough, group)
        for draft in wanted:
            if draft.name not in state.drafts:
                drafting.start(draft)
        await state.start_slot.wait_started()
    state.close(Phase.DRAFT)


# A class, because two closures that call each other would be a reference cycle, which holds the texts of a run.
@attrs.define
class _Drafting:
    """The calls of the draft phase.

    Attributes:
        state: the run.
        board: receives the drafts.
        wait: the deadlines of the calls.
        reserves: seats that may still replace a drafter, in order.
        instructions: what to add to the question.
        enough: see ``draft``.
        group: runs the calls.
        waiting: deadlines of the calls that have not ended, by the name of the draft.
        settled: drafts and failures, in the order in which they came.
        is_over: True once the others were cancelled, because the drafts were enough.
    """

    state: RunState
    board: DraftBoard
    wait: QuorumWait
    reserves: list[str]
    instructions: str
    enough: Callable[[Sequence[Draft]], bool] | None
    group: anyio.abc.TaskGroup
    waiting: dict[str, CallDeadline] = attrs.field(factory=dict)
    settled: list[Draft] = attrs.field(factory=list)
    is_over: bool = False

    def start(self, wanted: Draft) -> None:
        """Start the call for a draft."""
        self.waiting[wanted.name] = deadline = self.wait.new_deadline()
        self.board.expect(wanted)
        # Named here: the order in which an event loop starts tasks is not the same in every run.
        call = self.state.name_call(Phase.DRAFT, wanted.seat)
        self.group.start_soon(self._draft, wanted, call, deadline)

    async def _draft(self, wanted: Draft, call: str, deadline: CallDeadline) -> None:
        state = self.state
        seat = state.plan.seat(wanted.seat)
        request = prompts.draft_request(state.plan, seat, self.instructions, wanted.number)
        if state.plan.drafts_by_schema:
            state.asked_by_schema[wanted.name] = request
        spare = spare_calls(state.plan)
        outcome = await ask(state, Phase.DRAFT, seat, request, deadline, spare_calls=spare, name=call)
        del self.waiting[wanted.name]
        draft = copy_with(wanted, response=outcome.response, error=outcome.error, elapsed=outcome.elapsed)
        is_first = draft.seat not in _drafted(state)
        state.drafts[draft.name] = draft
        self.settled.append(draft)
        if draft.error is None:
            if is_first:  # a quorum is one of seats
                self.wait.answered()
        elif not self.is_over:
            state.degrade(f"{draft.name} gave no draft: {draft.error}", draft.seat)
            if self.reserves and len(_drafted(state)) + len(self.waiting) < self.wait.quorum:
                self.start(Draft(seat=self.reserves.pop(0)))
        if self.enough is not None and self.wait.met and not self.is_over and self.enough(tuple(self.settled)):
            self.is_over = True
            for other in self.waiting.values():
                other.cancel("enough seats had answered")
        # Last, because reviewers read ``state.drafts`` as soon as they are woken.
        self.board.put(draft)


def _drafted(state: RunState) -> set[str]:
    """Return the seats with a successful draft."""
    return {draft.seat for draft in state.drafts.values() if draft.error is None}


def unmet_quorum(state: RunState, asked: int | None = None) -> RunError | None:
    """Return the error of a run with too few drafts; None if there are enough.

    Args:
        state: the run.
        asked: how many seats were asked; None means all that could be.
    """
    need = quorum_of(state.plan, len(state.plan.seats) if asked is None else asked)
    finished = state.successful_drafts()
    if len(_drafted(state)) >= need:
        return None
    best = drop_thinking(finished[0].text) if finished else None
    outcomes = {name: draft.error for name, draft in state.drafts.items()}
    causes = [error for error in outcomes.values() if error is not None]
    reasons = "; ".join(f"{name}: {error.message}" for name, error in outcomes.items() if error is not None)
    if causes and all(isinstance(error, BudgetExceeded) for error in causes):
        return BudgetExceeded(
            f"{causes[0].message}: no draft could be asked for", spent=state.ledger.spent, partial=best
        )
    if not finished and causes and all(map(_was_cut, causes)) and state.overdue():
        limit = state.plan.budget.deadline
        return DeadlineExceeded(f"no seat answered within the {limit:g} s of the run; {reasons}", partial=None)
    return QuorumLost(f"{len(finished)} of {need} required seats answered; {reasons}", outcomes=outcomes)


def _was_cut(error: CouncilError) -> bool:
    return getattr(error, "phase", None) == "deadline"


async def critique(
    state: RunState, board: DraftBoard, *, phase: Phase = Phase.CRITIQUE, enough: Callable[[], bool] | None = None
) -> None:
    """Ask the reviewers to judge the drafts of others, with the authors' names hidden.

    Afterwards ``state.critiques`` holds their reviews and failures, and ``state.ranking`` the tally. A reviewer that
    fails degrades the run, and does not end it.

    Args:
        state: the run.
        board: receives the drafts.
        phase: ``Phase.CRITIQUE`` for critiques with rankings, ``Phase.RANK`` for rankings alone.
        enough: called after each ranking; True cancels the reviews that are still running.
    """
    plan = state.plan
    end = state.ends[phase]
    wait = QuorumWait(phase, quorum_of(plan, len(plan.reviewers)), plan.budget.grace, end, end)
    running: dict[str, CallDeadline] = {}

    async def review(name: str) -> None:
        await board.wait_for_others(name)
        own = state.drafts.get(name)
        seat = plan.seat(name)
        shown = prompts.label_drafts(plan, seat, state.successful_drafts())
        # A seat whose draft failed would fail again, and a decided vote needs no more reviews.
        if not shown or (own is not None and own.error is not None) or (enough is not None and enough()):
            return
        state.open(phase)
        running[name] = deadline = wait.new_deadline()
        board.register_review(name, deadline)
        request = prompts.critique_request(plan, seat, shown, phase=phase, texts=state.texts)
        outcome = await ask(state, phase, seat, request, deadline, spare_calls=CHAIR_CALLS)
        del running[name]
        text = drop_thinking(outcome.response.text or "") if outcome.response else ""
        state.critiques[name] = Critique(
            seat=name,
            labels={label: draft.seat for label, draft in shown.items()},
            ranking=[shown[label].seat for label in read_ranking(plan, text, shown)],
            response=outcome.response,
            error=outcome.error,
            elapsed=outcome.elapsed,
        )
        if outcome.error is None:
            wait.answered()
            if enough is not None and enough():
                for other in running.values():
                    other.cancel("the leader could no longer be overtaken")

    try:
        async with anyio.create_task_group() as group:
            for name in plan.reviewers:
                group.start_soon(review, name)
    # Also when the run is given up for want of drafts, which cancels this task.
    finally:
        state.close(phase)
    drafted = tie_order(plan, [draft.seat for draft in state.successful_drafts()])
    state.ranking = tally([review.ranking for review in state.critiques.values()], drafted)
    if any(state.ranking.points.values()):
        timing = state.timings[phase]
        state.emit(Ranked, at=timing.started + timing.elapsed, ranking=state.ranking)
    _missing_reviews(state, decided=enough is not None and enough())
    _unread_rankings(state, phase)


def _missing_reviews(state: RunState, *, decided: bool) -> None:
    """Degrade the run for each missing review.

    Reviews that were no longer needed do not count, and none does in a run that has too few drafts.
    """
    if all(name in state.drafts for name in state.plan.drafters) and unmet_quorum(state) is not None:
        return  # the run fails with that error, perhaps before this phase has ended
    for name in state.plan.reviewers:
        review = state.critiques.get(name)
        if review is None or review.error is None or _failed(state, name) or (decided and _was_cut(review.error)):
            continue
        state.degrade(f"{name} gave no critique: {review.error}", name)
    if state.plan.reviewers and not any(review.error is None for review in state.critiques.values()):
        state.degrade("no draft was reviewed by another seat")


def _unread_rankings(state: RunState, phase: Phase) -> None:
    """Report the reviews whose ranking could not be read; a vote is degraded by them."""
    if not state.plan.rules:
        return
    asked = [review for review in state.critiques.values() if review.error is None and len(review.labels) > 1]
    unread = [review.seat for review in asked if len(review.ranking) < 2]
    for name in unread:
        reason = f"the ranking of {name} could not be read, and does not count"
        if phase == Phase.RANK:
            state.degrade(reason, name)
        else:
            state.warnings.append(reason)
    if asked and len(unread) == len(asked) and phase == Phase.RANK:
        state.degrade("no ranking could be read: the run's seed decided the vote")


@attrs.frozen(kw_only=True)
class Material:
    """What the chair is shown.

    Attributes:
        drafts: the drafts.
        reviews: the reviews, failed ones included.
    """

    drafts: tuple[Draft, ...]
    reviews: tuple[Critique, ...] = ()


@attrs.frozen
class ChairAnswer:
    """The chair's answer before it is validated.

    Attributes:
        seat: the seat that wrote it.
        request: the chair's request.
        response: the chair's response.
        left: seats that could still take the chair, in order.
        shown: what another chair would be shown.
    """

    seat: str
    request: GenerateRequest
    response: GenerateResponse
    left: tuple[str, ...]
    shown: Material


def chair_order(state: RunState) -> list[str]:
    """Return the seats that may take the chair, in order.

    The plan's first choice comes first, unless the plan leaves the chair to the ranking. Then follow seats that did not
    draft, then drafters by the rank of their drafts. Seats whose draft failed come last.
    """
    plan = state.plan
    fixed = () if plan.chair_by_rank else plan.chairs[:1]
    rank = {name: place for place, name in enumerate(state.ranking.order)}
    rest = sorted(
        (name for name in plan.chairs if name not in fixed),
        key=lambda name: (_failed(state, name), rank.get(name, -1), plan.chairs.index(name)),
    )
    chairs = [*fixed, *rest]
    return sorted(chairs, key=partial(_failed, state))


def _failed(state: RunState, name: str) -> bool:
    draft = state.drafts.get(name)
    return draft is not None and draft.error is not None


async def synthesise(state: RunState, chairs: Sequence[str], shown: Material) -> ChairAnswer | None:
    """Ask the chair for the final answer; if it fails, the next seat takes the chair.

    Args:
        state: the run.
        chairs: the seats that may take the chair, in order.
        shown: drafts and reviews for the chair.

    Returns:
        The answer; None if no seat could write one.
    """
    state.open(Phase.SYNTHESISE)
    written = await _first_answer(state, chairs, shown)
    if written is not None and written.seat != chairs[0]:
        state.degrade(f"{written.seat} took the chair", *chairs[: list(chairs).index(written.seat)])
    state.close(Phase.SYNTHESISE)
    return written


async def replace_chair(state: RunState, invalid: ChairAnswer) -> ChairAnswer | None:
    """Ask the seats that are left for the final answer, because the chair could not give it the form of the schema.

    They write it anew: a conversation in which the form was missed again and again would mislead them too.

    Returns:
        The answer; None if no seat is left, or none could write one.
    """
    written = await _first_answer(state, invalid.left, invalid.shown)
    if written is not None:
        state.degrade(
            f"{written.seat} took the chair: {invalid.seat} did not give its answer the form of the schema",
            invalid.seat,
        )
    return written


async def _first_answer(state: RunState, chairs: Sequence[str], shown: Material) -> ChairAnswer | None:
    """Ask one seat after the other for the final answer, until one gives it."""
    plan = state.plan
    drafts, reviews = shown.drafts, shown.reviews
    for place, name in enumerate(chairs):
        seat = plan.seat(name)
        request = prompts.synthesis_request(plan, seat, drafts, reviews, state.ranking, texts=state.texts)
        deadline = chair_deadline(state, len(chairs) - place - 1)
        outcome = await ask(state, Phase.SYNTHESISE, seat, request, deadline)
        if isinstance(outcome.error, ContextTooLong):  # the same seat again, with shorter quotations
            shorter = prompts.shorten_quotations(plan, request)
            request = prompts.synthesis_request(shorter, seat, drafts, reviews, state.ranking, texts=state.texts)
            state.warnings.append(f"{name} was shown the drafts cut to its context")
            outcome = await ask(state, Phase.SYNTHESISE, seat, request, deadline.renew())
        if outcome.response is not None:
            return ChairAnswer(name, request, outcome.response, tuple(chairs[place + 1 :]), shown)
        state.warnings.append(f"{name} could not write the answer: {outcome.error}")
    return None


def chair_deadline(state: RunState, others: int) -> CallDeadline:
    """Return the deadline of a chair that ``others`` seats could still replace."""
    end = chair_end(anyio.current_time(), state.end, others=others)
    return CallDeadline.at(end, "the time of the run was over" if not others else "its share of the time was over")
