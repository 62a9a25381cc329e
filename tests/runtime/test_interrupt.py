"""Ctrl-C: the task is cancelled, its clean-up awaited, the server sees the abort, and the next call works."""

import pytest

PRELUDE = """
import asyncio, os, random, signal, socket, sys, threading, time
import anyio
from llm_council import _runtime

async def echo(value):
    await anyio.sleep(0)
    return value

async def tasks():
    return len(asyncio.all_tasks()) - 2  # the loop thread's own, and this one

def left_over(seconds=10):
    deadline = time.monotonic() + seconds
    while _runtime.call(tasks) and time.monotonic() < deadline:
        time.sleep(0.01)
    return _runtime.call(tasks)

def interrupt(after=0):
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()

async def waits():
    interrupt()
    await anyio.sleep(60)

_runtime.call(echo, 1)
"""


def run(python, script, timeout=60):
    done = python(PRELUDE + "\n" + script, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_cancels_the_task_and_waits_for_its_clean_up(python):
    run(
        python,
        """
journal = []
async def slow():
    try:
        await waits()
    except anyio.get_cancelled_exc_class():
        journal.append("cancelled")
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.2)
        journal.append("clean")
        raise
try:
    _runtime.call(slow)
except KeyboardInterrupt:
    journal.append("interrupted")
assert journal == ["cancelled", "clean", "interrupted"], journal
assert left_over() == 0
assert _runtime.call(echo, 2) == 2
""",
    )


def test_the_server_sees_that_ctrl_c_aborts_the_request(python):
    run(
        python,
        """
listener = socket.create_server(("127.0.0.1", 0))
seen = []
def serve():
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(30)
        while chunk := connection.recv(1024):
            seen.append(chunk)
        seen.append("closed")
server = threading.Thread(target=serve)
server.start()
async def request():
    async with await anyio.connect_tcp(*listener.getsockname()) as stream:
        await stream.send(b"question")
        interrupt()
        await stream.receive()
try:
    _runtime.call(request)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError
server.join(30)
assert seen == [b"question", "closed"], seen
listener.close()
assert _runtime.call(echo, 2) == 2
""",
    )


def test_ctrl_c_in_a_stream_closes_the_stream(python):
    run(
        python,
        """
journal = []
async def numbers():
    try:
        yield 0
        await waits()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)
        journal.append("clean")
stream = _runtime.iterate(numbers)
assert next(stream) == 0
try:
    next(stream)
except KeyboardInterrupt:
    journal.append("interrupted")
assert journal == ["clean", "interrupted"], journal
assert list(stream) == []
stream.close()
assert left_over() == 0
""",
    )


def test_ctrl_c_while_a_stream_closes_cancels_the_clean_up(python):
    run(
        python,
        """
journal = []
async def numbers():
    try:
        yield 0
    finally:
        try:
            await waits()
        finally:
            journal.append("cut")
stream = _runtime.iterate(numbers)
next(stream)
try:
    stream.close()
except KeyboardInterrupt:
    journal.append("interrupted")
assert journal == ["cut", "interrupted"], journal
assert left_over() == 0
""",
    )


def test_a_second_ctrl_c_ends_the_wait_for_clean_up(python):
    run(
        python,
        """
from llm_council._runtime import thread
thread.CLEANUP_TIMEOUT = 50
leave = threading.Event()
async def stubborn():
    interrupt()
    interrupt(0.5)
    with anyio.CancelScope(shield=True):
        while not leave.is_set():
            await anyio.sleep(0.01)
started = time.monotonic()
try:
    _runtime.call(stubborn)
except KeyboardInterrupt:
    pass
assert time.monotonic() - started < 40
assert _runtime.call(echo, 2) == 2
leave.set()
assert left_over() == 0
""",
    )


def test_any_exception_of_a_signal_handler_cancels_the_task(python):
    """Celery's soft time limit, for one, is raised by a handler."""
    run(
        python,
        """
class SoftTimeLimit(Exception):
    pass
def handler(*_):
    raise SoftTimeLimit
signal.signal(signal.SIGINT, handler)
try:
    _runtime.call(waits)
except SoftTimeLimit:
    pass
assert left_over() == 0
""",
    )


def test_ctrl_c_interrupts_the_main_thread_only(python):
    run(
        python,
        """
results = []
other = threading.Thread(target=lambda: results.append(_runtime.call(anyio.sleep, 1)))
other.start()
try:
    _runtime.call(waits)
except KeyboardInterrupt:
    pass
other.join(30)
assert results == [None]
""",
    )


def test_a_program_that_does_not_catch_ctrl_c_ends_at_once(python):
    done = python(PRELUDE + "_runtime.call(waits)")
    assert done.returncode in (-2, 130)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.stderr.count("Traceback") == 1


@pytest.mark.slow
def test_sixty_interrupts_at_random_moments_leave_no_task_behind(python):
    run(
        python,
        """
random.seed(7)
async def numbers():
    for number in range(1000):
        await anyio.sleep(0)
        yield number
ignored = []  # Python shows and forgets what is raised in a finalizer, such as that of a dropped stream
sys.unraisablehook = lambda unraisable: ignored.append(unraisable.exc_type)
interrupted = 0
for turn in range(60):
    try:
        interrupt(random.uniform(0.0005, 0.02))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if turn % 3:
                _runtime.call(echo, 1)
            elif turn % 2:
                with _runtime.iterate(numbers) as stream:
                    for number in stream:
                        if number == 3:
                            break
            else:
                for number in _runtime.iterate(numbers):
                    if number == 3:
                        break
    except KeyboardInterrupt:
        interrupted += 1
        if turn % 10 == 9:
            _runtime.shutdown()  # so that the start of the thread is interrupted at times, too
assert interrupted > 50 and ignored == [KeyboardInterrupt] * (60 - interrupted), (interrupted, ignored)
assert left_over() == 0
assert _runtime.call(echo, 2) == 2
assert len([thread for thread in threading.enumerate() if thread.name == "llm-council"]) == 1
""",
        timeout=100,
    )
