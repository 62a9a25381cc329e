"""What a batch is to do: the tasks of a file, compared with the results that exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from llm_council import subagents
from llm_council.batch.task_files import FileTask, Scan, TaskFile, digest
from llm_council.cli import _output
from llm_council.errors import InvalidOption, InvalidTaskSet
from llm_council.models import Plan, Status
from llm_council.models._convert import dump

if TYPE_CHECKING:
    from llm_council.batch.result_file import Finished
    from llm_council.config import CouncilConfig
    from llm_council.subagents import Subagent

__all__ = ["Survey", "checker", "stamp_of", "survey"]

_MOST_SHOWN: Final = 20
"""Broken lines that are named with their problems; of the others the numbers, up to as many again."""


def checker(config: CouncilConfig, folder: str | None) -> Callable[[FileTask], None]:
    """Return a function that refuses tasks with an unknown subagent, and with files that they may not name.

    Args:
        config: the configuration, for the subagents of the user.
        folder: the folder of ``--files-in``; None if tasks may name no files.
    """
    place = None if folder is None else Path(folder).resolve()
    known: set[str] = set()

    def check(task: FileTask) -> None:
        if task.subagent is not None and task.subagent not in known:
            subagents.load(task.subagent, None, paths=config.subagent_paths)
            known.add(task.subagent)
        for name in task.files:
            if place is None:
                raise InvalidOption(f"files: {name!r:.80} is not read unless --files-in names its folder")
            target = (place / name).resolve()
            if not target.is_relative_to(place):
                raise InvalidOption(f"files: {name!r:.80} is outside of the folder of --files-in")
            if not target.is_file():
                raise InvalidOption(f"files: there is no file {name!r:.80} in {folder}")

    return check


def stamp_of(plan: Plan, role: str | Subagent, config: CouncilConfig, flags: Mapping[str, Any]) -> str:
    """Return a hash of what all runs of a batch have in common: a restart must have the same.

    Limits of money, time and concurrency do not count. Nor do the prompts of built-in subagents, which a later version
    of this library may change.

    Args:
        plan: the plan of any task.
        role: the subagent of the tasks that name none.
        config: the configuration.
        flags: the options of the command.
    """
    if isinstance(role, str):
        role = subagents.load(role, flags["mode"], paths=config.subagent_paths)
    is_ours = role.source == "built-in"
    has_own_schema = not is_ours or flags["schema"] or flags["output_type"]
    facts = {
        "seats": [[seat.name, seat.provider, seat.model, seat.instructions, seat.temperature] for seat in plan.seats],
        "chair": config.chair,
        "subagent": [plan.subagent, plan.mode, None if is_ours else dump(plan.prompts)],
        "strategy": [plan.strategy, dump(plan.strategy_options)],
        "schema": dump(plan.schema) if has_own_schema else None,
        "output_type": plan.output_type,
        "context": [plan.context, plan.system_context],
        "files": [file.sha256 or digest(file.text) for file in plan.files],
        "sampling": [plan.temperature, plan.max_tokens, dump(plan.reasoning)],
        "seed": config.seed,
    }
    return digest(facts, 8)


@attrs.frozen(kw_only=True)
class Survey:
    """What is to be done.

    Attributes:
        broken: number of broken lines.
        sample: ids of the sample; None for all tasks.
        total: number of tasks of the sample, or of the file.
        done: number of those that have a line in the results, and need no other.
        retries_failed: True if failed tasks need another line.
    """

    broken: int
    sample: frozenset[str] | None
    total: int
    done: int
    retries_failed: bool

    def is_open(self, name: str, finished: Mapping[str, Finished]) -> bool:
        """Return True if the task with this id is to be run, seen from the lines of the results."""
        entry = finished.get(name)
        is_done = entry is not None and not (self.retries_failed and entry.status == Status.FAILED)
        return not is_done and (self.sample is None or name in self.sample)


def survey(tasks: TaskFile, finished: Mapping[str, Finished], stamp: str, flags: Mapping[str, Any]) -> Survey:
    """Read all tasks, name broken lines, and compare the others with the results.

    Args:
        tasks: the file of tasks.
        finished: the lines of the results, by id.
        stamp: the hash of the options.
        flags: the options of the command.

    Raises:
        InvalidTaskSet: no line is a task, or one is broken and ``--strict`` is given.
        InvalidOption: the results are those of other tasks, or of other options.
    """
    output = flags["output"]
    for entry in finished.values():
        if entry.run_id and entry.run_id.split("-")[1:2] != [stamp]:
            raise InvalidOption(
                f"{output}: line {entry.line} was made with other options (seats, models, strategy, subagent, schema,"
                " seed or others): give the same ones, or name another file with -o"
            )
    done: set[str] = set()
    known = 0

    def visit(task: FileTask) -> None:
        nonlocal known
        entry = finished.get(task.id)
        if entry is None:
            return
        if entry.run_id and entry.run_id.split("-")[0] != task.key:
            raise InvalidOption(
                f"{output}: line {entry.line} answers another task than {tasks.unit} {task.line} of {tasks.name}, and"
                f" both have the id {task.id!r:.80}: give one another id, or name another file with -o"
            )
        known += 1
        if not (flags["retry_failed"] and entry.status == Status.FAILED):
            done.add(task.id)

    scan = tasks.scan(visit)
    _report(tasks, scan, strict=flags["strict"])
    if len(finished) > known:
        others = f"{len(finished) - known:,} results of tasks that are not in {tasks.name}"
        _output.print_note(f"council: {output} has {others}: they stay")
    sample = None if flags["sample"] is None else tasks.sample(flags["sample"], flags["seed"] or "0")
    return Survey(
        broken=len(scan.problems),
        sample=sample,
        total=scan.tasks if sample is None else len(sample),
        done=len(done if sample is None else done & sample),
        retries_failed=flags["retry_failed"],
    )


def _report(tasks: TaskFile, scan: Scan, *, strict: bool) -> None:
    """Name the broken lines of a file.

    Raises:
        InvalidTaskSet: no line is a task, or one is broken and ``strict`` is True.
    """
    for number, problem in scan.problems[:_MOST_SHOWN]:
        _output.print_note(f"council: {tasks.name}: {tasks.unit} {number}: {problem}")
    more = [number for number, _ in scan.problems[_MOST_SHOWN:]]
    if more:
        listed = ", ".join(map(str, more[:_MOST_SHOWN])) + (", ..." if len(more) > _MOST_SHOWN else "")
        _output.print_note(f"council: {tasks.name}: {len(more):,} more {tasks.unit}s are broken: {listed}")
    for hint in scan.hints:
        _output.print_note(f"council: {tasks.name}: {hint}")
    broken = len(scan.problems)
    if broken and (strict or not scan.tasks):
        reason = "nothing was sent, because of --strict" if scan.tasks else "there is nothing to run"
        lines = f"1 {tasks.unit} is" if broken == 1 else f"{broken:,} {tasks.unit}s are"
        raise InvalidTaskSet(f"{tasks.name}: {lines} broken: {reason}", path=tasks.name, faults=scan.problems)
