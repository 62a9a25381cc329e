"""Programs in their own process groups: their input, their limits, and that nothing of them remains."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from llm_council import _runtime
from llm_council.errors import (
    CommandFailed,
    CommandNotFound,
    ConfigurationError,
    InvalidOption,
    ReplyTooLarge,
    TimedOut,
)
from llm_council.errors._secrets import Secret
from llm_council.models import Limits
from llm_council.transports._process import Command, Process, absolute_path, find_program, running

SHELL = "/bin/sh"
PATH = os.environ["PATH"]
LONG = 30.0  # seconds, more than any test needs on a slow machine


class Attached(NamedTuple):
    name: str
    content: bytes


def shell(script: str, *arguments: str, **facts) -> Command:
    return Command(program=SHELL, arguments=("-c", script, "sh", *arguments), environment={"PATH": PATH}, **facts)


def python(script: str, **facts) -> Command:
    return Command(program=sys.executable, arguments=("-c", script), environment={"PATH": PATH}, **facts)


async def run(command: Command, *, limits: Limits = Limits(), seconds: float | None = LONG) -> tuple[int, bytes, str]:
    async with running(command, limits=limits, seconds=seconds) as process:
        out = b"".join([data async for data in pieces(process)])
        return await process.wait(), out, process.tail()


async def pieces(process: Process):
    while data := await process.read():
        yield data


def is_dead(pid: int) -> bool:
    """Return True if a process has ended; a zombie has."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.strip().startswith("Z")


def await_death(*pids: int) -> None:
    ends = time.monotonic() + LONG
    while not all(is_dead(pid) for pid in pids):
        assert time.monotonic() < ends, f"one of {pids} is still alive"
        time.sleep(0.02)


async def read_pids(process: Process, count: int = 1) -> list[int]:
    """Read the process ids that a script prints."""
    out = b""
    while out.count(b"\n") < count:
        out += await process.read()
    return [int(word) for word in out.split()]


def folders() -> set[str]:
    return {str(path) for path in Path(tempfile.gettempdir()).glob("llm-council-*")}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Use a temporary folder for each test, so that those of other tests are not counted."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield
    assert folders() == set()


# The input of a program.


@pytest.mark.anyio
async def test_a_program_gets_stdin_and_returns_stdout_stderr_and_status():
    code, out, err = await run(shell("cat; echo careful >&2; exit 3", stdin=b"the prompt\n"))
    assert (code, out, err) == (3, b"the prompt\n", "careful\n")


@pytest.mark.anyio
async def test_a_program_gets_the_given_environment_only(monkeypatch):
    monkeypatch.setenv("SOMEBODY_ELSES_KEY", "canary")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/canary")
    command = Command(
        program="/usr/bin/env",
        environment={"PATH": PATH, "OWN_KEY": Secret("own-key-1"), "NOTE": Attached(name="n", content=b"x")},
    )
    code, out, _ = await run(command)
    found = dict(line.split("=", 1) for line in out.decode().splitlines())
    assert code == 0
    assert found.pop("NOTE").endswith("/n")
    found.pop("LC_CTYPE", None)  # set by the supervisor's Python if no locale is set
    found.pop("__CF_USER_TEXT_ENCODING", None)  # set by macOS for every process
    assert found == {"PATH": PATH, "OWN_KEY": "own-key-1"}
    assert "own-key-1" not in repr(command)


@pytest.mark.anyio
async def test_a_program_runs_in_an_empty_temporary_folder():
    before = folders()
    code, out, _ = await run(shell("pwd; ls -A; echo here > file; umask"))
    place = Path(out.decode().splitlines()[0])
    assert code == 0
    assert len(out.splitlines()) == 2
    assert place.parent.name.startswith("llm-council-")
    assert not place.parent.exists()
    assert folders() == before


@pytest.mark.anyio
async def test_a_program_runs_in_the_given_folder(tmp_path):
    (tmp_path / "mine").touch()
    _, out, _ = await run(shell("pwd; ls", folder=str(tmp_path)))
    assert out.decode().splitlines() == [str(tmp_path), "mine", "tmp"]
    assert (tmp_path / "mine").exists()


@pytest.mark.anyio
async def test_an_attachment_is_passed_as_the_path_of_a_private_file():
    command = Command(
        program=SHELL,
        arguments=(
            "-c",
            'cat "$1"; ls -l "$1"; ls -ld "$(dirname "$1")"',
            "sh",
            Attached(name="schema.json", content=b"{}\n"),
        ),
        environment={"PATH": PATH},
    )
    _, out, _ = await run(command)
    content, file, folder = out.decode().splitlines()
    assert content == "{}"
    assert file.startswith("-rw-------")
    assert folder.startswith("drwx------")


@pytest.mark.anyio
async def test_a_program_has_no_terminal_and_its_own_session():
    code, out, _ = await run(python("import os\nprint(os.getsid(0), os.getpgrp(), os.getpid())\nopen('/dev/tty')"))
    session, group, pid = map(int, out.split())
    assert code == 1
    assert group == pid != os.getpgrp()
    assert session != os.getsid(0)


@pytest.mark.anyio
async def test_a_program_inherits_no_file_descriptors():
    extra = os.dup(0)
    os.set_inheritable(extra, True)
    look = "import os\nfor fd in range(200):\n try: os.fstat(fd); print(fd)\n except OSError: pass"
    try:
        _, out, _ = await run(python(look))
    finally:
        os.close(extra)
    assert out.split() == [b"0", b"1", b"2"]


@pytest.mark.anyio
async def test_a_program_gets_default_signal_handlers():
    code, _, _ = await run(shell("kill -PIPE $$; sleep 5"))
    assert code == -signal.SIGPIPE


# The end of a program.


@pytest.mark.anyio
async def test_the_status_of_a_killed_program_names_the_signal():
    code, _, _ = await run(shell("kill -KILL $$"))
    assert code == -signal.SIGKILL


@pytest.mark.anyio
async def test_a_timeout_ends_the_whole_process_group():
    command = shell("trap '' TERM; sleep 60 & echo $!; echo $$; sleep 60; sleep 60")
    async with running(command, limits=Limits(), seconds=LONG) as process:
        pids = await read_pids(process, 2)
        process._ends = time.monotonic() + 0.1
        with pytest.raises(TimedOut, match="did not end within"):
            await process.read()
    await_death(*pids)


@pytest.mark.anyio
async def test_a_cancellation_ends_the_whole_process_group():
    pids: list[int] = []
    with anyio.CancelScope() as scope:
        async with running(
            shell("trap '' TERM; sleep 60 & echo $!; echo $$; sleep 60; sleep 60"), limits=Limits()
        ) as process:
            pids = await read_pids(process, 2)
            scope.cancel()
            await process.read()
    assert scope.cancelled_caught
    await_death(*pids)


@pytest.mark.anyio
async def test_leaving_the_block_ends_the_program():
    async with running(shell("echo $$; exec sleep 60"), limits=Limits()) as process:
        pids = await read_pids(process)
    await_death(*pids)
    assert await process.wait() == -signal.SIGTERM


@pytest.mark.anyio
async def test_background_processes_end_with_the_program():
    _, out, _ = await run(shell("sleep 60 & echo $!"))
    await_death(int(out))


@pytest.mark.anyio
async def test_a_daemon_that_holds_the_pipe_open_does_not_delay_the_end():
    # The daemon leaves the session, so it is not ended, and holds stdout and stderr open.
    script = (
        "import os\nif not os.fork():\n os.setsid()\n os.execlp('sleep', 'sleep', '20')\nprint('answer', flush=True)"
    )
    began = time.monotonic()
    code, out, _ = await run(python(script), seconds=18)
    assert (code, out) == (0, b"answer\n")
    assert time.monotonic() - began < 15


@pytest.mark.anyio
async def test_a_closed_stdout_is_not_the_end_of_the_program():
    code, out, _ = await run(shell("echo out; exec >&-; sleep 0.1; exit 4"))
    assert (code, out) == (4, b"out\n")


# Limits of the output.


@pytest.mark.anyio
async def test_too_much_output_is_an_error():
    with pytest.raises(ReplyTooLarge) as caught:
        await run(shell("yes"), limits=Limits(stream=300_000))
    assert caught.value.limit == 300_000


@pytest.mark.anyio
async def test_the_end_of_stderr_is_stored():
    script = "import sys\nsys.stderr.write('x' * 3_000_000)\nsys.stderr.write('the end')\nprint(len(sys.stdin.read()))"
    code, out, err = await run(python(script, stdin=b"p" * 1_000_000), limits=Limits(error_body=1000))
    assert (code, out) == (0, b"1000000\n")
    assert err == "x" * 993 + "the end"


@pytest.mark.anyio
async def test_a_program_may_ignore_its_stdin():
    code, out, _ = await run(shell("exec <&-; echo answer; sleep 0.1", stdin=b"p" * 5_000_000))
    assert (code, out) == (0, b"answer\n")
    code, out, _ = await run(shell("echo answer", stdin=b"p" * 5_000_000))
    assert (code, out) == (0, b"answer\n")


# Finding and starting a program.


def test_the_current_folder_is_never_searched(tmp_path, monkeypatch):
    program = tmp_path / "agent"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", f".{os.pathsep}", "relative", None):
        with pytest.raises(CommandNotFound, match="agent is not on PATH"):
            find_program("agent", path)
    with pytest.raises(InvalidOption, match="absolute"):
        find_program("./agent", PATH)
    assert find_program("agent", f".{os.pathsep}{tmp_path}") == str(program)
    assert find_program(str(program), "") == str(program)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_program("~/agent", "") == str(program)
    assert absolute_path(f".{os.pathsep}/bin{os.pathsep}") == "/bin"


def test_a_file_that_is_not_executable_is_not_found(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch(mode=0o644)
    for name in ("folder", "plain", "missing"):
        with pytest.raises(CommandNotFound, match="PATH") as caught:
            find_program(name, str(tmp_path))
        assert isinstance(caught.value, ConfigurationError)
        with pytest.raises(CommandNotFound, match="cannot be run"):
            find_program(str(tmp_path / name), "")


@pytest.mark.anyio
async def test_a_failed_start_names_the_reason(tmp_path):
    script = tmp_path / "agent"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandNotFound, match="agent cannot be started: No such file"):
        await run(Command(program=str(script)))
    with pytest.raises(CommandNotFound, match="cannot be started"):
        await run(Command(program=SHELL, folder=str(tmp_path / "missing")))
    with pytest.raises(InvalidOption, match="arguments"):
        await run(shell("nul \0 inside"))
    with pytest.raises(CommandFailed, match="too long"):
        await run(shell("x" * 5_000_000))


# The end of the parent.

PARENT = """
    import os, sys, anyio, tempfile
    from llm_council.models import Limits
    from llm_council.transports._process import Command, running

    tempfile.tempdir = sys.argv[1]

    async def main():
        script = "trap '' TERM; sleep 60 & echo $!; echo $$; sleep 60; sleep 60"
        async with running(Command(program="/bin/sh", arguments=("-c", script)), limits=Limits()) as process:
            out = b""
            while out.count(b"\\n") < 2:
                out += await process.read()
            print(out.decode(), process._supervisor.pid, flush=True)
            if "sibling" in sys.argv and not os.fork():  # this child holds the control pipe open
                import time
                time.sleep(8)
                os._exit(0)
            await anyio.sleep(60)

    anyio.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "word"), [(signal.SIGKILL, ""), (signal.SIGTERM, ""), (signal.SIGKILL, "sibling")])
def test_the_end_of_the_parent_ends_the_whole_process_group(tmp_path, number, word):
    script = tmp_path / "parent.py"
    script.write_text("\n".join(line.removeprefix("    ") for line in PARENT.splitlines()))
    with subprocess.Popen([sys.executable, str(script), str(tmp_path / "tmp"), word], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for _ in range(3) for pid in parent.stdout.readline().split()]
        parent.send_signal(number)
        parent.wait(LONG)
        await_death(*pids)
        parent.stdout.close()
    assert len(pids) == 3
    ends = time.monotonic() + LONG
    while folders():
        assert time.monotonic() < ends
        time.sleep(0.02)


KILLED_EARLY = """
    import os, signal, sys, tempfile
    from llm_council.models import Limits
    from llm_council.transports._process import Command, Process

    tempfile.tempdir = sys.argv[1]
    write_files = Process._write_files

    def write_and_die(self, command):
        write_files(self, command)
        assert os.listdir(tempfile.tempdir)
        print(self._supervisor.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    Process._write_files = write_and_die
    Process(Command(program="/bin/touch", arguments=(sys.argv[2],)), Limits(), None)
"""


def test_a_parent_that_is_killed_before_the_program_starts_leaves_nothing(tmp_path):
    script, started = tmp_path / "parent.py", tmp_path / "started"
    script.write_text(textwrap.dedent(KILLED_EARLY))
    command = [sys.executable, str(script), str(tmp_path / "tmp"), str(started)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    await_death(int(done.stdout))
    assert folders() == set()
    assert not started.exists()


@pytest.mark.anyio
async def test_a_killed_supervisor_leaves_no_process():
    async with running(shell("echo $$; exec sleep 60"), limits=Limits(), seconds=LONG) as process:
        pids = await read_pids(process)
        while process._group is None:  # before that, nobody but the supervisor knows the group
            await process._step()
        os.kill(process._supervisor.pid, signal.SIGKILL)
        with pytest.raises(CommandFailed, match="supervisor was killed"):
            await process.wait()
    await_death(*pids)


MANY = """
    import gc, os, sys
    from pathlib import Path
    import anyio
    from llm_council.models import Limits
    from llm_council.transports._process import Command, running

    async def run(script, stdin=b""):
        command = Command(program="/bin/sh", arguments=("-c", script), stdin=stdin, environment=dict(os.environ))
        async with running(command, limits=Limits()) as process:
            out = b""
            while data := await process.read():
                out += data
            return await process.wait(), out

    async def one(number):
        if number % 3 == 0:
            with anyio.move_on_after(0.05):
                await run("sleep 60")
        else:
            assert await run("cat; exit 2", b"%d" % number) == (2, b"%d" % number)

    async def main():
        await run("echo")
        gc.collect()
        before = sum(1 for _ in Path("/dev/fd").iterdir())
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(one, number)
        assert sum(1 for _ in Path("/dev/fd").iterdir()) <= before

    anyio.run(main, backend=sys.argv[1])
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:  # no child, not even a zombie
        print("nothing is left")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_many_programs_leave_no_process_and_no_descriptor(request, backend):
    done = request.getfixturevalue("python")(MANY, backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is left\n", "")


def test_a_program_runs_behind_a_blocking_call():
    code, out, _ = _runtime.call(run, shell("cat", stdin=b"hello"))
    assert (code, out) == (0, b"hello")


def test_a_program_is_ended_without_an_event_loop():
    pids: list[int] = []

    async def begin():
        context = running(shell("echo $$; exec sleep 60"), limits=Limits())
        process = await context.__aenter__()
        pids.extend(await read_pids(process))
        return context, process

    context, process = anyio.run(begin)
    closing = context.__aexit__(None, None, None)
    with contextlib.suppress(Exception):  # anyio raises its own error without an event loop
        closing.send(None)
    await_death(*pids)
    assert not process._fds


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_output_beyond_the_limit_takes_no_memory():
    async def flood():
        with pytest.raises(ReplyTooLarge):
            await run(shell("head -c 200000000 /dev/zero"), limits=Limits(stream=4_000_000))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    anyio.run(flood)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
