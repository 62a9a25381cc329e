"""The ``LLM_COUNCIL_*`` variables: which exist, what they set, and errors that name them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from llm_council._plugins import find
from llm_council.errors import InvalidOption, UnknownOption
from llm_council.models._paths import expand_user

__all__ = ["STRATEGIES", "is_strategy", "read_environment", "unknown_variables", "variable_of"]

PREFIX = "LLM_COUNCIL_"

STRATEGIES = ("auto", "synthesize", "escalate", "judge", "poll", "rank", "revise", "sample", "single", "verify", "vote")
"""The names of the built-in strategies."""


def is_strategy(name: str) -> bool:
    """Return True if a strategy of this name is built in, or offered by another distribution."""
    # The engine loads strategies; a file is checked when it is read, so that the error can name it.
    return name in STRATEGIES or name in find("strategy")


_log = logging.getLogger("llm_council")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _paths(text: str) -> list[str]:
    return [path for path in text.split(os.pathsep) if path]


# Variable -> path of its setting, and how its text is converted.
_SETTINGS: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "LLM_COUNCIL_PROVIDERS": (("providers",), _names),
    "LLM_COUNCIL_CHAIR": (("chair",), str),
    "LLM_COUNCIL_STRATEGY": (("strategy",), str),
    "LLM_COUNCIL_DEADLINE": (("budget", "deadline"), float),
    "LLM_COUNCIL_QUORUM": (("budget", "quorum"), int),
    "LLM_COUNCIL_BUDGET_USD": (("budget", "usd"), float),
    "LLM_COUNCIL_TEMPERATURE": (("temperature",), float),
    "LLM_COUNCIL_MAX_TOKENS": (("max_tokens",), int),
    "LLM_COUNCIL_SUBAGENT_PATHS": (("subagent_paths",), _paths),
    "LLM_COUNCIL_STORE": (("store",), str),
    "LLM_COUNCIL_SEED": (("seed",), str),
}

# Variables that other modules read, without the prefix.
_OTHERS = ("CONFIG", "ALLOW_HTTP", "REDIS_URL", "LOCAL_MODEL", "NO_PLUGINS", "RECORD", "SERVE_TOKEN")

KNOWN = frozenset([*_SETTINGS, *(PREFIX + name for name in _OTHERS)])
"""Every variable of this package."""

# A similarity of difflib. Typing errors reach it; 0.6, the usual limit, would also take words that mean something else,
# and other programs have variables with this prefix too.
_TYPING_ERROR = 0.75
_TYPING_ERROR_IN_ALL = 0.91  # of a whole name; COUNCIL_STORE, which may belong to another program, has 0.87


def read_environment(check: Callable[[dict[str, Any], str], object]) -> dict[str, Any]:
    """Return the settings of all variables, as fields of ``CouncilConfig``.

    Args:
        check: called with the settings of one variable and its name; raises if the value is invalid.

    Raises:
        InvalidOption: a value is invalid; the message names the variable.
        UnknownOption: a variable looks like a misspelt one; the message suggests the right name.
    """
    for variable, similar in unknown_variables():
        if similar:
            raise UnknownOption(f"there is no environment variable {variable}; did you mean {similar}?")
        _log.info("the environment variable %s is ignored: it is none of this package", variable)
    for variable, similar in _misspelt_prefixes():
        _log.warning("the environment variable %s is ignored; did you mean %s?", variable, similar)
    allow_http = os.environ.get("LLM_COUNCIL_ALLOW_HTTP", "").strip()
    if allow_http not in ("", "0", "1"):
        raise InvalidOption(f"LLM_COUNCIL_ALLOW_HTTP: expected 1 or 0, got {allow_http!r:.80}")
    values: dict[str, Any] = {}
    for variable, (path, read) in _SETTINGS.items():
        text = os.environ.get(variable, "").strip()
        # Empty counts as unset: a CI system passes a secret that is not defined as an empty variable.
        if not text:
            continue
        try:
            value = read(text)
        except ValueError:
            kind = "a whole number" if read is int else "a number"
            raise InvalidOption(f"{variable}: expected {kind}, got {text!r:.80}") from None
        if variable == "LLM_COUNCIL_STORE" and expand_user(value).is_dir():
            raise InvalidOption(f"{variable}: {value} is a folder: name a file in it")
        check(_nested(path, value), variable)
        target = values
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = value
    return values


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    nested: Any = value
    for key in reversed(path):
        nested = {key: nested}
    settings: dict[str, Any] = nested
    return settings


def unknown_variables() -> Iterator[tuple[str, str | None]]:
    """Yield each set variable that begins like ours and is none of ours, with the one that was probably meant."""
    suffixes = [name.removeprefix(PREFIX) for name in KNOWN]
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable not in KNOWN:
            word = variable.removeprefix(PREFIX)
            similar = get_close_matches(word, suffixes, n=1, cutoff=_TYPING_ERROR)
            yield variable, PREFIX + similar[0] if similar else None


def _misspelt_prefixes() -> Iterator[tuple[str, str]]:
    """Yield each set variable whose prefix is nearly ours, such as LLM_COUNCL_STORE, with the one that was meant."""
    for variable in sorted(os.environ):
        word = variable.upper()
        # Comparing costs time at each start: variables that cannot be meant are left out first.
        if variable.startswith(PREFIX) or "COUN" not in word:
            continue
        similar = get_close_matches(word, KNOWN, n=1, cutoff=_TYPING_ERROR_IN_ALL)
        if similar:
            yield variable, similar[0]


def variable_of(setting: str, value: Any) -> str | None:
    """Return the variable that sets a setting to this value; None if the setting comes from elsewhere.

    Args:
        setting: the name of the setting; that of a limit follows its table, as in ``"budget.quorum"``.
        value: the value in force.
    """
    for variable, (path, read) in _SETTINGS.items():
        text = os.environ.get(variable, "").strip()
        if text and ".".join(path) == setting:
            try:
                same = read(text) == (list(value) if isinstance(value, tuple) else value)
            except ValueError:
                return None
            return variable if same else None
    return None
