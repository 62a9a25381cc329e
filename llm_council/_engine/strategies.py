"""How seats deliberate. A strategy is an async function from a sitting to the final answer; it raises ``RunError``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from llm_council._engine import phases
from llm_council._engine.ranking import decided, tally
from llm_council._engine.repair import Final, until_valid
from llm_council._engine.sitting import Sitting
from llm_council._schema import drop_thinking
from llm_council.models import Draft, FinishReason, Phase, Problem

__all__ = ["STRATEGIES", "Strategy"]

Strategy = Callable[[Sitting], Awaitable[Final]]


async def synthesize(sitting: Sitting) -> Final:
    """Draft, criticise the drafts of others, and let the chair write one answer from the best of all of it."""
    await _deliberate(sitting, Phase.CRITIQUE)
    written = await phases.synthesise(sitting)
    if written is None:
        return _best_draft(sitting, "no seat could write the final answer: this is the best draft")
    return await until_valid(sitting, written)


async def vote(sitting: Sitting) -> Final:
    """Draft, rank the drafts of others, and take the winner as it is: its words are never mixed with others'.

    Reviewers are sent home once the leader cannot be overtaken. Where there is a schema, the winner's author brings its
    draft into that form.
    """
    await _deliberate(sitting, Phase.RANK)
    winner = sitting.ranking.order[0]
    if sitting.plan.schema is None:
        return _as_it_is(sitting, sitting.drafts[winner])
    written = await phases.synthesise(sitting, only=winner)
    if written is None:
        return _best_draft(sitting, "no seat could bring the winning draft into the form of the schema")
    return await until_valid(sitting, written)


STRATEGIES: dict[str, Strategy] = {"synthesize": synthesize, "vote": vote}


async def _deliberate(sitting: Sitting, phase: Phase) -> None:
    """Let drafts and their reviews run side by side, and end both when there are too few drafts.

    Raises:
        RunError: there are too few drafts.
    """
    board = phases.Board()
    plan = sitting.plan

    def leads() -> bool:
        said = {name: review.ranking for name, review in sitting.critiques.items()}
        drafts = [draft.seat for draft in sitting.finished()]
        if any(name not in sitting.drafts for name in plan.drafters):
            return False
        missing = {name: [seat for seat in drafts if seat != name] for name in plan.reviewers if name not in said}
        return decided(said.values(), drafts, missing) is not None

    async with anyio.create_task_group() as group:

        async def review() -> None:
            await phases.critique(sitting, board, phase=phase, enough=leads if phase == Phase.RANK else None)

        for name in plan.drafters:
            board.expect(name)
        if phase in plan.phases:
            group.start_soon(review)
        await phases.draft(sitting, board)
        error = phases.unmet_quorum(sitting)
        if error is not None:
            group.cancel_scope.cancel()
    if error is not None:
        raise error.fill(run_id=plan.run_id)
    if not sitting.ranking.order:
        sitting.ranking = tally((), [draft.seat for draft in sitting.finished()])


def _best_draft(sitting: Sitting, reason: str) -> Final:
    """Fall back to the draft that the reviewers ranked first; where there is a schema, its text does not meet it."""
    best = sitting.drafts[sitting.ranking.order[0]]
    sitting.degrade(reason, best.seat)
    if sitting.plan.schema is None:
        return _as_it_is(sitting, best)
    problem = Problem(path="$", message="this is a draft in prose: no seat could bring it into the form of the schema")
    return Final(chair=best.seat, text=best.text, problems=(problem,))


def _as_it_is(sitting: Sitting, draft: Draft) -> Final:
    if draft.response is not None and draft.response.finish_reason == FinishReason.LENGTH:
        sitting.degrade("the answer was cut off at max_tokens", draft.seat)
    return Final(chair=draft.seat, text=draft.text, output=drop_thinking(draft.text).strip())
