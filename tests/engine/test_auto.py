"""Auto: which strategy is chosen for which answers and seats."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.models import Phase, Plan, Status
from llm_council.strategies import Auto
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

OBJECT = {
    "type": "object",
    "properties": {"verdict": {"enum": ["merge", "fix"]}, "why": {"type": "string"}},
    "required": ["verdict", "why"],
}


def council_of(table: Any, script: Any, seats: int = 3) -> Any:
    return table(**{name: ScriptedProvider(script) for name in ("ann", "bob", "cid")[:seats]})


@pytest.mark.parametrize(
    ("schema", "options", "seats", "note", "phases"),
    [
        ({"type": "boolean"}, {}, 3, "auto chose 'poll': yes or no can be counted", (Phase.DRAFT,)),
        ({"type": "integer"}, {}, 2, "auto chose 'poll': a number can be counted", (Phase.DRAFT,)),
        ({"enum": ["a", "b"]}, {}, 3, "auto chose 'poll': one of 2 values can be counted", (Phase.DRAFT,)),
        (OBJECT, {"vote_on": ["verdict"]}, 3, "auto chose 'poll': $.verdict can be counted", (Phase.DRAFT,)),
        (None, {}, 3, "auto chose 'synthesize': prose cannot be counted", (Phase.DRAFT, Phase.CRITIQUE)),
        (OBJECT, {}, 3, "auto chose 'synthesize': free objects cannot be counted", (Phase.DRAFT, Phase.CRITIQUE)),
        ({"type": "boolean"}, {}, 1, "auto chose 'single': there is one seat", (Phase.DRAFT,)),
    ],
)
async def test_the_kind_of_the_answer_decides(table, schema, options, seats, note, phases):
    plan = council_of(table, "x", seats).plan(strategy=Auto(**options), schema=schema)
    assert plan.notes[0] == note
    assert plan.phases[: len(phases)] == phases
    assert plan.strategy == "auto"


def test_it_is_the_default_and_a_plan_says_so():
    seats = [ScriptedProvider("x", name=name) for name in ("ann", "bob", "cid")]
    assert CouncilConfig().strategy == "auto"
    council = Council(seats, config=CouncilConfig(), chair="bob")
    counted = council.plan("Is it so?", schema={"type": "boolean"})
    assert (counted.strategy, counted.notes[0]) == ("auto", "auto chose 'poll': yes or no can be counted")
    assert counted.notes[-1] == "a poll needs no chair: bob answers as the other seats do"
    written = council.plan("Why?")
    assert written.notes[0] == "auto chose 'synthesize': free objects cannot be counted"
    assert not any("needs no chair" in note for note in written.notes)


def test_a_stored_plan_without_a_strategy_is_one_of_the_former_default():
    plan = Plan(run_id="r", task="Why?", subagent="advisor")
    assert plan.strategy == "synthesize"


async def test_votes_that_cannot_change_the_outcome_are_not_waited_for(table):
    slow = ScriptedProvider("ANSWER: no", delay=inf)
    council = table(ann=ScriptedProvider("ANSWER: yes"), bob=ScriptedProvider("ANSWER: yes"), cid=slow)
    result = await council.run(strategy="auto", schema={"type": "boolean"})
    assert (result.output, result.tally.decided_after, slow.cancelled) == (True, 2, 1)


async def test_it_does_what_the_chosen_strategy_does(table):
    polled = await council_of(table, "ANSWER: yes").run(strategy="auto", schema={"type": "boolean"})
    assert (polled.output, polled.tally.winner) == (True, "true")
    script = {"draft": "A river.", "critique": "Fine. RANKING: A > B", "synthesise": "The Seine."}
    council = council_of(table, script)
    written = await council.run(strategy="auto")
    assert (written.status, written.output, written.chair) == (Status.COMPLETED, "The Seine.", "cid")
    plain = council_of(table, script)
    await plain.run(strategy="synthesize", run_id=written.run_id)
    for name, seat in council.seats.items():
        assert [request.messages for request in seat.requests] == [
            request.messages for request in plain.seats[name].requests
        ]


async def test_a_stored_run_is_replayed(tmp_path):
    voters = [ScriptedProvider("ANSWER: 2", name=name) for name in ("ada", "bea", "cleo")]
    council = Council(voters, config=CouncilConfig(), store=tmp_path / "runs.sqlite", strategy="auto")
    result = await council.arun("How many?", schema={"type": "number"})
    assert (result.output, result.plan.strategy) == (2, "auto")
    assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()
