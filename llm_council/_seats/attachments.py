"""Read the files that the caller attaches to a task. A run reads no other files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from llm_council.errors import InvalidOption
from llm_council.models import Attachment, Limits

__all__ = ["read_fault", "read_files"]


def read_files(paths: Sequence[str | PathLike[str] | Attachment], limits: Limits) -> tuple[Attachment, ...]:
    """Return the contents of the files.

    Args:
        paths: UTF-8 text files; an ``Attachment`` holds its text already.
        limits: ``body`` is the maximum size of a file in bytes.

    Raises:
        InvalidOption: a file cannot be read, is too large, or is not UTF-8 text.
    """
    if isinstance(paths, str | bytes | PathLike) or not isinstance(paths, Iterable):
        raise InvalidOption(f"files: expected a list of paths, got {paths!r:.80}; put it in a list")
    read = []
    for path in paths:
        if not isinstance(path, str | PathLike | Attachment):
            raise InvalidOption(f"files: expected a path, got {path!r:.80}")
        read.append(path if isinstance(path, Attachment) else _read_one(Path(path), limits))
    return tuple(read)


def read_fault(error: OSError) -> str:
    """Return why a file cannot be read, with the remedy."""
    remedy = "check the path"
    if isinstance(error, IsADirectoryError):
        remedy = "name a file in it"
    elif isinstance(error, PermissionError):
        remedy = "change its permissions, or name another file"
    return f"{error.strerror}; {remedy}"


def _read_one(path: Path, limits: Limits) -> Attachment:
    try:
        with path.open("rb") as file:
            data = file.read(limits.body + 1)  # one more byte than allowed shows that the file is too large
    except OSError as error:
        raise InvalidOption(f"files: cannot read {path}: {read_fault(error)}") from None
    if len(data) > limits.body:  # checked first: the cut may be in the middle of a character
        size = f"{limits.body // 1024**2} MiB" if limits.body % 1024**2 == 0 else f"{limits.body:,} bytes"
        raise InvalidOption(f"files: {path} is larger than {size}; give a part of it, or raise limits.body")
    try:
        text = data.decode("utf-8-sig")  # editors on Windows write a byte order mark
    except UnicodeDecodeError:
        raise InvalidOption(f"files: {path} is not UTF-8 text; save it as UTF-8, or leave it out") from None
    return Attachment(name=str(path), text=text)
