"""The command group, and the exit status of each outcome."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

import click

from llm_council import __version__
from llm_council.cli import leaving_at_once
from llm_council.errors import ConfigurationError, CouncilError, near
from llm_council.errors._secrets import clean

__all__ = ["cli", "main"]

FAILED: Final = 1
USAGE: Final = 2
DEGRADED: Final = 3
INTERRUPTED: Final = 130

# Command -> its module. A module is imported when its command is used: `council --help` must not import the engine.
_COMMANDS = {
    "run": "_run",
    "runs": "_runs",
    "resume": "_runs",
    "replay": "_runs",
    "doctor": "_commands",
    "providers": "_commands",
    "subagents": "_commands",
    "models": "_commands",
    "config": "_commands",
    "version": "_commands",
}

_SUMMARIES = {
    "run": "Run a council on a task and print its answer.",
    "runs": "List, show, export and delete stored runs.",
    "resume": "Continue a run that was interrupted.",
    "replay": "Print a stored run again, without any call.",
    "doctor": "Check providers and this installation.",
    "providers": "List the providers.",
    "subagents": "List the subagents.",
    "models": "List, fetch and locate the models of the embedded engine.",
    "config": "Show the configuration; trust a project's configuration file.",
    "version": "Show the version.",
}


class _Lazy(click.Group):
    """A command group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        with leaving_at_once():
            command: click.Command = getattr(importlib.import_module(f"llm_council.cli.{_COMMANDS[name]}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in _COMMANDS:
            hint = near(name, _COMMANDS) or f'; to ask a question: council run "{clean(name, limit=60)}"'
            ctx.fail(f"there is no command {name!r}{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="llm-council-sdk", message="%(prog)s %(version)s")
def cli() -> None:
    """Ask several language models to work on one task together."""


def main() -> None:
    """Run the command line and exit; see ``llm_council.cli.main``."""
    try:
        code = cli.main(prog_name="council", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except ConfigurationError as error:
        click.echo(f"council: {error}", err=True)
        code = USAGE
    except CouncilError as error:
        click.echo(f"council: {error}", err=True)
        code = FAILED
    except BrokenPipeError:
        # The reader has closed stdout, as in `council ... | head`. Python would flush stdout at exit and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    sys.exit(code if isinstance(code, int) else 0)
