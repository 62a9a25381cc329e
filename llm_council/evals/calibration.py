"""How often the winner of a vote is right, by its share of the votes, and shrunk estimates of a seat's accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from llm_council.errors import InvalidOption
from llm_council.models._attrs import strict_init

__all__ = ["PRIOR", "Calibration", "calibrate", "shrunk_accuracy"]

PRIOR = 10.0
"""Weight of the prior of a seat's accuracy, in tasks."""


@strict_init
@attrs.frozen(kw_only=True)
class Calibration:
    """How often the winner of a vote is right, by its share of the votes: a step function that never falls.

    Attributes:
        shares: where each step begins, ascending.
        accuracies: the accuracy from there on.
        items: number of tasks behind it.
    """

    shares: tuple[float, ...]
    accuracies: tuple[float, ...]
    items: int

    def accuracy_of(self, share: float) -> float:
        """Return how often a winner with this share is right; shares below the first step get its accuracy."""
        found = self.accuracies[0]
        for start, accuracy in zip(self.shares, self.accuracies, strict=True):
            if share >= start - 1e-9:
                found = accuracy
        return found


def calibrate(shares: Sequence[float], scores: Sequence[float]) -> Calibration:
    """Fit accuracy to shares by isotonic regression, with the pool-adjacent-violators algorithm.

    Source: Barlow, Bartholomew, Bremner and Brunk 1972, "Statistical inference under order restrictions"; for
    probabilities: Zadrozny and Elkan 2002.

    Args:
        shares: share of the votes that the winner got, from 0 to 1, one a task.
        scores: score of the winner, from 0 to 1, one a task.

    Raises:
        InvalidOption: there is no task, or the lengths differ.
    """
    if not shares or len(shares) != len(scores):
        raise InvalidOption("a calibration needs the share and the score of one task or more")
    sums: dict[float, list[float]] = {}
    for share, score in zip(shares, scores, strict=True):
        sums.setdefault(round(share, 9), []).append(score)
    blocks: list[tuple[float, float, int]] = []  # start, sum, tasks
    for start in sorted(sums):
        block = (start, sum(sums[start]), len(sums[start]))
        while blocks and blocks[-1][1] / blocks[-1][2] >= block[1] / block[2]:
            start_before, sum_before, tasks_before = blocks.pop()
            block = (start_before, sum_before + block[1], tasks_before + block[2])
        blocks.append(block)
    return Calibration(
        shares=tuple(start for start, _, _ in blocks),
        accuracies=tuple(total / tasks for _, total, tasks in blocks),
        items=len(shares),
    )


def shrunk_accuracy(right: float, tasks: int, mean: float) -> float:
    """Return (right + a) / (tasks + a + b): the posterior mean with a Beta prior at the mean of all seats, a + b = 10.

    Source: Efron and Morris 1977, "Stein's paradox in statistics", for shrinking towards the common mean.
    """
    return (right + PRIOR * mean) / (tasks + PRIOR)
