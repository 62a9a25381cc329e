"""The vendors' own SDKs as clients of our fake vendors: they read the fakes' replies like real ones."""

from contextlib import closing, contextmanager
from json import loads
from typing import ClassVar

import pytest

from llm_council.models import FinishReason, GenerateResponse, ToolCall, Usage
from llm_council.testing.servers import FakeVendor, Refuse

pytestmark = pytest.mark.oracles

SAYS = GenerateResponse(text="It is 42, naïve or not.", usage=Usage(input_tokens=31, output_tokens=17))
CALLS = GenerateResponse(
    tool_calls=[ToolCall(id="call_7", name="get_weather", arguments='{"city":"Oslo","days":[1,2]}')],
    finish_reason=FinishReason.TOOL_CALLS,
    usage=Usage(input_tokens=31, output_tokens=17),
)
CUT = GenerateResponse(text="It is", finish_reason=FinishReason.LENGTH)
CALLED = [("get_weather", {"city": "Oslo", "days": [1, 2]})]
TURNS = [{"role": "user", "content": "What is 6 times 7?"}]


class OpenAI:
    speaks, cut, statuses = "openai", "length", (400, 401, 404, 429, 500)

    @contextmanager
    def client(self, url):
        import openai

        with openai.OpenAI(base_url=url, api_key="k", max_retries=0, _strict_response_validation=True) as client:
            self.errors = openai.APIStatusError
            yield client

    def ask(self, client):
        return read(client.chat.completions.create(model="m", messages=TURNS))

    def stream(self, client):
        usage = {"include_usage": True}
        with client.chat.completions.create(model="m", messages=TURNS, stream=True, stream_options=usage) as events:
            return joined(events)

    def models(self, client):
        return [model.id for model in client.models.list()]

    def status(self, error):
        return error.status_code


class OpenAIResponses(OpenAI):
    speaks, cut = "responses", "max_output_tokens"

    def ask(self, client):
        reply = client.responses.create(model="m", input="What is 6 times 7?")
        return *self.read(reply), (reply.usage.input_tokens, reply.usage.output_tokens)

    def stream(self, client):
        with client.responses.create(model="m", input="What is 6 times 7?", stream=True) as events:
            *deltas, last = events
        text, calls, finish = self.read(last.response)
        streamed = "".join(event.delta for event in deltas if event.type == "response.output_text.delta")
        assert streamed == (text or "")
        return text, calls, finish

    def read(self, reply):
        calls = [(item.name, loads(item.arguments)) for item in reply.output if item.type == "function_call"]
        cut = reply.incomplete_details
        return reply.output_text or None, calls, cut.reason if cut else reply.status


class Anthropic:
    speaks, cut, statuses = "anthropic", "max_tokens", (400, 401, 404, 429, 500, 529)
    asked: ClassVar = {"model": "m", "max_tokens": 64, "messages": TURNS}

    @contextmanager
    def client(self, url):
        import anthropic

        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, _strict_response_validation=True) as client:
            self.errors = anthropic.APIStatusError
            yield client

    def ask(self, client):
        reply = client.messages.create(**self.asked)
        return *self.read(reply), (reply.usage.input_tokens, reply.usage.output_tokens)

    def stream(self, client):
        with client.messages.stream(**self.asked) as events:
            return self.read(events.get_final_message())

    def read(self, reply):
        texts = [block.text for block in reply.content if block.type == "text"]
        calls = [(block.name, block.input) for block in reply.content if block.type == "tool_use"]
        return "".join(texts) or None, calls, reply.stop_reason

    def models(self, client):
        return [model.id for model in client.models.list()]

    def status(self, error):
        return error.status_code


class Gemini:
    speaks, cut, statuses = "gemini", "MAX_TOKENS", (400, 401, 404, 429, 500, 503)

    @contextmanager
    def client(self, url):
        from google import genai
        from google.genai import errors, types

        with closing(genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url))) as client:
            self.errors = errors.APIError
            yield client

    def ask(self, client):
        reply = client.models.generate_content(model="m", contents="What is 6 times 7?")
        counted = reply.usage_metadata
        return *self.read([reply]), (counted.prompt_token_count, counted.candidates_token_count)

    def stream(self, client):
        return self.read(list(client.models.generate_content_stream(model="m", contents="What is 6 times 7?")))

    def read(self, replies):
        parts = [part for reply in replies for part in reply.candidates[0].content.parts or []]
        calls = [(part.function_call.name, part.function_call.args) for part in parts if part.function_call]
        text = "".join(part.text or "" for part in parts) or None
        return text, calls, replies[-1].candidates[0].finish_reason.value

    def models(self, client):
        return [model.name.removeprefix("models/") for model in client.models.list()]

    def status(self, error):
        return error.code


class Cohere:
    speaks, cut, statuses = "cohere", "MAX_TOKENS", (400, 401, 404, 429, 500)

    @contextmanager
    def client(self, url):
        import cohere
        import httpx
        from cohere.core.api_error import ApiError

        with httpx.Client() as http:
            self.errors = ApiError
            yield cohere.ClientV2(api_key="k", base_url=url, httpx_client=http)

    def ask(self, client):
        reply = client.chat(model="m", messages=TURNS, request_options={"max_retries": 0})
        text = "".join(block.text for block in reply.message.content or []) or None
        calls = [(call.function.name, loads(call.function.arguments)) for call in reply.message.tool_calls or []]
        return text, calls, reply.finish_reason, (reply.usage.tokens.input_tokens, reply.usage.tokens.output_tokens)

    def stream(self, client):
        events = list(client.chat_stream(model="m", messages=TURNS))
        text = "".join(e.delta.message.content.text for e in events if e.type == "content-delta") or None
        names = [e.delta.message.tool_calls.function.name for e in events if e.type == "tool-call-start"]
        calls = [e for e in events if e.type in ("tool-call-start", "tool-call-delta")]
        arguments = "".join(e.delta.message.tool_calls.function.arguments or "" for e in calls)
        (last,) = [event for event in events if event.type == "message-end"]
        return text, [(name, loads(arguments)) for name in names], last.delta.finish_reason

    def models(self, client):
        return [model.name for model in client.models.list().models]

    def status(self, error):
        return error.status_code


class Ollama:
    speaks, cut, statuses = "ollama", "length", (400, 401, 404, 429, 500)

    @contextmanager
    def client(self, url):
        import ollama

        client = ollama.Client(host=url)
        self.errors = ollama.ResponseError
        with client._client:
            yield client

    def ask(self, client):
        reply = client.chat(model="m", messages=TURNS)
        calls = [(call.function.name, dict(call.function.arguments)) for call in reply.message.tool_calls or []]
        return reply.message.content or None, calls, reply.done_reason, (reply.prompt_eval_count, reply.eval_count)

    def stream(self, client):
        pieces = list(client.chat(model="m", messages=TURNS, stream=True))
        calls = [call.function for piece in pieces for call in piece.message.tool_calls or []]
        text = "".join(piece.message.content or "" for piece in pieces) or None
        return text, [(call.name, dict(call.arguments)) for call in calls], pieces[-1].done_reason

    def models(self, client):
        return [model.model.removesuffix(":latest") for model in client.list().models]

    def status(self, error):
        return error.status_code


class AI21:
    speaks, cut, statuses = "openai", "length", (401, 422, 429, 500)
    models = None

    @contextmanager
    def client(self, url):
        import httpx
        from ai21 import AI21Client
        from ai21.errors import AI21APIError
        from ai21.models.chat import ChatMessage

        self.turns = [ChatMessage(**turn) for turn in TURNS]
        with httpx.Client() as http:
            self.errors = AI21APIError
            yield AI21Client(api_key="k", api_host=url, num_retries=0, http_client=http)

    def ask(self, client):
        return read(client.chat.completions.create(model="m", messages=self.turns))

    def stream(self, client):
        return joined(client.chat.completions.create(model="m", messages=self.turns, stream=True))

    def status(self, error):
        return error.status_code


class OpenRouter:
    speaks, cut, statuses = "openai", "length", (400, 401, 404, 429, 500)
    models = None

    @contextmanager
    def client(self, url):
        import httpx
        import openrouter
        from openrouter import errors
        from openrouter.utils import BackoffStrategy, RetryConfig

        once = RetryConfig("none", BackoffStrategy(1, 1, 1, 1), retry_connection_errors=False)
        with httpx.Client() as http:
            self.errors = errors.OpenRouterError
            yield openrouter.OpenRouter(api_key="k", server_url=url, client=http, retry_config=once)

    def ask(self, client):
        return read(client.chat.send(model="m", messages=TURNS))

    def stream(self, client):
        with client.chat.send(model="m", messages=TURNS, stream=True) as events:
            return joined(events)

    def status(self, error):
        return error.status_code


class Replicate:
    """Replicate has neither tools nor finish reasons."""

    speaks, statuses = "replicate", (401, 402, 404, 422, 429)
    cut = models = None

    @contextmanager
    def client(self, url):
        import replicate
        from replicate.exceptions import ReplicateError

        self.errors = ReplicateError
        client = replicate.Client(api_token="k", base_url=url)
        with client._client:
            yield client

    def ask(self, client):
        made = client.models.predictions.create(("house", "fake"), input={"prompt": "What is 6 times 7?"})
        counted = (made.metrics["input_token_count"], made.metrics["output_token_count"])
        assert made.status == "succeeded"
        return "".join(made.output), [], None, counted

    def stream(self, client):
        events = client.stream("house/fake", input={"prompt": "What is 6 times 7?"})
        return "".join(event.data for event in events if event.event.value == "output"), [], None

    def status(self, error):
        return error.status


def read(reply):
    """Read a chat completion as every SDK of that dialect shows it."""
    (choice,) = reply.choices
    calls = [(call.function.name, loads(call.function.arguments)) for call in choice.message.tool_calls or []]
    counted = (reply.usage.prompt_tokens, reply.usage.completion_tokens)
    return choice.message.content or None, calls, choice.finish_reason, counted


def joined(events):
    """Join the events of a stream of that dialect."""
    choices = [choice for event in events for choice in event.choices]
    text = "".join(choice.delta.content or "" for choice in choices) or None
    calls = [call for choice in choices for call in getattr(choice.delta, "tool_calls", None) or []]
    said = [call["function"] if isinstance(call, dict) else vars(call.function) for call in calls]
    names = [function["name"] for function in said if function.get("name")]
    told = "".join(function.get("arguments") or "" for function in said)
    finish = [choice.finish_reason for choice in choices if choice.finish_reason]
    return text, [(name, loads(told)) for name in names], finish[-1]


SDKS = [OpenAI, OpenAIResponses, Anthropic, Gemini, Cohere, Ollama, AI21, OpenRouter, Replicate]


@pytest.fixture(params=SDKS, ids=lambda cls: cls.__name__)
def sdk(request):
    return request.param()


@contextmanager
def met(sdk, said):
    """Connect an SDK's client to a fake vendor."""
    vendor = FakeVendor(sdk.speaks, said)
    with vendor.serve(), sdk.client(vendor.url) as client:
        yield client, vendor


def test_an_sdk_reads_texts(sdk):
    with met(sdk, SAYS) as (client, _):
        text, calls, _, counted = sdk.ask(client)
        assert (text, calls, counted) == (SAYS.text, [], (31, 17))
        assert sdk.stream(client)[:2] == (SAYS.text, [])


@pytest.mark.parametrize("sdk", SDKS[:-1], ids=lambda cls: cls.__name__, indirect=True)
def test_an_sdk_reads_tool_calls(sdk):
    with met(sdk, CALLS) as (client, _):
        assert sdk.ask(client)[:2] == (None, CALLED)
        assert sdk.stream(client)[:2] == (None, CALLED)


@pytest.mark.parametrize("sdk", SDKS[:-1], ids=lambda cls: cls.__name__, indirect=True)
def test_an_sdk_reads_that_an_answer_was_cut(sdk):
    with met(sdk, CUT) as (client, _):
        assert sdk.ask(client)[2] == sdk.cut
        assert sdk.stream(client)[2] == sdk.cut


def test_an_sdk_reads_refusals(sdk):
    for status in sdk.statuses:
        with met(sdk, Refuse(status=status, message="words of the vendor")) as (client, vendor):
            with pytest.raises(sdk.errors) as caught:
                sdk.ask(client)
            assert sdk.status(caught.value) == status
            assert "words of the vendor" in f"{caught.value} {vars(caught.value)}"
            assert len(vendor.calls) >= 1


@pytest.mark.parametrize("sdk", [cls for cls in SDKS if cls.models], ids=lambda cls: cls.__name__, indirect=True)
def test_an_sdk_reads_the_list_of_models(sdk):
    with met(sdk, SAYS) as (client, _):
        assert sdk.models(client) == ["fake-model"]
