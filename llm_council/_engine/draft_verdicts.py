"""Answers of a run that are drafts: of a strategy that returns one, and where nothing better could be written."""

from __future__ import annotations

from llm_council._engine.budget import quorum_of
from llm_council._engine.ranking import tally, tie_order
from llm_council._engine.state import RunState
from llm_council._schema import drop_thinking
from llm_council.errors import DeadlineExceeded, QuorumLost, RunError, TimedOut
from llm_council.models import Draft, FinishReason, Phase, Problem
from llm_council.results import CallReport
from llm_council.strategies.base import Reply, Verdict

__all__ = ["as_verdict", "degraded_verdict", "last_resort", "rank_drafts"]


def as_verdict(state: RunState, answer: Draft | Reply) -> Verdict:
    """Return a text of a seat as the answer of a run without a schema."""
    if answer.response is not None and answer.response.finish_reason == FinishReason.LENGTH:
        state.degrade("the answer was cut off at max_tokens", answer.seat)
    # Local models such as DeepSeek-R1 write their thoughts into the text, between tags.
    return Verdict(chair=answer.seat, text=answer.text, output=drop_thinking(answer.text).strip())


def degraded_verdict(state: RunState, best: Draft | Reply, reason: str) -> Verdict:
    """Return a text of a seat as the answer of a degraded run; with a schema it has no output."""
    state.degrade(reason, best.seat)
    if state.plan.schema is None:
        return as_verdict(state, best)
    problem = Problem(path="$", message="this is a draft in prose: no seat could bring it into the form of the schema")
    return Verdict(chair=best.seat, text=best.text, problems=(problem,))


def rank_drafts(state: RunState) -> None:
    """Set the ranking of a run that has none: the run's seed decides the order."""
    if not state.ranking.order:
        drafted = dict.fromkeys(draft.seat for draft in state.successful_drafts())
        state.ranking = tally((), tie_order(state.plan, list(drafted)))


def last_resort(state: RunState, reason: str) -> Verdict | RunError:
    """Return the outcome of a run that must end now: its best draft, or the error of too few drafts.

    This may be called in another thread, so nothing here may use the event loop.

    Args:
        state: the run.
        reason: why it must end, such as "something blocks the event loop, beyond the 300 s of the run".
    """
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
    if len({draft.seat for draft in finished}) < need:
        outcomes = {name: draft.error for name, draft in state.drafts.items()}
        message = f"{len(finished)} of {need} required seats answered: {reason}"
        return QuorumLost(message, outcomes=outcomes, run_id=state.plan.run_id)
    rank_drafts(state)
    best = next(draft for draft in finished if draft.seat == state.ranking.order[0])
    return degraded_verdict(state, best, f"{reason}: this is the best draft")
