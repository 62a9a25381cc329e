"""Create providers by name: those of the registry, and those of the configuration's tables ``[providers.NAME]``."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from llm_council import middleware
from llm_council._seats.option_types import check_types
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

__all__ = ["MIDDLEWARE", "REDIS_URL", "ConfiguredProviders", "for_each", "list_configured", "wrapped_names"]

T = TypeVar("T")
R = TypeVar("R")

MIDDLEWARE: Final = {
    "balance": "Balance",
    "cached": "Cached",
    "failover": "Failover",
    "hedge": "Hedge",
    "limit": "Limit",
    "logged": "Logged",
    "retry": "Retry",
    "traced": "Traced",
}
"""Values of ``kind`` that wrap other providers -> their classes in ``llm_council.middleware``."""

REDIS_URL: Final = "LLM_COUNCIL_REDIS_URL"
"""The environment variable that ``shared = true`` of a limit reads."""

_SEVERAL: Final = ("balance", "failover")  # kinds that wrap more than one provider

# Arguments of the classes that a file cannot set: objects, and those that the table itself determines.
_NOT_IN_FILES: Final = frozenset(
    ["self", "inner", "providers", "name", "policy", "clock", "sleep", "rng", "tracer_provider", "meter_provider"]
)
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


class ConfiguredProviders:
    """Creates providers by name, each of them once.

    Args:
        tables: ``CouncilConfig.instances``.
    """

    def __init__(self, tables: Mapping[str, Mapping[str, Any]]) -> None:
        self._tables = tables
        self._created: dict[str, ProviderAdapter] = {}

    def get(self, name: str, above: tuple[str, ...] = ()) -> ProviderAdapter:
        """Return the provider of this name.

        Args:
            name: the name.
            above: the tables that lead to it, from the outermost; empty for a seat.

        Raises:
            ConfigurationError: the name is unknown, or its table is invalid; the message names the table.
        """
        # Without this check, two tables that name each other would end in a RecursionError.
        if name in above:
            circle = " -> ".join([*above[above.index(name) :], name])
            raise InvalidOption(f"[providers.{name}] holds itself: {circle}; give one of these tables another name")
        if name not in self._created:
            if name in self._tables:
                self._created[name] = self._from_table(name, dict(self._tables[name]), above)
            else:
                self._created[name] = self._from_registry(name)
        return self._created[name]

    def _from_registry(self, name: str) -> ProviderAdapter:
        try:
            return registry.get_provider(name)
        except UnknownProvider as error:
            hint = near(name, self._tables)
            if not hint:  # the registry's own message suggests a built-in name
                raise
            raise UnknownProvider(f"no provider is named {name!r:.80}{hint}") from error

    def _from_table(self, name: str, table: dict[str, Any], above: tuple[str, ...]) -> ProviderAdapter:
        kind = table.pop("kind")
        try:
            if kind in MIDDLEWARE:
                return self._middleware(name, kind, table, (*above, name))
            return self._adapter(name, kind, table)
        except ConfigurationError as error:
            if "[providers." in error.message:  # an inner table is already named
                raise
            raise error._reword(f"[providers.{name}] {error.message}").fill(provider=name) from None

    def _adapter(self, name: str, kind: str, options: dict[str, Any]) -> ProviderAdapter:
        """Create an adapter with a name of its own."""
        if "of" in options:
            raise InvalidOption(f"kind {kind!r:.80} wraps no other provider: remove 'of'{near(kind, MIDDLEWARE)}")
        try:
            check_types(registry.get_class(kind), options)
            if "api_key" in options:
                options["api_key"] = _key(options["api_key"])
            return registry.get_provider(kind, **{"name": name, **options})
        except UnknownProvider as error:
            raise UnknownProvider(f"{error.message}{near(kind, MIDDLEWARE)}") from None

    def _middleware(self, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> ProviderAdapter:
        """Create a middleware and the providers that it wraps."""
        cls = getattr(middleware, MIDDLEWARE[kind])
        wrapped = self._wrapped(kind, options.pop("of", None), above)
        parameters = inspect.signature(RetryPolicy if kind == "retry" else cls).parameters
        known = [option for option in parameters if option not in _NOT_IN_FILES]
        listed = f"; it takes {', '.join(known) or 'no options'}"
        for option in options:
            if option not in known:
                raise UnknownOption(f"kind {kind!r} takes no {option!r:.80}{near(option, known) or listed}")
        if kind != "retry":  # RetryPolicy checks its values
            check_types(cls, {name: value for name, value in options.items() if name not in ("backup", "shared")})
        if "backup" in options:
            options["backup"] = self._wrapped_one(options["backup"], above)
        if "shared" in options:
            options["shared"] = _redis_url(options["shared"])
        inner = wrapped if kind in _SEVERAL else wrapped[0]
        try:
            # Retry takes its settings as one object, which a file spells out as options.
            adapter: Any = cls(inner, RetryPolicy(**options)) if kind == "retry" else cls(inner, **options)
        except ConfigurationError:
            raise
        except (TypeError, ValueError) as error:  # the class compared or converted a value that is not a number
            raise InvalidOption(f"kind {kind!r}: a value has the wrong type: {error}") from None
        adapter.name = name
        created: ProviderAdapter = adapter
        return created

    def _wrapped(self, kind: str, named: Any, above: tuple[str, ...]) -> list[ProviderAdapter]:
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            example = 'of = ["NAME", "NAME"]' if kind in _SEVERAL else 'of = "NAME"'
            raise InvalidOption(f"kind {kind!r} needs {example}: the providers to wrap, as NAME or NAME/MODEL")
        if kind not in _SEVERAL and len(names) > 1:
            raise InvalidOption(f"kind {kind!r} wraps one provider: name a failover or balance of several")
        return for_each(lambda name: self._wrapped_one(name, above), names)

    def _wrapped_one(self, text: Any, above: tuple[str, ...]) -> ProviderAdapter:
        if not isinstance(text, str):
            raise InvalidOption(f"expected the name of a provider, got {text!r:.80}")
        name, _, model = text.strip().partition("/")
        adapter = self.get(name, above)
        if not model:
            return adapter
        from llm_council.middleware.pinned import Pinned  # only a table with NAME/MODEL needs it

        return Pinned(adapter, model)


def for_each(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what a function returns for each item.

    Raises:
        MissingCredentials: at the end, if items lack keys; names the variables of all of them.
    """
    results, missing = [], []
    for item in items:
        try:
            results.append(function(item))
        except MissingCredentials as error:
            missing.append(error)
    if missing:
        raise MissingCredentials.joined(missing)
    return results


def list_configured(tables: Mapping[str, Mapping[str, Any]]) -> list[registry.ProviderInfo]:
    """Return the providers of a configuration's tables, as ``list_providers`` returns the others."""
    created = ConfiguredProviders(tables)
    found = []
    for name, table in tables.items():
        matched = _VARIABLE.fullmatch(str(table.get("api_key", "")))
        variable = matched["name"] if matched else None
        capabilities, error, needs_key = None, None, variable is not None
        try:
            adapter = created.get(name)
        except ConfigurationError as failure:
            error = failure.message
        else:
            capabilities = adapter.capabilities
            if "api_key" not in table:
                variable = adapter.API_KEY_ENV
                needs_key = bool(variable) and getattr(adapter, "NEEDS_KEY", True)
        found.append(
            registry.ProviderInfo(
                name=name,
                kind="configured",
                capabilities=capabilities,
                key_variable=variable,
                key_is_set=registry.is_set(variable) if variable else None,
                needs_key=needs_key,
                error=error,
            )
        )
    return found


def wrapped_names(tables: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the names of all providers that a table of middleware wraps, without their models."""
    found = set()
    for table in tables.values():
        inner = table.get("of", ())
        for text in [*([inner] if isinstance(inner, str) else inner), table.get("backup", "")]:
            found.add(str(text).partition("/")[0].strip())
    return found


def _key(value: str | Secret) -> Secret:
    """Return a key of a configuration. ``${VARIABLE}`` is replaced by the variable, in this field only."""
    # In other fields, such as a URL, a project's file could send any variable of the user to a stranger.
    if isinstance(value, Secret):
        if not value:
            raise MissingCredentials('a pickle does not contain the key: write api_key = "${VARIABLE}" to have it read')
        return value
    matched = _VARIABLE.fullmatch(value)
    variable = matched["name"] if matched else None
    text = os.environ.get(variable, "") if variable else value
    if not text.strip():
        variables = (variable,) if variable else ()
        raise MissingCredentials(f"needs a key: set {variable or 'api_key'}").fill(variables=variables)
    try:
        return Secret(text, env=variable)
    except ValueError as error:
        raise InvalidKey(str(error)) from None


def _redis_url(shared: Any) -> Any:
    """Return the URL of a Redis server: the given one, or for ``true`` that of the environment."""
    if isinstance(shared, Secret):
        return shared.reveal()
    if shared is not True:
        return shared
    url = os.environ.get(REDIS_URL, "").strip()
    if not url:
        message = f"shared = true needs the URL of a Redis server: set {REDIS_URL}"
        raise MissingCredentials(message).fill(variables=(REDIS_URL,))
    return url
