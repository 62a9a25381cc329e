"""Any middleware around any other returns the provider's answer, whole, streamed and in blocking code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.errors import CouncilError, ServerFailed, TimedOut
from llm_council.middleware import (
    Balance,
    Cached,
    Failover,
    Hedge,
    Limit,
    Logged,
    Pinned,
    Retry,
    Traced,
)
from llm_council.models import GenerateRequest, RetryPolicy, StructuredOutput, Tool, join
from llm_council.providers.base import ProviderAdapter, call, examine, stream
from llm_council.testing.fakes import ScriptedProvider

pytest.importorskip("opentelemetry")

pytestmark = pytest.mark.anyio

LAYERS: dict[str, Callable[[ProviderAdapter], ProviderAdapter]] = {
    "balance": lambda p: Balance([p, p], failures=1000),
    "cached": Cached,
    "failover": lambda p: Failover([p, p], failures=1000),
    "hedge": lambda p: Hedge(p, after=30.0),
    "limit": lambda p: Limit(p, rate="1000/second", tokens="1M/second", concurrency=4),
    "logged": lambda p: Logged(p, content=True),
    "pinned": lambda p: Pinned(p, "m-9"),
    "retry": lambda p: Retry(p, RetryPolicy(max_retries=1, base=0.0)),
    "traced": lambda p: Traced(p, content=True),
}

orders = st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=6)


def stacked(order: list[str], provider: ProviderAdapter) -> ProviderAdapter:
    for name in order:
        provider = LAYERS[name](provider)
    return provider


@pytest.mark.slow
@examples(20)
@given(order=orders)
async def test_nested_middleware_returns_the_answer_whole_and_streamed(order: list[str]) -> None:
    provider = ScriptedProvider("one two three")
    stack = stacked(order, provider)
    request = GenerateRequest(
        prompt="x",
        tools=[Tool(name="look")],
        structured_output=StructuredOutput(json_schema={"type": "string"}),
        idempotency_key="k",
    )
    response = await call(stack, request)
    assert (response.text, response.finish_reason) == ("one two three", "stop")
    assert response.attempts
    chunks = [chunk async for chunk in stream(stack, request)]
    assert join(chunks).text == "one two three"
    assert len(provider.requests) == (1 if "cached" in order else 2)
    assert {request.idempotency_key for request in provider.requests} == {"k"}
    assert {request.model for request in provider.requests} == {"m-9" if "pinned" in order else None}
    assert stack.capabilities == provider.capabilities
    assert await stack.supports("tool_use")
    assert (await examine(stack)).ok
    stack.check()
    assert provider.cache_identity() in stack.cache_identity()
    assert repr(stack)
    await stack.aclose()


@pytest.mark.slow
@examples(20)
@given(order=orders)
async def test_nested_middleware_raises_the_providers_own_error(order: list[str]) -> None:
    stack = stacked(order, ScriptedProvider(lambda request: ServerFailed("down", status=503)))
    with pytest.raises(ServerFailed, match="down") as caught:
        await call(stack, GenerateRequest(prompt="x"))
    assert caught.value.provider == "scripted"
    assert caught.value.attempts

    async def streamed() -> None:
        async for _ in stream(stack, GenerateRequest(prompt="y")):
            pass

    with pytest.raises(ServerFailed):
        await streamed()
    await stack.aclose()


@pytest.mark.parametrize("limit", ["the request's", "the caller's"])
@pytest.mark.parametrize("name", sorted(LAYERS))
async def test_nested_middleware_keeps_to_the_timeout_of_the_call(name: str, limit: str) -> None:
    stack = LAYERS[name](LAYERS["pinned"](ScriptedProvider("never", delay=float("inf"))))
    own, given = (0.02, None) if limit == "the request's" else (None, 0.02)
    request = GenerateRequest(prompt="x", timeout_seconds=own)
    with pytest.raises(TimedOut), anyio.fail_after(30):
        await call(stack, request, deadline=given)
    await stack.aclose()


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_nested_middleware_has_blocking_twins(name: str) -> None:
    with LAYERS[name](ScriptedProvider("one two")) as stack:
        assert stack.generate_sync(GenerateRequest(prompt="x")).text == "one two"
        with stack.stream_sync(GenerateRequest(prompt="y")) as chunks:
            assert join(chunks).text == "one two"
        with stack.stream_sync(GenerateRequest(prompt="z")) as chunks:
            assert next(iter(chunks))
        assert stack.doctor_sync().ok
        assert stack.supports_sync("streaming")


@pytest.mark.parametrize("name", sorted(LAYERS))
async def test_closing_a_stream_early_ends_the_providers_call(name: str, turns: Any) -> None:
    ended: list[str] = []

    class Watched(turns):  # type: ignore[misc]
        async def stream(self, request: GenerateRequest) -> Any:
            try:
                async with aclosing(super().stream(request)) as pieces:
                    async for chunk in pieces:
                        yield chunk
            finally:
                ended.append("yes")

    chunks = stream(LAYERS[name](Watched("a", ["one ", "two ", "three"])), GenerateRequest(prompt="x"))
    async for chunk in chunks:
        if chunk.text:
            break
    await chunks.aclose()
    assert ended == ["yes"]


@pytest.mark.parametrize("name", sorted(LAYERS))
async def test_an_adapter_that_violates_its_contract_raises_a_council_error(name: str) -> None:
    class Odd(ScriptedProvider):
        async def generate(self, request: GenerateRequest) -> Any:
            return 42

    with pytest.raises(CouncilError, match="returned int"):
        await call(LAYERS[name](Odd("x")), GenerateRequest(prompt="x"))
