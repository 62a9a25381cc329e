"""The end of the process: no warning, no traceback, no hang, whatever is still open."""

import time

import pytest

PRELUDE = """
import atexit, os, signal, sys, threading, time
import anyio, anyio.to_thread
from llm_council import _runtime
from llm_council._runtime import per_loop
from llm_council.errors import RuntimeShutdownError

entered = threading.Event()

async def echo(value):
    await anyio.sleep(0)
    return value

async def forever():
    try:
        entered.set()
        await anyio.sleep(600)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
            say("clean")

async def numbers():
    try:
        yield 0
        yield 1
    finally:
        await anyio.sleep(0.01)
        say("clean")

def say(word):
    os.write(1, word.encode() + b" ")

def thread(target, *args, daemon):
    made = threading.Thread(target=target, args=args, daemon=daemon)
    made.start()
    return made

assert _runtime.call(echo, 1) == 1
"""

WAYS = {
    "after use": ("", 0, ""),
    "with a stream open": ("stream = _runtime.iterate(numbers)\nassert next(stream) == 0", 0, "clean "),
    "with a stream in a cycle": (
        "stream = _runtime.iterate(numbers)\nassert next(stream) == 0\ncycle = [stream]\ncycle.append(cycle)",
        0,
        "clean ",
    ),
    "with a call in flight in a daemon thread": (
        "thread(_runtime.call, forever, daemon=True)\nentered.wait(30)",
        0,
        "clean ",
    ),
    "with a stream being read in a daemon thread": (
        """
async def waits():
    try:
        yield 1
        await forever()
    finally:
        say("closed")
thread(lambda: list(_runtime.iterate(waits)), daemon=True)
entered.wait(30)
""",
        0,
        "clean closed ",
    ),
    "with a daemon thread that keeps calling": (
        """
def work():
    while True:
        _runtime.call(echo, 1)
thread(work, daemon=True)
thread(work, daemon=True)
time.sleep(0.1)
""",
        0,
        "",
    ),
    "with a thread that is waited for": (
        "thread(lambda: (_runtime.call(anyio.sleep, 0.2), say('finished')), daemon=False)",
        0,
        "finished ",
    ),
    "by sys.exit": ("thread(_runtime.call, forever, daemon=True)\nentered.wait(30)\nsys.exit(3)", 3, "clean "),
    "by SystemExit of an adapter": (
        "async def leave():\n    raise SystemExit(4)\n_runtime.call(leave)",
        4,
        "",
    ),
    "by a signal turned into SystemExit": (
        """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
_runtime.call(forever)
""",
        5,
        "clean ",
    ),
    "with a connection open": (
        """
import socket
class Owner: pass
class Connection:
    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
    async def aclose(self):
        await anyio.sleep(0)
        self.ours.close()
        self.theirs.close()
        say("closed")
async def connect(owner):
    await per_loop.get(owner, "connection", Connection, Connection.aclose)
owner = Owner()
_runtime.call(connect, owner)
""",
        0,
        "closed ",
    ),
    "with worker threads of the loop idle": ("_runtime.call(anyio.to_thread.run_sync, time.monotonic)", 0, ""),
    "with executor threads of the loop idle": (
        "import asyncio\n_runtime.call(lambda: asyncio.to_thread(time.monotonic))",
        0,
        "",
    ),
    "with calls and a close in an exit handler": (
        "atexit.register(lambda: say(_runtime.call(echo, 'answered')))",
        0,
        "answered ",
    ),
    "after a shutdown": ("assert _runtime.shutdown()", 0, ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_process_ends_without_output_and_without_hanging(python, way):
    script, status, output = WAYS[way]
    done = python(PRELUDE + script)
    assert (done.returncode, done.stdout, done.stderr) == (status, output, "")


def test_a_call_after_the_exit_handler_is_refused(python):
    done = python("""
        import atexit

        def late():
            from llm_council import _runtime, errors
            import anyio
            try:
                _runtime.call(anyio.sleep, 0)
            except errors.RuntimeShutdownError as error:
                print("refused:", error)

        atexit.register(late)  # exit handlers run last in, first out: this one after the runtime's
        import anyio
        from llm_council import _runtime
        _runtime.call(anyio.sleep, 0)
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert "refused: the process is exiting" in done.stdout


def test_an_unhandled_error_prints_its_own_traceback_only(python):
    done = python(PRELUDE + "thread(_runtime.call, forever, daemon=True)\nentered.wait(30)\nraise ValueError('mine')")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ValueError: mine\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "core",
    [
        "async def stuck():\n    entered.set()\n    time.sleep(60)",
        "async def stuck():\n    entered.set()\n    with anyio.CancelScope(shield=1):\n        await anyio.sleep(60)",
    ],
    ids=["blocks the loop", "ignores its cancellation"],
)
def test_an_adapter_that_ignores_cancellation_delays_the_exit_by_seconds_only(python, core):
    started = time.monotonic()
    done = python(PRELUDE + core + "\nthread(_runtime.call, stuck, daemon=True)\nentered.wait(30)", timeout=50)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 30
