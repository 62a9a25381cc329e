"""Votes on each part of an object by itself: what wins, and how a result says that nobody proposed it."""

from __future__ import annotations

import json
from itertools import product
from math import inf
from random import Random
from typing import Any

import pytest

from llm_council.errors import InvalidOption
from llm_council.models import AgreementLevel, Draft, GenerateResponse, Status
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Poll
from llm_council.strategies._answer_form import form_of
from llm_council.strategies._field_votes import FieldBallots, countable_fields
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

SCHEMA = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["merge", "fix"]},
        "risk": {"type": "integer"},
        "why": {"type": "string"},
    },
    "required": ["verdict", "risk", "why"],
}


def said(verdict: str, risk: float, why: str = "So.") -> str:
    return json.dumps({"verdict": verdict, "risk": risk, "why": why})


def council_of(table: Any, *drafts: Any) -> Any:
    return table(**{f"s{place}": ScriptedProvider(draft) for place, draft in enumerate(drafts, 1)})


async def test_the_parts_that_most_seats_give_win_even_if_few_give_them_together(table):
    council = council_of(table, said("merge", 1), said("fix", 2), said("merge", 3), said("fix", 2), said("merge", 2))
    result = await council.run(strategy=Poll(fields="each"), schema=SCHEMA)
    assert result.status == Status.COMPLETED
    assert (result.output["verdict"], result.output["risk"]) == ("merge", 2)
    assert not result.tally.composed  # the last seat said both
    assert [dissent.seats for dissent in result.dissent] == [("s2", "s4"), ("s1",), ("s3",)]


async def test_only_the_parts_that_are_named_are_counted(table):
    council = council_of(table, said("merge", 1), said("merge", 3), said("fix", 2), said("fix", 2))
    result = await council.run(strategy=Poll(fields="each", vote_on=["risk"]), schema=SCHEMA)
    assert (result.output["risk"], result.tally.composed) == (2, False)


async def test_an_object_that_nobody_proposed_is_flagged(table):
    drafts = [said("merge", 1), said("fix", 2), said("merge", 3), said("fix", 4), said("merge", 5), said("fix", 2)]
    council = council_of(table, *drafts, said("merge", 6))
    result = await council.run(strategy=Poll(fields="each"), schema=SCHEMA)
    assert (result.output["verdict"], result.output["risk"]) == ("merge", 2)
    assert result.tally.composed
    assert result.tally.rule == "fields"
    assert {path: one.winner for path, one in result.tally.fields.items()} == {"$.verdict": '"merge"', "$.risk": "2"}
    assert (result.tally.share, result.agreement.level) == (pytest.approx(2 / 7), AgreementLevel.PLURALITY)
    assert "the answer combines parts of several drafts: no seat proposed it as a whole" in result.warnings
    assert result.otherwise["poll"] == "fix, 2"  # the vote on whole answers
    line = vote_line(result)
    assert line.startswith("$.verdict is merge for 57% of all seats; $.risk is 2 for 29% of all seats; ")
    assert "no seat proposed this combination" in line
    assert "no seat proposed this combination" in result.to_markdown()
    assert CouncilResult.from_dict(result.to_dict()).tally == result.tally
    assert result.output["why"] == "So."


async def test_parts_that_the_schema_does_not_accept_together_are_not_combined(table):
    strict = {
        **SCHEMA,
        "if": {"properties": {"verdict": {"const": "merge"}}},
        "then": {"properties": {"risk": {"maximum": 1}}},
    }
    drafts = [said("merge", 0), said("merge", 1), said("fix", 5), said("merge", -1), said("fix", 5)]
    result = await council_of(table, *drafts).run(strategy=Poll(fields="each"), schema=strict)
    assert result.success
    assert (result.output["verdict"], result.output["risk"]) in {("merge", 0), ("merge", 1), ("merge", -1), ("fix", 5)}
    assert not result.tally.composed
    assert any("do not go together by the schema" in warning for warning in result.warnings)


async def test_seats_that_cannot_change_any_part_are_cancelled(table):
    slow = ScriptedProvider(said("fix", 1), delay=inf)
    council = table(ann=ScriptedProvider(said("fix", 1)), bob=ScriptedProvider(said("fix", 1.0)), cid=slow)
    result = await council.run(strategy=Poll(fields="each"), schema=SCHEMA)
    assert (result.tally.decided_after, slow.cancelled, result.agreement.share) == (2, 1, pytest.approx(2 / 3))


async def test_it_abstains_if_seats_agree_too_little_on_one_part(table):
    council = council_of(table, said("fix", 1), said("fix", 2), said("fix", 3))
    result = await council.run(strategy=Poll(fields="each", abstain_below=0.5), schema=SCHEMA)
    assert (result.status, result.output) == (Status.ABSTAINED, None)
    assert result.agreement.level == AgreementLevel.SPLIT


async def test_a_plan_says_that_parts_are_voted_on_and_refuses_what_has_none(table):
    council = council_of(table, "x", "x", "x")
    plan = council.plan(strategy=Poll(fields="each"), schema=SCHEMA)
    assert plan.notes == (
        "the seats vote on $.verdict and $.risk",
        "each part is voted on by itself: the answer may be one that no seat proposed",
    )
    assert plan.strategy_options == {"fields": "each"}
    for schema in (None, {"type": "object", "properties": {"why": {"type": "string"}}}, {"type": "boolean"}):
        with pytest.raises(InvalidOption, match="fields='each' votes on parts of an object"):
            council.plan(strategy=Poll(fields="each"), schema=schema)
    with pytest.raises(InvalidOption, match="'whole' or 'each'"):
        Poll(fields="all")


def test_properties_that_refer_to_an_enum_are_counted() -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"$ref": "#/$defs/Mood"}, "text": {"$ref": "#/$defs/Text"}},
        "$defs": {"Mood": {"enum": ["good", "bad"]}, "Text": {"type": "string"}},
    }
    assert countable_fields(schema) == ("$.mood",)


def test_a_vote_is_never_called_decided_while_a_part_may_change() -> None:
    """All votes of four seats on two parts: the winner after an early end is the winner of every completion."""
    form = form_of(SCHEMA, ("verdict", "risk"))
    seats = ("a", "b", "c", "d")
    choices = list(product(("merge", "fix"), (1, 2)))

    def count(votes: tuple[Any, ...]) -> Any:
        drafts = [
            Draft(seat=seat, response=GenerateResponse(text=said(*vote)))
            for seat, vote in zip(seats, votes, strict=False)
        ]
        return FieldBallots(form, seats).count(drafts)

    decided = 0
    for votes in product(choices, repeat=3):
        early = count(votes)
        winners = {count((*votes, last)).tally(Random(0)).winner for last in choices}
        ties = any(one.tied for last in choices for one in count((*votes, last)).tally(Random(0)).fields.values())
        if not early.is_open():
            decided += 1
            assert len(winners) == 1
        else:
            assert ties or len(winners) > 1
    assert decided == 4  # three equal votes
