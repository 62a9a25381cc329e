"""AI21 over a real socket."""

import pytest

from llm_council import get_provider
from llm_council.errors import AuthenticationFailed, CapabilityMissing, MissingCredentials, RequestRejected
from llm_council.models import (
    GenerateResponse,
    ImagePart,
    Message,
    ReasoningConfig,
    StructuredOutput,
    Tool,
    ToolCall,
    Usage,
    join,
)
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.testing._mirrors.openai_chat import DONE, encode_chunks, encode_response, frame

pytestmark = pytest.mark.anyio

ANSWER = GenerateResponse(text="42", finish_reason="stop", usage=Usage(input_tokens=5, output_tokens=2), request_id="r")


def server(answer=ANSWER):
    def script(exchange):
        if exchange.path != "/v1/chat/completions":
            exchange.say({"detail": "Not Found"}, 404)
        elif exchange.body.get("stream"):
            exchange.begin_stream()
            for event in encode_chunks(answer, size=1):
                exchange.send(frame(event))
            exchange.send(DONE)
            exchange.wfile.write(b"0\r\n\r\n")
        else:
            exchange.say(encode_response(answer))

    return script


@pytest.fixture
def ai21(vendor, monkeypatch):
    monkeypatch.delenv("AI21_API_KEY", raising=False)
    monkeypatch.delenv("AI21_BASE_URL", raising=False)
    vendor.script = server()
    return lambda **options: get_provider("ai21", base_url=vendor.url, **{"api_key": "ai21-key-0123456789", **options})


def test_where_it_is(ai21):
    provider = get_provider("ai21")
    assert (provider.base_url, provider.default_model) == ("https://api.ai21.com/studio/v1", "jamba-large")
    with pytest.raises(MissingCredentials, match="AI21_API_KEY"):
        provider.check()


async def test_an_answer_and_its_stream_are_the_same(ai21, vendor, ask):
    async with ai21() as provider:
        whole = await call(provider, ask)
        chunks = [chunk async for chunk in stream(provider, ask)]
    joined = join(chunks)
    for fact in ("text", "usage", "finish_reason", "request_id"):
        assert getattr(joined, fact) == getattr(whole, fact) == getattr(ANSWER, fact)
    assert whole.model == joined.model == "jamba-large"
    first, second = vendor.seen
    assert first.body == {
        "model": "jamba-large",
        "messages": [{"role": "user", "content": ask.prompt}],
        "stream": False,
    }
    assert second.body == {**first.body, "stream": True}  # stream_options is no word of AI21's
    assert vendor.headers["Authorization"] == "Bearer ai21-key-0123456789"


async def test_what_it_does_not_take_is_told(ai21, vendor):
    request = GenerateRequest(
        prompt="x",
        structured_output=StructuredOutput(json_schema={"type": "integer"}),
        tools=[Tool(name="add", strict=True)],
        tool_choice="required",
        reasoning=ReasoningConfig(effort="high"),
        temperature=3.0,
        prompt_cache=True,
    )
    async with ai21() as provider:
        response = await call(provider, request)
        image = GenerateRequest(messages=[Message("user", [ImagePart(data="iVBORw0KGgo=", media_type="image/png")])])
        with pytest.raises(CapabilityMissing, match="no images"):
            await call(provider, image)
    assert vendor.body["response_format"] == {"type": "json_object"}
    assert "JSON Schema" in vendor.body["messages"][0]["content"]
    assert vendor.body["temperature"] == 2.0
    assert vendor.body.keys() == {"model", "messages", "temperature", "tools", "response_format", "stream"}
    fields = ["reasoning", "temperature", "tool_choice", "structured_output", "prompt_cache"]
    assert [one.field for one in response.adjustments][:5] == fields


async def test_tools_are_offered_and_answered(ai21, vendor):
    tool_call = ToolCall(id="call_7", name="add", arguments={"a": 2})
    vendor.script = server(GenerateResponse(tool_calls=[tool_call], finish_reason="tool_calls"))
    async with ai21() as provider:
        turns = [Message("user", "2+3?")]
        asked = await call(provider, GenerateRequest(messages=turns, tools=[Tool(name="add")]))
        assert asked.tool_calls == (tool_call,)
        turns += [asked.to_message(), Message("tool", "5", tool_call_id="call_7")]
        await call(provider, GenerateRequest(messages=turns, tools=[Tool(name="add")]))
    function = {"name": "add", "arguments": '{"a": 2}'}
    calls = [{"id": "call_7", "type": "function", "function": function}]
    assert vendor.body["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_7", "content": "5"},
    ]


async def test_a_refusal_names_the_field(ai21, vendor, ask):
    detail = [{"loc": ["body", "messages"], "msg": "field required", "type": "value_error.missing"}]
    vendor.script = lambda exchange: exchange.say({"detail": detail}, 422)
    async with ai21() as provider:
        with pytest.raises(RequestRejected, match=r"body.messages: field required"):
            await call(provider, ask)


async def test_the_doctor_asks_for_one_token(ai21, vendor):
    async with ai21() as provider:
        result = await examine(provider)
        assert (result.ok, result.details["models"]) == (True, ["jamba-large"])
        assert vendor.body["max_tokens"] == 1
        assert (await examine(provider, deep=True)).ok
        vendor.script = lambda exchange: exchange.say({"detail": "Forbidden: Bad or missing API token."}, 401)
        result = await examine(provider)
        assert (result.ok, "Bad or missing API token" in result.message) == (False, True)
        with pytest.raises(AuthenticationFailed):
            await call(provider, GenerateRequest(prompt="x"))
    assert not (await examine(get_provider("ai21"))).ok
