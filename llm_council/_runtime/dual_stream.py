"""The stream for both worlds: ``for`` and ``async for`` over one object."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from llm_council._runtime import loops
from llm_council._runtime.blocking_stream import BlockingStream, Feed
from llm_council._runtime.calls import refuse_inside_loop
from llm_council._runtime.frames import user_traceback
from llm_council._runtime.pump import Pump, Source
from llm_council.errors import ConfigurationError

__all__ = ["AwaitedStream", "DualStream"]

T = TypeVar("T")
R = TypeVar("R")


class _AwaitedFeed(Generic[T]):
    """The task of an awaited stream, seen from its consumer's."""

    __slots__ = ("answered", "done", "error", "finished", "grace", "item", "left", "loop", "pump")

    def __init__(self, source: Source[T], grace: float | None = None) -> None:
        self.grace = grace
        self.left = False
        self.item: list[T] = []
        self.pump = Pump(source, self._deliver)
        self.loop: loops.Loop | None = None
        self.finished = False
        self.error: BaseException | None = None
        self.answered = self.done = anyio.Event()

    def _deliver(self, item: T) -> None:
        self.item.append(item)
        self.answered.set()

    async def _run(self) -> None:
        try:
            await self.pump.run()
        except BaseException as error:  # its consumer raises it; here it would end the loop
            self.error = error
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise

    def _end(self) -> None:
        self.finished = True
        self.answered.set()
        self.done.set()

    async def pull(self) -> None:
        """Ask for an item and wait until it is there or the stream has ended."""
        if self.loop is None:
            self.done = anyio.Event()
            self.loop = loops.current()
            self.loop.spawn(self._run, self._end)
        if not self.finished:
            self.answered = anyio.Event()
            self.pump.demand()
            await self._wait(self.answered)

    async def close(self) -> None:
        """End the stream and wait for its clean-up."""
        if self.loop is not None:
            if not (self.finished or self.left):
                self.pump.close()
                await self._wait(self.done)
            self.check()

    async def _wait(self, event: anyio.Event) -> None:
        try:
            await event.wait()
        except BaseException:  # the consumer's cancellation is the iterator's
            self.pump.cancel()
            with anyio.move_on_after(self.grace, shield=True):
                await self.done.wait()
            self.left = not self.finished
            raise

    def check(self) -> None:
        """Raise what ended the stream, the first time."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error.with_traceback(user_traceback(error))
            finally:
                del error, self


class AwaitedStream(AsyncIterator[T]):
    """An async iterator whose core runs in a task of its own; also an async context manager.

    The consumer's context is copied in, and its cancellation is passed on. Dropped after a bare ``break``, the stream
    is closed soon after, by the task that runs it.

    Args:
        source: makes the iterator.
        grace: seconds that the iterator has for its clean-up when the consumer is cancelled; None waits for it.
    """

    def __init__(self, source: Source[T], *, grace: float | None = None) -> None:
        self._feed: _AwaitedFeed[T] = _AwaitedFeed(source, grace)
        self._ended = False

    @property
    def left(self) -> bool:
        """Whether the iterator did not heed its cancellation within the grace, and was left behind."""
        return self._feed.left

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        feed = self._feed
        if not self._ended:
            try:
                await feed.pull()
            except BaseException:
                self._ended = True
                raise
            if feed.item:
                return feed.item.pop()
            self._ended = True
            feed.check()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream and wait until its clean-up is done."""
        self._ended = True
        await self._feed.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        feed: _AwaitedFeed[T] | None = getattr(self, "_feed", None)
        if feed is not None and feed.loop is not None and not feed.finished:
            feed.loop.soon(feed.pump.close)


class DualStream(Generic[T, R]):
    """One stream for ``for`` and ``async for``, ``with`` and ``async with``; what it came to is ``result``.

    It is consumed once. Leaving the loop early closes it soon after; leaving a ``with`` block waits for that.

    Args:
        core: given a function that keeps the result, returns the async iterator; called when iteration starts.
    """

    def __init__(self, core: Callable[[Callable[[R], None]], AsyncIterator[T]]) -> None:
        self._core = core
        self._feed: Feed[T] | _AwaitedFeed[T] | None = None
        self._used = False
        self._results: list[R] = []

    @property
    def result(self) -> R:
        """What the stream came to.

        Raises:
            ConfigurationError: the stream has not ended, or ended without a result.
        """
        if not self._results:
            how = "ended without" if self._feed is not None and self._feed.finished else "has to end before it has"
            raise ConfigurationError(f"the {type(self).__name__} {how} a result; iterate it to its end")
        return self._results[-1]

    def _claim(self) -> Source[T]:
        if self._used:
            raise ConfigurationError(f"this {type(self).__name__} was iterated or closed before; ask for a new one")
        self._used = True
        return functools.partial(self._core, self._results.append)

    def _refuse_inside_loop(self, method: str) -> None:
        if loops.is_running():
            refuse_inside_loop(self.__iter__, f"{type(self).__name__}.{method}")

    def __iter__(self) -> Iterator[T]:
        self._refuse_inside_loop("__iter__")
        stream = BlockingStream(self._claim())
        self._feed = stream._feed  # the stream itself belongs to the ``for`` alone, so that ``break`` drops it
        return stream

    def __aiter__(self) -> AsyncIterator[T]:
        stream = AwaitedStream(self._claim())
        self._feed = stream._feed
        return stream

    def close(self) -> None:
        """End the stream and wait until its clean-up is done.

        Raises:
            InsideEventLoopError: an event loop runs in this thread; await ``aclose()`` there.
        """
        self._refuse_inside_loop("close")
        self._used = True
        if isinstance(self._feed, Feed):
            self._feed.close()

    async def aclose(self) -> None:
        """End the stream and wait until its clean-up is done."""
        self._used = True
        if isinstance(self._feed, _AwaitedFeed):
            await self._feed.close()

    def __enter__(self) -> Self:
        self._refuse_inside_loop("__enter__")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
