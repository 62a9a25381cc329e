"""What seats are asked: blind, shuffled, cheap to cache, and short for small models."""

import json
from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._engine import prompts
from llm_council._engine.ranking import tally
from llm_council.errors import ServerFailed
from llm_council.models import (
    Attachment,
    Critique,
    Draft,
    FinishReason,
    GenerateResponse,
    Phase,
    Plan,
    Problem,
    Ranking,
    ReasoningPart,
    RolePrompts,
    SeatSpec,
)
from llm_council.subagents import load

NAMES = ("ann", "bob", "cid", "dot")
SEATS = tuple(SeatSpec(name=name, provider="scripted", model="m-1") for name in NAMES)
SCHEMA = {"type": "object", "properties": {"plan_title": {"type": "string"}, "reasoning": {"type": "string"}}}
PLAN = Plan(
    run_id="r",
    task="A task",
    subagent="tester",
    seats=SEATS,
    drafters=NAMES[:3],
    reviewers=NAMES,
    chairs=("dot", *NAMES[:3]),
    phases=(Phase.DRAFT, Phase.CRITIQUE, Phase.SYNTHESISE),
    prompts=RolePrompts(system="You answer.", critique="Look closely.", synthesise="Answer well."),
    schema=SCHEMA,
    context="Some context",
    files=(Attachment(name="a.py", text="x = 1"),),
    temperature=0.5,
    max_tokens=777,
    seed="a seed",
)
DRAFTS = tuple(
    Draft(seat=name, response=GenerateResponse(text=f"Draft words of {number}", finish_reason="stop"))
    for number, name in enumerate(NAMES[:3])
)


def user(request):
    return request.messages[-1].content


def test_a_draft_is_asked_for_in_plain_text_without_the_schema():
    request = prompts.draft_request(PLAN, SEATS[0])
    assert request.structured_output is None
    assert "properties" not in user(request)
    assert "Cover: plan title." in user(request)
    assert (request.model, request.temperature, request.max_tokens) == ("m-1", 0.5, 777)
    assert request.messages[0].role == "system"
    assert isinstance(user(request), str)  # adapters written for plain strings encode it as it is


def test_the_stable_part_comes_first_and_is_the_same_in_every_phase():
    shown = prompts.label_drafts(PLAN, SEATS[0], DRAFTS)
    asked = [
        prompts.draft_request(PLAN, SEATS[0]),
        prompts.critique_request(PLAN, SEATS[0], shown),
        prompts.synthesis_request(PLAN, SEATS[0], DRAFTS, (), Ranking()),
    ]
    assert len({request.messages[0].content for request in asked}) == 1
    stable = user(asked[0])[: user(asked[0]).index("Answer the task")]
    assert "A task" in stable
    assert "Some context" in stable
    assert "x = 1" in stable
    assert all(user(request).startswith(stable) for request in asked)


def test_a_reviewer_never_sees_its_own_draft_nor_a_failed_one():
    drafts = (*DRAFTS[:2], Draft(seat="cid", error=ServerFailed("down")))
    shown = prompts.label_drafts(PLAN, SEATS[0], drafts)
    assert [draft.seat for draft in shown.values()] == ["bob"]
    assert "words of 0" not in user(prompts.critique_request(PLAN, SEATS[0], shown))


def test_no_two_reviewers_share_a_label():
    labels = [label for seat in SEATS for label in prompts.label_drafts(PLAN, seat, DRAFTS)]
    assert len(labels) == len(set(labels)) == 2 + 2 + 2 + 3


def test_labels_of_many_seats():
    assert [prompts._label(n) for n in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


def test_order_is_shuffled_afresh_for_each_reviewer_and_run():
    def first(seed, seat):
        shown = prompts.label_drafts(attrs.evolve(PLAN, seed=seed), seat, DRAFTS)
        return next(iter(shown.values())).seat

    counts = Counter(first(str(seed), SEATS[3]) for seed in range(600))
    assert set(counts) == set(NAMES[:3])
    assert min(counts.values()) > 140  # 200 each on average, 12 the standard deviation
    differing = sum(
        next(d.seat for d in prompts.label_drafts(attrs.evolve(PLAN, seed=str(s)), SEATS[0], DRAFTS).values()) == "cid"
        for s in range(600)
    )
    assert 200 < differing < 400


@given(st.permutations(DRAFTS), st.text(max_size=5))
def test_the_same_seed_gives_the_same_prompts_whatever_came_first(drafts, seed):
    plan = attrs.evolve(PLAN, seed=seed)
    ordered = sorted(drafts, key=lambda draft: NAMES.index(draft.seat))
    assert prompts.label_drafts(plan, SEATS[3], ordered) == prompts.label_drafts(plan, SEATS[3], DRAFTS)


def test_labels_hide_the_authors():
    for seat in SEATS:
        text = user(prompts.critique_request(PLAN, seat, prompts.label_drafts(PLAN, seat, DRAFTS)))
        assert not any(name in text for name in NAMES)


def test_a_ranking_is_asked_for_where_there_is_something_to_rank():
    both = prompts.label_drafts(PLAN, SEATS[0], DRAFTS)
    one = dict(list(both.items())[:1])
    assert "RANKING" in user(prompts.critique_request(PLAN, SEATS[0], both))
    assert "RANKING" not in user(prompts.critique_request(PLAN, SEATS[0], one))


def reviews(plan=PLAN):
    critiques = []
    for seat in plan.seats:
        shown = prompts.label_drafts(plan, seat, DRAFTS)
        order = [draft.seat for draft in shown.values()]
        text = " ".join(f"Draft {label} is about {draft.text[-1]}." for label, draft in shown.items())
        labels = {label: draft.seat for label, draft in shown.items()}
        critiques.append(Critique(seat=seat.name, labels=labels, ranking=order, response=GenerateResponse(text=text)))
    return critiques


def test_the_chair_can_tell_which_draft_a_review_speaks_of():
    critiques = reviews()
    text = user(prompts.synthesis_request(PLAN, SEATS[3], DRAFTS, critiques, Ranking()))
    for draft in DRAFTS:
        end = text.index(draft.text)
        title = text[text.rindex("[[[", 0, end) : end]
        for review in critiques:
            for label, author in review.labels.items():
                called = label in title.partition("in reviews: Draft ")[2].split("\n")[0].rstrip(")").split(", ")
                assert called == (author == draft.seat)


def test_the_chair_sees_drafts_by_rank_and_reviews_without_names():
    critiques = reviews()
    ranking = tally([("cid", "ann", "bob")], NAMES[:3])
    text = user(prompts.synthesis_request(PLAN, SEATS[3], DRAFTS, critiques, ranking))
    places = [text.index(f"Draft words of {number}") for number in (2, 0, 1)]
    assert places == sorted(places)
    assert "the best first" in text
    assert not any(name in text for name in NAMES)
    assert "the best first" not in user(prompts.synthesis_request(PLAN, SEATS[3], DRAFTS, critiques, Ranking()))


def test_the_final_answer_is_asked_for_by_schema_twice():
    request = prompts.synthesis_request(PLAN, SEATS[3], DRAFTS, (), Ranking())
    assert request.structured_output.json_schema == SCHEMA
    assert json.dumps(SCHEMA, separators=(",", ":")) in user(request)
    free = prompts.synthesis_request(attrs.evolve(PLAN, schema=None), SEATS[3], DRAFTS, (), Ranking())
    assert free.structured_output is None
    assert "JSON" not in user(free)


def test_a_cut_draft_is_marked_as_incomplete():
    cut = Draft(seat="ann", response=GenerateResponse(text="half", finish_reason="length"))
    text = user(prompts.synthesis_request(PLAN, SEATS[3], [cut], (), Ranking()))
    assert "Draft 1, incomplete: it was cut off at its end\nhalf" in text


def test_thinking_is_not_shown_to_peers():
    draft = Draft(seat="ann", response=GenerateResponse(text="<think>secret</think>The answer"))
    text = user(prompts.critique_request(PLAN, SEATS[1], prompts.label_drafts(PLAN, SEATS[1], [draft])))
    assert "secret" not in text
    assert "The answer" in text


def small(plan=PLAN):
    return attrs.evolve(plan, seats=[attrs.evolve(seat, prose_first=True) for seat in plan.seats], max_tokens=None)


def test_small_models_get_short_prompts_and_are_asked_for_short_answers():
    plan = attrs.evolve(small(), context=None, files=(), prompts=RolePrompts(), task="T")
    seat = plan.seats[3]
    long = [Draft(seat=name, response=GenerateResponse(text="word " * 5000)) for name in NAMES[:2]]
    asked = [
        prompts.draft_request(plan, seat),
        prompts.critique_request(plan, seat, prompts.label_drafts(plan, seat, long)),
        prompts.synthesis_request(plan, seat, long, (), Ranking()),
    ]
    assert [request.max_tokens for request in asked] == [120, 60, 160]
    assert len(user(asked[0])) < 100
    assert all(len(user(request)) < 2400 for request in asked[1:])


def test_a_small_model_is_shaped_by_its_adapter_and_not_shown_the_schema():
    request = prompts.synthesis_request(small(), small().seats[3], DRAFTS, (), Ranking())
    assert request.structured_output.json_schema == SCHEMA
    assert "properties" not in user(request)


@pytest.mark.parametrize("little", [False, True])
def test_the_engines_own_text_is_short(little):
    plan = attrs.evolve(PLAN, prompts=RolePrompts(), context=None, files=(), schema=None, task="")
    plan = small(plan) if little else plan
    empty = [Draft(seat=name, response=GenerateResponse(text="x")) for name in NAMES[:3]]
    seat = plan.seats[3]
    for request in (
        prompts.draft_request(plan, seat),
        prompts.critique_request(plan, seat, prompts.label_drafts(plan, seat, empty)),
        prompts.synthesis_request(plan, seat, empty, (), tally([("ann", "bob")], NAMES[:3])),
    ):
        assert sum(len(turn.content.split()) for turn in request.messages) < 120


def test_every_call_has_a_key_of_its_own_that_a_retry_keeps():
    def keys(plan):
        shown = prompts.label_drafts(plan, SEATS[0], DRAFTS)
        first = prompts.synthesis_request(plan, SEATS[0], DRAFTS, (), Ranking())
        asked = [prompts.draft_request(plan, seat) for seat in SEATS]
        asked += [prompts.critique_request(plan, SEATS[0], shown), first]
        asked += [repaired(first, number=number) for number in (1, 2)]
        return [request.idempotency_key for request in asked]

    def repaired(first, number):
        return prompts.repair_request(
            PLAN, SEATS[0], first, GenerateResponse(text="{}"), [Problem(path="$", message="x")], number=number
        )

    assert len(set(keys(PLAN))) == 8
    assert keys(PLAN) == keys(PLAN)
    assert not set(keys(PLAN)[:6]) & set(keys(attrs.evolve(PLAN, run_id="other"))[:6])
    assert all(key.isalnum() and len(key) <= 64 for key in keys(PLAN))


def test_a_repair_has_the_previous_answer_and_the_failing_paths():
    first = prompts.synthesis_request(PLAN, SEATS[3], DRAFTS, (), Ranking())
    problems = [Problem(path=f"$.items[{n}]", message="this value is too short") for n in range(20)]
    response = GenerateResponse(text='{"items": []', finish_reason=FinishReason.LENGTH)
    request = prompts.repair_request(PLAN, SEATS[3], first, response, problems, number=1)
    assert request.messages[:2] == first.messages
    assert (request.messages[2].role, request.messages[2].content) == ("assistant", '{"items": []')
    assert "- $.items[0]: this value is too short" in user(request)
    assert "and 8 more" in user(request)
    assert "cut off" in user(request)
    assert request.structured_output == first.structured_output
    assert request.metadata["phase"] == "repair"


def test_a_repair_sends_signed_reasoning_back():
    first = prompts.synthesis_request(PLAN, SEATS[3], DRAFTS, (), Ranking())
    part = ReasoningPart(text="hm", signature="s", vendor="anthropic")
    response = GenerateResponse(text="{}", reasoning_parts=[part])
    request = prompts.repair_request(PLAN, SEATS[3], first, response, [Problem(path="$", message="x")], number=1)
    assert request.messages[2].content[0] == part


@pytest.mark.parametrize("name", ["drafter", "critic", "advisor", "planner", "router", "researcher", "synthesizer"])
def test_drafts_and_syntheses_of_built_in_subagents_use_their_schema(name):
    role = load(name)
    plan = attrs.evolve(PLAN, prompts=role.prompts, schema=role.schema)
    assert "reasoning" not in user(prompts.draft_request(plan, SEATS[0])).partition("Cover:")[2]
    asked = prompts.synthesis_request(plan, SEATS[0], DRAFTS, (), Ranking())
    assert asked.structured_output.json_schema == role.schema


def test_any_text_may_be_a_seed():
    plan = attrs.evolve(PLAN, seed="\ud800 \x00")
    assert prompts.label_drafts(plan, SEATS[3], DRAFTS)
    assert prompts.draft_request(plan, SEATS[0]).idempotency_key
