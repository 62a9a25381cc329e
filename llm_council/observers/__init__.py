"""Ready-made listeners of runs: ``Council(listeners=[...])``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

__all__ = ["log_runs", "trace_runs"]

__getattr__, __dir__ = lazy_names(__name__, {"logs": ["log_runs"], "otel": ["trace_runs"]})

if TYPE_CHECKING:
    from llm_council.observers.logs import log_runs
    from llm_council.observers.otel import trace_runs
