"""The thread that runs the event loop behind blocking calls, and the jobs it is given.

A ``Job`` is one call: one task, one cancel scope, one done flag. Whatever it raises, ``SystemExit`` included, reaches
the thread that waits for it and nobody else. A job is handed over with one wake-up of the loop and one lock.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import anyio
from sniffio import current_async_library_cvar

from llm_council._runtime.loops import AsyncioLoop
from llm_council.errors import RuntimeShutdownError

__all__ = ["CLEANUP", "Answering", "Job", "LoopThread", "ended"]

T = TypeVar("T")

CLEANUP: Final = 5.0  # seconds an interrupted caller waits for the clean-up of its task


class Job(Generic[T]):
    """One coroutine function on its way through the loop thread.

    ``start``, ``cancel``, ``wind_down`` and ``finish`` run in the loop thread; the rest is for the thread that waits.
    """

    __slots__ = (
        *("__weakref__", "_args", "_core", "_kwargs", "_scope", "cancelled", "context", "done", "error", "finished"),
        *("left", "promise", "task", "thread", "value"),
    )

    def __init__(
        self, core: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._core, self._args, self._kwargs = core, args, kwargs
        self._scope: anyio.CancelScope | None = None
        self.context = contextvars.copy_context()
        self.context.run(current_async_library_cvar.set, "asyncio")  # the caller may stand in a worker thread of trio
        self.context.run(_job.set, weakref.ref(self))
        self.promise: tuple[float, Callable[[], T]] | None = None
        self.left = False
        self.done = threading.Lock()
        self.done.acquire()
        self.cancelled = self.finished = False
        self.thread: LoopThread | None = None
        self.task: asyncio.Task[None] | None = None
        self.value: T
        self.error: BaseException | None = None

    def start(self, thread: LoopThread) -> None:
        """Start the task, unless the thread is about to end or another has taken the job over."""
        if not self.claim(thread):
            return
        if thread.stopping and not thread.retired:
            self.fail()
        elif not self.finished:
            self.task = thread.loop.create_task(self._run(), context=self.context)

    def claim(self, thread: LoopThread) -> bool:
        """Take the job from a thread that has not started it; True for one asker alone."""
        try:
            thread.unstarted.remove(self)
        except KeyError:
            return False
        return True

    def leave(self) -> None:
        """Wait no longer, not even for clean-up: the loop stands still. Cancelled once the loop goes on."""
        self.left = True
        if self.thread is not None:
            self.thread.soon(self.cancel)

    async def _run(self) -> None:
        try:
            with anyio.CancelScope() as scope:
                self._scope = scope
                if self.cancelled:
                    scope.cancel()
                self.value = await self._core(*self._args, **self._kwargs)
            if scope.cancelled_caught:
                self.error = ended()
        except BaseException as error:  # noqa: BLE001 - it belongs to the caller; in this thread it would end the loop
            stopped = self.thread is None or (self.thread.stopping and not self.thread.retired)
            self.error = ended() if stopped and isinstance(error, asyncio.CancelledError) else error
        finally:
            self.finish()

    def cancel(self) -> None:
        """Cancel the task, whose clean-up runs; a job that has no task yet never gets one."""
        self.cancelled = True
        if self.task is None:
            self.fail()
        elif self._scope is not None:
            self._scope.cancel()

    def wind_down(self) -> None:
        """End the task because its thread ends."""
        self.cancel()

    def fail(self) -> None:
        """End a job whose task never ran."""
        if not self.finished:
            self.error = ended()
            self.finish()

    def finish(self) -> None:
        """Tell the waiting thread."""
        self.finished = True
        if self.thread is not None:
            self.thread.forget(self)
            if self.thread.silent:
                return
        self.done.release()

    def abandon(self) -> None:
        """Cancel the task from the thread that waited, and give its clean-up time; another interrupt ends the wait."""
        if self.thread is None or self.finished or not self.thread.soon(self.cancel):
            return
        if self.done.acquire(timeout=CLEANUP):
            self.done.release()


_job: contextvars.ContextVar[weakref.ref[Job[Any]]] = contextvars.ContextVar("llm_council_job")


class Answering:
    """For the time of a ``with`` block, promise an answer to whoever waits for this task in another thread.

    Where the loop stands still beyond that time, because some coroutine blocks it, the waiting thread calls
    ``otherwise`` itself and takes what that returns or raises. The outermost promise is the one that holds.

    Args:
        seconds: from now; None promises nothing.
        otherwise: makes the answer; called in the waiting thread.
    """

    __slots__ = ("_job", "_otherwise", "_seconds")

    def __init__(self, seconds: float | None, otherwise: Callable[[], Any]) -> None:
        self._seconds, self._otherwise = seconds, otherwise
        self._job: Job[Any] | None = None

    def __enter__(self) -> None:
        known = _job.get(None)
        job = None if known is None or self._seconds is None else known()
        if job is not None and job.promise is None:
            job.promise = (time.monotonic() + (self._seconds or 0.0), self._otherwise)
            self._job = job

    def __exit__(self, *_: object) -> None:
        if self._job is not None:
            self._job.promise = None


def ended() -> RuntimeShutdownError:
    """Return the error of what was running when its thread was shut down."""
    return RuntimeShutdownError("the thread behind blocking calls was shut down while this call was running")


if sys.platform == "win32":
    _EventLoop = asyncio.ProactorEventLoop
else:
    _EventLoop = asyncio.SelectorEventLoop


class _EnduringLoop(_EventLoop):
    """An event loop that goes on after a ``SystemExit`` or ``KeyboardInterrupt`` of one of its tasks.

    asyncio lets these two out of ``run_forever``, which would end the loop for every caller. The task holds its
    exception too, so the thread that waits for that task gets it there.
    """

    _is_stopped = False

    def run_forever(self) -> None:
        """Run until ``stop`` is called."""
        self._is_stopped = False
        while not self._is_stopped:
            with suppress(SystemExit, KeyboardInterrupt):
                super().run_forever()

    def stop(self) -> None:
        """Stop after this iteration, even if a task raises ``SystemExit`` in the rest of it."""
        self._is_stopped = True
        super().stop()


class LoopThread:
    """An event loop in a daemon thread of its own.

    Attributes:
        loop: the loop.
        jobs: what has been handed over and has not ended.
        unstarted: those of the jobs that have no task yet.
        stopping: whether new jobs are refused.
        retired: whether it stood still for too long: it ends when the jobs that it has have ended.
        silent: whether nobody is told that a job ended: at exit only daemon threads wait, and they end there.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = _EnduringLoop()
        self._reach = AsyncioLoop(self.loop)
        self.jobs: set[Job[Any]] = set()
        self.unstarted: set[Job[Any]] = set()
        self.stopping = self.silent = self.retired = False
        self._asked: float | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name="llm-council", daemon=True)

    def start(self) -> None:
        """Start the thread; when the start is interrupted, neither a thread nor a waiting job is left behind."""
        try:
            self._thread.start()
        except BaseException:
            self.stopping = True
            if self._thread.ident is None:
                self._close()
            else:
                self.soon(self._stop.set)
            raise

    def take(self, job: Job[Any]) -> bool:
        """Start the job; return False when the loop has ended."""
        job.thread = self
        self.jobs.add(job)
        self.unstarted.add(job)
        if self.soon(partial(job.start, self)):
            return True
        self.jobs.discard(job)
        self.unstarted.discard(job)
        return False

    def forget(self, job: Job[Any]) -> None:
        """Let go of a job that has ended."""
        self.jobs.discard(job)
        self.unstarted.discard(job)
        if self.retired and not self.jobs:
            self.soon(self._stop.set)

    def still(self) -> float:
        """Return for how many seconds the loop has left this question unanswered; asked first, it is 0."""
        asked = self._asked
        if asked is None:
            self._asked = time.monotonic()
            self.soon(self._answer)
            return 0.0
        return time.monotonic() - asked

    def _answer(self) -> None:
        self._asked = None

    def retire(self) -> None:
        """Take no more jobs, and end with the last of those that are here."""
        self.stopping = self.retired = True
        if not self.jobs:
            self.soon(self._stop.set)

    def where(self) -> str:
        """Return what the thread is doing now: the innermost line, ``"in file.py:12 (function)"``."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return "nowhere"
        return f"in {Path(frame.f_code.co_filename).name}:{frame.f_lineno} ({frame.f_code.co_qualname})"

    @property
    def ident(self) -> int | None:
        """The thread's identifier."""
        return self._thread.ident

    def soon(self, callback: Callable[[], object]) -> bool:
        """Run the callback in the loop; return False when the loop has ended."""
        return self._reach.soon(callback)

    def _work(self) -> None:
        try:
            anyio.run(self._main, backend="asyncio", backend_options={"loop_factory": lambda: self.loop})
        except RuntimeError:
            # At exit, Python 3.12 and later start no thread to wait for those of the executor, which have ended anyway.
            if not self.silent:
                raise
        finally:
            self._close()

    def _close(self) -> None:
        self.loop.close()
        for job in list(self.jobs):  # handed over too late for the loop to see
            job.fail()

    async def _main(self) -> None:
        await self._stop.wait()
        for job in list(self.jobs):
            job.wind_down()
        waiting = {job.task for job in self.jobs if job.task is not None}
        if waiting:
            await asyncio.wait(waiting)

    def stop(self, timeout: float) -> bool:
        """Cancel every job, close what the loop holds, end the thread; return whether it ended in time."""
        self.stopping = True
        self.soon(self._stop.set)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def park(self, timeout: float) -> threading.Event | None:
        """Hold the loop thread still until the returned event is set: it then holds no lock that a child would miss."""
        if self._thread is threading.current_thread():
            return None
        parked, released = threading.Event(), threading.Event()

        def stand_still() -> None:
            parked.set()
            released.wait()

        if self.soon(stand_still):
            parked.wait(timeout)
        return released
