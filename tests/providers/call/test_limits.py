"""The limits of a stream, which hold without the way in as well."""

import gc
import weakref
from types import SimpleNamespace

import anyio
import pytest

from llm_council.errors import ServerFailed, TimedOut
from llm_council.models import Timeouts, join
from llm_council.providers._call import bounded
from llm_council.providers._call.bounded import BoundedStream, DetachedCall, StreamLimits
from llm_council.providers.base import GenerateRequest, stream
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.servers import FakeVendor, Hang

pytestmark = pytest.mark.anyio

TASK = GenerateRequest(prompt="What is 6 times 7?", model="m")


def provider_of(vendor, **options):
    return OpenAICompatibleProvider(base_url="https://llm.example.com/v1", transport=vendor.transport(), **options)


async def forever():
    await anyio.sleep_forever()


async def test_the_total_limit_ends_a_step():
    limits = StreamLimits("made", 0.05, 60)
    with pytest.raises(TimedOut, match=r"made did not answer within 0\.05 s") as caught:
        await limits.wait(forever)
    assert caught.value.phase == "deadline"


async def test_the_idle_limit_ends_a_step():
    limits = StreamLimits("made", 60, 0.05)
    with pytest.raises(TimedOut, match="brought nothing for too long") as caught:
        await limits.wait(forever)
    assert caught.value.phase == "idle"


async def test_content_restarts_the_idle_limit_and_not_the_total(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(bounded, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    limits = StreamLimits("made", 10, 5)
    steps = []

    async def step():
        steps.append(clock[0])

    clock[0] = 104.0
    await limits.wait(step)
    limits.content_arrived()
    clock[0] = 108.0
    await limits.wait(step)
    limits.content_arrived()
    clock[0] = 110.0
    with pytest.raises(TimedOut) as caught:
        await limits.wait(step)
    assert (caught.value.phase, steps) == ("deadline", [104.0, 108.0])


async def test_a_step_may_have_a_shorter_idle_limit():
    limits = StreamLimits("made", None, None)
    with pytest.raises(TimedOut) as caught:
        await limits.wait(forever, idle=0.05)
    assert caught.value.phase == "idle"


async def test_the_first_step_of_a_bounded_stream_is_limited():
    async def silent():
        await anyio.sleep_forever()
        yield

    pieces = BoundedStream(silent(), 0.05, "made")
    with anyio.fail_after(10), pytest.raises(TimedOut):
        await anext(pieces)
    await pieces.aclose()


@pytest.mark.parametrize(
    ("timeouts", "phase"), [(Timeouts(idle=0.1), "idle"), (Timeouts(idle=60, total=0.1), "deadline")]
)
async def test_the_first_step_of_a_providers_stream_is_limited_without_the_way_in(timeouts, phase):
    vendor = FakeVendor("openai", Hang())
    provider = provider_of(vendor, timeout=timeouts)
    with anyio.fail_after(10), pytest.raises(TimedOut) as caught:
        await anext(aiter(provider.stream(TASK)))
    assert caught.value.phase == phase


async def test_the_deadline_of_a_call_limits_a_providers_stream():
    vendor = FakeVendor("openai", Hang())
    provider = provider_of(vendor)
    with anyio.fail_after(10), pytest.raises(TimedOut) as caught:
        await anext(stream(provider, TASK, deadline=0.1))
    assert caught.value.phase == "deadline"


async def test_silence_in_the_middle_of_a_stream_keeps_what_arrived():
    vendor = FakeVendor("openai", Hang("It is the number 42.", share=0.6))
    async with provider_of(vendor, timeout=Timeouts(idle=0.2)) as provider:
        with anyio.fail_after(10), pytest.raises(TimedOut) as caught:
            async for _ in stream(provider, TASK):
                pass
    assert caught.value.phase == "idle"
    assert caught.value.partial
    assert "It is the number 42.".startswith(caught.value.partial)


async def test_the_pauses_of_a_consumer_are_not_idle_time_of_the_vendor():
    vendor = FakeVendor("openai", "It is the number 42.")
    pieces = []
    async with provider_of(vendor, timeout=Timeouts(idle=0.2)) as provider:
        async for piece in stream(provider, TASK):
            pieces.append(piece)
            if len(pieces) == 1:
                await anyio.sleep(0.4)
    assert join(pieces).text == "It is the number 42."


async def test_a_pause_before_the_request_is_not_idle_time_of_the_vendor():
    vendor = FakeVendor("openai", "42")
    request = GenerateRequest(prompt="What is 6 times 7?", model="m", stop=["43"])
    async with provider_of(vendor, timeout=Timeouts(idle=0.2), profile={"stop": False}) as provider:
        chunks = []
        async for chunk in provider.stream(request):
            chunks.append(chunk)
            if len(chunks) == 1:
                assert chunk.adjustments
                assert not vendor.calls
                await anyio.sleep(0.3)
    assert join(chunks).text == "42"


async def test_a_cancellation_passes_through_a_bounded_stream():
    cleaned_up = anyio.Event()

    async def silent():
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            cleaned_up.set()

    pieces = BoundedStream(silent(), 60, "made")
    assert await anext(pieces) == 1
    with anyio.move_on_after(0.05) as scope:
        await anext(pieces)
    assert scope.cancelled_caught
    assert cleaned_up.is_set()
    await pieces.aclose()


async def test_the_error_of_a_detached_call_is_freed_without_the_garbage_collector():
    async def fail():
        raise ServerFailed("down", partial="x" * 1000)

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ServerFailed) as caught:
            await DetachedCall(fail, "made").run(5)
        freed = weakref.ref(caught.value)
        del caught
        await anyio.lowlevel.checkpoint()
        assert freed() is None
    finally:
        gc.enable()
