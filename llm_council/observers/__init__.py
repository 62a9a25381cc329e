"""Ready-made listeners of runs: ``Council(listeners=[...])``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["log_runs", "trace_runs"]

_HOMES = {"log_runs": "logs", "trace_runs": "otel"}

if TYPE_CHECKING:
    from llm_council.observers.logs import log_runs
    from llm_council.observers.otel import trace_runs


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
