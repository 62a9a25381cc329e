"""The blocking stream: a plain iterator whose async half lives in the loop thread."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Generic, ParamSpec, Self, TypeVar

from llm_council._runtime.calls import break_off, refuse_inside_loop, submit, wait_for
from llm_council._runtime.frames import user_traceback
from llm_council._runtime.loops import is_running
from llm_council._runtime.pump import Pump, Source
from llm_council._runtime.thread import Job, ended
from llm_council.errors import RuntimeShutdownError

__all__ = ["BlockingStream", "Feed", "iterate"]

P = ParamSpec("P")
T = TypeVar("T")


class Feed(Job[None], Generic[T]):
    """The job of a blocking stream, and the slot through which its items pass."""

    __slots__ = ("_dropped", "item", "pump", "turn", "waiting")

    def __init__(self, source: Source[T]) -> None:
        self.pump = Pump(source, self._deliver)
        super().__init__(self.pump.run, (), {})
        self.turn = threading.Lock()
        self.turn.acquire()
        self.waiting = self._dropped = False
        self.item: list[T] = []

    def wind_down(self) -> None:
        """Close the stream; only an item that is being read is cancelled."""
        self.cancelled = True
        if self.task is None:
            self.fail()
        self.pump.close()

    def drop(self) -> None:
        """Close the stream for nobody in particular; a failing clean-up is reported as asyncio reports such things."""
        self._dropped = True
        self.pump.close()

    def _deliver(self, item: T) -> None:
        self.item.append(item)
        self._wake()

    def finish(self) -> None:
        """Tell whoever waits for an item, too; a stream that was shut down did not simply end."""
        if self.error is None and self.cancelled and self.thread is not None and self.thread.stopping:
            self.error = ended()
        super().finish()
        failed = self.error is not None and not isinstance(self.error, RuntimeShutdownError)
        if self._dropped and failed and self.thread is not None:
            message = "the clean-up of a dropped stream failed"
            self.thread.loop.call_exception_handler({"message": message, "exception": self.error})
        if self.thread is None or not self.thread.silent:
            self._wake()

    def _wake(self) -> None:
        if self.waiting:
            self.waiting = False
            self.turn.release()

    def close(self) -> None:
        """Close the stream from outside the loop, and wait for its clean-up; a loop that is gone is not waited for."""
        if self.thread is not None:
            try:
                if not (self.finished or self.left) and self.thread.soon(self.pump.close):
                    if wait_for(self, self.done) is not None:
                        return
                    self.done.release()
            except BaseException:
                self.abandon()
                raise
            if not isinstance(self.error, RuntimeShutdownError):  # closed is closed
                self.check()

    def check(self) -> None:
        """Raise what ended the stream, the first time."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error.with_traceback(user_traceback(error))
            finally:
                del error, self  # no cycle through the traceback


class BlockingStream(Iterator[T]):
    """A blocking iterator over what a core yields; also a context manager.

    Leaving the ``with`` block closes the stream and waits for its clean-up. A stream that is merely dropped, after a
    bare ``break`` for one, is closed soon after by the loop thread; nobody waits for that.
    """

    def __init__(self, source: Source[T]) -> None:
        self._feed: Feed[T] = Feed(source)
        self._order = threading.Lock()
        self._ended = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if is_running():
            refuse_inside_loop(self.__next__, "BlockingStream.__next__")
        feed = self._feed
        with self._order:
            if not self._ended:
                try:
                    otherwise = self._pull(feed)
                except BaseException:
                    self._ended = True
                    feed.abandon()
                    raise
                if feed.item and otherwise is None:
                    return feed.item.pop()
                self._ended = True
                if otherwise is None:
                    feed.check()
                else:
                    otherwise()
        raise StopIteration

    def _pull(self, feed: Feed[T]) -> Callable[[], object] | None:
        """Wait for an item or the end; return what answers in place of a loop that stands still."""
        if feed.thread is None:
            submit(feed)
        feed.waiting = True
        if feed.finished or feed.thread is None:
            feed.waiting = False
            if feed.thread is not None and feed.thread.silent and isinstance(feed.error, RuntimeShutdownError):
                break_off()  # the process is exiting, and that is what ended the stream
        elif feed.thread.soon(feed.pump.demand):
            return wait_for(feed, feed.turn)
        elif not feed.finished:
            raise RuntimeShutdownError("this stream was opened before a fork or a shutdown, and ended there")
        return None

    def close(self) -> None:
        """End the stream and wait until its clean-up is done; an item that is being read is cancelled.

        Raises:
            InsideEventLoopError: an event loop runs in this thread.
            BaseException: what the clean-up raises.
        """
        if is_running():
            refuse_inside_loop(self.close, "BlockingStream.close")
        self._ended = True
        self._feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self._drop()
        except BaseException:  # an interrupt here is shown and forgotten by Python; the stream must end all the same
            self._drop()
            raise

    def _drop(self) -> None:
        feed: Feed[T] | None = getattr(self, "_feed", None)
        if feed is not None and feed.thread is not None and not feed.finished:
            feed.thread.soon(feed.drop)


def iterate(
    core: Callable[P, AsyncIterator[T] | Awaitable[AsyncIterator[T]]], /, *args: P.args, **kwargs: P.kwargs
) -> BlockingStream[T]:
    """Iterate from blocking code over what a core yields in the loop thread.

    Args:
        core: an async generator function, or a function that returns or awaits to an async iterator.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Raises:
        InsideEventLoopError: an event loop runs in this thread; use ``async for`` there.
    """
    if is_running():
        refuse_inside_loop(core, sys._getframe(1).f_code.co_qualname)
    if inspect.isasyncgenfunction(core):
        generator = core(*args, **kwargs)  # nothing of it runs yet, but wrong arguments fail here
        return BlockingStream(lambda: generator)
    return BlockingStream(functools.partial(core, *args, **kwargs))
