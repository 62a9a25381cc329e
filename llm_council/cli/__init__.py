"""The ``council`` command: ``llm_council.cli:main``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

__all__ = ["leaving_at_once", "main"]


def main() -> None:
    """Run the command line and exit: 0 success, 1 failed, 2 wrong usage, 3 degraded and ``--strict``, 130 Ctrl-C."""
    with leaving_at_once():
        from llm_council.cli._main import main as run
    run()


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Exit on Ctrl-C without a traceback while modules are imported: no run has started yet."""
    # Signal handlers can be set in the main thread only, and a handler of the embedding program stays.
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # No exception: raised in the middle of an import, it could be caught there, or leave a traceback.
    os.write(2, b"interrupted\n")
    os._exit(130)
