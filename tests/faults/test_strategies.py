"""The real engine on 2,000 simulated questions for each strategy: right as often as the closed forms say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import comb, exp, lgamma, prod

import anyio
import attrs
import pytest

from llm_council._engine.run import run_plan
from llm_council.config import CouncilConfig
from llm_council.council import Council
from llm_council.models import Budget
from llm_council.results import CouncilResult
from llm_council.strategies import Escalate, Judge, Poll, Revise, Sample, Strategy
from llm_council.subagents import Subagent
from llm_council.testing import SimulatedSeat, World

ITEMS = 2_000
NUMBER = {"type": "integer"}
ROLE = Subagent(name="tester")
LATEST = Budget(deadline=None)


def run_items(seats: Sequence[SimulatedSeat], strategy: Strategy, world: World) -> list[CouncilResult]:
    """Return the result of each question."""
    names = [f"seat-{number}" for number in range(len(seats))]
    for name, seat in zip(names, seats, strict=True):
        seat.name = name  # type: ignore[misc]
    council = Council(list(seats), config=CouncilConfig(budget=LATEST), strategy=strategy)
    plan = council.plan("item 0", ROLE, schema=NUMBER)
    adapters = dict(zip(names, seats, strict=True))

    async def run() -> list[CouncilResult]:
        results = []
        for item in range(ITEMS):
            asked = attrs.evolve(plan, task=f"What is item {item}?", seed=f"{item}", run_id=f"r{item}")
            results.append(await run_plan(asked, adapters, strategy=strategy))
        return results

    return anyio.run(run)


def share_right(results: Sequence[CouncilResult], world: World) -> float:
    return sum(result.output == world.right_answer(item) for item, result in enumerate(results)) / len(results)


def assert_near(observed: float, exact: float, among: int = ITEMS) -> None:
    """Assert that a share is within four standard errors of its expected value."""
    assert abs(observed - exact) < 4 * (exact * (1 - exact) / among) ** 0.5, (observed, exact)


def majority(accuracy: float, seats: int) -> float:
    return sum(comb(seats, k) * accuracy**k * (1 - accuracy) ** (seats - k) for k in range(seats // 2 + 1, seats + 1))


def beta_binomial_majority(accuracy: float, correlation: float, seats: int) -> float:
    spread = 1 / correlation - 1
    a, b = accuracy * spread, (1 - accuracy) * spread

    def log_beta(x: float, y: float) -> float:
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    return sum(
        comb(seats, k) * exp(log_beta(k + a, seats - k + b) - log_beta(a, b)) for k in range(seats // 2 + 1, seats + 1)
    )


def plurality(accuracy: float, options: int, seats: int) -> float:
    wrong = (1 - accuracy) / (options - 1)
    whole = 0.0
    for votes in product(range(options), repeat=seats):
        counts = [votes.count(option) for option in range(options)]
        chance = prod(accuracy if vote == 0 else wrong for vote in votes)
        if counts[0] == max(counts):
            whole += chance / counts.count(max(counts))
    return whole


def unequal_majority(accuracies: Sequence[float]) -> float:
    """Return the probability that more than half of unequal seats are right."""
    whole = 0.0
    for right in product((True, False), repeat=len(accuracies)):
        if sum(right) > len(accuracies) / 2:
            whole += prod(p if is_right else 1 - p for p, is_right in zip(accuracies, right, strict=True))
    return whole


def sampled(accuracy: float, most: int, stop: float) -> tuple[float, float, float]:
    """Return how often ``Sample`` is right of two answers, the mean of its calls, and their variance.

    It asks on until the drafts that are left cannot change the winner, or the estimate that the first answer stays
    ahead, P(Bin(first + second + 1, 1/2) <= first), is ``stop``.
    """
    states = {(0, 0): 1.0}
    right = calls = squares = 0.0
    while states:
        following: dict[tuple[int, int], float] = {}
        for (good, bad), chance in states.items():
            first, second, asked = max(good, bad), min(good, bad), good + bad
            stays = sum(comb(asked + 1, k) for k in range(first + 1)) / 2 ** (asked + 1)
            if asked == most or first - second > most - asked or (asked and stays >= stop):
                right += chance * (0.5 if good == bad else good > bad)
                calls += chance * asked
                squares += chance * asked**2
                continue
            for state, share in (((good + 1, bad), accuracy), ((good, bad + 1), 1 - accuracy)):
                following[state] = following.get(state, 0.0) + chance * share
        states = following
    return right, calls, squares - calls**2


def chosen_by_judge(accuracy: float, accepts_right: float, accepts_wrong: float, drafts: int) -> float:
    """Return how often the best of several drafts is right by a judge that accepts each with a known error.

    It is one of those that are accepted, and one of all where none is.
    """
    good, bad = accuracy * accepts_right, (1 - accuracy) * accepts_wrong
    none = (1 - good - bad) ** drafts
    return (1 - none) * good / (good + bad) + none * (accuracy - good) / (1 - good - bad)


def calls(seats: Sequence[SimulatedSeat]) -> int:
    return sum(seat.calls for seat in seats)


class TestPolls:
    @pytest.mark.parametrize(("accuracy", "seats", "exact"), [(0.7, 5, 0.83692), (0.4, 3, 0.352)])
    def test_independent_seats(self, accuracy: float, seats: int, exact: float) -> None:
        world = World()
        assert majority(accuracy, seats) == pytest.approx(exact, abs=1e-5)
        council = [SimulatedSeat(accuracy, world=world) for _ in range(seats)]
        assert_near(share_right(run_items(council, Poll(), world), world), exact)

    @pytest.mark.parametrize(("correlation", "seats", "exact"), [(0.1, 5, 0.79398), (0.6, 3, 0.7084)])
    def test_correlated_seats(self, correlation: float, seats: int, exact: float) -> None:
        world = World(correlation=correlation)
        assert beta_binomial_majority(0.7, correlation, seats) == pytest.approx(exact, abs=1e-5)
        council = [SimulatedSeat(0.7, world=world) for _ in range(seats)]
        assert_near(share_right(run_items(council, Poll(), world), world), exact)

    def test_a_council_of_unequal_seats_is_worse_than_its_best(self) -> None:
        world = World()
        accuracies = (0.9, 0.6, 0.6)
        seats = [SimulatedSeat(accuracy, world=world) for accuracy in accuracies]
        assert unequal_majority(accuracies) == pytest.approx(0.792, abs=1e-5)
        assert_near(share_right(run_items(seats, Poll(), world), world), 0.792)

    def test_weights_of_measured_accuracy_make_the_strongest_seat_the_only_voter(self) -> None:
        world = World()
        seats = [SimulatedSeat(accuracy, world=world) for accuracy in (0.9, 0.6, 0.6)]
        weights = {"seat-0": 2.197, "seat-1": 0.405, "seat-2": 0.405}
        assert_near(share_right(run_items(seats, Poll(weights=weights), world), world), 0.9)

    @pytest.mark.parametrize(("accuracy", "seats", "exact"), [(0.4, 5, 0.50944), (0.3, 3, 0.314)])
    def test_a_plurality_splits_ties_fairly(self, accuracy: float, seats: int, exact: float) -> None:
        world = World(options=4)
        assert plurality(accuracy, 4, seats) == pytest.approx(exact, abs=1e-5)
        council = [SimulatedSeat(accuracy, world=world) for _ in range(seats)]
        assert_near(share_right(run_items(council, Poll(), world), world), exact)

    def test_ties_do_not_favour_a_seat(self) -> None:
        world = World(options=50)
        seats = [SimulatedSeat(0.0, world=world) for _ in range(3)]
        results = run_items(seats, Poll(), world)
        tied = [result.chair for result in results if len(result.tally.tied) == 3]
        expected = len(tied) / 3
        squares = sum((tied.count(name) - expected) ** 2 / expected for name in ("seat-0", "seat-1", "seat-2"))
        assert squares < 18.4  # chi-square with two degrees of freedom: exceeded once in 10,000

    def test_asking_in_turn_is_as_right_and_takes_the_calls_of_the_closed_form(self) -> None:
        world = World()
        seats = [SimulatedSeat(0.7, world=world) for _ in range(5)]
        results = run_items(seats, Poll(hurry=False), world)
        assert_near(share_right(results, world), 0.83692)
        assert abs(calls(seats) / ITEMS - 3.8946) < 4 * 0.83 / ITEMS**0.5  # the standard deviation of one run is 0.83


class TestOthers:
    @pytest.mark.parametrize(("accuracy", "k", "stop", "mean"), [(0.7, 5, 1.0, 3.8946), (0.8, 9, 0.95, 5.6871)])
    def test_samples_end_early_and_are_as_right_as_the_closed_form(
        self, accuracy: float, k: int, stop: float, mean: float
    ) -> None:
        world = World()
        seat = SimulatedSeat(accuracy, world=world)
        results = run_items([seat], Sample(k=k, stop=stop), world)
        right, expected, variance = sampled(accuracy, k, stop)
        assert expected == pytest.approx(mean, abs=1e-4)
        assert_near(share_right(results, world), right)
        assert abs(calls([seat]) / ITEMS - expected) < 4 * (variance / ITEMS) ** 0.5

    def test_escalation_is_as_right_as_the_closed_form_and_costs_what_the_ledger_says(self) -> None:
        world = World()
        prices = {0.7: 0.001, 0.9: 0.01}
        seats = [SimulatedSeat(accuracy, world=world, usd=prices[accuracy]) for accuracy in (0.7, 0.7, 0.9)]
        results = run_items(seats, Escalate(), world)
        right, wrong = 0.7**2, 0.3**2
        further = 1 - right - wrong
        assert_near(share_right(results, world), right + further * 0.9)
        assert_near(seats[2].calls / ITEMS, further)
        assert calls(seats) == sum(len(seat.calls) for result in results for seat in result.seats)
        spent = [result.cost.usd for result in results]
        assert abs(sum(spent) / ITEMS - (0.002 + further * 0.01)) < 4 * 0.01 * (further * (1 - further) / ITEMS) ** 0.5
        assert sum(spent) == pytest.approx(0.001 * (seats[0].calls + seats[1].calls) + 0.01 * seats[2].calls)
        assert [sum(rung.usd for rung in result.rungs) for result in results] == pytest.approx(spent)

    def test_the_best_of_several_by_an_imperfect_judge(self) -> None:
        world = World()
        authors = [SimulatedSeat(0.5, world=world) for _ in range(3)]
        judge = SimulatedSeat(0.5, world=world, accepts_right=0.8, accepts_wrong=0.4)
        results = run_items([*authors, judge], Judge(judges=["seat-3"]), world)
        exact = chosen_by_judge(0.5, 0.8, 0.4, 3)
        assert exact == pytest.approx(0.64)
        assert_near(share_right(results, world), exact)

    @pytest.mark.parametrize("bias", [0.2])
    def test_a_preference_for_the_first_text_is_recovered(self, bias: float) -> None:
        world = World()
        authors = [SimulatedSeat(accuracy, world=world) for accuracy in (1.0, 0.0)]
        judge = SimulatedSeat(0.5, world=world, prefers_right=0.7, prefers_first=bias)
        results = run_items([*authors, judge], Judge(mode="pair", judges=["seat-2"]), world)
        rates = [result.bias["first_slot_rate"] for result in results if "first_slot_rate" in result.bias]
        assert abs(sum(rates) / len(rates) - (0.5 + bias)) < 4 * 0.36 / len(rates) ** 0.5
        points = sum(result.tally.points["seat-0"] for result in results) / ITEMS
        assert_near(points, 0.7)

    def test_the_drift_of_a_revision_is_recovered(self) -> None:
        world = World()
        seats = [SimulatedSeat(0.6, world=world, gives_in=0.3, learns=0.2) for _ in range(3)]
        results = run_items(seats, Revise(), world)
        revised = [(item, result) for item, result in enumerate(results) if len(result.rounds) > 1]
        was_right = was_wrong = gave_in = learned = 0
        for item, result in revised:
            right = world.right_answer(item)
            before, after = (one.answers for one in result.rounds[:2])
            for seat, answer in before.items():
                is_right = answer.value == right
                was_right += is_right
                was_wrong += not is_right
                gave_in += is_right and after[seat].value != right
                learned += not is_right and after[seat].value == right
        assert_near(gave_in / was_right, 0.3, was_right)
        assert_near(learned / was_wrong, 0.2, was_wrong)
