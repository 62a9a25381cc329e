"""OpenAI: the address, the key, and what its model families take."""

import json
import os
from pathlib import Path

import jsonschema_rs
import pytest

from llm_council.errors import InvalidOption, MissingCredentials, ModelNotFound, ServerFailed
from llm_council.models import Message, ReasoningConfig, ReasoningPart, StructuredOutput, Tool, Usage, join
from llm_council.providers.base import GenerateRequest, GenerateResponse, call, examine, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing._mirrors import responses

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[3] / "shared")
SCHEMA = SHARED / "oracles" / "specs" / "derived" / "openai.chat.request.schema.json"
OPTIONAL = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture
def openai(vendor, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-123456789012")
    with OpenAIProvider(base_url=vendor.url) as provider:
        yield provider


def test_where_and_what_it_is_by_default(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    provider = OpenAIProvider()
    assert provider.base_url == "https://api.openai.com/v1"
    assert provider.default_model
    with pytest.raises(MissingCredentials, match="OPENAI_API_KEY"):
        provider.check()


@pytest.mark.parametrize(
    ("model", "sent", "dropped"),
    [
        ("gpt-4o", {"temperature": 0.2, "stop": ["a", "b", "c", "d"]}, {"stop"}),
        ("o3", {}, {"temperature", "top_p", "stop"}),
        ("gpt-5.1", {"temperature": 0.2, "top_p": 0.5, "stop": ["a", "b", "c", "d"]}, {"stop"}),
        ("gpt-5.5", {"stop": ["a", "b", "c", "d"]}, {"temperature", "top_p", "stop"}),
    ],
)
def test_knobs_by_family(openai, vendor, model, sent, dropped):
    request = GenerateRequest(
        model=model, messages=[Message("system", "s"), Message("user", "u")],
        temperature=0.2, top_p=0.5, stop=list("abcde"), max_tokens=77,
    )  # fmt: skip
    response = openai.generate_sync(request)
    body = vendor.body
    assert body["max_completion_tokens"] == 77
    assert "max_tokens" not in body
    assert sent.items() <= body.items()
    assert {change.field for change in response.adjustments} == dropped
    assert all(field not in body for field in dropped - {"stop"})


def test_the_role_of_instructions(openai, vendor):
    for model, role in (("gpt-4o", "system"), ("o3", "developer"), ("gpt-5-mini", "developer"), ("o1-mini", "user")):
        turns = [Message("system", "s"), Message("user", "u")]
        openai.generate_sync(GenerateRequest(model=model, messages=turns))
        assert [turn["role"] for turn in vendor.body["messages"]] == [role, "user"]


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"no request schema at {SCHEMA}: set LLM_COUNCIL_SHARED")
@pytest.mark.parametrize("model", ["gpt-4o", "o3", "gpt-5.4-mini", None])
@pytest.mark.parametrize("streams", [False, True])
def test_payloads_are_what_the_vendor_specifies(openai, vendor, model, streams):
    effort = "low" if model in ("gpt-4o", "o3") else "none"  # newer models take tools with an effort elsewhere
    request = GenerateRequest(
        model=model, messages=[Message("system", "s"), Message("user", "u")], max_tokens=5, temperature=0.3, stop=["x"],
        structured_output=StructuredOutput(json_schema=OPTIONAL), tools=[Tool(name="f", strict=True)],
        tool_choice="auto", reasoning=ReasoningConfig(effort=effort), prompt_cache=True,
    )  # fmt: skip
    if streams:
        list(openai.stream_sync(request))
    else:
        openai.generate_sync(request)
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    assert [error.message for error in schema.iter_errors(vendor.body)] == []
    assert vendor.body["response_format"]["json_schema"]["schema"]["required"] == ["a", "b"]


@pytest.mark.anyio
async def test_its_doctor_tells_a_wrong_key(openai, vendor):
    vendor.script = lambda exchange: exchange.say({"error": {"message": "no", "code": "invalid_api_key"}}, 401)
    result = await examine(openai)
    assert (result.ok, "invalid_api_key" in result.message) == (False, True)
    await openai.aclose()


@pytest.mark.anyio
async def test_awaiting_and_blocking_give_the_same(openai, ask):
    assert (await call(openai, ask)).text == "42"
    await openai.aclose()


# The Responses API

SUMMED_UP = {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": []}
REPLY = GenerateResponse(
    text="42",
    reasoning_parts=[ReasoningPart(vendor="openai", data=SUMMED_UP)],
    finish_reason="completed",
    model="gpt-5.4-mini",
    usage=Usage(input_tokens=5, output_tokens=2),
    extra={"response_id": "resp_1"},
)


def say_responses(exchange):
    if not exchange.body.get("stream"):
        exchange.say(responses.encode_response(REPLY), x_request_id="req-1")
        return
    exchange.begin_stream()
    for event in responses.encode_events(REPLY, size=1):
        exchange.send(responses.frame(event))
    exchange.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def spoken(vendor, monkeypatch):
    """The provider as it speaks to OpenAI itself."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-123456789012")
    vendor.script = say_responses
    with OpenAIProvider(base_url=vendor.url, api="responses") as provider:
        yield provider


@pytest.mark.parametrize(
    ("address", "options", "model", "path"),
    [
        (None, {}, "gpt-5.4-mini", "/responses"),
        (None, {}, None, "/responses"),
        (None, {}, "gpt-6.2-sol", "/responses"),
        (None, {}, "o3", "/responses"),
        (None, {}, "gpt-4o-mini", "/chat/completions"),
        (None, {}, "gpt-4.1", "/chat/completions"),
        (None, {}, "gpt-3.5-turbo", "/chat/completions"),
        (None, {"api": "chat"}, "gpt-5.4-mini", "/chat/completions"),
        (None, {"api": "responses"}, "gpt-4o", "/responses"),
        (None, {"profile": {"api": "chat"}}, "gpt-5.4-mini", "/chat/completions"),
        ("https://eu.api.openai.com/v1", {}, "gpt-5.4-mini", "/responses"),
        ("https://api.openai.com.example.com/v1", {}, "gpt-5.4-mini", "/chat/completions"),
        ("http://127.0.0.1:8080/v1", {}, "gpt-5.4-mini", "/chat/completions"),
        ("http://127.0.0.1:8080/v1", {"api": "responses"}, "gpt-5.4-mini", "/responses"),
    ],
)
def test_the_api_is_the_models_unless_told(monkeypatch, address, options, model, path):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    provider = OpenAIProvider(base_url=address, api_key="sk-test-123456789012", **options)
    assert provider._encode(GenerateRequest(model=model, prompt="x"), stream=False)[0] == path


def test_other_gateways_speak_chat_unless_told(vendor):
    with OpenAICompatibleProvider(base_url=vendor.url, default_model="m") as provider:
        assert provider.generate_sync(GenerateRequest(prompt="x")).text == "42"
        assert vendor.seen[-1].path == "/v1/chat/completions"
    vendor.script = say_responses
    with OpenAICompatibleProvider(base_url=vendor.url, default_model="m", api="responses") as provider:
        assert provider.generate_sync(GenerateRequest(prompt="x")).text == "42"
    assert (vendor.seen[-1].path, vendor.body) == ("/v1/responses", {"model": "m", "input": "x", "stream": False})
    with pytest.raises(InvalidOption, match="api: one of chat, responses"):
        OpenAICompatibleProvider(base_url=vendor.url, api="completions")
    with pytest.raises(InvalidOption, match="reasoning_summary"):
        OpenAIProvider(reasoning_summary="long")


def test_reasoning_goes_there_and_back_and_nothing_is_stored(spoken, vendor):
    first = Message("user", "What is 6 times 7?")
    answer = spoken.generate_sync(GenerateRequest(messages=[first], reasoning=ReasoningConfig(effort="low")))
    assert (answer.text, answer.request_id, answer.finish_reason) == ("42", "req-1", "stop")
    assert vendor.body["store"] is False
    assert vendor.body["include"] == ["reasoning.encrypted_content"]
    spoken.generate_sync(GenerateRequest(messages=[first, answer.to_message(), Message("user", "Sure?")]))
    assert vendor.body["input"] == [
        {"role": "user", "content": "What is 6 times 7?"},
        SUMMED_UP,
        {"role": "assistant", "content": "42"},
        {"role": "user", "content": "Sure?"},
    ]


def test_the_vendor_keeps_what_it_is_told_to_keep(vendor):
    vendor.script = say_responses
    options = {"base_url": vendor.url, "api_key": "sk-test-123456789012", "api": "responses"}
    with OpenAIProvider(extra_body={"store": True}, reasoning_summary="auto", **options) as provider:
        answer = provider.generate_sync(GenerateRequest(prompt="x", reasoning=ReasoningConfig(effort="high")))
        assert (vendor.body["store"], "include" in vendor.body) == (True, False)
        assert vendor.body["reasoning"] == {"effort": "high", "summary": "auto"}
        follow = GenerateRequest(prompt="y", extra={"previous_response_id": answer.extra["response_id"]})
        provider.generate_sync(follow)
    assert (vendor.body["previous_response_id"], vendor.body["input"]) == ("resp_1", "y")


def test_knobs_that_it_has_not_are_told(spoken, vendor):
    answer = spoken.generate_sync(GenerateRequest(prompt="x", model="gpt-4o", stop=["a"], max_tokens=5))
    assert [(change.field, change.action) for change in answer.adjustments] == [
        ("stop", "dropped"),
        ("max_tokens", "raised"),
    ]
    assert (vendor.body["max_output_tokens"], "stop" in vendor.body) == (16, False)


@pytest.mark.anyio
async def test_its_streams_are_read_as_they_arrive(spoken):
    chunks = [chunk async for chunk in stream(spoken, GenerateRequest(prompt="x"))]
    answer = join(chunks)
    assert (answer.text, answer.finish_reason, answer.usage) == ("42", "stop", REPLY.usage)
    assert answer.reasoning_parts[0].data == SUMMED_UP
    await spoken.aclose()


@pytest.mark.anyio
async def test_a_model_that_does_not_stream_answers_in_one_piece(spoken, vendor):
    for model in ["gpt-5.5-pro", "gpt-5.5-pro-2026-04-23", "o3-pro"]:
        request = GenerateRequest(model=model, prompt="x", temperature=0.5)
        chunks = [chunk async for chunk in stream(spoken, request)]
        answer = join(chunks)
        assert (vendor.body["stream"], [chunk.text for chunk in chunks if chunk.text]) == (False, ["42"])
        assert (answer.finish_reason, answer.usage) == ("stop", REPLY.usage)
        assert [change.field for change in answer.adjustments] == ["temperature"]
    await spoken.aclose()


@pytest.mark.anyio
async def test_its_errors_are_typed_inside_a_200_too(spoken, vendor, ask):
    failed = {"id": "r", "object": "response", "status": "failed", "output": [], "error": {"code": "server_error"}}
    vendor.script = lambda exchange: exchange.say(failed)
    with pytest.raises(ServerFailed) as caught:
        await call(spoken, ask)
    assert (caught.value.retryable, caught.value.code) == (True, "server_error")
    body = {"error": {"message": "no", "code": "model_not_found", "type": "invalid_request_error"}}
    vendor.script = lambda exchange: exchange.say(body, 400)
    with pytest.raises(ModelNotFound):
        await call(spoken, ask)
    await spoken.aclose()


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"no request schema at {SCHEMA}: set LLM_COUNCIL_SHARED")
@pytest.mark.parametrize("model", ["gpt-4o", "o3", None])
def test_its_payloads_are_what_the_vendor_specifies(spoken, vendor, model):
    request = GenerateRequest(
        model=model, messages=[Message("system", "s"), Message("user", "u")], max_tokens=5, temperature=0.3, stop=["x"],
        structured_output=StructuredOutput(json_schema=OPTIONAL), tools=[Tool(name="f", strict=True)],
        tool_choice="auto", reasoning=ReasoningConfig(effort="low"), prompt_cache=True,
    )  # fmt: skip
    spoken.generate_sync(request)
    text = SCHEMA.with_name("openai.responses.request.schema.json").read_text()
    schema = json.loads(text.replace('"$recursiveAnchor": true', '"$comment": ""'))
    checker = jsonschema_rs.validator_for(schema)
    assert [error.message for error in checker.iter_errors(vendor.body)] == []
    assert vendor.body["text"]["format"]["schema"]["required"] == ["a", "b"]
