"""Create providers by name: those of the registry, and those of the configuration's tables ``[providers.NAME]``."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from llm_council import middleware
from llm_council._plugins import find, hidden_hint
from llm_council.config import CouncilConfig, user_file
from llm_council.errors import (
    ConfigurationError,
    CouncilError,
    InvalidKey,
    InvalidOption,
    MissingCredentials,
    UnknownOption,
    UnknownProvider,
    near,
)
from llm_council.errors._foreign import strip_secrets
from llm_council.errors._secrets import Secret
from llm_council.models import RetryPolicy
from llm_council.providers import registry
from llm_council.providers._call.construction import accepted_options, refuse_unknown_options
from llm_council.providers._call.option_types import check_types, revealed_for
from llm_council.providers._http.account import refuse_wrapped
from llm_council.providers.base import ProviderAdapter

__all__ = [
    "MIDDLEWARE",
    "REDIS_URL",
    "ConfiguredProviders",
    "create_provider",
    "for_each",
    "get_provider",
    "list_configured",
    "middleware_class",
    "wrapped_names",
]

T = TypeVar("T")
R = TypeVar("R")

MIDDLEWARE: Final = {
    "balance": "Balance",
    "batched": "Batched",
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
        needs_keys: False leaves out a key whose variable is not set, for providers that are never called.
    """

    def __init__(self, tables: Mapping[str, Mapping[str, Any]], *, needs_keys: bool = True) -> None:
        self._tables = tables
        self._needs_keys = needs_keys
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
            if name in self._tables and name not in registry.overridden_names():
                self._created[name] = self._from_table(name, dict(self._tables[name]), above)
            else:
                self._created[name] = self._from_registry(name)
        return self._created[name]

    def _from_registry(self, name: str) -> ProviderAdapter:
        try:
            return registry.get_provider(name)
        except UnknownProvider as error:
            hint = near(name, self._tables)
            if not hint or hidden_hint("provider", name):  # the registry's own message suggests a built-in name
                raise
            raise UnknownProvider(f"no provider is named {name!r:.80}{hint}") from error

    def _from_table(self, name: str, table: dict[str, Any], above: tuple[str, ...]) -> ProviderAdapter:
        kind = table.pop("kind")
        try:
            if kind in MIDDLEWARE:
                return self._middleware(name, kind, table, (*above, name))
            if _is_plugged(kind, table):
                return self._plugged_middleware(name, kind, table, (*above, name))
            return self._adapter(name, kind, table)
        except ConfigurationError as error:
            if "[providers." in error.message:  # an inner table is already named
                raise
            raise error._reword(f"[providers.{name}] {error.message}").fill(provider=name) from None

    def _adapter(self, name: str, kind: str, options: dict[str, Any]) -> ProviderAdapter:
        """Create an adapter with a name of its own."""
        if "of" in options:
            hint = hidden_hint("middleware", kind) or near(kind, (*MIDDLEWARE, *find("middleware")))
            raise InvalidOption(f"kind {kind!r:.80} wraps no other provider: remove 'of'{hint}")
        try:
            cls = registry.get_class(kind)
        except UnknownProvider as error:
            hint = hidden_hint("middleware", kind) or near(kind, (*MIDDLEWARE, *find("middleware")))
            raise UnknownProvider(f"{error.message}{hint}") from None
        check_types(cls, options)
        if "api_key" in options:
            try:
                options["api_key"] = _key(options["api_key"])
            except MissingCredentials:
                if self._needs_keys:
                    raise
                del options["api_key"]
        accepted = accepted_options(cls)
        if accepted is not None and "name" in accepted:
            return registry.get_provider(kind, **{"name": name, **options})
        # A class of another author need not take a name, nor know what a ``Secret`` is.
        given = {option: revealed_for(cls, option, value) for option, value in options.items() if option != "name"}
        adapter = registry.get_provider(kind, **given)
        if kind not in registry.overridden_names():  # a test's own instance keeps its name
            _rename(adapter, str(options.get("name", name)))
        vars(adapter)["_configured_key"] = options.get("api_key")  # a live ``Secret`` is masked in every text
        return adapter

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
        for option in known:
            if parameters[option].default is inspect.Parameter.empty and option not in options:
                raise InvalidOption(f"kind {kind!r} needs {option!r}{listed}")
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
        except ConfigurationError as error:
            raise error._reword(error.message.removeprefix("RetryPolicy.")) from None
        except (TypeError, ValueError) as error:  # the class compared or converted a value that is not a number
            raise InvalidOption(f"kind {kind!r}: a value has the wrong type: {error}") from None
        _rename(adapter, name)
        created: ProviderAdapter = adapter
        return created

    def _plugged_middleware(
        self, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]
    ) -> ProviderAdapter:
        """Create a middleware of another distribution and the providers that it wraps."""
        plugin, cls = find("middleware")[kind], middleware_class(kind)
        takes = list(accepted_options(cls) or ())
        several = takes[:1] == ["providers"]
        wrapped = self._wrapped(kind, options.pop("of", None), above, several=several)
        if "api_key" in options:
            options["api_key"] = _key(options["api_key"])
        if "name" in options and "name" not in takes:
            raise InvalidOption("a provider has the name of its table: remove 'name'")
        refuse_unknown_options(cls, options, f"kind {kind!r}")
        check_types(cls, options)
        given = {option: revealed_for(cls, option, value) for option, value in options.items()}
        try:
            adapter: ProviderAdapter = cls(wrapped if several else wrapped[0], **given)
        except (CouncilError, KeyboardInterrupt):
            raise
        except BaseException as exc:  # noqa: BLE001 - a plugin's constructor may raise anything, SystemExit included
            raise plugin.error(f"{cls.__qualname__}() failed", exc) from strip_secrets(exc)
        _rename(adapter, name)
        return adapter

    def _wrapped(
        self, kind: str, named: Any, above: tuple[str, ...], *, several: bool | None = None
    ) -> list[ProviderAdapter]:
        if several is None:
            several = kind in _SEVERAL
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            example = 'of = ["NAME", "NAME"]' if several else 'of = "NAME"'
            raise InvalidOption(f"kind {kind!r} needs {example}: the providers to wrap, as NAME or NAME/MODEL")
        if not several and len(names) > 1:
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


def get_provider(name: str, /, **options: Any) -> ProviderAdapter:
    """Create a provider by name: one of the configuration, or one that is built in, registered or installed.

    Args:
        name: the name, such as ``"openrouter"``, or ``"house"`` for the table ``[providers.house]`` of the user's file.
        **options: arguments of its class, such as ``default_model``; they replace those of the table.

    Raises:
        UnknownProvider: there is no such provider; the message suggests the nearest name.
        UnknownOption: its class has no such option; the message lists those that it takes.
        InvalidOption: the value of an option is invalid.
        PluginLoadError: its plugin cannot be loaded or created; the message names the distribution.
        ConfigurationError: the configuration cannot be read.
    """
    return create_provider(name, options)


def create_provider(name: str, options: Mapping[str, Any], *, needs_keys: bool = True) -> ProviderAdapter:
    """Create a provider by name; see ``get_provider`` and ``ConfiguredProviders``."""
    try:
        user_file()
    except ConfigurationError:  # without a home directory, there is no file; providers made in code need none
        tables: Mapping[str, Mapping[str, Any]] = {}
    else:
        tables = CouncilConfig.load().instances
    if name in tables:
        tables = {**tables, name: {**tables[name], **options}}
    elif options:
        return registry.get_provider(name, **options)
    return ConfiguredProviders(tables, needs_keys=needs_keys).get(name)


def _is_plugged(kind: str, table: Mapping[str, Any]) -> bool:
    """Return True for a table of a middleware of another distribution, which may offer a provider of that name, too."""
    return kind in find("middleware") and ("of" in table or kind not in registry.provider_names())


def middleware_class(kind: str) -> type[ProviderAdapter]:
    """Import the middleware of another distribution.

    Raises:
        PluginLoadError: it cannot be imported, or is no middleware; names the distribution.
    """
    plugin = find("middleware")[kind]
    cls = plugin.load()
    if not (isinstance(cls, type) and issubclass(cls, ProviderAdapter)):
        raise plugin.error(f"expected a subclass of llm_council.middleware.Wrapper, got {cls!r:.80}")
    if inspect.isabstract(cls):
        raise plugin.error(f"{cls.__qualname__} lacks {', '.join(sorted(cls.__abstractmethods__))}")
    if not accepted_options(cls):
        raise plugin.error(f"{cls.__qualname__} takes no provider: its first argument is the provider that it wraps")
    return cls


def _rename(adapter: ProviderAdapter, name: str) -> None:
    """Give an adapter the name of its table.

    Raises:
        InvalidOption: its class does not let its name be set.
    """
    try:
        adapter.name = name  # type: ignore[misc]  # a class attribute of adapters, an instance attribute here
    except (AttributeError, TypeError) as error:
        remedy = "give its __init__ an argument 'name'"
        raise InvalidOption(f"the name of {type(adapter).__qualname__} cannot be set ({error}): {remedy}") from None


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
        refuse_wrapped(text.strip(), variable)
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
