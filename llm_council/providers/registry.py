"""Find providers by name: the entry points of the group ``llm_council.providers``, built-in providers included.

A provider is imported when it is requested. A plugin that cannot be loaded raises its error when it is requested,
reports it in the list, and does not affect other providers. Another distribution cannot take a built-in name.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs

from llm_council._plugins import OURS, Plugin, find, hidden_hint
from llm_council.errors import (
    ConfigurationError,
    CouncilError,
    InvalidOption,
    NotAnAdapter,
    PluginLoadError,
    UnknownProvider,
    near,
)
from llm_council.models._attrs import provider_name
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.providers._call import error_mapping
from llm_council.providers._call.construction import accepted_options, refuse_unknown_options
from llm_council.providers._call.profiles import default_model
from llm_council.providers.base import ProviderAdapter

__all__ = [
    "ProviderInfo",
    "can_embed",
    "get_class",
    "get_provider",
    "is_set",
    "list_providers",
    "overridden_names",
    "overriding",
    "provider_names",
    "register_provider",
    "with_keys",
    "with_keys_but_no_model",
]

GROUP = "llm_council.providers"

_EMBEDDED = "local"  # the provider that needs neither a key nor a server

_log = logging.getLogger("llm_council")

_registered: dict[str, type[ProviderAdapter]] = {}
_overrides: dict[str, ProviderAdapter] = {}


@attrs.frozen(kw_only=True)
class ProviderInfo:
    """A provider that is available by name.

    Attributes:
        name: the name.
        kind: ``"built-in"``, ``"plugin"``, ``"registered"`` or ``"configured"``.
        distribution: the installed distribution that offers it.
        version: the version of that distribution.
        capabilities: what the provider can do; None if it cannot be loaded.
        key_variable: the environment variable of its key, if it has one.
        key_is_set: whether that variable is set; None without a variable.
        needs_key: False if it also works without a key, as a server on the user's own machine may.
        error: why it cannot be used; None if it can.
    """

    name: str
    kind: str
    distribution: str | None = None
    version: str | None = None
    capabilities: ProviderCapabilities | None = None
    key_variable: str | None = None
    key_is_set: bool | None = None
    needs_key: bool = False
    error: str | None = None


def register_provider(name: str, cls: type[ProviderAdapter], *, replace: bool = False) -> None:
    """Register a provider's class under a name in this process. An installed plugin uses an entry point instead.

    Args:
        name: letters, digits, ``-``, ``_`` and ``.``.
        cls: the class. Registering the same class again does nothing.
        replace: True takes the name from another class, a built-in one included.

    Raises:
        NotAnAdapter: the class is no ``ProviderAdapter``; also a ``TypeError``.
        InvalidOption: the name is invalid or taken; also a ``ValueError``.
    """
    provider_name(name)
    _refuse_other_than_adapter(cls, f"register_provider({name!r})")
    known = _registered.get(name)
    if known is cls:
        return
    if not replace:
        owner = None if known is None else known.__qualname__
        entry = _entries().get(name)
        if owner is None and entry is not None and entry.point.value != f"{cls.__module__}:{cls.__qualname__}":
            owner = entry.whose
        if owner is not None:
            raise InvalidOption(f"the name {name!r} belongs to {owner}; pass replace=True to take it over")
    _registered[name] = cls


def get_class(name: str) -> type[ProviderAdapter]:
    """Return the class of a provider, imported if necessary.

    Raises:
        UnknownProvider: there is no such provider; the message suggests the nearest name.
        PluginLoadError: its plugin cannot be loaded; the message names the distribution.
    """
    cls = _registered.get(name)
    if cls is not None:
        return cls
    entries = _entries()
    entry = entries.get(name)
    if entry is None:
        known = sorted({*entries, *_registered, *_overrides})
        if not any(found.is_ours for found in entries.values()):
            raise UnknownProvider(
                f"no provider is named {name!r:.80}: {OURS} is not installed, only imported; install it"
            )
        hint = hidden_hint("provider", str(name)) or near(str(name), known) or f"; there are {', '.join(known)}"
        raise UnknownProvider(f"no provider is named {name!r:.80}{hint}")
    return _load(name, entry)


def get_provider(name: str, /, **options: Any) -> ProviderAdapter:
    """Create a built-in, registered or installed provider by name; ``llm_council.get_provider`` knows configured ones.

    Args:
        name: the name, such as ``"openrouter"``.
        **options: arguments of its class, such as ``default_model``.

    Raises:
        UnknownProvider: there is no such provider; the message suggests the nearest name.
        UnknownOption: its class has no such option; the message lists those that it takes.
        InvalidOption: the value of an option is invalid.
        PluginLoadError: its plugin cannot be loaded or created; the message names the distribution.
    """
    if name in _overrides:
        return _overrides[name]
    cls = get_class(name)
    _check_options(name, cls, options)
    try:
        return cls(**options)
    except (CouncilError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # noqa: BLE001 - a plugin's constructor may raise anything, SystemExit included
        raise _load_error(name, f"{cls.__qualname__}() failed", exc) from error_mapping.strip_secrets(exc)


def overridden_names() -> frozenset[str]:
    """Return the names of the providers that ``overriding`` replaces now."""
    return frozenset(_overrides)


def provider_names() -> tuple[str, ...]:
    """Return the names of all available providers, without importing any of them."""
    return tuple(sorted({*_entries(), *_registered, *_overrides}))


def list_providers() -> tuple[ProviderInfo, ...]:
    """Import every available provider, and return them by name; ``error`` says why one cannot be loaded."""
    entries = _entries()
    found = []
    for name in provider_names():
        entry = entries.get(name) if name not in _registered else None
        facts: dict[str, Any] = {"kind": "registered"}
        if entry is not None:
            kind = "built-in" if entry.is_ours else "plugin"
            facts = {"kind": kind, "distribution": entry.distribution, "version": entry.version}
        try:
            provider: Any = _overrides.get(name) or get_class(name)
        except ConfigurationError as error:
            facts["error"] = error.message
        else:
            facts["capabilities"] = getattr(provider, "capabilities", None)
            facts["key_variable"] = variable = provider.API_KEY_ENV
            facts["key_is_set"] = is_set(variable) if variable else None
            facts["needs_key"] = bool(variable) and getattr(provider, "NEEDS_KEY", True)
        found.append(ProviderInfo(name=name, **facts))
    return tuple(found)


def with_keys() -> tuple[str, ...]:
    """Return the providers that a council may seat by itself: the variable ``API_KEY_ENV`` of their class is set.

    Those of other distributions and registered ones count too, unless their variable already stands for a built-in
    provider of the list. A built-in provider needs a default model: one whose token usually serves another purpose,
    such as GitHub's, has none, so that its seats must be named.
    """
    found: dict[str, str] = {}
    for name, entry in sorted(_entries().items()):
        if entry.is_ours and name not in _registered and default_model(name):  # the others need not be imported
            variable = get_class(name).API_KEY_ENV
            if is_set(variable):
                found[name] = variable or ""
    built_in = set(found.values())
    for name in sorted({*_registered, *(name for name, entry in _entries().items() if not entry.is_ours)}):
        try:
            variable = get_class(name).API_KEY_ENV
        except ConfigurationError as error:  # a broken plugin must not stop a council that does not name it
            _log.warning("%s", error.message)
            continue
        if is_set(variable) and variable not in built_in:
            found[name] = variable or ""
    return tuple(sorted(found))


def with_keys_but_no_model() -> dict[str, str]:
    """Return the built-in providers whose key is set, but which have no default model, each with its variable."""
    found: dict[str, str] = {}
    for name, entry in sorted(_entries().items()):
        if not entry.is_ours or name in _registered or default_model(name):
            continue
        cls = get_class(name)
        if cls.API_KEY_ENV and is_set(cls.API_KEY_ENV) and getattr(cls, "NEEDS_KEY", False):
            found[name] = cls.API_KEY_ENV
    return found


def is_set(variable: str | None) -> bool:
    """Return True if an environment variable holds something besides spaces; None is no variable."""
    return bool(variable and os.environ.get(variable, "").strip())


def can_embed() -> bool:
    """Return True if the provider that needs neither a key nor a server is installed."""
    try:
        get_provider(_EMBEDDED).check()
    except ConfigurationError:
        return False
    return True


@contextmanager
def overriding(providers: Mapping[str, ProviderAdapter] | None = None, /, **more: ProviderAdapter) -> Iterator[None]:
    """Replace providers by instances while the block runs, in every thread; for tests.

    Args:
        providers: instances by name, for names that are not Python identifiers.
        **more: instances by name.

    Raises:
        NotAnAdapter: an instance is no ``ProviderAdapter``.
    """
    wanted = {**(providers or {}), **more}
    for name, provider in wanted.items():
        if not isinstance(provider, ProviderAdapter):
            raise NotAnAdapter(f"overriding({name}=...) takes a ProviderAdapter, got {provider!r:.80}")
    before = {name: _overrides.get(name) for name in wanted}
    _overrides.update(wanted)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                _overrides.pop(name, None)
            else:
                _overrides[name] = old


def _entries() -> Mapping[str, Plugin]:
    return find("provider")


def _load(name: str, entry: Plugin) -> type[ProviderAdapter]:
    if entry.rivals:
        both = " and ".join((*entry.rivals, entry.whose))
        raise PluginLoadError(f"{both} both offer a provider named {name!r}: uninstall one, or use register_provider")
    cls = entry.load()
    try:
        _refuse_other_than_adapter(cls, entry.point.value)
    except NotAnAdapter as error:
        raise entry.error(error.message) from None
    adapter: type[ProviderAdapter] = cls
    return adapter


def _load_error(name: str, what: str, exc: BaseException) -> PluginLoadError:
    entry = _entries().get(name) if name not in _registered else None
    whose = f" of {entry.whose}" if entry is not None else ""
    return PluginLoadError(f"provider {name!r}{whose}: {what}: {type(exc).__name__}: {error_mapping.message_of(exc)}")


def _refuse_other_than_adapter(cls: Any, what: str) -> None:
    if not (isinstance(cls, type) and issubclass(cls, ProviderAdapter)):
        raise NotAnAdapter(f"{what}: expected a subclass of ProviderAdapter, got {cls!r:.80}")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    missing += [name for name in ("name", "capabilities") if not hasattr(cls, name)]
    if missing:
        raise NotAnAdapter(f"{what}: {cls.__qualname__} lacks {', '.join(missing)}")


def _check_options(name: str, cls: type[ProviderAdapter], options: Mapping[str, Any]) -> None:
    refuse_unknown_options(cls, options, f"provider {name!r}")
    parameters = accepted_options(cls)
    if parameters is None:
        return
    needed = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
        and key not in options
    ]
    if needed:
        raise InvalidOption(
            f"provider {name!r} needs {', '.join(needed)}: pass an instance, or set it in the configuration"
        )
