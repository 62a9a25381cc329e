"""``Wrapper``: a middleware of an author's own in a few lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import InvalidOption, NotAnAdapter, RequestRejected, ServerFailed, UnknownOption
from llm_council.middleware import Cached, Failover, Hedge, Retry, Wrapper
from llm_council.models import GenerateChunk, GenerateRequest, GenerateResponse, RetryPolicy, StructuredOutput
from llm_council.providers.base import ProviderAdapter, ProviderCapabilities
from llm_council.testing.fakes import ScriptedProvider

ASK = GenerateRequest(prompt="Is it night?")
QUICK = RetryPolicy(base=0.0)


class Counted(Wrapper):
    """Counts the calls that pass through it."""

    calls = 0

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        self.calls += 1
        return await super().generate(request)


class Piecewise(Wrapper):
    """Passes the pieces of a stream on as they arrive."""

    calls = 0

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        self.calls += 1
        async for chunk in super().stream(request):
            yield chunk


class Shouting(Wrapper):
    def __init__(self, inner: ProviderAdapter, mark: str = "!") -> None:
        super().__init__(inner)
        self.mark = mark


class Handmade(ProviderAdapter):
    """A middleware that does not use ``Wrapper``."""

    def __init__(self, wrapped: ProviderAdapter) -> None:
        self.name = wrapped.name
        self.capabilities = wrapped.capabilities
        self._somewhere = {"inside": wrapped}

    async def generate(self, request: GenerateRequest) -> Any:
        from llm_council.providers.base import call

        return await call(self._somewhere["inside"], request)


def failing(times: int) -> ScriptedProvider:
    return ScriptedProvider([*[ServerFailed("busy")] * times, "night"], name="ann")


def test_it_passes_everything_on() -> None:
    inner = ScriptedProvider("It is night.", name="ann")
    wrapped = Counted(inner)
    assert (wrapped.name, wrapped.capabilities) == (inner.name, inner.capabilities)
    assert wrapped.generate_sync(ASK).text == "It is night."
    assert wrapped.doctor_sync().ok
    assert wrapped.supports_sync("streaming") == inner.supports_sync("streaming")
    assert wrapped.cache_identity() == inner.cache_identity()
    assert wrapped.calls == 1


def test_a_stream_passes_through_an_overridden_generate() -> None:
    wrapped = Counted(ScriptedProvider("It is night."))
    assert "".join(chunk.text for chunk in wrapped.stream_sync(ASK)) == "It is night."
    assert wrapped.calls == 1


def test_an_overridden_stream_passes_the_pieces_on() -> None:
    inner = ScriptedProvider("It is night.")
    wrapped = Piecewise(inner)
    pieces = [chunk.text for chunk in wrapped.stream_sync(ASK)]
    assert pieces == [chunk.text for chunk in inner.stream_sync(ASK)]
    assert wrapped.calls == 1


def test_a_wrapper_without_methods_streams_in_pieces() -> None:
    inner = ScriptedProvider("It is night.")
    wrapped = Shouting(inner)
    assert [chunk.text for chunk in wrapped.stream_sync(ASK)] == [chunk.text for chunk in inner.stream_sync(ASK)]


@pytest.mark.parametrize("around", [Counted, Handmade, lambda p: Counted(Handmade(Shouting(p)))])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_seat_has_one_retry_loop_through_any_wrapper(around: Any, *, streamed: bool) -> None:
    inner = failing(20)
    council = Council([around(Retry(inner, RetryPolicy(max_retries=2, base=0.0)))], config=CouncilConfig(retry=QUICK))
    if streamed:
        with council.stream("Is it night?") as events:
            list(events)
    else:
        council.run("Is it night?")
    assert len(inner.requests) == 3


def test_a_council_retries_a_wrapper_without_a_retry() -> None:
    inner = failing(2)
    council = Council([Counted(inner)], config=CouncilConfig(retry=QUICK))
    assert council.run("Is it night?").success
    assert len(inner.requests) >= 3


def test_a_retry_in_a_group_counts_too() -> None:
    inner = failing(20)
    group = Failover([Retry(inner, RetryPolicy(max_retries=1, base=0.0))], failures=100)
    Council([Counted(group)], config=CouncilConfig(retry=QUICK)).run("Is it night?")
    assert len(inner.requests) == 2


@pytest.mark.parametrize("streamed", [False, True])
def test_a_refused_schema_has_one_second_call_through_any_wrapper(*, streamed: bool) -> None:
    inner = ScriptedProvider(RequestRejected("no such parameter"))
    shape = StructuredOutput(json_schema={"type": "object", "properties": {"answer": {"type": "string"}}})
    request = GenerateRequest(prompt="Is it night?", structured_output=shape)
    wrapped = Counted(Counted(Handmade(inner)))
    with pytest.raises(RequestRejected, match="no such parameter"):
        list(wrapped.stream_sync(request)) if streamed else wrapped.generate_sync(request)
    assert [asked.structured_output is None for asked in inner.requests] == [False, True]


def test_arguments_of_a_wrapper_are_part_of_its_cache_identity() -> None:
    ann, ben = ScriptedProvider("a", name="ann"), ScriptedProvider("b", name="ben")
    identities = {Shouting(ann).cache_identity(), Shouting(ann, "?").cache_identity(), Shouting(ben).cache_identity()}
    assert len(identities) == 3
    assert Shouting(ann).cache_identity() == Shouting(ann, mark="!").cache_identity()


def test_a_cached_wrapper_answers_from_the_cache() -> None:
    counted = Counted(ScriptedProvider("night"))
    cached = Cached(counted)
    assert cached.generate_sync(ASK).text == cached.generate_sync(ASK).text == "night"
    assert counted.calls == 1


def test_a_request_is_fitted_to_capabilities_that_the_subclass_declares() -> None:
    class Plain(Counted):
        capabilities = ProviderCapabilities()

    inner = ScriptedProvider('{"answer": "yes"}', capabilities=ProviderCapabilities(structured_output=True))
    shape = StructuredOutput(json_schema={"type": "object", "properties": {"answer": {"type": "string"}}})
    request = GenerateRequest(prompt="Is it night?", structured_output=shape)
    response = Plain(inner).generate_sync(request)
    assert [adjustment.action for adjustment in response.adjustments] == ["emulated"]
    assert inner.requests[0].structured_output is None


@pytest.mark.parametrize("inner", ["openai", ScriptedProvider, None])
def test_what_is_no_provider_is_refused_at_construction(inner: Any) -> None:
    with pytest.raises(NotAnAdapter, match="Counted wraps a provider"):
        Counted(inner)
    with pytest.raises(NotAnAdapter, match="Retry wraps a provider"):
        Retry(inner)


def test_wrong_arguments_of_a_middleware_are_refused_at_construction() -> None:
    inner = ScriptedProvider("a")
    with pytest.raises(InvalidOption, match="policy: expected RetryPolicy"):
        Retry(inner, 3)  # type: ignore[arg-type]
    with pytest.raises(NotAnAdapter, match="backup: expected a provider, got 'openai'"):
        Hedge(inner, backup="openai")  # type: ignore[arg-type]
    with pytest.raises(UnknownOption, match="Retry takes no 'max_retries'; it takes inner, policy, sleep, rng"):
        Retry(inner, max_retries=3)  # type: ignore[call-arg]


def test_an_unknown_argument_is_refused_with_the_accepted_names() -> None:
    with pytest.raises(UnknownOption, match=r"Shouting takes no 'marc'; did you mean 'mark'\?; it takes inner, mark"):
        Shouting(ScriptedProvider("a"), marc="?")  # type: ignore[call-arg]


def test_a_constructor_that_forgets_its_base_is_told() -> None:
    class Forgetful(Wrapper):
        def __init__(self, inner: ProviderAdapter) -> None:
            pass

    with pytest.raises(InvalidOption, match=r"must call super\(\).__init__\(inner\)"):
        Forgetful(ScriptedProvider("a")).generate_sync(ASK)
