"""Run one program in a process group of its own, and end the whole group when the parent lets go.

Run by path with ``python -I -S``: it imports nothing of this package and reads nothing of the folder it runs in. The
parent keeps the pipe CONTROL open; whatever way the parent ends, SIGKILL included, the pipe ends with it, and then so
does the group: SIGTERM, GRACE seconds, SIGKILL. Reports go to the pipe STATUS: ``started PID``, then
``exit CODE``, negative for a signal; or ``error ERRNO`` alone.

Usage: ``_supervisor.py CONTROL STATUS PARENT GRACE FOLDER PROGRAM [ARGUMENT ...]``. FOLDER is a temporary folder, which
is removed here after the program has ended, because the parent may be killed at any moment.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable

_POLL = 1.0  # seconds between two looks at whether the parent lives: a forked sibling of it may hold the pipe open
# Python ignores these two; the program gets them, and those that are handled here, as a shell would give them.
_DEFAULTS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCHLD,
)


class _Supervisor:
    """One program, from its start to the end of its group."""

    def __init__(self, control: int, status: int, parent: int, grace: float, folder: str) -> None:
        self.control = control
        self.status = status
        self.parent = parent
        self.grace = grace
        self.folder = folder
        self.asked = False  # to stop, by a signal
        self.child = 0
        self.code: int | None = None
        for fd in (control, status):
            os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keyword
        self.woken, waker = os.pipe()
        os.set_blocking(self.woken, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True

    def run(self, command: list[str]) -> None:
        """Start the program, wait for its end or the parent's, end what is left of its group."""
        try:
            self.child = os.posix_spawn(
                command[0], command, os.environ, setpgroup=0, setsigdef=_DEFAULTS, setsigmask=()
            )
        except OSError as error:
            _remove(self.folder)
            self.tell(f"error {error.errno or errno.EINVAL}")
            return
        self.tell(f"started {self.child}")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):  # these belong to the program alone: held here, they would not end with it
            os.dup2(null, fd)
        self.attend()
        self.signal_group(signal.SIGKILL)
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        _remove(self.folder)
        self.tell(f"exit {self.code}")

    def attend(self) -> None:
        """Wait until the program has ended, or must."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.woken, select.POLLIN)
        ends: float | None = None
        while not self.has_ended():
            wait = _POLL if ends is None else ends - time.monotonic()
            if wait <= 0:
                return
            ready = {fd for fd, _ in poll.poll(wait * 1000)}
            if self.woken in ready:
                os.read(self.woken, 4096)
            if ends is None and (self.asked or self.control in ready or os.getppid() != self.parent):
                if self.control in ready:
                    poll.unregister(self.control)
                self.signal_group(signal.SIGTERM)
                ends = time.monotonic() + self.grace

    def has_ended(self) -> bool:
        """Return True if the program has ended; with ``waitid`` it stays a zombie, so its process id is not reused."""
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        pid, status = os.waitpid(self.child, os.WNOHANG)
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def signal_group(self, number: int) -> None:
        """Send a signal to the remaining processes of the group."""
        try:  # noqa: SIM105 - contextlib is slow to import, and this must start quickly
            os.killpg(self.child, number)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            pass

    def tell(self, words: str) -> None:
        """Write a status line to the parent, if it still exists."""
        try:  # noqa: SIM105 - as above
            os.write(self.status, f"{words}\n".encode())
        except OSError:
            pass


def _remove(folder: str) -> None:
    """Remove a folder as ``shutil.rmtree`` does, which takes longer to import than this to run."""
    os.chdir("/")
    for place, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            path = f"{place}/{name}"
            _try(os.rmdir if name in folders and not os.path.islink(path) else os.unlink, path)  # noqa: PTH114
    _try(os.rmdir, folder)


def _try(remove: Callable[[str], None], path: str) -> None:
    try:  # noqa: SIM105 - contextlib is slow to import, and this must start quickly
        remove(path)
    except OSError:
        pass


def main(arguments: list[str]) -> None:
    """Do what the module's docstring says."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    control, status, parent, grace, folder, *command = arguments
    _Supervisor(int(control), int(status), int(parent), float(grace), folder).run(command)


if __name__ == "__main__":
    main(sys.argv[1:])
