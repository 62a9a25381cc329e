"""Calibrated shares, and weights from measured accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import InvalidOption
from llm_council.evals.calibration import calibrate, shrunk_accuracy
from llm_council.strategies.seat_accuracy import log_odds_weight


def test_accuracy_by_share_is_pooled_where_it_would_fall() -> None:
    found = calibrate([0.4, 0.4, 0.6, 0.6, 0.8, 1.0], [1, 0, 0, 0, 1, 1])
    assert found.shares == (0.4, 0.8)
    assert found.accuracies == pytest.approx((0.25, 1.0))
    assert found.items == 6
    assert [found.accuracy_of(share) for share in (0.1, 0.4, 0.7, 0.8, 1.0)] == pytest.approx([0.25, 0.25, 0.25, 1, 1])


@given(
    pairs=st.lists(st.tuples(st.sampled_from([0.2, 0.4, 0.6, 0.8, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1)
)
@examples(80)
def test_a_calibration_never_falls_and_keeps_the_mean(pairs: list[tuple[float, float]]) -> None:
    shares, scores = [share for share, _ in pairs], [score for _, score in pairs]
    found = calibrate(shares, scores)
    assert list(found.accuracies) == sorted(found.accuracies)
    assert list(found.shares) == sorted(set(found.shares))
    assert sum(map(found.accuracy_of, shares)) == pytest.approx(sum(scores))


def test_a_calibration_without_tasks_is_refused() -> None:
    with pytest.raises(InvalidOption, match="one task or more"):
        calibrate([], [])
    with pytest.raises(InvalidOption, match="one task or more"):
        calibrate([0.5], [])


def weighted_accuracy(accuracies: Sequence[float], weights: Sequence[float]) -> float:
    """Return the accuracy of a weighted vote between two answers, by all outcomes; ties split."""
    total = 0.0
    for outcome in product((True, False), repeat=len(accuracies)):
        chance = prod(p if right else 1 - p for p, right in zip(accuracies, outcome, strict=True))
        lead = sum(weight if right else -weight for weight, right in zip(weights, outcome, strict=True))
        total += chance * (0.5 if abs(lead) < 1e-12 else lead > 0)
    return total


def test_weights_by_log_odds_are_the_best_ones() -> None:
    seats = [0.9, 0.7, 0.7, 0.7, 0.7]
    assert weighted_accuracy(seats, [1.0] * 5) == pytest.approx(0.88984, abs=5e-6)
    assert weighted_accuracy(seats, [log_odds_weight(p) for p in seats]) == pytest.approx(0.91672, abs=5e-6)
    assert weighted_accuracy([0.9, 0.6, 0.6], [log_odds_weight(p) for p in (0.9, 0.6, 0.6)]) == pytest.approx(0.9)


@given(accuracies=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=5))
@examples(60)
def test_a_weighted_vote_is_never_worse_than_its_best_seat(accuracies: list[float]) -> None:
    weights = [log_odds_weight(p) for p in accuracies]
    best = max(max(accuracies), 0.5)  # seats below one half have no weight, and none left is a coin
    assert weighted_accuracy(accuracies, weights) >= best - 1e-9


def test_a_seat_below_chance_has_no_weight_and_more_options_raise_it() -> None:
    assert log_odds_weight(0.4) == 0
    assert log_odds_weight(0.4, 4) > 0
    assert log_odds_weight(0.25, 4) == pytest.approx(0)


def test_accuracy_is_shrunk_towards_the_mean_of_all_seats() -> None:
    assert shrunk_accuracy(0, 0, 0.7) == pytest.approx(0.7)
    assert shrunk_accuracy(50, 50, 0.7) == pytest.approx(57 / 60)
    assert shrunk_accuracy(500, 500, 0.7) == pytest.approx(507 / 510)
