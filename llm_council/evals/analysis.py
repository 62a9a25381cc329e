"""From finished cells to a report: outcomes of all arms, baselines at equal cost, verdicts.

Everything here is arithmetic on the journal, so a replay gives the report that the run gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from random import Random
from statistics import fmean
from typing import Any, Final

import attrs

from llm_council.evals.arms import Outcome, TaskDrafts, fold_weights, options_of_task, outcome_of, run_seed
from llm_council.evals.baselines import (
    OUT_WEIGHT,
    PILOT,
    Baselines,
    Money,
    choose_baselines,
    choose_money,
    sample_costs,
)
from llm_council.evals.grades import CHOOSING, SCORING, Grades, assumed_usd, measure_judge
from llm_council.evals.headroom import measure_headroom
from llm_council.evals.journal import ArmCell, EvalJournal
from llm_council.evals.pool import Pool, question_of
from llm_council.evals.report import ArmRow, Curve, CurvePoint, DifferingTask, EvalReport, RiskPoint, SeatFacts
from llm_council.evals.scorers import read_answer
from llm_council.evals.statistics import DRAWS, differences_of, max_t_band, mean_interval, percentile
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.evals.verdicts import Comparison, Verdict, VerdictKind, compare, cross_fit, verdicts
from llm_council.models import Answer

__all__ = ["MOST_SAMPLES", "Evidence", "analyse", "samples_wanted"]

MOST_SAMPLES: Final = 40
"""The most drafts of a seat for a task."""

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
        grades: the grades of the judge; None where answers are measured.
    """

    tasks: TaskSet
    journal: EvalJournal
    pool: Pool
    grades: Grades | None = None
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
            made = TaskDrafts(
                task,
                drafts,
                run_seed(self.tasks, task.id, 0),
                grades=self.grades,
                efforts=self.pool.efforts(task.id),
            )
            known = self._drafts[task.id] = count, made
        return known[1]

    def ungraded(self, task: EvalTask, runs: Mapping[tuple[str, str], Sequence[ArmCell]]) -> bool:
        """Return True if the judge has not seen all answers to a task."""
        if self.grades is None:
            return False
        for seat in self.seats:
            for cell in self.pool.drafts(task.id, seat):
                answer = read_answer(task, cell.text)
                if answer and any(not self.grades.cell(task, answer.key, which) for which in (SCORING, CHOOSING)):
                    return True
        others = [read_answer(task, cell.text) for cell in self.pool.efforts(task.id).values()]
        others += [cell.answer for arm in self.journal.header["called"] for cell in runs.get((task.id, arm), ())]
        return any(answer and not self.grades.cell(task, answer.key, SCORING) for answer in others)

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
        if self.ungraded(task, runs):
            return False
        return all(len(runs.get((task.id, arm), ())) == header["repeat"] for arm in header["called"])


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
        found[arm] = [outcome_of(task, runs[task.id, arm], evidence.grades) for task in done]
    return found


def _cheapest_first(outcomes: Mapping[str, Sequence[Outcome]], seats: Sequence[str]) -> list[str]:
    """Return the seats by what a draft of theirs cost in the pilot."""
    pilot = {seat: outcomes[f"single:{seat}"][:PILOT] for seat in seats}
    money = Money.choose(outcome for found in pilot.values() for outcome in found)
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
    money = choose_money(outcomes)
    councils = [arm for arm in outcomes if is_council(arm, evidence.seats)]
    dearest = max((fmean(map(money.of, outcomes[arm])) for arm in councils), default=0.0)
    wanted = dict(base)
    accuracy = {seat: mean_interval([one.points for one in outcomes[f"single:{seat}"]]) for seat in evidence.seats}
    bar = max(found.low or 0.0 for found in accuracy.values())
    for seat, draft in sample_costs(evidence, pilot, money).items():
        # A seat whose interval is below that of another one cannot be the baseline.
        if draft > 0 and (accuracy[seat].high or 1.0) >= bar:
            wanted[seat] = min(MOST_SAMPLES, max(wanted[seat], ceil(dearest / draft) + 2))
    return wanted


def is_council(arm: str, seats: Sequence[str]) -> bool:
    """Return True for an arm of several seats; False for a single seat and for samples of one."""
    return arm.partition(":")[2] not in seats


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
    baselines = choose_baselines(evidence, done, outcomes)
    councils = [arm for arm in outcomes if is_council(arm, evidence.seats)]
    equal_cost = header.get("equal_cost", True)
    comparisons, numbers = _comparisons(outcomes, councils, baselines, equal_cost=equal_cost)
    found = verdicts(comparisons, margin=header["margin"], primary=header.get("primary"))
    if not equal_cost:
        found = {arm: _without_samples(verdict) for arm, verdict in found.items()}
    drafts = [evidence.drafts_of(task) for task in done]
    warnings = list(header.get("left_out", ()))
    judge = None
    if evidence.grades is not None:
        judge = measure_judge(evidence.grades, header["judge"], drafts)
        warnings += judge.warnings()
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
        facts={**facts, **({} if judge else _by_kind_and_options(evidence.seats, drafts, outcomes))},
        judge=judge,
        unit=baselines.money.unit,
        rows=tuple(rows),
        verdicts=tuple(found.values()),
        bands=max_t_band(differences, baselines.clusters, draws=1_000) if differences else {},
        curves=tuple(_curves(drafts, evidence.seats, baselines)),
        headroom=None
        if judge  # of prose, no two answers are the same
        else measure_headroom(
            {seat: [one.points[seat][0] for one in drafts] for seat in evidence.seats},
            {seat: [_key(one.answers[seat][0]) for one in drafts] for seat in evidence.seats},
        ),
        risk=tuple(_risk(outcomes.get("poll") or ())),
        differing=tuple(_differing(done, outcomes, councils)),
        differing_total=sum(_differs(outcomes, councils, index) for index in range(len(done))),
        usd=evidence.pool.spent
        + sum(cell.new_usd or 0.0 for runs in evidence.runs().values() for cell in runs)
        + (assumed_usd(evidence.grades.cells()) if evidence.grades else 0.0),
        calls=evidence.pool.calls,
        warnings=tuple(warnings),
    )


def _key(answer: Answer | None) -> str | None:
    return None if answer is None else answer.key


def _comparisons(
    outcomes: Mapping[str, Sequence[Outcome]], councils: Sequence[str], baselines: Baselines, *, equal_cost: bool
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
            for scores, further_name in baselines.further(cost):
                found[arm].append(compare(further_name, points, scores, baselines.clusters, draws=draws))
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


def _by_kind_and_options(
    seats: Sequence[str], drafts: Sequence[TaskDrafts], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, Any]:
    """Return how many answers a task has on average, and what ``_by_kind`` returns."""
    return {
        "options": round(fmean(map(options_of_task, drafts)), 3),
        "kinds": _by_kind(seats, drafts, outcomes),
    }


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


def _curves(drafts: Sequence[TaskDrafts], seats: Sequence[str], baselines: Baselines) -> Iterator[Curve]:
    """Yield the accuracy of k samples of each seat, by what they cost."""
    for seat in seats:
        most = min(len(one.points[seat]) for one in drafts)
        seconds = fmean(cell.seconds for one in drafts for cell in one.cells[seat])
        points = [
            CurvePoint(
                samples=k,
                accuracy=fmean(baselines.sample_accuracy(seat, index, k) for index in range(len(drafts))),
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
