"""A started run failed, or its store did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_council.errors._base import CouncilError

__all__ = ["BudgetExceeded", "DeadlineExceeded", "InvalidOutput", "QuorumLost", "RunError", "StoreError"]


class RunError(CouncilError):
    """A started run failed; the ``CouncilResult`` that carries this error has whatever was finished."""


class QuorumLost(RunError):
    """Too few seats answered.

    Args:
        outcomes: what became of each seat: its error, or None for a seat that answered.
    """

    def __init__(
        self, message: str = "", *, outcomes: Mapping[str, CouncilError | None] | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.outcomes = dict(outcomes or {})


class InvalidOutput(RunError):
    """The answer never met its schema.

    Args:
        problems: what is wrong, one per failing path.
        text: the last answer.
    """

    def __init__(
        self, message: str = "", *, problems: Iterable[Any] = (), text: str | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.problems = tuple(problems)
        self.text = text


class BudgetExceeded(RunError):
    """A limit on money, tokens or calls was reached.

    Args:
        spent: what was spent, by the budget's words: ``usd``, ``tokens``, ``calls``.
        partial: the best text so far.
    """

    def __init__(
        self,
        message: str = "",
        *,
        spent: Mapping[str, float] | None = None,
        partial: str | None = None,
        **facts: Any,
    ) -> None:
        super().__init__(message, **facts)
        self.spent = dict(spent or {})
        self.partial = partial


class DeadlineExceeded(RunError):
    """The whole-run deadline passed.

    Args:
        partial: the best text so far.
    """

    def __init__(self, message: str = "", *, partial: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.partial = partial


class StoreError(CouncilError):
    """The run store failed; a run whose answer exists carries this as a warning.

    Args:
        kind: ``"full"``, ``"locked"``, ``"corrupt"``, ``"denied"``, ``"missing"`` (there is no such file),
            ``"newer"`` (a later version wrote it), ``"foreign"`` (it is another program's), ``"unknown-run"``,
            ``"running"`` (elsewhere, at this moment), ``"diverged"`` (a replay that asks what was never answered) or
            ``"other"``.
    """

    def __init__(self, message: str = "", *, kind: str = "other", **facts: Any) -> None:
        super().__init__(message, **facts)
        self.kind = kind
