"""Names become providers, by one door: entry points of the group ``llm_council.providers``, built-in ones included.

Only the provider that is asked for is imported. A broken one is shown with its distribution and stops no other.
``LLM_COUNCIL_NO_PLUGINS=1`` leaves all but the built-in ones out.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import attrs

from llm_council.errors import (
    ConfigurationError,
    InvalidOption,
    PluginLoadError,
    UnknownOption,
    UnknownProvider,
    near,
)
from llm_council.models._noun import noun
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.providers.base import ProviderAdapter

__all__ = [
    "GROUP",
    "ProviderInfo",
    "can_embed",
    "get_provider",
    "list_providers",
    "names",
    "overriding",
    "register_provider",
    "with_keys",
]

GROUP = "llm_council.providers"
OURS = "llm-council-sdk"

_log = logging.getLogger("llm_council")
_registered: Mapping[str, type[ProviderAdapter]] = MappingProxyType({})  # replaced as a whole, never changed
_overrides: ContextVar[Mapping[str, ProviderAdapter]] = ContextVar(
    "llm_council_overrides", default=MappingProxyType({})
)


@noun
@attrs.frozen(kw_only=True)
class ProviderInfo:
    """One line of the list of providers.

    Attributes:
        name: by which it is asked for.
        kind: ``"built-in"``, ``"plugin"`` of another distribution, or ``"registered"`` by code.
        distribution: that it comes with; None for a registered one.
        version: of that distribution.
        capabilities: what it can do; None when it cannot be loaded.
        key: the environment variable that its key is read from.
        error: why it cannot be loaded, or is not used.
    """

    name: str
    kind: str
    distribution: str | None = None
    version: str | None = None
    capabilities: ProviderCapabilities | None = None
    key: str | None = None
    error: str | None = None


@attrs.frozen
class _Door:
    """An entry point, and the distribution that it belongs to."""

    point: EntryPoint
    distribution: str
    version: str

    @property
    def is_ours(self) -> bool:
        return self.distribution == OURS

    def load(self) -> type[ProviderAdapter]:
        """Import the class.

        Raises:
            PluginLoadError: it cannot be imported, whatever the reason, or is no adapter.
        """
        whose = f"provider {self.point.name!r} of {self.distribution} {self.version}"
        try:
            cls = self.point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may do anything at import, sys.exit() included
            told = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else type(error).__name__
            raise PluginLoadError(
                f"{whose} cannot be loaded: {told}; update or uninstall {self.distribution}"
            ) from None
        if not _is_adapter(cls):
            raise PluginLoadError(f"{whose} is not a ProviderAdapter: {self.point.value} is {cls!r:.80}")
        adapter: type[ProviderAdapter] = cls
        return adapter


def _is_adapter(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, ProviderAdapter)


def get_provider(name: str, **options: Any) -> ProviderAdapter:
    """Make a provider.

    Args:
        name: its name.
        **options: for its constructor.

    Raises:
        UnknownProvider: nobody has this name; suggests a near one.
        PluginLoadError: its distribution is broken.
        UnknownOption: its constructor takes no such option; suggests a near one.
        ConfigurationError: its constructor refuses the options.
    """
    override = _overrides.get().get(name)
    if override is not None:
        return override
    return _make(name, _class_of(name), options)


def list_providers() -> tuple[ProviderInfo, ...]:
    """List every provider, broken ones and those that another distribution shadows with their ``error``."""
    found = [
        ProviderInfo(name=name, kind="registered", capabilities=_capabilities(cls), key=_key(cls))
        for name, cls in _registered.items()
    ]
    for door, problem in _doors(tuple(sys.path)):
        if problem is None and door.point.name in _registered:
            problem = "replaced by register_provider()"
        found.append(_info(door, problem))
    return tuple(sorted(found, key=lambda info: (info.name, info.error is not None)))


def names() -> tuple[str, ...]:
    """Return every name that can be asked for, importing nothing."""
    doors = (door.point.name for door, problem in _doors(tuple(sys.path)) if problem is None)
    return tuple(sorted({*doors, *_registered, *_overrides.get()}))


def register_provider(name: str, cls: type[ProviderAdapter], *, replace: bool = False) -> None:
    """Give an adapter class a name in this process; an entry point does so for good.

    Args:
        name: the name; letters, digits, ``-``, ``_`` and ``.``.
        cls: the class. The same class again is nothing new.
        replace: take the name even though another class has it.

    Raises:
        InvalidOption: another class has the name. It is a ``ValueError`` too.
        UnknownOption: ``cls`` is no adapter class. It is a ``TypeError`` too.
    """
    global _registered
    if not _is_adapter(cls):
        raise UnknownOption(f"register_provider takes a subclass of ProviderAdapter, got {cls!r:.80}")
    if not name or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise InvalidOption(f"a provider's name is made of letters, digits, '-', '_' and '.', got {name!r:.80}")
    if _registered.get(name) is cls:
        return
    if not replace and name in names():
        raise InvalidOption(f"there is a provider {name!r}; choose another name, or pass replace=True")
    _registered = MappingProxyType({**_registered, name: cls})


@contextmanager
def overriding(**providers: ProviderAdapter) -> Iterator[None]:
    """Let names stand for given instances, whatever options they are asked with; for tests.

    It holds for this context and the tasks and blocking calls started in it. Write ``overriding(**{"a-b": instance})``
    for names that Python cannot spell.
    """
    token = _overrides.set(MappingProxyType({**_overrides.get(), **providers}))
    try:
        yield
    finally:
        _overrides.reset(token)


def with_keys() -> tuple[str, ...]:
    """Return the names of the built-in providers that need a key and have it in the environment."""
    doors = (door for door, problem in _doors(tuple(sys.path)) if problem is None and door.is_ours)
    keys = ((door.point.name, _required_key(door)) for door in doors)
    return tuple(sorted(name for name, key in keys if key and os.environ.get(key, "").strip()))


def can_embed() -> bool:
    """Tell whether the embedded engine is installed."""
    return find_spec("xllamacpp") is not None


def _required_key(door: _Door) -> str | None:
    try:
        cls = door.load()
    except PluginLoadError:
        return None
    return None if getattr(cls, "API_KEY_OPTIONAL", False) else _key(cls)


def _class_of(name: str) -> type[ProviderAdapter]:
    if name in _registered:
        return _registered[name]
    for door, problem in _doors(tuple(sys.path)):
        if door.point.name == name and problem is None:
            return door.load()
    known = names()
    if not known:
        raise UnknownProvider(f"no provider {name!r:.80}: {OURS} is not installed, so none is found; install it")
    raise UnknownProvider(f"no provider {name!r:.80}{near(name, known)}; known: {', '.join(known)}")


def _make(name: str, cls: type[ProviderAdapter], options: Mapping[str, Any]) -> ProviderAdapter:
    parameters = inspect.signature(cls).parameters.values()
    taken = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for option in options:
            if option not in taken:
                raise UnknownOption(f"provider {name!r} takes no option {option!r}{near(option, taken)}")
    try:
        return cls(**options)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - an adapter's constructor is its author's code
        raise InvalidOption(f"provider {name!r} cannot be made: {type(error).__name__}: {error}") from None


def _info(door: _Door, problem: str | None) -> ProviderInfo:
    info = ProviderInfo(
        name=door.point.name,
        kind="built-in" if door.is_ours else "plugin",
        distribution=door.distribution,
        version=door.version,
        error=problem,
    )
    if problem is not None:
        return info
    try:
        cls = door.load()
    except PluginLoadError as error:
        return attrs.evolve(info, error=error.message)
    return attrs.evolve(info, capabilities=_capabilities(cls), key=_key(cls))


def _capabilities(cls: type[ProviderAdapter]) -> ProviderCapabilities | None:
    capabilities = getattr(cls, "capabilities", None)
    return capabilities if isinstance(capabilities, ProviderCapabilities) else None


def _key(cls: type[ProviderAdapter]) -> str | None:
    key = getattr(cls, "API_KEY_ENV", None)
    return key if isinstance(key, str) else None


def _doors(path: tuple[str, ...]) -> Iterable[tuple[_Door, str | None]]:
    """Return every entry point of our group, with what keeps it from being used."""
    doors = _scan(path)
    if os.environ.get("LLM_COUNCIL_NO_PLUGINS", "") in ("", "0"):
        return doors
    return [
        (door, problem or (None if door.is_ours else "left out by LLM_COUNCIL_NO_PLUGINS")) for door, problem in doors
    ]


@lru_cache(maxsize=8)
def _scan(path: tuple[str, ...]) -> tuple[tuple[_Door, str | None], ...]:
    """Read the installed distributions' metadata: ours come first, so that nobody can take a built-in name."""
    doors = [_door(point) for point in entry_points(group=GROUP)]
    doors.sort(key=lambda door: (not door.is_ours, door.distribution, door.point.name))
    owners: dict[str, _Door] = {}
    found = []
    for door in doors:
        owner = owners.setdefault(door.point.name, door)
        problem = None
        if owner is not door and owner != door:
            problem = f"the name belongs to {owner.distribution}"
            _log.warning(
                "provider %r of %s is not used: %s; ask the authors of %s for another name",
                door.point.name,
                door.distribution,
                problem,
                door.distribution,
            )
        if owner is door or problem:
            found.append((door, problem))
    return tuple(found)


def _door(point: EntryPoint) -> _Door:
    dist = point.dist
    return _Door(point, dist.name if dist else "an unknown distribution", dist.version if dist else "")
