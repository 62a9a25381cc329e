"""Cancellation, threads, event loops, forks, exits, copies and clocks."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest
from fault_dialects import DIALECTS, chunk
from fault_keys import KEY
from fault_rows import exempt

from llm_council import Council, errors
from llm_council.config import CouncilConfig
from llm_council.middleware import Retry
from llm_council.models import Budget, GenerateRequest, RetryPolicy
from llm_council.providers.base import stream
from llm_council.results import CouncilResult

ASK = GenerateRequest(prompt="?")
HOW = ["waiting", "reading", "streaming", "in backoff"]


def script(text, *args, env=None, timeout=60):
    """Run a program in a fresh interpreter, warnings being errors; return its exit status and what it wrote."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(text), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=env)
    noise = ("Executing <",)  # asyncio's debug mode, on a busy machine
    lines = [line for line in done.stderr.splitlines() if not line.startswith(noise)]
    return done.returncode, done.stdout, "\n".join(lines)


@pytest.mark.anyio
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", ["httpx", "requests"])
async def test_cancelled(one_vendor, serve, kind, how):
    """A call that is cancelled while it waits, reads, streams or backs off: the cancellation is raised; the connection
    is closed.
    """
    dialect = one_vendor.dialect
    one_vendor.transport = kind
    behaviour = {
        "waiting": lambda wire: wire.answer_and_wait(),
        "reading": lambda wire: wire.answer_and_wait(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        "streaming": lambda wire: wire.answer_and_wait(
            dialect.head(), *(chunk(part) for part in dialect.pieces(["a"]))
        ),
        "in backoff": lambda wire: wire.answer(b"HTTP/1.1 503 Busy\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n"),
    }[how]
    server = serve(behaviour)
    seat = one_vendor.provider(server.url)
    seat = Retry(seat.inner, RetryPolicy())  # one that really waits
    began = None
    with anyio.fail_after(20):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel():
                    nonlocal began
                    while not server.requests:
                        await anyio.sleep(0.01)
                    await anyio.sleep(0.1)
                    began = time.monotonic()
                    scope.cancel()

                group.start_soon(cancel)
                if how == "streaming":
                    async for _ in stream(seat, ASK):
                        pass
                else:
                    await seat.generate(ASK)
                raise AssertionError("the call returned")
    assert scope.cancelled_caught
    assert time.monotonic() - began < 5
    if how != "in backoff":
        assert await anyio.to_thread.run_sync(server.client_closed.wait, 10)
    assert server.connections == 1
    await seat.aclose()


@pytest.mark.anyio
async def test_cancelled_run(one_vendor, serve):
    """A run that is cancelled: the call of every seat is cancelled, and every connection is closed."""
    server = serve(lambda wire: wire.answer_and_wait())
    council = Council([one_vendor.provider(server.url) for _ in range(3)], config=CouncilConfig())
    with anyio.fail_after(20), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(council.arun, "?")
            while len(server.requests) < 2:  # the third seat has the chair
                await anyio.sleep(0.01)
            scope.cancel()
    assert scope.cancelled_caught
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 10)
    await council.aclose()


def test_cancelled_twice(one_vendor, serve):
    """A second cancellation during clean-up: nothing hangs, and the cancellation is raised."""
    server = serve(lambda wire: wire.answer_and_wait())
    seat = one_vendor.provider(server.url)

    async def main():
        task = asyncio.create_task(seat.generate(ASK))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        await seat.aclose()
        return [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]

    assert asyncio.run(main()) == []
    assert server.client_closed.wait(10)


def test_deadline_in_a_phase(one_vendor, serve):
    """A deadline inside a phase: finished drafts are used, and the result names the late seats."""
    slow = one_vendor.provider(serve(lambda wire: wire.answer_and_wait()).url, name="slow")
    body = one_vendor.dialect.body('{"a": 1}')
    quick = one_vendor.provider(serve(lambda wire: wire.keep_answering(wire.ok(body))).url, name="quick")
    council = Council([quick, slow], config=CouncilConfig(), budget=Budget(deadline=2.0))
    result = council.run("?", schema={"type": "object"})
    assert result.drafts == {"quick": '{"a": 1}'}
    assert isinstance(result.errors["slow"], errors.TimedOut)
    assert result.success
    assert result.status == "degraded"


def test_deadline_of_all(one_vendor, serve):
    """A deadline that no seat meets: `DeadlineExceeded` as the error of a returned result, in time."""
    server = serve(lambda wire: wire.answer_and_wait())
    began = time.monotonic()
    result = Council([one_vendor.provider(server.url)], config=CouncilConfig(), budget=Budget(deadline=0.5)).run("?")
    assert time.monotonic() - began < 10
    assert isinstance(result.error, errors.DeadlineExceeded)


@pytest.mark.anyio
async def test_blocking_call_in_a_loop(mock):
    """A blocking call inside a running event loop: refused, naming the awaitable to use; never a nested loop."""
    seat = mock.mocked(mock.dialect.body())
    with pytest.raises(errors.InsideEventLoopError, match="await"):
        seat.generate_sync(ASK)
    council = Council([seat], config=CouncilConfig())
    assert (await council.run("?", schema={})).text == "fine"
    with pytest.raises(errors.InsideEventLoopError, match="arun"):
        council.run_sync("?")


@exempt("httpcore", "a transport of the caller belongs to the event loop that first used it.")
def test_two_loops(vendor, serve):
    """One client in several event loops, in turn and behind blocking calls: works in each."""
    body = vendor.dialect.body()
    seat = vendor.provider(serve(lambda wire: wire.keep_answering(wire.ok(body))).url)

    async def once():
        answer = await seat.generate(ASK)
        await seat.aclose()
        return answer.text

    assert [asyncio.run(once()) for _ in range(2)] == ["fine"] * 2
    assert vendor.ask(seat).text == "fine"
    assert anyio.run(once, backend="trio") == "fine"


def test_many_threads(vendor, serve):
    """32 threads on one client: every call gets its own answer."""
    body = vendor.dialect.body()
    server = serve(lambda wire: wire.keep_answering(wire.ok(body)))
    seat = vendor.provider(server.url)
    with ThreadPoolExecutor(32) as pool:
        texts = list(pool.map(lambda _: vendor.ask(seat).text, range(64)))
    assert texts == ["fine"] * 64
    assert len(server.requests) == 64


CLIENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from fault_dialects import DIALECTS, chunk
from fault_server import FaultServer, Wire
from llm_council.models import GenerateRequest
from llm_council.transports import RequestsTransport
dialect = DIALECTS["openai"]
ASK = GenerateRequest(prompt="?")

def echo(wire):
    while request := wire.request():
        wire.send(wire.ok(dialect.body("to " + request.partition(b"x-who: ")[2].partition(b"\\r")[0].decode())))

def client(url, kind, **options):
    transport = RequestsTransport() if kind == "requests" else None
    return dialect.cls(base_url=url, api_key="key-12345678", default_model="m", transport=transport, **options)
"""
HERE = str(Path(__file__).parent)


@pytest.mark.parametrize("kind", ["httpx", "requests"])
def test_fork_after_use(kind):
    """A fork after use: the child has its own connections, and no answers are mixed up."""
    done = script(
        CLIENT
        + """
server = FaultServer(echo)
seat = client(server.url, sys.argv[2], headers={"x-who": "all"})
assert seat.generate_sync(ASK).text == "to all"
before = server.connections
child = os.fork()
if child == 0:
    ok = seat.generate_sync(ASK).text == "to all"
    os._exit(0 if ok else 1)
assert [seat.generate_sync(ASK).text for _ in range(5)] == ["to all"] * 5
assert os.waitpid(child, 0)[1] == 0
assert server.connections == before + 1, server.connections
seat.close()
if sys.argv[2] == "requests":
    seat._transport._session.close()
server.stop()
""",
        HERE,
        kind,
    )
    assert done == (0, "", "")


@pytest.mark.parametrize("left", ["a stream", "a daemon thread"])
def test_exit_during_a_call(left):
    """The interpreter exits during a stream or a call: soon, with status 0 and without output."""
    began = time.monotonic()
    done = script(
        CLIENT
        + """
import threading
part = b"".join(chunk(one) for one in dialect.pieces(["a"]))
server = FaultServer(lambda wire: wire.answer_and_wait(dialect.head(), part))
seat = client(server.url, "httpx")
if sys.argv[2] == "a stream":
    pieces = seat.stream_sync(ASK)
    print(next(pieces).text)
else:
    threading.Thread(target=lambda: list(seat.stream_sync(ASK)), daemon=True).start()
    server.seen = threading.Event()
    while not server.requests:
        server.seen.wait(0.01)
    print("a")
""",
        HERE,
        left,
    )
    assert done == (0, "a\n", "")
    assert time.monotonic() - began < 30


def test_copies(mock):
    """Pickles and deep copies of errors, results, requests, configurations and providers: complete, without a key."""
    seat = mock.mocked((401, b"{}"), mock.dialect.body())
    error = mock.fails(seat, errors.AuthenticationFailed)
    result = Council([seat], config=CouncilConfig(), listeners=()).run("?", schema={})
    assert result.text == "fine"
    for thing in (error, result, ASK, CouncilConfig(), mock.answers):
        for made in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
            assert type(made) is type(thing)
            assert str(made) == str(thing)
        assert KEY.encode() not in pickle.dumps(thing)
    assert CouncilResult.from_dict(result.to_dict()).text == "fine"
    if mock.dialect.name != "vertex":  # whose tokens are somebody else's to keep
        assert copy.deepcopy(mock.dialect.cls(api_key=KEY))._key.reveal() == KEY
    provider = mock.dialect.cls(base_url="https://vendor.example")
    assert KEY.encode() not in pickle.dumps(provider)


def test_import_has_no_side_effects():
    """An import opens no socket, starts no thread, and changes no variable and no logger."""
    done = script(
        """
        import logging, os, socket, threading
        def refused(*args, **kwargs): raise AssertionError("a socket at import")
        socket.socket.connect = socket.getaddrinfo = refused
        before = dict(os.environ)
        import llm_council
        llm_council.Council, llm_council.CouncilConfig
        assert threading.active_count() == 1, threading.enumerate()
        assert dict(os.environ) == before
        assert not logging.getLogger().handlers
        """
    )
    assert done == (0, "", "")


def test_clock_steps(mock, monkeypatch):
    """The wall clock jumps by years in both directions: no deadline, wait or measurement is affected."""
    seat = mock.mocked((503, b""), mock.dialect.body())
    steps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (1 + next(steps) % 3))
    assert mock.ask(seat, timeout_seconds=30).text == "fine"
    assert all(0 <= tried.elapsed < 20 for tried in mock.answers[0].attempts)


def test_logs_at_debug(vendor, serve):
    """The DEBUG logs of all libraries contain neither key nor prompt, of successful and failed calls."""
    body = vendor.dialect.body()
    server = serve(lambda wire: wire.answer(b"HTTP/1.1 503 Busy\r\n\r\n"), lambda wire: wire.answer(wire.ok(body)))
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    try:
        request = GenerateRequest(prompt="the word is plover")
        vendor.provider(server.url).generate_sync(request)
    finally:
        logging.getLogger().removeHandler(handler)
    messages = " ".join(record.getMessage() for record in records)
    assert "plover" not in messages
    assert KEY not in messages
    assert len(DIALECTS) >= 4
