"""Say where an unknown keyword of ``Council`` or of a run belongs: an option of the other, a limit, a setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import attrs

from llm_council.config import CouncilConfig
from llm_council.errors import UnknownOption
from llm_council.models import Budget, RetryPolicy

__all__ = ["unknown_keyword"]

_TASK = "the task is the first argument"
_SEAT = 'a model is named in its seat, as in Council(["openai/gpt-5.4"])'

# What other libraries call things.
_OTHER_WORDS = {
    "prompt": _TASK,
    "question": _TASK,
    "messages": _TASK,
    "model": _SEAT,
    "models": _SEAT,
    "stream": "call council.stream(task), which yields events",
    "system": "pass Council(..., config=CouncilConfig(system_context=...)), or write a subagent",
    "timeout": "pass budget=Budget(deadline=...), in seconds",
    "api_key": 'set the variable of the provider, or pass get_provider(NAME, api_key="...") as a seat',
}


def unknown_keyword(
    name: str, owner: str, accepted: Iterable[str], places: Mapping[str, Iterable[str]]
) -> UnknownOption:
    """Return the error for a keyword that does not exist.

    Args:
        name: the keyword.
        owner: what was called, for the message: ``"Council"`` or ``"a run"``.
        accepted: the keywords that it takes.
        places: how to pass other keywords -> their names; ``{}`` stands for the keyword. The first place wins.
    """
    taken = tuple(accepted)
    remedies = _remedies(places)
    message = f"{owner} takes no option {name!r}"
    if name in remedies:
        return UnknownOption(f"{message}; {remedies[name]}")
    similar = get_close_matches(name.lower(), [*taken, *remedies], n=1)
    if not similar:
        return UnknownOption(message)
    meant = similar[0]
    where = "" if meant in taken else f" {remedies[meant]}"
    return UnknownOption(f"{message}; did you mean {meant!r}?{where}")


def _remedies(places: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return how to pass each keyword that belongs elsewhere."""
    known: dict[str, Iterable[str]] = {
        **places,
        "pass budget=Budget({}=...)": [field.name for field in attrs.fields(Budget)],
        "pass Council(..., config=CouncilConfig({}=...))": [field.name for field in attrs.fields(CouncilConfig)],
        "pass Council(..., config=CouncilConfig(retry=RetryPolicy({}=...)))": [
            field.name for field in attrs.fields(RetryPolicy)
        ],
    }
    remedies = dict(_OTHER_WORDS)
    for remedy, names in known.items():
        for name in names:
            remedies.setdefault(name, remedy.format(name))
    return remedies
