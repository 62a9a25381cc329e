"""Polls: what is read from drafts, how votes are counted, when a vote is decided, and what the result tells."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import Abstained, InvalidOption, ServerFailed
from llm_council.events import Tallied
from llm_council.models import Answer, AnswerKind, Budget, Draft, GenerateResponse, Status
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Poll
from llm_council.strategies._answer_form import form_of, with_common_keys
from llm_council.strategies._plurality import Plurality
from llm_council.testing.fakes import ScriptedProvider

NUMBER = {"type": "number"}
CHOICE = {"enum": ["guilty", "not guilty", "unclear"]}
BOOL = {"type": "boolean"}
VERDICT = {
    "type": "object",
    "properties": {"verdict": {"enum": ["merge", "fix"]}, "why": {"type": "string"}},
    "required": ["verdict", "why"],
}
DOWN = ServerFailed("overloaded", status=529)


def read(schema: Any, text: str, **options: Any) -> Any:
    draft = Draft(seat="ann", response=GenerateResponse(text=text))
    answer = form_of(schema, **options).read(draft)
    return None if answer is None else answer.value


class TestReading:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("17 * 23 = 391.\nANSWER: 391", 391),
            ("**Final answer:** 1,234.5 kg", 1234.5),
            ("ANSWER:\n\n42\n", 42),
            ("ANSWER: 3\nNo, wait.\nANSWER: 4", 4),
            ("ANSWER: $1'000'000", 1_000_000),
            ("ANSWER: 3,14", 3.14),
            ("ANSWER: 50%", 0.5),
            ("ANSWER: 1/4", 0.25),
            ("ANSWER: \u22127", -7),
            ("ANSWER: -7", -7),
            ("ANSWER: 6.02e23", 602 * 10**21),
            ("ANSWER: 17 * 23 = 391", 391),
            ("It is 391.", 391),
            ("<think>ANSWER: 5</think>ANSWER: 6", 6),
            ("ANSWER: none", None),
            ("ANSWER: 1/0", None),
            ("ANSWER: 1e999", None),
            ("", None),
        ],
    )
    def test_a_number_is_read(self, text: str, value: object) -> None:
        assert read(NUMBER, text) == value

    def test_a_number_that_the_schema_refuses_is_no_answer(self) -> None:
        assert read({"type": "integer"}, "ANSWER: 3.5") is None
        assert read({"type": "integer", "maximum": 10}, "ANSWER: 11") is None

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("ANSWER: guilty", "guilty"),
            ("ANSWER: **Not guilty.**", "not guilty"),
            ("The answer: he is not guilty", "not guilty"),
            ("So: unclear", "unclear"),
            ("ANSWER: guilty or unclear", None),
            ("ANSWER: innocent", None),
        ],
    )
    def test_a_choice_is_read(self, text: str, value: object) -> None:
        assert read(CHOICE, text) == value

    @pytest.mark.parametrize(
        ("text", "value"),
        [("ANSWER: yes", True), ("Answer: No.", False), ("ANSWER: TRUE", True), ("ANSWER: yes and no", None)],
    )
    def test_yes_and_no_are_read(self, text: str, value: object) -> None:
        assert read(BOOL, text) is value

    def test_parts_of_an_object_are_compared(self) -> None:
        form = form_of(VERDICT, ["$.verdict"])
        one, other = (
            form.read(Draft(seat="ann", response=GenerateResponse(text=f'{{"verdict": "fix", "why": "{why}"}}')))
            for why in "ab"
        )
        assert one is not None
        assert other is not None
        assert (one.key, one.shown, one.value) == (other.key, "fix", {"verdict": "fix", "why": "a"})
        assert form.read(Draft(seat="ann", response=GenerateResponse(text='{"verdict": "burn"}'))) is None

    def test_texts_are_equal_without_case_articles_and_punctuation(self) -> None:
        form = form_of(None)
        keys = set()
        for text in ("ANSWER: The Seine.", "answer: seine", "ANSWER: **the  SEINE**"):
            answer = form.read(Draft(seat="ann", response=GenerateResponse(text=text)))
            assert answer is not None
            keys.add(answer.key)
        assert len(keys) == 1

    def test_numbers_are_equal_within_a_millionth(self) -> None:
        values = {"ann": 1_000_000, "bob": 1_000_000.5, "cid": 1_000_002}
        answers = {
            seat: Answer(kind=AnswerKind.NUMBER, value=value, key=str(value), shown="")
            for seat, value in values.items()
        }
        keys = {seat: answer.key for seat, answer in with_common_keys(answers).items()}
        assert keys["ann"] == keys["bob"] != keys["cid"]

    @pytest.mark.parametrize(
        ("schema", "paths", "words"),
        [
            (None, ["$.verdict"], "pass a schema"),
            (VERDICT, ["$.verdct"], "it has verdict, why"),
            (VERDICT, [" "], "expected a path"),
        ],
    )
    def test_a_path_that_cannot_be_is_refused(self, schema: Any, paths: list[str], words: str) -> None:
        with pytest.raises(InvalidOption, match=words):
            form_of(schema, paths)

    @examples(200)
    @given(st.text(alphabet=st.sampled_from(" -*_`ANSWERansweris:=0123456789,./%e\n"), max_size=200))
    def test_reading_never_fails_and_gives_what_the_schema_allows(self, text: str) -> None:
        for schema in (NUMBER, CHOICE, BOOL, None):
            value = read(schema, text)
            assert value is None or schema is None or isinstance(value, int | float | str | bool)

    @pytest.mark.parametrize("unit", ["answer", "answer: ", "1,", "1 ", "-", "\n", "*", "the final answer is "])
    def test_the_time_of_reading_grows_with_the_length_and_not_with_its_square(self, unit: str) -> None:
        # With the square, one of these texts takes minutes, which the suite's limit ends.
        text = f"{unit * (200_000 // len(unit))}\nANSWER: 7"
        assert read(NUMBER, text) == 7


class TestPlurality:
    def test_unreadable_and_failed_seats_stay_in_the_denominator(self) -> None:
        count = Plurality(["a", "b", "c", "d", "e"])
        for seat, key in (("a", "x"), ("b", "x"), ("c", "y"), ("d", None)):
            count.cast(seat, key)
        count.fail("e")
        tally = count.tally(Random(1))
        assert (tally.winner, tally.share, tally.margin) == ("x", 2 / 5, 1 / 5)
        assert (tally.cast, tally.empty, tally.failed) == (3, 1, 1)
        assert count.agreement(tally).level == "plurality"

    def test_a_possible_tie_is_open(self) -> None:
        three, two = Plurality("abcde"), Plurality("abcd")
        for seat, key in zip("abcd", "xxxy", strict=True):
            three.cast(seat, key)
        for seat, key in zip("abc", "xxy", strict=True):
            two.cast(seat, key)
        assert not three.is_open()
        assert two.is_open()

    def test_weights_of_log_odds_let_the_best_seat_outvote_two(self) -> None:
        weights = {"a": 2.197, "b": 0.405, "c": 0.405}
        count = Plurality("abc", weights)
        count.cast("a", "x")
        assert not count.is_open()
        for seat in "bc":
            count.cast(seat, "y")
        assert count.tally(Random(1)).winner == "x"

    @pytest.mark.parametrize(
        ("keys", "level"), [("xxx", "unanimous"), ("xxy", "majority"), ("xyz", "split"), ("xxyzw", "plurality")]
    )
    def test_the_level_of_agreement(self, keys: str, level: str) -> None:
        count = Plurality([str(place) for place, _ in enumerate(keys)])
        for place, key in enumerate(keys):
            count.cast(str(place), key)
        assert count.agreement(count.tally(Random(1))).level == level

    def test_a_seat_of_weight_0_that_dissents_ends_unanimity(self) -> None:
        count = Plurality("ab", {"a": 1.0})
        count.cast("a", "x")
        count.cast("b", "y")
        agreement = count.agreement(count.tally(Random(1)))
        assert (agreement.level, agreement.share) == ("majority", 1.0)

    def test_a_tie_is_fair_and_does_not_depend_on_the_order_of_seats(self) -> None:
        wins = 0
        for seed in range(1000):
            one, other = Plurality("ab"), Plurality("ba")
            for count, order in ((one, "ab"), (other, "ba")):
                for seat in order:
                    count.cast(seat, {"a": "x", "b": "y"}[seat])
            winner = one.tally(Random(seed)).winner
            assert winner == other.tally(Random(seed)).winner
            wins += winner == "x"
        assert abs(wins - 500) < 4 * 15.8  # four standard errors

    @pytest.mark.parametrize("abstain_below", [None, 0.5, 0.75])
    @pytest.mark.parametrize("weights", [None, {"0": 1.0, "1": 1.5, "2": 0.5, "3": 1.0}])
    def test_a_decided_vote_is_the_same_whatever_the_others_answer(
        self, abstain_below: float | None, weights: dict[str, float] | None
    ) -> None:
        seats = "0123"
        outcomes = ("x", "y", "z", None, "fail")

        def outcome_of(ballots: tuple[str | None, ...]) -> tuple[bool, set[str | None]]:
            count = Plurality(seats, weights)
            for seat, key in zip(seats, ballots, strict=False):
                if key == "fail":
                    count.fail(seat)
                else:
                    count.cast(seat, key)
            results: set[str | None] = set()
            if len(ballots) == len(seats):
                tally = count.tally(Random(1))
                winners = set(tally.tied) or {tally.winner}
                is_enough = abstain_below is None or tally.share >= abstain_below
                results = set(winners) if is_enough else {"abstains"}
            return count.is_open(abstain_below), results

        for known in range(1, len(seats)):
            for ballots in product(outcomes, repeat=known):
                is_open, _ = outcome_of(ballots)
                if is_open:
                    continue
                found: set[str | None] = set()
                for rest in product(outcomes, repeat=len(seats) - known):
                    found |= outcome_of((*ballots, *rest))[1]
                assert len(found) == 1, ballots

    @pytest.mark.parametrize(("accuracy", "majority"), [(0.7, 0.784), (0.6, 0.648)])
    def test_three_independent_seats_are_right_as_often_as_the_closed_form_says(
        self, accuracy: float, majority: float
    ) -> None:
        chance, draws = Random(7), 20_000
        right = 0
        for _ in range(draws):
            count = Plurality("abc")
            for seat in "abc":
                count.cast(seat, "right" if chance.random() < accuracy else "wrong")
            right += count.tally(chance).winner == "right"
        assert abs(right / draws - majority) < 4 * (majority * (1 - majority) / draws) ** 0.5


def council_of(table: Any, *drafts: Any, delay: dict[str, float] | None = None) -> Any:
    names = ("ann", "bob", "cid", "dot", "eve")[: len(drafts)]
    council = table(
        **{
            name: ScriptedProvider({"draft": draft, "synthesise": '{"river": "Seine"}'})
            for name, draft in zip(names, drafts, strict=True)
        }
    )
    for name, seconds in (delay or {}).items():
        council.seats[name]._delay = seconds
    return council


@pytest.mark.anyio
class TestPoll:
    async def test_the_answer_of_most_seats_wins_and_its_value_needs_no_further_call(self, table):
        council = council_of(table, "ANSWER: 390", "Surely.\nANSWER: 391", "ANSWER: 391.0", delay={"cid": 0.02})
        result = await council.run(strategy="poll", schema=NUMBER)
        assert (result.status, result.output) == (Status.COMPLETED, 391)
        assert result.chair in ("bob", "cid")
        assert (result.agreement.level, result.tally.margin) == ("majority", pytest.approx(1 / 3))
        assert [(dissent.answer.shown, dissent.seats) for dissent in result.dissent] == [("390", ("ann",))]
        assert result.otherwise == {"single:ann": "390", "single:bob": "391", "single:cid": "391", "poll": "391"}
        assert vote_line(result) == "2 of 3 agree; ann dissents: 390"
        (event,) = council.events_of(Tallied)
        assert (event.tally, event.agreement, event.dissent) == (result.tally, result.agreement, result.dissent)
        assert sum(len(seat.requests) for seat in council.seats.values()) == 3
        (request,) = council.seats["ann"].requests
        assert request.messages[-1].content.endswith('End with one line: "ANSWER:" and the number alone.')

    async def test_a_decided_vote_cancels_the_others_and_is_not_degraded(self, table):
        council = council_of(table, "ANSWER: yes", "ANSWER: yes", "ANSWER: no", delay={"cid": float("inf")})
        with anyio.fail_after(20):
            result = await council.run(strategy="poll", schema=BOOL, budget=Budget(deadline=None))
        assert (result.status, result.output) == (Status.COMPLETED, True)
        assert council.seats["cid"].cancelled == 1
        assert (result.tally.decided_after, result.tally.failed, result.agreement.level) == (2, 0, "majority")
        assert "single:cid" not in result.otherwise
        assert vote_line(result) == "2 of 3 agree; 1 more could not have changed it"

    async def test_the_quorum_is_waited_for_before_a_vote_may_end(self, table):
        council = council_of(table, "ANSWER: yes", "ANSWER: yes", "ANSWER: no", delay={"cid": 0.05})
        result = await council.run(strategy="poll", schema=BOOL, budget=Budget(quorum=3))
        assert (result.tally.cast, result.tally.decided_after) == (3, None)

    async def test_seats_that_do_not_agree_abstain(self, table):
        council = council_of(table, "ANSWER: guilty", "ANSWER: not guilty", "ANSWER: unclear")
        result = await council.run(strategy=Poll(abstain_below=0.5), schema=CHOICE)
        assert (result.status, result.success, result.output, result.chair) == (Status.ABSTAINED, False, None, None)
        assert (result.tally.broken_by, result.agreement.level) == ("seed", "split")
        assert {dissent.seats for dissent in result.dissent} < {("ann",), ("bob",), ("cid",)}
        with pytest.raises(Abstained, match=r"share of 0.33, and abstain_below is 0.5"):
            result.raise_for_failure()

    async def test_without_a_readable_answer_the_council_abstains(self, table):
        council = council_of(table, "Who knows?", "I cannot say.", DOWN)
        result = await council.run(strategy="poll", schema=CHOICE)
        assert result.status is Status.ABSTAINED
        assert (result.tally.winner, result.tally.empty, result.tally.failed) == (None, 2, 1)
        assert "2 could not be read; 1 failed" in vote_line(result)

    async def test_parts_of_an_object_are_voted_on_and_the_whole_is_returned(self, table):
        drafts = [
            f'{{"verdict": "{verdict}", "why": "{why}"}}'
            for verdict, why in (("fix", "a"), ("fix", "b"), ("merge", "c"))
        ]
        result = await council_of(table, *drafts).run(strategy=Poll(vote_on=["$.verdict"]), schema=VERDICT)
        assert result.output["verdict"] == "fix"
        assert result.output["why"] in ("a", "b")
        assert (result.plan.strategy_options, result.plan.most_calls) == ({"vote_on": ["$.verdict"]}, 3)

    async def test_the_author_of_the_winning_text_brings_it_into_the_schema(self, table):
        schema = {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]}
        council = council_of(table, "ANSWER: the Seine", "ANSWER: Seine", "ANSWER: the Loire", delay={"cid": 0.02})
        result = await council.run(strategy="poll", schema=schema)
        assert (result.output, result.chair in ("ann", "bob")) == ({"river": "Seine"}, True)
        assert sum(len(seat.requests) for seat in council.seats.values()) == 4

    async def test_what_the_seats_vote_on_is_a_note_and_no_warning(self, table):
        council = council_of(table, "ANSWER: 1", "ANSWER: 1")
        result = await council.run(strategy="poll", schema=NUMBER)
        assert result.plan.notes == ("the seats vote on a number",)
        assert result.warnings == ()

    async def test_weights_are_those_of_the_caller(self, table):
        council = council_of(table, "ANSWER: 1", "ANSWER: 2", "ANSWER: 2")
        strategy = Poll(weights={"ann": 2.2, "bob": 0.4, "cid": 0.4})
        assert "these weights make ann the only voter" in council.plan(strategy=strategy, schema=NUMBER).notes
        result = await council.run(strategy=strategy, schema=NUMBER)
        assert (result.output, result.chair) == (1, "ann")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"weights": {"ann": -1}}, "weights of seats"),
            ({"weights": {"ann": 0}}, "one above 0"),
            ({"abstain_below": 2}, "from 0 to 1"),
            ({"k": 2}, "takes no 'k'"),
        ],
    )
    async def test_wrong_options_are_refused(self, options, words):
        with pytest.raises((InvalidOption, TypeError), match=words):
            Poll(**options)

    async def test_weights_of_unknown_seats_and_a_single_seat_are_refused(self, table):
        with pytest.raises(InvalidOption, match="no seat is named 'anne'; did you mean 'ann'"):
            council_of(table, "x", "y").plan(strategy=Poll(weights={"anne": 1}))
        with pytest.raises(InvalidOption, match="2 seats or more, got 1"):
            council_of(table, "x").plan(strategy="poll")

    async def test_the_result_is_written_read_and_shown(self, table):
        council = council_of(table, "ANSWER: <b>1</b>", "ANSWER: 2", "ANSWER: 2", delay={"bob": 0.02})
        result = await council.run(strategy="poll")
        again = CouncilResult.from_dict(result.to_dict())
        for field in ("answers", "tally", "agreement", "dissent", "otherwise", "status"):
            assert getattr(again, field) == getattr(result, field)
        assert "## Votes" in result.to_markdown()
        assert "2 of 3 agree; ann dissents: " in result.to_html()
        assert "<b>1</b>" not in result.to_html()

    @pytest.mark.parametrize("accuracy", [0.8])
    async def test_a_vote_never_makes_more_calls_than_its_plan(self, table, accuracy):
        chance = Random(3)
        for _ in range(5):
            drafts = [DOWN if chance.random() > accuracy else f"ANSWER: {chance.choice('12')}" for _ in range(4)]
            council = council_of(table, *drafts)
            result = await council.run(strategy="poll", schema=NUMBER)
            assert sum(len(seat.requests) for seat in council.seats.values()) <= result.plan.most_calls
