"""Evaluations: does a council pay on your tasks, against its best seat and against repeated samples at equal cost?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_council._lazy import lazy_names

__all__ = [
    "EvalTask",
    "FieldPath",
    "Score",
    "Scorer",
    "ScorerKind",
    "TaskSet",
    "read_answer",
    "read_tasks",
    "score",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "scorers": ["FieldPath", "Score", "Scorer", "ScorerKind", "read_answer", "score"],
        "tasks": ["EvalTask", "TaskSet", "read_tasks"],
    },
)

if TYPE_CHECKING:
    from llm_council.evals.scorers import FieldPath, Score, Scorer, ScorerKind, read_answer, score
    from llm_council.evals.tasks import EvalTask, TaskSet, read_tasks
