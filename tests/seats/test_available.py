"""Who is seated if nobody is named, and what the error says if nobody can be."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from llm_council import Council, CouncilConfig, _plugins, errors
from llm_council.middleware import Failover
from llm_council.models import GenerateRequest, GenerateResponse
from llm_council.providers import registry
from llm_council.providers.base import ProviderAdapter, ProviderCapabilities
from llm_council.providers.registry import get_provider

KEY = "canary-canary-0123"
GATEWAY = {
    "kind": "openai-compatible",
    "base_url": "https://llm.example.com/v1",
    "api_key": "${GATEWAY_KEY}",
    "default_model": "m",
}


class Own(ProviderAdapter):
    name = "own"
    capabilities = ProviderCapabilities()
    API_KEY_ENV = "OWN_KEY"

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        return GenerateResponse(text="yes")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for info in registry.list_providers():
        if info.key_variable:
            monkeypatch.delenv(info.key_variable, raising=False)
    for name in ("CO_API_KEY", "GATEWAY_KEY", "OWN_KEY", "LLM_COUNCIL_PROVIDERS", "LLM_COUNCIL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(registry, "_registered", {})
    _plugins.scan.cache_clear()
    yield
    _plugins.scan.cache_clear()


def seats(**config: object) -> tuple[str, ...]:
    return Council(config=CouncilConfig(**config)).providers


def message(**config: object) -> str:
    with pytest.raises(errors.ConfigurationError) as caught:
        seats(**config)
    return caught.value.message


def test_without_key_configured_provider_or_named_seat_the_error_lists_three_ways_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "can_embed", lambda: True)
    lines = message().splitlines()
    assert "no key is set" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["set a key", "name a server", "try it out"]
    assert "OPENROUTER_API_KEY" in lines[1]
    assert "-p ollama" in lines[2]
    assert "-p local" in lines[3]
    monkeypatch.setattr(registry, "can_embed", lambda: False)
    assert "pip install 'llm-council-sdk[local]', then -p local" in message()


def test_a_key_for_a_provider_without_a_default_model_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    assert "GROQ_API_KEY is set, but groq has no default model: name one, as groq/MODEL" in message()


def test_a_registered_class_is_seated_while_its_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.register_provider("own", Own)
    message()
    monkeypatch.setenv("OWN_KEY", " ")
    message()
    monkeypatch.setenv("OWN_KEY", KEY)
    assert seats() == ("own-1", "own-2", "own-3")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert seats() == ("openai", "own")


def plugin(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Install an entry point for the provider ``theirs``."""
    real = list(_plugins.entry_points(group=registry.GROUP))
    theirs = EntryPoint(name="theirs", value=value, group=registry.GROUP)
    monkeypatch.setattr(_plugins, "entry_points", lambda group: [*real, theirs])
    _plugins.scan.cache_clear()


def test_an_installed_plugin_is_seated_while_its_variable_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin(monkeypatch, f"{__name__}:Own")
    monkeypatch.setenv("OWN_KEY", KEY)
    assert seats() == ("theirs-1", "theirs-2", "theirs-3")


def test_a_plugin_with_the_variable_of_a_built_in_provider_is_not_seated_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin(monkeypatch, "llm_council.providers.openai:OpenAIProvider")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert seats() == ("openai-1", "openai-2", "openai-3")


def test_a_broken_plugin_does_not_disturb_the_choice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plugin(monkeypatch, "no_such_module_here:Own")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert seats() == ("openai-1", "openai-2", "openai-3")
    assert "no_such_module_here" in caplog.text


def test_without_a_key_the_configured_providers_are_seated_but_not_those_that_another_wraps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    house = {"kind": "vllm", "default_model": "m"}
    assert seats(instances={"gateway": GATEWAY}) == ("gateway-1", "gateway-2", "gateway-3")
    assert seats(instances={"gateway": GATEWAY, "house": house}) == ("gateway", "house")
    fast = {"kind": "failover", "of": ["gateway", "house/other"]}
    assert seats(instances={"gateway": GATEWAY, "house": house, "fast": fast}) == ("fast-1", "fast-2", "fast-3")


def test_a_configured_provider_that_cannot_start_is_explained() -> None:
    assert "note: [providers.gateway] needs a key: set GATEWAY_KEY" in message(instances={"gateway": GATEWAY})


def test_all_missing_keys_of_named_seats_are_listed_in_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    council = Council(["openai", "groq/m", "anthropic:2", "ollama"], config=CouncilConfig())
    with pytest.raises(errors.MissingCredentials) as caught:
        council.run("Where?")
    assert caught.value.message == (
        "3 keys are missing: set OPENAI_API_KEY (openai), GROQ_API_KEY (groq), ANTHROPIC_API_KEY (anthropic)"
    )
    assert caught.value.variables == ("OPENAI_API_KEY", "GROQ_API_KEY", "ANTHROPIC_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    council = Council(["openai", "groq/m", "anthropic:2"], config=CouncilConfig())
    with pytest.raises(errors.MissingCredentials) as caught:
        council.run("Where?")
    assert caught.value.message == "anthropic needs a key: set ANTHROPIC_API_KEY, or pass api_key"


def test_missing_keys_of_tables_and_of_built_in_providers_are_listed_together() -> None:
    tables = {
        "gateway": GATEWAY,
        "second": {**GATEWAY, "api_key": "${SECOND_KEY}"},
        "fast": {"kind": "balance", "of": ["gateway", "second"]},
    }
    with pytest.raises(errors.MissingCredentials) as caught:
        Council(["openai", "fast", "gateway:2"], config=CouncilConfig(instances=tables))
    assert set(caught.value.variables) == {"GATEWAY_KEY", "SECOND_KEY", "OPENAI_API_KEY"}
    assert caught.value.message.count("GATEWAY_KEY") == 1


def test_a_group_without_any_key_names_the_variables_of_all_members() -> None:
    group = Failover([get_provider("openai"), get_provider("anthropic")])
    with pytest.raises(errors.MissingCredentials) as caught:
        Council([group], config=CouncilConfig()).run("Where?")
    assert caught.value.variables == ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
