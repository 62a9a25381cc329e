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
from fault_dialects import VENDORS, chunk
from fault_keys import KEY

from llm_council import CouncilConfig, errors
from llm_council.middleware import Failover
from llm_council.models import GenerateRequest, Timeouts
from llm_council.providers._anthropic import sdk
from llm_council.providers.base import call, stream
from llm_council.providers.cli.codex import CodexProvider
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.local import LocalProvider
from llm_council.providers.registry import get_provider
from llm_council.providers.vertex import VertexProvider
from llm_council.testing import ScriptedProvider

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


EXHAUSTED = """
import resource, sys, threading
import llm_council
from llm_council import Budget, Council, CouncilConfig, errors
from llm_council.models import GenerateRequest, RetryPolicy
from llm_council.providers.openai import OpenAIProvider
seats = [OpenAIProvider(name=f"s{number}", base_url=sys.argv[1], api_key="key-12345678") for number in range(2)]
council = Council(seats, config=CouncilConfig(budget=Budget(deadline=20), retry=RetryPolicy(max_retries=0)))
def run():
    try:
        result = council.run("?", schema={"type": "object"})
    except errors.CouncilError as error:
        return f"{type(error).__name__}: {error}"
    shown = [f"{type(error).__name__}: {error}" for error in result.errors.values()]
    return "; ".join([str(result.status), *shown])
"""


def test_no_descriptor(python, serve, one_vendor):
    """No free descriptor: an error that says so and names the limit, before the first run and in a later one."""
    server = serve(lambda wire: wire.answer(wire.ok(one_vendor.dialect.body('{"a": 1}'), b"Connection: close")))
    first = """
import os
used = len(os.listdir("/proc/self/fd"))
for free in -1, 0, 1, 2:
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + free, 4096))
    print(run())
"""
    done = python(EXHAUSTED + first, server.url)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 4
    for line in done.stdout.splitlines():
        assert "no free file descriptor" in line
        assert "ulimit -n" in line
    later = """
import os
warm = run()
assert warm == "completed", warm
kept = []
try:
    while True:
        kept.append(os.dup(0))
except OSError:
    print(run())
    for one in kept:
        os.close(one)
print(run())
"""
    done = python(EXHAUSTED + "resource.setrlimit(resource.RLIMIT_NOFILE, (128, 4096))\n" + later, server.url)
    lines = done.stdout.splitlines()
    # One seat may get a descriptor that another one gave back.
    assert lines[0].startswith(("failed", "degraded")), done.stdout + done.stderr
    assert "ConnectFailed: cannot connect to 127.0.0.1:" in lines[0]
    assert "no free file descriptor" in lines[0]
    assert lines[-1] == "completed", "nothing of the shortage stays"


def test_no_thread(python, serve, one_vendor):
    """No thread to be had: an error that says so, before the first run, for a look-up and for a blocking adapter."""
    server = serve(lambda wire: wire.keep_answering(wire.ok(one_vendor.dialect.body('{"a": 1}'))))
    refuse = """
def start(thread):
    raise RuntimeError("can't start new thread")
begun = threading.Thread.start
threading.Thread.start = start
print(run())
threading.Thread.start = begun
warm = run()
threading.Thread.start = start
print(warm, run())
threading.Thread.start = begun
llm_council.shutdown()  # the idle worker threads end
seats[0].supports_sync("streaming")
threading.Thread.start = start
class Blocking(OpenAIProvider):
    def generate(self, request):
        return "fine"
for seat in Blocking(api_key="key-12345678"), OpenAIProvider(base_url="https://no.example/v1", api_key="key-12345678"):
    try:
        seat.generate_sync(GenerateRequest(prompt="?"))
    except errors.ProviderError as error:
        print(f"{type(error).__name__}: {error}")
threading.Thread.start = begun
"""
    done = python(EXHAUSTED + refuse, server.url)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("UnsupportedEnvironmentError: "), done.stdout + done.stderr
    assert lines[1] == "completed completed"
    assert lines[2].startswith("AdapterFailed: ")
    assert lines[3].startswith("ConnectFailed: ")
    assert all("no thread can be started" in line and "ulimit -u" in line for line in (lines[0], *lines[2:]))


def command(words, place, **more):
    """Run the command in a folder, and return its exit status and its lines on stderr."""
    env = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": KEY, "HOME": str(place), **more}
    done = subprocess.run(
        [sys.executable, "-c", "from llm_council.cli import main; main()", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={name: value for name, value in env.items() if value},
        cwd=place,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


RUN = ("run", "What is 2 + 2?", "-p", "openai", "--dry-run")


def test_no_home_directory(tmp_path):
    """No home directory: the command says so, and which variables name another place; with one of them it works."""
    homeless = f"""
import os, pwd, sys
os.environ.pop("HOME", None)
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
sys.argv[1:] = {list(RUN)!r}
from llm_council.cli import main
main()
"""
    env = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": KEY}
    for more, status in ({}, 2), ({"XDG_CONFIG_HOME": str(tmp_path)}, 0):
        done = subprocess.run(
            [sys.executable, "-c", homeless], capture_output=True, text=True, timeout=60, env={**env, **more}
        )
        assert done.returncode == status, done.stderr
        assert ("there is no home directory" in done.stderr) == (status == 2)
        assert ("LLM_COUNCIL_CONFIG" in done.stderr) == (status == 2)
        assert "Traceback" not in done.stderr


def test_unreadable_working_directory(tmp_path):
    """A working directory that cannot be read, or that was deleted: an error that says so."""
    unreadable = f"""
import ctypes, os, sys
os.chmod(".", 0o000)
if os.geteuid() == 0:  # give up the capabilities by which root reads everything: 1 and 2 (man 7 capabilities)
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
sys.argv[1:] = {list(RUN)!r}
from llm_council.cli import main
main()
"""
    place = tmp_path / "closed"
    place.mkdir()
    env = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": KEY, "XDG_CONFIG_HOME": "/nowhere"}
    try:
        if os.geteuid() == 0:
            os.chown(place, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", unreadable], capture_output=True, text=True, timeout=60, env=env, cwd=place
        )
    finally:
        place.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "the working directory cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
    deleted = "import os, sys\nos.rmdir(os.getcwd())\nfrom llm_council.cli import main\nmain()"
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", deleted, *RUN[:-1], "--store", "runs.db"],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
        cwd=gone,
    )
    assert done.returncode == 2, done.stderr
    assert "the working directory cannot be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["council.toml", ".config/llm-council/config.toml", "named.toml"])
def test_pipe_as_configuration(tmp_path, name):
    """A named pipe in the place of a configuration file: an error that says so, at once; it is not opened."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(tmp_path / name)
    more = {"LLM_COUNCIL_CONFIG": str(tmp_path / name)} if name == "named.toml" else {}
    status, shown = command(RUN, tmp_path, **more)
    assert status == 2
    assert f"{name}: is a named pipe" in shown


def test_pipe_as_record_of_trust(tmp_path):
    """A named pipe in the place of the record of trusted projects: the same."""
    folder = tmp_path / ".config" / "llm-council"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "trusted.json")
    (tmp_path / "council.toml").write_text("[council]\nstore = 'runs.db'\n")
    status, shown = command(RUN, tmp_path)
    assert status == 2
    assert "trusted.json: is no file" in shown


def test_blocking_adapters_that_run_councils(python):
    """Blocking adapters that run councils of their own and use up all worker threads: these runs fail with that
    reason, long before their deadline; with fewer of them, they work.
    """
    done = python("""
import time
from llm_council import Budget, Council, CouncilConfig
from llm_council.models import RetryPolicy
from llm_council.providers.base import GenerateResponse, ProviderAdapter, ProviderCapabilities
config = CouncilConfig(budget=Budget(deadline=300), retry=RetryPolicy(max_retries=0))
class Leaf(ProviderAdapter):
    name, capabilities = "leaf", ProviderCapabilities()
    def generate(self, request):
        return GenerateResponse(text="fine")
class Nested(Leaf):
    name = "nested"
    def generate(self, request):
        time.sleep(0.3)  # so that all of them have begun
        result = Council([Leaf()], config=config).run("?")
        if not result.success:
            raise result.error
        return GenerateResponse(text=str(result.text))
began = time.monotonic()
for seats in 3, 45:
    with Council([Nested() for _ in range(seats)], config=config) as council:
        result = council.run("?")
        reasons = [str(error) for error in result.errors.values()]
        print(len(reasons) > 20, all("worker threads hold blocking adapters" in reason for reason in reasons))
assert time.monotonic() - began < 60
""")
    assert (done.stdout, done.stderr) == ("False True\nTrue True\n", "")


@pytest.mark.parametrize("name", ["a b", "a/b", "a:2", "-a", "", "x" * 65, "a\nb"])
def test_name_of_an_instance(name):
    """A name with which no seat can be written: refused for every kind of provider and in the configuration."""
    inner = ScriptedProvider("fine")
    makers = [
        lambda: OpenAICompatibleProvider(name=name, base_url="http://127.0.0.1:1/v1"),
        lambda: VertexProvider(name=name, project="p"),
        lambda: LocalProvider(name=name),
        lambda: CodexProvider(name=name),
        lambda: Failover([inner], name=name),
        lambda: ScriptedProvider("fine", name=name),
        lambda: CouncilConfig(instances={name: {"kind": "openai"}}),
        lambda: get_provider("openai", name=name),
    ]
    for make in makers:
        with pytest.raises(errors.InvalidOption, match="a provider's name has letters"):
            make()


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["cancelled", "deadline"])
@pytest.mark.parametrize("kind", ["httpx", "httpcore", "requests", "sdk"])
async def test_reply_that_nobody_waits_for(one_vendor, serve, kind, how):
    """A reply that does not end, and a call that is cancelled or runs out of time: it is not read on, over each
    transport.
    """
    if kind == "sdk":
        pytest.importorskip("anthropic")
    vendor = type(one_vendor)(VENDORS["anthropic" if kind == "sdk" else "openai"], kind)
    sent = []

    def endless(wire):
        wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{")
        try:
            while True:
                wire.send(b" " * 1024, pause=0.001)
                sent.append(1024)
        except OSError:
            wire.server.client_closed.set()

    server = serve(endless)
    seat = vendor.provider(server.url, retries=0)
    with anyio.fail_after(30):
        if how == "deadline":
            with pytest.raises(errors.TimedOut):
                await call(seat, ASK, deadline=0.5 if kind != "sdk" else 5)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(call, seat, ASK)
                while not sent:
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(server.client_closed.wait, 20), "it is still read"
    await vendor.aclose()


@pytest.mark.anyio
async def test_import_within_a_stream(one_vendor, serve, monkeypatch):
    """A vendor's SDK that takes longer to import than the stream may be silent: the stream is read all the same."""
    pytest.importorskip("anthropic")
    vendor = type(one_vendor)(VENDORS["anthropic"], "sdk")
    pieces = b"".join(chunk(part) for part in vendor.dialect.stream())
    server = serve(lambda wire: wire.keep_answering(vendor.dialect.head() + pieces + b"0\r\n\r\n"))
    load, loads = sdk._loaded, []

    async def slow():
        if not loads:
            await anyio.sleep(1.5)
        loads.append(None)
        return await load()

    await load()
    monkeypatch.setattr(sdk, "_loaded", slow)
    seat = vendor.provider(server.url, retries=0, timeout=Timeouts(idle=1.0))
    arrived = [piece async for piece in stream(seat, ASK)]
    assert "".join(piece.text for piece in arrived) == "fine"
    await vendor.aclose()
