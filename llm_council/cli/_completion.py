"""``council completion``, and what the shell offers for seats, roles, modes and stored runs.

click finds the option that is being completed; ``_shells`` has the scripts. They call ``council`` with a variable set.
The functions here then return the candidates. They read the configuration, the list of installed providers and
the run store; they import no provider and send nothing.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TypeAlias

import click
from click.shell_completion import CompletionItem, get_completion_class

__all__ = [
    "complete_chair",
    "complete_local_models",
    "complete_modes",
    "complete_providers",
    "complete_runs",
    "complete_seats",
    "complete_strategies",
    "complete_tasks",
    "complete_words",
    "completion",
]

Completer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

_VARIABLE = "_COUNCIL_COMPLETE"  # the name that click derives from the program's name
_SHELLS = ("bash", "zsh", "fish")
_MOST_RUNS = 50  # runs that are offered, the latest first


_HELP = """Print a script that lets the shell complete commands, flags, providers, seats, roles and run ids.

Without SHELL, the script is for the shell in $SHELL. Add the line to the shell's start file:

\b
  ~/.bashrc                   eval "$(council completion bash)"
  ~/.zshrc, after compinit    eval "$(council completion zsh)"
  ~/.config/fish/config.fish  council completion fish | source
"""


@click.command(help=_HELP, short_help="Print a completion script for bash, zsh or fish.")
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the completion script of a shell."""
    from llm_council.cli import _shells
    from llm_council.cli._main import cli

    _shells.register()
    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in _SHELLS else None
    if kind is None:
        raise click.UsageError(f"name the shell: council completion {'|'.join(_SHELLS)}")
    click.echo(kind(cli, {}, "council", _VARIABLE).source())


def _quietly(completer: Completer) -> Completer:
    """Make a completer that returns nothing where it would fail or print: the line that is typed must stay readable."""

    @wraps(completer)
    def candidates(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        logging.disable()  # this process only completes
        try:
            return completer(ctx, param, incomplete)
        except Exception:  # noqa: BLE001 - a broken file or store leaves the line without candidates
            return []

    return candidates


def _matching(candidates: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    """Return the candidates that begin like the text, each with its help."""
    return [CompletionItem(name, help=text) for name, text in candidates if name.startswith(incomplete)]


@_quietly
def complete_providers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names of providers."""
    return _matching(_providers(), incomplete)


@_quietly
def complete_seats(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer seats: providers, models after a slash, personas after an at sign. Several are separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    provider, slash, _ = last.partition("/")
    place, at, _ = last.rpartition("@")
    offered = _personas(place) if at else _models(provider) if slash else [*_providers(), *_personas("")]
    found = _matching(offered, last)
    return [CompletionItem(f"{before}{comma}{item.value}", help=item.help) for item in found]


@_quietly
def complete_chair(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the seats of the line, else those of the configuration; without any, what may be a seat."""
    from llm_council._seats.hints import seat_names, split_count, split_persona
    from llm_council.cli._run_options import seats_of
    from llm_council.config import CouncilConfig

    config = CouncilConfig.discover()
    flags = {name: ctx.params.get(name) or () for name in ("providers", "models")}
    seats = seats_of(config, flags) or config.providers
    personas = [seat.name for seat in config.seats if seat.name is not None]
    # The name and the provider of each seat.
    placed = [(persona, place) for place, persona in (split_persona(seat, personas) for seat in seats)]
    placed = placed or [(seat.name, str(seat.provider)) for seat in config.seats]
    if not placed:
        return complete_seats(ctx, param, incomplete)
    used = Counter[str]()
    names = []
    for persona, place in placed:
        stem, count = split_count(place)
        names += seat_names(persona or stem, count, used)
    return _matching([(name, "") for name in names], incomplete)


def _providers() -> list[tuple[str, str]]:
    from llm_council.config import CouncilConfig
    from llm_council.providers import registry

    tables = CouncilConfig.discover().instances
    own = [(name, f"your configuration ({table.get('kind')})") for name, table in tables.items()]
    return own + [(name, "") for name in registry.provider_names() if name not in tables]


def _personas(place: str) -> list[tuple[str, str]]:
    from llm_council.config import CouncilConfig

    seats = CouncilConfig.discover().seats
    return [(f"{place}@{seat.name}", f"persona, else at {seat.provider}") for seat in seats if seat.name is not None]


def _models(provider: str) -> list[tuple[str, str]]:
    from llm_council.providers._call.profiles import default_model

    if provider == "local":
        from llm_council.providers import local

        return [(f"local/{model.name}", model.license) for model in local.list_models()]
    model = default_model(provider)
    return [(f"{provider}/{model}", "the default model")] if model else []


@_quietly
def complete_words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer roles for the first word of ``council run``; a word with a slash is the path of a role's file."""
    if ctx.params.get("words"):
        return []
    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    return _matching(_roles(), incomplete)


@_quietly
def complete_tasks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer files of tasks for ``council batch``, and roles for its first word."""
    files = [CompletionItem(incomplete, type="file")]
    if ctx.params.get("words") or "/" in incomplete or incomplete.startswith("."):
        return files
    return [*_matching(_roles(), incomplete), *files]


def _roles() -> list[tuple[str, str]]:
    from llm_council import subagents
    from llm_council.config import CouncilConfig

    found = []
    for info in subagents.names(paths=CouncilConfig.discover().subagent_paths):
        found += [(name, info.description) for name in (info.name, *info.aliases)]
    return found


@_quietly
def complete_modes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the modes of the role that is named on the line; without one, those of all roles."""
    from llm_council import subagents
    from llm_council.config import CouncilConfig

    # While the value of --mode is missing, click has not sorted the other words yet.
    words = [*(ctx.params.get("words") or ()), *ctx.args]
    found: dict[str, str] = {}
    for info in subagents.names(paths=CouncilConfig.discover().subagent_paths):
        if not words or {info.name, *info.aliases} & set(words):
            found |= dict.fromkeys(info.modes, info.name)
    return _matching(found.items(), incomplete)


@_quietly
def complete_strategies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the strategies, those of other distributions and of the configuration included."""
    from llm_council.config import CouncilConfig
    from llm_council.strategies import list_strategies

    offered = [(info.name, info.summary) for info in list_strategies() if info.error is None]
    offered += [(alias, f"the same as {info.name}") for info in list_strategies() for alias in info.aliases]
    offered += [(name, "") for name in CouncilConfig.discover().strategies]
    return _matching(offered, incomplete)


@_quietly
def complete_local_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the models of the embedded engine."""
    return _matching([(name.removeprefix("local/"), text) for name, text in _models("local")], incomplete)


@_quietly
def complete_runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of stored runs, and ``last``."""
    from llm_council.config import CouncilConfig
    from llm_council.store import open_store

    path = ctx.params.get("store") or CouncilConfig.discover().store
    if not path:
        return []
    runs = open_store(path).runs_sync(limit=_MOST_RUNS)
    listed = [(info.run_id, f"{info.status}: {' '.join(info.task.split())[:40]}") for info in runs]
    return _matching([("last", "the latest run"), *listed] if listed else [], incomplete)
