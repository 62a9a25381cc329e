"""The interface between the engine and a journal, which records a run and may replay an earlier one.

A running engine knows the store through this module alone; only ``_engine/resume.py`` opens the store. The engine
reports each call before it is sent, each call's ending before it uses the answer, and each reading of its clock. It
sends a call, and returns a result, only after the journal has stored it. A journal that holds an earlier run returns
that run's endings and times in place of new ones: this is how a run is resumed and replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from llm_council.errors import CouncilError
from llm_council.models.deliberation import Phase, Problem, Status
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest

__all__ = ["NO_JOURNAL", "Call", "CallRecord", "Journal"]


@attrs.frozen(kw_only=True)
class Call:
    """A call that a run is about to make.

    Attributes:
        name: phase, seat and number, such as ``"draft/local-1/1"``: the same in a replay and in a resumed run.
        phase: the phase that needs the answer.
        seat: the name of the seat that is asked.
        request: the request.
    """

    name: str
    phase: Phase
    seat: str
    request: GenerateRequest


@attrs.frozen(kw_only=True)
class CallRecord:
    """How a call ended, as the journal stores it.

    Attributes:
        response: the answer. Set beside an error if there was a reply that is not an answer.
        error: the reason why there is no answer.
        elapsed: seconds.
        sent: False if the budget refused the call.
        cut: True if the run's own deadline ended the call.
        spent: a snapshot of the ledger after the call; a resumed run continues from it.
        problem: deprecated, None in new journals; 0.1.0 recorded here why it had stopped an answer before its end.
        kept: deprecated, None in new journals; 0.1.0 recorded here how many characters of it were worth showing.
    """

    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0
    sent: bool = True
    cut: bool = False
    spent: Mapping[str, Any] = attrs.field(factory=dict)
    # Runs that 0.1.0 stored are read and replayed, so its fields stay.
    problem: Problem | None = None
    kept: int | None = None


class Journal:
    """Records one run. This base class records nothing; the store's journals override its methods.

    No method raises: a journal that cannot write says so in its warnings.
    """

    # In a replay the clock must not decide again: a call that was in time would be late on a slower machine.
    def record_moment(self, moment: str, now: float) -> float:
        """Record an event of the run, and return the time that the run must use for it.

        Args:
            moment: the event, such as ``"opened:draft"``; an empty one is not recorded.
            now: seconds since the start of the run, by the clock.

        Returns:
            Seconds since the start of the run: ``now``, or in a replay the time of the earlier run.
        """
        return now

    def record_decision(self, moment: str, *, now: bool) -> bool:
        """Record a decision that depends on the clock, and return the one that the run must follow.

        Args:
            moment: the decision, such as ``"overdue"``.
            now: the decision by the clock; in a replay that of the earlier run counts.
        """
        return now

    def stored_ending(self, call: Call) -> CallRecord | None:
        """Return the ending of an earlier run's call, to be used in place of the call; None if it must be made."""
        return None

    async def wait_in_order(self, call: Call) -> None:
        """Wait until everything that preceded a stored ending in the earlier run has happened again."""

    async def record_call(self, call: Call) -> None:
        """Record a call, and return once it and all earlier records are stored. It must not be sent before."""

    async def record_ending(self, call: Call, ending: CallRecord) -> None:
        """Record how a call ended. It may be stored later, but before ``record_call`` or ``record_result`` returns."""

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about this journal for the result."""
        return ()

    async def record_result(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        """Record the result, and return further warnings once it is stored.

        Args:
            status: the status of the run.
            result: returns the result as plain values; called in the journal's thread.
        """
        return ()

    def record_result_nowait(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        """Record the result of a cancelled run without waiting until it is stored."""


NO_JOURNAL = Journal()
"""The journal of a run that is not stored."""
