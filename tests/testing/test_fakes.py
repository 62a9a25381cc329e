"""The scripted provider answers by its script and records its requests."""

from math import inf

import anyio
import pytest

from llm_council.errors import AdapterFailed, ServerFailed, TruncatedReply
from llm_council.models import GenerateRequest, GenerateResponse, ProviderCapabilities, join
from llm_council.providers.base import call, stream
from llm_council.testing.fakes import Broken, ScriptedProvider

pytestmark = pytest.mark.anyio


def request(phase=None):
    return GenerateRequest(prompt="one two", metadata={"phase": phase} if phase else {})


async def test_one_text_answers_every_call():
    provider = ScriptedProvider("Yes.")
    response = await call(provider, request())
    assert (response.text, response.finish_reason, response.usage.input_tokens) == ("Yes.", "stop", 2)
    assert (await call(provider, request())).text == "Yes."
    assert len(provider.requests) == 2


async def test_a_sequence_is_used_in_order_and_its_end_is_reported():
    provider = ScriptedProvider(["one", GenerateResponse(text="two", model="m"), ServerFailed("down")])
    assert (await call(provider, request())).text == "one"
    assert (await call(provider, request())).model == "m"
    with pytest.raises(ServerFailed):
        await call(provider, request())
    with pytest.raises(AdapterFailed, match="3 replies, and this is call 4"):
        await call(provider, request())


async def test_a_mapping_has_a_script_for_each_phase():
    provider = ScriptedProvider({"draft": ["d1", "d2"], "*": lambda request: f"for {request.metadata.get('phase')}"})
    texts = [(await call(provider, request(phase))).text for phase in ("draft", "repair", "draft", None)]
    assert texts == ["d1", "for repair", "d2", "for None"]
    assert len(provider.asked("draft")) == 2
    with pytest.raises(AdapterFailed, match="nothing about the phase 'critique'"):
        await call(ScriptedProvider({"draft": "x"}), request("critique"))


async def test_a_function_of_the_request_may_be_async():
    async def think(request):
        await anyio.sleep(0)
        return request.prompt

    assert (await call(ScriptedProvider(think), request())).text == "one two"


async def test_the_pieces_of_a_stream_join_to_the_whole_reply():
    provider = ScriptedProvider("a long answer", pieces=4)
    chunks = [chunk async for chunk in stream(provider, request())]
    assert len([chunk for chunk in chunks if chunk.text]) == 4
    assert join(chunks).text == "a long answer"
    assert join(chunks).usage.output_tokens == 3


async def test_a_broken_reply_streams_its_text_before_it_raises():
    provider = ScriptedProvider(Broken("half an ans", TruncatedReply("cut")), pieces=1)
    pieces = stream(provider, request())
    assert (await anext(pieces)).text == "half an ans"
    with pytest.raises(TruncatedReply):
        await anext(pieces)
    with pytest.raises(TruncatedReply):
        await call(provider, request())


async def test_delays_use_the_given_sleep_and_cancelled_calls_are_counted():
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    await call(ScriptedProvider("x", delay={"draft": 7.0}, sleep=sleep), request("draft"))
    assert waits == [7.0]
    provider = ScriptedProvider("x", delay=inf)
    with anyio.move_on_after(0.01):
        await call(provider, request())
    assert provider.cancelled == 1
    assert provider.most_at_once == 1


def test_name_and_capabilities_can_be_set():
    plain = ScriptedProvider("x", name="fast", capabilities=ProviderCapabilities())
    assert (plain.name, plain.supports_capability("streaming")) == ("fast", False)
    assert (ScriptedProvider.name, ScriptedProvider("x").supports_capability("streaming")) == ("scripted", True)
