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


def calls(seats: Sequence[SimulatedSeat]) -> int:
    return sum(seat.calls for seat in seats)


class TestPolls:
    @pytest.mark.parametrize(("accuracy", "exact"), [(0.7, 0.83692), (0.4, 0.31744)])
    def test_independent_seats(self, accuracy: float, exact: float) -> None:
        world = World()
        seats = [SimulatedSeat(accuracy, world=world) for _ in range(5)]
        assert majority(accuracy, 5) == pytest.approx(exact, abs=1e-5)
        assert_near(share_right(run_items(seats, Poll(), world), world), exact)

    @pytest.mark.parametrize(("correlation", "exact"), [(0.1, 0.79398), (0.6, 0.71099)])
    def test_correlated_seats(self, correlation: float, exact: float) -> None:
        world = World(correlation=correlation)
        seats = [SimulatedSeat(0.7, world=world) for _ in range(5)]
        assert beta_binomial_majority(0.7, correlation, 5) == pytest.approx(exact, abs=1e-5)
        assert_near(share_right(run_items(seats, Poll(), world), world), exact)

    def test_a_council_of_unequal_seats_is_worse_than_its_best(self) -> None:
        world = World()
        seats = [SimulatedSeat(accuracy, world=world) for accuracy in (0.9, 0.6, 0.6)]
        assert_near(share_right(run_items(seats, Poll(), world), world), 0.792)
        weights = {"seat-0": 2.197, "seat-1": 0.405, "seat-2": 0.405}
        assert_near(share_right(run_items(seats, Poll(weights=weights), world), world), 0.9)

    @pytest.mark.parametrize(("accuracy", "exact"), [(0.4, 0.50944), (0.3, 0.33458)])
    def test_a_plurality_splits_ties_fairly(self, accuracy: float, exact: float) -> None:
        world = World(options=4)
        seats = [SimulatedSeat(accuracy, world=world) for _ in range(5)]
        assert plurality(accuracy, 4, 5) == pytest.approx(exact, abs=1e-5)
        assert_near(share_right(run_items(seats, Poll(), world), world), exact)

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
    def test_samples_end_early_and_are_as_right_as_all(self) -> None:
        world = World()
        seat = SimulatedSeat(0.7, world=world)
        results = run_items([seat], Sample(k=5, stop=1), world)
        assert_near(share_right(results, world), 0.83692)
        assert abs(calls([seat]) / ITEMS - 3.8946) < 4 * 0.83 / ITEMS**0.5

    def test_the_estimate_of_the_bayesian_stop_costs_little_accuracy(self) -> None:
        world = World()
        eager, patient = (
            run_items([SimulatedSeat(0.8, world=world)], Sample(k=15, stop=stop), world) for stop in (0.95, 1)
        )
        assert share_right(patient, world) - share_right(eager, world) < 0.03
        assert sum(len(result.drafts) for result in eager) < 0.8 * sum(len(result.drafts) for result in patient)

    def test_escalation(self) -> None:
        world = World()
        seats = [SimulatedSeat(accuracy, world=world) for accuracy in (0.7, 0.7, 0.9)]
        results = run_items(seats, Escalate(), world)
        right, wrong = 0.7**2, 0.3**2
        assert_near(share_right(results, world), right + (1 - right - wrong) * 0.9)
        assert_near(calls(seats) / ITEMS - 2, 1 - right - wrong)
        assert calls(seats) == sum(len(seat.calls) for result in results for seat in result.seats)

    @pytest.mark.parametrize("drafts", [2, 4])
    def test_the_best_of_several_by_an_imperfect_judge(self, drafts: int) -> None:
        world = World()
        authors = [SimulatedSeat(0.5, world=world) for _ in range(drafts)]
        judge = SimulatedSeat(0.5, world=world, accepts_right=0.8, accepts_wrong=0.4)
        results = run_items([*authors, judge], Judge(judges=[f"seat-{drafts}"]), world)
        # Where some drafts are right and some wrong, the judge tells them apart, swaps them, or finds them level.
        mixed = 1 - 2 * 0.5**drafts
        level = 0.8 * 0.4 + 0.2 * 0.6
        exact = 0.5**drafts + mixed * 0.8 * 0.6 + _right_share_of_mixed(drafts) * level
        assert_near(share_right(results, world), exact)

    @pytest.mark.parametrize("bias", [0.0, 0.2])
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


def _right_share_of_mixed(drafts: int) -> float:
    """Return the expected share of right drafts, counted as 0 where all are right or all are wrong."""
    return sum(comb(drafts, right) * 0.5**drafts * right / drafts for right in range(1, drafts))
