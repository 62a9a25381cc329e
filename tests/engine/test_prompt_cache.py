"""Calls to one provider and model share the beginning of their prompts, and find it in the vendor's cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_council import Budget, Council, CouncilConfig
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import ModelProfile
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.testing.servers import FakeVendor

pytestmark = pytest.mark.anyio
KEY = "not-a-real-key-000"


# However slow the machine is, both seats draft, and each call is waited for.
PATIENT = Budget(deadline=None, quorum=2)


async def bodies(vendor: FakeVendor, *seats: Any, seed: str | None = None, **options: Any) -> list[dict[str, Any]]:
    async with Council(list(seats), config=CouncilConfig(seed=seed, budget=PATIENT)) as council:
        result = await council.arun("Which city?", **options)
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
    drafts = [body for body in sent if body["messages"] == sent[0]["messages"]]
    assert len(drafts) >= 2  # a call that the machine delayed may be sent again
    assert len(sent) > len(drafts)
    assert all(len(body["prompt_cache_key"]) == 32 for body in sent)
    prefixes = {(body["messages"][0]["content"], body["prompt_cache_key"]) for body in sent}
    assert len(prefixes) == len({prefix for prefix, _ in prefixes}) == len({key for _, key in prefixes})


async def test_calls_of_different_models_share_no_key() -> None:
    with FakeVendor("openai").serve() as vendor:
        sent = await bodies(vendor, openai(vendor.url, "gpt-4o"), openai(vendor.url, "gpt-4.1"))
    models = {body["prompt_cache_key"]: body["model"] for body in sent}
    assert set(models.values()) == {"gpt-4o", "gpt-4.1"}


def shared_text(blocks: list[dict[str, Any]], key: str) -> str:
    """Return the text of a turn up to its only mark, and check that text follows it."""
    assert [key in block for block in blocks] == [True, False]
    assert blocks[1]["text"].startswith("\n\n")
    return str(blocks[0]["text"])


def task_of(messages: list[dict[str, Any]]) -> Any:
    return next(message["content"] for message in messages if message["role"] == "user")


@pytest.fixture
def context(tmp_path: Path) -> dict[str, Any]:
    notes = tmp_path / "notes.txt"
    notes.write_text("Lima is dry.", encoding="utf-8")
    return {"context": "It rains.", "files": [notes]}


@pytest.mark.parametrize("vendor", ["anthropic", "openrouter"])
async def test_all_calls_to_one_model_mark_the_same_beginning(vendor: str, context: dict[str, Any]) -> None:
    with FakeVendor("anthropic" if vendor == "anthropic" else "openai").serve() as server:
        if vendor == "anthropic":
            provider: Any = AnthropicProvider(base_url=server.url, api_key=KEY, default_model="claude-sonnet-5")
        else:
            provider = OpenRouterProvider(base_url=server.url, api_key=KEY, default_model="anthropic/claude-sonnet-5")
        sent = await bodies(server, provider, provider, **context)
    beginnings = {shared_text(task_of(body["messages"]), "cache_control") for body in sent}
    assert len(sent) == 5  # two drafts, two reviews and the answer
    assert len(beginnings) == 1
    beginning = beginnings.pop()
    assert all(words in beginning for words in ("Which city?", "It rains.", "Lima is dry."))
    assert len({str(body.get("system")) for body in sent}) == 1
    assert not any("cache_control" in body for body in sent)  # what follows is not shared, and writing it costs


@pytest.mark.parametrize(("model", "api"), [("gpt-5.6", "responses"), ("gpt-6-sol", "chat")])
async def test_a_model_that_finds_prefixes_at_marks_alone_gets_them_and_a_key(
    model: str, api: str, context: dict[str, Any]
) -> None:
    with FakeVendor("responses" if api == "responses" else "openai").serve() as vendor:
        provider = OpenAIProvider(base_url=vendor.url, api_key=KEY, default_model=model, api=api)
        provider._is_own = True
        sent = await bodies(vendor, provider, provider, **context)
    turns = [task_of(body.get("input") or body["messages"]) for body in sent]
    assert len({shared_text(turn, "prompt_cache_breakpoint") for turn in turns}) == 1
    assert len({body["prompt_cache_key"] for body in sent}) == 1


async def test_a_marked_draft_has_the_text_of_an_unmarked_one(context: dict[str, Any]) -> None:
    texts = []
    for model in ("claude-sonnet-5", "not-a-known-model"):
        with FakeVendor("anthropic").serve() as vendor:
            provider = AnthropicProvider(base_url=vendor.url, api_key=KEY, default_model="claude-sonnet-5")
            if model != "claude-sonnet-5":
                provider._profile = ModelProfile()
            sent = await bodies(vendor, provider, provider, seed="s", **context)
        asked = {text_of(task_of(body["messages"])) for body in sent}
        texts.append({text for text in asked if "Draft" not in text})
    assert len(texts[0]) == 1  # both drafts are asked for alike
    assert texts[0] == texts[1]


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


async def test_gemini_gets_no_mark_and_finds_a_common_prefix(context: dict[str, Any]) -> None:
    with FakeVendor("gemini").serve() as vendor:
        provider = GeminiProvider(base_url=vendor.url, api_key=KEY, default_model="gemini-3.6-flash")
        sent = await bodies(vendor, provider, provider, **context)
    texts = ["".join(part["text"] for part in body["contents"][0]["parts"]) for body in sent]
    end = texts[0].index("Lima is dry.")
    assert texts[0].index("Which city?") < end
    assert len({text[:end] for text in texts}) == 1
    assert len({str(body["systemInstruction"]) for body in sent}) == 1


async def test_a_call_that_shares_with_no_other_is_not_marked() -> None:
    """Its prefix would be written, and never read."""
    with FakeVendor("anthropic").serve() as vendor, FakeVendor("openai").serve() as other:
        claude = AnthropicProvider(base_url=vendor.url, api_key=KEY, default_model="claude-sonnet-5")
        seats = [claude, openai(other.url, "gpt-4o")]
        async with Council(seats, config=CouncilConfig(chair="openai")) as council:
            await council.arun("Which city?", "router")
    assert len(vendor.calls) == 1
    assert "cache_control" not in json.dumps(vendor.calls[0].json)
