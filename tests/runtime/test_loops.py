"""One face for asyncio and trio: callbacks for later, and blocks that end from elsewhere."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import anyio
import pytest

from llm_council._runtime import loops

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Let trio's time jump: it wakes in any order who is late together."""
    if request.param == "asyncio":
        return "asyncio"
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


word: ContextVar[str] = ContextVar("word", default="")


async def test_callbacks_come_in_the_order_of_their_times_each_in_its_own_context() -> None:
    loop, told, last = loops.current(), [], anyio.Event()

    def later(seconds: float, name: str) -> None:
        word.set(name)
        loop.after(seconds, lambda: told.append(word.get()))

    loop.after(0.06, last.set)
    later(0.03, "third")
    later(0.0, "first")
    later(0.015, "second")
    word.set("nobody's")
    with anyio.fail_after(10):
        await last.wait()
    assert told == ["first", "second", "third"]


async def test_what_is_called_off_does_not_come_and_holds_nothing_up() -> None:
    loop, told, last = loops.current(), [], anyio.Event()
    off = [loop.after(seconds, lambda: told.append("called off")) for seconds in (0.0, 0.01, 0.02)]
    loop.after(0.03, last.set)
    for call_off in off:
        call_off()
        call_off()
    with anyio.fail_after(10):
        await last.wait()
    assert not told


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_failing_callback_is_told_and_the_others_come() -> None:
    loop, last, told = loops.current(), anyio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    failure = ValueError("mine")

    def fail() -> None:
        raise failure

    loop.after(0.0, fail)
    loop.after(0.01, last.set)
    with anyio.fail_after(10):
        await last.wait()
    assert told == [failure]


async def test_a_block_ends_from_elsewhere() -> None:
    loop, steps = loops.current(), []
    block = loop.block()
    loop.after(0.0, block.cancel)
    with anyio.fail_after(10):
        with block:
            try:
                await anyio.sleep_forever()
            finally:
                steps.append("cleaned up")
            steps.append("never here")
        await anyio.sleep(0)  # nothing of the cancellation is left
    assert steps == ["cleaned up"]


async def test_a_block_that_has_ended_is_not_cancelled() -> None:
    block, steps = loops.current().block(), []
    with block:
        await anyio.sleep(0)
    block.cancel()
    await anyio.sleep(0)  # a cancellation would be raised here
    steps.append("went on")
    assert steps == ["went on"]


async def test_what_a_block_raises_passes_even_if_it_is_cancelled() -> None:
    block = loops.current().block()

    async def fail() -> None:
        with block:
            block.cancel()
            try:
                await anyio.sleep_forever()
            finally:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()
    await anyio.sleep(0)


@pytest.mark.parametrize("first", ["the block", "the scope around it"])
async def test_a_cancellation_from_outside_is_not_taken_for_the_block_s(first: str) -> None:
    loop, passed = loops.current(), True
    with anyio.CancelScope() as outer:
        block = loop.block()
        ends = [block.cancel, outer.cancel]
        for end in ends if first == "the block" else reversed(ends):
            loop.after(0.0, end)
        with block:
            await anyio.sleep_forever()
        await anyio.sleep_forever()
        passed = False  # pragma: no cover
    assert passed
    assert outer.cancelled_caught


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("first", ["the block", "the task"])
async def test_a_task_that_is_cancelled_in_a_block_is_cancelled(first: str) -> None:
    entered: list[loops.Block] = []

    async def work() -> None:
        block = loops.current().block()
        with block:
            entered.append(block)
            await anyio.sleep_forever()

    task = asyncio.create_task(work())
    while not entered:
        await asyncio.sleep(0)
    ends = [entered[0].cancel, task.cancel]
    for end in ends if first == "the block" else reversed(ends):
        end()
    with pytest.raises(asyncio.CancelledError):
        await task
