"""Streams: one task advances an async iterator on demand, for a blocking, an awaited or a dual stream.

A ``BlockingStream`` runs that task in the loop thread, an ``AwaitedStream`` in its consumer's loop. A ``DualIterable``
becomes one or the other when its iteration starts; a ``DualStream`` has a result, too.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar

import anyio

from llm_council._runtime import loops
from llm_council._runtime.calls import Closeable, refuse_at_exit, refuse_inside_loop, submit, wait_for
from llm_council._runtime.thread import ErrorHolder, Job, shutdown_error
from llm_council.errors import ConfigurationError, RuntimeShutdownError

__all__ = ["AwaitedStream", "BlockingStream", "DualIterable", "DualStream", "iterate"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

Source = Callable[[], AsyncIterator[T] | Awaitable[AsyncIterator[T]]]


class _Pump(Generic[T]):
    """The task that advances one async iterator, an item for each demand; all of it runs in the iterator's loop.

    One task runs the iterator from its first item to its clean-up, because a cancel scope or a task group may be held
    across a ``yield``. Nothing is read ahead, so that a stream closed between two items cleans up undisturbed.

    Args:
        source: returns the iterator; called in the task.
        deliver: called with each item.
    """

    def __init__(self, source: Source[T], deliver: Callable[[T], None]) -> None:
        self._source, self._deliver = source, deliver
        self._wanted = self._reading = self._closing = False
        self._wake: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    def demand(self) -> None:
        """Ask for one item."""
        self._wanted = True
        if self._wake is not None:
            self._wake.set()

    def close(self) -> None:
        """End the iterator: cancelled if it is producing an item, else its clean-up runs undisturbed."""
        self._closing = True
        if self._reading and self._scope is not None:
            self._scope.cancel()
        if self._wake is not None:
            self._wake.set()

    def cancel(self) -> None:
        """End the iterator at once; what its clean-up awaits is cancelled too, unless it is shielded."""
        self.close()
        if self._scope is not None:
            self._scope.cancel()

    async def _demanded(self) -> bool:
        while not (self._wanted or self._closing):
            wake = self._wake = anyio.Event()
            await wake.wait()
        self._wanted = False
        return not self._closing

    async def run(self) -> None:
        """Serve demands until the iterator ends, fails or is closed, and its clean-up is done."""
        if not await self._demanded():
            return
        with anyio.CancelScope() as self._scope:
            self._reading = True
            opened = self._source()
            # The pump and its owner hold each other; the source must not wait for the collector with them.
            del self._source
            iterator = await opened if inspect.isawaitable(opened) else opened
            try:
                while True:
                    item = await anext(iterator)
                    self._reading = False
                    self._deliver(item)
                    if not await self._demanded():
                        break
                    self._reading = True
            except StopAsyncIteration:
                pass
            except BaseException:  # whatever it is, the iterator cleans up; a scope here would break those it holds
                await _aclose(iterator)
                raise
            self._reading = False
            await _aclose(iterator)


async def _aclose(iterator: AsyncIterator[Any]) -> None:
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        try:
            await aclose()
        except BaseExceptionGroup as group:
            # A task group that is held across a yield wraps the GeneratorExit that ends the generator.
            if group.split(GeneratorExit)[1] is not None:
                raise


class _StreamJob(Job[None], Generic[T]):
    """The job of a blocking stream.

    Attributes:
        items: at most one item, on its way to the consumer.
        turn: a lock that the loop thread releases when an item or the end has arrived.
        waiting: whether the consumer waits for ``turn``.
    """

    def __init__(self, source: Source[T]) -> None:
        self.pump = _Pump(source, self._deliver)
        super().__init__(self.pump.run, (), {})
        self.items: list[T] = []
        self.turn = threading.Lock()
        self.turn.acquire()
        self.waiting = self._dropped = False

    def wind_down(self) -> None:
        """Close the stream; only an item that is being produced is cancelled."""
        self.cancelled = True
        if self.task is None:
            self.fail()
        self.pump.close()

    def drop(self) -> None:
        """Close the stream though nobody waits; asyncio's exception handler gets an error of its clean-up."""
        self._dropped = True
        self.pump.close()

    def _deliver(self, item: T) -> None:
        self.items.append(item)
        self._wake()

    def finish(self) -> None:
        """Mark the stream as finished and wake its consumer."""
        if self.error is None and self.cancelled and self.thread is not None and self.thread.stopping:
            self.error = shutdown_error()  # else the consumer would take the stream for complete
        super().finish()
        failed = self.error is not None and not isinstance(self.error, RuntimeShutdownError)
        if self._dropped and failed and self.thread is not None:
            message = "the clean-up of a dropped stream failed"
            self.thread.loop.call_exception_handler({"message": message, "exception": self.error})
        if self.thread is None or not self.thread.exiting:
            self._wake()

    def _wake(self) -> None:
        if self.waiting:
            self.waiting = False
            self.turn.release()

    def close(self) -> None:
        """Close the stream from outside its loop and wait for its clean-up, unless that loop has ended."""
        if self.thread is None:
            return
        try:
            if not (self.finished or self.abandoned) and self.thread.call_soon(self.pump.close):
                if wait_for(self, self.done) is not None:
                    return
                self.done.release()
        except BaseException:  # also a Ctrl-C in this thread
            self.interrupt()
            raise
        if self.error is not None and not isinstance(self.error, RuntimeShutdownError):
            raise self.take_error()


class BlockingStream(Iterator[T]):
    """A blocking iterator over the items of an async iterator; also a context manager.

    Leaving the ``with`` block closes the stream and waits for its clean-up. A stream that is merely dropped, for
    example after a bare ``break``, is closed soon after by the loop thread, and nobody waits for that.
    """

    def __init__(self, source: Source[T]) -> None:
        self._job: _StreamJob[T] = _StreamJob(source)
        self._lock = threading.Lock()  # several threads may share a stream
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        refuse_inside_loop(self.__next__, "BlockingStream.__next__")
        job = self._job
        with self._lock:
            if self._ended:
                raise StopIteration
            try:
                fallback = self._pull(job)
            except BaseException:  # also a Ctrl-C in this thread
                self._ended = True
                job.interrupt()
                raise
            if fallback is None and job.items:
                return job.items.pop()
            self._ended = True
            if fallback is not None:
                fallback()
            elif job.error is not None:
                raise job.take_error()
        raise StopIteration

    def _pull(self, job: _StreamJob[T]) -> Callable[[], object] | None:
        """Wait for an item or the end; return the job's fallback if the loop is blocked."""
        if job.thread is None:
            submit(job)
        job.waiting = True
        if job.finished or job.thread is None:
            job.waiting = False
            if job.thread is not None and job.thread.exiting and isinstance(job.error, RuntimeShutdownError):
                refuse_at_exit()
        elif job.thread.call_soon(job.pump.demand):
            return wait_for(job, job.turn)
        elif not job.finished:
            raise RuntimeShutdownError("this stream was opened before a fork or a shutdown, and ended there")
        return None

    def close(self) -> None:
        """End the stream and wait until its clean-up is done; an item that is being produced is cancelled.

        Raises:
            InsideEventLoopError: an event loop runs in this thread.
            BaseException: whatever the clean-up raises.
        """
        refuse_inside_loop(self.close, "BlockingStream.close")
        self._ended = True
        self._job.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self._drop()
        except BaseException:  # a Ctrl-C, which Python prints and ignores in a finalizer; the stream must end
            self._drop()
            raise

    def _drop(self) -> None:
        job: _StreamJob[T] | None = getattr(self, "_job", None)
        if job is not None and job.thread is not None and not job.finished:
            job.thread.call_soon(job.drop)


def iterate(
    function: Callable[P, AsyncIterator[T] | Awaitable[AsyncIterator[T]]], /, *args: P.args, **kwargs: P.kwargs
) -> BlockingStream[T]:
    """Iterate in blocking code over the items of an async iterator, which runs in the loop thread.

    Args:
        function: an async generator function, or a function that returns or awaits to an async iterator.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Raises:
        InsideEventLoopError: an event loop runs in this thread; use ``async for`` there.
    """
    refuse_inside_loop(function)
    if inspect.isasyncgenfunction(function):
        generator = function(*args, **kwargs)  # runs nothing yet, but refuses wrong arguments here
        return BlockingStream(lambda: generator)
    return BlockingStream(functools.partial(function, *args, **kwargs))


class _StreamTask(ErrorHolder, Generic[T]):
    """The task of an awaited stream, in its consumer's loop.

    Attributes:
        items: at most one item, on its way to the consumer.
        abandoned: the task did not end within ``grace`` seconds of its cancellation.
    """

    def __init__(self, source: Source[T], grace: float | None = None) -> None:
        self.pump = _Pump(source, self._deliver)
        self.loop: loops.Loop | None = None
        self.items: list[T] = []
        self.finished = self.abandoned = False
        self._grace = grace
        self._answered: anyio.Event
        self._done: anyio.Event

    def _deliver(self, item: T) -> None:
        self.items.append(item)
        self._answered.set()

    async def _run(self) -> None:
        try:
            await self.pump.run()
        except BaseException as error:  # the consumer raises it; here it would end the loop
            self.error = error
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise

    def _finish(self) -> None:
        self.finished = True
        self._answered.set()
        self._done.set()

    async def pull(self) -> None:
        """Ask for an item and wait until it has arrived or the stream has ended."""
        if self.finished:
            return
        self._answered = anyio.Event()
        if self.loop is None:
            self._done = anyio.Event()
            self.loop = loops.current()
            self.loop.spawn(self._run, self._finish)
        self.pump.demand()
        await self._wait(self._answered)

    async def close(self) -> None:
        """End the stream and wait for its clean-up."""
        if self.loop is None:
            return
        if not (self.finished or self.abandoned):
            self.pump.close()
            await self._wait(self._done)
        if self.error is not None:
            raise self.take_error()

    async def _wait(self, event: anyio.Event) -> None:
        try:
            await event.wait()
        except BaseException:  # the consumer is cancelled, and so is the iterator
            self.pump.cancel()
            with anyio.move_on_after(self._grace, shield=True):
                await self._done.wait()
            self.abandoned = not self.finished
            raise


class AwaitedStream(AsyncIterator[T]):
    """An async iterator whose source runs in a task of its own; also an async context manager.

    The consumer's context is copied in, and its cancellation is passed on. Dropped after a bare ``break``, the stream
    is closed soon after by its task.

    Args:
        source: returns the iterator; called in the task.
        grace: seconds for the iterator's clean-up when the consumer is cancelled; None sets no limit.
    """

    def __init__(self, source: Source[T], *, grace: float | None = None) -> None:
        self._task: _StreamTask[T] = _StreamTask(source, grace)
        self._ended = False

    @property
    def abandoned(self) -> bool:
        """Whether the iterator was cancelled, did not end within the grace period, and still runs."""
        return self._task.abandoned

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        task = self._task
        if not self._ended:
            try:
                await task.pull()
            except BaseException:  # cancelled: the task ends, and the stream with it
                self._ended = True
                raise
            if task.items:
                return task.items.pop()
            self._ended = True
            if task.error is not None:
                raise task.take_error()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the stream and wait until its clean-up is done."""
        self._ended = True
        await self._task.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        task: _StreamTask[T] | None = getattr(self, "_task", None)
        if task is not None and task.loop is not None and not task.finished:
            task.loop.call_soon(task.pump.close)


class DualIterable(Closeable, Generic[T]):
    """An async iterator for ``for`` and ``async for``, ``with`` and ``async with``.

    It is consumed once. Leaving the loop early closes it soon after; leaving a ``with`` block waits for that.

    Args:
        source: returns the async iterator; called when iteration starts.
    """

    def __init__(self, source: Source[T]) -> None:
        self._source = source
        self._running: _StreamJob[T] | _StreamTask[T] | None = None
        self._used = False

    def _claim(self) -> Source[T]:
        if self._used:
            raise ConfigurationError(f"this {type(self).__name__} was iterated or closed before; ask for a new one")
        self._used = True
        source = self._source
        del self._source  # it must not outlive the iteration: it may hold what was iterated over
        return source

    def _refuse_inside_loop(self, method: str) -> None:
        refuse_inside_loop(self.__iter__, f"{type(self).__name__}.{method}")

    def __iter__(self) -> Iterator[T]:
        self._refuse_inside_loop("__iter__")
        stream = BlockingStream(self._claim())
        self._running = stream._job  # not the stream: only the ``for`` holds that, so that ``break`` drops it
        return stream

    def __aiter__(self) -> AsyncIterator[T]:
        stream = AwaitedStream(self._claim())
        self._running = stream._task
        return stream

    def close(self) -> None:
        """End the iteration and wait until its clean-up is done.

        Raises:
            InsideEventLoopError: an event loop runs in this thread; await ``aclose()`` there.
        """
        self._refuse_inside_loop("close")
        self._used = True
        if isinstance(self._running, _StreamJob):
            self._running.close()

    async def aclose(self) -> None:
        """End the iteration and wait until its clean-up is done."""
        self._used = True
        if isinstance(self._running, _StreamTask):
            await self._running.close()

    def __enter__(self) -> Self:
        self._refuse_inside_loop("__enter__")
        return self


class DualStream(DualIterable[T], Generic[T, R]):
    """One stream for ``for`` and ``async for``, ``with`` and ``async with``, and its ``result``.

    Args:
        core: takes a function that stores the result, and returns the async iterator; called when iteration starts.
    """

    def __init__(self, core: Callable[[Callable[[R], None]], AsyncIterator[T]]) -> None:
        self._results: list[R] = []
        super().__init__(functools.partial(core, self._results.append))

    @property
    def result(self) -> R:
        """The result of the stream.

        Raises:
            ConfigurationError: the stream has not ended, or ended without a result.
        """
        if not self._results:
            ended = self._running is not None and self._running.finished
            how = "ended without" if ended else "has to end before it has"
            raise ConfigurationError(f"the {type(self).__name__} {how} a result; iterate it to its end")
        return self._results[-1]
