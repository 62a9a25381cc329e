"""A second call where the first one takes unusually long; the first answer counts."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final, Generic, NoReturn, TypeVar

import anyio
import attrs

from llm_council._runtime import AwaitedStream, call_context, loops
from llm_council.errors import Attempt, CouncilError, InvalidOption, TimedOut
from llm_council.middleware._wrapper import Wrapper, later
from llm_council.models._attrs import copy_with
from llm_council.models.reply import Cost, GenerateChunk, GenerateResponse, Usage
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import seconds_for
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Hedge"]

T = TypeVar("T")

_PERCENTILE = re.compile(r"p([1-9][0-9]?)")
_REMEMBERED: Final = 200  # calls whose time is remembered
_ENOUGH: Final = 20  # of them, before a percentile means anything
_LEAST: Final = 0.001  # seconds to wait for a percentile of calls that are quicker than any timer


class Hedge(Wrapper):
    """Ask again where no answer came for some time, and take whichever answer comes first; the other call is cancelled.

    A vendor may bill a cancelled call. So both are told: ``attempts`` has both, and ``usage`` and ``cost`` count the
    tokens that went into the cancelled one as well, marked as an estimate; where both answered, both are counted in
    full. The second call has an idempotency key of its own, or it would be answered as a repetition of the first.

    Args:
        inner: the provider.
        after: seconds until the second call, or a percentile of the last 200 calls such as ``"p95"``; there is none
            before 20 calls have been seen. Streams wait for their first words, and are measured by those.
        backup: who gets the second call; None asks the same provider again.
        most: most second calls, as a share of all calls: when everything is slow, twice as many calls help nobody.
        clock: monotonic seconds.

    Attributes:
        hedged: second calls so far.
    """

    _heeds_cancellation = True
    _bounded_within = True
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
        self.backup = inner if backup is None else backup
        self.hedged = 0
        self._percentile = int(found[1]) / 100 if found else None
        self._seconds = None if isinstance(after, str) else float(after)
        self._most = most
        self._allowed = 1.0
        self._clock = clock
        self._answers, self._first_words = _Times(), _Times()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask the held provider, and once more where that takes long."""
        began = self._clock()
        delay = self._delay(self._answers)
        if delay is None:
            response = await call(self.inner, request)
            self._answers.add(self._clock() - began)
            return response
        seconds = seconds_for(self, request, None)

        def again() -> Awaitable[GenerateResponse]:
            left = None if seconds is None else max(0.0, seconds - (self._clock() - began))
            return call(self.backup, _second(request), deadline=left)

        race: _Race[GenerateResponse] = _Race(self, again, began, delay)
        response = await race.run(call(self.inner, request))
        self._answers.add(self._clock() - began)
        if not race.is_on:
            return response
        usage, cost = race.bill(response.usage, response.cost)
        tries = later(response.attempts, race.place * race.delay)
        return copy_with(response, usage=usage, cost=cost, attempts=(*race.lost(), *tries))

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer of the held provider, or of a second call where its first words take long."""
        began = self._clock()
        delay = self._delay(self._first_words)
        first, second = _Start(self.inner, request), _Start(self.backup, _second(request))
        race: _Race[_Start] = _Race(self, second.begin, began, delay or 0.0)
        usage: Usage | None = None
        cost: Cost | None = None
        try:
            won = await (first.begin() if delay is None else race.run(first.begin()))
            self._first_words.add(self._clock() - began)
            if race.is_on:
                await (second if won is first else first).aclose()
            async with aclosing(won.chunks()) as chunks:
                async for chunk in chunks:
                    usage, cost = chunk.usage or usage, chunk.cost or cost
                    yield chunk
        finally:
            await first.aclose()
            await second.aclose()
        if race.is_on:
            usage, cost = race.bill(usage, cost)
            yield GenerateChunk(usage=usage, cost=cost)

    async def aclose(self) -> None:
        """Close what the held providers opened."""
        await super().aclose()
        if self.backup is not self.inner:
            await self.backup.aclose()

    def cache_identity(self) -> str:
        """Return the held provider's, and that of another one that may answer in its place."""
        own = super().cache_identity()
        return own if self.backup is self.inner else f"Hedge({own}, {self.backup.cache_identity()})"

    def _delay(self, times: _Times) -> float | None:
        """Return the seconds until a second call; None where there is to be none."""
        self._allowed = min(10.0, self._allowed + self._most)
        if self._allowed < 1.0:
            return None
        return self._seconds if self._percentile is None else times.percentile(self._percentile)

    def _may_begin(self, seconds: float) -> bool:
        """Tell whether a second call fits into the share of these and into the run's budget, and count it."""
        afford = call_context.current().afford
        if self._allowed < 1.0 or (
            afford is not None and not afford(TimedOut(f"no answer within {seconds:.3g} s", phase="read"))
        ):
            return False
        self._allowed -= 1.0
        self.hedged += 1
        return True


class _Race(Generic[T]):
    """Two calls for one answer. Nothing but a timer is made for the second one until it is due.

    Args:
        hedge: whose race it is.
        second: makes the second call.
        began: the clock's reading at the start.
        after: seconds until the second call is due.

    Attributes:
        is_on: whether the second one was made.
        delay: seconds between the two.
        place: which one answered first, 0 or 1.
    """

    __slots__ = (
        "_after",
        "_began",
        "_errors",
        "_first",
        "_hedge",
        "_is_over",
        "_loop",
        "_over",
        "_second",
        "_two",
        "_values",
        "delay",
        "is_on",
        "place",
    )

    def __init__(self, hedge: Hedge, second: Callable[[], Awaitable[T]], began: float, after: float) -> None:
        self._hedge = hedge
        self._second = second
        self._began = began
        self._after = after
        self._loop = loops.current()
        self._values: dict[int, T] = {}
        self._errors: dict[int, CouncilError] = {}
        self._first = self._loop.block()
        self._two: anyio.CancelScope | None = None
        self._over: anyio.Event | None = None
        self._is_over = False
        self.is_on = False
        self.delay = 0.0
        self.place = 0

    async def run(self, first: Awaitable[T]) -> T:
        """Return what comes first.

        Raises:
            CouncilError: the first call failed before the second was made, or both failed.
        """
        call_off = self._loop.after(self._after, self._follow)
        try:
            with self._first:
                try:
                    value = await first
                except CouncilError as error:
                    self._errors[0] = error
                else:
                    if not self.is_on:
                        return value
                    self._values[0] = value
            if self.is_on and not self._values:
                await self._ended()
        finally:
            call_off()
            if self.is_on:
                await self._end_second()
        if not self._values:
            self._fail()
        self.place = min(self._values)
        return self._values[self.place]

    def _follow(self) -> None:
        """Make the second call: the first has no answer yet."""
        if self._hedge._may_begin(self._after):
            self.is_on, self.delay = True, self._hedge._clock() - self._began
            self._loop.spawn(self._other, self._second_ended)

    async def _other(self) -> None:
        """Ask for the second time, in a task of its own, and end the first call where that is answered."""
        if self._two is None:
            self._two = anyio.CancelScope()
        with self._two:
            try:
                self._values[1] = await self._second()
            except CouncilError as error:
                self._errors[1] = error
        if self._values:
            self._first.cancel()

    def _second_ended(self) -> None:
        self._is_over = True
        if self._over is not None:
            self._over.set()

    async def _ended(self) -> None:
        """Wait for the end of the second call."""
        self._over = anyio.Event()
        if not self._is_over:
            await self._over.wait()

    async def _end_second(self) -> None:
        if self._two is None:  # it has not taken its first step
            self._two = anyio.CancelScope()
        self._two.cancel()
        with anyio.CancelScope(shield=True):
            await self._ended()

    def bill(self, usage: Usage | None, cost: Cost | None) -> tuple[Usage | None, Cost | None]:
        """Add to what the answer took what the other call took, or may have taken."""
        other = self._values.get(1 - self.place)
        if isinstance(other, GenerateResponse):
            total = usage + other.usage if usage and other.usage else usage or other.usage
            if total is not None and not (usage and other.usage):
                total = attrs.evolve(total, estimated=True)
            return total, (cost or Cost()) + (other.cost or Cost())
        if 1 - self.place in self._errors:
            return usage, cost
        if usage is not None:
            usage = usage + Usage(input_tokens=usage.input_tokens, estimated=True)
        return usage, None if cost is None else attrs.evolve(cost, complete=False)

    def lost(self) -> tuple[Attempt, ...]:
        """Return the tries of the call that did not answer first."""
        place = 1 - self.place
        at = place * self.delay
        error = self._errors.get(place)
        if error is not None:
            return later(error.attempts, at)
        value = self._values.get(place)
        if isinstance(value, GenerateResponse):
            return later(value.attempts, at)
        elapsed = self._hedge._clock() - self._began - at
        return (Attempt(at=at, elapsed=elapsed, error="Hedged", message="cancelled: the other call answered first"),)

    def _fail(self) -> NoReturn:
        error = self._errors[0]
        if 1 in self._errors:
            error.attempts = (*error.attempts, *later(self._errors[1].attempts, self.delay))
        raise error


class _Start:
    """A stream in a task of its own, read up to its first words."""

    def __init__(self, adapter: ProviderAdapter, request: GenerateRequest) -> None:
        self._stream: AwaitedStream[GenerateChunk] = AwaitedStream(lambda: stream(adapter, request))
        self._begun: list[GenerateChunk] = []

    async def begin(self) -> _Start:
        """Read until there are words, or the end."""
        async for chunk in self._stream:
            self._begun.append(chunk)
            if chunk.text or chunk.reasoning or chunk.refusal or chunk.tool_calls:
                break
        return self

    async def chunks(self) -> AsyncGenerator[GenerateChunk, None]:
        """Yield what was read, then the rest."""
        for chunk in self._begun:
            yield chunk
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        """End the stream."""
        await self._stream.aclose()


class _Times:
    """The seconds of the last calls."""

    __slots__ = ("_known", "_seconds", "_since")

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._known: dict[float, float] = {}
        self._since = 0

    def add(self, seconds: float) -> None:
        """Remember a call."""
        self._seconds.append(seconds)
        self._since += 1
        if self._since >= 10:  # sorting them for every call would cost more than they tell
            self._since = 0
            self._known.clear()

    def percentile(self, share: float) -> float | None:
        """Return the seconds within which this share of the calls ended; None where too few are known."""
        if len(self._seconds) < _ENOUGH:
            return None
        known = self._known.get(share)
        if known is None:
            ordered = sorted(self._seconds)
            found = ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
            known = self._known[share] = max(_LEAST, found)
        return known


def _second(request: GenerateRequest) -> GenerateRequest:
    """Return the request for the second call."""
    key = request.idempotency_key
    return request if key is None else copy_with(request, idempotency_key=f"{key}-hedge")
