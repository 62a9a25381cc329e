"""The event loop that runs here, asyncio's or trio's, behind one interface.

Another thread, a finalizer or the code after a fork gives work to a loop through ``Loop.call_soon``. It never blocks,
does not raise if the loop has ended, and leaves the loops of a parent process alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import sniffio

__all__ = ["AsyncioLoop", "Loop", "current", "is_running"]

_tasks: set[asyncio.Task[None]] = set()  # asyncio itself holds its tasks weakly


class Loop(Protocol):
    """A running event loop."""

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Run the callback in the loop, from any thread; return False if the loop has ended or is a parent's."""
        ...

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], object]) -> None:
        """Start a task of its own, from inside the loop, in a copy of the caller's context.

        Args:
            function: the coroutine function that the task runs; it raises nothing but its cancellation.
            ended: called in the loop when the task has ended, even if it was cancelled before its first step.

        Raises:
            RuntimeError: the loop is ending and starts no more tasks.
        """

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Run the callback after a delay, in a copy of the caller's context; return a function that cancels that."""
        ...

    def is_closed(self) -> bool:
        """Return True if the loop can run nothing any more."""
        ...


class AsyncioLoop:
    """A loop of asyncio, uvloop's included."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # objects that are stored per loop refer to this one, and must not hold the loop
        self._pid = os.getpid()

    def call_soon(self, callback: Callable[[], object]) -> bool:
        loop = self._loop()
        if loop is None or self._pid != os.getpid():  # a forked child shares the pipe that wakes its parent's loop
            return False
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], object]) -> None:
        task = asyncio.get_running_loop().create_task(function())
        _tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            _tasks.discard(task)
            ended()

        task.add_done_callback(done)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], object]:
        return asyncio.get_running_loop().call_later(seconds, callback).cancel

    def is_closed(self) -> bool:
        loop = self._loop()
        return loop is None or loop.is_closed()


class _TrioLoop:
    def __init__(self) -> None:
        self._trio: Any = sys.modules["trio"]
        self._token = weakref.ref(self._trio.lowlevel.current_trio_token())
        self._pid = os.getpid()

    def call_soon(self, callback: Callable[[], object]) -> bool:
        token = self._token()
        if token is None or self._pid != os.getpid():
            return False
        try:
            token.run_sync_soon(callback)
        except self._trio.RunFinishedError:
            return False
        return True

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], object]) -> None:
        async def task() -> None:
            try:
                await function()
            finally:
                ended()

        self._trio.lowlevel.spawn_system_task(task, context=contextvars.copy_context())

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], object]:
        scope = self._trio.CancelScope()

        async def wait() -> None:
            with scope:
                await self._trio.sleep(seconds)
                callback()

        self._trio.lowlevel.spawn_system_task(wait, context=contextvars.copy_context())
        cancel: Callable[[], object] = scope.cancel
        return cancel

    def is_closed(self) -> bool:
        return self._pid == os.getpid() and not self.call_soon(lambda: None)


def current() -> Loop:
    """Return the event loop of the running task.

    Raises:
        sniffio.AsyncLibraryNotFoundError: no task of asyncio or trio is running here.
    """
    if sniffio.current_async_library() == "trio":
        return _TrioLoop()
    return AsyncioLoop(asyncio.get_running_loop())


def is_running() -> bool:
    """Return True if an event loop runs in this thread: a blocking call would stop everything else in that loop.

    Plain callbacks of a loop count too; sniffio sees tasks only. trio is asked only if the program has imported it.
    """
    if asyncio._get_running_loop() is not None:
        return True
    trio = sys.modules.get("trio.lowlevel")
    if trio is None:
        return False
    try:
        trio.current_trio_token()
    except (RuntimeError, AttributeError):  # not in trio; or trio is being imported by another thread
        return False
    return True
