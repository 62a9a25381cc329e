"""Find strategies by name: those of this package, and those of other distributions."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import attrs

from llm_council._plugins import Plugin, find, hidden_hint
from llm_council.errors import CouncilError, InvalidOption, PluginLoadError, near
from llm_council.providers._call.construction import refuse_unknown_options
from llm_council.providers._call.option_types import check_types
from llm_council.strategies.base import Strategy

__all__ = [
    "ALIASES",
    "BUILT_IN",
    "StrategyInfo",
    "class_of",
    "configured",
    "get_strategy",
    "list_strategies",
    "options_of",
]

BUILT_IN: Final = {
    "auto": "Auto",
    "synthesize": "Synthesize",
    "rank": "Rank",
    "single": "Single",
    "sample": "Sample",
    "poll": "Poll",
    "judge": "Judge",
    "revise": "Revise",
    "escalate": "Escalate",
    "verify": "Verify",
}
"""Strategies of this package: name -> class in the module of that name."""

ALIASES: Final = {"vote": "rank"}
"""Other names of them."""


@attrs.frozen(kw_only=True)
class StrategyInfo:
    """A strategy that is available by name.

    Attributes:
        name: the name.
        summary: what it does, in one sentence.
        source: ``"built-in"``, or the distribution that offers it.
        aliases: other names.
        error: why it cannot be used; None if it can.
    """

    name: str
    summary: str = ""
    source: str = "built-in"
    aliases: tuple[str, ...] = ()
    error: str | None = None


def get_strategy(name: str, /, **options: Any) -> Strategy:
    """Create a strategy by name.

    Args:
        name: the name, such as ``"rank"``.
        **options: the fields of its class.

    Raises:
        InvalidOption: there is no such strategy, or the value of an option is invalid; the message suggests a remedy.
        UnknownOption: it has no such option.
        PluginLoadError: the distribution that offers it is broken.
    """
    cls = class_of(name)
    try:
        check_types(cls, options)
        return cls(**options)
    except CouncilError as error:
        raise error._reword(f"strategy {name!r}: {error.message.removeprefix(f'{cls.__name__}.')}") from None
    except (TypeError, ValueError) as error:  # those that attrs' validators raise
        refuse_unknown_options(cls, options, f"strategy {name!r}")
        reason = (
            error.args[0] if error.args else type(error).__name__
        )  # attrs adds the whole field as further arguments
        raise InvalidOption(f"strategy {name!r}: {reason}") from error
    except Exception as error:
        raise PluginLoadError(
            f"strategy {name!r}: {cls.__name__}({', '.join(options)}) raised {type(error).__name__}: {error}"
        ) from error


def configured(chosen: object, tables: Mapping[str, Mapping[str, Any]], **options: Any) -> Strategy:
    """Return the strategy that a caller or a configuration chose.

    Args:
        chosen: a strategy, the name of a table, or the name of a strategy.
        tables: the tables ``[strategies.NAME]`` of the configuration: ``kind`` and options.
        **options: further options, which override those of the table.

    Raises:
        ConfigurationError: see ``get_strategy``.
    """
    if isinstance(chosen, Strategy) and not options:
        return chosen
    if isinstance(chosen, type) and issubclass(chosen, Strategy):
        raise InvalidOption(f"strategy: expected an instance, got the class {chosen.__name__}: write its brackets")
    name = str(chosen)
    if not isinstance(chosen, str) or (name not in tables and not _is_known(name)):
        raise _unknown(chosen, [*tables, *_names()])
    table = dict(tables.get(name, {}))
    kind = table.pop("kind", name)
    if not isinstance(kind, str) or not _is_known(kind):
        names = _names()
        raise InvalidOption(f'[strategies.{name}] needs kind = "...", the name of a strategy{near(str(kind), names)}')
    return get_strategy(kind, **{**table, **options})


def options_of(strategy: Strategy) -> dict[str, Any]:
    """Return the options of a strategy that are not the defaults, as plain JSON values."""
    cls: Any = type(strategy)
    if not attrs.has(cls):
        return {}
    given = {field.alias: getattr(strategy, field.name) for field in attrs.fields(cls) if field.init}
    default = {field.alias: field.default for field in attrs.fields(cls)}
    changed = {name: value for name, value in given.items() if value != default[name]}
    if not changed:
        return {}
    from llm_council.models._convert import dump  # imports cattrs, which most runs do not need

    return {str(name): dump(value) for name, value in changed.items()}


def list_strategies() -> tuple[StrategyInfo, ...]:
    """List every strategy: the built-in ones, then those of other distributions. A broken one has its error."""
    found = []
    for name in BUILT_IN:
        aliases = tuple(alias for alias, meant in ALIASES.items() if meant == name)
        found.append(StrategyInfo(name=name, summary=_summary(class_of(name)), aliases=aliases))
    for name, plugin in _plugins().items():
        try:
            found.append(StrategyInfo(name=name, summary=_summary(_load(plugin)), source=plugin.distribution))
        except PluginLoadError as error:
            found.append(StrategyInfo(name=name, source=plugin.distribution, error=error.message))
    return tuple(found)


def _summary(cls: type[Strategy]) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _names() -> list[str]:
    return [*BUILT_IN, *ALIASES, *_plugins()]


def _is_known(name: str) -> bool:
    return name in BUILT_IN or name in ALIASES or name in _plugins()


def class_of(name: str) -> type[Strategy]:
    """Return the class of a strategy, imported if necessary; errors are those of ``get_strategy``."""
    name = ALIASES.get(name, name)
    if name in BUILT_IN:
        cls: type[Strategy] = getattr(import_module(f"llm_council.strategies.{name}"), BUILT_IN[name])
        return cls
    # Last, so that no distribution can replace a strategy of this package.
    plugins = _plugins()
    if name not in plugins:
        raise _unknown(name, _names())
    return _load(plugins[name])


def _unknown(name: object, known: list[str]) -> InvalidOption:
    hidden = hidden_hint("strategy", str(name))
    return InvalidOption(f"no strategy {name!r:.80}{near(str(name), known)} (known: {', '.join(known)}){hidden}")


def _plugins() -> dict[str, Plugin]:
    """Return the strategies of other distributions by name, without importing them."""
    found = find("strategy")
    return {name: plugin for name, plugin in found.items() if name not in BUILT_IN and name not in ALIASES}


def _load(plugin: Plugin) -> type[Strategy]:
    cls = plugin.load()
    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        raise plugin.error(f"{plugin.point.value} is no Strategy class")
    # Plans and stored runs hold the class's name, and are resumed by it.
    name = getattr(cls, "name", None)
    if name != plugin.point.name:
        raise plugin.error(
            f"the attribute 'name' of {plugin.point.value} is {name!r:.80}: set it to the name of the entry point"
        )
    return cls
