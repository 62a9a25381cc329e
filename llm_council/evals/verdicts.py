"""Verdicts on arms from paired comparisons, and how small a gain a task set can detect, before anything is spent.

An arm pays if it beats the best single seat and repeated samples of a seat at equal cost, each by a useful margin that
chance does not explain. Both must be beaten, so no correction between the two is due (Berger 1982, intersection-union
tests); between strategies Holm's is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from math import ceil, exp, fsum, pi, sqrt
from random import Random
from statistics import fmean

import attrs

from llm_council.errors import InvalidOption
from llm_council.evals.statistics import (
    DRAWS,
    FEWEST_CLUSTERS,
    NORMAL,
    Interval,
    design_effect,
    differences_of,
    holm,
    paired_difference,
    paired_p_value,
)
from llm_council.models._attrs import strict_init

__all__ = [
    "MARGIN",
    "Comparison",
    "CrossFit",
    "Verdict",
    "VerdictKind",
    "compare",
    "cross_fit",
    "detection_power",
    "effective_items",
    "items_needed",
    "resolvable_difference",
    "verdicts",
]

MARGIN = 0.05
"""The smallest gain that is worth having: 5 points."""

POWER = 0.8
"""The probability of detecting a gain that exists."""

BOTH = 1.25
"""Factor of the tasks that two baselines take compared with one, measured in simulations of this project."""

ROUNDING = 1e-9
"""What rounding can make of a difference of 0, and more."""


class VerdictKind(StrEnum):
    """The verdict on an arm."""

    PAYS = "pays"
    DOES_NOT_PAY = "does not pay"
    CANNOT_TELL = "cannot tell yet"


@strict_init
@attrs.frozen(kw_only=True)
class Comparison:
    """An arm against a baseline on the same tasks.

    Attributes:
        baseline: name of the baseline.
        difference: mean score of the arm minus that of the baseline, with its interval.
        p_value: two-sided, for the hypothesis of no difference.
        discordance: mean squared difference; for right or wrong, the share of tasks on which exactly one is right.
        items: the number of tasks.
        clusters: the number of clusters.
        design_effect: how many times more tasks are needed because tasks of a cluster are alike; 1 or more.
    """

    baseline: str
    difference: Interval
    p_value: float
    discordance: float
    items: int
    clusters: int
    design_effect: float = 1.0


@strict_init
@attrs.frozen(kw_only=True)
class Verdict:
    """The verdict on an arm, with the comparisons behind it.

    Attributes:
        arm: its name.
        kind: the verdict.
        comparisons: against each baseline.
        p_value: the larger one of both comparisons, adjusted for the number of strategies.
        more_items: how many more tasks would probably settle it; None unless the verdict is "cannot tell yet", and
            where no number of tasks would.
        reason: why, in a sentence.
    """

    arm: str
    kind: VerdictKind
    comparisons: tuple[Comparison, ...]
    p_value: float
    more_items: int | None = None
    reason: str = ""


def compare(
    baseline: str,
    arm_scores: Sequence[float],
    baseline_scores: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Compare an arm with a baseline.

    Args:
        baseline: name of the baseline.
        arm_scores: scores of the arm, one a task.
        baseline_scores: scores of the baseline, on the same tasks.
        clusters: the cluster of each task; None if each is its own.
        confidence: the level of the interval.
        draws: draws of the bootstrap, where there is one.
        seed: makes them the same each time.
    """
    difference = paired_difference(arm_scores, baseline_scores, clusters, confidence=confidence, draws=draws, seed=seed)
    differences = differences_of(arm_scores, baseline_scores)
    return Comparison(
        baseline=baseline,
        difference=difference,
        p_value=paired_p_value(arm_scores, baseline_scores, clusters),
        discordance=fmean(one * one for one in differences),
        items=len(differences),
        clusters=len(set(clusters)) if clusters is not None else len(differences),
        design_effect=design_effect(differences, clusters),
    )


def verdicts(
    comparisons: Mapping[str, Sequence[Comparison]],
    *,
    margin: float = MARGIN,
    primary: str | None = None,
    confidence: float = 0.95,
) -> dict[str, Verdict]:
    """Return the verdict on each arm.

    *pays*: against every baseline the interval is above 0 and the gain at least the margin, and the p-value, adjusted
    for the number of arms, is at most 1 - confidence. *does not pay*: against some baseline the whole interval is below
    the margin. Else *cannot tell yet*, with the number of tasks that would probably tell.

    Args:
        comparisons: of each arm, those with its baselines.
        margin: the smallest gain that is worth having.
        primary: the arm that was declared before the run; its p-value needs no adjustment.
        confidence: the level.
    """
    raw = {arm: max((one.p_value for one in against), default=1.0) for arm, against in comparisons.items()}
    adjusted = holm({arm: p for arm, p in raw.items() if arm != primary})
    if primary in raw:
        adjusted[primary] = raw[primary]
    others = len(comparisons) - (primary in comparisons)
    return {
        arm: _verdict(arm, tuple(against), margin, adjusted[arm], 1 - confidence, 1 if arm == primary else others)
        for arm, against in comparisons.items()
    }


def _verdict(
    arm: str, against: tuple[Comparison, ...], margin: float, p_value: float, level: float, strategies: int
) -> Verdict:
    if not against:
        raise InvalidOption(f"arm {arm!r:.80} has no baseline: compare it with the best seat, and at equal cost")
    # Gains and limits have rounding errors of floats: 0.95 - 0.9 is less than 0.05.
    margin -= ROUNDING
    short = [one for one in against if one.difference.high is not None and one.difference.high < margin]
    if short:
        least = min(short, key=lambda one: one.difference.high or 0.0)
        reason = f"against {least.baseline} it gains at most {100 * (least.difference.high or 0.0):.1f} points"
        return Verdict(arm=arm, kind=VerdictKind.DOES_NOT_PAY, comparisons=against, p_value=p_value, reason=reason)
    beaten = all((one.difference.low or 0.0) > ROUNDING and one.difference.estimate >= margin for one in against)
    if beaten and p_value <= level:
        least = min(against, key=lambda one: one.difference.estimate)
        reason = f"it gains {100 * least.difference.estimate:.1f} points against {least.baseline}"
        return Verdict(arm=arm, kind=VerdictKind.PAYS, comparisons=against, p_value=p_value, reason=reason)
    needed = max(_items_to_settle(one, margin, level, len(against), strategies) for one in against)
    items = max(one.items for one in against)
    # Even where the formula says that there are enough tasks, more are needed: at least a tenth more, and at least one.
    more = max(needed - items, ceil(items / 10), 1)
    without = [one for one in against if one.difference.low is None]
    reason = without[0].difference.method if without else f"about {more:,} more tasks would probably tell"
    return Verdict(
        arm=arm, kind=VerdictKind.CANNOT_TELL, comparisons=against, p_value=p_value, more_items=more, reason=reason
    )


def _items_to_settle(one: Comparison, margin: float, level: float, baselines: int, strategies: int) -> int:
    if one.difference.low is None:  # too few clusters
        return ceil(one.items * FEWEST_CLUSTERS / max(1, one.clusters))
    difference = max(margin, one.difference.estimate)
    # Arms that never differed so far may differ once in the next few tasks (the rule of three).
    discordance = max(one.discordance, difference, min(1.0, 3 / one.items))
    needed = items_needed(difference, discordance, confidence=1 - level, baselines=baselines, strategies=strategies)
    return ceil(needed * one.design_effect)


# Before anything is spent


def items_needed(
    difference: float,
    discordance: float,
    *,
    power: float = POWER,
    confidence: float = 0.95,
    baselines: int = 1,
    strategies: int = 1,
) -> int:
    """Return how many tasks it takes to detect a gain.

    N = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2. Source: Connor 1987, "Sample size for testing differences in
    proportions for the paired-sample design", Biometrics 43, 207-211.

    Args:
        difference: the gain, such as 0.1 for 10 points.
        discordance: share of tasks on which exactly one of both is right; at least the gain.
        power: the probability of detecting it.
        confidence: the level.
        baselines: number of baselines that must be beaten; two take a quarter more tasks.
        strategies: number of strategies that share the level, as in Holm's first step.

    Raises:
        InvalidOption: the gain is not above 0, or above the discordance.
    """
    if not 0 < difference <= discordance <= 1:
        raise InvalidOption(
            f"a gain of {difference:g} needs a discordance from {max(difference, 0):g} to 1, got {discordance:g}"
        )
    z_level = NORMAL.inv_cdf(1 - (1 - confidence) / (2 * strategies))
    z_power = NORMAL.inv_cdf(power)
    root = z_level * sqrt(discordance) + z_power * sqrt(discordance - difference**2)
    return ceil((root / difference) ** 2 * (BOTH if baselines > 1 else 1.0))


def detection_power(
    items: float,
    difference: float,
    discordance: float,
    *,
    confidence: float = 0.95,
    baselines: int = 1,
    strategies: int = 1,
    margin: float = MARGIN,
) -> float:
    """Return the chance that an arm with a true gain is found to pay.

    This uses the normal approximation of ``items_needed``. Both differences contain the same arm. If all three make
    errors independently, the differences correlate by one half, which is assumed here.

    Args:
        items: the number of tasks; with clusters, ``effective_items``.
        difference: the true gain.
        discordance: share of tasks on which exactly one of both is right.
        confidence: the level.
        baselines: how many must be beaten: 1 or 2.
        strategies: among how many the level is shared.
        margin: the smallest observed gain that counts.
    """
    z_level = NORMAL.inv_cdf(1 - (1 - confidence) / (2 * strategies))
    least = max(z_level * sqrt(discordance / items), margin)
    spread = sqrt(max(discordance - difference**2, 1e-12) / items)
    x = (difference - least) / spread
    return NORMAL.cdf(x) if baselines == 1 else _both_below(round(x, 6))


@lru_cache(maxsize=256)
def _both_below(x: float) -> float:
    """Return P(Z1 <= x, Z2 <= x) of standard normal variables that correlate by one half, by Simpson's rule."""
    half = sqrt(0.5)
    steps, width = 400, 16 / 400
    values = [exp(-z * z / 2) * NORMAL.cdf(x / half - z) ** 2 for z in (-8 + width * step for step in range(steps + 1))]
    weighted = fsum(value * (1 if step in (0, steps) else 4 if step % 2 else 2) for step, value in enumerate(values))
    return weighted * width / 3 / sqrt(2 * pi)


def resolvable_difference(
    items: float,
    discordance: float,
    *,
    power: float = POWER,
    confidence: float = 0.95,
    baselines: int = 1,
    strategies: int = 1,
) -> float | None:
    """Return the smallest gain that a number of tasks can detect; None if they can detect none.

    Args:
        items: the number of tasks; with clusters, ``effective_items``.
        discordance: share of tasks on which exactly one of both is right.
        power: the probability of detecting the gain.
        confidence: the level.
        baselines: how many must be beaten.
        strategies: among how many the level is shared.
    """

    def needed(difference: float) -> int:
        return items_needed(
            difference,
            discordance,
            power=power,
            confidence=confidence,
            baselines=baselines,
            strategies=strategies,
        )

    if needed(discordance) > items:
        return None
    low, high = 0.0, discordance
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if needed(middle) <= items else (middle, high)
    return high


def effective_items(cluster_sizes: Sequence[int], correlation: float) -> float:
    """Return how many independent tasks clustered ones are worth: n / (1 + (m - 1) correlation).

    Source: Kish 1965, "Survey sampling", 5.4; for unequal clusters, m is the mean size of a task's cluster.

    Args:
        cluster_sizes: tasks in each cluster.
        correlation: how alike the differences of two tasks of a cluster are, from 0 to 1.
    """
    items = sum(cluster_sizes)
    seen = sum(size * size for size in cluster_sizes) / items
    return items / (1 + (seen - 1) * correlation)


# The best seat, without overestimating it


@strict_init
@attrs.frozen(kw_only=True)
class CrossFit:
    """The best column of several, chosen for each task on other tasks.

    Attributes:
        scores: the score of the chosen column, one a task.
        chosen: the name of the chosen column, one a task.
    """

    scores: tuple[float, ...]
    chosen: tuple[str, ...]

    @property
    def names(self) -> dict[str, int]:
        """Name -> number of tasks for which it was chosen, the most frequent first."""
        return dict(Counter(self.chosen).most_common())


def cross_fit(
    columns: Mapping[str, Sequence[float]], clusters: Sequence[str] | None = None, *, folds: int = 5, seed: int = 0
) -> CrossFit:
    """Choose the best column for each task, on the tasks of the other folds.

    If it were chosen on the same tasks, its score would be too high: of several equal columns, one is best by chance.

    Args:
        columns: scores by name. Equal means go to the first one.
        clusters: the cluster of each task, which stays in one fold; None if each is its own.
        folds: how many.
        seed: makes the folds the same each time.
    """
    if not columns:
        raise InvalidOption("there is nothing to choose from: name one seat or more")
    items = len(next(iter(columns.values())))
    names = [str(index) for index in range(items)] if clusters is None else list(clusters)
    if len(set(names)) < 2:
        names = [str(index) for index in range(items)]
    shuffled = sorted(set(names))
    Random(seed).shuffle(shuffled)
    fold_of = {name: place % folds for place, name in enumerate(shuffled)}
    best: dict[int, str] = {}
    for fold in set(fold_of.values()):
        training = [index for index in range(items) if fold_of[names[index]] != fold]
        means = {name: fsum(values[index] for index in training) for name, values in columns.items()}
        best[fold] = max(means, key=lambda name: means[name])
    chosen = tuple(best[fold_of[name]] for name in names)
    return CrossFit(scores=tuple(columns[name][index] for index, name in enumerate(chosen)), chosen=chosen)
