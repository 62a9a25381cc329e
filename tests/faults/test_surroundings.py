"""Odd surroundings: a silent name server, and a process without descriptors, threads, a home or a folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import anyio
import pytest
from fault_keys import KEY

from llm_council import errors
from llm_council.models import GenerateRequest, Timeouts
from llm_council.providers.base import call

ASK = GenerateRequest(prompt="?")

SILENT = """
import os, socket, sys, threading
found, asked = socket.getaddrinfo, threading.Event()
def getaddrinfo(host, *rest, **options):
    if str(host).endswith(".example"):
        print("asked", flush=True)
        asked.set()
        threading.Event().wait()
    return found(host, *rest, **options)
socket.getaddrinfo = getaddrinfo
"""
COMMAND = f"""{SILENT}
from llm_council.cli import main
sys.argv[1:] = ["run", "What is 2 + 2?", "-p", "openai:3", *sys.argv[1:]]
main()
"""


def environment(**more):
    """Return the environment of a command whose only vendor has a name that nobody resolves."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "https://silent.example/v1", **more}


def test_silent_name_server(tmp_path):
    """A name server that never answers: the command ends with its deadline, and waits for no thread."""
    command = [sys.executable, "-c", COMMAND, "--deadline", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), cwd=tmp_path)
    assert done.returncode == 1
    assert "the time of the run was over" in done.stderr
    assert "Traceback" not in done.stderr


def test_silent_name_server_and_interrupt(tmp_path):
    """The same, and Ctrl-C: status 130 and one line."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert shown.endswith("interrupted\n")
    assert "Traceback" not in shown


@pytest.mark.parametrize("program", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["HttpxTransport", "RequestsTransport"])
def test_silent_name_server_in_a_program(program, kind, python):
    """A program with an event loop of its own ends too, over each transport: no thread of a look-up is waited for."""
    done = python(f"""{SILENT}
import anyio
from llm_council import transports
from llm_council.models import GenerateRequest
from llm_council.providers.openai import OpenAIProvider
async def main():
    transport = transports.{kind}()
    seat = OpenAIProvider(base_url="https://silent.example/v1", api_key="key-12345678", transport=transport)
    async with anyio.create_task_group() as group:
        group.start_soon(seat.generate, GenerateRequest(prompt="?"))
        while not asked.is_set():
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
anyio.run(main, backend="{program}")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "asked\n", "")


@pytest.fixture
def silent_names(monkeypatch):
    """Let the look-ups of names in ``.example`` hang, and count them."""
    found, over, hung = socket.getaddrinfo, threading.Event(), []

    def getaddrinfo(host, *rest, **options):
        if str(host).endswith(".example"):
            hung.append(host)
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "the name server is silent")
        return found(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield hung
    over.set()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["httpx", "httpcore", "requests"])
async def test_hung_lookups(one_vendor, serve, silent_names, kind):
    """Forty look-ups that hang: other calls are answered meanwhile, over each transport."""
    one_vendor.transport = kind
    server = serve(lambda wire: wire.keep_answering(wire.ok(one_vendor.dialect.body())))
    shared = one_vendor._transport()
    hung = [one_vendor.provider(f"https://no{number}.example/v1", transport=shared) for number in range(40)]
    seat = one_vendor.provider(server.url.replace("127.0.0.1", "localhost"), transport=shared)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for other in hung:
                group.start_soon(call, other, ASK)
            while len(silent_names) < 40:
                await anyio.sleep(0.01)
            assert (await call(seat, ASK)).text == "fine"
            group.cancel_scope.cancel()
    await one_vendor.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["httpx", "httpcore", "requests"])
async def test_lookup_that_takes_too_long(one_vendor, silent_names, kind):
    """A look-up that takes longer than the connect timeout: `TimedOut` of phase `connect`."""
    one_vendor.transport = kind
    seat = one_vendor.provider("https://silent.example/v1", retries=0, timeout=Timeouts(connect=0.2))
    with pytest.raises(errors.TimedOut) as caught:
        await call(seat, ASK)
    assert caught.value.phase == "connect"
    await one_vendor.aclose()
