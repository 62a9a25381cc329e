"""Where an answer goes: the file of ``--output``, else stdout. An answer that was paid for is never lost."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TextIO

import click

from llm_council.cli._terminal import visible
from llm_council.errors import InvalidOption

__all__ = ["check_output", "write_answer"]


def check_output(path: str | None) -> None:
    """Check that the file of ``--output`` can be written, before anything is sent. Nothing is created or changed.

    Args:
        path: the file; None or empty stands for stdout, which is not checked.

    Raises:
        InvalidOption: the path is a directory, its folder is missing, or writing is not permitted.
    """
    if not path:
        return
    target = os.path.realpath(path)  # a link may point to a file that does not exist yet
    folder = os.path.dirname(target)  # noqa: PTH120
    try:
        mode = os.stat(target).st_mode  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.exists(folder):  # noqa: PTH110
            raise InvalidOption(
                f"--output: cannot write {path}: there is no folder {folder}; create it, or name another file"
            ) from None
        if not os.path.isdir(folder):  # noqa: PTH112
            raise InvalidOption(f"--output: cannot write {path}: {folder} is not a folder; name another file") from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InvalidOption(
                f"--output: cannot write {path}: no permission to create files in {folder};"
                " change its permissions, or name another file"
            ) from None
        return
    except OSError as error:
        raise InvalidOption(f"--output: cannot write {path}: {error.strerror}; name another file") from None
    if stat.S_ISDIR(mode):
        raise InvalidOption(f"--output: cannot write {path}: it is a directory; name a file in it")
    if not os.access(target, os.W_OK):
        raise InvalidOption(
            f"--output: cannot write {path}: no permission to write it; change its permissions, or name another file"
        )


def write_answer(text: str, flags: Mapping[str, Any]) -> bool:
    """Write an answer to the file of ``--output``, else to stdout.

    An answer that cannot be written to the file is printed on stdout, and one that cannot be printed there on stderr; a
    message on stderr says so.

    Args:
        text: the answer.
        flags: the options ``output``, ``raw``, ``json_`` and ``format_``.

    Returns:
        Whether the answer is where it was asked for.

    Raises:
        BrokenPipeError: no file was asked for, and the reader of stdout has gone.
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
        fault = "its reader has gone"
    if fault is None:
        return not flags["output"]
    _discard_stdout()
    with suppress(OSError, ValueError):  # nowhere else is left
        click.echo(f"council: cannot write to stdout: {fault}; the answer is printed here", err=True)
        _print(text, sys.stderr, flags)
    return False


def _write_file(path: str, text: str) -> str | None:
    """Write the file, and return why that failed."""
    try:
        # A new file is its owner's alone, whatever the umask: answers are confidential.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text + "\n")
    except OSError as error:
        return error.strerror or str(error)
    return None


def _print(text: str, stream: TextIO | None, flags: Mapping[str, Any]) -> str | None:
    """Print on a stream, and return why that failed; a reader that has gone raises ``BrokenPipeError``."""
    if stream is None:  # the process was started without it
        return "it is closed"
    exact = flags["raw"] or flags["json_"] or flags["format_"] == "json" or not stream.isatty()
    try:
        # As it is, so that JSON and pipes are exact: left to itself, click takes escapes out of what goes into a pipe.
        click.echo(text.encode("utf-8", "replace").decode() if exact else visible(text), file=stream, color=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # closed, or of an encoding that lacks a character
        return str(error)
    return None


def _discard_stdout() -> None:
    """Drop what is left in the buffer of stdout: Python flushes it at exit, and would fail there."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
