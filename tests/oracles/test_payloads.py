"""What our providers send, judged by the vendors' own SDKs: their types take it, and their clients send the same.

An SDK is handed one of our payloads as the arguments of its own call. It refuses what its types do not know, and what
it then puts on the wire must be what we would have sent.
"""

import base64
import sys
from contextlib import closing, suppress
from functools import cache
from typing import ClassVar

import httpx
import pytest

from llm_council.errors import CapabilityMissing
from llm_council.models import (
    AudioPart,
    DocumentPart,
    GenerateRequest,
    ImagePart,
    Message,
    ReasoningConfig,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
)
from llm_council.providers.ai21 import AI21Provider
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import call, stream
from llm_council.providers.cohere import CohereProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.testing.servers import FakeVendor

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.anyio,
    # Advice about models; whether a payload is valid does not depend on it.
    pytest.mark.filterwarnings("ignore:The model '.*' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Using Claude with .* is deprecated:UserWarning"),
]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "integer"}}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [Tool(name="get_weather", description="Tell the weather.", parameters=SCHEMA), Tool(name="stop")]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = base64.b64encode(b"%PDF-1.7 of one page").decode()
SOUND = base64.b64encode(b"RIFF and so on").decode()
ASKED = TextPart(text="What is it?")
CALL = ToolCall(id="call_7", name="get_weather", arguments='{"city": "Oslo", "days": [1]}')
TALK = [Message("system", "Be short."), Message("user", "Hi."), Message("assistant", "Hello."), Message("user", "Bye.")]
REQUESTS = {
    "text": {"prompt": "What is 6 times 7?"},
    "turns": {"messages": TALK},
    "knobs": {"prompt": "x", "max_tokens": 777, "top_p": 0.5, "stop": ["END", "STOP"]},
    "temperature": {"prompt": "x", "temperature": 0.25},
    "tools": {"prompt": "x", "tools": TOOLS},
    "auto": {"prompt": "x", "tools": TOOLS, "tool_choice": "auto"},
    "none": {"prompt": "x", "tools": TOOLS, "tool_choice": "none"},
    "required": {"prompt": "x", "tools": TOOLS, "tool_choice": "required"},
    "named": {"prompt": "x", "tools": TOOLS, "tool_choice": "get_weather"},
    "result": {
        "tools": TOOLS,
        "messages": [
            Message("user", "And in Oslo?"),
            Message("assistant", "I look.", tool_calls=[CALL]),
            Message("tool", "Rain.", tool_call_id="call_7", name="get_weather"),
        ],
    },
    "image": {"messages": [Message("user", [TextPart(text="What?"), ImagePart(data=PIXEL, media_type="image/png")])]},
    "pdf": {"messages": [Message("user", [DocumentPart(data=PDF, media_type="application/pdf", name="a.pdf"), ASKED])]},
    "sound": {"messages": [Message("user", [AudioPart(data=SOUND, media_type="audio/wav"), ASKED])]},
    "mp3": {"messages": [Message("user", [AudioPart(data=SOUND, media_type="audio/mpeg"), ASKED])]},
    "files": {
        "messages": [
            Message(
                "user",
                [
                    TextPart(text="Attached, in this order: a.png, a.pdf."),
                    ImagePart(data=PIXEL, media_type="image/png"),
                    DocumentPart(data=PDF, media_type="application/pdf", name="a.pdf"),
                    TextPart(text="Task: compare.", cache=True),
                    TextPart(text="Answer."),
                ],
            )
        ]
    },
    "schema": {"prompt": "x", "structured_output": StructuredOutput(json_schema=SCHEMA)},
    "reasoning": {"prompt": "x", "reasoning": ReasoningConfig(effort="high")},
    "budget": {"prompt": "x", "max_tokens": 9000, "reasoning": ReasoningConfig(budget_tokens=2000)},
    "cache": {"messages": [Message("system", [TextPart(text="Long.", cache=True)]), *TALK[1:]], "prompt_cache": True},
}


@cache
def strictly(adapter_of, package):
    """Return a validator for a TypedDict of an SDK that allows no undeclared key at any depth."""
    import pydantic
    import typing_extensions

    for name, module in list(sys.modules.items()):
        if name.startswith(package):
            for found in list(vars(module).values()):
                if typing_extensions.is_typeddict(found):
                    found.__pydantic_config__ = {"extra": "forbid", "arbitrary_types_allowed": True}
    return pydantic.TypeAdapter(adapter_of)


def walked(value):
    """Take a validated value apart: what is iterable is checked lazily."""
    if isinstance(value, dict):
        return {key: walked(item) for key, item in value.items()}
    return [walked(item) for item in value] if hasattr(value, "__iter__") and not isinstance(value, str) else value


class Judge:
    """Who takes a payload, and sends it.

    Attributes:
        provider: whose payloads are judged.
        models: those that are asked for.
        speaks: the dialect of the fake vendor.
        options: further arguments of the provider.
        lost: keys that the vendor documents, and its SDK's own types lose.
    """

    speaks = "openai"
    options: ClassVar = {}
    lost = ()

    @classmethod
    def meet(cls):
        """Return a fake vendor, and the provider before it."""
        vendor = FakeVendor(cls.speaks, "It is so.")
        reached = {"base_url": vendor.url, "transport": vendor.transport()}
        return vendor, cls.provider(api_key="house-key-1", **reached, **cls.options)

    def comparable(self, payload):
        """Return what a payload says, as far as the SDK can carry it."""
        return facts(payload, self.lost)

    def sent(self, vendor, asked):
        """Return what the SDK puts on the wire for one of our payloads."""
        with vendor.serve():
            self.send(vendor.url, dict(asked))
        return vendor.calls[-1].json


class OwnOpenAI(OpenAIProvider):
    """Takes every address for the vendor's own, where prompts get a cache key and marks."""

    def __init__(self, **options):
        super().__init__(**options)
        self._is_own = True


class OpenAI(Judge):
    provider, models = OwnOpenAI, ("gpt-4o", "gpt-5.6-sol", "o3", "o1-mini", "gpt-audio")
    options: ClassVar = {"api": "chat"}

    def types(self, payload):
        from openai.types.chat import completion_create_params as params

        kind = (
            params.CompletionCreateParamsStreaming
            if payload.get("stream")
            else params.CompletionCreateParamsNonStreaming
        )
        walked(strictly(kind, "openai.types").validate_python(payload))

    def send(self, url, payload):
        import openai

        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            reply = client.chat.completions.create(**payload)
            if payload.get("stream"):
                reply.close()


class OpenAIResponses(Judge):
    provider, speaks, models = OwnOpenAI, "responses", ("gpt-5.6-sol", "o3", "gpt-5.1-codex")
    options: ClassVar = {"api": "responses"}

    def types(self, payload):
        from openai.types.responses import response_create_params as params

        whole, streaming = params.ResponseCreateParamsNonStreaming, params.ResponseCreateParamsStreaming
        walked(strictly(streaming if payload.get("stream") else whole, "openai.types").validate_python(payload))

    def send(self, url, payload):
        import openai

        with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
            reply = client.responses.create(**payload)
            if payload.get("stream"):
                reply.close()


class OpenRouter(Judge):
    provider, models = (
        OpenRouterProvider,
        ("anthropic/claude-sonnet-4.6", "openai/gpt-5.6-sol", "google/gemini-3.6-flash"),
    )

    def types(self, payload):
        from openrouter.components import ChatRequest

        assert self.comparable(dumped(ChatRequest.model_validate(payload))) == self.comparable(payload)

    def comparable(self, payload):
        """Leave out a budget of reasoning tokens, which its documentation has and its SDK's types lose."""
        return facts({**payload, "reasoning": facts(payload.get("reasoning"), ("max_tokens",))})

    def send(self, url, payload):
        import openrouter

        with httpx.Client() as http:
            reply = openrouter.OpenRouter(api_key="k", server_url=url, client=http).chat.send(**payload)
            if payload.get("stream"):
                with reply:
                    pass


class Anthropic(Judge):
    speaks = "anthropic"
    provider, models = AnthropicProvider, ("claude-opus-4-6", "claude-sonnet-4-5", "claude-opus-5", "claude-3-7-sonnet")
    # Older models take them, and the API does; the newest SDK's signature has dropped them.
    unknown = ("temperature", "top_p")

    def types(self, payload):
        import anthropic.types as types
        from anthropic.types.message_create_params import (
            MessageCreateParamsNonStreaming as Whole,
        )
        from anthropic.types.message_create_params import (
            MessageCreateParamsStreaming as Streaming,
        )

        known = {key: value for key, value in payload.items() if key not in self.unknown}
        walked(strictly(Streaming if payload.get("stream") else Whole, "anthropic.types").validate_python(known))
        block = strictly(types.ContentBlockParam, "anthropic.types")
        for message in payload["messages"]:
            if not isinstance(message["content"], str):  # replies' own classes, which allow anything, are taken there
                for part in message["content"]:
                    walked(block.validate_python(part))

    def send(self, url, payload):
        import anthropic

        beside = {key: payload.pop(key) for key in self.unknown if key in payload}
        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client:
            reply = client.messages.create(**payload, extra_body=beside, timeout=30)
            if payload.get("stream"):
                reply.close()


class Gemini(Judge):
    speaks = "gemini"
    provider, models = GeminiProvider, ("gemini-3-pro", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-2.0-flash")
    send = None  # its client writes the same requests from arguments of another shape

    def types(self, payload):
        from google.genai import types

        parts = {
            "contents": types.Content,
            "systemInstruction": types.Content,
            "tools": types.Tool,
            "toolConfig": types.ToolConfig,
            "generationConfig": types.GenerationConfig,
        }
        for key, value in payload.items():
            for item in value if isinstance(value, list) else [value]:
                read = parts[key].model_validate(item)
                assert read.model_dump(mode="json", by_alias=True, exclude_none=True) == item or key == "contents"


class Cohere(Judge):
    speaks = "cohere"
    provider, models = CohereProvider, ("command-a-03-2025", "command-a-reasoning-08-2025", "command-a-vision-07-2025")

    def types(self, payload):
        """Its classes take whatever they do not know: only what it sends is judged."""

    def send(self, url, payload):
        import cohere

        streamed = payload.pop("stream", False)
        with httpx.Client() as http:
            client = cohere.ClientV2(api_key="k", base_url=url, httpx_client=http)
            if streamed:
                with closing(client.chat_stream(**payload)) as events:
                    list(events)
            else:
                client.chat(**payload)


class Ollama(Judge):
    speaks = "ollama"
    provider, models = OllamaProvider, ("llama3.2", "gpt-oss", "qwen3", "gemma3")
    lost = ("additionalProperties",)  # of a tool's parameters, and with it an answer's schema here

    def types(self, payload):
        from ollama._types import ChatRequest

        read = ChatRequest.model_validate(payload).model_dump(exclude_none=True)
        assert read.keys() == payload.keys()

    def send(self, url, payload):
        import ollama

        client = ollama.Client(host=url)
        with client._client:
            reply = client.chat(**payload)
            if payload.get("stream"):
                list(reply)


class AI21(Judge):
    provider, models = AI21Provider, ("jamba-large", "jamba-mini")
    send = None  # its client takes messages as objects alone
    lost = ("additionalProperties",)

    def types(self, payload):
        from ai21.clients.studio.resources.chat.chat_completions import ChatCompletions
        from ai21.models.chat import AssistantMessage, ResponseFormat, SystemMessage, ToolMessage, UserMessage
        from ai21.models.chat.tool_defintions import ToolDefinition

        kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage, "tool": ToolMessage}
        for turn in payload["messages"]:
            assert dumped(kinds[turn["role"]].model_validate(turn)) == turn
        for tool in payload.get("tools", ()):
            strictly(ToolDefinition, "ai21.models").validate_python(facts(tool, self.lost))
        if "response_format" in payload:
            strictly(ResponseFormat, "ai21.models").validate_python(payload["response_format"])
        known = ChatCompletions.create.__annotations__.keys()
        assert payload.keys() <= known


def dumped(model):
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


JUDGES = [OpenAI, OpenAIResponses, OpenRouter, Anthropic, Gemini, Cohere, Ollama, AI21]
CASES = [(judge, model, name) for judge in JUDGES for model in judge.models for name in REQUESTS]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.parametrize(("judge", "model", "name"), CASES, ids=[f"{j.__name__}-{m}-{n}" for j, m, n in CASES])
async def test_our_payload_is_valid_for_the_sdk_and_equals_its_own(judge, model, name):
    sitting = judge()
    vendor, provider = judge.meet()
    request = GenerateRequest(model=model, **REQUESTS[name])
    refused = False
    try:
        await call(provider, request)
        [piece async for piece in stream(provider, request)]
    except CapabilityMissing:
        refused = True
    assert len(vendor.calls) == (0 if refused else 2)  # what a model does not take is not sent
    for asked in vendor.calls[:2]:
        sitting.types(asked.json)
        if sitting.send is not None:
            sent = sitting.sent(FakeVendor(judge.speaks, "It is so."), asked.json)
            assert sitting.comparable(sent) == sitting.comparable(asked.json)


def facts(value, without=()):
    """Return a payload without what is said by leaving it out: nulls, no tools, ``stream: false``."""
    if isinstance(value, dict):
        present = {key: facts(item, without) for key, item in value.items() if item is not None and key not in without}
        return {key: item for key, item in present.items() if (key, item) not in (("stream", False), ("tools", []))}
    return [facts(item, without) for item in value] if isinstance(value, list) else value


# Which files each judge must have seen: a refusal by our own side must not hide a vendor that takes them.
SEEN = {
    OpenAI: {"image", "pdf", "sound", "mp3", "files"},
    OpenAIResponses: {"image", "pdf", "files"},
    OpenRouter: {"image", "pdf", "sound", "mp3", "files"},
    Anthropic: {"image", "pdf", "files"},
    Gemini: {"image", "pdf", "sound", "mp3", "files"},
    Cohere: {"image"},
    Ollama: {"image"},
    AI21: set(),
}


@pytest.mark.parametrize("judge", JUDGES)
async def test_every_kind_of_file_that_a_vendor_takes_is_sent_to_it(judge):
    sent = set()
    for model in judge.models:
        for name in ("image", "pdf", "sound", "mp3", "files"):
            vendor, provider = judge.meet()
            with suppress(CapabilityMissing):
                await call(provider, GenerateRequest(model=model, **REQUESTS[name]))
            if vendor.calls:
                sent.add(name)
    assert sent == SEEN[judge]


@pytest.mark.parametrize("judge", JUDGES)
async def test_a_field_that_no_vendor_has_is_found(judge):
    vendor, provider = judge.meet()
    await call(provider, GenerateRequest(model=judge.models[0], prompt="x", extra={"no_such_field": 7}))
    payload = vendor.calls[-1].json
    assert payload["no_such_field"] == 7
    with pytest.raises((ValueError, TypeError, AssertionError, KeyError)):
        check_with_sdk(judge(), vendor, payload)


def check_with_sdk(judge, vendor, payload):
    judge.types(payload)
    judge.sent(vendor, payload)
