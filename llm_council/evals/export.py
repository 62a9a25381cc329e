"""Write task sets for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from llm_council.evals.scorers import ScorerKind, score
from llm_council.evals.tasks import TaskSet

__all__ = ["inspect_lines"]


def inspect_lines(tasks: TaskSet) -> Iterator[str]:
    """Yield the lines of a file that ``inspect_ai.dataset.json_dataset`` reads.

    Its targets are texts, or lists of texts; the targets of choices are letters (inspect_ai, ``Sample``).
    """
    for task in tasks.tasks:
        line = task.to_dict()
        metadata = {**line.pop("metadata", {}), "scorer": line.pop("scorer")}
        line["target"] = _target(task.target)
        if task.scorer.kind == ScorerKind.CHOICE:
            schema = task.schema or {}
            right = next(place for place, choice in enumerate(schema["enum"]) if score(task, choice).points == 1)
            line["target"] = chr(ord("A") + right)
        yield json.dumps({**line, "metadata": metadata}, ensure_ascii=False)


def _target(target: Any) -> str | list[str]:
    if isinstance(target, list | tuple):
        return [_word(one) for one in target]
    return _word(target)


def _word(target: Any) -> str:
    return target if isinstance(target, str) else json.dumps(target, ensure_ascii=False, sort_keys=True)
