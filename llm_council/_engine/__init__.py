"""The engine: a plan and some adapters become a result. It is loaded by the first run, not by the first council."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_council._engine.plan import RunRequest, make_plan
    from llm_council._engine.run import run_plan

__all__ = ["RunRequest", "make_plan", "run_plan"]

_HOMES = {"RunRequest": "plan", "run_plan": "run", "make_plan": "plan"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
