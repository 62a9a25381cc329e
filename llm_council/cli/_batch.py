"""``council batch``: run a file of tasks, and write a line of results for each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from llm_council.cli import _output
from llm_council.cli._completion import complete_tasks
from llm_council.cli._input import STDIN, attached, read_stdin_bytes
from llm_council.cli._output_type import output_type_of_flags
from llm_council.cli._run_options import (
    ABOVE_0,
    NUMBER,
    answer_options,
    check_store,
    files_option,
    mode_option,
    read_schema,
    seat_options,
    seats_of,
    strategy_of,
)

if TYPE_CHECKING:
    from llm_council.models import Budget

__all__ = ["batch"]

_EXAMPLES = """\b
Examples:
  council batch tasks.jsonl -o results.jsonl -p openai,anthropic,gemini --dry-run
  council batch tasks.jsonl -o results.jsonl -p openai,anthropic,gemini --budget-usd 20
  council batch reviewer tasks.csv -o results.jsonl --sample 50
  jq -r '[.id, .output.answer] | @tsv' results.jsonl
"""

_NOT_WRITTEN: Final = {".csv", ".tsv", ".parquet", ".json", ".xlsx", ".xls", ".md", ".html", ".pdf"}


def _output_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the path of the results; None for stdout."""
    if value in (None, STDIN):
        return None
    extension = Path(str(value)).suffix.lower()
    if extension in _NOT_WRITTEN:
        raise click.BadParameter(
            f"results are JSON Lines, so that no line is lost: name a .jsonl file; for {extension}, convert it"
            " afterwards, such as with pandas.read_json(path, lines=True)"
        )
    return value


@click.command(epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="[SUBAGENT] TASKS|-", shell_complete=complete_tasks)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    callback=_output_path,
    help="Append the results to this file, as JSON Lines; a restart goes on with it. Without it, they go to stdout.",
)
@click.option("--full", is_flag=True, help="Write whole results: drafts, calls and plan, as `council run --json` does.")
@mode_option
@seat_options
@files_option
@click.option(
    "--files-in",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Let tasks name files of this folder; without it, no file that a task names is read.",
)
@answer_options
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="RUNS",
    help="Runs at the same time; by default what the limits of the providers have room for.",
)
@click.option(
    "--budget-usd",
    type=NUMBER,
    metavar="USD",
    help="Spending limit of all tasks together, with what the lines in -o have cost; none unless given.",
)
@click.option(
    "--stop-after", type=ABOVE_0, metavar="SECONDS", help="Begin no task after this time; runs that go on are finished."
)
@click.option("--deadline", type=ABOVE_0, metavar="SECONDS", help="Time limit of each run; 300 unless configured.")
@click.option(
    "--quorum",
    type=click.IntRange(min=1),
    metavar="SEATS",
    help="Seats that must answer in each phase; 1 unless configured.",
)
@click.option("--sample", type=click.IntRange(min=1), metavar="TASKS", help="Run a random sample of the tasks.")
@click.option("--seed", help="Decides the sample; also the seed of shuffles and tie-breaks, which is random otherwise.")
@click.option("--retry-failed", is_flag=True, help="Run failed tasks of -o again; answers that are stored are used.")
@click.option(
    "--store", type=click.Path(), help="Store the runs here; by default beside -o, until all tasks have succeeded."
)
@click.option("--strict", is_flag=True, help="Send nothing if a line is broken; exit with 3 if an answer is degraded.")
@click.option("--plain", is_flag=True, help="Show progress as plain lines on a terminal, too.")
@click.option("--dry-run", is_flag=True, help="Print tasks, calls, tokens and a cost bound; send and write nothing.")
def batch(words: tuple[str, ...], **flags: Any) -> int:
    """Run a council on each task of a file.

    TASKS is a file of JSON Lines, such as {"id": "q1", "task": "..."}, a table (.csv, .tsv) or Parquet; - is JSON Lines
    from standard input. A line may have subagent, context, files and metadata, too. SUBAGENT is the role of the others,
    as in "council run".

    The same command goes on where an earlier one was interrupted or killed: finished tasks are skipped, and calls whose
    answers are stored are not made again.
    """
    from llm_council import subagents
    from llm_council.batch.result_file import read_results
    from llm_council.batch.task_files import MAX_PIPED, TaskFile
    from llm_council.cli._batch_run import Batch, open_results, store_beside
    from llm_council.cli._batch_survey import checker, stamp_of, survey
    from llm_council.cli._models import prepare_models
    from llm_council.config import CouncilConfig
    from llm_council.council import Council

    name, path = _words(words)
    output = None if flags["output"] is None else Path(flags["output"])
    chosen = {name: flags[name] for name in ("chair", "strategy", "seed", "store") if flags[name] is not None}
    config = attrs.evolve(CouncilConfig.discover(), **chosen)
    config = attrs.evolve(config, budget=config.budget.overlaid(_budget_of_each(flags)))
    if flags["retry_failed"] and output is None and config.store is None:
        raise click.UsageError("--retry-failed needs -o: the file of results with the failed tasks")
    role: Any = name
    if name.endswith(".toml"):  # a file brings its mode along
        role, flags["mode"] = subagents.from_file(name, flags["mode"]), None
    with Council(seats_of(config, flags), config=config) as council:
        options = {
            "strategy": strategy_of(config, flags["strategy_option"]),
            "mode": flags["mode"],
            "context": flags["context"],
            "files": _files(flags["files"], path),
            "schema": read_schema(flags["schema"]),
            "output_type": output_type_of_flags(flags),
        }
        plan = council.plan("any task", role, **options)
        options["files"] = plan.files  # read already
        for warning in plan.warnings:
            _output.print_note(f"council: {warning}")
        piped = read_stdin_bytes(MAX_PIPED) if path == STDIN else None
        tasks = TaskFile(path, piped, check=checker(config, flags["files_in"]))
        stamp = stamp_of(plan, role, config, flags)
        if flags["dry_run"]:
            from llm_council.cli._batch_plan import print_estimate

            finished = {} if output is None else read_results(output).finished
            found = survey(tasks, finished, stamp, flags)
            return print_estimate(council, tasks, found, role, options, finished, flags)
        council._seating.check()  # a missing key is named before a model is fetched
        check_store(flags["store"])
        with closing(open_results(output)) as results:
            found = survey(tasks, results.finished, stamp, flags)
            prepare_models(plan)
            beside = None if output is None or config.store is not None else store_beside(output)
            return Batch(council, role, options, tasks, found, stamp, results, beside, flags).run()


def _words(words: tuple[str, ...]) -> tuple[str, str]:
    """Return the subagent and the file of the tasks."""
    if not words:
        raise click.UsageError("name a file of tasks, such as: council batch tasks.jsonl -o results.jsonl")
    if len(words) > 2:
        raise click.UsageError("too many arguments: name a subagent and one file of tasks")
    return (words[0] if len(words) == 2 else "advisor"), words[-1]


def _budget_of_each(flags: Mapping[str, Any]) -> Budget | None:
    from llm_council.models import Budget

    given = {name: flags[name] for name in ("deadline", "quorum") if flags[name] is not None}
    return Budget(**given) if given else None


def _files(files: tuple[str, ...], tasks: str) -> list[Any]:
    """Return the files for every task; standard input is read for ``-`` alone."""
    if STDIN in files:
        return list(attached(files, stdin_is_task=tasks == STDIN))
    return list(files)
