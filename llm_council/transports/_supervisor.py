"""Run one program in a process group of its own, and end the whole group when the parent process ends.

Run by path with ``python -I -S``: the script imports nothing of this package, and nothing from the folder it runs in.
The program starts when the parent writes a byte to the pipe CONTROL, which it then holds open. When the parent ends,
even by SIGKILL, the pipe is closed. The supervisor then sends SIGTERM to the group, waits GRACE seconds, and sends
SIGKILL. It writes lines to the pipe STATUS: ``started PID`` and ``exit CODE`` (negative for a signal), or only
``error ERRNO``.

Usage: ``_supervisor.py CONTROL STATUS PARENT GRACE FOLDER PLACE PROGRAM [ARGUMENT ...]``. FOLDER is a temporary folder,
which the parent makes before that byte; the program runs in PLACE. The supervisor removes FOLDER after the program has
ended. It runs before the folder exists, because the parent may be killed at any moment.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
from contextlib import suppress

_POLL = 1.0  # seconds between two checks of the parent's id: a forked child of the parent may hold the pipe open
# Signals that the program handles by default. Python ignores SIGPIPE and SIGXFSZ; the supervisor handles the others.
_DEFAULT_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGCHLD,
)


class _Supervisor:
    """One program, from its start to the end of its process group."""

    def __init__(self, control: int, status: int, parent: int, grace: float, folder: str) -> None:
        self.control = control
        self.status = status
        self.parent = parent
        self.grace = grace
        self.folder = folder
        self.stop_requested = False  # by a signal to the supervisor
        self.child = 0
        self.code: int | None = None
        for fd in (control, status):
            os.set_inheritable(fd, False)  # noqa: FBT003 - it takes no keyword
        self.wakeup, wakeup_in = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(wakeup_in, False)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._request_stop)

    def _request_stop(self, *_: object) -> None:
        self.stop_requested = True

    def run(self, place: str, command: list[str]) -> None:
        """Start the program, wait for its end or the parent's, and end the rest of its group."""
        if not self.is_told_to_start():
            self.remove_folder()
            return
        try:
            os.chdir(place)
            self.child = os.posix_spawn(
                command[0], command, os.environ, setpgroup=0, setsigdef=_DEFAULT_SIGNALS, setsigmask=()
            )
        except OSError as error:
            self.remove_folder()
            self.report(f"error {error.errno or errno.EINVAL}")
            return
        self.report(f"started {self.child}")
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):  # if the supervisor held the pipes open, the parent would not see the program close them
            os.dup2(null, fd)
        self.wait()
        self.signal_group(signal.SIGKILL)
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        self.remove_folder()
        self.report(f"exit {self.code}")

    def is_told_to_start(self) -> bool:
        """Wait until the parent has made the folder; return False if it ended before."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while not poll.poll(_POLL * 1000):
            if os.getppid() != self.parent:
                return False
        return bool(os.read(self.control, 1))

    def wait(self) -> None:
        """Wait until the program has ended, or GRACE seconds after it was told to."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        ends: float | None = None
        while not self.has_ended():
            wait = _POLL if ends is None else ends - time.monotonic()
            if wait <= 0:
                return
            ready = {fd for fd, _ in poll.poll(wait * 1000)}
            if self.wakeup in ready:
                os.read(self.wakeup, 4096)
            if ends is None and (self.stop_requested or self.control in ready or os.getppid() != self.parent):
                if self.control in ready:
                    poll.unregister(self.control)
                self.signal_group(signal.SIGTERM)
                ends = time.monotonic() + self.grace

    def has_ended(self) -> bool:
        """Return True if the program has ended."""
        # With WNOWAIT the program stays a zombie, so that its process id is not reused while the group is signalled.
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        pid, status = os.waitpid(self.child, os.WNOHANG)
        if pid:
            self.code = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def signal_group(self, number: int) -> None:
        """Send a signal to the remaining processes of the group."""
        with suppress(ProcessLookupError, PermissionError):  # macOS raises the latter for a group of zombies
            os.killpg(self.child, number)

    def report(self, line: str) -> None:
        """Write a status line to the parent, if it still exists."""
        with suppress(OSError):
            os.write(self.status, f"{line}\n".encode())

    def remove_folder(self) -> None:
        """Remove the temporary folder, as far as the permissions that the program has set allow it."""
        import shutil  # takes 16 ms, so it must not delay the start of the program

        os.chdir("/")
        shutil.rmtree(self.folder, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Run the supervisor; see the module's docstring for the arguments."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    control, status, parent, grace, folder, place, *command = arguments
    _Supervisor(int(control), int(status), int(parent), float(grace), folder).run(place, command)


if __name__ == "__main__":
    main(sys.argv[1:])
