"""Headroom, votes by arithmetic, and their closed forms."""

from __future__ import annotations

from itertools import combinations, product
from math import comb, exp, lgamma, prod
from random import Random
from statistics import fmean

import pytest
from eval_worlds import beta_binomial, independent, mixture, probit
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import InvalidOption
from llm_council.evals import headroom as head

pytestmark = pytest.mark.slow

# Closed forms


def test_the_majority_of_independent_seats_is_that_of_condorcet() -> None:
    assert head.majority_accuracy([0.7] * 5) == pytest.approx(0.83692, abs=5e-6)
    assert head.majority_accuracy([0.4] * 5) == pytest.approx(0.31744, abs=5e-6)
    grown = [head.majority_accuracy([0.7] * n) for n in (1, 3, 5, 7)]
    assert grown == sorted(grown)
    shrunk = [head.majority_accuracy([0.4] * n) for n in (1, 3, 5, 7)]
    assert shrunk == sorted(shrunk, reverse=True)


def test_a_council_of_unequal_seats_can_be_worse_than_its_best_one() -> None:
    assert head.majority_accuracy([0.9, 0.6, 0.6]) == pytest.approx(0.792)


def test_the_majority_under_a_common_factor_is_that_of_the_integral() -> None:
    assert head.one_factor_majority(0.7, 0.5, 5) == pytest.approx(0.74340, abs=5e-6)
    assert head.one_factor_majority(0.7, 0.0, 5) == pytest.approx(0.83692, abs=5e-6)
    assert head.one_factor_majority(0.7, 1.0, 5) == pytest.approx(0.7)
    assert head.one_factor_majority(0.7, 0.999, 5) == pytest.approx(0.7, abs=0.01)


@given(chances=st.lists(st.floats(0, 1), min_size=1, max_size=6))
@examples(60)
def test_the_distribution_of_unequal_successes_is_that_of_all_outcomes(chances: list[float]) -> None:
    expected = [0.0] * (len(chances) + 1)
    for outcome in product((0, 1), repeat=len(chances)):
        expected[sum(outcome)] += prod(p if one else 1 - p for p, one in zip(chances, outcome, strict=True))
    assert head.poisson_binomial(chances) == pytest.approx(expected)


_VOTES = st.lists(
    st.sampled_from([("a", 1.0), ("b", 0.0), ("c", 0.0), ("d", 0.5), (None, 0.0)]), min_size=1, max_size=7
)


@given(votes=_VOTES, k=st.integers(1, 7))
@examples(150)
def test_the_accuracy_of_k_samples_is_the_mean_over_all_subsets(votes: list[tuple[str | None, float]], k: int) -> None:
    k = min(k, len(votes))
    found = []
    for subset in combinations(votes, k):
        counts = {key: sum(other == key for other, _ in subset) for key, _ in subset if key is not None}
        leaders = [key for key, count in counts.items() if count == max(counts.values())]
        found.append(fmean([dict(subset)[key] for key in leaders]) if leaders else 0.0)
    assert head.sample_accuracy(votes, k) == pytest.approx(fmean(found))


def test_k_samples_out_of_many_are_close_to_independent_draws() -> None:
    # Plurality with K = 4, ties split: p = .4, n = 5 gives .50944; here .4 of 400 draws are right.
    votes = [(key, float(key == "a")) for key in "abcd" for _ in range({"a": 160}.get(key, 80))]
    assert head.sample_accuracy(votes, 5) == pytest.approx(0.50944, abs=0.003)
    assert head.sample_accuracy(votes, 1) == pytest.approx(0.4)


def test_forty_different_answers_are_counted_in_a_moment() -> None:
    votes: list[tuple[str | None, float]] = [(str(index), float(index == 0)) for index in range(40)]
    assert head.sample_accuracy(votes, 10) == pytest.approx(1 / 40)
    assert head.sample_accuracy(votes, 40) == pytest.approx(1 / 40)


@pytest.mark.parametrize("k", [0, 4])
def test_more_samples_than_were_drawn_are_refused(k: int) -> None:
    with pytest.raises(InvalidOption, match="from 1 to the 3 votes"):
        head.sample_accuracy([("a", 1.0)] * 3, k)


# Headroom in worlds with known truth

ITEMS = 4_000
SEATS = ("a", "b", "c", "d", "e")


def measured(solved: list[list[float]], chance: Random, same: float = 1.0) -> head.Headroom:
    """Return the headroom of seats whose wrong answer is the common one with a chance, else one of their own."""
    right = dict(zip(SEATS, solved, strict=False))
    answers = {
        seat: ["right" if ok else "wrong" if chance.random() < same else f"{seat} is wrong" for ok in values]
        for seat, values in right.items()
    }
    return head.measure_headroom(right, answers)


def beta(a: float, b: float) -> float:
    return exp(lgamma(a) + lgamma(b) - lgamma(a + b))


def within(observed: float, exact: float, errors: float = 4.0) -> bool:
    return abs(observed - exact) < errors * (exact * (1 - exact) / ITEMS) ** 0.5


def test_the_ceiling_of_independent_seats_is_what_all_of_them_miss() -> None:
    found = measured(independent(Random(1), ITEMS, [0.7] * 5), Random(2))
    assert within(1 - found.ceiling.estimate, 0.3**5)
    assert found.error_correlation == pytest.approx(0, abs=0.03)
    assert found.effective_seats == pytest.approx(5, abs=0.5)
    assert within(found.poll_accuracy, 0.83692)
    assert found.independent_accuracy == pytest.approx(0.837, abs=0.01)
    assert found.same_wrong == 1
    assert found.unanimous_wrong == pytest.approx(1 - found.ceiling.estimate)


@pytest.mark.parametrize(("correlation", "majority"), [(0.1, 0.79398), (0.3, 0.74425), (0.6, 0.71099)])
def test_beta_binomial_seats_have_their_closed_forms(correlation: float, majority: float) -> None:
    size = 1 / correlation - 1
    a, b = 0.7 * size, 0.3 * size
    exact = sum(comb(5, k) * beta(k + a, 5 - k + b) / beta(a, b) for k in (3, 4, 5))
    assert exact == pytest.approx(majority, abs=5e-6)
    all_wrong = prod((b + i) / (a + b + i) for i in range(5))
    found = measured(beta_binomial(correlation)(Random(3), ITEMS, [0.7] * 5), Random(4))
    assert within(found.poll_accuracy, majority)
    assert within(1 - found.ceiling.estimate, all_wrong)
    assert found.error_correlation == pytest.approx(correlation, abs=0.05)
    assert found.independent_accuracy - found.poll_accuracy > 0.02  # the deficit against independent votes


def test_the_correlation_of_pairs_says_neither_the_ceiling_nor_the_gain_of_a_vote() -> None:
    # Three worlds with accuracy .7 and pairwise correlation .3; the mixture leaves tasks that nobody solves.
    # Two are right with p^2 + .3 p (1 - p); in the mixture with s (p / s)^2, where s is the share of solvable tasks.
    solvable = 0.7**2 / (0.7**2 + 0.3 * 0.7 * 0.3)
    # One factor: two are both wrong with .3^2 + .3 p (1 - p) at this loading.
    low, high = 0.0, 1.0
    for _ in range(30):
        loading = (low + high) / 2
        is_low = head._over_factor(0.7, loading, lambda p: (1 - p) ** 2) < 0.3**2 + 0.3 * 0.21
        low, high = (loading, high) if is_low else (low, loading)
    assert head._over_factor(0.7, loading, lambda p: (1 - p) ** 5) == pytest.approx(0.0506, abs=1e-4)
    draws = {
        "beta-binomial": (beta_binomial(0.3), 0.04908, 0.74425),
        "probit": (probit(loading), 0.0506, 0.746),
        "mixture": (mixture(solvable), 0.1143, 0.828),
    }
    found = {name: measured(world(Random(5), ITEMS, [0.7] * 5), Random(6)) for name, (world, _, _) in draws.items()}
    for name, (_, all_wrong, majority) in draws.items():
        assert found[name].error_correlation == pytest.approx(0.3, abs=0.05)
        assert within(1 - found[name].ceiling.estimate, all_wrong)
        assert within(found[name].poll_accuracy, majority)


def test_more_seats_are_predicted_where_the_model_holds() -> None:
    found = measured(probit(0.5)(Random(7), ITEMS, [0.7] * 3), Random(8))
    assert set(found.predicted) == {5, 7, 9, 15}
    assert found.predicted[5] == pytest.approx(0.7434, abs=0.03)


def test_different_wrong_answers_lower_the_rate_of_equal_ones() -> None:
    found = measured(independent(Random(9), ITEMS, [0.5] * 3), Random(10), same=0.6)
    assert found.same_wrong == pytest.approx(0.36, abs=0.03)
    assert found.unanimous_wrong == pytest.approx(0.125 * 0.216, abs=0.01)


def test_a_right_minority_is_counted() -> None:
    right = {"a": [1, 1, 0, 0, 1], "b": [0, 1, 0, 0, 0], "c": [0, 0, 0, 1, 0]}
    answers = {
        "a": ["x", "x", "y", "y", "x"],
        "b": ["y", "x", "y", "y", "z"],
        "c": ["y", "y", "y", "x", None],
    }
    found = head.measure_headroom(right, answers)
    assert (found.best, found.best_accuracy) == ("a", pytest.approx(0.6))
    assert found.minority_right == pytest.approx(2 / 5)  # tasks 1 and 4; in task 5 the right answer is level
    assert found.unanimous_wrong == pytest.approx(1 / 5)
    assert found.ceiling.estimate == pytest.approx(4 / 5)
    assert found.gain.estimate == pytest.approx(1 / 5)
    assert found.poll_accuracy == pytest.approx((0 + 1 + 0 + 0 + 0.5) / 5)


def test_seats_that_solve_the_same_tasks_cannot_pay() -> None:
    solved = independent(Random(11), 300, [0.7])[0]
    found = measured([solved, solved, solved], Random(12))
    assert found.gain.estimate == 0
    assert found.error_correlation == pytest.approx(1)
    assert found.cannot_pay(0.05)
    assert not found.cannot_pay(0.005)
    assert not measured(independent(Random(13), 300, [0.7] * 3), Random(14)).cannot_pay(0.05)


def test_seats_that_never_err_have_no_correlation() -> None:
    found = head.measure_headroom({"a": [1, 1], "b": [1, 1]}, {"a": ["x", "x"], "b": ["x", "x"]})
    assert (found.error_correlation, found.effective_seats, found.same_wrong) == (None, None, None)
    assert found.predicted == {}


def test_seats_on_different_tasks_are_refused() -> None:
    for right, answers in [({}, {}), ({"a": []}, {"a": []}), ({"a": [1]}, {"a": []}), ({"a": [1]}, {"b": ["x"]})]:
        with pytest.raises(InvalidOption, match="the same tasks"):
            head.measure_headroom(right, answers)
