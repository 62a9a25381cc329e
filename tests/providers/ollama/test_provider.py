"""The Ollama provider over a real socket: payloads, answers, errors, doctor."""

import pytest

from llm_council import get_provider
from llm_council.errors import CapabilityMissing, InvalidOption, ModelNotFound, ServerFailed, TruncatedReply
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
from llm_council.testing._mirrors.ollama import encode_chunks, encode_error, encode_response, frame

pytestmark = pytest.mark.anyio

ANSWER = GenerateResponse(
    text="42",
    reasoning="six times seven",
    model="qwen3:4b",
    finish_reason="stop",
    usage=Usage(input_tokens=5, output_tokens=2),
    extra={"total_duration": 7},
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)


def server(answer=ANSWER, models=("qwen3:4b", "llama3.2:latest")):
    """Return a script of an Ollama with these models that gives this answer, whole or streamed."""

    def script(exchange):
        if exchange.path == "/api/version":
            exchange.say({"version": "0.21.0"})
        elif exchange.path == "/api/tags":
            exchange.say({"models": [{"name": name, "model": name, "size": 1} for name in models]})
        elif exchange.path != "/api/chat":
            exchange.say({"error": "page not found"}, 404)
        elif exchange.body["stream"]:
            exchange.begin_stream()
            for event in encode_chunks(answer, size=1):
                exchange.send(frame(event))
            exchange.wfile.write(b"0\r\n\r\n")
        else:
            exchange.say(encode_response(answer))

    return script


@pytest.fixture
def ollama(vendor):
    vendor.script = server()
    return lambda **options: get_provider("ollama", base_url=vendor.url, **options)


def test_default_address_and_suffixes_that_are_removed(monkeypatch):
    provider = get_provider("ollama")
    provider.check()  # no key is needed
    assert provider.base_url == "http://localhost:11434"
    for address in ("https://gpu.example.com", "https://gpu.example.com/v1/", "https://gpu.example.com/api"):
        monkeypatch.setenv("OLLAMA_BASE_URL", address)
        assert get_provider("ollama").base_url == "https://gpu.example.com"


async def test_the_first_listed_model_is_the_default(ollama, vendor, ask):
    async with ollama() as provider:
        for _ in range(2):
            response = await call(provider, ask)
            assert (response.text, response.reasoning, response.usage.total_tokens) == ("42", "six times seven", 7)
            assert response.extra == {"total_duration": 7}
            assert vendor.body["model"] == "qwen3:4b"
            assert vendor.body["stream"] is False
    assert [exchange.path for exchange in vendor.seen] == ["/api/tags", "/api/chat", "/api/chat"]
    assert vendor.headers["Authorization"] is None


async def test_a_stream_equals_the_whole_answer(ollama, vendor, ask):
    async with ollama(default_model="llama3.2") as provider:
        chunks = [chunk async for chunk in stream(provider, ask)]
        whole = await call(provider, ask)
    assert "".join(chunk.text for chunk in chunks) == "42"
    joined = join(chunks)
    assert (joined.text, joined.reasoning, joined.usage) == (whole.text, whole.reasoning, whole.usage)
    assert vendor.seen[0].body["stream"] is True
    assert {exchange.path for exchange in vendor.seen} == {"/api/chat"}


async def test_a_key_in_the_environment_is_sent(ollama, vendor, monkeypatch, ask):
    monkeypatch.setenv("OLLAMA_API_KEY", "cloud-key-123456")
    async with ollama(default_model="gpt-oss:120b") as provider:
        await call(provider, ask)
    assert vendor.headers["Authorization"] == "Bearer cloud-key-123456"


async def test_extra_body_is_merged_into_every_request(ollama, vendor):
    request = GenerateRequest(prompt="x", model="m", max_tokens=9, extra={"options": {"seed": 7}, "keep_alive": 0})
    async with ollama(extra_body={"options": {"num_ctx": 8192}, "keep_alive": "5m"}) as provider:
        await call(provider, request)
    assert vendor.body["options"] == {"num_ctx": 8192, "num_predict": 9, "seed": 7}
    assert vendor.body["keep_alive"] == 0


@pytest.mark.parametrize(
    ("model", "effort", "sent", "adjusted"),
    [
        ("qwen3", "high", True, True),
        ("qwen3", "medium", True, False),
        ("qwen3", "none", False, False),
        ("gpt-oss:20b", "high", "high", False),
        ("gpt-oss:20b", "minimal", "low", True),
        ("gpt-oss", "none", None, True),
    ],
)
async def test_reasoning_is_fitted_to_the_model(ollama, vendor, model, effort, sent, adjusted):
    request = GenerateRequest(prompt="x", model=model, reasoning=ReasoningConfig(effort=effort))
    async with ollama() as provider:
        response = await call(provider, request)
    assert vendor.body.get("think") == sent
    assert {change.field for change in response.adjustments} == ({"reasoning"} if adjusted else set())


async def test_a_schema_is_sent_as_format(ollama, vendor):
    schema = {"type": "integer"}
    request = GenerateRequest(prompt="x", model="m", structured_output=StructuredOutput(json_schema=schema))
    async with ollama() as provider:
        response = await call(provider, request)
    assert vendor.body["format"] == schema
    assert response.adjustments == ()


async def test_tool_calls_and_results_are_sent_back(ollama, vendor):
    tool_call = GenerateResponse(text="", tool_calls=[ToolCall(id="call_7", name="add", arguments={"a": 2})], model="m")
    vendor.script = server(tool_call)
    add = Tool(name="add")
    async with ollama(default_model="m") as provider:
        turns = [Message("user", "2+3?")]
        asked = await call(provider, GenerateRequest(messages=turns, tools=[add], tool_choice="add"))
        assert asked.finish_reason == "tool_calls"
        assert {change.field for change in asked.adjustments} == {"tool_choice"}
        turns += [asked.to_message(), Message("tool", "5", tool_call_id=asked.tool_calls[0].id)]
        await call(provider, GenerateRequest(messages=turns, tools=[add]))
    assert vendor.body["messages"][1]["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 2}}}]
    assert vendor.body["messages"][2] == {"role": "tool", "content": "5", "tool_name": "add"}


async def test_an_image_url_raises_before_anything_is_sent(ollama, vendor):
    image = Message("user", [ImagePart(url="https://example.com/a.png")])
    async with ollama(default_model="m") as provider:
        with pytest.raises(CapabilityMissing, match="as data only"):
            await call(provider, GenerateRequest(messages=[image]))
    assert vendor.seen == []


async def test_an_unknown_model_raises_model_not_found(ollama, vendor, ask):
    vendor.script = lambda exchange: exchange.say(encode_error("model 'm' not found"), 404)
    async with ollama(default_model="m") as provider:
        with pytest.raises(ModelNotFound, match="model 'm' not found") as caught:
            await call(provider, ask)
        assert not caught.value.retryable
        with pytest.raises(ModelNotFound):
            [chunk async for chunk in stream(provider, ask)]


@pytest.mark.parametrize(("last", "error"), [(encode_error("unexpected EOF"), ServerFailed), (None, TruncatedReply)])
async def test_a_failed_or_cut_stream_raises_with_the_partial_text(ollama, vendor, ask, last, error):
    def script(exchange):
        exchange.begin_stream()
        exchange.send(frame({"model": "m", "message": {"role": "assistant", "content": "Hel"}, "done": False}))
        if last is not None:
            exchange.send(frame(last))
        exchange.wfile.write(b"0\r\n\r\n")

    vendor.script = script
    async with ollama(default_model="m") as provider:
        with pytest.raises(error) as caught:
            [chunk async for chunk in stream(provider, ask)]
    assert caught.value.partial == "Hel"


async def test_doctor_reports_version_and_models(ollama, vendor):
    for model in (None, "llama3.2", "qwen3:4b"):
        async with ollama(default_model=model) as provider:
            result = await examine(provider)
            assert result.ok, result.message
            assert result.details["models"] == ["qwen3:4b", "llama3.2:latest"]
            assert result.details["version"] == "0.21.0"
    async with ollama(default_model="qwen3") as provider:
        result = await examine(provider)
        assert (result.ok, "no model 'qwen3'" in result.message) == (False, True)
    async with ollama() as provider:
        assert (await examine(provider, deep=True)).ok
    assert vendor.seen[-1].path == "/api/chat"


async def test_doctor_fails_without_a_model_or_a_server(ollama, vendor, ask):
    vendor.script = server(models=())
    async with ollama() as provider:
        result = await examine(provider)
        assert (result.ok, "has no model" in result.message) == (False, True)
        with pytest.raises(InvalidOption, match="has no default model"):
            await call(provider, ask)
    async with get_provider("ollama", base_url="http://127.0.0.1:1") as provider:
        assert not (await examine(provider)).ok
