"""Where subagents are found: the caller's paths, ours, and those of other distributions, in this order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs

from llm_council.errors import ConfigurationError, InvalidOption, PluginLoadError, UnknownSubagent, near
from llm_council.subagents._file import Definition, read
from llm_council.subagents._noun import NAME, Subagent, SubagentInfo

__all__ = ["ALIASES", "BUILT_IN", "GROUP", "find", "listed", "open_file"]

GROUP = "llm_council.subagents"
"""The entry point group of other distributions' subagents."""

BUILT_IN = ("advisor", "router", "planner", "researcher", "drafter", "critic", "synthesizer")
"""Ours, each in the TOML file of its name."""

ALIASES: Mapping[str, tuple[str, str | None]] = {
    "implementer": ("drafter", "impl"),
    "architect": ("drafter", "arch"),
    "test-designer": ("drafter", "test"),
    "reviewer": ("critic", "review"),
    "red-team": ("critic", "security"),
    "assessor": ("planner", "assess"),
    "shipper": ("synthesizer", None),
}
"""Other names of ours: each is a subagent in one of its modes."""

_OURS = "built-in"


def find(name: str, mode: str | None, paths: Iterable[str | os.PathLike[str]]) -> Subagent:
    """Return the subagent of exactly this name, in this mode."""
    _check(name)
    places = _files(paths)
    if name in places:
        return open_file(places[name]).subagent(mode)
    if name in BUILT_IN:
        return _built_in(name).subagent(mode)
    if name in ALIASES:
        return _alias(name, mode)
    plugins = _plugins()
    if name in plugins:
        return _plugged(name, plugins[name], mode)
    known = [*places, *BUILT_IN, *ALIASES, *plugins]
    raise UnknownSubagent(f"there is no subagent {name!r}{near(name, known)} (`council subagents` lists them all)")


def listed(paths: Iterable[str | os.PathLike[str]]) -> Iterator[SubagentInfo]:
    """List every subagent once, in the order in which they are looked for; broken ones with their error."""
    places = _files(paths)
    for name, file in places.items():
        yield _info(name, str(file))
    for name in BUILT_IN:
        if name not in places:
            aliases = {alias: mode for alias, (of, mode) in ALIASES.items() if of == name and alias not in places}
            yield attrs.evolve(_info(name, _OURS), aliases=aliases)
    taken = {*places, *BUILT_IN, *ALIASES}
    for name, points in _plugins().items():
        source = ", ".join(sorted(_distribution(point) for point in points))
        if name in taken:
            yield SubagentInfo(name=name, source=source, error=f"the name {name!r} is taken")
            continue
        try:
            found = _definition_of(name, points)
        except ConfigurationError as error:
            yield SubagentInfo(name=name, source=source, error=str(error))
        else:
            modes = found.modes if isinstance(found, Definition) else (found.mode,) if found.mode else ()
            yield SubagentInfo(name=name, description=found.description, modes=modes, source=source)


def _info(name: str, source: str) -> SubagentInfo:
    try:
        found = _built_in(name) if source == _OURS else open_file(Path(source))
    except ConfigurationError as error:
        return SubagentInfo(name=name, source=source, error=str(error))
    return SubagentInfo(name=name, description=found.description, modes=found.modes, source=source)


def open_file(path: Path) -> Definition:
    """Read one file of the caller's; the subagent is called as the file is."""
    if path.suffix != ".toml" or not NAME.fullmatch(path.stem):
        raise InvalidOption(
            f"{str(path)!r:.200}: a subagent's file is called NAME.toml, NAME being 1 to 64 letters, digits, '-' or '_'"
        )
    return read(path.parent, path.name, name=path.stem, source=str(path))


@cache
def _built_in(name: str) -> Definition:
    return read(files("llm_council.subagents"), f"{name}.toml", name=name, source=_OURS)


def _alias(name: str, mode: str | None) -> Subagent:
    subagent, own = ALIASES[name]
    if mode not in (None, own):
        modes = _built_in(subagent).modes
        remedy = f"; ask for {subagent!r} with a mode of {', '.join(modes)}" if modes else ""
        stands = f"{subagent} {own}" if own else subagent
        raise UnknownSubagent(f"{name} stands for {stands}, not for mode {mode!r:.80}{remedy}")
    return _built_in(subagent).subagent(own)


def _check(name: object) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UnknownSubagent(f"a subagent is called by 1 to 64 letters, digits, '-' or '_', not {name!r:.80}")


def _files(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """Return the caller's files by the names of their subagents; nothing of them is read yet."""
    if isinstance(paths, str | os.PathLike):
        raise InvalidOption(f"paths of subagents come in a list, not as {paths!r:.80}")
    places: dict[str, Path] = {}
    for given in paths:
        path = Path(given).expanduser()
        if not path.exists():
            raise InvalidOption(f"{str(path)!r:.200}: there is no such file or folder of subagents")
        for file in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
            if path.is_dir() and not file.resolve().is_relative_to(path.resolve()):
                raise InvalidOption(f"{str(file)!r:.200}: leads out of its folder")
            other = places.setdefault(file.stem, file)
            if other.resolve() != file.resolve():
                raise InvalidOption(f"two files name the subagent {file.stem!r:.80}: {other} and {file}")
    return places


def _plugins() -> dict[str, list[EntryPoint]]:
    """Return other distributions' entry points by name."""
    plugins: dict[str, list[EntryPoint]] = {}
    if os.environ.get("LLM_COUNCIL_NO_PLUGINS", "") not in ("", "0"):
        return plugins
    for point in entry_points(group=GROUP):
        if NAME.fullmatch(point.name):
            plugins.setdefault(point.name, []).append(point)
    return plugins


def _plugged(name: str, points: list[EntryPoint], mode: str | None) -> Subagent:
    found = _definition_of(name, points)
    if isinstance(found, Definition):
        return found.subagent(mode)
    if mode not in (None, found.mode):
        known = f"it has {found.mode!r}" if found.mode else "it has none"
        raise UnknownSubagent(f"{name} has no mode {mode!r:.80} ({known})")
    return found


def _definition_of(name: str, points: list[EntryPoint]) -> Definition | Subagent:
    """Load what an entry point names: a ``Subagent``, or the path of a TOML file."""
    distributions = sorted({_distribution(point) for point in points})
    if len(points) > 1:
        raise PluginLoadError(f"the subagent {name!r} is offered more than once, by {' and '.join(distributions)}")
    (source,) = distributions
    try:
        found: Any = points[0].load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code runs here, and may raise anything
        raise PluginLoadError(
            f"the subagent {name!r} of {source} cannot be loaded: {type(error).__name__}: {error}"
        ) from error.with_traceback(None)
    if isinstance(found, Subagent):
        return attrs.evolve(found, name=name, source=source)
    if not isinstance(found, str | os.PathLike):
        kind = type(found).__name__
        raise PluginLoadError(f"the subagent {name!r} of {source} is of type {kind}; expected a Subagent or a path")
    path = Path(found)
    try:
        return read(path.parent, path.name, name=name, source=source)
    except ConfigurationError as error:
        raise PluginLoadError(f"the subagent {name!r} of {source}: {error}") from None


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed distribution"
