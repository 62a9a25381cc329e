"""Subagents: roles that a council can take, each a data file.

A subagent says who the models are, what they look for in each other's drafts, what the final answer must achieve and
which shape it has. A *mode* is a variant of one. Ours are listed in ``BUILT_IN``, their other names in ``ALIASES``; a
TOML file, a folder of them or an entry point of the group ``llm_council.subagents`` adds more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from llm_council.subagents._find import ALIASES, BUILT_IN, GROUP, find, listed, open_file
from llm_council.subagents._noun import Preferences, Subagent, SubagentInfo

__all__ = ["ALIASES", "BUILT_IN", "GROUP", "Preferences", "Subagent", "SubagentInfo", "from_file", "load", "names"]


def load(name: str, mode: str | None = None, paths: Iterable[str | os.PathLike[str]] = ()) -> Subagent:
    """Load a subagent by its name.

    Names are looked for in the files of ``paths``, then among ours and their aliases, then among other distributions'.
    Only the one that is asked for is read.

    Args:
        name: its name, or an alias: ``"implementer"`` is ``"drafter"`` in mode ``"impl"``.
        mode: the variant; None is the default one.
        paths: TOML files, and folders whose ``*.toml`` files are subagents; each is called as its file is.

    Returns:
        The subagent, under its canonical name.

    Raises:
        UnknownSubagent: there is none, or no such mode of it; suggests a near name.
        InvalidOption, UnknownOption: a path or its file is wrong; names file and line.
        PluginLoadError: another distribution's subagent cannot be loaded.
    """
    return find(name, mode, paths)


def names(paths: Iterable[str | os.PathLike[str]] = ()) -> tuple[SubagentInfo, ...]:
    """List every subagent: those of ``paths``, ours, other distributions'; broken ones carry their error.

    Args:
        paths: TOML files and folders of them.

    Returns:
        One line each.

    Raises:
        InvalidOption: a path does not exist, or two files have one name.
    """
    return tuple(listed(paths))


def from_file(path: str | os.PathLike[str], mode: str | None = None) -> Subagent:
    """Load a subagent from its TOML file; it is called as the file is.

    Args:
        path: the file, ``NAME.toml``.
        mode: the variant; None is the default one.

    Returns:
        The subagent.

    Raises:
        InvalidOption, UnknownOption: the file cannot be read, or says what it may not; names file and line.
        UnknownSubagent: it has no such mode.
    """
    return open_file(Path(path).expanduser()).subagent(mode)
