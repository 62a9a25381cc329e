"""The engine: a plan and some adapters become a result. It is loaded by the first run, not by the first council."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

if TYPE_CHECKING:
    from llm_council._engine.plan import RunRequest, make_plan, plan_for
    from llm_council._engine.run import run_plan

__all__ = ["RunRequest", "make_plan", "plan_for", "run_plan"]

__getattr__, __dir__ = lazy_names(__name__, {"plan": ["RunRequest", "make_plan", "plan_for"], "run": ["run_plan"]})
