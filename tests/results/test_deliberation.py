"""Reports show what the seats of each strategy did; what models wrote is text there, and never markup."""

from __future__ import annotations

import attrs
import pytest

from llm_council.models import (
    Agreement,
    Answer,
    Check,
    Flip,
    Judgement,
    Plan,
    Round,
    Rung,
    SeatSpec,
    Status,
)
from llm_council.results import CouncilResult
from llm_council.results._deliberation import deliberation_tables

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
