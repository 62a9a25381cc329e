"""Paths that depend on the home directory or the working directory, of which a process may have neither."""

from __future__ import annotations

import os
from pathlib import Path

from llm_council.errors import InvalidOption

__all__ = ["absolute", "expand_user"]


def expand_user(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` replaced by the home directory of the user, and ``~name`` by that of another one.

    Raises:
        InvalidOption: there is no such directory; the message names the remedy.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        named = Path(path).parts[0]
        if named == "~":
            reason, remedy = "there is no home directory", "set HOME, or name an absolute path"
        else:
            reason, remedy = "there is no user of this name", "name an absolute path"
        raise InvalidOption(f"{os.fspath(path)!r:.200}: {reason}: {remedy}") from None


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path relative to the working directory as an absolute one, without ``.`` and ``..``, links as they are.

    Raises:
        InvalidOption: the working directory was deleted or cannot be read.
    """
    try:
        return Path(os.path.abspath(path))  # noqa: PTH100 - ``Path.resolve`` would follow links
    except OSError as error:
        reason = f"the working directory cannot be read ({error.strerror}): change to another one"
        raise InvalidOption(f"{os.fspath(path)!r:.200}: {reason}, or name an absolute path") from None
