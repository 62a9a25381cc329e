"""The one door: whatever an adapter does, a caller gets an answer or a typed error, in time."""

import asyncio
import gc
import logging
import pickle
import threading
import time
import traceback
from copy import deepcopy

import anyio
import attrs
import httpx
import pytest

from llm_council._runtime import call_context
from llm_council.errors import (
    AdapterFailed,
    ApiError,
    AuthenticationFailed,
    CapabilityMissing,
    ConnectFailed,
    ContentFiltered,
    CouncilError,
    EmptyReply,
    InvalidOption,
    MalformedReply,
    MissingCredentials,
    RateLimited,
    TimedOut,
    TruncatedReply,
)
from llm_council.middleware import Failover, Retry
from llm_council.models import (
    FinishReason,
    ImagePart,
    Message,
    ReasoningConfig,
    RetryPolicy,
    StructuredOutput,
    ToolCall,
    ToolCallDelta,
    Usage,
    join,
)
from llm_council.providers._call import bounded
from llm_council.providers.base import (
    DoctorResult,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ProviderAdapter,
    ProviderCapabilities,
    Tool,
    call,
    examine,
    stream,
)
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.servers import FakeVendor

pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


async def gathered(adapter, request, **options):
    return [chunk async for chunk in stream(adapter, request, **options)]


async def text_of(adapter, request):
    """What the adapter says, which must be the same whole and in pieces."""
    whole = await call(adapter, request)
    assert join(await gathered(adapter, request)).text == whole.text
    return whole.text


# What may come back.


async def respond(request):
    return GenerateResponse(text="42")


async def say(request):
    return "42"


async def say_subclass(request):
    class Loud(str):
        def __str__(self):
            raise RuntimeError("hook")

    return Loud("42")


async def hand_over_chunk(request):
    return GenerateChunk(text="42")


async def yield_responses(request):
    yield GenerateResponse(text="4")
    yield GenerateResponse(text="2")
    yield GenerateResponse(finish_reason="stop", usage=Usage(output_tokens=2))


async def return_iterator(request):
    return yield_responses(request)


async def yield_strings(request):
    yield "4"
    yield "2"


async def forget_await(request):
    return respond(request)


def respond_in_a_thread(request):
    assert threading.current_thread() is not threading.main_thread()
    time.sleep(0.01)
    return GenerateResponse(text="42")


def hand_over_coroutine(request):
    return respond(request)


class Items:
    """An async iterator without ``aclose``."""

    def __init__(self):
        self.items = [GenerateResponse(text="4"), GenerateChunk(text="2")]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.items:
            raise StopAsyncIteration
        return self.items.pop(0)


async def return_plain_iterator(request):
    return Items()


@pytest.mark.parametrize(
    "generate",
    [
        respond,
        say,
        say_subclass,
        hand_over_chunk,
        yield_responses,
        return_iterator,
        yield_strings,
        forget_await,
        respond_in_a_thread,
        hand_over_coroutine,
        return_plain_iterator,
    ],
)
async def test_what_an_adapter_may_return(made, ask, generate):
    answer = await text_of(made(generate), ask)
    assert answer == "42"
    assert type(answer) is str


async def test_the_last_item_may_carry_only_facts(made, ask):
    response = await call(made(return_iterator), ask)
    assert response.finish_reason is FinishReason.STOP
    assert response.usage == Usage(output_tokens=2)
    assert [chunk.text for chunk in await gathered(made(yield_responses), ask)] == ["4", "2", ""]


async def test_tool_calls_of_several_items_stay_apart(made, ask):
    async def generate(request):
        for number in (1, 2):
            yield GenerateResponse(tool_calls=[ToolCall(id=f"c{number}", name="add", arguments={"n": number})])

    response = await call(made(generate), ask)
    assert [(c.id, c.parse()) for c in response.tool_calls] == [("c1", {"n": 1}), ("c2", {"n": 2})]


async def test_stream_asks_generate_for_a_stream_where_there_is_one(made, ask):
    asked = []

    async def generate(request):
        asked.append(request.stream)
        return "42"

    await gathered(made(generate), ask)
    await gathered(made(generate, capabilities=ProviderCapabilities()), ask)
    await call(made(generate), ask)
    assert asked == [True, False, False]


async def test_a_stream_of_the_adapters_own(made, ask):
    async def own(request):
        yield GenerateChunk(text="own")

    async def coroutine(request):
        return own(request)

    assert [c.text for c in await gathered(made(say, stream=own), ask)] == ["own"]
    assert [c.text for c in await gathered(made(say, stream=coroutine), ask)] == ["own"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "returned None"),
        (42, "returned int"),
        (b"42", "returned bytes"),
        ({"text": "42"}, "returned dict"),
        (["42"], "returned list"),
        (GenerateResponse, "returned type"),
        ((x for x in "42"), "returned a generator"),
        (GenerateResponse(text=12345), "text of type int"),
    ],
)
async def test_nonsense_is_the_adapters_failure(made, ask, value, message):
    async def generate(request):
        return value

    for attempt in (call, gathered):
        with pytest.raises(AdapterFailed, match=message) as caught:
            await attempt(made(generate), ask)
        assert not caught.value.retryable
        assert caught.value.provider == "made"


async def test_nonsense_in_the_middle_keeps_what_came_before(made, ask):
    async def generate(request):
        yield "4"
        yield 2

    async def nameless(request):
        yield "4"
        yield GenerateChunk(tool_calls=(ToolCallDelta(index=0, arguments="{}"),))

    with pytest.raises(AdapterFailed, match="returned int"):
        await call(made(generate), ask)
    with pytest.raises(MalformedReply, match="without a name") as caught:
        await call(made(nameless), ask)
    assert caught.value.partial == "4"


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (GenerateResponse(), EmptyReply),
        (GenerateResponse(text=""), EmptyReply),
        (GenerateResponse(text=" \n\t"), EmptyReply),
        (GenerateResponse(reasoning="hm"), EmptyReply),
        (GenerateResponse(refusal="I will not"), ContentFiltered),
        (GenerateResponse(finish_reason="content_filter"), ContentFiltered),
        (GenerateResponse(text="", finish_reason="length"), TruncatedReply),
        (GenerateResponse(text="half", finish_reason="error"), TruncatedReply),
    ],
)
async def test_no_answer_is_never_an_answer(made, ask, response, error):
    async def generate(request):
        return response

    for attempt in (call, gathered):
        with pytest.raises(error):
            await attempt(made(generate), ask)


async def test_a_shaped_value_or_a_tool_call_is_an_answer(made, ask):
    for answer in (GenerateResponse(structured={"a": 1}), GenerateResponse(tool_calls=[ToolCall(id="c", name="add")])):

        async def generate(request, answer=answer):
            return answer

        assert (await call(made(generate), ask)).structured == answer.structured


async def test_half_characters_become_whole(made, ask):
    async def generate(request):
        return "broken \ud83d here"

    assert (await call(made(generate), ask)).text == "broken \ufffd here"


async def test_facts_are_filled_in(made):
    response = await call(made(say), GenerateRequest(prompt="x", model="m-1"))
    assert response.model == "m-1"
    (attempt,) = response.attempts
    assert attempt.at == 0
    assert attempt.elapsed > 0
    assert attempt.error is None


# What may be raised.


class Odd(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class Stubborn(Exception):
    args = property(lambda self: ("x",), lambda self, value: 1 / 0)


RAISED = [
    ValueError("API key required"),
    Odd("odd"),
    Mute(),
    Stubborn(),
    SystemExit(3),
    GeneratorExit("gone"),
    StopIteration("over"),
    StopAsyncIteration("over"),
    KeyError("choices"),
    RecursionError("deep"),
    ExceptionGroup("several", [ValueError("a"), ValueError("b")]),
    MemoryError(),
]


@pytest.mark.parametrize("raised", RAISED, ids=lambda e: type(e).__name__)
async def test_whatever_an_adapter_raises_is_its_failure(made, ask, raised):
    async def generate(request):
        raise raised

    async def later(request):
        yield "4"
        raise raised

    for attempt in (call, gathered):
        with pytest.raises(AdapterFailed) as caught:
            await attempt(made(generate), ask)
        error = caught.value
        assert not error.retryable
        assert error.attempts[0].error == "AdapterFailed"
        assert error.provider == "made"
        assert "test_entry.py" in error.message
        with pytest.raises(AdapterFailed):
            await attempt(made(later), ask)
    assert pickle.loads(pickle.dumps(error)).message == error.message


async def test_the_adapters_own_message_is_the_message(made, ask):
    async def generate(request):
        raise ValueError("API key required")

    with pytest.raises(AdapterFailed, match=r"^API key required \(ValueError in test_entry\.py:\d+\)$") as caught:
        await call(made(generate), ask)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__cause__.__traceback__ is None


async def test_keyboard_interrupt_passes(made, ask):
    async def generate(request):
        raise KeyboardInterrupt

    for attempt in (call, gathered):
        with pytest.raises(KeyboardInterrupt):
            await attempt(made(generate), ask)


async def test_typed_errors_pass_and_learn_the_facts_of_the_call(made):
    async def generate(request):
        raise RateLimited("slow down", status=429, retry_after=7.0, request_id="r-1")

    with call_context.entered(call_context.RunScope(run_id="run-1")), pytest.raises(RateLimited) as caught:
        await call(made(generate), GenerateRequest(prompt="x", model="m-1"))
    error = caught.value
    assert (error.provider, error.model, error.run_id, error.retry_after) == ("made", "m-1", "run-1", 7.0)
    assert error.elapsed >= 0
    assert (error.attempts[0].status, error.attempts[0].request_id) == (429, "r-1")


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [(401, {}, AuthenticationFailed), (429, {"retry-after": "3"}, RateLimited), (418, {}, ApiError)],
)
async def test_httpx_errors_of_an_adapter_are_typed(made, ask, status, headers, error):
    async def generate(request):
        sent = httpx.Request(
            "POST", "https://api.example.com/v1", headers={"Authorization": "Bearer sk-canary-123456789"}
        )
        httpx.Response(status, headers=headers, json={"oh": "no"}, request=sent).raise_for_status()

    with pytest.raises(error) as caught:
        await call(made(generate), ask)
    assert caught.value.status == status
    assert caught.value.retry_after == (3.0 if headers else None)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


async def test_a_group_of_one_is_that_one(made, ask):
    async def generate(request):
        async with anyio.create_task_group() as group:
            group.start_soon(fail)

    async def fail():
        raise httpx.ConnectError("refused", request=httpx.Request("GET", "http://127.0.0.1:1/"))

    with pytest.raises(ConnectFailed):
        await call(made(generate), ask)


async def test_an_error_ends_in_the_authors_code(made, ask):
    async def generate(request):
        raise RateLimited("mine")

    with pytest.raises(RateLimited) as caught:
        await call(made(generate), ask)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "generate"
    assert len(frames) <= 4


async def test_our_frames_leave_a_traceback_and_every_authors_frame_stays(made, ask):
    async def generate(request):
        raise RateLimited("mine")

    async def outer(request):
        return await call(Retry(made(generate), RetryPolicy(max_retries=0)), request)

    with pytest.raises(RateLimited) as caught:
        await call(Failover([made(outer)]), ask)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames][1:] == ["call", "_passed_on", "outer", "generate"]


async def test_no_frame_below_an_adapter_of_ours_stays(ask):
    class Author(OpenAICompatibleProvider):
        def parse_response(self, data):
            raise RateLimited("the author's hook holds what the vendor sent")

    provider = Author(base_url="https://llm.example.com/v1", transport=FakeVendor("openai", "42").transport())
    with pytest.raises(RateLimited, match="hook") as caught:
        await call(provider, attrs.evolve(ask, model="m"))
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][1:] == []


# Time.


async def forever(request):
    await anyio.sleep_forever()


async def begin_and_hang(request):
    yield "4"
    await anyio.sleep_forever()


async def test_the_tightest_limit_rules(made, ask):
    with pytest.raises(TimedOut) as caught:
        await call(made(forever), ask, deadline=0.05)
    assert (caught.value.phase, caught.value.retryable) == ("deadline", False)
    with pytest.raises(TimedOut):
        await call(made(forever), attrs.evolve(ask, timeout_seconds=0.05), deadline=60)
    scope = call_context.RunScope(deadline=time.monotonic() + 0.05)
    with call_context.entered(scope), pytest.raises(TimedOut):
        await call(made(forever), ask)


async def test_what_arrived_in_time_is_kept(made, ask):
    for attempt in (call, gathered):
        with pytest.raises(TimedOut) as caught:
            await attempt(made(begin_and_hang), ask, deadline=0.1)
        assert caught.value.partial == "4"


async def test_a_deadline_that_has_passed_sends_nothing(made, ask):
    async def generate(request):
        raise AssertionError("sent")

    with pytest.raises(TimedOut):
        await call(made(generate), ask, deadline=0)
    with pytest.raises(TimedOut):
        await gathered(made(generate), ask, deadline=0)


async def test_the_deadline_counts_the_pauses_of_who_reads(made, ask):
    chunks = stream(made(yield_strings), ask, deadline=0.05)
    await anext(chunks)
    await anyio.sleep(0.1)
    with pytest.raises(TimedOut):
        await anext(chunks)


async def test_cancelling_the_caller_cancels_the_adapter_and_passes(made, ask):
    seen = []

    async def generate(request):
        try:
            await anyio.sleep_forever()
        except BaseException as exc:
            seen.append(exc)
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            seen.append("cleaned up")
            raise

    for attempt in (call, gathered):
        with anyio.move_on_after(0.05) as scope:
            await attempt(made(generate), ask)
        assert scope.cancelled_caught
        assert isinstance(seen[0], anyio.get_cancelled_exc_class())
        assert seen[1] == "cleaned up"
        seen.clear()


async def test_an_adapter_that_ignores_its_cancellation_is_abandoned(made, ask, monkeypatch, caplog):
    monkeypatch.setattr(bounded, "GRACE", 0.1)
    release = anyio.Event()

    async def generate(request):
        while not release.is_set():
            try:
                with anyio.CancelScope(shield=True):
                    await release.wait()
            except asyncio.CancelledError:
                pass

    with caplog.at_level(logging.WARNING, "llm_council"), pytest.raises(TimedOut):
        await call(made(generate), ask, deadline=0.05)
    assert "made ignores its cancellation" in caplog.text
    assert "test_entry.py" in caplog.text
    release.set()
    await anyio.sleep(0.05)


async def test_a_stream_may_hold_a_cancel_scope_across_its_items(made, ask):
    async def generate(request):
        with anyio.fail_after(30):
            yield "4"
            yield "2"

    assert [c.text for c in await gathered(made(generate), ask, deadline=60)] == ["4", "2"]


async def test_closing_early_runs_the_adapters_clean_up(made, ask):
    closed = []

    async def generate(request):
        try:
            yield "4"
            yield "2"
        finally:
            await anyio.sleep(0)
            closed.append(True)

    chunks = stream(made(generate), ask)
    assert (await anext(chunks)).text == "4"
    await chunks.aclose()
    assert closed == [True]


# What is asked for.


async def test_what_nothing_can_stand_in_for_is_refused_before_anything_is_sent(made):
    async def generate(request):
        raise AssertionError("sent")

    adapter = made(generate, capabilities=ProviderCapabilities())
    for request, capability in (
        (GenerateRequest(prompt="x", tools=[Tool(name="add")]), "tool_use"),
        (GenerateRequest(messages=[Message("user", [ImagePart(url="https://a.b/c.png")])]), "multimodal"),
    ):
        for attempt in (call, gathered):
            with pytest.raises(CapabilityMissing) as caught:
                await attempt(adapter, request)
            assert caught.value.capability == capability
            assert caught.value.provider == "made"


async def test_adjustments_are_told_in_the_answer_and_in_the_first_piece(made):
    capabilities = ProviderCapabilities(streaming=True, max_tokens=10)
    request = GenerateRequest(prompt="x", max_tokens=99, reasoning=ReasoningConfig(effort="low"))
    response = await call(made(say, capabilities=capabilities), request)
    assert {a.field for a in response.adjustments} == {"max_tokens", "reasoning"}
    chunks = await gathered(made(yield_strings, capabilities=capabilities), request)
    assert {a.field for a in chunks[0].adjustments} == {"max_tokens", "reasoning"}
    assert [c.adjustments for c in chunks[1:]] == [()]


async def test_an_emulated_schema_is_checked_here(made):
    async def generate(request):
        assert "JSON Schema" in request.prompt
        return '{"answer": 42}'

    request = GenerateRequest(prompt="x", structured_output=StructuredOutput(json_schema=SCHEMA))
    adapter = made(generate, capabilities=ProviderCapabilities())
    response = await call(adapter, request)
    assert "$.answer" in response.adjustments[-1].reason
    assert "$.answer" in join(await gathered(adapter, request)).adjustments[-1].reason


async def test_an_answer_that_calls_tools_misses_no_schema(made):
    async def generate(request):
        return GenerateResponse(tool_calls=[ToolCall(id="a", name="add")])

    schema = StructuredOutput(json_schema=SCHEMA)
    request = GenerateRequest(prompt="x", structured_output=schema, tools=[Tool(name="add")])
    adapter = made(generate, capabilities=ProviderCapabilities(tool_use=True))
    for response in (await call(adapter, request), join(await gathered(adapter, request))):
        assert [one.reason for one in response.adjustments] == [
            "it cannot be held to a schema: that stands in the prompt"
        ]


async def test_the_door_takes_providers_and_requests_only(made, ask):
    nameless = type("Nameless", (ProviderAdapter,), {"generate": staticmethod(say)})
    for adapter, request, message in (
        (made(say), "what?", "expected a GenerateRequest"),
        (made, ask, "expected a ProviderAdapter"),
        (type(made(say)), ask, "an instance, not the class"),
        (nameless(), ask, "Nameless has no name"),
        (type("Named", (nameless,), {"name": "named"})(), ask, "does not say what it can do"),
    ):
        with pytest.raises(InvalidOption, match=message):
            await call(adapter, request)


# Health.


async def test_a_doctor_is_asked_as_it_was_written(made):
    async def plain():
        return DoctorResult(ok=True, message="well")

    async def deep_one(*, deep=False):
        return DoctorResult(ok=True, message=f"deep={deep}")

    def blocking():
        return True

    async def sick():
        raise ValueError("no pulse")

    async def silent():
        return None

    assert (await examine(made(say, doctor=plain))).message == "well"
    deep = await examine(made(say, doctor=plain), deep=True)
    assert deep.ok
    assert "answered in" in deep.message  # a call was made, since its doctor knows nothing of depth
    assert (await examine(made(say, doctor=deep_one), deep=True)).message == "deep=True"
    assert (await examine(made(say, doctor=blocking))).ok
    assert "no pulse" in (await examine(made(say, doctor=sick))).message
    assert "not a DoctorResult" in (await examine(made(say, doctor=silent))).message
    late = await examine(made(say, doctor=anyio.sleep_forever), deadline=0.05)
    assert (late.ok, late.message) == (False, "no answer within 0.05 s")


async def test_the_default_doctor_says_what_it_did_not_ask(made):
    assert "was not asked" in (await examine(made(say))).message
    assert (await examine(made(say), deep=True)).ok

    async def broken(request):
        raise MissingCredentials("set THE_KEY")

    result = await examine(made(broken), deep=True)
    assert (result.ok, result.message) == (False, "MissingCredentials: set THE_KEY")


# Both worlds, many loops, copies.


class Author(ProviderAdapter):
    """Written as authors write: no super().__init__(), no state of ours."""

    name = "author"
    capabilities = ProviderCapabilities(streaming=True, tool_use=True)

    def __init__(self, answer="42"):
        self.answer = answer

    async def generate(self, request):
        client = await self._get_client()
        assert await self._get_client() is client
        return GenerateResponse(text=self.answer)


@attrs.frozen
class Frozen(ProviderAdapter):
    name = "frozen"
    capabilities = ProviderCapabilities()
    answer: str = "42"

    async def generate(self, request):
        await self._get_client()
        return self.answer


@pytest.mark.parametrize("cls", [Author, Frozen])
def test_blocking_twins_need_nothing_of_the_author(cls, ask):
    with cls() as adapter:
        assert adapter.generate_sync(ask).text == "42"
        assert "".join(chunk.text for chunk in adapter.stream_sync(ask)) == "42"
        assert adapter.supports_sync("streaming") is adapter.capabilities.streaming
        assert not adapter.supports_sync("telepathy")
        assert adapter.doctor_sync().ok
        for copied in (pickle.loads(pickle.dumps(adapter)), deepcopy(adapter)):
            assert copied.generate_sync(ask).text == "42"
    assert adapter.generate_sync(ask).text == "42"  # closed is not ended
    adapter.close()


def test_blocking_calls_raise_what_awaiting_raises(made, ask):
    async def generate(request):
        raise ValueError("API key required")

    adapter = made(generate)
    with pytest.raises(AdapterFailed, match="API key required") as caught:
        adapter.generate_sync(ask)
    assert len(traceback.extract_tb(caught.value.__traceback__)) <= 6
    with pytest.raises(AdapterFailed):
        list(adapter.stream_sync(ask))


def test_one_adapter_serves_many_loops_and_threads(ask):
    adapter = Author()
    answers = []

    async def some():
        async with adapter:
            answers.extend([(await call(adapter, ask)).text for _ in range(5)])

    def work():
        asyncio.run(some())
        answers.append(adapter.generate_sync(ask).text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    anyio.run(some, backend="trio")
    adapter.close()
    assert answers == ["42"] * 29
    gc.collect()


def test_every_error_of_ours_stays_one_of_ours(made, ask):
    async def generate(request):
        raise CouncilError("plain")

    with pytest.raises(CouncilError, match="plain"):
        made(generate).generate_sync(ask)
