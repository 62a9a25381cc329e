"""OpenRouter: routing, fallbacks, titles, money, comments in streams, and a doctor that asks about the key."""

import json
import os
from pathlib import Path

import jsonschema_rs
import pytest

from llm_council.errors import OutOfCredit, ServerFailed
from llm_council.models import CostSource, Message, ReasoningConfig, StructuredOutput, join
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.providers.openrouter import OpenRouterProvider

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[3] / "shared")
SCHEMA = SHARED / "oracles" / "specs" / "derived" / "openrouter.chat.request.schema.json"
SHAPED = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})

pytestmark = pytest.mark.anyio


@pytest.fixture
def at(vendor, monkeypatch):
    monkeypatch.delenv("OPENROUTER_BASE_URL", raising=False)
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or-test-123456789012")
    return lambda **options: OpenRouterProvider(base_url=vendor.url, **options)


async def test_it_says_no_more_than_asked(at, vendor, ask):
    async with at() as provider:
        await call(provider, ask)
    assert vendor.body.keys() == {"model", "messages", "stream"}
    assert vendor.headers["HTTP-Referer"] is None
    assert vendor.headers["X-OpenRouter-Title"] is None


async def test_routing_fallbacks_and_titles(at, vendor, ask):
    routing = {"order": ["anthropic"], "allow_fallbacks": False}
    options = {"models": ["a/b", "c/d"], "routing": routing, "referer": "https://x.example", "title": "Council"}
    async with at(**options, headers={"X-More": "1"}) as provider:
        await call(provider, ask)
        assert (vendor.body["models"], vendor.body["provider"]) == (["a/b", "c/d"], routing)
        assert vendor.headers["HTTP-Referer"] == "https://x.example"
        assert vendor.headers["X-OpenRouter-Title"] == "Council"
        assert vendor.headers["X-More"] == "1"
        extra = {"provider": {"sort": "price"}, "models": ["e/f"], "plugins": []}
        await call(provider, GenerateRequest(prompt="x", extra=extra, structured_output=SHAPED))
        assert vendor.body["models"] == ["e/f"]
        assert vendor.body["provider"] == {**routing, "require_parameters": True, "sort": "price"}
        assert vendor.body["plugins"] == []


async def test_a_schema_is_never_ignored_silently(at, vendor):
    async with at(routing={"require_parameters": False}) as provider:
        await call(provider, GenerateRequest(prompt="x", structured_output=SHAPED))
        assert vendor.body["provider"] == {"require_parameters": False}
    async with at() as provider:
        await call(provider, GenerateRequest(prompt="x", structured_output=SHAPED))
        assert vendor.body["provider"] == {"require_parameters": True}


@pytest.mark.parametrize(
    ("model", "effort", "kept"),
    [
        ("anthropic/claude-sonnet-5", None, {"stop"}),
        ("anthropic/claude-opus-4.8", None, {"stop"}),
        ("anthropic/claude-sonnet-4.5:beta", None, {"temperature", "top_p", "stop"}),
        ("anthropic/claude-sonnet-4.5", "low", {"stop"}),
        ("anthropic/claude-3.5-haiku", None, {"temperature", "top_p", "stop"}),
        ("openai/gpt-5-mini", None, {"stop"}),
        ("openai/o3", None, set()),
        ("openai/gpt-5.4", None, {"temperature", "top_p", "stop"}),
        ("openai/gpt-5.4", "high", {"stop"}),
        ("openai/gpt-4o:free", None, {"temperature", "top_p", "stop"}),
        ("x-ai/grok-4.5", None, {"temperature", "top_p"}),
        ("google/gemini-3.6-flash", None, {"temperature", "top_p", "stop"}),
        ("qwen/qwen3-max", "low", {"temperature", "top_p", "stop"}),
    ],
)
async def test_a_parameter_that_the_model_refuses_leaves_no_endpoint_and_is_left_out(at, vendor, model, effort, kept):
    reasoning = None if effort is None else ReasoningConfig(effort=effort)
    asked = {"temperature": 0.5, "top_p": 0.9, "stop": ["END"]}
    request = GenerateRequest(model=model, prompt="x", structured_output=SHAPED, reasoning=reasoning, **asked)
    vendor.script = lambda exchange: exchange.answer('{"a": "x"}')
    async with at() as provider:
        response = await call(provider, request)
    assert vendor.body["provider"] == {"require_parameters": True}
    assert asked.keys() & vendor.body.keys() == kept
    assert {change.field for change in response.adjustments} & asked.keys() == asked.keys() - kept


async def test_a_schema_without_an_endpoint_is_asked_for_in_the_prompt(at, vendor):
    refused = {"error": {"code": 404, "message": "No endpoints found that can handle the requested parameters."}}

    def script(exchange):
        if "response_format" in exchange.body:
            exchange.say(refused, 404)
        else:
            exchange.answer('{"a": "x"}')

    vendor.script = script
    async with at() as provider:
        response = await call(provider, GenerateRequest(model="some/model", prompt="x", structured_output=SHAPED))
    assert response.text == '{"a": "x"}'
    assert [(change.field, change.action) for change in response.adjustments] == [("structured_output", "emulated")]
    assert "provider" not in vendor.body
    assert "JSON Schema" in vendor.body["messages"][-1]["content"]


async def test_a_prefill_is_refused_as_by_the_models_vendor(at, vendor):
    turns = [Message("user", "Which city?"), Message("assistant", "The city is (")]
    async with at() as provider:
        await call(provider, GenerateRequest(model="anthropic/claude-sonnet-4.6", messages=turns))
        assert len(vendor.body["messages"]) == 3
        await call(provider, GenerateRequest(model="anthropic/claude-sonnet-4.5", messages=turns))
        assert len(vendor.body["messages"]) == 2


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"effort": "low"}, {"effort": "low"}),
        ({"budget_tokens": 500}, {"max_tokens": 500}),
        ({"effort": "high", "budget_tokens": 500}, {"max_tokens": 500}),
    ],
)
async def test_reasoning_is_an_object(at, vendor, asked, sent):
    async with at() as provider:
        await call(provider, GenerateRequest(prompt="x", reasoning=ReasoningConfig(**asked)))
    assert vendor.body["reasoning"] == sent


async def test_money_is_reported(at, vendor, ask):
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "cost": 0.0025}
    vendor.script = lambda exchange: exchange.answer("42", usage=usage)
    async with at() as provider:
        cost = (await call(provider, ask)).cost
    assert (cost.usd, cost.source, cost.complete) == (0.0025, CostSource.REPORTED, True)


async def test_reasoning_is_sent_back_unchanged(at, vendor, ask):
    details = [{"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0, "format": "anthropic"}]
    message = {"role": "assistant", "content": "42", "reasoning": "hm", "reasoning_details": details}
    choices = [{"message": message, "finish_reason": "stop"}]
    vendor.script = lambda exchange: exchange.answer("42", choices=choices)
    async with at() as provider:
        response = await call(provider, ask)
        again = GenerateRequest(messages=[Message("user", "x"), response.to_message(), Message("user", "sure?")])
        await call(provider, again)
    assert vendor.body["messages"][1]["reasoning_details"] == details


async def test_comments_and_late_usage_in_streams(at, vendor, ask):
    def script(exchange):
        exchange.begin_stream()
        for _ in range(3):
            exchange.send(b": OPENROUTER PROCESSING\n\n")
        exchange.piece("4")
        exchange.piece("2", finish="stop")
        exchange.event(
            {"id": "gen-1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.5}}
        )
        exchange.end_stream()

    vendor.script = script
    async with at() as provider:
        response = join([chunk async for chunk in stream(provider, ask)])
    assert (response.text, response.cost.usd) == ("42", 0.5)
    assert "stream_options" not in vendor.body


async def test_an_error_inside_a_200_is_that_error(at, vendor, ask):
    vendor.script = lambda exchange: exchange.say({"error": {"code": 502, "message": "upstream"}})
    async with at() as provider:
        with pytest.raises(ServerFailed) as caught:
            await call(provider, ask)
    assert (caught.value.status, caught.value.retryable) == (502, True)


async def test_out_of_credit_is_not_tried_again(at, vendor, ask):
    vendor.script = lambda exchange: exchange.say({"error": {"code": 402, "message": "more credits"}}, 402)
    async with at() as provider:
        with pytest.raises(OutOfCredit) as caught:
            await call(provider, ask)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("data", "status", "ok", "words"),
    [
        ({"limit_remaining": 1.5, "usage": 2.0, "is_free_tier": False}, 200, True, "1.5 USD of its limit left"),
        ({"limit_remaining": None, "usage": 2.0}, 200, True, "the key is good"),
        ({"limit_remaining": 0, "usage": 2.0}, 200, False, "limit is used up"),
        (None, 401, False, "HTTP 401"),
    ],
)
async def test_its_doctor_asks_about_the_key(at, vendor, data, status, ok, words):
    def script(exchange):
        assert exchange.path == "/v1/key"
        exchange.say({"data": data} if status == 200 else {"error": {"code": 401, "message": "no"}}, status)

    vendor.script = script
    async with at() as provider:
        result = await examine(provider)
    assert (result.ok, words in result.message) == (ok, True), result


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"no request schema at {SCHEMA}: set LLM_COUNCIL_SHARED")
async def test_payloads_are_what_the_vendor_specifies(at, vendor):
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    request = GenerateRequest(
        messages=[Message("system", "s"), Message("user", "u")], max_tokens=5, temperature=0.3, stop=["x"],
        structured_output=SHAPED, reasoning=ReasoningConfig(effort="low"), prompt_cache="5m",
    )  # fmt: skip
    async with at(models=["a/b"], routing={"order": ["anthropic"]}) as provider:
        await call(provider, request)
        assert [error.message for error in schema.iter_errors(vendor.body)] == []
        async for _ in stream(provider, request):
            pass
        assert [error.message for error in schema.iter_errors(vendor.body)] == []
