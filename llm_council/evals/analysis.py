"""From finished cells to a report: outcomes of all arms, baselines at equal cost, verdicts.

Everything here is arithmetic on the journal, so a replay gives the report that the run gave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, floor
from random import Random
from statistics import fmean
from typing import Any, Final

import attrs

from llm_council.evals.arms import Outcome, TaskDrafts, fold_weights, options_of_task, outcome_of, run_seed
from llm_council.evals.headroom import measure_headroom, sample_accuracy
from llm_council.evals.journal import ArmCell, EvalJournal
from llm_council.evals.pool import Pool, question_of
from llm_council.evals.report import ArmRow, Curve, CurvePoint, DifferingTask, EvalReport, RiskPoint, SeatFacts
from llm_council.evals.statistics import DRAWS, differences_of, max_t_band, mean_interval, percentile
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.evals.verdicts import Comparison, Verdict, VerdictKind, compare, cross_fit, verdicts
from llm_council.models import Answer

__all__ = ["MOST_SAMPLES", "Evidence", "analyse", "samples_wanted"]

MOST_SAMPLES: Final = 40
"""The most drafts of a seat for a task."""

PILOT: Final = 20
"""The first tasks, whose costs decide how many samples cost as much as each arm."""

OUT_WEIGHT: Final = 4.0
"""Input tokens that an output token counts as, where there are no prices."""

FEWEST_DRAWS: Final = 2_000
MOST_DRAWN: Final = 1_000_000
"""Tasks that are drawn in a bootstrap: with more than 100 tasks there are fewer draws. The ends of an interval then
differ by a twentieth of its width from seed to seed, and a report of 1,000 tasks takes seconds."""

CHOSEN: Final = "best strategy"
"""Name of the row of the best strategy, chosen for each task on other tasks."""

MOST_SHOWN: Final = 40
"""Tasks on which arms differ, in the report."""


@attrs.define
class Evidence:
    """The finished cells of an evaluation.

    Attributes:
        tasks: the task set.
        journal: the cells, and what the evaluation was started with.
        pool: the drafts among them.
    """

    tasks: TaskSet
    journal: EvalJournal
    pool: Pool
    _drafts: dict[str, tuple[int, TaskDrafts]] = attrs.field(factory=dict)

    @property
    def seats(self) -> tuple[str, ...]:
        """Names of the seats, in order."""
        return tuple(seat["name"] for seat in self.journal.header["seats"])

    def drafts_of(self, task: EvalTask) -> TaskDrafts:
        """Return the drafts of a task, read and scored once."""
        count = self.pool.count(task.id)
        known = self._drafts.get(task.id)
        if known is None or known[0] != count:
            drafts = {seat: self.pool.drafts(task.id, seat) for seat in self.seats}
            known = self._drafts[task.id] = count, TaskDrafts(task, drafts, run_seed(self.tasks, task.id, 0))
        return known[1]

    def runs(self) -> dict[tuple[str, str], list[ArmCell]]:
        """Return the runs of called arms by task and arm."""
        found: dict[tuple[str, str], dict[int, ArmCell]] = {}
        for cell in self.journal.cells():
            if isinstance(cell, ArmCell) and cell.set == self.tasks.sha256:
                found.setdefault((cell.item, cell.arm), {})[cell.replicate] = cell
        repeat = self.journal.header.get("repeat", 1)
        return {key: [runs[number] for number in sorted(runs) if number < repeat] for key, runs in found.items()}

    def is_done(self, task: EvalTask, runs: Mapping[tuple[str, str], Sequence[ArmCell]]) -> bool:
        """Return True if a task went through all arms."""
        header = self.journal.header
        if any(len(self.pool.drafts(task.id, seat)) < header["samples"] for seat in self.seats):
            return False
        return all(len(runs.get((task.id, arm), ())) == header["repeat"] for arm in header["called"])


@attrs.frozen
class _Money:
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

    @classmethod
    def choose(cls, outcomes: Iterable[Outcome]) -> _Money:
        """Return US dollars if every price is known, and something cost money."""
        costs = [outcome.usd for outcome in outcomes]
        return cls("usd" if None not in costs and any(costs) else "tokens")


def _outcomes(evidence: Evidence, done: Sequence[EvalTask]) -> dict[str, list[Outcome]]:
    """Return what each arm answered, by its name; one outcome a task."""
    header, seats = evidence.journal.header, evidence.seats
    drafts = [evidence.drafts_of(task) for task in done]
    found: dict[str, list[Outcome]] = {f"single:{seat}": [one.single(seat) for one in drafts] for seat in seats}
    if "sample" in header["free"]:
        for seat in seats:
            found[f"sample:{seat}"] = [one.sample_until_stable(seat) for one in drafts]
    if len(seats) > 1:
        if "poll" in header["free"]:
            found["poll"] = [one.poll() for one in drafts]
            found["poll-in-turn"] = [one.poll_in_turn() for one in drafts]
        if "weigh" in header["free"]:
            found["weigh"] = _weighed(drafts, seats, [task.cluster for task in done])
    if "escalate" in header["free"] and len(seats) > 2:
        order = _cheapest_first(found, seats)
        found["escalate"] = [one.escalate(order) for one in drafts]
    runs = evidence.runs()
    for arm in header["called"]:
        found[arm] = [outcome_of(task, runs[task.id, arm]) for task in done]
    return found


def _cheapest_first(outcomes: Mapping[str, Sequence[Outcome]], seats: Sequence[str]) -> list[str]:
    """Return the seats by what a draft of theirs cost in the pilot."""
    pilot = {seat: outcomes[f"single:{seat}"][:PILOT] for seat in seats}
    money = _Money.choose(outcome for found in pilot.values() for outcome in found)
    return sorted(seats, key=lambda seat: fmean(map(money.of, pilot[seat])))


def _weighed(drafts: Sequence[TaskDrafts], seats: Sequence[str], clusters: Sequence[str]) -> list[Outcome]:
    """Return a poll for each task, with weights that were measured on the tasks of other folds."""
    fold_of = _folds(clusters)
    weights = {}
    for fold in set(fold_of):
        training = [one for one, other in zip(drafts, fold_of, strict=True) if other != fold]
        weights[fold] = fold_weights(training, seats) if training else dict.fromkeys(seats, 1.0)
    return [one.poll(weights=weights[fold]) for one, fold in zip(drafts, fold_of, strict=True)]


def _folds(clusters: Sequence[str], folds: int = 5) -> list[int]:
    """Return the fold of each task; a cluster stays in one."""
    names = sorted(set(clusters))
    Random(0).shuffle(names)
    place = {name: number % folds for number, name in enumerate(names)}
    return [place[cluster] for cluster in clusters]


def samples_wanted(evidence: Evidence, pilot: Sequence[EvalTask], base: Mapping[str, int]) -> dict[str, int]:
    """Return how many drafts each seat needs so that its samples can cost as much as the most expensive arm.

    Args:
        evidence: the cells of the pilot.
        pilot: the tasks of the pilot.
        base: drafts that each seat has already.
    """
    if not pilot:
        return dict(base)
    outcomes = _outcomes(evidence, pilot)
    money = _money(outcomes)
    councils = [arm for arm in outcomes if is_council(arm, evidence.seats)]
    dearest = max((fmean(map(money.of, outcomes[arm])) for arm in councils), default=0.0)
    wanted = dict(base)
    accuracy = {seat: mean_interval([one.points for one in outcomes[f"single:{seat}"]]) for seat in evidence.seats}
    bar = max(found.low or 0.0 for found in accuracy.values())
    for seat, draft in _draft_costs(evidence, pilot, money).items():
        # A seat whose interval is below that of another one cannot be the baseline.
        if draft > 0 and (accuracy[seat].high or 1.0) >= bar:
            wanted[seat] = min(MOST_SAMPLES, max(wanted[seat], ceil(dearest / draft) + 2))
    return wanted


def is_council(arm: str, seats: Sequence[str]) -> bool:
    """Return True for an arm of several seats; False for a single seat and for samples of one."""
    return arm.partition(":")[2] not in seats


def _money(outcomes: Mapping[str, Sequence[Outcome]]) -> _Money:
    return _Money.choose(one for found in outcomes.values() for one in found[:PILOT])


def _draft_costs(evidence: Evidence, pilot: Sequence[EvalTask], money: _Money) -> dict[str, float]:
    """Return what a draft of each seat cost in the pilot, as a mean."""
    costs = {}
    for seat in evidence.seats:
        cells = [cell for task in pilot for cell in evidence.drafts_of(task).cells[seat]]
        if money.unit == "usd":
            costs[seat] = fmean(cell.usd or 0.0 for cell in cells)
        else:
            costs[seat] = fmean(cell.input_tokens + OUT_WEIGHT * cell.output_tokens for cell in cells)
    return costs


class _Baselines:
    """The baselines of an evaluation: the best seat, and samples of one seat at equal cost."""

    def __init__(self, evidence: Evidence, done: Sequence[EvalTask], outcomes: Mapping[str, Sequence[Outcome]]) -> None:
        self.seats = evidence.seats
        self.clusters = [task.cluster for task in done]
        self.best: str | None = evidence.journal.header.get("best")
        self.money = _money(outcomes)
        self.costs = _draft_costs(evidence, done[:PILOT], self.money)
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
        keys = [None if answer is None else answer.key for answer in drafts.answers[seat]]
        return sample_accuracy(list(zip(keys, drafts.points[seat], strict=True)), min(wanted, there))

    def _mix(self, seat: str, index: int, cost: float, coin: float) -> float:
        """Return the score where one draft of the seat costs more than the arm.

        A task gets either this seat or the cheapest one, so that the mean cost is that of the arm.
        """
        cheapest = min(self.seats, key=lambda name: self.costs[name])
        gap = self.costs[seat] - self.costs[cheapest]
        share = max(0.0, cost - self.costs[cheapest]) / gap if gap > 0 else 0.0
        return self._singles[seat if coin < share else cheapest][index]


def _named(kind: str, chosen: Mapping[str, int]) -> str:
    """Return the name of a baseline, such as ``single:ann``; ``single:ann/bob`` if folds chose different seats."""
    return f"{kind}:{'/'.join(list(chosen)[:2])}"


def analyse(evidence: Evidence, done: Sequence[EvalTask], *, stopped: str | None = None) -> EvalReport:
    """Return the report on the tasks that went through all arms.

    Args:
        evidence: the cells.
        done: these tasks, in the order in which they were worked on.
        stopped: why the evaluation ended before the last task; None if it did not.
    """
    header = evidence.journal.header
    facts = {key: header[key] for key in ("samples", "repeat", "margin", "seed", "version")}
    seats = tuple(
        SeatFacts(name=seat["name"], provider=seat["provider"], model=seat["model"]) for seat in header["seats"]
    )
    empty = EvalReport(
        name=header["set"]["name"],
        set=header["set"],
        seats=seats,
        items=len(done),
        total=header["set"]["tasks"],
        stopped=stopped,
        facts=facts,
    )
    if not done:
        return empty
    outcomes = _outcomes(evidence, done)
    baselines = _Baselines(evidence, done, outcomes)
    councils = [arm for arm in outcomes if is_council(arm, evidence.seats)]
    equal_cost = header.get("equal_cost", True)
    comparisons, numbers = _comparisons(outcomes, councils, baselines, equal_cost=equal_cost)
    found = verdicts(comparisons, margin=header["margin"], primary=header.get("primary"))
    if not equal_cost:
        found = {arm: _without_samples(verdict) for arm, verdict in found.items()}
    drafts = [evidence.drafts_of(task) for task in done]
    warnings = []
    if baselines.short:
        warnings.append(
            f"fewer samples of {', '.join(sorted(baselines.short))} were drawn than cost as much as the dearest arm:"
            " its baseline at equal cost uses all of them"
        )
    failed = sum(cell.error is not None for one in drafts for cells in one.cells.values() for cell in cells)
    if failed:
        warnings.append(f"{failed} drafts failed; they count as wrong")
    rows = [_row(arm, outcomes[arm], baselines.clusters, numbers.get(arm)) for arm in outcomes]
    if len(councils) > 1:
        # Chosen on the tasks that it is scored on, the best strategy would seem better than it is.
        scores = {arm: [one.points for one in outcomes[arm]] for arm in councils}
        picked = cross_fit(scores, baselines.clusters).chosen
        best = [outcomes[arm][index] for index, arm in enumerate(picked)]
        rows.append(_row(CHOSEN, best, baselines.clusters, None))
    single, _ = baselines.single()
    differences = {arm: differences_of([one.points for one in outcomes[arm]], single) for arm in councils}
    return attrs.evolve(
        empty,
        facts={
            **facts,
            "options": round(fmean(map(options_of_task, drafts)), 3),
            "kinds": _by_kind(evidence.seats, drafts, outcomes),
        },
        unit=baselines.money.unit,
        rows=tuple(rows),
        verdicts=tuple(found.values()),
        bands=max_t_band(differences, baselines.clusters, draws=1_000) if differences else {},
        curves=tuple(_curves(drafts, evidence.seats, baselines)),
        headroom=measure_headroom(
            {seat: [one.points[seat][0] for one in drafts] for seat in evidence.seats},
            {seat: [_key(one.answers[seat][0]) for one in drafts] for seat in evidence.seats},
        ),
        risk=tuple(_risk(outcomes.get("poll") or ())),
        differing=tuple(_differing(done, outcomes, councils)),
        differing_total=sum(_differs(outcomes, councils, index) for index in range(len(done))),
        usd=evidence.pool.spent + sum(cell.new_usd or 0.0 for runs in evidence.runs().values() for cell in runs),
        calls=evidence.pool.calls,
        warnings=tuple(warnings),
    )


def _key(answer: Answer | None) -> str | None:
    return None if answer is None else answer.key


def _comparisons(
    outcomes: Mapping[str, Sequence[Outcome]], councils: Sequence[str], baselines: _Baselines, *, equal_cost: bool
) -> tuple[dict[str, list[Comparison]], dict[str, float]]:
    """Return each arm against the best seat and against its samples at equal cost, and the number of these samples.

    Without ``equal_cost`` only one draft of each seat is known, and each arm is compared with the best seat alone.
    """
    single, name = baselines.single()
    found: dict[str, list[Comparison]] = {}
    numbers: dict[str, float] = {}
    draws = max(FEWEST_DRAWS, min(DRAWS, MOST_DRAWN // len(baselines.clusters)))
    for arm in councils:
        points = [one.points for one in outcomes[arm]]
        cost = fmean(map(baselines.money.of, outcomes[arm][:PILOT]))
        found[arm] = [compare(name, points, single, baselines.clusters, draws=draws)]
        if equal_cost:
            sample, sample_name, numbers[arm] = baselines.sample(cost)
            found[arm].append(compare(sample_name, points, sample, baselines.clusters, draws=draws))
    return found, numbers


def _without_samples(verdict: Verdict) -> Verdict:
    """Return a verdict where samples at equal cost are unknown: an arm that beats the best seat may not beat them."""
    if verdict.kind != VerdictKind.PAYS:
        return verdict
    reason = f"{verdict.reason}, but samples at equal cost are unknown"
    return attrs.evolve(verdict, kind=VerdictKind.CANNOT_TELL, reason=reason)


def _row(arm: str, outcomes: Sequence[Outcome], clusters: Sequence[str], samples: float | None) -> ArmRow:
    seconds = sorted(one.seconds for one in outcomes)
    billed = [one.usd for one in outcomes]
    spread = [one.run_variance for one in outcomes if one.run_variance is not None]
    return ArmRow(
        arm=arm,
        items=len(outcomes),
        accuracy=mean_interval([one.points for one in outcomes], clusters),
        unread=fmean(one.unread for one in outcomes),
        abstained=fmean(one.abstained for one in outcomes),
        usd=None if None in billed else fmean(usd for usd in billed if usd is not None),
        tokens=fmean(one.tokens_in + one.tokens_out for one in outcomes),
        weighted_tokens=fmean(one.tokens_in + OUT_WEIGHT * one.tokens_out for one in outcomes),
        calls=fmean(one.calls for one in outcomes),
        p50=percentile(seconds, 0.5),
        p95=percentile(seconds, 0.95),
        equal_samples=samples,
        run_variance=fmean(spread) if spread else None,
    )


def _by_kind(
    seats: Sequence[str], drafts: Sequence[TaskDrafts], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, dict[str, Any]]:
    """Return for each kind of answer its tasks, how many answers they have, and how many each seat gets right."""
    found: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(one.task.form.kind for one in drafts):
        places = [place for place, one in enumerate(drafts) if one.task.form.kind == kind]
        found[str(kind)] = {
            "tasks": len(places),
            "options": round(fmean(options_of_task(drafts[place]) for place in places), 3),
            "right": {seat: sum(outcomes[f"single:{seat}"][place].points for place in places) for seat in seats},
        }
    return found


def _curves(drafts: Sequence[TaskDrafts], seats: Sequence[str], baselines: _Baselines) -> Iterator[Curve]:
    """Yield the accuracy of k samples of each seat, by what they cost."""
    for seat in seats:
        most = min(len(one.points[seat]) for one in drafts)
        votes = [
            [(_key(answer), points) for answer, points in zip(one.answers[seat], one.points[seat], strict=True)]
            for one in drafts
        ]
        seconds = fmean(cell.seconds for one in drafts for cell in one.cells[seat])
        points = [
            CurvePoint(
                samples=k,
                accuracy=fmean(sample_accuracy(one, k) for one in votes),
                cost=k * baselines.costs[seat],
                seconds=seconds,
            )
            for k in range(1, most + 1)
        ]
        yield Curve(seat=seat, points=points)


def _risk(polls: Sequence[Outcome]) -> Iterator[RiskPoint]:
    """Yield, for each share of the votes, how many tasks a poll that abstains below it answers, and how well."""
    shares = sorted({one.share for one in polls if one.share}, reverse=True)
    for share in shares:
        answered = [one for one in polls if (one.share or 0.0) >= share]
        at = [one for one in polls if one.share == share]
        yield RiskPoint(
            share=share,
            coverage=len(answered) / len(polls),
            accuracy=fmean(one.points for one in answered),
            accuracy_at=fmean(one.points for one in at),
            items_at=len(at),
        )


def _differs(outcomes: Mapping[str, Sequence[Outcome]], councils: Sequence[str], index: int) -> bool:
    arms = [arm for arm in outcomes if arm in councils or arm.startswith("single:")]
    return len({round(outcomes[arm][index].points, 9) for arm in arms}) > 1


def _differing(
    done: Sequence[EvalTask], outcomes: Mapping[str, Sequence[Outcome]], councils: Sequence[str]
) -> Iterator[DifferingTask]:
    """Yield tasks on which some arms are right and others are not."""
    arms = [arm for arm in outcomes if arm in councils or arm.startswith("single:")]
    shown = 0
    for index, task in enumerate(done):
        if shown == MOST_SHOWN:
            return
        if _differs(outcomes, councils, index):
            shown += 1
            yield DifferingTask(
                id=task.id,
                question=question_of(task)[:600],
                target=str(task.target)[:200],
                answers={arm: outcomes[arm][index].shown for arm in arms},
                points={arm: outcomes[arm][index].points for arm in arms},
            )
