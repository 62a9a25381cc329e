"""What a process has run out of, in words: file descriptors or threads."""

from __future__ import annotations

import errno

__all__ = ["shortage"]

_DESCRIPTORS = {
    errno.EMFILE: "this process has no free file descriptor: close files, or raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has no free file descriptor: end other programs, or raise its limit",
}
_THREADS = (
    "no thread can be started: raise the limit of processes and threads (ulimit -u), or that of the container (pids)"
)


def shortage(exc: BaseException) -> str | None:
    """Return what is used up and the remedy, for an exception that means that; None for any other exception."""
    if isinstance(exc, OSError):
        return _THREADS if exc.errno == errno.EAGAIN and _is_about_threads(exc) else _DESCRIPTORS.get(exc.errno or 0)
    return _THREADS if isinstance(exc, RuntimeError) and _is_about_threads(exc) else None


def _is_about_threads(exc: BaseException) -> bool:
    # The words of CPython, in all versions; there is no class of its own.
    return "can't start new thread" in str(exc)
