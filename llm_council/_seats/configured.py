"""Providers by name: those of the registry, and those that the configuration defines in ``[providers.NAME]``."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from llm_council import middleware
from llm_council.errors import (
    ConfigurationError,
    InvalidKey,
    InvalidOption,
    MissingCredentials,
    UnknownOption,
    UnknownProvider,
    near,
)
from llm_council.errors._secrets import Secret
from llm_council.models import RetryPolicy
from llm_council.providers import registry
from llm_council.providers.base import ProviderAdapter

__all__ = ["COMPOSITIONS", "REDIS_URL", "Instances"]

COMPOSITIONS: Final = {
    "balance": "Balance",
    "cached": "Cached",
    "failover": "Failover",
    "hedge": "Hedge",
    "limit": "Limit",
    "logged": "Logged",
    "retry": "Retry",
    "traced": "Traced",
}
"""Kinds that wrap other providers, and the names of their classes."""

REDIS_URL: Final = "LLM_COUNCIL_REDIS_URL"
"""The variable that ``shared = true`` of a limit reads."""

_SEVERAL: Final = ("balance", "failover")

# Arguments that a configuration file cannot set: objects, and those that the table itself determines.
_NOT_IN_FILES: Final = frozenset(
    ["self", "inner", "providers", "name", "policy", "clock", "sleep", "rng", "tracer_provider", "meter_provider"]
)
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


class Instances:
    """Creates providers by name, each of them once.

    Args:
        tables: a configuration's ``instances``.
    """

    def __init__(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        self._tables = tables
        self._made: dict[str, ProviderAdapter] = {}

    def get(self, name: str) -> ProviderAdapter:
        """Return the provider of this name.

        Raises:
            ConfigurationError: the name is unknown, or its table is invalid; the message names the table.
        """
        return self._get(name, ())

    def _get(self, name: str, above: tuple[str, ...]) -> ProviderAdapter:
        if name in above:
            ring = " -> ".join([*above[above.index(name) :], name])
            raise InvalidOption(f"[providers.{name}] holds itself: {ring}; give one of these tables another name")
        made = self._made.get(name)
        if made is None:
            table = self._tables.get(name)
            made = self._plain(name) if table is None else self._from_table(name, dict(table), above)
            self._made[name] = made
        return made

    def _plain(self, name: str) -> ProviderAdapter:
        try:
            return registry.get_provider(name)
        except UnknownProvider as error:
            hint = near(name, self._tables)
            if not hint:
                raise
            raise UnknownProvider(f"no provider is named {name!r:.80}{hint}") from error

    def _from_table(self, name: str, table: dict[str, Any], above: tuple[str, ...]) -> ProviderAdapter:
        kind = table.pop("kind")
        try:
            if kind in COMPOSITIONS:
                return self._composed(name, kind, table, (*above, name))
            return self._configured(name, kind, table)
        except ConfigurationError as error:
            if "[providers." in error.message:
                raise
            raise type(error)(f"[providers.{name}] {error.message}") from None

    def _configured(self, name: str, kind: str, options: dict[str, Any]) -> ProviderAdapter:
        """Create a plain provider with a name of its own."""
        if "of" in options:
            raise InvalidOption(f"kind {kind!r:.80} holds no others{near(kind, COMPOSITIONS)}")
        if "api_key" in options:
            options["api_key"] = _key(options["api_key"])
        try:
            return registry.get_provider(kind, **{"name": name, **options})
        except UnknownProvider as error:
            raise UnknownProvider(f"{error.message}{near(kind, COMPOSITIONS)}") from None

    def _composed(self, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> ProviderAdapter:
        """Create a provider that wraps others."""
        cls = getattr(middleware, COMPOSITIONS[kind])
        held = self._held(kind, options.pop("of", None), above)
        taken = inspect.signature(RetryPolicy if kind == "retry" else cls).parameters
        known = [option for option in taken if option not in _NOT_IN_FILES]
        for option in options:
            if option not in known:
                raise UnknownOption(f"kind {kind!r} takes no {option!r:.80}{near(option, known) or _listed(known)}")
        if "backup" in options:
            options["backup"] = self._member(options["backup"], above)
        if "shared" in options:
            options["shared"] = _address(options["shared"])
        try:
            if kind == "retry":
                made = cls(held[0], RetryPolicy(**options))
            elif kind in _SEVERAL:
                made = cls(held, **options)
            else:
                made = cls(held[0], **options)
        except ConfigurationError:
            raise
        except (TypeError, ValueError) as error:  # a value that is not a number was compared or converted
            raise InvalidOption(f"kind {kind!r}: a value has the wrong type: {error}") from None
        made.name = name
        adapter: ProviderAdapter = made
        return adapter

    def _held(self, kind: str, named: Any, above: tuple[str, ...]) -> list[ProviderAdapter]:
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            example = 'of = ["NAME", "NAME"]' if kind in _SEVERAL else 'of = "NAME"'
            raise InvalidOption(f"kind {kind!r} needs {example}: names of providers, or NAME/MODEL")
        if kind not in _SEVERAL and len(names) > 1:
            raise InvalidOption(f"kind {kind!r} holds one provider: hold a failover or balance of several")
        return [self._member(name, above) for name in names]

    def _member(self, text: Any, above: tuple[str, ...]) -> ProviderAdapter:
        if not isinstance(text, str):
            raise InvalidOption(f"expected the name of a provider, got {text!r:.80}")
        name, _, model = text.strip().partition("/")
        adapter = self._get(name, above)
        if not model:
            return adapter
        from llm_council.middleware.pinned import Pinned

        return Pinned(adapter, model)


def _listed(known: list[str]) -> str:
    return f"; it takes {', '.join(known)}" if known else "; it takes no options"


def _key(value: str | Secret) -> Secret:
    """Read a key from a configuration: ``${VARIABLE}`` is looked up, in this one field and nowhere else."""
    if isinstance(value, Secret):
        return value
    matched = _VARIABLE.fullmatch(value)
    variable = matched["name"] if matched else None
    text = os.environ.get(variable, "") if variable else value
    if not text.strip():
        raise MissingCredentials(f"needs a key: set {variable or 'api_key'}")
    try:
        return Secret(text, env=variable)
    except ValueError as error:
        raise InvalidKey(str(error)) from None


def _address(shared: Any) -> Any:
    """Return the address of a Redis server: the given one, or for ``true`` that of the environment."""
    if isinstance(shared, Secret):
        return shared.reveal()
    if shared is not True:
        return shared
    url = os.environ.get(REDIS_URL, "").strip()
    if not url:
        raise MissingCredentials(f"shared = true needs the address of a Redis: set {REDIS_URL}")
    return url
