"""Vendors' batch jobs: each call gets its own outcome, whatever becomes of the job; a job is found by our reference."""

import json
import math
from contextlib import aclosing

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import (
    AuthenticationFailed,
    BatchIncomplete,
    ConnectionLost,
    EmptyReply,
    InvalidOption,
    MalformedReply,
    MissingCredentials,
    RateLimited,
    RequestRejected,
    ServerFailed,
)
from llm_council.models import (
    Cost,
    GenerateRequest,
    GenerateResponse,
    Limits,
    Message,
    StructuredOutput,
    Tool,
    ToolCall,
)
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.batch_jobs import JobState, custom_id, new_reference, split_custom_id
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.gateways import GroqProvider, MistralProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing import ScriptedProvider
from llm_council.testing.servers import Cut, FakeBatchVendor, Hang, Refuse, obliging
from llm_council.transports import HttpReply

pytestmark = pytest.mark.anyio

PROVIDERS = {
    "openai": (OpenAIProvider, "gpt-4.1"),
    "mistral": (MistralProvider, "mistral-large-2512"),
    "anthropic": (AnthropicProvider, "claude-sonnet-4-5"),
    "gemini": (GeminiProvider, "gemini-2.5-pro"),
}
KEY = "house-key-123456789"
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.fixture(params=sorted(PROVIDERS))
def speaks(request):
    return request.param


def provided(vendor, speaks, **options):
    cls, model = PROVIDERS[speaks]
    return cls(base_url=vendor.url, api_key=KEY, default_model=model, transport=vendor.transport(), **options)


def jobs_of(vendor, speaks, **options):
    jobs = provided(vendor, speaks, **options).batch_jobs()
    assert jobs is not None
    return jobs


def asked(count):
    return {str(number): GenerateRequest(prompt=f"What is {number}?") for number in range(count)}


def number_in(request):
    return int(request.messages[-1].content.removeprefix("What is ").removesuffix("?"))


def told(request):
    return f"It is {number_in(request)}."


async def read(jobs, job, calls, found=None):
    """Return the outcomes by call, also in ``found``; no call may have two."""
    found = {} if found is None else found
    async with aclosing(jobs.outcomes(job, calls)) as outcomes:
        async for call, outcome in outcomes:
            assert call not in found
            found[call] = outcome
    return found


async def ended(jobs, job):
    for _ in range(5):
        status = await jobs.status(job)
        if status.state is not JobState.RUNNING:
            return status
    raise AssertionError(f"the job did not end: {status}")


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_many_calls_get_their_own_answers_and_errors_once(speaks, count):
    def said(request):
        number = number_in(request)
        return Refuse(status=400, message=f"no to {number}") if number % 33 == 10 else told(request)

    vendor = FakeBatchVendor(speaks, said, polls=2)
    jobs, calls = jobs_of(vendor, speaks), asked(count)
    job = await jobs.send(calls, new_reference())
    assert (await jobs.status(job)).state is JobState.RUNNING
    status, refused = await ended(jobs, job), count * 3 // 100
    assert (status.state, status.total, status.done, status.failed) == (JobState.ENDED, count, count - refused, refused)
    found = await read(jobs, job, calls)
    assert found.keys() == calls.keys()
    for call, outcome in found.items():
        if int(call) % 33 == 10:
            assert isinstance(outcome, RequestRejected)
            assert outcome.message.startswith(f"no to {call}")
            assert (outcome.provider, outcome.status) == (speaks, 400)
        else:
            assert outcome.text == f"It is {call}."
    assert len(vendor.paid) == count - refused
    assert set(vendor.paid.values()) == {1}
    assert vendor.strange == vendor.calls == []


async def test_an_answer_says_at_which_share_of_the_price_it_came(speaks):
    vendor = FakeBatchVendor(speaks, told)
    jobs, calls = jobs_of(vendor, speaks), asked(1)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    answer = (await read(jobs, job, calls))["0"]
    assert jobs.price == 0.5
    assert answer.cost == Cost(share=0.5)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (11, 7)
    assert answer.model == PROVIDERS[speaks][1]


async def test_a_call_is_what_a_direct_one_is(speaks):
    tool = Tool(name="f", description="a tool", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
    called = GenerateResponse(tool_calls=[ToolCall(id="call_1", name="f", arguments='{"a": 1}')])
    calls = {
        "tool": GenerateRequest(prompt="Call it.", tools=[tool], max_tokens=77),
        "shape": GenerateRequest(prompt="Answer.", structured_output=StructuredOutput(json_schema=SCHEMA)),
        "plain": GenerateRequest(prompt="Speak.", temperature=0.5, stream=True),
    }
    vendor = FakeBatchVendor(speaks, lambda request: called if request.tools else obliging)
    jobs = jobs_of(vendor, speaks)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    found = await read(jobs, job, calls)
    assert [(call.name, call.parse()) for call in found["tool"].tool_calls] == [("f", {"a": 1})]
    assert found["plain"].text == "It is so."
    (sent,) = vendor.jobs.values()
    bodies = {split_custom_id(custom)[1]: call.payload for custom, call in sent.calls.items()}
    direct = provided(vendor, speaks)
    for name in ("tool", "plain"):
        fitted, _ = await direct._prepared(calls[name])
        _, payload = direct._encode(fitted, stream=False)
        payload.pop("stream", None)
        assert bodies[name] == payload
    if speaks != "gemini":
        assert json.loads(found["shape"].text) == {"answer": 0}


async def test_gemini_gets_schemas_in_the_prompt_because_its_jobs_do_not_keep_to_them():
    vendor = FakeBatchVendor("gemini", '{"answer": 42}')
    jobs = jobs_of(vendor, "gemini")
    calls = {"0": GenerateRequest(prompt="Answer.", structured_output=StructuredOutput(json_schema=SCHEMA))}
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    (sent,) = vendor.jobs["batches/1"].calls.values()
    assert sent.payload["generationConfig"]["responseMimeType"] == "application/json"
    assert "responseJsonSchema" not in sent.payload["generationConfig"]
    answer = (await read(jobs, job, calls))["0"]
    assert json.loads(answer.text) == {"answer": 42}
    assert [(change.field, change.action) for change in answer.adjustments] == [("structured_output", "emulated")]


async def test_a_job_that_expires_fails_only_the_calls_that_were_not_done(speaks):
    vendor = FakeBatchVendor(speaks, lambda request: Hang() if number_in(request) % 3 == 0 else told(request))
    jobs, calls = jobs_of(vendor, speaks), asked(10)
    job = await jobs.send(calls, new_reference())
    assert (await ended(jobs, job)).state is JobState.EXPIRED
    found = await read(jobs, job, calls)
    assert found.keys() == calls.keys()
    for call, outcome in found.items():
        # The results of an expired job are lost at Gemini (Gemini API docs, "Batch API", JOB_STATE_EXPIRED).
        if int(call) % 3 == 0 or speaks == "gemini":
            assert isinstance(outcome, BatchIncomplete)
            assert (outcome.reason, outcome.job, outcome.retryable) == ("expired", job, True)
        else:
            assert outcome.text == f"It is {call}."


async def test_a_cancelled_job_keeps_the_answers_that_were_there(speaks):
    vendor = FakeBatchVendor(speaks, told, polls=2)
    jobs, calls = jobs_of(vendor, speaks), asked(10)
    job = await jobs.send(calls, new_reference())
    await jobs.status(job)  # half of the calls are done
    await jobs.cancel(job)
    assert (await ended(jobs, job)).state is JobState.CANCELLED
    await jobs.cancel(job)  # once more does no harm
    found = await read(jobs, job, calls)
    done = [call for call, outcome in found.items() if isinstance(outcome, GenerateResponse)]
    assert len(found) == 10
    assert sorted(done) == ([] if speaks == "gemini" else ["0", "1", "2", "3", "4"])
    assert {outcome.reason for outcome in found.values() if isinstance(outcome, BatchIncomplete)} == {"cancelled"}


async def test_a_finished_job_is_not_cancelled(speaks):
    vendor = FakeBatchVendor(speaks, told)
    jobs, calls = jobs_of(vendor, speaks), asked(2)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    await jobs.cancel(job)
    assert (await jobs.status(job)).state is JobState.ENDED
    assert all(isinstance(outcome, GenerateResponse) for outcome in (await read(jobs, job, calls)).values())


@pytest.mark.parametrize("speaks", ["gemini", "mistral", "openai"])
async def test_a_job_that_fails_as_a_whole_gives_each_call_the_vendors_reason(speaks):
    vendor = FakeBatchVendor(speaks, told)
    vendor.fails = Refuse(status=400, message="this model takes no batch jobs", code="model_not_supported")
    jobs, calls = jobs_of(vendor, speaks), asked(3)
    job = await jobs.send(calls, new_reference())
    status = await ended(jobs, job)
    assert (status.state, status.error) == (JobState.FAILED, "this model takes no batch jobs")
    found = await read(jobs, job, calls)
    assert len({id(error) for error in found.values()}) == len(found) == 3
    for error in found.values():
        assert isinstance(error, RequestRejected)
        assert not error.retryable
        assert "this model takes no batch jobs" in error.message


async def test_a_full_queue_can_be_tried_again_later():
    vendor = FakeBatchVendor("openai", told)
    vendor.fails = Refuse(status=400, message="Enqueued token limit reached", code="token_limit_exceeded")
    jobs, calls = jobs_of(vendor, "openai"), asked(1)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    error = (await read(jobs, job, calls))["0"]
    assert isinstance(error, RateLimited)
    assert error.retryable


async def test_anthropic_refuses_a_job_at_once():
    vendor = FakeBatchVendor("anthropic", told)
    vendor.fails = Refuse(status=400, message="requests: too long")
    with pytest.raises(RequestRejected, match="requests: too long") as caught:
        await jobs_of(vendor, "anthropic").send(asked(1), new_reference())
    assert caught.value.status == 400
    assert vendor.jobs == {}


async def test_results_that_are_gone_leave_each_call_without_an_outcome(speaks):
    vendor = FakeBatchVendor(speaks, told)
    jobs, calls = jobs_of(vendor, speaks), asked(3)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    vendor.keeps_results = False
    found = await read(jobs, job, calls)
    assert {(type(error), error.reason, error.retryable) for error in found.values()} == {
        (BatchIncomplete, "missing", True)
    }
    assert found.keys() == calls.keys()


async def test_calls_of_others_and_broken_lines_are_left_out(speaks):
    vendor = FakeBatchVendor(speaks, told)
    jobs, calls = jobs_of(vendor, speaks), asked(4)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    (made,) = vendor.jobs.values()
    first = next(iter(made.calls))
    made.answered[first] = {"nonsense": True}
    found = await read(jobs, job, {call: calls[call] for call in ("0", "1", "2")})
    assert found.keys() == {"0", "1", "2"}
    assert found["0"].reason == "missing"
    assert found["1"].text == "It is 1."


async def test_an_answer_that_cannot_be_read_fails_its_own_call(speaks):
    vendor = FakeBatchVendor(speaks, lambda request: GenerateResponse(text="") if number_in(request) else told(request))
    jobs, calls = jobs_of(vendor, speaks), asked(2)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    found = await read(jobs, job, calls)
    assert found["0"].text == "It is 0."
    assert isinstance(found["1"], EmptyReply)
    assert (found["1"].provider, found["1"].model) == (speaks, PROVIDERS[speaks][1])


@pytest.mark.parametrize(
    ("refuse", "kind"),
    [
        (Refuse(status=429, message="slow down"), RateLimited),
        (Refuse(status=500, message="it broke"), ServerFailed),
        (Refuse(status=401, message="who is it"), AuthenticationFailed),
    ],
)
async def test_the_error_of_a_call_is_classified_as_that_of_a_direct_one(speaks, refuse, kind):
    vendor = FakeBatchVendor(speaks, refuse)
    jobs, calls = jobs_of(vendor, speaks), asked(1)
    job = await jobs.send(calls, new_reference())
    await ended(jobs, job)
    error = (await read(jobs, job, calls))["0"]
    assert type(error) is kind
    assert refuse.message in error.message


async def test_a_job_is_found_by_its_reference_among_others(speaks):
    now = [1_800_000_000.0]
    vendor = FakeBatchVendor(speaks, told, page=3, clock=lambda: now[0])
    jobs = jobs_of(vendor, speaks)
    references = [new_reference() for _ in range(8)]
    sent = []
    for reference in references:
        now[0] += 10
        sent.append(await jobs.send(asked(2), reference))
        vendor.finish()
    for reference, job in zip(references, sent, strict=True):
        (found,) = await jobs.find(reference, total=2, since=now[0] - 80)
        assert (found.job, found.is_certain) == (job, True)
    assert await jobs.find(new_reference(), total=2, since=now[0] - 80) == ()
    assert await jobs.find(references[0], total=2, since=now[0] + 90_000) == ()


async def test_jobs_of_others_that_cannot_be_read_are_passed_over(speaks):
    vendor = FakeBatchVendor(speaks, told, polls=0)
    provider = provided(vendor, speaks)
    reference = new_reference()
    job = await provider.batch_jobs().send(asked(1), reference)
    send = provider._transport.send

    async def with_others(request, **options):
        reply = await send(request, **options)
        page = json.loads(reply.body)
        for key in {"data", "operations"} & page.keys():
            page[key] = [None, {"name": "a name of another kind", "id": 7}, *page[key], {}]
        return attrs.evolve(reply, body=json.dumps(page).encode())

    provider._transport.send = with_others
    (found,) = await provider.batch_jobs().find(reference, total=1, since=vendor.clock() - 1)
    assert found.job == job


async def test_both_jobs_of_a_reference_are_found_the_oldest_first(speaks):
    now = [1_800_000_000.0]
    vendor = FakeBatchVendor(speaks, told, clock=lambda: now[0])
    jobs, reference = jobs_of(vendor, speaks), new_reference()
    first = await jobs.send(asked(2), reference)
    now[0] += 60
    second = await jobs.send(asked(2), reference)
    vendor.finish()
    found = await jobs.find(reference, total=2, since=now[0] - 60)
    assert [job.job for job in found] == [first, second]


async def test_a_new_job_may_be_missing_in_the_list_for_a_while(speaks):
    vendor = FakeBatchVendor(speaks, told, hidden=2, polls=0)
    jobs, reference = jobs_of(vendor, speaks), new_reference()
    job = await jobs.send(asked(1), reference)
    since = vendor.clock() - 1
    assert await jobs.find(reference, total=1, since=since) == ()
    assert await jobs.find(reference, total=1, since=since) == ()
    assert [found.job for found in await jobs.find(reference, total=1, since=since)] == [job]


async def test_a_running_job_of_anthropic_is_found_by_its_size_until_it_ends():
    vendor = FakeBatchVendor("anthropic", told, polls=math.inf)
    jobs, reference = jobs_of(vendor, "anthropic"), new_reference()
    job = await jobs.send(asked(3), reference)
    since = vendor.clock() - 1
    (found,) = await jobs.find(reference, total=3, since=since)
    assert (found.job, found.is_certain) == (job, False)
    assert await jobs.find(reference, total=4, since=since) == ()
    assert len(await jobs.find(new_reference(), total=3, since=since)) == 1  # it may be that one
    assert await jobs.find(reference, total=3, since=since + 7200) == ()
    vendor.finish()
    (found,) = await jobs.find(reference, total=3, since=since)
    assert found.is_certain
    assert await jobs.find(new_reference(), total=3, since=since) == ()


@pytest.mark.parametrize("spoiled", [Refuse(status=503, message="try later"), Cut(share=0.5)])
async def test_a_job_whose_id_was_not_read_is_found(speaks, spoiled):
    vendor = FakeBatchVendor(speaks, told, polls=0)
    vendor.on_created = spoiled
    jobs, reference, calls = jobs_of(vendor, speaks), new_reference(), asked(2)
    with pytest.raises((ServerFailed, ConnectionLost)):
        await jobs.send(calls, reference)
    (found,) = await jobs.find(reference, total=2, since=vendor.clock() - 1)
    assert found.is_certain
    assert [outcome.text for outcome in (await read(jobs, found.job, calls)).values()] == ["It is 1.", "It is 0."]
    assert set(vendor.paid.values()) == {1}


async def test_jobs_go_over_the_transport_that_a_provider_has_by_itself(speaks):
    vendor = FakeBatchVendor(speaks, told, key=KEY)
    cls, model = PROVIDERS[speaks]
    with vendor.serve():
        async with cls(base_url=vendor.url, api_key=KEY, default_model=model) as provider:
            jobs, reference, calls = provider.batch_jobs(), new_reference(), asked(3)
            job = await jobs.send(calls, reference)
            assert [found.job for found in await jobs.find(reference, total=3, since=vendor.clock() - 1)] == [job]
            await ended(jobs, job)
            assert {call: found.text for call, found in (await read(jobs, job, calls)).items()} == {
                call: told(request_of(call)) for call in calls
            }


def request_of(call):
    return GenerateRequest(messages=[Message("user", f"What is {call}?")])


async def test_a_list_with_large_jobs_of_others_is_read(speaks):
    vendor = FakeBatchVendor(speaks, told, polls=0)
    jobs, reference = jobs_of(vendor, speaks, limits=Limits(body=30_000)), new_reference()
    job = await jobs.send(asked(1), reference)
    vendor.jobs[job].facts["inline"] = "x" * 40_000
    assert [found.job for found in await jobs.find(reference, total=1, since=vendor.clock() - 1)] == [job]


@pytest.mark.parametrize("spoiled", [Refuse(status=502, message="bad gateway"), Cut(share=0.5)])
async def test_results_that_could_not_be_read_to_their_end_are_read_again(speaks, spoiled):
    vendor = FakeBatchVendor(speaks, told, polls=0)
    jobs, calls = jobs_of(vendor, speaks), asked(20)
    job = await jobs.send(calls, new_reference())
    vendor.on_results = spoiled
    before = {}
    with pytest.raises((ServerFailed, ConnectionLost)) as caught:
        await read(jobs, job, calls, before)
    assert caught.value.retryable
    assert caught.value.provider == speaks
    found = {call: outcome.text for call, outcome in (await read(jobs, job, calls)).items()}
    assert found.keys() == calls.keys()
    assert {call: outcome.text for call, outcome in before.items()}.items() <= found.items()
    assert (len(before) > 5) == isinstance(spoiled, Cut)


async def test_the_outcomes_of_a_running_job_are_refused(speaks):
    vendor = FakeBatchVendor(speaks, told, polls=math.inf)
    jobs = jobs_of(vendor, speaks)
    job = await jobs.send(asked(1), new_reference())
    with pytest.raises(InvalidOption, match="still running"):
        await read(jobs, job, asked(1))


async def test_an_unknown_job_is_rejected(speaks):
    vendor = FakeBatchVendor(speaks, told)
    unknown = "batches/99" if speaks == "gemini" else "99"
    for ask in (jobs_of(vendor, speaks).status, jobs_of(vendor, speaks).cancel):
        with pytest.raises(RequestRejected) as caught:
            await ask(unknown)
        assert (caught.value.status, caught.value.provider) == (404, speaks)


async def test_what_no_job_can_be_is_refused_before_anything_is_sent(speaks):
    vendor = FakeBatchVendor(speaks, told)
    jobs, reference = jobs_of(vendor, speaks), new_reference()
    with pytest.raises(InvalidOption, match=r"1 to \d+ calls, got 0"):
        await jobs.send({}, reference)
    jobs.most = 2
    with pytest.raises(InvalidOption, match="1 to 2 calls, got 3"):
        await jobs.send(asked(3), reference)
    jobs.most_bytes = 100
    with pytest.raises(InvalidOption, match="at most 100 bytes"):
        await jobs.send(asked(1), reference)
    for calls, name in ((asked(1), "not valid"), ({"a b": asked(1)["0"]}, reference)):
        with pytest.raises(InvalidOption, match="letters"):
            await jobs.send(calls, name)
    assert vendor.asked == []


async def test_calls_of_several_groups_are_refused():
    vendor = FakeBatchVendor("openai", told)
    jobs = jobs_of(vendor, "openai")
    calls = {"0": GenerateRequest(prompt="x"), "1": GenerateRequest(prompt="x", model="gpt-4.1-mini")}
    assert len({(await jobs.prepare(request)).group for request in calls.values()}) == 2
    with pytest.raises(InvalidOption, match="same group"):
        await jobs.send(calls, new_reference())
    mixed = jobs_of(FakeBatchVendor("anthropic"), "anthropic")
    assert len({(await mixed.prepare(request)).group for request in calls.values()}) == 1


async def test_openais_two_apis_share_no_job():
    vendor = FakeBatchVendor("openai", told)
    jobs = {api: jobs_of(vendor, "openai", api=api) for api in ("chat", "responses")}
    groups = {api: (await each.prepare(GenerateRequest(prompt="x"))).group for api, each in jobs.items()}
    assert groups == {"chat": "/chat/completions gpt-4.1", "responses": "/responses gpt-4.1"}
    calls = asked(2)
    job = await jobs["responses"].send(calls, new_reference())
    await ended(jobs["responses"], job)
    found = await read(jobs["responses"], job, calls)
    assert {call: outcome.text for call, outcome in found.items()} == {"0": "It is 0.", "1": "It is 1."}


async def test_the_size_of_a_call_is_what_it_adds_to_a_job(speaks):
    vendor = FakeBatchVendor(speaks, told)
    jobs = jobs_of(vendor, speaks)
    calls = {str(number): GenerateRequest(prompt="ü\u2028" * 100 * number) for number in range(1, 20)}
    sizes = [(await jobs.prepare(request)).size for request in calls.values()]
    await jobs.send(calls, new_reference())
    sent = max(len(asked.body) for asked in vendor.asked)
    assert sent - 1000 < sum(sizes) < sent + 64 * len(calls)


async def test_a_missing_key_is_told_before_anything_is_sent(speaks, monkeypatch):
    cls, model = PROVIDERS[speaks]
    monkeypatch.delenv(cls.API_KEY_ENV, raising=False)
    vendor = FakeBatchVendor(speaks)
    jobs = cls(base_url=vendor.url, default_model=model, transport=vendor.transport()).batch_jobs()
    name = "batches/1"
    for ask in (jobs.prepare(asked(1)["0"]), jobs.send(asked(1), new_reference()), jobs.status(name)):
        with pytest.raises(MissingCredentials, match=cls.API_KEY_ENV):
            await ask
    assert vendor.asked == []


async def test_a_wrong_key_is_told_and_never_shown(speaks):
    vendor = FakeBatchVendor(speaks, key="another-key-987654321")
    jobs = jobs_of(vendor, speaks)
    for ask in (jobs.send(asked(1), new_reference()), jobs.find(new_reference(), total=1, since=0.0)):
        with pytest.raises(AuthenticationFailed, match="check the key in api_key") as caught:
            await ask
        assert KEY not in repr(caught.value)
        assert caught.value.provider == speaks
    assert not any(KEY in sent.path + sent.query or KEY.encode() in sent.body for sent in vendor.asked)


async def test_geminis_upload_goes_to_the_providers_own_address():
    vendor = FakeBatchVendor("gemini", told)
    provider = provided(vendor, "gemini")
    hosts = []
    send = provider._transport.send

    async def elsewhere(request, **options):
        hosts.append(request.url.split("/")[2])
        reply = await send(request, **options)
        url = reply.headers.get("x-goog-upload-url", "").replace("gemini.invalid", "evil.example")
        return attrs.evolve(reply, headers={**reply.headers, "x-goog-upload-url": url})

    provider._transport.send = elsewhere
    await provider.batch_jobs().send(asked(1), new_reference())
    assert set(hosts) == {"gemini.invalid"}


async def test_a_reply_without_an_id_is_malformed(speaks):
    provider = provided(FakeBatchVendor(speaks), speaks)

    async def nameless(request, **options):
        return HttpReply(status=200, body=b'{"nothing": 1}')

    provider._transport.send = nameless
    with pytest.raises(MalformedReply, match=r"expected a|no address"):
        await provider.batch_jobs().send(asked(1), new_reference())


@given(st.from_regex(r"[A-Za-z0-9]{1,31}", fullmatch=True), st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True))
def test_a_custom_id_holds_the_reference_and_our_id(reference, call):
    text = custom_id(reference, call)
    assert split_custom_id(text) == (reference, call)
    assert len(text) <= 64


def test_a_new_reference_is_valid_and_unlike_the_last_one():
    reference = new_reference()
    assert split_custom_id(custom_id(reference, "0")) == (reference, "0")
    assert reference != new_reference()


@pytest.mark.parametrize(("reference", "call"), [("a_b", "0"), ("a" * 32, "0"), ("", "0"), ("a", ""), ("a", "b c")])
def test_an_id_that_some_vendor_refuses_is_refused(reference, call):
    with pytest.raises(InvalidOption, match="letters"):
        custom_id(reference, call)


@pytest.mark.parametrize("text", [None, 3, "", "plain", "_0", "a_"])
def test_an_id_of_another_program_has_no_reference(text):
    assert split_custom_id(text) == ("", "")


def test_an_adapter_offers_no_batch_jobs_unless_it_says_so():
    assert ScriptedProvider("four").batch_jobs() is None
    assert OpenAICompatibleProvider(base_url="https://llm.example.com/v1").batch_jobs() is None
    assert GroqProvider(api_key=KEY).batch_jobs() is None
