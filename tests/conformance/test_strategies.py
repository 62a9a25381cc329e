"""Every built-in strategy keeps the promises of strategies, and each broken one is told which it breaks."""

from __future__ import annotations

from random import random
from typing import Any, ClassVar

import attrs
import pytest

from llm_council.models import Phase
from llm_council.strategies import (
    Auto,
    Escalate,
    Judge,
    Poll,
    Rank,
    Revise,
    Roster,
    Sample,
    Single,
    Steps,
    Strategy,
    Synthesize,
    Table,
    Verdict,
    Verify,
)
from llm_council.testing import StrategyConformance

NUMBER = {"type": "number"}
OBJECT = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
PROMISES = [name for name in dir(StrategyConformance) if name.startswith("test_")]

CASES: dict[str, tuple[Strategy, Any]] = {
    "synthesize": (Synthesize(), None),
    "synthesize by schema": (Synthesize(), OBJECT),
    "rank": (Rank(), None),
    "rank by pairs": (Rank(rule="copeland"), NUMBER),
    "rank by approval": (Rank(rule="approval"), None),
    "single by schema": (Single(), OBJECT),
    "poll": (Poll(), NUMBER),
    "poll in turn": (Poll(hurry=False), NUMBER),
    "poll in groups": (Poll(grouping="model"), None),
    "poll parts": (Poll(vote_on=["sum"]), OBJECT),
    "poll each part": (Poll(fields="each"), OBJECT),
    "sample": (Sample(), NUMBER),
    "judge": (Judge(), None),
    "judge pairs": (Judge(mode="pair"), OBJECT),
    "revise": (Revise(rounds=2), NUMBER),
    "escalate": (Escalate(last="revise"), NUMBER),
    "verify": (Verify(), None),
    "auto": (Auto(), NUMBER),
}


def kit(strategy: Strategy, schema: Any = None) -> StrategyConformance:
    class Kit(StrategyConformance):
        runs = 8

    Kit.strategy, Kit.schema = strategy, schema
    return Kit()


@pytest.mark.slow
@pytest.mark.parametrize("promise", PROMISES)
@pytest.mark.parametrize("case", CASES)
def test_a_built_in_strategy_keeps_every_promise(case: str, promise: str) -> None:
    getattr(kit(*CASES[case]), promise)()


@attrs.frozen(kw_only=True)
class Whimsical(Strategy):
    """Ask a seat that chance of its own chooses."""

    name: ClassVar[str] = "whimsical"

    def plan(self, roster: Roster) -> Steps:
        return Steps(phases=[Phase.DRAFT], most_calls=1, drafters=roster.names, chairs=roster.names)

    async def deliberate(self, table: Table) -> Verdict:
        (draft,) = await table.draft([table.seats[0]], instructions=f"Lucky number: {random()}")
        return await table.finish(draft)


@attrs.frozen(kw_only=True)
class Greedy(Whimsical):
    """Ask more than planned."""

    async def deliberate(self, table: Table) -> Verdict:
        return await table.finish((await table.draft())[0])


@attrs.frozen(kw_only=True)
class Careless(Whimsical):
    """Expect that nobody fails."""

    def plan(self, roster: Roster) -> Steps:
        return attrs.evolve(super().plan(roster), most_calls=9)

    async def deliberate(self, table: Table) -> Verdict:
        drafts = {draft.seat: draft for draft in await table.draft()}
        return await table.finish(drafts[table.seats[0]])


@attrs.frozen(kw_only=True)
class Opaque(Careless):
    """Take an option that JSON does not have."""

    judge: Any = attrs.field(factory=object)


@pytest.mark.parametrize(
    ("strategy", "promise", "words"),
    [
        (Whimsical(), "test_is_the_same_for_the_same_seed", "it asks otherwise: draw chance from table.random alone"),
        (Greedy(), "test_never_makes_more_calls_than_its_plan", "makes more calls than the 1 of its plan"),
        (Greedy(), "test_answers_with_healthy_seats", "with seats that all answer, the run is failed"),
        (Careless(), "test_survives_the_failure_of_each_seat", "without ann, the strategy fails"),
        (Opaque(), "test_has_options_that_a_stored_plan_can_hold", "are no plain JSON values"),
    ],
)
def test_a_broken_strategy_is_told_what_it_breaks(strategy: Strategy, promise: str, words: str) -> None:
    with pytest.raises(Exception, match=words):
        getattr(kit(strategy), promise)()
