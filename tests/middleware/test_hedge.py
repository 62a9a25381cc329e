"""Hedge: when a second call is made, which answer counts, and that both calls are accounted for."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import attrs
import pytest

from llm_council._runtime import call_context
from llm_council.errors import CouncilError, InvalidOption, RateLimited, ServerFailed, TimedOut
from llm_council.middleware import Hedge
from llm_council.models import (
    Cost,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ProviderCapabilities,
    Usage,
    join,
)
from llm_council.providers.base import ProviderAdapter, call, stream

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(prompt="hello", idempotency_key="key-1")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: Any) -> Any:
    """Let trio's time jump: what is due at 0.01 s and what is due at 0.05 s are then never late together."""
    if request.param == "asyncio":
        return "asyncio"
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Paced(ProviderAdapter):
    """Takes the given seconds for each call in turn; an error in place of them is raised, after as many seconds."""

    name = "paced"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self, *turns: float | tuple[float, CouncilError], name: str = "paced") -> None:
        self.name = name  # type: ignore[misc]
        self.turns = list(turns)
        self.asked: list[GenerateRequest] = []
        self.cancelled = 0

    async def _pass(self, request: GenerateRequest) -> int:
        self.asked.append(request)
        number = len(self.asked)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        seconds, error = turn if isinstance(turn, tuple) else (turn, None)
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        if error is not None:
            raise error
        return number

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        number = await self._pass(request)
        usage, cost = Usage(input_tokens=10, output_tokens=5), Cost(usd=0.5, source="reported", complete=True)  # type: ignore[arg-type]
        return GenerateResponse(text=f"{self.name} {number}", usage=usage, cost=cost)

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        yield GenerateChunk(model=self.name)
        number = await self._pass(request)
        yield GenerateChunk(text=f"{self.name} ")
        yield GenerateChunk(text=str(number), usage=Usage(input_tokens=10, output_tokens=5))


async def test_a_quick_answer_makes_no_second_call() -> None:
    paced = Paced(0.0)
    response = await call(Hedge(paced, after=5.0), REQUEST)
    assert (response.text, len(paced.asked), len(response.attempts)) == ("paced 1", 1, 1)
    assert response.usage == Usage(input_tokens=10, output_tokens=5)


def test_a_second_call_starts_in_a_loop_that_anyio_did_not_start() -> None:
    async def main() -> str | None:
        return (await call(Hedge(Paced(5.0, 0.0), after=0.01), REQUEST)).text

    assert asyncio.run(main()) == "paced 2"


async def test_usage_includes_the_cancelled_first_call() -> None:
    paced = Paced(math.inf, 0.0)
    hedge = Hedge(paced, after=0.01)
    response = await call(hedge, REQUEST)
    assert response.text == "paced 2"
    assert (paced.cancelled, hedge.hedged) == (1, 1)
    assert [request.idempotency_key for request in paced.asked] == ["key-1", "key-1-hedge"]
    assert response.usage == Usage(input_tokens=20, output_tokens=5, estimated=True)
    assert response.cost is not None
    assert (response.cost.usd, response.cost.complete) == (0.5, False)
    assert [attempt.error for attempt in response.attempts] == ["Hedged", None]


async def test_usage_includes_the_cancelled_second_call() -> None:
    paced = Paced(0.05, math.inf)
    response = await call(Hedge(paced, after=0.01), REQUEST)
    assert response.text == "paced 1"
    assert paced.cancelled == len(paced.asked) - 1
    assert response.usage == Usage(input_tokens=20, output_tokens=5, estimated=True)
    assert [attempt.error for attempt in response.attempts] == ["Hedged", None]


async def test_usage_of_two_whole_answers_counts_both_in_full() -> None:
    both = anyio.Event()

    class Together(Paced):
        async def generate(self, request: GenerateRequest) -> GenerateResponse:
            self.asked.append(request)
            if len(self.asked) == 2:
                both.set()
            with anyio.CancelScope(shield=True):
                await both.wait()
            return await super().generate(request)

    together = Together(0.0)
    hedge = Hedge(together, after=0.0)
    response = await call(hedge, REQUEST)
    assert hedge.hedged == 1
    assert response.usage is not None
    assert response.cost is not None
    if not response.usage.estimated:  # on a busy loop the slower one may be cancelled at its very end
        assert response.usage == Usage(input_tokens=20, output_tokens=10)
        assert (response.cost.usd, response.cost.complete) == (1.0, True)


async def test_a_failure_before_the_second_call_is_raised() -> None:
    paced = Paced((0.0, ServerFailed("down")))
    with pytest.raises(ServerFailed):
        await call(Hedge(paced, after=5.0), REQUEST)
    assert len(paced.asked) == 1


async def test_if_one_call_fails_the_other_ones_answer_is_returned() -> None:
    paced, backup = Paced((0.05, ServerFailed("down"))), Paced(0.1, name="backup")
    response = await call(Hedge(paced, after=0.01, backup=backup), REQUEST)
    assert response.text == "backup 1"
    assert response.usage == Usage(input_tokens=10, output_tokens=5), "a refused call is not billed"
    assert [attempt.error for attempt in response.attempts] == ["ServerFailed", None]


async def test_if_both_calls_fail_the_error_has_both_attempts() -> None:
    paced, backup = Paced((0.05, ServerFailed("down"))), Paced((0.0, RateLimited("wait")), name="backup")
    with pytest.raises(ServerFailed) as caught:
        await call(Hedge(paced, after=0.01, backup=backup), REQUEST)
    assert [attempt.error for attempt in caught.value.attempts] == ["ServerFailed", "RateLimited"]


async def test_a_cancellation_ends_both_calls() -> None:
    paced = Paced(math.inf)
    async with anyio.create_task_group() as group:
        group.start_soon(call, Hedge(paced, after=0.01), REQUEST)
        while len(paced.asked) < 2:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert paced.cancelled == 2


async def test_most_limits_the_share_of_second_calls() -> None:
    paced = Paced(0.002)
    hedge = Hedge(paced, after=0.0, most=0.1)
    for _ in range(50):
        await call(hedge, REQUEST)
    assert hedge.hedged <= 6
    assert len(paced.asked) <= 56


async def test_a_second_call_asks_the_runs_budget() -> None:
    paced = Paced(0.05)
    with call_context.entered(call_context.RunScope(afford=lambda error: False)):
        response = await call(Hedge(paced, after=0.0), REQUEST)
    assert (response.text, len(paced.asked)) == ("paced 1", 1)


@pytest.mark.parametrize("limit", ["the request's", "the run's", "the caller's"])
async def test_both_calls_end_within_the_timeout_of_one(limit: str, anyio_backend_name: str) -> None:
    paced, clock = Paced(math.inf), anyio.current_time
    hedge = Hedge(paced, after=0.03, clock=clock)
    request = attrs.evolve(REQUEST, timeout_seconds=0.05 if limit == "the request's" else None)
    began = clock()
    ends = began + 0.05 if limit == "the run's" else None
    with (
        call_context.entered(call_context.RunScope(deadline=ends, clock=clock)),
        anyio.fail_after(10),
        pytest.raises(TimedOut),
    ):
        await call(hedge, request, deadline=0.05 if limit == "the caller's" else None)
    assert paced.cancelled == len(paced.asked)
    if anyio_backend_name == "trio":  # whose clock stands still but for what is waited for
        assert len(paced.asked) == 2
        assert clock() - began == pytest.approx(0.05)


async def test_streams_race_for_their_first_text() -> None:
    paced = Paced(math.inf, 0.0)
    chunks = [chunk async for chunk in stream(Hedge(paced, after=0.01), REQUEST)]
    whole = join(chunks)
    assert whole.text == "paced 2"
    assert whole.usage == Usage(input_tokens=20, output_tokens=5, estimated=True)
    assert paced.cancelled == 1


async def test_closing_a_stream_early_ends_both_calls() -> None:
    paced = Paced(0.05, math.inf)
    chunks = stream(Hedge(paced, after=0.01), REQUEST)
    async for chunk in chunks:
        if chunk.text:
            break
    await chunks.aclose()
    assert paced.cancelled == len(paced.asked) - 1


async def test_a_stream_that_fails_raises() -> None:
    paced = Paced((0.0, ServerFailed("down")))
    with pytest.raises(ServerFailed):
        [chunk async for chunk in stream(Hedge(paced, after=1.0), REQUEST)]


async def test_a_percentile_delay_is_at_least_a_millisecond() -> None:
    hedge = Hedge(Paced(0.0), after="p50", clock=lambda: 0.0)
    for _ in range(20):
        assert hedge._delay(hedge._answer_times) is None
        await call(hedge, REQUEST)
    assert hedge._delay(hedge._answer_times) == 0.001


@pytest.mark.parametrize("options", [{"after": "p0"}, {"after": "fast"}, {"after": -1.0}, {"after": 1.0, "most": 0}])
def test_invalid_arguments_are_refused(options: Any) -> None:
    with pytest.raises(InvalidOption, match=r"after: |most: "):
        Hedge(Paced(0.0), **options)


class Tail(Paced):
    """A tenth of the calls takes ten seconds, the others up to one."""

    def __init__(self, seed: int) -> None:
        super().__init__(1.0)
        self.rng = random.Random(seed)

    async def _pass(self, request: GenerateRequest) -> int:
        self.turns = [10.0 if self.rng.random() < 0.1 else self.rng.uniform(0.5, 1.0)]
        return await super()._pass(request)


def simulated(hedged: bool, calls: int) -> tuple[list[float], Tail, Hedge]:
    """Make calls one after the other in simulated time; return how long each took."""
    trio = pytest.importorskip("trio")
    from trio.testing import MockClock

    tail = Tail(5)
    hedge = Hedge(tail, after="p85", most=1.0, clock=lambda: float(trio.current_time()))

    async def main() -> list[float]:
        took = []
        for _ in range(calls):
            began = trio.current_time()
            await call(hedge if hedged else tail, REQUEST)
            took.append(trio.current_time() - began)
        return sorted(took)

    return trio.run(main, clock=MockClock(autojump_threshold=0)), tail, hedge


@pytest.mark.slow
def test_the_99th_percentile_of_a_long_tail_falls_by_the_expected_share() -> None:
    calls = 1000
    bare, _, _ = simulated(hedged=False, calls=calls)
    took, tail, hedge = simulated(hedged=True, calls=calls)
    assert bare[int(0.99 * calls)] == pytest.approx(10.0)
    # Both are slow in one call of a hundred: the share beyond two seconds falls from a tenth to a hundredth.
    slow = sum(seconds > 2.5 for seconds in took)
    expected = calls * 0.01
    assert abs(slow - expected) <= 4 * math.sqrt(expected) + 3
    assert took[int(0.98 * calls)] <= 2.0
    # Nothing beyond the tail itself is asked twice, and no second call goes uncounted.
    assert len(tail.asked) == calls + hedge.hedged
    assert abs(hedge.hedged - calls * 0.15) <= 6 * math.sqrt(calls * 0.15 * 0.85)
