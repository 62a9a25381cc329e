"""The event loop behind blocking calls: its thread, the jobs that run in it, and what blocks it.

A ``Job`` is one blocking call: a coroutine function with a task, a cancel scope and a lock of its own. Whatever it
raises, ``SystemExit`` included, reaches the thread that waits for it and nobody else.

What ends a job, a stream or the thread:

==========================  ===============================  =================================  ========================
method                      called by                        ends                               who waits
==========================  ===============================  =================================  ========================
``Job.cancel``              the loop thread                  the task, by cancellation          nobody
``Job.interrupt``           the waiting thread, on Ctrl-C    the task, by ``cancel``            the caller, 5 s at most
``Job.abandon``             the waiting thread, if the loop  the wait; the task too, once the   nobody
                            is blocked                       loop goes on
``Job.wind_down``           the loop thread, as it ends      the task; a stream after its item  the loop thread
``_StreamJob.close``        the consumer of a stream         the stream, with its clean-up      the consumer
``_StreamJob.drop``         the loop thread, for a stream    the stream, with its clean-up      nobody
                            that was collected
``LoopThread.withdraw``     either thread                    nothing: takes back a job that     nobody
                                                             has not started
``LoopThread.retire``       the waiting thread, if the loop  the thread, with its last job      nobody
                            is blocked
``LoopThread.stop``         ``shutdown``, and the exit of    all jobs, then the thread          the caller, ``timeout``
                            the process
==========================  ===============================  =================================  ========================
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import anyio
from sniffio import current_async_library_cvar

from llm_council._runtime.frames import is_internal, user_traceback
from llm_council._runtime.loops import AsyncioLoop
from llm_council.errors import RuntimeShutdownError, UnsupportedEnvironmentError
from llm_council.errors._shortage import shortage

__all__ = [
    "CLEANUP_TIMEOUT",
    "SLOW_STEP",
    "ErrorHolder",
    "Fallback",
    "Job",
    "LoopThread",
    "current_steps",
    "no_loop_error",
    "shutdown_error",
    "suspended_at",
    "watched",
]

T = TypeVar("T")

CLEANUP_TIMEOUT: Final = 5.0  # seconds that an interrupted caller waits for the clean-up of its task
SLOW_STEP: Final = 1.0  # seconds; a step of an adapter's coroutine that takes longer logs a warning

_log = logging.getLogger("llm_council")


class ErrorHolder:
    """Base of an object whose work fails in one thread or task, and whose error is raised in another.

    Attributes:
        error: what was raised and is to be raised again.
    """

    error: BaseException | None = None

    def take_error(self) -> BaseException:
        """Return the error without internal frames in its traceback, and forget it.

        The frame that raises an error holds this object: an error that stays in here would be part of a cycle.
        """
        error, self.error = self.error, None
        if error is None:
            raise LookupError("this did not fail")
        return error.with_traceback(user_traceback(error))


class Job(ErrorHolder, Generic[T]):
    """A call of a coroutine function in the loop thread.

    ``start``, ``cancel``, ``wind_down``, ``fail`` and ``finish`` run in the loop thread; ``abandon`` and ``interrupt``
    run in the waiting thread. If a new loop thread cannot start, ``fail`` runs in the thread that tried to start it.

    Attributes:
        done: a lock that the loop thread releases when the job has finished.
        fallback: when the waiting thread may stop waiting, as a reading of ``time.monotonic``, and what it calls then.
        abandoned: nobody waits any more, because the loop is blocked.
    """

    def __init__(
        self, function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self._scope: anyio.CancelScope | None = None
        self.context = contextvars.copy_context()
        # The caller may be a worker thread of trio, whose context names trio.
        self.context.run(current_async_library_cvar.set, "asyncio")
        self.context.run(_job.set, weakref.ref(self))  # weak: the job holds this context
        self.fallback: tuple[float, Callable[[], T]] | None = None
        self.done = threading.Lock()
        self.done.acquire()
        self.cancelled = self.finished = self.abandoned = False
        self.thread: LoopThread | None = None
        self.task: asyncio.Task[None] | None = None
        self.value: T

    def start(self, thread: LoopThread) -> None:
        """Start the task, unless the thread is stopping or the job has moved to another thread."""
        if not thread.withdraw(self):
            return
        if thread.stopping and not thread.retired:
            self.fail()
        elif not self.finished:
            self.task = thread.loop.create_task(self._run(), context=self.context)

    async def _run(self) -> None:
        try:
            with anyio.CancelScope() as scope:
                self._scope = scope
                if self.cancelled:
                    scope.cancel()
                self.value = await self._function(*self._args, **self._kwargs)
            if scope.cancelled_caught:
                self.error = shutdown_error()
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it; here it would end the loop
            stopped = self.thread is not None and self.thread.stopping and not self.thread.retired
            self.error = shutdown_error() if stopped and isinstance(error, asyncio.CancelledError) else error
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
        """End the task because its thread is stopping."""
        self.cancel()

    def fail(self, error: BaseException | None = None) -> None:
        """Finish a job whose task never ran; without an error, because its thread was shut down."""
        if not self.finished:
            self.error = error or shutdown_error()
            self.finish()

    def finish(self) -> None:
        """Mark the job as finished and wake the waiting thread."""
        self.finished = True
        if self.thread is not None:
            self.thread.remove(self)
            if self.thread.exiting:
                return
        self.done.release()

    def abandon(self) -> None:
        """Stop waiting, even for clean-up, because the loop is blocked; the task is cancelled once the loop goes on."""
        self.abandoned = True
        if self.thread is not None:
            self.thread.call_soon(self.cancel)

    def interrupt(self) -> None:
        """Cancel the task and wait for its clean-up, ``CLEANUP_TIMEOUT`` at most; an exception ends the wait."""
        if self.thread is None or self.finished or not self.thread.call_soon(self.cancel):
            return
        if self.done.acquire(timeout=CLEANUP_TIMEOUT):
            self.done.release()


_job: contextvars.ContextVar[weakref.ref[Job[Any]]] = contextvars.ContextVar("llm_council_job")


class Fallback:
    """Within a ``with`` block, let the thread that waits for this task give up when the event loop is blocked.

    A coroutine that blocks the loop also blocks every timeout in it. When ``seconds`` have passed and the loop does
    not react, the waiting thread calls ``fallback`` and returns or raises what that does. The outermost block counts.

    Args:
        seconds: from now; None sets no limit.
        fallback: returns the result or raises the error; called in the waiting thread.
    """

    __slots__ = ("_fallback", "_job", "_seconds")

    def __init__(self, seconds: float | None, fallback: Callable[[], Any]) -> None:
        self._seconds, self._fallback = seconds, fallback
        self._job: Job[Any] | None = None

    def __enter__(self) -> None:
        reference = _job.get(None)
        job = None if reference is None else reference()
        if job is not None and job.fallback is None and self._seconds is not None:
            job.fallback = (time.monotonic() + self._seconds, self._fallback)
            self._job = job

    def __exit__(self, *_: object) -> None:
        if self._job is not None:
            self._job.fallback = None


def shutdown_error() -> RuntimeShutdownError:
    """Return the error of a call that was running when its thread was shut down."""
    return RuntimeShutdownError("the thread behind blocking calls was shut down while this call was running")


def no_loop_error(lacking: str) -> UnsupportedEnvironmentError:
    """Return the error of a call for which no loop thread could start.

    Args:
        lacking: what the process has used up; see ``shortage``.
    """
    return UnsupportedEnvironmentError(f"blocking calls need a thread with an event loop: {lacking}")


if sys.platform == "win32":
    _EventLoop = asyncio.ProactorEventLoop
else:
    _EventLoop = asyncio.SelectorEventLoop


class _UninterruptibleLoop(_EventLoop):
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

    def __del__(self) -> None:
        # Without descriptors, the constructor fails half-way, and asyncio would print that it cannot close the rest.
        if hasattr(self, "_ssock"):
            super().__del__()

    def stop(self) -> None:
        """Stop after this iteration, even if a task raises ``SystemExit`` in the rest of it."""
        self._is_stopped = True
        super().stop()


class LoopThread:
    """An event loop in a daemon thread of its own.

    Attributes:
        loop: the event loop.
        jobs: accepted jobs that have not finished.
        unstarted: those jobs that have no task yet.
        stopping: whether new jobs are refused.
        retired: whether the loop was blocked for too long: the thread ends once its remaining jobs have finished.
        exiting: whether the process is exiting. Only daemon threads wait then; they are not woken and end there.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop = _UninterruptibleLoop()
        self.call_soon = AsyncioLoop(self.loop).call_soon
        self.jobs: set[Job[Any]] = set()
        self.unstarted: set[Job[Any]] = set()
        self.stopping = self.exiting = self.retired = False
        self._probed: float | None = None
        self._lacking: str | None = None  # what the process had used up when the loop was to begin
        self._stop = asyncio.Event()
        # Whoever takes it closes the loop: the thread, or `start` if that is interrupted before the thread runs.
        self._owner = threading.Lock()
        # The interpreter joins threads that are no daemons before it runs the exit handler that would stop this one.
        self._thread = threading.Thread(target=self._work, name="llm-council", daemon=True)

    @property
    def ident(self) -> int | None:
        """The thread's identifier."""
        return self._thread.ident

    def start(self) -> None:
        """Start the thread; if that is interrupted, neither a thread nor a waiting job stays behind."""
        try:
            self._thread.start()
        except BaseException:  # a Ctrl-C may arrive before or after the thread runs
            self.stopping = True
            if self._owner.acquire(blocking=False):
                self._close()
            else:
                self.call_soon(self._stop.set)
            raise

    def accept(self, job: Job[Any]) -> bool:
        """Start the job; return False if the loop has ended."""
        job.thread = self
        # Before the loop knows the job: if the loop ends meanwhile, ``_close`` finds and fails it.
        self.jobs.add(job)
        self.unstarted.add(job)
        if self.call_soon(partial(job.start, self)):
            return True
        self.jobs.discard(job)
        self.unstarted.discard(job)
        return False

    def withdraw(self, job: Job[Any]) -> bool:
        """Take back a job that has not started; return True to one caller alone, in whatever thread."""
        try:
            self.unstarted.remove(job)
        except KeyError:
            return False
        return True

    def remove(self, job: Job[Any]) -> None:
        """Drop a job that has finished or moved to another thread."""
        self.jobs.discard(job)
        self.unstarted.discard(job)
        if self.retired and not self.jobs:
            self.call_soon(self._stop.set)

    def stalled_for(self) -> float:
        """Return for how many seconds the loop has not answered the last probe; without one, send it and return 0."""
        probed = self._probed
        if probed is None:
            self._probed = time.monotonic()
            self.call_soon(self._answer_probe)
            return 0.0
        return time.monotonic() - probed

    def _answer_probe(self) -> None:
        self._probed = None

    def retire(self) -> None:
        """Refuse new jobs, and end with the last of the present ones."""
        self.stopping = self.retired = True
        if not self.jobs:
            self.call_soon(self._stop.set)

    def current_line(self) -> str:
        """Return the innermost line that the thread executes now: ``"in file.py:12 (function)"``."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return "nowhere"
        return f"in {Path(frame.f_code.co_filename).name}:{frame.f_lineno} ({frame.f_code.co_qualname})"

    def _work(self) -> None:
        if not self._owner.acquire(blocking=False):
            return
        try:
            anyio.run(self._main, backend="asyncio", backend_options={"loop_factory": lambda: self.loop})
        except RuntimeError:
            # At exit, Python 3.12 and later start no thread to wait for those of the executor, which have ended anyway.
            if not self.exiting:
                raise
        except OSError as error:  # anyio found no descriptor to begin with
            self._lacking = shortage(error)
            if self._lacking is None:
                raise
        finally:
            self.stopping = True  # the next call starts another thread
            self._close()

    def _close(self) -> None:
        self.loop.close()
        for job in list(self.jobs):  # accepted after the last iteration of the loop
            job.fail(None if self._lacking is None else no_loop_error(self._lacking))

    async def _main(self) -> None:
        await self._stop.wait()
        # anyio.run ends what is left after this: stray tasks, async generators, the threads of the executor.
        for job in list(self.jobs):
            job.wind_down()
        tasks = {job.task for job in self.jobs if job.task is not None}
        if tasks:
            await asyncio.wait(tasks)

    def stop(self, timeout: float) -> bool:
        """Cancel every job, close what the loop holds, end the thread; return True if it ended in time."""
        self.stopping = True
        self.call_soon(self._stop.set)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def park(self, timeout: float) -> threading.Event | None:
        """Hold the loop thread until the returned event is set, so that a fork copies no lock that it has acquired."""
        if self._thread is threading.current_thread():
            return None
        parked, released = threading.Event(), threading.Event()

        def wait() -> None:
            parked.set()
            released.wait()

        if self.call_soon(wait):
            try:
                parked.wait(timeout)
            except BaseException:  # a Ctrl-C: nobody would get the event that lets the loop go on
                released.set()
                raise
        return released


current_steps: Final[dict[int, str]] = {}
"""Thread identifier -> name of the adapter whose coroutine takes a step in that thread now."""


@types.coroutine
def watched(work: Coroutine[Any, Any, T], name: str) -> Generator[Any, Any, T]:
    """Await an author's coroutine, record its steps in ``current_steps``, and warn if one blocks the event loop.

    Args:
        work: the coroutine.
        name: the adapter to name in the warning.
    """
    thread = threading.get_ident()
    thrown: BaseException | None = None
    sent: Any = None
    while True:
        began = time.monotonic()
        current_steps[thread] = name
        try:
            yielded = work.send(sent) if thrown is None else work.throw(thrown)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            current_steps.pop(thread, None)
            thrown = None
            seconds = time.monotonic() - began
            if seconds >= SLOW_STEP:
                _log.warning("%s has blocked the event loop for %.1f s%s", name, seconds, suspended_at(work))
        try:
            sent = yield yielded
        except BaseException as exc:  # noqa: BLE001 - passed into the coroutine: cancellation above all
            thrown, sent = exc, None


def suspended_at(work: Any) -> str:
    """Return ``", at file.py:12"`` for a coroutine's outermost line outside this package, or an empty string."""
    while inspect.iscoroutine(work) and work.cr_frame is not None:
        if not is_internal(work.cr_frame):
            return f", at {Path(work.cr_code.co_filename).name}:{work.cr_frame.f_lineno}"
        work = work.cr_await
    return ""
