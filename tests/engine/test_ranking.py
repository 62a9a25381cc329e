"""Rankings are read tolerantly and counted exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._engine.ranking import decided, read_ranking, tally

SEATS = ("ann", "bob", "cid", "dot")


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
    ranking = tally([("ann", "bob", "cid"), ("ann", "cid", "bob")], ("ann", "bob", "cid"))
    assert ranking.order == ("ann", "bob", "cid")
    assert ranking.points == {"ann": 1.0, "bob": 0.25, "cid": 0.25}


def test_tally_is_fair_to_a_seat_that_fewer_have_seen() -> None:
    # Nobody reviews its own draft: bob is in one ranking only, and won it.
    ranking = tally([("bob", "ann"), ("ann", "cid"), ("cid", "ann")], ("ann", "bob", "cid"))
    assert ranking.order[0] == "bob"


def test_ties_go_to_the_seat_that_sits_first() -> None:
    assert tally([("bob", "ann"), ("ann", "bob")], SEATS).order == SEATS
    assert tally([], SEATS).order == SEATS


def test_a_ranking_of_one_says_nothing() -> None:
    assert set(tally([("cid",)], SEATS).points.values()) == {0.0}


partial = st.permutations(SEATS).flatmap(lambda order: st.integers(0, 4).map(lambda n: tuple(order[:n])))


@given(st.lists(partial, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_reviewers_does_not_matter(rankings: list[tuple[str, ...]], random: object) -> None:
    shuffled = list(rankings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tally(rankings, SEATS) == tally(shuffled, SEATS)


@given(st.lists(partial, max_size=4), st.lists(partial, max_size=3), st.permutations(SEATS))
def test_a_decided_lead_is_never_lost(
    said: list[tuple[str, ...]], later: list[tuple[str, ...]], seats: list[str]
) -> None:
    missing = {f"reviewer {number}": seats for number, _ in enumerate(later)}
    leader = decided(said, seats, missing)
    if leader is not None:
        assert tally(said + later, seats).order[0] == leader
        assert tally(said, seats).order[0] == leader


def test_with_nobody_missing_it_is_decided() -> None:
    assert decided([("bob", "ann")], ("ann", "bob"), {}) == "bob"


def test_a_lead_that_can_be_overtaken_is_not_decided() -> None:
    assert decided([("bob", "ann")], ("ann", "bob"), {"cid": ("ann", "bob")}) is None
    assert decided([("bob", "ann")] * 3, ("ann", "bob"), {"cid": ("ann", "bob")}) == "bob"
