"""Simulated seats with known truth: which of them solve a task, for the tests of statistics.

A world returns, for each arm, whether it solves each of n tasks, given the accuracy of each arm. Its arms depend on one
another only through how easy a task is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from statistics import NormalDist

Solved = list[list[float]]
World = Callable[[Random, int, Sequence[float]], Solved]

NORMAL = NormalDist()


def independent(chance: Random, items: int, accuracies: Sequence[float]) -> Solved:
    return [[float(chance.random() < p) for _ in range(items)] for p in accuracies]


def beta_binomial(correlation: float = 0.3) -> World:
    """Arms share the easiness of a task: Beta with the mean of the first arm, moved for arms of another accuracy."""

    def draw(chance: Random, items: int, accuracies: Sequence[float]) -> Solved:
        mean, size = accuracies[0], 1 / correlation - 1
        easiness = [chance.betavariate(mean * size, (1 - mean) * size) for _ in range(items)]
        return [[float(chance.random() < _shifted(q, mean, p)) for q in easiness] for p in accuracies]

    return draw


def _shifted(q: float, mean: float, wanted: float) -> float:
    """Return an easiness whose mean is the wanted one: the way to 1, or to 0, is made shorter by a constant share."""
    return q + (1 - q) * (wanted - mean) / (1 - mean) if wanted >= mean else q * wanted / mean


def probit(loading: float = 0.5) -> World:
    def draw(chance: Random, items: int, accuracies: Sequence[float]) -> Solved:
        common = [chance.gauss(0, 1) for _ in range(items)]
        root, rest = loading**0.5, (1 - loading) ** 0.5
        bounds = [NORMAL.inv_cdf(p) for p in accuracies]
        return [[float(root * z + rest * chance.gauss(0, 1) <= bound) for z in common] for bound in bounds]

    return draw


def two_kinds(easy: float = 0.95, share: float = 0.6) -> World:
    """Easy and hard tasks; the accuracy on the hard ones follows from the mean."""

    def draw(chance: Random, items: int, accuracies: Sequence[float]) -> Solved:
        kinds = [chance.random() < share for _ in range(items)]
        hard = [(p - share * easy) / (1 - share) for p in accuracies]
        return [[float(chance.random() < (easy if kind else p)) for kind in kinds] for p in hard]

    return draw


def mixture(solvable: float = 0.9) -> World:
    """Tasks that nobody can solve, and tasks on which arms are independent."""

    def draw(chance: Random, items: int, accuracies: Sequence[float]) -> Solved:
        open_tasks = [chance.random() < solvable for _ in range(items)]
        return [[float(is_open and chance.random() < p / solvable) for is_open in open_tasks] for p in accuracies]

    return draw


def clustered(world: World, size: int = 5) -> World:
    """Tasks of a cluster are alike: with chance one half a task repeats the first one of its cluster, for all arms."""

    def draw(chance: Random, items: int, accuracies: Sequence[float]) -> Solved:
        solved = world(chance, items, accuracies)
        source = [index - index % size if chance.random() < 0.5 else index for index in range(items)]
        return [[arm[index] for index in source] for arm in solved]

    return draw


WORLDS: dict[str, World] = {
    "independent": independent,
    "beta-binomial": beta_binomial(),
    "probit": probit(),
    "two kinds": two_kinds(),
    "mixture": mixture(),
}
