"""Seats of one provider and model share the prefix of their prompts, and find it in a cache that costs nothing."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council import Council, CouncilConfig
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing.servers import FakeVendor

pytestmark = pytest.mark.anyio
KEY = "not-a-real-key-000"


async def bodies(vendor: FakeVendor, *seats: Any) -> list[dict[str, Any]]:
    async with Council(list(seats), config=CouncilConfig()) as council:
        result = await council.arun("Which city?")
    assert result.text
    return [asked.json for asked in vendor.calls]


def openai(url: str, model: str) -> OpenAIProvider:
    provider = OpenAIProvider(base_url=url, api_key=KEY, default_model=model)
    provider._is_own = True  # as at the vendor's own address, where alone the key is sent
    return provider


async def test_all_requests_of_seats_with_one_model_carry_one_key() -> None:
    with FakeVendor("openai").serve() as vendor:
        provider = openai(vendor.url, "gpt-4o")
        sent = await bodies(vendor, provider, provider)
    drafts = sent[:2]
    assert len(sent) > 2
    assert drafts[0]["messages"] == drafts[1]["messages"]
    assert {body.get("prompt_cache_key") for body in drafts} == {drafts[0]["prompt_cache_key"]}
    assert all(len(body["prompt_cache_key"]) == 32 for body in sent)
    assert len({body["prompt_cache_key"] for body in sent}) == len({body["messages"][0]["content"] for body in sent})


async def test_seats_with_different_models_share_nothing() -> None:
    with FakeVendor("openai").serve() as vendor:
        sent = await bodies(vendor, openai(vendor.url, "gpt-4o"), openai(vendor.url, "gpt-4.1"))
    assert not any("prompt_cache_key" in body for body in sent)


async def test_a_cache_that_charges_for_writing_is_left_to_the_caller() -> None:
    with FakeVendor("anthropic").serve() as vendor:
        provider = AnthropicProvider(base_url=vendor.url, api_key=KEY, default_model="claude-sonnet-5")
        sent = await bodies(vendor, provider, provider)
    assert not any("cache_control" in body for body in sent)
