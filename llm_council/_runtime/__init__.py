"""The runtime: one event loop in one daemon thread, behind every blocking call, stream and close of the process.

``call`` runs a coroutine function there and waits; ``iterate`` is its twin for streams; ``DualStream`` serves both
worlds. From the bottom up: ``loops`` (which loop runs here), ``thread`` (the loop thread and its jobs), ``stepping``
(who holds it up), ``calls`` (the one thread of the process: start, exit, fork, retirement), ``pump`` (one task per
stream), ``blocking_stream``, ``dual_stream``; ``closing`` stands beside them.
"""

from llm_council._runtime.blocking_stream import BlockingStream, iterate
from llm_council._runtime.calls import blocking, call, is_started, refuse_inside_loop, running_inside_loop, shutdown
from llm_council._runtime.closing import Closing
from llm_council._runtime.dual_stream import AwaitedStream, DualStream
from llm_council._runtime.thread import Answering

__all__ = [
    "Answering",
    "AwaitedStream",
    "BlockingStream",
    "Closing",
    "DualStream",
    "blocking",
    "call",
    "is_started",
    "iterate",
    "refuse_inside_loop",
    "running_inside_loop",
    "shutdown",
]
