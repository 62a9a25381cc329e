"""The words of the final answer, from the events of a run, as they are written."""

from __future__ import annotations

from llm_council.events import AnyEvent, RunStarted, SeatReset, TextDelta
from llm_council.models import Phase, Plan

__all__ = ["FinalWords"]

_BEGUN_AGAIN = "\n\n(The answer was begun again.)\n\n"


class FinalWords:
    """Passes on the text of the final answer.

    A reader cannot take words back, so only text passes that becomes the answer if nothing fails: that of the chair, or
    that of the only seat. Answers that are counted, and JSON, arrive whole at the end.

    Args:
        prose: False for an answer in JSON, which may be repaired.
    """

    def __init__(self, *, prose: bool) -> None:
        self._prose = prose
        self._phase: Phase | None = None
        self._writer: str | None = None
        self._sent = ""

    def phases(self, plan: Plan) -> tuple[Phase, ...]:
        """Return the phases of a run whose words may pass; in the others, nobody listens."""
        phase = _final_phase(plan) if self._prose else None
        return () if phase is None else (phase,)

    def take(self, event: AnyEvent) -> str:
        """Return the words of an event that belong to the answer; empty if there are none."""
        if isinstance(event, RunStarted):
            (self._phase,) = self.phases(event.plan) or (None,)
        if isinstance(event, SeatReset) and event.phase == self._phase and event.seat == self._writer:
            self._phase = None  # it writes another text now, which comes at the end
        if not isinstance(event, TextDelta) or event.phase != self._phase:
            return ""
        if self._writer not in (None, event.seat):  # another seat has taken over; what it writes comes at the end
            return ""
        self._writer = event.seat
        self._sent += event.text
        return event.text

    def rest(self, answer: str) -> str:
        """Return what is missing of the answer once the run has ended."""
        if answer.startswith(self._sent):
            return answer[len(self._sent) :]
        if answer.strip() == self._sent.strip():
            return ""
        return _BEGUN_AGAIN + answer


def _final_phase(plan: Plan) -> Phase | None:
    """Return the phase whose text is the final answer; None if it is known only at the end."""
    if Phase.SYNTHESISE in plan.phases:
        return Phase.SYNTHESISE
    return Phase.DRAFT if len(plan.drafters) == 1 and set(plan.phases) == {Phase.DRAFT} else None
