"""The events of a run, and the listeners that receive them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ClassVar, TypeAlias

import attrs

from llm_council.errors import CouncilError
from llm_council.models.deliberation import Phase, Plan, Status
from llm_council.models.reply import GenerateResponse

__all__ = [
    "AttemptFailed",
    "Degraded",
    "Event",
    "Listener",
    "PhaseFinished",
    "PhaseStarted",
    "RunFinished",
    "RunStarted",
    "SeatFinished",
    "SeatReset",
    "SeatStarted",
    "TextDelta",
    "emit",
    "listening",
]


@attrs.frozen(kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        run_id: the run's id.
        at: seconds since the start of the run, on a monotonic clock.
    """

    _is_tagged: ClassVar[bool] = True  # the JSON converter writes the class name of an event

    run_id: str
    at: float  # not the time of day, which a clock may set back


@attrs.frozen(kw_only=True)
class RunStarted(Event):
    """A run starts with this plan."""

    plan: Plan


@attrs.frozen(kw_only=True)
class PhaseStarted(Event):
    """A phase starts."""

    phase: Phase


@attrs.frozen(kw_only=True)
class SeatStarted(Event):
    """The call of a seat starts in a phase; ``seat`` is its name."""

    phase: Phase
    seat: str


@attrs.frozen(kw_only=True)
class TextDelta(Event):
    """The next characters of a seat's answer in a phase. ``SeatReset`` voids the text before it."""

    phase: Phase
    seat: str
    text: str


@attrs.frozen(kw_only=True)
class AttemptFailed(Event):
    """An attempt of a seat's call failed; ``retry_in`` is the seconds until the next attempt, None without one."""

    phase: Phase
    seat: str
    error: CouncilError
    retry_in: float | None = None


@attrs.frozen(kw_only=True)
class SeatFinished(Event):
    """A seat has answered (``response``) or failed (``error``), ``elapsed`` seconds after its call started."""

    phase: Phase
    seat: str
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0


@attrs.frozen(kw_only=True)
class SeatReset(Event):
    """The answer of a seat starts again: its text of this phase so far is void. ``reason`` is for people."""

    phase: Phase
    seat: str
    reason: str


@attrs.frozen(kw_only=True)
class PhaseFinished(Event):
    """A phase has ended after ``elapsed`` seconds."""

    phase: Phase
    elapsed: float


@attrs.frozen(kw_only=True)
class Degraded(Event):
    """The run continues with something missing. ``reason`` is for people; ``seats`` are the names of the seats."""

    reason: str
    seats: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class RunFinished(Event):
    """A run has ended after ``elapsed`` seconds. Its result is ``CouncilStream.result``."""

    status: Status
    elapsed: float


# Listeners are not async: an event must not make the run wait.
Listener: TypeAlias = Callable[[Event], None]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("llm_council_listeners", default=())


def emit(event: Event) -> None:
    """Call every listener of the current context with an event, in order.

    An exception of a listener is logged and does not affect the run.
    """
    for listener in _listeners.get():
        try:
            listener(event)
        except Exception:  # a listener is the caller's code: a run must not fail because of it
            logger = logging.getLogger("llm_council")
            logger.exception("listener %r failed on %s", listener, type(event).__name__)


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Call the listeners for the events of this context and of the tasks that it starts."""
    # A context variable: the listeners of one run do not receive the events of another that runs at the same time.
    token = _listeners.set((*_listeners.get(), *listeners))
    try:
        yield
    finally:
        _listeners.reset(token)
