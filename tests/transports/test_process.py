"""Programs in processes of their own: what they get, what they may do, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
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
LONG = 30.0  # seconds in which anything here ends, on any machine


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
    """Tell whether a process is gone; a zombie, which awaits its parent's look, is."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.strip().startswith("Z")


def await_death(*pids: int) -> None:
    ends = time.monotonic() + LONG
    while not all(is_dead(pid) for pid in pids):
        assert time.monotonic() < ends, f"one of {pids} lives on"
        time.sleep(0.02)


async def said_pids(process: Process, count: int = 1) -> list[int]:
    """Read the numbers of processes that a script prints."""
    out = b""
    while out.count(b"\n") < count:
        out += await process.read()
    return [int(word) for word in out.split()]


def folders() -> set[str]:
    return {str(path) for path in Path(tempfile.gettempdir()).glob("llm-council-*")}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Keep the temporary folders of other tests out of what is counted."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield
    assert folders() == set()


# What a program gets.


@pytest.mark.anyio
async def test_a_program_gets_its_input_and_says_its_output():
    code, out, err = await run(shell("cat; echo careful >&2; exit 3", stdin=b"the prompt\n"))
    assert (code, out, err) == (3, b"the prompt\n", "careful\n")


@pytest.mark.anyio
async def test_its_environment_is_what_it_is_given(monkeypatch):
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
    found.pop("LC_CTYPE", None)  # the supervisor's Python says it where nobody said a language
    found.pop("__CF_USER_TEXT_ENCODING", None)  # macOS says it to everyone
    assert found == {"PATH": PATH, "OWN_KEY": "own-key-1"}
    assert "own-key-1" not in repr(command)


@pytest.mark.anyio
async def test_it_works_in_an_empty_folder_of_its_own():
    before = folders()
    code, out, _ = await run(shell("pwd; ls -A; echo here > file; umask"))
    place = Path(out.decode().splitlines()[0])
    assert code == 0
    assert len(out.splitlines()) == 2
    assert place.parent.name.startswith("llm-council-")
    assert not place.parent.exists()
    assert folders() == before


@pytest.mark.anyio
async def test_it_works_where_it_is_told(tmp_path):
    (tmp_path / "mine").touch()
    _, out, _ = await run(shell("pwd; ls", folder=str(tmp_path)))
    assert out.decode().splitlines() == [str(tmp_path), "mine", "tmp"]
    assert (tmp_path / "mine").exists()


@pytest.mark.anyio
async def test_a_file_stands_as_its_path_and_is_nobody_elses():
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
async def test_it_has_no_terminal_and_a_session_of_its_own():
    code, out, _ = await run(python("import os\nprint(os.getsid(0), os.getpgrp(), os.getpid())\nopen('/dev/tty')"))
    session, group, pid = map(int, out.split())
    assert code == 1
    assert group == pid != os.getpgrp()
    assert session != os.getsid(0)


@pytest.mark.anyio
async def test_it_inherits_no_descriptor_of_ours():
    extra = os.dup(0)
    os.set_inheritable(extra, True)
    look = "import os\nfor fd in range(200):\n try: os.fstat(fd); print(fd)\n except OSError: pass"
    try:
        _, out, _ = await run(python(look))
    finally:
        os.close(extra)
    assert out.split() == [b"0", b"1", b"2"]


@pytest.mark.anyio
async def test_signals_mean_to_it_what_they_mean_to_others():
    code, _, _ = await run(shell("kill -PIPE $$; sleep 5"))
    assert code == -signal.SIGPIPE


# How it may end.


@pytest.mark.anyio
async def test_a_killed_program_says_by_which_signal():
    code, _, _ = await run(shell("kill -KILL $$"))
    assert code == -signal.SIGKILL


@pytest.mark.anyio
async def test_out_of_time_it_ends_with_everything_it_started():
    command = shell("trap '' TERM; sleep 60 & echo $!; echo $$; sleep 60; sleep 60")
    async with running(command, limits=Limits(), seconds=LONG) as process:
        pids = await said_pids(process, 2)
        process._ends = time.monotonic() + 0.1
        with pytest.raises(TimedOut, match="did not end within"):
            await process.read()
    await_death(*pids)


@pytest.mark.anyio
async def test_cancelled_it_ends_with_everything_it_started():
    pids: list[int] = []
    with anyio.CancelScope() as scope:
        async with running(
            shell("trap '' TERM; sleep 60 & echo $!; echo $$; sleep 60; sleep 60"), limits=Limits()
        ) as process:
            pids = await said_pids(process, 2)
            scope.cancel()
            await process.read()
    assert scope.cancelled_caught
    await_death(*pids)


@pytest.mark.anyio
async def test_left_early_it_ends():
    async with running(shell("echo $$; exec sleep 60"), limits=Limits()) as process:
        pids = await said_pids(process)
    await_death(*pids)
    assert await process.wait() == -signal.SIGTERM


@pytest.mark.anyio
async def test_what_it_leaves_behind_is_ended():
    _, out, _ = await run(shell("sleep 60 & echo $!"))
    await_death(int(out))


@pytest.mark.anyio
async def test_a_stranger_at_the_pipe_keeps_nobody_waiting():
    # It leaves the session, so that nobody ends it, and holds stdout and stderr open.
    script = (
        "import os\nif not os.fork():\n os.setsid()\n os.execlp('sleep', 'sleep', '20')\nprint('answer', flush=True)"
    )
    began = time.monotonic()
    code, out, _ = await run(python(script), seconds=18)
    assert (code, out) == (0, b"answer\n")
    assert time.monotonic() - began < 15


@pytest.mark.anyio
async def test_a_closed_stdout_is_not_its_end():
    code, out, _ = await run(shell("echo out; exec >&-; sleep 0.1; exit 4"))
    assert (code, out) == (4, b"out\n")


# How much it may say.


@pytest.mark.anyio
async def test_too_much_output_is_an_error():
    with pytest.raises(ReplyTooLarge) as caught:
        await run(shell("yes"), limits=Limits(stream=300_000))
    assert caught.value.limit == 300_000


@pytest.mark.anyio
async def test_of_stderr_the_end_is_kept_whoever_reads_first():
    script = "import sys\nsys.stderr.write('x' * 3_000_000)\nsys.stderr.write('the end')\nprint(len(sys.stdin.read()))"
    code, out, err = await run(python(script, stdin=b"p" * 1_000_000), limits=Limits(error_body=1000))
    assert (code, out) == (0, b"1000000\n")
    assert err == "x" * 993 + "the end"


@pytest.mark.anyio
async def test_unread_input_is_no_error():
    code, out, _ = await run(shell("exec <&-; echo answer; sleep 0.1", stdin=b"p" * 5_000_000))
    assert (code, out) == (0, b"answer\n")
    code, out, _ = await run(shell("echo answer", stdin=b"p" * 5_000_000))
    assert (code, out) == (0, b"answer\n")


# How it is found and started.


def test_the_folder_one_stands_in_is_never_searched(tmp_path, monkeypatch):
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


def test_what_cannot_be_run_is_not_found(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch(mode=0o644)
    for name in ("folder", "plain", "missing"):
        with pytest.raises(CommandNotFound, match="PATH") as caught:
            find_program(name, str(tmp_path))
        assert isinstance(caught.value, ConfigurationError)
        with pytest.raises(CommandNotFound, match="cannot be run"):
            find_program(str(tmp_path / name), "")


@pytest.mark.anyio
async def test_what_cannot_be_started_says_why(tmp_path):
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


# Whatever way we end.

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
            if "sibling" in sys.argv and not os.fork():  # it holds our end of the pipe open
                import time
                time.sleep(8)
                os._exit(0)
            await anyio.sleep(60)

    anyio.run(main)
"""


@pytest.mark.parametrize(("number", "word"), [(signal.SIGKILL, ""), (signal.SIGTERM, ""), (signal.SIGKILL, "sibling")])
def test_when_the_parent_ends_everything_does(tmp_path, number, word):
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


@pytest.mark.anyio
async def test_a_killed_supervisor_leaves_nothing():
    async with running(shell("echo $$; exec sleep 60"), limits=Limits(), seconds=LONG) as process:
        pids = await said_pids(process)
        while process._group is None:  # killed before it could say whom it started, it would leave that
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
    except ChildProcessError:  # no zombie, no child at all
        print("nothing is left")
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nothing_is_left_of_many(request, backend):
    done = request.getfixturevalue("python")(MANY, backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is left\n", "")


def test_it_runs_behind_blocking_calls():
    code, out, _ = _runtime.call(run, shell("cat", stdin=b"hello"))
    assert (code, out) == (0, b"hello")


def test_without_an_event_loop_it_is_ended_all_the_same():
    pids: list[int] = []

    async def begin():
        context = running(shell("echo $$; exec sleep 60"), limits=Limits())
        process = await context.__aenter__()
        pids.extend(await said_pids(process))
        return context, process

    context, process = anyio.run(begin)
    closing = context.__aexit__(None, None, None)
    with contextlib.suppress(Exception):  # whatever anyio says where there is no loop
        closing.send(None)
    await_death(*pids)
    assert not process._fds


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_hundred_megabytes_take_no_memory():
    async def flood():
        with pytest.raises(ReplyTooLarge):
            await run(shell("head -c 200000000 /dev/zero"), limits=Limits(stream=4_000_000))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    anyio.run(flood)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
