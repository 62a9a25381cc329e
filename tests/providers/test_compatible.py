"""Anyone's gateway: by arguments, by class attributes, by hooks."""

from typing import Any

import pytest

from llm_council import get_provider
from llm_council.errors import InvalidOption
from llm_council.models import (
    ImagePart,
    Message,
    ReasoningConfig,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
    join,
)
from llm_council.providers.base import GenerateRequest, GenerateResponse, ModelProfile, call, examine, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.servers import FakeVendor

ASK = GenerateRequest(prompt="What is 6 times 7?")


class House(OpenAICompatibleProvider):
    name = "house"
    API_KEY_ENV = "HOUSE_KEY"
    DEFAULT_MODEL = "house-70b"
    IDEMPOTENCY_HEADER = "Idempotency-Key"

    def headers(self):
        return {**super().headers(), "X-House": "1"}

    def build_payload(self, request):
        return {**super().build_payload(request), "tenant": "research"}

    def parse_response(self, data):
        response = super().parse_response(data)
        return GenerateResponse(text=f"<{response.text}>", model=response.model)


@pytest.mark.anyio
async def test_hooks_of_a_subclass(vendor, monkeypatch):
    monkeypatch.setenv("HOUSE_KEY", "house-key-1234")
    async with House(base_url=vendor.url) as provider:
        response = await call(provider, GenerateRequest(prompt="x", idempotency_key="k-1", stream=True))
        assert (response.text, response.model, response.request_id) == ("<42>", "house-70b", "req-1")
        assert vendor.body == {
            "stream": False,
            "model": "house-70b",
            "messages": [{"role": "user", "content": "x"}],
            "tenant": "research",
        }
        assert vendor.headers["X-House"] == "1"
        assert vendor.headers["Authorization"] == "Bearer house-key-1234"
        assert vendor.headers["Idempotency-Key"] == "k-1"
        chunks = [chunk async for chunk in stream(provider, ASK)]
        assert join(chunks).text == "42"
        assert vendor.body["tenant"] == "research"
        assert vendor.body["stream"] is True
        assert vendor.body["stream_options"] == {"include_usage": True}
        assert "Idempotency-Key" not in vendor.headers


def test_an_instance_needs_no_subclass(vendor):
    options = {"base_url": vendor.url, "default_model": "m", "extra_body": {"top_k": 5, "mode": "a"}}
    with get_provider("openai-compatible", name="gateway", **options) as provider:
        assert provider.name == "gateway"
        response = provider.generate_sync(GenerateRequest(prompt="x", extra={"mode": "b"}))
    assert response.usage.total_tokens == 7
    messages = [{"role": "user", "content": "x"}]
    assert vendor.body == {"model": "m", "messages": messages, "stream": False, "top_k": 5, "mode": "b"}


@pytest.mark.anyio
async def test_a_subclass_that_answers_in_its_own_way_streams_that_way(vendor):
    class Louder(House):
        async def generate(self, request):
            response = await super().generate(request)
            return GenerateResponse(text=f"{response.text}!")

    class Loudest(Louder):
        name = "loudest"

    for cls in (Louder, Loudest):
        async with cls(base_url=vendor.url, api_key="house-key-1234") as provider:
            assert (await call(provider, ASK)).text == "<42>!"
            assert join([chunk async for chunk in stream(provider, ASK)]).text == "<42>!"


@pytest.mark.anyio
async def test_everything_that_a_request_can_say(vendor):
    request = GenerateRequest(
        model="m",
        messages=[
            Message("system", "Be brief."),
            Message("user", [TextPart(text="What is it?"), ImagePart(data="aGk=", media_type="image/png")]),
            Message("assistant", "", tool_calls=[ToolCall(id="c1", name="look", arguments={"at": 1})]),
            Message("tool", "a cat", tool_call_id="c1"),
        ],
        temperature=0.1,
        top_p=0.9,
        max_tokens=50,
        stop=["END"],
        tools=[Tool(name="look", description="Look at it.")],
        tool_choice="look",
        structured_output=StructuredOutput(json_schema={"type": "object"}, name="cat"),
        reasoning=ReasoningConfig(effort="low"),
    )
    async with OpenAICompatibleProvider(base_url=vendor.url) as provider:
        response = await call(provider, request)
    ignored = [(change.field, change.action) for change in response.adjustments]
    assert ignored == [("structured_output", "ignored"), ("tool_choice", "ignored")]  # by the answer, which is text
    assert vendor.body == {
        "stream": False,
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
                ],
            },
            {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
        ],
        "temperature": 0.1,
        "top_p": 0.9,
        "max_tokens": 50,
        "stop": ["END"],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "Look at it.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "cat", "schema": {"type": "object"}, "strict": True},
        },
        "reasoning_effort": "low",
    }


@pytest.mark.anyio
async def test_what_is_not_set_is_not_sent(vendor):
    async with OpenAICompatibleProvider(base_url=vendor.url, default_model="m") as provider:
        await call(provider, ASK)
    assert vendor.body.keys() == {"model", "messages", "stream"}
    assert vendor.body["stream"] is False  # some gateways stream unless they are told not to


@pytest.mark.anyio
async def test_a_model_must_be_named_where_none_can_be_known(vendor):
    async with OpenAICompatibleProvider(base_url=vendor.url) as provider:
        with pytest.raises(InvalidOption, match="has no default model: say which"):
            await call(provider, ASK)
    assert vendor.seen == []


@pytest.mark.anyio
async def test_thoughts_between_tags_are_not_the_answer(vendor):
    vendor.script = lambda exchange: exchange.answer("<think>Six sevens.</think>\n42")
    async with OpenAICompatibleProvider(base_url=vendor.url, default_model="m") as provider:
        response = await call(provider, ASK)
        assert (response.text, response.reasoning) == ("42", "Six sevens.")


def test_a_profile_is_found_by_the_kind_of_the_class(vendor):
    class Cousin(House):
        name = "cousin"

    assert Cousin()._profile_of(None).provider == "openai-compatible"
    own = ModelProfile(max_output=7)
    assert Cousin(profile=own)._profile_of("x") is own


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "ok", "words"),
    [(200, True, "2 models"), (404, True, "lists no models"), (401, False, "HTTP 401"), (500, False, "HTTP 500")],
)
async def test_its_doctor_asks_for_the_models(vendor, status, ok, words):
    models = {"data": [{"id": "m"}, {"id": "n"}]} if status == 200 else {"error": {"message": "no"}}
    vendor.script = lambda exchange: exchange.say(models, status)
    async with OpenAICompatibleProvider(base_url=vendor.url, default_model="m") as provider:
        result = await examine(provider)
        assert (result.ok, words in result.message) == (ok, True), result
        assert result.latency_ms is not None


@pytest.mark.anyio
async def test_a_deep_doctor_makes_the_call_that_a_run_makes(vendor):
    async with OpenAICompatibleProvider(base_url=vendor.url, default_model="m") as provider:
        assert (await examine(provider, deep=True)).ok
        assert vendor.seen[-1].path == "/v1/chat/completions"

        def script(exchange):
            if exchange.command == "GET":
                exchange.chat()
            else:
                exchange.say({"error": {"message": "no such model", "code": "model_not_found"}}, 404)

        vendor.script = script
        assert (await examine(provider)).ok
        deep = await examine(provider, deep=True)
        assert (deep.ok, "ModelNotFound" in deep.message) == (False, True)


@pytest.mark.parametrize(
    ("speaks", "cls", "options"),
    [
        ("openai", OpenAICompatibleProvider, {"default_model": "m"}),
        ("responses", OpenAICompatibleProvider, {"default_model": "m", "api": "responses"}),
    ],
)
def test_tools_of_a_provider_of_a_request_and_of_its_extra_are_all_offered(
    speaks: str, cls: Any, options: dict[str, Any]
) -> None:
    with FakeVendor(speaks).serve() as vendor:
        body = {"tools": [{"type": "web_search"}]}
        provider = cls(base_url=vendor.url, extra_body=body, **options)
        own = Tool(name="f", description="d", parameters={"type": "object", "properties": {}})
        provider.generate_sync(GenerateRequest(prompt="Is it?", tools=[own], extra={"tools": [{"type": "code"}]}))
        provider.generate_sync(GenerateRequest(prompt="Is it?"))
        provider.close()
        first, second = (asked.json["tools"] for asked in vendor.calls)
    assert [tool["type"] for tool in first] == ["web_search", "function", "code"]
    assert second == body["tools"]
