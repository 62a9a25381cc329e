"""What a run tells whoever keeps a journal of it, and what a journal may tell the run.

The engine and the store know each other through this alone. A journal hears of every call before it is made, of its end
before anything comes of that, and of every moment at which the engine reads its clock. The run waits for it before a
call is sent and before the result is told. One that remembers an earlier run tells the endings and the moments of that
run in place of new ones: so a run is resumed, and replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from llm_council.errors import CouncilError
from llm_council.models.deliberation import Phase, Problem, Status
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest

__all__ = ["NO_JOURNAL", "Call", "Ending", "Journal"]


@attrs.frozen(kw_only=True)
class Call:
    """One call of a run that is about to be made.

    Attributes:
        name: the same for the same call of the same run, such as ``"draft/local-1/1"``.
        phase: what it is for.
        seat: who is asked.
        request: what is asked.
    """

    name: str
    phase: Phase
    seat: str
    request: GenerateRequest


@attrs.frozen(kw_only=True)
class Ending:
    """How a call ended.

    Attributes:
        response: what was answered; beside an error where that answer is none.
        error: why there is no answer.
        elapsed: seconds.
        sent: whether the call was made: one that the budget refuses is not.
        cut: whether the run's own bound ended it.
        spent: what the run had spent by then, for the ledger to go on from.
        problem: deprecated, None in new journals; 0.1.0 recorded here why it had stopped an answer before its end.
        kept: deprecated, None in new journals; 0.1.0 recorded here how many characters of it were worth showing.
    """

    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0
    sent: bool = True
    cut: bool = False
    spent: Mapping[str, Any] = attrs.field(factory=dict)
    problem: Problem | None = None
    kept: int | None = None


class Journal(Protocol):
    """What listens to one run. No method raises: a journal that fails says so in ``warnings``."""

    def at(self, moment: str, now: float) -> float:
        """Take note of a moment, and return the seconds since the run's start that hold for it.

        Args:
            moment: what happens, such as ``"opened:draft"``; empty for nothing of note.
            now: what the clock says.
        """
        ...

    def decided(self, moment: str, *, now: bool) -> bool:
        """Take note of what the clock decided, and return the decision that holds."""
        ...

    def recalled(self, call: Call) -> Ending | None:
        """Return the ending that stands for a call, which is then not made; None for one that is to be made."""
        ...

    async def turn(self, call: Call) -> None:
        """Wait until it is time for a recalled ending."""

    async def asking(self, call: Call) -> None:
        """Take note of a call, and return once that and all before it is safe: it is not made before."""

    async def answered(self, call: Call, ending: Ending) -> None:
        """Take note of an ending, which must be safe before ``asking`` or ``finished`` return."""

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader of the result should know of this journal."""
        ...

    async def finished(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        """Take note of the result, and return further warnings once it is safe."""
        ...

    def left(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        """Take note of the result of a run that was cancelled, without waiting."""
        ...


class _NoJournal:
    """Keep nothing."""

    def at(self, moment: str, now: float) -> float:
        return now

    def decided(self, moment: str, *, now: bool) -> bool:
        return now

    def recalled(self, call: Call) -> Ending | None:
        return None

    async def turn(self, call: Call) -> None:
        return None

    async def asking(self, call: Call) -> None:
        return None

    async def answered(self, call: Call, ending: Ending) -> None:
        return None

    def warnings(self) -> tuple[str, ...]:
        return ()

    async def finished(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        return ()

    def left(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        return None


NO_JOURNAL: Journal = _NoJournal()
"""The journal of a run that is not stored."""
