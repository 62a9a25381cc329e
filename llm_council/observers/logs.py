"""Log the events of runs with the standard library, without tasks and answers."""

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
    """Return a listener that logs the events of a run.

    Failures are logged as WARNING, the start and the end of a run as INFO, details as DEBUG. Each record has the
    attributes ``run_id`` and ``event``, and those of the event. No record holds a task, an answer or the message of an
    error, which may quote them.

    Args:
        logger: the logger or its name.
    """
    log = logging.getLogger(logger) if isinstance(logger, str) else logger

    def listen(event: Event) -> None:
        level, message, attributes = _describe(event)
        if message and log.isEnabledFor(level):
            # ``logging`` raises KeyError for an attribute that every record has, such as ``name``, ``args`` or
            # ``module``.
            extra = {"run_id": event.run_id, "event": type(event).__name__, **attributes}
            log.log(level, "run %s: %s", event.run_id, message, extra=extra)

    return listen


def _describe(event: Event) -> tuple[int, str, dict[str, object]]:
    """Return the level, the message and the attributes of an event's record; no message means no record."""
    match event:
        case RunStarted(plan=plan):
            seats = [seat.name for seat in plan.seats]
            attributes: dict[str, object] = {"subagent": plan.subagent, "strategy": plan.strategy, "seats": seats}
            return logging.INFO, f"{plan.subagent} with {', '.join(seats)}", attributes
        case PhaseFinished(phase=phase, elapsed=elapsed):
            return logging.DEBUG, f"{phase} took {elapsed:.2f} s", {"phase": str(phase), "elapsed": elapsed}
        case AttemptFailed(phase=phase, seat=seat, error=error, retry_in=wait):
            kind = type(error).__name__
            attributes = {"phase": str(phase), "seat": seat, "error": kind, "retry_in": wait}
            then = "" if wait is None else f"; again in {wait:.1f} s"
            return logging.WARNING, f"{seat} failed to {phase}: {kind}{then}", attributes
        case SeatReset(phase=phase, seat=seat):
            return logging.INFO, f"{seat} begins to {phase} again", {"phase": str(phase), "seat": seat}
        case SeatFinished(phase=phase, seat=seat, error=error, elapsed=elapsed):
            attributes = {"phase": str(phase), "seat": seat, "elapsed": elapsed}
            if error is None:
                return logging.DEBUG, f"{seat} answered in {elapsed:.2f} s ({phase})", attributes
            kind = type(error).__name__
            return logging.WARNING, f"{seat} gave no {phase}: {kind}", {**attributes, "error": kind}
        case Degraded(seats=names):
            return logging.WARNING, f"goes on with something missing: {', '.join(names) or 'a phase'}", {"seats": names}
        case RunFinished(status=status, elapsed=elapsed):
            level = logging.INFO if status == "completed" else logging.WARNING
            return level, f"{status} after {elapsed:.2f} s", {"status": str(status), "elapsed": elapsed}
    # Starts and pieces of text have no record: that of the end has the same facts and the time.
    return logging.DEBUG, "", {}
