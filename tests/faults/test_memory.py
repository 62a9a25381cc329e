"""Floods and bombs: what they may cost in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import zlib
from functools import lru_cache
from pathlib import Path

import pytest
from fault_dialects import DIALECTS, chunk

MIB = 2**20
SPACE = b" " * MIB

CLIENT = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from fault_dialects import DIALECTS
from llm_council.middleware import Retry
from llm_council.models import GenerateRequest, RetryPolicy
from llm_council import _runtime
from llm_council.transports import HttpxTransport, RequestsTransport
kind, mode, warm, cold, more = json.loads(sys.argv[2])

def ask(name, url):
    transport = RequestsTransport() if kind == "requests" else HttpxTransport()
    inner = DIALECTS[name].cls(base_url=url, api_key="key-12345678", default_model="m", transport=transport)
    seat, request = Retry(inner, RetryPolicy(max_retries=0)), GenerateRequest(prompt="?")
    try:
        return "fine" if (list(seat.stream_sync(request)) if mode == "stream" else seat.generate_sync(request)) else "?"
    except Exception as error:
        return type(error).__name__
    finally:
        transport._session.close() if kind == "requests" else _runtime.call(transport.aclose)

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field + ":")) * 1024

assert [ask(*one) for one in warm] == ["fine"] * len(warm)
size, before = memory("VmSize"), memory("VmHWM")
resource.setrlimit(resource.RLIMIT_AS, (size + more * 2**20,) * 2)
print(json.dumps([[ask(*one) for one in cold], memory("VmHWM") - before]))
"""


def run(serve, behaviours, kind, mode, more):
    """Return the errors of calls in a process that may grow by so many MiB, and by how many it did."""

    def good(dialect):
        if mode == "whole":
            return lambda wire: wire.keep_answering(wire.ok(dialect.body()))
        parts = b"".join(chunk(part) for part in dialect.stream())
        return lambda wire: wire.keep_answering(dialect.head() + parts + b"0\r\n\r\n")

    warm = [(name, serve(good(DIALECTS[name])).url) for name in dict(behaviours)]
    cold = [(name, serve(behaviour).url) for name, behaviour in behaviours]
    told = json.dumps([kind, mode, warm, cold, more])
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(CLIENT), str(Path(__file__).parent), told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    errors, grown = json.loads(done.stdout)
    return errors, grown / MIB


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
    """A body of 1 GB, one without end, a bomb, as an answer or an error: its limit and 16 MiB, under `RLIMIT_AS`."""
    errors, grown = run(serve, [("openai", behaviour) for behaviour in BODIES.values()], kind, "whole", 96)
    assert errors == ["ReplyTooLarge"] * 3 + ["ServerFailed"] * 2
    assert grown < 16 + 16  # the allocator of a process with threads keeps some of it


def giant(dialect):
    begin = dialect.pieces(["word"])[-1].partition(b"word")[0]
    return lambda wire: flood(wire, dialect.head() + chunk(begin), chunk(b"x" * MIB))


def endless(dialect):
    part = chunk(b"".join(dialect.pieces(["word " * 100])[-1:] * 100))
    return lambda wire: flood(wire, dialect.head() + b"".join(map(chunk, dialect.pieces([]))), part, times=100_000)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("fault", [giant, endless])
def test_streams(serve, fault):
    """One event without end: its limit and 8 MiB. Without end of events, whose text is kept: four times the limit."""
    names = list(DIALECTS) if fault is giant else ["openai"]
    errors, grown = run(serve, [(name, fault(DIALECTS[name])) for name in names], "httpx", "stream", 128)
    assert errors == ["ReplyTooLarge"] * len(names)
    assert grown < (4 + 8 if fault is giant else 4 * 16)
