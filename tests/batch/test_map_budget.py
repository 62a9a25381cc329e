"""One budget over all runs of a map: nothing overshoots it, and tasks without room are results that say so."""

from __future__ import annotations

from math import inf
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Budget, Council, CouncilConfig, CouncilResult, Status, errors
from llm_council.batch.shared_budget import SharedBudget
from llm_council.models import Cost, GenerateRequest, GenerateResponse, Usage
from llm_council.testing.fakes import ScriptedProvider

PRICE = 0.25


def answer(request: GenerateRequest) -> GenerateResponse:
    cost = Cost(usd=PRICE, source="reported", complete=True)
    return GenerateResponse(text="42", usage=Usage(input_tokens=10, output_tokens=5), cost=cost)


def council_of(seats: int = 1, **options: Any) -> tuple[Council, list[ScriptedProvider]]:
    adapters = [ScriptedProvider(answer, name=f"seat-{number}") for number in range(seats)]
    strategy = "single" if seats == 1 else "poll"
    return Council(adapters, config=CouncilConfig(), strategy=strategy, **options), adapters


def calls_of(adapters: list[ScriptedProvider]) -> int:
    return sum(len(adapter.requests) for adapter in adapters)


def not_begun(results: list[CouncilResult[Any]]) -> list[CouncilResult[Any]]:
    return [result for result in results if not result.run_id]


def test_tasks_without_room_are_results_with_the_amounts_that_were_spent() -> None:
    council, adapters = council_of()
    results = list(council.map(map(str, range(6)), budget=Budget(calls=4), output_type=int))
    assert [result.success for result in results] == [True] * 4 + [False] * 2
    assert calls_of(adapters) == 4
    for result in not_begun(results):
        assert isinstance(result.error, errors.BudgetExceeded)
        assert result.error.spent["calls"] == 4
        assert "the budget of this map is 4 calls" in str(result.error)
    assert [result.task_id for result in not_begun(results)] == ["4", "5"]


def test_a_run_that_could_not_be_finished_is_not_begun() -> None:
    council, adapters = council_of(3)
    first = council.run_sync("task", output_type=int)
    each = calls_of(adapters)
    assert first.success
    council, adapters = council_of(3)
    results = list(council.map(map(str, range(5)), budget=Budget(calls=2 * each + 1), output_type=int))
    assert [result.success for result in results] == [True, True, False, False, False]
    assert len(not_begun(results)) == 3
    assert calls_of(adapters) == 2 * each


def test_money_is_counted_over_all_runs_beside_the_limit_of_each() -> None:
    council, adapters = council_of(budget=Budget(usd=1.0))
    results = list(council.map(map(str, range(9)), budget=Budget(usd=5 * PRICE), output_type=int, concurrency=3))
    assert calls_of(adapters) == 5
    assert sum(result.cost.usd or 0 for result in results) == 5 * PRICE
    assert len(not_begun(results)) == 4


def test_the_budget_of_the_council_limits_each_run_and_not_the_map() -> None:
    council, adapters = council_of(budget=Budget(calls=1))
    results = list(council.map(map(str, range(5)), budget=Budget(calls=100), output_type=int))
    assert all(result.success for result in results)
    assert calls_of(adapters) == 5


@pytest.mark.anyio
async def test_the_deadline_of_the_map_ends_the_runs_and_refuses_the_others() -> None:
    council = Council([ScriptedProvider("42", delay=inf)], config=CouncilConfig(), strategy="single")
    results = [r async for r in council.map(map(str, range(4)), budget=Budget(deadline=0.2), concurrency=2)]
    assert [result.status for result in results] == [Status.FAILED] * 4
    assert [bool(result.run_id) for result in results] == [True, True, False, False]
    assert all(isinstance(result.error, errors.DeadlineExceeded) for result in not_begun(results))
    deadlines = [result.plan.budget.deadline for result in results[:2]]
    assert all(deadline is not None and deadline <= 0.2 for deadline in deadlines)


def test_a_budget_without_a_deadline_of_its_own_sets_none_for_the_map() -> None:
    assert not Budget(usd=3)._has_own_deadline()
    assert Budget(deadline=300)._has_own_deadline()
    assert Budget(deadline=float("300"))._has_own_deadline()
    account = Spending()
    assert SharedBudget(Budget(usd=3), account).seconds_left() is None
    assert SharedBudget(Budget(deadline=60), account, clock=lambda: 5.0).seconds_left() == 60


limits = st.builds(
    Budget,
    calls=st.none() | st.integers(1, 12),
    tokens=st.none() | st.integers(1, 400),
    usd=st.none() | st.floats(0, 3),
)


@pytest.mark.anyio
@examples(25)
@given(limits, st.integers(0, 8), st.integers(1, 5), st.sampled_from([1, 3]), st.booleans())
async def test_no_map_overshoots_its_budget(
    budget: Budget, number: int, concurrency: int, seats: int, ordered: bool
) -> None:
    council, adapters = council_of(seats)
    options: dict[str, Any] = {"concurrency": concurrency, "ordered": ordered, "output_type": int, "max_tokens": 5}
    results = [r async for r in council.map(map(str, range(number)), budget=budget, **options)]
    assert sorted(int(result.task_id or "") for result in results) == list(range(number))
    calls = calls_of(adapters)
    assert calls <= (inf if budget.calls is None else budget.calls)
    assert 15 * calls <= (inf if budget.tokens is None else budget.tokens)
    # The price of the first call of each seat is unknown before it was made.
    assert PRICE * calls <= (inf if budget.usd is None else budget.usd + PRICE * seats) + 1e-6
    for result in not_begun(results):
        assert isinstance(result.error, errors.BudgetExceeded)


# Which runs begin.


class Spending:
    """An account that a test fills in."""

    def __init__(self) -> None:
        self.spent = {"usd": 0.0, "tokens": 0.0, "calls": 0.0}

    def spend(self, calls: float) -> dict[str, float]:
        self.spent["calls"] += calls
        return {"usd": 0.0, "tokens": 0.0, "calls": calls}


@pytest.mark.anyio
async def test_as_many_runs_begin_as_fit_by_the_estimate_and_then_by_the_average() -> None:
    account = Spending()
    shared = SharedBudget(Budget(calls=10), account)
    begun = 0

    async def begin() -> None:
        nonlocal begun
        await shared.begin(lambda: {"usd": 0.0, "tokens": 0.0, "calls": 4.0})
        begun += 1

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(begin)
        await anyio.wait_all_tasks_blocked()
        assert begun == 2  # a third may not fit, as far as anybody knows
        shared.end(account.spend(2.0))
        await anyio.wait_all_tasks_blocked()
        assert begun == 5
        for _ in range(4):
            shared.end(account.spend(2.0))
    with pytest.raises(errors.BudgetExceeded, match="10 calls"):
        await begin()


@pytest.mark.anyio
async def test_a_run_alone_is_tried_if_the_least_of_the_others_would_fit() -> None:
    account = Spending()
    shared = SharedBudget(Budget(calls=10), account)
    estimate = dict.fromkeys(account.spent, 1.0)
    for calls in (2.0, 5.0):
        await shared.begin(lambda: estimate)
        shared.end(account.spend(calls))
    await shared.begin(lambda: estimate)
    shared.end(account.spend(2.0))
    with pytest.raises(errors.BudgetExceeded):
        await shared.begin(lambda: estimate)


@pytest.mark.slow
@pytest.mark.anyio
@examples(12)
@given(st.integers(1, 30), st.lists(st.integers(0, 6), max_size=12), st.integers(1, 6), st.integers(1, 4))
async def test_every_task_begins_or_is_refused_whatever_the_runs_use(
    limit: int, uses: list[int], guess: int, concurrency: int
) -> None:
    account = Spending()
    shared = SharedBudget(Budget(calls=limit), account)
    estimate = dict.fromkeys(account.spent, float(guess))
    running: list[int] = []
    refused = 0

    async def begin(calls: int) -> None:
        nonlocal refused
        try:
            await shared.begin(lambda: estimate)
        except errors.BudgetExceeded:
            assert not running  # while one goes on, it may give something back
            refused += 1
        else:
            running.append(calls)

    waiting, ended = list(uses), 0
    async with anyio.create_task_group() as group:
        while ended + refused < len(uses):
            for calls in waiting[:concurrency]:
                group.start_soon(begin, calls)
            del waiting[:concurrency]
            await anyio.wait_all_tasks_blocked()
            assert running or ended + refused == len(uses) or waiting
            if running:
                shared.end(account.spend(min(running.pop(0), limit - account.spent["calls"])))
                ended += 1
                await anyio.wait_all_tasks_blocked()
    assert account.spent["calls"] <= limit
