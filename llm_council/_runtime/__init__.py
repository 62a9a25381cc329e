"""The runtime: one event loop in one daemon thread, behind every blocking call, stream and close of the process.

From the bottom up: ``loops`` (which event loop runs here), ``thread`` (the loop thread, its jobs, and what blocks it),
``calls`` (the one thread of the process: start, calls, exit, fork, retirement), ``streams`` (blocking, awaited and
dual). ``worker_threads`` runs blocking adapters, ``large_work`` decodes large answers. ``per_loop`` stores resources
for each event loop; ``call_context`` has the facts of the run that a call belongs to, ``live_runs`` counts the runs
that may still make a call.
"""

from llm_council._runtime.calls import (
    Closeable,
    blocking,
    call,
    is_started,
    must_await,
    refuse_inside_loop,
    running_inside_loop,
    shutdown,
)
from llm_council._runtime.streams import AwaitedStream, BlockingStream, DualIterable, DualStream, iterate
from llm_council._runtime.thread import Fallback

__all__ = [
    "AwaitedStream",
    "BlockingStream",
    "Closeable",
    "DualIterable",
    "DualStream",
    "Fallback",
    "blocking",
    "call",
    "is_started",
    "iterate",
    "must_await",
    "refuse_inside_loop",
    "running_inside_loop",
    "shutdown",
]
