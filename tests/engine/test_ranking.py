"""Rankings are read tolerantly and counted exactly."""

from collections import Counter
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._engine.ranking import decided, read_ranking, tally

SEATS = ("ann", "bob", "cid", "dot")
SEED = "a seed"


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
        ("", ""),
    ],
)
def test_reading(text: str, order: str) -> None:
    assert read_ranking(text, {"A", "B", "C"}) == tuple(order)


@given(st.text(), st.sets(st.sampled_from("ABCDEFG")))
def test_reading_never_fails_and_names_only_labels(text: str, labels: set[str]) -> None:
    order = read_ranking(f"RANKING: {text}", labels)
    assert set(order) <= labels
    assert len(set(order)) == len(order)


def test_tally_counts_places() -> None:
    ranking = tally([("ann", "bob", "cid"), ("ann", "cid", "bob")], ("ann", "bob", "cid"), SEED)
    assert ranking.order[0] == "ann"
    assert ranking.points == {"ann": 1.0, "bob": 0.25, "cid": 0.25}


def test_tally_is_fair_to_a_seat_that_fewer_have_seen() -> None:
    # Nobody reviews its own draft: bob is in one ranking only, and won it.
    ranking = tally([("bob", "ann"), ("ann", "cid"), ("cid", "ann")], ("ann", "bob", "cid"), SEED)
    assert ranking.order[0] == "bob"


@given(st.lists(st.permutations(SEATS), max_size=3), st.permutations(SEATS), st.text())
def test_the_order_of_seats_does_not_matter(rankings: list[list[str]], seats: list[str], seed: str) -> None:
    assert tally(rankings, seats, seed).order == tally(rankings, SEATS, seed).order


def test_two_tied_seats_keep_their_order_whichever_others_are_ranked() -> None:
    for seed in map(str, range(50)):
        everyone = tally([], SEATS, seed).order
        assert tally([], ("bob", "dot"), seed).order == tuple(seat for seat in everyone if seat in ("bob", "dot"))


def unevenness(counts: Counter[tuple[str, ...]], outcomes: int) -> float:
    """Return chi-square of the counts against equal chances for this many outcomes."""
    expected = counts.total() / outcomes
    found = [*counts.values(), *[0] * (outcomes - len(counts))]
    return sum((count - expected) ** 2 / expected for count in found)


def test_each_order_of_tied_seats_is_equally_likely() -> None:
    trio = SEATS[:3]
    orders = Counter(tally([], trio, f"seed {number}").order for number in range(1200))
    assert set(orders) == set(permutations(trio))
    assert unevenness(orders, 6) < 20.5  # 5 degrees of freedom, p = 0.001


def test_random_rankings_favour_no_seat() -> None:
    trio, chance = SEATS[:3], Random(1)
    winners: Counter[tuple[str, ...]] = Counter()
    for number in range(1200):
        rankings = [chance.sample([seat for seat in trio if seat != reviewer], 2) for reviewer in trio]
        winners[tally(rankings, trio, f"seed {number}").order[:1]] += 1
    assert unevenness(winners, 3) < 13.8  # 2 degrees of freedom, p = 0.001


def test_a_ranking_of_one_says_nothing() -> None:
    assert set(tally([("cid",)], SEATS, SEED).points.values()) == {0.0}


partial = st.permutations(SEATS).flatmap(lambda order: st.integers(0, 4).map(lambda n: tuple(order[:n])))


@given(st.lists(partial, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_reviewers_does_not_matter(rankings: list[tuple[str, ...]], random: object) -> None:
    shuffled = list(rankings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tally(rankings, SEATS, SEED) == tally(shuffled, SEATS, SEED)


@given(st.lists(partial, max_size=4), st.lists(partial, max_size=3), st.permutations(SEATS), st.text())
def test_a_decided_lead_is_never_lost(
    said: list[tuple[str, ...]], later: list[tuple[str, ...]], seats: list[str], seed: str
) -> None:
    missing = {f"reviewer {number}": seats for number, _ in enumerate(later)}
    leader = decided(said, seats, missing, seed)
    if leader is not None:
        assert tally(said + later, seats, seed).order[0] == leader
        assert tally(said, seats, seed).order[0] == leader


def test_with_nobody_missing_a_tie_is_decided_by_the_seed() -> None:
    tied = [("bob", "ann"), ("ann", "bob")]
    leaders = {decided(tied, ("ann", "bob"), {}, seed) for seed in map(str, range(20))}
    assert leaders == {"ann", "bob"}


def test_with_nobody_missing_it_is_decided() -> None:
    assert decided([("bob", "ann")], ("ann", "bob"), {}, SEED) == "bob"


def test_a_lead_that_can_be_overtaken_is_not_decided() -> None:
    for seed in map(str, range(20)):  # bob leads; the missing reviewer can bring ann up to a tie, no further
        bob_wins_ties = tally([], ("ann", "bob"), seed).order[0] == "bob"
        leader = decided([("bob", "ann")], ("ann", "bob"), {"cid": ("ann", "bob")}, seed)
        assert leader == ("bob" if bob_wins_ties else None)
    assert decided([("bob", "ann")] * 3, ("ann", "bob"), {"cid": ("ann", "bob")}, SEED) == "bob"
