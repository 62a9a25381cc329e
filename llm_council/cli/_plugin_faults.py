"""Find the plugins that cannot be used, of every kind, for ``council doctor``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.metadata import EntryPoint

from llm_council._plugins import (
    GROUPS,
    NO_PLUGINS,
    OURS,
    are_disabled,
    broken_distributions,
    entry_points,
    find,
    hidden_names,
    identity,
)
from llm_council.errors import CouncilError

__all__ = ["hidden_plugins", "plugin_faults"]


def plugin_faults() -> dict[str, str]:
    """Import every plugin, and return what is wrong with those of each distribution, by its name."""
    found: dict[str, list[str]] = {}
    for distribution, fault in broken_distributions().items():
        found.setdefault(distribution, []).append(f"{fault}; reinstall it, or remove it")
    for kind, load in _loaders().items():
        for name, plugin in find(kind).items():
            if plugin.is_ours:
                continue
            try:
                load(name)
            except CouncilError as error:
                found.setdefault(plugin.distribution, []).append(error.message)
    for distribution, fault in _taken_names():
        found.setdefault(distribution, []).append(fault)
    return {distribution: "; ".join(faults) for distribution, faults in found.items()}


def hidden_plugins() -> str:
    """Return a sentence about the plugins that ``LLM_COUNCIL_NO_PLUGINS`` disables; empty if it disables none."""
    hidden = [f"{kind} {name}" for kind in GROUPS for name in hidden_names(kind)]
    return f"{NO_PLUGINS} is set, so these are not used: {', '.join(hidden)}" if hidden else ""


def _loaders() -> Mapping[str, Callable[[str], object]]:
    """Return for each kind the function that imports a plugin and checks it, as its first use would."""
    from llm_council import subagents
    from llm_council._seats.configured import middleware_class
    from llm_council.cli._main import load_command, plugged_commands
    from llm_council.providers.registry import get_class
    from llm_council.store._run_store import load_plugin
    from llm_council.strategies._find import class_of

    def command(name: str) -> object:
        return load_command(name) if name in plugged_commands() else None

    return {
        "provider": get_class,
        "middleware": middleware_class,
        "store": load_plugin,
        "command": command,
        "subagent": subagents.load,
        "strategy": class_of,
    }


def _taken_names() -> Iterator[tuple[str, str]]:
    """Yield distribution and fault for each plugin that has the name of a part of this package."""
    from llm_council import subagents
    from llm_council._seats.configured import MIDDLEWARE
    from llm_council.cli._main import OUR_COMMANDS
    from llm_council.store._run_store import POSTGRES
    from llm_council.strategies._find import ALIASES, BUILT_IN

    ours: Mapping[str, Collection[str]] = {
        "provider": [name for name, plugin in find("provider").items() if plugin.is_ours],
        "middleware": MIDDLEWARE,
        "store": ("sqlite", *POSTGRES),
        "command": OUR_COMMANDS,
        "subagent": (*subagents.BUILT_IN, *subagents.ALIASES),
        "strategy": (*BUILT_IN, *ALIASES),
    }
    for kind, names in ours.items():
        for point in () if are_disabled() else entry_points(group=GROUPS[kind]):
            if point.name in names and _is_theirs(point):
                yield _distribution(point), f"{kind} {point.name!r}: the name is one of {OURS}'s own, so it is not used"


def _is_theirs(point: EntryPoint) -> bool:
    return _distribution(point) != OURS


def _distribution(point: EntryPoint) -> str:
    name = identity(point.dist)[0] if point.dist is not None else "an unknown distribution"
    return name.lower().replace("_", "-")
