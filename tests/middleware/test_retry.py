"""Retry: which errors are retried, how long it waits, and what ends the retries."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council._runtime import call_context
from llm_council.errors import (
    AdapterFailed,
    Attempt,
    AuthenticationFailed,
    ConnectFailed,
    CouncilError,
    EmptyReply,
    OutOfCredit,
    ProviderError,
    RateLimited,
    ServerFailed,
    TimedOut,
    TruncatedReply,
)
from llm_council.middleware import Retry
from llm_council.models import GenerateChunk, GenerateRequest, GenerateResponse, ProviderCapabilities, RetryPolicy
from llm_council.providers.base import ProviderAdapter, call, stream

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(prompt="hello", idempotency_key="key-1")


class Clock:
    """Seconds that pass only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Flaky(ProviderAdapter):
    """Raises the given errors in turn, then answers."""

    name = "flaky"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self, *errors: CouncilError, after: int = 0) -> None:
        self.errors = list(errors)
        self.after = after
        self.keys: list[str | None] = []

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.keys.append(request.idempotency_key)
        if self.errors:
            raise self.errors.pop(0)
        return GenerateResponse(text="answer", request_id="r-ok")

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        self.keys.append(request.idempotency_key)
        for index in range(self.after):
            yield GenerateChunk(text=f"{index} ")
        if self.errors:
            raise self.errors.pop(0)
        yield GenerateChunk(text="answer", finish_reason=None)


def retrying(adapter: ProviderAdapter, clock: Clock, **policy: Any) -> Retry:
    return Retry(adapter, RetryPolicy(**policy), sleep=clock.sleep, rng=random.Random(1))


async def ask(adapter: ProviderAdapter, clock: Clock, **scope: Any) -> GenerateResponse:
    with call_context.entered(call_context.RunScope(clock=clock, **scope)):
        return await call(adapter, REQUEST)


async def test_retryable_errors_are_retried_with_the_same_idempotency_key() -> None:
    clock, flaky = Clock(), Flaky(ServerFailed("one", status=503, request_id="r-1"), ConnectFailed("two"))
    response = await ask(retrying(flaky, clock), clock)
    assert response.text == "answer"
    assert flaky.keys == ["key-1"] * 3
    assert [attempt.error for attempt in response.attempts] == ["ServerFailed", "ConnectFailed", None]
    assert response.attempts[0].status == 503
    assert response.attempts[0].request_id == "r-1"
    assert [attempt.retry_in for attempt in response.attempts[:2]] == clock.slept
    assert response.attempts[1].at == pytest.approx(clock.slept[0])


@pytest.mark.parametrize(
    ("errors", "tries"),
    [
        ([AuthenticationFailed("no", status=401)], 1),
        ([OutOfCredit("no", status=429)], 1),
        ([ConnectFailed("certificate", kind="tls")], 1),
        ([ServerFailed("no", status=500)] * 5, 3),
        ([TimedOut("slow", phase="read")] * 5, 2),
        ([EmptyReply("nothing")] * 5, 2),
    ],
)
async def test_the_last_error_has_all_attempts(errors: list[ProviderError], tries: int) -> None:
    clock, flaky = Clock(), Flaky(*errors)
    with pytest.raises(type(errors[0])) as caught:
        await ask(retrying(flaky, clock), clock)
    assert len(flaky.keys) == tries
    assert len(caught.value.attempts) == tries
    assert caught.value.attempts[-1].retry_in is None


@given(base=st.floats(0, 5), cap=st.floats(0, 5), number=st.integers(0, 6))
async def test_waits_grow_with_full_jitter_up_to_the_cap(base: float, cap: float, number: int) -> None:
    clock = Clock()
    flaky = Flaky(*[ServerFailed("no", status=500) for _ in range(number)])
    await ask(retrying(flaky, clock, base=base, cap=cap, max_retries=6), clock)
    assert len(clock.slept) == number
    for index, slept in enumerate(clock.slept):
        assert 0 <= slept <= min(cap, base * 2**index)


async def test_jitter_is_spread_over_the_whole_wait() -> None:
    clock = Clock()
    for _ in range(200):
        await ask(Retry(Flaky(ServerFailed("no")), RetryPolicy(), sleep=clock.sleep), clock)
    assert min(clock.slept) < 0.1 < 0.4 < max(clock.slept) <= 0.5


async def test_retry_waits_as_long_as_the_vendor_asks() -> None:
    clock = Clock()
    await ask(retrying(Flaky(RateLimited("wait", retry_after=7.5)), clock), clock)
    assert clock.slept == [7.5]


@pytest.mark.parametrize("retry_after", [61.0, 3e7, math.inf])
async def test_a_retry_after_beyond_the_limit_fails_at_once(retry_after: float) -> None:
    clock, flaky = Clock(), Flaky(RateLimited("wait", retry_after=retry_after))
    with pytest.raises(RateLimited) as caught:
        await ask(retrying(flaky, clock), clock)
    assert caught.value.retry_after == retry_after
    assert clock.slept == []


@pytest.mark.parametrize("retry_after", [0.0, -5.0])
async def test_an_invalid_retry_after_is_ignored(retry_after: float) -> None:
    clock = Clock()
    await ask(retrying(Flaky(RateLimited("wait", retry_after=retry_after)), clock), clock)
    assert len(clock.slept) == 1
    assert 0 <= clock.slept[0] <= 0.5


async def test_no_wait_exceeds_the_deadline() -> None:
    clock, flaky = Clock(), Flaky(RateLimited("wait", retry_after=30))
    with pytest.raises(RateLimited) as caught:
        await ask(retrying(flaky, clock), clock, deadline=clock.now + 20)
    assert caught.value.retry_after == 30
    assert clock.slept == []


async def test_a_run_shares_its_retry_tokens() -> None:
    clock, tokens = Clock(), call_context.RetryTokens(left=10, most=10)
    flaky = Flaky(*[ServerFailed("no") for _ in range(10)])
    with pytest.raises(ServerFailed):
        await ask(retrying(flaky, clock, max_retries=9), clock, tokens=tokens)
    assert len(flaky.keys) == 3, "two retries at 5 tokens each"
    assert tokens.left == 0
    await ask(retrying(Flaky(), clock), clock, tokens=tokens)
    assert tokens.left == 1


@pytest.mark.parametrize(
    ("error", "price"), [(TimedOut("slow", phase="read"), 10), (ServerFailed("down", status=503), 5)]
)
async def test_a_retry_after_a_timeout_costs_twice_as_much(error: CouncilError, price: int) -> None:
    clock, tokens = Clock(), call_context.RetryTokens(left=50, most=50)
    await ask(retrying(Flaky(error), clock), clock, tokens=tokens)
    assert tokens.left == 50 - price + 1, "the success gives one token back"


@pytest.mark.parametrize(
    ("error", "price"), [(TimedOut("slow", phase="read"), 10), (ServerFailed("down", status=503), 5)]
)
async def test_no_retry_is_made_for_which_a_token_is_missing(error: CouncilError, price: int) -> None:
    clock, tokens = Clock(), call_context.RetryTokens(left=price - 1)
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        await ask(retrying(flaky, clock), clock, tokens=tokens)
    assert len(flaky.keys) == 1
    assert tokens.left == price - 1


async def test_every_failed_attempt_is_reported() -> None:
    clock = Clock()
    failures: list[tuple[str, float | None]] = []

    def on_failed_attempt(error: CouncilError, wait: float | None) -> None:
        failures.append((error.message, wait))

    flaky = Flaky(ServerFailed("one"), AuthenticationFailed("two"))
    with pytest.raises(AuthenticationFailed):
        await ask(retrying(flaky, clock), clock, on_failed_attempt=on_failed_attempt)
    assert [message for message, _ in failures] == ["one", "two"]
    assert failures[0][1] == clock.slept[0]
    assert failures[1][1] is None


async def test_a_stream_is_restarted_only_before_its_first_content() -> None:
    clock, silent = Clock(), Flaky(ServerFailed("early"))
    texts = [chunk.text async for chunk in stream(retrying(silent, clock), REQUEST)]
    assert "".join(texts) == "answer"
    assert len(silent.keys) == 2

    shown = Flaky(ServerFailed("late"), after=2)
    seen: list[str] = []

    async def consume() -> None:
        async for chunk in stream(retrying(shown, clock), REQUEST):
            seen.append(chunk.text)

    with pytest.raises(ServerFailed) as caught:
        await consume()
    assert seen == ["0 ", "1 "]
    assert len(shown.keys) == 1
    assert len(caught.value.attempts) == 1


async def test_no_retries_when_the_policy_says_so() -> None:
    clock, flaky = Clock(), Flaky(TruncatedReply("cut", partial="half"))
    with pytest.raises(TruncatedReply) as caught:
        await ask(retrying(flaky, clock, max_retries=0), clock)
    assert caught.value.partial == "half"
    assert len(flaky.keys) == 1


async def test_everything_else_is_passed_to_the_wrapped_provider() -> None:
    flaky = Flaky()
    wrapped = Retry(flaky)
    assert (wrapped.name, wrapped.capabilities) == (flaky.name, flaky.capabilities)
    assert wrapped.cache_identity() == flaky.cache_identity()
    assert (await wrapped.doctor()).ok
    assert await wrapped.supports("streaming")


class Silent(ProviderAdapter):
    """Never answers."""

    name = "silent"
    capabilities = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        await anyio.sleep_forever()
        raise AssertionError


async def test_the_deadline_of_the_call_ends_the_retries() -> None:
    with pytest.raises(TimedOut, match="silent did not answer"):
        await call(Retry(Silent()), REQUEST, deadline=0.02)


async def test_a_retry_has_the_rest_of_the_calls_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, left = Clock(), []

    async def took_long(adapter: ProviderAdapter, request: GenerateRequest, *, deadline: float | None) -> object:
        left.append(deadline)
        clock.now += 100
        return await call(adapter, request, deadline=deadline)

    monkeypatch.setattr("llm_council.middleware.retry.call", took_long)
    adapter = retrying(Flaky(ServerFailed("x", status=500)), clock, base=0)
    with call_context.entered(call_context.RunScope(clock=clock)):
        await call(adapter, GenerateRequest(prompt="hello", timeout_seconds=150))
    assert left == [None, 50]


async def test_a_cancellation_ends_the_retries() -> None:
    with anyio.move_on_after(0.02) as scope:
        await call(Retry(Silent()), REQUEST)
    assert scope.cancelled_caught


async def test_an_error_of_the_sleep_function_becomes_a_council_error() -> None:
    async def broken(seconds: float) -> None:
        raise ValueError("no bed")

    with pytest.raises(AdapterFailed, match="no bed"):
        await call(Retry(Flaky(ServerFailed("x", status=500)), sleep=broken), REQUEST)


async def test_a_subclass_that_ignores_its_cancellation_is_left_behind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = anyio.Event()

    class Stubborn(Retry):
        async def generate(self, request: GenerateRequest) -> GenerateResponse:
            with anyio.CancelScope(shield=True):
                await let_go.wait()
            return GenerateResponse(text="late")

    monkeypatch.setattr("llm_council.providers._call.bounded.GRACE", 0.02)
    with pytest.raises(TimedOut):
        await call(Stubborn(Silent()), REQUEST, deadline=0.02)
    assert "was abandoned" in caplog.text
    let_go.set()
    await anyio.sleep(0.01)


class Several(Flaky):
    """Makes two tries of its own in each call, as a failover does."""

    _makes_several_calls = True

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        tries = (Attempt(at=0.0, elapsed=0.1, error="ServerFailed"), Attempt(at=0.1, elapsed=0.1, request_id="r-2"))
        if self.errors:
            raise self.errors.pop(0).fill(attempts=tries)
        return GenerateResponse(text="answer", attempts=tries)


async def test_the_attempts_of_inner_middleware_are_kept() -> None:
    clock = Clock()
    response = await ask(retrying(Several(ServerFailed("both failed", retry_after=3.0)), clock), clock)
    assert [attempt.at for attempt in response.attempts] == pytest.approx([0.0, 0.1, 3.0, 3.1])
    assert [attempt.retry_in for attempt in response.attempts] == [None, 3.0, None, None]
    several = retrying(Several(*[ServerFailed("both failed") for _ in range(3)]), clock, base=0.0)
    with pytest.raises(ServerFailed) as caught:
        await ask(several, clock)
    assert len(caught.value.attempts) == 6, "three tries of two each"
