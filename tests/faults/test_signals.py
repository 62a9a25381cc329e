"""Signals at random moments of blocking runs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack

import pytest
from fault_agents import scene
from fault_dialects import DIALECTS

__all__ = ["scene"]

RUNS = """
import sys, tempfile
sys.path.insert(0, sys.argv[1])
tempfile.tempdir = sys.argv[3]
from fault_dialects import DIALECTS
from llm_council import Budget, Council, CouncilConfig
from llm_council.providers.cli.codex import CodexProvider
from llm_council.providers.cli.gemini_cli import GeminiCliProvider
from llm_council.transports import RequestsTransport
seats = [CodexProvider(), GeminiCliProvider()]
for kind in ("httpx", "requests"):
    transport = RequestsTransport() if kind == "requests" else None
    options = {"base_url": sys.argv[2], "api_key": "key-12345678", "default_model": "m", "transport": transport}
    seats.append(DIALECTS["openai"].cls(name=kind, **options))
council = Council(seats, config=CouncilConfig(budget=Budget(deadline=2.0)))
Council(seats[2:], config=CouncilConfig()).run("?", schema={"type": "object"})  # whatever is loaded takes its time
print("ready", flush=True)
try:
    while True:
        council.run("?", schema={"type": "object"})
except KeyboardInterrupt:
    sys.exit(130)
"""
MOMENTS = 3
SIGNALS = [("SIGINT", 130), ("SIGTERM", -15), ("SIGKILL", -9)]


def answering(wire):
    """Answer after a little while, so that signals come at every moment of a call."""
    body = DIALECTS["openai"].body('{"a": 1}')
    while wire.request():
        time.sleep(0.02)
        wire.send(wire.ok(body)[:60], wire.ok(body)[60:], pause=0.01)


def ended(command, number, env=None, *, within, begun=lambda: True):
    """Start programs, send each a signal at a moment of its own, and return how they ended and what they said.

    Args:
        command: what is started, ``MOMENTS`` times.
        number: the signal.
        env: its environment.
        within: seconds after its first line, or its start where it says none, in which the signal comes.
        begun: has to be true before the last of them gets its signal.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # for whoever reads of a failure
    rng = random.Random(seed)
    ends = []
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
            )
            for _ in range(MOMENTS)
        ]
        for program in programs:
            stack.callback(program.kill)
        for program in programs:
            if command[-1] == "ready":
                assert program.stdout.readline().strip() == "ready"
            waited = time.monotonic()
            while program is programs[-1] and not begun():
                assert time.monotonic() - waited < 60
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, within))
            program.send_signal(number)
            stderr_lines = program.communicate(timeout=30)[1].splitlines()
            # On a machine that stands still, two are right to say so.
            slow = ("Executing <", "something has blocked the event loop")
            ends.append((program.returncode, [line for line in stderr_lines if not line.startswith(slow)]))
    return ends


def nothing_is_left(scene):
    """Wait until no process of the scene's programs, nor of what watches them, and no file of theirs is left."""
    waited = time.monotonic()
    while left := processes(scene):
        assert time.monotonic() - waited < 30, left
        time.sleep(0.05)
    scene.await_tidiness()


def processes(scene):
    listed = subprocess.run(["ps", "-ww", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(scene.bin) in line and not line.startswith("Z")]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("name", "status"), SIGNALS)
def test_runs(serve, scene, name, status):
    """Ctrl-C, SIGTERM and SIGKILL at random moments of blocking runs, with HTTP vendors and programs, one of which
    hangs and ignores SIGTERM: a proper exit status, nothing on stderr; no process, temporary file or connection is
    left.
    """
    server = serve(answering)
    scene.program("codex", answer='{"a": 1}')
    scene.program("gemini", "ignore-term")
    here = os.path.dirname(__file__)  # noqa: PTH120
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(RUNS), here]
    begun = lambda: list(scene.folder.glob("seen-codex.*")) and scene.hanging("gemini")  # noqa: E731
    command += [server.url, str(scene.temporary), "ready"]
    ends = ended(command, getattr(signal, name), within=0.6, begun=begun)
    assert ends == [(status, [])] * MOMENTS
    nothing_is_left(scene)
    for thread in server._threads[1:]:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("name", "status"), SIGNALS)
def test_command_at_any_moment(serve, scene, name, status):
    """The same in the program `council`, from its own first line on, also while it imports modules."""
    server = serve(lambda wire: wire.answer_and_wait())
    scene.program("codex", "ignore-term")
    env = {**os.environ, "TMPDIR": str(scene.temporary), "OPENAI_API_KEY": "key-12345678"}
    env |= {"OPENAI_BASE_URL": server.url}
    env.pop("XDG_CONFIG_HOME", None)
    begin = "from llm_council.cli import main; print('ready', flush=True); main()"
    command = [sys.executable, "-c", begin, "run", "--providers", "openai/m,codex", "ready"]
    ends = ended(command, getattr(signal, name), env, within=1.5)
    assert [code for code, _ in ends] == [status] * MOMENTS, ends
    assert not any("Traceback" in line for _, lines in ends for line in lines), ends
    nothing_is_left(scene)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_command_line(serve, scene):
    """Ctrl-C in the program `council` while its seats are asked: status 130, a one-line message, no traceback."""
    server = serve(lambda wire: wire.answer_and_wait())
    scene.program("codex", "hang")
    env = {**os.environ, "TMPDIR": str(scene.temporary), "OPENAI_API_KEY": "key-12345678"}
    env |= {"OPENAI_BASE_URL": server.url}
    env.pop("XDG_CONFIG_HOME", None)
    command = [sys.executable, "-m", "llm_council", "run", "?", "--providers", "openai/m,codex"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as program:
        try:
            waited = time.monotonic()
            while not server.requests and program.poll() is None and time.monotonic() - waited < 60:
                time.sleep(0.02)
            scene.await_hanging("codex")
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted"
    assert len(err.splitlines()) <= 3, err  # who sits, and the end of the line of progress
    assert out == ""
    assert server.client_closed.wait(10)
    nothing_is_left(scene)
