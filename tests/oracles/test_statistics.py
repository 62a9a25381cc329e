"""The statistics of evaluations give the numbers of scipy and statsmodels."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

pytestmark = pytest.mark.oracles

np = pytest.importorskip("numpy")
scipy_stats = pytest.importorskip("scipy.stats")
proportion = pytest.importorskip("statsmodels.stats.proportion")
contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
multitest = pytest.importorskip("statsmodels.stats.multitest")
regression = pytest.importorskip("statsmodels.regression.linear_model")

from llm_council.evals import headroom, verdicts  # noqa: E402
from llm_council.evals import statistics as stats  # noqa: E402
from llm_council.evals.calibration import calibrate  # noqa: E402

PROPORTIONS = [(0, 1), (0, 20), (1, 3), (81, 263), (150, 300), (299, 300), (20, 20)]


@pytest.mark.parametrize(("right", "n"), PROPORTIONS)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("ours", "theirs"), [(stats.wilson, "wilson"), (stats.clopper_pearson, "beta")])
def test_intervals_of_proportions(ours: Any, theirs: str, right: int, n: int, confidence: float) -> None:
    found = ours(right, n, confidence)
    low, high = proportion.proportion_confint(right, n, alpha=1 - confidence, method=theirs)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize("df", [1, 2, 5.5, 19, 99, 1000])
@pytest.mark.parametrize("p", [0.0005, 0.025, 0.3, 0.5, 0.9, 0.995])
def test_quantiles_of_t(p: float, df: float) -> None:
    assert stats.t_quantile(p, df) == pytest.approx(scipy_stats.t.ppf(p, df), rel=1e-7, abs=1e-9)


def test_the_incomplete_beta_function() -> None:
    for a in (0.5, 1, 3.2, 40, 800):
        for b in (0.5, 2, 17, 500):
            for x in (0.001, 0.2, 0.5, 0.77, 0.999):
                assert stats.beta_cdf(x, a, b) == pytest.approx(scipy_stats.beta.cdf(x, a, b), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_cluster_robust_error_is_that_of_a_regression_on_a_constant(seed: int) -> None:
    chance = Random(seed)
    groups = [chance.randrange(15) for _ in range(80)]
    values = [chance.random() + 0.1 * group for group in groups]
    fit = regression.OLS(np.array(values), np.ones(80)).fit(cov_type="cluster", cov_kwds={"groups": np.array(groups)})
    count = len(set(groups))
    half = fit.bse[0] * scipy_stats.t.ppf(0.975, count - 1)
    found = stats.clustered_mean(values, [str(group) for group in groups])
    assert (found.low, found.high) == pytest.approx((fit.params[0] - half, fit.params[0] + half))


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 7), (6, 16), (30, 30), (55, 80)])
def test_mid_p_is_the_exact_test_less_half_of_what_was_seen_on_each_side(first: int, second: int) -> None:
    exact = contingency.mcnemar([[10, first], [second, 10]], exact=True).pvalue
    seen = scipy_stats.binom.pmf(min(first, second), first + second, 0.5)
    # statsmodels cuts the exact value at 1.
    expected = 2 * scipy_stats.binom.cdf(min(first, second), first + second, 0.5) - seen
    assert stats.mcnemar_midp(first, second) == pytest.approx(expected)
    assert stats.mcnemar_midp(first, second) <= exact + 1e-12


def test_p_values_of_graded_scores_are_those_of_a_paired_t_test() -> None:
    chance = Random(1)
    first, second = [chance.random() for _ in range(40)], [chance.random() for _ in range(40)]
    expected = scipy_stats.ttest_rel(first, second).pvalue
    assert stats.paired_p_value(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_holm(seed: int) -> None:
    chance = Random(seed)
    raw = {str(index): chance.random() ** 3 for index in range(7)}
    _, expected, _, _ = multitest.multipletests(list(raw.values()), method="holm")
    assert list(stats.holm(raw).values()) == pytest.approx(list(expected))


def test_the_bootstrap_gives_the_percentiles_of_scipy() -> None:
    chance = Random(2)
    values = [chance.choice((-1.0, 0.0, 0.0, 1.0, 1.0)) for _ in range(60)]
    drawn = stats.bootstrap_means({"": values}, [str(index) for index in range(60)])[""]
    theirs = scipy_stats.bootstrap((np.array(values),), np.mean, method="percentile", n_resamples=20_000, rng=3)
    low, high = theirs.confidence_interval
    assert (stats.percentile(drawn, 0.025), stats.percentile(drawn, 0.975)) == pytest.approx((low, high), abs=0.02)
    for share in (0.0, 0.025, 0.4, 1.0):
        assert stats.percentile(drawn, share) == pytest.approx(np.quantile(drawn, share))


def test_unequal_successes() -> None:
    chances = [0.9, 0.6, 0.6, 0.3, 0.05]
    assert headroom.poisson_binomial([0.4] * 9) == pytest.approx(list(scipy_stats.binom.pmf(range(10), 9, 0.4)))
    found = np.array([1.0])
    for p in chances:
        found = np.convolve(found, [1 - p, p])
    assert headroom.poisson_binomial(chances) == pytest.approx(list(found))


def test_the_majority_under_a_common_factor_is_that_of_quadrature() -> None:
    integrate = pytest.importorskip("scipy.integrate")
    for accuracy, loading, seats in [(0.7, 0.5, 5), (0.55, 0.2, 9), (0.95, 0.8, 3)]:

        def outcome(z: float, p: float = accuracy, share: float = loading, n: int = seats) -> float:
            given = scipy_stats.norm.cdf((scipy_stats.norm.ppf(p) - share**0.5 * z) / (1 - share) ** 0.5)
            return float(scipy_stats.norm.pdf(z) * scipy_stats.binom.sf(n // 2, n, given))

        expected = integrate.quad(outcome, -9, 9)[0]
        assert headroom.one_factor_majority(accuracy, loading, seats) == pytest.approx(expected, abs=1e-6)


def test_the_power_against_two_baselines_is_that_of_a_bivariate_normal() -> None:
    for x in (-1.0, 0.0, 0.84, 1.2):
        expected = scipy_stats.multivariate_normal.cdf([x, x], cov=[[1, 0.5], [0.5, 1]])
        assert verdicts._both_below(x) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_calibration_is_isotonic_regression(seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    chance = Random(seed)
    levels = [index / 10 for index in range(1, 11)]
    shares = [share for share in levels for _ in range(6)]
    scores = [float(chance.random() < share) for share in shares]
    means = [sum(scores[6 * index : 6 * index + 6]) / 6 for index in range(10)]
    expected = optimize.isotonic_regression(means).x
    found = calibrate(shares, scores)
    assert [found.accuracy_of(share) for share in levels] == pytest.approx(list(expected))
