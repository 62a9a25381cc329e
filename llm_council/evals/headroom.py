"""How much seats can complement each other: bounds and rates from their answers to the same tasks.

Also the expected accuracy of votes: the accuracy of k samples out of those that were drawn, of independent seats, and
of more seats of the same kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from math import comb, exp, fsum, pi, sqrt
from statistics import fmean

import attrs

from llm_council.errors import InvalidOption
from llm_council.evals.statistics import NORMAL, Interval, clopper_pearson
from llm_council.models._attrs import strict_init

__all__ = [
    "Headroom",
    "majority_accuracy",
    "measure_headroom",
    "one_factor_majority",
    "plurality_accuracy",
    "poisson_binomial",
    "sample_accuracy",
]

PREDICTED = (3, 5, 7, 9, 15)
"""Numbers of seats whose accuracy is predicted."""


def _by_number(value: Mapping[int, float]) -> dict[int, float]:
    return {int(seats): accuracy for seats, accuracy in value.items()}  # the keys of JSON are texts


@strict_init
@attrs.frozen(kw_only=True)
class Headroom:
    """How far seats can complement each other.

    Attributes:
        items: the number of tasks.
        seats: the number of seats.
        best: name of the seat with the highest accuracy on these tasks.
        best_accuracy: its accuracy.
        ceiling: share of tasks that some seat solves: no choice between the answers can be right more often.
        gain: share of tasks that the best seat fails and another one solves: the gain of a perfect choice.
        error_correlation: mean over pairs of seats of the correlation of their errors; None if it is undefined.
        effective_seats: how many independent seats these are worth, n / (1 + (n - 1) correlation); None likewise.
        same_wrong: of two seats that are both wrong, how often they give the same answer; None if no two ever are.
        unanimous_wrong: share of tasks on which all seats give the same wrong answer, so that every vote is wrong.
        minority_right: share of tasks on which some seat is right and another answer has the most votes.
        poll_accuracy: accuracy of the most frequent answer, ties split.
        independent_accuracy: accuracy of the majority if the seats erred independently.
        predicted: number of seats -> accuracy of the majority, for more seats of the same mean accuracy and
            correlation. An extrapolation from a model with one common factor.
    """

    items: int
    seats: int
    best: str
    best_accuracy: float
    ceiling: Interval
    gain: Interval
    error_correlation: float | None
    effective_seats: float | None
    same_wrong: float | None
    unanimous_wrong: float
    minority_right: float
    poll_accuracy: float
    independent_accuracy: float
    predicted: Mapping[int, float] = attrs.field(converter=_by_number)

    def cannot_pay(self, margin: float) -> bool:
        """Return True if even a perfect choice between the seats' answers would gain less than the margin.

        Then no strategy pays that picks one of these answers. A strategy that writes a new answer still may.
        """
        return self.gain.high is not None and self.gain.high < margin


def measure_headroom(
    right: Mapping[str, Sequence[bool | float]],
    answers: Mapping[str, Sequence[str | None]],
    *,
    confidence: float = 0.95,
) -> Headroom:
    """Return how much seats can complement each other.

    Sources: the ceiling, "the share of tasks on which all are wrong": arXiv 2606.27288; equal wrong answers:
    arXiv 2506.07962; the independent vote beside the real one: arXiv 2605.29800; n_eff: Kish 1965.

    Args:
        right: by seat, whether its answer to each task is right; a score below 1 is wrong.
        answers: by seat, the key of its answer to each task; None if it cannot be read.
        confidence: the level of the intervals.
    """
    seats = list(right)
    items = len(right[seats[0]]) if seats else 0
    if (
        not items
        or set(seats) != set(answers)
        or any(len(values) != items for values in [*right.values(), *answers.values()])
    ):
        raise InvalidOption("headroom needs the answers of one seat or more to the same tasks, one or more")
    solved = {seat: [float(value) >= 1 for value in right[seat]] for seat in seats}
    accuracy = {seat: fmean(solved[seat]) for seat in seats}
    best = max(seats, key=lambda seat: accuracy[seat])
    by_task = [[(solved[seat][index], answers[seat][index]) for seat in seats] for index in range(items)]
    reachable = sum(any(is_right for is_right, _ in votes) for votes in by_task)
    gained = sum(not solved[best][i] and any(is_right for is_right, _ in votes) for i, votes in enumerate(by_task))
    correlation = _error_correlation([solved[seat] for seat in seats])
    polls = [plurality_accuracy([(key, float(is_right)) for is_right, key in votes]) for votes in by_task]
    return Headroom(
        items=items,
        seats=len(seats),
        best=best,
        best_accuracy=accuracy[best],
        ceiling=clopper_pearson(reachable, items, confidence),
        gain=clopper_pearson(gained, items, confidence),
        error_correlation=correlation,
        effective_seats=None if correlation is None else len(seats) / (1 + (len(seats) - 1) * max(correlation, 0.0)),
        same_wrong=_same_wrong(by_task),
        unanimous_wrong=sum(_is_unanimous_wrong(votes) for votes in by_task) / items,
        minority_right=sum(_is_minority_right(votes) for votes in by_task) / items,
        poll_accuracy=fmean(polls),
        independent_accuracy=majority_accuracy(list(accuracy.values())),
        predicted=_predicted([solved[seat] for seat in seats]),
    )


def _error_correlation(solved: Sequence[Sequence[bool]]) -> float | None:
    """Return the mean correlation of pairs; seats that are always right or always wrong have none."""
    found = []
    for one, other in combinations(solved, 2):
        p, q = fmean(one), fmean(other)
        spread = sqrt(p * (1 - p) * q * (1 - q))
        if spread:
            both = fmean([a and b for a, b in zip(one, other, strict=True)])
            found.append((both - p * q) / spread)
    return fmean(found) if found else None


def _same_wrong(by_task: Sequence[Sequence[tuple[bool, str | None]]]) -> float | None:
    pairs = [
        key == other_key
        for votes in by_task
        for (is_right, key), (other_right, other_key) in combinations(votes, 2)
        if not is_right and not other_right and key is not None and other_key is not None
    ]
    return fmean(pairs) if pairs else None


def _is_unanimous_wrong(votes: Sequence[tuple[bool, str | None]]) -> bool:
    keys = {key for _, key in votes}
    return len(keys) == 1 and None not in keys and not any(is_right for is_right, _ in votes)


def _is_minority_right(votes: Sequence[tuple[bool, str | None]]) -> bool:
    counts = Counter(key for _, key in votes if key is not None)
    most = max(counts.values(), default=0)
    leaders = {key for key, count in counts.items() if count == most}
    return any(is_right for is_right, _ in votes) and not any(is_right for is_right, key in votes if key in leaders)


# The expected accuracy of votes


def plurality_accuracy(votes: Sequence[tuple[str | None, float]]) -> float:
    """Return the expected score of the most frequent answer, ties split evenly.

    Args:
        votes: each vote's key, None if it cannot be read, with its score.
    """
    return sample_accuracy(votes, len(votes))


def sample_accuracy(votes: Sequence[tuple[str | None, float]], k: int) -> float:
    """Return the expected score of the most frequent answer of k votes, drawn without replacement; ties split evenly.

    The mean over all subsets of k: a multivariate hypergeometric sum. Answers that cannot be read have no votes.

    Args:
        votes: each vote's key, None if it cannot be read, with its score.
        k: from 1 to the number of votes.
    """
    if not 1 <= k <= len(votes):
        raise InvalidOption(f"k: from 1 to the {len(votes)} votes that were drawn, got {k}")
    counts = Counter(key for key, _ in votes if key is not None)
    points: dict[str, float] = {}
    for key, score in votes:
        if key is not None:
            # Equal answers have equal scores, but for answers near the edge of a tolerance.
            points[key] = points.get(key, 0.0) + score / counts[key]
    blank = len(votes) - sum(counts.values())
    shares = [
        points[key] * _chance_to_win(count, tuple(sorted((counts - Counter({key: count})).values())), blank, k)
        for key, count in counts.items()
        if points[key]
    ]
    return fsum(shares)


@lru_cache(maxsize=100_000)
def _chance_to_win(count: int, others: tuple[int, ...], blank: int, k: int) -> float:
    """Return the chance that an answer leads among k votes, ties split.

    Args:
        count: votes for the answer.
        others: votes for each other answer.
        blank: votes that cannot be read.
        k: votes that are drawn.
    """
    ways = 0.0
    for own in range(1, min(count, k) + 1):
        # Ways to draw the other votes so that no answer has more than `own`: by votes drawn, and answers level with it.
        drawn: dict[tuple[int, int], int] = {(0, 0): 1}
        for other in others:
            drawn = _with_answer(drawn, other, own, k - own)
        for (votes, level), number in drawn.items():
            ways += comb(count, own) * number * comb(blank, k - own - votes) / (level + 1)
    return ways / comb(count + sum(others) + blank, k)


def _with_answer(drawn: Mapping[tuple[int, int], int], count: int, most: int, room: int) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for (votes, level), number in drawn.items():
        for more in range(min(count, most, room - votes) + 1):
            state = votes + more, level + (more == most)
            found[state] = found.get(state, 0) + number * comb(count, more)
    return found


def poisson_binomial(chances: Sequence[float]) -> list[float]:
    """Return the distribution of the number of successes of independent trials: Wang 1993, by recursion."""
    found = [1.0]
    for p in chances:
        found = [
            (found[k] if k < len(found) else 0.0) * (1 - p) + (found[k - 1] if k else 0.0) * p
            for k in range(len(found) + 1)
        ]
    return found


def majority_accuracy(chances: Sequence[float]) -> float:
    """Return the chance that most of independent voters are right, between two answers; ties split."""
    count = len(chances)
    return fsum(p * (0.5 if 2 * k == count else 2 * k > count) for k, p in enumerate(poisson_binomial(chances)))


def one_factor_majority(accuracy: float, loading: float, seats: int) -> float:
    """Return the chance that most seats are right if one factor is common to them; ties split.

    A seat is right if sqrt(loading) Z + sqrt(1 - loading) e <= quantile(accuracy), Z common to all. The integral over Z
    is taken by Simpson's rule. Source: the one-factor model of Vasicek 1987, "Probability of loss on loan portfolio".

    Args:
        accuracy: of each seat.
        loading: from 0, independent, to 1, all alike.
        seats: how many.
    """
    return _over_factor(accuracy, loading, lambda p: majority_accuracy([p] * seats))


def _over_factor(accuracy: float, loading: float, outcome: Callable[[float], float]) -> float:
    if loading <= 0 or accuracy in (0, 1):
        return outcome(accuracy)
    if loading >= 1:
        return accuracy * outcome(1.0) + (1 - accuracy) * outcome(0.0)
    bound, root, rest = NORMAL.inv_cdf(accuracy), sqrt(loading), sqrt(1 - loading)
    steps, width = 400, 16 / 400
    total = 0.0
    for step in range(steps + 1):
        z = -8 + width * step
        weight = 1 if step in (0, steps) else 4 if step % 2 else 2
        total += weight * exp(-z * z / 2) * outcome(NORMAL.cdf((bound - root * z) / rest))
    return total * width / 3 / sqrt(2 * pi)


def _predicted(solved: Sequence[Sequence[bool]]) -> dict[int, float]:
    """Fit the common factor to how often two seats are both wrong, and predict the majority of more seats."""
    accuracy = fmean([fmean(values) for values in solved])
    if len(solved) < 2 or accuracy in (0, 1):
        return {}
    both_wrong = fmean(
        [fmean([not a and not b for a, b in zip(one, other, strict=True)]) for one, other in combinations(solved, 2)]
    )
    low, high = 0.0, 1.0
    for _ in range(30):
        loading = (low + high) / 2
        too_few = _over_factor(accuracy, loading, lambda p: (1 - p) ** 2) < both_wrong
        low, high = (loading, high) if too_few else (low, loading)
    return {seats: one_factor_majority(accuracy, (low + high) / 2, seats) for seats in PREDICTED if seats > len(solved)}
