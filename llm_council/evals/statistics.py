"""Intervals and tests for scores of tasks, with the standard library alone.

Scores are from 0 to 1, one a task, in the same order for all arms. ``clusters`` names the group of each task: tasks on
one text are not independent, so groups are resampled as a whole. Every function names its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from math import ceil, comb, exp, fsum, isfinite, lgamma, log, log1p, sqrt
from operator import itemgetter
from random import Random
from statistics import NormalDist, fmean, pstdev, pvariance
from typing import Any

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import strict_init

__all__ = [
    "DRAWS",
    "FEWEST_CLUSTERS",
    "Interval",
    "bootstrap_means",
    "clopper_pearson",
    "clustered_mean",
    "design_effect",
    "differences_of",
    "holm",
    "max_t_band",
    "mcnemar_midp",
    "mean_interval",
    "newcombe_paired",
    "paired_difference",
    "paired_p_value",
    "percentile",
    "t_quantile",
    "wilson",
    "without_noise",
]

DRAWS = 10_000
"""Draws of a bootstrap."""

MOST_REMEMBERED = 2_000_000
"""The most random numbers that are cached for the next arm; they take 16 MB."""

FEWEST_CLUSTERS = 20
"""Below this many clusters a bootstrap over clusters gives no interval: it would be too narrow (Cameron, Gelbach and
Miller 2008, "Bootstrap-based improvements for inference with clustered errors")."""

NORMAL = NormalDist()


@strict_init
@attrs.frozen(kw_only=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        estimate: the estimate.
        low: the lower limit; None if there are too few clusters for an interval.
        high: the upper limit; None likewise.
        method: how it was computed, or why there is no interval, for people.
    """

    estimate: float
    low: float | None
    high: float | None
    method: str


# Distributions


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b): DLMF 8.17.22, evaluated by Lentz's algorithm."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - beta_cdf(1 - x, b, a)
    tiny = 1e-300
    fraction, c, d = 1.0, 1.0, 0.0
    for step in range(1000):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / (1 + term * d or tiny)
        c = 1 + term / c or tiny
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    front = exp(a * log(x) + b * log1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b)) / a
    return min(1.0, max(0.0, front * (fraction - 1)))


def _beta_quantile(p: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=256)
def t_quantile(p: float, df: float) -> float:
    """Return the quantile of Student's t distribution: P(T <= t) = I_x(df/2, 1/2) / 2 at t < 0, x = df / (df + t^2).

    Source: DLMF 8.17; Abramowitz and Stegun 26.7.1.

    Args:
        p: a probability between 0 and 1.
        df: degrees of freedom, 1 or more.
    """
    if p == 0.5:
        return 0.0
    if p < 0.5:
        return -t_quantile(1 - p, df)
    x = _beta_quantile(2 * (1 - p), df / 2, 0.5)
    return sqrt(df * (1 - x) / x)


# Scores


def without_noise(values: Sequence[float]) -> list[float]:
    """Return scores without the rounding errors of means over samples, such as 1.0000000000000002 for 1."""
    return [round(value, 12) for value in values]


def differences_of(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Return what the first arm gains on each task: exactly 0 where both have the same score, but for rounding."""
    return without_noise([one - other for one, other in zip(first, second, strict=True)])


# Accuracy of one arm


def wilson(right: float, n: float, confidence: float = 0.95) -> Interval:
    """Return the score interval of a proportion.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion", section 3.1.1.

    Args:
        right: the number of successes; not always whole, like ``n``.
        n: the number of tasks, above 0; with clusters, the effective number, which may not be whole.
        confidence: the level, such as 0.95.
    """
    z = _z(confidence)
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and 1 the limit is the estimate itself, but for rounding.
    low, high = max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))
    return Interval(estimate=p, low=low, high=high, method="Wilson")


def clopper_pearson(right: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a proportion, whose coverage is never below ``confidence``.

    Source: Clopper and Pearson 1934; as quantiles of beta distributions, Brown, Cai and DasGupta 2001, section 4.2.1.
    """
    tail = (1 - confidence) / 2
    low = _beta_quantile(tail, right, n - right + 1) if right else 0.0
    high = _beta_quantile(1 - tail, right + 1, n - right) if right < n else 1.0
    return Interval(estimate=right / n, low=low, high=high, method="Clopper-Pearson")


def clustered_mean(values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95) -> Interval:
    """Return the mean with a cluster-robust standard error, and an interval by Student's t on G - 1 degrees.

    Source: Miller 2024, "Adding error bars to evals", arXiv 2411.00640, section 2.2, with the finite correction
    G / (G - 1) and t on G - 1 of Cameron and Miller 2015, "A practitioner's guide to cluster-robust inference", VI.

    Args:
        values: scores.
        clusters: the cluster of each.
        confidence: the level.
    """
    mean = fmean(values)
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    count = len(sums)
    if count < 2:
        return Interval(estimate=mean, low=None, high=None, method="one cluster: no interval")
    error = sqrt(count / (count - 1) * fsum(part * part for part in sums.values())) / len(values)
    if error < 1e-12 and mean in (0.0, 1.0):
        # All scores are equal, so the standard error of 0 would claim certainty. Each cluster counts as one task.
        return attrs.evolve(wilson(mean * count, count, confidence), method="Wilson over clusters")
    half = t_quantile((1 + confidence) / 2, count - 1) * error
    return Interval(estimate=mean, low=mean - half, high=mean + half, method="cluster-robust t")


def mean_interval(values: Sequence[float], clusters: Sequence[str] | None = None, confidence: float = 0.95) -> Interval:
    """Return the interval of an arm's mean score: Wilson for right or wrong without clusters, else cluster-robust t.

    Near 0 and 1, where few clusters hold all failures or all successes, the standard error is itself a guess. There the
    interval also covers Wilson's at the effective number of tasks: Franco, Little, Louis and Slud 2019, "Comparative
    study of confidence intervals for proportions in complex sample surveys".

    Args:
        values: scores, one or more.
        clusters: the cluster of each; None if each task is its own.
        confidence: the level.
    """
    _check(values)
    values = without_noise(values)
    if _is_unclustered(clusters) and _is_binary(values):
        return wilson(fsum(values), len(values), confidence)
    names = [str(index) for index in range(len(values))] if clusters is None else clusters
    found = clustered_mean(values, names, confidence)
    if found.low is None or found.high is None:
        return found
    low, high, method = found.low, found.high, found.method
    failing = {name for name, value in zip(names, values, strict=True) if value < 1}
    solving = {name for name, value in zip(names, values, strict=True) if value > 0}
    if min(len(failing), len(solving)) < FEWEST_CLUSTERS:
        size = len(values) / design_effect(values, names)
        sparse = wilson(found.estimate * size, size, confidence)
        low, high = min(low, _number(sparse.low)), max(high, _number(sparse.high))
        method += ", and Wilson at the effective size"
    return Interval(estimate=found.estimate, low=max(0.0, low), high=min(1.0, high), method=method)


# Differences of two arms


def newcombe_paired(both: float, first: float, second: float, neither: float, confidence: float = 0.95) -> Interval:
    """Return the hybrid score interval of the difference of two paired proportions.

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
    paired data", Statistics in Medicine 17, 2635-2650, method 10.

    Args:
        both: tasks that both arms solve.
        first: tasks that only the first arm solves.
        second: tasks that only the second arm solves.
        neither: tasks that no arm solves.
        confidence: the level.

    Returns:
        The interval of the first minus the second.
    """
    n = both + first + second + neither
    one, other = wilson(both + first, n, confidence), wilson(both + second, n, confidence)
    down_1, up_1 = one.estimate - _number(one.low), _number(one.high) - one.estimate
    down_2, up_2 = other.estimate - _number(other.low), _number(other.high) - other.estimate
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = both * neither - first * second
    # The continuity correction of the correlation: a positive one is made smaller, a negative one is left.
    corrected = max(product - n / 2, 0) if product > 0 else product
    phi = corrected / sqrt(margins) if margins else 0.0
    difference = (first - second) / n
    below = sqrt(max(0.0, down_1**2 - 2 * phi * down_1 * up_2 + up_2**2))
    above = sqrt(max(0.0, up_1**2 - 2 * phi * up_1 * down_2 + down_2**2))
    low, high = max(-1.0, difference - below), min(1.0, difference + above)
    return Interval(estimate=difference, low=low, high=high, method="Newcombe, paired")


def mcnemar_midp(first: int, second: int) -> float:
    """Return the two-sided mid-p value of McNemar's test.

    Source: Fagerland, Lydersen and Laake 2013, "The McNemar test for binary matched-pairs data: mid-p and asymptotic
    are better than exact conditional", BMC Medical Research Methodology 13:91.

    Args:
        first: tasks that only the first arm solves.
        second: tasks that only the second arm solves.
    """
    n, least = first + second, min(first, second)
    # Whole numbers: 2 ** n is beyond the range of a float from n = 1024 on.
    tail = sum(comb(n, k) for k in range(least + 1))
    return float(Fraction(2 * tail - comb(n, least), 2**n))


def paired_difference(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Return the interval of the mean difference of two arms on the same tasks.

    Right or wrong without clusters: Newcombe's. Else percentiles of a bootstrap over clusters, a little further out for
    few clusters ("expanded percentile": Hesterberg 2015, "What teachers should know about the bootstrap", 3.3). Where
    the arms differ in few clusters, the bootstrap only knows these: then the interval also covers Newcombe's at the
    effective number of tasks (as Korn and Graubard 1998 do for one proportion). Limits are None if there are fewer
    than ``FEWEST_CLUSTERS`` clusters.

    Args:
        first: scores of an arm.
        second: scores of the other arm, on the same tasks.
        clusters: the cluster of each task; None if each is its own.
        confidence: the level.
        draws: draws of the bootstrap.
        seed: seed of the draws.

    Raises:
        InvalidOption: there is no score, or the arms have different numbers of scores.
    """
    _check(first, second)
    first, second = without_noise(first), without_noise(second)
    if _is_unclustered(clusters) and _is_binary(first) and _is_binary(second):
        counts = [0, 0, 0, 0]
        for one, other in zip(first, second, strict=True):
            counts[(one < 1) * 2 + (other < 1)] += 1
        both, only_first, only_second, neither = counts
        return newcombe_paired(both, only_first, only_second, neither, confidence)
    differences = differences_of(first, second)
    names = [str(index) for index in range(len(first))] if clusters is None else clusters
    estimate, count = fmean(differences), len(set(names))
    if count < FEWEST_CLUSTERS:
        method = f"no interval: {count} clusters are fewer than {FEWEST_CLUSTERS}"
        return Interval(estimate=estimate, low=None, high=None, method=method)
    found = bootstrap_means({"": differences}, names, draws=draws, seed=seed)[""]
    tail = NORMAL.cdf(-t_quantile((1 + confidence) / 2, count - 1) * sqrt(count / (count - 1)))
    low, high = percentile(found, tail), percentile(found, 1 - tail)
    method = f"bootstrap over {count} clusters"
    differing = {name for name, difference in zip(names, differences, strict=True) if difference}
    if len(differing) < FEWEST_CLUSTERS:
        sparse = _at_effective_size(first, second, design_effect(differences, names), confidence)
        low, high = min(low, _number(sparse.low)), max(high, _number(sparse.high))
        method += ", and Newcombe at the effective size"
    return Interval(estimate=estimate, low=low, high=high, method=method)


def _at_effective_size(first: Sequence[float], second: Sequence[float], effect: float, confidence: float) -> Interval:
    """Return Newcombe's interval for fewer tasks. A task with graded scores counts in parts in the table of counts."""
    pairs = list(zip(first, second, strict=True))
    both = fsum(min(pair) for pair in pairs)
    only_first = fsum(max(one - other, 0.0) for one, other in pairs)
    only_second = fsum(max(other - one, 0.0) for one, other in pairs)
    neither = fsum(1 - max(pair) for pair in pairs)
    return newcombe_paired(both / effect, only_first / effect, only_second / effect, neither / effect, confidence)


def design_effect(values: Sequence[float], clusters: Sequence[str] | None) -> float:
    """Return the observed variance of the mean with clusters, divided by the variance without clusters; 1 or more.

    Tasks of a cluster are alike, so that many times more tasks are needed. Source: Kish 1965, "Survey sampling", 8.2.
    """
    if clusters is None or len(set(clusters)) in (1, len(clusters)):
        return 1.0
    mean, spread = fmean(values), pvariance(values)
    if not spread:
        return 1.0
    sums: dict[str, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    return max(1.0, fsum(part * part for part in sums.values()) / (len(values) * spread))


def paired_p_value(first: Sequence[float], second: Sequence[float], clusters: Sequence[str] | None = None) -> float:
    """Return the two-sided p-value of no difference: McNemar's mid-p, else of cluster-robust t on G - 1 degrees."""
    _check(first, second)
    first, second = without_noise(first), without_noise(second)
    if _is_unclustered(clusters) and _is_binary(first) and _is_binary(second):
        pairs = list(zip(first, second, strict=True))
        return mcnemar_midp(sum(one > other for one, other in pairs), sum(one < other for one, other in pairs))
    differences = differences_of(first, second)
    names = [str(index) for index in range(len(first))] if clusters is None else clusters
    found = clustered_mean(differences, names)
    count = len(set(names))
    if found.low is None or found.estimate == 0:
        return 1.0
    error = (found.estimate - found.low) / t_quantile(0.975, count - 1)
    t = found.estimate / error if error else float("inf")
    return beta_cdf((count - 1) / (count - 1 + t * t), (count - 1) / 2, 0.5) if isfinite(t) else 0.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return adjusted p-values: compared with a level, they keep the chance of any false finding below that level.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted: dict[str, float] = {}
    most = 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=itemgetter(1))):
        most = max(most, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = most
    return {name: adjusted[name] for name in p_values}


# Bootstrap


def bootstrap_means(
    columns: Mapping[str, Sequence[float]], clusters: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> dict[str, list[float]]:
    """Return means of resampled tasks: clusters are drawn with replacement, the same ones for all columns.

    Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 8 and 13; pairs of arms stay
    pairs because all columns share the draws.

    Args:
        columns: scores, or differences of scores, by name; one value a task.
        clusters: the cluster of each task.
        draws: how many.
        seed: makes them the same each time.
    """
    positions: dict[str, int] = {}
    for cluster in clusters:
        positions.setdefault(cluster, len(positions))
    sizes = [0] * len(positions)
    sums = {name: [0.0] * len(positions) for name in columns}
    for index, cluster in enumerate(clusters):
        sizes[positions[cluster]] += 1
        for name, values in columns.items():
            sums[name][positions[cluster]] += values[index]
    is_even = len(set(sizes)) == 1
    found: dict[str, list[float]] = {name: [] for name in columns}
    if len(sizes) < 2:
        return {name: [fsum(values) / len(values)] * draws for name, values in columns.items()}
    # A report compares many arms on the same tasks, and drawing takes most of the time.
    few = len(sizes) * draws <= MOST_REMEMBERED
    for chosen in _remembered_draws(len(sizes), draws, seed) if few else _draws(len(sizes), draws, seed):
        tasks = len(clusters) if is_even else sum(chosen(sizes))
        for name, parts in sums.items():
            found[name].append(sum(chosen(parts)) / tasks)
    return found


def _draws(count: int, draws: int, seed: int) -> Iterator[itemgetter[Any]]:
    """Yield one getter for each draw, which picks the resampled values from a column of ``count`` values."""
    chance = Random(seed)
    numbers = range(count)
    for _ in range(draws):
        yield itemgetter(*chance.choices(numbers, k=count))


@lru_cache(maxsize=1)
def _remembered_draws(count: int, draws: int, seed: int) -> tuple[itemgetter[Any], ...]:
    return tuple(_draws(count, draws, seed))


def max_t_band(
    differences: Mapping[str, Sequence[float]],
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = 2_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return intervals that hold for all arms at once.

    Source: the maximum of studentised bootstrap deviations: Romano and Wolf 2005, "Exact and approximate stepdown
    methods for multiple hypothesis testing"; Montiel Olea and Plagborg-Moller 2019, "Simultaneous confidence bands".

    Args:
        differences: by arm, its score minus that of the baseline, one a task.
        clusters: the cluster of each task; None if each is its own.
        confidence: the chance that all intervals hold.
        draws: draws of the bootstrap.
        seed: makes them the same each time.
    """
    if not differences:
        return {}
    _check(*differences.values())
    tasks = len(next(iter(differences.values())))
    names = [str(index) for index in range(tasks)] if clusters is None else clusters
    means = {arm: fmean(values) for arm, values in differences.items()}
    count = len(set(names))
    if count < FEWEST_CLUSTERS:
        method = f"no band: {count} clusters are fewer than {FEWEST_CLUSTERS}"
        return {arm: Interval(estimate=mean, low=None, high=None, method=method) for arm, mean in means.items()}
    drawn = bootstrap_means(differences, names, draws=draws, seed=seed)
    errors = {arm: pstdev(values) for arm, values in drawn.items()}
    live = [arm for arm, error in errors.items() if error > 1e-12]
    most = [
        max((abs(drawn[arm][draw] - means[arm]) / errors[arm] for arm in live), default=0.0) for draw in range(draws)
    ]
    width = percentile(most, confidence)
    return {
        arm: Interval(
            estimate=mean, low=mean - width * errors[arm], high=mean + width * errors[arm], method="simultaneous, max-T"
        )
        for arm, mean in means.items()
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return a quantile by linear interpolation: Hyndman and Fan 1996, definition 7."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(ceil(place), len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _z(confidence: float) -> float:
    return NORMAL.inv_cdf((1 + confidence) / 2)


def _number(limit: float | None) -> float:
    assert limit is not None  # noqa: S101 - Wilson's interval always has limits
    return limit


def _is_binary(values: Sequence[float]) -> bool:
    return all(value in (0, 1) for value in values)


def _is_unclustered(clusters: Sequence[str] | None) -> bool:
    return clusters is None or len(set(clusters)) == len(clusters)


def _check(*columns: Sequence[float]) -> None:
    """Raise InvalidOption for arms without a score, or with different numbers of scores."""
    if not columns[0]:
        raise InvalidOption("there is no score: an interval needs one task or more")
    if len({len(column) for column in columns}) > 1:
        raise InvalidOption("the arms have different numbers of scores: compare arms on the same tasks")
