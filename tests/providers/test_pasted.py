"""Addresses and keys that were copied with what stood around them."""

from __future__ import annotations

import pytest

from llm_council import get_provider
from llm_council.errors import CouncilError, InvalidKey, InvalidOption

ADDRESSES = [
    ("openai-compatible", "/v1/chat/completions", "/v1"),
    ("openai-compatible", "/v1/chat/completions/", "/v1"),
    ("openai-compatible", "/v1/completions", "/v1"),
    ("openai-compatible", "/v1/responses", "/v1"),
    ("openai-compatible", "/v1/models", "/v1"),
    ("openai-compatible", "/models", "/models"),  # the base address of Azure AI Foundry
    ("openai-compatible", "/v1", "/v1"),
    ("openrouter", "/api/v1/chat/completions", "/api/v1"),
    ("groq", "/openai/v1/chat/completions", "/openai/v1"),
    ("azure-openai", "", "/openai/v1"),
    ("azure-openai", "/openai", "/openai/v1"),
    ("azure-openai", "/openai/v1", "/openai/v1"),
    ("azure-openai", "/openai/v1/chat/completions", "/openai/v1"),
    ("azure-openai", "/openai/v1/responses", "/openai/v1"),
    ("azure-openai", "/openai/deployments/my-gpt/chat/completions", "/openai/v1"),
    ("anthropic", "/v1/messages", ""),
    ("anthropic", "/v1", ""),
    ("anthropic", "/anthropic/v1/messages", "/anthropic"),
    ("gemini", "/v1beta/models/gemini-3-pro:generateContent", ""),
    ("gemini", "/v1beta", ""),
    ("cohere", "/v2/chat", ""),
    ("ollama", "/api/chat", ""),
    ("ollama", "/v1/chat/completions", ""),
    ("ollama", "/v1", ""),
    ("replicate", "/v1/predictions", ""),
    ("ai21", "/studio/v1/chat/completions", "/studio/v1"),
]


@pytest.mark.parametrize(("kind", "pasted", "path"), ADDRESSES)
def test_an_endpoint_that_was_copied_with_the_address_is_taken_off(kind: str, pasted: str, path: str) -> None:
    provider = get_provider(kind, base_url=f"https://llm.example.com{pasted}", api_key="not-a-key-000")
    assert provider.base_url == f"https://llm.example.com{path}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["openai", "anthropic", "gemini", "cohere", "ollama", "replicate", "groq"])
@pytest.mark.parametrize("quote", ['"', "'", "`"])
def test_quotation_marks_are_named(kind: str, quote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidKey, match="quotation marks") as caught:
        get_provider(kind, api_key=f"{quote}not-a-key-000{quote}")
    assert "not-a-key" not in str(caught.value)
    with pytest.raises(InvalidOption, match="quotation marks"):
        get_provider(kind, base_url=f"{quote}https://llm.example.com{quote}", api_key="not-a-key-000")


@pytest.mark.parametrize(
    ("pasted", "why"),
    [
        ('"not-a-key-000"', "quotation marks"),
        ("OPENAI_API_KEY=not-a-key-000", "name of a variable"),
        ("Bearer not-a-key-000", "Bearer"),
    ],
)
def test_a_key_of_the_environment_is_refused_with_its_reason(
    pasted: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", pasted)
    provider = get_provider("openai")
    with pytest.raises(CouncilError, match=why) as caught:
        provider.check()
    assert isinstance(caught.value, InvalidKey)
    assert "not-a-key" not in str(caught.value)
