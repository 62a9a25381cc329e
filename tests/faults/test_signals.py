"""Signals at odd moments of blocking runs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from fault_dialects import DIALECTS

RUNS = """
import sys
sys.path.insert(0, sys.argv[1])
from fault_dialects import DIALECTS
from llm_council import Council, CouncilConfig
from llm_council.transports import RequestsTransport
seats = []
for kind in ("httpx", "requests"):
    transport = RequestsTransport() if kind == "requests" else None
    options = {"base_url": sys.argv[2], "api_key": "key-12345678", "default_model": "m", "transport": transport}
    seats.append(DIALECTS["openai"].cls(name=kind, **options))
council = Council(seats, config=CouncilConfig())
print("ready", flush=True)
try:
    while True:
        council.run("?", schema={"type": "object"})
except KeyboardInterrupt:
    sys.exit(130)
"""
MOMENTS = 4


def answering(wire):
    """Answer after a little while, so that signals come at every moment of a call."""
    body = DIALECTS["openai"].body('{"a": 1}')
    while wire.request():
        time.sleep(0.02)
        wire.send(wire.ok(body)[:60], wire.ok(body)[60:], pause=0.01)


def ended(command, number, env=None):
    """Start programs, send each a signal at a moment of its own, and return how they ended and what they said."""
    rng = random.Random(number)
    programs = []
    for _ in range(MOMENTS):
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
    ends = []
    for program in programs:
        with program:
            try:
                if program.stdout.readline().strip() == "ready":
                    time.sleep(rng.uniform(0.0, 0.3))
                program.send_signal(number)
                told = program.communicate(timeout=30)
            finally:
                program.kill()
        ends.append((program.returncode, told[1]))
    return ends


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", -15), ("SIGKILL", -9)])
def test_runs(serve, name, status):
    """Ctrl-C, SIGTERM and SIGKILL at random moments of blocking runs: a clean status, not a word on stderr, and no
    connection left open.
    """
    server = serve(answering)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(RUNS), str(Path(__file__).parent)]
    ends = ended([*command, server.url], getattr(signal, name))
    said = [[line for line in text.splitlines() if not line.startswith("Executing <")] for _, text in ends]
    assert [code for code, _ in ends] == [status] * MOMENTS, said
    assert said == [[]] * MOMENTS
    for thread in server._threads[1:]:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_command_line(serve, tmp_path):
    """Ctrl-C in the program `council`: status 130, a line at most, no traceback."""
    server = serve(lambda wire: wire.answer_and_wait())
    env = {**os.environ, "HOME": str(tmp_path), "OPENAI_API_KEY": "key-12345678", "OPENAI_BASE_URL": server.url}
    env.pop("XDG_CONFIG_HOME", None)
    command = [sys.executable, "-m", "llm_council", "run", "?", "--providers", "openai/m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as program:
        try:
            waited = time.monotonic()
            while not server.requests and program.poll() is None and time.monotonic() - waited < 60:
                time.sleep(0.02)
            program.send_signal(signal.SIGINT)
            out, err = program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert server.client_closed.wait(10)
