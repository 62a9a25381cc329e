"""Judges: what is read from them, how scores and pairs are counted, and what the result tells of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from random import Random
from typing import Any

import pytest

from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import Abstained, InvalidOption, ServerFailed
from llm_council.events import Judged
from llm_council.models import Judgement, Phase, Status
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Judge
from llm_council.strategies._judgements import PairCount, ScoreCount, read_better, read_scores
from llm_council.testing.fakes import ScriptedProvider

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
DOWN = ServerFailed("overloaded", status=529)


class TestReading:
    @pytest.mark.parametrize(
        ("text", "scores"),
        [
            ("SCORE A: 7\nSCORE B: 3", {"A": 7, "B": 3}),
            ("B is wrong.\n**A:** 9/10\n**B:** 2/10", {"A": 9, "B": 2}),
            ("| text | score |\n|---|---|\n| A | 8 |\n| B | 0 |", {"A": 8, "B": 0}),
            ("- Text A - 6.5\n- Text B - 7", {"A": 6.5, "B": 7}),
            ("SCORE A: 1\nNo, again:\nSCORE A: 4\nSCORE B: 5", {"A": 4, "B": 5}),
            ("score a: 4\nscore b: 5", {"A": 4, "B": 5}),
            ("SCORE A: 7", None),
            ("SCORE A: 70\nSCORE B: 3", None),
            ("SCORE A: high\nSCORE B: 3", None),
            ("A good text is better than B.", None),
            ("", None),
        ],
    )
    def test_scores_are_read_if_each_text_has_one(self, text: str, scores: dict[str, float] | None) -> None:
        assert read_scores(text, ["A", "B"]) == scores

    def test_the_score_of_several_criteria_is_their_mean(self) -> None:
        assert read_scores("SCORE A: 6, 9\nSCORE B: 2, 4", ["A", "B"], 2) == {"A": 7.5, "B": 3}
        assert read_scores("SCORE A: 6\nSCORE B: 2, 4", ["A", "B"], 2) is None

    @pytest.mark.parametrize(
        ("text", "label"),
        [
            ("BETTER: A", "A"),
            ("**Better:** Text B", "B"),
            ("BETTER: A\nNo.\nBETTER: B", "B"),
            ("BETTER: TIE", ""),
            ("BETTER: A or B", None),
            ("A is better", None),
            ("", None),
        ],
    )
    def test_the_better_text_is_read(self, text: str, label: str | None) -> None:
        assert read_better(text, ["A", "B"]) == label

    @pytest.mark.parametrize("unit", ["SCORE ", "A", "A: ", "|", "*", "7", "better: ", "\n"])
    def test_the_time_of_reading_grows_with_the_length_and_not_with_its_square(self, unit: str) -> None:
        text = unit * (200_000 // len(unit))
        assert read_scores(f"{text}\nSCORE A: 1\nSCORE B: 2", ["A", "B"]) == {"A": 1, "B": 2}
        assert read_better(f"{text}\nBETTER: A", ["A", "B"]) == "A"


def scored(judge: str, **scores: float) -> Judgement:
    return Judgement(judge=judge, scores=scores)


class TestScores:
    def test_a_severe_and_a_mild_judge_count_alike(self) -> None:
        count = ScoreCount("xy", ["j", "k", "l"])
        count.cast("j", scored("j", x=10, y=1))
        count.cast("k", scored("k", x=4, y=5))
        count.cast("l", scored("l", x=8, y=9))
        tally = count.tally(Random(1))  # by the mean of raw scores, x would win
        assert (tally.winner, tally.points, tally.share) == ("y", {"y": 1.0, "x": -1.0}, pytest.approx(2 / 3))

    def test_judges_who_compared_them_break_a_tie_before_chance_does(self) -> None:
        for seed in range(8):
            count = ScoreCount("xyz", ["j", "k"])
            count.cast("j", scored("j", x=10, y=5, z=0))
            count.cast("k", scored("k", x=5, y=10, z=0))
            tally = count.tally(Random(seed))
            assert tally.tied == ("x", "y")
            assert tally.broken_by == "seed"
        count = ScoreCount("xy", ["j"])
        count.cast("j", scored("j", x=5, y=5))
        assert {count.tally(Random(seed)).winner for seed in range(8)} == {"x", "y"}

    def test_a_decided_count_is_the_same_whatever_the_others_say(self) -> None:
        judges = "jkl"
        sheets = [None, *(dict(zip("xyz", scores, strict=True)) for scores in product((0, 5, 10), repeat=3))]
        chance = Random(5)
        decided = 0
        for known in (1, 2):
            for _ in range(60):
                first = [chance.choice(sheets) for _ in range(known)]
                count = ScoreCount("xyz", judges)
                for judge, sheet in zip(judges, first, strict=False):
                    count.cast(judge, None if sheet is None else scored(judge, **sheet))
                if not count.is_decided():
                    continue
                decided += 1
                leaders = set()
                for rest in product(sheets, repeat=len(judges) - known):
                    whole = ScoreCount("xyz", judges)
                    for judge, sheet in zip(judges, [*first, *rest], strict=True):
                        whole.cast(judge, None if sheet is None else scored(judge, **sheet))
                    tally = whole.tally(Random(1))
                    leaders |= set(tally.tied) or {tally.winner}
                assert len(leaders) == 1, first
        assert decided


class TestPairs:
    def test_a_judge_that_flips_with_the_order_gives_half_a_point_to_each(self) -> None:
        count = PairCount("xy", [("j", frozenset("xy")), ("k", frozenset("xy"))])
        count.cast("j", ("x", "y"), "x")
        count.cast("j", ("y", "x"), "y")  # the first one both times
        count.cast("k", ("x", "y"), "x")
        count.cast("k", ("y", "x"), "x")
        assert count.points() == {"x": 1.5, "y": 0.5}
        assert [judgement.consistent for judgement in count.judgements()] == [False, True]
        assert count.first_slot_rate() == 3 / 4

    def test_an_unreadable_order_is_no_judgement(self) -> None:
        count = PairCount("xy", [("j", frozenset("xy"))])
        count.cast("j", ("x", "y"), "x")
        count.cast("j", ("y", "x"), None)
        tally = count.tally(Random(1))
        assert (count.judgements(), tally.cast, tally.empty) == ([], 0, 1)

    def test_level_drafts_are_told_apart_by_their_own_pair(self) -> None:
        pairs = [("j", frozenset(pair)) for pair in ("xy", "yz", "xz")]
        count = PairCount("xyz", [*pairs, ("k", frozenset("xz"))])
        for judge, better, worse in (("j", "x", "y"), ("j", "y", "z"), ("j", "z", "x"), ("k", "z", "x")):
            for order in ((better, worse), (worse, better)):
                count.cast(judge, order, better)
        assert count.tally(Random(1)).winner == "z"
        count.cast("k", ("z", "x"), None)
        assert count.tally(Random(1)).broken_by == "seed"

    def test_a_decided_count_is_the_same_whatever_the_others_say(self) -> None:
        comparisons = [("j", frozenset(pair)) for pair in ("xy", "yz", "xz")]
        orders = [order for pair in ("xy", "yz", "xz") for order in (tuple(pair), tuple(reversed(pair)))]
        decided = 0
        for known in range(2, 6):
            for first in product((0, 1, "", None), repeat=known):
                count = PairCount("xyz", comparisons)
                _cast_all(count, orders, first)
                if not count.is_decided():
                    continue
                decided += 1
                leaders = set()
                for rest in product((0, 1, None), repeat=len(orders) - known):
                    whole = PairCount("xyz", comparisons)
                    _cast_all(whole, orders, (*first, *rest))
                    tally = whole.tally(Random(1))
                    leaders |= set(tally.tied) or {tally.winner}
                assert len(leaders) == 1, first
        assert decided


def _cast_all(count: PairCount, orders: list[Any], choices: tuple[Any, ...]) -> None:
    for order, choice in zip(orders, choices, strict=False):
        count.cast("j", order, order[choice] if isinstance(choice, int) else choice)


def shown(request: Any) -> list[tuple[str, str]]:
    return re.findall(
        r"^\[\[\[ \w+ Text (\w+)\n(.*?)\n\w+ \]\]\]$", request.messages[-1].content, re.MULTILINE | re.DOTALL
    )


def longest(request: Any) -> str:
    """Judge texts by their length."""
    texts = shown(request)
    if "BETTER" in request.messages[-1].content:
        return f"BETTER: {max(texts, key=lambda text: len(text[1]))[0]}"
    return "\n".join(f"SCORE {label}: {min(10, len(text))}" for label, text in texts)


def first(_: Any) -> str:
    return "BETTER: A"


def council_of(table: Any, judge: Callable[[Any], Any] | Any = longest, **changes: Any) -> Any:
    drafts = {"ann": "391", "bob": "It: 391", "cid": "It is 391", **changes}
    return table(
        **{
            name: ScriptedProvider({"draft": draft, "judge": judge, "synthesise": '{"sum": 391}'})
            for name, draft in drafts.items()
        }
    )


def calls(council: Any) -> int:
    return sum(len(seat.requests) for seat in council.seats.values())


@pytest.mark.anyio
class TestJudge:
    async def test_the_draft_with_the_best_scores_is_the_answer(self, table):
        council = council_of(table)
        result = await council.run(strategy="judge")
        assert (result.status, result.output, result.chair) == (Status.COMPLETED, "It is 391", "cid")
        assert (result.tally.rule, result.tally.winner) == ("scores", "cid")
        assert calls(council) <= result.plan.most_calls == 6
        for judgement in result.judgements:
            assert judgement.judge not in judgement.scores
            assert judgement.consistent is None
        assert [event.judgement for event in council.events_of(Judged)] == list(result.judgements) != []
        assert vote_line(result).startswith("cid's draft is the best by scores of ")
        assert "judges and authors share a provider: models prefer texts of their own family" in result.plan.notes

    async def test_judges_do_not_see_who_wrote_a_draft(self, table):
        council = council_of(table)
        await council.run(strategy="judge")
        for seat in council.seats.values():
            for request in seat.asked("judge"):
                assert not re.search(r"\b(ann|bob|cid)\b", request.messages[-1].content)

    async def test_seats_that_do_not_draft_judge(self, table):
        council = council_of(table, dot="none", eve="none")
        result = await council.run(strategy=Judge(judges=[name for name in council.seats if name > "cid"]))
        assert result.plan.asks == {Phase.JUDGE: ("dot", "eve")}
        assert result.plan.most_calls == 5 + 2
        assert (result.chair, calls(council)) == ("cid", 5)

    @pytest.mark.parametrize(("judge", "flips", "rate"), [(longest, 0.0, 0.5), (first, 1.0, 1.0)])
    async def test_pairs_are_compared_in_both_orders(self, table, judge, flips, rate):
        council = council_of(table, judge, dot="none")
        result = await council.run(strategy=Judge(mode="pair", judges=[name for name in council.seats if name > "cid"]))
        assert 4 <= len(council.seats["dot"].asked("judge")) <= 6  # the last two may be cancelled
        assert result.bias["flip_rate"] == flips
        assert result.bias["first_slot_rate"] == rate
        if judge is longest:
            assert (result.chair, result.tally.points["cid"], result.tally.points["ann"]) == ("cid", 2.0, 0.0)
        else:
            assert result.tally.broken_by == "seed"
        assert CouncilResult.from_dict(result.to_dict()).judgements == result.judgements

    async def test_a_draft_that_beats_all_ends_the_comparison_early(self, table):
        council = council_of(table, dot="none", eve="none", fay="none", gus="none")
        council.seats["fay"]._delay = {"judge": float("inf")}
        result = await council.run(strategy=Judge(mode="pair", judges=[name for name in council.seats if name > "cid"]))
        assert (result.status, result.chair) == (Status.COMPLETED, "cid")
        assert not [judgement for judgement in result.judgements if judgement.judge == "fay"]

    async def test_no_draft_is_good_enough(self, table):
        council = council_of(table, "SCORE A: 2\nSCORE B: 1")
        result = await council.run(strategy=Judge(floor=5))
        assert result.status is Status.ABSTAINED
        assert result.judgements
        with pytest.raises(Abstained, match=r"median score 2, and floor is 5"):
            result.raise_for_failure()
        assert (await council_of(table, "SCORE A: 9\nSCORE B: 1").run(strategy=Judge(floor=5))).success

    async def test_an_unreadable_and_a_failing_judge_are_no_judgement(self, table):
        council = council_of(table, dot="none", eve="none", fay="none")
        council.seats["dot"]._script = {"judge": DOWN, "*": "none"}
        council.seats["eve"]._script = {"judge": "They are fine.", "*": "none"}
        result = await council.run(strategy=Judge(judges=[name for name in council.seats if name > "cid"]))
        assert (result.status, result.chair) == (Status.DEGRADED, "cid")
        assert [judgement.judge for judgement in result.judgements] == ["fay"]

    async def test_without_any_judgement_the_seed_chooses(self, table):
        outputs = set()
        for seed in map(str, range(10)):
            council = council_of(table, "They are fine.")
            result = await council.run(strategy="judge", config={"seed": seed})
            assert any("no draft was judged" in warning for warning in result.warnings)
            outputs.add(result.chair)
        assert outputs == {"ann", "bob", "cid"}

    async def test_a_seat_that_gave_no_draft_does_not_judge(self, table):
        council = council_of(table, ann=DOWN)
        result = await council.run(strategy="judge")
        assert not council.seats["ann"].asked("judge")
        assert result.output in ("It: 391", "It is 391")

    async def test_the_author_brings_the_best_draft_into_the_schema(self, table):
        result = await council_of(table).run(strategy="judge", schema=SCHEMA)
        assert (result.output, result.chair) == ({"sum": 391}, "cid")

    @pytest.mark.parametrize(
        ("names", "options", "words"),
        [
            ("ab", {}, "a judge that sees two drafts of others"),
            ("abcde", {"mode": "pair"}, "up to 4 drafts, got 5"),
            ("abc", {"mode": "pair", "floor": 5}, "needs the mode 'score'"),
            ("abc", {"judges": ["d"]}, "no seat is named 'd'"),
            ("abc", {"judges": ["b", "c"]}, "of 3 seats 1 draft"),
        ],
    )
    async def test_what_cannot_be_judged_is_refused(self, table, names, options, words):
        council = table(**{name: ScriptedProvider("x") for name in names})
        with pytest.raises(InvalidOption, match=words):
            council.plan(strategy=Judge(**options))

    @pytest.mark.parametrize("options", [{"mode": "best"}, {"floor": 11}, {"floor": True}])
    async def test_wrong_options_are_refused(self, options):
        with pytest.raises(InvalidOption):
            Judge(**options)

    async def test_reports_show_the_points_of_drafts(self, table):
        result = await council_of(table).run(strategy="judge")
        assert "| draft | points |" in result.to_markdown()
        assert "by scores of" in result.to_html()

    @pytest.mark.parametrize("mode", ["score", "pair"])
    async def test_a_stored_run_is_replayed(self, tmp_path, mode):
        seats = [
            ScriptedProvider({"draft": text, "judge": longest}, name=name)
            for name, text in (("ada", "7"), ("bea", "It is 7"), ("cleo", "7!"))
        ]
        council = Council(seats, config=CouncilConfig(), store=tmp_path / "runs.sqlite", strategy=Judge(mode=mode))
        result = await council.arun("How many?", schema={"type": "string"})
        made = sum(len(seat.requests) for seat in seats)
        assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()
        assert sum(len(seat.requests) for seat in seats) == made
