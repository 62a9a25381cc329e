"""Bound an adapter's call or stream in time, and leave it behind when it ignores its cancellation."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar

import anyio

from llm_council._runtime import AwaitedStream, Fallback, call_context, loops
from llm_council._runtime.thread import suspended_at, watched
from llm_council.errors import AdapterFailed, TimedOut
from llm_council.models.limits import Timeouts
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.error_mapping import error_for_caller

__all__ = [
    "GRACE",
    "BoundedStream",
    "DetachedCall",
    "StreamLimits",
    "cancellable",
    "fallback_for",
    "is_cancellable",
    "is_own_middleware",
    "run_inline",
    "seconds_for",
    "time_left",
    "timeout_error",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

GRACE: Final = 1.0
"""Seconds that a cancelled adapter has for its clean-up before it is abandoned."""

_log = logging.getLogger("llm_council")


def time_left(request: GenerateRequest, total: float | None, deadline: float | None = None) -> float | None:
    """Return the seconds that a call has: the least of its own limits and its run's, else ``total``; None is no limit.

    Args:
        request: the request, whose ``timeout_seconds`` is a limit.
        total: the provider's default, used when no limit is set.
        deadline: another limit, in seconds from now.
    """
    left = call_context.current().left()
    for limit in (deadline, request.timeout_seconds):
        if limit is not None and (left is None or limit < left):
            left = limit
    return total if left is None else left


def seconds_for(adapter: Any, request: GenerateRequest, deadline: float | None) -> float | None:
    """Return the seconds that a call of an adapter has; None is no limit.

    Raises:
        TimedOut: no time is left.
    """
    timeouts = adapter._timeouts
    # The author of an adapter may use this attribute for something else.
    total = timeouts.total if isinstance(timeouts, Timeouts) else None
    left = time_left(request, total, deadline)
    if left is not None and left <= 0:
        raise TimedOut("no time was left for this call; nothing was sent")
    return left


def timeout_error(name: str, seconds: float | None) -> TimedOut:
    """Return the error of a call that ran out of time."""
    return TimedOut(f"{name} did not answer within {seconds or 0:.3g} s")


def fallback_for(name: str, seconds: float | None) -> Fallback:
    """Return a context in which a synchronous caller gets ``TimedOut`` even if something blocks the event loop."""
    return Fallback(seconds, partial(_raise_blocked, name, seconds))


def _raise_blocked(name: str, seconds: float | None) -> NoReturn:
    message = f"{name} did not answer within {seconds or 0:.3g} s: something blocks the event loop"
    raise TimedOut(message, provider=name, run_id=call_context.current().run_id, elapsed=seconds)


def cancellable(method: F) -> F:
    """Mark a method of ours that ends when it is cancelled, so that it needs no task that could be abandoned.

    A marked ``stream`` also enforces the time limits of its request itself.
    """
    vars(method)["_is_cancellable"] = True
    return method


def is_cancellable(method: Callable[..., Any]) -> bool:
    """Return True for a method marked with ``cancellable``; one that overrides it is not."""
    return getattr(method, "_is_cancellable", False) is True


def is_own_middleware(adapter: object) -> bool:
    """Return True for a middleware of this library, which is cancellable; a subclass of one belongs to its author."""
    return "_is_own_middleware" in vars(type(adapter))


async def run_inline(function: Callable[[], Coroutine[Any, Any, T]], seconds: float | None, name: str) -> T:
    """Await a cancellable coroutine in the caller's task.

    Args:
        function: makes the coroutine.
        seconds: the longest wait; None is no limit.
        name: the provider's name.

    Raises:
        TimedOut: the seconds are over.
        CouncilError: the coroutine raised it; other exceptions are converted by ``error_for_caller``.
    """
    with fallback_for(name, seconds), anyio.move_on_after(seconds):
        try:
            return await function()
        except Exception as exc:  # noqa: BLE001 - a caller's transport or an author's hook may raise anything
            raise error_for_caller(exc)  # noqa: B904 - it has a cause of its own
    raise timeout_error(name, seconds)


class DetachedCall(Generic[T]):
    """A coroutine that runs in its own task while its caller waits for a limited time.

    The caller's cancellation is passed on to the task. A task that has not ended ``GRACE`` seconds after its
    cancellation is abandoned, and a warning names the line where it stands.

    Args:
        function: makes the coroutine.
        name: the provider's name.
    """

    def __init__(self, function: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._function = function
        self._name = name
        self._value: T
        self._error: BaseException | None = None
        self._work: Coroutine[Any, Any, T] | None = None
        self._done = anyio.Event()
        self._scope = anyio.CancelScope()

    async def run(self, seconds: float | None) -> T:
        """Run the task, and return its value.

        Args:
            seconds: the longest wait; None is no limit.

        Raises:
            TimedOut: the seconds are over.
            CouncilError: the coroutine raised it; other exceptions are converted by ``error_for_caller``.
        """
        loops.current().spawn(self._run_task, self._done.set)
        try:
            with fallback_for(self._name, seconds), anyio.move_on_after(seconds):
                await self._done.wait()
        except BaseException:  # the caller's cancellation
            await self._cancel()
            raise
        if not self._done.is_set():
            await self._cancel()
            raise timeout_error(self._name, seconds)
        error, self._error = self._error, None
        if error is None:
            return self._value
        if isinstance(error, anyio.get_cancelled_exc_class()):
            error = AdapterFailed(f"{self._name} raised a cancellation that nobody had asked for")
        try:
            raise error_for_caller(error)
        finally:
            # The traceback holds this frame: if the frame held the error, a partial text of many MiB would stay in
            # memory until the garbage collector runs.
            del error

    async def _run_task(self) -> None:
        try:
            with self._scope:
                self._work = self._function()
                self._value = await watched(self._work, self._name)
        except GeneratorExit as error:
            if not loops.is_running():  # the event loop has ended, and this coroutine is being finalised
                raise
            self._error = error
        except BaseException as error:  # noqa: BLE001 - ``run`` raises it; here it would end the event loop
            self._error = error

    async def _cancel(self) -> None:
        self._scope.cancel()
        # Shielded, because the caller may be cancelled itself, and its wait would end at once.
        with anyio.move_on_after(GRACE, shield=True):
            await self._done.wait()
        if not self._done.is_set():
            _log.warning("%s ignores its cancellation and was abandoned%s", self._name, suspended_at(self._work))


class StreamLimits:
    """Both time limits of one stream: its total time, and the time since its last event with content.

    Args:
        name: the provider's name.
        total: seconds for the whole stream, from now on, with the pauses of its consumer; None is no limit.
        idle: seconds without content; None is no limit.
    """

    def __init__(self, name: str, total: float | None, idle: float | None = None) -> None:
        self._name = name
        self._total = total
        self._idle = math.inf if idle is None else idle
        self._content_at = time.monotonic()
        self._ends = math.inf if total is None else self._content_at + total

    def content_arrived(self) -> None:
        """Restart the idle limit."""
        self._content_at = time.monotonic()

    async def prepare(self, step: Callable[[], Awaitable[None]]) -> None:
        """Await what is no part of the vendor's answer, such as an import; the idle limit does not count it.

        Raises:
            TimedOut: the total limit was reached.
        """
        with anyio.move_on_after(None if self._ends == math.inf else self._ends - time.monotonic()):
            await step()
            self.content_arrived()
            return
        raise timeout_error(self._name, self._total)

    async def wait(self, step: Callable[[], Awaitable[T]], *, idle: float = math.inf) -> T:
        """Await one step of the stream.

        Args:
            step: makes the awaitable.
            idle: a shorter idle limit for this step, in seconds.

        Raises:
            TimedOut: ``phase`` is ``"deadline"`` for the total limit, ``"idle"`` for the other.
        """
        idle_ends = self._content_at + min(self._idle, idle)
        now = time.monotonic()
        # A step is not begun after the total limit, even if its item has arrived already.
        if now < self._ends:
            with anyio.move_on_after(min(self._ends, idle_ends) - now):
                return await step()
        if self._ends <= idle_ends:
            raise timeout_error(self._name, self._total)
        raise TimedOut("the stream brought nothing for too long", phase="idle")


class BoundedStream(AsyncIterator[T]):
    """An author's async iterator in a task of its own, within a limited time.

    The task is abandoned when it does not end ``GRACE`` seconds after its cancellation. It has to be a task of its
    own: a cancel scope around each step would overlap with a scope that the iterator holds across a ``yield``.

    Args:
        iterator: the iterator, an async generator.
        seconds: the limit for all items together, with the pauses of the consumer; None is no limit.
        name: the provider's name.
    """

    def __init__(self, iterator: AsyncGenerator[T, None], seconds: float | None, name: str) -> None:
        self._name = name
        self._limits = StreamLimits(name, seconds)
        self._stream = AwaitedStream(lambda: _Watched(iterator, name), grace=GRACE)

    async def __anext__(self) -> T:
        try:
            return await self._limits.wait(partial(anext, self._stream))
        finally:
            if self._stream.abandoned:
                _log.warning("%s ignores its cancellation: its stream was abandoned", self._name)

    async def aclose(self) -> None:
        """End the iterator; its clean-up runs."""
        await self._stream.aclose()


class _Watched(AsyncIterator[T]):
    """An iterator whose steps are timed, to warn about those that block the event loop."""

    def __init__(self, iterator: AsyncGenerator[T, None], name: str) -> None:
        self._iterator = iterator
        self._name = name

    async def __anext__(self) -> T:
        step: Any = self._iterator.__anext__()
        value: T = await watched(step, self._name)
        return value

    async def aclose(self) -> None:
        await self._iterator.aclose()
