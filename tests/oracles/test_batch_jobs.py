"""Batch jobs and the vendors' own SDKs: as clients of the fake vendors, and as judges of what our providers send."""

import io
import json
from contextlib import aclosing, closing, contextmanager

import pytest

from llm_council.models import GenerateRequest, GenerateResponse, Message, ReasoningConfig, Tool
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.gateways import MistralProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.testing._mirrors.batch_jobs import read_form
from llm_council.testing.servers import FakeBatchVendor, Hang, Refuse

pytestmark = [pytest.mark.oracles, pytest.mark.anyio]

REFERENCE = "a1b2c3"
TOOL = Tool(name="get_weather", description="Tell it.", parameters={"type": "object", "properties": {}})
CALLS = {
    "0": GenerateRequest(prompt="What is 6 times 7?", max_tokens=77),
    "1": GenerateRequest(messages=[Message("system", "Be short."), Message("user", "Hi.")], max_tokens=50),
    "2": GenerateRequest(prompt="Call it.", tools=[TOOL], tool_choice="auto", max_tokens=60),
}
REASONS = {"3": GenerateRequest(prompt="Think.", reasoning=ReasoningConfig(effort="low"), max_tokens=4000)}


@pytest.fixture
def anyio_backend():
    return "asyncio"


class OpenAI:
    speaks, provider, model, calls = "openai", OpenAIProvider, "gpt-4.1", CALLS
    ends = ("completed", "expired", "cancelled", "failed")

    @contextmanager
    def client(self, url):
        import openai

        with openai.OpenAI(base_url=url, api_key="k", max_retries=0, _strict_response_validation=True) as client:
            yield client

    def send(self, client, body, job):
        file = client.files.create(file=("calls.jsonl", body), purpose="batch")
        assert (file.purpose, file.bytes) == ("batch", len(body))
        return client.batches.create(**{**job, "input_file_id": file.id}).id

    def status(self, client, job):
        found = client.batches.retrieve(job)
        counts = found.request_counts
        return found.status, counts.total, counts.completed, counts.failed

    def listed(self, client):
        return [(job.id, job.metadata["llm_council_reference"]) for job in client.batches.list(limit=2)]

    def results(self, client, job):
        found = client.batches.retrieve(job)
        files = [file for file in (found.output_file_id, found.error_file_id) if file]
        return [json.loads(line) for file in files for line in client.files.content(file).text.splitlines()]

    def answer(self, line):
        from openai.types.chat import ChatCompletion

        body = (line["response"] or {}).get("body") or {}
        if "choices" not in body:
            return None
        return ChatCompletion.model_validate(body, strict=True).choices[0].message.content

    def key(self, line):
        return line["custom_id"]

    def cancel(self, client, job):
        return client.batches.cancel(job).status == "cancelling"

    def reason(self, client, job):
        return client.batches.retrieve(job).errors.data[0].message


class Mistral(OpenAI):
    speaks, provider, model = "mistral", MistralProvider, "mistral-large-2512"
    ends = ("SUCCESS", "TIMEOUT_EXCEEDED", "CANCELLED", "FAILED")

    @contextmanager
    def client(self, url):
        from mistralai.client import Mistral as Client

        with Client(api_key="k", server_url=url.removesuffix("/v1")) as client:
            yield client

    def send(self, client, body, job):
        file = client.files.upload(file={"file_name": "calls.jsonl", "content": body}, purpose="batch")
        assert (file.purpose, file.size_bytes) == ("batch", len(body))
        return client.batch.jobs.create(**{**job, "input_files": [file.id]}).id

    def status(self, client, job):
        found = client.batch.jobs.get(job_id=job)
        return found.status, found.total_requests, found.succeeded_requests, found.failed_requests

    def listed(self, client):
        found, page = [], 0
        while jobs := client.batch.jobs.list(page=page, page_size=2).data:
            found += [(job.id, job.metadata["llm_council_reference"]) for job in jobs]
            page += 1
        return found

    def results(self, client, job):
        from mistralai.client.models import ChatCompletionResponse
        from mistralai.extra.batch import BatchOutput

        found = client.batch.jobs.get(job_id=job)
        files = [file for file in (found.output_file, found.error_file) if file]
        texts = [client.files.download(file_id=file).read() for file in files]
        for text in texts:  # the vendor's own reader takes every line
            assert not BatchOutput.from_jsonl_bytes(text, ChatCompletionResponse).response_errors
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def answer(self, line):
        from mistralai.client.models import ChatCompletionResponse

        body = (line["response"] or {}).get("body") or {}
        if "choices" not in body:
            return None
        return ChatCompletionResponse.model_validate(body).choices[0].message.content

    def cancel(self, client, job):
        return client.batch.jobs.cancel(job_id=job).status == "CANCELLATION_REQUESTED"

    def reason(self, client, job):
        return client.batch.jobs.get(job_id=job).errors[0].message


class Anthropic:
    speaks, provider, model, calls = "anthropic", AnthropicProvider, "claude-sonnet-4-5", CALLS | REASONS
    ends = ("ended", "ended", "ended", None)

    @contextmanager
    def client(self, url):
        import anthropic

        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, _strict_response_validation=True) as client:
            yield client

    def send(self, client, body, job):
        return client.messages.batches.create(requests=json.loads(body)["requests"]).id

    def status(self, client, job):
        found = client.messages.batches.retrieve(job)
        counts = found.request_counts
        return found.processing_status, sum(counts.model_dump().values()), counts.succeeded, counts.errored

    def listed(self, client):
        return [(job.id, REFERENCE) for job in client.messages.batches.list(limit=2)]

    def results(self, client, job):
        return [line.model_dump() for line in client.messages.batches.results(job)]

    def answer(self, line):
        result = line["result"]
        return result["message"]["content"][0]["text"] if result["type"] == "succeeded" else None

    def key(self, line):
        return line["custom_id"]

    def cancel(self, client, job):
        return client.messages.batches.cancel(job).processing_status == "canceling"


class Gemini:
    speaks, provider, model, calls = "gemini", GeminiProvider, "gemini-2.5-pro", CALLS | REASONS
    ends = ("JOB_STATE_SUCCEEDED", "JOB_STATE_EXPIRED", "JOB_STATE_CANCELLED", "JOB_STATE_FAILED")

    @contextmanager
    def client(self, url):
        from google import genai
        from google.genai import types

        options = types.HttpOptions(base_url=url, api_version="v1beta")
        with closing(genai.Client(api_key="k", http_options=options)) as client:
            yield client

    def send(self, client, body, job):
        name = job["batch"]["displayName"]
        file = client.files.upload(file=io.BytesIO(body), config={"display_name": name, "mime_type": "jsonl"})
        assert file.size_bytes == len(body)
        created = client.batches.create(model=self.model, src=file.name, config={"display_name": name})
        return created.name

    def status(self, client, job):
        return client.batches.get(name=job).state.value, None, None, None  # the SDK does not read the counts

    def listed(self, client):
        jobs = client.batches.list(config={"page_size": 2})
        return [(job.name, job.display_name.removeprefix("llm-council-")) for job in jobs]

    def results(self, client, job):
        found = client.batches.get(name=job)
        if found.dest is None:
            return []
        text = client.files.download(file=found.dest.file_name).decode()
        return [json.loads(line) for line in text.splitlines()]

    def answer(self, line):
        from google.genai.types import GenerateContentResponse

        return GenerateContentResponse.model_validate(line["response"]).text if "response" in line else None

    def key(self, line):
        return line["key"]

    def cancel(self, client, job):
        client.batches.cancel(name=job)
        return True


SDKS = [OpenAI(), Mistral(), Anthropic(), Gemini()]


@pytest.fixture(params=SDKS, ids=lambda sdk: sdk.speaks)
def sdk(request):
    return request.param


def told(request):
    return f"You said: {request.messages[-1].content}"


def provided(sdk, url):
    return sdk.provider(base_url=url, api_key="k", default_model=sdk.model)


def last_posts(vendor):
    """Return what was posted: the file, as its bytes, and the JSON that created the job."""
    posts = [asked for asked in vendor.asked if asked.method == "POST"]
    files = [asked for asked in posts if asked.json is None]
    body = files[-1].body if files else posts[-1].body
    if files and files[-1].headers["content-type"].startswith("multipart/"):
        body = read_form(files[-1].headers["content-type"], body)["file"]
    return body, posts[-1].json


async def sent_by_us(sdk, vendor):
    async with provided(sdk, vendor.url) as provider:
        job = await provider.batch_jobs().send(sdk.calls, REFERENCE)
    return (job, *last_posts(vendor))


async def test_the_sdks_client_sends_the_same_job(sdk):
    ours, theirs = FakeBatchVendor(sdk.speaks, told), FakeBatchVendor(sdk.speaks, told)
    with ours.serve(), theirs.serve():
        _, body, job = await sent_by_us(sdk, ours)
        with sdk.client(theirs.url) as client:
            sdk.send(client, body, job)
    assert [(asked.method, asked.path) for asked in ours.asked] == [
        (asked.method, asked.path) for asked in theirs.asked
    ]
    assert last_posts(ours) == last_posts(theirs)
    for mine, its in zip(ours.asked, theirs.asked, strict=True):
        # The SDK repeats the headers of the upload's first request in the second, which does not need them.
        upload = {name: value for name, value in mine.headers.items() if name.startswith("x-goog-upload")}
        assert upload == {name: its.headers.get(name) for name in upload}
    (mine,), (its,) = ours.jobs.values(), theirs.jobs.values()
    assert {custom: call.payload for custom, call in mine.calls.items()} == {
        custom: call.payload for custom, call in its.calls.items()
    }
    assert mine.reference == its.reference


async def test_the_sdk_reads_our_fake_vendors_jobs(sdk):
    def said(request):
        return Refuse(status=400, message="no") if request.tools else told(request)

    vendor = FakeBatchVendor(sdk.speaks, said, polls=2)
    with vendor.serve():
        _, body, job = await sent_by_us(sdk, vendor)
        count = len(sdk.calls)
        with sdk.client(vendor.url) as client:
            name = sdk.send(client, body, job)
            states = [sdk.status(client, name) for _ in range(3)]
            assert states[0][0] not in sdk.ends
            assert states[-1] in ((sdk.ends[0], count, count - 1, 1), (sdk.ends[0], None, None, None))
            lines = {sdk.key(line): sdk.answer(line) for line in sdk.results(client, name)}
    texts = {"0": "What is 6 times 7?", "1": "Hi.", "3": "Think."}
    assert lines == {f"{REFERENCE}_{call}": f"You said: {texts[call]}" if call in texts else None for call in sdk.calls}


async def test_the_sdk_pages_through_the_jobs_and_cancels_one(sdk):
    vendor = FakeBatchVendor(sdk.speaks, told, polls=4)
    with vendor.serve():
        _, body, job = await sent_by_us(sdk, vendor)
        with sdk.client(vendor.url) as client:
            names = [sdk.send(client, body, job) for _ in range(4)]
            listed = sdk.listed(client)
            assert [name for name, _ in listed][:4] == names[::-1]
            assert {reference for _, reference in listed} == {REFERENCE}
            assert len(listed) == 5
            assert sdk.cancel(client, names[0])
            assert sdk.status(client, names[0])[0] == sdk.ends[2]
            assert not any(sdk.answer(line) for line in sdk.results(client, names[0]))


async def test_the_sdk_reads_a_job_that_expired(sdk):
    vendor = FakeBatchVendor(sdk.speaks, lambda request: Hang() if request.tools else told(request))
    with vendor.serve():
        _, body, job = await sent_by_us(sdk, vendor)
        with sdk.client(vendor.url) as client:
            name = sdk.send(client, body, job)
            assert sdk.status(client, name)[0] == sdk.ends[1]
            answers = [sdk.answer(line) for line in sdk.results(client, name)]
    assert len([answer for answer in answers if answer]) == (0 if sdk.speaks == "gemini" else len(sdk.calls) - 1)


async def test_the_sdk_reads_why_a_job_failed(sdk):
    if sdk.ends[3] is None:
        pytest.skip("this vendor refuses such a job when it is created")
    vendor = FakeBatchVendor(sdk.speaks, told)
    vendor.fails = Refuse(status=400, message="this model takes no batch jobs", code="model_not_supported")
    with vendor.serve():
        _, body, job = await sent_by_us(sdk, vendor)
        with sdk.client(vendor.url) as client:
            name = sdk.send(client, body, job)
            assert sdk.status(client, name)[0] == sdk.ends[3]
            if hasattr(sdk, "reason"):
                assert sdk.reason(client, name) == "this model takes no batch jobs"


async def test_our_provider_reads_the_job_that_the_sdk_sent(sdk):
    vendor = FakeBatchVendor(sdk.speaks, told, polls=0)
    with vendor.serve():
        _, body, job = await sent_by_us(sdk, vendor)
        with sdk.client(vendor.url) as client:
            name = sdk.send(client, body, job)
        async with provided(sdk, vendor.url) as provider:
            jobs, found = provider.batch_jobs(), {}
            async with aclosing(jobs.outcomes(name, sdk.calls)) as outcomes:
                async for call, outcome in outcomes:
                    found[call] = outcome
            total = len(sdk.calls)
            assert name in [job.job for job in await jobs.find(REFERENCE, total=total, since=vendor.clock() - 60)]
    assert found.keys() == sdk.calls.keys()
    assert all(isinstance(outcome, GenerateResponse) for outcome in found.values())


def test_openais_types_take_our_job():
    from openai.types import batch_create_params
    from pydantic import TypeAdapter

    job = {
        "input_file_id": "file-1",
        "endpoint": "/v1/responses",
        "completion_window": "24h",
        "metadata": {"llm_council_reference": REFERENCE},
    }
    assert TypeAdapter(batch_create_params.BatchCreateParams).validate_python(job) == job
