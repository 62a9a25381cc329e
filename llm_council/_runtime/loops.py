"""Which event loop runs here, and how to reach it from outside: asyncio and trio behind one small face.

Everything that hands work to a loop from another thread, from a finalizer or after a fork goes through ``Loop.soon``,
which never blocks, never raises for a loop that has ended, and leaves the loops of a parent process alone.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

import sniffio

__all__ = ["AsyncioLoop", "Block", "Loop", "current", "is_running"]

_tasks: set[asyncio.Task[None]] = set()  # asyncio itself holds its tasks weakly


class Block(Protocol):
    """A ``with`` block of a task that can be ended from elsewhere in its loop: what it awaits is cancelled."""

    def __enter__(self) -> object: ...

    def __exit__(self, *raised: Any) -> bool | None: ...

    def cancel(self) -> None:
        """End the block; one that has ended, or that is being cancelled from outside, is left to that."""
        ...


class Loop(Protocol):
    """A running event loop."""

    def soon(self, callback: Callable[[], object]) -> bool:
        """Run the callback in the loop, from any thread; return False when the loop has ended or is a parent's."""
        ...

    def spawn(self, core: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], object]) -> None:
        """Start a task of its own, from inside the loop, in a copy of the caller's context.

        Args:
            core: what the task runs; it raises nothing but its cancellation.
            ended: called in the loop when the task has ended, even if it was cancelled before its first step.

        Raises:
            RuntimeError: the loop is about to end and takes no more tasks.
        """

    def after(self, seconds: float, callback: Callable[[], object]) -> Callable[[], object]:
        """Run the callback in so many seconds, in a copy of the caller's context; return what calls that off."""
        ...

    def block(self) -> Block:
        """Return a block to be entered at once: as a cancel scope, but nearly free where nobody cancels it.

        The cancellation is told once, and to shielded scopes within the block too: they are for what heeds it.
        """
        ...

    def is_over(self) -> bool:
        """Tell whether the loop can run nothing any more."""
        ...


class _AsyncioBlock:
    """What ``asyncio.timeout`` does, without the time: one request to cancel the task, taken back at the end."""

    __slots__ = ("_before", "_requested", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._before = 0
        self._requested = False

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        self._before = 0 if task is None else task.cancelling()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        task, self._task = self._task, None
        if task is None or not self._requested:
            return False
        return task.uncancel() <= self._before and kind is not None and issubclass(kind, asyncio.CancelledError)

    def cancel(self) -> None:
        task = self._task
        if task is not None and not self._requested and task.cancelling() <= self._before:
            self._requested = task.cancel()


class _Alarms:
    """Callbacks for later, nearly all of which are called off: one timer of the loop serves them all."""

    __slots__ = ("_entries", "_places", "_timer")

    def __init__(self) -> None:
        self._entries: list[list[Any]] = []  # a heap: when, place, callback, context
        self._places = count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, loop: asyncio.AbstractEventLoop, seconds: float, callback: Callable[[], object]) -> list[Any]:
        """Take a callback; one whose entry has None in its place is called off."""
        when = loop.time() + seconds
        entry = [when, next(self._places), callback, contextvars.copy_context()]
        heappush(self._entries, entry)
        if self._timer is None or when < self._timer.when():
            self._wind(loop, when)
        return entry

    def _wind(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Each callback has a context of its own; the timer must not keep that of whoever came first.
        self._timer = loop.call_at(when, self._ring, loop, context=contextvars.Context())

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time() if self._timer is None else max(loop.time(), self._timer.when())  # it may be a little early
        self._timer = None
        while self._entries:
            when, _, callback, context = self._entries[0]
            if callback is not None and when > now:
                self._wind(loop, when)
                return
            heappop(self._entries)
            if callback is not None:
                loop.call_soon(callback, context=context)


class AsyncioLoop:
    """A loop of asyncio, uvloop's included."""

    __slots__ = ("_alarms", "_loop", "_pid")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)  # what is kept per loop must not keep the loop
        self._pid = os.getpid()
        self._alarms = _Alarms()

    def is_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether this stands for a loop, in the process in which it was made."""
        return self._loop() is loop and self._pid == os.getpid()

    def soon(self, callback: Callable[[], object]) -> bool:
        loop = self._loop()
        if loop is None or self._pid != os.getpid():  # the pipe that wakes the loop is shared with the parent
            return False
        try:
            loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def spawn(self, core: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], object]) -> None:
        task = asyncio.get_running_loop().create_task(core())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        task.add_done_callback(lambda _: ended())

    def after(self, seconds: float, callback: Callable[[], object]) -> Callable[[], object]:
        entry = self._alarms.add(asyncio.get_running_loop(), seconds, callback)

        def call_off() -> None:
            entry[2] = entry[3] = None

        return call_off

    def block(self) -> Block:
        return _AsyncioBlock()

    def is_over(self) -> bool:
        loop = self._loop()
        return loop is None or loop.is_closed()


class _TrioLoop:
    __slots__ = ("_pid", "_token", "_trio")

    def __init__(self) -> None:
        self._trio: Any = sys.modules["trio"]
        self._token = weakref.ref(self._trio.lowlevel.current_trio_token())
        self._pid = os.getpid()

    def soon(self, callback: Callable[[], object]) -> bool:
        token = self._token()
        if token is None or self._pid != os.getpid():
            return False
        try:
            token.run_sync_soon(callback)
        except self._trio.RunFinishedError:
            return False
        return True

    def spawn(self, core: Callable[[], Coroutine[Any, Any, None]], ended: Callable[[], object]) -> None:
        async def task() -> None:
            try:
                await core()
            finally:
                ended()

        self._trio.lowlevel.spawn_system_task(task, context=contextvars.copy_context())

    def after(self, seconds: float, callback: Callable[[], object]) -> Callable[[], object]:
        scope = self._trio.CancelScope()

        async def wait() -> None:
            with scope:
                await self._trio.sleep(seconds)
                callback()

        self._trio.lowlevel.spawn_system_task(wait, context=contextvars.copy_context())
        cancel: Callable[[], object] = scope.cancel
        return cancel

    def block(self) -> Block:
        scope: Block = self._trio.CancelScope()
        return scope

    def is_over(self) -> bool:
        return self._pid == os.getpid() and not self.soon(_nothing)


def _nothing() -> None:
    """Do nothing: whether the loop takes it is the answer."""


class _Here(threading.local):
    """What stands for the loop that ran last in this thread."""

    loop: AsyncioLoop | None = None


_here = _Here()


def current() -> Loop:
    """Return the event loop of the running task.

    Raises:
        sniffio.AsyncLibraryNotFoundError: no task of asyncio or trio is running here.
    """
    if sniffio.current_async_library() == "trio":
        return _TrioLoop()
    running, known = asyncio.get_running_loop(), _here.loop
    if known is None or not known.is_of(running):
        known = _here.loop = AsyncioLoop(running)
    return known


def is_running() -> bool:
    """Tell whether an event loop runs in this thread: blocking it would stop everything else that runs there.

    Plain callbacks of a loop count too; sniffio sees tasks only. trio is asked only where the program has imported it.
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
