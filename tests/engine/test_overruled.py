"""A chair that gives another answer than most drafts: what the result tells of it."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council.models import Status
from llm_council.results import CouncilResult
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

NUMBER = {"type": "number"}
BOOL = {"type": "boolean"}


def council_of(table: Any, *drafts: str, final: str) -> Any:
    names = ("ann", "bob", "cid", "dot")
    seats = dict(zip(names, drafts, strict=False))
    providers = {name: ScriptedProvider({"draft": text, "critique": "Fine."}) for name, text in seats.items()}
    return table(**providers, zoe=ScriptedProvider({"critique": "Fine.", "synthesise": final}))


async def test_a_chair_that_overrules_most_drafts_is_told(table):
    council = council_of(table, "It is 390.", "So 390", "391", final="391")
    result = await council.run(schema=NUMBER)
    assert (result.status, result.output, result.chair, result.overruled) == (Status.COMPLETED, 391, "zoe", True)
    assert "the chair overruled the answer of most drafts: 390" in result.warnings
    assert [(dissent.answer.shown, dissent.seats) for dissent in result.dissent] == [("390", ("ann", "bob"))]
    assert result.otherwise == {"single:ann": "390", "single:bob": "390", "single:cid": "391", "poll": "390"}
    assert result.tally is None
    assert CouncilResult.from_dict(result.to_dict()).overruled is True


async def test_a_chair_that_follows_most_drafts_overrules_nobody(table):
    result = await council_of(table, "ANSWER: yes", "ANSWER: yes", "ANSWER: no", final="true").run(schema=BOOL)
    assert (result.output, result.overruled) == (True, False)
    assert not any("overruled" in warning for warning in result.warnings)
    assert [dissent.seats for dissent in result.dissent] == [("cid",)]


@pytest.mark.parametrize(
    ("drafts", "schema"),
    [
        (("390", "391", "392"), NUMBER),  # no answer has more than half
        (("390", "Who knows?", "I cannot say."), NUMBER),  # nor more than half of all drafts
        (("A river.", "A river.", "A lake."), {"type": "object", "properties": {"what": {"type": "string"}}}),
    ],
)
async def test_without_a_majority_that_can_be_read_nothing_is_told(table, drafts, schema):
    final = '{"what": "A sea."}' if schema is not NUMBER else "5"
    result = await council_of(table, *drafts, final=final).run(schema=schema)
    assert result.success
    assert result.overruled is None
    assert not any("overruled" in warning for warning in result.warnings)


async def test_equal_numbers_in_other_words_are_no_overruling(table):
    result = await council_of(table, "1,000", "1000.0", "7", final="1000").run(schema=NUMBER)
    assert (result.output, result.overruled) == (1000, False)


async def test_prose_is_not_compared(table):
    result = await council_of(table, "Yes.", "Yes.", "No.", final="No.").run()
    assert (result.overruled, result.answers) == (None, {})


async def test_a_single_draft_is_no_majority(table):
    council = table(ann=ScriptedProvider({"draft": "390", "synthesise": "391"}))
    result = await council.run(schema=NUMBER)
    assert (result.output, result.overruled) == (391, None)
