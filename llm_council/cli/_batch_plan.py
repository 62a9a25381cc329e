"""What ``council batch --dry-run`` prints: tasks, calls, tokens and a bound of the cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from llm_council._engine.estimate import Estimate, estimate
from llm_council.batch.task_files import FileTask, TaskFile
from llm_council.cli import _output
from llm_council.cli._plan import calls_line, cost_line, tokens_line
from llm_council.errors import ConfigurationError
from llm_council.models import Plan

if TYPE_CHECKING:
    from llm_council.batch.result_file import Finished
    from llm_council.cli._batch_survey import Survey
    from llm_council.council import Council
    from llm_council.subagents import Subagent

__all__ = ["print_estimate"]

_STEP: Final = 1.05
"""Tasks of one group differ in length by no more than this factor; the longest of a group is estimated for all."""


@attrs.define
class _Group:
    """Tasks that need the same calls, and whose prompts have about the same length."""

    longest: FileTask
    size: int = 0


def print_estimate(
    council: Council,
    tasks: TaskFile,
    survey: Survey,
    role: str | Subagent,
    options: Mapping[str, Any],
    finished: Mapping[str, Finished],
    flags: Mapping[str, Any],
) -> int:
    """Print what a batch would do, and return the exit status."""
    try:
        council._seating.check()
    except ConfigurationError as error:
        _output.print_note(f"council: the batch could not start yet: {error}")
    left = survey.total - survey.done
    parts = [f"{left:,} to run"]
    if survey.done:
        parts.append(f"{survey.done:,} done")
    if survey.broken:
        parts.append(f"{survey.broken:,} broken {tasks.unit}{'s' if survey.broken > 1 else ''}")
    sample = f" (a sample of {survey.total:,})" if survey.sample is not None else ""
    rows = [("tasks", f"{', '.join(parts)} in {tasks.name}{sample}")]
    total: Estimate | None = None
    plan: Plan | None = None
    for group in _groups(tasks, survey, finished):
        plan = _plan_of(council, group.longest, role, options)
        found = _times(estimate(plan, council._price), group.size)
        total = found if total is None else _sum(total, found)
    if plan is not None and total is not None:
        plan = attrs.evolve(plan, budget=attrs.evolve(plan.budget, usd=flags["budget_usd"]))
        rows += [
            ("calls", calls_line(plan, total)),
            ("tokens", tokens_line(total)),
            ("cost", cost_line(plan, total, council._seating.adapters, what="batch")),
        ]
    for name, text in rows:
        _output.print_line(f"{name:<8}{text}", indent=8)
    return 0


def _groups(tasks: TaskFile, survey: Survey, finished: Mapping[str, Finished]) -> Iterator[_Group]:
    """Return the tasks that are to be run, in groups."""
    groups: dict[tuple[Any, ...], _Group] = {}
    for task in tasks.tasks():
        if not isinstance(task, FileTask) or not survey.is_open(task.id, finished):
            continue
        length = len(task.task) + len(task.context or "")
        key = (task.subagent, task.context is None, task.files, math.ceil(math.log(length, _STEP)))
        group = groups.setdefault(key, _Group(task))
        group.size += 1
        if length > len(group.longest.task) + len(group.longest.context or ""):
            group.longest = task
    return iter(groups.values())


def _plan_of(council: Council, task: FileTask, role: str | Subagent, options: Mapping[str, Any]) -> Plan:
    own = dict(options)
    if task.context is not None:
        own["context"] = task.context
    if task.subagent is not None:
        role, own["mode"] = task.subagent, None
    return council.plan(task.task, role, **own)


def _times(one: Estimate, number: int) -> Estimate:
    return attrs.evolve(
        one,
        calls={phase: calls * number for phase, calls in one.calls.items()},
        input_tokens=one.input_tokens * number,
        output_tokens=one.output_tokens * number,
        usd=None if one.usd is None else one.usd * number,
    )


def _sum(first: Estimate, second: Estimate) -> Estimate:
    phases = dict.fromkeys((*first.calls, *second.calls))
    return Estimate(
        calls={phase: first.calls.get(phase, 0) + second.calls.get(phase, 0) for phase in phases},
        input_tokens=first.input_tokens + second.input_tokens,
        output_tokens=first.output_tokens + second.output_tokens,
        answer_tokens=max(first.answer_tokens, second.answer_tokens),
        is_limited=first.is_limited and second.is_limited,
        usd=second.usd if first.usd is None else first.usd + (second.usd or 0.0),
        unpriced=tuple(dict.fromkeys((*first.unpriced, *second.unpriced))),
    )
