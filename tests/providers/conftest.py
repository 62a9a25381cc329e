"""Adapters to call through the door."""

from collections.abc import Callable
from typing import Any

import pytest

from llm_council.providers.base import GenerateRequest, ProviderAdapter, ProviderCapabilities

EVERYTHING = ProviderCapabilities(
    streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True, max_tokens=None
)


@pytest.fixture
def made() -> Callable[..., ProviderAdapter]:
    """Make an adapter whose ``generate`` is the given function of the request."""

    def make(generate: Any, *, capabilities: ProviderCapabilities = EVERYTHING, **methods: Any) -> ProviderAdapter:
        def method(function: Any) -> Any:
            return staticmethod(function)

        body = {"name": "made", "capabilities": capabilities, "generate": method(generate)}
        body |= {name: method(function) for name, function in methods.items()}
        return type("Made", (ProviderAdapter,), body)()

    return make


@pytest.fixture
def ask() -> GenerateRequest:
    return GenerateRequest(prompt="What is 6 times 7?")
