"""Forks: parent and child each have a runtime of their own, and neither touches the other's."""

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# Scripts fork in interpreters of their own: a hang or a crash is theirs, and a time limit ends them.
PRELUDE = """
import gc, multiprocessing, os, signal, socket, sys, threading, time, warnings
import anyio
from llm_council import _runtime
from llm_council._runtime import per_loop

warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)  # said by 3.12 about any loop thread

async def echo(value):
    await anyio.sleep(0)
    return value

def child(work):
    '''Fork, run work in the child, return its exit status; a child that hangs is killed by its alarm.'''
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        status = 99
        try:
            work()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def check_echo():
    assert _runtime.call(echo, 7) == 7
"""


def run(python, script):
    done = python(PRELUDE + "\n" + script, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")


def test_parent_and_child_work_after_a_fork_of_a_used_runtime(python):
    run(
        python,
        """
check_echo()
for _ in range(12):
    assert child(check_echo) == 0
    check_echo()
def grandchild():
    check_echo()
    assert child(check_echo) == 0
    check_echo()
assert child(grandchild) == 0
""",
    )


def test_parent_and_child_work_after_a_fork_of_an_unused_runtime(python):
    run(python, "assert child(check_echo) == 0\nassert not _runtime.is_started()\ncheck_echo()")


def test_the_child_has_one_thread_and_no_started_runtime(python):
    run(
        python,
        """
check_echo()
def look():
    assert threading.active_count() == 1
    assert not _runtime.is_started()
    assert not _runtime.running_inside_loop()
assert child(look) == 0
""",
    )


def test_a_fork_while_another_thread_holds_the_start_lock(python):
    run(
        python,
        """
from llm_council._runtime import calls
calls.FORK_TIMEOUT = 0.05
held, leave = threading.Event(), threading.Event()
def hold():
    with calls._lock:
        held.set()
        leave.wait(30)
thread = threading.Thread(target=hold)
thread.start()
held.wait(30)
assert child(check_echo) == 0
leave.set()
thread.join(30)
check_echo()
""",
    )


def test_a_fork_with_calls_in_flight(python):
    run(
        python,
        """
results = []
threads = [threading.Thread(target=lambda: results.append(_runtime.call(anyio.sleep, 0.5))) for _ in range(4)]
for thread in threads:
    thread.start()
check_echo()
for _ in range(6):
    assert child(check_echo) == 0
for thread in threads:
    thread.join(30)
assert results == [None] * 4
""",
    )


def test_a_fork_waits_for_a_busy_loop_for_a_limited_time(python):
    run(
        python,
        """
from llm_council._runtime import calls
calls.FORK_TIMEOUT = 0.05
entered, leave = threading.Event(), threading.Event()
async def busy():
    entered.set()
    leave.wait(30)
thread = threading.Thread(target=_runtime.call, args=(busy,))
thread.start()
entered.wait(30)
assert child(check_echo) == 0
leave.set()
thread.join(30)
check_echo()
""",
    )


def test_a_fork_while_the_loop_thread_imports_leaves_no_import_lock(python):
    """Without the parking the child inherits an import lock that nobody will release."""
    run(
        python,
        """
import importlib, pathlib, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
sys.path.insert(0, str(folder))
for number in range(100):
    (folder / f"slow_module_{number}.py").write_text("import time; time.sleep(0.01)")
now = [None]
async def imports():
    for number in range(100):
        now[0] = number
        importlib.import_module(f"slow_module_{number}")
        await anyio.sleep(0)
thread = threading.Thread(target=_runtime.call, args=(imports,))
thread.start()
def also_imports():
    importlib.import_module(f"slow_module_{now[0]}")
    check_echo()
while now[0] is None:
    time.sleep(0.001)
for _ in range(8):
    time.sleep(0.013)
    assert child(also_imports) == 0
thread.join(30)
""",
    )


def test_an_adapter_that_forks_in_the_loop_thread(python):
    run(
        python,
        """
async def forks():
    return child(lambda: None)
assert _runtime.call(forks) == 0
check_echo()
""",
    )


def test_resources_of_the_parent_are_neither_used_nor_closed_in_the_child(python):
    run(
        python,
        """
class Owner:
    pass
closed = []
class Connection:
    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.pid = os.getpid()
    async def aclose(self):
        closed.append(os.getpid())
        self.ours.close()
        self.theirs.close()
async def connection(owner):
    return await per_loop.get(owner, "connection", Connection, Connection.aclose)
owner = Owner()
first = _runtime.call(connection, owner)
def collect():
    global owner
    mine = _runtime.call(connection, owner)
    assert mine is not first and mine.pid == os.getpid()
    per_loop.close(owner)
    assert closed == [os.getpid()]
    del owner
    gc.collect()
    check_echo()
    time.sleep(0.05)
    assert closed == [os.getpid()] and first.ours.fileno() >= 0
assert child(collect) == 0
def only_collect():
    global owner
    del owner
    gc.collect()
    time.sleep(0.05)
    assert not closed and not _runtime.is_started()
assert child(only_collect) == 0
first.ours.send(b"still here")
assert first.theirs.recv(10) == b"still here"
assert _runtime.call(connection, owner) is first and not closed
per_loop.close(owner)
assert closed == [os.getpid()]
""",
    )


def test_an_open_stream_continues_in_the_parent_alone(python):
    run(
        python,
        """
from llm_council.errors import RuntimeShutdownError
journal = []
async def numbers():
    try:
        for number in range(5):
            yield number
    finally:
        journal.append("clean")
stream = _runtime.iterate(numbers)
assert next(stream) == 0
def use():
    try:
        next(stream)
    except RuntimeShutdownError as error:
        assert "fork" in str(error)
    else:
        raise AssertionError("the child advanced its parent's stream")
    stream.close()
    assert list(stream) == []
    assert list(_runtime.iterate(numbers)) == [0, 1, 2, 3, 4]
assert child(use) == 0
def drop():
    global stream
    del stream
    gc.collect()
assert child(drop) == 0
assert journal == []
assert list(stream) == [1, 2, 3, 4]
assert journal == ["clean"]
""",
    )


def test_a_multiprocessing_pool(python):
    run(
        python,
        """
def task(number):
    return _runtime.call(echo, number)
check_echo()
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert pool.map_async(task, range(30)).get(timeout=60) == list(range(30))
    pool.close()
    pool.join()
check_echo()
""",
    )


def test_a_process_pool_executor_used_from_threads(python):
    run(
        python,
        """
from concurrent.futures import ProcessPoolExecutor
def task(number):
    return _runtime.call(echo, number)
check_echo()
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    assert list(pool.map(task, range(10), timeout=60)) == list(range(10))
check_echo()
""",
    )


def test_a_server_that_preloads_and_forks_threaded_workers(python):
    """The shape of gunicorn --preload with gthread workers: a master that has called, children with thread pools."""
    run(
        python,
        """
from concurrent.futures import ThreadPoolExecutor
check_echo()
def worker():
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda number: _runtime.call(echo, number), range(40))) == list(range(40))
assert [child(worker) for _ in range(3)] == [0, 0, 0]
check_echo()
""",
    )


def test_a_child_that_exits_normally_prints_nothing(python):
    run(
        python,
        """
check_echo()
stream = _runtime.iterate(lambda: agen())
async def agen():
    yield 1
    yield 2
next(stream)
pid = os.fork()
if pid == 0:
    check_echo()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
pid = os.fork()
if pid == 0:
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert list(stream) == [2]
""",
    )


def test_a_fork_inside_a_running_loop(python):
    run(
        python,
        """
import asyncio
def worker():
    asyncio._set_running_loop(None)
    check_echo()
async def main():
    return child(worker)
check_echo()
assert asyncio.run(main()) == 0
""",
    )


@pytest.mark.slow
def test_many_forks_while_threads_call(python):
    run(
        python,
        """
stop = threading.Event()
def work():
    while not stop.is_set():
        check_echo()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
statuses = [child(check_echo) for _ in range(60)]
stop.set()
for thread in threads:
    thread.join(30)
assert statuses == [0] * 60, statuses
""",
    )


def test_a_ctrl_c_in_the_hook_before_a_fork_leaves_no_lock_behind(python):
    """Python prints the exception of such a hook, and forks all the same."""
    run(
        python,
        """
from llm_council._runtime import calls
check_echo()
def interrupted(timeout):
    raise KeyboardInterrupt
calls._current.park = interrupted
sys.unraisablehook = lambda _: None
assert child(lambda: None) == 0
del calls._current.park
check_echo()
assert _runtime.shutdown(timeout=10)
""",
    )
