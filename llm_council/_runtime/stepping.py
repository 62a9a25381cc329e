"""Whose coroutine takes a step right now, and how long it took: an event loop does nothing else meanwhile."""

from __future__ import annotations

import inspect
import logging
import time
import types
from collections.abc import Coroutine, Generator
from pathlib import Path
from threading import get_ident
from typing import Any, Final, TypeVar

from llm_council._runtime.frames import is_internal

__all__ = ["SLOW", "noted", "standing", "stepping"]

T = TypeVar("T")

SLOW: Final = 1.0
"""Seconds of one step that are worth a warning."""

stepping: Final[dict[int, str]] = {}
"""By the thread's identifier, the name of whoever takes a step in it now."""

_log = logging.getLogger("llm_council")


@types.coroutine
def noted(work: Coroutine[Any, Any, T], name: str) -> Generator[Any, Any, T]:
    """Await somebody else's coroutine, note its steps in ``stepping``, and warn of those that block the loop.

    Args:
        work: the coroutine.
        name: whose it is.
    """
    thread = get_ident()
    thrown: BaseException | None = None
    value: Any = None
    while True:
        began = time.monotonic()
        stepping[thread] = name
        try:
            passed = work.send(value) if thrown is None else work.throw(thrown)
        except StopIteration as end:
            answer: T = end.value
            return answer
        finally:
            stepping.pop(thread, None)
            thrown = None
            took = time.monotonic() - began
            if took >= SLOW:
                _log.warning("%s has blocked the event loop for %.1f s%s", name, took, standing(work))
        try:
            value = yield passed
        except BaseException as exc:  # noqa: BLE001 - the coroutine's own, thrown into it where it stands
            thrown, value = exc, None


def standing(work: Any) -> str:
    """Return ``", at file.py:12"`` for the outermost line of a coroutine that is not ours; empty when it has none."""
    while inspect.iscoroutine(work) and work.cr_frame is not None:
        if not is_internal(work.cr_frame):
            return f", at {Path(work.cr_code.co_filename).name}:{work.cr_frame.f_lineno}"
        work = work.cr_await
    return ""
