"""Evaluate on your tasks whether a council beats its best seat, and repeated samples of one seat at equal cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

__all__ = [
    "Calibration",
    "Comparison",
    "EvalOptions",
    "EvalPlan",
    "EvalProgress",
    "EvalReport",
    "EvalStream",
    "EvalTask",
    "FieldPath",
    "Headroom",
    "Interval",
    "Score",
    "Scorer",
    "ScorerKind",
    "TaskSet",
    "Verdict",
    "VerdictKind",
    "aevaluate",
    "evaluate",
    "evaluate_stream",
    "evaluate_sync",
    "example_tasks",
    "plan_evaluation",
    "read_answer",
    "read_tasks",
    "replay",
    "score",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "calibration": ["Calibration"],
        "headroom": ["Headroom"],
        "planning": ["EvalPlan", "plan_evaluation"],
        "report": ["EvalReport"],
        "run": [
            "EvalOptions",
            "EvalProgress",
            "EvalStream",
            "aevaluate",
            "evaluate",
            "evaluate_stream",
            "evaluate_sync",
            "replay",
        ],
        "scorers": ["FieldPath", "Score", "Scorer", "ScorerKind", "read_answer", "score"],
        "statistics": ["Interval"],
        "tasks": ["EvalTask", "TaskSet", "example_tasks", "read_tasks"],
        "verdicts": ["Comparison", "Verdict", "VerdictKind"],
    },
)

if TYPE_CHECKING:
    from llm_council.evals.calibration import Calibration
    from llm_council.evals.headroom import Headroom
    from llm_council.evals.planning import EvalPlan, plan_evaluation
    from llm_council.evals.report import EvalReport
    from llm_council.evals.run import (
        EvalOptions,
        EvalProgress,
        EvalStream,
        aevaluate,
        evaluate,
        evaluate_stream,
        evaluate_sync,
        replay,
    )
    from llm_council.evals.scorers import FieldPath, Score, Scorer, ScorerKind, read_answer, score
    from llm_council.evals.statistics import Interval
    from llm_council.evals.tasks import EvalTask, TaskSet, example_tasks, read_tasks
    from llm_council.evals.verdicts import Comparison, Verdict, VerdictKind
