"""Documents and sound in messages: the payload of every dialect that takes them, and a refusal everywhere else."""

from __future__ import annotations

import base64
from typing import Any

import attrs
import pytest

from llm_council import get_provider
from llm_council._wire import openai_chat, responses
from llm_council._wire.openai_chat import ChatOptions
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models import AudioPart, DocumentPart, GenerateRequest, ImagePart, Message, TextPart
from llm_council.models._convert import dump, load
from llm_council.providers import _anthropic as anthropic
from llm_council.providers import _google as google
from llm_council.providers._call.fitting import fit
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.testing.servers import FakeVendor

RAW = b"%PDF-1.7 \x89"
DATA = base64.b64encode(RAW).decode()
PDF = DocumentPart(data=RAW, media_type="application/pdf", name="report.pdf")
LINK = DocumentPart(url="https://a.example/report.pdf?x=1")
TEXT = DocumentPart(data=b"caf\xc3\xa9", media_type="text/plain")
SOUND = AudioPart(data=RAW, media_type="audio/mp3")


def asked(*parts: Any) -> GenerateRequest:
    return GenerateRequest(model="m", messages=[Message("user", (TextPart(text="Look."), *parts))])


def content(payload: Any) -> list[Any]:
    found: list[Any] = payload["messages"][0]["content"]
    return found[1:]


@pytest.mark.parametrize("part", [ImagePart, DocumentPart, AudioPart])
def test_bytes_become_base64_and_other_types_are_refused(part: Any) -> None:
    for raw in (RAW, bytearray(RAW), memoryview(RAW)):
        assert part(data=raw, media_type="x/y").data == DATA
    assert part(data=DATA, media_type="x/y").data == DATA
    with pytest.raises(InvalidOption, match="base64"):
        part(data=7, media_type="x/y")
    with pytest.raises(InvalidOption, match="media_type"):
        part(data=RAW)
    with pytest.raises(InvalidOption, match="either url or data"):
        part()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("image/jpg", "image/jpeg"),
        ("IMAGE/PNG; q=1", "image/png"),
        ("audio/x-wav", "audio/wav"),
        ("audio/mp3", "audio/mpeg"),
    ],
)
def test_media_types_are_stored_by_their_registered_names(given: str, stored: str) -> None:
    assert ImagePart(data=RAW, media_type=given).media_type == stored
    assert AudioPart(url=f"data:{given.partition(';')[0]};base64,{DATA}").media_type == stored


def test_the_chat_dialect() -> None:
    file = {"filename": "report.pdf", "file_data": f"data:application/pdf;base64,{DATA}"}
    sound = {"type": "input_audio", "input_audio": {"data": DATA, "format": "mp3"}}
    assert content(openai_chat.encode_request(asked(PDF, SOUND))) == [{"type": "file", "file": file}, sound]
    openrouter = OpenRouterProvider.CHAT
    linked = {"type": "file", "file": {"filename": "report.pdf", "file_data": LINK.url}}
    assert content(openai_chat.encode_request(asked(LINK), openrouter)) == [linked]
    with pytest.raises(CapabilityMissing, match="data only"):
        openai_chat.encode_request(asked(LINK), ChatOptions())
    with pytest.raises(CapabilityMissing, match="wav, mp3"):
        openai_chat.encode_request(asked(AudioPart(data=RAW, media_type="audio/ogg")))


def test_openais_chat_takes_pdf_alone() -> None:
    own = OpenAIProvider.CHAT
    assert content(openai_chat.encode_request(asked(PDF), own))[0]["type"] == "file"
    with pytest.raises(CapabilityMissing, match=r"application/pdf alone, not text/plain.*nothing was sent"):
        openai_chat.encode_request(asked(TEXT), own)
    written = responses.encode_request(asked(TEXT))["input"][0]["content"][1]
    assert written["type"] == "input_file"
    assert content(openai_chat.encode_request(asked(TEXT), OpenRouterProvider.CHAT))[0]["type"] == "file"


def test_what_a_tool_returned_goes_into_the_next_users_turn_of_the_chat_dialect() -> None:
    turn = Message("tool", (TextPart(text="done"), PDF), tool_call_id="c1")
    messages = openai_chat.encode_request(GenerateRequest(messages=[turn]))["messages"]
    assert [message["role"] for message in messages] == ["tool", "user"]
    assert messages[1]["content"][1]["type"] == "file"


def test_the_responses_dialect() -> None:
    file = {"type": "input_file", "filename": "report.pdf", "file_data": f"data:application/pdf;base64,{DATA}"}
    written = responses.encode_request(asked(PDF, LINK))["input"][0]["content"][1:]
    assert written == [file, {"type": "input_file", "file_url": LINK.url}]
    with pytest.raises(CapabilityMissing, match="sound"):
        responses.encode_request(asked(SOUND))


def test_anthropics_dialect() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": DATA}
    text = {"type": "text", "media_type": "text/plain", "data": "café"}
    assert content(anthropic.encode_request(asked(PDF, LINK, TEXT))) == [
        {"type": "document", "source": pdf, "title": "report.pdf"},
        {"type": "document", "source": {"type": "url", "url": LINK.url}},
        {"type": "document", "source": text},
    ]
    result = Message("tool", (PDF,), tool_call_id="c1")
    sent = anthropic.encode_request(GenerateRequest(model="m", messages=[result]))["messages"][0]["content"]
    assert sent[0]["content"][0]["type"] == "document"
    with pytest.raises(CapabilityMissing, match="sound"):
        anthropic.encode_request(asked(SOUND))
    with pytest.raises(CapabilityMissing, match="PDF and text"):
        anthropic.encode_request(asked(DocumentPart(data=RAW, media_type="application/zip")))


def test_googles_dialect() -> None:
    parts = google.encode_request(asked(PDF, LINK, SOUND))["contents"][0]["parts"][1:]
    assert parts == [
        {"inlineData": {"mimeType": "application/pdf", "data": DATA}},
        {"fileData": {"fileUri": LINK.url, "mimeType": "application/pdf"}},
        {"inlineData": {"mimeType": "audio/mp3", "data": DATA}},
    ]


TAKERS = {
    "openai": {"documents", "audio"},
    "openrouter": {"documents", "audio"},
    "anthropic": {"documents"},
    "gemini": {"documents", "audio"},
    "cohere": set(),
    "ollama": set(),
    "mistral": set(),
    "replicate": set(),
    "claude-code": set(),
    "codex": set(),
}


@pytest.mark.parametrize("name", TAKERS)
@pytest.mark.parametrize(("part", "capability"), [(PDF, "documents"), (SOUND, "audio")])
def test_providers_without_the_capability_refuse_before_anything_is_sent(name: str, part: Any, capability: str) -> None:
    options = {"program": "/bin/true"} if name in ("claude-code", "codex") else {"api_key": "k-000000000000"}
    capabilities = get_provider(name, **options).capabilities
    if capability in TAKERS[name]:
        assert fit(asked(part), capabilities) == (asked(part), ())
    else:
        with pytest.raises(CapabilityMissing, match="nothing was sent") as caught:
            fit(asked(part), capabilities)
        assert caught.value.capability == capability


@pytest.mark.parametrize(
    ("name", "speaks", "options", "parts"),
    [
        ("openai", "openai", {"default_model": "gpt-4o", "api": "chat"}, (PDF,)),
        ("openai", "openai", {"default_model": "gpt-4o-audio-preview", "api": "chat"}, (SOUND,)),
        ("openai", "responses", {"default_model": "gpt-5.6", "api": "responses"}, (PDF, LINK)),
        ("openrouter", "openai", {"default_model": "google/gemini-3.6-flash"}, (PDF, LINK, SOUND)),
        ("anthropic", "anthropic", {"default_model": "claude-opus-5"}, (PDF, LINK, TEXT)),
        ("gemini", "gemini", {"default_model": "gemini-3.6-flash"}, (PDF, LINK, TEXT, SOUND)),
    ],
)
def test_a_fake_vendor_reads_what_was_sent(name: str, speaks: str, options: dict[str, Any], parts: Any) -> None:
    read: list[GenerateRequest] = []

    def said(request: GenerateRequest) -> str:
        read.append(request)
        return "It is so."

    with FakeVendor(speaks, said).serve() as vendor:
        provider = get_provider(name, base_url=vendor.url, api_key="not-a-real-key-000", **options)
        request = attrs.evolve(asked(*parts), model=options["default_model"])
        assert provider.generate_sync(request).text == "It is so."
        provider.close()
    found = read[0].messages[-1].content[1:]
    assert [type(part) for part in found] == [type(part) for part in parts]
    for part, sent in zip(found, parts, strict=True):
        assert (part.url, part.data) == (sent.url, sent.data)
        assert sent.data is None or part.media_type == sent.media_type


def test_a_server_of_ones_own_refuses_unless_it_is_said_to_take_them() -> None:
    with pytest.raises(CapabilityMissing):
        fit(asked(PDF), OpenAICompatibleProvider.capabilities)


def test_parts_are_stored_and_read_again() -> None:
    turn = Message("user", (TextPart(text="Look."), PDF, LINK, SOUND))
    assert load(Message, dump(turn)) == turn
