"""What a run records in a journal, in which order, and that it uses the endings a journal holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest

from llm_council.models import Budget, GenerateResponse, Phase, Status
from llm_council.models._journal import Call, CallRecord, Journal
from llm_council.testing.fakes import ScriptedProvider

SCRIPT = {"draft": "a draft", "critique": "RANKING: A", "synthesise": "the answer"}


class ListJournal(Journal):
    """A journal that records everything in a list."""

    def __init__(self, known: Mapping[str, CallRecord] | None = None) -> None:
        self.known = dict(known or {})
        self.notes: list[str] = []
        self.endings: dict[str, CallRecord] = {}

    def record_moment(self, moment: str, now: float) -> float:
        if moment:
            self.notes.append(moment)
        return now

    def stored_ending(self, call: Call) -> CallRecord | None:
        return self.known.get(call.name)

    async def wait_in_order(self, call: Call) -> None:
        self.notes.append(f"in order:{call.name}")

    async def record_call(self, call: Call) -> None:
        await anyio.sleep(0)
        self.notes.append(f"call:{call.name}")

    async def record_ending(self, call: Call, ending: CallRecord) -> None:
        self.notes.append(f"ending:{call.name}")
        self.endings[call.name] = ending
        await anyio.sleep(0)

    def warnings(self) -> tuple[str, ...]:
        return ("from warnings",)

    async def record_result(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        self.notes.append(f"result:{status}")
        return ("from record_result",) if result()["warnings"][-1] == "from warnings" else ()

    def record_result_nowait(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        self.notes.append(f"result:{status}")


@pytest.mark.anyio
async def test_a_call_is_recorded_before_it_is_sent_and_its_ending_before_the_answer_is_used(table: Any) -> None:
    seats = table(a=ScriptedProvider(SCRIPT), b=ScriptedProvider(SCRIPT), c=ScriptedProvider(SCRIPT))
    journal = ListJournal()
    result = await seats.run(journal=journal)
    assert result.warnings[-2:] == ("from warnings", "from record_result")
    for name in journal.endings:
        order = [journal.notes.index(f"{word}:{name}") for word in ("asked", "call", "ending", "settled")]
        assert order == sorted(order)
    assert sorted(journal.endings) == [
        *("critique/a/1", "critique/b/1", "critique/c/1", "draft/a/1", "draft/b/1", "synthesise/c/1")
    ]
    assert journal.notes[0] == "opened:draft"
    assert journal.notes[-2:] == ["finished", "result:completed"]


@pytest.mark.anyio
async def test_a_call_whose_ending_the_journal_holds_is_not_sent(table: Any) -> None:
    known = CallRecord(response=GenerateResponse(text="from the journal"), elapsed=3.0, spent={"calls": 7})
    seats = table(a=ScriptedProvider(SCRIPT), b=ScriptedProvider(SCRIPT), c=ScriptedProvider(SCRIPT))
    result = await seats.run(journal=ListJournal({"draft/a/1": known}))
    assert result.drafts["a"] == "from the journal"
    assert seats.seats["a"].asked("draft") == []
    assert len(seats.seats["b"].asked("draft")) == 1
    assert result.seats[0].calls[0].elapsed == 3.0


@pytest.mark.anyio
async def test_a_call_that_the_budget_refuses_is_recorded_as_not_sent(table: Any) -> None:
    seats = table(a=ScriptedProvider(SCRIPT), b=ScriptedProvider(SCRIPT), c=ScriptedProvider(SCRIPT))
    journal = ListJournal()
    await seats.run(seats.plan(budget=Budget(calls=3)), journal=journal)
    refused = {name for name, ending in journal.endings.items() if not ending.sent}
    assert refused
    assert not {f"asked:{name}" for name in refused} & set(journal.notes)
    assert max(ending.spent["calls"] for ending in journal.endings.values()) <= 3


@pytest.mark.anyio
async def test_a_cancelled_run_records_its_endings_so_far_and_its_result(table: Any) -> None:
    seats = table(a=ScriptedProvider(SCRIPT, delay=float("inf")), b=ScriptedProvider(SCRIPT))
    journal = ListJournal()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: seats.run(journal=journal))
        while not journal.endings:
            await anyio.sleep(0)
        group.cancel_scope.cancel()
    assert journal.notes[-1] == "result:cancelled"
    assert Phase.DRAFT in {name.partition("/")[0] for name in journal.endings}
