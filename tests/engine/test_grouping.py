"""Polls in which a seat says which answers are the same: what is read and counted, and what happens if it fails."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from typing import Any

import pytest

from llm_council.errors import ServerFailed
from llm_council.models import Phase, Status
from llm_council.results import CouncilResult
from llm_council.strategies import Poll
from llm_council.strategies._grouping import read_groups
from llm_council.strategies._plurality import Plurality
from llm_council.testing.fakes import ScriptedProvider

DOWN = ServerFailed("overloaded", status=529)


class TestReadGroups:
    @pytest.mark.parametrize(
        ("text", "groups"),
        [
            ("GROUPS: A, C | B", [["A", "C"], ["B"]]),
            ("They differ.\n**Groups:** A | B | C", [["A"], ["B"], ["C"]]),
            ("GROUPS: A, B | C\nNo:\nGROUPS: A, B, C", [["A", "B", "C"]]),
            ("GROUPS: [A, C]; [B]", [["A", "C"], ["B"]]),
            ("GROUPS: A, C", None),
            ("GROUPS: A, C | B, A", None),
            ("GROUPS: A, B, C, D | A", None),
            ("A and C are the same.", None),
            ("", None),
        ],
    )
    def test_groups_are_read_only_if_they_are_a_partition(self, text: str, groups: list[list[str]] | None) -> None:
        assert read_groups(text, ["A", "B", "C"]) == groups


def partitions(keys: list[str]) -> Iterator[list[list[str]]]:
    if not keys:
        yield []
        return
    for rest in partitions(keys[1:]):
        yield [[keys[0]], *rest]
        for place, group in enumerate(rest):
            yield [*rest[:place], [keys[0], *group], *rest[place + 1 :]]


def winners(ballots: tuple[str | None, ...], groups: list[list[str]], abstain_below: float | None) -> frozenset[str]:
    """Return the answers that chance may choose from, each by a ballot of the first seats that tells it apart."""
    merged = {key: group[0] for group in groups for key in group}
    count = Plurality("0123")
    for seat, key in zip("0123", ballots, strict=True):
        count.cast(seat, None if key is None else merged[key])
    tally = count.tally(Random(1))
    if tally.winner is None or (abstain_below is not None and tally.share < abstain_below):
        return frozenset()
    leading = set(tally.tied) or {tally.winner}
    return frozenset(str(place) for place, key in enumerate(ballots) if key is not None and merged[key] in leading)


@pytest.mark.parametrize("abstain_below", [None, 0.5, 0.75])
def test_a_decided_vote_stays_so_whichever_answers_are_found_equal(abstain_below: float | None) -> None:
    decided = 0
    for known in range(1, 4):
        for ballots in product(("x", "y", "z", None), repeat=known):
            count = Plurality("0123", may_merge=True)
            for seat, key in zip("0123", ballots, strict=False):
                count.cast(seat, key)
            if count.is_open(abstain_below):
                continue
            decided += 1
            leader = next(iter(count.standing()))
            leading = {str(place) for place, key in enumerate(ballots) if key == leader}
            outcomes = set()
            for rest in product(("x", "y", "z", "w", None), repeat=4 - known):
                whole = (*ballots, *rest)
                for groups in partitions(sorted({key for key in whole if key is not None})):
                    won = winners(whole, groups, abstain_below)
                    outcomes.add(bool(won))
                    assert not won or leading <= won, (ballots, rest, groups)
            assert len(outcomes) == 1, ballots
    assert decided


def council_of(table: Any, *drafts: Any, group: Any = None) -> Any:
    names = ("ann", "bob", "cid", "dot")
    return table(
        **{
            name: ScriptedProvider({"draft": draft, "group": group or same("Seine", "Paris")})
            for name, draft in zip(names, drafts, strict=False)
        }
    )


def same(*words: str) -> Any:
    """Return a seat's answer that puts the texts with one of these words into one group, each other one alone."""

    def answer(request: Any) -> str:
        import re

        shown = re.findall(
            r"^\[\[\[ \w+ Text (\w+)\n(.*?)\n\w+ \]\]\]$", request.messages[-1].content, re.MULTILINE | re.DOTALL
        )
        alike = [label for label, text in shown if any(word in text for word in words)]
        others = [label for label, text in shown if label not in alike]
        return "GROUPS: " + " | ".join([", ".join(alike), *others])

    return answer


@pytest.mark.anyio
class TestGrouping:
    async def test_answers_in_other_words_are_counted_together(self, table):
        council = council_of(table, "ANSWER: the Seine", "ANSWER: Loire", "ANSWER: the river of Paris")
        result = await council.run(strategy=Poll(grouping="model"))
        assert (result.status, result.tally.grouping) == (Status.COMPLETED, "model")
        assert result.tally.share == pytest.approx(2 / 3)
        assert result.chair in ("ann", "cid")
        assert [dissent.seats for dissent in result.dissent] == [("bob",)]
        (asked,) = [request for seat in council.seats.values() for request in seat.asked("group")]
        assert "ann" not in asked.messages[-1].content
        assert [timing.phase for timing in result.phases] == [Phase.DRAFT, Phase.GROUP]
        assert CouncilResult.from_dict(result.to_dict()).tally == result.tally

    async def test_a_seat_that_did_not_draft_is_asked(self, table):
        council = council_of(table, "ANSWER: the Seine", "ANSWER: Loire", "ANSWER: the river of Paris", "none")
        result = await council.run(strategy=Poll(grouping="model"), drafters=["ann", "bob", "cid"])
        assert result.plan.asks == {Phase.GROUP: ("dot",)}
        assert len(council.seats["dot"].asked("group")) == 1

    @pytest.mark.parametrize("group", ["I do not know.", DOWN, "GROUPS: A, B"])
    async def test_what_is_no_partition_leaves_the_comparison_to_code(self, table, group):
        council = council_of(table, "ANSWER: the Seine", "ANSWER: Loire", "ANSWER: Seine!", group=group)
        result = await council.run(strategy=Poll(grouping="model"))
        if group == "GROUPS: A, B":  # the two answers are one
            assert (result.tally.grouping, result.tally.share) == ("model", 1.0)
            return
        assert (result.tally.grouping, result.tally.share) == ("code", pytest.approx(2 / 3))
        assert any("compared word for word" in warning for warning in result.warnings)
        assert sum(len(seat.asked("group")) for seat in council.seats.values()) == 2

    async def test_equal_answers_and_other_kinds_are_not_grouped(self, table):
        council = council_of(table, "ANSWER: the Seine", "ANSWER: Seine", "ANSWER: SEINE")
        await council.run(strategy=Poll(grouping="model"))
        await council.run(strategy=Poll(grouping="model"), schema={"enum": ["Seine", "Loire"]})
        assert not any(seat.asked("group") for seat in council.seats.values())

    async def test_a_lead_that_the_others_together_could_overtake_is_waited_for(self, table):
        drafts = ["ANSWER: Loire", "ANSWER: Loire", "ANSWER: Seine", "ANSWER: the river of Paris"]
        council = council_of(table, *drafts)
        council.seats["dot"]._delay = 0.02
        result = await council.run(strategy=Poll(grouping="model"))
        assert (result.tally.cast, result.tally.broken_by) == (4, "seed")
