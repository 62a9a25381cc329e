"""Votes on drafts by Borda, Copeland and approval: who wins, when it is decided, and what the result tells."""

from __future__ import annotations

import re
from itertools import permutations, product
from typing import Any

import pytest

from llm_council.errors import InvalidOption, ServerFailed
from llm_council.models import GenerateRequest, Status
from llm_council.results import CouncilResult
from llm_council.results.plain import vote_line
from llm_council.strategies import Rank
from llm_council.strategies._rank_counts import ApprovalCount, BordaCount, CopelandCount, RankCount, read_approved
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

DRAFTS = ("ann", "bob", "cid", "dot")


def others(reviewer: str, drafts: tuple[str, ...]) -> list[str]:
    return [name for name in drafts if name != reviewer]


def rankings(reviewer: str, drafts: tuple[str, ...], *, partial: bool = False) -> list[tuple[str, ...] | None]:
    """Return everything that a reviewer may say: orders of the drafts of others, short ones too, or nothing."""
    seen = others(reviewer, drafts)
    lengths = range(len(seen) + 1) if partial else [len(seen)]
    return [None, *(order for length in lengths for order in permutations(seen, length))]


def approvals(reviewer: str, drafts: tuple[str, ...], *, partial: bool = False) -> list[tuple[str, ...] | None]:
    seen = others(reviewer, drafts)
    chosen = [tuple(name for name, is_in in zip(seen, mask, strict=True) if is_in) for mask in _masks(len(seen))]
    return [None, *chosen]


def _masks(length: int) -> list[tuple[bool, ...]]:
    return list(product((False, True), repeat=length))


COUNTS = [(BordaCount, rankings), (CopelandCount, rankings), (ApprovalCount, approvals)]


def counted(kind: type[RankCount], drafts: tuple[str, ...], reviewers: Any, said: Any) -> Any:
    count = kind(drafts, reviewers)
    for reviewer, order in zip(reviewers, said, strict=False):
        count.cast(reviewer, order)
    return count


@pytest.mark.parametrize(("kind", "ballots"), COUNTS)
@pytest.mark.parametrize(
    ("drafts", "reviewers"),
    [
        (DRAFTS[:2], ("ann", "bob", "cid")),  # cid does not draft
        (DRAFTS[:3], DRAFTS[:3]),
        (DRAFTS[:3], DRAFTS),
        (DRAFTS, DRAFTS),
    ],
)
def test_it_is_decided_exactly_when_no_completion_changes_the_winner(
    kind: type[RankCount], ballots: Any, drafts: tuple[str, ...], reviewers: tuple[str, ...]
) -> None:
    """Brute force over all reviews: after each beginning, all endings."""
    options = [ballots(reviewer, drafts) for reviewer in reviewers]
    outcomes: dict[tuple[Any, ...], set[Any]] = {}
    for said in product(*options):
        tally = counted(kind, drafts, reviewers, said).tally(drafts)
        for length in range(1, len(reviewers)):
            outcomes.setdefault(said[:length], set()).update({tally.winner, *tally.tied})
    for said, winners in outcomes.items():
        assert counted(kind, drafts, reviewers, said).is_decided() == (len(winners) == 1), said


@pytest.mark.parametrize("kind", [BordaCount, CopelandCount])
def test_short_rankings_do_not_overtake_a_decided_leader(kind: type[RankCount]) -> None:
    last = rankings("dot", DRAFTS, partial=True)
    for said in product(*(rankings(reviewer, DRAFTS) for reviewer in DRAFTS[:3])):
        early = counted(kind, DRAFTS, DRAFTS, said)
        if early.is_decided():
            winners = {counted(kind, DRAFTS, DRAFTS, (*said, order)).tally(DRAFTS).winner for order in last}
            assert len(winners) == 1, said


@pytest.mark.parametrize("abstain_below", [0.3, 0.5, 0.7, 1.0])
def test_approvals_are_settled_exactly_when_neither_winner_nor_abstention_can_change(abstain_below: float) -> None:
    drafts = DRAFTS[:3]
    options = [approvals(reviewer, drafts) for reviewer in drafts]
    outcomes: dict[tuple[Any, ...], set[Any]] = {}
    for said in product(*options):
        tally = counted(ApprovalCount, drafts, drafts, said).tally(drafts)
        found = {tally.winner, *tally.tied} if tally.share >= abstain_below else {"abstained"}
        for length in range(1, len(drafts)):
            outcomes.setdefault(said[:length], set()).update(found)
    for said, found in outcomes.items():
        settled = counted(ApprovalCount, drafts, drafts, said).is_settled(abstain_below)
        assert settled == (len(found) == 1), said


def test_second_places_break_a_tie_before_the_seed() -> None:
    # ann is first once and last once; bob is second twice: as many points, more second places.
    said = {"x": ("ann", "bob", "cid"), "y": ("cid", "bob", "ann")}
    count = BordaCount(("ann", "bob", "cid"), ("x", "y"))
    for reviewer, order in said.items():
        count.cast(reviewer, order)
    tally = count.tally(("ann", "cid", "bob"))
    assert (tally.winner, tally.tied, tally.broken_by) == ("bob", ("ann", "bob", "cid"), "second choices")
    assert tally.order == ("bob", "ann", "cid")


def test_the_seed_breaks_a_tie_that_second_places_leave() -> None:
    count = CopelandCount(("ann", "bob"), ("x", "y"))
    count.cast("x", ("ann", "bob"))
    count.cast("y", ("bob", "ann"))
    assert [count.tally(order).winner for order in (("ann", "bob"), ("bob", "ann"))] == ["ann", "bob"]
    assert count.tally(("ann", "bob")).broken_by == "seed"


def test_the_winner_of_borda_and_of_pairs_may_differ_and_the_tally_says_so() -> None:
    # Three of five put ann first; bob is never worse than second.
    said = [("ann", "bob", "cid")] * 3 + [("bob", "cid", "ann")] * 2
    reviewers = [f"r{place}" for place in range(5)]
    borda = counted(BordaCount, DRAFTS[:3], reviewers, said).tally(DRAFTS[:3])
    copeland = counted(CopelandCount, DRAFTS[:3], reviewers, said).tally(DRAFTS[:3])
    assert (borda.winner, borda.condorcet) == ("bob", False)
    assert (copeland.winner, copeland.condorcet, copeland.share) == ("ann", True, 1.0)
    assert borda.pairwise["ann"] == {"bob": 3, "cid": 3}
    assert borda.pairwise["bob"] == {"ann": 2, "cid": 5}


def test_a_cycle_has_no_condorcet_winner_and_nothing_read_has_none_to_tell() -> None:
    said = [("ann", "bob", "cid"), ("bob", "cid", "ann"), ("cid", "ann", "bob")]
    assert counted(BordaCount, DRAFTS[:3], ("x", "y", "z"), said).tally(DRAFTS[:3]).condorcet is False
    assert counted(BordaCount, DRAFTS[:3], ("x",), [None]).tally(DRAFTS[:3]).condorcet is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Checked.\nAPPROVED: A, C", ("A", "C")),
        ("**Approved:** B", ("B",)),
        ("APPROVED: NONE", ()),
        ("APPROVED: none of them", ()),
        ("APPROVED: A\nNo.\nAPPROVED: none", ()),
        ("APPROVED: none but A", None),
        ("APPROVED:", None),
        ("I approve of A.", None),
        ("", None),
    ],
)
def test_approvals_are_read_from_the_last_line(text: str, labels: object) -> None:
    assert read_approved(text, {"A", "B", "C"}) == labels


def approving(words: str) -> Any:
    """Return a reviewer that approves the texts that hold one of these words."""

    def review(request: GenerateRequest) -> str:
        texts = re.findall(r"Text ([A-Z])\n(.*)", request.messages[-1].text)
        good = [label for label, text in texts if any(word in text for word in words.split())]
        return f"Checked.\nAPPROVED: {', '.join(good) or 'NONE'}"

    return review


def seats(words: str, *names: str) -> dict[str, ScriptedProvider]:
    return {name: ScriptedProvider({"draft": f"draft-of-{name}", "rank": approving(words)}) for name in names}


async def test_the_draft_that_most_reviewers_approve_is_the_answer(table):
    council = table(**seats("of-bob", "ann", "bob", "cid"))
    result = await council.run(strategy=Rank(rule="approval", abstain_below=0.5))
    assert (result.status, result.output, result.chair) == (Status.COMPLETED, "draft-of-bob", "bob")
    assert (result.tally.rule, result.tally.share, result.tally.winner) == ("approval", 1.0, "bob")
    assert vote_line(result) == "100% of its reviewers call bob's draft good"
    assert CouncilResult.from_dict(result.to_dict()).tally == result.tally
    assert council.plan(strategy=Rank(rule="approval")).most_calls == 6


async def test_reviewers_may_call_all_drafts_bad_and_the_council_abstains(table):
    council = table(**seats("nothing", "ann", "bob", "cid"))
    result = await council.run(strategy=Rank(rule="approval", abstain_below=0.5))
    assert (result.status, result.output, result.tally.share) == (Status.ABSTAINED, None, 0.0)
    assert "0% of its reviewers call the best draft good" in str(result.error)
    assert set(result.drafts) == {"ann", "bob", "cid"}
    kept = await table(**seats("nothing", "ann", "bob", "cid")).run(strategy=Rank(rule="approval"))
    assert kept.success
    assert "no reviewer calls a draft good: the run's seed chose one" in kept.warnings


async def test_reviewers_that_fail_stay_in_the_denominator(table):
    found = seats("of-bob", "ann", "bob", "cid")
    found["cid"] = ScriptedProvider({"draft": "draft-of-cid", "rank": ServerFailed("down", status=529)})
    result = await table(**found).run(strategy=Rank(rule="approval", abstain_below=0.6))
    assert (result.status, result.tally.share, result.tally.failed) == (Status.ABSTAINED, 0.5, 1)


async def test_copeland_counts_the_same_rankings_and_tells_what_borda_says(table):
    script = {"draft": "x", "rank": "RANKING: A > B > C > D > E > F > G > H > I > J > K > L"}
    council = table(**{name: ScriptedProvider(script) for name in ("ann", "bob", "cid")})
    borda = await council.run(strategy="rank", run_id="one")
    copeland = await council.run(strategy=Rank(rule="copeland"), run_id="one")
    assert (borda.tally.rule, copeland.tally.rule) == ("borda", "copeland")
    assert copeland.otherwise == {"borda": borda.tally.winner}
    assert borda.otherwise == {"copeland": copeland.tally.winner}
    assert borda.tally.winner == borda.ranking.order[0] == borda.chair
    assert "first of" in (vote_line(borda) or "")


async def test_drafts_that_can_be_counted_are_told_beside_the_vote(table):
    names = {"ann": "ANSWER: 1", "bob": "ANSWER: 1", "cid": "ANSWER: 2"}
    script = {"rank": "RANKING: A > B > C > D > E > F > G > H > I"}
    council = table(
        **{name: ScriptedProvider({"draft": text, "synthesise": "2", **script}) for name, text in names.items()}
    )
    result = await council.run(strategy="rank", schema={"type": "integer"})
    assert result.otherwise["poll"] == "1"
    assert result.otherwise["single:cid"] == "2"
    assert result.overruled is True
    assert "the reviewers overruled the answer of most drafts: 1" in result.warnings


async def test_a_run_that_abstains_tells_what_the_drafts_answer(table):
    texts = {"ann": "ANSWER: 1", "bob": "ANSWER: 1", "cid": "ANSWER: 2"}
    scripts = {name: {"draft": text, "rank": "APPROVED: NONE"} for name, text in texts.items()}
    council = table(**{name: ScriptedProvider(script) for name, script in scripts.items()})
    result = await council.run(strategy=Rank(rule="approval", abstain_below=0.5), schema={"type": "integer"})
    assert (result.status, result.output, result.overruled) == (Status.ABSTAINED, None, None)
    assert [dissent.seats for dissent in result.dissent] == [("ann", "bob"), ("cid",)]
    assert result.otherwise["poll"] == "1"


async def test_without_a_readable_ranking_the_line_says_so(table):
    council = table(**{name: ScriptedProvider({"draft": "x", "rank": "Hm."}) for name in ("ann", "bob", "cid")})
    result = await council.run(strategy="rank")
    assert vote_line(result) == f"no review of a draft could be read: the run's seed chose {result.chair}'s"


def test_what_a_rule_does_not_have_is_refused(table):
    council = table(**seats("x", "ann", "bob", "cid"))
    with pytest.raises(InvalidOption, match="abstain_below needs rule='approval'"):
        council.plan(strategy=Rank(abstain_below=0.5))
    with pytest.raises(InvalidOption, match="'borda', 'copeland' or 'approval'"):
        Rank(rule="kemeny")
    assert council.plan(strategy=Rank(rule="approval")).notes == (
        "every seat drafts and says which drafts are good; there is no chair",
    )
