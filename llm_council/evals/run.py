"""Evaluate: the functions that people call, and the replay of what has run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from llm_council import _runtime, pricing
from llm_council.errors import InvalidOption
from llm_council.evals.analysis import Evidence, analyse
from llm_council.evals.arms import FREE, chosen_arms
from llm_council.evals.grades import (
    Grades,
)
from llm_council.evals.journal import EvalJournal
from llm_council.evals.pool import Pool
from llm_council.evals.report import EvalReport
from llm_council.evals.tasks import TaskSet, read_tasks
from llm_council.models import Budget
from llm_council.strategies import Strategy

if TYPE_CHECKING:
    from llm_council.council import Council

from llm_council.evals.work import SET_COPY, EvalOptions, EvalProgress, Evaluation, hash_of_copy, task_order

__all__ = [
    "EvalOptions",
    "EvalProgress",
    "EvalStream",
    "aevaluate",
    "evaluate",
    "evaluate_stream",
    "evaluate_sync",
    "replay",
]


class EvalStream(_runtime.DualStream[EvalProgress, EvalReport]):
    """The progress of an evaluation, for ``for`` and ``async for``. ``result`` is its report."""


def evaluate(
    council: Council,
    tasks: TaskSet | str | PathLike[str],
    *,
    arms: Sequence[str | Strategy] = FREE,
    budget: Budget | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    repeat: int = 1,
    **options: Any,
) -> EvalReport:
    """Evaluate whether a council pays on a task set. Blocks in plain code; must be awaited in a running event loop.

    Args:
        council: the seats; each of them is a baseline.
        tasks: the task set, or the path of its file.
        arms: ``"single"``, ``"sample"``, ``"poll"``, ``"weigh"`` and ``"escalate"`` need no call beside the drafts.
            Other names of strategies (``"revise"``), and strategies with options, are called on these drafts. ``"all"``
            stands for the five above and for ``"rank"``, ``"judge"``, ``"revise"``, ``"verify"`` and ``"synthesize"``.
        budget: ``usd``, ``calls`` and ``tokens`` limit the whole evaluation. It ends between two tasks, so it exceeds
            a limit by at most what one task takes. The other fields are ignored: runs have the limits of the council.
        out: folder for the journal and the reports; None writes no files.
        resume: True continues the journal in ``out``; finished calls are not made again.
        repeat: how often each called arm runs on a task, each time with other fences, orders and tie-breaks.
        **options: further fields of ``EvalOptions``.

    Returns:
        The report; in a running event loop, one that must be awaited first.

    Raises:
        InvalidTaskSet: the file has a fault; the message names line and remedy. Nothing was sent.
        ConfigurationError: an argument is wrong, an arm cannot work with these seats, or ``out`` has a journal and
            ``resume`` is False. Nothing was sent.
        AdapterFailed: no seat answers any of the first three tasks.
    """
    made = {"arms": arms, "budget": budget, "out": out, "resume": resume, "repeat": repeat, **options}
    if _runtime.must_await():
        return EvalReport.pending(aevaluate(council, tasks, **made), anyio.Event, "evals.evaluate")
    return _runtime.call(aevaluate, council, tasks, **made)


async def aevaluate(
    council: Council,
    tasks: TaskSet | str | PathLike[str],
    *,
    arms: Sequence[str | Strategy] = FREE,
    budget: Budget | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    repeat: int = 1,
    **options: Any,
) -> EvalReport:
    """Evaluate whether a council pays on a task set; see ``evaluate``."""
    reports: list[EvalReport] = []
    made = _options(arms, repeat, options)
    async with aclosing(_progress(council, tasks, made, budget, out, resume, reports.append)) as arriving:
        async for _ in arriving:
            pass
    return reports[0]


def evaluate_sync(council: Council, tasks: TaskSet | str | PathLike[str], **options: Any) -> EvalReport:
    """Evaluate whether a council pays on a task set; see ``evaluate``.

    The blocking twin of ``aevaluate``; it raises ``InsideEventLoopError`` in a running event loop.
    """
    return _runtime.call(aevaluate, council, tasks, **options)


def evaluate_stream(
    council: Council,
    tasks: TaskSet | str | PathLike[str],
    *,
    arms: Sequence[str | Strategy] = FREE,
    budget: Budget | None = None,
    out: str | PathLike[str] | None = None,
    resume: bool = False,
    repeat: int = 1,
    **options: Any,
) -> EvalStream:
    """Evaluate, and yield an ``EvalProgress`` after each task. Arguments are those of ``evaluate``.

    Closing the stream ends the evaluation; what has finished is in the journal.
    """
    made = _options(arms, repeat, options)
    return EvalStream(partial(_progress, council, tasks, made, budget, out, resume))


def _options(arms: Sequence[str | Strategy], repeat: int, options: Mapping[str, Any]) -> EvalOptions:
    chosen_arms(arms)
    return EvalOptions(arms=tuple(arms), repeat=repeat, **options)


async def _progress(
    council: Council,
    tasks: TaskSet | str | PathLike[str],
    options: EvalOptions,
    budget: Budget | None,
    out: str | PathLike[str] | None,
    resume: bool,  # noqa: FBT001 - passed on by position
    keep: Callable[[EvalReport], None],
) -> AsyncGenerator[EvalProgress, None]:
    if not isinstance(tasks, TaskSet):
        tasks = await anyio.to_thread.run_sync(read_tasks, tasks)
    run = Evaluation(council, tasks, options, budget or Budget())
    run.check()
    if pricing.must_load(council._seating.providers.values()):
        await anyio.to_thread.run_sync(pricing.load)
    if out is None and resume:
        raise InvalidOption("resume: name the folder of the journal with out=")
    journal = EvalJournal() if out is None else EvalJournal.open(Path(out), resume=resume)
    try:
        run.begin(journal)
        async with aclosing(run.work()) as arriving:
            async for progress in arriving:
                yield progress
        report = await anyio.to_thread.run_sync(run.report)
    finally:
        journal.close()
        with anyio.CancelScope(shield=True):
            await run.aclose()
    if out is not None:
        await anyio.to_thread.run_sync(report.save, Path(out))
    keep(report)


def replay(folder: str | PathLike[str]) -> EvalReport:
    """Return the report of a journal again. Nothing is sent, and no provider is needed.

    Args:
        folder: the folder that ``out`` named.

    Raises:
        InvalidOption: there is no journal, or its task set was changed.
    """
    place = Path(folder)
    journal = EvalJournal.read(place)
    header = journal.header
    if not header:
        raise InvalidOption(f"{place}: the journal has no beginning: start the evaluation again, in another folder")
    tasks = read_tasks(place / SET_COPY)
    if header.get("copy") not in (None, hash_of_copy(place)):
        raise InvalidOption(
            f"{place / SET_COPY} was changed after the evaluation, whose drafts answer the tasks as they were: evaluate"
            " the changed set in another folder"
        )
    tasks = attrs.evolve(tasks, sha256=header["set"]["sha256"])
    pool = Pool(tasks, None, journal)
    pool.load({seat["name"]: seat["identity"] for seat in header["seats"]})
    grades = Grades(tasks.sha256, journal, header["judge"]) if header.get("judge") else None
    evidence = Evidence(tasks=tasks, journal=journal, pool=pool, grades=grades)
    runs = evidence.runs()
    done = [task for task in task_order(tasks, header["seed"]) if evidence.is_done(task, runs)]
    left = len(tasks.tasks) - len(done)
    stopped = f"{left} of {len(tasks.tasks)} tasks were not finished" if left else None
    return analyse(evidence, done, stopped=stopped)
