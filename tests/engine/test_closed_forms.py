"""Counts of votes on 100,000 draws with fixed seeds: right as often as the closed forms say.

The real engine is compared with them in ``tests/faults/test_strategies.py``. Equal ballots give an equal count, so each
pattern of votes is counted once; ties, which chance breaks, are counted draw by draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import comb, log
from random import Random

import pytest

from llm_council.models import Judgement
from llm_council.strategies import Sample
from llm_council.strategies._judgements import PairCount, ScoreCount
from llm_council.strategies._plurality import Plurality

DRAWS = 100_000
RIGHT = "right"
SEATS = ("ann", "bob", "cid", "dot", "eve")


def assert_near(observed: float, exact: float, deviation: float | None = None) -> None:
    """Assert that a mean of all draws is within four standard errors of its expected value."""
    spread = (exact * (1 - exact)) ** 0.5 if deviation is None else deviation
    assert abs(observed - exact) < 4 * spread / DRAWS**0.5, (observed, exact)


def counted(votes: Sequence[str], weights: Mapping[str, float] | None = None) -> Plurality:
    count = Plurality(SEATS[: len(votes)], weights)
    for seat, vote in zip(SEATS, votes, strict=False):
        count.cast(seat, vote)
    return count


def share_right(draw: Callable[[Random], tuple[str, ...]], weights: Mapping[str, float] | None = None) -> float:
    """Return how often the right answer wins."""
    chance = Random("draws")
    drawn = Counter(draw(chance) for _ in range(DRAWS))
    right = 0
    for votes, times in drawn.items():
        count = counted(votes, weights)
        tally = count.tally(chance)
        if tally.tied:
            right += sum(count.tally(chance).winner == RIGHT for _ in range(times))
        else:
            right += times * (tally.winner == RIGHT)
    return right / DRAWS


def independent(accuracies: Sequence[float], options: int = 2) -> Callable[[Random], tuple[str, ...]]:
    wrong = [f"wrong {number}" for number in range(1, options)]
    return lambda chance: tuple(
        RIGHT if chance.random() < accuracy else wrong[int(chance.random() * len(wrong))] for accuracy in accuracies
    )


def correlated(accuracy: float, correlation: float, seats: int) -> Callable[[Random], tuple[str, ...]]:
    """Draw the easiness of each question from a beta distribution, so that any two seats have this correlation."""
    spread = 1 / correlation - 1
    a, b = accuracy * spread, (1 - accuracy) * spread

    def draw(chance: Random) -> tuple[str, ...]:
        easiness = chance.betavariate(a, b)
        return tuple(RIGHT if chance.random() < easiness else "wrong" for _ in range(seats))

    return draw


@pytest.mark.slow
class TestPluralities:
    @pytest.mark.parametrize(("accuracy", "exact"), [(0.7, 0.83692), (0.4, 0.31744)])
    def test_a_majority_of_independent_seats(self, accuracy: float, exact: float) -> None:
        assert_near(share_right(independent([accuracy] * 5)), exact)

    @pytest.mark.parametrize(("correlation", "exact"), [(0.1, 0.79398), (0.3, 0.74425)])
    def test_a_majority_of_correlated_seats(self, correlation: float, exact: float) -> None:
        assert_near(share_right(correlated(0.7, correlation, 5)), exact)

    @pytest.mark.parametrize(
        ("accuracies", "plain", "weighted"), [((0.9, 0.6, 0.6), 0.792, 0.9), ((0.9, *[0.7] * 4), 0.88984, 0.91672)]
    )
    def test_unequal_seats_and_the_weights_of_their_accuracy(
        self, accuracies: Sequence[float], plain: float, weighted: float
    ) -> None:
        weights = {seat: log(p / (1 - p)) for seat, p in zip(SEATS, accuracies, strict=False)}
        assert_near(share_right(independent(accuracies)), plain)
        assert_near(share_right(independent(accuracies), weights), weighted)

    def test_a_plurality_of_four_options_splits_ties(self) -> None:
        assert_near(share_right(independent([0.4] * 5, options=4)), 0.50944)

    def test_more_votes_help_on_questions_of_mixed_difficulty(self) -> None:
        def mixed(seats: int) -> Callable[[Random], tuple[str, ...]]:
            def draw(chance: Random) -> tuple[str, ...]:
                easiness = 0.85 if chance.random() < 0.6 else 0.4
                return tuple(RIGHT if chance.random() < easiness else "wrong" for _ in range(seats))

            return draw

        for seats, exact in ((1, 0.67), (5, 0.711)):
            assert_near(share_right(mixed(seats)), exact)

    def test_unanimity_covers_few_questions_and_is_right_on_them(self) -> None:
        chance, draw = Random("draws"), independent([0.7] * 3, options=4)
        drawn = Counter(draw(chance) for _ in range(DRAWS))
        whole = {votes: times for votes, times in drawn.items() if counted(votes).tally(chance).share == 1}
        coverage, right = 0.7**3 + 3 * 0.1**3, 0.7**3
        assert_near(sum(whole.values()) / DRAWS, coverage)
        assert_near(whole[(RIGHT,) * 3] / DRAWS, right)

    def test_a_tie_favours_no_answer(self) -> None:
        chance, count = Random("ties"), counted(("x", "y", "z"))
        won = Counter(count.tally(chance).winner for _ in range(3_000))
        squares = sum((won[key] - 1_000) ** 2 / 1_000 for key in "xyz")
        assert squares < 18.4  # chi-square with two degrees of freedom: exceeded once in 10,000


class TestStops:
    """Votes that end early: how many are needed, and that the winner is that of all."""

    @pytest.mark.parametrize(("seats", "mean", "deviation"), [(3, 2 + 2 * 0.7 * 0.3, 0.494), (5, 3.8946, 0.7896)])
    def test_the_exact_stop_takes_the_votes_of_the_closed_form(self, seats: int, mean: float, deviation: float) -> None:
        chance, draw = Random("draws"), independent([0.7] * seats)
        asked = 0
        for votes, times in Counter(draw(chance) for _ in range(DRAWS)).items():
            count = Plurality(SEATS[:seats])
            needed = 0
            while count.is_open():
                count.cast(SEATS[needed], votes[needed])
                needed += 1
            assert count.tally(chance).winner == counted(votes).tally(chance).winner
            asked += needed * times
        assert_near(asked / DRAWS, mean, deviation)

    def test_the_bayesian_stop_takes_the_drafts_of_the_closed_form_and_is_as_often_right(self) -> None:
        accuracy, most, stop = 0.8, 9, 0.95
        strategy, chance = Sample(k=most, stop=stop), Random("draws")
        right = asked = 0
        for _ in range(DRAWS):
            votes = [0, 0]
            while more := batches(strategy, votes[0], votes[1], most):
                for _ in range(more):
                    votes[chance.random() >= accuracy] += 1
            right += votes[0] > votes[1]
            asked += sum(votes)
        exact_right, mean, variance = stopped(accuracy, most, stop)
        assert_near(right / DRAWS, exact_right)
        assert_near(asked / DRAWS, mean, variance**0.5)


_batches: dict[tuple[int, int], int] = {}


def batches(strategy: Sample, one: int, other: int, most: int) -> int:
    """Return how many drafts the strategy asks for next."""
    counts = (max(one, other), min(one, other))
    if counts not in _batches:
        _batches[counts] = strategy._next_drafts([float(votes) for votes in counts if votes], most - one - other)
    return _batches[counts]


def stopped(accuracy: float, most: int, stop: float) -> tuple[float, float, float]:
    """Return how often samples are right of two answers, the mean of their number, and its variance, draft by draft."""
    states = {(0, 0): 1.0}
    right = mean = squares = 0.0
    while states:
        following: Counter[tuple[int, int]] = Counter()
        for (good, bad), weight in states.items():
            first, second, asked = max(good, bad), min(good, bad), good + bad
            stays = sum(comb(asked + 1, k) for k in range(first + 1)) / 2 ** (asked + 1)
            if asked and (first - second > most - asked or stays >= stop):
                right += weight * (good > bad)
                mean += weight * asked
                squares += weight * asked**2
                continue
            following[good + 1, bad] += weight * accuracy  # type: ignore[assignment]
            following[good, bad + 1] += weight * (1 - accuracy)  # type: ignore[assignment]
        states = dict(following)
    return right, mean, squares - mean**2


class TestJudges:
    def test_the_best_of_five_drafts_by_an_imperfect_judge(self) -> None:
        chance, names = Random("draws"), SEATS
        drawn: Counter[tuple[tuple[bool, bool], ...]] = Counter()
        for _ in range(DRAWS):
            good = [chance.random() < 0.5 for _ in names]
            drawn[tuple(sorted((is_right, chance.random() < (0.8 if is_right else 0.4)) for is_right in good))] += 1
        right = 0
        for kinds, times in drawn.items():
            count = ScoreCount(names, ["judge"])
            scores = {name: 9.0 if accepted else 3.0 for name, (_, accepted) in zip(names, kinds, strict=True)}
            count.cast("judge", Judgement(judge="judge", scores=scores))
            correct = {name for name, (is_right, _) in zip(names, kinds, strict=True) if is_right}
            tied = count.tally(chance).tied or (count.tally(chance).winner,)
            right += sum(tied[int(chance.random() * len(tied))] in correct for _ in range(times))
        assert_near(right / DRAWS, 0.6624)

    def test_the_preference_for_the_first_place_is_recovered_and_does_not_move_the_points(self) -> None:
        better, bias = 0.7, 0.2
        chance = Random("draws")
        drawn = Counter(
            (chance.random() < better + bias, chance.random() < better - bias) for _ in range(DRAWS)
        )  # whether the right draft wins where it is shown first, and where it is shown second
        first = points = 0.0
        for (wins_first, wins_second), times in drawn.items():
            count = PairCount(["right", "wrong"], [("judge", frozenset(("right", "wrong")))])
            count.cast("judge", ("right", "wrong"), "right" if wins_first else "wrong")
            count.cast("judge", ("wrong", "right"), "right" if wins_second else "wrong")
            rate = count.first_slot_rate()
            assert rate is not None
            first += rate * times
            points += count.points()["right"] * times
        assert_near(first / DRAWS, 0.5 + bias)
        assert_near(points / DRAWS, better)
