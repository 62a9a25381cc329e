"""Read the entry points of installed distributions, so that a broken one does not hide the others.

``importlib.metadata.entry_points`` raises for all distributions if the file of one is malformed, although nobody asked
for that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import Distribution, EntryPoint, distributions

__all__ = ["broken_distributions", "entry_points", "identity"]

_FILE = "entry_points.txt"


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
