"""What a call costs: the provider's word, else the table's, else nobody's. The table is the one that is installed."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from llm_council import Budget, Council, pricing
from llm_council._engine.estimate import estimate
from llm_council.middleware import Retry, Wrapper
from llm_council.models import Cost, SeatSpec, Usage
from llm_council.models._attrs import copy_with
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import ProviderAdapter
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.local import LocalProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing.fakes import ScriptedProvider

THOUSAND = Usage(input_tokens=1000, output_tokens=1000)
KEY = "a-key-of-the-tests"

with_prices = pytest.mark.skipif(find_spec("genai_prices") is None, reason="the extra `prices` is not installed")


def listed(provider: str, model: str) -> float:
    """Return what the table itself says of a thousand tokens in and out: prices change with its versions."""
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    tokens = Tokens(input_tokens=1000, output_tokens=1000)
    return pytest.approx(float(calc_price(tokens, model, provider_id=provider).total_price))


def cost(adapter: ProviderAdapter, model: str | None = None, usage: Usage = THOUSAND) -> float | None:
    seat = SeatSpec(name="ann", provider=adapter.name, model=model)
    return pricing.price_of({"ann": adapter})(seat, usage)


@with_prices
def test_the_price_depends_on_the_url_not_on_the_providers_name() -> None:
    openai = OpenAIProvider(api_key=KEY, name="fast")
    assert cost(openai, "gpt-5-mini") == listed("openai", "gpt-5-mini")
    assert cost(OpenAIProvider(api_key=KEY, base_url="https://llm.example.com/v1"), "gpt-5-mini") is None
    gateway = OpenAICompatibleProvider(name="openai-ish", base_url="https://api.openai.com/v1", api_key=KEY)
    assert cost(gateway, "gpt-5-mini") == cost(openai, "gpt-5-mini")
    assert cost(OpenAICompatibleProvider(base_url="https://llm.example.com/v1"), "house-70b") is None


@with_prices
def test_a_seat_without_a_model_is_priced_as_the_default_model() -> None:
    anthropic = AnthropicProvider(api_key=KEY, default_model="claude-sonnet-4-6")
    assert cost(anthropic) == cost(anthropic, "claude-sonnet-4-6") == listed("anthropic", "claude-sonnet-4-6")
    assert cost(anthropic, "no-such-model") is None


@with_prices
def test_cached_tokens_cost_less() -> None:
    cached = Usage(input_tokens=1000, output_tokens=1000, cached_tokens=900)
    openai = OpenAIProvider(api_key=KEY)
    assert cost(openai, "gpt-5-mini", cached) < cost(openai, "gpt-5-mini")
    more_cached_than_sent = Usage(input_tokens=1, output_tokens=1, cached_tokens=900)
    assert cost(openai, "gpt-5-mini", more_cached_than_sent) is None


@with_prices
def test_a_middleware_has_the_price_of_the_adapter_it_wraps() -> None:
    assert cost(Retry(OpenAIProvider(api_key=KEY)), "gpt-5-mini") == listed("openai", "gpt-5-mini")


class Pair(ProviderAdapter):
    name = "pair"

    def __init__(self, *providers: ProviderAdapter) -> None:
        self.providers = providers

    async def generate(self, request):
        raise NotImplementedError


@with_prices
def test_the_highest_known_price_of_several_adapters_counts() -> None:
    cheap, dear = OpenAIProvider(api_key=KEY, default_model="gpt-5-mini"), LocalProvider()
    assert cost(Pair(dear, cheap)) == cost(cheap)
    assert cost(Pair(ScriptedProvider("x"))) is None


class HalfPrice(Wrapper):
    price_share = 0.5


@with_prices
def test_a_middleware_may_take_a_share_of_the_price() -> None:
    openai = OpenAIProvider(api_key=KEY, default_model="gpt-5-mini")
    assert cost(Retry(HalfPrice(openai))) == pytest.approx(cost(openai) / 2)
    assert cost(Pair(HalfPrice(openai), openai)) == cost(openai)
    seat, usage = SeatSpec(name="ann", provider="any"), Usage(input_tokens=1000, output_tokens=1000)
    assert pricing.price_of({"ann": HalfPrice(openai)}).direct(seat, usage) == cost(openai)


@pytest.mark.parametrize(
    ("adapter", "usd"),
    [
        (LocalProvider(), 0.0),
        (OllamaProvider(name="mine"), 0.0),
        (OllamaProvider(base_url="https://ollama.com", api_key=KEY), None),
        (ScriptedProvider("x", name="local"), None),
        (OpenAICompatibleProvider(base_url="http://127.0.0.1:8080/v1"), 0.0),
        (OpenAICompatibleProvider(base_url="http://localhost:8080/v1", name="mine"), 0.0),
        (OpenAICompatibleProvider(base_url="http://127.0.0.1:4000/v1", api_key=KEY), None),
        (OpenAICompatibleProvider(base_url="http://127.0.0.1:4000/v1", headers={"x-api-key": KEY}), None),
        (OpenAICompatibleProvider(base_url="https://llm.example.com/v1"), None),
    ],
)
def test_self_hosted_servers_cost_nothing(adapter: ProviderAdapter, usd: float | None) -> None:
    assert cost(adapter, "some-model") == usd


def test_without_the_extra_the_cost_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "_is_installed", lambda: False)
    pricing.load.cache_clear()
    try:
        assert not pricing.must_load([OpenAIProvider(api_key=KEY)])
        assert cost(OpenAIProvider(api_key=KEY), "gpt-5-mini") is None
    finally:
        pricing.load.cache_clear()


@with_prices
def test_the_table_is_loaded_only_for_adapters_that_may_need_it() -> None:
    pricing.load.cache_clear()
    assert not pricing.must_load([LocalProvider(), ScriptedProvider("x")])
    assert pricing.must_load([LocalProvider(), Retry(OpenAIProvider(api_key=KEY))])
    pricing.load()
    assert not pricing.must_load([OpenAIProvider(api_key=KEY)])


@with_prices
def test_looking_a_price_up_opens_no_socket_and_importing_it_loads_no_table() -> None:
    script = """
import socket, sys
from llm_council import pricing
from llm_council.models import Usage
assert "genai_prices" not in sys.modules
class Refused(socket.socket):
    def __init__(self, *arguments, **options):
        raise SystemExit("a socket was opened")
socket.socket = Refused
usd = pricing.look_up("https://api.openai.com/v1", "gpt-5-mini", Usage(input_tokens=1000, output_tokens=1000))
assert usd and 0 < usd < 1, usd
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@with_prices
def test_a_council_prices_its_calls() -> None:
    class Vendor(ScriptedProvider):
        base_url = "https://api.openai.com/v1"
        default_model = "gpt-5-mini"

    pricing.load.cache_clear()
    vendor = Vendor('{"answer": "Four.", "reasoning": "2 + 2"}', name="vendor")
    with Council([vendor]) as council:
        result = council.run_sync("What is 2 + 2?")
        assert result.success
        assert result.cost.source == "table"
        assert result.cost.complete
        assert result.cost.usd == pytest.approx(
            pricing.look_up("https://api.openai.com/v1", "gpt-5-mini", result.usage), abs=1e-9
        )
        refused = council.run_sync("What is 2 + 2?", budget=Budget(usd=1e-7))
        assert refused.error is not None
        assert "US dollars" in str(refused.error)
        assert refused.cost.usd is None


@with_prices
def test_a_council_in_batch_jobs_costs_half_and_is_expected_to() -> None:
    class Vendor(ScriptedProvider):
        base_url = "https://api.openai.com/v1"
        default_model = "gpt-5-mini"

    class Halved(HalfPrice):
        async def generate(self, request):
            response = await super().generate(request)
            return copy_with(response, cost=Cost(share=0.5))

    answer = '{"answer": "Four.", "reasoning": "2 + 2"}'
    with Council([Vendor(answer, name="vendor")]) as direct, Council([Halved(Vendor(answer, name="vendor"))]) as halved:
        whole, half = direct.run_sync("What is 2 + 2?"), halved.run_sync("What is 2 + 2?")
        assert half.cost.usd == pytest.approx(whole.cost.usd / 2, abs=1e-9)
        assert (half.cost.share, half.cost.source, half.cost.complete) == (0.5, "table", True)
        assert whole.cost.share == 1.0
        expected = [estimate(council.plan("What is 2 + 2?"), council._price).usd for council in (direct, halved)]
        assert expected[1] == pytest.approx(expected[0] / 2)
