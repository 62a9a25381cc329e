"""The baselines that arms are compared with, and what costs are counted in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, comb, floor
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Final

import attrs

from llm_council.evals.arms import Outcome
from llm_council.evals.grades import mean_cost
from llm_council.evals.headroom import sample_accuracy
from llm_council.evals.journal import DraftCell
from llm_council.evals.tasks import EvalTask
from llm_council.evals.verdicts import cross_fit

if TYPE_CHECKING:
    from llm_council.evals.analysis import Evidence

__all__ = ["OUT_WEIGHT", "PILOT", "Baselines", "Money", "choose_baselines", "choose_money", "sample_costs"]

PILOT: Final = 20
"""The first tasks, whose costs decide how many samples cost as much as each arm."""

OUT_WEIGHT: Final = 4.0
"""Input tokens that an output token counts as, where there are no prices."""


@attrs.frozen
class Money:
    """What costs are counted in.

    Attributes:
        unit: ``"usd"``, or ``"tokens"`` where a price is unknown or all are 0.
    """

    unit: str

    def of(self, outcome: Outcome) -> float:
        """Return the cost of an outcome."""
        if self.unit == "usd":
            return outcome.usd or 0.0
        return outcome.tokens_in + OUT_WEIGHT * outcome.tokens_out

    def of_cell(self, cell: DraftCell) -> float:
        """Return the cost of a draft."""
        if self.unit == "usd":
            return cell.usd or 0.0
        return cell.input_tokens + OUT_WEIGHT * cell.output_tokens

    @classmethod
    def choose(cls, outcomes: Iterable[Outcome]) -> Money:
        """Return US dollars if every price is known, and something cost money."""
        costs = [outcome.usd for outcome in outcomes]
        return cls("usd" if None not in costs and any(costs) else "tokens")


def choose_money(outcomes: Mapping[str, Sequence[Outcome]]) -> Money:
    """Return what the costs of an evaluation are counted in, by those of its pilot."""
    return Money.choose(one for found in outcomes.values() for one in found[:PILOT])


def draft_costs(evidence: Evidence, pilot: Sequence[EvalTask], money: Money) -> dict[str, float]:
    """Return what a draft of each seat cost in the pilot, as a mean."""
    return {
        seat: fmean(money.of_cell(cell) for task in pilot for cell in evidence.drafts_of(task).cells[seat])
        for seat in evidence.seats
    }


def sample_costs(evidence: Evidence, pilot: Sequence[EvalTask], money: Money) -> dict[str, float]:
    """Return what a sample of each seat cost in the pilot: a draft, and the grade by which a judge would choose it."""
    costs = draft_costs(evidence, pilot, money)
    if evidence.grades is None:
        return costs
    grade = mean_cost(evidence.grades.cells(), None if money.unit == "usd" else OUT_WEIGHT)
    return {seat: cost + grade for seat, cost in costs.items()}


class Baselines:
    """The baselines of an evaluation: the best seat, and samples of one seat at equal cost."""

    def __init__(self, evidence: Evidence, done: Sequence[EvalTask], outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        self.seats = evidence.seats
        self.clusters = [task.cluster for task in done]
        self.best: str | None = evidence.journal.header.get("best")
        self.money = choose_money(outcomes)
        self.costs = sample_costs(evidence, done[:PILOT], self.money)
        self.plain_costs = draft_costs(evidence, done[:PILOT], self.money)
        self._done = done
        self._drafts = [evidence.drafts_of(task) for task in done]
        self._singles = {seat: [one.points for one in outcomes[f"single:{seat}"]] for seat in self.seats}
        # Chosen by all drafts of a seat, and scored by the first one, which the arms use too.
        self._means = {seat: [fmean(one.points[seat]) for one in self._drafts] for seat in self.seats}
        self.short: set[str] = set()

    def single(self) -> tuple[list[float], str]:
        """Return the scores of the best seat, chosen on other tasks, and its name."""
        if self.best is not None:
            return self._singles[self.best], f"single:{self.best}"
        chosen = cross_fit(self._means, self.clusters)
        scores = [self._singles[seat][index] for index, seat in enumerate(chosen.chosen)]
        return scores, _named("single", chosen.names)

    def sample(self, cost: float) -> tuple[list[float], str, float]:
        """Return the scores of the best seat's samples at this mean cost, its name, and the number of samples.

        Args:
            cost: the mean cost of the arm in the pilot.
        """
        columns: dict[str, list[float]] = {}
        numbers: dict[str, float] = {}
        for seat in self.seats if self.best is None else (self.best,):
            if self.costs[seat] <= 0:
                continue
            numbers[seat] = cost / self.costs[seat]
            columns[seat] = [self._at(seat, index, numbers[seat], cost) for index in range(len(self._done))]
        if not columns:
            scores, name = self.single()
            return scores, name, 1.0
        chosen = cross_fit(columns, self.clusters)
        seat = next(iter(chosen.names))
        number = numbers[seat]
        name = _named("sample", chosen.names) if number >= 1 else "the cheapest mix of seats"
        return list(chosen.scores), name, number

    def _at(self, seat: str, index: int, number: float, cost: float) -> float:
        """Return the expected score of ``number`` samples on a task.

        For 2.3 samples, a task gets 3 with probability 0.3 and 2 else; a random number of the task and seat decides.
        """
        coin = Random(f"coin/{self._done[index].id}/{seat}").random()
        if number < 1:
            return self._mix(seat, index, cost, coin)
        drafts = self._drafts[index]
        wanted = ceil(number) if coin < number - floor(number) else floor(number)
        there = len(drafts.points[seat])
        if wanted > there:
            self.short.add(seat)
        return self.sample_accuracy(seat, index, min(wanted, there))

    def further(self, cost: float) -> Iterator[tuple[list[float], str]]:
        """Yield the scores and names of further baselines at this mean cost of an arm."""
        yield from ()

    def sample_accuracy(self, seat: str, index: int, number: int) -> float:
        """Return the expected score of so many samples of a seat on a task."""
        drafts = self._drafts[index]
        keys = [None if answer is None else answer.key for answer in drafts.answers[seat]]
        return sample_accuracy(list(zip(keys, drafts.points[seat], strict=True)), number)

    def _mix(self, seat: str, index: int, cost: float, coin: float) -> float:
        """Return the score where one draft of the seat costs more than the arm.

        A task gets either this seat or the cheapest one, so that the mean cost is that of the arm.
        """
        cheapest = min(self.seats, key=lambda name: self.plain_costs[name])
        gap = self.plain_costs[seat] - self.plain_costs[cheapest]
        share = min(1.0, max(0.0, cost - self.plain_costs[cheapest]) / gap) if gap > 0 else 0.0
        return self._singles[seat if coin < share else cheapest][index]


class JudgedBaselines(Baselines):
    """The baselines where a judge scores prose, on which no vote can be taken.

    They are the best seat, the best of several samples of a seat by the judge's own choice, and the best seat at high
    reasoning effort. The choice costs a grade for each sample.
    """

    def sample(self, cost: float) -> tuple[list[float], str, float]:
        """Return the scores of the best of a seat's samples at this mean cost, its name, and the number of samples."""
        scores, name, number = super().sample(cost)
        return scores, name.replace("sample:", "best of samples:"), number

    def sample_accuracy(self, seat: str, index: int, number: int) -> float:
        """Return the expected score of the best of so many samples of a seat on a task."""
        return best_of_accuracy(self._drafts[index].choices(seat), number)

    def further(self, cost: float) -> Iterator[tuple[list[float], str]]:
        """Yield the scores of the best seat at high effort, if any seat can be told to reason."""
        pilot = self._drafts[:PILOT]
        costs = {
            seat: fmean(self.money.of_cell(one.efforts[seat]) for one in pilot)
            for seat in self.seats
            if all(seat in one.efforts for one in self._drafts)
        }
        if not costs:
            return
        columns = {
            seat: [self._with_effort(seat, index, costs[seat], cost) for index in range(len(self._drafts))]
            for seat in costs
        }
        chosen = cross_fit(columns, self.clusters)
        yield list(chosen.scores), _named("high effort", chosen.names)

    def _with_effort(self, seat: str, index: int, effort_cost: float, cost: float) -> float:
        """Return the score of a seat at high effort; where that costs more than the arm, of a mix with plain drafts."""
        plain = self.plain_costs[seat]
        share = 1.0 if effort_cost <= cost or effort_cost <= plain else max(0.0, cost - plain) / (effort_cost - plain)
        coin = Random(f"effort/{self._done[index].id}/{seat}").random()
        return self._drafts[index].effort_points(seat) if coin < share else self._singles[seat][index]


def best_of_accuracy(samples: Sequence[tuple[float | None, float]], number: int) -> float:
    """Return the expected score of the sample with the best grade among so many random ones; ties split evenly.

    Args:
        samples: for each sample, the grade that chooses, None being the worst, and the score.
        number: how many are drawn, from 1 to all.
    """
    scores: dict[float, list[float]] = {}
    for grade, score in samples:
        scores.setdefault(-1.0 if grade is None else grade, []).append(score)
    left, expected = len(samples), 0.0
    ways = comb(left, number)
    for grade in sorted(scores, reverse=True):
        here = len(scores[grade])
        # The best one is here if all drawn ones are here or worse, and not all of them worse.
        expected += (comb(left, number) - comb(left - here, number)) / ways * fmean(scores[grade])
        left -= here
    return expected


def choose_baselines(
    evidence: Evidence, done: Sequence[EvalTask], outcomes: Mapping[str, Sequence[Outcome]]
) -> Baselines:
    """Return the baselines of an evaluation: of a judged one, those for prose."""
    kind = Baselines if evidence.grades is None else JudgedBaselines
    return kind(evidence, done, outcomes)


def _named(kind: str, chosen: Mapping[str, int]) -> str:
    """Return the name of a baseline, such as ``single:ann``; ``single:ann/bob`` if folds chose different seats."""
    return f"{kind}:{'/'.join(list(chosen)[:2])}"
