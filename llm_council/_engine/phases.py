"""The phases of a run. Seats are asked side by side; what one does never disturbs another.

Nobody waits longer than it must: a reviewer starts as soon as the drafts that it is to see are settled, while its own
may still be on the way. A seat whose draft failed is asked no more, except as the last resort for the chair.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
import attrs

from llm_council._engine import prompts
from llm_council._engine.asking import ask
from llm_council._engine.budget import chair_end, quorum_of
from llm_council._engine.demand import demand_of
from llm_council._engine.prospect import Doom, Prospect
from llm_council._engine.ranking import read_ranking, tally
from llm_council._engine.sitting import Bound, Sitting
from llm_council._schema import drop_thinking
from llm_council.errors import BudgetExceeded, ContextTooLong, CouncilError, DeadlineExceeded, QuorumLost, RunError
from llm_council.models import Critique, Draft, GenerateRequest, GenerateResponse, Phase, SeatSpec

__all__ = ["Board", "Written", "chairs_of", "critique", "draft", "prospect_of", "synthesise", "unmet_quorum"]

KEPT = 1
"""Calls of the budget that drafts and critiques leave to the chair."""


@attrs.define
class Board:
    """Where drafts are put, and where reviewers wait for those of others."""

    _settled: dict[str, anyio.Event] = attrs.field(factory=dict)
    _reviewing: dict[str, Bound] = attrs.field(factory=dict)

    def expect(self, seat: str) -> None:
        """Note that a draft will come from this seat; again is nothing new."""
        if seat not in self._settled:
            self._settled[seat] = anyio.Event()

    def put(self, draft: Draft) -> None:
        """Tell those who wait; the review of a seat whose draft failed is given up."""
        self._settled[draft.seat].set()
        reviewing = self._reviewing.get(draft.seat)
        if draft.error is not None and reviewing is not None:
            reviewing.cut("its own draft had failed")

    async def others(self, reviewer: str) -> None:
        """Wait until every expected draft but the reviewer's own has come or failed."""
        while waiting := [event for seat, event in self._settled.items() if seat != reviewer and not event.is_set()]:
            await waiting[0].wait()

    def reviews(self, seat: str, bound: Bound) -> None:
        """Note that a seat is reviewing within this bound."""
        self._reviewing[seat] = bound


@attrs.define
class _Wave:
    """Seats that are asked the same thing side by side: with a quorum of answers, the others get the grace period.

    Attributes:
        end: when the phase's share of the time is over.
        hard: when time is over for a wave that has no quorum yet.
    """

    phase: Phase
    quorum: int
    grace: float | None
    end: float
    hard: float
    _bounds: list[Bound] = attrs.field(factory=list)
    _answers: int = 0

    @property
    def met(self) -> bool:
        """Whether the quorum is there."""
        return self._answers >= self.quorum

    def bound(self) -> Bound:
        """Return the bound of one more call."""
        bound = Bound.until(self.hard, "the time of the run was over")
        self._bounds.append(bound)
        if self.met or self.hard <= self.end:
            self._tighten(bound)
        return bound

    def answered(self) -> None:
        """Count an answer."""
        self._answers += 1
        if self._answers == self.quorum:
            for bound in self._bounds:
                self._tighten(bound)

    def _tighten(self, bound: Bound) -> None:
        bound.tighten(self.end, f"the time of the {self.phase} phase was over")
        if self.met and self.grace is not None:
            end = anyio.current_time() + self.grace
            bound.tighten(end, f"enough seats had answered, and the {self.grace:g} s of grace were over")


async def draft(sitting: Sitting, board: Board) -> None:
    """Let the drafters answer side by side; drafts and failures are in ``sitting.drafts`` when this returns.

    While a quorum is not there, drafts may take all of the run's time: without them there is nothing to go on with. A
    seat that was not to draft steps in when the drafters that are left cannot make up the quorum.
    """
    plan = sitting.plan
    wave = _Wave(
        Phase.DRAFT, quorum_of(plan, len(plan.seats)), plan.budget.grace, sitting.ends[Phase.DRAFT], sitting.end
    )
    reserves = [name for name in plan.chairs if name not in plan.drafters]
    waiting: set[str] = set()

    async def one(name: str) -> None:
        seat = plan.seat(name)
        outcome = await ask(sitting, Phase.DRAFT, seat, prompts.draft(plan, seat), wave.bound(), keep=KEPT)
        waiting.discard(name)
        sitting.drafts[name] = Draft(seat=name, response=outcome.response, error=outcome.error, elapsed=outcome.elapsed)
        if outcome.error is None:
            wave.answered()
        else:
            sitting.degrade(f"{name} gave no draft: {outcome.error}", name)
            if reserves and len(sitting.finished()) + len(waiting) < wave.quorum:
                start(reserves.pop(0))  # noqa: F821 - it is deleted below, when nothing runs any more
        board.put(sitting.drafts[name])

    def start(name: str) -> None:
        waiting.add(name)
        board.expect(name)
        group.start_soon(one, name)

    sitting.open(Phase.DRAFT)
    async with anyio.create_task_group() as group:
        for name in plan.drafters:
            start(name)
        await sitting.admission.begun()
    del start  # it and ``one`` hold each other, and the run with all its answers
    sitting.close(Phase.DRAFT)


def unmet_quorum(sitting: Sitting) -> RunError | None:
    """Return the error of a run with too few drafts; None when there are enough."""
    need = quorum_of(sitting.plan, len(sitting.plan.seats))
    finished = sitting.finished()
    if len(finished) >= need:
        return None
    best = drop_thinking(finished[0].text) if finished else None
    outcomes = {name: draft.error for name, draft in sitting.drafts.items()}
    causes = [error for error in outcomes.values() if error is not None]
    words = "; ".join(f"{name}: {error.message}" for name, error in outcomes.items() if error is not None)
    if causes and all(isinstance(error, BudgetExceeded) for error in causes):
        return BudgetExceeded(
            f"{causes[0].message}: no draft could be asked for", spent=sitting.ledger.spent, partial=best
        )
    if not finished and causes and all(map(_cut, causes)) and sitting.overdue():
        limit = sitting.plan.budget.deadline
        return DeadlineExceeded(f"no seat answered within the {limit:g} s of the run; {words}", partial=None)
    return QuorumLost(f"{len(finished)} of {need} required seats answered; {words}", outcomes=outcomes)


def _cut(error: CouncilError) -> bool:
    return getattr(error, "phase", None) == "deadline"


async def critique(
    sitting: Sitting, board: Board, *, phase: Phase = Phase.CRITIQUE, enough: Callable[[], bool] | None = None
) -> None:
    """Let the reviewers judge the drafts of others, blind; what they say is in ``sitting.critiques`` afterwards.

    A reviewer that fails is missed, but not fatal. The tally of what they said is in ``sitting.ranking``.

    Args:
        sitting: the run.
        board: where the drafts come in.
        phase: what the reviewers are asked for: critiques, or rankings alone.
        enough: asked after each ranking; True sends the reviewers home that are still at it.
    """
    plan = sitting.plan
    end = sitting.ends[phase]
    wave = _Wave(phase, quorum_of(plan, len(plan.reviewers)), plan.budget.grace, end, end)
    asking: dict[str, Bound] = {}

    async def one(name: str) -> None:
        await board.others(name)
        own = sitting.drafts.get(name)
        seat = plan.seat(name)
        shown = prompts.labelled(plan, seat, sitting.finished())
        if not shown or (own is not None and own.error is not None) or (enough is not None and enough()):
            return
        sitting.open(phase)
        asking[name] = bound = wave.bound()
        board.reviews(name, bound)
        outcome = await ask(sitting, phase, seat, prompts.critique(plan, seat, shown, phase=phase), bound, keep=KEPT)
        del asking[name]
        said = drop_thinking(outcome.response.text or "") if outcome.response else ""
        sitting.critiques[name] = Critique(
            seat=name,
            labels={label: draft.seat for label, draft in shown.items()},
            ranking=[shown[label].seat for label in read_ranking(said, shown)],
            response=outcome.response,
            error=outcome.error,
            elapsed=outcome.elapsed,
        )
        if outcome.error is None:
            wave.answered()
            if enough is not None and enough():
                for bound in asking.values():
                    bound.cut("the leader could no longer be overtaken")

    try:
        async with anyio.create_task_group() as group:
            for name in plan.reviewers:
                group.start_soon(one, name)
    finally:
        sitting.close(phase)
    order = [draft.seat for draft in sitting.finished()]
    sitting.ranking = tally([review.ranking for review in sitting.critiques.values()], order)
    _missing_reviews(sitting, decided=enough is not None and enough())


def _missing_reviews(sitting: Sitting, *, decided: bool) -> None:
    """Say which reviews are missing; those that were no longer needed are not, nor any where too few have drafted."""
    if all(name in sitting.drafts for name in sitting.plan.drafters) and unmet_quorum(sitting) is not None:
        return  # the run ends by that, perhaps before this phase does
    for name in sitting.plan.reviewers:
        review = sitting.critiques.get(name)
        if review is None or review.error is None or _failed(sitting, name) or (decided and _cut(review.error)):
            continue
        sitting.degrade(f"{name} gave no critique: {review.error}", name)
    if sitting.plan.reviewers and not any(review.error is None for review in sitting.critiques.values()):
        sitting.degrade("no draft was reviewed by another seat")


@attrs.frozen
class Written:
    """The chair's words, before they are validated.

    Attributes:
        seat: who wrote them.
        request: what was asked.
        response: what was answered.
        left: seats that could still take the chair, in order.
        doom: why the answer was not read to its end.
    """

    seat: str
    request: GenerateRequest
    response: GenerateResponse
    left: tuple[str, ...]
    doom: Doom | None = None


def chairs_of(sitting: Sitting) -> list[str]:
    """Return who may take the chair, in order.

    The plan's first choice comes first. After it, and from the start where the plan leaves the chair to the ranking,
    seats come by the rank of their drafts, those that did not draft before them; seats that failed come last.
    """
    plan = sitting.plan
    fixed = () if plan.chair_by_rank else plan.chairs[:1]
    rank = {name: place for place, name in enumerate(sitting.ranking.order)}
    rest = sorted(
        (name for name in plan.chairs if name not in fixed),
        key=lambda name: (_failed(sitting, name), rank.get(name, -1), plan.chairs.index(name)),
    )
    chairs = [*fixed, *rest]
    return sorted(chairs, key=partial(_failed, sitting))


def _failed(sitting: Sitting, name: str) -> bool:
    draft = sitting.drafts.get(name)
    return draft is not None and draft.error is not None


async def synthesise(sitting: Sitting, *, only: str | None = None) -> Written | None:
    """Let the chair write the final answer; when it fails, the next seat takes the chair.

    Args:
        sitting: the run.
        only: the one draft that is shown, by its seat; None shows all with their reviews.

    Returns:
        The answer; None when no seat could write one.
    """
    plan = sitting.plan
    chairs = chairs_of(sitting)
    sitting.open(Phase.SYNTHESISE)
    drafts = [draft for draft in sitting.finished() if only is None or draft.seat == only]
    reviews = [sitting.critiques[name] for name in plan.reviewers if name in sitting.critiques] if only is None else []
    written = None
    for place, name in enumerate(chairs):
        seat = plan.seat(name)
        request = prompts.synthesise(plan, seat, drafts, reviews, sitting.ranking)
        bound = chair_bound(sitting, len(chairs) - place - 1)
        prospect = prospect_of(sitting, seat, request, repairs=plan.max_repairs)
        outcome = await ask(sitting, Phase.SYNTHESISE, seat, request, bound, prospect=prospect)
        if isinstance(outcome.error, ContextTooLong):
            request = prompts.synthesise(prompts.shorter(plan, request), seat, drafts, reviews, sitting.ranking)
            sitting.warnings.append(f"{name} was shown the drafts cut to its context")
            prospect = prospect_of(sitting, seat, request, repairs=plan.max_repairs)
            outcome = await ask(sitting, Phase.SYNTHESISE, seat, request, bound.again(), prospect=prospect)
        if outcome.response is not None:
            if place:
                sitting.degrade(f"{name} took the chair", *chairs[:place])
            written = Written(name, request, outcome.response, tuple(chairs[place + 1 :]), outcome.doom)
            break
        sitting.warnings.append(f"{name} could not write the answer: {outcome.error}")
    sitting.close(Phase.SYNTHESISE)
    return written


def chair_bound(sitting: Sitting, others: int) -> Bound:
    """Return until when a chair may take while so many seats could follow it."""
    end = chair_end(anyio.current_time(), sitting.end, others=others)
    return Bound.until(end, "the time of the run was over" if not others else "its share of the time was over")


def prospect_of(sitting: Sitting, seat: SeatSpec, request: GenerateRequest, *, repairs: int) -> Prospect | None:
    """Return what reads an answer as it arrives; None where the answer is to be read whole.

    That is so without a schema, where the provider does not stream, and where its adapter shapes prose at the end. It
    is also so where fewer than two answers could follow: a stopped answer tells its first fault alone, and one that is
    read whole, with all its faults, shall still be repaired.

    Args:
        sitting: the run.
        seat: who is asked.
        request: what is asked.
        repairs: answers that may still be asked for after this one.
    """
    schema = sitting.plan.schema
    if schema is None or seat.prose_first or repairs < 2:
        return None
    able = getattr(sitting.adapters[seat.name], "capabilities", None)  # one without is refused when it is called
    if not getattr(able, "streaming", False) or not sitting.ledger.affords_another(seat, request):
        return None
    return Prospect(demand_of(schema))
