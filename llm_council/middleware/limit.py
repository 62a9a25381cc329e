"""Limit: hold calls back so that an account's limits on calls, tokens and concurrency are kept."""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import aclosing
from math import inf
from typing import Any, Final

import anyio

from llm_council._runtime import call_context, loops
from llm_council.errors import InvalidOption, ProviderError, RateLimited
from llm_council.middleware._rates import Rate, SharedRates, Usage, Window
from llm_council.middleware.wrapper import Wrapper
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import pacing
from llm_council.providers._call.bounded import seconds_for, timeout_error
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Limit"]

ANSWER_TOKENS = 1000
"""Estimated tokens of an answer if the request sets no limit."""

_MIN_WAIT: Final = 0.001
"""Seconds. A shorter wait leaves the call its whole time; a shorter sleep would make a loop busy."""

# The gates that several limits of one account share. A gate lives as long as one of its limits.
_gates: weakref.WeakValueDictionary[tuple[Any, ...], _Gate] = weakref.WeakValueDictionary()


class Limit(Wrapper):
    """Hold calls back until the limits have room for them.

    In no period of a rate's length are there more calls, or more tokens, than the rate allows. Tokens are estimated
    before a call (a quarter of the prompt's characters, plus ``max_tokens``), and corrected by the reported usage after
    it. The wait counts against the time of the call and of the run. A call that would have to wait longer fails at once
    with ``RateLimited``; its ``retry_after`` is the time until there will be room. Waiting calls of several runs take
    turns, so that no run waits for all calls of another.

    Limits with equal figures on one account (the same address and key) count together: in this process, and with
    ``shared`` in every process that uses the same Redis, under a hash of the account. A call that the vendor refuses
    for its rate, or because it is overloaded, then stops the calls of all these processes for the time of its
    Retry-After, or for half a second.

    Args:
        inner: the provider.
        rate: calls, such as ``"60/minute"``.
        tokens: tokens in and out, such as ``"90k/minute"``.
        concurrency: calls at the same time, in this process.
        max_wait: most seconds to wait for room; None is as long as the call may take, 0 never waits.
        shared: the address of a Redis, ``redis://host:port/0``; needs the extra ``redis``.
        when_lost: what to do while that Redis cannot be reached: ``"alone"`` goes on counting in this process alone,
            ``"refuse"`` fails with ``ConnectFailed``.
        key: the name to count under, in place of the account's.
        clock: returns monotonic seconds.
        sleep: waits for a number of seconds.
    """

    _is_own_middleware = True
    _keeps_time_limits = True

    def __init__(
        self,
        inner: ProviderAdapter,
        *,
        rate: str | None = None,
        tokens: str | None = None,
        concurrency: int | None = None,
        max_wait: float | None = None,
        shared: str | None = None,
        when_lost: str = "alone",
        key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
    ) -> None:
        super().__init__(inner)
        rates: dict[str, Rate] = {}
        if rate is not None:
            rates["calls"] = Rate.of(rate, "rate")
        if tokens is not None:
            rates["tokens"] = Rate.of(tokens, "tokens")
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise InvalidOption(f"concurrency: a whole number of 1 or more, got {concurrency!r:.80}")
        if not rates and concurrency is None:
            raise InvalidOption("Limit needs a rate, tokens or concurrency")
        if max_wait is not None and not max_wait >= 0:
            raise InvalidOption(f"max_wait: a number of seconds of 0 or more, got {max_wait!r:.80}")
        if when_lost not in ("alone", "refuse"):
            raise InvalidOption(f"when_lost: 'alone' or 'refuse', got {when_lost!r:.80}")
        if shared is not None and not rates:
            raise InvalidOption("shared: there is no rate or tokens to share; concurrency is counted in each process")
        self._clock = clock
        self._is_shared = shared is not None
        self._counts_tokens = "tokens" in rates
        self._max_wait = inf if max_wait is None else max_wait
        self._concurrency = concurrency
        self._rate = rates.get("calls")
        # Without an account nothing can be shared, so each such limit has a gate of its own.
        account = key or inner.account_identity()
        figures = (account, rates.get("calls"), rates.get("tokens"), concurrency, shared, when_lost, clock, sleep)
        gate = _gates.get(figures) if account is not None else None
        if gate is None:
            remote = None
            if shared is not None:
                # Others may read the names in Redis, so the account appears there as a hash only.
                account_bytes = (account or inner._limit_identity()).encode()
                digest = hashlib.blake2b(account_bytes, digest_size=12, person=b"llm-council").hexdigest()
                remote = SharedRates(shared, digest, rates, clock)
            gate = _Gate(
                self.name,
                rates,
                concurrency=concurrency,
                shared=remote,
                counts_alone=when_lost == "alone",
                clock=clock,
                sleep=sleep,
            )
            if account is not None:
                gate = _gates.setdefault(figures, gate)
        self._gate = gate

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the wrapped provider once the limits have room."""
        seconds, began = seconds_for(self, request, None), self._clock()
        # Redis may be silent for longer than the call has. A local gate keeps to the time itself.
        with anyio.move_on_after(seconds if self._is_shared else None) as scope:
            used = await self._enter(request, inf if seconds is None else seconds)
        if scope.cancelled_caught:
            raise timeout_error(self.name, seconds)
        tokens: int | None = None
        try:
            waited = self._clock() - began
            left = None if seconds is None or waited < _MIN_WAIT else max(0.0, seconds - waited)
            response = await call(self.inner, request, deadline=left)
            if response.usage is not None:
                tokens = response.usage.total_tokens
        except ProviderError as error:
            await self._gate.report(error)
            raise
        finally:
            self._gate.leave(used, tokens)
        return response

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the wrapped provider's answer once the limits have room."""
        used = await self._enter(request, inf)
        reported: int | None = None
        tokens: int | None = None
        try:
            async with aclosing(stream(self.inner, request)) as chunks:
                async for chunk in chunks:
                    if chunk.usage is not None:
                        reported = chunk.usage.total_tokens
                    yield chunk
            tokens = reported  # counts of a stream that broke off are too low: the estimate stands
        except ProviderError as error:
            await self._gate.report(error)
            raise
        finally:
            self._gate.leave(used, tokens)

    def _most_calls_at_once(self) -> int | None:
        return self._concurrency

    def _most_calls_per_second(self) -> float | None:
        return None if self._rate is None else self._rate.amount / self._rate.seconds

    async def aclose(self) -> None:
        """Close the resources of the wrapped provider and the connections to Redis."""
        self._gate.close()
        await super().aclose()

    async def _enter(self, request: GenerateRequest, seconds: float) -> Usage | None:
        scope = call_context.current()
        bounds = (request.timeout_seconds, scope.left(), self._max_wait, seconds)
        left = min(bound for bound in bounds if bound is not None)
        cost = 0
        if self._counts_tokens:
            characters = sum(len(turn.text) for turn in request.turns())
            cost = characters // 4 + 1 + (request.max_tokens or ANSWER_TOKENS)
        return await self._gate.enter(cost, scope.run_id, left)


class _Gate:
    """Admits calls within the limits. Safe to use from any number of event loops and threads.

    Args:
        name: the name in errors.
        rates: the rates of ``"calls"`` and ``"tokens"``.
        concurrency: most calls at the same time.
        shared: counts the same rates together with other processes; None counts in this process only.
        counts_alone: True to count in this process alone while Redis cannot be reached.
        clock: returns monotonic seconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        name: str,
        rates: dict[str, Rate],
        *,
        concurrency: int | None,
        shared: SharedRates | None,
        counts_alone: bool,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._name = name
        self._limits = ", ".join(f"{rate.text} {what}" for what, rate in rates.items()) or f"{concurrency} at once"
        self._calls = Window(rates["calls"]) if "calls" in rates else None
        self._tokens = Window(rates["tokens"]) if "tokens" in rates else None
        self._concurrency = inf if concurrency is None else concurrency
        self._shared = shared
        self._counts_alone = counts_alone
        self._clock = clock
        self._sleep = sleep
        self._busy = 0
        self._queue = _FairQueue()
        self._lock = threading.Lock()

    async def enter(self, cost: int, run: Hashable, left: float) -> Usage | None:
        """Wait until a call may be made. ``leave`` must follow.

        Args:
            cost: the estimated tokens of the call.
            run: the run of the call; runs take turns.
            left: most seconds to wait.

        Returns:
            What the call has used of the token window; None without one.

        Raises:
            RateLimited: there will be no room in time; ``retry_after`` is the time until there may be.
        """
        with self._lock:
            # The usual case: nobody waits, and there is room.
            if self._shared is None and self._queue.head is None and self._busy < self._concurrency:
                now = self._clock()
                if not self._wait(now, cost):
                    return self._admit(now, cost)
            waiter = _Waiter(run)
            self._queue.join(waiter)
        try:
            return await self._wait_in_queue(waiter, cost, self._clock() + left)
        finally:
            with self._lock:
                head = self._queue.leave(waiter)
            if head is not None:
                head.wake()

    def leave(self, used: Usage | None, tokens: int | None) -> None:
        """Record the end of a call.

        Args:
            used: the value of ``enter``.
            tokens: the tokens that the call has really used; None keeps the estimate.
        """
        with self._lock:
            self._busy -= 1
            if tokens is not None and used is not None and self._tokens is not None:
                self._tokens.correct(used, tokens)
            head = self._queue.head
        if head is not None:
            head.wake()

    async def report(self, error: ProviderError) -> None:
        """Let all processes pause if a vendor has refused a call for its rate, or because it is overloaded."""
        if self._shared is not None and pacing.is_refusal(error):
            await self._shared.pause(error.retry_after)

    def close(self) -> None:
        """Close the connections to Redis."""
        if self._shared is not None:
            self._shared.close()

    async def _wait_in_queue(self, waiter: _Waiter, cost: int, end: float) -> Usage | None:
        """Wait until the waiter is at the head, a slot is free, and the rates have room."""
        while True:
            with self._lock:
                may_go = self._queue.head is waiter and self._busy < self._concurrency
                woken = waiter.new_event()  # under the lock, so that no ``wake`` between here and the wait is lost
                seconds = self._wait(self._clock(), cost) if may_go else 0.0
                if may_go and not seconds and self._shared is None:
                    return self._admit(self._clock(), cost)
            if may_go and not seconds and self._shared is not None:
                shared_wait = await self._shared.take({"calls": 1, "tokens": cost})
                if shared_wait is None and not self._counts_alone:
                    raise self._shared.unreachable_error()
                seconds = shared_wait or 0.0
                if not seconds:
                    with self._lock:
                        return self._admit(self._clock(), cost)
            left = end - self._clock()
            if seconds > left or left <= 0:
                raise RateLimited(
                    f"the limit of {self._name}, {self._limits}, leaves no room within {max(0.0, left):.3g} s",
                    retry_after=max(seconds, _MIN_WAIT),
                )
            if may_go:
                await self._sleep(max(seconds, _MIN_WAIT))
            else:
                with anyio.move_on_after(None if left == inf else left):
                    await woken.wait()

    def _wait(self, now: float, cost: int) -> float:
        """Return the seconds until this process's windows have room."""
        calls = self._calls.wait(now, 1) if self._calls is not None else 0.0
        tokens = self._tokens.wait(now, cost) if self._tokens is not None else 0.0
        return max(calls, tokens)

    def _admit(self, now: float, cost: int) -> Usage | None:
        self._busy += 1
        if self._calls is not None:
            self._calls.take(now, 1)
        return self._tokens.take(now, cost) if self._tokens is not None else None


class _Waiter:
    """A call that waits in a queue; it may be woken from any thread."""

    def __init__(self, run: Hashable) -> None:
        self.run = run
        self._loop = loops.current()
        self._event = anyio.Event()

    def new_event(self) -> anyio.Event:
        """Return an event that the next ``wake`` sets."""
        self._event = anyio.Event()
        return self._event

    def wake(self) -> None:
        """Set the event in the waiter's own event loop."""
        self._loop.call_soon(self._event.set)


class _FairQueue:
    """A queue in which runs take turns: no run waits for all calls of another. Not thread-safe; the gate locks.

    Attributes:
        head: the waiter whose turn it is, until it leaves.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, deque[_Waiter]] = OrderedDict()
        self.head: _Waiter | None = None

    def join(self, waiter: _Waiter) -> None:
        """Add a waiter; it becomes the head if there is none."""
        if self.head is None:
            self.head = waiter
        else:
            self._runs.setdefault(waiter.run, deque()).append(waiter)

    def leave(self, waiter: _Waiter) -> _Waiter | None:
        """Remove a waiter. If it was the head, return the new head, which must be woken."""
        if self.head is not waiter:  # it ran out of time, or was cancelled
            line = self._runs[waiter.run]
            line.remove(waiter)
            if not line:
                del self._runs[waiter.run]
            return None
        self.head = None
        if self._runs:
            run, line = self._runs.popitem(last=False)
            self.head = line.popleft()
            if line:
                self._runs[run] = line  # behind all other runs
        return self.head
