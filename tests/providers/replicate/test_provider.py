"""The Replicate provider over a real socket: predictions are created once, polled, streamed, and cancelled."""

import threading
from contextlib import aclosing

import anyio
import attrs
import pytest

from llm_council import get_provider
from llm_council.errors import (
    AuthenticationFailed,
    CapabilityMissing,
    ConnectionLost,
    InvalidOption,
    MissingCredentials,
    OutOfCredit,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
    TruncatedReply,
)
from llm_council.middleware.retry import Retry
from llm_council.models import (
    GenerateResponse,
    ImagePart,
    Message,
    ReasoningConfig,
    RetryPolicy,
    StructuredOutput,
    Tool,
    Usage,
    join,
)
from llm_council.providers._replicate import predictions
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.testing._mirrors.replicate import encode_error, encode_events, encode_response, frame

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KEY = "r8_house0123456789abcdef"
MODEL = "meta/llama"
PROPERTIES = {
    "prompt": {"type": "string"},
    "system_prompt": {"type": "string"},
    "max_new_tokens": {"type": "integer"},
    "temperature": {"type": "number"},
    "stop_sequences": {"type": "string"},
    "image": {"type": "string"},
    "reasoning_effort": {"type": "string", "enum": ["low", "high"]},
}
ANSWER = GenerateResponse(
    text=" 4\n\n2", model=MODEL, request_id="p-1", usage=Usage(input_tokens=5, output_tokens=2), extra={"version": "v"}
)


class Replicate:
    """A fake Replicate. Each poll of a prediction takes the next of ``polls``: a status, or a script that answers."""

    def __init__(self, vendor, *, polls=("processing", "succeeded"), properties=PROPERTIES, answer=ANSWER):
        self.vendor, self.answer, self.properties = vendor, answer, properties
        self.polls = list(polls)
        self.created = 0
        self.cancelled = threading.Event()
        self.at_create = self.at_cancel = self.at_stream = None
        self.error = None
        self.streams = True
        self.root = vendor.url.removesuffix("/v1")

    def prediction(self, status):
        url = f"{self.root.replace('127.0.0.1', 'localhost')}/v1/streams/abc" if self.streams else None
        return encode_response(self.answer, status=status, error=self.error, stream_url=url)

    def __call__(self, exchange):
        path, method = exchange.path, exchange.command
        if path == "/v1/account":
            exchange.say({"type": "user", "username": "house"})
        elif method == "GET" and path.startswith("/v1/models/"):
            if self.properties is None:
                exchange.say(encode_error("no such model", status=404), 404)
            else:
                parts = {"Input": {"properties": self.properties}}
                exchange.say({"latest_version": {"openapi_schema": {"components": {"schemas": parts}}}})
        elif path.endswith("/cancel"):
            self.cancelled.set()
            (self.at_cancel or (lambda found: found.say(self.prediction("canceled"))))(exchange)
        elif method == "POST" and path.endswith("/predictions"):
            self.created += 1
            (self.at_create or (lambda found: found.say(self.prediction("starting"), 201)))(exchange)
        elif path.startswith("/v1/streams/"):
            (self.at_stream or self.whole_stream)(exchange)
        else:
            poll = self.polls.pop(0) if len(self.polls) > 1 else self.polls[0]
            if callable(poll):
                poll(exchange)
            else:
                exchange.say(self.prediction(poll))

    def whole_stream(self, exchange):
        exchange.begin_stream()
        exchange.send(b": hi\n\n")
        for event in encode_events(self.answer, size=2):
            exchange.send(frame(event))
        exchange.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def server(vendor, monkeypatch):
    monkeypatch.delenv("REPLICATE_API_BASE_URL", raising=False)
    monkeypatch.setenv("REPLICATE_API_TOKEN", KEY)
    monkeypatch.setattr(predictions, "_CANCEL_TIMEOUT", 10.0)  # more time for a busy machine
    vendor.script = Replicate(vendor)
    return vendor.script


@pytest.fixture
def replicate(vendor, server):
    return lambda **options: get_provider(
        "replicate", **{"base_url": vendor.url, "default_model": MODEL, "poll": 0.01, **options}
    )


def hang_up(exchange):
    exchange.close_connection = True


def paths(vendor):
    return [(exchange.command, exchange.path) for exchange in vendor.seen]


async def was_set(event):
    """Wait until the server has set an event."""
    return await anyio.to_thread.run_sync(event.wait, 10)


def test_default_address_and_missing_key(monkeypatch):
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    monkeypatch.delenv("REPLICATE_API_BASE_URL", raising=False)
    provider = get_provider("replicate")
    assert provider.base_url == "https://api.replicate.com"
    assert provider.default_model.count("/") == 1
    with pytest.raises(MissingCredentials, match="REPLICATE_API_TOKEN"):
        provider.check()


async def test_a_prediction_is_created_once_and_polled_until_it_ends(replicate, vendor, server, ask):
    async with replicate() as provider:
        for _ in range(2):
            server.polls = ["starting", "processing", "succeeded"]
            response = await call(provider, ask)
            assert (response.text, response.finish_reason, response.usage) == (ANSWER.text, "stop", ANSWER.usage)
            assert (response.model, response.request_id, response.extra["version"]) == (MODEL, "p-1", "v")
    create = ("POST", "/v1/models/meta/llama/predictions")
    polls = [("GET", "/v1/predictions/p-1")] * 3
    schema = ("GET", "/v1/models/meta/llama")  # requested once
    assert paths(vendor) == [schema, create, *polls, create, *polls]
    asked = vendor.seen[1]
    assert asked.body == {"input": {"prompt": ask.prompt}}
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["Cancel-After"] == "600s"  # ends the prediction if nobody polls it
    assert not server.cancelled.is_set()


async def test_a_prediction_that_has_ended_at_once_is_not_polled(replicate, vendor, server, ask):
    server.at_create = lambda exchange: exchange.say(server.prediction("succeeded"), 201)
    async with replicate(inputs={}) as provider:
        assert (await call(provider, ask)).text == ANSWER.text
        assert join([chunk async for chunk in stream(provider, ask)]).text == ANSWER.text
    assert {path for _, path in paths(vendor)} == {"/v1/models/meta/llama/predictions"}


async def test_a_stream_yields_the_text_and_then_the_usage(replicate, vendor, server, ask):
    server.polls = ["succeeded"]
    async with replicate() as provider:
        chunks = [chunk async for chunk in stream(provider, ask)]
    joined = join(chunks)
    assert (joined.text, joined.finish_reason, joined.usage) == (ANSWER.text, "stop", ANSWER.usage)
    assert (joined.model, joined.request_id) == (MODEL, "p-1")
    _, created, streamed, polled = vendor.seen
    assert created.body["stream"] is True
    assert created.headers["Accept"] == "application/json"
    assert (streamed.path, streamed.headers["Accept"]) == ("/v1/streams/abc", "text/event-stream")
    assert streamed.headers["Authorization"] is None  # another host must not get the key
    assert polled.path == "/v1/predictions/p-1"
    assert not server.cancelled.is_set()


async def test_the_key_is_sent_to_a_stream_on_the_providers_own_host(replicate, vendor, server, ask):
    server.root = vendor.url.removesuffix("/v1").replace("127.0.0.1", "localhost")
    async with replicate(base_url=server.root) as provider:
        assert [chunk async for chunk in stream(provider, ask)]
    assert next(seen for seen in vendor.seen if "streams" in seen.path).headers["Authorization"] == f"Bearer {KEY}"


async def test_a_model_without_a_stream_is_polled(replicate, server, ask):
    server.streams = False
    async with replicate() as provider:
        (chunk,) = [chunk async for chunk in stream(provider, ask)]
    assert (chunk.text, chunk.usage) == (ANSWER.text, ANSWER.usage)


# Cancellation


async def test_a_cancelled_call_cancels_its_prediction(replicate, vendor, server, ask):
    polled = threading.Event()
    server.polls = [lambda exchange: (polled.set(), exchange.say(server.prediction("processing")))]
    async with replicate() as provider:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, provider, ask)
            assert await was_set(polled)
            tasks.cancel_scope.cancel()
        assert await was_set(server.cancelled)
    assert vendor.seen[-1].path == "/v1/predictions/p-1/cancel"
    assert vendor.seen[-1].command == "POST"
    assert vendor.seen[-1].headers["Authorization"] == f"Bearer {KEY}"
    assert server.created == 1


async def test_a_call_that_times_out_cancels_its_prediction(replicate, vendor, server):
    polled = threading.Event()
    server.polls = [lambda exchange: (polled.set(), exchange.say(server.prediction("processing")))]
    async with replicate(inputs={}) as provider:
        for seconds in (0.5, 2.0, 8.0):  # on a busy machine the time may be up before there is a prediction
            with pytest.raises(TimedOut):
                await call(provider, GenerateRequest(prompt="x", timeout_seconds=seconds))
            if polled.is_set():
                break
        assert await was_set(server.cancelled)
    assert vendor.seen[0].headers["Cancel-After"] == "5s"  # the smallest value that the API accepts


async def test_a_stream_that_is_closed_early_cancels_its_prediction(replicate, server, ask):
    left = threading.Event()

    def endless(exchange):
        exchange.begin_stream()
        exchange.send(frame(("output", "first")))
        left.wait(10)

    server.at_stream = endless
    async with replicate() as provider:
        async with aclosing(stream(provider, ask)) as chunks:
            async for chunk in chunks:
                assert chunk.text == "first"
                break
        assert await was_set(server.cancelled)
        left.set()


def ending_after(*pieces):
    def stream_of(exchange):
        exchange.begin_stream()
        for piece in pieces:
            exchange.send(frame(("output", piece)))
        exchange.wfile.write(b"0\r\n\r\n")

    return stream_of


@pytest.mark.parametrize(
    "at_stream",
    [
        ending_after(" 4", "\n"),
        ending_after(),
        lambda exchange: exchange.say(encode_error("gone", status=404), 404),
        hang_up,
    ],
)
async def test_a_broken_stream_is_completed_by_polling(replicate, server, ask, at_stream):
    server.at_stream = at_stream
    async with replicate() as provider:
        joined = join([chunk async for chunk in stream(provider, ask)])
    assert (joined.text, joined.finish_reason, joined.usage) == (ANSWER.text, "stop", ANSWER.usage)
    assert (server.created, server.cancelled.is_set()) == (1, False)


async def test_a_stream_at_an_invalid_url_is_replaced_by_polling(replicate, vendor, server, ask):
    server.root = "ftp://127.0.0.1"
    async with replicate() as provider:
        assert join([chunk async for chunk in stream(provider, ask)]).text == ANSWER.text
    assert not any("streams" in seen.path for seen in vendor.seen)


async def test_a_lost_stream_cancels_its_prediction_and_raises_with_the_partial_text(replicate, server, ask):
    server.at_stream = ending_after("first")
    server.polls = [lambda exchange: exchange.say(encode_error("no", status=400), 400)]
    async with replicate() as provider:
        with pytest.raises(RequestRejected) as caught:
            [chunk async for chunk in stream(provider, ask)]
        assert (caught.value.partial, server.cancelled.is_set()) == ("first", True)
        server.polls = ["succeeded"]  # with a text that does not begin with the streamed one
        with pytest.raises(TruncatedReply) as caught:
            [chunk async for chunk in stream(provider, ask)]
        assert caught.value.partial == "first"


async def test_a_prediction_that_failed_is_not_cancelled(replicate, server, ask):
    server.error = "E6716: Unexpected error"
    server.polls = ["failed"]
    body = frame(("output", "Hel")) + frame(("error", '{"detail": "E6716: Unexpected error"}'))

    def fail(exchange):
        exchange.begin_stream()
        exchange.send(body)
        exchange.wfile.write(b"0\r\n\r\n")

    server.at_stream = fail
    async with replicate() as provider:
        with pytest.raises(ServerFailed, match="E6716") as caught:
            await call(provider, ask)
        assert (caught.value.code, caught.value.retryable, caught.value.request_id) == ("E6716", True, "p-1")
        with pytest.raises(ServerFailed, match="E6716") as caught:
            [chunk async for chunk in stream(provider, ask)]
        assert (caught.value.partial, caught.value.retryable) == ("Hel", True)
    assert not server.cancelled.is_set()


# Retries: creating a prediction is never repeated blindly


@pytest.mark.parametrize(
    ("at_create", "cls", "retryable"),
    [
        (hang_up, ConnectionLost, False),
        (lambda exchange: exchange.say(b"<html>Bad Gateway</html>", 502, "text/html"), ServerFailed, False),
        (lambda exchange: exchange.say(encode_error("late", status=504), 504), ServerFailed, False),
        (lambda exchange: exchange.say({"id": "p-1"}, 201), Exception, False),
        (lambda exchange: exchange.say(encode_error("busy", status=503), 503), ServerFailed, True),
        (lambda exchange: exchange.say(encode_error("slow", status=429, retry_after=4), 429), RateLimited, True),
        (lambda exchange: exchange.say(encode_error("no credit", status=402), 402), OutOfCredit, False),
    ],
)
async def test_an_error_is_not_retryable_if_the_prediction_may_have_been_created(
    replicate, server, ask, at_create, cls, retryable
):
    server.at_create = at_create
    async with replicate(inputs={}) as provider:
        for ask_by in (call, lambda *both: anext(aiter(stream(*both)))):
            with pytest.raises(cls) as caught:
                await ask_by(provider, ask)
            assert caught.value.retryable is retryable
            assert caught.value.retry_after == (4.0 if cls is RateLimited else None)
    assert server.created == 2


async def test_a_council_does_not_retry_an_uncertain_creation(replicate, server, ask):
    server.at_create = hang_up
    async with Retry(replicate(inputs={}), RetryPolicy(max_retries=3)) as provider:
        with pytest.raises(ConnectionLost):
            await call(provider, ask)
    assert server.created == 1


async def test_a_failed_poll_is_repeated(replicate, server, ask):
    busy = [lambda exchange: exchange.say(encode_error("busy", status=503), 503), hang_up]
    server.polls = [*busy, "processing", *busy, "succeeded"]
    async with replicate() as provider:
        assert (await call(provider, ask)).text == ANSWER.text
    assert server.created == 1


async def test_repeated_failures_of_polls_end_the_call_and_cancel_the_prediction(replicate, server, ask):
    server.polls = [lambda exchange: exchange.say(encode_error("busy", status=503), 503)]
    async with replicate() as provider:
        with pytest.raises(ServerFailed, match="busy") as caught:
            await call(provider, ask)
        assert (caught.value.retryable, server.cancelled.is_set()) == (True, True)
        server.polls = [lambda exchange: exchange.say(encode_error("gone", status=404), 404)]
        server.at_cancel = hang_up
        with pytest.raises(Exception, match="gone") as caught:
            await call(provider, ask)
        assert caught.value.retryable is False
    assert server.created == 2


# Inputs of models


async def test_input_names_are_read_from_the_models_schema(replicate, vendor):
    request = GenerateRequest(
        messages=[Message("system", "Be terse."), Message("user", "Hi")],
        max_tokens=7,
        temperature=0.5,
        top_p=0.5,
        stop=["END", "STOP"],
        reasoning=ReasoningConfig(effort="high"),
        extra={"seed": 3},
    )
    async with replicate() as provider:
        response = await call(provider, request)
    asked = next(seen.body["input"] for seen in vendor.seen if seen.command == "POST")
    assert asked == {
        "prompt": "Hi",
        "system_prompt": "Be terse.",
        "max_new_tokens": 7,
        "temperature": 0.5,
        "stop_sequences": "END,STOP",
        "reasoning_effort": "high",
        "seed": 3,
    }
    assert [(one.field, one.action) for one in response.adjustments] == [("top_p", "dropped")]


async def test_fields_without_an_input_are_dropped_and_reported(replicate, vendor, server):
    server.properties = {"prompt": {"type": "string"}}
    request = GenerateRequest(
        messages=[Message("system", "Be terse."), Message("user", "Hi")],
        max_tokens=7,
        temperature=0.5,
        stop="END",
        reasoning=ReasoningConfig(budget_tokens=9),
        structured_output=StructuredOutput(json_schema={"type": "integer"}),
    )
    async with replicate() as provider:
        response = await call(provider, request)
    asked = next(seen.body["input"] for seen in vendor.seen if seen.command == "POST")
    assert asked.keys() == {"prompt"}
    assert asked["prompt"].startswith("Be terse.\n\nHi\n\nAnswer with one JSON value")
    fields = {one.field for one in response.adjustments}
    assert fields == {"max_tokens", "temperature", "stop", "reasoning", "structured_output"}


@pytest.mark.parametrize(
    ("asked", "inputs", "dropped"),
    [
        ({"stop": "a,b"}, {}, "stop"),
        ({"stop": "a,b"}, {"lists": ["stop_sequences"]}, None),
        ({"reasoning": {"effort": "max"}}, {"effort": "reasoning_effort", "efforts": ["low"]}, "reasoning"),
        ({"reasoning": {"effort": "max"}}, {"effort": "reasoning_effort"}, None),
        ({"reasoning": {"effort": "none"}}, {"budget": "thinking_budget"}, None),
        ({"reasoning": {"effort": "low"}}, {"budget": "thinking_budget"}, "reasoning"),
        ({"reasoning": {"budget_tokens": 9}}, {"budget": "thinking_budget"}, None),
    ],
)
async def test_the_input_names_can_be_set_by_the_caller(replicate, vendor, asked, inputs, dropped):
    if "reasoning" in asked:
        asked = {"reasoning": ReasoningConfig(**asked["reasoning"])}
    async with replicate(inputs=inputs) as provider:
        response = await call(provider, GenerateRequest(prompt="x", **asked))
    assert vendor.seen[0].command == "POST"  # the schema is not requested
    assert [one.field for one in response.adjustments] == ([dropped] if dropped else [])
    assert len(vendor.seen[0].body["input"]) == (1 if dropped else 2)


async def test_images_are_sent_to_models_with_an_input_for_them(replicate, vendor, server):
    pixel = ImagePart(data="iVBORw0KGgo=", media_type="image/png")
    request = GenerateRequest(messages=[Message("user", [pixel, ImagePart(url="https://example.com/b.png")])])
    async with replicate() as provider:
        response = await call(provider, request)
        asked = next(seen.body["input"] for seen in vendor.seen if seen.command == "POST")
        assert asked["image"] == "https://example.com/b.png"
        assert [one.reason for one in response.adjustments] == ["it takes one image"]
    async with replicate(inputs={"images": "images", "lists": ["images"]}) as provider:
        await call(provider, request)
        asked = [seen.body["input"] for seen in vendor.seen if seen.command == "POST"][-1]
        assert asked["images"] == ["data:image/png;base64,iVBORw0KGgo=", "https://example.com/b.png"]
    created = server.created
    async with replicate(inputs={}) as provider:
        with pytest.raises(CapabilityMissing, match="no input for images"):
            await call(provider, request)
    async with replicate(profile={"tools": False}) as provider:
        with pytest.raises(CapabilityMissing, match="takes no tools"):
            await call(provider, GenerateRequest(prompt="x", tools=[Tool(name="add")]))
    assert server.created == created


async def test_a_model_without_a_schema_gets_the_default_input_names(replicate, vendor, server):
    server.properties = None
    async with replicate() as provider:
        await call(provider, GenerateRequest(prompt="x", max_tokens=7))
        version = "0" * 64
        await call(provider, GenerateRequest(prompt="x", model=version))
        with pytest.raises(InvalidOption, match="owner/name"):
            await call(provider, GenerateRequest(prompt="x", model="llama"))
    posts = [(seen.path, seen.body) for seen in vendor.seen if seen.command == "POST"]
    assert posts == [
        ("/v1/models/meta/llama/predictions", {"input": {"prompt": "x", "max_tokens": 7}}),
        ("/v1/predictions", {"version": version, "input": {"prompt": "x"}}),
    ]


async def test_an_answer_that_reaches_max_tokens_has_the_finish_reason_length(replicate, server):
    server.polls = ["succeeded"]
    async with replicate() as provider:
        request = GenerateRequest(prompt="x", max_tokens=2)
        assert (await call(provider, request)).finish_reason == "length"
        assert join([chunk async for chunk in stream(provider, request)]).finish_reason == "length"


async def test_doctor_names_the_account_of_the_key(replicate, vendor):
    async with replicate() as provider:
        result = await examine(provider)
        assert (result.ok, result.details) == (True, {"account": "house"})
        assert paths(vendor) == [("GET", "/v1/account")]
        assert (await examine(provider, deep=True)).ok
        vendor.script = lambda exchange: exchange.say(
            encode_error("You did not pass a valid token", status=401, title="Unauthenticated"), 401
        )
        result = await examine(provider)
        assert (result.ok, "Unauthenticated: You did not pass" in result.message) == (False, True)
        with pytest.raises(AuthenticationFailed):
            await call(provider, GenerateRequest(prompt="x"))


LOOK = Tool(name="look", parameters={"type": "object", "properties": {"at": {"type": "string"}}})
CALLED = '{"tool_calls": [{"name": "look", "arguments": {"at": "Oslo"}}]}'


def break_off(exchange):
    exchange.begin_stream()
    exchange.send(frame(("output", f"I look.\n{CALLED[:20]}")))
    exchange.close_connection = True


async def streamed(provider, request):
    return join([chunk async for chunk in stream(provider, request)])


@pytest.mark.parametrize("way", ["whole", "streams", "polls", "breaks off"])
async def test_tools_are_described_in_the_prompt_and_calls_are_parsed_from_the_answer(replicate, vendor, server, way):
    server.streams = way != "polls"
    server.at_stream = break_off if way == "breaks off" else None
    ask = call if way == "whole" else streamed
    turns = [Message("user", "Where?")]
    async with replicate() as provider:
        server.polls = ["processing", "succeeded"] if way != "streams" else ["succeeded"]
        server.answer = attrs.evolve(ANSWER, text=f"I look.\n{CALLED}", content=None)
        found = await ask(provider, GenerateRequest(messages=turns, tools=[LOOK]))
        assert [(one.name, one.parse()) for one in found.tool_calls] == [("look", {"at": "Oslo"})]
        assert (found.text.strip(), found.finish_reason) == ("I look.", "tool_calls")
        assert [(one.field, one.action) for one in found.adjustments] == [("tools", "emulated")]
        turn = found.to_message()
        result = Message("tool", "Rain", tool_call_id=turn.tool_calls[0].id)
        server.polls, server.at_stream = ["succeeded"], None
        server.answer = attrs.evolve(ANSWER, text="It rains.", content=None)
        found = await ask(provider, GenerateRequest(messages=[*turns, turn, result], tools=[LOOK]))
        assert (found.text, found.tool_calls, found.finish_reason) == ("It rains.", (), "stop")
    first, second = (seen.body["input"] for seen in vendor.seen if seen.command == "POST")
    assert '"name": "look"' in first["system_prompt"]
    assert first["prompt"] == "Where?"
    assert second["system_prompt"] == first["system_prompt"]
    assert '{"tool_results": [{"id": "call_0", "name": "look", "content": "Rain"}]}' in second["prompt"]


async def test_a_required_tool_call_that_is_missing_is_reported(replicate, server):
    server.polls = ["succeeded"]
    request = GenerateRequest(prompt="Where?", tools=[LOOK], tool_choice="required")
    async with replicate() as provider:
        for ask in (call, streamed):
            found = await ask(provider, request)
            assert [one.field for one in found.adjustments] == ["tools", "tool_choice", "tool_choice"]
            assert "calls no tool" in found.adjustments[-1].reason
