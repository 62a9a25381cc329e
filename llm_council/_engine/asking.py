"""The one way to ask a seat: in turn, within its bound, counted before and after, and written down."""

from __future__ import annotations

from contextlib import aclosing
from math import inf
from typing import Any

import anyio
import attrs

from llm_council._engine.budget import Reservation, may_be_billed
from llm_council._engine.prospect import Doom, Prospect
from llm_council._engine.sitting import Bound, Sitting
from llm_council._runtime import call_context
from llm_council._schema import drop_thinking
from llm_council.errors import ContentFiltered, CouncilError, EmptyReply, TimedOut, TruncatedReply
from llm_council.errors._secrets import StreamMask
from llm_council.events import AttemptFailed, SeatFinished, SeatReset, SeatStarted, TextDelta, emit
from llm_council.models import (
    Attempt,
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Phase,
    SeatSpec,
    join,
)
from llm_council.models._attrs import copy_with, mask_secrets
from llm_council.models._journal import Call, Ending
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.results import CallReport

__all__ = ["Outcome", "ask"]


@attrs.frozen
class Outcome:
    """How a call ended: with an answer or with an error.

    Attributes:
        response: the answer.
        error: why there is none.
        elapsed: seconds.
        cut: whether our own bound ended it.
        doom: why the answer was not read to its end.
    """

    response: GenerateResponse | None
    error: CouncilError | None
    elapsed: float
    cut: bool = False
    doom: Doom | None = None


async def ask(
    sitting: Sitting,
    phase: Phase,
    seat: SeatSpec,
    request: GenerateRequest,
    bound: Bound,
    *,
    keep: int = 0,
    prospect: Prospect | None = None,
) -> Outcome:
    """Ask a seat, and write down what became of it. Errors are returned; cancellation from outside passes.

    Args:
        sitting: the run.
        phase: what the call is for.
        seat: who is asked.
        request: what is asked.
        bound: until when; a call that it cuts is an outcome with ``TimedOut``.
        keep: calls of the budget that must be left over.
        prospect: reads the answer as it arrives; one that it calls doomed is stopped, and the outcome has its doom.
    """
    number = 1 + sum(call.phase == phase for call in sitting.calls.get(seat.name, ()))
    asked = Call(name=f"{phase}/{seat.name}/{number}", phase=phase, seat=seat.name, request=request)
    ending = sitting.journal.recalled(asked)
    if ending is not None:
        if ending.sent:
            _start(sitting, asked)
        await sitting.journal.turn(asked)
        sitting.ledger.restore(ending.spent)
    else:
        ending = await _made(sitting, seat, asked, bound, prospect, keep=keep)
        await sitting.journal.answered(asked, ending)
    response = ending.response if ending.error is None else None
    doom = None if ending.problem is None else Doom(ending.problem, ending.kept)
    return _note(sitting, seat, asked, Outcome(response, ending.error, ending.elapsed, ending.cut, doom))


def _start(sitting: Sitting, asked: Call) -> float:
    began = sitting.at(f"asked:{asked.name}")
    emit(SeatStarted(run_id=sitting.plan.run_id, at=began, phase=asked.phase, seat=asked.seat))
    return began


async def _made(
    sitting: Sitting, seat: SeatSpec, asked: Call, bound: Bound, prospect: Prospect | None, *, keep: int
) -> Ending:
    """Make a call in its turn, and say how it ended."""
    began = sitting.at()
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    doom: Doom | None = None
    cut = sent = False
    try:
        with bound.scope:
            async with sitting.turn(seat, bound.scope.deadline):
                began = sitting.at()
                held = sitting.ledger.reserve(seat, asked.request, keep=keep)
                began, sent = _start(sitting, asked), True
                response, doom = await _counted(_Tries(sitting, asked, seat, began, held), bound, prospect)
        cut = bound.scope.cancelled_caught
        error = _unusable(response) if response is not None else None
    except CouncilError as failure:
        error = failure.with_traceback(None)  # it goes into the result: its frames hold what was sent and what came
        # The call's own deadline is our bound: which of the two clocks strikes first does not matter.
        cut = isinstance(failure, TimedOut) and anyio.current_time() >= bound.scope.deadline
    elapsed = sitting.at() - began
    if cut:
        partial = getattr(error, "partial", None)
        error = TimedOut(f"{seat.name} was cut after {elapsed:.1f} s: {bound.why}", phase="deadline", partial=partial)
    if error is not None:
        run_id, phase = sitting.plan.run_id, str(asked.phase)
        error.fill(provider=seat.provider, model=seat.model, run_id=run_id, elapsed=elapsed, phase=phase)
    return Ending(
        response=response,
        error=error,
        elapsed=elapsed,
        sent=sent,
        cut=cut,
        spent=sitting.ledger.snapshot(),
        problem=None if doom is None else doom.problem,
        kept=None if doom is None else doom.keep,
    )


async def _counted(tries: _Tries, bound: Bound, prospect: Prospect | None) -> tuple[GenerateResponse, Doom | None]:
    """Get the answer, and put into the ledger what it took, however it ends."""
    ledger = tries.sitting.ledger
    response: GenerateResponse | None = None
    made, billed = 1, True  # a call that is cancelled may have been billed
    try:
        await tries.sitting.journal.asking(tries.asked)
        with call_context.entered(_scope_of(tries, bound)):
            response, doom = await _answer(tries, tries.asked.request, prospect)
        made = len(response.attempts)
    except CouncilError as failure:
        made, billed = len(failure.attempts), may_be_billed(failure)
        raise
    finally:
        cost = ledger.settle(tries.held, response, billed=billed, tries=made)
    return (response if cost is None else copy_with(response, cost=cost)), doom


def _note(sitting: Sitting, seat: SeatSpec, asked: Call, outcome: Outcome) -> Outcome:
    run_id, phase, elapsed = sitting.plan.run_id, asked.phase, outcome.elapsed
    response, error = outcome.response, outcome.error
    at = sitting.at(f"settled:{asked.name}")
    stopped = None
    if outcome.doom is not None:
        problem = outcome.doom.problem
        stopped = f"{problem.path}: {problem.message}"
        words = f"{seat.name} was stopped after {elapsed:.1f} s: its answer could no longer become valid"
        sitting.warnings.append(f"{words}: {stopped}")
        _reset(sitting, asked, at, stopped)
    report = CallReport(phase=phase, response=response, error=error, elapsed=elapsed, stopped=stopped)
    sitting.calls.setdefault(seat.name, []).append(report)
    emit(
        SeatFinished(run_id=run_id, at=at, phase=phase, seat=seat.name, response=response, error=error, elapsed=elapsed)
    )
    return outcome


def _reset(sitting: Sitting, asked: Call, at: float, reason: str) -> None:
    emit(SeatReset(run_id=sitting.plan.run_id, at=at, phase=asked.phase, seat=asked.seat, reason=reason))


def _scope_of(tries: _Tries, bound: Bound) -> call_context.RunScope:
    """Tell middleware and transports until when this call may last, by the run's own clock."""
    left = bound.scope.deadline - anyio.current_time()
    clock = tries.sitting.clock
    return copy_with(
        call_context.current(),
        deadline=None if left == inf else clock() + left,
        clock=clock,
        tried=tries.note,
        afford=tries.afford,
    )


async def _answer(
    tries: _Tries, request: GenerateRequest, prospect: Prospect | None
) -> tuple[GenerateResponse, Doom | None]:
    """Get the answer, streamed where somebody reads it as it arrives.

    Where that is the prospect alone, nobody has seen the words of a stream that breaks off: the call is then made again
    and whole, as it would have been made without the prospect.
    """
    sitting = tries.sitting
    adapter = sitting.adapters[tries.seat.name]
    doom: Doom | None = None
    failed: tuple[Attempt, ...] = ()
    if prospect is None and not sitting.deltas:
        response = await call(adapter, request)
    else:
        try:
            response, doom = await _streamed(tries, adapter, request, prospect)
        except CouncilError as error:
            broken = error.retryable and getattr(error, "partial", None)
            if sitting.deltas or not broken or not sitting.plan.retry.max_retries or not tries.afford(error):
                raise
            if not tries.failed:
                tries.note(error, 0.0)
            failed = tuple(tries.failed)
            response = await call(adapter, request)
    if not response.attempts:
        return attrs.evolve(response, attempts=tries.all(response)), doom
    return (attrs.evolve(response, attempts=(*failed, *response.attempts)) if failed else response), doom


async def _streamed(
    tries: _Tries, adapter: ProviderAdapter, request: GenerateRequest, prospect: Prospect | None
) -> tuple[GenerateResponse, Doom | None]:
    """Read a stream, to its end unless its answer is doomed: then closing it ends the request."""
    sitting = tries.sitting
    chunks: list[GenerateChunk] = []
    doom = None
    veil = StreamMask()
    async with aclosing(stream(adapter, request)) as pieces:
        async for chunk in pieces:
            chunks.append(chunk)
            if chunk.reset is not None:
                prospect = None if prospect is None else prospect.fresh()
                veil = StreamMask()
                if sitting.deltas:
                    _reset(sitting, tries.asked, sitting.at(), chunk.reset)
            if not chunk.text:
                continue
            if sitting.deltas:
                tries.tell(veil.feed(chunk.text))
            if prospect is not None:
                # Known since the piece before: an answer whose last piece is at fault has nothing left to save.
                doom = prospect.doom
                if doom is not None:
                    break
                prospect.feed(chunk.text)
    tries.tell(veil.rest())
    response = mask_secrets(join(chunks))
    if doom is None:
        return response, None
    # What a stream counts on its way is not what it cost.
    return attrs.evolve(response, usage=None, cost=None), doom


@attrs.define
class _Tries:
    """The failed tries of one call: told to listeners, and kept for a streamed answer, whose pieces carry none."""

    sitting: Sitting
    asked: Call
    seat: SeatSpec
    began: float
    held: Reservation
    last: float = attrs.field(default=attrs.Factory(lambda self: self.began, takes_self=True))
    failed: list[Attempt] = attrs.field(factory=list)

    def tell(self, text: str) -> None:
        """Tell listeners the next words of the answer."""
        if text:
            sitting, phase = self.sitting, self.asked.phase
            emit(TextDelta(run_id=sitting.plan.run_id, at=sitting.at(), phase=phase, seat=self.seat.name, text=text))

    def afford(self, error: CouncilError) -> bool:
        """Tell whether the budget has room for another try after this error, and reserve it."""
        return self.sitting.ledger.again(self.held, billed=may_be_billed(error))

    def note(self, error: CouncilError, retry_in: float | None) -> None:
        now = self.sitting.at()
        self.failed.append(
            Attempt(
                at=self.last - self.began,
                elapsed=now - self.last,
                error=type(error).__name__,
                message=error.message,
                status=getattr(error, "status", None),
                request_id=error.request_id,
                retry_in=retry_in,
            )
        )
        self.last = now + (retry_in or 0.0)
        emit(
            AttemptFailed(
                run_id=self.sitting.plan.run_id,
                at=now,
                phase=self.asked.phase,
                seat=self.seat.name,
                error=error,
                retry_in=retry_in,
            )
        )

    def all(self, response: GenerateResponse) -> tuple[Attempt, ...]:
        """Return every try of a call that succeeded in the end."""
        elapsed = self.sitting.at() - self.last
        return (*self.failed, Attempt(at=self.last - self.began, elapsed=elapsed, request_id=response.request_id))


def _unusable(response: GenerateResponse) -> CouncilError | None:
    """Say why an answer is none: withheld, refused, broken off, or empty but for its thinking."""
    text = response.text or ""
    reason = response.finish_reason
    facts: dict[str, Any] = {"request_id": response.request_id, "attempts": response.attempts}
    if reason == FinishReason.CONTENT_FILTER or (response.refusal and not text.strip()):
        words = f": {response.refusal}" if response.refusal else ""
        return ContentFiltered(f"the answer was withheld{words}", partial=text or None, **facts)
    if reason == FinishReason.ERROR:
        return TruncatedReply("the provider broke the answer off with an error", partial=text or None, **facts)
    if response.structured is None and not drop_thinking(text).strip():
        words = "nothing but thinking" if text.strip() else "nothing"
        cut = "; max_tokens cut it off" if reason == FinishReason.LENGTH else ""
        return EmptyReply(f"the model wrote {words}{cut}", **facts)
    return None
