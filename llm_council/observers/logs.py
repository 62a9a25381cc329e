"""A run in the log of the standard library, without a word of what was said."""

from __future__ import annotations

import logging

from llm_council.events import (
    AttemptFailed,
    Degraded,
    Event,
    Listener,
    PhaseFinished,
    RunFinished,
    RunStarted,
    SeatFinished,
    SeatReset,
)

__all__ = ["log_runs"]


def log_runs(logger: logging.Logger | str = "llm_council.runs") -> Listener:
    """Return a listener that logs what happens in a run; records have ``run_id``, ``event`` and what the event tells.

    What went well is INFO, its details DEBUG, what went wrong WARNING. Neither tasks nor answers nor messages of errors
    are in any record.

    Args:
        logger: the logger or its name.
    """
    log = logging.getLogger(logger) if isinstance(logger, str) else logger

    def listen(event: Event) -> None:
        level, words, facts = _told(event)
        if words and log.isEnabledFor(level):
            kind = type(event).__name__
            log.log(level, "run %s: %s", event.run_id, words, extra={"run_id": event.run_id, "event": kind, **facts})

    return listen


def _told(event: Event) -> tuple[int, str, dict[str, object]]:
    match event:
        case RunStarted(plan=plan):
            seats = [seat.name for seat in plan.seats]
            facts: dict[str, object] = {"subagent": plan.subagent, "strategy": plan.strategy, "seats": seats}
            return logging.INFO, f"{plan.subagent} with {', '.join(seats)}", facts
        case PhaseFinished(phase=phase, elapsed=elapsed):
            return logging.DEBUG, f"{phase} took {elapsed:.2f} s", {"phase": str(phase), "elapsed": elapsed}
        case AttemptFailed(phase=phase, seat=seat, error=error, retry_in=wait):
            kind = type(error).__name__
            facts = {"phase": str(phase), "seat": seat, "error": kind, "retry_in": wait}
            then = "" if wait is None else f"; again in {wait:.1f} s"
            return logging.WARNING, f"{seat} failed to {phase}: {kind}{then}", facts
        case SeatReset(phase=phase, seat=seat):
            return logging.INFO, f"{seat} begins to {phase} again", {"phase": str(phase), "seat": seat}
        case SeatFinished(phase=phase, seat=seat, error=error, elapsed=elapsed):
            facts = {"phase": str(phase), "seat": seat, "elapsed": elapsed}
            if error is None:
                return logging.DEBUG, f"{seat} answered in {elapsed:.2f} s ({phase})", facts
            kind = type(error).__name__
            return logging.WARNING, f"{seat} gave no {phase}: {kind}", {**facts, "error": kind}
        case Degraded(seats=names):
            return logging.WARNING, f"goes on with something missing: {', '.join(names) or 'a phase'}", {"seats": names}
        case RunFinished(status=status, elapsed=elapsed):
            level = logging.INFO if status == "completed" else logging.WARNING
            return level, f"{status} after {elapsed:.2f} s", {"status": str(status), "elapsed": elapsed}
    return logging.DEBUG, "", {}
