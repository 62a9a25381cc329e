"""Reports show what the seats of each strategy did; what models wrote is text there, and never markup."""

from __future__ import annotations

import attrs
import pytest

from llm_council.models import (
    Agreement,
    Answer,
    Check,
    Dissent,
    Flip,
    Judgement,
    Plan,
    Round,
    Rung,
    SeatSpec,
    Status,
    Tally,
)
from llm_council.results import CouncilResult
from llm_council.results._deliberation import deliberation_tables
from llm_council.results.plain import vote_line

EVIL = "<script>x</script>|*a*"


def said(text: str) -> Answer:
    return Answer(kind="text", value=text, key=text, shown=text)


@pytest.fixture
def result() -> CouncilResult:
    plan = Plan(
        run_id="r1", task="How many?", subagent="tester", phases=(), seats=(SeatSpec(name="ann", provider="x"),)
    )
    return CouncilResult(
        run_id="r1",
        task="How many?",
        subagent="tester",
        status=Status.COMPLETED,
        output="7",
        text="7",
        plan=plan,
        rounds=[
            Round(number=0, answers={"ann": said(EVIL), "bob": said("8")}),
            Round(number=1, answers={"ann": said("8"), "bob": said("8")}, flips=[Flip(seat="ann", old=EVIL, new="8")]),
        ],
        rungs=[
            Rung(
                seats=["ann", "bob"],
                agreement=Agreement(level="split", share=0.5, margin=0.0),
                usd=0.25,
                is_settled=False,
                reason="they do not agree",
            )
        ],
        judgements=[Judgement(judge="cid", scores={"ann": 7, "bob": 2.5}, consistent=False)],
        bias={"flip_rate": 0.5},
        checks=[Check(claim=EVIL, question="How many?", answers={"bob": "8"}, verdict="contradicted")],
    )


def test_markdown_has_a_table_for_each_part(result: CouncilResult) -> None:
    shown = result.to_markdown()
    for line in (
        "| 1 | ann | 8 | ",
        "| ann, bob | they do not agree | 0.2500 USD |",
        "| cid | ann 7, bob 2.5 | no |",
        "| share of pairs in which the order decided | 0.50 |",
    ):
        assert line in shown
    assert "| contradicted | How many? | " in shown
    assert "<script>" not in shown
    widths = {
        len(line.replace("\\|", "").split("|")) for line in shown.splitlines() if line.startswith("| contradicted")
    }
    assert widths == {6}


def test_html_has_a_table_for_each_part(result: CouncilResult) -> None:
    shown = result.to_html()
    for heading in ("Rounds", "Groups of seats", "Judgements", "Bias of the judges", "Checks"):
        assert f">{heading}<" in shown
    assert "ann 7, bob 2.5" in shown
    assert "<script>x" not in shown


def test_a_result_without_them_has_no_table(result: CouncilResult) -> None:
    plain = attrs.evolve(result, rounds=(), rungs=(), judgements=(), bias={}, checks=())
    assert not list(deliberation_tables(plain))
    one_round = attrs.evolve(plain, rounds=result.rounds[:1])  # nobody was asked to revise
    assert not list(deliberation_tables(one_round))


def voted(**changes: object) -> CouncilResult:
    plan = Plan(run_id="r1", task="How many?", subagent="tester", drafters=("ann", "bob", "cid"))
    dissent = Dissent(answer=said(EVIL), seats=["cid"], text="x")
    facts: dict[str, object] = {
        "answers": {"ann": said("7"), "bob": said("7"), "cid": said(EVIL)},
        "agreement": Agreement(level="majority", share=2 / 3, margin=1 / 3),
        "dissent": [dissent],
        "otherwise": {"single:ann": "7", "single:cid": EVIL, "poll": "7", "judge:bob": "ann"},
        "tally": Tally(winner="7", points={"7": 2.0, EVIL: 1.0}, share=2 / 3, margin=1 / 3, cast=3),
    }
    return CouncilResult(
        run_id="r1", task="How many?", subagent="tester", plan=plan, **{"status": Status.COMPLETED, **facts, **changes}
    )


def test_every_report_tells_the_vote_the_dissent_and_what_others_would_have_said() -> None:
    result = voted(output="7", text="7")
    line = "2 of 3 agree; cid dissents: <script>x</script>|*a*"
    assert vote_line(result) == line
    for report in (result.to_html(), result._repr_html_() or ""):
        assert "2 of 3 agree; cid dissents: &lt;script&gt;" in report
        for words in ("majority", "67%", "What others would have said", "ann alone", "most drafts", "bob alone would"):
            assert words in report
        assert "<script>x" not in report
    markdown = result.to_markdown()
    for words in ("2 of 3 agree; cid dissents", "**Agreement:** majority (67%)", "| most drafts | 7 |"):
        assert words in markdown
    assert CouncilResult.from_dict(result.to_dict()).to_dict() == result.to_dict()


def test_a_run_that_abstained_shows_its_vote() -> None:
    result = voted(status=Status.ABSTAINED, agreement=Agreement(level="split", share=1 / 3, margin=0.0))
    for report in (result.to_html(), result._repr_html_() or "", result.to_markdown()):
        assert "abstained" in report
        assert "cid dissents" in report


def test_a_chair_that_overrules_most_drafts_is_told_in_the_line_of_the_vote() -> None:
    result = voted(
        tally=None,
        agreement=None,
        overruled=True,
        output="8",
        text="8",
        dissent=[Dissent(answer=said("7"), seats=["ann", "bob"], text="x")],
    )
    assert (
        vote_line(result) == "1 of 3 drafts agrees with the answer; most drafts were overruled; ann and bob dissent: 7"
    )
    assert "most drafts were overruled" in (result._repr_html_() or "")


def test_a_result_that_was_stored_without_the_facts_has_none() -> None:
    stored = voted(output="7").to_dict()
    for name in ("spared_calls", "spared_usd", "answers", "otherwise", "tally", "agreement", "dissent", "overruled"):
        del stored[name]
    result = CouncilResult.from_dict(stored)
    assert (result.spared_calls, result.spared_usd, result.tally, result.otherwise) == (0, None, None, {})
    assert vote_line(result) is None
