"""One adapter call in a task of its own, which can be left behind when it does not heed its cancellation."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar

import anyio
import sniffio

from llm_council._runtime import AwaitedStream, Fallback, call_context, loops
from llm_council._runtime.thread import suspended_at, watched
from llm_council.errors import AdapterFailed, TimedOut
from llm_council.errors._secrets import MaskedText
from llm_council.models.limits import Timeouts
from llm_council.models.request import GenerateRequest

__all__ = [
    "GRACE",
    "Errand",
    "InPlace",
    "OutOfTime",
    "Steps",
    "heeding",
    "heeds",
    "heeds_cancellation",
    "late",
    "seconds_for",
    "time_left",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

GRACE: Final = 1.0
"""Seconds that a cancelled adapter has for its clean-up before it is left behind."""

_log = logging.getLogger("llm_council")


class OutOfTime(Exception):
    """The seconds are over."""


def time_left(request: GenerateRequest, total: float | None, deadline: float | None = None) -> float | None:
    """Return the seconds that a call has: the least of its own limits and its run's, else ``total``."""
    said = [limit for limit in (deadline, request.timeout_seconds, call_context.current().left()) if limit is not None]
    return min(said) if said else total


def seconds_for(adapter: Any, request: GenerateRequest, deadline: float | None) -> float | None:
    """Return the seconds that a call of an adapter has.

    Raises:
        TimedOut: there are none left.
    """
    timeouts = adapter._timeouts  # an author may use the name for something else
    left = time_left(request, timeouts.total if isinstance(timeouts, Timeouts) else None, deadline)
    if left is not None and left <= 0:
        raise TimedOut("no time was left for this call; nothing was sent")
    return left


def late(name: str, seconds: float | None, partial: MaskedText | None = None) -> TimedOut:
    """Return the error of a call whose seconds are over."""
    return TimedOut(f"{name} did not answer within {seconds:.3g} s").fill(partial=partial)


def _blocked(name: str, seconds: float | None) -> NoReturn:
    """Raise what a blocking caller gets when the event loop stands still beyond the seconds of a call."""
    said = f"{name} did not answer within {seconds or 0:.3g} s: something blocks the event loop"
    raise TimedOut(said, provider=name, run_id=call_context.current().run_id, elapsed=seconds)


class InPlace(Generic[T]):
    """A coroutine of our own, which heeds its cancellation, awaited in its caller's task for a limited time.

    Args:
        core: makes the coroutine.
        name: who is named where the event loop stands still.

    Attributes:
        error: what the coroutine raised; not raised here, so that all errands end alike.
    """

    __slots__ = ("_core", "_name", "error", "value")

    def __init__(self, core: Callable[[], Coroutine[Any, Any, T]], name: str) -> None:
        self._core = core
        self._name = name
        self.error: BaseException | None = None
        self.value: T

    async def run(self, seconds: float | None) -> None:
        """Await the coroutine until it ends with a ``value`` or an ``error``; cancellation passes.

        Args:
            seconds: the longest wait; None waits as long as it takes.

        Raises:
            OutOfTime: the seconds are over.
        """
        with Fallback(seconds, partial(_blocked, self._name, seconds)), anyio.move_on_after(seconds):
            try:
                self.value = await self._core()
            except Exception as error:  # noqa: BLE001 - its transport or its hooks may be somebody's
                self.error = error
            return
        raise OutOfTime

    def failure(self) -> BaseException | None:
        """Return what the coroutine raised, once: whoever raises it is a frame of its, and must not hold it."""
        error, self.error = self.error, None
        return error


class Errand(InPlace[T]):
    """A coroutine that runs in its own task while its caller waits, for a limited time.

    The caller's cancellation is the task's. A task that has not ended ``GRACE`` seconds after its cancellation is left
    behind, and a warning names the line at which it stands.

    Args:
        core: makes the coroutine.
        name: who is named in the warning.
        watched: warn of steps that block the event loop; ours do not, but for what they load when first used.

    Attributes:
        error: what the coroutine raised; not raised here, so that it cannot be taken for the caller's own.
    """

    __slots__ = ("_done", "_scope", "_watched", "_work")

    def __init__(self, core: Callable[[], Coroutine[Any, Any, T]], name: str, *, watched: bool = True) -> None:
        super().__init__(core, name)
        self._watched = watched
        self._work: Coroutine[Any, Any, T] | None = None
        self._done = anyio.Event()
        self._scope = anyio.CancelScope()

    async def run(self, seconds: float | None) -> None:
        """Run the task until it ends with a ``value`` or an ``error``.

        Args:
            seconds: the longest wait; None waits as long as it takes.

        Raises:
            OutOfTime: the seconds are over.
        """
        loops.current().spawn(self.work, self._done.set)
        try:
            with Fallback(seconds, partial(_blocked, self._name, seconds)), anyio.move_on_after(seconds):
                await self._done.wait()
        except BaseException:  # the caller's cancellation
            await self._cancel()
            raise
        if not self._done.is_set():
            await self._cancel()
            raise OutOfTime
        if isinstance(self.error, anyio.get_cancelled_exc_class()):
            self.error = AdapterFailed(f"{self._name} was cancelled from within: nobody here asked for it")

    async def work(self) -> None:
        """Do the work, in the task; raise nothing but a cancellation that is not ours."""
        try:
            with self._scope:
                self._work = self._core()
                self.value = await (watched(self._work, self._name) if self._watched else self._work)
        except GeneratorExit as error:
            if not loops.is_running():  # the loop is gone, and this coroutine is being swept up
                raise
            self.error = error
        except BaseException as error:  # noqa: BLE001 - its caller raises it; here it would end the loop
            self.error = error

    async def _cancel(self) -> None:
        self._scope.cancel()
        with anyio.move_on_after(GRACE, shield=True):
            await self._done.wait()
        if not self._done.is_set():
            _log.warning("%s does not heed its cancellation and is left behind%s", self._name, suspended_at(self._work))


def heeds_cancellation(adapter: object) -> bool:
    """Tell whether an adapter is a middleware of our own, which needs no task; a subclass of one is its author's."""
    return "_heeds_cancellation" in vars(type(adapter))


def heeding(method: F) -> F:
    """Mark a method of our own, which heeds its cancellation: it needs no task that could be left behind."""
    vars(method)["_heeds_cancellation"] = True
    return method


def heeds(method: Callable[..., Any]) -> bool:
    """Tell whether a method is marked so; one that overrides ours is not."""
    return getattr(method, "_heeds_cancellation", False) is True


class _Noted(AsyncIterator[T]):
    """An author's pieces, whose steps are timed."""

    def __init__(self, pieces: AsyncIterator[T], name: str) -> None:
        self._pieces = pieces
        self._name = name

    async def __anext__(self) -> T:
        step: Any = self._pieces.__anext__()
        value: T = await watched(step, self._name)
        return value

    async def aclose(self) -> None:
        aclose = getattr(self._pieces, "aclose", None)
        if aclose is not None:
            await aclose()


class Steps(Generic[T]):
    """The items of an async iterator within a limited time, counted over all of them and the pauses between.

    Under asyncio one timer serves the whole of an iterator of our own, which runs in its consumer's task. An author's
    gets a task of its own, which is left behind when it does not heed its cancellation; and elsewhere so do ours: a
    limit around each step would be a cancel scope around half of one that is held across a ``yield``.

    Args:
        iterator: what is iterated: an async generator.
        seconds: how long; None has no end.
        name: who is named in warnings.
        heeding: whether the iterator heeds its cancellation.
    """

    __slots__ = ("_asked", "_ends", "_iterator", "_name", "_ours", "_over", "_promise", "_task", "_timer")

    def __init__(self, iterator: AsyncIterator[T], seconds: float | None, name: str, *, heeding: bool) -> None:
        self._iterator = iterator
        self._name = name
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._over = False
        self._ours = False
        self._asked = 0
        self._promise = Fallback(seconds, partial(_blocked, name, seconds))
        self._promise.__enter__()  # until ``aclose``
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if not heeding or sniffio.current_async_library() != "asyncio":
            self._iterator = AwaitedStream(lambda: _Noted(iterator, name), grace=GRACE)
        elif seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        self._over = True
        # Of two limits that end together, one cancels: a second time would break off the clean-up after the first.
        if self._task is not None and self._task.cancelling() == self._asked:
            self._ours = self._task.cancel()

    async def next(self) -> T:
        """Return the next item.

        Raises:
            OutOfTime: the seconds are over.
            StopAsyncIteration: there is none.
        """
        if self._timer is None:
            with anyio.move_on_after(None if self._ends is None else self._ends - time.monotonic()):
                try:
                    return await anext(self._iterator)
                finally:
                    self._tell()
            raise OutOfTime
        if self._over:
            raise OutOfTime
        task = self._task = asyncio.current_task()
        self._asked = 0 if task is None else task.cancelling()
        try:
            return await anext(self._iterator)
        except asyncio.CancelledError:
            if not self._is_ours() or task is None or task.cancelling() != self._asked + 1:  # it is somebody's
                raise
        finally:
            if self._is_ours() and task is not None:
                task.uncancel()
            self._task = None
        raise OutOfTime  # not while the cancellation is handled, whose frames hold what was sent

    def _tell(self) -> None:
        if isinstance(self._iterator, AwaitedStream) and self._iterator.abandoned:
            _log.warning("%s does not heed its cancellation: its stream is left behind", self._name)

    def _is_ours(self) -> bool:
        return self._ours

    async def aclose(self) -> None:
        """End the iterator; its clean-up runs."""
        self._promise.__exit__()
        if self._timer is not None:
            self._timer.cancel()
        aclose = getattr(self._iterator, "aclose", None)
        if aclose is not None:
            await aclose()
