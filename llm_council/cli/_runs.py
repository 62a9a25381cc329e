"""``council runs``, ``council resume`` and ``council replay``: the commands that read the run store."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from llm_council.cli import _output
from llm_council.cli._completion import complete_runs
from llm_council.cli._main import Group
from llm_council.cli._output import (
    json_option,
    output_format,
    output_options,
    print_json,
    print_line,
    print_note,
    print_table,
)
from llm_council.cli._output_type import output_type_of_flags, output_type_options
from llm_council.cli._result import print_result
from llm_council.cli._run import resume_hint
from llm_council.cli._run_options import NO_STORE
from llm_council.errors import InvalidOption
from llm_council.errors._secrets import hide_password

if TYPE_CHECKING:
    from llm_council.config import CouncilConfig
    from llm_council.store import RunInfo, RunStore, Store, StoredRun

__all__ = ["configured", "replay", "resume", "runs"]

_store_option = click.option("--store", type=click.Path(), help="The run store; default: that of the configuration.")

_run_argument = click.argument("run", metavar="RUN", shell_complete=complete_runs)


def configured(store: str | None) -> tuple[CouncilConfig, Store | RunStore]:
    """Return the configuration with the run store of an option, or its own, and that store.

    Raises:
        InvalidOption: no store is configured.
    """
    from llm_council.config import CouncilConfig
    from llm_council.store import open_store

    config = CouncilConfig.discover()
    path = store or config.store
    if path is None:
        raise InvalidOption(NO_STORE)
    import attrs

    return attrs.evolve(config, store=path), open_store(path)


@click.group(cls=Group)
def runs() -> None:
    """List, show, export, copy and purge (delete) stored runs."""


@runs.command("list")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="Maximum number of runs to list.")
@_store_option
@json_option
def list_runs(*, limit: int | None, store: str | None, json_: bool) -> None:
    """List the stored runs, the latest first."""
    _, place = configured(store)
    found = place.runs_sync(limit=limit)
    if json_:
        print_json([_info(info) for info in found])
        return
    rows = [
        (info.run_id, f"{info.started.astimezone():%Y-%m-%d %H:%M:%S}", info.status, info.subagent, _cut(info.task, 60))
        for info in found
    ]
    print_table(rows, ("run", "began", "status", "subagent", "task"))


def _info(info: RunInfo) -> dict[str, Any]:
    import attrs

    # The converter would write the time as its `str`, which is not ISO 8601.
    return {**attrs.asdict(info), "started": info.started.isoformat()}


@runs.command(short_help="Show the seats, the calls and the answer of a run.")
@_run_argument
@_store_option
@json_option
def show(run: str, *, store: str | None, json_: bool) -> None:
    """Show the seats, the calls and the answer of a run.

    RUN is the run's id, the beginning of it, or "last".
    """
    _, place = configured(store)
    found = place.show_sync(place.find_sync(run))
    if json_:
        import attrs

        calls = [attrs.asdict(call) for call in found.calls]
        print_json({**_info(found.info), "calls": calls, "result": found.result})
        return
    _show(found)


def _show(found: StoredRun) -> None:
    from llm_council.results import CouncilResult
    from llm_council.results.plain import as_text, vote_line

    info, plan, result = found.info, found.plan, found.result
    role = f"{plan.subagent} {plan.mode}" if plan.mode else plan.subagent
    seats = [f"{seat.name} ({seat.model})" if seat.model else seat.name for seat in plan.seats]
    lines = [
        ("run", f"{info.run_id}, {info.status}, begun {info.started.astimezone():%Y-%m-%d %H:%M:%S}"),
        ("task", f"{_cut(info.task)} (for {role})"),
        ("seats", ", ".join(seats)),
    ]
    if plan.files:
        lines.append(("files", ", ".join(f"{file.name} ({file.kind})" for file in plan.files)))
    if plan.history:
        lines.append(("follows", info.follows or "turns that the caller gave"))
        lines += [("earlier", _cut(past.task) or "(an answer)") for past in plan.history]
    if plan.history_left_out:
        lines.append(("earlier", f"({plan.history_left_out} more, the oldest, are left out)"))
    if result is not None:
        lines.append(("took", _took(result)))
        if result.get("tally") or result.get("answers"):
            lines.append(("votes", vote_line(CouncilResult.from_dict(result)) or ""))
        lines += [("warning", warning) for warning in result.get("warnings") or ()]
        if result.get("error"):
            lines.append(("error", str(result["error"].get("message") or result["error"])))
    for name, text in lines:
        print_line(f"{name:<8} {text}", indent=9)
    if found.calls:
        click.echo()
        rows = [
            (call.name, call.state, "" if call.elapsed is None else f"{call.elapsed:.1f} s", _note(call))
            for call in found.calls
        ]
        print_table(rows, ("call", "state", "time", "note"))
    answer = None
    if result is not None:
        answer = result.get("output") if result.get("output") is not None else result.get("text")
    if answer is not None and answer != "":
        click.echo()
        print_line(as_text(answer), indent=0)
    elif result is None and info.status == "interrupted":
        print_line(f"\nto continue it: council resume {info.run_id}")


def _took(result: Mapping[str, Any]) -> str:
    """Return the duration, the tokens and the cost of a result, as far as they are known."""
    parts = [f"{result.get('duration') or 0:.1f} s"]
    tokens = (result.get("usage") or {}).get("total_tokens")
    if tokens:
        parts.append(f"{tokens:,} tokens")
    usd = (result.get("cost") or {}).get("usd")
    parts.append("cost unknown" if usd is None else f"${usd:.4f}")
    return ", ".join(parts)


def _cut(text: str, most: int = 200) -> str:
    """Return a text on one line, cut to a number of characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


def _note(call: Any) -> str:
    again = f"repeated {call.repeats} times: it was interrupted" if call.repeats else ""
    return "; ".join(filter(None, (call.error, again)))


@runs.command(short_help="Print all stored data of a run as JSON.")
@_run_argument
@_store_option
def export(run: str, *, store: str | None) -> None:
    """Print all stored data of a run as JSON: plan, calls with complete replies, result.

    RUN is the run's id, the beginning of it, or "last".
    """
    _, place = configured(store)
    print_json(place.export_sync(place.find_sync(run)))


@runs.command(short_help="Copy runs to another store.")
@click.argument("run", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@click.option("--to", required=True, type=click.Path(), help="The store that gets them: a file or an address.")
@_store_option
def copy(run: tuple[str, ...], *, to: str, store: str | None) -> None:
    """Copy runs to another store, with all that is needed to replay and to resume them.

    RUN is a run's id, the beginning of it, or "last"; without any, all runs are copied that are not in progress. Runs
    that the other store has already are left as they are.
    """
    from llm_council.store import Store, open_store

    _, source = configured(store)
    target = open_store(to)
    if not isinstance(source, Store) or not isinstance(target, Store):
        raise InvalidOption("runs are copied between files of SQLite and PostgreSQL databases, not a plugin's stores")
    copied = source.copy_sync(*[source.find_sync(name) for name in run], to=target)
    click.echo(f"{len(copied)} run{'' if len(copied) == 1 else 's'} copied")


@runs.command()
@click.argument("run", nargs=-1, metavar="RUN...", shell_complete=complete_runs)
@click.option(
    "--days", type=click.FloatRange(min=0), help="Also delete all runs that started more than this many days ago."
)
@_store_option
def purge(run: tuple[str, ...], *, days: float | None, store: str | None) -> None:
    """Delete runs. In a file, their data is overwritten. Runs that are still in progress are not deleted.

    RUN is a run's id, the beginning of it, or "last".
    """
    if not run and days is None:
        raise click.UsageError("name the runs to delete, or use --days; --days 0 deletes all")
    _, place = configured(store)
    before = None if days is None else datetime.now(UTC) - timedelta(days=days)
    runs = [place.find_sync(name) for name in run]
    purged = place.purge_sync(*runs, before=before)
    click.echo(f"{len(purged)} run{'' if len(purged) == 1 else 's'} deleted")
    left = _followers(place.runs_sync(), purged)
    if left:
        who = "a run that goes on from them holds" if len(left) == 1 else f"{len(left)} runs that go on from them hold"
        option = f" --store {shlex.quote(hide_password(store))}" if store else ""
        print_note(f"council: {who} their texts, too; to delete these: council runs purge {' '.join(left)}{option}")


def _followers(stored: Sequence[RunInfo], purged: Sequence[str]) -> list[str]:
    """Return the ids of the stored runs that go on from purged ones, directly or not, the oldest first."""
    holding = set(purged)
    left = []
    for info in reversed(stored):  # a run starts after the one that it goes on from
        if info.follows in holding:
            holding.add(info.run_id)
            left.append(info.run_id)
    return left


@click.command()
@_run_argument
@click.option("--stream", is_flag=True, help="Show a line on stderr for each seat that finishes.")
@_store_option
@output_type_options
@output_options
def resume(run: str, **flags: Any) -> int:
    """Continue a run that was interrupted, cancelled or failed.

    RUN is the run's id, the beginning of it, or "last". Stored answers are used again; only the missing calls are made.
    Give the run's --output-type again, if it had one.
    """
    from llm_council.cli._progress import progress
    from llm_council.council import Council

    _output.check_output(flags)
    kind = output_type_of_flags(flags)
    config, place = configured(flags["store"])
    run = place.find_sync(run)
    plan = place.show_sync(run).plan
    quiet = output_format(flags) == "json" and not sys.stderr.isatty()
    # The council gets the run's own providers: those of the configuration may need keys that are not set here.
    providers = list(dict.fromkeys(seat.provider for seat in plan.seats))
    with (
        resume_hint([run], flags["store"], stored=True),
        progress(quiet=quiet, words=flags["stream"]) as listener,
        Council(providers, config=config, listeners=[listener]) as council,
    ):
        result = council.resume(run, output_type=kind)
    return print_result(result, {**flags, "store": config.store, "store_option": flags["store"]})


@click.command()
@_run_argument
@_store_option
@output_type_options
@output_options
def replay(run: str, **flags: Any) -> int:
    """Print a stored run again, exactly as it was; nothing is sent.

    RUN is the run's id, the beginning of it, or "last". A run whose --output-type had refused an answer needs it again.
    """
    from llm_council import _runtime
    from llm_council._engine import resume

    _output.check_output(flags)
    named = output_type_of_flags(flags)
    kind = None
    if named is not None:
        from llm_council._schema.typed import output_type_of

        kind = output_type_of(named)
    _, place = configured(flags["store"])
    result = _runtime.call(resume.replay, place, place.find_sync(run), None, kind)
    return print_result(result, flags)
