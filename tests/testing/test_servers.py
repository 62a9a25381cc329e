"""Fake vendors answer in every dialect, and send the same over httpx, requests and a socket."""

import json
from contextlib import contextmanager

import anyio
import httpx
import jsonschema_rs
import pytest
import requests

from llm_council import subagents
from llm_council.errors import (
    AuthenticationFailed,
    InvalidOption,
    ModelNotFound,
    ProviderError,
    RateLimited,
    ServerFailed,
    TimedOut,
)
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, StructuredOutput, Tool, ToolCall, join
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import call, examine, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.testing.servers import (
    Asked,
    Cut,
    Delayed,
    Edited,
    FakeVendor,
    Hang,
    Raw,
    Refuse,
    dialect,
    dialects,
    obliging,
    smallest,
)
from llm_council.transports import RequestsTransport

PROVIDERS = {
    "openai": OpenAICompatibleProvider,
    "anthropic": AnthropicProvider,
    "gemini": GeminiProvider,
    "ollama": OllamaProvider,
}
SURFACES = ["socket", "httpx", "requests"]
ASK = GenerateRequest(prompt="What is 6 times 7?")
SCHEMA = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend():
    """Run under asyncio: the fake vendor does not depend on the event loop."""
    return "asyncio"


@contextmanager
def provided(vendor, surface):
    """Connect the provider of a dialect to a fake vendor, in one of the three ways."""
    options = {"api_key": "house-key-12345", "default_model": "fake-model"}
    cls = PROVIDERS[vendor.dialect.name]
    if surface == "socket":
        with vendor.serve():
            yield cls(base_url=vendor.url, **options)
    elif surface == "httpx":
        yield cls(base_url=vendor.url, transport=vendor.transport(), **options)
    else:
        with vendor.mocked(), requests.Session() as session:
            yield cls(base_url=vendor.url, transport=RequestsTransport(session), **options)


@pytest.fixture(params=SURFACES)
def surface(request):
    return request.param


@pytest.fixture(params=sorted(PROVIDERS))
def vendor(request):
    return FakeVendor(request.param, "It is 42.")


async def each_way(provider, request=ASK):
    return [await call(provider, request), join([piece async for piece in stream(provider, request)])]


async def test_texts_calls_json_and_errors_arrive_in_all_three_ways(vendor, surface):
    with provided(vendor, surface) as provider:
        async with provider:
            for response in await each_way(provider):
                assert (response.text, response.finish_reason, response.usage.input_tokens) == ("It is 42.", "stop", 11)
            vendor.said = GenerateResponse(tool_calls=[ToolCall(id="call_1", name="f", arguments='{"a": [1, "x"]}')])
            for response in await each_way(provider, GenerateRequest(prompt="x", tools=[Tool(name="f")])):
                assert [(found.name, found.parse()) for found in response.tool_calls] == [("f", {"a": [1, "x"]})]
                assert response.finish_reason == FinishReason.TOOL_CALLS
            vendor.said = obliging
            shaped = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=SCHEMA))
            assert [json.loads(response.text) for response in await each_way(provider, shaped)] == [{"answer": 0}] * 2
            for status, kind in ((401, AuthenticationFailed), (429, RateLimited), (500, ServerFailed)):
                vendor.said = Refuse(status=status, message="words", retry_after=3)
                with pytest.raises(kind, match="words") as caught:
                    await call(provider, ASK)
                assert caught.value.retry_after == (3 if caught.value.retryable else caught.value.retry_after)
            vendor.said = "It is 42."
            assert (await examine(provider)).ok
    assert {asked.method for asked in vendor.asked} == {"GET", "POST"}
    assert len(vendor.calls) == 9


async def test_faults_happen_in_all_three_ways(vendor, surface):
    with provided(vendor, surface) as provider:
        async with provider:
            for said in (Cut("It is 42, and more."), Refuse(status=503, after="It is"), Raw(b"{")):
                vendor.said = said
                for ask in (call, whole_stream):
                    with pytest.raises(ProviderError):
                        await ask(provider, ASK)
            vendor.said = Delayed("late", 0.05)
            assert (await call(provider, ASK)).text == "late"
            vendor.said = Edited("early", lambda value: json.loads(json.dumps(value).replace("early", "late")))
            assert (await call(provider, ASK)).text == "late"


async def whole_stream(provider, request):
    return join([piece async for piece in stream(provider, request)])


@pytest.mark.parametrize("surface", ["socket", "httpx"])
@pytest.mark.parametrize("said", [Hang(), Hang("It is 42.")], ids=["silent", "halfway"])
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_vendor_that_hangs_sees_its_client_leave(vendor, surface, said):
    with provided(vendor, surface) as provider:
        async with provider:
            await call(provider, ASK)  # the first call may load a library
            vendor.said = said
            for seconds in (0.3, 3.0):
                with pytest.raises(TimedOut):
                    await call(provider, ASK, deadline=seconds)
                if len(vendor.asked) > 1:  # else the time was too short to arrive in
                    break
            assert await anyio.to_thread.run_sync(vendor.wait_left)


async def test_a_blocking_client_times_out_if_the_vendor_hangs():
    vendor = FakeVendor("openai", Hang())
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    with httpx.Client(transport=vendor.transport()) as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{vendor.url}/chat/completions", json=body)
    with vendor.mocked(), pytest.raises(requests.ReadTimeout):
        requests.post(f"{vendor.url}/chat/completions", json=body, timeout=5)
    vendor.said = "It is 42."
    with httpx.Client(transport=vendor.transport()) as client:
        said = client.post(f"{vendor.url}/chat/completions", json=body).json()
    assert said["choices"][0]["message"]["content"] == "It is 42."


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_function_of_the_request_chooses_the_reply(vendor):
    vendor.said = lambda request: f"{request.model}: {request.turns()[-1].text.upper()}"
    with provided(vendor, "httpx") as provider:
        texts = [(await call(provider, GenerateRequest(prompt=word))).text for word in ("one", "two")]
        assert texts == ["fake-model: ONE", "fake-model: TWO"]


async def test_a_wrong_key_address_or_body_is_refused(vendor):
    vendor.key = "house-key-12345"
    with provided(vendor, "socket") as provider:
        async with provider:
            assert (await examine(provider, deep=True)).ok
            vendor.key = "another-key-12345"
            with pytest.raises(AuthenticationFailed):
                await call(provider, ASK)
            assert not (await examine(provider)).ok
            vendor.key = None
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"{vendor.url}/nowhere", json={})).status_code == 404
            path = vendor.calls[0].path
            bad = await client.post(vendor.url.removesuffix(vendor.dialect.path) + path, json={"messages": 7})
            assert bad.status_code == 400
            assert "error" in bad.json()


async def test_an_error_can_have_a_code_of_the_vendor():
    vendor = FakeVendor("openai", Refuse(status=400, message="no", code="model_not_found"))
    with provided(vendor, "httpx") as provider:
        with pytest.raises(ModelNotFound) as caught:
            await call(provider, ASK)
        assert caught.value.code == "model_not_found"


async def test_the_recorded_requests_can_be_searched():
    body = {"a": ["one two", {"b": 0.5}], "c": '{"deep": "three"}'}
    asked = Asked(body=json.dumps(body).encode())
    assert all(asked.holds(value) for value in ("one", "b", 0.5, "three"))
    assert not any(asked.holds(value) for value in ("four", 1, True))
    assert Asked(body=b"a plain prompt").holds("plain")


async def test_an_unknown_dialect_is_refused_with_a_near_name():
    assert set(PROVIDERS) <= set(dialects())
    assert all(dialect(name).name for name in dialects())
    with pytest.raises(InvalidOption, match="no fake vendor speaks 'antropic'; did you mean 'anthropic'"):
        FakeVendor("antropic")


def shipped():
    for info in subagents.names():
        for mode in info.modes or (None,):
            yield f"{info.name}-{mode}", dict(subagents.load(info.name, mode).schema)


@pytest.mark.parametrize("schema", [schema for _, schema in shipped()], ids=[name for name, _ in shipped()])
def test_smallest_is_valid_for_each_shipped_schema(schema):
    assert jsonschema_rs.is_valid(schema, smallest(schema))
