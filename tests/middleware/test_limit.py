"""Limit: no limit is exceeded, for any number of tasks, threads and event loops."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council._runtime import call_context
from llm_council.errors import InvalidOption, RateLimited, TimedOut
from llm_council.middleware import Limit
from llm_council.middleware._rates import Rate, Window
from llm_council.models import GenerateChunk, GenerateRequest, GenerateResponse, ProviderCapabilities, Usage
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(prompt="hello")


class Watched(ProviderAdapter):
    """Notes when each call began, and how many there were at once."""

    name = "watched"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self, clock: Callable[[], float], *, seconds: float = 0.0, tokens: int | None = None) -> None:
        self.clock, self.seconds, self.tokens = clock, seconds, tokens
        self.began: list[tuple[float, Any]] = []
        self.now = self.most = 0

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.began.append((self.clock(), call_context.current().run_id))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.now -= 1
        usage = None if self.tokens is None else Usage(input_tokens=self.tokens, output_tokens=0)
        return GenerateResponse(text="yes", usage=usage)

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        response = await self.generate(request)
        yield GenerateChunk(text="yes")
        yield GenerateChunk(usage=response.usage)


def most_within(times: list[float], seconds: float) -> int:
    """Return the most of these times that lie in any stretch of that length, its end left out."""
    ordered = sorted(times)
    return max(sum(start <= time < start + seconds for time in ordered) for start in ordered)


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("60/minute", 60, 60),
        ("90k/minute", 90_000, 60),
        ("1.5M/day", 1_500_000, 86400),
        (" 10 per 30 seconds ", 10, 30),
        ("5/s", 5, 1),
        ("1_000/h", 1000, 3600),
    ],
)
def test_rates_are_read_with_scales_and_units(text: str, amount: int, seconds: int) -> None:
    rate = Rate.of(text, "rate")
    assert (rate.amount, rate.seconds) == (amount, seconds)


@pytest.mark.parametrize("text", ["", "60", "60/fortnight", "0/minute", "-1/minute", "60/0 s", 60, None])
def test_a_text_that_is_not_a_rate_is_refused(text: Any) -> None:
    with pytest.raises(InvalidOption, match=r"tokens: a rate such as \"60/minute\""):
        Rate.of(text, "tokens")


@examples(40)
@given(
    amount=st.integers(1, 20),
    seconds=st.integers(1, 30),
    costs=st.lists(st.tuples(st.integers(1, 25), st.floats(0, 20), st.integers(0, 25)), max_size=60),
)
def test_no_period_of_a_window_holds_more_than_the_amount(
    amount: int, seconds: int, costs: list[tuple[int, float, int]]
) -> None:
    window, now, taken = Window(Rate(amount, seconds, "")), 0.0, []
    for cost, pause, really in costs:
        now += pause
        wait = window.wait(now, cost)
        assert 0 <= wait <= seconds
        now += wait + (1e-6 if wait else 0)
        assert not window.wait(now, cost), "what was promised holds"
        entry = window.take(now, cost)
        taken.append(entry)
        inside = [other.cost for other in taken if other.at > now - seconds]
        assert sum(inside) <= amount
        window.correct(entry, min(really, entry.cost))


def simulated(main: Callable[[Callable[[], float]], Any]) -> Any:
    """Run in simulated time: it jumps whenever everybody sleeps."""
    trio = pytest.importorskip("trio")
    from trio.testing import MockClock

    return trio.run(main, trio.current_time, clock=MockClock(autojump_threshold=0))


def test_five_hundred_tasks_stay_within_every_limit() -> None:
    async def main(clock: Callable[[], float]) -> None:
        watched = Watched(clock, seconds=0.7, tokens=30)
        limit = Limit(watched, rate="50/10 seconds", tokens="40k/10 seconds", concurrency=8, clock=clock)
        request = GenerateRequest(prompt="x" * 400, max_tokens=899)  # expected: 1000 tokens, so 40 calls at first
        async with anyio.create_task_group() as group:
            for _ in range(500):
                group.start_soon(call, limit, request)
        times = [at for at, _ in watched.began]
        assert len(times) == 500
        assert watched.most == 8
        assert most_within(times, 10.0) == 50, "the limit is kept, and used"
        assert max(times) <= 101.0, "no time is wasted either"

    simulated(main)


def test_reported_tokens_replace_the_estimate() -> None:
    async def main(clock: Callable[[], float]) -> None:
        watched = Watched(clock, tokens=4000)
        limit = Limit(watched, tokens="10k/minute", clock=clock)
        for _ in range(6):
            await call(limit, GenerateRequest(prompt="x", max_tokens=1000))
        # 4000 + 4000 + the 1001 expected fit; after the third, 12000 are spent, and the next waits for the first's end.
        assert [round(at) for at, _ in watched.began] == [0, 0, 0, 60, 60, 60]

    simulated(main)


@pytest.mark.slow
async def test_five_hundred_tasks_in_real_loops_never_exceed_the_concurrency() -> None:
    watched = Watched(lambda: 0.0, seconds=0.001)
    limit = Limit(watched, concurrency=8)
    async with anyio.create_task_group() as group:
        for _ in range(500):
            group.start_soon(call, limit, REQUEST)
    assert len(watched.began) == 500
    assert watched.most == 8


def test_waiting_calls_of_two_runs_take_turns() -> None:
    async def main(clock: Callable[[], float]) -> None:
        watched = Watched(clock, seconds=1.0)
        limit = Limit(watched, concurrency=1, clock=clock)

        async def ask(run: str) -> None:
            with call_context.entered(call_context.RunScope(run_id=run, clock=clock)):
                await call(limit, REQUEST)

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask, "large")
            await anyio.wait_all_tasks_blocked()
            for _ in range(3):
                group.start_soon(ask, "small")
        order = [run for _, run in watched.began]
        assert sorted(order) == ["large"] * 10 + ["small"] * 3
        assert max(place for place, run in enumerate(order) if run == "small") <= 7

    simulated(main)


async def test_waiting_counts_against_the_timeout(clock: Any) -> None:
    limit = Limit(Watched(clock), rate="1/minute", clock=clock, sleep=clock.sleep)
    await call(limit, REQUEST)
    clock.now += 20.0
    with pytest.raises(
        RateLimited, match=r"the limit of watched, 1/minute calls, leaves no room within 30 s"
    ) as caught:
        await call(limit, GenerateRequest(prompt="x", timeout_seconds=30.0))
    assert caught.value.retry_after == pytest.approx(40.0)
    with (
        call_context.entered(call_context.RunScope(clock=clock, deadline=clock.now + 39.0)),
        pytest.raises(RateLimited),
    ):
        await call(limit, REQUEST)
    assert clock.slept == []
    await call(limit, GenerateRequest(prompt="x", timeout_seconds=41.0))
    assert clock.slept == [pytest.approx(40.0)]


def test_after_waiting_the_call_has_the_rest_of_its_time() -> None:
    async def main(clock: Callable[[], float]) -> None:
        slow = Limit(ScriptedProvider("never", delay=inf), rate="1/minute", clock=clock)
        asked = GenerateRequest(prompt="x", timeout_seconds=50)
        ends = []
        for _ in range(2):
            with pytest.raises(TimedOut):
                await call(slow, asked)
            ends.append(clock())
        # The second one waits for ten seconds, until the minute is over, and then has forty.
        assert ends[1] - ends[0] == pytest.approx(50)

    simulated(main)


async def test_max_wait_of_zero_never_waits(clock: Any) -> None:
    from llm_council.middleware import Failover

    limit = Limit(Watched(clock), rate="1/minute", max_wait=0, clock=clock)
    over = Failover([limit, ScriptedProvider("spilled over")], clock=clock)
    assert [(await call(over, REQUEST)).text for _ in range(2)] == ["yes", "spilled over"]
    busy = Limit(Watched(clock, seconds=30.0), concurrency=1, max_wait=0)
    async with anyio.create_task_group() as group:
        group.start_soon(call, busy, REQUEST)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RateLimited, match="1 at once"):
            await call(busy, REQUEST)
        group.cancel_scope.cancel()


async def test_a_cancelled_call_leaves_the_queue() -> None:
    go_on = anyio.Event()

    async def answer(request: GenerateRequest) -> str:
        await go_on.wait()
        return "yes"

    provider = ScriptedProvider(lambda request: answer(request))
    limit = Limit(provider, concurrency=1)
    second = anyio.CancelScope()

    async def cancelled() -> None:
        with second:
            await call(limit, REQUEST)

    async with anyio.create_task_group() as group:
        group.start_soon(call, limit, REQUEST)
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0.01):
            await call(limit, REQUEST)
        group.start_soon(cancelled)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(call, limit, REQUEST)
        await anyio.wait_all_tasks_blocked()
        second.cancel()
        await anyio.wait_all_tasks_blocked()
        assert len(provider.requests) == 1
        go_on.set()
    assert len(provider.requests) == 2
    await call(limit, REQUEST)


async def test_a_failed_call_frees_its_slot(turns: Any) -> None:
    limit = Limit(turns("a", KeyError("x"), "fine"), concurrency=1)
    with pytest.raises(Exception, match="x"):
        await call(limit, REQUEST)
    assert (await call(limit, REQUEST)).text == "fine"


async def test_a_stream_holds_its_slot_until_it_ends() -> None:
    watched = Watched(lambda: 0.0, tokens=9)
    limit = Limit(watched, concurrency=1, tokens="1M/minute", max_wait=0)
    chunks = stream(limit, REQUEST)
    assert (await anext(chunks)).text == "yes"
    with pytest.raises(RateLimited):
        await call(limit, REQUEST)
    assert [chunk.usage async for chunk in chunks] == [Usage(input_tokens=9, output_tokens=0)]
    await call(limit, REQUEST)


def test_limits_of_one_account_count_together(clock: Any) -> None:
    def limited(key: str, rate: str = "1/minute") -> Limit:
        gateway = OpenAICompatibleProvider(base_url="https://llm.example.com", api_key=key)
        return Limit(gateway, rate=rate, clock=clock)

    a, same, other, figures = limited("key-one"), limited("key-one"), limited("key-two"), limited("key-one", "2/minute")
    assert a._gate is same._gate
    assert len({a._gate, other._gate, figures._gate}) == 3
    fakes = [Limit(ScriptedProvider("x"), rate="1/minute", clock=clock) for _ in range(2)]
    assert fakes[0]._gate is not fakes[1]._gate, "without an account, each counts alone"


def test_threads_and_loops_share_a_limit() -> None:
    watched = Watched(lambda: 0.0, seconds=0.002)
    limit = Limit(watched, concurrency=2)
    done: list[int] = []

    def work() -> None:
        async def main() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(call, limit, REQUEST)

        anyio.run(main)
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 4
    assert len(watched.began) == 40
    assert watched.most <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a rate, tokens or concurrency"),
        ({"rate": "often"}, "rate: a rate such as"),
        ({"tokens": 90_000}, "tokens: a rate such as"),
        ({"concurrency": 0}, "1 or more"),
        ({"concurrency": True}, "1 or more"),
        ({"rate": "1/s", "max_wait": -1}, "max_wait"),
        ({"rate": "1/s", "when_lost": "panic"}, "'alone' or 'refuse'"),
        ({"concurrency": 1, "shared": "redis://127.0.0.1"}, "concurrency is counted in each process"),
    ],
)
def test_invalid_arguments_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        Limit(ScriptedProvider("x"), **options)


async def test_everything_else_is_passed_to_the_wrapped_provider(turns: Any) -> None:
    inner = turns("a", ["one ", "two"])
    limit = Limit(inner, concurrency=1)
    assert (limit.name, limit.capabilities, limit.cache_identity()) == (
        inner.name,
        inner.capabilities,
        inner.cache_identity(),
    )
    assert "".join([chunk.text async for chunk in stream(limit, REQUEST)]) == "one two"
    assert (await limit.doctor()).ok
