"""What ``prompt_cache`` sends, so that seats that share a prefix pay for it once; and when tools need another API."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council.models import GenerateRequest, Message, ReasoningConfig, TextPart, Tool
from llm_council.providers._anthropic.request import MessagesOptions, encode_request
from llm_council.providers.gateways import AzureOpenAIProvider  # type: ignore[attr-defined]
from llm_council.providers.openai import OpenAIProvider

TOOLS = (Tool(name="f"),)
KEY = "not-a-real-key-000"


def asked(tail: str, *, system: str | None = "Judge.", **options: Any) -> GenerateRequest:
    turns = [Message("system", system)] if system else []
    return GenerateRequest(
        messages=[*turns, Message("user", tail)], prompt_cache=True, **{"model": "gpt-4o", **options}
    )


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5.4"])
def test_openai_gets_one_key_for_one_prefix(model: str) -> None:
    provider = OpenAIProvider(api_key=KEY)

    def key(*args: Any, **options: Any) -> Any:
        return provider.build_payload(asked(*args, **{"model": model, **options})).get("prompt_cache_key")

    assert key("one") == key("two")
    assert len(key("one")) == 32
    assert key("one") != key("one", system="Write.")
    assert key("one") != key("one", tools=TOOLS)
    assert key("one", system=None) != key("two", system=None)  # the first turn is the prefix
    assert key("one", extra={"prompt_cache_key": "mine"}) == "mine"
    assert "prompt_cache_key" not in provider.build_payload(GenerateRequest(model=model, prompt="x"))


def test_another_address_gets_no_key() -> None:
    provider = OpenAIProvider(api_key=KEY, base_url="https://gateway.example/v1")
    assert "prompt_cache_key" not in provider.build_payload(asked("one"))


def test_anthropic_gets_a_mark_at_the_end_of_the_instructions_and_one_at_the_top() -> None:
    one, two = encode_request(asked("one")), encode_request(asked("two"))
    mark = {"type": "ephemeral"}
    assert one["system"] == two["system"] == [{"type": "text", "text": "Judge.", "cache_control": mark}]
    assert one["cache_control"] == mark
    hour = encode_request(GenerateRequest(messages=asked("one").messages, prompt_cache="1h"))
    assert hour["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert encode_request(asked("one"), MessagesOptions(cache_control=False))["system"] == "Judge."


def test_the_callers_own_mark_stays_the_only_one_in_the_instructions() -> None:
    parts = (TextPart(text="Judge.", cache=True), TextPart(text="Today is Monday."))
    system = encode_request(
        GenerateRequest(messages=[Message("system", parts), Message("user", "x")], prompt_cache=True)
    )
    assert [block.get("cache_control") for block in system["system"]] == [{"type": "ephemeral"}, None]


@pytest.mark.parametrize(
    ("model", "effort", "tools", "path"),
    [
        ("gpt-5.4", "low", TOOLS, "/responses"),
        ("gpt-5.4", "none", TOOLS, "/chat/completions"),
        ("gpt-5.4", "low", (), "/chat/completions"),
        ("gpt-6", "high", TOOLS, "/responses"),
        ("gpt-5.1", "low", TOOLS, "/chat/completions"),
        ("gpt-4o", None, TOOLS, "/chat/completions"),
    ],
)
def test_tools_with_an_effort_go_to_the_responses_api_where_chat_refuses_them(
    model: str, effort: str | None, tools: tuple[Tool, ...], path: str
) -> None:
    reasoning = None if effort is None else ReasoningConfig(effort=effort)
    request = GenerateRequest(model=model, prompt="x", tools=tools, reasoning=reasoning)
    azure = AzureOpenAIProvider(api_key=KEY, base_url="https://r.openai.azure.com")
    gateway = OpenAIProvider(api_key=KEY, base_url="https://gateway.example/v1")
    for provider in (azure, gateway):
        sent, payload = provider._encode(request, stream=False)
        assert sent == path
        assert ("input" in payload) == (path == "/responses")
    chosen = AzureOpenAIProvider(api_key=KEY, base_url="https://r.openai.azure.com", api="chat")
    assert chosen._encode(request, stream=False)[0] == "/chat/completions"
