"""Ask a seat. This is the only way from the engine to a provider.

``ask`` replays the call from the journal or makes it, and reports it; ``run_call`` bounds it in time and turns its end
into a ``CallRecord``; ``fetch`` calls the provider and accounts for what that took.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from math import inf
from typing import Any, Final

import anyio
import attrs
from anyio.lowlevel import checkpoint

from llm_council._engine.budget import Reservation, may_be_billed
from llm_council._engine.history import forget_oldest, shown_tasks
from llm_council._engine.partial_output import reader_of
from llm_council._engine.shared_prefix import answer_has_begun, request_to_send
from llm_council._engine.state import CallDeadline, RunState
from llm_council._runtime import call_context, live_runs
from llm_council._schema import drop_thinking
from llm_council.errors import ContentFiltered, ContextTooLong, CouncilError, EmptyReply, TimedOut, failed_attempt
from llm_council.errors._secrets import StreamMask
from llm_council.events import AttemptFailed, SeatFinished, SeatReset, SeatStarted, TextDelta
from llm_council.models import (
    Adjustment,
    Attempt,
    Cost,
    CostSource,
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Phase,
    SeatSpec,
    join,
)
from llm_council.models._attrs import copy_with, mask_secrets
from llm_council.models._journal import Call, CallRecord
from llm_council.providers._call.other_content import other_content
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.results import CallReport

__all__ = ["CallOutcome", "ask", "invalid_answer"]

HISTORY_FIELD: Final = "history"
"""The field of the ``Adjustment`` for earlier tasks that were left out of a call."""

_NO_COST: Final = Cost(usd=0.0, source=CostSource.TABLE, complete=True)


@attrs.frozen
class CallOutcome:
    """The result of a call: an answer or an error, never both.

    Attributes:
        response: the answer; None after an error.
        error: the reason why there is no answer; None after an answer.
        elapsed: seconds from the start of the call to its end.
        cut: True if the run's own deadline ended the call.
    """

    response: GenerateResponse | None
    error: CouncilError | None
    elapsed: float
    cut: bool = False


async def ask(
    state: RunState,
    phase: Phase,
    seat: SeatSpec,
    request: GenerateRequest,
    deadline: CallDeadline,
    *,
    spare_calls: int = 0,
    name: str | None = None,
) -> CallOutcome:
    """Ask a seat once, and record the call in the run's state, journal and events.

    Args:
        state: the run.
        phase: the phase that the call belongs to.
        seat: the seat to ask.
        request: the request.
        deadline: when the call must end; a call that runs into it ends with ``TimedOut``.
        spare_calls: calls of this size that the budget must still allow afterwards.
        name: the name of the call; None makes the next one of this phase and seat. See ``RunState.name_call``.

    Returns:
        The outcome. Provider errors are returned, not raised; cancellation from outside passes through.
    """
    asked = Call(name=name or state.name_call(phase, seat.name), phase=phase, seat=seat.name, request=request)
    ending = state.journal.stored_ending(asked)
    if ending is not None:
        if ending.sent:
            _report_start(state, asked)
        await state.journal.wait_in_order(asked)
        state.ledger.restore(ending.spent)
    else:
        ending = await run_call(state, seat, asked, deadline, spare_calls=spare_calls)
        await state.journal.record_ending(asked, ending)
    error, elapsed = ending.error, ending.elapsed
    response = ending.response if error is None else None
    _report_left_out(state, seat, response)
    at = state.elapsed(f"settled:{asked.name}")
    report = CallReport(phase=phase, response=response, error=error, elapsed=elapsed)
    state.calls.setdefault(seat.name, []).append(report)
    state.emit(SeatFinished, at=at, phase=phase, seat=seat.name, response=response, error=error, elapsed=elapsed)
    return CallOutcome(response, error, elapsed, ending.cut)


def _report_start(state: RunState, asked: Call) -> float:
    """Emit ``SeatStarted``, and return its time in seconds since the start of the run."""
    at = state.elapsed(f"asked:{asked.name}")
    state.emit(SeatStarted, at=at, phase=asked.phase, seat=asked.seat)
    return at


def _report_left_out(state: RunState, seat: SeatSpec, response: GenerateResponse | None) -> None:
    """Warn once of earlier tasks that were left out of a seat's call."""
    for adjustment in response.adjustments if response is not None else ():
        if adjustment.field == HISTORY_FIELD:
            left, asked = adjustment.sent, adjustment.asked
            shown = f"the last {left} of {asked} earlier tasks" if left else f"none of {asked} earlier tasks"
            warning = f"{seat.name} was shown {shown}: more do not fit into its context"
            if warning not in state.warnings:
                state.warnings.append(warning)


async def run_call(
    state: RunState, seat: SeatSpec, asked: Call, deadline: CallDeadline, *, spare_calls: int = 0
) -> CallRecord:
    """Make a call within its deadline once the budget allows it, and return how it ended.

    A call that was cancelled before its task started is not sent.
    """
    began = state.elapsed()
    response: GenerateResponse | None = None
    error: CouncilError | None = None
    cut = sent = False
    adapter = state.adapters[asked.seat]
    try:
        with deadline.scope:
            if deadline.scope.cancel_called:
                await checkpoint()  # raises
            request = request_to_send(state.plan, adapter, asked.seat, asked.request)
            end = deadline.scope.deadline
            prefix_turn: AbstractAsyncContextManager[Callable[[], None] | None] = nullcontext()
            if request is not asked.request:  # it marks a prefix
                prefix_turn = state.prefixes.turn(state.plan, adapter, asked.seat, request, end)
            async with state.wait_turn(seat, end), prefix_turn as on_begun:
                began = state.elapsed()
                reserved = state.ledger.reserve(seat, asked.request, spare_calls=spare_calls)
                began, sent = _report_start(state, asked), True
                response = await fetch(
                    _CallAttempts(state, asked, began, reserved), adapter, request, deadline, on_begun
                )
        cut = deadline.scope.cancelled_caught
        error = None if response is None else invalid_answer(response)
    except CouncilError as failure:
        error = failure.with_traceback(None)  # it becomes part of the result; its frames hold requests and replies
        # The call's own timeout equals the scope's deadline: either of the two clocks may be the first to notice.
        cut = isinstance(failure, TimedOut) and anyio.current_time() >= deadline.scope.deadline
    elapsed = state.elapsed() - began
    if cut:
        partial = getattr(error, "partial", None)
        message = f"{seat.name} was cut after {elapsed:.1f} s: {deadline.reason}"
        error = TimedOut(message, phase="deadline", partial=partial)
    if error is not None:
        run_id, phase = state.plan.run_id, str(asked.phase)
        error.fill(provider=seat.provider, model=seat.model, run_id=run_id, elapsed=elapsed, phase=phase)
    return CallRecord(
        response=response, error=error, elapsed=elapsed, sent=sent, cut=cut, spent=state.ledger.snapshot()
    )


async def fetch(
    attempts: _CallAttempts,
    adapter: ProviderAdapter,
    request: GenerateRequest,
    deadline: CallDeadline,
    on_begun: Callable[[], None] | None,
) -> GenerateResponse:
    """Call the provider, and settle the call's reservation exactly once, however the call ends.

    The answer is streamed only when somebody listens to its text, or waits for it to begin.

    Args:
        attempts: the call.
        adapter: the provider.
        request: the request as it is sent.
        deadline: when the call must end.
        on_begun: called once the answer begins; None if nobody waits for that.
    """
    state, asked = attempts.state, attempts.asked
    response: GenerateResponse | None = None  # still None if the call is cancelled, for ``finally``
    tries, billed = 1, True  # a cancelled call may have been billed
    try:
        with live_runs.entered_call():
            await state.journal.record_call(asked)  # before it is sent: a killed run shows what may have been billed
            with call_context.entered(_scope_of(attempts, deadline)):
                response = await fetch_within_context(attempts, adapter, request, on_begun)
        tries = len(response.attempts)
    except CouncilError as failure:
        tries, billed = len(failure.attempts), may_be_billed(failure)
        raise
    finally:
        cost = state.ledger.settle(attempts.reserved, response, billed=billed, tries=tries)
    if cost is None and response.cost is None and state.ledger.is_free(attempts.reserved.seat):
        cost = _NO_COST
    return response if cost is None else copy_with(response, cost=cost)


async def fetch_within_context(
    attempts: _CallAttempts, adapter: ProviderAdapter, request: GenerateRequest, on_begun: Callable[[], None] | None
) -> GenerateResponse:
    """Call the provider; where the conversation exceeds the model's context, again without the oldest earlier tasks.

    Each further try leaves out half of them. The answer's ``adjustments`` tell how many were left. Arguments are those
    of ``fetch``.
    """
    state = attempts.state
    seat = attempts.reserved.seat
    refused: tuple[Attempt, ...] = ()
    adjusted: Adjustment | None = None
    while True:
        try:
            if attempts.asked.phase in state.deltas or on_begun is not None:
                response = await fetch_streamed(attempts, adapter, request, on_begun)
            else:
                response = await call(adapter, request)
        except ContextTooLong as failure:
            shorter = forget_oldest(state.plan, seat, request)
            if shorter is None or not attempts.reserve_retry(failure):
                failure.attempts = (*refused, *failure.attempts)
                raise
            if not failure.attempts:  # no middleware has reported it
                attempts.record_failure(failure, 0.0)
            refused += failure.attempts
            request, left = shorter
            asked = len(shown_tasks(state.plan.history, seat))
            adjusted = Adjustment(field=HISTORY_FIELD, action="dropped", asked=asked, sent=left, reason=failure.message)
        else:
            if response.attempts and not refused:
                return response
            tries = (*refused, *response.attempts) if response.attempts else attempts.all(response)
            adjustments = response.adjustments if adjusted is None else (*response.adjustments, adjusted)
            return copy_with(response, attempts=tries, adjustments=adjustments)


async def fetch_streamed(
    attempts: _CallAttempts,
    adapter: ProviderAdapter,
    request: GenerateRequest,
    on_begun: Callable[[], None] | None = None,
) -> GenerateResponse:
    """Stream the answer, and emit its text as it arrives, if somebody listens."""
    state, asked = attempts.state, attempts.asked
    chunks: list[GenerateChunk] = []
    mask = StreamMask()  # events reach logs and terminals
    is_heard = asked.phase in state.deltas
    reader = reader_of(state.plan, asked) if is_heard else None

    def report(text: str) -> None:
        attempts.report_text(text)
        if reader is not None and text:
            state.report_partial(mask_secrets(reader.feed(text)))

    async with aclosing(stream(adapter, request)) as arriving:
        async for chunk in arriving:
            chunks.append(chunk)
            if on_begun is not None and answer_has_begun(chunk):
                on_begun()
            if not is_heard:
                continue
            if chunk.reset is not None:
                mask, reader = StreamMask(), reader_of(state.plan, asked)
                state.emit(SeatReset, at=state.elapsed(), phase=asked.phase, seat=asked.seat, reason=chunk.reset)
            if chunk.text:
                report(mask.feed(chunk.text))
    report(mask.rest())
    if reader is not None:
        state.report_partial(mask_secrets(reader.finish()))
    return mask_secrets(join(chunks))


def _scope_of(attempts: _CallAttempts, deadline: CallDeadline) -> call_context.RunScope:
    """Return the context of a call for middleware and transports; its deadline is a reading of the run's clock."""
    left = deadline.scope.deadline - anyio.current_time()
    clock = attempts.state.clock
    return copy_with(
        call_context.current(),
        deadline=None if left == inf else clock() + left,
        clock=clock,
        on_failed_attempt=attempts.record_failure,
        afford=attempts.reserve_retry,
        asked_at=clock(),
        on_refused=attempts.report_refusal,
    )


def invalid_answer(response: GenerateResponse) -> CouncilError | None:
    """Return the error of an answer that a council cannot use although other callers can; None for a usable one.

    ``returns.require_answer`` has already refused what is no answer for any caller. A draft, a review or a result must
    also be complete, and hold more than the model's thinking.
    """
    text = response.text or ""
    facts: dict[str, Any] = {"request_id": response.request_id, "attempts": response.attempts}
    if response.finish_reason == FinishReason.CONTENT_FILTER:
        words = f": {response.refusal}" if response.refusal else ""
        return ContentFiltered(f"the answer was withheld{words}", partial=text or None, **facts)
    if response.structured is None and not drop_thinking(text).strip():
        words = "nothing but thinking" if text.strip() else "nothing"
        cut = "; max_tokens cut it off" if response.finish_reason == FinishReason.LENGTH else ""
        instead = other_content(response)
        if instead is not None:  # another call would bring and cost the same
            return EmptyReply(f"the model wrote no text, but {instead}", retryable=False, **facts)
        return EmptyReply(f"the model wrote {words}{cut}", **facts)
    return None


@attrs.define
class _CallAttempts:
    """The attempts of one call. Failed ones are emitted as events, and stored for a stream, whose chunks carry none.

    Attributes:
        state: the run.
        asked: the call.
        began: start of the call, in seconds since the start of the run.
        reserved: the call's reservation in the ledger.
        last: start of the current attempt, likewise.
        failed: the attempts that failed.
    """

    state: RunState
    asked: Call
    began: float
    reserved: Reservation
    last: float = attrs.field(default=attrs.Factory(lambda self: self.began, takes_self=True))
    failed: list[Attempt] = attrs.field(factory=list)

    def report_text(self, text: str) -> None:
        """Emit the next characters of the answer."""
        if text:
            asked = self.asked
            self.state.emit(TextDelta, at=self.state.elapsed(), phase=asked.phase, seat=asked.seat, text=text)

    def reserve_retry(self, error: CouncilError) -> bool:
        """Reserve another attempt after this error; return False if the budget has no room for it."""
        return self.state.ledger.retry(self.reserved, billed=may_be_billed(error))

    def record_failure(self, error: CouncilError, retry_in: float | None) -> None:
        """Record a failed attempt.

        Args:
            error: its error.
            retry_in: seconds until the next attempt; None if there is none.
        """
        now = self.state.elapsed()
        at, elapsed = self.last - self.began, now - self.last
        self.failed.append(failed_attempt(error, at=at, elapsed=elapsed, retry_in=retry_in))
        self.last = now + (retry_in or 0.0)
        phase, seat = self.asked.phase, self.asked.seat
        self.state.emit(AttemptFailed, at=now, phase=phase, seat=seat, error=error, retry_in=retry_in)

    def report_refusal(self, error: CouncilError, retry_in: float) -> None:
        """Emit that the vendor has refused the call, which waits for its turn again: that is no attempt."""
        self.last = now = self.state.elapsed()
        phase, seat = self.asked.phase, self.asked.seat
        self.state.emit(AttemptFailed, at=now, phase=phase, seat=seat, error=error, retry_in=retry_in)

    def all(self, response: GenerateResponse) -> tuple[Attempt, ...]:
        """Return every attempt of a call that succeeded in the end."""
        elapsed = self.state.elapsed() - self.last
        return (*self.failed, Attempt(at=self.last - self.began, elapsed=elapsed, request_id=response.request_id))
