"""Where a call came from: the caller's line, whether it can await, and whether it was typed into IPython.

Errors and warnings about blocking calls in an event loop use this to name a remedy that fits the caller's place.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType

import attrs

__all__ = ["Caller", "find_caller", "is_under_ipython", "thread_remedy"]

_CAN_AWAIT = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")  # before Python 3.12, functions of their own
_BETWEEN = ("llm_council", "contextlib", "functools")  # modules between a caller and the call


@attrs.frozen(kw_only=True)
class Caller:
    """The innermost frame outside this package.

    Attributes:
        file: the path of its source.
        line: the line that it executes.
        function: the name of the function; ``<module>`` and ``<lambda>`` as Python has them.
        can_await: True in a coroutine, and for what is typed into a notebook or a REPL.
        module: the ``__name__`` of its module.
    """

    file: str
    line: int
    function: str
    can_await: bool
    module: str = "__main__"


def find_caller(start: FrameType | None = None) -> Caller:
    """Return the caller of this package.

    Args:
        start: the innermost frame that may be the caller; None starts with the frame that calls this function.
    """
    frame = start or sys._getframe(1)
    while frame.f_back is not None and any(_is_in(frame, module) for module in _BETWEEN):
        frame = frame.f_back
    line, file = frame.f_lineno, frame.f_code.co_filename
    while frame.f_code.co_name in _COMPREHENSIONS and frame.f_back is not None:
        frame = frame.f_back
    code = frame.f_code
    can_await = bool(code.co_flags & _CAN_AWAIT) or _is_typed(frame)
    module = frame.f_globals.get("__name__") or "__main__"
    return Caller(file=file, line=line, function=code.co_name, can_await=can_await, module=module)


def is_under_ipython() -> bool:
    """Return True if IPython or its kernel runs the code of this thread.

    The event loop of a kernel runs the cells one after the other, so a cell that blocks it delays nothing but itself.
    """
    if "IPython" not in sys.modules:
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_in(frame, "IPython") or _is_in(frame, "ipykernel"):
            return True
        frame = frame.f_back
    return False


def thread_remedy(caller: Caller) -> str:
    """Return how a plain function that an event loop runs can make a blocking call."""
    name = caller.function if caller.function.isidentifier() else "function"
    start = "trio.to_thread.run_sync" if _is_under_trio() else "asyncio.to_thread"
    return f"a plain function made this call: run that function in a worker thread, with {start}({name}, ...)"


def _is_under_trio() -> bool:
    trio = sys.modules.get("trio.lowlevel")
    try:
        return trio is not None and trio.current_trio_token() is not None
    except (RuntimeError, AttributeError):  # not in trio; or another thread is importing it
        return False


def _is_typed(frame: FrameType) -> bool:
    """Return True for the top level of a notebook's cell or of a REPL, where ``await`` may be typed."""
    if frame.f_code.co_name != "<module>":
        return False
    # The name tells a cell from a script that `%run` started. asyncio's REPL calls its input "<stdin>" or similar.
    outer = frame.f_back
    if outer is not None and _is_in(outer, "IPython"):
        return outer.f_code.co_name == "run_code"
    return frame.f_code.co_filename.startswith("<")


def _is_in(frame: FrameType, package: str) -> bool:
    module = frame.f_globals.get("__name__") or ""
    return module == package or module.startswith(f"{package}.")
