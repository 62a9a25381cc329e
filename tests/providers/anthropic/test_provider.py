"""The Anthropic provider over a real socket: headers, fitting by model family, schemas, thinking, streams, doctor."""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import attrs
import httpx
import jsonschema_rs
import pytest

from llm_council import get_provider
from llm_council._schema import SUBSETS, project_strict
from llm_council.errors import (
    ContentFiltered,
    InvalidOption,
    MissingCredentials,
    MissingDependency,
    OutOfCredit,
    RateLimited,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import (
    FinishReason,
    GenerateResponse,
    Message,
    ReasoningConfig,
    StructuredOutput,
    Tool,
    ToolCall,
    Usage,
    join,
)
from llm_council.models.messages import ReasoningPart
from llm_council.providers._anthropic import sdk
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.subagents import load, names
from llm_council.testing._mirrors.anthropic import encode_error, encode_events, encode_response, frame
from llm_council.transports import HttpxTransport, RequestsTransport

SHARED = Path(os.environ.get("LLM_COUNCIL_SHARED") or Path(__file__).parents[4] / "shared")
SCHEMA = SHARED / "oracles" / "specs" / "derived" / "anthropic.messages.request.schema.json"
KEY = "sk-ant-test-123456789012"
THOUGHT = {"type": "thinking", "thinking": "six sevens", "signature": "c2ln"}
ANSWER = GenerateResponse(
    text="42",
    reasoning="six sevens",
    reasoning_parts=[ReasoningPart(text="six sevens", signature="c2ln", vendor="anthropic", data=THOUGHT)],
    model="claude-sonnet-5-5",
    finish_reason=FinishReason.STOP,
    raw_finish_reason="end_turn",
    usage=Usage(input_tokens=20, output_tokens=9, cached_tokens=12, cache_write_tokens=3, reasoning_tokens=4),
    request_id="req_1",
)

pytestmark = pytest.mark.anyio


def messages(exchange, response=ANSWER):
    """Answer as Anthropic does."""
    if exchange.command == "GET":
        exchange.say({"data": [{"type": "model", "id": "claude-sonnet-5-5"}], "has_more": False})
    elif exchange.body.get("stream"):
        exchange.send_response(200)
        exchange.send_header("Content-Type", "text/event-stream")
        exchange.send_header("Transfer-Encoding", "chunked")
        exchange.send_header("request-id", "req_1")
        exchange.end_headers()
        for event in encode_events(response):
            exchange.send(frame(event))
        exchange.wfile.write(b"0\r\n\r\n")
    else:
        exchange.say(encode_response(response), request_id="req_1")


@pytest.fixture
def at(vendor, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    vendor.script = messages
    return lambda **options: AnthropicProvider(**{"base_url": vendor.url, **options})


def test_default_address_model_and_missing_key(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    provider = get_provider("anthropic")
    assert isinstance(provider, AnthropicProvider)
    assert (provider.base_url, provider.default_model) == ("https://api.anthropic.com", "claude-sonnet-5-5")
    with pytest.raises(MissingCredentials, match="ANTHROPIC_API_KEY"):
        provider.check()
    with pytest.raises(InvalidOption):
        AnthropicProvider(version="")


async def test_key_and_version_are_sent_in_anthropics_headers(at, vendor, ask):
    async with at() as provider:
        await call(provider, ask)
    assert vendor.seen[-1].path == "/v1/messages"
    sent = vendor.headers
    assert (sent["x-api-key"], sent["anthropic-version"]) == (KEY, "2023-06-01")
    assert (sent["Authorization"], sent["anthropic-beta"]) == (None, None)
    assert vendor.body == {
        "model": "claude-sonnet-5-5",
        "max_tokens": 16_000,
        "messages": [{"role": "user", "content": "What is 6 times 7?"}],
    }


async def test_key_header_version_and_betas_can_be_set(at, vendor, ask):
    async with at(key_header="authorization", version="2026-10-21", betas=["a-1", "b-2"]) as provider:
        await call(provider, ask)
    sent = vendor.headers
    assert (sent["authorization"], sent["x-api-key"]) == (f"Bearer {KEY}", None)
    assert (sent["anthropic-version"], sent["anthropic-beta"]) == ("2026-10-21", "a-1,b-2")
    async with at(headers={"Authorization": "Bearer house-1234567", "Anthropic-Version": "x"}) as provider:
        await call(provider, ask)
        assert "house-1234567" not in repr(provider)
    sent = vendor.headers
    assert (sent["Authorization"], sent["x-api-key"]) == ("Bearer house-1234567", None)
    assert sent.get_all("anthropic-version") == ["x"]


@pytest.mark.parametrize("suffix", ["", "/v1", "/v1/"])
async def test_a_base_url_may_end_in_v1(at, vendor, ask, suffix):
    async with at(base_url=vendor.url.removesuffix("/v1") + suffix) as provider:
        assert (await call(provider, ask)).text == "42"


@pytest.mark.parametrize("transport", [None, RequestsTransport])
async def test_answer_and_stream_are_equal_with_both_http_libraries(at, ask, transport):
    async with at(transport=transport() if transport else None) as provider:
        whole = await call(provider, ask)
        pieces = join([piece async for piece in stream(provider, ask)])
    for response in (whole, pieces):
        for field in ("text", "reasoning", "reasoning_parts", "usage", "model", "finish_reason", "request_id"):
            assert getattr(response, field) == getattr(ANSWER, field), field


async def test_signed_thinking_is_sent_back_unchanged(at, vendor, ask):
    async with at() as provider:
        first = await call(provider, ask)
        turns = [Message("user", "x"), first.to_message(), Message("user", "sure?")]
        await call(provider, GenerateRequest(messages=turns, reasoning=ReasoningConfig(effort="high")))
    assert vendor.body["messages"][1]["content"] == [THOUGHT, {"type": "text", "text": "42"}]
    assert vendor.body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert vendor.body["output_config"] == {"effort": "high"}


@pytest.mark.parametrize(
    ("model", "asked", "sent", "changed"),
    [
        ("claude-sonnet-5-5", {"temperature": 0.2, "top_p": 0.9}, {}, {"temperature", "top_p"}),
        ("claude-novel-9", {"temperature": 0.2}, {}, {"temperature"}),
        ("claude-sonnet-4-6", {"temperature": 1.5, "stop": ["x"]}, {"temperature": 1.0, "stop_sequences": ["x"]}, ...),
        ("claude-sonnet-4-6", {"temperature": 0.2, "top_p": 0.9}, {"temperature": 0.2}, {"top_p"}),
        ("claude-sonnet-4-6", {"reasoning": {"effort": "low"}, "top_p": 0.9}, {}, {"top_p"}),
        (
            "claude-sonnet-4-5",
            {"reasoning": {"budget_tokens": 2000}, "temperature": 0.5},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 18_000},
            {"temperature"},
        ),
        (
            "claude-haiku-4-5",
            {"reasoning": {"budget_tokens": 9000}, "max_tokens": 4000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"reasoning"},
        ),
        ("claude-haiku-4-5", {"reasoning": {"budget_tokens": 9000}, "max_tokens": 500}, {}, {"reasoning"}),
        ("claude-opus-4-1", {"max_tokens": 50_000}, {"max_tokens": 32_000}, {"max_tokens"}),
        ("claude-opus-5-5", {"reasoning": {"effort": "none"}}, {}, {"reasoning"}),
        ("claude-opus-5", {"reasoning": {"effort": "none"}}, {"thinking": {"type": "disabled"}}, set()),
        ("claude-sonnet-5-5", {"reasoning": {"effort": "none"}}, {"thinking": {"type": "between_tools"}}, set()),
        ("claude-opus-5", {"reasoning": {"budget_tokens": 5000}}, {}, {"reasoning"}),
        ("claude-opus-4-6", {"reasoning": {"effort": "xhigh"}}, {"output_config": {"effort": "high"}}, {"reasoning"}),
        ("claude-3-haiku-20240307", {"reasoning": {"effort": "low"}}, {"max_tokens": 4096}, {"reasoning"}),
    ],
)
async def test_fields_are_fitted_to_the_model_family(at, vendor, model, asked, sent, changed):
    if "reasoning" in asked:
        asked = {**asked, "reasoning": ReasoningConfig(**asked["reasoning"])}
    async with at() as provider:
        response = await call(provider, GenerateRequest(model=model, prompt="x", **asked))
    assert sent.items() <= vendor.body.items()
    if changed is not ...:
        assert {change.field for change in response.adjustments} == changed
        assert all(field not in vendor.body for field in changed & {"temperature", "top_p"})
    if (
        "reasoning" in (changed if changed is not ... else ())
        and "thinking" not in sent
        and "output_config" not in sent
    ):
        assert "thinking" not in vendor.body


async def test_a_prefill_that_the_model_refuses_is_followed_by_a_turn_of_the_user(at, vendor):
    turns = [Message("user", "Which city?"), Message("assistant", "The city is (")]
    async with at() as provider:
        response = await call(provider, GenerateRequest(model="claude-opus-5", messages=turns))
        assert [turn["role"] for turn in vendor.body["messages"]] == ["user", "assistant", "user"]
        assert [change.action for change in response.adjustments] == ["added"]
        await call(provider, GenerateRequest(model="claude-haiku-4-5", messages=turns))
        assert [turn["role"] for turn in vendor.body["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("model", "choice", "sent"),
    [
        ("claude-sonnet-4-5", "required", {"type": "any"}),
        ("claude-sonnet-4-6", "f", {"type": "tool", "name": "f"}),
        ("claude-sonnet-5-5", "f", None),
        ("claude-fable-5-2", "required", None),
    ],
)
async def test_a_forced_tool_choice_is_sent_only_to_models_that_take_it(at, vendor, model, choice, sent):
    called = GenerateResponse(tool_calls=[ToolCall(id="a", name="f")], finish_reason="tool_use", model=model)
    vendor.script = lambda exchange: messages(exchange, called)
    request = GenerateRequest(
        model=model,
        prompt="x",
        tools=[Tool(name="f")],
        tool_choice=choice,
        reasoning=ReasoningConfig(budget_tokens=2000),
    )
    async with at() as provider:
        response = await call(provider, request)
    assert vendor.body.get("tool_choice") == sent
    assert "thinking" not in vendor.body or model == "claude-sonnet-4-6"
    assert (response.tool_calls[0].name, response.finish_reason) == ("f", "tool_calls")


def bounded(**more):
    number = {"type": "integer", "minimum": 1, "maximum": 5}
    return {"type": "object", "properties": {"n": number, "s": {"type": "string"}, **more}, "required": ["n"]}


async def test_a_schema_is_projected_and_reported_as_an_adjustment(at, vendor):
    several = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 3}
    named = {"type": "object", "properties": {"minimum": {"type": "number"}}, "required": ["minimum"]}
    shape = StructuredOutput(json_schema=bounded(several=several, named=named))
    async with at() as provider:
        response = await call(provider, GenerateRequest(prompt="x", structured_output=shape))
    schema = vendor.body["output_config"]["format"]["schema"]
    assert schema["properties"]["n"] == {"type": "integer"}
    assert schema["properties"]["several"] == {"type": "array", "items": {"type": "string"}}
    assert schema["properties"]["named"]["properties"] == {"minimum": {"type": "number"}}
    assert (schema["additionalProperties"], schema["required"]) == (False, ["n"])
    reasons = [change.reason for change in response.adjustments if change.field == "structured_output"]
    assert "$.properties.n: minimum is checked here" in " ".join(reasons)


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        ("claude-sonnet-5-5", {"type": "object"}),
        ("claude-sonnet-5-5", {"$ref": "#/$defs/t", "$defs": {"t": bounded(t={"$ref": "#/$defs/t"})}}),
        ("claude-opus-4-1", bounded()),
    ],
)
async def test_a_schema_that_cannot_be_enforced_is_put_into_the_prompt(at, vendor, model, schema):
    request = GenerateRequest(model=model, prompt="x", structured_output=StructuredOutput(json_schema=schema))
    async with at() as provider:
        response = await call(provider, request)
    assert "output_config" not in vendor.body
    words = vendor.body["messages"][0]["content"]
    assert "$ref" in words if "$ref" in schema else json.dumps(schema) in words
    assert "emulated" in [change.action for change in response.adjustments]


def chain_of_definitions(length, last):
    links = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(length)}
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**links, f"d{length}": last}}


def test_a_long_chain_of_definitions_is_projected_and_a_circle_is_not():
    assert project_strict(chain_of_definitions(1500, {"type": "string"}), SUBSETS["anthropic"]).strict
    assert not project_strict(chain_of_definitions(1500, {"$ref": "#/$defs/d3"}), SUBSETS["anthropic"]).strict
    assert not project_strict({"type": "object", "properties": {"a": {"$ref": "#"}}}, SUBSETS["anthropic"]).strict


def test_schemas_of_the_built_in_roles_are_enforceable():
    roles = [load(info.name, mode=mode) for info in names() for mode in info.modes or (None,)]
    schemas = [role.schema for role in roles if role.schema]
    assert schemas
    for schema in schemas:
        assert project_strict(schema, SUBSETS["anthropic"]).strict


@pytest.mark.skipif(not SCHEMA.is_file(), reason=f"no request schema at {SCHEMA}: set LLM_COUNCIL_SHARED")
@pytest.mark.parametrize("model", [None, "claude-opus-4-6", "claude-haiku-4-5", "claude-3-5-haiku-latest"])
async def test_payloads_match_the_vendors_schema(at, vendor, model):
    schema = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    request = GenerateRequest(
        model=model, messages=[Message("system", "s"), Message("user", "u")], max_tokens=50_000, temperature=1.7,
        top_p=0.3, stop=["x"], structured_output=StructuredOutput(json_schema=bounded()), tools=[Tool(name="f")],
        tool_choice="auto", reasoning=ReasoningConfig(effort="minimal"), prompt_cache="1h",
    )  # fmt: skip
    async with at() as provider:
        await call(provider, request)
        assert [error.message for error in schema.iter_errors(vendor.body)] == []
        async for _ in stream(provider, request):
            pass
    assert vendor.body["stream"] is True
    assert [error.message for error in schema.iter_errors(vendor.body)] == []


async def test_refused_requests_raise_the_class_of_their_error(at, vendor, ask):
    rows = [
        (429, "rate_limit_error", "slow down", RateLimited, 12.0),
        (400, "invalid_request_error", "Your credit balance is too low to access the API.", OutOfCredit, 12.0),
        (529, "overloaded_error", "Overloaded", ServerFailed, 12.0),
    ]
    async with at() as provider:
        for status, kind, words, cls, delay in rows:
            body = encode_error(words, kind=kind)
            vendor.script = lambda exchange, status=status, body=body: exchange.say(
                body, status, retry_after="12", request_id="req_9"
            )
            for ways in (call, lambda *args: _drained(stream(*args))):
                with pytest.raises(cls) as caught:
                    await ways(provider, ask)
                assert (caught.value.retry_after, caught.value.request_id) == (delay, "req_9")


async def _drained(pieces):
    async for _ in pieces:
        pass


async def test_a_failed_or_cut_stream_raises_with_the_partial_text(at, vendor, ask):
    events = [frame(event) for event in encode_events(ANSWER)]
    begun = events[: next(index for index, event in enumerate(events) if b"message_delta" in event)]
    fault = frame(encode_error("Overloaded", kind="overloaded_error"))

    def script(ends):
        def answer(exchange):
            exchange.begin_stream()
            for event in [*begun, *ends]:
                exchange.send(event)
            exchange.wfile.write(b"0\r\n\r\n")

        return answer

    async with at() as provider:
        for ends, cls in (([fault], ServerFailed), ([], TruncatedReply)):
            vendor.script = script(ends)
            with pytest.raises(cls) as caught:
                await _drained(stream(provider, ask))
            assert (caught.value.partial, caught.value.retryable) == ("42", True)


async def test_a_refusal_or_thinking_without_text_raises(at, vendor, ask):
    refused = GenerateResponse(refusal="not this", raw_finish_reason="refusal", model="c", request_id="req_1")
    pensive = attrs.evolve(ANSWER, text=None, content=None, raw_finish_reason="max_tokens", finish_reason="length")
    async with at() as provider:
        for reply, cls in ((refused, ContentFiltered), (pensive, TruncatedReply)):
            vendor.script = lambda exchange, reply=reply: messages(exchange, reply)
            for ways in (call, lambda *args: _drained(stream(*args))):
                with pytest.raises(cls):
                    await ways(provider, ask)


async def test_doctor_lists_models_and_reports_a_wrong_key(at, vendor):
    async with at() as provider:
        result = await examine(provider)
        assert (result.ok, result.details["models"]) == (True, ["claude-sonnet-5-5"])
        assert vendor.seen[-1].path == "/v1/models?limit=1000"
        assert (await examine(provider, deep=True)).ok
        vendor.script = lambda exchange: exchange.say(
            encode_error("invalid x-api-key", kind="authentication_error"), 401
        )
        result = await examine(provider)
        assert (result.ok, "invalid x-api-key" in result.message) == (False, True)
        vendor.script = lambda exchange: exchange.say({"type": "error"}, 404)
        assert (await examine(provider)).ok


# Transports


@pytest.mark.parametrize("release", [None, "0.125.0", "unknown"])
async def test_plain_http_is_used_without_a_supported_release_of_the_sdk(at, vendor, ask, monkeypatch, release):
    def version(name):
        if release is None:
            raise PackageNotFoundError(name)
        return release

    monkeypatch.setattr(sdk, "version", version)
    async with at() as provider:
        assert (await call(provider, ask)).text == "42"
        assert isinstance(provider._transport, HttpxTransport)
    assert (vendor.headers["x-api-key"], vendor.headers["user-agent"]) == (KEY, "llm-council")


async def test_an_sdk_that_cannot_be_imported_raises_with_the_name_of_the_extra(at, ask, monkeypatch):
    monkeypatch.setattr(sdk, "version", lambda name: "2.12.0")
    monkeypatch.delitem(sys.modules, "anthropic", raising=False)

    def broken(name):
        raise ImportError("no module named 'httpx2'")

    monkeypatch.setattr(sdk, "import_module", broken)
    async with at() as provider:
        with pytest.raises(MissingDependency, match=r"llm-council-sdk\[anthropic\]"):
            await call(provider, ask)


@pytest.mark.parametrize("client", [object(), httpx.AsyncClient, "sdk"])
def test_a_client_must_be_an_asynchronous_client_of_anthropic(client):
    with pytest.raises(InvalidOption, match="client: expected an anthropic"):
        AnthropicProvider(client=client)
