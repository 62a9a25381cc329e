"""One run, from a plan and the adapters in its seats to its result."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from llm_council import _runtime
from llm_council._engine.budget import ASSUMED, Ledger, Price
from llm_council._engine.draft_verdicts import last_resort
from llm_council._engine.state import RunState
from llm_council._engine.table import RunTable
from llm_council._runtime import call_context
from llm_council._schema import drop_thinking
from llm_council.errors import Abstained, CouncilError, InvalidOption, InvalidOutput, RunError, StrategyFailed
from llm_council.events import RunFinished, RunStarted
from llm_council.models import Cost, Critique, Phase, Plan, SeatSpec, Status, Usage
from llm_council.models._journal import NO_JOURNAL, Journal
from llm_council.providers.base import ProviderAdapter
from llm_council.results import CouncilResult, SeatReport, TypedOutput, total_cost
from llm_council.strategies._find import get_strategy
from llm_council.strategies.base import Strategy, Verdict

if TYPE_CHECKING:
    from llm_council._schema.typed import OutputType

__all__ = ["run_plan"]

OVERTIME = 0.5
"""Seconds after the deadline of a run that its strategy has to end by itself: calls end at the deadline."""

_ORDER = {phase: place for place, phase in enumerate(Phase)}
_LABEL = re.compile(r"\b[Dd]raft ([A-Z]{1,3})\b")


async def run_plan(
    plan: Plan,
    adapters: Mapping[str, ProviderAdapter],
    *,
    clock: Callable[[], float] = time.monotonic,
    deltas: Collection[Phase] = (),
    price: Price | None = None,
    on_result: Callable[[CouncilResult], None] | None = None,
    journal: Journal = NO_JOURNAL,
    strategy: Strategy | None = None,
    output_type: OutputType | None = None,
    ledger: Ledger | None = None,
) -> CouncilResult[Any]:
    """Execute a plan, and report it to the listeners of the current context.

    Every run that has started returns: a failed one with its ``error``, one that ran out of time with its best draft.

    Args:
        plan: the plan.
        adapters: the provider of each seat, by the seat's name.
        clock: returns monotonic seconds, for events, reports and adapters.
        deltas: the phases in which the seats' answers are streamed, and their text is emitted as it arrives.
        price: returns the price of a call in US dollars, for adapters that report no cost.
        on_result: called with the result however the run ends; the only way to get the result of a cancelled run.
        journal: records the run.
        strategy: the strategy of the plan; None makes it by its name and options.
        output_type: the type of the output; None leaves it a JSON value.
        ledger: the account of the run, within that of a map; None makes one of the plan's budget and ``price``.

    Returns:
        The result. Cancellation passes through.

    Raises:
        ConfigurationError: there is no such strategy.
    """
    strategy = strategy or get_strategy(plan.strategy, **plan.strategy_options)
    scope = call_context.RunScope(
        run_id=plan.run_id,
        deadline=None if plan.budget.deadline is None else clock() + plan.budget.deadline,
        allowed=plan.budget.deadline,
        clock=clock,
        tokens=call_context.RetryTokens(),
    )
    with call_context.entered(scope):
        ledger = Ledger(plan.budget, price) if ledger is None else ledger
        state = RunState(plan, adapters, ledger, clock, deltas, journal, output_type)
        state.emit(RunStarted, at=0.0, plan=plan)
        try:
            with _runtime.Fallback(plan.budget.deadline, partial(_blocked_result, state, on_result)):
                # The draft phase frees the slot once its first calls are sent; this frees it if the phase never does.
                async with state.start_slot:
                    final: Verdict | RunError = await _deliberate(strategy, state)
        except RunError as error:
            final = error.with_traceback(None)  # its frames hold the result that it becomes part of
        except BaseException:  # cancellation or Ctrl-C: report the partial result, and re-raise
            # The thread that waits for a blocked event loop has published the result already.
            if state.abandoned:
                raise
            result = _result(state, None)
            # A cancelled task must not wait for the disk.
            journal.record_result_nowait(result.status, result.to_dict)
            _publish(state, result, on_result)
            raise
        result = _result(state, final)
        # The result is published even if this wait is cancelled: its answer was paid for.
        try:
            more_warnings = await journal.record_result(result.status, result.to_dict)
            if more_warnings:
                result = attrs.evolve(result, warnings=(*result.warnings, *more_warnings))
        finally:
            _publish(state, result, on_result)
        return result


async def _deliberate(strategy: Strategy, state: RunState) -> Verdict | RunError:
    """Let the strategy work until the end of the run, and return its verdict.

    Raises:
        RunError: the run has failed; ``StrategyFailed`` if the strategy is wrong.
    """
    late = False
    verdict: object = None
    try:
        with anyio.CancelScope(deadline=state.end + OVERTIME) as scope:
            verdict = await strategy.deliberate(RunTable(state))
        late = scope.cancelled_caught
    except Exception as error:  # noqa: BLE001 - a strategy of another distribution may raise anything
        raise _as_run_error(error, state.plan) from None
    if late:
        limit = state.plan.budget.deadline or 0
        return last_resort(state, f"the strategy {state.plan.strategy!r} went on after the {limit:g} s of the run")
    if isinstance(verdict, Coroutine):
        verdict.close()
        raise StrategyFailed(
            f"the strategy {state.plan.strategy!r} returned a coroutine: write 'await' before the call whose result it"
            " returns",
            run_id=state.plan.run_id,
        )
    if not isinstance(verdict, Verdict):
        raise StrategyFailed(
            f"the strategy {state.plan.strategy!r} must return a Verdict, such as that of table.finish(draft); it"
            f" returned {type(verdict).__name__}",
            run_id=state.plan.run_id,
        )
    return verdict


def _as_run_error(error: Exception, plan: Plan) -> RunError:
    """Return the error of a run whose strategy raised."""
    if isinstance(error, ExceptionGroup):  # of a task group of the strategy
        failed = error.subgroup(RunError)
        return _as_run_error((failed or error).exceptions[0], plan)
    if isinstance(error, RunError):
        return error
    if isinstance(error, CouncilError):
        return StrategyFailed(f"the strategy {plan.strategy!r} failed: {error.message}", run_id=plan.run_id)
    reason = f"{type(error).__name__}: {error}"
    if "coroutine" in reason or "'await' expression" in reason:
        reason += "; deliberate must be 'async def', and methods of the table that ask seats need 'await'"
    logging.getLogger("llm_council").error("the strategy %r failed", plan.strategy, exc_info=error)
    return StrategyFailed(f"the strategy {plan.strategy!r} failed: {reason}", run_id=plan.run_id)


def _blocked_result(state: RunState, on_result: Callable[[CouncilResult], None] | None) -> CouncilResult:
    """Make the result of a run whose event loop is still blocked after the deadline; called in the waiting thread."""
    state.abandoned = True
    limit = state.plan.budget.deadline or 0
    result = _result(state, last_resort(state, f"something blocks the event loop, beyond the {limit:g} s of the run"))
    _publish(state, result, on_result)
    return result


def _publish(state: RunState, result: CouncilResult, on_result: Callable[[CouncilResult], None] | None) -> None:
    if state.plan.schema is not None and result.output_value is not None:
        state.report_partial(result.output_value, result.duration)
    if on_result is not None:
        on_result(result)
    state.emit(
        RunFinished,
        at=result.duration,
        status=result.status,
        elapsed=result.duration,
        answers=result.answers,
        overruled=result.overruled,
        otherwise=result.otherwise,
    )


def _result(state: RunState, final: Verdict | RunError | None) -> CouncilResult:
    """Make the result of a run from its answer or its error; None means that it was cancelled."""
    plan = state.plan
    final, typed = _typed_output(state, final)
    answer = final if isinstance(final, Verdict) else None
    error = final.error if isinstance(final, Verdict) else final
    if final is None:
        status = Status.CANCELLED
    elif isinstance(error, Abstained):
        status = Status.ABSTAINED
    elif error is not None:
        status = Status.FAILED
    else:
        status = Status.DEGRADED if state.degraded else Status.COMPLETED
    seats = tuple(_seat_report(state, seat) for seat in plan.seats)
    reviews = [state.critiques[name] for name in plan.reviewers if name in state.critiques]
    calls = tuple(call for seat in seats for call in seat.calls)
    return CouncilResult(
        run_id=plan.run_id,
        task=plan.task,
        subagent=plan.subagent,
        mode=plan.mode,
        status=status,
        output=typed.output if typed else answer.output if answer else None,
        typed=typed,
        # ``BudgetExceeded`` has the best draft so far.
        text=answer.text if answer else getattr(error, "partial", None),
        drafts={draft.name: drop_thinking(draft.text) for draft in state.successful_drafts()},
        critiques={review.seat: _with_authors(review) for review in reviews if review.error is None},
        ranking=state.ranking,
        answers=answer.answers if answer else {},
        tally=answer.tally if answer else None,
        agreement=answer.agreement if answer else None,
        dissent=answer.dissent if answer else (),
        otherwise=answer.otherwise if answer else {},
        judgements=answer.judgements if answer else (),
        bias=answer.bias if answer else {},
        rounds=answer.rounds if answer else (),
        rungs=answer.rungs if answer else (),
        checks=answer.checks if answer else (),
        overruled=answer.overruled if answer else None,
        spared_calls=len(answer.spared) if answer else 0,
        spared_usd=_spared_usd(state, answer.spared) if answer else None,
        seats=seats,
        chair=answer.chair if answer else None,
        error=error,
        problems=answer.problems if answer else (),
        errors={seat.name: seat.error for seat in seats if seat.error is not None},
        warnings=(
            *plan.warnings,
            *dict.fromkeys(seat.warning for seat in plan.seats if seat.warning),
            *state.warnings,
            *_budget_warnings(state),
            *state.journal.warnings(),
        ),
        usage=sum((seat.usage for seat in seats), Usage()),
        cost=total_cost(calls) if calls else Cost(),
        phases=tuple(state.timings[phase] for phase in plan.phases if phase in state.timings),
        duration=state.elapsed("finished"),
        plan=plan,
        metadata=plan.metadata,
    )


def _typed_output(
    state: RunState, final: Verdict | RunError | None
) -> tuple[Verdict | RunError | None, TypedOutput | None]:
    """Return the outcome of a run, and its output as an instance of the type that the caller gave.

    The output of a strategy's own verdict may be any value: one that the type does not take is an error.
    """
    kind = state.output_type
    if kind is None or not isinstance(final, Verdict) or final.error is not None:
        return final, None
    if final.output is None and kind.problems(None):  # a verdict without output, and not the answer null
        return final, None
    try:
        return final, TypedOutput(output=kind.read(final.output), value=final.output)
    except InvalidOption as refusal:
        problems = kind.problems(final.output)
        error = InvalidOutput(refusal.message, problems=problems, text=final.text, run_id=state.plan.run_id)
        return attrs.evolve(final, output=None, error=error, problems=problems), None


def _spared_usd(state: RunState, spared: Sequence[str]) -> float | None:
    """Return what calls that were not made would have cost, with the tokens of an average draft of the run."""
    usages = [draft.response.usage for draft in state.successful_drafts() if draft.response is not None]
    sizes = [(one.input_tokens, one.output_tokens) for one in usages if one is not None]
    known = [(tokens_in, tokens_out) for tokens_in, tokens_out in sizes if None not in (tokens_in, tokens_out)]
    if not spared or not known:
        return None
    tokens_in, tokens_out = (sum(size or 0 for size in each) // len(known) for each in zip(*known, strict=True))
    usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
    costs = [state.ledger.price_of(state.plan.seat(name), usage) for name in spared]
    return None if None in costs else sum(cost or 0.0 for cost in costs)


def _seat_report(state: RunState, seat: SeatSpec) -> SeatReport:
    # In the order of the phases: a seat may have reviewed the others' drafts before its own was finished.
    calls = sorted(state.calls.get(seat.name, ()), key=lambda call: _ORDER[call.phase])
    answered = (call.response.model for call in calls if call.response is not None and call.response.model)
    return SeatReport(name=seat.name, provider=seat.provider, model=next(answered, seat.model), calls=calls)


def _with_authors(review: Critique) -> str:
    """Return a review with the author's name after each label, for readers who do not know the labels."""

    def name(found: re.Match[str]) -> str:
        author = review.labels.get(found[1])
        return found[0] if author is None else f"{found[0]} ({author})"

    return _LABEL.sub(name, drop_thinking(review.text))


def _budget_warnings(state: RunState) -> list[str]:
    """Return warnings about calls that the budget could only estimate."""
    ledger, budget = state.ledger, state.plan.budget
    warnings = []
    if ledger.estimated and (budget.tokens is not None or budget.usd is not None):
        warnings.append("some calls did not report their usage: the budget counted an estimate")
    if budget.usd is not None and ledger.unpriced:
        dollars_in, dollars_out = ASSUMED
        warnings.append(
            f"the price of the calls of {', '.join(sorted(ledger.unpriced))} is unknown: the budget counted"
            f" {dollars_in:g} US dollars for a million tokens in and {dollars_out:g} out; if you can, install the"
            " prices: pip install 'llm-council-sdk[prices]'"
        )
    return warnings
