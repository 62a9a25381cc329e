"""Batch jobs, written by hand from the vendors' documentation: what is sent, and what their replies mean."""

import json
from contextlib import aclosing

import httpx
import pytest

from llm_council.errors import (
    BatchIncomplete,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    ServerFailed,
)
from llm_council.models import GenerateRequest, Message
from llm_council.providers._anthropic.batch_jobs import read_job as read_anthropic
from llm_council.providers._google.batch_jobs import read_job as read_gemini
from llm_council.providers._google.batch_jobs import read_status
from llm_council.providers._http.batch_files import job_failure, read_line
from llm_council.providers._mistral.batch_jobs import read_job as read_mistral
from llm_council.providers._openai.batch_jobs import read_job as read_openai
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.batch_jobs import JobState, JobStatus
from llm_council.providers.gateways import MistralProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.openai import OpenAIProvider

pytestmark = pytest.mark.anyio

CALLS = {
    "a": GenerateRequest(messages=[Message("system", "Be short."), Message("user", "Hi.")], max_tokens=20),
    "b": GenerateRequest(prompt="What is 2+2?", max_tokens=20),
}


class Script:
    """Gives the replies of a list in turn, and keeps the requests."""

    def __init__(self, *replies):
        self.left = list(replies)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        status, headers, body = self.left.pop(0)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, headers={"content-type": "application/json", **headers}, content=content)

    def jobs(self, cls, model):
        provider = cls(api_key="sk-house", default_model=model, transport=httpx.MockTransport(self))
        return provider.batch_jobs()

    def sent(self):
        return [(request.method, str(request.url)) for request in self.requests]


def ok(body, **headers):
    return 200, {name.replace("_", "-"): value for name, value in headers.items()}, body


def jsonl(*lines):
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def read(jobs, job):
    async with aclosing(jobs.outcomes(job, CALLS)) as outcomes:
        return {call: outcome async for call, outcome in outcomes}


OPENAI_BATCH = {
    "id": "batch_abc123",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": "file-abc123",
    "completion_window": "24h",
    "status": "validating",
    "output_file_id": None,
    "error_file_id": "",
    "created_at": 1711471533,
    "request_counts": {"total": 0, "completed": 0, "failed": 0},
    "metadata": {"llm_council_reference": "ref1", "customer_id": "user_123456789"},
}
OPENAI_ANSWER = {
    "id": "batch_req_123",
    "custom_id": "ref1_b",
    "response": {
        "status_code": 200,
        "request_id": "req_c187b3",
        "body": {
            "id": "chatcmpl-9758Iw",
            "object": "chat.completion",
            "created": 1711475054,
            "model": "gpt-4.1-2025-04-14",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "4."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 24, "completion_tokens": 15, "total_tokens": 39},
        },
    },
    "error": None,
}
OPENAI_EXPIRED = {
    "id": "batch_req_124",
    "custom_id": "ref1_a",
    "response": None,
    "error": {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    },
}


async def test_openais_job_is_an_uploaded_file_and_a_batch():
    script = Script(ok({"id": "file-abc123", "object": "file"}), ok(OPENAI_BATCH))
    assert await script.jobs(OpenAIProvider, "gpt-4.1").send(CALLS, "ref1") == "batch_abc123"
    assert script.sent() == [
        ("POST", "https://api.openai.com/v1/files"),
        ("POST", "https://api.openai.com/v1/batches"),
    ]
    upload, create = script.requests
    assert upload.headers["authorization"] == create.headers["authorization"] == "Bearer sk-house"
    boundary = upload.headers["content-type"].removeprefix("multipart/form-data; boundary=")
    lines = (
        b'{"custom_id":"ref1_a","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4.1","messages":'
        b'[{"role":"system","content":"Be short."},{"role":"user","content":"Hi."}],"max_completion_tokens":20}}\n'
        b'{"custom_id":"ref1_b","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4.1","messages":'
        b'[{"role":"user","content":"What is 2+2?"}],"max_completion_tokens":20}}\n'
    )
    assert upload.content == b"\r\n".join(
        [
            b"--" + boundary.encode(),
            b'Content-Disposition: form-data; name="purpose"',
            b"",
            b"batch",
            b"--" + boundary.encode(),
            b'Content-Disposition: form-data; name="file"; filename="ref1.jsonl"',
            b"Content-Type: application/jsonl",
            b"",
            lines,
            b"--" + boundary.encode() + b"--",
            b"",
        ]
    )
    assert json.loads(create.content) == {
        "input_file_id": "file-abc123",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"llm_council_reference": "ref1"},
    }


async def test_openais_answers_and_errors_are_in_two_files():
    ended = {**OPENAI_BATCH, "status": "expired", "output_file_id": "file-out", "error_file_id": "file-err"}
    script = Script(ok(ended), ok(jsonl(OPENAI_ANSWER)), ok(jsonl(OPENAI_EXPIRED)))
    found = await read(script.jobs(OpenAIProvider, "gpt-4.1"), "batch_abc123")
    assert script.sent() == [
        ("GET", "https://api.openai.com/v1/batches/batch_abc123"),
        ("GET", "https://api.openai.com/v1/files/file-out/content"),
        ("GET", "https://api.openai.com/v1/files/file-err/content"),
    ]
    assert (found["b"].text, found["b"].model, found["b"].request_id) == ("4.", "gpt-4.1-2025-04-14", "req_c187b3")
    assert (found["b"].usage.input_tokens, found["b"].usage.output_tokens) == (24, 15)
    assert isinstance(found["a"], BatchIncomplete)
    assert (found["a"].reason, found["a"].job, found["a"].model) == ("expired", "batch_abc123", "gpt-4.1")


async def test_openais_list_is_read_page_by_page_until_the_jobs_are_too_old():
    def row(name, created, reference):
        metadata = {"llm_council_reference": reference}
        return {**OPENAI_BATCH, "id": name, "created_at": created, "metadata": metadata}

    day = 86_400
    newest = [row("batch_9", 10 * day, "other"), row("batch_8", 9 * day, "ref1")]
    older = [row("batch_7", 8 * day + 1, "ref1"), row("batch_6", 8 * day - 1, "ref1")]
    script = Script(
        ok({"object": "list", "data": newest, "has_more": True}),
        ok({"object": "list", "data": older, "has_more": True}),
        ok({"object": "list", "data": [row("batch_5", 90, "ref1")], "has_more": True}),
    )
    found = await script.jobs(OpenAIProvider, "gpt-4.1").find("ref1", total=2, since=9.0 * day)
    assert [job.job for job in found] == ["batch_7", "batch_8"]  # clocks may differ by a day
    assert script.sent() == [
        ("GET", "https://api.openai.com/v1/batches?limit=100"),
        ("GET", "https://api.openai.com/v1/batches?limit=100&after=batch_8"),
        ("GET", "https://api.openai.com/v1/batches?limit=100&after=batch_6"),
    ]


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("validating", JobState.RUNNING),
        ("in_progress", JobState.RUNNING),
        ("finalizing", JobState.RUNNING),
        ("completed", JobState.ENDED),
        ("failed", JobState.FAILED),
        ("expired", JobState.EXPIRED),
        ("cancelling", JobState.RUNNING),
        ("cancelled", JobState.CANCELLED),
        ("a state of tomorrow", JobState.RUNNING),
    ],
)
def test_openais_states(word, state):
    counts = {"total": 5, "completed": 3, "failed": 1}
    job = read_openai({**OPENAI_BATCH, "status": word, "request_counts": counts, "output_file_id": "file-out"})
    assert job.status == JobStatus(state=state, total=5, done=3, failed=1)
    assert (job.reference, job.created, job.results) == ("ref1", 1711471533, ("file-out",))


def test_a_finished_job_whose_files_are_not_named_yet_goes_on():
    counts = {"total": 5, "completed": 3, "failed": 0}
    unnamed = {**OPENAI_BATCH, "status": "completed", "request_counts": counts}
    assert read_openai(unnamed).status.state is JobState.RUNNING
    nothing = {**counts, "completed": 0}
    assert read_openai({**unnamed, "request_counts": nothing}).status.state is JobState.ENDED
    assert read_mistral({**MISTRAL_JOB, "status": "SUCCESS", "succeeded_requests": 2}).status.state is JobState.RUNNING
    assert read_mistral({**MISTRAL_JOB, "status": "SUCCESS"}).status.state is JobState.ENDED


LINE = {"custom_id": "ref1_a", "error": None}


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (
            {"response": {"status_code": 400, "body": {"error": {"message": "too long", "type": "invalid"}}}},
            RequestRejected,
            "too long",
        ),
        ({"response": {"status_code": 429, "body": {"error": {"message": "slowly"}}}}, RateLimited, "slowly"),
        ({"response": {"status_code": 500, "body": {"error": {"message": "broken"}}}}, ServerFailed, "broken"),
        ({"response": None, "error": {"code": "request_timeout", "message": "timed out"}}, ServerFailed, "timed out"),
        ({"response": None, "error": "the model is busy"}, ServerFailed, "the model is busy"),
    ],
)
def test_errors_of_single_calls(line, kind, words):
    found = read_line({**LINE, **line})
    assert type(found.error) is kind
    assert words in found.error.message


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (OPENAI_EXPIRED, "expired"),
        ({**LINE, "response": None, "error": {"code": "batch_cancelled", "message": "gone"}}, "cancelled"),
        ({**LINE, "response": {"status_code": 0, "body": None}}, "missing"),
        ({**LINE, "response": None}, "missing"),
    ],
)
def test_calls_that_the_vendor_gave_up(line, reason):
    assert read_line(line).gave_up == reason


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "token_limit_exceeded", "message": "Enqueued token limit reached for gpt-4.1."}, RateLimited),
        (
            {"code": "mismatched_model", "message": "One model.", "line": 2, "param": "model"},
            RequestRejected,
        ),
        ({"code": "model_not_found", "message": "No such model."}, ModelNotFound),
        ({"code": "billing_hard_limit_reached", "message": "Billing hard limit has been reached"}, OutOfCredit),
        ({"message": "unknown"}, RequestRejected),
    ],
)
def test_failures_of_whole_jobs(error, kind):
    found = job_failure([error, {"message": "another"}])
    assert type(found) is kind
    assert error["message"] in found.message
    assert ("line 2" in found.message) == ("line" in error)


MISTRAL_JOB = {
    "id": "0194d2a8-1b5e-7a11-9d6c-0b6f2c1d9e00",
    "object": "batch",
    "input_files": ["f1"],
    "metadata": {"llm_council_reference": "ref1"},
    "endpoint": "/v1/chat/completions",
    "model": "mistral-small-latest",
    "agent_id": None,
    "output_file": None,
    "error_file": None,
    "errors": [],
    "status": "QUEUED",
    "created_at": 1738000000,
    "total_requests": 2,
    "completed_requests": 0,
    "succeeded_requests": 0,
    "failed_requests": 0,
}


async def test_mistrals_job_is_an_uploaded_file_and_a_job():
    script = Script(ok({"id": "f1", "object": "file"}), ok(MISTRAL_JOB))
    assert await script.jobs(MistralProvider, "mistral-small-latest").send(CALLS, "ref1") == MISTRAL_JOB["id"]
    assert script.sent() == [
        ("POST", "https://api.mistral.ai/v1/files"),
        ("POST", "https://api.mistral.ai/v1/batch/jobs"),
    ]
    line = (
        b'{"custom_id":"ref1_b","body":{"model":"mistral-small-latest","messages":'
        b'[{"role":"user","content":"What is 2+2?"}],"max_tokens":20}}\n'
    )
    assert line in script.requests[0].content
    assert json.loads(script.requests[1].content) == {
        "input_files": ["f1"],
        "endpoint": "/v1/chat/completions",
        "model": "mistral-small-latest",
        "metadata": {"llm_council_reference": "ref1"},
        "timeout_hours": 24,
    }


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("QUEUED", JobState.RUNNING),
        ("RUNNING", JobState.RUNNING),
        ("SUCCESS", JobState.ENDED),
        ("FAILED", JobState.FAILED),
        ("TIMEOUT_EXCEEDED", JobState.EXPIRED),
        ("CANCELLATION_REQUESTED", JobState.RUNNING),
        ("CANCELLED", JobState.CANCELLED),
    ],
)
def test_mistrals_states(word, state):
    job = read_mistral({**MISTRAL_JOB, "status": word, "output_file": "f2", "error_file": None})
    assert job.status == JobStatus(state=state, total=2, done=0, failed=0)
    assert (job.reference, job.created, job.results) == ("ref1", 1738000000, ("f2",))


ANTHROPIC_BATCH = {
    "id": "msgbatch_01HkcTjaV5uDC8jWR4ZsDV8d",
    "type": "message_batch",
    "processing_status": "in_progress",
    "request_counts": {"processing": 2, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
    "ended_at": None,
    "created_at": "2024-09-24T18:37:24.100435Z",
    "expires_at": "2024-09-25T18:37:24.100435Z",
    "cancel_initiated_at": None,
    "results_url": None,
}
ANTHROPIC = f"https://api.anthropic.com/v1/messages/batches/{ANTHROPIC_BATCH['id']}"


async def test_anthropics_batch_holds_its_calls():
    script = Script(ok(ANTHROPIC_BATCH))
    assert await script.jobs(AnthropicProvider, "claude-sonnet-4-5").send(CALLS, "ref1") == ANTHROPIC_BATCH["id"]
    (request,) = script.requests
    assert script.sent() == [("POST", "https://api.anthropic.com/v1/messages/batches")]
    assert (request.headers["x-api-key"], request.headers["anthropic-version"]) == ("sk-house", "2023-06-01")
    assert json.loads(request.content) == {
        "requests": [
            {
                "custom_id": "ref1_a",
                "params": {
                    "model": "claude-sonnet-4-5",
                    "max_tokens": 20,
                    "messages": [{"role": "user", "content": "Hi."}],
                    "system": "Be short.",
                },
            },
            {
                "custom_id": "ref1_b",
                "params": {
                    "model": "claude-sonnet-4-5",
                    "max_tokens": 20,
                    "messages": [{"role": "user", "content": "What is 2+2?"}],
                },
            },
        ]
    }


async def test_anthropics_results_are_in_one_file():
    counts = {"processing": 0, "succeeded": 1, "errored": 1, "canceled": 0, "expired": 0}
    ended = {**ANTHROPIC_BATCH, "processing_status": "ended", "request_counts": counts}
    message = {
        "id": "msg_014VwiXbi91y3JMjcpyGBHX5",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "Four."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 36},
    }
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    lines = jsonl(
        {"custom_id": "ref1_b", "result": {"type": "succeeded", "message": message}},
        {"custom_id": "ref1_a", "result": {"type": "errored", "error": error}},
    )
    script = Script(ok(ended), ok(lines))
    found = await read(script.jobs(AnthropicProvider, "claude-sonnet-4-5"), ANTHROPIC_BATCH["id"])
    assert script.sent() == [("GET", ANTHROPIC), ("GET", f"{ANTHROPIC}/results")]
    assert (found["b"].text, found["b"].usage.output_tokens) == ("Four.", 36)
    assert (type(found["a"]), found["a"].status, found["a"].retryable) == (ServerFailed, 529, True)
    assert found["a"].request_id == "req_1"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}, RequestRejected),
        ({"type": "invalid_request_error", "message": "bad"}, RequestRejected),
        ({"type": "invalid_request", "message": "bad"}, RequestRejected),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "bad"}}, RateLimited),
        ({"type": "error", "error": {"type": "api_error", "message": "bad"}}, ServerFailed),
        ({"type": "error", "error": {"type": "a_type_of_tomorrow", "message": "bad"}}, ServerFailed),
    ],
)
def test_anthropics_errors_of_single_calls(error, kind):
    jobs = AnthropicProvider(api_key="sk-house").batch_jobs()
    line = jobs._read_line({"custom_id": "ref1_a", "result": {"type": "errored", "error": error}})
    assert type(line.error) is kind
    assert "bad" in line.error.message


@pytest.mark.parametrize(
    ("word", "counts", "state"),
    [
        ("in_progress", {"processing": 3}, JobState.RUNNING),
        ("canceling", {"processing": 3}, JobState.RUNNING),
        ("ended", {"succeeded": 2, "errored": 1}, JobState.ENDED),
        ("ended", {"succeeded": 2, "expired": 1}, JobState.EXPIRED),
        ("ended", {"succeeded": 1, "canceled": 2}, JobState.CANCELLED),
    ],
)
def test_anthropics_states(word, counts, state):
    job = read_anthropic({**ANTHROPIC_BATCH, "processing_status": word, "request_counts": counts})
    assert (job.status.state, job.status.total) == (state, 3)
    assert job.created == 1727203044.100435
    assert len(job.results) == (state is not JobState.RUNNING)


GEMINI_BATCH = {
    "name": "batches/7h9w4gzu",
    "metadata": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-2.5-flash",
        "displayName": "llm-council-ref1",
        "inputConfig": {"fileName": "files/85nave4ld71j"},
        "createTime": "2025-09-07T11:55:07.827892252Z",
        "updateTime": "2025-09-07T11:55:07.827892252Z",
        "batchStats": {"requestCount": "2", "pendingRequestCount": "2"},
        "state": "BATCH_STATE_PENDING",
        "name": "batches/7h9w4gzu",
    },
}
GEMINI = "https://generativelanguage.googleapis.com"


async def test_geminis_job_is_an_uploaded_file_and_a_batch():
    url = f"{GEMINI}/upload/v1beta/files?upload_id=AB12&upload_protocol=resumable"
    script = Script(
        ok(b"", x_goog_upload_url=url),
        ok({"file": {"name": "files/85nave4ld71j", "uri": "https://example.com/x"}}),
        ok(GEMINI_BATCH),
    )
    assert await script.jobs(GeminiProvider, "gemini-2.5-flash").send(CALLS, "ref1") == "batches/7h9w4gzu"
    assert script.sent() == [
        ("POST", f"{GEMINI}/upload/v1beta/files"),
        ("POST", url),
        ("POST", f"{GEMINI}/v1beta/models/gemini-2.5-flash:batchGenerateContent"),
    ]
    start, upload, create = script.requests
    body = (
        b'{"key":"ref1_a","request":{"systemInstruction":{"parts":[{"text":"Be short."}]},'
        b'"contents":[{"role":"user","parts":[{"text":"Hi."}]}],"generationConfig":{"maxOutputTokens":20}}}\n'
        b'{"key":"ref1_b","request":{"contents":[{"role":"user","parts":[{"text":"What is 2+2?"}]}],'
        b'"generationConfig":{"maxOutputTokens":20}}}\n'
    )
    assert {name: value for name, value in start.headers.items() if name.startswith("x-goog")} == {
        "x-goog-api-key": "sk-house",
        "x-goog-upload-protocol": "resumable",
        "x-goog-upload-command": "start",
        "x-goog-upload-header-content-length": str(len(body)),
        "x-goog-upload-header-content-type": "jsonl",
    }
    assert json.loads(start.content) == {"file": {"displayName": "llm-council-ref1"}}
    assert upload.content == body
    assert upload.headers["x-goog-upload-command"] == "upload, finalize"
    assert upload.headers["x-goog-upload-offset"] == "0"
    assert json.loads(create.content) == {
        "batch": {"displayName": "llm-council-ref1", "inputConfig": {"fileName": "files/85nave4ld71j"}}
    }


async def test_geminis_results_are_in_one_file():
    ended = {
        **GEMINI_BATCH,
        "done": True,
        "metadata": {**GEMINI_BATCH["metadata"], "state": "BATCH_STATE_SUCCEEDED"},
        "response": {"responsesFile": "files/batch-7h9w4gzu"},
    }
    answer = {
        "candidates": [{"content": {"parts": [{"text": "Four."}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 2, "totalTokenCount": 10},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r1",
    }
    lines = jsonl(
        {"key": "ref1_b", "response": answer},
        {"key": "ref1_a", "error": {"code": 8, "message": "Resource has been exhausted"}},
    )
    script = Script(ok(ended), ok(lines))
    found = await read(script.jobs(GeminiProvider, "gemini-2.5-flash"), "batches/7h9w4gzu")
    assert script.sent() == [
        ("GET", f"{GEMINI}/v1beta/batches/7h9w4gzu"),
        ("GET", f"{GEMINI}/v1beta/files/batch-7h9w4gzu:download?alt=media"),
    ]
    assert (found["b"].text, found["b"].usage.input_tokens) == ("Four.", 8)
    assert (type(found["a"]), found["a"].status) == (RateLimited, 429)


@pytest.mark.parametrize(
    ("word", "file", "state"),
    [
        ("BATCH_STATE_UNSPECIFIED", None, JobState.RUNNING),
        ("BATCH_STATE_PENDING", None, JobState.RUNNING),
        ("BATCH_STATE_RUNNING", None, JobState.RUNNING),
        ("BATCH_STATE_SUCCEEDED", "files/1", JobState.ENDED),
        ("JOB_STATE_SUCCEEDED", "files/1", JobState.ENDED),
        ("BATCH_STATE_SUCCEEDED", None, JobState.RUNNING),  # the file follows
        ("BATCH_STATE_FAILED", None, JobState.FAILED),
        ("BATCH_STATE_CANCELLED", None, JobState.CANCELLED),
        ("BATCH_STATE_EXPIRED", None, JobState.EXPIRED),
    ],
)
def test_geminis_states(word, file, state):
    metadata = {**GEMINI_BATCH["metadata"], "state": word, "output": {"responsesFile": file} if file else {}}
    job = read_gemini({**GEMINI_BATCH, "metadata": metadata})
    assert job.status == JobStatus(state=state, total=2)
    assert (job.reference, job.results) == ("llm-council-ref1", (file,) if file else ())
    assert job.created == pytest.approx(1757246107.827892)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"code": 3, "message": "bad"}, RequestRejected, 400),
        ({"code": 7, "message": "no"}, PermissionRefused, 403),
        ({"code": 8, "message": "later"}, RateLimited, 429),
        ({"code": 13, "message": "broken"}, ServerFailed, 500),
        ({"code": 14, "message": "busy"}, ServerFailed, 503),
        ({"code": 429, "message": "later", "status": "RESOURCE_EXHAUSTED"}, RateLimited, 429),
        ({"message": "unknown"}, RequestRejected, 400),
        ({}, RequestRejected, 400),
    ],
)
def test_googles_codes(error, kind, status):
    found = read_status(error)
    assert (type(found), found.status) == (kind, status)
    assert error.get("message", "") in found.message
