"""The engine's process, with a stand-in: start, share, crash, stop, fork, the end of the parent."""

import contextlib
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import anyio
import pytest

from llm_council.errors import CommandFailed, MissingDependency, TimedOut
from llm_council.providers._local import engine as local_engine
from llm_council.providers._local.engine import Engine, EngineSpec, release, running, state

STAND_IN = Path(__file__).with_name("engine_stand_in.py")


class Holder:
    pass


pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="the engine's process is supervised as POSIX has it"),
    pytest.mark.slow,
]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(local_engine, "_SERVER", STAND_IN)
    monkeypatch.setattr(local_engine, "installed", lambda: "/nowhere")
    yield
    engines = tuple(local_engine._engines.values())
    for holder in {holder for engine in engines for holder in engine.holders}:
        local_engine._release(holder)
    for engine in engines:
        engine.join(5)
    assert not local_engine._engines


def spec(alias="fine"):
    return EngineSpec(model="/models/x.gguf", alias=alias)


def gone(pid, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.anyio
async def test_an_engine_starts_once_and_stops_with_its_last_holder():
    holders = [Holder() for _ in range(20)]
    engines = []

    async def ask(holder):
        engines.append(await running(spec(), holder))

    async with anyio.create_task_group() as group:
        for holder in holders:
            group.start_soon(ask, holder)
    assert len({id(engine) for engine in engines}) == 1
    engine = engines[0]
    assert engine.address.startswith("http://127.0.0.1:")
    assert engine.grammar == "llguidance"
    assert str(engine.pid) in state(spec())
    for holder in holders[:-1]:
        assert release(holder) == ()
    assert engine.usable
    assert release(holders[-1]) == (engine,)
    engine.join(10)
    assert engine.exit_code == 0
    assert "not started" in state(spec())
    assert release(holders[-1]) == ()


def test_threads_and_loops_share_one_engine():
    engines, holders = [], [Holder() for _ in range(6)]

    def ask():
        engines.append(anyio.run(running, spec(), holders[len(engines)]))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(engines) == 6
    assert len({engine.pid for engine in engines}) == 1


@pytest.mark.anyio
async def test_an_engine_ends_when_its_holder_is_collected():
    holder = Holder()
    engine = await running(spec(), holder)
    await running(spec(), holder)
    del holder
    await anyio.sleep(0)  # trio keeps the frames of a task's last sleep until its next
    gc.collect()
    engine.join(10)
    assert engine.exit_code == 0
    assert not local_engine._finalizers


@pytest.mark.anyio
async def test_a_holder_may_be_collected_in_any_thread_while_the_lock_is_held():
    """The garbage collector may run in any thread, even in one that the owner of the lock waits for."""
    holder = Holder()
    engine = await running(spec(), holder)
    await anyio.sleep(0)
    with local_engine._lock:
        last = [holder]
        del holder
        collector = threading.Thread(target=last.clear)
        collector.start()
        collector.join(10)
        assert not collector.is_alive()
        assert engine.holders
    other = Holder()
    second = await running(spec("other"), other)
    engine.join(10)
    assert engine.exit_code == 0
    assert release(other) == (second,)


@pytest.mark.anyio
async def test_two_models_have_two_engines():
    holder = Holder()
    one, two = await running(spec("one"), holder), await running(spec("two"), holder)
    assert one.pid != two.pid
    assert one.key != two.key
    assert set(release(holder)) == {one, two}


@pytest.mark.anyio
async def test_a_dead_engine_is_replaced_and_its_exit_is_reported():
    holder = Holder()
    first = await running(spec(), holder)
    os.kill(first.pid, signal.SIGKILL)
    assert first.ended.wait(10)
    error = first.failure()
    assert isinstance(error, CommandFailed)
    assert error.retryable
    assert error.exit_code == -signal.SIGKILL
    assert "signal 9" in str(error)
    assert "this engine chats" in error.stderr_tail
    second = await running(spec(), holder)
    assert second.pid != first.pid
    assert second.usable


@pytest.mark.anyio
@pytest.mark.parametrize(("alias", "words"), [("refuses", "it cannot"), ("crashes", "ended while starting")])
async def test_a_failed_start_is_reported_with_its_reason(alias, words):
    with pytest.raises(CommandFailed, match=words) as caught:
        await running(spec(alias), Holder())
    assert "this engine chats" in caught.value.stderr_tail
    assert not caught.value.retryable
    with pytest.raises(CommandFailed):  # and is tried again
        await running(spec(alias), Holder())


@pytest.mark.anyio
async def test_a_start_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(local_engine, "START_SECONDS", 0.3)
    with pytest.raises(TimedOut, match="did not start") as caught:
        await running(spec("hangs"), Holder())
    assert caught.value.args[0]


@pytest.mark.anyio
async def test_a_cancelled_caller_does_not_stop_the_engine(monkeypatch):
    started, holder = [], Holder()
    with anyio.move_on_after(0):
        started.append(await running(spec(), holder))
    assert not started
    engine = await running(spec(), holder)
    assert engine.usable


@pytest.mark.anyio
async def test_the_log_is_bounded_and_redacted():
    holder = Holder()
    engine = await running(spec("floods"), holder)
    end = time.monotonic() + 10
    while "the end" not in engine.log() and time.monotonic() < end:
        await anyio.sleep(0.01)
    assert engine.log().endswith("the end\n")
    assert len(b"".join(engine._log)) <= local_engine.LOG_BYTES + 8192
    engine._log.append(engine.key.reveal().encode())
    assert engine.key.reveal() not in engine.log()


@pytest.mark.anyio
async def test_the_child_gets_no_keys_and_imports_nothing_from_the_folder(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-canary-canary")
    monkeypatch.setenv("PYTHONPATH", "/evil")
    holder = Holder()
    engine = await running(spec("PROBE"), holder)
    end = time.monotonic() + 10
    while "cwd" not in engine.log(20_000) and time.monotonic() < end:
        await anyio.sleep(0.01)
    line = next(line for line in engine.log(20_000).splitlines() if "cwd" in line)
    facts = json.loads(line)
    assert facts["cwd"] == "/"
    assert facts["environment"]["OMP_WAIT_POLICY"] == "passive"
    assert not {"OPENAI_API_KEY", "PYTHONPATH"} & facts["environment"].keys()
    cmdline = Path(f"/proc/{engine.pid}/cmdline")
    if cmdline.exists():
        assert engine.key.reveal().encode() not in cmdline.read_bytes()
        assert engine.key.reveal().encode() not in Path(f"/proc/{engine.pid}/environ").read_bytes()
        assert os.getsid(engine.pid) == engine.pid


def test_a_missing_engine_is_reported_with_the_extra(monkeypatch):
    monkeypatch.undo()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "xllamacpp" else find_spec(name))
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[local\]"):
        anyio.run(running, spec(), Holder())


PROGRAM = """
import anyio, os, sys, time
from pathlib import Path
from llm_council.providers._local import engine as engines
engines._SERVER = Path({stand_in!r})
engines.installed = lambda: "/nowhere"
spec = engines.EngineSpec(model="/models/x.gguf", alias="fine")
class Holder: pass
holder = Holder()
engine = anyio.run(engines.running, spec, holder)
print(engine.pid, flush=True)
{then}
"""


def program(then, *options):
    code = PROGRAM.format(stand_in=str(STAND_IN), then=textwrap.dedent(then))
    return subprocess.Popen(
        [sys.executable, *options, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process, seconds=30):
    try:
        return process.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def test_killing_the_parent_ends_the_engine():
    process = program("time.sleep(60)")
    pid = int(process.stdout.readline())
    process.kill()
    finish(process)
    assert gone(pid)


def test_the_engine_ends_silently_when_the_parent_exits():
    process = program("", "-W", "error")
    out, err = finish(process)
    assert (process.returncode, err) == (0, "")
    assert gone(int(out))


def test_a_fork_leaves_the_parents_engine_alone_and_starts_its_own():
    process = program(
        """
        child = os.fork()
        if child == 0:
            own = anyio.run(engines.running, spec, holder)
            print(own.pid, engine.exit_code, flush=True)
            for engine in engines.release(holder):
                engine.join(5)
            os._exit(0)
        os.waitpid(child, 0)
        print(engine.usable, anyio.run(engines.running, spec, holder).pid, flush=True)
        """,
        "-W",
        "error",
    )
    out, err = finish(process)
    assert err == ""
    first, child_line, parent_line = out.splitlines()
    own = child_line.split()[0]
    assert own != first
    assert parent_line == f"True {first}"
    assert gone(int(own))
    assert gone(int(first))


def test_the_engine_ends_with_the_parent_though_a_fork_lives_on():
    process = program(
        """
        child = os.fork()
        if child == 0:
            os.close(1)
            os.close(2)
            time.sleep(15)
            os._exit(0)
        print(child, flush=True)
        time.sleep(60)
        """
    )
    engine, child = int(process.stdout.readline()), int(process.stdout.readline())
    try:
        process.kill()
        finish(process)
        assert gone(engine, 5)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_fork_closes_its_copy_of_the_pipe(monkeypatch):
    engine = Engine(spec(), "/nowhere")
    engine.start()
    assert engine.settled.wait(30)
    stdin = engine._process.stdin
    copy = Engine(spec(), "/nowhere")
    copy._process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, bufsize=0
    )
    other = copy._process.pid
    copy.forget()
    assert copy._process.stdin.closed
    assert not stdin.closed
    del copy
    gc.collect()
    os.waitpid(other, 0)
    engine.stop()
    engine.join(10)
    assert engine.exit_code == 0
