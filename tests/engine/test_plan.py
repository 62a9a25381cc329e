"""Plans: the roles of seats, and invalid input refused before any call."""

from datetime import UTC, datetime

import pytest

from llm_council._engine.plan import RunRequest, make_plan
from llm_council.config import CouncilConfig
from llm_council.config._environment import STRATEGIES
from llm_council.errors import InvalidOption
from llm_council.models import Attachment, Budget, Phase, SeatSpec
from llm_council.subagents import Preferences, Subagent, load

ROLE = Subagent(name="tester")
FULL = (Phase.DRAFT, Phase.CRITIQUE, Phase.SYNTHESISE)


def seats(*names):
    return [SeatSpec(name=name, provider="scripted") for name in names]


def plan(*names, role=ROLE, task="A task", config=None, **options):
    return make_plan(
        task, role, CouncilConfig(**({"strategy": "synthesize"} | (config or {}))), seats(*names), RunRequest(**options)
    )


def test_with_three_seats_the_last_takes_the_chair_and_does_not_draft():
    made = plan("ann", "bob", "cid")
    assert made.drafters == ("ann", "bob")
    assert made.reviewers == ("ann", "bob", "cid")
    assert made.chairs == ("cid", "ann", "bob")
    assert not made.chair_by_rank
    assert made.phases == FULL
    assert "cid takes the chair and does not draft" in made.notes


def test_a_named_chair_of_three_does_not_draft():
    made = plan("ann", "bob", "cid", config={"chair": "ann"})
    assert made.drafters == ("bob", "cid")
    assert made.chairs[0] == "ann"


def test_the_chair_drafts_when_asked():
    made = plan("ann", "bob", "cid", drafters=["cid", "ann", "bob"])
    assert made.drafters == ("ann", "bob", "cid")
    assert made.chair_by_rank
    named = plan("ann", "bob", "cid", config={"chair": "bob"}, drafters=["ann", "bob", "cid"])
    assert named.chairs[0] == "bob"
    assert not named.chair_by_rank


def test_a_quorum_of_all_seats_lets_the_chair_draft():
    assert plan("ann", "bob", "cid", budget=Budget(quorum=3)).drafters == ("ann", "bob", "cid")
    assert plan("ann", "bob", "cid", budget=Budget(quorum=2)).drafters == ("ann", "bob")


def test_two_seats_review_each_other_and_the_rank_decides():
    made = plan("ann", "bob")
    assert made.drafters == made.reviewers == ("ann", "bob")
    assert made.chair_by_rank
    assert not plan("ann", "bob", config={"chair": "bob"}).chair_by_rank


def test_one_seat_skips_the_critique_and_says_so():
    made = plan("ann")
    assert made.phases == (Phase.DRAFT, Phase.SYNTHESISE)
    assert made.reviewers == ()
    assert "critique is skipped" in made.notes[0]


def test_a_role_may_go_without_a_critique():
    made = plan("ann", "bob", "cid", role=Subagent(name="router", preferences=Preferences(critique=False)))
    assert made.reviewers == ()
    assert Phase.CRITIQUE not in made.phases
    assert made.notes[-1] == "router goes without a critique"


def test_repair_is_planned_where_there_is_something_to_validate():
    assert plan("ann", schema={"type": "object"}).phases[-1] is Phase.REPAIR
    assert Phase.REPAIR not in plan("ann", schema={"type": "object"}, config={"max_repairs": 0}).phases


def test_run_options_override_configuration_and_subagent():
    role = Subagent(name="tester", preferences=Preferences(temperature=0.1, max_tokens=10))
    assert plan("ann", role=role).temperature == 0.1
    assert plan("ann", role=role, config={"temperature": 0.2}).temperature == 0.2
    assert plan("ann", role=role, config={"temperature": 0.2}, temperature=0.0).temperature == 0.0
    assert plan("ann", role=role, max_tokens=99).max_tokens == 99
    made = plan("ann", config={"budget": Budget(deadline=60, usd=1)}, budget=Budget(deadline=5))
    assert (made.budget.deadline, made.budget.usd) == (5, 1)


def test_the_schema_of_the_call_goes_before_that_of_the_role():
    role = load("advisor")
    assert plan("ann", role=role).schema == role.schema
    assert plan("ann", role=role, schema={"type": "array"}).schema == {"type": "array"}


def test_a_plan_copies_values_that_the_caller_may_change():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    made = plan("ann", schema=schema)
    schema["properties"]["a"]["type"] = "integer"
    assert made.schema["properties"]["a"]["type"] == "string"


def test_seed_and_run_id_are_made_up_unless_given():
    assert plan("ann").seed != plan("ann").seed
    assert plan("ann").run_id != plan("ann").run_id
    assert plan("ann", config={"seed": "s"}, run_id="r-1").seed == "s"


def test_files_and_metadata_are_carried():
    made = plan("ann", files=[Attachment(name="a.py", text="x")], metadata={"ticket": 7}, context="c")
    assert made.files[0].name == "a.py"
    assert made.metadata == {"ticket": 7}


@pytest.mark.parametrize(
    ("names", "options", "remedy"),
    [
        ((), {}, "needs a seat"),
        (("ann", "ann"), {}, "two seats are named 'ann'"),
        (("ann",), {"task": " \n"}, "the task is empty"),
        (("ann",), {"task": None}, "a task is text"),
        (("ann",), {"config": {"chair": "anne"}}, "did you mean 'ann'"),
        (("ann",), {"drafters": ["bob"]}, "seats: ann"),
        (("ann", "bob", "cid"), {"drafters": [], "config": {}}, "drafters"),
        (("ann", "bob", "cid"), {"drafters": ["ann"], "budget": Budget(quorum=2)}, "a quorum of 2"),
        (("ann",), {"strategy": "synthesise"}, "did you mean 'synthesize'"),
        (("ann", "bob"), {"strategy": "vote"}, "3 seats or more"),
        (("ann", "bob"), {"budget": Budget(quorum=3)}, "lower it, or add seats"),
        (("ann",), {"schema": {"type": "nonsense"}}, "not a JSON Schema"),
        (("ann",), {"run_id": "../x"}, "run_id"),
    ],
)
def test_bad_input_is_refused_with_its_remedy(names, options, remedy):
    with pytest.raises(InvalidOption, match=remedy):
        plan(*names, **options)


def test_every_strategy_that_can_be_planned_exists():
    for name in STRATEGIES:
        assert plan("ann", "bob", "cid", strategy=name).strategy == name


def test_a_plan_says_when_it_was_made():
    before = datetime.now(UTC).replace(microsecond=0)
    made = plan("ann").created
    assert made.endswith("Z")
    assert before <= datetime.fromisoformat(made) <= datetime.now(UTC)
