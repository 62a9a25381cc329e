"""What a run tells a journal, and in which order; what a journal tells is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest

from llm_council.models import GenerateResponse, Phase, Status
from llm_council.models._journal import Call, Ending
from llm_council.testing.fakes import ScriptedProvider

SCRIPT = {"draft": "a draft", "critique": "RANKING: A", "synthesise": "the answer"}


class Notes:
    """A journal that writes everything into a list."""

    def __init__(self, known: Mapping[str, Ending] | None = None) -> None:
        self.known = dict(known or {})
        self.notes: list[str] = []
        self.endings: dict[str, Ending] = {}

    def at(self, moment: str, now: float) -> float:
        if moment:
            self.notes.append(moment)
        return now

    def decided(self, moment: str, *, now: bool) -> bool:
        return now

    def recalled(self, call: Call) -> Ending | None:
        return self.known.get(call.name)

    async def turn(self, call: Call) -> None:
        self.notes.append(f"turn:{call.name}")

    async def asking(self, call: Call) -> None:
        await anyio.sleep(0)
        self.notes.append(f"asking:{call.name}")

    async def answered(self, call: Call, ending: Ending) -> None:
        self.notes.append(f"answered:{call.name}")
        self.endings[call.name] = ending
        await anyio.sleep(0)

    def warnings(self) -> tuple[str, ...]:
        return ("kept",)

    async def finished(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        self.notes.append(f"result:{status}")
        return ("and done",) if result()["warnings"][-1] == "kept" else ()

    def left(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        self.notes.append(f"result:{status}")


@pytest.mark.anyio
async def test_a_call_is_noted_before_it_is_made_and_its_end_before_it_is_used(table: Any) -> None:
    seats = table(a=ScriptedProvider(SCRIPT), b=ScriptedProvider(SCRIPT), c=ScriptedProvider(SCRIPT))
    journal = Notes()
    result = await seats.run(journal=journal)
    assert result.warnings[-2:] == ("kept", "and done")
    for name in journal.endings:
        order = [journal.notes.index(f"{word}:{name}") for word in ("asked", "asking", "answered", "settled")]
        assert order == sorted(order)
    assert sorted(journal.endings) == [
        *("critique/a/1", "critique/b/1", "critique/c/1", "draft/a/1", "draft/b/1", "synthesise/c/1")
    ]
    assert journal.notes[0] == "opened:draft"
    assert journal.notes[-2:] == ["finished", "result:completed"]


@pytest.mark.anyio
async def test_what_a_journal_recalls_is_not_asked_again(table: Any) -> None:
    known = Ending(response=GenerateResponse(text="from the journal"), elapsed=3.0, spent={"calls": 7})
    seats = table(a=ScriptedProvider(SCRIPT), b=ScriptedProvider(SCRIPT), c=ScriptedProvider(SCRIPT))
    result = await seats.run(journal=Notes({"draft/a/1": known}))
    assert result.drafts["a"] == "from the journal"
    assert seats.seats["a"].asked("draft") == []
    assert len(seats.seats["b"].asked("draft")) == 1
    assert result.seats[0].calls[0].elapsed == 3.0


@pytest.mark.anyio
async def test_what_the_budget_refuses_ends_without_having_been_sent(table: Any) -> None:
    from llm_council.models import Budget

    seats = table(a=ScriptedProvider(SCRIPT), b=ScriptedProvider(SCRIPT), c=ScriptedProvider(SCRIPT))
    journal = Notes()
    await seats.run(seats.plan(budget=Budget(calls=3)), journal=journal)
    refused = {name for name, ending in journal.endings.items() if not ending.sent}
    assert refused
    assert not {f"asked:{name}" for name in refused} & set(journal.notes)
    assert max(ending.spent["calls"] for ending in journal.endings.values()) <= 3


@pytest.mark.anyio
async def test_the_journal_hears_of_a_run_that_is_cancelled(table: Any) -> None:
    seats = table(a=ScriptedProvider(SCRIPT, delay=float("inf")), b=ScriptedProvider(SCRIPT))
    journal = Notes()
    with anyio.move_on_after(0.05):
        await seats.run(journal=journal)
    assert journal.notes[-1] == "result:cancelled"
    assert Phase.DRAFT in {name.partition("/")[0] for name in journal.endings}
