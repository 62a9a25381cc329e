"""Verification: which questions are asked, that nobody sees the answer it checks, and what becomes of a claim."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.errors import InvalidOption, ServerFailed
from llm_council.events import Checked
from llm_council.models import CheckVerdict, Phase, Status
from llm_council.results import CouncilResult
from llm_council.strategies import Judge, Single, Verify
from llm_council.strategies.verify import read_comparison, read_questions
from llm_council.testing.fakes import ScriptedProvider

SCHEMA = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
DOWN = ServerFailed("overloaded", status=529)
WRONG = "The Sydney Harbour Bridge was opened in 1923."
RIGHT = "The Sydney Harbour Bridge was opened in 1932."
QUESTIONS = "QUESTION: In which year was the bridge opened?\nCLAIM: 1923"


class TestReading:
    @pytest.mark.parametrize(
        ("text", "questions"),
        [
            (QUESTIONS, [("In which year was the bridge opened?", "1923")]),
            (
                "1. **Question:** Who wrote it?\n   **Claim:** Orwell\n\n2. **QUESTION:** When?\n- CLAIM: in 1949",
                [("Who wrote it?", "Orwell"), ("When?", "in 1949")],
            ),
            ("QUESTION: Who?\nHe wrote it.\nCLAIM: Orwell", []),
            ("NONE", []),
            ("", []),
        ],
    )
    def test_questions_are_read_with_their_claims(self, text: str, questions: list[tuple[str, str]]) -> None:
        assert read_questions(text) == questions

    def test_the_last_word_on_a_number_counts(self) -> None:
        text = "1: SAME\n**2: different**\n3. : unknown\nNo:\n1: DIFFERENT"
        assert read_comparison(text) == {
            1: CheckVerdict.CONTRADICTED,
            2: CheckVerdict.CONTRADICTED,
            3: CheckVerdict.UNKNOWN,
        }

    @pytest.mark.parametrize("unit", ["question: ", "QUESTION: a\n", "claim:", "1: ", "\n", "*"])
    def test_the_time_of_reading_grows_with_the_length_and_not_with_its_square(self, unit: str) -> None:
        text = f"{unit * (200_000 // len(unit))}\n{QUESTIONS}\n1: SAME"
        assert read_questions(text)[-1][1] == "1923"
        assert read_comparison(text)[1] == CheckVerdict.CONFIRMED


def verifying(
    *, listed: Any = QUESTIONS, answer: Any = "ANSWER: 1932", compared: str = "1: DIFFERENT", correct: Any = RIGHT
) -> Any:
    """Return what a seat says in the phase ``verify``, by the question that it is asked."""

    def say(request: Any) -> Any:
        asked = request.messages[-1].content
        if "QUESTION:" in asked and "List up to" in asked:
            return listed
        if "Answer the question in the text" in asked:
            return answer(request) if callable(answer) else answer
        return compared if "one line for each number" in asked else correct

    return say


def council_of(table: Any, *, draft: str = WRONG, **says: Any) -> Any:
    script = {"draft": draft, "critique": "Fine.", "synthesise": draft, "verify": verifying(**says)}
    return table(**{name: ScriptedProvider(script) for name in ("ann", "bob", "cid")})


def asked(council: Any, words: str) -> list[tuple[str, str]]:
    found = []
    for name, seat in council.seats.items():
        texts = [request.messages[-1].content for request in seat.asked("verify")]
        found += [(name, text) for text in texts if words in text]
    return found


@pytest.mark.anyio
class TestVerify:
    async def test_a_contradicted_claim_is_corrected_by_the_author(self, table):
        council = council_of(table)
        result = await council.run(task="When was it opened?", strategy="verify")
        assert (result.status, result.output, result.chair) == (Status.COMPLETED, RIGHT, "cid")
        (check,) = result.checks
        assert (check.claim, check.verdict) == ("1923", CheckVerdict.CORRECTED)
        assert check.answers == {"ann": "1932", "bob": "1932"}
        assert [name for name, _ in asked(council, "Then give the whole answer again")] == ["cid"]
        assert result.phases[-1].phase == Phase.VERIFY
        assert CouncilResult.from_dict(result.to_dict()).checks == result.checks
        assert [event.check for event in council.events_of(Checked)] == list(result.checks)

    async def test_nobody_who_checks_has_seen_the_answer_in_the_question(self, table):
        council = council_of(table)
        await council.run(task="When was it opened?", strategy="verify")
        questions = asked(council, "Answer the question in the text")
        assert [name for name, _ in questions] == ["ann", "bob"]
        assert not any("1923" in text or WRONG in text for _, text in questions)

    async def test_a_confirmed_claim_needs_no_further_call(self, table):
        council = council_of(table, answer="ANSWER: in 1923")
        result = await council.run(strategy="verify")
        assert (result.output, [check.verdict for check in result.checks]) == (WRONG, ["confirmed"])
        assert sum(len(seat.asked("verify")) for seat in council.seats.values()) == 3

    async def test_a_claim_that_stays_is_reported(self, table):
        result = await council_of(table, correct=f"{WRONG} Surely.").run(strategy="verify")
        assert [check.verdict for check in result.checks] == [CheckVerdict.CONTRADICTED]
        assert any("contradicted by other seats: In which year" in warning for warning in result.warnings)

    async def test_an_author_that_fails_to_correct_leaves_the_answer(self, table):
        result = await council_of(table, correct=DOWN).run(strategy="verify")
        assert (result.status, result.output) == (Status.DEGRADED, WRONG)
        assert [check.verdict for check in result.checks] == [CheckVerdict.CONTRADICTED]

    @pytest.mark.parametrize("says", [{"answer": "ANSWER: unknown"}, {"compared": "1: UNKNOWN"}, {"compared": "?"}])
    async def test_what_nobody_knows_changes_nothing(self, table, says):
        result = await council_of(table, **says).run(strategy="verify")
        assert (result.output, [check.verdict for check in result.checks]) == (WRONG, [CheckVerdict.UNKNOWN])
        assert not any("contradicted" in warning for warning in result.warnings)

    @pytest.mark.parametrize(("listed", "is_told"), [("NONE", False), ("I like it.", True), (DOWN, False)])
    async def test_without_questions_the_answer_stands(self, table, listed, is_told):
        result = await council_of(table, listed=listed).run(strategy="verify")
        assert (result.output, result.checks) == (WRONG, ())
        assert any("no claim was checked" in warning for warning in result.warnings) is is_told

    async def test_no_more_questions_are_asked_than_planned(self, table):
        council = council_of(table, listed="\n".join([QUESTIONS] * 9))
        result = await council.run(strategy=Verify(questions=2))
        assert len(result.checks) == 2
        assert len(asked(council, "Answer the question in the text")) == 4
        assert sum(len(seat.requests) for seat in council.seats.values()) <= result.plan.most_calls

    async def test_a_corrected_object_is_brought_into_the_schema(self, table):
        council = council_of(table, draft='{"year": 1923}', correct='{"year": 1932}')
        result = await council.run(strategy=Verify(of="single"), schema=SCHEMA)
        assert (result.output, result.chair) == ({"year": 1932}, "ann")

    async def test_the_checked_strategy_may_have_options(self, table):
        plan = council_of(table).plan(strategy=Verify(of=Judge(mode="pair")))
        assert plan.strategy_options == {"of": {"kind": "judge", "mode": "pair"}}
        assert {Phase.JUDGE, Phase.VERIFY} <= set(plan.asks)
        named = council_of(table).plan(strategy=Verify(of={"kind": "judge", "mode": "pair"}))
        assert named.asks == plan.asks

    @pytest.mark.parametrize("of", [3, {"mode": "pair"}, "verify"])
    async def test_wrong_options_are_refused(self, table, of):
        with pytest.raises(InvalidOption, match="of: a strategy, its name"):
            Verify(of=of)

    async def test_an_author_cannot_check_itself(self, table):
        with pytest.raises(InvalidOption, match="needs 2 seats or more"):
            table(ann=ScriptedProvider("x")).plan(strategy="verify")
        with pytest.raises(InvalidOption, match="no strategy 'sinlge'; did you mean 'single'"):
            council_of(table).plan(strategy=Verify(of="sinlge"))

    async def test_a_strategy_inside_needs_a_name_by_which_runs_are_resumed(self, table):
        class Own(Single):
            name = "own"

        with pytest.raises(InvalidOption, match="of: the strategy 'own' is found by no name"):
            Verify(of=Own())

    async def test_a_stored_run_is_replayed_and_resumed(self, tmp_path):
        script = {"draft": f'"{WRONG}"', "verify": verifying(correct=f'"{RIGHT}"')}
        seats = [ScriptedProvider(script, name=name) for name in ("ada", "bea", "cleo")]
        council = Council(seats, config=CouncilConfig(), store=tmp_path / "runs.sqlite", strategy=Verify(of="single"))
        result = await council.arun("When was it opened?", schema={"type": "string"})
        made = sum(len(seat.requests) for seat in seats)
        for again in (await council.areplay(result.run_id), await council.aresume(result.run_id)):
            assert again.to_dict() == result.to_dict()
        assert sum(len(seat.requests) for seat in seats) == made
