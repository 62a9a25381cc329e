"""The events of a run, and the listeners that receive them."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from llm_council.errors import CouncilError, InvalidOption
from llm_council.errors._secrets import clean
from llm_council.models._attrs import as_dict, as_tuple
from llm_council.models.deliberation import Phase, Plan, Ranking, Status
from llm_council.models.reply import GenerateResponse
from llm_council.models.votes import Agreement, Answer, Check, Dissent, Judgement, Round, Rung, Tally

__all__ = [
    "AnyEvent",
    "AttemptFailed",
    "Checked",
    "Degraded",
    "Event",
    "Judged",
    "Listener",
    "PartialOutput",
    "PhaseFinished",
    "PhaseStarted",
    "Ranked",
    "RoundFinished",
    "RunFinished",
    "RunStarted",
    "RungFinished",
    "SeatFinished",
    "SeatReset",
    "SeatStarted",
    "Tallied",
    "TextDelta",
    "as_listeners",
    "emit",
    "listening",
]


_MAX_LINE = 200  # characters of the line that ``str`` returns


@attrs.frozen(kw_only=True)
class Event:
    """Base of all events. ``str`` returns one line for people.

    Attributes:
        type: the name of the class, such as ``"TextDelta"``.
        run_id: the run's id.
        at: seconds since the start of the run, on a monotonic clock.
    """

    _is_tagged: ClassVar[bool] = True  # the JSON converter writes the class name of an event
    type: ClassVar[str] = "Event"

    run_id: str
    at: float  # not the time of day, which a clock may set back

    def __init_subclass__(cls) -> None:
        if "type" not in vars(cls):  # an event of a plugin
            cls.type = cls.__name__

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain JSON values, its ``type`` among them; ``from_dict`` reads them back."""
        from llm_council.models._convert import dump  # imports cattrs, which a run does not need

        data: dict[str, Any] = dump(self)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Event:
        """Return the event that ``to_dict`` wrote, as an instance of its own class.

        Raises:
            InvalidOption: the data does not fit; the message names the path.
        """
        from llm_council.models._convert import load

        return load(Event, data)

    def __str__(self) -> str:
        """Return the event as one line: seconds since the start of the run, and what happened."""
        # Texts of models and vendors may contain line breaks and terminal commands.
        return f"{self.at:.1f} s: {' '.join(clean(self._summary(), limit=_MAX_LINE).split())}"

    def _summary(self) -> str:
        return self.type


@attrs.frozen(kw_only=True)
class RunStarted(Event):
    """A run starts with this plan."""

    type: ClassVar[Literal["RunStarted"]] = "RunStarted"

    plan: Plan

    def _summary(self) -> str:
        return f"run started: {self.plan.subagent} with {', '.join(seat.name for seat in self.plan.seats)}"


@attrs.frozen(kw_only=True)
class PhaseStarted(Event):
    """A phase starts."""

    type: ClassVar[Literal["PhaseStarted"]] = "PhaseStarted"

    phase: Phase

    def _summary(self) -> str:
        return f"{self.phase} started"


@attrs.frozen(kw_only=True)
class SeatStarted(Event):
    """The call of a seat starts in a phase; ``seat`` is its name."""

    type: ClassVar[Literal["SeatStarted"]] = "SeatStarted"

    phase: Phase
    seat: str

    def _summary(self) -> str:
        return f"{self.phase} {self.seat}: asked"


@attrs.frozen(kw_only=True)
class TextDelta(Event):
    """The next characters of a seat's answer in a phase. ``SeatReset`` voids the text before it."""

    type: ClassVar[Literal["TextDelta"]] = "TextDelta"

    phase: Phase
    seat: str
    text: str

    def _summary(self) -> str:
        return f"{self.phase} {self.seat}: {self.text!r}"


@attrs.frozen(kw_only=True)
class AttemptFailed(Event):
    """An attempt of a seat's call failed; ``retry_in`` is the seconds until the next attempt, None without one."""

    type: ClassVar[Literal["AttemptFailed"]] = "AttemptFailed"

    phase: Phase
    seat: str
    error: CouncilError
    retry_in: float | None = None

    def _summary(self) -> str:
        then = "" if self.retry_in is None else f"; next attempt in {self.retry_in:.1f} s"
        return f"{self.phase} {self.seat}: {type(self.error).__name__}: {self.error}{then}"


@attrs.frozen(kw_only=True)
class SeatFinished(Event):
    """A seat has answered (``response``) or failed (``error``), ``elapsed`` seconds after its call started."""

    type: ClassVar[Literal["SeatFinished"]] = "SeatFinished"

    phase: Phase
    seat: str
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    elapsed: float = 0.0

    def _summary(self) -> str:
        outcome = "answered" if self.error is None else f"failed with {type(self.error).__name__}: {self.error},"
        return f"{self.phase} {self.seat}: {outcome} after {self.elapsed:.1f} s"


@attrs.frozen(kw_only=True)
class SeatReset(Event):
    """The answer of a seat starts again: its text of this phase so far is void. ``reason`` is for people."""

    type: ClassVar[Literal["SeatReset"]] = "SeatReset"

    phase: Phase
    seat: str
    reason: str

    def _summary(self) -> str:
        return f"{self.phase} {self.seat}: starts again: {self.reason}"


@attrs.frozen(kw_only=True)
class PhaseFinished(Event):
    """A phase has ended after ``elapsed`` seconds."""

    type: ClassVar[Literal["PhaseFinished"]] = "PhaseFinished"

    phase: Phase
    elapsed: float

    def _summary(self) -> str:
        return f"{self.phase} ended after {self.elapsed:.1f} s"


@attrs.frozen(kw_only=True)
class Degraded(Event):
    """The run continues with something missing. ``reason`` is for people; ``seats`` are the names of the seats."""

    type: ClassVar[Literal["Degraded"]] = "Degraded"

    reason: str
    seats: tuple[str, ...] = ()

    def _summary(self) -> str:
        return f"degraded: {self.reason}"


@attrs.frozen(kw_only=True)
class Tallied(Event):
    """The answers of the seats were counted: the count, how far they agree, and the answers that did not win."""

    type: ClassVar[Literal["Tallied"]] = "Tallied"

    tally: Tally
    agreement: Agreement | None = None
    dissent: tuple[Dissent, ...] = attrs.field(default=(), converter=as_tuple)

    def _summary(self) -> str:
        votes = ", ".join(f"{key} {weight:g}" for key, weight in self.tally.points.items())
        return f"tallied: {votes or 'no answer could be read'}"


@attrs.frozen(kw_only=True)
class Ranked(Event):
    """The rankings of the reviewers were counted; not emitted if none could be read."""

    type: ClassVar[Literal["Ranked"]] = "Ranked"

    ranking: Ranking

    def _summary(self) -> str:
        return f"ranked: {', '.join(f'{seat} {self.ranking.points.get(seat, 0):g}' for seat in self.ranking.order)}"


@attrs.frozen(kw_only=True)
class RoundFinished(Event):
    """The seats have answered in a round of a strategy in which they may change their minds."""

    type: ClassVar[Literal["RoundFinished"]] = "RoundFinished"

    round: Round

    def _summary(self) -> str:
        said = ", ".join(f"{seat} {answer.shown}" for seat, answer in self.round.answers.items())
        return f"round {self.round.number}: {said or 'no answer could be read'}"


@attrs.frozen(kw_only=True)
class RungFinished(Event):
    """A group of seats has answered, and the strategy has decided whether another one is asked."""

    type: ClassVar[Literal["RungFinished"]] = "RungFinished"

    rung: Rung

    def _summary(self) -> str:
        return f"{', '.join(self.rung.seats)}: {self.rung.reason}"


@attrs.frozen(kw_only=True)
class Judged(Event):
    """A judge has compared drafts."""

    type: ClassVar[Literal["Judged"]] = "Judged"

    judgement: Judgement

    def _summary(self) -> str:
        scores = ", ".join(f"{author} {score:g}" for author, score in self.judgement.scores.items())
        return f"{self.judgement.judge} judged: {scores}"


@attrs.frozen(kw_only=True)
class Checked(Event):
    """A claim of the answer was checked by seats that have not seen the answer."""

    type: ClassVar[Literal["Checked"]] = "Checked"

    check: Check

    def _summary(self) -> str:
        return f"checked: {self.check.verdict}: {self.check.claim}"


@attrs.frozen(kw_only=True)
class PartialOutput(Event):
    """The answer so far, as a JSON value, in a streamed run whose answer has a schema.

    Strings and lists may be cut off, and properties may be missing. Each event replaces the one before it: a repair
    and another chair begin anew. The last one of a run with an answer has the value of its output.
    """

    type: ClassVar[Literal["PartialOutput"]] = "PartialOutput"

    value: Any

    def _summary(self) -> str:
        return f"answer so far: {self.value!r:.{_MAX_LINE}}"


@attrs.frozen(kw_only=True)
class RunFinished(Event):
    """A run has ended after ``elapsed`` seconds. Its result is ``CouncilStream.result``.

    Attributes:
        status: how it ended.
        elapsed: its duration in seconds.
        answers: of the result: the answer of each seat that could be read.
        overruled: of the result: True if the answer is not that of the majority; None if that cannot be told.
        otherwise: of the result: what other rules, and each seat alone, would have answered.
    """

    type: ClassVar[Literal["RunFinished"]] = "RunFinished"

    status: Status
    elapsed: float
    answers: Mapping[str, Answer] = attrs.field(factory=dict, converter=as_dict)
    overruled: bool | None = None
    otherwise: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)

    def _summary(self) -> str:
        return f"run {self.status} after {self.elapsed:.1f} s"


AnyEvent: TypeAlias = (
    AttemptFailed
    | Checked
    | Degraded
    | Judged
    | PartialOutput
    | PhaseFinished
    | PhaseStarted
    | Ranked
    | RoundFinished
    | RunFinished
    | RunStarted
    | RungFinished
    | SeatFinished
    | SeatReset
    | SeatStarted
    | Tallied
    | TextDelta
)
"""Any event that a run emits; type checkers narrow it by class and by ``type``."""

# Listeners are not async: an event must not make the run wait.
Listener: TypeAlias = Callable[[Event], None]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("llm_council_listeners", default=())


def as_listeners(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """Return the listeners of a council.

    Raises:
        InvalidOption: this is no list of functions, or one of them is async; the message names the remedy.
    """
    if isinstance(listeners, str | bytes | Mapping) or not isinstance(listeners, Iterable):
        raise InvalidOption(f"listeners: expected a list of functions, got {listeners!r:.80}")
    found = tuple(listeners)
    for listener in found:
        if not callable(listener):
            raise InvalidOption(f"listeners: expected functions that take an event, got {listener!r:.80}")
        if _is_async(listener):
            name = getattr(listener, "__qualname__", type(listener).__qualname__)
            raise InvalidOption(f"listeners: {name} is async, and a run never waits for a listener: {_ASYNC_REMEDY}")
    return found


_ASYNC_REMEDY = (
    "write 'async for event in council.stream(task)', or a plain function that hands the event over, such as"
    " queue.put_nowait"
)


def _is_async(listener: Any) -> bool:
    while isinstance(listener, functools.partial):
        listener = listener.func
    called = getattr(type(listener), "__call__", None)  # noqa: B004 - of an object with a method ``__call__``
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in (listener, called))


def emit(event: Event) -> None:
    """Call every listener of the current context with an event, in order.

    An exception of a listener is logged and does not affect the run.
    """
    for listener in _listeners.get():
        try:
            returned: object = listener(event)  # a lambda may return a coroutine
            if inspect.iscoroutine(returned):
                returned.close()
                raise TypeError(f"it returned a coroutine, which nobody awaits: {_ASYNC_REMEDY}")
        except Exception:  # a listener is the caller's code: a run must not fail because of it
            logger = logging.getLogger("llm_council")
            logger.exception("listener %r failed on %s", listener, type(event).__name__)


def is_listened_to() -> bool:
    """Return True if the current context has a listener."""
    return bool(_listeners.get())


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Call the listeners for the events of this context and of the tasks that it starts.

    Raises:
        InvalidOption: a listener is no function, or is async.
    """
    as_listeners(listeners)
    # A context variable: the listeners of one run do not receive the events of another that runs at the same time.
    token = _listeners.set((*_listeners.get(), *listeners))
    try:
        yield
    finally:
        _listeners.reset(token)
