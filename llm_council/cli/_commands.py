"""The commands beside ``run``: what is there, and is it well."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from llm_council.cli._main import FAILED
from llm_council.cli._terminal import visible

__all__ = ["config", "doctor", "models", "providers", "subagents"]


def _table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print aligned columns; the last one is as long as it likes, so that no word is cut and a pipe can read it."""
    rows = [[visible(" ".join(cell.split())) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


_as_json = click.option("--json", "json_", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("names", nargs=-1, metavar="[PROVIDER]...")
@click.option("--deep", is_flag=True, help="Make a real call to each provider, as a run does; it may cost money.")
@_as_json
def doctor(names: tuple[str, ...], *, deep: bool, json_: bool) -> int:
    """Check providers and this installation; without names, the providers that a council would seat."""
    from llm_council.cli._installation import check_installation
    from llm_council.config import CouncilConfig
    from llm_council.council import Council

    faults = check_installation()
    with Council(list(names) or None, config=CouncilConfig.discover()) as council:
        found = council.doctor_sync(deep=deep)
    if json_:
        seats = {name: {"ok": r.ok, "message": r.message, "latency_ms": r.latency_ms} for name, r in found.items()}
        _json({"installation": faults, "seats": seats})
    else:
        _table(
            [(name, "ok" if r.ok else "FAULT", _ms(r.latency_ms), r.message) for name, r in found.items()],
            ("seat", "state", "time", "what was found"),
        )
        for fault in faults:
            click.echo(f"installation: {visible(fault)}")
    return 0 if not faults and all(result.ok for result in found.values()) else FAILED


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"


# What a provider can do, in the words of a column's head.
_CAN = {
    "streaming": "streaming",
    "tools": "tool_use",
    "schemas": "structured_output",
    "images": "multimodal",
    "reasoning": "reasoning",
}


@click.command()
@_as_json
@click.option("--markdown", is_flag=True, help="Print the built-in ones as the table of the documentation.")
def providers(*, json_: bool, markdown: bool) -> None:
    """List every provider: what it can do, which key it reads, and where it comes from."""
    from llm_council.providers.registry import list_providers

    found = list_providers()
    if json_:
        from llm_council.models._convert import dump

        _json([dump(info) for info in found])
    elif markdown:
        rows = [_providers_row(info) for info in found if info.kind == "built-in"]
        heads = ("provider", *_CAN, "key")
        for cells in (heads, ["---"] * len(heads), *rows):
            click.echo(f"| {' | '.join(cells)} |")
    else:
        whose = (f"{info.distribution or '-'} {info.version or ''} {info.error or ''}".strip() for info in found)
        rows = [[*_providers_row(info), origin] for info, origin in zip(found, whose, strict=True)]
        _table(rows, ("provider", *_CAN, "key", "from"))


def _providers_row(info: Any) -> list[str]:
    can = info.capabilities
    marks = ["?" if can is None else "yes" if can.has(capability) else "no" for capability in _CAN.values()]
    return [info.name, *marks, info.key_variable or "none"]


@click.command()
@_as_json
def subagents(*, json_: bool) -> None:
    """List every subagent with its modes and other names."""
    from llm_council import subagents as roles
    from llm_council.config import CouncilConfig

    found = roles.names(paths=CouncilConfig.discover().subagent_paths)
    if json_:
        from llm_council.models._convert import dump

        _json([dump(info) for info in found])
        return
    rows = [(i.name, ", ".join(i.modes), ", ".join(i.aliases), str(i.error or i.description)) for i in found]
    _table(rows, ("subagent", "modes", "also called", "for"))


@click.group()
def models() -> None:
    """Handle the weights of the embedded engine."""


@models.command("list", short_help="List the models, and where those that are here lie.")
@_as_json
def list_models(*, json_: bool) -> None:
    """List the models that can be fetched, and where those that are there lie."""
    from llm_council.providers import local

    found = local.list_models()
    if json_:
        from llm_council.models._convert import dump

        _json([dump(model) for model in found])
        return
    rows = [(m.name, f"{m.size_bytes / 1e6:.0f} MB", m.license, str(m.path or "not fetched")) for m in found]
    _table(rows, ("model", "size", "licence", "where"))


@models.command(short_help="Fetch a model's weights, unless they are there.")
@click.argument("name", required=False)
def pull(name: str | None) -> None:
    """Fetch a model's weights, unless they are there; without a name, the default's."""
    from llm_council.providers import local

    click.echo(str(local.model_path(name) or fetched(name)))


def fetched(name: str | None) -> str | None:
    """Fetch a model's weights with a bar on stderr, and return where they lie."""
    from llm_council.providers import local

    with click.progressbar(length=100, label="fetching the weights", file=sys.stderr) as bar:
        return local.pull(name, progress=lambda done, whole: bar.update(100 * done // whole - bar.pos)).path


@models.command(short_help="Print where a model's weights lie.")
@click.argument("name", required=False)
def path(name: str | None) -> int:
    """Print where a model's weights lie; exit with 1 when they are not there."""
    from llm_council.providers import local

    found = local.model_path(name)
    if found is None:
        click.echo("not fetched; run: council models pull", err=True)
        return FAILED
    click.echo(str(found))
    return 0


@click.group()
def config() -> None:
    """Show the configuration, and trust a project's."""


@config.command(short_help="Show what holds in this folder; keys are masked.")
@_as_json
def show(*, json_: bool) -> None:
    """Show what holds in this folder, all sources taken together; keys are masked."""
    from llm_council.config import CouncilConfig
    from llm_council.models._convert import dump

    values = dump(CouncilConfig.discover())
    if json_:
        _json(values)
        return
    for line in _sources():
        click.echo(visible(f"# {line}"))
    for name, value in _flat(values):
        click.echo(visible(f"{name} = {json.dumps(value, ensure_ascii=False)}"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted name, one a line, for eyes and for grep."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@config.command("path")
def where() -> None:
    """Print the path of your own file, whether or not it is there."""
    from llm_council.config import user_file

    click.echo(str(user_file()))


def _sources() -> Iterator[str]:
    """Say which files these values come from; the environment's variables go before both."""
    from llm_council.config import project_file, reaches, user_file

    mine, project = user_file(), project_file()
    yield f"yours: {mine}{'' if mine.is_file() else ' (not there)'}"
    if project is None:
        yield "this project's: none"
    else:
        yield f"this project's: {project.absolute()} ({'trusted' if reaches(project) else 'needs no trust'})"


@config.command()
@click.argument("folder", required=False, default=".", type=click.Path(exists=True))
@click.option("--remove", is_flag=True, help="Take your trust back.")
def trust(folder: str, *, remove: bool) -> int:
    """Trust the project's council.toml as it is now: read it first.

    It may then name addresses, keys' variables, headers and whatever else your own file may; it still can only lower
    the budget. Any change to it, and any other place, needs your word again.
    """
    from llm_council.config import PROJECT_FILE, _trust, project_file, reaches, trust_project

    place = Path(folder) if Path(folder).name == PROJECT_FILE else Path(folder) / PROJECT_FILE
    path = project_file(place.parent)
    if remove:
        click.echo("no longer trusted" if _trust.forget(place) else "it was not trusted")
        return 0
    if path is None:
        raise click.UsageError(f"there is no {PROJECT_FILE} in {folder}")
    reached = reaches(path)
    if not reached:
        click.echo(visible(f"{path.absolute()} sets nothing that needs trust"))
        return 0
    trust_project(path)
    click.echo(visible(f"trusted as it is now: {path.absolute()}; it sets"))
    for one in reached:
        click.echo(visible(f"  {one}"))
    return 0
