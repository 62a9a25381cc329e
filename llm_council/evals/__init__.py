"""Evaluations: does a council pay on your tasks, against its best seat and against repeated samples at equal cost?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

__all__ = [
    "Calibration",
    "Comparison",
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
    "read_answer",
    "read_tasks",
    "score",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "calibration": ["Calibration"],
        "headroom": ["Headroom"],
        "scorers": ["FieldPath", "Score", "Scorer", "ScorerKind", "read_answer", "score"],
        "statistics": ["Interval"],
        "tasks": ["EvalTask", "TaskSet", "read_tasks"],
        "verdicts": ["Comparison", "Verdict", "VerdictKind"],
    },
)

if TYPE_CHECKING:
    from llm_council.evals.calibration import Calibration
    from llm_council.evals.headroom import Headroom
    from llm_council.evals.scorers import FieldPath, Score, Scorer, ScorerKind, read_answer, score
    from llm_council.evals.statistics import Interval
    from llm_council.evals.tasks import EvalTask, TaskSet, read_tasks
    from llm_council.evals.verdicts import Comparison, Verdict, VerdictKind
