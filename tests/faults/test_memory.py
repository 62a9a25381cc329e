"""The memory that very large replies and decompression bombs take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import zlib
from functools import lru_cache
from pathlib import Path

import pytest
from fault_agents import CLASSES, scene
from fault_dialects import DIALECTS, chunk

__all__ = ["scene"]

MIB = 2**20
SPACE = b" " * MIB
BEYOND = 8  # MiB over a limit, for what a call needs beside what it keeps

CLIENT = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from fault_agents import CLASSES
from fault_dialects import DIALECTS
from llm_council import Council, CouncilConfig, _runtime
from llm_council.middleware import Retry
from llm_council.models import GenerateRequest, RetryPolicy
from llm_council.transports import HttpxTransport, RequestsTransport
kind, mode, warm, cold, more = json.loads(sys.argv[2])

def ask(name, place):
    if kind == "agent":
        return asked(CLASSES[name](program=place))
    transport = RequestsTransport() if kind == "requests" else HttpxTransport()
    seat = DIALECTS[name].cls(base_url=place, api_key="key-12345678", default_model="m", transport=transport)
    try:
        return asked(seat)
    finally:
        transport._session.close() if kind == "requests" else _runtime.call(transport.aclose)

def asked(seat):
    seat, request = Retry(seat, RetryPolicy(max_retries=0)), GenerateRequest(prompt="?", timeout_seconds=90)
    try:
        if mode == "run":
            with Council([seat], config=CouncilConfig()).stream("?") as events:
                assert [event for event in events][-1].status == events.result.status
            return next((type(error).__name__ for error in events.result.errors.values()), "fine")
        if mode == "stream":
            for piece in seat.stream_sync(request):
                pass
        else:
            seat.generate_sync(request)
        return "fine"
    except Exception as error:
        return type(error).__name__

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":")) * 1024

assert [ask(*one) for one in warm] == ["fine"] * len(warm)
size = memory("VmSize")
resource.setrlimit(resource.RLIMIT_AS, (size + more * 2**20,) * 2)
print(json.dumps([[ask(*one) for one in cold], memory("VmPeak") - size]))
"""


def calls(kind, mode, warm, cold, more):
    """Return how calls end in a process that may grow by so many MiB after a good one of each, and by how many it did.

    What is bounded is its address space, so that nothing hides in what happens not to be touched. One arena for all
    threads: each further one reserves 64 MiB of addresses, which it may never use.
    """
    arguments = json.dumps([kind, mode, warm, cold, more])
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(CLIENT), str(Path(__file__).parent), arguments]
    env = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=env)
    assert done.returncode == 0, done.stderr
    errors, grown = json.loads(done.stdout)
    return errors, grown / MIB


def run(serve, behaviours, kind, mode, more):
    """Do so with seats before vendors."""

    def good(dialect):
        if mode == "whole":
            return lambda wire: wire.keep_answering(wire.ok(dialect.body()))
        parts = b"".join(chunk(part) for part in dialect.stream())
        return lambda wire: wire.keep_answering(dialect.head() + parts + b"0\r\n\r\n")

    warm = [(name, serve(good(DIALECTS[name])).url) for name in dict(behaviours)]
    cold = [(name, serve(behaviour).url) for name, behaviour in behaviours]
    return calls(kind, mode, warm, cold, more)


def flood(wire, head, part, *, times=1000):
    wire.request()
    wire.send(head)
    for _ in range(times):
        wire.send(part)


@lru_cache(1)
def bomb():
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(SPACE) for _ in range(256)]) + packer.flush()


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODIES = {
    "a body of 1 GB": lambda wire: flood(wire, JSON + b"Content-Length: 1048576000\r\n\r\n", SPACE),
    "a body without end": lambda wire: flood(wire, JSON + b"Transfer-Encoding: chunked\r\n\r\n", chunk(SPACE)),
    "a bomb of 256 MiB": lambda wire: wire.answer(
        JSON + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb()), bomb()
    ),
    "an error of 1 GB": lambda wire: flood(wire, b"HTTP/1.1 500 Oops\r\nContent-Length: 1048576000\r\n\r\n", SPACE),
    "a bomb of an error": lambda wire: wire.answer(
        b"HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb()), bomb()
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["httpx", "requests"])
def test_bodies(serve, kind):
    """A body of 1 GB, an endless one, a bomb, as an answer or an error: the limit and 8 MiB, under `RLIMIT_AS`."""
    errors, grown = run(serve, [("openai", behaviour) for behaviour in BODIES.values()], kind, "whole", 16 + BEYOND)
    assert errors == ["ReplyTooLarge"] * 3 + ["ServerFailed"] * 2, grown


def giant(dialect):
    begin = dialect.pieces(["word"])[-1].partition(b"word")[0]
    return lambda wire: flood(wire, dialect.head() + chunk(begin), chunk(b"x" * MIB))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_giant_events(serve):
    """One endless event: its limit and 8 MiB, under `RLIMIT_AS`."""
    names = list(DIALECTS)
    errors, grown = run(serve, [(name, giant(DIALECTS[name])) for name in names], "httpx", "stream", 4 + BEYOND)
    assert errors == ["ReplyTooLarge"] * len(names), grown


def endless(dialect, words):
    part = chunk(b"".join(dialect.pieces([words])[-1:] * (50_000 // len(words) + 1)))
    return lambda wire: flood(wire, dialect.head() + b"".join(map(chunk, dialect.pieces([]))), part, times=100_000)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["stream", "run"])
def test_endless_streams(serve, mode):
    """An endless stream, in small and large events, to a caller and in a council's run: its text is in memory once; the
    limit and 8 MiB, under `RLIMIT_AS`.
    """
    faults = [("openai", endless(DIALECTS["openai"], words)) for words in ("word ", "word " * 100, "word " * 20_000)]
    errors, grown = run(serve, faults, "httpx", mode, 16 + BEYOND)
    assert errors == ["ReplyTooLarge"] * 3, grown


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["whole", "run"])
def test_programs(scene, mode):
    """200 MB of a program's output, as lines, as one line, as text of an answer, on stderr: the limit and 8 MiB in this
    process, under `RLIMIT_AS`.
    """
    modes = {"flood-out": "ReplyTooLarge", "one-line": "ReplyTooLarge", "words": "ReplyTooLarge"}
    asked = [(agent, behaviour) for agent in CLASSES for behaviour in modes]
    if mode == "whole":
        asked.append(("codex", "deluge-err"))
    warm = [(agent, str(scene.program(agent))) for agent in CLASSES]
    cold = []
    for agent, behaviour in asked:
        (place := scene.folder / f"{agent}-{behaviour}").mkdir()
        cold.append((agent, str(scene.program(agent, behaviour, at=place))))
    errors, grown = calls("agent", mode, warm, cold, 16 + BEYOND)
    assert errors == [modes.get(behaviour, "fine") for _, behaviour in asked], grown
