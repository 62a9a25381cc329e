"""Failover: which provider is called next, which one is skipped, and what happens to a stream that breaks off."""

from __future__ import annotations

from typing import Any

import pytest

from llm_council._runtime import call_context
from llm_council.errors import (
    AuthenticationFailed,
    ContentFiltered,
    ContextTooLong,
    CouncilError,
    InvalidOption,
    MissingCredentials,
    ModelNotFound,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TimedOut,
)
from llm_council.middleware import Failover, Retry
from llm_council.models import GenerateChunk, GenerateRequest, RetryPolicy, Tool, join
from llm_council.providers.base import call, stream
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

REQUEST = GenerateRequest(prompt="hello")


async def collected(
    adapter: Any, request: GenerateRequest = REQUEST, into: list[GenerateChunk] | None = None
) -> list[GenerateChunk]:
    chunks = [] if into is None else into
    async for chunk in stream(adapter, request):
        chunks.append(chunk)
    return chunks


async def test_the_next_provider_answers_and_all_attempts_are_reported(turns: Any) -> None:
    failures: list[tuple[str, float | None]] = []
    a, b = turns("a", ServerFailed("down", status=503, request_id="r-1")), turns("b")
    scope = call_context.RunScope(on_failed_attempt=lambda error, wait: failures.append((error.message, wait)))
    with call_context.entered(scope):
        response = await call(Failover([a, b]), REQUEST)
    assert response.text == "b answers"
    assert [(t.error, t.status, t.request_id) for t in response.attempts] == [
        ("ServerFailed", 503, "r-1"),
        (None, None, None),
    ]
    assert response.attempts[0].message == "a: down"
    assert failures == [("down", 0.0)]


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (ServerFailed("no"), True),
        (AuthenticationFailed("no"), True),
        (MissingCredentials("no"), True),
        (ModelNotFound("no"), True),
        (ContextTooLong("no"), True),
        (RequestRejected("no"), False),
        (ContentFiltered("no"), False),
    ],
)
async def test_a_rejected_request_and_a_filtered_answer_fail_at_once(
    error: CouncilError, goes_on: bool, turns: Any
) -> None:
    a, b = turns("a", error), turns("b")
    if goes_on:
        assert (await call(Failover([a, b]), REQUEST)).text == "b answers"
        return
    with pytest.raises(type(error)):
        await call(Failover([a, b]), REQUEST)
    assert not b.asked


async def test_an_adapters_own_exception_leads_to_the_next_provider(turns: Any) -> None:
    assert (await call(Failover([turns("a", KeyError("oops")), turns("b")]), REQUEST)).text == "b answers"


async def test_a_retryable_error_is_preferred_to_a_permanent_one(turns: Any) -> None:
    a, b = turns("a", ServerFailed("down", retry_after=4.0)), turns("b", AuthenticationFailed("wrong key"))
    with pytest.raises(ServerFailed, match="down") as caught:
        await call(Failover([a, b]), REQUEST)
    assert caught.value.retry_after == 4.0
    assert [attempt.error for attempt in caught.value.attempts] == ["ServerFailed", "AuthenticationFailed"]


async def test_a_request_with_tools_goes_to_a_provider_that_supports_them(turns: Any) -> None:
    a, b = turns("a", streaming=True), turns("b")
    failover = Failover([a, b])
    request = GenerateRequest(prompt="x", tools=[Tool(name="look")])
    assert (await call(failover, request)).text == "b answers"
    assert "".join(chunk.text for chunk in await collected(failover, request)) == "b answers"
    assert not a.asked
    assert failover.states() == {"a": "closed", "b": "closed"}


async def test_a_provider_that_keeps_failing_is_skipped_and_tested_again(turns: Any, clock: Any) -> None:
    a, b = turns("a", *[ServerFailed("down")] * 3, "well again"), turns("b")
    failover = Failover([a, b], failures=2, cool_down=30.0, clock=clock)
    for _ in range(4):
        assert (await call(failover, REQUEST)).text == "b answers"
    assert len(a.asked) == 2
    assert failover.states() == {"a": "open", "b": "closed"}
    clock.now += 30.0
    assert (await call(failover, REQUEST)).text == "b answers", "the probe failed"
    assert (await call(failover, REQUEST)).text == "b answers"
    assert len(a.asked) == 3
    clock.now += 30.0
    assert (await call(failover, REQUEST)).text == "well again"
    assert failover.states()["a"] == "closed"


async def test_retry_after_sets_the_cool_down(turns: Any, clock: Any) -> None:
    a, b = turns("a", RateLimited("wait", retry_after=12.0), "a again"), turns("b")
    failover = Failover([a, b], clock=clock)
    assert (await call(failover, REQUEST)).text == "b answers"
    clock.now += 11.9
    assert (await call(failover, REQUEST)).text == "b answers"
    clock.now += 0.2
    assert (await call(failover, REQUEST)).text == "a again"


async def test_an_error_names_the_waits_when_all_breakers_are_open(turns: Any, clock: Any) -> None:
    a, b = turns("a", RateLimited("wait", retry_after=12.0)), turns("b", RateLimited("wait", retry_after=7.0))
    failover = Failover([a, b], name="fast", clock=clock)
    with pytest.raises(RateLimited):
        await call(failover, REQUEST)
    clock.now += 2.0
    with pytest.raises(ServerFailed, match=r"fast: no provider can be called now.*a for 10.0 s, b for 5.0 s") as caught:
        await call(failover, REQUEST)
    assert caught.value.retry_after == pytest.approx(5.0)
    assert caught.value.retryable
    assert len(a.asked) == len(b.asked) == 1


async def test_after_a_cancelled_test_call_the_next_call_tests_the_provider(turns: Any, clock: Any) -> None:
    import anyio

    class Sometimes(ScriptedProvider):
        async def generate(self, request: GenerateRequest) -> Any:
            if clock.now == 1030.0:
                await anyio.sleep_forever()
            return await super().generate(request)

    a = Sometimes([ServerFailed("down"), "well"], name="a")
    failover = Failover([a], failures=1, cool_down=30.0, clock=clock)
    with pytest.raises(ServerFailed):
        await call(failover, REQUEST)
    clock.now = 1030.0
    with anyio.move_on_after(0.02):
        await call(failover, REQUEST)
    assert failover.states() == {"a": "half-open"}
    clock.now = 1031.0
    assert (await call(failover, REQUEST)).text == "well"


async def test_patience_does_not_apply_to_the_last_provider() -> None:
    slow, quick = ScriptedProvider("slow", name="slow", delay=float("inf")), ScriptedProvider("quick", name="quick")
    response = await call(Failover([slow, quick], patience=0.02), REQUEST)
    assert response.text == "quick"
    assert response.attempts[0].error == "TimedOut"
    late = ScriptedProvider("late", name="late", delay=0.1)
    assert (await call(Failover([slow, late], patience=0.02), REQUEST)).text == "late"


async def test_no_other_provider_is_called_when_the_time_is_over() -> None:
    slow, quick = ScriptedProvider("slow", name="slow", delay=float("inf")), ScriptedProvider("quick", name="quick")
    with pytest.raises(TimedOut):
        await call(Failover([slow, quick]), REQUEST, deadline=0.03)
    assert not quick.requests


async def test_a_stream_that_fails_before_its_first_text_moves_on_unnoticed(turns: Any) -> None:
    a, b = turns("a", [ServerFailed("down")]), turns("b", ["one ", "two"])
    chunks = await collected(Failover([a, b]))
    assert [chunk.text for chunk in chunks] == ["", "one ", "two", ""]
    assert [chunk.model for chunk in chunks if chunk.model] == ["b-1"], "nothing of the first is seen"
    assert all(chunk.reset is None for chunk in chunks)


async def test_a_stream_that_fails_after_its_first_text_raises(turns: Any) -> None:
    a, b = turns("a", ["one ", ServerFailed("down")]), turns("b")
    seen: list[GenerateChunk] = []
    with pytest.raises(ServerFailed) as caught:
        await collected(Failover([a, b]), into=seen)
    assert "".join(chunk.text for chunk in seen) == "one "
    assert caught.value.partial == "one "
    assert not b.asked


async def test_mid_stream_restart_voids_the_text_so_far_and_goes_on(turns: Any) -> None:
    a, b = turns("a", ["one ", ServerFailed("down")]), turns("b", ["uno ", ServerFailed("too")])
    failover = Failover([a, b, turns("c", ["eins ", "zwei"])], mid_stream="restart")
    chunks = await collected(failover)
    assert [chunk.reset for chunk in chunks if chunk.reset] == [
        "a failed after its first words: down",
        "b failed after its first words: too",
    ]
    whole = join(chunks)
    assert (whole.text, whole.model) == ("eins zwei", "c-1")
    with pytest.raises(ServerFailed) as caught:
        await collected(Failover([turns("a", ["one ", ServerFailed("x")])], mid_stream="restart"))
    assert caught.value.partial == "one "


async def test_each_further_provider_asks_the_runs_budget(turns: Any) -> None:
    a, b = turns("a", ServerFailed("down")), turns("b")
    failover = Failover([a, b])
    with call_context.entered(call_context.RunScope(afford=lambda error: False)), pytest.raises(ServerFailed):
        await call(failover, REQUEST)
    assert not b.asked
    assert failover.states()["b"] == "closed"


async def test_a_retry_around_failover_calls_all_providers_again(turns: Any, clock: Any) -> None:
    a, b = turns("a", ServerFailed("one"), "a answers"), turns("b", ServerFailed("two"), "b answers")
    retry = Retry(Failover([a, b], clock=clock), RetryPolicy(), sleep=clock.sleep)
    with call_context.entered(call_context.RunScope(clock=clock)):
        response = await call(retry, REQUEST)
    assert response.text == "a answers"
    assert [attempt.error for attempt in response.attempts] == ["ServerFailed", "ServerFailed", None]


async def test_capabilities_and_identities_are_those_of_the_providers(turns: Any) -> None:
    a, b = turns("a", streaming=True), turns("b", tool_use=True, max_tokens=10)
    failover = Failover([a, b], name="fast")
    assert failover.name == "fast"
    assert failover.capabilities.streaming
    assert failover.capabilities.tool_use
    assert not failover.capabilities.multimodal
    assert failover.capabilities.max_tokens is None
    assert await failover.supports("tool_use")
    assert not await failover.supports("multimodal")
    assert failover.cache_identity() != Failover([b, a]).cache_identity()
    assert failover.account_identity() is None
    assert Failover([a, a, b]).states() == {"a": "closed", "a-2": "closed", "b": "closed"}
    found = await failover.doctor()
    assert found.ok
    assert set(found.details) == {"a", "b"}
    await failover.aclose()
    assert (a.closed, b.closed) == (1, 1)


async def test_doctor_is_ok_if_one_provider_is(turns: Any) -> None:
    class Keyless(turns):  # type: ignore[misc]
        def check(self) -> None:
            raise MissingCredentials("no key")

    Failover([Keyless("a"), turns("b")]).check()
    with pytest.raises(MissingCredentials):
        Failover([Keyless("a"), Keyless("b")]).check()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([], {}, "at least one"),
        ("a", {}, "a list of providers"),
        ([1], {}, "a list of providers"),
        (None, {"mid_stream": "often"}, "'error' or 'restart'"),
        (None, {"patience": 0}, "patience"),
    ],
)
def test_invalid_arguments_are_refused(arguments: Any, options: Any, message: str, turns: Any) -> None:
    with pytest.raises(InvalidOption, match=message):
        Failover([turns("a")] if arguments is None else arguments, **options)


def test_failover_has_blocking_twins(turns: Any) -> None:
    failover = Failover([turns("a", ServerFailed("down")), turns("b", ["one ", "two"])])
    assert failover.generate_sync(REQUEST).text == "one two"
    with failover.stream_sync(REQUEST) as chunks:
        assert "".join(chunk.text for chunk in chunks) == "one two"
    assert failover.doctor_sync().ok
    failover.close()
