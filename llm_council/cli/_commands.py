"""The commands that inspect and set up: providers, strategies, subagents, config, doctor and version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import llm_council
from llm_council.cli._completion import complete_providers
from llm_council.cli._main import FAILED, Group
from llm_council.cli._output import json_option, print_json, print_line, print_note, print_table, visible
from llm_council.cli._plugin_faults import hidden_plugins, plugin_faults
from llm_council.errors import ConfigurationError
from llm_council.errors._secrets import hide_password

if TYPE_CHECKING:
    from llm_council.providers.registry import ProviderInfo

__all__ = ["check_installation", "config", "doctor", "providers", "strategies", "subagents", "version"]

_DISTRIBUTION = "llm-council-sdk"


@click.command()
def version() -> None:
    """Show the version."""
    click.echo(f"{_DISTRIBUTION} {llm_council.__version__}")


@click.command()
@click.argument("names", nargs=-1, metavar="[PROVIDER]...", shell_complete=complete_providers)
@click.option("--deep", is_flag=True, help="Make one real call to each provider, which may cost money.")
@json_option
def doctor(names: tuple[str, ...], *, deep: bool, json_: bool) -> int:
    """Check providers and this installation.

    Without names, check the providers that a council would use.
    """
    from llm_council.config import CouncilConfig
    from llm_council.council import Council

    faults = check_installation()
    try:
        council = Council(list(names) or None, config=CouncilConfig.discover())
    except ConfigurationError:
        if not json_:  # the state of the installation matters the more
            _print_faults(faults)
            _print_plugin_faults()
        raise
    with council:
        found = council.doctor_sync(deep=deep)
    if json_:
        seats = {name: {"ok": r.ok, "message": r.message, "latency_ms": r.latency_ms} for name, r in found.items()}
        print_json({"installation": faults, "seats": seats, "plugins": plugin_faults()})
    else:
        rows = []
        for name, result in found.items():
            time = "" if result.latency_ms is None else f"{result.latency_ms:.0f} ms"
            rows.append((name, "ok" if result.ok else "FAULT", time, result.message))
        print_table(rows, ("seat", "state", "time", "what was found"))
        _print_faults(faults)
        _print_plugin_faults()
    return 0 if not faults and all(result.ok for result in found.values()) else FAILED


def _print_faults(faults: list[str]) -> None:
    for fault in faults:
        print_line(f"installation: {fault}")


def _print_plugin_faults() -> None:
    """Print which plugins cannot be used, and why; that is no fault of this installation."""
    for name, fault in plugin_faults().items():
        print_line(f"plugins: {name}: {fault}")
    hidden = hidden_plugins()
    if hidden:
        print_line(f"plugins: {hidden}")


def check_installation() -> list[str]:
    """Return a message with a remedy for each fault of this installation.

    Other projects use the import name ``llm_council`` too, and their distributions overwrite our files.
    """
    # Those that are installed now; `_foreign_files` finds what an earlier one left behind.
    others = sorted(_owners() - {_DISTRIBUTION})
    if others:
        cure = f"pip uninstall {' '.join(others)}; pip install --force-reinstall {_DISTRIBUTION}"
        return [f"{', '.join(others)} installs into llm_council/ too, and one overwrites the other; run: {cure}"]
    try:
        ours = distribution(_DISTRIBUTION)
    except PackageNotFoundError:
        return [f"{_DISTRIBUTION} is not installed, so its providers are not found; run: pip install {_DISTRIBUTION}"]
    foreign = sorted(_foreign_files(ours))
    if foreign:
        shown = ", ".join(foreign[:5]) + (", ..." if len(foreign) > 5 else "")
        cure = f"delete them, then run: pip install --force-reinstall {_DISTRIBUTION}"
        return [f"llm_council/ holds files that {_DISTRIBUTION} did not install: {shown}; {cure}"]
    return []


def _owners() -> set[str]:
    """Return the distributions that install into our package, except those whose metadata cannot be read."""
    try:
        return set(packages_distributions().get("llm_council", ()))
    except Exception:  # noqa: BLE001 - one broken distribution fails the list of all; ``broken_distributions`` names it
        return set()


def _foreign_files(ours: Distribution) -> Iterator[str]:
    """Yield the files in our package folder that this distribution did not install."""
    if ours.read_text("RECORD") is None:  # metadata of a source tree, without a list of installed files
        return
    folder = Path(llm_council.__file__).resolve().parent
    # An editable installation, or a checkout that precedes the installed package on the path.
    if folder != Path(str(ours.locate_file("llm_council"))).resolve():
        return
    recorded = {Path(str(file.locate())).resolve() for file in ours.files or () if file.parts[0] == "llm_council"}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pyc" and path.resolve() not in recorded:
            yield str(path.relative_to(folder))


# Column of the table -> attribute of `ProviderCapabilities`.
_CAN = {
    "streaming": "streaming",
    "tools": "tool_use",
    "schemas": "structured_output",
    "images": "multimodal",
    "documents": "documents",
    "sound": "audio",
    "reasoning": "reasoning",
}


@click.command()
@json_option
@click.option("--markdown", is_flag=True, help="Print a Markdown table of the built-in providers.")
def providers(*, json_: bool, markdown: bool) -> None:
    """List every provider with its capabilities, the variable of its key, whether that is set, and its origin.

    Those of your configuration come first.
    """
    from llm_council._seats.configured import list_configured
    from llm_council.config import CouncilConfig
    from llm_council.providers.registry import list_providers

    found = list_providers()
    if markdown:
        rows = [_providers_row(info) for info in found if info.kind == "built-in"]
        heads = ("provider", *_CAN, "key")
        for cells in (heads, ["---"] * len(heads), *rows):
            click.echo(f"| {' | '.join(cells)} |")
        return
    try:
        tables = CouncilConfig.discover().instances
    except ConfigurationError as error:  # the other providers can be listed all the same
        print_note(f"council: the configuration is left out: {error}")
        tables = {}
    everything = [*list_configured(tables), *found]
    if json_:
        print_json(everything)
        return
    rows = []
    for info in everything:
        *cells, key = _providers_row(info)
        rows.append([*cells, f"{key}{_state(info)}", _origin(info, tables)])
    print_table(rows, ("provider", *_CAN, "key", "from"))


def _state(info: ProviderInfo) -> str:
    """Return whether the variable of a provider's key is set, to be put after its name."""
    if info.key_is_set is None:
        return ""
    if info.key_is_set:
        return ", set"
    return ", not set" if info.needs_key else ", optional"


def _origin(info: ProviderInfo, tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return where a provider comes from, and why it cannot be used."""
    if info.kind == "configured":
        origin = f"your configuration ({tables[info.name].get('kind')})"
    else:
        origin = f"{info.distribution or 'this process'} {info.version or ''}".strip()
    return f"{origin}: {info.error}" if info.error else origin


def _providers_row(info: ProviderInfo) -> list[str]:
    can = info.capabilities
    marks = ["?" if can is None else "yes" if can.has(capability) else "no" for capability in _CAN.values()]
    return [info.name, *marks, info.key_variable or "none"]


@click.command()
@json_option
def subagents(*, json_: bool) -> None:
    """List every subagent with its modes and aliases."""
    from llm_council import subagents as roles
    from llm_council.config import CouncilConfig
    from llm_council.subagents._find import shadow_warning

    found = roles.names(paths=CouncilConfig.discover().subagent_paths)
    if json_:
        print_json(found)
        return
    rows = []
    for info in found:
        shadows = shadow_warning(info.name, info.source) is not None and info.error is None
        note = f"{info.description} (replaces the built-in one: {info.source})" if shadows else info.description
        rows.append((info.name, ", ".join(info.modes), ", ".join(info.aliases), str(info.error or note)))
    print_table(rows, ("subagent", "modes", "also called", "for"))


@click.command()
@json_option
def strategies(*, json_: bool) -> None:
    """List every strategy: those of your configuration, the built-in ones and those of other packages."""
    from llm_council.config import CouncilConfig
    from llm_council.models._convert import dump
    from llm_council.strategies import list_strategies

    found: list[dict[str, Any]] = []
    for name, table in CouncilConfig.discover().strategies.items():
        options = ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items() if key != "kind")
        summary = f"{table.get('kind', name)} with {options}" if options else str(table.get("kind", name))
        found.append({"name": name, "summary": summary, "source": "configuration", "aliases": [], "error": None})
    found += [dump(info) for info in list_strategies()]
    if json_:
        print_json(found)
        return
    rows = [(row["name"], ", ".join(row["aliases"]), row["source"], row["error"] or row["summary"]) for row in found]
    print_table(rows, ("strategy", "also called", "from", "what it does"))


@click.group(cls=Group)
def config() -> None:
    """Show the configuration; trust the configuration file of a project."""


@config.command(short_help="Show the configuration in this folder; keys are masked.")
@json_option
def show(*, json_: bool) -> None:
    """Show the configuration in this folder, merged from all sources; keys are masked."""
    from llm_council.config import CouncilConfig
    from llm_council.models._convert import dump

    values = dump(CouncilConfig.discover())
    values["store"] = values["store"] and hide_password(values["store"])
    if json_:
        print_json(values)
        return
    for line in _sources():
        click.echo(visible(f"# {line}"))
    for name, value in _flat(values):
        click.echo(visible(f"{name} = {json.dumps(value, ensure_ascii=False)}"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with its dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


@config.command("path")
def where() -> None:
    """Print the path of your own configuration file, even if it does not exist."""
    from llm_council.config import user_file

    click.echo(str(user_file()))


def _sources() -> Iterator[str]:
    """Yield a line for each configuration file. Environment variables override both."""
    from llm_council.config import project_file, reaches, user_file

    mine, project = user_file(), project_file()
    yield f"yours: {mine}{'' if mine.is_file() else ' (not there)'}"
    if project is None:
        yield "this project's: none"
    else:
        yield f"this project's: {project.absolute()} ({'trusted' if reaches(project) else 'needs no trust'})"


@config.command()
@click.argument("folder", required=False, default=".", type=click.Path(exists=True))
@click.option("--remove", is_flag=True, help="Stop trusting the project.")
def trust(folder: str, *, remove: bool) -> int:
    """Trust the council.toml of a project. Read the file first.

    A trusted file may set addresses, variables of keys, headers and everything else that your own file may set. It can
    still only lower the budget. After any change, or in another folder, the file must be trusted again.
    """
    from llm_council.config import PROJECT_FILE, _trust, project_file, reaches, trust_project

    # The argument may be the file itself: shells complete a path to its end.
    place = Path(folder) if Path(folder).name == PROJECT_FILE else Path(folder) / PROJECT_FILE
    path = project_file(place.parent)
    if remove:  # also for a file that was deleted
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
    for setting in reached:
        click.echo(visible(f"  {setting}"))
    return 0
