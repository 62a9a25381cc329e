"""Our providers against a third party's mock server, which speaks seven dialects."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council import get_provider
from llm_council.errors import AuthenticationFailed, RateLimited
from llm_council.models import GenerateRequest
from llm_council.providers.base import ProviderAdapter

TEXT = '{"capital": "Paris"}'
WIRES: list[tuple[str, str, str]] = [
    ("openai-compatible", "/v1", "gpt-4o"),
    ("openrouter", "/api/v1", "vendor/model"),
    ("anthropic", "", "claude-sonnet-5-5"),
    ("gemini", "", "gemini-2.5-flash"),
    ("ollama", "", "llama3"),
    ("cohere", "", "command-a-03-2025"),
]


@pytest.fixture(params=WIRES, ids=[name for name, _, _ in WIRES])
def adapter(request: Any, mock_server: str) -> Any:
    name, path, model = request.param
    with get_provider(name, base_url=mock_server + path, api_key="a-key-of-nobody", default_model=model) as made:
        yield made


def test_a_provider_answers_and_streams(adapter: ProviderAdapter) -> None:
    asked = GenerateRequest(prompt="What is the capital of France?", max_tokens=100)
    response = adapter.generate_sync(asked)
    assert (response.text, response.finish_reason) == (TEXT, "stop")
    assert "".join(piece.text for piece in adapter.stream_sync(asked)) == TEXT


@pytest.mark.parametrize(("status", "cls"), [(401, AuthenticationFailed), (429, RateLimited)])
def test_refusals_are_typed(adapter: ProviderAdapter, status: int, cls: type[Exception]) -> None:
    with pytest.raises(cls) as caught:
        adapter.generate_sync(GenerateRequest(prompt=f"refuse with {status}"))
    assert getattr(caught.value, "status", None) == status
