"""The same question, answered once."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from math import inf

import anyio
import attrs

from llm_council.errors import Attempt, CouncilError, InvalidOption, NotCached, TimedOut
from llm_council.middleware._cache_key import is_worth_keeping, key_of
from llm_council.middleware._cache_stores import CacheStore, Entry, MemoryStore, SQLiteStore
from llm_council.middleware._turns import Waiter
from llm_council.middleware._wrapper import Wrapper
from llm_council.models._attrs import copy_with
from llm_council.models.reply import Cost, CostSource, GenerateChunk, GenerateResponse, Usage, join
from llm_council.models.request import CacheMode, GenerateRequest, cache_mode
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["CacheStore", "Cached", "Entry", "MemoryStore", "SQLiteStore"]

_log = logging.getLogger("llm_council")


class Cached(Wrapper):
    """Answer a request that was answered before from what was kept, and equal ones at the same time with one call.

    Equal are requests to one account at one address that differ in nothing but their time, their idempotency key, their
    metadata and whether they are streamed. What is kept stands under a hash of these. Kept are whole answers alone: no
    failure, none that was cut, filtered or refused. A stream is kept once it has ended, and given again in the same
    pieces; an answer that was not streamed comes as one piece.

    An answer from the cache costs nothing: its ``usage`` is 0, its ``cost`` 0, and ``extra["cache"]`` has its age in
    seconds and the tokens that it took when it was asked for. A store that fails is a warning, and never a call's
    failure. Seats that hold one cached provider and are asked the same get the same answer.

    Args:
        inner: the provider.
        ttl: seconds for which an answer counts; None is for ever.
        store: where answers are kept: a ``CacheStore``, or the path of a SQLite file; None is a ``MemoryStore``.
        size: most bytes of what is kept, for a store that is made here.
        mode: what to do with requests whose ``cache`` says nothing; None reads and writes.
        clock: seconds since the epoch.
    """

    _heeds_cancellation = True

    def __init__(
        self,
        inner: ProviderAdapter,
        *,
        ttl: float | None = 3600.0,
        store: CacheStore | str | os.PathLike[str] | None = None,
        size: int | None = None,
        mode: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(inner)
        if ttl is not None and not 0 < ttl < inf:
            raise InvalidOption(f"ttl: a number of seconds above 0, got {ttl!r:.80}")
        room = {} if size is None else {"size": size}
        self.store: CacheStore
        if store is None:
            self.store = MemoryStore(**room)
        elif isinstance(store, str | os.PathLike):
            self.store = SQLiteStore(store, **room)
        elif size is None:
            self.store = store
        else:
            raise InvalidOption("size: say it to the store, which is given here")
        self._ttl = ttl
        self._mode = cache_mode(mode)
        self._clock = clock
        self._identity = inner.cache_identity()
        self._flights: dict[str, _Flight] = {}
        self._lock = threading.Lock()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Return the kept answer, or ask the held provider."""
        found = await self._find(request)
        if found is None:
            return await call(self.inner, request)
        if isinstance(found, Entry):
            return self._again(found)
        with found:
            response = await call(self.inner, request)
            await found.land(response)
        return response

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the kept answer, or the held provider's as it arrives."""
        found = await self._find(request)
        if isinstance(found, Entry):
            for chunk in _pieces(self._again(found), found.cuts):
                yield chunk
            return
        chunks: list[GenerateChunk] = []
        async with aclosing(stream(self.inner, request)) as arriving:
            if found is None:
                async for chunk in arriving:
                    yield chunk
                return
            with found:
                async for chunk in arriving:
                    if chunk.reset is not None:
                        chunks.clear()
                    chunks.append(chunk)
                    yield chunk
                cuts = tuple(len(chunk.text) for chunk in chunks if chunk.text)
                await found.land(join(chunks), cuts)

    async def aclose(self) -> None:
        """Close what the held provider and the store opened."""
        await self.store.aclose()
        await super().aclose()

    async def _find(self, request: GenerateRequest) -> Entry | _Flight | None:
        """Return what is kept, or the flight of which this call is the pilot; None has nothing to do with the cache.

        Raises:
            NotCached: only what is kept was wanted.
            CouncilError: an equal call that this one waited for failed.
        """
        mode = request.cache or self._mode
        key = None if mode is CacheMode.OFF else key_of(request, self._identity)
        if key is None:
            if mode is CacheMode.ONLY:
                raise NotCached("a request with values that JSON cannot say is never cached")
            return None
        if mode in (CacheMode.READ, CacheMode.ONLY):
            entry = await self._kept(key)
            if entry is None and mode is CacheMode.ONLY:
                raise NotCached(f"no answer of {self.name} to this request is kept")
            return entry
        while True:
            own = _Flight(self, key)
            with self._lock:
                flight = self._flights.setdefault(key, own)
                landed = flight.board() if flight is not own else None
            if landed is None:
                return await self._pilot(own, reads=mode is not CacheMode.WRITE)
            await landed.wait()
            if isinstance(flight.outcome, CouncilError):
                raise copy.copy(flight.outcome)
            if flight.outcome is not None:
                return flight.outcome

    async def _pilot(self, own: _Flight, *, reads: bool) -> Entry | _Flight:
        """Return what is kept, which ends the flight, or the flight."""
        if not reads:
            return own
        try:
            entry = own.outcome = await self._kept(own.key)
        except BaseException:  # a cancellation
            own.end()
            raise
        if entry is None:
            return own
        own.end()
        return entry

    async def _kept(self, key: str) -> Entry | None:
        try:
            return await self.store.get(key, self._clock())
        except Exception as error:  # noqa: BLE001 - a store may be anybody's
            _log.warning("%s: what is cached cannot be read: %s", self.name, error)
            return None

    async def _keep(self, key: str, entry: Entry) -> None:
        try:
            await self.store.put(key, entry, self._clock())
        except Exception as error:  # noqa: BLE001 - a store may be anybody's
            _log.warning("%s: an answer cannot be cached: %s", self.name, error)

    def _again(self, entry: Entry) -> GenerateResponse:
        """Return a kept answer as one that cost nothing; what its holder may change is copied."""
        response, usage = entry.response, entry.response.usage
        took = None if usage is None else {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        return copy_with(
            response,
            usage=_NOTHING,
            cost=_FREE,
            attempts=_AT_ONCE,
            structured=copy.deepcopy(response.structured) if response.structured is not None else None,
            extra={**copy.deepcopy(response.extra), "cache": {"age": self._clock() - entry.at, "usage": took}},
        )


_NOTHING = Usage(input_tokens=0, output_tokens=0)
_FREE = Cost(usd=0.0, source=CostSource.REPORTED, complete=True)
_AT_ONCE = (Attempt(at=0.0, elapsed=0.0),)


class _Flight:
    """One call for all who ask the same at the same time.

    Its pilot makes the call. Where the pilot is cancelled, or its own time is over, the next of the others takes over.

    Attributes:
        key: the name of the request.
        outcome: what the others get; None leaves them to themselves.
    """

    def __init__(self, cached: Cached, key: str) -> None:
        self.outcome: Entry | CouncilError | None = None
        self._cached = cached
        self.key = key
        self._waiting: list[Waiter] = []

    def board(self) -> anyio.Event:
        """Return the event of its end; call it under the lock."""
        waiter = Waiter(None)
        self._waiting.append(waiter)
        return waiter.arm()

    async def land(self, response: GenerateResponse, cuts: tuple[int, ...] = ()) -> None:
        """Hand on an answer, and keep it where it is worth it."""
        cached = self._cached
        at = cached._clock()
        expires = None if cached._ttl is None else at + cached._ttl
        kept = copy_with(response, raw=None, attempts=())
        self.outcome = Entry(response=kept, cuts=cuts, at=at, expires=expires)
        if is_worth_keeping(response):
            await cached._keep(self.key, self.outcome)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, CouncilError) and not (isinstance(error, TimedOut) and error.phase == "deadline"):
            self.outcome = error
        self.end()

    def end(self) -> None:
        """Let the others go."""
        with self._cached._lock:
            del self._cached._flights[self.key]
        for waiter in self._waiting:
            waiter.wake()


def _pieces(response: GenerateResponse, cuts: tuple[int, ...]) -> list[GenerateChunk]:
    """Return an answer in the pieces in which its text once came."""
    whole = GenerateChunk.whole(response)
    if len(cuts) < 2 or sum(cuts) != len(whole.text):
        return [whole]
    first = GenerateChunk(reasoning=whole.reasoning, model=whole.model, adjustments=whole.adjustments)
    pieces, start = [first] if whole.reasoning or whole.adjustments else [], 0
    for cut in cuts:
        pieces.append(GenerateChunk(text=whole.text[start : start + cut]))
        start += cut
    last = attrs.evolve(whole, text="", reasoning="", adjustments=() if pieces[0] is first else whole.adjustments)
    return [*pieces, last]
