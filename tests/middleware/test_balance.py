"""Balance: how calls are spread, and which provider gets none."""

from __future__ import annotations

import math
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import CapabilityMissing, InvalidOption, RateLimited, ServerFailed
from llm_council.middleware import Balance
from llm_council.models import GenerateRequest, Tool
from llm_council.providers.base import call, stream
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(prompt="hello")


async def spread(balance: Balance, calls: int) -> list[int]:
    for _ in range(calls):
        await call(balance, REQUEST)
    return [len(provider.asked) for provider in balance.providers]  # type: ignore[attr-defined]


async def test_round_robin_calls_the_providers_in_turn(turns: Any) -> None:
    balance = Balance([turns("a"), turns("b"), turns("c")], strategy="round-robin")
    texts = [(await call(balance, REQUEST)).text for _ in range(7)]
    assert "".join(text[0] for text in texts if text) == "abcabca"


async def test_round_robin_skips_a_provider_whose_breaker_is_open(turns: Any, clock: Any) -> None:
    b = turns("b", RateLimited("wait", retry_after=5.0), "b answers")
    balance = Balance([turns("a"), b, turns("c")], strategy="round-robin", clock=clock)
    await call(balance, REQUEST)
    with pytest.raises(RateLimited):
        await call(balance, REQUEST)
    texts = [(await call(balance, REQUEST)).text for _ in range(4)]
    assert "".join(text[0] for text in texts if text) == "caca"
    clock.now += 5.0
    texts = [(await call(balance, REQUEST)).text for _ in range(3)]
    assert "".join(text[0] for text in texts if text) == "bca"


@examples(15)
@given(weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=4), seed=st.integers(0, 2**32))
def test_weighted_calls_follow_the_weights_within_four_standard_deviations(weights: list[float], seed: int) -> None:
    calls = 800
    providers = [ScriptedProvider("yes", name=str(index)) for index in range(len(weights))]
    balance = Balance(providers, strategy="weighted", weights=weights, rng=random.Random(seed))
    chosen = Counter(balance._pick((), streamed=False).place for _ in range(calls))
    for place, weight in enumerate(weights):
        share = weight / sum(weights)
        assert abs(chosen[place] - calls * share) <= 4 * math.sqrt(calls * share * (1 - share)) + 1


async def test_least_busy_spreads_sequential_calls_by_weight(turns: Any) -> None:
    balance = Balance([turns("a"), turns("b"), turns("c")], weights=[1, 2, 1])
    assert await spread(balance, 40) == [10, 20, 10]


async def test_least_busy_gives_a_slow_provider_fewer_calls() -> None:
    slow, quick = ScriptedProvider("slow", name="slow", delay=math.inf), ScriptedProvider("quick", name="quick")
    balance = Balance([slow, quick])
    async with anyio.create_task_group() as group:
        group.start_soon(call, balance, REQUEST)
        await anyio.wait_all_tasks_blocked()
        for _ in range(10):
            assert (await call(balance, REQUEST)).text == "quick"
        group.cancel_scope.cancel()
    assert len(slow.requests) == 1
    assert (await call(Balance([quick]), REQUEST)).text == "quick"
    assert [member.busy for member in balance._members] == [0, 0]


async def test_fastest_gets_most_calls_and_the_others_are_measured_again(turns: Any, clock: Any) -> None:
    a, b = turns("a", 3.0, clock=clock), turns("b", 1.0, clock=clock)
    balance = Balance([a, b], strategy="fastest", clock=clock, rng=random.Random(7))
    used = await spread(balance, 400)
    # Of the 398 that were not first measured, 2.5 % go to the slower one, by chance.
    assert 10 - 3 * 3 <= used[0] - 1 <= 10 + 4 * 3
    a.turns, b.turns = [1.0], [3.0]
    await spread(balance, 400)
    assert len(a.asked) - used[0] > 200, "it has become the faster one, and that was seen"


async def test_quick_failures_do_not_count_as_speed(turns: Any, clock: Any) -> None:
    a, b = turns("a", ServerFailed("no")), turns("b", 5.0, clock=clock)
    balance = Balance([a, b], strategy="fastest", clock=clock, failures=2)
    for _ in range(3):  # one call measures the slower
        with suppress(ServerFailed):
            await call(balance, REQUEST)
    assert balance.states() == {"a": "open", "b": "closed"}
    assert (await call(balance, REQUEST)).text == "slow"


async def test_a_provider_without_the_capability_is_skipped(turns: Any) -> None:
    balance = Balance([turns("a", streaming=True), turns("b")], strategy="round-robin")
    request = GenerateRequest(prompt="x", tools=[Tool(name="look")])
    for _ in range(3):
        assert (await call(balance, request)).text == "b answers"
        assert "".join([chunk.text async for chunk in stream(balance, request)]) == "b answers"
    with pytest.raises(CapabilityMissing):
        await call(Balance([turns("a", streaming=True)]), request)


async def test_streams_are_balanced_too(turns: Any) -> None:
    balance = Balance([turns("a", ["one ", "two"]), turns("b", ["uno ", "due"])], strategy="round-robin")
    for _ in range(2):
        assert "".join([chunk.text async for chunk in stream(balance, REQUEST)]) == "one two"
        assert "".join([chunk.text async for chunk in stream(balance, REQUEST)]) == "uno due"


async def test_an_error_names_the_waits_when_all_breakers_are_open(turns: Any, clock: Any) -> None:
    balance = Balance([turns("a", RateLimited("wait", retry_after=3.0))], clock=clock)
    with pytest.raises(RateLimited):
        await call(balance, REQUEST)
    with pytest.raises(ServerFailed, match=r"a for 3\.0 s"):
        await call(balance, REQUEST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "rond-robin"}, "did you mean 'round-robin'"),
        ({"strategy": "?"}, "one of least-busy, round-robin, weighted, fastest"),
        ({"weights": [1, 2]}, "for each of 1"),
        ({"weights": [0]}, "above 0"),
        ({"weights": [math.nan]}, "above 0"),
    ],
)
def test_invalid_arguments_are_refused(options: Any, message: str, turns: Any) -> None:
    with pytest.raises(InvalidOption, match=message):
        Balance([turns("a")], **options)
