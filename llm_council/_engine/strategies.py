"""How seats deliberate: a strategy takes the state of a run and returns its final answer, or raises ``RunError``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from llm_council._engine import phases
from llm_council._engine.budget import quorum_of
from llm_council._engine.ranking import decided_winner, tally, tie_order
from llm_council._engine.repair import FinalAnswer, until_valid
from llm_council._engine.state import RunState
from llm_council._schema import drop_thinking
from llm_council.errors import DeadlineExceeded, QuorumLost, RunError, TimedOut
from llm_council.models import Draft, FinishReason, Phase, Problem
from llm_council.results import CallReport

__all__ = ["STRATEGIES", "Strategy", "last_resort"]

Strategy = Callable[[RunState], Awaitable[FinalAnswer]]


async def synthesise(state: RunState) -> FinalAnswer:
    """Draft, criticise the drafts of others, and let the chair write the answer from drafts and critiques."""
    await _deliberate(state, Phase.CRITIQUE)
    written = await phases.synthesise(state)
    if written is None:
        return _best_draft(state, "no seat could write the final answer: this is the best draft")
    return await until_valid(state, written)


async def vote(state: RunState) -> FinalAnswer:
    """Draft, rank the drafts of others, and return the winning draft unchanged.

    Reviews are cancelled once the leader cannot be overtaken. With a schema, the author of the winning draft brings it
    into that form.
    """
    await _deliberate(state, Phase.RANK)
    winner = state.ranking.order[0]
    if state.plan.schema is None:
        return _draft_as_answer(state, state.drafts[winner])
    written = await phases.synthesise(state, only=winner)
    if written is None:
        return _best_draft(state, "no seat could bring the winning draft into the form of the schema")
    return await until_valid(state, written)


STRATEGIES: dict[str, Strategy] = {"synthesize": synthesise, "vote": vote}


async def _deliberate(state: RunState, phase: Phase) -> None:
    """Draft and review concurrently, and set the ranking.

    Raises:
        RunError: there are too few drafts.
    """
    board = phases.DraftBoard()
    plan = state.plan

    def is_decided() -> bool:
        # A draft that has not arrived could still win.
        if any(name not in state.drafts for name in plan.drafters):
            return False
        rankings = {name: review.ranking for name, review in state.critiques.items()}
        drafts = tie_order(plan, [draft.seat for draft in state.successful_drafts()])
        missing = {}
        for name in plan.reviewers:
            if name not in rankings:
                missing[name] = [seat for seat in drafts if seat != name]
        return decided_winner(rankings.values(), drafts, missing) is not None

    enough = is_decided if phase == Phase.RANK else None
    async with anyio.create_task_group() as group:
        for name in plan.drafters:
            board.expect(name)
        if phase in plan.phases:
            group.start_soon(partial(phases.critique, state, board, phase=phase, enough=enough))
        await phases.draft(state, board)
        error = phases.unmet_quorum(state)
        if error is not None:  # raised below, outside the group, which would wrap it in an ExceptionGroup
            group.cancel_scope.cancel()
    if error is not None:
        raise error.fill(run_id=plan.run_id)
    if not state.ranking.order:
        state.ranking = tally((), tie_order(plan, [draft.seat for draft in state.successful_drafts()]))


def last_resort(state: RunState) -> FinalAnswer | RunError:
    """Return the outcome of a run whose event loop is blocked: its best draft, or the error of too few drafts.

    This is called in another thread, so nothing here may use the event loop.
    """
    limit = state.plan.budget.deadline
    reason = f"something blocks the event loop, beyond the {limit or 0:g} s of the run"
    for name in state.plan.drafters:
        if name not in state.drafts:
            error = TimedOut(f"{name} had not answered: {reason}", provider=state.plan.seat(name).provider)
            state.drafts[name] = Draft(seat=name, error=error, elapsed=state.elapsed())
            report = CallReport(phase=Phase.DRAFT, error=error, elapsed=state.elapsed())
            state.calls.setdefault(name, []).append(report)
    finished = state.successful_drafts()
    need = quorum_of(state.plan, len(state.plan.seats))
    if not finished:
        return DeadlineExceeded(f"no seat answered: {reason}", run_id=state.plan.run_id)
    if len(finished) < need:
        outcomes = {name: draft.error for name, draft in state.drafts.items()}
        message = f"{len(finished)} of {need} required seats answered: {reason}"
        return QuorumLost(message, outcomes=outcomes, run_id=state.plan.run_id)
    if not state.ranking.order:
        state.ranking = tally((), tie_order(state.plan, [draft.seat for draft in finished]))
    return _best_draft(state, f"{reason}: this is the best draft")


def _best_draft(state: RunState, reason: str) -> FinalAnswer:
    """Return the best-ranked draft as the answer of a degraded run; with a schema it has no output."""
    best = state.drafts[state.ranking.order[0]]
    state.degrade(reason, best.seat)
    if state.plan.schema is None:
        return _draft_as_answer(state, best)
    problem = Problem(path="$", message="this is a draft in prose: no seat could bring it into the form of the schema")
    return FinalAnswer(chair=best.seat, text=best.text, problems=(problem,))


def _draft_as_answer(state: RunState, draft: Draft) -> FinalAnswer:
    if draft.response is not None and draft.response.finish_reason == FinishReason.LENGTH:
        state.degrade("the answer was cut off at max_tokens", draft.seat)
    # Local models such as DeepSeek-R1 write their thoughts into the text, between tags.
    return FinalAnswer(chair=draft.seat, text=draft.text, output=drop_thinking(draft.text).strip())
