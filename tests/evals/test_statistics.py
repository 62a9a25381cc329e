"""Intervals and tests: published examples, laws, and coverage in simulations."""

from __future__ import annotations

from itertools import product
from math import comb
from random import Random
from statistics import fmean

import eval_worlds as worlds
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import InvalidOption
from llm_council.evals import statistics as stats

# Published examples


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Altman, Machin, Bryant and Gardner 2000, "Statistics with confidence", page 52.
        ((14, 5, 0, 22), 0.011, 0.226),
        # Fagerland, Lydersen and Laake 2017, "Statistical analysis of contingency tables", chapter 8: Cavo et al. 2012.
        ((59, 6, 16, 80), -0.1186, -0.0046),
    ],
)
def test_the_paired_interval_is_that_of_published_tables(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    found = stats.newcombe_paired(*table)
    assert found.low == pytest.approx(low, abs=0.0006)
    assert found.high == pytest.approx(high, abs=0.0006)


def test_mid_p_is_that_of_the_published_example() -> None:
    # Fagerland, Lydersen and Laake 2013, tables 1 and 3: 1 and 7 discordant pairs, and 6 and 16.
    assert stats.mcnemar_midp(1, 7) == pytest.approx(0.0391, abs=5e-5)
    assert stats.mcnemar_midp(6, 16) == pytest.approx(0.0347, abs=5e-5)
    assert stats.mcnemar_midp(0, 0) == 1
    assert stats.mcnemar_midp(700, 800) == pytest.approx(0.0098, abs=2e-4)  # beyond the range of floats


@pytest.mark.parametrize(
    ("p", "df", "value"),
    [(0.975, 1, 12.7062), (0.975, 5, 2.5706), (0.95, 19, 1.7291), (0.995, 120, 2.6174), (0.025, 1000, -1.9623)],
)
def test_quantiles_of_t_are_those_of_tables(p: float, df: int, value: float) -> None:
    assert stats.t_quantile(p, df) == pytest.approx(value, abs=5e-5)


def test_intervals_of_a_proportion_are_those_of_published_examples() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263, 15 of 148, 0 of 20.
    for right, n, score, exact in [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
    ]:
        wilson, clopper = stats.wilson(right, n), stats.clopper_pearson(right, n)
        assert (wilson.low, wilson.high) == pytest.approx(score, abs=6e-5)
        assert (clopper.low, clopper.high) == pytest.approx(exact, abs=6e-5)


def test_holm_adjusts_step_by_step() -> None:
    assert stats.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert stats.holm({}) == {}


# Laws


@given(counts=st.tuples(*[st.integers(0, 40)] * 4).filter(any))
@example(counts=(0, 0, 17, 0))
@examples(100)
def test_the_paired_interval_holds_its_estimate_and_turns_with_the_arms(counts: tuple[int, int, int, int]) -> None:
    both, first, second, neither = counts
    found, turned = stats.newcombe_paired(*counts), stats.newcombe_paired(both, second, first, neither)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


@given(n=st.integers(1, 60), right=st.integers(0, 60))
@examples(60)
def test_the_exact_interval_cuts_half_the_error_from_each_side(n: int, right: int) -> None:
    right = min(right, n)
    found = stats.clopper_pearson(right, n)

    def at_least(k: int, p: float) -> float:
        return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))

    assert found.low is not None
    assert found.high is not None
    if right:
        assert at_least(right, found.low) == pytest.approx(0.025, rel=1e-6)
    if right < n:
        assert 1 - at_least(right + 1, found.high) == pytest.approx(0.025, rel=1e-6)


@given(first=st.integers(0, 30), second=st.integers(0, 30))
@examples(60)
def test_mid_p_is_the_mean_of_both_sides_of_the_outcome(first: int, second: int) -> None:
    n, least = first + second, min(first, second)
    tail = [comb(n, k) / 2**n for k in range(least + 1)]
    p = stats.mcnemar_midp(first, second)
    assert p == pytest.approx(2 * sum(tail) - tail[-1])
    assert 0 < p <= 1 + 1e-12


def test_clusters_of_one_task_are_no_clusters() -> None:
    values = [1.0, 0.0, 1.0, 1.0]
    names = ["a", "b", "c", "d"]
    assert stats.mean_interval(values, names) == stats.mean_interval(values)
    assert stats.paired_difference(values, [0.0] * 4, names) == stats.paired_difference(values, [0.0] * 4)


def test_repeating_each_task_adds_nothing_to_what_is_known() -> None:
    chance = Random(1)
    values = [chance.random() for _ in range(40)]
    names = [str(index) for index in range(40)]
    once = stats.clustered_mean(values, names)
    thrice = stats.clustered_mean(values * 3, names * 3)
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    assert stats.design_effect(values * 3, names * 3) == pytest.approx(3)
    other = [value / 2 for value in values]
    known = stats.paired_difference(values, other, names, draws=500)
    repeated = stats.paired_difference(values * 3, other * 3, names * 3, draws=500)
    assert (repeated.low, repeated.high) == pytest.approx((known.low, known.high))


def test_scores_that_are_all_alike_are_not_certain() -> None:
    names = [str(index % 30) for index in range(60)]
    for value in (0.0, 1.0):
        found = stats.mean_interval([value] * 60, names)
        wilson = stats.wilson(value * 30, 30)
        assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
    same = stats.paired_difference([1.0] * 60, [1.0] * 60, names, draws=200)
    assert same.low is not None
    assert same.high is not None
    assert same.low < -0.03 < 0.03 < same.high


def test_few_clusters_get_an_estimate_and_no_interval() -> None:
    names = [str(index % 19) for index in range(57)]
    found = stats.paired_difference([1.0] * 57, [0.0, 1.0, 1.0] * 19, names)
    assert found.estimate == pytest.approx(1 / 3)
    assert (found.low, found.high) == (None, None)
    assert found.method == "no interval: 19 clusters are fewer than 20"
    assert stats.clustered_mean([1.0, 0.0], ["a", "a"]).low is None
    band = stats.max_t_band({"x": [1.0] * 57}, names)
    assert band["x"].low is None


def test_a_bootstrap_has_the_same_draws_each_time_and_keeps_pairs() -> None:
    chance = Random(2)
    one = [float(chance.random() < 0.7) for _ in range(100)]
    names = [str(index // 3) for index in range(100)]
    columns = {"one": one, "shifted": [value + 1 for value in one]}
    drawn = stats.bootstrap_means(columns, names, draws=50, seed=3)
    assert drawn == stats.bootstrap_means(columns, names, draws=50, seed=3)
    assert drawn != stats.bootstrap_means(columns, names, draws=50, seed=4)
    assert [value + 1 for value in drawn["one"]] == pytest.approx(drawn["shifted"])
    assert len(set(drawn["one"])) > 10


def test_a_band_is_wider_than_the_interval_of_one_arm() -> None:
    chance = Random(5)
    arms = {str(arm): [chance.choice((-1.0, 0.0, 0.0, 1.0)) for _ in range(100)] for arm in range(6)}
    band = stats.max_t_band(arms, draws=400)
    for arm, values in arms.items():
        alone = stats.clustered_mean(values, [str(index) for index in range(100)])
        low, high = band[arm].low, band[arm].high
        assert low is not None
        assert high is not None
        assert alone.low is not None
        assert alone.high is not None
        assert low < alone.low < alone.high < high
    assert stats.max_t_band({}) == {}


def test_scores_of_different_tasks_are_refused() -> None:
    with pytest.raises(InvalidOption, match="the same tasks"):
        stats.paired_difference([1.0], [1.0, 0.0])
    with pytest.raises(InvalidOption, match="one task or more"):
        stats.mean_interval([])


def test_percentiles_are_interpolated() -> None:
    assert [stats.percentile([3, 1, 2], share) for share in (0, 0.25, 0.5, 1)] == [1, 1.5, 2, 3]


# Coverage: how often an interval of 95 % holds the truth


def covers(found: stats.Interval, truth: float) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low - 1e-12 <= truth <= found.high + 1e-12


def coverage(items: int, accuracies: tuple[float, float], *, size: int, rounds: int, draws: int) -> tuple[float, float]:
    """Return the coverage for the accuracy of the first arm, and for the difference of both."""
    world: worlds.World = worlds.probit(0.5)
    names = None
    if size > 1:
        world = worlds.clustered(world, size)
        names = [str(index // size) for index in range(items)]
    chance = Random(items * size + round(100 * accuracies[0]))
    hits = [0, 0]
    for _ in range(rounds):
        first, second = world(chance, items, accuracies)
        hits[0] += covers(stats.mean_interval(first, names), accuracies[0])
        difference = stats.paired_difference(first, second, names, draws=draws)
        hits[1] += covers(difference, accuracies[0] - accuracies[1])
    return hits[0] / rounds, hits[1] / rounds


@pytest.mark.slow
@pytest.mark.parametrize("accuracies", [(0.7, 0.6), (0.95, 0.9)])
@pytest.mark.parametrize(("items", "size"), [(30, 1), (100, 1), (100, 5)])
def test_intervals_hold_the_truth_as_often_as_they_say(items: int, size: int, accuracies: tuple[float, float]) -> None:
    rounds = 200
    allowed = 0.93 - 3 * (0.93 * 0.07 / rounds) ** 0.5  # three standard errors of this short simulation
    assert min(coverage(items, accuracies, size=size, rounds=rounds, draws=100)) >= allowed


@pytest.mark.slow
@pytest.mark.parametrize("accuracies", [(0.7, 0.6), (0.8, 0.8), (0.95, 0.9)])
@pytest.mark.parametrize(("items", "size"), [(30, 1), (100, 1), (300, 1), (40, 2), (100, 5), (300, 5)])
def test_intervals_hold_the_truth_as_often_as_they_say_in_full(
    items: int, size: int, accuracies: tuple[float, float]
) -> None:
    rounds = 2000 if size == 1 else 600
    allowed = 0.93 - (0.93 * 0.07 / rounds) ** 0.5
    assert min(coverage(items, accuracies, size=size, rounds=rounds, draws=400)) >= allowed


def test_an_exact_interval_never_covers_less_than_it_says() -> None:
    n = 20
    found = [stats.clopper_pearson(right, n) for right in range(n + 1)]
    for p in (0.02, 0.3, 0.5, 0.77, 0.99):
        weights = [comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        assert sum(w for w, one in zip(weights, found, strict=True) if covers(one, p)) >= 0.95


def test_mid_p_finds_no_difference_where_there_is_none() -> None:
    # The size is computed, not simulated: over all outcomes of 40 discordant tasks.
    n = 40
    size = sum(comb(n, k) / 2**n for k in range(n + 1) if stats.mcnemar_midp(k, n - k) <= 0.05)
    assert 0.02 <= size <= 0.051


def test_p_values_and_intervals_agree_with_clusters() -> None:
    chance = Random(8)
    names = [str(index // 4) for index in range(120)]
    for shift in (0.0, 0.3):
        first = [float(chance.random() < 0.5 + shift) for _ in range(120)]
        second = [float(chance.random() < 0.5) for _ in range(120)]
        found = stats.clustered_mean([a - b for a, b in zip(first, second, strict=True)], names)
        assert found.low is not None
        assert found.high is not None
        p = stats.paired_p_value(first, second, names)
        assert (p < 0.05) == (found.low > 0 or found.high < 0)
    assert stats.paired_p_value([0.5] * 4, [0.5] * 4) == 1
    assert stats.paired_p_value([0.9] * 4, [0.5] * 4) == 0


def test_worlds_have_the_accuracies_that_they_are_asked_for() -> None:
    chance = Random(9)
    for name, (world, is_clustered) in product(worlds.WORLDS, [(None, False), (None, True)]):
        del world
        drawn = worlds.WORLDS[name]
        drawn = worlds.clustered(drawn) if is_clustered else drawn
        for solved, p in zip(drawn(chance, 20_000, (0.75, 0.85)), (0.75, 0.85), strict=True):
            assert fmean(solved) == pytest.approx(p, abs=0.02)
