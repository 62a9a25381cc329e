"""Models that repeat what they are shown get prompts without fences, labels and names of roles."""

import re

import attrs
import pytest

from llm_council._engine import prompts
from llm_council._engine.ranking import read_ranking
from llm_council.models import (
    Attachment,
    Critique,
    Draft,
    GenerateResponse,
    Phase,
    Plan,
    Ranking,
    SeatSpec,
)
from llm_council.models._convert import dump, load
from llm_council.subagents import load as load_subagent
from llm_council.subagents import names

SEATS = tuple(
    SeatSpec(name=f"local-{number}", provider="local", prose_first=True, plain_prompts=True) for number in (1, 2, 3)
)
DRAFTS = tuple(
    Draft(seat=seat.name, response=GenerateResponse(text=f"Words {number} of an answer."))
    for number, seat in enumerate(SEATS[:2])
)
REVIEW = Critique(seat="local-3", response=GenerateResponse(text="Draft A is right.\nRANKING: A > B"))
MARKS = re.compile(
    r"\[\[\[|\]\]\]|[0-9a-f]{16}|RANKING|I have read"
    r"|\b(?:draft|review|reviewer|seat|chair|council|advisor|peer|critique|task|label)s?\b",
    re.IGNORECASE,
)


def plan(**changes):
    facts = {
        "run_id": "r",
        "task": "Which city?",
        "subagent": "advisor",
        "seats": SEATS,
        "drafters": ("local-1", "local-2"),
        "reviewers": tuple(seat.name for seat in SEATS),
        "chairs": ("local-3", "local-1", "local-2"),
        "phases": (Phase.DRAFT, Phase.CRITIQUE, Phase.SYNTHESISE),
        "prompts": load_subagent("advisor").prompts,
        "schema": load_subagent("advisor").schema,
        "seed": "s",
        **changes,
    }
    return Plan(**facts)


def requests(plan):
    chair = plan.seats[2]
    shown = prompts.label_drafts(plan, chair, DRAFTS)
    return [
        prompts.draft_request(plan, plan.seats[0]),
        prompts.critique_request(plan, chair, shown),
        prompts.synthesis_request(plan, chair, DRAFTS, (REVIEW,), Ranking()),
    ]


@pytest.mark.parametrize("changes", [{}, {"context": "It rains.", "files": (Attachment(name="a.txt", text="x = 1"),)}])
def test_no_prompt_has_a_fence_a_label_or_a_name_of_a_role(changes):
    for request in requests(plan(**changes)):
        for turn in request.messages:
            assert MARKS.search(turn.text) is None, turn.text
        assert request.messages[-1].role == "user"


def test_the_role_is_one_sentence_and_the_question_comes_last():
    draft, review, synthesis = requests(plan(context="It rains.", files=(Attachment(name="a.txt", text="x = 1"),)))
    assert [turn.text for turn in draft.messages] == [
        "You answer questions correctly and briefly.",
        "It rains.\n\nx = 1\n\nWhich city?",
    ]
    assert [turn.role for turn in review.messages] == ["system", "user", "assistant", "user"]
    assert {*review.messages[2].text.split("\n\n")} == {"Words 0 of an answer.", "Words 1 of an answer."}
    assert synthesis.messages[-1].text.startswith("Which city?")
    assert synthesis.structured_output.json_schema == plan().schema


def test_no_role_of_ours_names_itself():
    for info in names():
        role = load_subagent(info.name)
        changed = plan(prompts=role.prompts, schema=role.schema)
        text = prompts.draft_request(changed, SEATS[0]).messages[0].text
        assert info.name not in text.lower().split()
        assert not {"advisor", "router", "planner", "critic", "drafter"} & {*re.findall(r"\w+", text.lower())}


def test_a_long_answer_is_cut_after_a_word_and_without_a_note():
    long = (Draft(seat="local-1", response=GenerateResponse(text="word " * 1000)),)
    shown = prompts.synthesis_request(plan(), SEATS[2], long, (), Ranking()).messages[2].text
    assert len(shown) <= 900
    assert {*shown.split()} == {"word"}


def test_a_draft_does_not_name_its_author():
    other = SeatSpec(name="claude", provider="anthropic", model="claude-sonnet-5")
    mixed = plan(seats=(other, *SEATS[1:]), drafters=("claude", "local-2"), rules=1)
    said = GenerateResponse(text="I am Claude, made by Anthropic. The city is Oslo.")
    drafts = (Draft(seat="claude", response=said),)
    shown = prompts.label_drafts(mixed, SEATS[2], drafts)
    for request in (
        prompts.critique_request(mixed, SEATS[2], shown),
        prompts.critique_request(mixed, SEATS[2], shown, phase=Phase.RANK),
        prompts.synthesis_request(mixed, SEATS[2], drafts, (), Ranking()),
    ):
        text = " ".join(turn.text for turn in request.messages)
        assert "The city is Oslo." in text
        assert "Claude" not in text
        assert "Anthropic" not in text


def test_a_vote_can_be_read():
    shown = prompts.label_drafts(plan(), SEATS[2], DRAFTS)
    request = prompts.critique_request(plan(), SEATS[2], shown, phase=Phase.RANK)
    text = request.messages[-1].text
    assert all(f"{label}: {draft.text}" in text for label, draft in shown.items())
    assert "[[[" not in text
    assert read_ranking(plan(), f"RANKING: {' > '.join(shown)}", shown) == tuple(shown)


def test_a_stored_seat_from_before_is_asked_as_it_was():
    """A stored request that differs from the one made now would end a replay."""
    stored = {key: value for key, value in dump(SEATS[0]).items() if key not in ("plain_prompts", "grammar", "warning")}
    seat = load(SeatSpec, stored)
    assert seat == attrs.evolve(SEATS[0], plain_prompts=False)
    old = plan(seats=tuple(attrs.evolve(seat, name=spec.name) for spec in SEATS))
    assert "[[[ " in requests(old)[1].messages[1].text


@pytest.mark.parametrize("facts", [{"prose_first": True, "plain_prompts": True}, {"grammar": True}])
def test_a_seat_whose_adapter_makes_the_object_is_not_asked_for_headings(facts):
    changed = plan(headings=True, seats=tuple(SeatSpec(name=seat.name, provider="local", **facts) for seat in SEATS))
    request = prompts.synthesis_request(changed, changed.seats[2], DRAFTS, (), Ranking())
    assert request.structured_output.json_schema == changed.schema
    assert "heading" not in request.messages[-1].text
