"""A council in every home it may find itself in: the dual API from end to end, without a network."""

import asyncio
import copy
import gc
import pickle
import threading
import time

import anyio
import pytest
import trio

from llm_council import Council, CouncilConfig, errors
from llm_council.events import RunFinished, SeatStarted
from llm_council.models import GenerateResponse, ProviderCapabilities, Status
from llm_council.providers.base import ProviderAdapter

ANSWER = '{"answer": "Paris", "reasoning": "It is the seat of government."}'


class Toy(ProviderAdapter):
    """Answers every phase, after a while; notes what was begun and what was cancelled."""

    name = "toy"
    capabilities = ProviderCapabilities(structured_output=True)

    def __init__(self, delay=0.0):
        self.delay = delay
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def generate(self, request):
        self.begun.set()
        try:
            await anyio.sleep(self.delay)
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        return GenerateResponse(text=ANSWER)


def convene(delay=0.0):
    toy = Toy(delay)
    return Council([toy], config=CouncilConfig()), toy


@pytest.mark.parametrize("world", ["blocking", "asyncio", "trio"])
def test_run_works_in_plain_code_on_asyncio_and_on_trio(world):
    council, _ = convene()

    async def program():
        return await council.run("Where?", subagent="advisor")

    if world == "blocking":
        result = council.run("Where?", subagent="advisor")
    else:
        result = asyncio.run(program()) if world == "asyncio" else trio.run(program)
    assert result.status is Status.COMPLETED
    assert result.output["answer"] == "Paris"
    assert pickle.loads(pickle.dumps(result)).text == copy.deepcopy(result).text == result.text


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_pending_run_works_with_gather_wait_for_and_create_task():
    council, _ = convene()
    results = await asyncio.gather(council.run("One?"), council.run("Two?"))
    assert [result.task for result in results] == ["One?", "Two?"]
    assert (await asyncio.wait_for(council.run("Three?"), 60)).success
    assert (await asyncio.create_task(council.arun("Four?"))).success
    async with asyncio.TaskGroup() as group:
        task = group.create_task(council.arun("Five?"))
    assert task.result().success


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_timeout_cancels_the_run():
    council, toy = convene(delay=60)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(council.run("Where?"), 0.2)
    assert toy.cancelled.is_set()


def test_a_run_that_is_never_awaited_warns():
    council, toy = convene()

    async def program():
        with pytest.warns(RuntimeWarning, match=r"'Council\.arun' was never awaited"):
            council.run("Where?")

    asyncio.run(program())
    assert not toy.begun.is_set()


def test_run_sync_in_a_plain_callback_of_the_loop_raises():
    council, _ = convene()
    caught = []

    async def program():
        def callback():
            with pytest.raises(errors.InsideEventLoopError, match=r"Council\.run_sync\(\)") as caught_now:
                council.run_sync("Where?")
            caught.append(caught_now)

        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0.01)

    asyncio.run(program())
    assert len(caught) == 1


def test_thirty_councils_share_one_thread():
    for _ in range(30):
        with convene()[0] as council:
            assert council.run("Where?").success
    assert len([thread for thread in threading.enumerate() if thread.name == "llm-council"]) == 1


def test_leaving_a_stream_cancels_its_seats():
    council, toy = convene(delay=60)
    with council.stream("Where?") as stream:
        for event in stream:
            if isinstance(event, SeatStarted):
                assert toy.begun.wait(20)
                break
    assert toy.cancelled.is_set()
    assert stream.result.status is Status.CANCELLED


def test_a_break_without_a_with_block_cancels_the_seats_soon():
    council, toy = convene(delay=60)
    for event in council.stream("Where?"):
        if isinstance(event, SeatStarted):
            assert toy.begun.wait(20)
            break
    gc.collect()
    assert toy.cancelled.wait(20)


@pytest.mark.anyio
async def test_leaving_an_awaited_stream_cancels_its_seats():
    council, toy = convene(delay=60)
    async with council.stream("Where?") as stream:
        async for event in stream:
            if isinstance(event, SeatStarted):
                break
    assert not toy.begun.is_set() or toy.cancelled.is_set()
    assert stream.result.status is Status.CANCELLED


def test_a_stream_yields_the_same_blocking_on_asyncio_and_on_trio():
    council, _ = convene()

    async def program():
        return [type(event).__name__ async for event in council.stream("Where?")]

    blocking = [type(event).__name__ for event in council.stream("Where?")]
    assert blocking[-1] == RunFinished.__name__
    assert blocking == asyncio.run(program()) == trio.run(program)


SCRIPT = """
import os, signal, sys, threading, time
import anyio
from llm_council import Council, CouncilConfig
from llm_council.models import GenerateResponse, ProviderCapabilities
from llm_council.providers.base import ProviderAdapter

class Toy(ProviderAdapter):
    name = "toy"
    capabilities = ProviderCapabilities(structured_output=True)
    def __init__(self, delay=0.0):
        self.delay, self.cancelled, self.interrupts = delay, False, False
    async def generate(self, request):
        if self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
        try:
            await anyio.sleep(self.delay)
        except anyio.get_cancelled_exc_class():
            self.cancelled = True
            raise
        return GenerateResponse(text='{"answer": "Paris", "reasoning": "Known."}')

toy = Toy()
council = Council([toy], config=CouncilConfig())
assert council.run("Where?").success
"""


def test_ctrl_c_cancels_the_seats_and_the_council_can_be_used_again(python):
    done = python(
        SCRIPT
        + """
toy.delay, toy.interrupts = 60, True
try:
    council.run("Where?")
except KeyboardInterrupt:
    assert toy.cancelled
else:
    raise AssertionError
toy.delay, toy.interrupts = 0, False
assert council.run("Where?").success
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_preloaded_council_serves_forked_workers(python):
    done = python(
        """
import warnings
warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
"""
        + SCRIPT
        + """
import gc
def worker():
    global council, toy
    assert council.run("Where?").success
    del council, toy
    gc.collect()
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        status = 99
        try:
            worker()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert council.run("Where?").success
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_ends_in_the_middle_of_a_stream_prints_nothing(python):
    done = python(SCRIPT + "stream = iter(council.stream('Where?'))\nnext(stream)\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_ends_while_a_daemon_thread_runs_a_council_prints_nothing(python):
    script = (
        "toy.delay = 60\nthreading.Thread(target=council.run, args=('Where?',), daemon=True).start()\ntime.sleep(0.5)\n"
    )
    started = time.monotonic()
    done = python(SCRIPT + script)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - started < 40
