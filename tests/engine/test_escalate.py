"""Escalation: which groups of seats are asked, what agreement ends it, and what the result tells of them."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import InvalidOption, QuorumLost, ServerFailed
from llm_council.events import RungFinished
from llm_council.models import Budget, Cost, GenerateResponse, Status
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Escalate
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

NUMBER = {"type": "number"}
DOWN = ServerFailed("overloaded", status=529)


def council_of(table: Any, *drafts: Any, revise: Any = "ANSWER: 0") -> Any:
    names = ("ann", "bob", "cid", "dot")
    return table(
        **{
            name: ScriptedProvider(
                {"draft": f"ANSWER: {draft}" if isinstance(draft, int) else draft, "revise": revise}, name=name
            )
            for name, draft in zip(names, drafts, strict=False)
        }
    )


def calls(council: Any) -> list[int]:
    return [len(seat.requests) for seat in council.seats.values()]


async def test_two_cheap_seats_that_agree_spare_the_third(table):
    council = council_of(table, 4, 4, 5)
    result = await council.run(strategy="escalate", schema=NUMBER)
    assert (result.status, result.output, calls(council)) == (Status.COMPLETED, 4, [1, 1, 0])
    (rung,) = result.rungs
    assert (rung.seats, rung.is_settled, rung.agreement.level) == (("ann", "bob"), True, "unanimous")
    assert vote_line(result) == "2 of 2 agree; 1 of 3 were not asked for"
    assert "ann and bob, then cid, until the seats agree" in result.plan.notes


async def test_seats_that_disagree_ask_the_next_group_and_stay_votes(table):
    council = council_of(table, 4, 5, 5)
    result = await council.run(strategy="escalate", schema=NUMBER)
    assert (result.output, calls(council)) == (5, [1, 1, 1])
    assert [rung.is_settled for rung in result.rungs] == [False, False]
    assert "the next group is asked" in result.rungs[0].reason
    assert "no group is left" in result.rungs[1].reason
    assert [event.rung for event in council.events_of(RungFinished)] == list(result.rungs)
    assert result.tally.share == pytest.approx(2 / 3)


async def test_accuracy_and_calls_are_those_of_the_closed_form(table):
    cheap, strong = 0.7, 0.9
    accuracy = expected = 0.0
    for outcome in product((1, 0), repeat=3):
        council = council_of(table, *outcome)
        result = await council.run(strategy="escalate", schema=NUMBER)
        chances = [p if right else 1 - p for p, right in zip((cheap, cheap, strong), outcome, strict=True)]
        probability = chances[0] * chances[1] * chances[2]
        accuracy += probability * (result.output == 1)
        expected += probability * sum(calls(council))
    right, wrong = cheap**2, (1 - cheap) ** 2
    assert accuracy == pytest.approx(right + (1 - right - wrong) * strong)
    assert expected == pytest.approx(2 + (1 - right - wrong))


async def test_a_majority_may_settle(table):
    drafts, rungs = (4, 4, 5, 5), [["ann", "bob", "cid"], ["dot"]]
    eager = await council_of(table, *drafts).run(strategy=Escalate(rungs=rungs, settle="majority"), schema=NUMBER)
    assert (eager.output, len(eager.rungs)) == (4, 1)
    strict = await council_of(table, *drafts).run(strategy=Escalate(rungs=rungs), schema=NUMBER)
    assert (len(strict.rungs), strict.tally.broken_by) == (2, "seed")


async def test_seats_that_disagree_to_the_end_may_revise(table):
    council = council_of(table, 4, 5, 6, revise="ANSWER: 6")
    result = await council.run(strategy=Escalate(last="revise"), schema=NUMBER)
    assert (result.output, len(result.rungs), len(result.rounds)) == (6, 2, 2)
    assert calls(council) == [2, 2, 2]
    assert result.plan.most_calls == 6


async def test_a_seat_that_fails_does_not_agree(table):
    council = council_of(table, 4, DOWN, 4)
    result = await council.run(strategy="escalate", schema=NUMBER)
    assert (result.status, result.output, calls(council)) == (Status.DEGRADED, 4, [1, 1, 1])
    late = await council_of(table, DOWN, DOWN, 7).run(strategy="escalate", schema=NUMBER)
    assert (late.output, late.tally.failed) == (7, 2)
    assert isinstance((await council_of(table, DOWN, DOWN, DOWN).run(strategy="escalate")).error, QuorumLost)


async def test_a_quorum_asks_further_groups(table):
    council = council_of(table, 4, 4, 5)
    result = await council.run(strategy="escalate", schema=NUMBER, budget=Budget(quorum=3))
    assert (result.output, calls(council)) == (4, [1, 1, 1])


async def test_the_cost_of_a_group_is_that_of_its_drafts(table):
    def paid(text: str, usd: float) -> GenerateResponse:
        return GenerateResponse(text=text, cost=Cost(usd=usd, source="reported"))

    council = council_of(table, paid("ANSWER: 1", 0.25), paid("ANSWER: 2", 0.5), paid("ANSWER: 2", 4.0))
    result = await council.run(strategy="escalate", schema=NUMBER)
    assert [rung.usd for rung in result.rungs] == [0.75, 4.0]
    assert result.cost.usd == 4.75
    assert CouncilResult.from_dict(result.to_dict()).rungs == result.rungs


@pytest.mark.parametrize(
    ("rungs", "words"),
    [
        ([["ann", "bo"], ["cid"]], "no seat that drafts is named 'bo'; did you mean 'bob'"),
        ([["ann", "bob"], ["bob"]], "bob is in two groups"),
        ([["ann"], ["bob", "cid"]], "a first group of two seats or more"),
        ([["ann", "bob", "cid"]], "and a further one"),
    ],
)
async def test_groups_that_cannot_be_are_refused(table, rungs, words):
    with pytest.raises(InvalidOption, match=words):
        council_of(table, 1, 2, 3).plan(strategy=Escalate(rungs=rungs))


async def test_first_seats_of_one_model_are_noted(table):
    alike = table(**{name: ScriptedProvider("x") for name in ("ann", "bob", "cid")})
    assert "the first seats are of one model: they may be wrong together" in alike.plan(strategy="escalate").notes
    assert not any("of one model" in note for note in council_of(table, 1, 2, 3).plan(strategy="escalate").notes)


async def test_a_stored_run_is_resumed_by_its_options(tmp_path):
    seats = [ScriptedProvider(f"ANSWER: {vote}", name=name) for name, vote in (("a", 1), ("b", 2), ("c", 2))]
    strategy = Escalate(rungs=[["a", "b"], ["c"]], settle="majority")
    council = Council(seats, config=CouncilConfig(), store=tmp_path / "runs.sqlite", strategy=strategy)
    result = await council.arun("How many?", schema=NUMBER)
    assert result.output == 2
    assert result.plan.strategy_options == {"rungs": [["a", "b"], ["c"]], "settle": "majority"}
    other = Council(seats, config=CouncilConfig(), store=tmp_path / "runs.sqlite")
    for again in (await other.areplay(result.run_id), await council.aresume(result.run_id)):
        assert again.to_dict() == result.to_dict()
    assert [len(seat.requests) for seat in seats] == [1, 1, 1]
