"""``GenerateRequest.sample``: equal questions that are asked several times are different requests."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from llm_council import GenerateRequest, get_provider
from llm_council._wire.openai_chat import encode_request as chat
from llm_council._wire.responses import encode_request as responses
from llm_council.errors import InvalidOption
from llm_council.middleware import Cached
from llm_council.middleware.cache import key_of
from llm_council.providers._anthropic.request import encode_request as anthropic
from llm_council.providers._cohere.request import encode_request as cohere
from llm_council.providers._google.request import encode_request as google
from llm_council.providers._ollama.request import encode_request as ollama
from llm_council.providers._replicate.request import encode_request as replicate
from llm_council.providers._replicate.request import read_inputs
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.gateways import rows
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.store._encoding import request_digest
from llm_council.testing.fakes import ScriptedProvider

ASK = GenerateRequest(prompt="Name a prime number.", model="m")
THIRD = attrs.evolve(ASK, sample=3)


def added(encode: Any, *args: Any) -> dict[str, Any]:
    """Return what ``sample`` adds to a payload."""
    plain, drawn = encode(ASK, *args), encode(THIRD, *args)
    return {key: value for key, value in drawn.items() if plain.get(key) != value}


@pytest.mark.parametrize(
    ("encode", "expected"),
    [
        (cohere, {"seed": 3}),
        (google, {"generationConfig": {"seed": 3}}),
        (ollama, {"options": {"seed": 3}}),
        (anthropic, {}),
        (responses, {}),
        (chat, {}),
        (replicate, {}),
    ],
)
def test_a_vendor_with_a_seed_gets_the_sample_as_seed(encode: Any, expected: dict[str, Any]) -> None:
    assert added(encode) == expected


def test_a_model_of_replicate_gets_a_seed_if_it_has_the_input() -> None:
    properties = {"prompt": {"type": "string"}, "seed": {"type": "integer"}}
    inputs = read_inputs({"openapi_schema": {"components": {"schemas": {"Input": {"properties": properties}}}}})
    assert added(replicate, inputs) == {"input": {"prompt": "Name a prime number.", "seed": 3}}


@pytest.mark.parametrize(("name", "key"), [("mistral", "random_seed"), ("groq", "seed"), ("deepseek", None)])
def test_a_gateway_names_the_key_of_its_seed(name: str, key: str | None) -> None:
    assert rows()[name].seed == key
    gateway = get_provider(name, api_key="k")
    assert isinstance(gateway, OpenAICompatibleProvider)
    found = gateway.build_payload(THIRD)
    assert {field for field, value in found.items() if value == 3} == ({key} if key else set())


def test_a_server_of_unknown_make_gets_no_seed() -> None:
    provider = OpenAICompatibleProvider(base_url="http://127.0.0.1:9/v1", api_key="k")
    assert "seed" not in provider.build_payload(THIRD)
    assert OpenRouterProvider(api_key="k").build_payload(THIRD)["seed"] == 3


def test_the_seed_of_extra_replaces_the_sample() -> None:
    request = attrs.evolve(THIRD, extra={"seed": 8})
    assert OpenRouterProvider(api_key="k").build_payload(request)["seed"] == 8


def test_draws_have_keys_of_their_own_and_other_requests_keep_theirs() -> None:
    draws = {key_of(attrs.evolve(ASK, sample=number), "id") for number in range(5)}
    assert len(draws | {key_of(ASK, "id")}) == 6
    # Caches on disk hold answers under the key of a request without a sample.
    assert key_of(ASK, "id") == "8e057b340eee60edd9c6bafd96e92153a3cb8f7c85761dca1898e1a9e810267b"
    labelled = attrs.evolve(ASK, metadata={"sample": "2"})
    assert key_of(labelled, "id") not in draws


def test_a_stored_call_is_found_whatever_its_sample() -> None:
    # Its name tells draws apart: runs that were stored before the field existed are resumed with it.
    assert request_digest(THIRD) == request_digest(ASK)


@pytest.mark.anyio
async def test_a_cache_makes_one_call_for_each_draw() -> None:
    inner = ScriptedProvider(["2", "3", "5"])
    cached = Cached(inner)
    for _ in range(2):
        drawn = [(await cached.generate(attrs.evolve(ASK, sample=number))).text for number in range(3)]
        assert drawn == ["2", "3", "5"]
    assert len(inner.requests) == 3


class WithKeys(OpenAICompatibleProvider):
    """A server that takes idempotency keys."""

    name = "with-keys"
    IDEMPOTENCY_HEADER = "Idempotency-Key"


def test_draws_with_one_idempotency_key_are_sent_with_different_ones() -> None:
    provider = WithKeys(base_url="http://127.0.0.1:9/v1", api_key="k")
    keyed = attrs.evolve(ASK, idempotency_key="job-7")
    sent = [provider._post(attrs.evolve(keyed, sample=number), stream=False).headers for number in (None, 0, 1)]
    assert [headers["Idempotency-Key"] for headers in sent] == ["job-7", "job-7-sample-0", "job-7-sample-1"]


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2"])
def test_a_sample_is_a_whole_number(wrong: Any) -> None:
    with pytest.raises(InvalidOption, match="whole number"):
        GenerateRequest(prompt="x", sample=wrong)
