"""Hedge: make a second call if the first one is slow, and return the answer that arrives first."""

from __future__ import annotations

import math
import re
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, Generic, TypeVar

import anyio
import attrs

from llm_council._runtime import AwaitedStream, call_context, loops
from llm_council.errors import Attempt, CouncilError, InvalidOption, NotAnAdapter, TimedOut
from llm_council.middleware.wrapper import Wrapper, shift_attempts
from llm_council.models._attrs import copy_with
from llm_council.models.reply import Cost, GenerateChunk, GenerateResponse, Usage
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import seconds_for
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Hedge"]

T = TypeVar("T")

_PERCENTILE = re.compile(r"p([1-9][0-9]?)")
_MAX_SAMPLES: Final = 200  # calls whose time is remembered
_MIN_SAMPLES: Final = 20  # calls needed for a percentile
_MIN_DELAY: Final = 0.001  # seconds: the resolution of the event loop's timers
_MAX_SAVED: Final = 10.0  # second calls that a quiet time may save up


class Hedge(Wrapper):
    """Make a second call if there is no answer after some time, return the first answer, and cancel the other call.

    A vendor may bill a cancelled call. So ``attempts`` holds both calls, and ``usage`` and ``cost`` include the input
    tokens of the cancelled one, marked as an estimate; if both have answered, both count in full. The second call has
    an idempotency key of its own, or the vendor would treat it as a repetition of the first.

    Args:
        inner: the provider.
        after: seconds until the second call, or a percentile of the last 200 calls such as ``"p95"``; with a percentile
            there are no second calls before 20 calls have ended. For streams the time until the first text counts.
        backup: the provider of the second call; None is the same one.
        most: most second calls, as a share of all calls: twice as many calls do not help when the vendor is overloaded.
        clock: returns monotonic seconds.

    Attributes:
        hedged: number of second calls so far.
    """

    _is_own_middleware = True
    _keeps_time_limits = True
    _makes_several_calls = True

    def __init__(
        self,
        inner: ProviderAdapter,
        *,
        after: float | str = "p95",
        backup: ProviderAdapter | None = None,
        most: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        found = _PERCENTILE.fullmatch(after) if isinstance(after, str) else None
        if found is None and (isinstance(after, str) or not 0 <= after < math.inf):
            raise InvalidOption(f'after: a number of seconds, or a percentile such as "p95", got {after!r:.80}')
        if not 0 < most <= 1:
            raise InvalidOption(f"most: a share above 0 and up to 1, got {most!r:.80}")
        given: object = backup
        if given is not None and not isinstance(given, ProviderAdapter):
            raise NotAnAdapter(f"backup: expected a provider, got {given!r:.80}")
        self.backup = inner if backup is None else backup
        self.hedged = 0
        self._percentile = int(found[1]) / 100 if found else None
        self._seconds = None if isinstance(after, str) else float(after)
        self._most = most
        self._allowed = 1.0  # second calls that may be made now; each call adds ``most`` to it
        self._clock = clock
        self._answer_times = _LatestTimes()
        self._first_text_times = _LatestTimes()

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the wrapped provider, and make a second call if there is no answer in time."""
        began = self._clock()
        delay = self._delay(self._answer_times)
        if delay is None:
            response = await call(self.inner, request)
            self._answer_times.add(self._clock() - began)
            return response
        seconds = seconds_for(self, request, None)

        def second() -> Awaitable[GenerateResponse]:
            left = None if seconds is None else max(0.0, seconds - (self._clock() - began))
            return call(self.backup, _second_request(request), deadline=left)

        race: _Race[GenerateResponse] = _Race(self, second, began, delay)
        response = await race.run(call(self.inner, request))
        self._answer_times.add(self._clock() - began)
        if not race.has_second:
            return response
        usage, cost = race.add_loser(response.usage, response.cost)
        attempts = shift_attempts(response.attempts, race.winner * race.delay)
        return copy_with(response, usage=usage, cost=cost, attempts=(*race.loser_attempts(), *attempts))

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the wrapped provider's answer, or that of a second call if its first text arrives earlier."""
        began = self._clock()
        delay = self._delay(self._first_text_times)
        first = _StreamStart(self.inner, request)
        second = _StreamStart(self.backup, _second_request(request))
        race: _Race[_StreamStart] = _Race(self, second.begin, began, delay or 0.0)
        usage: Usage | None = None
        cost: Cost | None = None
        try:
            won = await (first.begin() if delay is None else race.run(first.begin()))
            self._first_text_times.add(self._clock() - began)
            # The slower stream is closed first: a vendor goes on generating, and billing, until then.
            if race.has_second:
                await (second if won is first else first).aclose()
            async with aclosing(won.chunks()) as chunks:
                async for chunk in chunks:
                    usage, cost = chunk.usage or usage, chunk.cost or cost
                    yield chunk
        finally:
            await first.aclose()
            await second.aclose()
        if race.has_second:
            usage, cost = race.add_loser(usage, cost)
            yield GenerateChunk(usage=usage, cost=cost)

    async def aclose(self) -> None:
        """Close the resources of the wrapped providers."""
        await super().aclose()
        if self.backup is not self.inner:
            await self.backup.aclose()

    def cache_identity(self) -> str:
        """Return the wrapped provider's, and the backup's if that is another one."""
        own = super().cache_identity()
        return own if self.backup is self.inner else f"Hedge({own}, {self.backup.cache_identity()})"

    def _delay(self, times: _LatestTimes) -> float | None:
        """Return the seconds until a second call; None if there is to be none."""
        self._allowed = min(_MAX_SAVED, self._allowed + self._most)
        if self._allowed < 1.0:
            return None
        if self._percentile is None:
            return self._seconds
        found = times.percentile(self._percentile)
        return None if found is None else max(_MIN_DELAY, found)

    def _may_begin(self, seconds: float) -> bool:
        """Count a second call, and return True, if it fits into ``most`` and into the run's budget."""
        if self._allowed < 1.0:
            return False
        afford = call_context.current().afford
        if afford is not None and not afford(TimedOut(f"no answer within {seconds:.3g} s", phase="read")):
            return False
        self._allowed -= 1.0
        self.hedged += 1
        return True


class _LatestTimes:
    """The seconds of the latest calls.

    They are kept in order, because sorting them for every call cost more CPU than the timer of the second call.
    """

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, seconds: float) -> None:
        """Add a call, and drop the oldest if there are more than ``_MAX_SAMPLES``."""
        self._latest.append(seconds)
        insort(self._ordered, seconds)
        if len(self._latest) > _MAX_SAMPLES:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]

    def percentile(self, share: float) -> float | None:
        """Return the seconds within which this share of the calls ended; None before ``_MIN_SAMPLES`` calls."""
        count = len(self._ordered)
        return None if count < _MIN_SAMPLES else self._ordered[math.ceil(share * count) - 1]


class _Race(Generic[T]):
    """Two calls, of which the first answer counts.

    Until the second call is due, a race costs a timer of the event loop and no task. A task group for every call took
    about ten times as much CPU (``tests/benchmarks``, "CPU that `Hedge` adds to a call").

    Args:
        hedge: the middleware.
        second: makes the second call.
        began: the clock's reading at the start.
        after: seconds until the second call is due.

    Attributes:
        has_second: True once the second call was made.
        delay: seconds between the two calls.
        winner: the call that answered first, 0 or 1.
    """

    def __init__(self, hedge: Hedge, second: Callable[[], Awaitable[T]], began: float, after: float) -> None:
        self._hedge = hedge
        self._second = second
        self._began = began
        self._after = after
        self._loop = loops.current()
        self._values: dict[int, T] = {}
        self._errors: dict[int, CouncilError] = {}
        # The timer's callback cannot make these: outside a task anyio does not know the event loop.
        self._first, self._second_scope = anyio.CancelScope(), anyio.CancelScope()
        self._second_ended = anyio.Event()
        self.has_second = False
        self.delay = 0.0
        self.winner = 0

    async def run(self, first: Awaitable[T]) -> T:
        """Return the value that arrives first.

        Raises:
            CouncilError: the first call failed before the second was made, or both failed.
        """
        cancel_timer = self._loop.call_later(self._after, self._start_second)
        try:
            with self._first:
                try:
                    value = await first
                except CouncilError as error:
                    self._errors[0] = error
                else:
                    if not self.has_second:
                        return value
                    self._values[0] = value
            if self.has_second and not self._values:
                await self._second_ended.wait()
        finally:
            cancel_timer()
            if self.has_second:
                self._second_scope.cancel()
                with anyio.CancelScope(shield=True):
                    await self._second_ended.wait()
        if not self._values:
            failure = self._errors[0]
            if 1 in self._errors:
                failure.attempts = (*failure.attempts, *shift_attempts(self._errors[1].attempts, self.delay))
            raise failure
        self.winner = min(self._values)
        return self._values[self.winner]

    def _start_second(self) -> None:
        """Start the second call; the timer calls this if the first one has no answer yet."""
        if self._hedge._may_begin(self._after):
            self.has_second, self.delay = True, self._hedge._clock() - self._began
            self._loop.spawn(self._run_second, self._second_ended.set)

    async def _run_second(self) -> None:
        """Make the second call in a task of its own, and cancel the first one once there is an answer."""
        with self._second_scope:
            try:
                self._values[1] = await self._second()
            except CouncilError as error:
                self._errors[1] = error
        if self._values:  # after an error the first call goes on: it may still answer
            self._first.cancel()

    def add_loser(self, usage: Usage | None, cost: Cost | None) -> tuple[Usage | None, Cost | None]:
        """Return the answer's usage and cost plus those of the other call, estimated if it was cancelled."""
        other = self._values.get(1 - self.winner)
        if isinstance(other, GenerateResponse):  # both calls answered before the slower one could be cancelled
            total = usage + other.usage if usage and other.usage else usage or other.usage
            if total is not None and not (usage and other.usage):
                total = attrs.evolve(total, estimated=True)
            return total, (cost or Cost()) + (other.cost or Cost())
        if 1 - self.winner in self._errors:  # a failed call is not billed
            return usage, cost
        if usage is not None:  # a cancelled call: the vendor has at least read the prompt
            usage = usage + Usage(input_tokens=usage.input_tokens, estimated=True)
        return usage, None if cost is None else attrs.evolve(cost, complete=False)

    def loser_attempts(self) -> tuple[Attempt, ...]:
        """Return the attempts of the call that did not answer first."""
        loser = 1 - self.winner
        at = loser * self.delay
        error = self._errors.get(loser)
        if error is not None:
            return shift_attempts(error.attempts, at)
        value = self._values.get(loser)
        if isinstance(value, GenerateResponse):
            return shift_attempts(value.attempts, at)
        elapsed = self._hedge._clock() - self._began - at
        return (Attempt(at=at, elapsed=elapsed, error="Hedged", message="cancelled: the other call answered first"),)


class _StreamStart:
    """A stream in a task of its own, which is read up to its first text."""

    def __init__(self, adapter: ProviderAdapter, request: GenerateRequest) -> None:
        self._stream: AwaitedStream[GenerateChunk] = AwaitedStream(lambda: stream(adapter, request))
        self._read: list[GenerateChunk] = []

    async def begin(self) -> _StreamStart:
        """Read up to the first text, or to the end."""
        async for chunk in self._stream:
            self._read.append(chunk)
            if chunk.text or chunk.reasoning or chunk.refusal or chunk.tool_calls:
                break
        return self

    async def chunks(self) -> AsyncGenerator[GenerateChunk, None]:
        """Yield the chunks that were read, then the rest."""
        for chunk in self._read:
            yield chunk
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


def _second_request(request: GenerateRequest) -> GenerateRequest:
    """Return the request for the second call."""
    key = request.idempotency_key
    return request if key is None else copy_with(request, idempotency_key=f"{key}-hedge")
