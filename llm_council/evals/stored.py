"""Evaluate stored runs: people grade the answers, and the drafts of the runs become the pool.

Grades are in a file of JSON Lines beside the store, so that stores of other authors work without a change.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs

from llm_council.errors import ConfigurationError, InvalidOption
from llm_council.evals.analysis import Evidence, analyse
from llm_council.evals.arms import FREE
from llm_council.evals.journal import ArmCell, DraftCell, EvalJournal, digest, identities_of
from llm_council.evals.pool import Pool
from llm_council.evals.report import EvalReport
from llm_council.evals.scorers import Scorer, ScorerKind, score
from llm_council.evals.tasks import EvalTask, TaskSet
from llm_council.models import AnswerKind, Phase, Plan
from llm_council.models._attrs import as_tuple, strict_init
from llm_council.results import CouncilResult
from llm_council.store import RunStore, Store
from llm_council.strategies._answer_form import form_of

__all__ = ["Grade", "StoredTasks", "evaluate_stored", "grades_path", "read_grades", "why_left_out", "write_grade"]

RIGHT: Final = "right"
WRONG: Final = "wrong"


@strict_init
@attrs.frozen(kw_only=True)
class Grade:
    """The grade that a person gave to the answer of a stored run.

    Attributes:
        run: the run's id.
        grade: ``"right"``, ``"wrong"``, or ``"target"`` for a right answer that was given.
        target: the right answer; None for the other two.
        at: time in UTC, such as ``2026-11-30T12:29:02Z``.
    """

    run: str
    grade: str
    target: Any = None
    at: str = ""


def grades_path(store: str) -> Path:
    """Return the file of the grades of a store that is a file.

    Raises:
        InvalidOption: the store is no file.
    """
    if "://" in store:
        raise InvalidOption("the store is no file: name the file of the grades with --grades")
    return Path(f"{store}.grades.jsonl")


def write_grade(path: Path, run: str, said: str) -> Grade:
    """Add a grade to a file.

    Args:
        path: the file.
        run: the run's id.
        said: ``"right"``, ``"wrong"``, or the right answer as JSON or text.
    """
    target = None
    if said not in (RIGHT, WRONG):
        try:
            target = json.loads(said)
        except ValueError:
            target = said
        if target is None or target == "":
            raise InvalidOption("the right answer is empty: write it, or right, or wrong")
    grade = Grade(
        run=run,
        grade=said if target is None else "target",
        target=target,
        at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    line = json.dumps(attrs.asdict(grade), ensure_ascii=False)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror or error}: name another file with --grades") from None
    return grade


def read_grades(path: Path) -> dict[str, Grade]:
    """Return the last grade of each run.

    Raises:
        InvalidOption: there is no such file, or a line of it is no grade.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InvalidOption(
            f"no run is graded yet: there is no {path}; grade some: council grade RUN right|wrong|ANSWER"
        ) from None
    except OSError as error:
        raise InvalidOption(f"{path}: {error.strerror or error}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            grade = Grade(**json.loads(line))
        except (ValueError, TypeError, ConfigurationError) as error:
            raise InvalidOption(f"{path}: line {number} is no grade ({error}): remove it") from None
        found[grade.run] = grade
    return found


@strict_init
@attrs.frozen(kw_only=True)
class StoredTasks:
    """Graded runs as tasks.

    Attributes:
        tasks: the task set.
        results: the result of each task's run, by its id.
        left_out: why runs were left out, a sentence each.
    """

    tasks: TaskSet
    results: Mapping[str, CouncilResult]
    left_out: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)


def evaluate_stored(store: Store | RunStore, grades: Mapping[str, Grade]) -> EvalReport:
    """Return the report on graded runs. Nothing is sent.

    The arms are each seat alone, the votes that need no call, and the strategy of the runs as they ran. Runs store one
    draft of each seat, so samples at equal cost are unknown, and no arm is found to pay: the report says so.

    Args:
        store: the run store.
        grades: the grades, by the id of the run.

    Raises:
        InvalidOption: no graded run can be scored.
    """
    found = as_tasks(store, grades)
    journal = EvalJournal()
    tasks, results = found.tasks, found.results
    plan = results[tasks.tasks[0].id].plan
    identities = identities_of((seat.name, (seat.provider, seat.model)) for seat in plan.seats)
    arms: list[str] = []
    for task in tasks.tasks:
        result = results[task.id]
        for seat in result.seats:
            journal.add(_draft_cell(tasks, task, result, seat.name, identities[seat.name]))
        arms.append(result.plan.strategy)
    # One arm: the strategy that the runs had; several only where all had the same.
    called = [f"as it ran: {arms[0]}"] if len(set(arms)) == 1 else ["as it ran"]
    for task in tasks.tasks:
        journal.add(_arm_cell(tasks, task, results[task.id], called[0]))
    journal.begin(
        {
            "version": "",
            "set": {
                "name": tasks.name,
                "sha256": tasks.sha256,
                "tasks": len(tasks.tasks),
                "licence": None,
                "source": None,
            },
            "seats": [
                {"name": seat.name, "provider": seat.provider, "model": seat.model, "identity": identities[seat.name]}
                for seat in plan.seats
            ],
            "free": [arm for arm in FREE if arm != "sample"],
            "called": called,
            "samples": 1,
            "equal_cost": False,
            "repeat": 1,
            "margin": 0.05,
            "best": None,
            "primary": called[0],
            "seed": "0",
        }
    )
    pool = Pool(tasks, None, journal)
    pool.load(identities)
    report = analyse(Evidence(tasks=tasks, journal=journal, pool=pool), tasks.tasks)
    note = (
        "runs store one draft of each seat, so nothing is known of samples at equal cost: evaluate a task set for that"
    )
    return attrs.evolve(report, warnings=(*found.left_out, note, *report.warnings))


def as_tasks(store: Store | RunStore, grades: Mapping[str, Grade]) -> StoredTasks:
    """Return graded runs as tasks: those with the most frequent seats, whose drafts can be scored."""
    left_out: list[str] = []
    candidates: list[tuple[CouncilResult, EvalTask]] = []
    for run, grade in grades.items():
        stored = store.show_sync(run)
        if stored.result is None:
            left_out.append(f"run {run} has no result")
            continue
        result = CouncilResult.from_dict(stored.result)
        task, reason = _task(result, grade)
        if task is None:
            left_out.append(f"run {run} was left out: {reason}")
        else:
            candidates.append((result, task))
    seats = Counter(_seats(result.plan) for result, _ in candidates)
    if not seats:
        raise InvalidOption(
            "no graded run can be scored: grade runs whose seats all drafted, with right or with the right answer"
            + (f"; {left_out[0]}" if left_out else "")
        )
    most = seats.most_common(1)[0][0]
    kept = [(result, task) for result, task in candidates if _seats(result.plan) == most]
    if len(kept) < len(candidates):
        left_out.append(f"{len(candidates) - len(kept)} graded runs have other seats, and were left out")
    tasks = TaskSet(
        name="stored runs",
        tasks=[task for _, task in kept],
        sha256=digest([task.to_dict() for _, task in kept]),
    )
    return StoredTasks(tasks=tasks, results={task.id: result for result, task in kept}, left_out=left_out)


def why_left_out(store: Store | RunStore, grade: Grade) -> str | None:
    """Return why an evaluation of stored runs cannot use a graded run; None if it can."""
    stored = store.show_sync(grade.run).result
    if stored is None:
        return "the run has no result"
    task, reason = _task(CouncilResult.from_dict(stored), grade)
    return reason if task is None else None


def _seats(plan: Plan) -> tuple[tuple[str, str, str | None], ...]:
    return tuple((seat.name, seat.provider, seat.model) for seat in plan.seats)


def _task(result: CouncilResult, grade: Grade) -> tuple[EvalTask | None, str]:
    """Return a graded run as a task, or why it is none."""
    target = grade.target
    if grade.grade == WRONG:
        return None, "it is graded wrong, and the right answer is unknown: grade it with the right answer"
    vote_on = result.plan.strategy_options.get("vote_on") or ()
    form = form_of(result.plan.schema, vote_on)
    if grade.grade == RIGHT:
        target = result.output
        if form.kind == AnswerKind.TEXT and result.tally is not None:
            # What the seats voted on, not the prose around it.
            won = [answer for answer in result.answers.values() if answer.key == result.tally.winner]
            target = won[0].value if won else target
    if any(seat.name not in {name.partition("#")[0] for name in result.drafts} for seat in result.seats):
        return None, "not every seat drafted"
    scorers: dict[AnswerKind, Any] = {
        AnswerKind.CHOICE: Scorer(kind=ScorerKind.CHOICE),
        AnswerKind.NUMBER: Scorer(kind=ScorerKind.NUMBER),
        AnswerKind.BOOL: Scorer(kind=ScorerKind.BOOL),
        AnswerKind.JSON: Scorer(
            kind=ScorerKind.FIELDS,
            paths=["$." + ".".join(path) for path in form.paths],
            schema=result.plan.schema,
        ),
    }
    try:
        return (
            EvalTask(
                id=result.run_id,
                input=result.task,
                target=target,
                choices=[str(option) for option in form.options],
                scorer=scorers.get(form.kind, Scorer(kind=ScorerKind.EXACT)),
            ),
            "",
        )
    except ConfigurationError as error:
        return None, error.message


def _draft_cell(tasks: TaskSet, task: EvalTask, result: CouncilResult, seat: str, identity: str) -> DraftCell:
    calls = [
        call for report in result.seats if report.name == seat for call in report.calls if call.phase == Phase.DRAFT
    ]
    cell = DraftCell(set=tasks.sha256, item=task.id, seat=seat, identity=identity, prompt=result.run_id, sample=0)
    response = next((call.response for call in calls if call.response is not None), None)
    if response is None:
        return attrs.evolve(cell, error="the draft failed")
    usage = response.usage
    return attrs.evolve(
        cell,
        text=response.text,
        structured=response.structured,
        model=response.model,
        usd=None if response.cost is None else response.cost.usd,
        input_tokens=(usage.input_tokens or 0) if usage else 0,
        output_tokens=(usage.output_tokens or 0) if usage else 0,
        seconds=calls[0].elapsed,
    )


def _arm_cell(tasks: TaskSet, task: EvalTask, result: CouncilResult, arm: str) -> ArmCell:
    given: Any = result.output
    if result.tally is not None:
        answers: Sequence[Any] = [one for one in result.answers.values() if one.key == result.tally.winner]
        given = answers[0] if answers else given
    elif task.schema is None and not isinstance(given, str):
        given = result.text
    return ArmCell(
        set=tasks.sha256,
        item=task.id,
        arm=arm,
        replicate=0,
        plan=result.run_id,
        status=str(result.status),
        answer=score(task, given).answer if result.success else None,
        text=result.text,
        usd=result.cost.usd if result.cost.complete else None,
        new_usd=0.0,
        input_tokens=result.usage.input_tokens or 0,
        output_tokens=result.usage.output_tokens or 0,
        calls=sum(len(seat.calls) for seat in result.seats),
        seconds=result.duration,
        overruled=result.overruled,
    )
