"""The one event loop behind every blocking call of the process.

``call`` runs a coroutine function in the loop's thread and waits for it. The thread starts with the first call, serves
every council and adapter, and ends at exit or with ``shutdown``. Ctrl-C cancels the task it leaves; a fork keeps parent
and child apart; blocking a running event loop is refused.
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
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

from llm_council._runtime.frames import user_traceback
from llm_council._runtime.loops import is_running as running_inside_loop
from llm_council._runtime.stepping import stepping
from llm_council._runtime.thread import Job, LoopThread
from llm_council.errors import InsideEventLoopError, RuntimeShutdownError, UnsupportedEnvironmentError

__all__ = [
    "blocking",
    "call",
    "is_started",
    "refuse_inside_loop",
    "running_inside_loop",
    "shutdown",
    "submit",
    "wait_for",
]

P = ParamSpec("P")
T = TypeVar("T")

EXIT: Final = 2.0  # seconds the exit of the process waits for all clean-up
PARK: Final = 2.0  # seconds a fork waits for the loop thread to stand still
TICK: Final = 0.5  # seconds between two looks at the loop thread
LATE: Final = 1.0  # seconds that an answer may come later than it was promised
STILL: Final = 5.0  # seconds that the loop may stand still

_log = logging.getLogger("llm_council")

_current: LoopThread | None = None
_lock = threading.Lock()
_exiting = False
_inherited: list[LoopThread | None] = []  # a forked child keeps its parent's loop and sockets unclosed


def call(core: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a coroutine function in the loop thread and wait for what it returns.

    The caller's context variables are copied in. An exception in the waiting thread, ``KeyboardInterrupt`` above all,
    cancels the task and waits at most 5 s for its clean-up; a second one ends that wait.

    Args:
        core: the coroutine function.
        *args: its positional arguments.
        **kwargs: its keyword arguments.

    Raises:
        InsideEventLoopError: an event loop runs in this thread; await the core there.
        UnsupportedEnvironmentError: gevent or eventlet has replaced the threads.
        RuntimeShutdownError: the process is exiting, or ``shutdown`` ended the call.
        BaseException: whatever the core raises.
    """
    if running_inside_loop():
        refuse_inside_loop(core, sys._getframe(1).f_code.co_qualname)
    job = Job(core, args, kwargs)
    try:
        submit(job)
        otherwise = wait_for(job, job.done)
    except BaseException:
        job.abandon()
        raise
    if otherwise is not None:
        return otherwise()
    error = job.error
    if error is None:
        return job.value
    try:
        raise error.with_traceback(user_traceback(error))
    finally:
        del error, job  # no cycle through the traceback


def submit(job: Job[Any]) -> None:
    """Hand a job to the loop thread, which starts where it does not run."""
    while not job.finished:
        if _started().take(job):
            return


def wait_for(job: Job[T], flag: threading.Lock) -> Callable[[], T] | None:
    """Wait until the loop thread releases a lock, and watch that thread meanwhile.

    A loop that stands still for 5 s, or beyond what it promised to this job, is retired: it keeps what it has begun,
    what it has not begun moves to a new thread, and so does everything that comes later.

    Returns:
        None when the lock was released; else what answers in place of the loop.
    """
    while not flag.acquire(timeout=_patience(job)):
        thread = job.thread
        if thread is None or thread.silent:
            continue
        still = thread.still()
        broken = job.promise is not None and time.monotonic() >= job.promise[0] + LATE and still >= TICK
        if broken or still >= STILL:
            _retire(thread, still)
        if thread.retired and job.claim(thread):
            thread.forget(job)
            submit(job)
        elif broken and job.promise is not None and not job.finished:
            otherwise = job.promise[1]
            job.leave()
            return partial(job.context.copy().run, otherwise)
    return None


def _patience(job: Job[Any]) -> float:
    """Return how long to wait before looking at the loop thread again."""
    if job.promise is None:
        return TICK
    return min(TICK, max(job.promise[0] + LATE - time.monotonic(), 0.05))


def _retire(thread: LoopThread, still: float) -> None:
    """Put a thread that stands still out of service, and say who holds it up."""
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
        stepping.get(thread.ident or 0, "something"),
        still,
        thread.where(),
    )


def blocking(core: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make the blocking twin of a coroutine function or method, fully typed.

    ::

        class MyProvider(ProviderAdapter):
            async def models(self) -> list[str]: ...

            models_sync = blocking(models)

    A method is looked up by name when it is called, so a subclass that overrides the core is served too.

    Raises:
        TypeError: ``core`` is not a coroutine function.
    """
    if not inspect.iscoroutinefunction(core):
        raise TypeError(f"blocking() takes a coroutine function, not {core!r}")
    name = core.__name__
    is_method = "." in core.__qualname__.rpartition("<locals>.")[2]

    def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        if is_method and args:
            bound: Callable[..., Coroutine[Any, Any, T]] = getattr(args[0], name)
            return call(bound, *args[1:], **kwargs)
        return call(core, *args, **kwargs)

    functools.update_wrapper(twin, core, updated=())  # __dict__ would carry __isabstractmethod__ over
    twin.__name__ = f"{name}_sync"
    twin.__qualname__ = f"{core.__qualname__}_sync"
    return twin


def shutdown(timeout: float = 5.0) -> bool:
    """End the thread behind blocking calls; the next blocking call starts a new one.

    Calls that run elsewhere are cancelled and raise ``RuntimeShutdownError``; open connections are closed.

    Args:
        timeout: seconds to wait for clean-up.

    Returns:
        Whether the thread ended in time.

    Raises:
        InsideEventLoopError: an event loop runs in this thread.
    """
    global _current
    if running_inside_loop():
        refuse_inside_loop(shutdown, "shutdown")
    with _lock:
        runtime, _current = _current, None
    return runtime is None or runtime.stop(timeout)


def is_started() -> bool:
    """Tell whether the loop thread runs."""
    return _current is not None


def refuse_inside_loop(core: Callable[..., Any], caller: str) -> None:
    """Raise ``InsideEventLoopError``, naming what was called and what to do instead.

    Args:
        core: what would have run in the loop thread.
        caller: the qualified name of the blocking function; where it is no twin, the core is named.
    """
    name = caller.rpartition(".")[2]
    remedy = _REMEDIES.get(name)
    if name.endswith("_sync"):
        plain = name.removesuffix("_sync")
        remedy = f"await {f'a{plain}' if getattr(core, '__name__', '') == f'a{plain}' else plain}() instead"
    if remedy is None:
        caller, remedy = getattr(core, "__qualname__", repr(core)), "await it directly"
    raise InsideEventLoopError(
        f"{caller}() blocks, and an event loop is running in this thread: {remedy}, or call it in a worker thread"
    )


_REMEDIES: Final = {
    "close": "await aclose() instead",
    "__enter__": "use 'async with' instead",
    "__exit__": "use 'async with' instead",
    "__iter__": "use 'async for' instead",
    "__next__": "use 'async for' instead",
}


def _started() -> LoopThread:
    global _current
    runtime = _current
    if runtime is not None and not runtime.stopping:
        return runtime
    if _exiting:
        break_off()
    with _lock:
        if _current is None or _current.stopping:
            _refuse_green_threads()
            _current = LoopThread()
            _current.start()
        return _current


def break_off() -> NoReturn:
    """Refuse a call of the exiting process; a daemon thread waits for its end, as the interpreter will have it do."""
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
        _current.silent = True
        _current.stop(EXIT)


atexit.register(_exit)


class _Fork(threading.local):
    """What the forking thread holds between the hooks."""

    lock: threading.Lock | None = None
    released: threading.Event | None = None


_fork = _Fork()


def _before_fork() -> None:
    """Keep the thread from starting, or from holding the import lock or a logger's, while the fork copies them."""
    _fork.lock = _lock if _lock.acquire(timeout=PARK) else None
    _fork.released = _current.park(PARK) if _current is not None else None


def _after_fork_in_parent() -> None:
    if _fork.released is not None:
        _fork.released.set()
    if _fork.lock is not None:
        _fork.lock.release()


def _after_fork_in_child() -> None:
    global _current, _lock
    _inherited.append(_current)
    _current = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
