"""Run a program: start it, bound its time and output, and end it together with every process of its group.

Start: a small supervisor process (``_supervisor.py``) starts the program in a process group of its own.

Bound: ``Process`` reads stdout, stderr and the supervisor's status through one selector, and raises when the time or
the size is exceeded. It does not use the event loop's subprocess support, so it works the same in asyncio, uvloop and
trio and in any thread, and it does not wait for a pipe that a grandchild keeps open.

End: ``aclose`` closes the control pipe. The supervisor then sends SIGTERM to the group, and SIGKILL after ``GRACE``
seconds. The same happens when this program is killed, since its end closes the pipe too.
"""

from __future__ import annotations

import errno
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import attrs

from llm_council.errors import (
    CommandFailed,
    CommandNotFound,
    InvalidOption,
    ReplyTooLarge,
    TimedOut,
    UnsupportedEnvironmentError,
)
from llm_council.errors._secrets import Secret
from llm_council.models.limits import Limits

__all__ = ["Attachment", "Command", "Process", "absolute_path", "find_program", "running"]

GRACE: Final = 0.3
"""Seconds between SIGTERM and SIGKILL: a cancelled call has half a second for everything."""

_CLEAN_UP = 2.0  # seconds for the supervisor to end the group, after which it is ended from here
_PIECE = 64 * 1024
_SUPERVISOR = str(Path(__file__).with_name("_supervisor.py"))

# Renamed in anyio 4.7; both take a file descriptor.
_wait_readable: Callable[[Any], Any] = getattr(anyio, "wait_readable", None) or anyio.wait_socket_readable


class Attachment(Protocol):
    """A file passed to a program: written to a private folder; its path takes its place among the arguments."""

    @property
    def name(self) -> str: ...

    @property
    def content(self) -> bytes: ...


@attrs.frozen(kw_only=True)
class Command:
    """A program with its arguments, stdin and environment.

    Attributes:
        program: its absolute path.
        arguments: text, or files that are passed by path. All users of the machine can read them: no secret, no prompt.
        stdin: the bytes of its standard input.
        environment: its whole environment; nothing is inherited. A file is passed by path.
        folder: its working folder; None creates an empty one, which is removed afterwards.
    """

    program: str
    arguments: tuple[str | Attachment, ...] = ()
    stdin: bytes = attrs.field(default=b"", repr=False)
    environment: Mapping[str, str | Secret | Attachment] = attrs.field(factory=dict, repr=False)
    folder: str | None = None


def absolute_path(path: str | None) -> str:
    """Return a search path without its relative entries."""
    folders = (os.defpath if path is None else path).split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if Path(folder).is_absolute())


def find_program(name: str, path: str | None) -> str:
    """Return the absolute path of a program. The current folder is never searched.

    Args:
        name: the program's name, or its absolute path, ``~`` included.
        path: the folders to search, as in ``PATH``.

    Raises:
        CommandNotFound: there is none that can be run.
        InvalidOption: the name is a relative path.
    """
    given = Path(name).expanduser()
    if given.is_absolute():
        candidates = [given]
    elif os.sep in name:
        raise InvalidOption(f"program: a name to search PATH for, or an absolute path, got {name!r:.200}")
    else:
        candidates = [Path(folder) / name for folder in absolute_path(path).split(os.pathsep) if folder]
    found = next((file for file in candidates if file.is_file() and os.access(file, os.X_OK)), None)
    if found is None:
        where = "cannot be run" if given.is_absolute() else f"is not on PATH ({absolute_path(path) or 'empty'})"
        raise CommandNotFound(f"{name} {where}")
    return str(found)


@asynccontextmanager
async def running(command: Command, *, limits: Limits, seconds: float | None = None) -> AsyncIterator[Process]:
    """Start a program; when the block ends, it and its process group have ended, and its temporary files are gone.

    Args:
        command: what to run.
        limits: ``stream`` bounds what it writes to stdout, ``error_body`` what is kept of its stderr.
        seconds: how long it may run; None has no end.

    Raises:
        CommandNotFound, CommandFailed: it cannot be started.
    """
    process = Process(command, limits, seconds)
    try:
        yield process
    finally:
        await process.aclose()


class Process:
    """A running program. One task at a time reads from it.

    Args:
        command: what to run.
        limits: see ``running``.
        seconds: see ``running``.

    Attributes:
        exit_code: its exit status, negative for a signal; None as long as it runs.
        stderr: the end of what it wrote there.
    """

    def __init__(self, command: Command, limits: Limits, seconds: float | None) -> None:
        self.exit_code: int | None = None
        self.stderr = bytearray()
        self._name = Path(command.program).name
        self._limits = limits
        self._seconds = seconds
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._owner = os.getpid()
        self._group: int | None = None
        self._told = b""
        self._arrived: list[bytes] = []
        self._size = 0
        self._unsent = memoryview(command.stdin)
        self._selector: selectors.BaseSelector | None = None
        self._fds: dict[str, int] = {}
        self._home = tempfile.mkdtemp(prefix="llm-council-")  # mode 0700
        try:
            self._supervisor = self._start(command)
        except BaseException:
            self._drop_files()
            raise

    # Starting.

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        if sys.platform == "win32":
            raise UnsupportedEnvironmentError("command-line agents need process groups, which Windows has not")
        if not sys.executable:
            raise UnsupportedEnvironmentError("this Python does not know its own path, which runs the supervisor")
        folder = command.folder
        if folder is None:
            folder = str(Path(self._home, "work"))
            Path(folder).mkdir(mode=0o700)
        arguments = [self._written(argument) for argument in command.arguments]
        environment = {name: self._written(value) for name, value in command.environment.items()}
        held, control = os.pipe()
        status, told = os.pipe()
        try:
            line = [sys.executable, "-I", "-S", _SUPERVISOR, str(held), str(told), str(self._owner), str(GRACE)]
            process = subprocess.Popen(
                [*line, self._home, command.program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=folder,
                env=environment,
                start_new_session=True,  # no terminal to ask on
                pass_fds=(held, told),
            )
        except OSError as error:
            os.close(control)
            os.close(status)
            raise self._cannot(error) from None
        except ValueError as error:  # a NUL in an argument
            os.close(control)
            os.close(status)
            raise InvalidOption(f"{self._name} cannot be given these arguments: {error}") from None
        finally:
            del environment
            os.close(held)
            os.close(told)
        self._fds = {"control": control, "status": status}
        self._watch(process, status)
        return process

    def _written(self, value: str | Secret | Attachment) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, Secret):
            return value.reveal()
        path = Path(self._home, value.name)
        path.touch(mode=0o600, exist_ok=False)  # before anything is in it
        path.write_bytes(value.content)
        return str(path)

    def _watch(self, process: subprocess.Popen[bytes], status: int) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: S101, PT018
        self._selector = selectors.DefaultSelector()
        for name, pipe in (("stdin", process.stdin), ("stdout", process.stdout), ("stderr", process.stderr)):
            fd = self._fds[name] = os.dup(pipe.fileno())
            pipe.close()
            os.set_blocking(fd, False)
        os.set_blocking(status, False)
        self._selector.register(self._fds["stdout"], selectors.EVENT_READ, self._on_stdout)
        self._selector.register(self._fds["stderr"], selectors.EVENT_READ, self._on_stderr)
        self._selector.register(status, selectors.EVENT_READ, self._on_status)
        self._selector.register(self._fds["stdin"], selectors.EVENT_WRITE, self._on_stdin)

    # Reading and writing.

    async def read(self) -> bytes:
        """Return the next bytes of its stdout; none at the end: when the program, not the pipe, has ended.

        Raises:
            TimedOut: it ran too long.
            ReplyTooLarge: it wrote too much.
            CommandNotFound, CommandFailed: it could not be started, or its supervisor was killed.
        """
        while not self._arrived:
            if "stdout" not in self._fds or self._is_over():
                return b""
            await self._step()
        data = b"".join(self._arrived)
        self._arrived.clear()
        return data

    def hurry(self, seconds: float) -> None:
        """Shorten the time limit to this many seconds from now."""
        self._ends = min(time.monotonic() + seconds, self._ends or inf)

    async def wait(self) -> int:
        """Return its exit status once it has ended; errors are those of ``read``."""
        while not self._is_over():
            await self._step()
        self._drain("stderr", self._on_stderr)
        if self.exit_code is None:
            raise CommandFailed(f"{self._name} was lost: its supervisor was killed", stderr_tail=self.tail())
        return self.exit_code

    def tail(self) -> str:
        """Return the end of its stderr as text."""
        return bytes(self.stderr).decode("utf-8", "replace")

    def _is_over(self) -> bool:
        return self.exit_code is not None or "status" not in self._fds

    async def _step(self) -> None:
        """Wait for whichever pipe is ready, and serve it."""
        selector = self._selector
        if selector is None:
            raise CommandFailed(f"{self._name} was closed")
        with anyio.move_on_after(None if self._ends is None else self._ends - time.monotonic()):
            await _wait_readable(selector.fileno())  # type: ignore[attr-defined]  # of epoll and kqueue
            for key, _ in selector.select(0):
                key.data()
            return
        raise TimedOut(f"{self._name} did not end within {self._seconds:.3g} s")

    def _on_stdout(self) -> int:
        data = self._received("stdout")
        self._size += len(data)
        if self._size > self._limits.stream:
            limit = self._limits.stream
            raise ReplyTooLarge(f"{self._name} wrote more than {limit} bytes to stdout", limit=limit)
        if data:
            self._arrived.append(data)
        return len(data)

    def _on_stderr(self) -> int:
        data = self._received("stderr")
        self.stderr += data
        del self.stderr[: -self._limits.error_body]
        return len(data)

    def _on_stdin(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._fds["stdin"], self._unsent[:_PIECE]) :]
        except BlockingIOError:
            return
        except OSError:  # it does not want the rest: whether that is an error, its exit status says
            self._unsent = self._unsent[:0]
        if not self._unsent:
            self._close("stdin")

    def _on_status(self) -> None:
        self._told += self._received("status")
        *lines, self._told = self._told.split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"started":
                self._group = int(number)
            elif word == b"exit":
                self._drain("stdout", self._on_stdout)
                self.exit_code = int(number)
            elif word == b"error":
                raise self._cannot(OSError(int(number), os.strerror(int(number))))

    def _received(self, name: str) -> bytes:
        """Return what a pipe holds; at its end, close it."""
        fd = self._fds.get(name)
        if fd is None:  # another pipe, served before in the same step, ended this one
            return b""
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return b""
        if not data:
            self._close(name)
        return data

    def _drain(self, name: str, serve: Callable[[], int]) -> None:
        """Read what is in a pipe now; who else holds it may never end."""
        while name in self._fds and serve():
            pass

    def _cannot(self, error: OSError) -> CommandFailed | CommandNotFound:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
            return CommandNotFound(f"{self._name} cannot be started: {error.strerror}")
        return CommandFailed(f"{self._name} cannot be started: {error.strerror}")

    # Ending.

    async def aclose(self) -> None:
        """End the program and its group: SIGTERM, a moment, SIGKILL. Nothing of it is left."""
        try:
            if self._let_go():
                with anyio.move_on_after(_CLEAN_UP, shield=True):
                    while "status" in self._fds:
                        await _wait_readable(self._fds["status"])
                        with suppress(CommandFailed, CommandNotFound):
                            self._on_status()
        finally:
            self._release()

    def _let_go(self) -> bool:
        """Ask the supervisor to end the group; return True if its status is still to come."""
        for name in ("stdin", "stdout", "stderr"):
            self._close(name)
        if "control" in self._fds:
            with suppress(OSError):
                os.write(self._fds["control"], b"\n")  # a forked child of ours may hold the pipe open
            self._close("control")
        return "status" in self._fds

    def _release(self) -> None:
        """Release pipes, processes and files; in a forked child only its copies of the pipes."""
        ended = "status" not in self._fds
        for name in tuple(self._fds):
            self._close(name)
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        if os.getpid() != self._owner:
            return
        if not ended:  # the supervisor does not answer, or no event loop is left to wait for it
            with suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(GRACE + _CLEAN_UP)
            self._supervisor.kill()
        self._supervisor.wait()
        if self.exit_code is None and self._group is not None:  # it was killed itself
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
        self._drop_files()

    def _drop_files(self) -> None:
        shutil.rmtree(self._home, ignore_errors=True)

    def _close(self, name: str) -> None:
        fd = self._fds.pop(name, None)
        if fd is None:
            return
        if self._selector is not None and name != "control":
            with suppress(KeyError, ValueError):
                self._selector.unregister(fd)
        os.close(fd)
