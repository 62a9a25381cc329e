"""What the commands read: task, files and standard input, each up to a limit of bytes."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from llm_council.cli._output import print_note
from llm_council.errors import InvalidOption

if TYPE_CHECKING:
    from llm_council.models import Attachment

__all__ = ["MAX_BYTES", "STDIN", "attached", "read_file", "read_stdin", "read_stdin_bytes"]

MAX_BYTES = 16 * 1024 * 1024
"""Maximum size of one input, in bytes: an endless one must not fill the memory."""

STDIN = "-"
"""The name of standard input where a task or a file is expected."""

_STDIN_NAME = "standard input"  # its name in the prompt
_PATIENCE = 2.0  # seconds before a note says that standard input is awaited
_PIECE = 1 << 16


def read_file(path: str) -> str:
    """Return the text of a file, or of standard input for ``-``.

    Raises:
        InvalidOption: it cannot be read, is larger than 16 MiB, or is not UTF-8 text.
    """
    if path == STDIN:
        return read_stdin()
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        from llm_council._seats.attachments import read_fault

        raise InvalidOption(f"cannot read {path}: {read_fault(error)}") from None
    return _text(data, path)


def read_stdin() -> str:
    """Return the text of standard input up to its end.

    Raises:
        InvalidOption: it is closed, larger than 16 MiB, or not UTF-8 text.
    """
    return _text(read_stdin_bytes(), _STDIN_NAME)


def read_stdin_bytes(most: int = MAX_BYTES) -> bytes:
    """Return standard input up to its end, or up to one byte more than allowed.

    Args:
        most: bytes that are allowed.

    Raises:
        InvalidOption: it is closed, or cannot be read.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise InvalidOption("standard input is closed: give the text as an argument, or in a file")
    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):  # replaced by an object of Python, as in a notebook
        return sys.stdin.read(most + 1).encode("utf-8", "surrogateescape")
    return _read_descriptor(descriptor, most)


def _read_stdin_file() -> Attachment | None:
    """Return standard input as a file: text, an image, a PDF or sound; None if it is empty.

    Raises:
        InvalidOption: it is closed, larger than 16 MiB, or none of these.
    """
    from llm_council.models import Attachment
    from llm_council.models._media_types import media_type_of

    data = read_stdin_bytes()
    if (media_type_of(data) is not None or b"\0" in data) and len(data) <= MAX_BYTES:
        return Attachment(data, name=_STDIN_NAME)
    text = _text(data, _STDIN_NAME)
    return Attachment(name=_STDIN_NAME, text=text) if text.strip() else None


def attached(files: tuple[str, ...], *, stdin_is_task: bool) -> list[str | Attachment]:
    """Return the files of ``--files``, with what is piped into the command as one more.

    Args:
        files: the paths; ``-`` is standard input at that place.
        stdin_is_task: standard input is the task already.

    Raises:
        InvalidOption: standard input is named twice, or named and empty, or cannot be read.
    """
    if files.count(STDIN) + stdin_is_task > 1:
        raise InvalidOption("'-' stands for standard input and can be given once: as the task, or as one file")
    if STDIN in files:
        piped = _read_stdin_file()
        if piped is None:
            raise InvalidOption("--files -: standard input is empty; pipe a file into the command")
        return [piped if path == STDIN else path for path in files]
    if stdin_is_task or not _is_piped():
        return list(files)
    piped = _read_stdin_file()
    return list(files) if piped is None else [*files, piped]


def _is_piped() -> bool:
    """Return True if standard input is not the keyboard."""
    try:
        return sys.stdin is not None and not sys.stdin.isatty()
    except ValueError:  # it is closed
        return False


def _read_descriptor(descriptor: int, most: int) -> bytes:
    """Read up to the end or one byte more than allowed; print a note if nothing arrives for a while."""
    pieces: list[bytes] = []
    failures: list[OSError] = []

    # In a thread, because no other wait for input has a timeout on every platform. It reads the descriptor: a thread
    # that is blocked in Python's own buffer would disturb the end of the process.
    def read() -> None:
        left = most + 1
        try:
            while left > 0 and (piece := os.read(descriptor, min(left, _PIECE))):
                pieces.append(piece)
                left -= len(piece)
        except OSError as error:
            failures.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(_PATIENCE)
    if reader.is_alive() and not pieces:
        end = "end it with Ctrl-D" if os.isatty(descriptor) else "to run without it, add: < /dev/null"
        print_note(f"council: waiting for standard input; {end}")
    while reader.is_alive():
        reader.join(0.2)  # with a timeout, Ctrl-C ends the wait on every platform
    if failures:
        raise InvalidOption(f"cannot read standard input: {failures[0].strerror}")
    return b"".join(pieces)


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        raise InvalidOption(f"{name} is larger than {MAX_BYTES // 1024**2} MiB; give a part of it")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")  # editors on Windows write a byte order mark
    except UnicodeDecodeError as error:
        raise InvalidOption(f"cannot read {name}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
