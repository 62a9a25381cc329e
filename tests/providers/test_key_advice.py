"""After a 401, every HTTP provider says which key was sent, and from which variable it came."""

from __future__ import annotations

import httpx
import pytest

from llm_council.errors import AuthenticationFailed
from llm_council.models import GenerateRequest
from llm_council.providers import registry
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers.base import GenerateResponse, ProviderAdapter, ProviderCapabilities
from llm_council.providers.registry import get_provider

KEY = "canary-canary-0123"
HTTP = [
    info.name
    for info in registry.list_providers()
    if info.kind == "built-in" and issubclass(registry.get_class(info.name), HttpProvider) and info.key_variable
]
REQUEST = GenerateRequest(prompt="Where?", model="owner/name")


def refused(request: httpx.Request) -> httpx.Response:
    return httpx.Response(401, json={"error": {"message": "Incorrect key provided."}})


def failure_of(provider: ProviderAdapter) -> str:
    with pytest.raises(AuthenticationFailed) as caught:
        provider.generate_sync(REQUEST)
    return caught.value.message


def made(name: str, **options: object) -> ProviderAdapter:
    address = {} if registry.get_class(name).BASE_URL else {"base_url": "https://llm.example.com/v1"}  # type: ignore[attr-defined]
    return get_provider(name, transport=httpx.MockTransport(refused), **address, **options)


def test_the_list_holds_the_hosted_providers() -> None:
    assert {"openai", "anthropic", "gemini", "openrouter", "cohere", "ai21", "replicate", "groq", "ollama"} < set(HTTP)


@pytest.mark.parametrize("name", HTTP)
def test_a_401_names_the_variable_of_the_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = registry.get_class(name).API_KEY_ENV
    assert variable
    monkeypatch.setenv(variable, KEY)
    provider = made(name)
    message = failure_of(provider)
    assert message.endswith(f"(check the key in {variable})")
    assert KEY not in message
    with pytest.raises(AuthenticationFailed, match=variable):
        list(provider.stream_sync(REQUEST))
    assert variable in provider.doctor_sync().message


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"api_key": KEY}, "check the key in api_key; without api_key, OPENAI_API_KEY is read"),
        ({"api_key": "${HOUSE_KEY}"}, "check the key in HOUSE_KEY"),
        ({"headers": {"Authorization": f"Bearer {KEY}"}}, "check the credentials in the headers"),
    ],
)
def test_a_key_from_elsewhere_is_named_as_such(
    options: dict[str, object], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("HOUSE_KEY", KEY)
    assert failure_of(made("openai", **options)).endswith(f"({advice})")


def test_a_server_that_asks_for_a_key_nobody_set_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    assert failure_of(made("vllm")).endswith("(no key was sent: set VLLM_API_KEY)")


def test_the_variable_of_cohere_s_second_name_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COHERE_API_KEY", raising=False)
    monkeypatch.setenv("CO_API_KEY", KEY)
    assert failure_of(made("cohere")).endswith("(check the key in CO_API_KEY)")


class Own(ProviderAdapter):
    name = "own"
    capabilities = ProviderCapabilities()
    API_KEY_ENV = "OWN_KEY"

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        async with httpx.AsyncClient(transport=httpx.MockTransport(refused)) as client:
            (await client.post("https://llm.example.com/v1/x")).raise_for_status()
        raise AssertionError


def test_the_variable_that_an_author_s_class_names_is_named_too() -> None:
    assert failure_of(Own()).endswith("(check the key in OWN_KEY)")


def test_the_advice_stays_if_the_vendor_s_message_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    long = httpx.MockTransport(lambda _: httpx.Response(401, json={"error": {"message": "no " * 2000}}))
    assert failure_of(get_provider("openai", transport=long)).endswith("(check the key in OPENAI_API_KEY)")
