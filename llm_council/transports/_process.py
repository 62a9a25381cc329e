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
import secrets
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

from llm_council._runtime.posix import require_posix
from llm_council.errors import (
    CommandFailed,
    CommandNotFound,
    InvalidOption,
    ReplyTooLarge,
    TimedOut,
    UnsupportedEnvironmentError,
)
from llm_council.errors._secrets import Secret
from llm_council.models._paths import expand_user
from llm_council.models.limits import Limits

__all__ = ["Attachment", "Command", "Process", "absolute_path", "find_program", "running"]

GRACE: Final = 0.3
"""Seconds between SIGTERM and SIGKILL: a cancelled call has half a second for everything."""

_CLEAN_UP = 2.0  # seconds for the supervisor to end the group, after which this process ends it
_CHUNK = 64 * 1024  # bytes, the capacity of a pipe on Linux
_WORK = "work"  # the folder of the program in that of its files
_SUPERVISOR = str(Path(__file__).with_name("_supervisor.py"))

# Renamed in anyio 4.7; both take a file descriptor.
_wait_readable: Callable[[Any], Any] = getattr(anyio, "wait_readable", None) or anyio.wait_socket_readable


class Attachment(Protocol):
    """A file for a program. It is written to a private folder, and its path replaces it in the command."""

    @property
    def name(self) -> str: ...

    @property
    def content(self) -> bytes: ...


@attrs.frozen(kw_only=True)
class Command:
    """A program with its arguments, stdin and environment.

    Attributes:
        program: its absolute path.
        arguments: text, or files that are passed by path. Every user of the machine can read the arguments of a
            process, so they must not contain secrets or prompts.
        stdin: the bytes of its standard input.
        environment: its whole environment; nothing is inherited. A file is passed by path.
        folder: its working folder; None creates an empty one, which is removed at the end.
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
        CommandNotFound: no executable file was found.
        InvalidOption: the name is a relative path.
    """
    program = expand_user(name)
    if os.sep in name and not program.is_absolute():
        raise InvalidOption(f"program: a name to search PATH for, or an absolute path, got {name!r:.200}")
    found = shutil.which(str(program), path=absolute_path(path))
    if found is None and program.is_absolute():
        raise CommandNotFound(f"{name} cannot be run: it does not exist or is not executable")
    if found is None:
        raise CommandNotFound(f"{name} is not on PATH ({absolute_path(path) or 'empty'})")
    return found


@asynccontextmanager
async def running(command: Command, *, limits: Limits, seconds: float | None = None) -> AsyncIterator[Process]:
    """Start a program; when the block ends, it and its process group have ended, and its temporary files are gone.

    Args:
        command: what to run.
        limits: ``stream`` is the maximum number of bytes of its stdout; the last ``error_body`` bytes of its stderr are
            stored.
        seconds: maximum run time; None is unlimited.

    Raises:
        CommandNotFound, CommandFailed: the program cannot be started.
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
        exit_code: its exit status, negative for a signal; None while it runs.
        stderr: the end of its stderr.
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
        self._status = b""  # an incomplete line of the supervisor's status
        self._arrived: list[bytes] = []
        self._size = 0
        self._unsent = memoryview(command.stdin)
        self._selector: selectors.BaseSelector | None = None
        self._fds: dict[str, int] = {}
        # The folder is made when the supervisor runs, which removes it: this process may be killed in between.
        self._home = str(Path(tempfile.gettempdir(), f"llm-council-{secrets.token_hex(8)}"))
        self._supervisor = self._start(command)
        try:
            self._write_files(command)
            with suppress(BrokenPipeError):  # the supervisor was killed, as the next step sees
                os.write(self._fds["control"], b"\n")
        except BaseException:  # also KeyboardInterrupt: the folder may already hold secrets
            self._release()
            raise

    # Starting.

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        require_posix("command-line agents need")
        if not sys.executable:
            raise UnsupportedEnvironmentError("sys.executable is empty, so the supervisor process cannot be started")
        place = command.folder or str(Path(self._home, _WORK))
        arguments = [self._as_text(argument) for argument in command.arguments]
        environment = {name: self._as_text(value) for name, value in command.environment.items()}
        control_out, control = os.pipe()
        status, status_in = os.pipe()
        try:
            line = [sys.executable, "-I", "-S", _SUPERVISOR, str(control_out), str(status_in)]
            process = subprocess.Popen(
                [*line, str(self._owner), str(GRACE), self._home, place, command.program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=command.folder or "/",
                env=environment,
                start_new_session=True,  # no terminal to ask the user on
                pass_fds=(control_out, status_in),
            )
        except (OSError, ValueError) as error:
            os.close(control)
            os.close(status)
            if isinstance(error, OSError):
                raise self._start_error(error) from None
            # subprocess raises ValueError for a NUL in an argument.
            raise InvalidOption(f"{self._name} cannot be started with these arguments: {error}") from None
        finally:
            del environment  # the traceback of an error would show its secrets
            os.close(control_out)
            os.close(status_in)
        self._fds = {"control": control, "status": status}
        self._watch(process, status)
        return process

    def _as_text(self, value: str | Secret | Attachment) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, Secret):
            return value.reveal()
        return str(Path(self._home, value.name))

    def _write_files(self, command: Command) -> None:
        """Make the private folder, and write the command's files into it."""
        home = Path(self._home)
        home.mkdir(mode=0o700)
        if command.folder is None:
            Path(home, _WORK).mkdir(mode=0o700)
        for value in (*command.arguments, *command.environment.values()):
            if not isinstance(value, str | Secret):
                path = Path(home, value.name)
                path.touch(mode=0o600, exist_ok=False)  # the mode is set before the content is written
                path.write_bytes(value.content)

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
        """Return the next bytes of its stdout; empty once the program has ended or has closed it.

        Raises:
            TimedOut: the run time is exceeded.
            ReplyTooLarge: stdout is larger than the limit.
            CommandNotFound, CommandFailed: it could not be started, or its supervisor was killed.
        """
        while not self._arrived:
            if "stdout" not in self._fds or self._has_ended():
                return b""
            await self._step()
        data = b"".join(self._arrived)
        self._arrived.clear()
        return data

    def hurry(self, seconds: float) -> None:
        """Shorten the time limit to this many seconds from now."""
        self._ends = min(time.monotonic() + seconds, self._ends or inf)

    async def wait(self) -> int:
        """Return its exit status once it has ended; raises the errors of ``read``."""
        while not self._has_ended():
            await self._step()
        self._drain("stderr", self._on_stderr)
        if self.exit_code is None:
            raise CommandFailed(f"{self._name} was lost: its supervisor was killed", stderr_tail=self.tail())
        return self.exit_code

    def tail(self) -> str:
        """Return the end of its stderr as text."""
        return bytes(self.stderr).decode("utf-8", "replace")

    def _has_ended(self) -> bool:
        return self.exit_code is not None or "status" not in self._fds

    async def _step(self) -> None:
        """Wait until a pipe is ready, and serve all that are."""
        selector = self._selector
        if selector is None:
            raise CommandFailed(f"{self._name} was closed")
        with anyio.move_on_after(None if self._ends is None else self._ends - time.monotonic()):
            # An epoll or kqueue descriptor is itself readable when one of its pipes is ready.
            await _wait_readable(selector.fileno())  # type: ignore[attr-defined]
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
            self._unsent = self._unsent[os.write(self._fds["stdin"], self._unsent[:_CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:  # the program closed its stdin; its exit status tells whether that is an error
            self._unsent = self._unsent[:0]
        if not self._unsent:
            self._close("stdin")

    def _on_status(self) -> None:
        self._status += self._received("status")
        *lines, self._status = self._status.split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"started":
                self._group = int(number)
            elif word == b"exit":
                self._drain("stdout", self._on_stdout)
                self.exit_code = int(number)
            elif word == b"error":
                raise self._start_error(OSError(int(number), os.strerror(int(number))))

    def _received(self, name: str) -> bytes:
        """Return the bytes that are in a pipe; close it at its end."""
        fd = self._fds.get(name)
        if fd is None:  # closed in the same step, when another pipe was served
            return b""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            self._close(name)
        return data

    def _drain(self, name: str, serve: Callable[[], int]) -> None:
        """Read the bytes that are in a pipe now, without waiting for its end: a grandchild may hold it open."""
        while name in self._fds and serve():
            pass

    def _start_error(self, error: OSError) -> CommandFailed | CommandNotFound:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR):
            return CommandNotFound(f"{self._name} cannot be started: {error.strerror}")
        return CommandFailed(f"{self._name} cannot be started: {error.strerror}")

    # Ending.

    async def aclose(self) -> None:
        """End the program and its group with SIGTERM, then SIGKILL; release its pipes and files."""
        try:
            if self._request_stop():
                with anyio.move_on_after(_CLEAN_UP, shield=True):
                    while "status" in self._fds:
                        await _wait_readable(self._fds["status"])
                        with suppress(CommandFailed, CommandNotFound):
                            self._on_status()
        finally:
            self._release()

    def _request_stop(self) -> bool:
        """Ask the supervisor to end the group; return True if its status is still to come."""
        for name in ("stdin", "stdout", "stderr"):
            self._close(name)
        if "control" in self._fds:
            with suppress(OSError):
                # Closing the pipe is not enough if a forked child of this process holds it open.
                os.write(self._fds["control"], b"\n")
            self._close("control")
        return "status" in self._fds

    def _release(self) -> None:
        """Release pipes, processes and files; in a forked child, only its copies of the pipes."""
        ended = "status" not in self._fds
        for name in tuple(self._fds):
            self._close(name)
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        if os.getpid() != self._owner:
            return
        if not ended:  # the supervisor does not answer, or the event loop has ended
            with suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(GRACE + _CLEAN_UP)
            self._supervisor.kill()
        self._supervisor.wait()
        if self.exit_code is None and self._group is not None:  # the supervisor was killed
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._group, signal.SIGKILL)
        shutil.rmtree(self._home, ignore_errors=True)

    def _close(self, name: str) -> None:
        fd = self._fds.pop(name, None)
        if fd is None:
            return
        if self._selector is not None and name != "control":
            with suppress(KeyError, ValueError):
                self._selector.unregister(fd)
        os.close(fd)
