"""No run makes more calls than its plan says, whichever seats fail and however: the engine refuses a call beyond it."""

from __future__ import annotations

from random import Random

import pytest

from llm_council.errors import ContextTooLong, ServerFailed, StrategyFailed
from llm_council.strategies import Escalate, Judge, Poll, Revise, Sample
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}

STRATEGIES = [
    "synthesize",
    "rank",
    "single",
    "sample",
    "poll",
    "judge",
    Revise(rounds=2),
    "escalate",
    "auto",
    "verify",
    Escalate(last="revise"),
    Judge(mode="pair"),
    Poll(grouping="model"),
    Poll(hurry=False),
    Poll(vote_on=["sum"]),
    Sample(vote_on=["sum"]),
]


def erratic(chance: Random) -> ScriptedProvider:
    """Return a seat that fails, or answers in another form than it was asked for, as often as not."""

    def say(_: object) -> object:
        match chance.randrange(5):
            case 0:
                return ServerFailed("overloaded", status=529)
            case 1:
                return ContextTooLong("too long", status=400)
            case 2:
                return '{"sum": 391}'
            case 3:
                return '{"sum": "391"}'
        return "It is 391.\nRANKING: A > B > C > D"

    return ScriptedProvider(say)


@pytest.mark.slow
@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["prose", "schema"])
@pytest.mark.parametrize(
    "strategy",
    ["synthesize", "rank", "single", "sample", "poll", Poll(vote_on=["sum"]), Sample(vote_on=["sum"])],
    ids=str,
)
async def test_a_run_of_failing_seats_stays_within_its_plan(table, strategy, schema):
    if schema is None and getattr(strategy, "vote_on", ()):
        pytest.skip("the vote is on a part of an object")
    chance = Random(11)
    most_made = 0
    for _ in range(25):
        council = table(**{name: erratic(chance) for name in ("ann", "bob", "cid")})
        plan = council.plan(strategy=strategy, schema=schema, config={"max_repairs": chance.randrange(3)})
        result = await council.run(plan)
        made = sum(len(seat.requests) for seat in council.seats.values())
        assert not isinstance(result.error, StrategyFailed)
        assert made <= plan.most_calls
        most_made = max(most_made, made)
    assert most_made > 1
