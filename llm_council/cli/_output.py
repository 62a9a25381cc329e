"""What the commands print: text that is safe on a terminal, tables, JSON, and the answer with its ``--output`` file."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from llm_council.errors import InvalidOption
from llm_council.errors._visible import visible

__all__ = [
    "as_json",
    "can_draw",
    "check_output",
    "discard",
    "json_option",
    "output_format",
    "output_options",
    "print_json",
    "print_line",
    "print_note",
    "print_table",
    "terminal_width",
    "visible",
    "wrapped_for_terminal",
    "write_answer",
]

json_option = click.option("--json", "json_", is_flag=True, help="Print JSON.")
F = TypeVar("F", bound=Callable[..., Any])

_FORMATS = click.Choice(["text", "json", "markdown", "html"])


# Formats that programs open by the extension, and cannot open if they hold text.
_NOT_WRITTEN = {".pdf", ".doc", ".docx", ".odt", ".rtf", ".xls", ".xlsx", ".ppt", ".pptx", ".epub", ".png", ".jpg"}


def _output_path(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the path of ``--output``; None for ``-``, which is stdout."""
    if value is None or value == "-":
        return None
    if not value.strip():
        raise click.BadParameter("the path is empty; name a file, or - for stdout")
    if value.endswith(("/", os.sep)):
        raise click.BadParameter(f"{value} is a folder; name a file in it")
    return value


def output_options(command: F) -> F:
    """Add the options that control how a result is printed."""
    for option in (
        click.option("--verbose", "-v", is_flag=True, help="Show adjustments, warnings and cost on stderr."),
        click.option("--strict", is_flag=True, help="Exit with 3 if the answer is degraded."),
        click.option(
            "--plain", is_flag=True, help="Print the models' text as it came, without rendering its Markdown."
        ),
        click.option("--raw", is_flag=True, help="Do not replace control characters on a terminal."),
        click.option(
            "--output",
            "-o",
            type=click.Path(readable=False),
            callback=_output_path,
            help="Write the answer to a file; .json, .md and .html choose the format; - is stdout.",
        ),
        click.option(
            "--format", "format_", type=_FORMATS, help="What to print; text is the answer only, without its reasons."
        ),
        click.option("--json", "json_", is_flag=True, help="Print the whole result; the same as --format json."),
    ):
        command = option(command)  # the last one added is the first in --help
    return command


_EXTENSIONS = {".json": "json", ".md": "markdown", ".markdown": "markdown", ".html": "html", ".htm": "html"}


def output_format(flags: Mapping[str, Any]) -> str:
    """Return the format that ``--json`` and ``--format`` select, else the one that fits the name of ``--output``."""
    if flags["json_"]:
        return "json"
    if flags["format_"]:
        return str(flags["format_"])
    extension = Path(flags["output"] or "").suffix.lower()
    if extension in _NOT_WRITTEN:
        raise InvalidOption(
            f"--output: {extension} files cannot be written; name a .html, .md, .json or .txt file, or add --format"
        )
    return _EXTENSIONS.get(extension, "text")


def print_note(line: str, *, raw: bool = False, newline: bool = True) -> None:
    """Print a line on stderr; on a terminal wrapped and with visible control characters, unless ``raw``.

    Args:
        line: the line.
        raw: print it as it is.
        newline: end the line; a part of a line is not wrapped.
    """
    try:
        shown = line
        if not raw and sys.stderr.isatty():
            shown = _wrapped(visible(line), terminal_width(sys.stderr)) if newline else visible(line)
        click.echo(shown, nl=newline, err=True, color=None if newline else True)
    except (OSError, ValueError, AttributeError):  # closed or full: notes must not end the run that is paid for
        discard(sys.stderr)


def print_json(value: Any) -> None:
    """Print a value of our data types, or a container of them, as JSON on stdout."""
    click.echo(as_json(value))


def as_json(value: Any) -> str:
    """Return a value of our data types, or a container of them, as indented JSON."""
    from llm_council.models._convert import dump  # imports cattrs, which `council --help` does not need

    return json.dumps(dump(value), indent=2, ensure_ascii=False)


def print_line(line: str, indent: int = 2) -> None:
    """Print text on stdout; on a terminal wrapped between words and with visible control characters.

    Args:
        line: the text, of one or several lines.
        indent: columns by which the continuation of a wrapped line is indented.
    """
    shown = wrapped_for_terminal(line, indent=indent)
    click.echo(visible(line) if shown is None else shown)


def wrapped_for_terminal(text: str, *, indent: int) -> str | None:
    """Return a text for stdout wrapped between words, with visible control characters; None if that is no terminal.

    Args:
        text: one or several lines.
        indent: columns by which the continuation of a wrapped line is indented.
    """
    return _wrapped(visible(text), terminal_width(sys.stdout), indent) if _is_terminal(sys.stdout) else None


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """Print aligned columns on stdout.

    Cells are never cut, so that another program can read them. On a terminal that is too narrow, cells are wrapped
    between words; if that does not suffice, each row is a block of lines.
    """
    cells = [list(header), *([visible(" ".join(cell.split())) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    width = terminal_width(sys.stdout) if _is_terminal(sys.stdout) else sys.maxsize
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        for row in cells:
            click.echo(_joined(row, widths))
        return
    longest = [max(len(word) for row in cells for word in row[column].split() or [""]) for column in range(len(header))]
    spare = width - sum(longest) - 2 * (len(widths) - 1)
    shared = _shared_out(longest, widths, max(0, spare))
    if spare >= 0 and all(given >= min(wanted, _NARROW) for given, wanted in zip(shared, widths, strict=True)):
        _print_wrapped_rows(cells, shared)
    else:
        _print_blocks(cells, width)


_NARROW = 20  # columns; a text in a narrower column is hard to read


def _joined(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shared_out(widths: list[int], wanted: list[int], spare: int) -> list[int]:
    """Return the widths of the columns: a spare column goes to the narrowest one that wants it, as often as it can."""
    widths = list(widths)
    while spare and (wanting := [place for place, width in enumerate(widths) if width < wanted[place]]):
        widths[min(wanting, key=lambda place: wanted[place] - widths[place])] += 1
        spare -= 1
    return widths


def _print_wrapped_rows(cells: list[list[str]], widths: list[int]) -> None:
    for row in cells:
        columns = [
            textwrap.wrap(cell, width, break_on_hyphens=False) if cell else []
            for cell, width in zip(row, widths, strict=True)
        ]
        for line in zip_longest(*columns, fillvalue=""):
            click.echo(_joined(line, widths))


def _print_blocks(cells: list[list[str]], width: int) -> None:
    """Print the first cell of each row on a line, and the others with their titles indented below."""
    header, *rows = cells
    for row in rows:
        click.echo(row[0])
        facts = [f"{title}: {cell}" if title else cell for title, cell in zip(header[1:], row[1:], strict=True) if cell]
        # A short fact is not wrapped: a no-break space is no place to wrap.
        facts = [fact.replace(" ", "\xa0") if len(fact) < width // 2 else fact for fact in facts]
        click.echo(_wrapped("  " + "\xa0· ".join(facts), width, indent=2).replace("\xa0", " "))


_COMMAND = re.compile(r"(?<=: )(?:council|pip) [^;]+$")  # a command at the end of a message, to be copied


def _wrapped(text: str, width: int, indent: int | None = None) -> str:
    """Wrap lines between words; the command at the end of a line stays whole.

    Args:
        text: one or several lines.
        width: columns of the terminal.
        indent: columns of the continuation lines; None is two more than the line itself has.
    """
    lines = []
    for line in text.split("\n"):
        if len(line) <= width:
            lines.append(line)
            continue
        margin = len(line) - len(line.lstrip()) + 2 if indent is None else indent
        # A no-break space is no place to wrap.
        whole = _COMMAND.sub(lambda match: match[0].replace(" ", "\xa0"), line)
        wrapped = textwrap.wrap(
            whole,
            width,
            subsequent_indent=" " * margin,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        lines += [part.replace("\xa0", " ") for part in wrapped]
    return "\n".join(lines)


def terminal_width(stream: TextIO) -> int:
    """Return the columns of the terminal of a stream; COLUMNS goes first, as in the shell, and 80 is the default."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def can_draw(stream: TextIO | None) -> bool:
    """Return True if a stream is a terminal that shows styles, can move its cursor, and has all characters."""
    if stream is None or not stream.isatty():
        return False
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    return encoding == "utf8" and os.environ.get("TERM") not in ("dumb", "unknown")


# The answer of a run


def check_output(flags: Mapping[str, Any]) -> None:
    """Check that the file of ``--output`` can be written, before anything is sent. Nothing is created or changed.

    Args:
        flags: the options ``output``, ``json_`` and ``format_``; stdout is not checked.

    Raises:
        InvalidOption: the path is a directory, its folder is missing, writing is not permitted, or its extension is of
            a format that cannot be written.
    """
    output_format(flags)
    path = flags["output"]
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


def write_answer(text: str, flags: Mapping[str, Any], *, rendered: str | None = None, stored: str = "") -> bool:
    """Write an answer to the file of ``--output``, else to stdout. An answer that was paid for is never lost.

    If the file cannot be written, the answer is printed on stdout; if that fails as well, on stderr. A message reports
    the failure.

    Args:
        text: the answer.
        flags: the options ``output``, ``raw``, ``json_`` and ``format_``.
        rendered: the answer as a terminal shows it, without control characters of others; for stdout alone.
        stored: how to print the answer again from the configured store; empty if the run is not stored.

    Returns:
        True if the answer was written where the caller asked for it.

    Raises:
        BrokenPipeError: no file was given, and the reader of stdout has closed it.
    """
    if flags["output"]:
        fault = _write_file(flags["output"], text)
        if fault is None:
            if sys.stderr is not None and sys.stderr.isatty():
                print_note(f"council: written to {flags['output']}", raw=flags["raw"])
            return True
        print_note(f"council: cannot write {flags['output']}: {fault}; the answer is printed instead")
    is_json = output_format(flags) == "json"
    exact = flags["raw"] or is_json
    if is_json and not _fits(text, sys.stdout):
        text = json.dumps(json.loads(text), indent=2)  # every character beyond ASCII escaped
    try:
        if rendered is not None and not flags["output"]:
            fault = _print(rendered, sys.stdout, exact=True)
        else:
            fault = _print(text, sys.stdout, exact=exact)
    except BrokenPipeError:
        if not flags["output"]:
            raise
        fault = "its reader has closed it"
    if fault is None:
        return not flags["output"]
    discard(sys.stdout)
    again = f" (it is stored, too: {stored})" if stored else ""
    print_note(f"council: cannot write to stdout: {fault}; the answer is printed here{again}")
    with suppress(OSError):  # there is no other place to print
        _print(text, sys.stderr, exact=exact)
    return False


def _write_file(path: str, text: str) -> str | None:
    """Write the file; return the reason if that fails. A regular file is replaced as a whole, or stays as it is."""
    target = Path(os.path.realpath(path))  # a symbolic link stays, and the file behind it is replaced
    data = (text + "\n").encode("utf-8", "replace")
    try:
        mode = target.stat().st_mode if target.exists() else None
        if (mode is None or stat.S_ISREG(mode)) and os.access(target.parent, os.W_OK | os.X_OK):
            _replace(target, data, None if mode is None else stat.S_IMODE(mode))
        else:  # a device, a pipe, or a file in a folder where no other can be made
            with target.open("wb") as file:
                file.write(data)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    # Only the owner may read a new file, whatever the umask, because answers are confidential: so `mkstemp` makes it.
    handle, name = tempfile.mkstemp(prefix=".council-", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a full disk may show here first
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _print(text: str, stream: TextIO | None, *, exact: bool) -> str | None:
    """Print on a stream; return the reason if that fails. A closed pipe raises ``BrokenPipeError``.

    Args:
        text: the text.
        stream: stdout or stderr.
        exact: leave control characters on a terminal as they are.
    """
    if stream is None:  # Python sets it to None if the process was started with the stream closed
        return "it is closed"
    exact = exact or not stream.isatty()
    try:
        # color=True: by default click removes escape sequences from what it writes to a pipe. JSON must stay exact.
        click.echo(text.encode("utf-8", "replace").decode() if exact else visible(text), file=stream, color=True)
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        return f"its encoding {error.encoding} has no {_character(error)}"
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # the stream is closed
        return str(error)
    return None


def _fits(text: str, stream: TextIO | None) -> bool:
    """Return True if the encoding of a stream has all characters of a text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8", "strict")
    except UnicodeEncodeError as error:
        return 0xD800 <= ord(error.object[error.start]) <= 0xDFFF  # a lone surrogate is replaced later
    return True


def _character(error: UnicodeEncodeError) -> str:
    """Return the first character that could not be encoded, such as ``U+00E9``."""
    return f"U+{ord(error.object[error.start]):04X}"


def discard(stream: TextIO | None) -> None:
    """Drop the buffer of a stream that failed: Python flushes it at exit, and would report the failure again."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)
