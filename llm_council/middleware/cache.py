"""Cached: answer a repeated request from a store."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import cache
from math import inf
from typing import Any, Final

import anyio
import attrs

from llm_council._runtime import loops
from llm_council.errors import Attempt, CouncilError, InvalidOption, NotCached, TimedOut
from llm_council.middleware._cache_stores import CacheStore, Entry, MemoryStore, SQLiteStore
from llm_council.middleware.wrapper import Wrapper
from llm_council.models._attrs import copy_with
from llm_council.models.reply import Cost, CostSource, FinishReason, GenerateChunk, GenerateResponse, Usage, join
from llm_council.models.request import CacheMode, GenerateRequest, cache_mode
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["CacheStore", "Cached", "Entry", "MemoryStore", "SQLiteStore"]

_log = logging.getLogger("llm_council")


class Cached(Wrapper):
    """Answer a request that was answered before from a store, and equal concurrent requests with one call.

    Two requests are equal if they go to one account at one address and differ at most in timeout, idempotency key,
    metadata and whether they are streamed. The store's key is a hash of all the rest; draws of one question differ in
    ``sample``. Only whole answers are stored: no failures, and no answer that was cut, filtered or refused. A stream is
    stored once it has ended, and returned in the same pieces; an answer that was not streamed is returned as one piece.

    A cached answer costs nothing: its ``usage`` and ``cost`` are 0, and ``extra["cache"]`` holds its age in seconds and
    the tokens of the original call. A store that fails causes a warning in the log, and no call to fail. Seats that
    share one cached provider and are asked the same get the same answer.

    Args:
        inner: the provider.
        ttl: seconds until an answer expires; None is never.
        store: a ``CacheStore``, or the path of a SQLite file; None is a ``MemoryStore``.
        size: most bytes of a store that is created here.
        mode: the mode of requests whose ``cache`` is None; None reads and writes.
        clock: returns seconds since the epoch.
    """

    _is_own_middleware = True

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
        options = {} if size is None else {"size": size}
        self.store: CacheStore
        if store is None:
            self.store = MemoryStore(**options)
        elif isinstance(store, str | os.PathLike):
            self.store = SQLiteStore(store, **options)
        elif size is None:
            self.store = store
        else:
            raise InvalidOption("size: give it to the store itself, not to Cached")
        self._ttl = ttl
        self._mode = cache_mode(mode)
        self._clock = clock
        self._identity = inner.cache_identity()
        self._shared_calls: dict[str, _SharedCall] = {}
        self._lock = threading.Lock()

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Return the stored answer, or call the wrapped provider."""
        found = await self._find(request)
        if found is None:
            return await call(self.inner, request)
        if isinstance(found, Entry):
            return self._as_cached(found)
        with found:  # reports the end of the call to the requests that wait
            response = await call(self.inner, request)
            await found.finish(response)
        return response

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the stored answer, or the wrapped provider's as it arrives."""
        found = await self._find(request)
        if isinstance(found, Entry):
            for chunk in _split(self._as_cached(found), found.cuts):
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
                    if chunk.reset is not None:  # voids all chunks before it
                        chunks.clear()
                    chunks.append(chunk)
                    yield chunk
                cuts = tuple(len(chunk.text) for chunk in chunks if chunk.text)
                await found.finish(join(chunks), cuts)

    async def aclose(self) -> None:
        """Close the resources of the wrapped provider and of the store."""
        await self.store.aclose()
        await super().aclose()

    async def _find(self, request: GenerateRequest) -> Entry | _SharedCall | None:
        """Return a stored answer, or the shared call that this request must make; None bypasses the cache.

        Raises:
            NotCached: the mode allows stored answers only, and there is none.
            CouncilError: the error of an equal concurrent call.
        """
        mode = request.cache or self._mode
        key = None if mode is CacheMode.OFF else key_of(request, self._identity)
        if key is None:
            if mode is CacheMode.ONLY:
                raise NotCached("a request with values that JSON cannot represent is never cached")
            return None
        if mode in (CacheMode.READ, CacheMode.ONLY):
            entry = await self._load(key)
            if entry is None and mode is CacheMode.ONLY:
                raise NotCached(f"no answer of {self.name} to this request is cached")
            return entry
        while True:
            own = _SharedCall(self, key)
            with self._lock:
                shared = self._shared_calls.setdefault(key, own)
                ended = shared.join() if shared is not own else None
            if ended is None:
                break
            await ended.wait()
            if isinstance(shared.outcome, CouncilError):
                # Each caller needs an error of its own, because callers add facts and tracebacks to it.
                raise copy.copy(shared.outcome)
            if shared.outcome is not None:
                return shared.outcome
        if mode is CacheMode.WRITE:
            return own
        try:
            own.outcome = await self._load(key)
        except BaseException:  # cancellation: the next waiting request makes the call
            own.end()
            raise
        if own.outcome is None:
            return own
        own.end()
        return own.outcome

    async def _load(self, key: str) -> Entry | None:
        try:
            return await self.store.get(key, self._clock())
        except Exception as error:  # noqa: BLE001 - a third-party store may raise anything
            _log.warning("%s: the cache cannot be read: %s", self.name, error)
            return None

    async def _save(self, key: str, entry: Entry) -> None:
        try:
            await self.store.put(key, entry, self._clock())
        except Exception as error:  # noqa: BLE001 - a third-party store may raise anything
            _log.warning("%s: an answer cannot be cached: %s", self.name, error)

    def _as_cached(self, entry: Entry) -> GenerateResponse:
        """Return a stored answer with usage and cost 0; values that the caller may change are copied."""
        response, usage = entry.response, entry.response.usage
        tokens = None if usage is None else {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
        return copy_with(
            response,
            usage=Usage(input_tokens=0, output_tokens=0),
            cost=Cost(usd=0.0, source=CostSource.REPORTED, complete=True),
            attempts=(Attempt(at=0.0, elapsed=0.0),),
            structured=copy.deepcopy(response.structured),
            extra={**copy.deepcopy(response.extra), "cache": {"age": self._clock() - entry.at, "usage": tokens}},
        )


@attrs.define(eq=False)
class _SharedCall:
    """One call for all equal requests at the same time.

    The request that came first makes the call. If it is cancelled or runs out of its own time, the next one makes it.

    Attributes:
        outcome: the answer or the error for the other requests; None makes one of them repeat the call.
    """

    _cached: Cached
    _key: str
    outcome: Entry | CouncilError | None = None
    _waiting: list[tuple[loops.Loop, anyio.Event]] = attrs.field(factory=list)

    def join(self) -> anyio.Event:
        """Return an event that is set when the call ends. The caller holds the lock."""
        event = anyio.Event()
        self._waiting.append((loops.current(), event))
        return event

    async def finish(self, response: GenerateResponse, cuts: tuple[int, ...] = ()) -> None:
        """Pass an answer to the waiting requests, and store it if it is whole."""
        cached = self._cached
        at = cached._clock()
        expires = None if cached._ttl is None else at + cached._ttl
        self.outcome = Entry(response=copy_with(response, raw=None, attempts=()), cuts=cuts, at=at, expires=expires)
        if is_whole(response):
            await cached._save(self._key, self.outcome)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        # The caller's own deadline says nothing about the requests that wait.
        if isinstance(error, CouncilError) and not (isinstance(error, TimedOut) and error.phase == "deadline"):
            self.outcome = error
        self.end()

    def end(self) -> None:
        """Wake the waiting requests, each in its own event loop."""
        with self._cached._lock:
            # From here on an equal request starts a new call, so ``_waiting`` cannot grow any more.
            del self._cached._shared_calls[self._key]
        for loop, event in self._waiting:
            loop.call_soon(event.set)


def _split(response: GenerateResponse, cuts: tuple[int, ...]) -> list[GenerateChunk]:
    """Return an answer in the pieces in which its text arrived."""
    whole = GenerateChunk.whole(response)
    if len(cuts) < 2 or sum(cuts) != len(whole.text):
        return [whole]
    pieces: list[GenerateChunk] = []
    adjustments = whole.adjustments
    if whole.reasoning or whole.adjustments:
        pieces.append(GenerateChunk(reasoning=whole.reasoning, model=whole.model, adjustments=whole.adjustments))
        adjustments = ()
    start = 0
    for cut in cuts:
        pieces.append(GenerateChunk(text=whole.text[start : start + cut]))
        start += cut
    return [*pieces, attrs.evolve(whole, text="", reasoning="", adjustments=adjustments)]


_KEY_VERSION: Final = 1  # part of every key: a new number makes all stored answers unreachable
_NOT_IN_KEY: Final = frozenset(["timeout_seconds", "idempotency_key", "metadata", "stream", "cache"])


def key_of(request: GenerateRequest, identity: str) -> str | None:
    """Return the store's key for a request: a hash, which reveals neither request nor account.

    Args:
        request: the request. Without ``sample``, a ``metadata["sample"]`` tells several answers to the same question
            apart, as it did before the field existed.
        identity: the provider's ``cache_identity``.

    Returns:
        64 hexadecimal digits; None for a request with values that JSON cannot represent.
    """
    fields: dict[str, Any] = {}
    if "sample" in request.metadata:
        fields["sample"] = request.metadata["sample"]
    for name in _field_names(GenerateRequest):
        value = getattr(request, name)
        if name not in _NOT_IN_KEY and value is not None:
            fields[name] = _plain(value)
    try:
        text = json.dumps([_KEY_VERSION, identity, fields], sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return a value of the models as JSON values; other values are left to ``json``, which refuses them."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return object()  # ``json`` would write the key 1 as "1"
        return {key: _plain(item) for key, item in value.items()}
    cls = type(value)
    if not attrs.has(cls):
        return value
    fields = {}
    for name in _field_names(cls):
        part = getattr(value, name)
        if part is not None:
            fields[name] = _plain(part)
    return {cls.__name__: fields}


@cache
def _field_names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls))


def is_whole(response: GenerateResponse) -> bool:
    """Return True for an answer that was not cut, filtered or refused, and did not end for an unknown reason.

    An answer without any finish reason counts as whole.
    """
    if response.refusal:
        return False
    if response.finish_reason is None:
        return response.raw_finish_reason is None
    return response.finish_reason in (FinishReason.STOP, FinishReason.TOOL_CALLS)
