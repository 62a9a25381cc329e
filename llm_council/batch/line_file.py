"""A file that grows by whole lines, and what a killed process leaves of the last one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from llm_council._runtime import posix
from llm_council.errors import InvalidOption

__all__ = ["LineFile"]


class LineFile:
    """A file to which whole lines are appended. While it is open, no other process can open it.

    A line is in the file once ``append`` returns: a process that is killed afterwards does not lose it. A process that
    is killed while it appends may leave a torn last line, which the reader of the file cuts off with ``truncate``. A
    line survives the end of the machine once ``flush`` returns.

    Args:
        path: the file. It is created if it does not exist, readable by its owner alone.
        busy: the message of the error if another process has it open.

    Raises:
        InvalidOption: another process has the file open.
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path, *, busy: str) -> None:
        self._file = _open(path, busy)
        self._end = os.lseek(self._file, 0, os.SEEK_END)

    def append(self, line: bytes) -> None:
        """Append a line; its end is added. If that fails, the file ends as before.

        Raises:
            OSError: the line cannot be written.
        """
        rest = memoryview(line + b"\n")  # one write: a killed process leaves at most this line torn
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            with suppress(OSError):
                self.truncate(self._end)
            raise
        self._end += len(line) + 1

    def truncate(self, length: int) -> None:
        """Cut the file to a number of bytes; lines are appended behind them."""
        os.ftruncate(self._file, length)
        self._end = os.lseek(self._file, length, os.SEEK_SET)

    def flush(self) -> None:
        """Write the lines to the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Flush and close the file; once closed, nothing happens."""
        handle, self._file = self._file, _CLOSED
        if handle == _CLOSED:
            return
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_CLOSED: Final = -1


def _open(path: Path, busy: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _lock(handle, busy)
            # Another process may have replaced the file between the two calls.
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, busy: str) -> None:
    """Keep other processes from opening the file until it is closed; Windows has no such locks."""
    if "fcntl" in posix.missing():
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidOption(busy) from None
    except OSError:  # a file system without locks
        return
