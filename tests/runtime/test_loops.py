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


async def test_delayed_callbacks_run_in_order_each_in_the_context_of_its_caller() -> None:
    loop, calls, last = loops.current(), [], anyio.Event()

    def later(seconds: float, name: str) -> None:
        word.set(name)
        loop.call_later(seconds, lambda: calls.append(word.get()))

    loop.call_later(0.06, last.set)
    later(0.03, "third")
    later(0.0, "first")
    later(0.015, "second")
    word.set("nobody's")
    with anyio.fail_after(10):
        await last.wait()
    assert calls == ["first", "second", "third"]


async def test_a_cancelled_callback_does_not_run() -> None:
    loop, calls, last = loops.current(), [], anyio.Event()
    off = [loop.call_later(seconds, lambda: calls.append("called off")) for seconds in (0.0, 0.01, 0.02)]
    loop.call_later(0.03, last.set)
    for call_off in off:
        call_off()
        call_off()
    with anyio.fail_after(10):
        await last.wait()
    assert not calls


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_failing_callback_is_reported_and_the_others_run() -> None:
    loop, last, calls = loops.current(), anyio.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: calls.append(context["exception"]))
    failure = ValueError("mine")

    def fail() -> None:
        raise failure

    loop.call_later(0.0, fail)
    loop.call_later(0.01, last.set)
    with anyio.fail_after(10):
        await last.wait()
    assert calls == [failure]
