"""The commands about models of the embedded engine, and what ``council run`` does before it starts that engine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from llm_council.cli._completion import complete_local_models
from llm_council.cli._main import FAILED, Group
from llm_council.cli._output import json_option, print_json, print_note, print_table

if TYPE_CHECKING:
    from llm_council.models import Plan
    from llm_council.providers.local import LocalModel

__all__ = ["models", "prepare_models"]


@click.group(cls=Group)
def models() -> None:
    """List, fetch and locate the models of the embedded engine."""


@models.command("list", short_help="List the models, and which are fetched.")
@json_option
def list_models(*, json_: bool) -> None:
    """List the models: licence, size, memory, where their files come from, and which are fetched.

    The memory is that of the file and of the engine's cache for four requests of 4096 tokens; the engine needs some
    hundred megabytes more.
    """
    from llm_council.providers import local

    found = local.list_models()
    if json_:
        print_json(found)
        return
    rows = [
        (
            known.name,
            known.license,
            _gigabytes(known.size_bytes),
            _gigabytes(known.memory_bytes) if known.memory_bytes else "unknown",
            f"{known.repository}/{known.file}" if known.repository else known.source,
            "fetched" if known.path else "not fetched",
        )
        for known in found
    ]
    print_table(rows, ("model", "licence", "size", "memory", "from", ""))


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@models.command(short_help="Fetch a model.")
@click.argument("name", required=False, shell_complete=complete_local_models)
def pull(name: str | None) -> None:
    """Fetch a model, unless it is there already, and print the path of its file.

    Without a name, fetch the default model. The others come from the Hugging Face hub: HF_ENDPOINT names another
    server, HF_HOME another cache. The first pull records the commit and the hash of the file; later pulls and every use
    check them. A broken connection goes on where it broke; after a killed pull, the file starts again.
    """
    from llm_council.providers import local

    known = local.list_models()[0] if name is None else _named(name)
    if known.path is not None and not known.repository:
        click.echo(known.path)
        return
    if known.path is not None:
        click.echo("council: it is here; checking the hash", err=True)
        pulled = local.pull(name)
    else:
        pulled = _pull(known.name)
    if pulled.repository:
        facts = f"{pulled.license}, commit {pulled.revision[:12]}, sha256 {pulled.sha256}"
        click.echo(f"{pulled.name}: {facts}", err=True)
        click.echo(f'to seat it: council run "..." -p local/{pulled.name}:3', err=True)
    click.echo(pulled.path)


def _named(name: str) -> LocalModel:
    from llm_council.providers._local.weights import model

    return model(name)


def _pull(name: str) -> LocalModel:
    """Fetch a model with a progress bar on stderr."""
    from llm_council.providers import local
    from llm_council.providers._local import weights

    weights.check_fetch(name)  # before a bar is drawn
    label = f"fetching the weights of {name}"
    with click.progressbar(length=100, label=label, file=sys.stderr) as bar:

        def report(done: int, whole: int) -> None:
            bar.update(100 * done // max(whole, 1) - bar.pos)

        def say(words: str) -> None:
            # On a terminal, the bar stands on the current line.
            start = "\n" if sys.stderr.isatty() else ""
            click.echo(f"{start}council: {words}", err=True)

        return local.pull(name, progress=report, say=say)


@models.command(short_help="Print the path of a model's file.")
@click.argument("name", required=False, shell_complete=complete_local_models)
def path(name: str | None) -> int:
    """Print the path of a model's file; exit with 1 if it is not fetched."""
    from llm_council.providers import local

    found = local.model_path(name)
    if found is None:
        print_note(f"not fetched; run: council models pull{f' {name}' if name else ''}")
        return FAILED
    click.echo(str(found))
    return 0


def prepare_models(plan: Plan) -> None:
    """Print the warnings about the models of a plan, and fetch the default model of the embedded engine if need be.

    The fetch comes before the run's deadline starts, with a progress bar.

    Raises:
        ConfigurationError: another model of the embedded engine is not fetched.
    """
    from llm_council.providers import registry

    for warning in dict.fromkeys(seat.warning for seat in plan.seats if seat.warning):
        print_note(f"council: {warning}")
    names = {seat.model for seat in plan.seats if seat.provider == "local"}
    if not names or not registry.can_embed():
        return
    from llm_council.providers import local
    from llm_council.providers._local import weights

    for name in names:
        local.announce(name)  # said above: the provider shall not log it again
        known = weights.model(name)
        weights.fetched(known)
        if known.path is None:
            _pull(known.name)
