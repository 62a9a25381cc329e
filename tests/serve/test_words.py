"""The words of the final answer reach a reader as they are written, and no word twice."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council import Council
from llm_council.errors import ServerFailed
from llm_council.serve.words import FinalWords
from llm_council.testing.fakes import ScriptedProvider

DRAFTS = {"draft": "I think so. ANSWER: 4", "critique": "A: fine", "synthesise": "The final answer is here."}


async def heard(council: Council, *, prose: bool = True, **options: Any) -> tuple[list[str], str]:
    """Return the words as they came, and the answer."""
    words, found = FinalWords(prose=prose), []
    async with council.stream("What?", **options) as stream:
        async for event in stream:
            found.append(words.take(event))
    answer = str(stream.result.output)
    found.append(words.rest(answer))
    return [text for text in found if text], answer


def council_of(**scripts: Any) -> Council:
    """Return a council of scripted seats."""
    return Council([ScriptedProvider(script, name=name) for name, script in scripts.items()])


@pytest.mark.anyio
async def test_the_words_of_the_chair_come_as_they_are_written() -> None:
    words, answer = await heard(council_of(ann=DRAFTS, bob=DRAFTS, cy=DRAFTS), output_type=str, strategy="synthesize")
    assert len(words) > 1
    assert "".join(words) == answer == "The final answer is here."


@pytest.mark.anyio
async def test_the_words_of_the_only_seat_come_as_they_are_written() -> None:
    words, answer = await heard(council_of(ann=DRAFTS), output_type=str, strategy="single")
    assert len(words) > 1
    assert "".join(words) == answer


@pytest.mark.anyio
@pytest.mark.parametrize("strategy", ["poll", "rank"])
async def test_an_answer_that_is_chosen_comes_whole(strategy: str) -> None:
    council = council_of(ann=DRAFTS, bob=DRAFTS, cy=DRAFTS)
    words, answer = await heard(council, output_type=str, strategy=strategy)
    assert words == [answer]


@pytest.mark.anyio
async def test_json_comes_whole() -> None:
    scripts = {**DRAFTS, "synthesise": '{"a": 4}', "draft": '{"a": 4}'}
    council = council_of(ann=scripts, bob=scripts, cy=scripts)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    words, _ = await heard(council, prose=False, schema=schema, strategy="synthesize")
    assert len(words) == 1


@pytest.mark.anyio
async def test_a_chair_that_fails_is_followed_by_the_answer_of_another() -> None:
    failing = {**DRAFTS, "synthesise": [ServerFailed("overloaded", status=529)]}
    council = council_of(ann=DRAFTS, bob=DRAFTS, cy=failing)
    words, answer = await heard(council, output_type=str, strategy="synthesize")
    assert "".join(words).endswith(answer)


def test_words_that_were_sent_are_not_sent_again() -> None:
    words = FinalWords(prose=True)
    words._sent = "The final"
    assert words.rest("The final answer") == " answer"
    assert words.rest("The final") == ""
    assert words.rest("  The final\n") == ""
    assert words.rest("Another").endswith("\n\nAnother")


@pytest.mark.parametrize(
    ("strategy", "phases"), [("synthesize", ("synthesise",)), ("poll", ()), ("single", ("draft",))]
)
def test_only_the_phase_of_the_answer_is_listened_to(strategy: str, phases: tuple[str, ...]) -> None:
    plan = council_of(ann=DRAFTS, bob=DRAFTS, cy=DRAFTS).plan("What?", output_type=str, strategy=strategy)
    assert FinalWords(prose=True).phases(plan) == phases
    assert FinalWords(prose=False).phases(plan) == ()
