"""Options that ``council run`` and ``council batch`` share, and what is made of their values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llm_council.cli._completion import complete_chair, complete_modes, complete_seats, complete_strategies
from llm_council.cli._input import read_file
from llm_council.cli._output_type import output_type_options
from llm_council.errors import InvalidOption

if TYPE_CHECKING:
    from llm_council.config import CouncilConfig
    from llm_council.strategies import Strategy

__all__ = [
    "ABOVE_0",
    "NO_STORE",
    "NUMBER",
    "answer_options",
    "check_store",
    "files_option",
    "mode_option",
    "read_schema",
    "seat_options",
    "seats_of",
    "strategy_of",
]

F = TypeVar("F", bound=Callable[..., Any])

NO_STORE = "no run store is configured: pass --store PATH, set LLM_COUNCIL_STORE, or set store in your own file"
"""Why a command that needs a store cannot work, with the remedy."""


class _Number(click.FloatRange):
    """A number in a range; click's own messages speak of a "float range" and of "x>0"."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        range_ = "above 0" if self.min_open else "of 0 or more"
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number; give one {range_}, such as 60", param, ctx)
        if not (number > 0 if self.min_open else number >= 0):
            self.fail(f"{value} is not a number {range_}", param, ctx)
        return super().convert(value, param, ctx)


NUMBER = _Number(min=0)
ABOVE_0 = _Number(min=0, min_open=True)


mode_option = click.option("--mode", help="Mode of the subagent.", shell_complete=complete_modes)

files_option = click.option(
    "--files",
    "-f",
    multiple=True,
    type=click.Path(),
    help="A file for every seat: text, an image, a PDF or sound; repeat for more; - is standard input.",
)


def seat_options(command: F) -> F:
    """Add the options that say who sits in the council, and how it deliberates."""
    for option in (
        click.option(
            "--strategy-option",
            multiple=True,
            metavar="KEY=VALUE",
            help="An option of the strategy; repeat for more. The value is JSON, or else text.",
        ),
        click.option(
            "--strategy",
            shell_complete=complete_strategies,
            help="How the seats deliberate: auto (default), synthesize, poll, rank (or vote), single, or another one"
            " by name.",
        ),
        click.option("--chair", shell_complete=complete_chair, help="The seat that writes the final answer."),
        click.option(
            "--models", "-m", multiple=True, help="Models: one for all seats, or one for each; repeat, or use commas."
        ),
        click.option(
            "--providers",
            "-p",
            multiple=True,
            shell_complete=complete_seats,
            help="Seats: NAME, NAME/MODEL or NAME:COUNT, with @PERSONA for one of [[seats]]; repeat, or use commas.",
        ),
    ):
        command = option(command)  # the last one added is the first in --help
    return command


def answer_options(command: F) -> F:
    """Add the options that say what the answer must be like, and what every seat reads."""
    for option in (
        click.option("--context", help="Further text for every seat."),
        output_type_options,
        click.option("--schema", type=click.Path(), help="File with a JSON Schema that the answer must match."),
    ):
        command = option(command)  # the last one added is the first in --help
    return command


def seats_of(config: CouncilConfig, flags: Mapping[str, Any]) -> list[str] | None:
    """Combine ``--providers`` and ``--models``: one model for every provider, or one model for each.

    A count applies to the seat with its model: ``local:3`` and one model make three seats of that model.
    """
    given = _split(flags["providers"])
    models = _split(flags["models"])
    for name, names in (("providers", given), ("models", models)):
        if flags[name] and not names:
            raise click.UsageError(f"--{name} is given, but names none; name at least one, or leave it out")
    if not models:
        return given or None
    names = given or list(config.providers)
    if not names:
        raise click.UsageError("--models needs --providers: name the providers of these models")
    if len(names) == 1:
        return [_seat(names[0], model) for model in models]
    if len(models) not in (1, len(names)):
        raise click.UsageError(f"{len(names)} providers, but {len(models)} models: give one for all, or one for each")
    if len(models) == 1:
        models *= len(names)
    return [_seat(name, model) for name, model in zip(names, models, strict=True)]


def _seat(name: str, model: str) -> str:
    if "/" in name:
        raise click.UsageError(f"--providers {name} names a model already: remove it there, or do not use --models")
    place, at, persona = name.partition("@")
    provider, colon, count = place.partition(":")
    if not provider:
        raise click.UsageError(
            f"--models: {name} has the model of its persona: write PROVIDER{name} to give it another"
        )
    return f"{provider}/{model}{colon}{count}{at}{persona}"


def _split(values: tuple[str, ...]) -> list[str]:
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def strategy_of(config: CouncilConfig, pairs: Sequence[str]) -> Strategy | None:
    """Return the strategy with the options of ``--strategy-option``; None without any.

    Raises:
        ConfigurationError: an option has no value, is unknown, or has an invalid value.
    """
    if not pairs:
        return None
    from llm_council.strategies._find import configured

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise InvalidOption(f"--strategy-option: expected KEY=VALUE, got {pair!r:.80}")
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return configured(config.strategy, config.strategies, **options)


def read_schema(path: str | None) -> dict[str, Any] | None:
    """Return the schema of a file after a check; None without a file.

    Raises:
        InvalidOption: the file holds none; the message names it.
    """
    from llm_council import _schema

    if path is None:
        return None
    text = read_file(path)
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise InvalidOption(f"--schema: {path} is not JSON: {error}") from None
    if not isinstance(schema, dict):
        kind = type(schema).__name__
        raise InvalidOption(f"--schema: {path} is not a JSON Schema: expected a JSON object, got {kind}")
    try:
        _schema.compile(_schema.plain_schema(schema))
    except InvalidOption as error:  # the run would say the same, without the name of the file
        raise error._reword(f"--schema: {path} is {error.message}") from None
    return schema


def check_store(path: str | None) -> None:
    """Check that a run can be stored in ``--store``, before anything is sent; the store is created if need be.

    Raises:
        InvalidOption: the path is no file, another program's file, or may not be written to; the database cannot be
            reached, or its role may not write.
    """
    if path is None:
        return
    from llm_council.errors import StoreError
    from llm_council.store import open_store  # imports SQLite
    from llm_council.store._run_store import POSTGRES, scheme_of

    what = "store" if scheme_of(path) else "file"
    try:
        open_store(path)._check()
    except StoreError as error:
        remedy = "" if "name " in error.message or scheme_of(path) in POSTGRES else f"; name another {what}"
        raise InvalidOption(f"--store: {error.message}{remedy}") from None
