"""Run the tasks of a batch: results are written as runs end, and progress is shown."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from llm_council.batch.restart import Restart, is_stopped
from llm_council.batch.result_file import Finished, ResultFile, result_line, result_values
from llm_council.batch.task_files import FileTask, TaskFile
from llm_council.cli import _output
from llm_council.cli._batch_progress import MOST_NAMED, Counts, Display, showing_progress
from llm_council.cli._batch_survey import Survey
from llm_council.cli._main import ABSTAINED, DEGRADED, FAILED
from llm_council.errors import InvalidOption
from llm_council.errors._secrets import redact
from llm_council.models import Budget, Status, Task
from llm_council.store import Store, open_store
from llm_council.store._writer import EXIT_TIMEOUT

if TYPE_CHECKING:
    from llm_council.council import Council
    from llm_council.results import CouncilResult
    from llm_council.subagents import Subagent

__all__ = ["Batch", "Results", "open_results", "store_beside"]

_STORE: Final = ".runs.db"
"""What the name of the store beside the results ends with."""


class Results(Protocol):
    """Where results go."""

    @property
    def finished(self) -> Mapping[str, Finished]:
        """The tasks that have a line, by id."""

    def add(self, values: Mapping[str, Any]) -> None:
        """Write a line of results."""

    def close(self) -> None:
        """Write what waits."""


class _Stream:
    """Writes results to stdout, or to a pipe or a device, from which nothing can be read back."""

    def __init__(self, path: Path | None) -> None:
        self.finished: dict[str, Finished] = {}
        self._file = None if path is None else path.open("wb", buffering=0)

    def add(self, values: Mapping[str, Any]) -> None:
        line = result_line(values)
        if self._file is not None:
            self._file.write(line + b"\n")
        else:
            click.echo(line)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def open_results(output: Path | None) -> Results:
    """Open the file of the results, with those of earlier processes; None is stdout.

    Raises:
        InvalidOption: the file holds something else, or cannot be used.
    """
    if output is None or not _is_regular(output):
        return _Stream(output)
    results = ResultFile(output)
    if results.torn:
        _output.print_note(f"council: the last line of {output} was torn, and is cut off")
    return results


def store_beside(output: Path) -> Path | None:
    """Return the store that a batch makes for its results; None where there can be no other file."""
    return output.with_name(f"{output.name}{_STORE}") if _is_regular(output) else None


def _is_regular(path: Path) -> bool:
    return path.is_file() or not path.exists()


class Batch:
    """A batch in this process.

    Args:
        council: the council.
        role: the subagent of the tasks that name none.
        options: the other options of all runs.
        tasks: the file of tasks.
        survey: what of it is to be done.
        stamp: the hash of the options.
        results: where results go.
        beside: the store of this batch alone; None uses the council's, if it has one.
        flags: the options of the command.
    """

    def __init__(
        self,
        council: Council,
        role: str | Subagent,
        options: Mapping[str, Any],
        tasks: TaskFile,
        survey: Survey,
        stamp: str,
        results: Results,
        beside: Path | None,
        flags: Mapping[str, Any],
    ) -> None:
        self._council = council
        self._role = role
        self._options = options
        self._tasks = tasks
        self._survey = survey
        self._stamp = stamp
        self._results = results
        self._beside = beside
        self._flags = flags
        self._keys: dict[str, str] = {}  # of the tasks that go on, by id
        self._end = None if flags["stop_after"] is None else time.monotonic() + flags["stop_after"]
        self._stopped = ""  # why tasks were not begun
        self._fault: OSError | None = None  # of writing a result
        self._statuses = dict.fromkeys(Status, 0)
        self._failures = 0

    def run(self) -> int:
        """Run what is to be done, and return the exit status.

        Raises:
            KeyboardInterrupt: Ctrl-C; what has finished is written, and the way on is printed.
            InvalidOption: the failed results cannot be dropped, or the budget is spent.
        """
        if self._flags["retry_failed"] and isinstance(self._results, ResultFile):
            self._results.drop_failed()
        counts = self._counts()
        limit = self._flags["budget_usd"]
        if limit is not None and counts.usd and counts.usd >= limit and counts.done < counts.total:
            raise InvalidOption(f"--budget-usd {limit:g}: the results have cost ${counts.usd:.4f}: raise it to go on")
        budget = None if limit is None else Budget(usd=limit - counts.usd)
        if counts.done < counts.total:
            try:
                with showing_progress(counts, plain=self._flags["plain"]) as display:
                    self._work(counts, display, budget)
            except KeyboardInterrupt:
                _output.print_note(f"council: {counts.done:,} of {counts.total:,} tasks are done{self._way_on()}")
                raise
        if self._fault is not None:
            if self._flags["output"] is None:  # the end of a pipe, as in `council batch ... | head`
                raise self._fault
            reason = self._fault.strerror or self._fault
            _output.print_note(f"council: cannot write {self._flags['output']}: {reason}{self._way_on()}")
            return FAILED
        self._results.close()
        self._finish(counts)
        return self._status(counts)

    def _counts(self) -> Counts:
        survey, finished = self._survey, self._results.finished
        counts = Counts(total=survey.total, done=survey.done)
        for name, entry in finished.items():
            counts.usd += entry.usd or 0.0
            counts.unpriced = counts.unpriced or (entry.usd is None and entry.status != Status.FAILED)
            if survey.sample is None or name in survey.sample:
                self._statuses[Status(entry.status)] += 1
        counts.failed = self._statuses[Status.FAILED]
        return counts

    def _work(self, counts: Counts, display: Display, budget: Budget | None) -> None:
        restart = Restart(run_id=self._run_id, stored=self._stored_runs(), retries_failed=self._flags["retry_failed"])
        display.update()
        with self._council._restarting(restart).map(
            self._to_run(),
            subagent=self._role,
            concurrency=self._flags["concurrency"],
            ordered=False,
            budget=budget,
            store=self._beside,
            **self._options,
        ) as results:
            for result in results:
                self._take(result, counts, display)
                display.update()
                if self._fault is not None:
                    break

    def _to_run(self) -> Iterator[Task]:
        """Yield the tasks that are to be run."""
        finished = self._results.finished
        folder = Path(self._flags["files_in"] or ".")
        for task in self._tasks.tasks():
            if not isinstance(task, FileTask) or not self._survey.is_open(task.id, finished):
                continue
            if self._end is not None and time.monotonic() >= self._end:
                self._stopped = "the time of --stop-after has passed"
                return
            self._keys[task.id] = task.key
            yield Task(
                task.task,
                id=task.id,
                subagent=task.subagent,
                context=task.context,
                files=tuple(folder / name for name in task.files),
                metadata=task.metadata,
            )

    def _stored_runs(self) -> frozenset[str]:
        """Return the ids of the runs that earlier processes of this batch have stored."""
        place = self._beside or self._council.config.store
        if place is None:
            return frozenset()
        ids = (info.run_id for info in open_store(place).runs_sync())
        return frozenset(run_id for run_id in ids if run_id.split("-")[1:2] == [self._stamp])

    def _run_id(self, task: Task) -> str:
        return f"{self._keys[str(task.id)]}-{self._stamp}"

    def _take(self, result: CouncilResult[Any], counts: Counts, display: Display) -> None:
        """Write a result, and count it. A task that the budget of the batch has stopped stays to be done."""
        name = str(result.task_id)
        if is_stopped(result):
            self._stopped = "the money of --budget-usd is spent"
            return
        self._keys.pop(name, None)
        try:
            self._results.add(result_values(name, result, full=self._flags["full"]))
        except OSError as error:
            self._fault = error
            return
        self._statuses[result.status] += 1
        counts.done += 1
        counts.pace.add()
        counts.usd += result.cost.usd or 0.0
        counts.unpriced = counts.unpriced or (result.cost.usd is None and result.success)
        if result.status == Status.FAILED:
            counts.failed += 1
            self._failures += 1
            if self._failures <= MOST_NAMED:
                display.note(f"council: {name} failed: {result.error}")
            if self._failures == MOST_NAMED + 1:
                display.note("council: further failures are in the results alone")

    def _finish(self, counts: Counts) -> None:
        """Print what was done, and remove the store of the batch if nothing can need it any more."""
        others = {status: self._statuses[status] for status in (Status.DEGRADED, Status.ABSTAINED, Status.FAILED)}
        succeeded = counts.done - others[Status.FAILED] - others[Status.ABSTAINED]
        ended = [f"{succeeded:,} of {counts.total:,} tasks succeeded"]
        ended += [f"{number:,} {status}" for status, number in others.items() if number]
        if self._survey.broken:
            ended.append(f"{self._survey.broken:,} broken {self._tasks.unit}{'s' if self._survey.broken > 1 else ''}")
        _output.print_note(f"council: {', '.join(ended)}, {counts.money}")
        left = counts.total - counts.done
        if left:
            reason = f": {self._stopped}" if self._stopped else ""
            _output.print_note(f"council: {left:,} are left{reason}{self._way_on()}")
        elif counts.failed and isinstance(self._results, ResultFile):
            _output.print_note(f"council: to run the failed tasks again: {_same_command('--retry-failed')}")
        elif self._beside is not None and self._survey.sample is None:
            _remove(self._beside)

    def _status(self, counts: Counts) -> int:
        if counts.failed or counts.done < counts.total or self._survey.broken:
            return FAILED
        if self._statuses[Status.ABSTAINED]:
            return ABSTAINED
        return DEGRADED if self._flags["strict"] and self._statuses[Status.DEGRADED] else 0

    def _way_on(self) -> str:
        """Return how to go on, as the end of a message."""
        if self._beside is None and self._council.config.store is None:
            return "; without -o or --store, they would all be run again"
        return f"; to go on: {_same_command()}"


def _same_command(*more: str) -> str:
    words = [word for word in sys.argv[1:] if word not in more]
    return " ".join(shlex.quote(redact(word)) for word in ("council", *words, *more))


def _remove(store: Path) -> None:
    """Delete a store of SQLite, with what belongs to it."""
    Store(store)._writer().stop(EXIT_TIMEOUT)  # closes the file
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            store.with_name(f"{store.name}{suffix}").unlink()
