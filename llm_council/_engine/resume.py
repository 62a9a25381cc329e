"""Resume an interrupted run of the store, and replay a finished one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import sniffio
from anyio.to_thread import run_sync

from llm_council import _engine, pricing
from llm_council.errors import AdapterFailed, InvalidOption, StoreError
from llm_council.models import Budget, GenerateRequest, GenerateResponse, Phase, Plan, ProviderCapabilities, Status
from llm_council.models._attrs import copy_with
from llm_council.providers.base import ProviderAdapter
from llm_council.results import CouncilResult, TypedOutput
from llm_council.store import RunStore, Store
from llm_council.store._replay import PastRun, ReplayJournal
from llm_council.strategies._find import get_strategy, options_of
from llm_council.strategies.base import Strategy

if TYPE_CHECKING:
    from llm_council._engine.budget import Ledger
    from llm_council._schema.typed import OutputType

__all__ = ["replay", "resume"]


async def resume(
    store: Store | RunStore,
    run_id: str,
    seat_plan: Callable[[Plan], Mapping[str, ProviderAdapter]],
    given: Strategy | None = None,
    output_type: OutputType | None = None,
    *,
    budget: Budget | None = None,
    ledger: Ledger | None = None,
    keeps: Callable[[CouncilResult[Any]], bool] | None = None,
    turn: AbstractAsyncContextManager[object] | None = None,
    deltas: Collection[Phase] = (),
) -> CouncilResult[Any]:
    """Continue a run where its process left it. If the run already has an answer, its result is returned.

    Args:
        store: the store that holds the run.
        run_id: the run.
        seat_plan: returns the provider of each seat of a plan, by the seat's name, and refuses seats that cannot work.
        given: the council's strategy, which is used if it is the one of the run; no name may lead to it.
        output_type: the type of the output; None leaves it a JSON value.
        budget: limits from now on; None leaves those of the run.
        ledger: the account of the run, within that of a map; None makes one.
        keeps: returns True for a stored result that is returned although it is no answer; None is for none.
        turn: entered while the store is opened, where many runs are resumed at once.
        deltas: the phases in which the words of the seats are emitted as they are written.
    """
    turn = turn or nullcontext()
    async with turn:
        stored = await store.show(run_id)
    _check_type(stored.plan, output_type)
    result = None if stored.result is None else CouncilResult.from_dict(stored.result)
    ends = (Status.COMPLETED, Status.DEGRADED, Status.ABSTAINED)
    if result is not None and (stored.info.status in ends or (keeps is not None and keeps(result))):
        if ledger is not None:
            calls = sum(len(seat.calls) for seat in result.seats)
            tokens, usd = result.usage.total_tokens or 0, result.cost.usd or 0.0
            ledger.restore({"calls": calls, "tokens": tokens, "usd": usd})
        if output_type is None or not result.success or (result.output is None and output_type.problems(None)):
            return result
        typed = TypedOutput(output=output_type.read(result.output), value=result.output)
        return attrs.evolve(result, output=typed.output, typed=typed)
    adapters, strategy = seat_plan(stored.plan), _strategy_of(stored.plan, given)
    async with turn:
        plan, journal = await store._resumed(run_id)  # this plan has the bytes of attached files
    if budget is not None:
        plan = copy_with(plan, budget=budget)
    price = pricing.price_of(adapters)
    return await _engine.run_plan(
        plan,
        adapters,
        deltas=deltas,
        price=price,
        journal=journal,
        strategy=strategy,
        output_type=output_type,
        ledger=ledger,
    )


def _check_type(plan: Plan, output_type: OutputType | None) -> None:
    """Refuse a type that is not the one of a stored run."""
    if output_type is not None and (output_type.schema or {}) != (plan.schema or {}):
        asked = f"for {plan.output_type}" if plan.output_type else "without output_type"
        raise InvalidOption(
            f"output_type: the run {plan.run_id} was asked {asked}, and the schema of {output_type.name} is another one"
        )


def _strategy_of(plan: Plan, given: Strategy | None) -> Strategy:
    if given is not None and given.name == plan.strategy and options_of(given) == plan.strategy_options:
        return given
    return get_strategy(plan.strategy, **plan.strategy_options)


async def replay(
    store: Store | RunStore, run_id: str, given: Strategy | None = None, output_type: OutputType | None = None
) -> CouncilResult[Any]:
    """Execute a stored run again with its stored answers and times. No call is made, and nothing is written."""
    past = await store._past_run(run_id)
    if past.status in (None, Status.CANCELLED):
        state = "was cancelled" if past.status else "has not ended"
        raise StoreError(f"the run {run_id} {state}: there is no result to replay; resume it", kind="diverged")
    _check_type(past.plan, output_type)
    strategy = _strategy_of(past.plan, given)
    # asyncio runs tasks in a fixed order, which makes a replay deterministic. trio shuffles them on purpose.
    if sniffio.current_async_library() == "asyncio":
        return await _replay(past, strategy, output_type)
    # A replay writes nothing, so a cancelled caller need not wait for the thread.
    return await run_sync(partial(anyio.run, _replay, past, strategy, output_type), abandon_on_cancel=True)


async def _replay(past: PastRun, strategy: Strategy, output_type: OutputType | None) -> CouncilResult[Any]:
    journal = ReplayJournal(past)
    seats = {seat.name: _NoProvider() for seat in past.plan.seats}
    with journal.scope:
        return await _engine.run_plan(past.plan, seats, journal=journal, strategy=strategy, output_type=output_type)
    # The journal cancels the scope when the run diverges from what is stored.
    if journal.error is not None and past.plan.output_type is not None and output_type is None:
        kind = past.plan.output_type
        remedy = f"its answers were checked by {kind}: pass output_type={kind}, or --output-type on the command line"
        raise journal.error._reword(f"{journal.error.message}; {remedy}")
    raise journal.error or StoreError(f"the run {past.plan.run_id} could not be replayed", kind="diverged")


class _NoProvider(ProviderAdapter):
    """The provider of every seat in a replay: all answers come from the journal."""

    name = "nobody"
    capabilities = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        raise AdapterFailed("a replay makes no calls")
