"""The one event loop behind every blocking call of the process.

``call`` runs a coroutine function in the loop's thread and waits for it. The thread starts with the first call, serves
every council and adapter, and ends at exit or with ``shutdown``. Ctrl-C cancels the task that the caller waits for; a
fork keeps parent and child apart; a blocking call inside a running event loop is refused.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import logging
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Final, NoReturn, ParamSpec, Self, TypeVar

from llm_council._runtime.loops import is_running as running_inside_loop
from llm_council._runtime.thread import Job, LoopThread, current_steps, no_loop_error
from llm_council.errors import InsideEventLoopError, RuntimeShutdownError, UnsupportedEnvironmentError
from llm_council.errors._callers import find_caller, is_under_ipython, thread_remedy
from llm_council.errors._shortage import shortage

__all__ = [
    "Closeable",
    "blocking",
    "call",
    "is_started",
    "must_await",
    "refuse_at_exit",
    "refuse_inside_loop",
    "running_inside_loop",
    "shutdown",
    "submit",
    "wait_for",
]

P = ParamSpec("P")
T = TypeVar("T")

# All in seconds.
EXIT_TIMEOUT: Final = 2.0  # how long the exit of the process waits for all clean-up
FORK_TIMEOUT: Final = 2.0  # how long a fork waits for the loop thread to hold still
CHECK_INTERVAL: Final = 0.5  # between two checks of the loop thread while a caller waits
FALLBACK_DELAY: Final = 1.0  # how much later than its own time limit a call may end before its fallback is used
STALL_LIMIT: Final = 5.0  # how long the loop may be blocked before its thread is retired

_log = logging.getLogger("llm_council")

_current: LoopThread | None = None
_lock = threading.Lock()
_exiting = False
_inherited: list[LoopThread | None] = []  # a forked child leaves its parent's loop and sockets open


def call(function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a coroutine function in the loop thread and wait for its result.

    The caller's context variables are copied in. An exception in the waiting thread, ``KeyboardInterrupt`` above all,
    cancels the task and waits at most 5 s for its clean-up; a second one ends that wait.

    Args:
        function: the coroutine function.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Raises:
        InsideEventLoopError: an event loop runs in this thread; await the function there.
        UnsupportedEnvironmentError: gevent or eventlet has replaced the threads.
        RuntimeShutdownError: the process is exiting, or ``shutdown`` ended the call.
        BaseException: whatever the function raises.
    """
    refuse_inside_loop(function)
    job = Job(function, args, kwargs)
    try:
        submit(job)
        fallback = wait_for(job, job.done)
    except BaseException:  # also a Ctrl-C in this thread
        job.interrupt()
        raise
    if fallback is not None:
        return fallback()
    if job.error is not None:
        raise job.take_error()
    return job.value


def submit(job: Job[Any]) -> None:
    """Pass a job to the loop thread, and start that if it does not run."""
    while not job.finished:
        if _running_thread().accept(job):
            return


def wait_for(job: Job[T], flag: threading.Lock) -> Callable[[], T] | None:
    """Wait until the loop thread releases a lock, and check meanwhile that its loop is not blocked.

    A loop that is blocked for ``STALL_LIMIT``, or for longer than this job's fallback allows, is retired. Jobs that
    have started stay with it. The others move to a new thread, which also gets all later calls.

    Returns:
        None when the lock was released, else the job's fallback: the caller returns what that returns.
    """
    while not flag.acquire(timeout=_until_next_check(job)):
        thread = job.thread
        if thread is None or thread.exiting:
            continue  # at exit only daemon threads wait, and they end with the process
        stalled = thread.stalled_for()
        overdue = (
            job.fallback is not None
            and time.monotonic() >= job.fallback[0] + FALLBACK_DELAY
            and stalled >= CHECK_INTERVAL
        )
        if overdue or stalled >= STALL_LIMIT:
            _retire(thread, stalled)
        if thread.retired and thread.withdraw(job):
            thread.remove(job)
            submit(job)
        elif overdue and job.fallback is not None and not job.finished:
            fallback = job.fallback[1]
            job.abandon()
            return partial(job.context.copy().run, fallback)
    return None


def _until_next_check(job: Job[Any]) -> float:
    if job.fallback is None:
        return CHECK_INTERVAL
    return min(CHECK_INTERVAL, max(job.fallback[0] + FALLBACK_DELAY - time.monotonic(), 0.05))


def _retire(thread: LoopThread, stalled: float) -> None:
    """Retire a thread whose loop is blocked, and log which adapter blocks it."""
    global _current
    with _lock:
        if thread.retired or thread.stopping:
            return
        thread.retire()
        if _current is thread:
            _current = None
    _log.warning(
        "%s has blocked the event loop behind blocking calls for %.1f s, %s; its thread is retired, and new calls get"
        " another: write `def generate` in place of `async def`, or await what it waits for",
        current_steps.get(thread.ident or 0, "something"),
        stalled,
        thread.current_line(),
    )


def blocking(core: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Return the blocking version of a coroutine function or method, fully typed.

    ::

        class MyProvider(ProviderAdapter):
            async def models(self) -> list[str]: ...

            models_sync = blocking(models)

    A method is looked up by name at call time, so the method of a subclass runs.

    Args:
        core: the coroutine function or method.

    Raises:
        TypeError: ``core`` is not a coroutine function.
    """
    if not inspect.iscoroutinefunction(core):
        raise TypeError(f"blocking() takes a coroutine function, not {core!r}")
    name = core.__name__
    is_method = "." in core.__qualname__.rpartition("<locals>.")[2]

    def blocking_version(*args: P.args, **kwargs: P.kwargs) -> T:
        if is_method and args:
            bound: Callable[..., Coroutine[Any, Any, T]] = getattr(args[0], name)
            return call(bound, *args[1:], **kwargs)
        return call(core, *args, **kwargs)

    functools.update_wrapper(blocking_version, core, updated=())  # __dict__ would carry __isabstractmethod__ over
    blocking_version.__name__ = f"{name}_sync"
    blocking_version.__qualname__ = f"{core.__qualname__}_sync"
    return blocking_version


class Closeable(ABC):
    """Base of objects that ``with`` closes in plain code and ``async with`` in an event loop."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close what was opened in the running event loop."""

    @abstractmethod
    def close(self) -> None:
        """Close what blocking calls opened."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def shutdown(timeout: float = 5.0) -> bool:
    """End the thread behind blocking calls; the next blocking call starts a new one.

    Calls that still run in other threads are cancelled and raise ``RuntimeShutdownError``; connections are closed.

    Args:
        timeout: seconds to wait for clean-up.

    Returns:
        True if the thread ended in time.

    Raises:
        InsideEventLoopError: an event loop runs in this thread.
    """
    global _current
    refuse_inside_loop(shutdown, "shutdown")
    with _lock:
        thread, _current = _current, None
    return thread is None or thread.stop(timeout)


def is_started() -> bool:
    """Return True if the loop thread runs."""
    return _current is not None


def must_await() -> bool:
    """Return True where a call that blocks or is awaited must be awaited: in a running event loop.

    Under IPython, only coroutines and the cell itself can await; plain functions and scripts that ``%run`` started may
    block there.
    """
    return running_inside_loop() and (not is_under_ipython() or find_caller().can_await)


def refuse_inside_loop(function: Callable[..., Any], name: str | None = None) -> None:
    """Raise ``InsideEventLoopError`` if an event loop runs in this thread, unless IPython or its kernel runs it.

    The message names the called function and what to do instead.

    Args:
        function: the function that would run in the loop thread.
        name: the qualified name of the blocking function that called this one. None is that of the caller's caller, a
            blocking version; if that has no remedy, the message names ``function``.
    """
    # A cell of a notebook may block: its kernel waits for it anyway, and the work is done in the loop thread.
    if not running_inside_loop() or is_under_ipython():
        return
    frame = sys._getframe(2)
    blocking_name = name or frame.f_code.co_qualname
    method = blocking_name.rpartition(".")[2]
    remedy = _REMEDIES.get(method)
    if method.endswith("_sync"):
        plain = method.removesuffix("_sync")
        if getattr(function, "__name__", "") == f"a{plain}":
            plain = f"a{plain}"
        remedy = f"await {plain}() instead"
    if remedy is None:
        blocking_name, remedy = getattr(function, "__qualname__", repr(function)), "await it directly"
    elif name is None and frame.f_back is not None:
        frame = frame.f_back  # the blocking version itself, which may stand in an author's module
    place = find_caller(frame)
    remedy = f"{remedy}, or call it in a worker thread" if place.can_await else thread_remedy(place)
    raise InsideEventLoopError(f"{blocking_name}() blocks, and an event loop is running in this thread: {remedy}")


_REMEDIES: Final = {
    "close": "await aclose() instead",
    "shutdown": "await anyio.to_thread.run_sync(llm_council.shutdown)",
    "__enter__": "use 'async with' instead",
    "__exit__": "use 'async with' instead",
    "__iter__": "use 'async for' instead",
    "__next__": "use 'async for' instead",
}


def _running_thread() -> LoopThread:
    global _current
    thread = _current  # read once: another thread may replace it
    if thread is not None and not thread.stopping:
        return thread
    if _exiting:
        refuse_at_exit()
    with _lock:
        if _current is None or _current.stopping:
            _refuse_green_threads()
            _current = _started_thread()
        return _current


def _started_thread() -> LoopThread:
    """Return a new loop thread.

    Raises:
        UnsupportedEnvironmentError: the process has no thread or no file descriptors for it.
    """
    try:
        thread = LoopThread()
        thread.start()
    except (OSError, RuntimeError) as error:
        lacking = shortage(error)
        if lacking is None:
            raise
        raise no_loop_error(lacking) from None
    return thread


def refuse_at_exit() -> NoReturn:
    """Raise ``RuntimeShutdownError`` because the process is exiting; a daemon thread waits until it is killed."""
    if threading.current_thread().daemon:
        threading.Event().wait()
    raise RuntimeShutdownError("the process is exiting; no new blocking call can start")


def _refuse_green_threads() -> None:
    gevent: Any = sys.modules.get("gevent.monkey")
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if (gevent and gevent.is_module_patched("threading")) or (eventlet and eventlet.is_monkey_patched("thread")):
        raise UnsupportedEnvironmentError(
            "gevent or eventlet has replaced the threads of this process, and an event loop cannot run beside them:"
            " use threaded workers (gunicorn --worker-class gthread), or await arun() in an ASGI application"
        )


def _exit() -> None:
    global _exiting
    _exiting = True
    if _current is not None:
        _current.exiting = True
        _current.stop(EXIT_TIMEOUT)


atexit.register(_exit)


_fork = threading.local()  # the locks that a forking thread holds between the hooks


def _before_fork() -> None:
    # The child gets copies of all locks but no loop thread: one that this thread holds, such as the import lock or a
    # logger's, would stay locked there for ever.
    # A Ctrl-C may end this hook half-way; Python prints it, and forks all the same.
    _fork.lock = _fork.released = None
    _fork.lock = _lock if _lock.acquire(timeout=FORK_TIMEOUT) else None
    _fork.released = _current.park(FORK_TIMEOUT) if _current is not None else None


def _after_fork_in_parent() -> None:
    if _fork.lock is not None:
        _fork.lock.release()
    if _fork.released is not None:
        _fork.released.set()


def _after_fork_in_child() -> None:
    global _current, _lock
    _inherited.append(_current)
    _current = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
