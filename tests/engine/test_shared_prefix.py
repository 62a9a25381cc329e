"""Of the calls that share a prefix, the first one writes it into the vendor's cache, and the others wait for that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from llm_council import (
    Budget,
    Council,
    CouncilConfig,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    Message,
    ProviderCapabilities,
)
from llm_council._engine import shared_prefix
from llm_council._engine.shared_prefix import PrefixWriter, answer_has_begun
from llm_council.errors import ServerFailed
from llm_council.models import FinishReason, ImagePart, TextPart, ToolCallDelta, Usage
from llm_council.providers._call.profiles import profile_for
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import ModelProfile, ProviderAdapter
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.testing.servers import FakeVendor

pytestmark = pytest.mark.anyio

PATIENT = CouncilConfig(budget=Budget(deadline=None, quorum=2))
LONG = "The minutes of the meeting. " * 200  # about 1,400 tokens


class CachingVendor(ProviderAdapter):
    """A vendor that charges for writing a prefix; its first answers begin when the test lets them.

    Attributes:
        sent: how many calls have arrived.
        begins: answers wait for this before they begin.
        ends: answers that have begun wait for this before they end.
        failing: how many of the next calls fail before they begin.
        profile: what the vendor's model takes.
    """

    name = "caching"
    capabilities = ProviderCapabilities(streaming=True)

    def __init__(self, *, failing: int = 0, **facts: Any) -> None:
        self.sent = 0
        self.begins, self.ends = anyio.Event(), anyio.Event()
        self.failing = failing
        self.profile = ModelProfile(**{"since": "2026-11-30", "cache_minimum": 1024, **facts})

    def _profile_of(self, model: str | None) -> ModelProfile:
        return self.profile

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.sent += 1
        return GenerateResponse(text="Lima is the capital.")

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        self.sent += 1
        if self.failing:
            self.failing -= 1
            raise ServerFailed("overloaded", retryable=False)
        yield GenerateChunk(request_id="accepted")
        await self.begins.wait()
        yield GenerateChunk(text="Lima is the capital.")
        await self.ends.wait()
        yield GenerateChunk(finish_reason=FinishReason.STOP)


async def run(council: Council, results: list[Any], context: str = LONG) -> None:
    results.append(await council.arun("Which city?", context=context))


async def test_others_are_sent_when_the_first_answer_begins_and_before_it_ends() -> None:
    vendor, results = CachingVendor(), list[Any]()
    async with Council([vendor, vendor, vendor], config=PATIENT) as council, anyio.create_task_group() as group:
        group.start_soon(run, council, results)
        await anyio.wait_all_tasks_blocked()
        assert vendor.sent == 1
        vendor.begins.set()
        await anyio.wait_all_tasks_blocked()
        assert vendor.sent == 3
        vendor.ends.set()
    assert results[0].status == "completed"
    assert results[0].text


async def test_a_first_call_that_fails_makes_way_for_one_other() -> None:
    vendor, results = CachingVendor(failing=1), list[Any]()
    async with Council([vendor, vendor, vendor], config=PATIENT) as council, anyio.create_task_group() as group:
        group.start_soon(run, council, results)
        await anyio.wait_all_tasks_blocked()
        assert vendor.sent == 2
        vendor.begins.set()
        vendor.ends.set()
    assert results[0].status == "degraded"
    assert len(results[0].drafts) == 2


@pytest.mark.parametrize(
    ("facts", "context"),
    [
        ({}, "It rains."),
        ({"cache_minimum": 4096}, LONG),
        ({"cache_minimum": None}, LONG),
        ({"prompt_cache": "automatic"}, LONG),
        ({"prompt_cache": "none"}, LONG),
    ],
)
async def test_nobody_waits_where_nothing_is_written_or_writing_costs_nothing(
    facts: dict[str, Any], context: str
) -> None:
    vendor, results = CachingVendor(**facts), list[Any]()
    async with Council([vendor, vendor], config=PATIENT) as council:
        await run(council, results, context)
    assert results[0].status == "completed"  # although ``begins`` is never set: nothing was streamed


async def test_a_cancelled_run_leaves_no_call_waiting() -> None:
    vendor = CachingVendor()
    async with Council([vendor, vendor], config=PATIENT) as council:
        with anyio.move_on_after(0.2) as scope:
            await council.arun("Which city?", context=LONG)
    assert scope.cancelled_caught
    assert vendor.sent == 1


async def test_a_call_waits_for_a_quarter_of_its_time_at_most() -> None:
    vendor = CachingVendor()
    async with Council([vendor, vendor], config=CouncilConfig(budget=Budget(deadline=0.4))) as council:
        result = await council.arun("Which city?", context=LONG)
    assert result.status == "degraded"  # the first draft never began
    assert len(result.drafts) == 1


async def test_a_long_silence_lets_the_others_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_prefix, "MAX_WAIT", 0.05)
    vendor, results = CachingVendor(), list[Any]()
    async with Council([vendor, vendor, vendor], config=PATIENT) as council, anyio.create_task_group() as group:
        group.start_soon(run, council, results)
        with anyio.fail_after(30):
            while vendor.sent < 3:
                await anyio.sleep(0.01)
        vendor.begins.set()
        vendor.ends.set()
    assert results[0].status == "completed"


async def test_the_writer_makes_way_when_it_is_cancelled() -> None:
    writer = PrefixWriter()
    with anyio.CancelScope() as scope:
        async with writer.turn(60):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    async with writer.turn(60) as begun:
        assert begun is not None
        begun()
        begun()  # each piece of the answer may say so
        async with writer.turn(60) as other:
            assert other is None


async def test_texts_are_reported_only_to_those_who_listen() -> None:
    seen: list[str] = []
    vendor = CachingVendor()
    vendor.begins.set()
    vendor.ends.set()
    async with Council([vendor, vendor], config=PATIENT, listeners=[lambda event: seen.append(event.type)]) as council:
        await council.arun("Which city?", context=LONG)
        before = list(seen)
        streamed = [event.type async for event in council.stream("Which city?", context=LONG)]
    assert "SeatFinished" in before
    assert "TextDelta" not in before
    assert "TextDelta" in streamed


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (GenerateChunk(request_id="resp_1", model="m"), False),
        (GenerateChunk(reset="the seat starts again"), False),
        (GenerateChunk(text="L"), True),
        (GenerateChunk(reasoning="H"), True),
        (GenerateChunk(refusal="N"), True),
        (GenerateChunk(tool_calls=(ToolCallDelta(index=0, id="c", name="f"),)), True),
        (GenerateChunk(usage=Usage(input_tokens=0)), True),
        (GenerateChunk(finish_reason=FinishReason.STOP), True),
    ],
)
def test_an_answer_begins_with_its_first_part_or_its_usage(chunk: GenerateChunk, *, expected: bool) -> None:
    assert answer_has_begun(chunk) is expected


def test_the_prefix_is_counted_up_to_the_mark() -> None:
    turns = [
        Message("system", "s" * 40),
        Message("user", (TextPart(text="u" * 80, cache=True), TextPart(text="v" * 400))),
    ]
    assert shared_prefix._marked_tokens(GenerateRequest(messages=turns)) == 30
    assert shared_prefix._marked_tokens(GenerateRequest(messages=turns[:1])) is None
    picture = Message("user", [ImagePart(data=b"x", media_type="image/png"), TextPart(text="four" * 10, cache=True)])
    assert shared_prefix._marked_tokens(GenerateRequest(messages=[picture])) == 1600 + 10


@pytest.mark.parametrize("name", ["anthropic", "openrouter", "openai"])
async def test_the_first_request_of_each_vendor_is_streamed_and_the_others_follow_it(name: str) -> None:
    with FakeVendor({"anthropic": "anthropic", "openrouter": "openai", "openai": "responses"}[name]).serve() as server:
        options: dict[str, Any] = {"base_url": server.url, "api_key": "not-a-real-key-000"}
        if name == "anthropic":
            provider: Any = AnthropicProvider(default_model="claude-opus-5", **options)
        elif name == "openrouter":
            provider = OpenRouterProvider(default_model="anthropic/claude-opus-5", **options)
        else:
            provider = OpenAIProvider(default_model="gpt-5.6", api="responses", **options)
            provider._is_own = True  # as at the vendor's own address, where alone marks are sent
        async with Council([provider, provider, provider], config=PATIENT) as council:
            result = await council.arun("Which city?", context=LONG)
        bodies = [asked.json for asked in server.calls]
    assert result.status == "completed"
    assert [bool(body.get("stream")) for body in bodies] == [True] + [False] * (len(bodies) - 1)
    assert len(bodies) == 6  # three drafts, two reviews and the answer


@pytest.mark.parametrize(
    ("provider", "model", "tokens"),
    [
        ("anthropic", "claude-opus-5", 512),
        ("anthropic", "claude-opus-4-8", 1024),
        ("anthropic", "claude-opus-4-7", 2048),
        ("anthropic", "claude-haiku-4-5-20251001", 4096),
        ("openai", "gpt-5.6-sol", 1024),
        ("openrouter", "anthropic/claude-opus-5", 512),
        ("openrouter", "google/gemini-3.6-flash", 1024),
        ("openai-compatible", "claude-opus-5", None),
    ],
)
def test_the_shortest_cached_prefix_is_a_fact_of_the_model(provider: str, model: str, tokens: int | None) -> None:
    assert profile_for(provider, model).cache_minimum == tokens
