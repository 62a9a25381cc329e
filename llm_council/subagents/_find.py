"""Find subagents: in the caller's paths, in this package, and in other distributions, in this order."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

import attrs

from llm_council._plugins import Plugin, find, hidden_hint
from llm_council.errors import ConfigurationError, InvalidOption, PluginLoadError, UnknownSubagent, near
from llm_council.models._paths import expand_user
from llm_council.subagents._file import NAME, Definition, Subagent, SubagentInfo, is_other_toml, read

__all__ = ["ALIASES", "BUILT_IN", "GROUP", "from_file", "load", "names", "shadow_warning"]

GROUP = "llm_council.subagents"
"""The entry point group for subagents of other distributions."""

BUILT_IN = ("advisor", "router", "planner", "researcher", "drafter", "critic", "synthesizer")
"""The subagents of this package; each is a TOML file of its name."""

ALIASES: Mapping[str, tuple[str, str | None]] = {
    "implementer": ("drafter", "impl"),
    "architect": ("drafter", "arch"),
    "test-designer": ("drafter", "test"),
    "reviewer": ("critic", "review"),
    "red-team": ("critic", "security"),
    "assessor": ("planner", "assess"),
    "shipper": ("synthesizer", None),
}
"""Other names of built-in subagents: alias -> subagent and mode."""

_BUILT_IN_SOURCE = "built-in"


def load(name: str, mode: str | None = None, paths: Iterable[str | os.PathLike[str]] = ()) -> Subagent:
    """Load a subagent by its name.

    The name is searched in the files of ``paths``, then among the built-in subagents and their aliases, then in other
    distributions. Only the file of this subagent is read.

    Args:
        name: the name or an alias: ``"implementer"`` is ``"drafter"`` in mode ``"impl"``.
        mode: the mode; None selects the default mode.
        paths: TOML files, and folders whose ``*.toml`` files are subagents. A subagent has the name of its file.

    Returns:
        The subagent, under its canonical name.

    Raises:
        UnknownSubagent: there is no such subagent or mode; the message suggests the nearest name.
        InvalidOption, UnknownOption: a path or its file is wrong; names file and line.
        PluginLoadError: the subagent of another distribution cannot be loaded.
    """
    # Names become file names: a name with a slash or a dot could reach another file.
    if not isinstance(name, str) or not NAME.fullmatch(name):  # type: ignore[redundant-expr]
        hint = f"; for a file: subagent=subagents.from_file({str(name)!r:.80})" if _is_path(name) else ""
        raise UnknownSubagent(f"the name of a subagent is 1 to 64 letters, digits, '-' or '_', not {name!r:.80}{hint}")
    custom = _files(paths)
    if name in custom:
        return _read_file(custom[name]).subagent(mode)
    if name in BUILT_IN:
        return _built_in(name).subagent(mode)
    if name in ALIASES:
        return _alias(name, mode)
    # Last, so that no distribution can replace a built-in subagent.
    plugins = _plugins()
    if name in plugins:
        return _plugged(name, plugins[name], mode)
    known = [*custom, *BUILT_IN, *ALIASES, *plugins]
    hint = hidden_hint("subagent", name) or near(name, known)
    raise UnknownSubagent(f"there is no subagent {name!r}{hint} (`council subagents` lists them all)")


def _is_path(name: object) -> bool:
    return isinstance(name, os.PathLike) or (isinstance(name, str) and name.endswith(".toml"))


def shadow_warning(name: str, source: str) -> str | None:
    """Return a sentence about a subagent that replaces a built-in one of the same name; None if it does not.

    Args:
        name: the name or the alias that was asked for.
        source: where the subagent comes from; see ``Subagent.source``.
    """
    if source == _BUILT_IN_SOURCE or name not in (*BUILT_IN, *ALIASES):
        return None
    return f"the subagent {name} is that of {source}, not the built-in one; rename the file to use both"


def names(paths: Iterable[str | os.PathLike[str]] = ()) -> tuple[SubagentInfo, ...]:
    """List every subagent: those of ``paths``, the built-in ones, and those of other distributions.

    Args:
        paths: TOML files and folders of them. Of a folder, files without any key of a subagent are left out.

    Returns:
        One entry for each; one that cannot be loaded has its error.

    Raises:
        InvalidOption: a path does not exist, or two files have the same name.
    """
    custom = _own_files(paths)
    own = (_info(name, str(file)) for name, file in custom.items())
    return (*own, *_built_in_entries(custom), *_plugin_entries({*custom, *BUILT_IN, *ALIASES}))


def from_file(path: str | os.PathLike[str], mode: str | None = None) -> Subagent:
    """Load a subagent from its TOML file. It has the name of the file.

    Args:
        path: the file, ``NAME.toml``.
        mode: the mode; None selects the default mode.

    Raises:
        InvalidOption, UnknownOption: the file cannot be read or has an invalid entry; names file and line.
        UnknownSubagent: it has no such mode.
    """
    return _read_file(expand_user(path)).subagent(mode)


def _built_in_entries(custom: Mapping[str, Path]) -> Iterator[SubagentInfo]:
    """Yield the built-in subagents and aliases, except those that the caller's files replace."""
    for name in BUILT_IN:
        if name not in custom:
            aliases = {alias: mode for alias, (of, mode) in ALIASES.items() if of == name and alias not in custom}
            yield attrs.evolve(_info(name, _BUILT_IN_SOURCE), aliases=aliases)


def _plugin_entries(taken: Container[str]) -> Iterator[SubagentInfo]:
    for name, plugin in _plugins().items():
        source = _distributions(plugin)
        if name in taken:
            yield SubagentInfo(name=name, source=source, error=f"the name {name!r} is taken")
            continue
        try:
            found = _definition_of(name, plugin)
        except ConfigurationError as error:
            yield SubagentInfo(name=name, source=source, error=str(error))
        else:
            modes = found.modes if isinstance(found, Definition) else (found.mode,) if found.mode else ()
            yield SubagentInfo(name=name, description=found.description, modes=modes, source=source)


def _info(name: str, source: str) -> SubagentInfo:
    try:
        found = _built_in(name) if source == _BUILT_IN_SOURCE else _read_file(Path(source))
    except ConfigurationError as error:
        return SubagentInfo(name=name, source=source, error=str(error))
    return SubagentInfo(name=name, description=found.description, modes=found.modes, source=source)


def _read_file(path: Path) -> Definition:
    if path.suffix != ".toml" or not NAME.fullmatch(path.stem):
        raise InvalidOption(
            f"{str(path)!r:.200}: the file of a subagent must be NAME.toml, with 1 to 64 letters, digits, '-' or '_'"
        )
    return read(path.parent, path.name, name=path.stem, source=str(path))


@cache  # the files of the package do not change while it runs
def _built_in(name: str) -> Definition:
    return read(files("llm_council.subagents"), f"{name}.toml", name=name, source=_BUILT_IN_SOURCE)


def _alias(name: str, mode: str | None) -> Subagent:
    subagent, own_mode = ALIASES[name]
    if mode not in (None, own_mode):
        modes = _built_in(subagent).modes
        remedy = f"; use {subagent!r} with mode {' or '.join(modes)}" if modes else ""
        meaning = f"{subagent} {own_mode}" if own_mode else subagent
        raise UnknownSubagent(f"{name} stands for {meaning}, not for mode {mode!r:.80}{remedy}")
    return _built_in(subagent).subagent(own_mode)


def _files(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """Return the caller's files by subagent name, without reading them."""
    if isinstance(paths, str | os.PathLike):
        raise InvalidOption(f"paths of subagents must come in a list, got {paths!r:.80}; put it in a list")
    found: dict[str, Path] = {}
    for entry in paths:
        path = expand_user(entry)
        if not path.exists():
            raise InvalidOption(f"{str(path)!r:.200}: there is no such file or folder of subagents")
        # Like the schemas of a subagent, the files of a folder stay in it: a link must not reach others.
        for file in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
            if path.is_dir() and not file.resolve().is_relative_to(path.resolve()):
                raise InvalidOption(f"{str(file)!r:.200}: leads out of its folder; name the file itself")
            other = found.setdefault(file.stem, file)
            if other.resolve() != file.resolve():
                raise InvalidOption(f"two files define the subagent {file.stem!r:.80}: {other} and {file}; rename one")
    return found


def _own_files(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """Return the caller's files by subagent name, without the other TOML files of a folder."""
    if isinstance(paths, str | os.PathLike):
        return _files(paths)  # raises
    entries = tuple(paths)
    found = _files(entries)
    named = {expand_user(entry) for entry in entries}
    return {name: file for name, file in found.items() if file in named or not is_other_toml(file)}


def _plugins() -> dict[str, Plugin]:
    """Return the subagents of other distributions by name."""
    return {name: plugin for name, plugin in find("subagent").items() if NAME.fullmatch(name)}


def _plugged(name: str, plugin: Plugin, mode: str | None) -> Subagent:
    found = _definition_of(name, plugin)
    if isinstance(found, Definition):
        return found.subagent(mode)
    if mode not in (None, found.mode):
        known = f"it has {found.mode!r}" if found.mode else "it has none"
        raise UnknownSubagent(f"{name} has no mode {mode!r:.80} ({known})")
    return found


def _definition_of(name: str, plugin: Plugin) -> Definition | Subagent:
    """Load the object of an entry point: a ``Subagent``, or the path of a TOML file."""
    if plugin.rivals:
        raise PluginLoadError(
            f"the subagent {name!r} is defined more than once, by {_distributions(plugin)}; uninstall one of them"
        )
    found = plugin.load()
    source = plugin.distribution
    if isinstance(found, Subagent):
        return attrs.evolve(found, name=name, source=source)
    if not isinstance(found, str | os.PathLike):
        raise plugin.error(f"it is of type {type(found).__name__}; expected a Subagent or a path")
    path = expand_user(found)
    try:
        return read(path.parent, path.name, name=name, source=source)
    except ConfigurationError as error:
        raise plugin.error(str(error)) from None


def _distributions(plugin: Plugin) -> str:
    """Return the names of the distributions that offer a name, without their versions."""
    return " and ".join(sorted({*(rival.partition(" ")[0] for rival in plugin.rivals), plugin.distribution}))
