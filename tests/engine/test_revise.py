"""Revision: who sees what, when it ends, and which answer wins after seats changed their minds."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import InvalidOption, ServerFailed
from llm_council.events import RoundFinished, RunFinished
from llm_council.models import Status, Tally
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Revise
from llm_council.testing.fakes import ScriptedProvider

NUMBER = {"type": "number"}
VERDICT = {
    "type": "object",
    "properties": {"verdict": {"enum": ["merge", "fix"]}, "why": {"type": "string"}},
    "required": ["verdict", "why"],
}
DOWN = ServerFailed("overloaded", status=529)


def shown(request: Any) -> list[str]:
    texts = re.findall(
        r"^\[\[\[ \w+ Text \w+\n(.*?)\n\w+ \]\]\]$", request.messages[-1].content, re.MULTILINE | re.DOTALL
    )
    return sorted(texts)


def council_of(table: Any, **seats: tuple[Any, ...]) -> Any:
    """Return a council of seats that give these answers, one in each round."""
    return table(
        **{
            name: ScriptedProvider(
                {
                    "draft": _said(answers[0]),
                    "revise": [_said(answer) for answer in answers[1:]] or "ANSWER: none",
                    "synthesise": '{"river": "Seine"}',
                }
            )
            for name, answers in seats.items()
        }
    )


def _said(answer: Any) -> Any:
    return f"ANSWER: {answer}" if isinstance(answer, str | int) else answer


def revised(council: Any) -> list[int]:
    return [len(seat.asked("revise")) for seat in council.seats.values()]


class TestAnchor:
    """The rule by hand: the last winner replaces a first majority if it won over two seats and lost none."""

    @pytest.mark.parametrize(
        ("before", "after", "replaced"),
        [
            ("xxy", "xyy", False),  # one seat gave in
            ("xxy", "yyy", True),  # two did
            ("xxxyy", "xyyyy", True),
            ("xxxyz", "xxyyy", True),
            ("xxxyy", "zyxzz", True),
            ("xxxyy", "yyyxy", False),  # y won over three and lost one
            ("xyz", "xyy", True),  # there was no majority
            ("xxyyz", "xyyyz", True),  # likewise
        ],
    )
    def test_a_first_majority_stays_unless_another_answer_won_over_two(
        self, before: str, after: str, replaced: bool
    ) -> None:
        assert _may_replace(before, after) is replaced

    def test_among_three_seats_a_majority_yields_only_to_two_that_join_another_answer(self) -> None:
        replaced = set()
        for before, after in product(product("xyz", repeat=3), repeat=2):
            if before.count("x") == 2 and after.count("x") < 2 and _tally(after).winner == "y" and after.count("y") > 1:
                joined = sum(old != "y" and new == "y" for old, new in zip(before, after, strict=True))
                left = sum(old == "y" and new != "y" for old, new in zip(before, after, strict=True))
                assert _may_replace(before, after) is (joined >= 2 and left == 0)
                replaced.add(_may_replace(before, after))
        assert replaced == {True, False}


def _tally(keys: Any) -> Tally:
    winner = max(sorted(set(keys)), key=list(keys).count)
    return Tally(winner=winner, share=list(keys).count(winner) / len(keys))


def _may_replace(before: Any, after: Any) -> bool:
    seats = "abcde"
    return Revise._may_replace(
        _tally(before),
        _tally(after),
        dict(zip(seats, before, strict=False)),
        dict(zip(seats, after, strict=False)),
    )


@pytest.mark.anyio
class TestRevise:
    async def test_seats_that_agree_are_not_asked_again(self, table):
        council = council_of(table, ann=(4,), bob=(4,), cid=(4,))
        result = await council.run(strategy="revise", schema=NUMBER)
        assert (result.status, result.output, revised(council)) == (Status.COMPLETED, 4, [0, 0, 0])
        assert [one.number for one in result.rounds] == [0]

    async def test_each_seat_sees_one_text_for_each_answer_and_no_name(self, table):
        council = council_of(table, ann=(4, 4), bob=(4, 4), cid=(5, 4))
        result = await council.run(strategy="revise", schema=NUMBER)
        for seat in council.seats.values():
            (request,) = seat.asked("revise")
            assert shown(request) == ["ANSWER: 4", "ANSWER: 5"]
            assert not re.search(r"\b(ann|bob|cid)\b", request.messages[-1].content)
            assert request.messages[-1].content.endswith('End with one line: "ANSWER:" and the number alone.')
        assert (result.output, result.agreement.level) == (4, "unanimous")
        assert [(flip.seat, flip.old, flip.new) for flip in result.rounds[1].flips] == [("cid", "5", "4")]
        assert result.otherwise == {"single:ann": "4", "single:bob": "4", "single:cid": "5", "poll": "4"}
        assert vote_line(result) == "3 of 3 agree; answers changed: 1"
        assert [event.round for event in council.events_of(RoundFinished)] == list(result.rounds)
        (ended,) = council.events_of(RunFinished)
        assert (ended.answers, ended.overruled, ended.otherwise) == (result.answers, None, result.otherwise)

    async def test_one_seat_that_gives_in_does_not_replace_the_first_majority(self, table):
        council = council_of(table, ann=("x", "x"), bob=("x", "y"), cid=("y", "y"))
        result = await council.run(strategy=Revise())
        assert (result.status, result.output) == (Status.COMPLETED, "ANSWER: x")
        assert (result.tally.rule, result.tally.winner, result.tally.share) == ("anchor", "x", pytest.approx(2 / 3))
        assert [(dissent.answer.shown, dissent.seats) for dissent in result.dissent] == [("y", ("bob", "cid"))]
        assert vote_line(result).startswith("2 of 3 agreed before they saw the other answers; bob and cid dissent: y")
        free = await council_of(table, ann=("x", "x"), bob=("x", "y"), cid=("y", "y")).run(
            strategy=Revise(anchor=False)
        )
        assert (free.output, free.tally.rule) == ("ANSWER: y", "plurality")

    async def test_two_that_are_won_over_replace_it(self, table):
        council = council_of(table, ann=("x", "y"), bob=("x", "y"), cid=("y", "y"))
        result = await council.run(strategy="revise")
        assert (result.output, result.agreement.level) == ("ANSWER: y", "unanimous")

    async def test_rounds_end_once_nothing_changes_or_a_state_comes_back(self, table):
        same = council_of(table, ann=("x", "x", "y", "y"), bob=("y", "y", "y", "y"))
        assert len((await same.run(strategy=Revise(rounds=3))).rounds) == 2
        swap = council_of(table, ann=("x", "y", "x", "y"), bob=("y", "x", "y", "x"))
        result = await swap.run(strategy=Revise(rounds=3))
        assert [one.is_stable for one in result.rounds[1:]] == [False, False]
        agree = council_of(table, ann=("x", "y", "z"), bob=("y", "z", "z"))
        assert len((await agree.run(strategy=Revise(rounds=3))).rounds) == 3

    async def test_a_revision_that_fails_or_cannot_be_read_leaves_the_answer(self, table):
        council = council_of(table, ann=(4, DOWN), bob=(4, "who knows"), cid=(5, 5))
        result = await council.run(strategy="revise", schema=NUMBER)
        assert (result.status, result.output, result.tally.points) == (Status.DEGRADED, 4, {"4": 2.0, "5": 1.0})
        assert result.rounds[1].is_stable

    async def test_a_ring_shows_the_neighbours(self, table):
        council = council_of(table, ann=(1, 1), bob=(2, 2), cid=(3, 3), dot=(4, 4), eve=(5, 5))
        result = await council.run(strategy=Revise(topology="ring"), schema=NUMBER)
        (request,) = council.seats["cid"].asked("revise")
        assert shown(request) == ["ANSWER: 2", "ANSWER: 3", "ANSWER: 4"]
        assert result.tally.broken_by == "seed"

    async def test_seats_that_gave_no_draft_do_not_revise(self, table):
        council = council_of(table, ann=(1, 1), bob=(2, 1), cid=(DOWN,))
        result = await council.run(strategy="revise", schema=NUMBER)
        assert revised(council) == [1, 1, 0]
        assert (result.tally.failed, result.tally.share) == (1, pytest.approx(2 / 3))

    async def test_parts_of_objects_are_revised_by_schema(self, table):
        fix, merge = (f'{{"verdict": "{word}", "why": "w"}}' for word in ("fix", "merge"))
        council = table(
            ann=ScriptedProvider({"draft": fix, "revise": fix}), bob=ScriptedProvider({"draft": merge, "revise": fix})
        )
        result = await council.run(strategy=Revise(vote_on=["verdict"]), schema=VERDICT)
        assert result.output == {"verdict": "fix", "why": "w"}
        assert council.seats["bob"].asked("revise")[0].structured_output.json_schema == VERDICT

    async def test_the_winning_text_is_brought_into_the_schema(self, table):
        schema = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
        council = council_of(table, ann=("Loire", "Seine"), bob=("Seine", "Seine"), cid=("Seine", "Seine"))
        assert (await council.run(strategy="revise", schema=schema)).output == {"river": "Seine"}

    async def test_seats_that_still_disagree_may_abstain(self, table):
        council = council_of(table, ann=("x", "x"), bob=("y", "y"), cid=("z", "z"))
        result = await council.run(strategy=Revise(abstain_below=0.5))
        assert (result.status, len(result.rounds)) == (Status.ABSTAINED, 2)

    async def test_the_result_is_written_and_read(self, table):
        result = await council_of(table, ann=(4, 4), bob=(5, 4)).run(strategy="revise", schema=NUMBER)
        assert CouncilResult.from_dict(result.to_dict()).rounds == result.rounds

    @pytest.mark.parametrize("options", [{"rounds": 0}, {"rounds": 4}, {"topology": "star"}, {"anchor": 1}])
    async def test_wrong_options_and_a_single_seat_are_refused(self, table, options):
        with pytest.raises(InvalidOption):
            Revise(**options)
        with pytest.raises(InvalidOption, match="2 seats or more"):
            table(ann=ScriptedProvider("x")).plan(strategy="revise")

    async def test_a_stored_run_is_replayed_and_resumed(self, tmp_path):
        seats = [
            ScriptedProvider({"draft": f"ANSWER: {number}", "revise": ["ANSWER: 2", "ANSWER: 3"]}, name=name)
            for name, number in (("ada", 1), ("bea", 2))
        ]
        council = Council(seats, config=CouncilConfig(), store=tmp_path / "runs.sqlite", strategy=Revise(rounds=2))
        result = await council.arun("How many?", schema=NUMBER)
        assert result.output == 2
        for again in (await council.areplay(result.run_id), await council.aresume(result.run_id)):
            assert again.to_dict() == result.to_dict()
        assert [len(seat.requests) for seat in seats] == [2, 2]
