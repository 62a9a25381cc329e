"""Pacing: the calls of many runs wait for their turn, so that each provider gets as many as its vendor accepts.

A ``Pacer`` belongs to one mapping over many tasks, which makes it the current one of its context (``Pacer.active``),
and ends with it. It holds one ``Pace`` for each account at a vendor. ``providers.base`` leads every call of an adapter
through it, below all middleware, and ``Retry`` asks it whether a refused call may be sent again without using up a
retry. Without a current pacer, as in a single run, nothing of this happens: a run sends few calls at a time, and a
caller that waits for one answer rather hears of a refusal than waits for the end of a long pause.

A pacer serves the event loop in which it became the current one, so it needs no lock. Code that is called in another
thread, such as a blocking run in a worker thread of a strategy, has none.
"""

from __future__ import annotations

import logging
import random
import time
from bisect import insort
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from itertools import count
from math import inf
from threading import get_ident
from typing import Any, TypeGuard
from weakref import WeakSet

import anyio
import attrs

from llm_council._runtime import call_context
from llm_council.errors import CouncilError, ProviderError, RateLimited, ServerFailed
from llm_council.models._attrs import copy_with
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.providers._call.pace import Pace, SentCall

__all__ = ["Pacer", "current", "is_refusal", "seconds_waited"]

OVERLOADED = (503, 529)
"""Statuses of a server that is overloaded: 503 of RFC 9110, section 15.6.4, and 529 of Anthropic."""

PATIENCE = 5
"""Refusals in a row after which an overloaded server counts as failed: its calls then use up their retries."""

SHOWN_WAIT = 0.001
"""Seconds. A shorter wait for the turn is not reported."""

_SHOWN_PAUSE = 1.0  # seconds; a shorter pause is logged for debugging only

_log = logging.getLogger("llm_council")


class Pacer:
    """Lets calls through in the order in which their runs made them, at the pace that each vendor accepts.

    Args:
        clock: returns monotonic seconds.
        jitter: returns a random number from 0 to 1.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._gates: dict[int, _Gate] = {}  # by the id of the adapter, which the gate holds
        self._by_account: dict[str, _Gate] = {}
        self._paced: WeakSet[CouncilError] = WeakSet()
        self._postponed: WeakSet[CouncilError] = WeakSet()
        self._numbers = count()
        self._thread = 0
        self._room: anyio.Event | None = None

    @contextmanager
    def active(self) -> Iterator[Pacer]:
        """Make this the current pacer, for this context and the tasks that start in it."""
        self._thread = get_ident()
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    async def wait_for_room(self) -> None:
        """Wait until no call waits for its turn: before that, another run would only use up its own deadline."""
        while any(gate.waiters for gate in self._gates.values()):
            self._room = self._room or anyio.Event()
            await self._room.wait()

    def pace_of(self, adapter: Any) -> Pace:
        """Return the pace of an adapter's account, for those who watch it."""
        return self._gate_of(adapter).pace

    def learn(self, adapter: Any, limits: Iterable[tuple[str, str, int, float]]) -> None:
        """Take what the headers of a reply say is left of a vendor's limits.

        Args:
            adapter: the adapter that has received the reply.
            limits: the arguments of ``Pace.learn``, except the time.
        """
        pace, now = self._gate_of(adapter).pace, self._clock()
        for name, unit, left, seconds in limits:
            pace.learn(name, unit, left, seconds, now)

    def may_repeat(self, error: CouncilError) -> bool:
        """Return True if a call that failed with this error was refused, and may be sent again when it is its turn."""
        return error in self._paced

    def postpone(self, error: CouncilError) -> None:
        """Note an error of a call for which no provider of a group was there, because all had refused calls."""
        self._postponed.add(error)

    def is_postponed(self, error: CouncilError) -> bool:
        """Return True for an error that ``postpone`` has noted."""
        return error in self._postponed

    async def ask(
        self, adapter: Any, seconds: float | None, send: Callable[[], Awaitable[GenerateResponse]]
    ) -> GenerateResponse:
        """Call an adapter when it is the call's turn, and learn from the outcome.

        Args:
            adapter: the adapter.
            seconds: most seconds to wait; None is no limit.
            send: makes the call.

        Raises:
            RateLimited: there is no room in time.
            CouncilError: ``send`` has raised it.
        """
        gate, began = self._gate_of(adapter), self._clock()
        call = await gate.enter(seconds)
        waited = self._clock() - began
        try:
            response = await send()
        except BaseException as error:
            gate.leave_after(call, error)
            raise
        gate.leave(None if response.usage is None else response.usage.total_tokens)
        if waited < SHOWN_WAIT:
            return response
        return copy_with(response, extra={**response.extra, "pace": {"waited": waited}})

    async def ask_streamed(
        self, adapter: Any, seconds: float | None, send: Callable[[], AsyncIterator[GenerateChunk]]
    ) -> AsyncGenerator[GenerateChunk, None]:
        """Yield an adapter's stream, which begins when it is the call's turn. Arguments and errors as for ``ask``."""
        gate, began = self._gate_of(adapter), self._clock()
        call = await gate.enter(seconds)
        waited = self._clock() - began
        tokens: int | None = None
        try:
            pieces: Any = send()
            async with aclosing(pieces):
                async for piece in pieces:
                    if piece.usage is not None:
                        tokens = piece.usage.total_tokens
                    yield piece
        except BaseException as error:
            gate.leave_after(call, error)
            raise
        gate.leave(tokens)
        if waited >= SHOWN_WAIT:
            yield GenerateChunk(extra={"pace": {"waited": waited}})

    def _gate_of(self, adapter: Any) -> _Gate:
        gate = self._gates.get(id(adapter))
        if gate is None:
            account = adapter.account_identity()
            gate = self._by_account.get(account) if account is not None else None
            gate = gate or _Gate(self, adapter)
            gate.adapters.append(adapter)
            self._gates[id(adapter)] = gate
            if account is not None:
                self._by_account[account] = gate
        return gate


class _Gate:
    """The waiting calls of one account.

    Attributes:
        pace: its pace.
        adapters: the adapters of the account; they are held, so that their ids stay theirs.
        waiters: the waiting calls, the next one first.
    """

    def __init__(self, pacer: Pacer, adapter: Any) -> None:
        self.pace = Pace(pacer._jitter)
        self.adapters: list[Any] = []
        self.waiters: list[_Waiter] = []
        self._pacer = pacer
        self._name = adapter.name

    async def enter(self, seconds: float | None) -> SentCall:
        """Wait for the turn of a call, and count it as sent."""
        now = self._pacer._clock()
        if not self.waiters and not self.pace.wait(now):
            return self.pace.send()
        scope = call_context.current()
        asked_at = now if scope.asked_at is None else scope.asked_at
        waiter = _Waiter(asked_at, next(self._pacer._numbers))
        insort(self.waiters, waiter)
        try:
            return await self._wait(waiter, inf if seconds is None else now + seconds)
        finally:
            self.waiters.remove(waiter)
            self._wake()

    async def _wait(self, waiter: _Waiter, end: float) -> SentCall:
        while True:
            now = self._pacer._clock()
            left = end - now
            pause = self.pace.paused_until - now
            wait = self.pace.wait(now) if self.waiters[0] is waiter else inf
            if not wait and left > 0:
                return self.pace.send()
            if left <= 0 or pause > left or left < wait < inf:
                raise self._no_room(max(0.0, left), pause if wait == inf else wait)
            waiter.woken = anyio.Event()
            longest = min(left, wait)
            with anyio.move_on_after(None if longest == inf else longest):
                await waiter.woken.wait()

    def leave(self, tokens: int | None) -> None:
        """Count an answer."""
        self.pace.answered(tokens)
        self._wake()

    def leave_after(self, call: SentCall, error: BaseException) -> None:
        """Count a call that ended with an error or a cancellation."""
        if is_refusal(error):
            now = self._pacer._clock()
            is_news = self.pace.refused(call, now, error.retry_after)
            if isinstance(error, RateLimited) or self.pace.refused_in_a_row <= PATIENCE:
                self._pacer._paced.add(error)
            if is_news:
                self._report(error, self.pace.paused_until - now)
        else:
            self.pace.ended()
        self._wake()

    def _wake(self) -> None:
        if self.waiters:
            self.waiters[0].woken.set()
        elif self._pacer._room is not None:
            room, self._pacer._room = self._pacer._room, None
            room.set()

    def _no_room(self, left: float, wait: float) -> RateLimited:
        waiting = f"{len(self.waiters) - 1} other calls wait" if len(self.waiters) > 1 else "no other call waits"
        return RateLimited(
            f"{self._name} takes {int(self.pace.limit)} calls at a time now, {waiting}, and there is no room within"
            f" {left:.3g} s",
            retry_after=wait if 0 < wait < inf else None,
        )

    def _report(self, error: ProviderError, pause: float) -> None:
        level = logging.INFO if pause >= _SHOWN_PAUSE else logging.DEBUG
        if _log.isEnabledFor(level):
            status = getattr(error, "status", None)
            reason = type(error).__name__ if status is None else f"HTTP {status}"
            when = f", none for {pause:.1f} s" if pause > 0 else ""
            _log.log(level, "%s refuses calls (%s): %d at a time%s", self._name, reason, self.pace.limit, when)


@attrs.define(order=True)
class _Waiter:
    """A waiting call. Calls go in the order in which they were made first: a refused one does not lose its place."""

    asked_at: float
    number: int
    woken: anyio.Event = attrs.field(factory=anyio.Event, eq=False, order=False)


_current: ContextVar[Pacer | None] = ContextVar("llm_council_pacer", default=None)


def current() -> Pacer | None:
    """Return the pacer of the mapping that this code runs in; None outside one."""
    pacer = _current.get()
    return pacer if pacer is not None and pacer._thread == get_ident() else None


def seconds_waited(response: GenerateResponse) -> float | None:
    """Return how many seconds the call of an answer waited for its turn; None if it did not."""
    pace = response.extra.get("pace")  # an adapter may have put something else there
    waited = pace.get("waited") if isinstance(pace, Mapping) else None
    return waited if isinstance(waited, float) else None


def is_refusal(error: BaseException) -> TypeGuard[ProviderError]:
    """Return True if a vendor refused a call for its rate, or because it is overloaded."""
    if isinstance(error, RateLimited):
        return error.retryable  # False for one request above a whole limit: no pace helps it
    return isinstance(error, ServerFailed) and error.status in OVERLOADED
