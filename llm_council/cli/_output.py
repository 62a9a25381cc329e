"""What the commands print: text that is safe on a terminal, tables, JSON, and the answer with its ``--output`` file."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from llm_council.errors import InvalidOption
from llm_council.errors._visible import visible

__all__ = [
    "as_json",
    "check_output",
    "json_option",
    "output_format",
    "output_options",
    "print_json",
    "print_note",
    "print_table",
    "visible",
    "write_answer",
]

json_option = click.option("--json", "json_", is_flag=True, help="Print JSON.")
F = TypeVar("F", bound=Callable[..., Any])

_FORMATS = click.Choice(["text", "json", "markdown", "html"])


def output_options(command: F) -> F:
    """Add the options that control how a result is printed."""
    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Show adjustments, warnings and cost on stderr."),
        click.option("--strict", is_flag=True, help="Exit with 3 if the answer is degraded."),
        click.option("--raw", is_flag=True, help="Do not replace control characters on a terminal."),
        click.option("--output", "-o", type=click.Path(readable=False), help="Write the answer to a file."),
        click.option("--format", "format_", type=_FORMATS, help="What to print; text is the answer only."),
        click.option("--json", "json_", is_flag=True, help="Print the whole result; the same as --format json."),
    ):
        command = option(command)  # the last one added is the first in --help
    return command


def output_format(flags: Mapping[str, Any]) -> str:
    """Return the format that ``--json`` and ``--format`` select."""
    return "json" if flags["json_"] else flags["format_"] or "text"


def print_note(line: str, *, raw: bool = False) -> None:
    """Print a line on stderr; on a terminal with visible control characters, unless ``raw``."""
    click.echo(line if raw or not sys.stderr.isatty() else visible(line), err=True)


def print_json(value: Any) -> None:
    """Print a value of our data types, or a container of them, as JSON on stdout."""
    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """Return a value of our data types, or a container of them, as indented JSON."""
    from llm_council.models._convert import dump  # imports cattrs, which `council --help` does not need

    return json.dumps(dump(value), indent=2, ensure_ascii=False)


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print aligned columns on stdout. Cells are never cut, so that another program can read them."""
    cells = [header, *([visible(" ".join(cell.split())) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


# The answer of a run


def check_output(path: str | None) -> None:
    """Check that the file of ``--output`` can be written, before anything is sent. Nothing is created or changed.

    Args:
        path: the file; None or empty means stdout, which is not checked.

    Raises:
        InvalidOption: the path is a directory, its folder is missing, or writing is not permitted.
    """
    fault = _output_fault(path) if path else None
    if fault is not None:
        raise InvalidOption(f"--output: cannot write {path}: {fault}")


def _output_fault(path: str) -> str | None:
    """Return why a file cannot be written, with the remedy; None if it can."""
    # Checked by permission, without opening the file: opening could create it, or block on a named pipe.
    target = Path(os.path.realpath(path))  # a symbolic link may point to a file that does not exist yet
    folder = target.parent
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            return f"there is no folder {folder}; create it, or name another file"
        if not folder.is_dir():
            return f"{folder} is not a folder; name another file"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"no permission to create files in {folder}; change its permissions, or name another file"
        return None
    except OSError as error:
        return f"{error.strerror}; name another file"
    if stat.S_ISDIR(mode):
        return "it is a directory; name a file in it"
    if not os.access(target, os.W_OK):
        return "no permission to write it; change its permissions, or name another file"
    return None


def write_answer(text: str, flags: Mapping[str, Any]) -> bool:
    """Write an answer to the file of ``--output``, else to stdout. An answer that was paid for is never lost.

    If the file cannot be written, the answer is printed on stdout; if that fails as well, on stderr. A message reports
    the failure.

    Args:
        text: the answer.
        flags: the options ``output``, ``raw``, ``json_`` and ``format_``.

    Returns:
        True if the answer was written where the caller asked for it.

    Raises:
        BrokenPipeError: no file was given, and the reader of stdout has closed it.
    """
    if flags["output"]:
        fault = _write_file(flags["output"], text)
        if fault is None:
            return True
        click.echo(f"council: cannot write {flags['output']}: {fault}; the answer is printed instead", err=True)
    try:
        fault = _print(text, sys.stdout, flags)
    except BrokenPipeError:
        if not flags["output"]:
            raise
        fault = "its reader has closed it"
    if fault is None:
        return not flags["output"]
    _discard_stdout()
    with suppress(OSError, ValueError):  # there is no other place to print
        click.echo(f"council: cannot write to stdout: {fault}; the answer is printed here", err=True)
        _print(text, sys.stderr, flags)
    return False


def _write_file(path: str, text: str) -> str | None:
    """Write the file; return the reason if that fails."""
    try:
        # Only the owner may read a new file, whatever the umask: answers are confidential.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text + "\n")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _print(text: str, stream: TextIO | None, flags: Mapping[str, Any]) -> str | None:
    """Print on a stream; return the reason if that fails. A closed pipe raises ``BrokenPipeError``."""
    if stream is None:  # Python sets it to None if the process was started with the stream closed
        return "it is closed"
    exact = flags["raw"] or flags["json_"] or flags["format_"] == "json" or not stream.isatty()
    try:
        # color=True: by default click removes escape sequences from what it writes to a pipe. JSON must stay exact.
        click.echo(text.encode("utf-8", "replace").decode() if exact else visible(text), file=stream, color=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # the stream is closed, or its encoding lacks a character
        return str(error)
    return None


def _discard_stdout() -> None:
    """Drop the buffer of stdout: Python flushes it at exit, and would report the failure again."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
