"""Find and load plugins: entry points of installed distributions. A broken one does not affect the others.

``importlib.metadata.entry_points`` raises for all distributions if the file of one is malformed, although nobody asked
for that one, so the files are read here.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

import attrs

from llm_council.errors import CouncilError, PluginLoadError
from llm_council.errors._foreign import message_of, strip_secrets

__all__ = [
    "GROUPS",
    "NO_PLUGINS",
    "OURS",
    "Plugin",
    "are_disabled",
    "broken_distributions",
    "entry_points",
    "find",
    "hidden_hint",
    "hidden_names",
    "identity",
    "scan",
]

OURS = "llm-council-sdk"
"""The distribution of this package, whose own providers are entry points too."""

NO_PLUGINS = "LLM_COUNCIL_NO_PLUGINS"
"""The environment variable that disables the plugins of other distributions."""

_FILE = "entry_points.txt"


@attrs.frozen
class Plugin:
    """An entry point of an installed distribution.

    Attributes:
        kind: what it offers, as messages name it: ``"provider"``, ``"middleware"``, ``"store"``, ``"command"``,
            ``"subagent"`` or ``"strategy"``.
        point: the entry point.
        distribution: the normalised name of the distribution.
        version: its version; None if it is unknown.
        rivals: other distributions that offer the same name.
    """

    kind: str
    point: EntryPoint
    distribution: str
    version: str | None
    rivals: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether this package itself offers it."""
        return self.distribution == OURS

    @property
    def whose(self) -> str:
        """Name and version of the distribution."""
        return f"{self.distribution} {self.version or ''}".strip()

    def load(self) -> Any:
        """Import the object of the entry point.

        Raises:
            PluginLoadError: two distributions offer the name, or the import failed; names the distributions.
        """
        if self.rivals:
            both = " and ".join((*self.rivals, self.whose))
            raise PluginLoadError(f"{both} both offer a {self.kind} named {self.point.name!r}: uninstall one of them")
        try:
            return self.point.load()
        except (CouncilError, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - a plugin's module may raise anything, SystemExit included
            raise self.error(f"{self.point.value} cannot be imported", exc) from strip_secrets(exc)

    def error(self, what: str, cause: BaseException | None = None) -> PluginLoadError:
        """Return the error of a plugin that cannot be used.

        Args:
            what: what is wrong with it.
            cause: what its code raised.
        """
        why = "" if cause is None else f": {type(cause).__name__}: {message_of(cause)}"
        return PluginLoadError(f"{self.kind} {self.point.name!r} of {self.whose}: {what}{why}")


GROUPS = {
    "provider": "llm_council.providers",
    "middleware": "llm_council.middleware",
    "store": "llm_council.stores",
    "command": "llm_council.commands",
    "subagent": "llm_council.subagents",
    "strategy": "llm_council.strategies",
}
"""Kinds of plugins -> their entry point groups."""


def find(kind: str) -> Mapping[str, Plugin]:
    """Return the plugins of a kind by name, without importing them; this package's own win over others."""
    return scan(kind, tuple(sys.path), are_disabled())


def are_disabled() -> bool:
    """Return True if the plugins of other distributions must not be used."""
    return os.environ.get(NO_PLUGINS, "").strip() not in ("", "0")


def hidden_hint(kind: str, name: str) -> str:
    """Return the end of a message about an unknown name: nothing unless ``LLM_COUNCIL_NO_PLUGINS`` hides its plugin."""
    hidden = scan(kind, tuple(sys.path), False).get(name) if are_disabled() else None  # noqa: FBT003 - a cache's key
    if hidden is None or hidden.is_ours:
        return ""
    return f"; {hidden.whose} offers it, but {NO_PLUGINS} is set, which disables all plugins: unset the variable"


def hidden_names(kind: str) -> tuple[str, ...]:
    """Return the names of the plugins of a kind that ``LLM_COUNCIL_NO_PLUGINS`` disables."""
    if not are_disabled():
        return ()
    found = scan(kind, tuple(sys.path), False)  # noqa: FBT003 - a cache's key
    return tuple(name for name, plugin in found.items() if not plugin.is_ours)


@lru_cache(maxsize=32)
def scan(kind: str, path: tuple[str, ...], without_plugins: bool) -> Mapping[str, Plugin]:  # noqa: FBT001 - a cache's key
    """Read the entry points of a kind, once for each ``sys.path``. Failed imports are not cached."""
    ours: dict[str, Plugin] = {}
    theirs: dict[str, Plugin] = {}
    facts: dict[Distribution | None, tuple[str, str | None]] = {None: ("an unknown distribution", None)}
    for point in entry_points(group=GROUPS[kind]):
        if point.dist is not None and point.dist not in facts:
            name, version = identity(point.dist)
            facts[point.dist] = (re.sub(r"[-_.]+", "-", name).lower(), version)
        plugin = Plugin(kind, point, *facts[point.dist])
        if plugin.is_ours:
            ours[point.name] = plugin
        elif not without_plugins:
            rival = theirs.get(point.name)
            theirs[point.name] = attrs.evolve(plugin, rivals=(*rival.rivals, rival.whose)) if rival else plugin
    # A plugin that took a built-in name would get the prompts and the key that are meant for the vendor.
    for name in theirs.keys() & ours.keys():
        warnings.warn(
            f"{theirs[name].whose} offers a {kind} named {name!r}, which is one of {OURS}'s own: theirs is not used",
            RuntimeWarning,
            stacklevel=4,
        )
    return theirs | ours


def entry_points(*, group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, in the order of ``sys.path``; unreadable ones are left out."""
    return tuple(point for dist in _unique() for point in _read(dist)[0] if point.group == group)


def broken_distributions() -> dict[str, str]:
    """Return what is wrong with the entry points of each distribution that has an unreadable one, by its name."""
    return {identity(dist)[0]: fault for dist in _unique() if (fault := _read(dist)[1]) is not None}


def identity(dist: Distribution) -> tuple[str, str | None]:
    """Return a distribution's name and version, or the name of its folder if its metadata cannot be read."""
    name: str | None = None
    version: str | None = None
    with suppress(Exception):  # a finder of another package may raise anything
        metadata = dist.metadata  # a property that parses a file at each access
        name, version = metadata["Name"], metadata["Version"]
    if name:
        return name, version
    folder = getattr(dist, "_path", None)
    return getattr(folder, "name", None) or "an unknown distribution", None


def _unique() -> Iterator[Distribution]:
    """Yield each distribution once: of two with one name, the first on ``sys.path`` is the one that is imported."""
    seen = set()
    for dist in distributions():
        try:
            key = dist._normalized_name  # type: ignore[attr-defined]  # as importlib.metadata: no file is read
        except Exception:  # noqa: BLE001 - its metadata is broken
            key = id(dist)
        if key not in seen:
            seen.add(key)
            yield dist


def _read(dist: Distribution) -> tuple[tuple[EntryPoint, ...], str | None]:
    """Return the readable entry points of a distribution, and what is wrong with the others."""
    with suppress(Exception):  # a malformed file is read line by line below
        return tuple(dist.entry_points), None
    try:
        text = dist.read_text(_FILE) or ""
    except UnicodeDecodeError:
        return (), f"its {_FILE} is not UTF-8"
    except Exception as exc:  # noqa: BLE001 - a finder of another package may raise anything
        return (), f"its {_FILE} cannot be read: {type(exc).__name__}"
    return _parse(dist, text)


def _parse(dist: Distribution, text: str) -> tuple[tuple[EntryPoint, ...], str | None]:
    points, bad, section = [], [], ""
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            continue
        name, equals, value = (word.strip() for word in line.partition("="))
        if not (name and equals and value):
            bad.append(number)
            continue
        point = EntryPoint(name=name, value=value, group=section)
        vars(point).update(dist=dist)  # what importlib.metadata does
        points.append(point)
    lines = ", ".join(map(str, bad))
    fault = f"line {lines} of its {_FILE} is not 'name = module:object'" if bad else None
    return tuple(points), fault
