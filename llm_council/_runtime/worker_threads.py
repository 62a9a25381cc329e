"""Run blocking functions of authors in worker threads, and notice when these only wait for each other.

A blocking adapter may run a council of its own. Its thread then waits for that run, whose blocking adapters need
threads too. If every thread waits in this way, none ever becomes free: the calls that wait for a thread fail at once.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import attrs
from anyio.lowlevel import RunVar

from llm_council.errors import AdapterFailed

__all__ = ["run_blocking"]

T = TypeVar("T")


@attrs.define(eq=False)
class _BlockingCall:
    """A call that has a worker thread, or waits for one.

    Attributes:
        above: the calls whose threads wait for this one, the outermost first.
        scope: ends the wait for a thread.
    """

    above: tuple[_BlockingCall, ...]
    scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)


@attrs.define(eq=False)
class _Calls:
    """The blocking calls of one event loop."""

    waiting: set[_BlockingCall] = attrs.field(factory=set)
    running: set[_BlockingCall] = attrs.field(factory=set)

    def are_stuck(self, threads: float) -> bool:
        """Return True if each of so many threads waits for a call that waits for a thread."""
        awaited = {call for waiting in tuple(self.waiting) for call in waiting.above}
        running = tuple(self.running)
        return len(running) >= threads and awaited.issuperset(running)


_calls: RunVar[_Calls] = RunVar("llm_council._runtime.worker_threads")
_above: contextvars.ContextVar[tuple[_BlockingCall, ...]] = contextvars.ContextVar("llm_council_blocking", default=())


async def run_blocking(function: Callable[[], T]) -> T:
    """Return the result of a function that runs in a worker thread; a cancellation leaves the thread behind.

    Raises:
        AdapterFailed: every worker thread waits for a run that needs one of them.
        BaseException: what the function raises.
    """
    calls = _calls.get(None)
    if calls is None:
        calls = _Calls()
        _calls.set(calls)
    limiter = anyio.to_thread.current_default_thread_limiter()
    call = _BlockingCall(_above.get())
    calls.waiting.add(call)
    if call.above and limiter.available_tokens <= 0 and calls.are_stuck(limiter.total_tokens):
        for waiting in [one for one in calls.waiting if one.above]:
            waiting.scope.cancel()

    def work() -> T:
        calls.waiting.discard(call)
        calls.running.add(call)
        _above.set((*call.above, call))  # anyio runs this in a copy of the context
        try:
            return function()
        finally:
            calls.running.discard(call)

    try:
        with call.scope:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    finally:
        calls.waiting.discard(call)
        calls.running.discard(call)  # a thread that is left behind counts no more
    raise AdapterFailed(
        f"all {limiter.total_tokens} worker threads hold blocking adapters that wait for runs of their own, which"
        " need threads too: write `async def generate` and await arun() in an adapter that runs a council"
    )
