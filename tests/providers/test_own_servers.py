"""Servers of one's own: vLLM, LM Studio, Ollama's compatible address. No key, the model that is there, their words."""

import socket

import pytest

from llm_council import get_provider
from llm_council.errors import ConnectFailed, InvalidOption
from llm_council.models import ReasoningConfig, StructuredOutput, Tool
from llm_council.providers.base import GenerateRequest, call, examine

pytestmark = pytest.mark.anyio

NAMES = ["vllm", "lmstudio", "ollama-openai"]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("VLLM", "LMSTUDIO", "OLLAMA"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
        monkeypatch.delenv(f"{name}_BASE_URL", raising=False)


@pytest.mark.parametrize(
    ("name", "variable", "port"),
    [("vllm", "VLLM", 8000), ("lmstudio", "LMSTUDIO", 1234), ("ollama-openai", "OLLAMA", 11434)],
)
def test_where_they_are(name, variable, port, monkeypatch):
    provider = get_provider(name)
    provider.check()  # no key is needed
    assert provider.base_url == f"http://localhost:{port}/v1"
    monkeypatch.setenv(f"{variable}_BASE_URL", "https://gpu.example.com/v1")
    assert get_provider(name).base_url == "https://gpu.example.com/v1"


async def test_a_server_that_does_not_run_is_to_be_started_or_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("VLLM_BASE_URL", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
    async with get_provider("vllm", default_model="m") as provider:
        with pytest.raises(ConnectFailed, match=r"\(start it, or name its address in VLLM_BASE_URL\)$"):
            await call(provider, GenerateRequest(prompt="Where?"))
        assert "VLLM_BASE_URL" in (await examine(provider)).message


@pytest.mark.parametrize("name", NAMES)
async def test_the_model_that_is_there_is_the_default_and_asked_for_once(name, vendor, ask):
    async with get_provider(name, base_url=vendor.url) as provider:
        for _ in range(2):
            assert (await call(provider, ask)).text == "42"
            assert vendor.body["model"] == "m"
    assert [exchange.command for exchange in vendor.seen] == ["GET", "POST", "POST"]
    assert vendor.headers["Authorization"] is None


@pytest.mark.parametrize("name", NAMES)
async def test_no_model_is_there(name, vendor, ask):
    vendor.script = lambda exchange: exchange.say({"data": []})
    async with get_provider(name, base_url=vendor.url) as provider:
        with pytest.raises(InvalidOption, match="has no default model"):
            await call(provider, ask)
        result = await examine(provider)
        assert (result.ok, "has no model" in result.message) == (False, True)


@pytest.mark.parametrize("name", NAMES)
async def test_the_doctor_misses_a_model_that_is_not_served(name, vendor):
    async with get_provider(name, base_url=vendor.url, default_model="mm") as provider:
        result = await examine(provider)
        assert not result.ok
        assert "has no model 'mm'" in result.message
    async with get_provider(name, base_url=vendor.url, default_model="n") as provider:
        result = await examine(provider)
        assert result.ok
        assert result.details["models"] == ["m", "n"]
    async with get_provider(name, base_url="http://127.0.0.1:1/v1") as provider:
        assert not (await examine(provider)).ok


async def test_an_untagged_name_of_ollama_is_the_latest(vendor):
    vendor.script = lambda exchange: exchange.say({"data": [{"id": "llama3.2:latest"}]})
    async with get_provider("ollama-openai", base_url=vendor.url, default_model="llama3.2") as provider:
        assert (await examine(provider)).ok


async def test_vllm_tells_how_long_its_models_contexts_are(vendor):
    vendor.script = lambda exchange: exchange.say({"data": [{"id": "m", "max_model_len": 4096}]})
    async with get_provider("vllm", base_url=vendor.url) as provider:
        assert (await examine(provider)).details["max_model_len"] == {"m": 4096}


async def test_a_key_goes_where_one_was_set(vendor, monkeypatch, ask):
    monkeypatch.setenv("VLLM_API_KEY", "house-key-1234")
    async with get_provider("vllm", base_url=vendor.url, default_model="m") as provider:
        await call(provider, ask)
    assert vendor.headers["Authorization"] == "Bearer house-key-1234"


async def test_vllm_thinks_by_its_own_words(vendor):
    request = GenerateRequest(prompt="x", model="m", reasoning=ReasoningConfig(effort="low", budget_tokens=99))
    async with get_provider("vllm", base_url=vendor.url) as provider:
        response = await call(provider, request)
        assert vendor.body["reasoning_effort"] == "low"
        assert vendor.body["thinking_token_budget"] == 99
        assert response.adjustments == ()
        shaped = GenerateRequest(
            prompt="x", model="m", structured_output=StructuredOutput(json_schema={"type": "array"})
        )
        await call(provider, shaped)
        assert vendor.body["response_format"]["json_schema"]["schema"] == {"type": "array"}


async def test_vllm_is_not_sent_what_it_ignores_silently(vendor):
    for options in ({"extra": {"guided_json": {}}}, {"extra": {"guided_choice": ["a"], "top_k": 1}}):
        async with get_provider("vllm", base_url=vendor.url) as provider:
            with pytest.raises(InvalidOption, match=r"guided_(json|choice).*structured_output"):
                await call(provider, GenerateRequest(prompt="x", model="m", **options))
    async with get_provider("vllm", base_url=vendor.url, extra_body={"guided_regex": "a"}) as provider:
        with pytest.raises(InvalidOption, match="guided_regex"):
            await call(provider, GenerateRequest(prompt="x", model="m", stream=True))
    assert vendor.seen == []


async def test_what_a_server_does_not_know_is_not_sent(vendor):
    asked = GenerateRequest(
        prompt="x", model="m", reasoning=ReasoningConfig(effort="low"), tools=[Tool(name="f")], tool_choice="f"
    )
    async with get_provider("lmstudio", base_url=vendor.url) as provider:
        response = await call(provider, asked)
        assert vendor.body["tool_choice"] == "required"
        assert vendor.body.keys() == {"model", "messages", "tools", "tool_choice", "stream"}
        assert {change.field for change in response.adjustments} == {"reasoning", "tool_choice"}
    async with get_provider("ollama-openai", base_url=vendor.url) as provider:
        response = await call(provider, asked)
        assert vendor.body["reasoning_effort"] == "low"
        assert "tool_choice" not in vendor.body
        assert {change.field for change in response.adjustments} == {"tool_choice"}


async def test_a_reply_without_content_but_with_calls_is_an_answer(vendor):
    call_ = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choices = [{"message": {"role": "assistant", "tool_calls": [call_]}, "finish_reason": "tool_calls"}]
    vendor.script = lambda exchange: exchange.answer(choices=choices)
    async with get_provider("lmstudio", base_url=vendor.url) as provider:
        response = await call(provider, GenerateRequest(prompt="x", model="m", tools=[Tool(name="f")]))
    assert (response.tool_calls[0].name, response.finish_reason) == ("f", "tool_calls")
