"""A request is fitted once per adapter that it reaches."""

import pytest

from llm_council import Council
from llm_council.middleware import Failover, Retry
from llm_council.providers._call import fitting
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import GenerateRequest, StructuredOutput, call, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.servers import FakeVendor, Refuse

pytestmark = pytest.mark.anyio

TASK = GenerateRequest(prompt="What is 6 times 7?", model="m", max_tokens=99)


@pytest.fixture
def fits(monkeypatch):
    """The requests that were fitted, in order."""
    seen = []
    fit = fitting.fit

    def counting(request, *arguments):
        seen.append(request)
        return fit(request, *arguments)

    monkeypatch.setattr(fitting, "fit", counting)
    return seen


def provider_of(vendor, **options):
    return OpenAICompatibleProvider(
        base_url="https://llm.example.com/v1", transport=vendor.transport(), default_model="m", **options
    )


async def pieces(adapter, request=TASK):
    return [piece async for piece in stream(adapter, request)]


async def test_a_council_run_fits_each_of_its_calls_once(fits):
    def answer(request):
        return '{"answer": "42", "reasoning": "6 times 7 is 42."}' if request.structured_output else "It is 42."

    vendor = FakeVendor("openai", answer)
    seats = [provider_of(vendor, name=name) for name in ("one", "two", "three")]
    result = await Council(seats).arun("What is 6 times 7?")
    assert result.status == "completed"
    assert len(fits) == len(vendor.calls) == 6


async def test_a_direct_call_of_an_adapter_fits_its_request_once(fits):
    provider = provider_of(FakeVendor("openai", "42"))
    await provider.generate(TASK)
    assert len(fits) == 1
    assert [piece async for piece in provider.stream(TASK)]
    assert len(fits) == 2


@pytest.mark.parametrize("ask", [call, pieces])
async def test_the_way_in_leaves_the_fitting_to_the_adapter(fits, ask):
    await ask(Retry(provider_of(FakeVendor("openai", "42"))), TASK)
    assert len(fits) == 1


@pytest.mark.parametrize("ask", [call, pieces])
async def test_an_authors_adapter_is_fitted_by_the_way_in(fits, made, ask):
    async def generate(request):
        return "42"

    await ask(made(generate), TASK)
    assert len(fits) == 1


@pytest.mark.parametrize("ask", [call, pieces])
async def test_failover_over_three_providers_fits_three_times(fits, ask):
    down = FakeVendor("openai", Refuse(status=500, message="down"))
    members = [provider_of(down), provider_of(down), provider_of(FakeVendor("openai", "42"))]
    await ask(Failover(members), TASK)
    assert len(fits) == 3


async def test_a_schema_that_the_vendor_cannot_enforce_costs_no_second_fit(fits):
    vendor = FakeVendor("anthropic", '{"a": 1}')
    provider = AnthropicProvider(api_key="key-of-a-test", transport=vendor.transport())
    recursive = {"type": "object", "properties": {"a": {"$ref": "#"}}}
    request = GenerateRequest(
        prompt="x", model="claude-sonnet-4-5", structured_output=StructuredOutput(json_schema=recursive)
    )
    response = await call(provider, request)
    assert "emulated" in [adjustment.action for adjustment in response.adjustments]
    assert len(fits) == 1


async def test_adjustments_of_a_stream_come_with_the_first_piece_of_the_vendor():
    provider = provider_of(FakeVendor("openai", "42"), profile={"max_output": 10})
    first, *rest = await pieces(provider)
    assert (first.model, [adjustment.field for adjustment in first.adjustments]) == ("m", ["max_tokens"])
    assert all(piece.adjustments == () for piece in rest)


async def test_a_retried_stream_reports_its_adjustments_once():
    replies = iter([Refuse(status=500, message="down"), "42"])
    vendor = FakeVendor("openai", lambda request: next(replies))
    chunks = await pieces(Retry(provider_of(vendor, profile={"max_output": 10})))
    assert [adjustment.field for chunk in chunks for adjustment in chunk.adjustments] == ["max_tokens"]
