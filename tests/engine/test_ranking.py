"""Rankings are read tolerantly and counted exactly."""

from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._engine.ranking import decided_winner, read_ranking, tally, tie_order
from llm_council.models import Plan

SEATS = ("ann", "bob", "cid", "dot")


def by_seed(seats: Iterable[str], seed: str) -> list[str]:
    """Return the order in which ties are broken in a run with this seed."""
    return tie_order(Plan(run_id="1", task="A task", subagent="tester", seed=seed, ties_by_seed=True), seats)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("Both err.\nRANKING: B > A > C", "BAC"),
        ("ranking - C, A, B", "CAB"),
        ("**RANKING:** Draft B > Draft A", "BA"),
        ("> Ranking: `A` > `C`", "AC"),
        ("RANKING:\nC > B > A\n", "CBA"),
        ('{"ranking": ["C", "A"], "why": "..."}', "CA"),
        ('```json\n{"ranking": ["Draft B", "Draft C"]}\n```', "BC"),
        ("RANKING: A > B\nNo, wait: A is wrong.\nFinal ranking: B > A", "BA"),
        ("RANKING: B > B > A", "BA"),
        ("RANKING: Z > B", "B"),
        ("RANKING: none of them\nI like A.", ""),
        ("A is a better draft than B.", ""),
        ("My ranking would change nothing", ""),
        ('{"ranking": [', ""),
        ('{"ranking": ["C", "A"]}, and not "ranking": [oops]', "CA"),
        ("**RANKING:**\n\nB > A\nC was close.\nIt is long, though.", "BA"),
        ("", ""),
    ],
)
def test_a_ranking_is_read_from_text(text: str, order: str) -> None:
    assert read_ranking(text, {"A", "B", "C"}) == tuple(order)


def test_a_label_may_be_any_letter() -> None:
    assert read_ranking("RANKING: X", {"W", "X"}) == ("X",)


@given(st.text(), st.sets(st.sampled_from("ABCDEFG")))
def test_reading_never_fails_and_names_only_labels(text: str, labels: set[str]) -> None:
    order = read_ranking(f"RANKING: {text}", labels)
    assert set(order) <= labels
    assert len(set(order)) == len(order)


def test_tally_counts_places() -> None:
    ranking = tally([("ann", "bob", "cid"), ("ann", "cid", "bob")], ("ann", "bob", "cid"))
    assert ranking.order[0] == "ann"
    assert ranking.points == {"ann": 1.0, "bob": 0.25, "cid": 0.25}


def test_tally_is_fair_to_a_seat_with_fewer_reviewers() -> None:
    # Nobody reviews its own draft: bob is in one ranking only, and won it.
    ranking = tally([("bob", "ann"), ("ann", "cid"), ("cid", "ann")], ("ann", "bob", "cid"))
    assert ranking.order[0] == "bob"


@given(st.lists(st.permutations(SEATS), max_size=3), st.permutations(SEATS), st.text())
def test_the_order_of_seats_does_not_matter(rankings: list[list[str]], seats: list[str], seed: str) -> None:
    assert tally(rankings, by_seed(seats, seed)) == tally(rankings, by_seed(SEATS, seed))


def test_two_tied_seats_keep_their_order_whichever_others_are_ranked() -> None:
    for seed in map(str, range(50)):
        everyone = by_seed(SEATS, seed)
        assert by_seed(("bob", "dot"), seed) == [seat for seat in everyone if seat in ("bob", "dot")]


@pytest.mark.parametrize(
    ("seed", "order"), [("a seed", "bob ann cid dot"), ("another", "cid ann dot bob"), ("third", "ann dot cid bob")]
)
def test_a_seed_breaks_ties_alike_in_every_release(seed: str, order: str) -> None:
    # Stored runs are replayed by later releases.
    assert by_seed(SEATS, seed) == order.split()


def test_a_plan_without_the_rule_keeps_the_order_of_its_seats() -> None:
    plan = Plan(run_id="1", task="A task", subagent="tester", seed="a seed")
    assert tie_order(plan, SEATS) == list(SEATS)


def unevenness(counts: Counter[tuple[str, ...]], outcomes: int) -> float:
    """Return chi-square of the counts against equal chances for this many outcomes."""
    expected = counts.total() / outcomes
    found = [*counts.values(), *[0] * (outcomes - len(counts))]
    return sum((count - expected) ** 2 / expected for count in found)


def test_each_order_of_tied_seats_is_equally_likely() -> None:
    trio = SEATS[:3]
    orders = Counter(tally([], by_seed(trio, f"seed {number}")).order for number in range(1200))
    assert set(orders) == set(permutations(trio))
    assert unevenness(orders, 6) < 20.5  # 5 degrees of freedom, p = 0.001


def test_random_rankings_favour_no_seat() -> None:
    trio, chance = SEATS[:3], Random(1)
    winners: Counter[tuple[str, ...]] = Counter()
    for number in range(1200):
        rankings = [chance.sample([seat for seat in trio if seat != reviewer], 2) for reviewer in trio]
        winners[tally(rankings, by_seed(trio, f"seed {number}")).order[:1]] += 1
    assert unevenness(winners, 3) < 13.8  # 2 degrees of freedom, p = 0.001


def test_a_ranking_of_one_seat_gives_no_points() -> None:
    assert set(tally([("cid",)], SEATS).points.values()) == {0.0}


partial = st.permutations(SEATS).flatmap(lambda order: st.integers(0, 4).map(lambda n: tuple(order[:n])))


@given(st.lists(partial, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_reviewers_does_not_matter(rankings: list[tuple[str, ...]], random: object) -> None:
    shuffled = list(rankings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tally(rankings, SEATS) == tally(shuffled, SEATS)


@given(st.lists(partial, max_size=4), st.lists(partial, max_size=3), st.permutations(SEATS), st.text())
def test_a_decided_lead_is_never_lost(
    earlier: list[tuple[str, ...]], later: list[tuple[str, ...]], seats: list[str], seed: str
) -> None:
    missing = {f"reviewer {number}": seats for number, _ in enumerate(later)}
    order = by_seed(seats, seed)
    leader = decided_winner(earlier, order, missing)
    if leader is not None:
        assert tally(earlier + later, order).order[0] == leader
        assert tally(earlier, order).order[0] == leader


def test_with_nobody_missing_a_tie_is_decided_by_the_seed() -> None:
    tied = [("bob", "ann"), ("ann", "bob")]
    leaders = {decided_winner(tied, by_seed(("ann", "bob"), seed), {}) for seed in map(str, range(20))}
    assert leaders == {"ann", "bob"}


def test_without_any_ranking_the_first_seat_wins() -> None:
    assert decided_winner([], ("bob", "ann"), {}) == "bob"
    assert decided_winner([], ("bob", "ann"), {"cid": ("ann", "bob")}) is None
    assert decided_winner([], (), {}) is None


def test_with_nobody_missing_the_winner_is_decided() -> None:
    assert decided_winner([("bob", "ann")], ("ann", "bob"), {}) == "bob"


def test_a_lead_that_can_be_overtaken_is_not_decided() -> None:
    missing = {"cid": ("ann", "bob")}  # which can bring ann up to a tie with bob, no further
    assert decided_winner([("bob", "ann")], ("ann", "bob"), missing) is None
    assert decided_winner([("bob", "ann")], ("bob", "ann"), missing) == "bob"
    assert decided_winner([("bob", "ann")] * 3, ("ann", "bob"), {"cid": ("ann", "bob")}) == "bob"
