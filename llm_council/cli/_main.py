"""The command group, and the exit status of each outcome."""

from __future__ import annotations

import importlib
import io
import os
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from llm_council import __version__
from llm_council.cli import leaving_at_once
from llm_council.errors import ConfigurationError, CouncilError, near
from llm_council.errors._secrets import clean
from llm_council.errors._shortage import shortage

if TYPE_CHECKING:
    from llm_council._plugins import Plugin

__all__ = ["OUR_COMMANDS", "Group", "cli", "load_command", "main", "plugged_commands"]

FAILED: Final = 1
USAGE: Final = 2
DEGRADED: Final = 3
ABSTAINED: Final = 4
INTERRUPTED: Final = 130

# Command -> its module and its line in --help. A module is imported when its command is used, so the lines stand here:
# click would import every command to ask for its help, and `council --help` would take as long as the engine's import.
_COMMANDS = {
    "run": ("_run", "Run a council on a task and print its answer."),
    "batch": ("_batch", "Run a council on each task of a file."),
    "runs": ("_runs", "List, show, export, copy and purge stored runs."),
    "resume": ("_runs", "Continue a run that was interrupted."),
    "replay": ("_runs", "Print a stored run again, without any call."),
    "eval": ("_eval", "Measure whether a council pays on your tasks."),
    "grade": ("_eval", "Say whether the answer of a stored run is right."),
    "serve": ("_serve", "Serve a council to programs that speak OpenAI's Chat Completions."),
    "mcp": ("_serve", "Serve a council to agents, through the Model Context Protocol."),
    "doctor": ("_commands", "Check providers and this installation."),
    "providers": ("_commands", "List the providers."),
    "strategies": ("_commands", "List the strategies."),
    "subagents": ("_commands", "List the subagents."),
    "models": ("_models", "List, fetch and locate the models of the embedded engine."),
    "config": ("_commands", "Show the configuration; trust a project's configuration file."),
    "completion": ("_completion", "Print a completion script for bash, zsh or fish."),
    "version": ("_commands", "Show the version."),
}


OUR_COMMANDS: Final = tuple(_COMMANDS)
"""The names that no plugin can take."""


class Group(click.Group):
    """A command group whose error about an unknown command names what there is."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        known = self.list_commands(ctx)
        if name and not name.startswith("-") and name not in known:
            ctx.fail(f"there is no command {clean(name, limit=60)!r}{self.hint(ctx, name, known)}")
        return super().resolve_command(ctx, args)

    def hint(self, ctx: click.Context, name: str, known: list[str]) -> str:
        """Return what may have been meant by the name of an unknown command."""
        return near(name, known) or f"; there are {', '.join(known)}: {ctx.command_path} --help"


class _Lazy(Group):
    """A command group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS, *plugged_commands()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            if name not in plugged_commands():
                return None
            try:
                with leaving_at_once():
                    return load_command(name)
            except CouncilError:
                if ctx.resilient_parsing:  # a shell completes a line, and shows no errors
                    return None
                raise
        module, _ = _COMMANDS[name]
        with leaving_at_once():
            return _command_of(module, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])
        plugged = [(name, _summary(name)) for name in plugged_commands()]
        if plugged:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(plugged)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands with their lines, without importing them, and the options."""
        found = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        found += [
            CompletionItem(name, help=f"From {plugin.whose}.")
            for name, plugin in plugged_commands().items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def hint(self, ctx: click.Context, name: str, known: list[str]) -> str:
        from llm_council._plugins import hidden_hint

        first, *rest = name.split() or [""]
        if rest and first in known:
            return f"; leave the quotes out: council {clean(name, limit=60)}"
        if name == "help":
            return "; see council --help"
        # The usual mistake is a task without a command, as in `council "What is ...?"`.
        question = f'; to ask a question: council run "{clean(name, limit=60)}"'
        return hidden_hint("command", name) or near(name, known) or question


def _command_of(module: str, name: str) -> click.Command:
    found = importlib.import_module(f"llm_council.cli.{module}")
    # A Python function cannot have the name of a built-in one, such as ``eval``, without hiding it.
    command: click.Command = getattr(found, f"{name}_", None) or getattr(found, name)
    return command


def plugged_commands() -> dict[str, Plugin]:
    """Return the commands of other distributions by name, without importing them; none of them takes a name of ours."""
    from llm_council._plugins import find

    return {name: plugin for name, plugin in find("command").items() if name not in _COMMANDS}


def load_command(name: str) -> click.Command:
    """Import the command of another distribution.

    Raises:
        PluginLoadError: it cannot be imported, or is no click command; names the distribution.
    """
    plugin = plugged_commands()[name]
    command = plugin.load()
    if not isinstance(command, click.Command):
        raise plugin.error(f"expected a click command, got {command!r:.80}")
    return command


def _summary(name: str) -> str:
    try:
        return load_command(name).get_short_help_str(limit=100)
    except CouncilError:  # a broken plugin must not end --help
        return "(cannot be loaded; `council doctor` says why)"


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="llm-council-sdk", message="%(prog)s %(version)s")
def cli() -> None:
    """Ask several language models to work on one task together."""


def main() -> None:
    """Run the command line and exit; see ``llm_council.cli.main``."""
    if sys.stderr is None:  # the process was started with it closed, and what is said there is lost
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if "_COUNCIL_COMPLETE" in os.environ:  # a shell asks for candidates
        from llm_council.cli import _shells

        _shells.register()
    try:
        code = cli.main(prog_name="council", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # or Python does it at exit, with a traceback if it fails
    except click.ClickException as error:
        _print_usage_error(_suggesting_option(error) if isinstance(error, click.NoSuchOption) else error)
        code = USAGE
    except (KeyboardInterrupt, click.Abort):
        _print_error("interrupted")
        code = INTERRUPTED
    except CouncilError as error:
        _print_error(f"council: {error}")
        code = USAGE if isinstance(error, ConfigurationError) else FAILED
    except BrokenPipeError:
        # The reader has closed stdout, as in `council ... | head`. Python would flush stdout at exit and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except (OSError, RuntimeError) as error:
        lacking = shortage(error)
        if lacking is None and not (isinstance(error, OSError) and _is_of_stdout(error)):
            raise
        if lacking is None:
            lacking = f"cannot write to stdout: {getattr(error, 'strerror', None) or error}; write to another place"
        _print_error(f"council: {lacking}")
        code = FAILED
    # Without standalone mode, click returns what the command returns: None from one that cannot fail.
    sys.exit(code if isinstance(code, int) else 0)


def _suggesting_option(error: click.NoSuchOption) -> click.UsageError:
    """Return the error with the options that are most similar, the best first; click sorts them, and takes more."""
    # Typing errors reach 0.75; at 0.6, the limit of click, "--model" is similar to "--help".
    similar = get_close_matches(error.option_name, error.possibilities or (), n=2, cutoff=0.75)
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    if not hint and error.ctx is not None and error.ctx.command is cli:
        hint = f"; options of a command stand after its name, as in: council run {error.option_name} ..."
    return click.UsageError(f"there is no option {error.option_name}{hint}", error.ctx)


def _print_usage_error(error: click.ClickException) -> None:
    """Print a mistake in the command's words, with the usage that click shows above it."""
    text = io.StringIO()
    error.show(text)
    _print_error(text.getvalue().rstrip("\n"))


def _print_error(text: str) -> None:
    from llm_council.cli import _output  # imported here: a command that works may not need it

    for line in text.split("\n"):
        _output.print_note(line)


def _is_of_stdout(error: OSError) -> bool:
    """Return True if an error came from printing on stdout, and drop what waits there."""
    from llm_council.cli import _output

    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    # Everything is printed by click, except for the flush at the end, which this module makes.
    module = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    if error.filename is not None or not module.startswith(("click.", __name__)):
        return False
    _output.discard(sys.stdout)
    return True
