"""``council run``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from llm_council.cli import _output
from llm_council.cli._completion import complete_runs, complete_words
from llm_council.cli._input import STDIN, attached, read_file, read_stdin
from llm_council.cli._main import FAILED
from llm_council.cli._output import output_format, output_options
from llm_council.cli._output_type import output_type_of_flags
from llm_council.cli._result import print_result
from llm_council.cli._run_options import (
    ABOVE_0,
    NO_STORE,
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
from llm_council.errors import ConfigurationError, InvalidOption, UnknownSubagent, near
from llm_council.errors._secrets import clean, hide_password

if TYPE_CHECKING:
    from llm_council.config import CouncilConfig
    from llm_council.council import Council
    from llm_council.models import Budget, Plan
    from llm_council.store import StoredRun
    from llm_council.subagents import SubagentInfo

__all__ = ["resume_hint", "run"]

_EXAMPLES = """\b
Examples:
  council run "What is the capital of France?" -p local:3
  council run reviewer "Is this ready to merge?" -f app.py
  git diff | council run reviewer "Is this ready to merge?" --json
  council run -c "And what if the file is empty?"
"""


@click.command(epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="[SUBAGENT] TASK|-", shell_complete=complete_words)
@mode_option
@seat_options
@files_option
@click.option("--input", "-i", "input_", type=click.Path(), help="Read the task from a file.")
@answer_options
@click.option("--deadline", type=ABOVE_0, metavar="SECONDS", help="Time limit of the whole run; 300 unless configured.")
@click.option(
    "--quorum",
    type=click.IntRange(min=1),
    metavar="SEATS",
    help="Seats that must answer in each phase; 1 unless configured.",
)
@click.option(
    "--budget-usd",
    type=NUMBER,
    metavar="USD",
    help="Spending limit of the whole run; none unless configured.",
)
@click.option("--seed", help="Seed of shuffles and tie-breaks; random by default.")
@click.option("--store", type=click.Path(), help="Store the run in this file or database, to resume or replay it.")
@click.option(
    "-c", "continue_last", is_flag=True, help="Go on from the last stored run, with its seats unless -p names others."
)
@click.option(
    "--continue",
    "continue_",
    metavar="RUN",
    shell_complete=complete_runs,
    help="Go on from this stored run: its id, or the beginning of it.",
)
@click.option("--dry-run", is_flag=True, help="Print calls, tokens and a cost bound; send nothing. --json for all.")
@click.option("--stream", is_flag=True, help="Show the text of the seats on stderr while it arrives.")
@output_options
def run(words: tuple[str, ...], **flags: Any) -> int:
    """Run a council on a task and print its answer.

    SUBAGENT is a name that "council subagents" lists, or the path of a role's file, such as ./editor.toml. Without it,
    the task goes to the subagent "advisor". TASK - reads the task from standard input. With another TASK, the seats
    read what is piped into the command beside it.
    """
    import attrs

    from llm_council import subagents
    from llm_council.cli._models import prepare_models
    from llm_council.cli._progress import progress
    from llm_council.config import CouncilConfig

    _output.check_output(flags)
    name, task = _task(words, flags["input_"])
    stdin_is_task = STDIN in (flags["input_"], *(() if flags["input_"] else words[-1:]))
    # A file brings its mode along: ``Council.run`` takes one with a name only.
    subagent: Any = name
    if name.endswith(".toml"):  # no name of a subagent has a dot
        subagent = subagents.from_file(name, flags["mode"])
        flags["mode"] = None
    chosen = {name: flags[name] for name in ("chair", "strategy", "seed", "store") if flags[name] is not None}
    config = attrs.evolve(CouncilConfig.discover(), **chosen)
    options = {
        "strategy": strategy_of(config, flags["strategy_option"]),
        "mode": flags["mode"],
        "context": flags["context"],
        "files": attached(flags["files"], stdin_is_task=stdin_is_task),
        "schema": read_schema(flags["schema"]),
        "output_type": output_type_of_flags(flags),
        "budget": _budget(flags),
    }
    earlier = _earlier_run(config, flags)
    if earlier is not None:
        options["history"] = earlier.info.run_id
    with _seated(config, flags, earlier) as council:
        try:
            plan = council.plan(task, subagent, **options)
        except UnknownSubagent as error:
            if len(words) > 1 or flags["input_"]:  # the first word stands in the place of a subagent
                _explain_words(words, flags["input_"], subagents.names(config.subagent_paths))
            raise error from None
        options["files"] = plan.files  # read already: a pipe such as <(command) is empty the second time
        for warning in plan.warnings:
            _output.print_note(f"council: {warning}", raw=flags["raw"])
        if flags["dry_run"]:
            return _print_plan(council, plan, flags)
        council._seating.check()  # a missing key is named before a model is fetched
        check_store(flags["store"])
        prepare_models(plan)
        run_id: list[str] = []
        # A program that asks for JSON gets no lines of progress; a person at a terminal does.
        quiet = output_format(flags) == "json" and not sys.stderr.isatty()
        with (
            resume_hint(run_id, flags["store"], stored=config.store is not None),
            progress(quiet=quiet, words=flags["stream"]) as listener,
            council.stream(task, subagent, **options) as events,
        ):
            for event in events:
                run_id[:] = [event.run_id]
                listener(event)
        result = events.result
    return print_result(result, {**flags, "store": config.store, "store_option": flags["store"]})


def _earlier_run(config: CouncilConfig, flags: Mapping[str, Any]) -> StoredRun | None:
    """Return the run that ``-c`` or ``--continue`` goes on from; None without them.

    Raises:
        InvalidOption: there is no store, or no such run in it.
    """
    run, option = flags["continue_"], "--continue"
    if flags["continue_last"]:
        if run is not None:
            raise click.UsageError("-c goes on from the last run, --continue RUN from another: give one of them")
        run, option = "last", "-c"
    if run is None:
        return None
    if config.store is None:
        raise InvalidOption(f"{option} goes on from a stored run, and {NO_STORE}")
    from llm_council.errors import StoreError
    from llm_council.store import open_store  # imports SQLite

    store = open_store(config.store)
    try:
        return store.show_sync(store.find_sync(run))
    except StoreError as error:
        raise InvalidOption(f"{option}: {error.message}") from None


def _seated(config: CouncilConfig, flags: Mapping[str, Any], earlier: StoredRun | None) -> Council:
    """Return the council of the line; without seats in it, that of the run that it goes on from.

    Raises:
        ConfigurationError: a provider is unknown, or none is available.
    """
    from llm_council.council import Council

    seats = seats_of(config, flags)
    if seats is not None or earlier is None:
        return Council(seats, config=config)
    places = list(dict.fromkeys(seat.provider for seat in earlier.plan.seats))
    try:
        return Council(places, config=config)._reseated(earlier.plan.seats)
    except ConfigurationError as error:
        run_id = earlier.info.run_id
        raise error._reword(f"{error.message} (a seat of the run {run_id}; name others with -p)") from None


def _print_plan(council: Council, plan: Plan, flags: Mapping[str, Any]) -> int:
    """Print what a run would do; return the exit status."""
    from llm_council._engine.estimate import estimate
    from llm_council.cli import _plan

    try:
        council._seating.check()
    except ConfigurationError as error:
        _output.print_note(f"council: the run could not start yet: {error}", raw=flags["raw"])
    expected = estimate(plan, council._price)
    as_json = output_format(flags) == "json"
    text = (
        _output.as_json(_plan.as_json_value(plan, expected))
        if as_json
        else _plan.as_lines(plan, expected, council._seating.adapters)
    )
    rendered = None if as_json or flags["raw"] else _output.wrapped_for_terminal(text, indent=8)
    return 0 if _output.write_answer(text, flags, rendered=rendered) else FAILED


@contextmanager
def resume_hint(run_id: list[str], store: str | None, *, stored: bool) -> Iterator[None]:
    """Print how to resume a run that Ctrl-C interrupts in this block.

    Args:
        run_id: a list that holds the run's id once the run has one.
        store: the value of ``--store``.
        stored: whether the run is stored.
    """
    try:
        yield
    except KeyboardInterrupt:
        if stored and run_id:
            option = f" --store {shlex.quote(hide_password(store))}" if store else ""
            remedy = f"council resume {run_id[0]}{option}"
            _output.print_note(f"council: all answers so far are stored; to continue: {remedy}")
        raise


def _task(words: tuple[str, ...], input_: str | None) -> tuple[str, str]:
    from llm_council import subagents

    rest = list(words)
    text = read_file(input_) if input_ else None
    if text is None:
        if not rest:
            raise click.UsageError('no task given; try: council run "What is ...?", or council run - for stdin')
        last = rest.pop()
        # A single word that names a subagent: the task after it was forgotten.
        if not rest and (last in (*subagents.BUILT_IN, *subagents.ALIASES) or _is_file_name(last)):
            raise click.UsageError(f'no task given; try: council run {last} "..."')
        text = read_stdin() if last == STDIN else last
    if not text.strip():
        empty = ": standard input held no text" if STDIN in (input_, words[-1] if words else "") else ""
        raise click.UsageError(f'the task is empty{empty}; try: council run "What is ...?"')
    if len(rest) > 1:
        raise click.UsageError("too many arguments; put the task in quotes")
    return (rest[0] if rest else "advisor"), text


def _explain_words(words: Sequence[str], input_: str | None, roles: Iterable[SubagentInfo]) -> None:
    """Raise ``UsageError`` if the words of a line with an unknown subagent show what was meant.

    Args:
        words: the words of the line; the first one was taken for a subagent.
        input_: the file of ``--input``.
        roles: the subagents that exist.
    """
    first, last = words[0], words[-1]
    known = {name for info in roles for name in (info.name, *info.aliases)}
    if first in known or near(first, known):  # the mode is unknown, or the name is misspelt
        return
    shown = clean(first, limit=60)
    if input_:
        raise click.UsageError(f"{shown!r} is no subagent, and the task is read from {input_}: give the task once")
    if last in known:
        raise click.UsageError(f'the subagent comes before the task; try: council run {last} "{shown}"')
    task = clean(" ".join(words), limit=60)
    raise click.UsageError(
        f"there is no subagent {shown!r} (`council subagents` lists them all);"
        f' put a task in quotes: council run "{task}"'
    )


def _is_file_name(word: str) -> bool:
    return word.endswith(".toml") and len(word.split()) == 1


def _budget(flags: Mapping[str, Any]) -> Budget | None:
    from llm_council.models import Budget

    # Only the given limits: an explicit None would remove the default deadline.
    options = {"deadline": flags["deadline"], "quorum": flags["quorum"], "usd": flags["budget_usd"]}
    given = {name: value for name, value in options.items() if value is not None}
    return Budget(**given) if given else None
