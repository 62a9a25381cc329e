"""The Cohere provider over a real socket: payloads, answers, errors, doctor."""

import pytest

from llm_council import get_provider
from llm_council.errors import (
    AuthenticationFailed,
    CapabilityMissing,
    ContentFiltered,
    ContextTooLong,
    MissingCredentials,
    ModelNotFound,
    OutOfCredit,
    RateLimited,
    TruncatedReply,
)
from llm_council.models import (
    GenerateResponse,
    ImagePart,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    Tool,
    ToolCall,
    Usage,
    join,
)
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.testing._mirrors.cohere import DONE, encode_error, encode_events, encode_response, frame

pytestmark = pytest.mark.anyio

KEY = "cohere-key-0123456789"
ANSWER = GenerateResponse(
    text="42",
    reasoning="six times seven",
    reasoning_parts=[ReasoningPart(text="six times seven", vendor="cohere")],
    finish_reason="stop",
    usage=Usage(input_tokens=9, output_tokens=4, cached_tokens=2),
    request_id="r-1",
    extra={"billed_units": {"input_tokens": 5.0}},
)
SCHEMA = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


def server(answer=ANSWER):
    def script(exchange):
        if exchange.path.startswith("/v1/models"):
            exchange.say({"models": [{"name": "command-a-03-2025", "endpoints": ["chat"]}, {"name": None}]})
        elif exchange.path != "/v2/chat":
            exchange.say({"message": "page not found"}, 404)
        elif exchange.body.get("stream"):
            exchange.begin_stream()
            for event in encode_events(answer, size=1):
                exchange.send(frame(event))
            exchange.send(DONE)
            exchange.wfile.write(b"0\r\n\r\n")
        else:
            exchange.say(encode_response(answer))

    return script


@pytest.fixture
def cohere(vendor, monkeypatch):
    for name in ("COHERE_API_KEY", "CO_API_KEY", "COHERE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    vendor.script = server()
    root = vendor.url.removesuffix("/v1")
    return lambda **options: get_provider("cohere", **{"base_url": root, "api_key": KEY, **options})


def test_default_address_model_and_the_two_key_variables(cohere, monkeypatch):
    with pytest.raises(MissingCredentials, match="COHERE_API_KEY"):
        cohere(api_key=None).check()
    monkeypatch.setenv("CO_API_KEY", "the-vendors-own-0123456789")
    assert cohere(api_key=None).headers()["Authorization"] == "Bearer the-vendors-own-0123456789"
    monkeypatch.setenv("COHERE_API_KEY", KEY)
    provider = get_provider("cohere")
    provider.check()
    assert (provider.base_url, provider.default_model) == ("https://api.cohere.com", "command-a-03-2025")
    assert provider.headers()["Authorization"] == f"Bearer {KEY}"


async def test_a_stream_equals_the_whole_answer(cohere, vendor, ask):
    async with cohere() as provider:
        whole = await call(provider, ask)
        chunks = [chunk async for chunk in stream(provider, ask)]
    assert (whole.text, whole.reasoning, whole.request_id, whole.extra) == (
        "42",
        "six times seven",
        "r-1",
        ANSWER.extra,
    )
    assert (whole.usage, whole.model) == (ANSWER.usage, "command-a-03-2025")
    assert "".join(chunk.text for chunk in chunks) == "42"
    joined = join(chunks)
    for fact in ("text", "reasoning", "reasoning_parts", "usage", "finish_reason", "request_id", "extra", "model"):
        assert getattr(joined, fact) == getattr(whole, fact)
    first, second = vendor.seen
    assert first.body == {"model": "command-a-03-2025", "messages": [{"role": "user", "content": ask.prompt}]}
    assert second.body == {**first.body, "stream": True}
    assert vendor.headers["Authorization"] == f"Bearer {KEY}"


async def test_fields_are_renamed_and_limited_to_the_apis_ranges(cohere, vendor):
    request = GenerateRequest(
        messages=[Message("user", "x"), Message("developer", "Be terse."), Message("system", "In French.")],
        max_tokens=7,
        temperature=1.5,
        top_p=1.0,
        stop=list("abcdef"),
        extra={"k": 3},
    )
    async with cohere() as provider:
        response = await call(provider, request)
    assert vendor.body == {
        "model": "command-a-03-2025",
        "messages": [{"role": "system", "content": "Be terse.\n\nIn French."}, {"role": "user", "content": "x"}],
        "max_tokens": 7,
        "temperature": 1.0,
        "p": 0.99,
        "stop_sequences": list("abcde"),
        "k": 3,
    }
    assert {one.field for one in response.adjustments} == {"temperature", "top_p", "stop", "messages"}


@pytest.mark.parametrize(
    ("model", "asked", "sent", "adjusted"),
    [
        ("command-a-reasoning-08-2025", {"effort": "high"}, {"type": "enabled"}, True),
        ("command-a-reasoning-08-2025", {"effort": "none"}, {"type": "disabled"}, False),
        ("command-a-reasoning-08-2025", {"budget_tokens": 99}, {"type": "enabled", "token_budget": 99}, False),
        ("command-a-03-2025", {"effort": "high"}, None, True),
    ],
)
async def test_reasoning_is_fitted_to_the_model_family(cohere, vendor, model, asked, sent, adjusted):
    async with cohere(default_model=model) as provider:
        response = await call(provider, GenerateRequest(prompt="x", reasoning=ReasoningConfig(**asked)))
    assert vendor.body.get("thinking") == sent
    assert {one.field for one in response.adjustments} == ({"reasoning"} if adjusted else set())


async def test_a_schema_is_sent_as_response_format_and_beside_tools_in_words(cohere, vendor):
    async with cohere() as provider:
        response = await call(provider, GenerateRequest(prompt="x", structured_output=SCHEMA))
        assert vendor.body["response_format"] == {"type": "json_object", "json_schema": SCHEMA.json_schema}
        assert [one.action for one in response.adjustments] == ["ignored"]  # the answer is no JSON
        asked = GenerateRequest(prompt="x", structured_output=SCHEMA, tools=[Tool(name="add")])
        response = await call(provider, asked)
    assert "response_format" not in vendor.body
    assert "JSON Schema" in vendor.body["messages"][0]["content"]
    asked_for, missed = [one for one in response.adjustments if one.field == "structured_output"]
    assert (asked_for.action, missed.action) == ("emulated", "emulated")
    assert missed.reason.startswith("the answer does not meet it: ")


async def test_the_tool_plan_is_sent_back_with_the_calls(cohere, vendor):
    plan = ReasoningPart(vendor="cohere", data={"tool_plan": "I will add."})
    wished = ToolCall(id="add_7", name="add", arguments={"a": 2})
    vendor.script = server(
        GenerateResponse(
            reasoning_parts=[plan], tool_calls=[wished], finish_reason="tool_calls", extra={"tool_plan": "I will add."}
        )
    )
    add, other = Tool(name="add"), Tool(name="other")
    async with cohere() as provider:
        turns = [Message("user", "2+3?")]
        request = GenerateRequest(messages=turns, tools=[add, other], tool_choice="add")
        asked = await call(provider, request)
        assert vendor.body["tool_choice"] == "REQUIRED"
        assert [tool["function"]["name"] for tool in vendor.body["tools"]] == ["add"]
        streamed = join([chunk async for chunk in stream(provider, request)])
        assert (streamed.tool_calls, streamed.extra) == (asked.tool_calls, asked.extra)
        assert asked.finish_reason == "tool_calls"
        turns += [asked.to_message(), Message("tool", "5", tool_call_id=asked.tool_calls[0].id)]
        await call(provider, GenerateRequest(messages=turns, tools=[add], tool_choice="auto"))
    assert "tool_choice" not in vendor.body
    function = {"name": "add", "arguments": '{"a": 2}'}
    assert vendor.body["messages"][1:] == [
        {
            "role": "assistant",
            "tool_plan": "I will add.",
            "tool_calls": [{"id": "add_7", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "add_7", "content": "5"},
    ]


async def test_images_are_sent_to_vision_models_only(cohere, vendor):
    turn = Message("user", [ImagePart(data="iVBORw0KGgo=", media_type="image/png", detail="low")])
    async with cohere() as provider:
        await call(provider, GenerateRequest(messages=[turn], model="command-a-vision-07-2025"))
        image = {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}
        assert vendor.body["messages"][0]["content"] == [{"type": "image_url", "image_url": image}]
        with pytest.raises(CapabilityMissing, match="no images"):
            await call(provider, GenerateRequest(messages=[turn]))
    assert len(vendor.seen) == 1


@pytest.mark.parametrize(
    ("status", "words", "cls", "retryable"),
    [
        (401, "invalid api token", AuthenticationFailed, False),
        (402, "please add or update your payment method", OutOfCredit, False),
        (404, "model 'x' not found, make sure the correct model ID was used", ModelNotFound, False),
        (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081", ContextTooLong, False),
        (429, "You are using a Trial key", RateLimited, True),
        (498, "blocked output: consider revising your prompt", ContentFiltered, False),
    ],
)
async def test_refused_requests_raise_the_class_of_their_error(cohere, vendor, ask, status, words, cls, retryable):
    vendor.script = lambda exchange: exchange.say(encode_error(words, request_id="r-9"), status, Retry_After="3")
    async with cohere() as provider:
        for ask_by in (call, lambda *both: anext(aiter(stream(*both)))):
            with pytest.raises(cls, match=words[:20]) as caught:
                await ask_by(provider, ask)
            error = caught.value
            assert (type(error), error.retryable, error.request_id, error.provider) == (cls, retryable, "r-9", "cohere")
            assert error.retry_after == (None if status == 498 else 3.0)


async def test_the_rate_limit_header_gives_the_delay(cohere, vendor, ask, monkeypatch):
    monkeypatch.setattr("llm_council.providers.cohere.time.time", lambda: 1_000_000.0)
    vendor.script = lambda exchange: exchange.say(encode_error("slow down"), 429, X_RateLimit_Reset="1000012")
    async with cohere() as provider:
        with pytest.raises(RateLimited) as caught:
            await call(provider, ask)
    assert caught.value.retry_after == 12.0


async def test_a_failed_or_cut_answer_raises_with_the_partial_text(cohere, vendor, ask):
    failed = GenerateResponse(text="Hel", finish_reason="error", raw_finish_reason="ERROR", extra={"error": "no way"})
    vendor.script = server(failed)
    async with cohere() as provider:
        for ask_by in (call, lambda *both: drain(stream(*both))):
            with pytest.raises(TruncatedReply, match="no way") as caught:
                await ask_by(provider, ask)
            assert caught.value.partial == "Hel"

        def script(exchange):
            exchange.begin_stream()
            for event in list(encode_events(ANSWER))[:-2]:
                exchange.send(frame(event))
            exchange.wfile.write(b"0\r\n\r\n")

        vendor.script = script
        with pytest.raises(TruncatedReply) as caught:
            await drain(stream(provider, ask))
        assert caught.value.partial == "42"


async def drain(chunks):
    return [chunk async for chunk in chunks]


async def test_doctor_lists_models_and_with_deep_makes_a_call(cohere, vendor):
    async with cohere() as provider:
        result = await examine(provider)
        assert (result.ok, result.details["models"]) == (True, ["command-a-03-2025"])
        assert [exchange.path for exchange in vendor.seen] == ["/v1/models?endpoint=chat&page_size=1000"]
        assert (await examine(provider, deep=True)).ok
        assert vendor.seen[-1].path == "/v2/chat"
        vendor.script = lambda exchange: exchange.say(encode_error("invalid api token"), 401)
        result = await examine(provider)
        assert (result.ok, "invalid api token" in result.message) == (False, True)
