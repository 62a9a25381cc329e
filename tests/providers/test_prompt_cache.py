"""What ``prompt_cache`` sends, so that seats that share a prefix pay for it once; and when tools need another API."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council.models import GenerateRequest, Message, ReasoningConfig, ReasoningPart, TextPart, Tool, ToolCall
from llm_council.providers._anthropic.request import MessagesOptions, encode_request
from llm_council.providers._google.sign_in import SignIn
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.gateways import AzureOpenAIProvider  # type: ignore[attr-defined]
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.vertex import ClaudeOnVertex, Place

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


def test_a_cloud_gets_a_mark_at_the_last_block_instead_of_one_at_the_top() -> None:
    turns = [Message("system", "Judge."), Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    request = GenerateRequest(messages=turns, prompt_cache="1h")
    payload = encode_request(request, MessagesOptions(automatic_cache=False))
    assert "cache_control" not in payload
    assert payload["messages"][-1]["content"] == [
        {"type": "text", "text": "c", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    assert "cache_control" not in str(payload["messages"][:-1])
    assert payload["system"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}


def test_thinking_at_the_end_takes_no_mark() -> None:
    thought = ReasoningPart(text="hm", signature="s", vendor="anthropic")
    call = ToolCall(id="t", name="f", arguments="{}")
    turns = [
        Message("user", "a"),
        Message("assistant", (thought,), tool_calls=[call]),
        Message("tool", "r", tool_call_id="t"),
    ]
    whole = encode_request(GenerateRequest(messages=turns, prompt_cache=True), MessagesOptions(automatic_cache=False))
    assert whole["messages"][-1]["content"][-1]["type"] == "tool_result"
    assert "cache_control" in whole["messages"][-1]["content"][-1]
    cut = GenerateRequest(messages=[Message("user", "a"), Message("assistant", (thought,))], prompt_cache=True)
    payload = encode_request(cut, MessagesOptions(automatic_cache=False))
    assert [str(message).count("cache_control") for message in payload["messages"]] == [1, 0]


def test_claude_on_vertex_and_bedrock_has_no_field_at_the_top() -> None:
    place = Place("p", "global", SignIn())
    vertex = ClaudeOnVertex(place, api_version="v1", version="vertex-2023-10-16")
    assert "cache_control" not in vertex._encode(asked("one", model="claude-sonnet-5"), stream=False)[1]
    own = AnthropicProvider(api_key=KEY)
    assert "cache_control" in own._encode(asked("one", model="claude-sonnet-5"), stream=False)[1]


MARK = {"prompt_cache_breakpoint": {"mode": "explicit"}}


def test_openai_models_that_find_prefixes_at_marks_get_one_after_the_instructions() -> None:
    provider = OpenAIProvider(api_key=KEY)
    sent = provider.build_payload(asked("one", model="gpt-5.6"))
    assert "instructions" not in sent  # that field takes no mark
    assert sent["input"] == [
        {"role": "developer", "content": [{"type": "input_text", "text": "Judge.", **MARK}]},
        {"role": "user", "content": "one"},
    ]
    chat = OpenAIProvider(api_key=KEY, api="chat").build_payload(asked("one", model="gpt-6-luna"))
    assert chat["messages"] == [
        {"role": "developer", "content": [{"type": "text", "text": "Judge.", **MARK}]},
        {"role": "user", "content": "one"},
    ]
    older = provider.build_payload(asked("one", model="gpt-5.5"))
    assert older["instructions"] == "Judge."
    assert "breakpoint" not in str(older)


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_callers_marks_are_the_only_ones_and_a_model_s_turn_has_none(api: str) -> None:
    parts = (TextPart(text="a", cache=True), TextPart(text="b"))
    turns = [Message("system", "Judge."), Message("user", parts), Message("assistant", parts), Message("user", "c")]
    request = GenerateRequest(model="gpt-6", messages=turns, prompt_cache=True)
    payload = OpenAIProvider(api_key=KEY, api=api).build_payload(request)
    assert str(payload).count("prompt_cache_breakpoint") == 1
    turns_sent = payload["messages" if api == "chat" else "input"]
    marked = next(turn for turn in turns_sent if turn["role"] == "user")
    assert [MARK.items() <= block.items() for block in marked["content"]] == [True, False]
    assert next(turn for turn in turns_sent if turn["role"] == "assistant")["content"] == "ab"


def test_azure_takes_the_key() -> None:
    azure = AzureOpenAIProvider(api_key=KEY, base_url="https://r.openai.azure.com")
    for model in ("gpt-4o", "gpt-5.6"):
        first, second = (azure.build_payload(asked(tail, model=model)) for tail in ("one", "two"))
        assert first["prompt_cache_key"] == second["prompt_cache_key"]
        assert "breakpoint" not in str(first)
    chosen = AzureOpenAIProvider(api_key=KEY, base_url="https://r.openai.azure.com", api="responses")
    assert len(chosen.build_payload(asked("one"))["prompt_cache_key"]) == 32


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
    plain = OpenAICompatibleProvider(api_key=KEY, base_url="https://r.services.ai.azure.com/openai/v1")
    own = OpenAICompatibleProvider(api_key=KEY, base_url="https://api.openai.com/v1")
    for provider in (azure, gateway, plain, own):
        sent, payload = provider._encode(request, stream=False)
        assert sent == path
        assert ("input" in payload) == (path == "/responses")
    chosen = AzureOpenAIProvider(api_key=KEY, base_url="https://r.openai.azure.com", api="chat")
    assert chosen._encode(request, stream=False)[0] == "/chat/completions"
    for url in ("https://gateway.example/v1", "https://openai.azure.com.example/v1"):
        elsewhere = OpenAICompatibleProvider(api_key=KEY, base_url=url)
        assert elsewhere._encode(request, stream=False)[0] == "/chat/completions"
