"""Which vendors and models see or hear attached files, and their documented limits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llm_council import Attachment, Council, CouncilConfig, get_provider
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.middleware import Failover, Pinned, Retry
from llm_council.models import GenerateRequest, Message
from llm_council.providers._call.fitting import fit_to_adapter
from llm_council.providers._call.profiles import ModelProfile, _file_rows, _table
from llm_council.providers.vertex import VertexProvider

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
FILES = {
    "png": Attachment(PNG, name="a.png"),
    "gif": Attachment(b"GIF89a\1\0\1\0\0", name="a.gif"),
    "heic": Attachment(b"\0\0\0\x18ftypheic\0\0\0\0", name="a.heic"),
    "pdf": Attachment(b"%PDF-1.7\n\0", name="a.pdf"),
    "wav": Attachment(b"RIFF\x24\0\0\0WAVEfmt ", name="a.wav"),
    "mp3": Attachment(b"ID3\4\0\0\0", name="a.mp3"),
    "ogg": Attachment(b"OggS\0\2OpusHead", name="a.ogg"),
}


def provider(name: str) -> Any:
    options = {"program": "/bin/true"} if name in ("claude-code", "codex") else {"api_key": "k-000000000000"}
    if name == "azure-openai":
        options["base_url"] = "https://x.openai.azure.com"
    return get_provider(name, **options)


TAKEN = [
    ("openai", None, "png gif pdf"),
    ("openai", "gpt-5.6-sol", "png gif pdf"),
    ("openai", "gpt-4o", "png gif pdf"),
    ("openai", "gpt-4", ""),
    ("openai", "gpt-4-turbo", "png gif"),
    ("openai", "gpt-4.1-mini", "png gif pdf"),
    ("openai", "gpt-3.5-turbo", ""),
    ("openai", "o3-mini", ""),
    ("openai", "o3", "png gif pdf"),
    ("openai", "gpt-audio", "wav mp3"),
    ("openai", "gpt-4o-audio-preview", "wav mp3"),
    ("anthropic", None, "png gif pdf"),
    ("gemini", None, "png heic pdf wav mp3 ogg"),
    ("openrouter", "google/gemini-3.6-flash", "png gif pdf wav mp3 ogg"),
    ("openrouter", "openai/gpt-5-mini", "png gif pdf"),
    ("openrouter", "openai/gpt-3.5-turbo", "pdf"),
    ("openrouter", "anthropic/claude-sonnet-4.6", "png gif pdf"),
    ("cohere", "command-a-vision-07-2025", "png gif"),
    ("cohere", "command-a-03-2025", ""),
    ("mistral", "mistral-large-latest", "png gif"),
    ("mistral", "codestral-latest", ""),
    ("xai", "grok-4", "png"),
    ("xai", "grok-3", ""),
    ("groq", "openai/gpt-oss-120b", ""),
    ("groq", "meta-llama/llama-4-scout-17b-16e-instruct", "png gif heic"),
    ("deepseek", "deepseek-chat", ""),
    ("ai21", None, ""),
    ("ollama", "llama3.2", ""),
    ("ollama", "llama3.2-vision", "png gif heic"),
    ("ollama", "gemma3", "png gif heic"),
    ("local", None, ""),
    ("claude-code", None, "png gif"),
    ("codex", None, "png gif"),
]


@pytest.mark.parametrize(("name", "model", "taken"), TAKEN)
def test_a_vendor_takes_what_it_documents(name: str, model: str | None, taken: str) -> None:
    adapter = get_provider(name) if name == "local" else provider(name)
    found = [kind for kind, file in FILES.items() if adapter._file_fault(file, model) is None]
    assert found == [kind for kind in FILES if kind in taken.split()]


@pytest.mark.parametrize(("name", "model", "taken"), [row for row in TAKEN if row[0] != "local"])
def test_what_a_seat_does_not_take_is_not_sent_by_its_provider_either(name: str, model: str | None, taken: str) -> None:
    """Types of images are left to the vendor; kinds that it has not are refused by the provider itself."""
    adapter = provider(name)
    for kind in ("pdf", "wav", "png"):
        request = GenerateRequest(model=model, messages=[Message("user", [FILES[kind].part()])])
        if kind in taken.split():
            assert fit_to_adapter(adapter, request)[0] is request
        else:
            with pytest.raises(CapabilityMissing, match="nothing was sent"):
                fit_to_adapter(adapter, request)


def big(kind: str, size: int) -> Attachment:
    head = FILES[kind].data or b""
    return Attachment(head + b"\0" * (size - len(head)), name=f"big.{kind}")


BEYOND = [
    ("anthropic", None, ["png", 7_864_321], "big.png has 7,864,321 bytes, and it takes images of at most 7,864,320"),
    ("anthropic", None, ["pdf", 26_000_000], "in base64, and it takes requests of at most 33,554,432"),
    ("anthropic", None, ["png", 7_000_000, 4], "big.png with 3 other files is 37,333,344 bytes long in base64"),
    ("mistral", "mistral-large-latest", ["png", 10_000_001], "takes images of at most 10,000,000"),
    ("mistral", "mistral-large-latest", ["png", 100, 9], "big.png is image 9, and it takes 8 in a request"),
    ("xai", "grok-4", ["png", 20_971_521], "takes images of at most 20,971,520"),
    ("groq", "meta-llama/llama-4-scout", ["png", 3_000_001], "takes requests of at most 4,000,000"),
    ("cohere", "command-a-vision-07-2025", ["png", 15_000_001], "takes requests of at most 20,000,000"),
    ("gemini", None, ["wav", 40_000_000, 2], "takes requests of at most 100,000,000"),
]


@pytest.mark.parametrize(("name", "model", "given", "words"), BEYOND)
def test_a_file_beyond_a_documented_limit_is_refused_by_name_before_anything_is_sent(
    name: str, model: str | None, given: list[Any], words: str
) -> None:
    kind, size, *times = given
    adapter = provider(name)
    council = Council([Pinned(adapter, model) if model else adapter], config=CouncilConfig())
    with pytest.raises(InvalidOption, match=re.escape(words)) as caught:
        council.run("What is it?", files=[big(kind, size)] * (times or [1])[0])
    assert caught.value.message.startswith(f"files: {council.providers[0]}: ")
    assert caught.value.message.endswith("give a smaller file, or leave out this seat")


def test_a_file_within_the_limits_is_planned() -> None:
    council = Council([provider("anthropic")], config=CouncilConfig())
    assert council.plan("x", files=[big("png", 7_864_320)]).files[0].size == 7_864_320


def test_the_pages_of_all_documents_count_together() -> None:
    page = b"<< /Type /Page >>\n"
    council = Council([Pinned(provider("anthropic"), "claude-haiku-4-5")], config=CouncilConfig())
    parts = [Attachment(b"%PDF-1.7\n" + page * count, name=f"{count}.pdf") for count in (60, 41)]
    assert council.plan("x", files=parts[:1]).files
    with pytest.raises(
        InvalidOption, match=r"60\.pdf has 60 pages, with 41 in other documents, and it takes at most 100"
    ):
        council.plan("x", files=parts)
    nameless = [part.data for part in parts if part.data]  # both are called document.pdf
    with pytest.raises(InvalidOption, match=r"document\.pdf has 60 pages, with 41 in other documents"):
        council.plan("x", files=nameless)


def test_claude_hears_nothing_wherever_it_runs() -> None:
    vertex = VertexProvider(project="house-1")
    assert vertex._file_fault(FILES["wav"], "claude-sonnet-5-5") == "takes no sound"
    assert vertex._file_fault(FILES["wav"], "gemini-3.6-flash") is None


def test_wrappers_and_groups_ask_the_providers_inside() -> None:
    text, sees = Pinned(provider("openai"), "gpt-4"), Pinned(provider("openai"), "gpt-4o")
    assert Retry(text)._file_fault(FILES["png"], None) == "takes no images"
    assert Retry(sees)._file_fault(FILES["png"], None) is None
    assert Retry(Failover([text, sees]))._file_fault(FILES["png"], None) is None
    assert Failover([text, text])._file_fault(FILES["pdf"], None) == "takes no documents"
    small = Pinned(provider("mistral"), "mistral-large-latest")
    assert Failover([small, sees])._size_fault([big("png", 10_000_001)], None) is None
    assert "10,000,001" in (Retry(small)._size_fault([big("png", 10_000_001)], None) or "")


def test_every_row_about_files_is_dated_valid_and_about_a_known_provider() -> None:
    keys = []
    known = {row["provider"] for row in _table()["profile"]}
    for row in _file_rows():
        ModelProfile(**row)
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row["since"]), row
        assert row["provider"] in known
        keys.append((row["provider"], row.get("prefix", "")))
    assert len(keys) == len(set(keys))
