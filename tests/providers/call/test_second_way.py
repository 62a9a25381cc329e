"""A schema that a vendor refuses goes into the prompt; answers are restored; what an answer ignores is reported."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from llm_council.errors import ApiError, AuthenticationFailed, MalformedReply, RequestRejected
from llm_council.models import Message, StructuredOutput, join
from llm_council.providers._call import second_way
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import (
    GenerateRequest,
    GenerateResponse,
    ProviderAdapter,
    ProviderCapabilities,
    Tool,
    call,
    stream,
)
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.transports import HttpxTransport

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
ANSWER = '{"answer": "yes"}'


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_way, "_refused", {})


def chat(text: str | None, calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
    return {"id": "r", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def gemini(text: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}]}


def claude(text: str) -> dict[str, Any]:
    block = {"type": "text", "text": text}
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "c",
        "content": [block],
        "stop_reason": "end_turn",
    }


class Vendor:
    """A vendor behind a transport: refuses schemas, and keeps the bodies that it was sent."""

    def __init__(self, answer: Any, status: int = 400, refusal: Any = None, *, always: bool = False) -> None:
        self.answer, self.status, self.always = answer, status, always
        self.refusal = refusal or {"error": {"message": "failed to parse grammar"}}
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        config = body.get("generationConfig", {})
        asked = "response_format" in body or "responseJsonSchema" in config or "output_config" in body
        if self.always or asked:
            return httpx.Response(self.status, json=self.refusal)
        if not body.get("stream") and "streamGenerateContent" not in str(request.url):
            return httpx.Response(200, json=self.answer)
        text = self.answer["choices"][0]["message"]["content"]
        delta = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
        return httpx.Response(
            200, headers={"content-type": "text/event-stream"}, text=f"data: {json.dumps(delta)}\n\ndata: [DONE]\n\n"
        )

    @property
    def transport(self) -> HttpxTransport:
        return HttpxTransport(httpx.AsyncClient(transport=httpx.MockTransport(self)))


def provider(vendor: Vendor, name: str) -> OpenAICompatibleProvider:
    return OpenAICompatibleProvider(
        name=name, base_url="https://llm.example/v1", default_model="m", transport=vendor.transport
    )


def asking(schema: Any = SCHEMA, **facts: Any) -> GenerateRequest:
    return GenerateRequest(prompt="Is it?", structured_output=StructuredOutput(json_schema=schema), **facts)


async def test_a_refused_schema_is_asked_for_in_the_prompt_once_and_remembered() -> None:
    vendor = Vendor(chat(ANSWER))
    response = await provider(vendor, "once").generate(asking())
    assert response.text == ANSWER
    (adjustment,) = response.adjustments
    assert (adjustment.field, adjustment.action) == ("structured_output", "emulated")
    assert "failed to parse grammar" in adjustment.reason
    assert json.dumps(SCHEMA) in vendor.bodies[1]["messages"][0]["content"]
    again = await provider(vendor, "once").generate(asking())
    assert again.adjustments == response.adjustments
    assert len(vendor.bodies) == 3
    other = await provider(vendor, "once").generate(asking({**SCHEMA, "title": "Another"}))
    assert other.text == ANSWER
    assert len(vendor.bodies) == 5


@pytest.mark.parametrize("through_call", [True, False])
async def test_a_stream_has_a_second_way_too(through_call: bool) -> None:
    vendor = Vendor(chat(ANSWER))
    adapter = provider(vendor, f"streamed-{through_call}")
    pieces = stream(adapter, asking()) if through_call else adapter.stream(asking())
    response = join([piece async for piece in pieces])
    assert response.text == ANSWER
    assert [found.action for found in response.adjustments] == ["emulated"]
    assert len(vendor.bodies) == 2


@pytest.mark.parametrize(
    ("cls", "model", "answer", "refusal"),
    [
        (GeminiProvider, "gemini-3.6-flash", gemini(ANSWER), {"error": {"code": 400, "status": "INVALID_ARGUMENT",
         "message": "The specified schema produces a constraint that has too many states for serving."}}),
        (AnthropicProvider, "claude-sonnet-5-5", claude(ANSWER), {"type": "error", "error": {
         "type": "invalid_request_error", "message": "The compiled grammar is too large."}}),
    ],
)  # fmt: skip
async def test_other_dialects_have_it(cls: Any, model: str, answer: Any, refusal: Any) -> None:
    vendor = Vendor(answer, refusal=refusal)
    adapter = cls(api_key="k", base_url="https://x.example", default_model=model, transport=vendor.transport)
    response = await call(adapter, asking())
    assert response.text == ANSWER
    assert [found.action for found in response.adjustments] == ["emulated"]


async def test_a_servers_failure_counts_if_it_is_about_schemas() -> None:
    vendor = Vendor(chat(ANSWER), status=500, refusal={"error": {"message": "xgrammar could not compile the schema"}})
    assert (await provider(vendor, "five").generate(asking())).text == ANSWER
    broken = Vendor(chat(ANSWER), status=500, refusal={"error": {"message": "out of memory"}})
    with pytest.raises(ApiError):
        await provider(broken, "memory").generate(asking())
    assert len(broken.bodies) == 1


async def test_the_first_error_is_raised_if_the_schema_was_not_the_reason() -> None:
    vendor = Vendor(chat(ANSWER), refusal={"error": {"message": "temperature is too high"}}, always=True)
    with pytest.raises(RequestRejected, match="temperature is too high"):
        await provider(vendor, "always").generate(asking())
    assert len(vendor.bodies) == 2
    with pytest.raises(RequestRejected):  # and nothing is remembered
        await provider(vendor, "always").generate(asking())
    assert "response_format" in vendor.bodies[2]


MISSED = {
    "error": {
        "message": "Generated JSON does not match the expected schema. Please adjust your prompt.",
        "type": "invalid_request_error",
        "code": "json_validate_failed",
        "failed_generation": '{"answer": 5}',
    }
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "refusal",
    [MISSED, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(MISSED)}}}],
    ids=["groq", "groq-behind-openrouter"],
)
async def test_an_answer_that_misses_its_schema_is_asked_for_in_the_prompt_but_not_remembered(
    refusal: Any, *, streamed: bool
) -> None:
    vendor = Vendor(chat(ANSWER), refusal=refusal)
    for calls in (2, 4):  # the schema is sent again: the vendor has not refused it
        adapter = provider(vendor, "missed")
        response = (
            join([piece async for piece in stream(adapter, asking())]) if streamed else await call(adapter, asking())
        )
        assert response.text == ANSWER
        (adjustment,) = response.adjustments
        assert (adjustment.field, adjustment.action) == ("structured_output", "emulated")
        assert adjustment.reason.startswith("the answer did not meet the schema")
        assert len(vendor.bodies) == calls
    assert "response_format" in vendor.bodies[2]


async def test_an_answer_that_misses_its_schema_twice_may_be_tried_again() -> None:
    vendor = Vendor(chat(ANSWER), refusal=MISSED, always=True)
    with pytest.raises(MalformedReply) as caught:
        await call(provider(vendor, "twice"), asking())
    error = caught.value
    assert (error.status, error.code, error.partial, error.retryable) == (
        400,
        "json_validate_failed",
        '{"answer": 5}',
        True,
    )
    assert len(vendor.bodies) == 2


async def test_other_refusals_have_no_second_way() -> None:
    vendor = Vendor(chat(ANSWER), status=401)
    with pytest.raises(AuthenticationFailed):
        await provider(vendor, "key").generate(asking())
    assert len(vendor.bodies) == 1


class Picky(ProviderAdapter):
    """An adapter of a third party."""

    name = "picky"
    capabilities = ProviderCapabilities(structured_output=True, streaming=True)

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        if request.structured_output is not None:
            raise RequestRejected("no schemas today", status=400)
        return GenerateResponse(text=ANSWER)


async def test_an_adapter_of_a_third_party_has_it() -> None:
    response = await call(Picky(), asking({**SCHEMA, "title": "whole"}))
    assert response.text == ANSWER
    assert [found.action for found in response.adjustments] == ["emulated"]
    streamed = join([piece async for piece in stream(Picky(), asking({**SCHEMA, "title": "streamed"}))])
    assert streamed.text == ANSWER
    assert [found.action for found in streamed.adjustments] == ["emulated"]


# What an answer ignores


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_reply_that_ignores_its_schema_is_reported_where_a_provider_is_called_alone(streamed: bool) -> None:
    vendor = Vendor(chat("I would say yes."))
    vendor_takes_schemas = {"profile": {"structured": "json_schema"}}
    adapter = OpenAICompatibleProvider(
        name=f"ignoring-{streamed}", base_url="https://llm.example/v1", default_model="m",
        transport=Obedient(vendor).transport, **vendor_takes_schemas,
    )  # fmt: skip
    if streamed:
        response = join([piece async for piece in adapter.stream(asking())])
    else:
        response = await adapter.generate(asking())
    (adjustment,) = response.adjustments
    assert (adjustment.field, adjustment.action) == ("structured_output", "ignored")
    through_call = await call(adapter, asking())
    assert [found.action for found in through_call.adjustments] == ["ignored"]


class Obedient(Vendor):
    """A vendor that refuses nothing."""

    def __init__(self, vendor: Vendor) -> None:
        super().__init__(vendor.answer)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        body.pop("response_format", None)
        return super().__call__(httpx.Request("POST", request.url, json=body))


@pytest.mark.parametrize(
    ("choice", "called", "reported"),
    [
        ("required", None, True),
        ("required", "look_up", False),
        ("look_up", "add", True),
        ("look_up", "look_up", False),
        ("none", "look_up", True),
        ("none", None, False),
        ("auto", None, False),
    ],
)
async def test_a_reply_that_ignores_the_choice_of_a_tool_is_reported(
    choice: str, called: str | None, reported: bool
) -> None:
    calls = (
        None if called is None else [{"id": "1", "type": "function", "function": {"name": called, "arguments": "{}"}}]
    )
    vendor = Vendor(chat("ok" if called is None else None, calls))
    request = GenerateRequest(prompt="x", tools=[Tool(name="look_up"), Tool(name="add")], tool_choice=choice)
    response = await provider(vendor, "tools").generate(request)
    found = [(adjustment.field, adjustment.action, adjustment.asked) for adjustment in response.adjustments]
    assert found == ([("tool_choice", "ignored", choice)] if reported else [])


# Restored answers

OPTIONAL = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}


def openai(vendor: Vendor) -> OpenAIProvider:
    return OpenAIProvider(
        api_key="k", base_url="https://x.example/v1", default_model="gpt-4o", transport=Obedient(vendor).transport
    )


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_value_is_restored_beside_the_text_as_the_model_wrote_it(streamed: bool) -> None:
    adapter = openai(Vendor(chat('{"a": "x", "b": null}')))
    request = asking(OPTIONAL)
    if streamed:
        response = join([piece async for piece in stream(adapter, request)])
    else:
        response = await call(adapter, request)
    assert response.structured == {"a": "x"}
    assert response.text == '{"a": "x", "b": null}'
    assert [found.action for found in response.adjustments] == ["projected"]


async def test_the_arguments_of_strict_tools_are_projected_and_restored() -> None:
    function = {"name": "f", "arguments": '{"a": "x", "b": null}'}
    vendor = Vendor(chat(None, [{"id": "1", "type": "function", "function": function}]))
    adapter = OpenAIProvider(
        api_key="k", base_url="https://x.example/v1", default_model="gpt-4o", transport=vendor.transport
    )
    tools = [Tool(name="f", parameters=OPTIONAL, strict=True), Tool(name="g", parameters=OPTIONAL)]
    response = await call(adapter, GenerateRequest(messages=[Message("user", "x")], tools=tools))
    sent = [tool["function"] for tool in vendor.bodies[0]["tools"]]
    assert sent[0]["parameters"]["required"] == ["a", "b"]
    assert sent[0]["parameters"]["additionalProperties"] is False
    assert sent[1]["parameters"] == OPTIONAL
    assert response.tool_calls[0].arguments == '{"a": "x"}'
    assert [(found.field, found.action, found.asked) for found in response.adjustments] == [("tools", "projected", "f")]


async def test_the_arguments_of_a_streamed_call_are_restored_when_they_are_complete() -> None:
    first = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "x", '}}
    second = {"index": 0, "function": {"arguments": '"b": null}'}}
    events = [
        {"choices": [{"index": 0, "delta": {"tool_calls": [first]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [second]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=body)

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    adapter = OpenAIProvider(
        api_key="k", base_url="https://x.example/v1", default_model="gpt-4o", transport=HttpxTransport(client)
    )
    request = GenerateRequest(prompt="x", tools=[Tool(name="f", parameters=OPTIONAL, strict=True)])
    response = join([piece async for piece in stream(adapter, request)])
    assert response.tool_calls[0].arguments == '{"a": "x"}'


async def test_a_tool_that_cannot_be_strict_is_offered_loosely_and_reported() -> None:
    vendor = Vendor(claude("ok"))
    adapter = AnthropicProvider(
        api_key="k", base_url="https://x.example", default_model="claude-sonnet-5-5", transport=vendor.transport
    )
    anything = {"type": "object", "properties": {"a": {}}}
    bounded = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}
    tools = [Tool(name="f", parameters=anything, strict=True), Tool(name="g", parameters=bounded, strict=True)]
    response = await call(adapter, GenerateRequest(prompt="x", tools=tools))
    first, second = vendor.bodies[0]["tools"]
    assert (first["strict"], first["input_schema"]) == (False, anything)
    assert second["strict"] is True
    assert second["input_schema"] == {
        "type": "object", "properties": {"n": {"type": "integer"}}, "required": [], "additionalProperties": False,
    }  # fmt: skip
    assert [(found.asked, found.action) for found in response.adjustments] == [("f", "lowered"), ("g", "projected")]
