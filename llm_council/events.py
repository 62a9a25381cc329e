"""The events of a run, and how listeners receive them."""

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
        run_id: the run.
        at: seconds since the run's start, on a monotonic clock.
    """

    _is_tagged: ClassVar[bool] = True  # the JSON converter writes the class name of an event

    run_id: str
    at: float


@attrs.frozen(kw_only=True)
class RunStarted(Event):
    """A run starts; ``plan`` describes it."""

    plan: Plan


@attrs.frozen(kw_only=True)
class PhaseStarted(Event):
    """A phase begins."""

    phase: Phase


@attrs.frozen(kw_only=True)
class SeatStarted(Event):
    """A seat, by its name, is asked in a phase."""

    phase: Phase
    seat: str


@attrs.frozen(kw_only=True)
class TextDelta(Event):
    """The next characters of a seat's answer in a phase: ``text`` comes after all that came since its last reset."""

    phase: Phase
    seat: str
    text: str


@attrs.frozen(kw_only=True)
class AttemptFailed(Event):
    """A try of a seat's call failed with ``error``; ``retry_in`` is the seconds until the next, if there is one."""

    phase: Phase
    seat: str
    error: CouncilError
    retry_in: float | None = None


@attrs.frozen(kw_only=True)
class SeatFinished(Event):
    """A seat answered (``response``) or failed (``error``), ``elapsed`` seconds after it was asked; never both."""

    phase: Phase
    seat: str
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0


@attrs.frozen(kw_only=True)
class SeatReset(Event):
    """A seat's stream was restarted for a ``reason``, in words for people: forget its text of this phase."""

    phase: Phase
    seat: str
    reason: str


@attrs.frozen(kw_only=True)
class PhaseFinished(Event):
    """A phase ended after ``elapsed`` seconds."""

    phase: Phase
    elapsed: float


@attrs.frozen(kw_only=True)
class Degraded(Event):
    """The run goes on with something missing: the ``reason``, in words for people, and the seats that it is about."""

    reason: str
    seats: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class RunFinished(Event):
    """A run ended with a status, after ``elapsed`` seconds; its result is ``CouncilStream.result``."""

    status: Status
    elapsed: float


Listener: TypeAlias = Callable[[Event], None]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("llm_council_listeners", default=())


def emit(event: Event) -> None:
    """Hand an event to every listener of the current context, in order.

    A listener that raises does not disturb the run: its exception is logged, once for each event.
    """
    for listener in _listeners.get():
        try:
            listener(event)
        except Exception:  # a listener is the caller's code; a run must not fail for it
            logger = logging.getLogger("llm_council")
            logger.exception("listener %r failed on %s", listener, type(event).__name__)


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Call the listeners for the events of this context and of the tasks that are started in it."""
    token = _listeners.set((*_listeners.get(), *listeners))
    try:
        yield
    finally:
        _listeners.reset(token)
