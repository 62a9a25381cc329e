"""The Gemini provider over a real socket: URL, key, fitting by model family, streams, errors, doctor."""

import json

import pytest

from llm_council.errors import (
    AuthenticationFailed,
    ContentFiltered,
    InvalidOption,
    MissingCredentials,
    RateLimited,
    TruncatedReply,
)
from llm_council.models import Message, ReasoningConfig, StructuredOutput, Tool, join
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.providers.gemini import GeminiProvider

KEY = "AIza-test-key-0123456789012345"
SHAPED = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})


def reply(*parts, finish="STOP", **facts):
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish, "index": 0}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 7, "totalTokenCount": 14}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-x", "responseId": "r-1", **facts}


@pytest.fixture
def at(vendor, monkeypatch):
    monkeypatch.delenv("GOOGLE_GEMINI_BASE_URL", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    vendor.script = lambda exchange: exchange.say(reply({"text": "42"}))
    root = vendor.url.removesuffix("/v1")
    return lambda **options: GeminiProvider(**{"base_url": root, **options})


def test_default_address_model_and_missing_key(monkeypatch):
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_GEMINI_BASE_URL", raising=False)
    provider = GeminiProvider()
    assert (provider.base_url, provider.api_version) == ("https://generativelanguage.googleapis.com", "v1beta")
    assert provider.default_model
    with pytest.raises(MissingCredentials, match="GEMINI_API_KEY"):
        provider.check()
    with pytest.raises(InvalidOption, match="api_version"):
        GeminiProvider(api_version="v1/../v2")


pytestmark = pytest.mark.anyio


async def test_the_key_is_sent_in_a_header_and_not_in_the_url(at, vendor, ask):
    async with at() as provider:
        response = await call(provider, ask)
        assert (response.text, response.model, response.request_id) == ("42", "gemini-x", "r-1")
        assert (response.usage.input_tokens, response.usage.output_tokens) == (5, 9)
    assert vendor.headers["x-goog-api-key"] == KEY
    assert vendor.headers["Authorization"] is None
    assert vendor.seen[-1].path == f"/v1beta/models/{provider.default_model}:generateContent"
    assert vendor.body == {"contents": [{"role": "user", "parts": [{"text": ask.prompt}]}]}


async def test_an_authorization_header_of_the_caller_replaces_the_key(at, vendor, ask):
    async with at(headers={"Authorization": "Bearer token-0123456789"}) as provider:
        await call(provider, ask)
    assert vendor.headers["Authorization"] == "Bearer token-0123456789"
    assert vendor.headers["x-goog-api-key"] is None


@pytest.mark.parametrize(
    ("version", "model", "path"),
    [
        ("v1", "gemini-3.5-flash", "/v1/models/gemini-3.5-flash:generateContent"),
        ("", "models/gemini-3.5-flash", "/models/gemini-3.5-flash:generateContent"),
        ("v1beta", "tunedModels/mine", "/v1beta/tunedModels/mine:generateContent"),
        ("v1beta", "a?key=b#c d", "/v1beta/models/a%3Fkey%3Db%23c%20d:generateContent"),
    ],
)
async def test_version_and_model_are_part_of_the_url(at, vendor, version, model, path):
    async with at(api_version=version) as provider:
        await call(provider, GenerateRequest(prompt="x", model=model))
    assert vendor.seen[-1].path == path


@pytest.mark.parametrize(
    ("model", "asked", "sent", "dropped"),
    [
        ("gemini-3.6-flash", {"effort": "minimal"}, {"thinkingLevel": "MINIMAL", "includeThoughts": True}, False),
        ("models/gemini-3-pro-preview", {"effort": "medium"}, {"thinkingLevel": "LOW", "includeThoughts": True}, True),
        ("gemini-3.1-pro-preview", {"effort": "medium"}, {"thinkingLevel": "MEDIUM", "includeThoughts": True}, False),
        ("gemini-3.6-flash", {"effort": "none"}, None, True),
        ("gemini-3.6-flash", {"budget_tokens": 100}, None, True),
        ("gemini-2.5-flash", {"effort": "none"}, {"thinkingBudget": 0}, False),
        ("gemini-2.5-flash", {"budget_tokens": 100}, {"thinkingBudget": 100, "includeThoughts": True}, False),
        ("gemini-2.5-pro", {"effort": "none"}, None, True),
        ("gemini-2.5-pro", {"effort": "xhigh"}, {"thinkingBudget": 24576, "includeThoughts": True}, True),
        ("gemini-2.0-flash", {"effort": "high"}, None, True),
        ("gemini-flash-latest", {"effort": "high"}, {"thinkingLevel": "HIGH", "includeThoughts": True}, False),
    ],
)
async def test_reasoning_is_fitted_to_the_model_family(at, vendor, model, asked, sent, dropped):
    async with at() as provider:
        request = GenerateRequest(prompt="x", model=model, reasoning=ReasoningConfig(**asked))
        response = await call(provider, request)
    assert vendor.body.get("generationConfig", {}).get("thinkingConfig") == sent
    assert [one.field for one in response.adjustments] == (["reasoning"] if dropped else [])


async def test_fields_above_the_vendors_limits_are_lowered(at, vendor):
    async with at() as provider:
        request = GenerateRequest(prompt="x", temperature=2.5, stop=list("abcdef"), structured_output=SHAPED)
        response = await call(provider, request)
    config = vendor.body["generationConfig"]
    assert (config["temperature"], config["stopSequences"]) == (2.0, list("abcde"))
    assert config["responseJsonSchema"] == SHAPED.json_schema
    changed = {(one.field, one.action) for one in response.adjustments}
    assert changed == {("temperature", "lowered"), ("stop", "lowered"), ("structured_output", "ignored")}


async def test_a_tool_call_is_sent_back_with_its_signature(at, vendor):
    call_part = {"functionCall": {"name": "clock", "args": {"zone": "UTC"}}, "thoughtSignature": "c2ln"}
    vendor.script = lambda exchange: exchange.say(reply(call_part))
    ask = Message("user", "time?")
    async with at() as provider:
        response = await call(provider, GenerateRequest(messages=[ask], tools=[Tool(name="clock")]))
        assert response.finish_reason == "tool_calls"
        (wished,) = response.tool_calls
        result = Message("tool", "12:00", tool_call_id=wished.id)
        await call(provider, GenerateRequest(messages=[ask, response.to_message(), result], tools=[Tool(name="clock")]))
    model, user = vendor.body["contents"][1:]
    assert model["parts"] == [{**call_part, "functionCall": {**call_part["functionCall"], "id": wished.id}}]
    answer = {"id": wished.id, "name": "clock", "response": {"result": "12:00"}}
    assert user == {"role": "user", "parts": [{"functionResponse": answer}]}


async def test_a_blocked_prompt_raises_content_filtered(at, vendor, ask):
    vendor.script = lambda exchange: exchange.say({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})
    async with at() as provider:
        with pytest.raises(ContentFiltered, match="PROHIBITED_CONTENT"):
            await call(provider, ask)


async def test_a_malformed_function_call_raises_with_the_vendors_message(at, vendor, ask):
    broken = reply(finish="MALFORMED_FUNCTION_CALL")
    broken["candidates"][0]["finishMessage"] = "Malformed function call: print(x)"
    vendor.script = lambda exchange: exchange.say(broken)
    async with at() as provider:
        with pytest.raises(
            TruncatedReply, match=r"\(MALFORMED_FUNCTION_CALL\): Malformed function call: print"
        ) as caught:
            await call(provider, ask)
    assert caught.value.retryable


async def test_thoughts_that_use_up_max_tokens_raise(at, vendor, ask):
    body = {"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]}
    vendor.script = lambda exchange: exchange.say(body)
    async with at() as provider:
        with pytest.raises(TruncatedReply, match="max_tokens") as caught:
            await call(provider, ask)
    assert not caught.value.retryable


def piece(exchange, payload):
    exchange.send(b"data: " + json.dumps(payload).encode() + b"\r\n\r\n")


async def test_a_stream_ends_with_its_body_and_equals_the_whole_answer(at, vendor, ask):
    def script(exchange):
        exchange.begin_stream()
        piece(exchange, {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}]}}]})
        piece(exchange, {"candidates": [{"content": {"parts": [{"text": "4"}]}}]})
        piece(exchange, reply({"text": "2"}))
        exchange.wfile.write(b"0\r\n\r\n")

    vendor.script = script
    async with at() as provider:
        chunks = [chunk async for chunk in stream(provider, ask)]
    response = join(chunks)
    assert (response.text, response.reasoning, response.finish_reason) == ("42", "hm", "stop")
    assert response.usage.reasoning_tokens == 7
    assert vendor.seen[-1].path.endswith(":streamGenerateContent?alt=sse")
    assert "stream" not in vendor.body


async def test_a_cut_stream_is_truncated(at, vendor, ask):
    def script(exchange):
        exchange.begin_stream()
        piece(exchange, {"candidates": [{"content": {"parts": [{"text": "4"}]}}]})
        exchange.wfile.write(b"0\r\n\r\n")

    vendor.script = script
    async with at() as provider:
        with pytest.raises(TruncatedReply) as caught:
            [chunk async for chunk in stream(provider, ask)]
    assert (caught.value.partial, caught.value.retryable) == ("4", True)


async def test_errors_have_the_delay_in_the_body(at, vendor, ask):
    details = [{"violations": [{"quotaId": "PerMinute"}]}, {"retryDelay": "34.4s"}]
    body = {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "details": details}}
    vendor.script = lambda exchange: exchange.say(body, 429)
    async with at() as provider:
        for ask_by in (call, lambda *both: anext(aiter(stream(*both)))):
            with pytest.raises(RateLimited) as caught:
                await ask_by(provider, ask)
            assert (caught.value.retry_after, caught.value.provider) == (34.4, "gemini")


async def test_doctor_lists_the_models_that_generate_text(at, vendor):
    rows = [
        {"name": "models/gemini-3.6-flash", "supportedGenerationMethods": ["generateContent"]},
        {"name": "models/gemini-embedding-001", "supportedGenerationMethods": ["embedContent"]},
    ]
    vendor.script = lambda exchange: exchange.say({"models": rows})
    async with at() as provider:
        result = await examine(provider)
    assert (result.ok, result.details["models"]) == (True, ["gemini-3.6-flash"])
    assert vendor.seen[-1].path == "/v1beta/models?pageSize=1000"
    assert vendor.headers["x-goog-api-key"] == KEY


async def test_doctor_reports_a_wrong_key(at, vendor, ask):
    details = [{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
    message = "API key not valid. Please pass a valid API key."
    body = {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT", "details": details}}
    vendor.script = lambda exchange: exchange.say(body, 400)
    async with at() as provider:
        result = await examine(provider)
        assert (result.ok, message in result.message) == (False, True)
        with pytest.raises(AuthenticationFailed) as caught:
            await call(provider, ask)
    assert not caught.value.retryable
