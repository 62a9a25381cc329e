"""``council eval``: does a council pay on a task set?"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llm_council.cli import _output
from llm_council.cli._completion import complete_runs, complete_seats
from llm_council.cli._main import FAILED
from llm_council.cli._run_options import seats_of
from llm_council.errors import InvalidOption
from llm_council.errors._secrets import redact

if TYPE_CHECKING:
    from llm_council.evals.report import EvalReport
    from llm_council.evals.run import EvalProgress
    from llm_council.evals.tasks import TaskSet

__all__ = ["eval_", "grade"]

_EXAMPLES = """\b
Examples:
  council eval tasks.jsonl -p a -p b -p c --plan
  council eval tasks.jsonl -p a -p b -p c --pool-only --out pool/
  council eval tasks.jsonl -p a -p b -p c --arms poll,escalate,revise --max-usd 5 --out run/
  council eval --replay run/ --html report.html
"""

_path = click.Path(dir_okay=False)


@click.command("eval", epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="SET | export SET")
@click.option(
    "--providers",
    "-p",
    multiple=True,
    shell_complete=complete_seats,
    help="Seats: NAME, NAME/MODEL or NAME:COUNT; repeat, or use commas.",
)
@click.option("--models", "-m", multiple=True, help="Models: one for all seats, or one for each.")
@click.option(
    "--arms",
    multiple=True,
    help="What is compared: single, sample, poll, weigh, escalate need no further call; names of strategies do;"
    " all stands for all of ours.",
)
@click.option("--samples", type=click.IntRange(1, 40), help="Drafts of each seat for each task; 5 by default.")
@click.option("--repeat", type=click.IntRange(1, 100), help="Run arms that call seats so many times.")
@click.option(
    "--max-usd", type=click.FloatRange(min=0), metavar="USD", help="End between two tasks once so much is spent."
)
@click.option("--judge", help="The model that scores answers to tasks with the scorer judge: NAME or NAME/MODEL.")
@click.option("--judge-may-sit", is_flag=True, help="Allow a judge of the family of a seat, which favours its texts.")
@click.option("--best", help="The seat that is the baseline; by default it is chosen on other tasks.")
@click.option("--primary", help="The strategy that the evaluation is about: no correction for several ones.")
@click.option("--margin", type=float, metavar="POINTS", help="The gain that is worth having; 5 points by default.")
@click.option("--seed", help="Decides the order of the tasks.")
@click.option("--plan", is_flag=True, help="Print calls, tokens, cost, and what the tasks can show; send nothing.")
@click.option("--pool-only", is_flag=True, help="Draw the drafts, and call no strategy.")
@click.option("--out", type=click.Path(file_okay=False), help="Folder for the journal and the reports.")
@click.option("--resume", is_flag=True, help="Go on with the journal in --out; finished calls are not made again.")
@click.option("--replay", type=click.Path(file_okay=False), help="Report on the journal of a folder; nothing is sent.")
@click.option("--html", type=_path, help="Write the report as one HTML file.")
@click.option("--markdown", type=_path, help="Write the report as Markdown; - is stdout.")
@click.option("--json", "json_", type=_path, help="Write the report as JSON; - is stdout.")
@click.option("--weights", type=_path, help="Write measured weights of the seats for the strategy poll, as TOML.")
@click.option("--calibration", type=_path, help="Write how often a poll is right by its share of votes, as TOML.")
@click.option(
    "--from-store",
    is_flag=False,
    flag_value="",
    metavar="[STORE]",
    help='Report on stored runs that "council grade" has graded; nothing is sent.',
)
@click.option("--grades", type=_path, help="File of the grades; by default beside the store.")
@click.option("--inspect", is_flag=True, help="With export: the layout of inspect_ai.")
def eval_(words: tuple[str, ...], **flags: Any) -> int:
    """Measure whether a council pays on your tasks.

    SET is a file of tasks with known answers: JSON Lines, lm-eval's logged samples, or CSV. Every seat answers every
    task several times; strategies are compared with the best seat and with samples of one seat at equal cost, on the
    same drafts. "export SET --inspect" prints a task set in the layout of inspect_ai.
    """
    if words[:1] == ("export",):
        return _export(words[1:], inspect=flags["inspect"])
    from llm_council.evals.run import replay

    _check_paths(flags)
    if flags["from_store"] is not None:
        if words:
            raise click.UsageError("--from-store takes no task set: the tasks are those of the graded runs")
        _note_unused(flags, "--from-store")
        return _finish(_report_on_store(flags), flags)
    if flags["replay"]:
        if words or flags["resume"] or flags["plan"]:
            raise click.UsageError("--replay takes no task set, --resume or --plan: it reports on what is there")
        _note_unused(flags, "--replay")
        return _finish(replay(flags["replay"]), flags)
    if len(words) != 1:
        raise click.UsageError("name one file of tasks, such as: council eval tasks.jsonl -p a -p b -p c --plan")
    if flags["resume"] and not flags["out"]:
        raise click.UsageError("--resume needs --out: the folder of the journal")
    return _evaluate(words[0], flags)


_FILES = {
    "html": "--html",
    "markdown": "--markdown",
    "json_": "--json",
    "weights": "--weights",
    "calibration": "--calibration",
}


def _check_paths(flags: Mapping[str, Any]) -> None:
    """Refuse files that cannot be written, before anything is paid."""
    for name, option in _FILES.items():
        path = flags[name]
        if path not in (None, "-") and not Path(path).absolute().parent.is_dir():
            raise click.UsageError(f"{option}: there is no folder {redact(str(Path(path).parent))}: create it first")


def _note_unused(flags: Mapping[str, Any], mode: str) -> None:
    """Say which options have no effect on a report of what has run."""
    options = ("arms", "samples", "repeat", "max_usd", "judge", "best", "primary", "margin", "seed", "out")
    unused = [f"--{name.replace('_', '-')}" for name in options if flags[name] not in (None, ())]
    if unused:
        _output.print_note(f"council: without effect on {mode}, which reports on what has run: {', '.join(unused)}")


def _report_on_store(flags: Mapping[str, Any]) -> EvalReport:
    from llm_council.cli._runs import configured
    from llm_council.evals.stored import evaluate_stored, grades_path, read_grades

    config, place = configured(flags["from_store"] or None)
    return evaluate_stored(place, read_grades(Path(flags["grades"] or grades_path(str(config.store)))))


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_runs)
@click.argument("grade", metavar="right|wrong|ANSWER")
@click.option("--store", type=click.Path(), help="The run store; default: that of the configuration.")
@click.option("--grades", type=_path, help="File of the grades; by default beside the store.")
def grade(run: str, grade: str, *, store: str | None, grades: str | None) -> int:
    """Say whether the answer of a stored run is right, so that "council eval --from-store" can use it.

    RUN is the run's id, the beginning of it, or "last". ANSWER is the right answer, as JSON or text: with it, wrong
    runs count too.
    """
    from llm_council.cli._runs import configured
    from llm_council.evals.stored import grades_path, why_left_out, write_grade

    config, place = configured(store)
    found = place.find_sync(run)
    path = Path(grades or grades_path(str(config.store)))
    written = write_grade(path, found, grade)
    what = written.grade if written.target is None else json.dumps(written.target, ensure_ascii=False)
    _output.print_line(f"run {found}: {what}; written to {path}")
    reason = why_left_out(place, written)
    if reason is not None:
        _output.print_note(f"council: an evaluation of stored runs leaves this one out: {reason}")
    return 0


def _evaluate(path: str, flags: Mapping[str, Any]) -> int:
    import attrs

    from llm_council.config import CouncilConfig
    from llm_council.council import Council
    from llm_council.evals.planning import plan_evaluation
    from llm_council.evals.run import EvalOptions, evaluate_stream
    from llm_council.evals.tasks import read_tasks
    from llm_council.models import Budget

    tasks = read_tasks(path)
    names = {"samples", "best", "primary", "seed", "judge"}
    options = {name: flags[name] for name in names if flags[name] is not None}
    if flags["margin"] is not None:
        options["margin"] = flags["margin"] / 100
    arms = [arm.strip() for value in flags["arms"] for arm in value.split(",") if arm.strip()]
    if flags["arms"] and not arms:
        raise click.UsageError("--arms is empty: name some, such as poll,revise, or leave it out")
    if arms:
        options["arms"] = tuple(arms)
    if flags["repeat"]:
        options["repeat"] = flags["repeat"]
    if flags["judge_may_sit"]:
        options["judge_may_sit"] = True
    made = EvalOptions(**options, pool_only=flags["pool_only"])
    config = attrs.evolve(CouncilConfig.discover(), store=None)
    with Council(seats_of(config, flags), config=config) as council:
        if flags["plan"]:
            plan = plan_evaluation(council, tasks, made)
            for line in plan.lines():
                _output.print_line(line)
            rows = [
                (arm.arm, f"{arm.calls:,}", f"{arm.tokens:,}", "unknown" if arm.usd is None else f"{arm.usd:.4f}")
                for arm in plan.arms
            ]
            _output.print_table(rows, ("calls for", "calls", "tokens, about", "US dollars, about"))
            return 0
        options.pop("arms", None)
        options.pop("repeat", None)
        budget = Budget(usd=flags["max_usd"]) if flags["max_usd"] is not None else None
        with (
            _resume_hint(path, flags),
            evaluate_stream(
                council,
                tasks,
                arms=made.arms,
                budget=budget,
                out=flags["out"],
                resume=flags["resume"],
                repeat=made.repeat,
                pool_only=flags["pool_only"],
                **options,
            ) as stream,
        ):
            _show_progress(stream)
        report = stream.result
    return _finish(report, flags)


def _show_progress(stream: Iterable[EvalProgress]) -> None:
    """Print a line on stderr after each task; on a terminal, the line is written over."""
    draws = _output.can_draw(sys.stderr)
    width = 0
    for progress in stream:
        best = max(progress.correct, key=lambda name: progress.correct[name], default="")
        shown = {name: progress.correct[name] for name in dict.fromkeys((best, "poll")) if name in progress.correct}
        scores = ", ".join(f"{name} {100 * points:.0f} %" for name, points in shown.items())
        stage = "" if progress.stage == "arms" else " (further samples)"
        line = f"{progress.done}/{progress.total} tasks{stage}, ${progress.usd:.4f}, {progress.calls:,} calls: {scores}"
        if draws:
            _output.print_note(f"\r{line.ljust(width)}", newline=False, raw=True)
            width = len(line)
        elif progress.stage == "arms" and (progress.done % 10 == 0 or progress.done == progress.total):
            _output.print_note(line)
    if draws and width:
        _output.print_note("")


def resume_command(path: str, flags: Mapping[str, Any]) -> str:
    """Return the command that goes on with an evaluation: the same arms and numbers; seats are left to the reader."""
    words = ["council", "eval", path, "--resume", "--out", flags["out"]]
    for name in ("samples", "repeat", "max_usd", "judge", "best", "primary", "margin", "seed"):
        if flags[name] is not None:
            words += [f"--{name.replace('_', '-')}", str(flags[name])]
    for arms in flags["arms"]:
        words += ["--arms", arms]
    if flags["judge_may_sit"]:
        words.append("--judge-may-sit")
    if flags["pool_only"]:
        words.append("--pool-only")
    return " ".join(shlex.quote(redact(word)) for word in words)


@contextmanager
def _resume_hint(path: str, flags: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if flags["out"]:
            remedy = resume_command(path, flags)
            _output.print_note(f"council: what has finished is in the journal; to go on, with the same seats: {remedy}")
        raise


def _finish(report: EvalReport, flags: Mapping[str, Any]) -> int:
    """Print the report, and write the files that were asked for; return the exit status."""
    from llm_council.evals.measured import calibration_toml, weights_toml

    texts: dict[str, Callable[[], str]] = {
        "html": report.to_html,
        "markdown": report.to_markdown,
        "json_": lambda: json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n",
        "weights": lambda: weights_toml(report),
        "calibration": lambda: calibration_toml(report),
    }
    on_stdout = [name for name in texts if flags[name] == "-"]
    if not on_stdout:
        _print_report(report)
    problems: list[InvalidOption] = []
    for name, text in texts.items():
        path = flags[name]
        try:
            if path == "-":
                click.echo(text(), nl=False)
            elif path is not None:
                Path(path).write_text(text(), encoding="utf-8", errors="replace")
        except OSError as error:
            problems.append(InvalidOption(f"{path}: {error.strerror or error}: name another file"))
        except InvalidOption as error:  # the other files can be written all the same
            problems.append(error)
    if problems:
        raise problems[0]
    return 0 if report.items else FAILED


def _print_report(report: EvalReport) -> None:
    from llm_council.evals.markdown import headroom_lines, scope
    from llm_council.evals.report import table_rows, verdict_sentence

    _output.print_line(report.answer, indent=0)
    for verdict in report.verdicts:
        _output.print_line(f"  {verdict_sentence(verdict)}")
    _output.print_line(scope(report), indent=0)
    for warning in report.warnings:
        _output.print_line(f"note: {warning}")
    if report.rows:
        head, *rows = table_rows(report, brief=True)
        click.echo()
        _output.print_table(rows, head)
    if report.headroom is not None:
        click.echo()
        for line in headroom_lines(report):
            _output.print_line(line)


def _export(words: tuple[str, ...], *, inspect: bool) -> int:
    """Print a task set for another program."""
    from llm_council.evals.export import inspect_lines
    from llm_council.evals.tasks import read_tasks

    if not inspect:
        raise click.UsageError("export needs --inspect: the layout of inspect_ai, which is the only one so far")
    if len(words) != 1:
        raise click.UsageError("name one file of tasks, such as: council eval export tasks.jsonl --inspect")
    tasks: TaskSet = read_tasks(words[0])
    for line in inspect_lines(tasks):
        click.echo(line)
    return 0
