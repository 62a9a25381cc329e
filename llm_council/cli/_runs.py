"""``council runs``, ``council resume`` and ``council replay``: what is in the run store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llm_council.cli._commands import _as_json, _json, _table
from llm_council.cli._output import check_output
from llm_council.cli._run import _FORMATS, _report, going_on
from llm_council.cli._terminal import visible
from llm_council.errors import InvalidOption

if TYPE_CHECKING:
    from llm_council.config import CouncilConfig
    from llm_council.store import RunInfo, Store, StoredRun

__all__ = ["replay", "resume", "runs"]

F = TypeVar("F", bound=Callable[..., Any])

_where = click.option("--store", type=click.Path(), help="The run store; by default the configuration's.")


def _output(command: F) -> F:
    """Give a command the options that say how a result is printed, as ``council run`` has them."""
    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Show what was adjusted and spent, on stderr."),
        click.option("--strict", is_flag=True, help="Exit with 3 when the answer is a degraded one."),
        click.option("--raw", is_flag=True, help="Print control characters as they are."),
        click.option("--output", "-o", type=click.Path(readable=False), help="Write the answer to a file."),
        click.option(
            "--format", "format_", type=click.Choice(_FORMATS), help="What to print; text is the answer alone."
        ),
        click.option("--json", "json_", is_flag=True, help="Print the whole result; the same as --format json."),
        _where,
    ):
        command = option(command)
    return command


def _configured(store: str | None) -> tuple[CouncilConfig, Store]:
    from llm_council.config import CouncilConfig
    from llm_council.store import Store

    config = CouncilConfig.discover()
    path = store or config.store
    if path is None:
        raise InvalidOption("no run store is named: pass --store PATH, or set LLM_COUNCIL_STORE or store in your file")
    return config, Store(path)


@click.group()
def runs() -> None:
    """Look at stored runs, and forget them."""


@runs.command("list")
@click.option("--limit", "-n", type=click.IntRange(min=1), help="Show so many at most.")
@_where
@_as_json
def list_runs(*, limit: int | None, store: str | None, json_: bool) -> None:
    """List the runs, the latest first."""
    _, place = _configured(store)
    found = place.runs_sync(limit=limit)
    if json_:
        _json([_info(info) for info in found])
        return
    rows = [
        (info.run_id, f"{info.started.astimezone():%Y-%m-%d %H:%M:%S}", info.status, info.subagent, info.task)
        for info in found
    ]
    _table(rows, ("run", "began", "status", "subagent", "task"))


def _info(info: RunInfo) -> dict[str, Any]:
    import attrs

    return {**attrs.asdict(info), "started": info.started.isoformat()}


@runs.command()
@click.argument("run")
@_where
@_as_json
def show(run: str, *, store: str | None, json_: bool) -> None:
    """Show what became of a run: its calls, and its result."""
    _, place = _configured(store)
    found = place.show_sync(run)
    if json_:
        import attrs

        calls = [attrs.asdict(call) for call in found.calls]
        _json({**_info(found.info), "calls": calls, "result": found.result})
        return
    _show(found)


def _show(found: StoredRun) -> None:
    info = found.info
    click.echo(visible(f"run      {info.run_id}, {info.status}, begun {info.started.astimezone():%Y-%m-%d %H:%M:%S}"))
    click.echo(visible(f"task     {' '.join(info.task.split())}"))
    click.echo(visible(f"seats    {', '.join(seat.name for seat in found.plan.seats)}"))
    if found.calls:
        click.echo()
        rows = [
            (call.name, call.state, "" if call.elapsed is None else f"{call.elapsed:.1f} s", _note(call))
            for call in found.calls
        ]
        _table(rows, ("call", "state", "time", "note"))
    if found.result is not None:
        for warning in found.result.get("warnings", ()):
            click.echo(visible(f"warning  {warning}"))
        text = found.result.get("text")
        if text:
            click.echo(f"\n{visible(text)}")
    elif info.status == "interrupted":
        click.echo(f"\nto go on with it: council resume {info.run_id}")


def _note(call: Any) -> str:
    again = f"made again {call.repeats} times: it was in flight" if call.repeats else ""
    return "; ".join(filter(None, (call.error or "", again)))


@runs.command(short_help="Print everything that is stored of a run, as JSON.")
@click.argument("run")
@_where
def export(run: str, *, store: str | None) -> None:
    """Print everything that is stored of a run as JSON: its plan, its calls with whole replies, its result."""
    _, place = _configured(store)
    _json(place.export_sync(run))


@runs.command()
@click.argument("run", nargs=-1)
@click.option("--days", type=click.FloatRange(min=0), help="Forget all that began more than so many days ago, too.")
@_where
def purge(run: tuple[str, ...], *, days: float | None, store: str | None) -> None:
    """Forget runs: what they held is overwritten in the file. Runs that still go on are kept."""
    if not run and days is None:
        raise click.UsageError("name the runs to forget, or say --days; --days 0 forgets all")
    _, place = _configured(store)
    before = None if days is None else datetime.now(UTC) - timedelta(days=days)
    gone = place.purge_sync(*run, before=before)
    click.echo(f"{len(gone)} forgotten")


@click.command()
@click.argument("run")
@click.option("--stream", is_flag=True, help="Show each seat as it finishes, in lines, on stderr.")
@_output
def resume(run: str, **flags: Any) -> int:
    """Go on with a run that was interrupted, cancelled or failed; no stored answer is paid for again."""
    from llm_council.cli._progress import progress
    from llm_council.council import Council

    check_output(flags["output"])
    config, place = _configured(flags["store"])
    plan = place.show_sync(run).plan
    quiet = _format(flags) == "json" and not sys.stderr.isatty()
    providers = list(dict.fromkeys(seat.provider for seat in plan.seats))
    with (
        going_on([run], flags["store"], stored=True),
        progress(quiet=quiet, words=flags["stream"]) as listener,
        Council(providers, config=config, listeners=[listener], store=place.path) as council,
    ):
        result = council.resume(run)
    return _report(result, _format(flags), {**flags, "store": str(place.path)})


@click.command()
@click.argument("run")
@_output
def replay(run: str, **flags: Any) -> int:
    """Tell a run again from its journal, bit for bit; nothing is sent."""
    from llm_council import _runtime
    from llm_council._engine import resume

    check_output(flags["output"])
    _, place = _configured(flags["store"])
    result = _runtime.call(resume.replay, place, run)
    return _report(result, _format(flags), flags)


def _format(flags: Mapping[str, Any]) -> str:
    return "json" if flags["json_"] else flags["format_"] or "text"
