"""How a map takes up the runs that an earlier process has stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_council import Council, CouncilConfig, Task
from llm_council._engine.budget import Ledger
from llm_council.batch.restart import Restart, is_stopped
from llm_council.errors import BudgetExceeded, QuorumLost, StoreError
from llm_council.models import Budget, Plan, Status
from llm_council.results import CouncilResult
from llm_council.store import Store
from llm_council.testing.fakes import ScriptedProvider

ANSWER = '{"answer": "yes", "reasoning": "so"}'


def run_id(task: Task) -> str:
    return f"run-{task.id}"


def council_in(path: Path, seat: ScriptedProvider, *stored: str, **options: Any) -> Council:
    restart = Restart(run_id=run_id, stored=stored, **options)
    return Council([seat], config=CouncilConfig(store=str(path)), strategy="single")._restarting(restart)


def test_the_ids_of_runs_follow_from_the_tasks_and_stored_runs_are_not_repeated(tmp_path: Path) -> None:
    seat = ScriptedProvider(ANSWER)
    tasks = [Task("One?", id="a"), Task("Two?", id="b")]
    first = list(council_in(tmp_path / "runs.db", seat).map(tasks))
    assert [result.run_id for result in first] == ["run-a", "run-b"]
    again = council_in(tmp_path / "runs.db", seat, "run-a", "run-b")
    second = list(again.map([*tasks, Task("Three?", id="c")]))
    assert [result.to_dict() for result in second[:2]] == [result.to_dict() for result in first]
    assert len(seat.requests) == 3


def test_a_busy_store_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seat = ScriptedProvider(ANSWER)
    list(council_in(tmp_path / "runs.db", seat).map([Task("One?", id="a")]))
    busy = [StoreError("another process held it", kind="locked")] * 2
    real = Store.show

    async def show(self: Store, name: str) -> Any:
        if busy:
            raise busy.pop()
        return await real(self, name)

    monkeypatch.setattr(Store, "show", show)
    (result,) = council_in(tmp_path / "runs.db", seat, "run-a").map([Task("One?", id="a")])
    assert result.success
    assert (len(seat.requests), busy) == (1, [])


def test_what_was_spent_before_counts_in_the_budget_of_the_map() -> None:
    above = Ledger(Budget(usd=5.0), owner="map")
    for _ in range(2):
        run = Ledger(Budget(), above=above)
        run.restore({"calls": 3, "tokens": 100, "usd": 0.5})
        run.restore({"calls": 1, "tokens": 50, "usd": 0.25})  # an older one
        assert run.spent == {"usd": 0.5, "tokens": 100, "calls": 3}
    assert above.spent == {"usd": 1.0, "tokens": 200, "calls": 6}


@pytest.mark.parametrize(
    ("scope", "status", "stopped"),
    [("map", Status.FAILED, True), ("run", Status.FAILED, False), ("map", Status.DEGRADED, False)],
)
def test_only_the_budget_of_the_map_leaves_a_task_to_be_done(scope: str, status: Status, *, stopped: bool) -> None:
    plan = Plan(run_id="r", task="One?", subagent="advisor")
    spent = BudgetExceeded("the budget is spent", scope=scope)
    facts: dict[str, Any] = {"run_id": "r", "task": "One?", "subagent": "advisor", "plan": plan, "status": status}
    direct = CouncilResult(error=spent, **facts)
    seats = CouncilResult(error=QuorumLost("0 of 1"), errors={"a": spent}, **facts)
    for result in (direct, seats):
        assert is_stopped(result) is stopped
        assert is_stopped(CouncilResult.from_dict(result.to_dict())) is stopped
        kept = Restart(run_id=run_id).keeps(result)
        assert kept is (status == Status.FAILED and not stopped)
        assert not Restart(run_id=run_id, retries_failed=True).keeps(result)
