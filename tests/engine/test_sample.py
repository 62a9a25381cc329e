"""Samples: how many drafts of one seat are asked for, how they are counted, and what replaces a seat that fails."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import InvalidOption, QuorumLost, ServerFailed
from llm_council.middleware import Cached
from llm_council.models import Budget, Phase, Status
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Sample
from llm_council.testing.fakes import ScriptedProvider

NUMBER = {"type": "number"}
VERDICT = {"type": "object", "properties": {"verdict": {"enum": ["merge", "fix"]}}, "required": ["verdict"]}
DOWN = ServerFailed("overloaded", status=529)


def counts(ballots: tuple[str | None, ...]) -> list[float]:
    return sorted((float(ballots.count(key)) for key in set(ballots) if key is not None), reverse=True)


class TestStop:
    def test_four_equal_answers_are_enough_and_three_are_not(self) -> None:
        sample = Sample(k=40)  # 31/32 and 15/16
        assert sample._next_drafts([], 40) == 4
        assert sample._next_drafts([3.0], 37) == 1
        assert sample._next_drafts([4.0], 36) == 0

    @pytest.mark.parametrize("stop", [0.9, 0.95, 1.0])
    def test_batches_ask_for_the_same_drafts_as_one_by_one(self, stop: float) -> None:
        k = 6
        sample = Sample(k=k, stop=stop)
        for ballots in product(("x", "y", None), repeat=k):
            one_by_one = 0
            while sample._next_drafts(counts(ballots[:one_by_one]), k - one_by_one):
                one_by_one += 1
            asked = 0
            while more := sample._next_drafts(counts(ballots[:asked]), k - asked):
                asked += more
            assert asked == one_by_one, ballots

    def test_without_an_estimate_the_winner_is_that_of_all_drafts(self) -> None:
        k = 5
        sample = Sample(k=k, stop=1)
        for ballots in product(("x", "y", "z", None), repeat=k):
            asked = 0
            while more := sample._next_drafts(counts(ballots[:asked]), k - asked):
                asked += more
            seen, whole = ballots[:asked], ballots
            first = counts(seen)[:1]
            leaders = {key for key in seen if key is not None and float(seen.count(key)) in first}
            best = {key for key in whole if key is not None and float(whole.count(key)) in counts(whole)[:1]}
            assert leaders == best, ballots

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"k": 1}, "2 or more"), ({"k": True}, "2 or more"), ({"stop": 0.5}, "above 0.5"), ({"stop": 2}, "at most 1")],
    )
    def test_wrong_options_are_refused(self, options: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidOption, match=words):
            Sample(**options)


@pytest.mark.anyio
class TestSample:
    async def test_equal_drafts_end_it_early_and_the_others_are_not_asked_for(self, table):
        council = table(ann=ScriptedProvider("ANSWER: 391"), bob=ScriptedProvider("ANSWER: 1"))
        result = await council.run(strategy="sample", schema=NUMBER)
        assert (result.status, result.output, result.chair) == (Status.COMPLETED, 391, "ann")
        assert [len(seat.requests) for seat in council.seats.values()] == [3, 0]
        assert (result.tally.decided_after, result.tally.share, result.agreement.level) == (3, 1.0, "unanimous")
        assert vote_line(result) == "3 of 3 agree; 2 of 5 were not asked for"
        assert list(result.drafts) == ["ann", "ann#2", "ann#3"]
        assert result.plan.notes == ("ann drafts up to 5 times; its drafts vote on a number",)

    async def test_every_draft_is_a_call_of_its_own(self, table):
        council = table(ann=ScriptedProvider({"draft": ["ANSWER: 1", "ANSWER: 2", "ANSWER: 2", "ANSWER: 1", "2"]}))
        result = await council.run(strategy="sample", schema=NUMBER)
        requests = council.seats["ann"].requests
        assert (result.output, len(requests)) == (2, 5)
        assert len({request.idempotency_key for request in requests}) == 5
        assert len({request.messages for request in requests}) == 1
        (dissent,) = result.dissent
        assert dissent.answer.shown == "1"
        assert [result.answers[name].shown for name in dissent.seats] == ["1", "1"]

    async def test_a_cache_keeps_the_drafts_apart(self, table):
        drafts = ["ANSWER: 1", "ANSWER: 2", "ANSWER: 2", "ANSWER: 3"]
        inner = ScriptedProvider({"draft": drafts})
        cached = Cached(inner)
        for _ in range(2):  # the second time, the cache has the answer of each draft
            result = await table(ann=cached).run(strategy=Sample(k=4, stop=1), schema=NUMBER)
            assert result.output == 2
            assert set(result.drafts.values()) == set(drafts)
        assert len(inner.requests) == 4

    async def test_failed_and_unreadable_drafts_stay_in_the_denominator(self, table):
        drafts = ["ANSWER: 7", DOWN, "Who knows?", "ANSWER: 7", "ANSWER: 8"]
        council = table(ann=ScriptedProvider({"draft": drafts}))
        result = await council.run(strategy="sample", schema=NUMBER)
        assert (result.status, result.output) == (Status.DEGRADED, 7)
        assert (result.tally.cast, result.tally.empty, result.tally.failed) == (2, 1, 1)
        assert result.tally.share == 2 / 4
        assert any(" gave no draft: overloaded" in warning for warning in result.warnings)

    async def test_a_seat_without_any_draft_is_replaced_by_the_next_one(self, table):
        council = table(ann=ScriptedProvider(DOWN), bob=ScriptedProvider("ANSWER: 4"))
        result = await council.run(strategy="sample", schema=NUMBER)
        assert (result.status, result.output, result.chair) == (Status.DEGRADED, 4, "bob")
        assert [len(seat.requests) for seat in council.seats.values()] == [3, 3]
        assert result.plan.most_calls == 8

    async def test_a_temperature_of_0_is_warned_of(self, table):
        for temperature, is_told in ((0.0, True), (0.7, False), (None, False)):
            council = table(ann=ScriptedProvider("ANSWER: 4"))
            result = await council.run(strategy="sample", temperature=temperature)
            assert any("temperature of 0" in warning for warning in result.warnings) is is_told

    async def test_it_fails_where_every_seat_does(self, table):
        council = table(ann=ScriptedProvider(DOWN), bob=ScriptedProvider(DOWN))
        assert isinstance((await council.run(strategy="sample")).error, QuorumLost)

    async def test_a_tie_is_broken_by_the_seed(self, table):
        outputs = set()
        for seed in map(str, range(8)):
            drafts = ["ANSWER: 1", "ANSWER: 2"]
            runs = [
                await table(ann=ScriptedProvider({"draft": drafts})).run(
                    strategy=Sample(k=2), schema=NUMBER, config={"seed": seed}
                )
                for _ in range(2)
            ]
            assert runs[0].output == runs[1].output
            assert runs[0].tally.broken_by == "seed"
            outputs.add(runs[0].output)
        assert outputs == {1, 2}

    async def test_parts_of_objects_are_counted_and_the_whole_is_returned(self, table):
        council = table(ann=ScriptedProvider('{"verdict": "fix"}'))
        result = await council.run(strategy=Sample(vote_on=["verdict"]), schema=VERDICT)
        assert result.output == {"verdict": "fix"}
        assert len(council.seats["ann"].requests) == 3

    async def test_the_winning_text_is_brought_into_the_schema(self, table):
        schema = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
        council = table(ann=ScriptedProvider({"draft": "ANSWER: the Seine", "synthesise": '{"river": "Seine"}'}))
        result = await council.run(strategy="sample", schema=schema)
        assert (result.output, len(council.seats["ann"].requests)) == ({"river": "Seine"}, 4)

    async def test_a_quorum_of_seats_is_refused(self, table):
        with pytest.raises(InvalidOption, match="'sample' asks one seat"):
            table(ann=ScriptedProvider("x"), bob=ScriptedProvider("x")).plan(strategy="sample", budget=Budget(quorum=2))

    async def test_the_estimate_counts_every_draft(self, table):
        from llm_council._engine.estimate import estimate

        plan = table(ann=ScriptedProvider("x")).plan(strategy=Sample(k=7))
        assert estimate(plan, lambda *_: None).calls == {Phase.DRAFT: 7}

    async def test_the_result_is_written_read_and_shown(self, table):
        council = table(ann=ScriptedProvider({"draft": ["ANSWER: 1", "ANSWER: 2", "ANSWER: 2", "ANSWER: 2", "2"]}))
        result = await council.run(strategy=Sample(k=4, stop=1))
        again = CouncilResult.from_dict(result.to_dict())
        assert (again.answers, again.tally, again.drafts) == (result.answers, result.tally, result.drafts)
        for name, answer in result.answers.items():
            assert f"| {name} | {answer.shown} |" in result.to_markdown().replace("\\#", "#")
        assert "<th dir=auto>ann#2</th>" in result.to_html().replace('"', "")

    async def test_a_stored_run_is_replayed_and_resumed(self, tmp_path):
        drafts = ["ANSWER: 1", "ANSWER: 2", "ANSWER: 2", "ANSWER: 2", "ANSWER: 2"]
        provider = ScriptedProvider({"draft": drafts}, name="ada")
        council = Council([provider], config=CouncilConfig(), store=tmp_path / "runs.sqlite", strategy=Sample())
        result = await council.arun("How many?", schema=NUMBER)
        assert result.output == 2
        for again in (await council.areplay(result.run_id), await council.aresume(result.run_id)):
            assert again.to_dict() == result.to_dict()
        assert len(provider.requests) == 4
