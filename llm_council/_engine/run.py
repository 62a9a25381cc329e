"""One run, from a plan and the adapters in its seats to its result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial

import attrs

from llm_council import _runtime
from llm_council._engine.budget import ASSUMED, Ledger, Price
from llm_council._engine.repair import Final
from llm_council._engine.sitting import Sitting
from llm_council._engine.strategies import STRATEGIES, last_resort
from llm_council._runtime import call_context
from llm_council._schema import drop_thinking
from llm_council.errors import RunError
from llm_council.events import RunFinished, RunStarted, emit
from llm_council.models import Cost, Critique, Phase, Plan, SeatSpec, Status, Usage
from llm_council.models._journal import NO_JOURNAL, Journal
from llm_council.providers.base import ProviderAdapter
from llm_council.results import CouncilResult, SeatReport, total_cost

__all__ = ["conduct"]


async def conduct(
    plan: Plan,
    adapters: Mapping[str, ProviderAdapter],
    *,
    clock: Callable[[], float] = time.monotonic,
    deltas: bool = False,
    price: Price | None = None,
    on_result: Callable[[CouncilResult], None] | None = None,
    journal: Journal = NO_JOURNAL,
) -> CouncilResult:
    """Conduct a run, telling listeners of the current context about it.

    Every run that was started returns: a failed one with its ``error``, one whose deadline passed with what is there.

    Args:
        plan: what to do.
        adapters: what sits in each seat, by the seat's name.
        clock: monotonic seconds, for events, reports and whatever the adapters measure.
        deltas: stream the seats' answers and tell their words as they come.
        price: US dollars of a call, for adapters that do not report them.
        on_result: gets the result of a run however it ended: that of a cancelled run goes nowhere else.
        journal: what keeps a journal of the run.

    Returns:
        The result. Cancellation passes untouched.
    """
    scope = call_context.RunScope(
        run_id=plan.run_id,
        deadline=None if plan.budget.deadline is None else clock() + plan.budget.deadline,
        clock=clock,
        seed=plan.seed,
        tokens=call_context.RetryTokens(),
    )
    with call_context.entered(scope):
        sitting = Sitting(plan, adapters, Ledger(plan.budget, price), clock, deltas, journal)
        emit(RunStarted(run_id=plan.run_id, at=0.0, plan=plan))
        try:
            with _runtime.Answering(plan.budget.deadline, partial(_stand_in, sitting, on_result)):
                async with sitting.admission:
                    final: Final | RunError = await STRATEGIES[plan.strategy](sitting)
        except RunError as error:
            final = error.with_traceback(None)  # the result keeps it: its frames hold the result, in a cycle
        except BaseException:  # a cancellation, or Ctrl-C: what is there is told, and the exception passes
            if sitting.over:
                raise
            result = _result(sitting, None)
            journal.left(result.status, result.to_dict)
            _tell(result, on_result)
            raise
        result = _result(sitting, final)
        try:
            further = await journal.finished(result.status, result.to_dict)
            result = attrs.evolve(result, warnings=(*result.warnings, *further)) if further else result
        finally:
            _tell(result, on_result)
        return result


def _stand_in(sitting: Sitting, on_result: Callable[[CouncilResult], None] | None) -> CouncilResult:
    """Make the result of a run whose event loop stands still beyond the deadline, in the thread that waits for it."""
    sitting.over = True
    result = _result(sitting, last_resort(sitting))
    _tell(result, on_result)
    return result


def _tell(result: CouncilResult, on_result: Callable[[CouncilResult], None] | None) -> None:
    if on_result is not None:
        on_result(result)
    emit(RunFinished(run_id=result.run_id, at=result.duration, status=result.status, elapsed=result.duration))


def _result(sitting: Sitting, final: Final | RunError | None) -> CouncilResult:
    plan = sitting.plan
    answer = final if isinstance(final, Final) else None
    error = final.error if isinstance(final, Final) else final
    if final is None:
        status = Status.CANCELLED
    elif error is not None:
        status = Status.FAILED
    else:
        status = Status.DEGRADED if sitting.degraded else Status.COMPLETED
    seats = tuple(_seat_report(sitting, seat) for seat in plan.seats)
    reviews = [sitting.critiques[name] for name in plan.reviewers if name in sitting.critiques]
    calls = tuple(call for seat in seats for call in seat.calls)
    return CouncilResult(
        run_id=plan.run_id,
        task=plan.task,
        subagent=plan.subagent,
        mode=plan.mode,
        status=status,
        output=answer.output if answer else None,
        text=answer.text if answer else getattr(error, "partial", None),
        drafts={draft.seat: drop_thinking(draft.text) for draft in sitting.finished()},
        critiques={review.seat: _named(review) for review in reviews if review.error is None},
        ranking=sitting.ranking,
        seats=seats,
        chair=answer.chair if answer else None,
        error=error,
        problems=answer.problems if answer else (),
        errors={seat.name: seat.error for seat in seats if seat.error is not None},
        warnings=(
            *(plan.notes if not plan.reviewers else ()),
            *sitting.warnings,
            *_uncounted(sitting),
            *sitting.journal.warnings(),
        ),
        usage=sum((seat.usage for seat in seats), Usage()),
        cost=total_cost(calls) if calls else Cost(),
        phases=tuple(sitting.timings[phase] for phase in plan.phases if phase in sitting.timings),
        duration=sitting.at("finished"),
        plan=plan,
        metadata=plan.metadata,
    )


def _seat_report(sitting: Sitting, seat: SeatSpec) -> SeatReport:
    # In the order of the phases: a seat may have reviewed the others' drafts before its own was finished.
    calls = sorted(sitting.calls.get(seat.name, ()), key=lambda call: _ORDER[call.phase])
    answered = (call.response.model for call in calls if call.response is not None and call.response.model)
    return SeatReport(name=seat.name, provider=seat.provider, model=next(answered, seat.model), calls=calls)


_ORDER = {phase: place for place, phase in enumerate(Phase)}
_LABEL = re.compile(r"\b[Dd]raft ([A-Z]{1,3})\b")


def _named(review: Critique) -> str:
    """Return a reviewer's words, with the author's name after each label: readers were never shown who is who."""

    def name(found: re.Match[str]) -> str:
        author = review.labels.get(found[1])
        return found[0] if author is None else f"{found[0]} ({author})"

    return _LABEL.sub(name, drop_thinking(review.text))


def _uncounted(sitting: Sitting) -> list[str]:
    """Say what the budget could not count exactly."""
    ledger, budget = sitting.ledger, sitting.plan.budget
    said = []
    if ledger.estimated and (budget.tokens is not None or budget.usd is not None):
        said.append("some calls did not report what they took: the budget counted an estimate of it")
    if budget.usd is not None and ledger.unpriced:
        dollars_in, dollars_out = ASSUMED
        said.append(
            f"nobody knows what the calls of {', '.join(sorted(ledger.unpriced))} cost: the budget counted"
            f" {dollars_in:g} US dollars for a million tokens in and {dollars_out:g} out; if you can, install the"
            " prices: pip install 'llm-council-sdk[prices]'"
        )
    return said
