"""No more calls, tokens and calls at once than an account allows."""

from __future__ import annotations

import hashlib
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from math import inf
from typing import Any, Final

import anyio

from llm_council._runtime import call_context
from llm_council.errors import InvalidOption
from llm_council.middleware._gate import Gate, Pass
from llm_council.middleware._rates import Rate
from llm_council.middleware._shared_rates import SharedRates
from llm_council.middleware._wrapper import Wrapper
from llm_council.models.reply import GenerateChunk, GenerateResponse, Usage
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import late, seconds_for
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Limit"]

ANSWER_TOKENS = 1000
"""Tokens that an answer is expected to have where the request sets no limit."""

_AT_ONCE: Final = 0.001
"""Seconds of waiting that are none: the call has all of its time."""

# What several limits of one account count together. An entry lives as long as one of them.
_gates: weakref.WeakValueDictionary[tuple[Any, ...], Gate] = weakref.WeakValueDictionary()


class Limit(Wrapper):
    """Hold calls back until the limits have room for them.

    In no stretch of the rate's length are there more calls, or more tokens, than it says. Tokens are counted as
    expected before a call (a quarter of the characters that go in, and ``max_tokens``), and as reported after it.
    Waiting counts against the call's and the run's time: where that would not be enough, the call fails at once with
    ``RateLimited``, whose ``retry_after`` says when there will be room. Runs take turns, so that none waits for all the
    calls of another.

    Limits with equal figures on one account (the same address and key) count together: in one process, and with
    ``shared`` in every process that shares the Redis. There, the name under which they count is a hash of the account.

    Args:
        inner: the provider.
        rate: calls, such as ``"60/minute"``.
        tokens: tokens in and out, such as ``"90k/minute"``.
        concurrency: calls at the same time, in this process.
        max_wait: most seconds to wait for room; None is as long as the call may take, 0 never waits.
        shared: the address of a Redis, ``redis://host:port/0``; needs the extra ``redis``.
        when_lost: what to do while that Redis cannot be reached: ``"alone"`` goes on counting in this process alone,
            ``"refuse"`` fails with ``ConnectFailed``.
        key: under which name to count, in place of the account's.
        clock: monotonic seconds.
        sleep: waits for some seconds.
    """

    _heeds_cancellation = True
    _bounded_within = True

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
        calls = None if rate is None else Rate.of(rate, "rate")
        spent = None if tokens is None else Rate.of(tokens, "tokens")
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise InvalidOption(f"concurrency: a whole number of 1 or more, got {concurrency!r:.80}")
        if calls is None and spent is None and concurrency is None:
            raise InvalidOption("Limit needs a rate, tokens or concurrency")
        if max_wait is not None and not max_wait >= 0:
            raise InvalidOption(f"max_wait: a number of seconds of 0 or more, got {max_wait!r:.80}")
        if when_lost not in ("alone", "refuse"):
            raise InvalidOption(f"when_lost: 'alone' or 'refuse', got {when_lost!r:.80}")
        rates = {name: rate for name, rate in (("calls", calls), ("tokens", spent)) if rate is not None}
        if shared is not None and not rates:
            raise InvalidOption("shared: there is no rate or tokens to share; concurrency is counted in each process")
        self._clock = clock
        self._is_shared = shared is not None
        self._counts_tokens = spent is not None
        self._max_wait = inf if max_wait is None else max_wait
        account = key or inner.account_identity()

        def make() -> Gate:
            named = _hashed(account or inner.cache_identity())
            with_others = None if shared is None else SharedRates(shared, named, rates, clock)
            return Gate(
                self.name,
                rate=calls,
                tokens=spent,
                concurrency=concurrency,
                shared=with_others,
                alone=when_lost == "alone",
                clock=clock,
                sleep=sleep,
            )

        if account is None:
            self._gate = make()
        else:
            figures = (account, calls, spent, concurrency, shared, when_lost, clock, sleep)
            self._gate = _gates.get(figures) or _gates.setdefault(figures, make())

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask the held provider once the limits have room."""
        gate, clock = self._gate, self._clock
        seconds, began = seconds_for(self, request, None), clock()
        ticket: Pass | None = None
        with anyio.move_on_after(seconds) if self._is_shared else nullcontext():  # a Redis may be silent for longer
            ticket = await self._enter(request, inf if seconds is None else seconds)
        if ticket is None:
            raise late(self.name, seconds)
        usage: Usage | None = None
        try:
            waited = clock() - began
            left = None if seconds is None or waited < _AT_ONCE else max(0.0, seconds - waited)
            response = await call(self.inner, request, deadline=left)
            usage = response.usage
        finally:
            gate.leave(ticket, usage.total_tokens if usage is not None else None)
        return response

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the held provider's answer once the limits have room."""
        gate = self._gate
        ticket = await self._enter(request, inf)
        usage: Usage | None = None
        whole = False
        try:
            async with aclosing(stream(self.inner, request)) as chunks:
                async for chunk in chunks:
                    usage = chunk.usage or usage
                    yield chunk
            whole = True
        finally:  # what a stream counts on its way is not what it took
            gate.leave(ticket, usage.total_tokens if whole and usage is not None else None)

    async def aclose(self) -> None:
        """Close what the held provider opened, and the connections to the Redis."""
        self._gate.close()
        await super().aclose()

    async def _enter(self, request: GenerateRequest, seconds: float) -> Pass:
        scope = call_context.current()
        said = (request.timeout_seconds, scope.left(), self._max_wait, seconds)
        left = min(seconds for seconds in said if seconds is not None)
        return await self._gate.enter(_expected(request) if self._counts_tokens else 0, scope.run_id, left)


def _expected(request: GenerateRequest) -> int:
    """Return the tokens that a call is expected to take: four characters each, and the most that may come out."""
    characters = sum(len(turn.text) for turn in request.turns())
    return characters // 4 + 1 + (request.max_tokens or ANSWER_TOKENS)


def _hashed(account: str) -> str:
    return hashlib.blake2b(account.encode(), digest_size=12, person=b"llm-council").hexdigest()
