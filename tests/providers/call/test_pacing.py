"""Pacing: calls of many runs wait for their turn, and refused ones are sent again at no cost."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.to_thread
import pytest

from llm_council import Budget, Council, CouncilConfig
from llm_council.errors import AuthenticationFailed, CouncilError, RateLimited, ServerFailed
from llm_council.events import AttemptFailed, Event
from llm_council.middleware import Balance, Failover, Limit, Retry
from llm_council.models import GenerateChunk, GenerateRequest, GenerateResponse, ProviderCapabilities, RetryPolicy
from llm_council.models.reply import Usage
from llm_council.providers._call.pace import FIRST_LIMIT
from llm_council.providers._call.pacing import PATIENCE, Pacer
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio


class Busy(ProviderAdapter):
    """Takes ``most`` calls at a time and refuses the others; ``refuse`` makes the error of a refusal."""

    name = "busy"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(
        self, most: int, *, delay: float = 0.002, refuse: Callable[[], CouncilError] = lambda: RateLimited("busy")
    ) -> None:
        self.most = most
        self.delay = delay
        self.refuse = refuse
        self.in_flight = self.most_in_flight = self.refused = 0
        self.accepted: list[str | None] = []
        self.sent: list[float] = []

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.sent.append(anyio.current_time())
        if self.in_flight >= self.most:
            self.refused += 1
            raise self.refuse()
        self.accepted.append(request.prompt)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await anyio.sleep(self.delay)
        finally:
            self.in_flight -= 1
        return GenerateResponse(text="yes", usage=Usage(input_tokens=1, output_tokens=1))

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        yield GenerateChunk.whole(await self.generate(request))


class Account(Busy):
    """An instance of its own for an account that others have too."""

    def account_identity(self) -> str | None:
        return "https://vendor.example:key"


def numbered(number: int) -> GenerateRequest:
    return GenerateRequest(prompt=f"{number}")


def retrying(adapter: ProviderAdapter, **policy: Any) -> Retry:
    return Retry(adapter, RetryPolicy(**policy), rng=random.Random(0))


async def test_more_calls_than_a_vendor_takes_are_all_answered_without_a_retry() -> None:
    busy = Busy(5)
    provider, answers = retrying(busy, max_retries=0), []

    async def one(number: int) -> None:
        answers.append(await call(provider, numbered(number)))

    with Pacer().active():
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
    assert len(answers) == 100
    assert busy.most_in_flight == 5
    assert busy.refused <= FIRST_LIMIT + 15
    assert {len(answer.attempts) for answer in answers} == {1}
    assert any(answer.extra.get("pace", {}).get("waited", 0) > 0 for answer in answers)


async def test_streams_are_paced_like_whole_answers() -> None:
    busy = Busy(3)
    provider, texts = retrying(busy, max_retries=0), []

    async def one(number: int) -> None:
        async with aclosing(stream(provider, numbered(number))) as chunks:
            texts.append("".join([chunk.text async for chunk in chunks]))

    with Pacer().active():
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(one, number)
    assert texts == ["yes"] * 40
    assert busy.most_in_flight == 3


async def test_without_a_pacer_a_refused_call_uses_up_its_retries() -> None:
    busy = Busy(0)
    with pytest.raises(RateLimited):
        await call(retrying(busy, max_retries=1, base=0.0), numbered(0))
    assert busy.refused == 2


async def test_calls_go_in_the_order_in_which_they_were_made() -> None:
    busy = Busy(10**6, delay=0.001)
    pacer = Pacer()
    with pacer.active():
        pace = pacer.pace_of(busy)
        pace.limit = 1.0
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(call, busy, numbered(number))
                await anyio.lowlevel.checkpoint()
    assert busy.accepted == [f"{number}" for number in range(20)]


async def test_nobody_is_sent_before_a_retry_after_is_over() -> None:
    refusals = [RateLimited("later", retry_after=0.2)]
    busy = Busy(10**6, delay=0.0)
    original = busy.generate

    async def generate(request: GenerateRequest) -> GenerateResponse:
        if refusals:
            busy.sent.append(anyio.current_time())
            raise refusals.pop()
        return await original(request)

    busy.generate = generate  # type: ignore[method-assign]
    provider = retrying(busy)
    with Pacer().active():
        async with anyio.create_task_group() as group:
            for number in range(2 * FIRST_LIMIT):
                group.start_soon(call, provider, numbered(number))
    refused_at, sent_at_once = busy.sent[0], busy.sent[1:FIRST_LIMIT]
    assert len(busy.sent) == 2 * FIRST_LIMIT + 1
    for moment in busy.sent[len(sent_at_once) + 1 :]:
        assert moment - refused_at >= 0.199


async def test_a_call_without_the_time_for_a_pause_fails_at_once_with_the_time_until_it_ends() -> None:
    busy = Busy(0, refuse=lambda: RateLimited("later", retry_after=60.0))
    with Pacer().active():
        with pytest.raises(RateLimited):
            await call(busy, numbered(0))
        with pytest.raises(RateLimited, match="no room within") as caught:
            await call(retrying(busy), GenerateRequest(prompt="1", timeout_seconds=5.0))
    assert busy.refused == 1
    assert caught.value.retry_after is not None
    assert 50 < caught.value.retry_after <= 60


async def test_a_cancelled_call_passes_its_turn_on() -> None:
    busy = Busy(10**6, delay=60.0)
    pacer, answered, scopes = Pacer(), [], [anyio.CancelScope() for _ in range(3)]

    async def one(number: int) -> None:
        with scopes[number]:
            await call(busy, numbered(number))
            answered.append(number)

    with pacer.active():
        pacer.pace_of(busy).limit = 1.0
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(one, number)
                await anyio.wait_all_tasks_blocked()
            busy.delay = 0.0
            scopes[1].cancel()  # it waits
            await anyio.wait_all_tasks_blocked()
            scopes[0].cancel()  # it is in flight
    assert answered == [2]
    assert busy.accepted == ["0", "2"]
    assert pacer.pace_of(busy).in_flight == 0


async def test_a_cancelled_call_in_flight_frees_its_place() -> None:
    busy = Busy(10**6, delay=60.0)
    pacer = Pacer()
    with pacer.active():
        with anyio.move_on_after(0.01):
            await call(busy, numbered(0))
        assert pacer.pace_of(busy).in_flight == 0


async def test_instances_of_one_account_share_a_pace_and_others_do_not() -> None:
    pacer = Pacer()
    assert pacer.pace_of(Account(1)) is pacer.pace_of(Account(1))
    assert pacer.pace_of(Busy(1)) is not pacer.pace_of(Busy(1))


async def test_a_blocking_call_in_another_thread_is_not_paced() -> None:
    busy = Busy(10**6)
    pacer = Pacer()
    with pacer.active():
        pacer.pace_of(busy).limit = 1.0
        await anyio.to_thread.run_sync(busy.generate_sync, numbered(0))
        assert pacer.pace_of(busy).sent == 0
        await call(busy, numbered(1))
        assert pacer.pace_of(busy).sent == 1
    assert busy.accepted == ["0", "1"]


async def test_an_overloaded_server_is_waited_for_but_not_for_ever() -> None:
    def without_pauses() -> float:
        return -1.0

    answers: list[Any] = [ServerFailed("overloaded", status=529)] * 3 + ["yes"]
    waiting = ScriptedProvider(lambda _: answers.pop(0))
    with Pacer(jitter=without_pauses).active():
        answer = await call(retrying(waiting, max_retries=0), numbered(0))
    assert answer.text == "yes"

    down = ScriptedProvider(lambda _: ServerFailed("down", status=503))
    with Pacer(jitter=without_pauses).active(), pytest.raises(ServerFailed):
        await call(retrying(down, max_retries=1, base=0.0), numbered(0))
    assert len(down.requests) == PATIENCE + 2  # refusals, then a failed attempt and its one retry


async def test_other_errors_use_up_retries_as_ever_and_say_nothing_of_the_pace() -> None:
    wrong = ScriptedProvider(lambda _: AuthenticationFailed("no"))
    pacer = Pacer()
    with pacer.active(), pytest.raises(AuthenticationFailed):
        await call(retrying(wrong), numbered(0))
    pace = pacer.pace_of(wrong)
    assert (len(wrong.requests), pace.limit, pace.in_flight) == (1, FIRST_LIMIT, 0)


async def test_one_request_above_a_whole_limit_is_not_sent_again() -> None:
    huge = ScriptedProvider(lambda _: RateLimited("too large", retryable=False))
    with Pacer().active(), pytest.raises(RateLimited):
        await call(retrying(huge), numbered(0))
    assert len(huge.requests) == 1


async def test_a_group_goes_on_to_its_next_provider_although_the_first_one_could_be_waited_for() -> None:
    first, second = Busy(0, refuse=lambda: RateLimited("later", retry_after=30.0)), ScriptedProvider("second")
    group = Failover([retrying(first, max_retries=0), second])
    with Pacer().active():
        answer = await call(group, numbered(0))
    assert answer.text == "second"
    assert first.refused == 1


@pytest.mark.parametrize("inner_retries", [False, True])
async def test_balanced_accounts_are_all_used_and_no_call_fails(inner_retries: bool) -> None:
    accounts = [Busy(3), Busy(6, refuse=lambda: RateLimited("later", retry_after=0.01))]
    members: list[ProviderAdapter] = [retrying(account, max_retries=0) for account in accounts]
    balance = Balance(members if inner_retries else accounts)
    provider = balance if inner_retries else retrying(balance, max_retries=0)
    answers = []

    async def one(number: int) -> None:
        answers.append(await call(provider, numbered(number)))

    with Pacer().active():
        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(one, number)
    assert len(answers) == 60
    assert all(len(account.accepted) >= 10 for account in accounts)


async def test_calls_wait_while_all_providers_of_a_failover_refuse_them() -> None:
    replies: list[Any] = [RateLimited("later", retry_after=0.02)] * 3
    first = ScriptedProvider(lambda _: replies.pop() if replies else "first", name="first")
    second = ScriptedProvider(lambda _: RateLimited("later", retry_after=30.0), name="second")
    provider = retrying(Failover([first, second]), max_retries=0)
    with Pacer().active():
        assert (await call(provider, numbered(0))).text == "first"
    assert len(second.requests) == 1


async def test_a_failover_whose_providers_have_failed_otherwise_is_not_waited_for() -> None:
    down = ScriptedProvider(lambda _: ServerFailed("down", status=500))
    provider = retrying(Failover([down], failures=1), max_retries=0)
    with Pacer().active():
        for _ in range(2):
            with pytest.raises(ServerFailed):
                await call(provider, GenerateRequest(prompt="x", timeout_seconds=60.0))
    assert len(down.requests) == 1


async def test_a_refusal_by_a_limit_of_the_user_is_waited_for_without_a_retry() -> None:
    now, slept = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    limited = Limit(ScriptedProvider("yes"), rate="1/second", max_wait=0, clock=lambda: now)
    provider = Retry(limited, RetryPolicy(max_retries=0), sleep=sleep)
    with Pacer().active():
        assert (await call(provider, numbered(0))).text == "yes"
        assert (await call(provider, numbered(1))).text == "yes"
    assert slept == [pytest.approx(1.0)]


async def test_there_is_room_for_another_run_once_no_call_waits() -> None:
    busy = Busy(10**6, delay=0.02)
    pacer = Pacer()
    with pacer.active():
        pacer.pace_of(busy).limit = 1.0
        await pacer.wait_for_room()
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(call, busy, numbered(number))
            await anyio.wait_all_tasks_blocked()
            await pacer.wait_for_room()
            assert pacer.pace_of(busy).sent == 3


async def test_a_run_tells_of_refusals_and_counts_them_neither_as_attempts_nor_as_calls() -> None:
    replies: list[Any] = [RateLimited("later", retry_after=0.01), RateLimited("later", retry_after=0.01)]
    provider = ScriptedProvider(
        lambda _: replies.pop() if replies else '{"answer": "42", "reasoning": "six times seven"}'
    )
    events: list[Event] = []
    config = CouncilConfig(retry=RetryPolicy(max_retries=0))
    council = Council([provider], config=config, strategy="single", listeners=[events.append])
    with Pacer().active():
        result = await council.arun("What is 6 times 7?", budget=Budget(calls=1))
    assert result.success, result.error
    refused = [event for event in events if isinstance(event, AttemptFailed)]
    assert [type(event.error) for event in refused] == [RateLimited, RateLimited]
    assert [event.retry_in for event in refused] == [0.01, 0.01]
    assert len(provider.requests) == 3
    [report] = result.seats
    assert report.response is not None
    assert len(report.response.attempts) == 1
    assert report.response.extra["pace"]["waited"] > 0


async def test_a_pause_is_logged_with_the_limit_it_leaves(caplog: pytest.LogCaptureFixture) -> None:
    busy = Busy(0, refuse=lambda: RateLimited("later", status=429, retry_after=60.0))
    with caplog.at_level(logging.INFO, "llm_council"), Pacer().active(), pytest.raises(RateLimited):
        await call(busy, numbered(0))
    [message] = [record.getMessage() for record in caplog.records if "refuses" in record.getMessage()]
    assert message.startswith("busy refuses calls (HTTP 429): 1 at a time, none for 60.0 s")
