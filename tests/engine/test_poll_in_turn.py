"""Polls that ask seats in turn: how many are asked, and that the outcome is that of asking all."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import QuorumLost, ServerFailed
from llm_council.models import Budget, Status
from llm_council.results.plain import vote_line
from llm_council.strategies import Poll
from llm_council.strategies._plurality import Plurality
from llm_council.testing.fakes import ScriptedProvider

NUMBER = {"type": "number"}
DOWN = ServerFailed("overloaded", status=529)


def counted(seats: str, ballots: tuple[str | None, ...], weights: dict[str, float] | None = None) -> Plurality:
    count = Plurality(seats, weights)
    for seat, key in zip(seats, ballots, strict=False):
        if key == "fail":
            count.fail(seat)
        else:
            count.cast(seat, key)
    return count


def asked_in_turn(seats: str, ballots: tuple[str | None, ...], *options: Any, weights: Any = None) -> int:
    asked = 0
    while asked < len(seats) and counted(seats, ballots[:asked], weights).is_open(*options):
        asked += counted(seats, ballots[:asked], weights).least_votes(seats[asked:], *options)
    return asked


class TestLeastVotes:
    @pytest.mark.parametrize("abstain_below", [None, 0.5, 0.75])
    @pytest.mark.parametrize("weights", [None, {"0": 1.0, "1": 1.5, "2": 0.5, "3": 1.0}])
    def test_batches_ask_the_same_seats_as_one_by_one(
        self, abstain_below: float | None, weights: dict[str, float] | None
    ) -> None:
        seats = "0123"
        for ballots in product(("x", "y", "z", None, "fail"), repeat=len(seats)):
            one_by_one = 0
            while one_by_one < len(seats) and counted(seats, ballots[:one_by_one], weights).is_open(abstain_below):
                one_by_one += 1
            assert asked_in_turn(seats, ballots, abstain_below, weights=weights) == one_by_one, ballots

    @pytest.mark.parametrize(
        ("seats", "accuracy", "calls"), [("abc", 0.7, 2 + 2 * 0.7 * 0.3), ("abc", 0.9, 2.18), ("abcde", 0.7, 3.89)]
    )
    def test_the_expected_calls_of_binary_votes_are_those_of_the_closed_form(
        self, seats: str, accuracy: float, calls: float
    ) -> None:
        expected = 0.0
        for ballots in product("xy", repeat=len(seats)):
            right = ballots.count("x")
            expected += accuracy**right * (1 - accuracy) ** (len(seats) - right) * asked_in_turn(seats, ballots)
        assert expected == pytest.approx(calls, abs=0.005)


def council_of(table: Any, *drafts: Any) -> Any:
    return table(**{name: ScriptedProvider(draft) for name, draft in zip("abcde", drafts, strict=False)})


def calls(council: Any) -> list[int]:
    return [len(seat.requests) for seat in council.seats.values()]


@pytest.mark.anyio
class TestInTurn:
    async def test_two_of_three_that_agree_spare_the_third(self, table):
        council = council_of(table, "ANSWER: 4", "ANSWER: 4", "ANSWER: 5")
        result = await council.run(strategy=Poll(hurry=False), schema=NUMBER)
        assert (result.status, result.output, calls(council)) == (Status.COMPLETED, 4, [1, 1, 0])
        assert (result.tally.decided_after, result.tally.failed) == (2, 0)
        assert set(result.otherwise) == {"single:a", "single:b", "poll"}
        assert vote_line(result) == "2 of 3 agree; 1 more could not have changed it"
        assert any("asked in turn" in note for note in result.plan.notes)

    async def test_seats_that_disagree_need_the_third(self, table):
        council = council_of(table, "ANSWER: 4", "ANSWER: 5", "ANSWER: 5")
        result = await council.run(strategy=Poll(hurry=False), schema=NUMBER)
        assert (result.output, result.tally.decided_after, calls(council)) == (5, None, [1, 1, 1])

    async def test_the_next_seats_answer_where_the_first_ones_fail(self, table):
        council = council_of(table, DOWN, DOWN, "ANSWER: 5")
        result = await council.run(strategy=Poll(hurry=False), schema=NUMBER)
        assert (result.status, result.output, result.tally.failed) == (Status.DEGRADED, 5, 2)
        failed = await council_of(table, DOWN, DOWN, DOWN).run(strategy=Poll(hurry=False), schema=NUMBER)
        assert isinstance(failed.error, QuorumLost)

    async def test_a_quorum_is_asked_although_the_vote_is_decided(self, table):
        council = council_of(table, "ANSWER: 4", "ANSWER: 4", "ANSWER: 5")
        result = await council.run(strategy=Poll(hurry=False), schema=NUMBER, budget=Budget(quorum=3))
        assert (result.output, calls(council)) == (4, [1, 1, 1])

    async def test_a_stored_run_is_replayed(self, tmp_path):
        voters = [ScriptedProvider(f"ANSWER: {vote}", name=name) for name, vote in (("a", 1), ("b", 2), ("c", 2))]
        council = Council(voters, config=CouncilConfig(), store=tmp_path / "runs.sqlite", strategy=Poll(hurry=False))
        result = await council.arun("How many?", schema=NUMBER)
        assert result.output == 2
        assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()
        assert [len(voter.requests) for voter in voters] == [1, 1, 1]
