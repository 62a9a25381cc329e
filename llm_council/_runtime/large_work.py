"""Work on large texts in worker threads, so that it does not stop the event loop.

Decoding and checking 8 MB of JSON takes a tenth of a second and more. In a thread, the loop goes on between the steps
of this work, and the deadlines of all calls hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

__all__ = ["LARGE", "run_large"]

T = TypeVar("T")

LARGE: Final = 1 << 19
"""Characters or bytes from which on a text is large; a smaller one is decoded within some milliseconds."""

# Of their own: the default threads may all be taken by blocking adapters.
_limiter: RunVar[anyio.CapacityLimiter] = RunVar("llm_council._runtime.large_work")
_THREADS: Final = 4


async def run_large(size: int, function: Callable[[], T]) -> T:
    """Return the result of a function: at once for a small text, from a worker thread for a large one.

    Args:
        size: characters or bytes of the text that the function works on.
        function: must not touch what other tasks use. If the caller is cancelled, its thread is left behind.
    """
    if size < LARGE:
        return function()
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)
