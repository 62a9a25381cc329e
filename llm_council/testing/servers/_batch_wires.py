"""How the fake vendors of batch jobs write jobs, lists and files."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote

import attrs

from llm_council._wire.payloads import dumps, get_object, need_object
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models import GenerateRequest
from llm_council.testing._mirrors import batch_jobs as mirror
from llm_council.testing.servers._builtin import dialect
from llm_council.testing.servers._dialect import Dialect
from llm_council.testing.servers._exchange import Asked, Refuse, Sent

if TYPE_CHECKING:
    from llm_council.testing.servers._batches import FakeBatchVendor, FakeJob

__all__ = ["WIRES", "BatchWire", "Call"]

_NO_JOB = Refuse(status=404, message="no such batch job")
_GONE = Refuse(status=404, message="no such file: its results were deleted")
_RUNNING = Refuse(status=400, message="the batch job is still running: it has no results yet")
_OVER = Refuse(status=409, message="the batch job is no longer running")


@attrs.frozen
class Call:
    """A call of a job.

    Attributes:
        request: the call, decoded.
        dialect: the dialect of its body.
        payload: the JSON of its body.
    """

    request: GenerateRequest
    dialect: Dialect
    payload: Mapping[str, Any]


class BatchWire(ABC):
    """One vendor's addresses and objects for batch jobs."""

    dialect: ClassVar[str]
    """The dialect of direct calls."""
    about_jobs: ClassVar[re.Pattern[str]]
    """Matches every path that belongs to jobs and their files."""

    def is_about_jobs(self, asked: Asked) -> bool:
        """Return True for a request that belongs to jobs and their files."""
        return self.about_jobs.search(unquote(asked.path)) is not None

    @abstractmethod
    def reply(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        """Return the reply to such a request."""

    @abstractmethod
    def answer_line(self, custom: str, body: Any, request_id: str | None) -> dict[str, Any]:
        """Return the line of an answer, whose body is that of a direct reply."""

    @abstractmethod
    def error_line(self, custom: str, refuse: Refuse, body: Any) -> dict[str, Any]:
        """Return the line of a call that was refused; the body is that of a direct refusal."""

    @abstractmethod
    def given_up_line(self, custom: str, reason: str) -> dict[str, Any] | None:
        """Return the line of a call that was not done in an expired or cancelled job; None if there is none."""

    def decoded(self, calls: mirror.Calls, spoken: Callable[[str], Dialect]) -> dict[str, Call]:
        """Decode calls.

        Args:
            calls: paths and bodies.
            spoken: returns the dialect of a path.

        Raises:
            MalformedReply: a body is not of its dialect.
        """
        found: dict[str, Call] = {}
        for custom, (path, body) in calls.items():
            words = spoken(path)
            if body.get("stream"):
                raise InvalidOption("the answers of a batch job are not streamed")
            request = words.read(Asked(path=path, body=dumps(body)))
            if request is None:
                raise InvalidOption(f"a batch job has no calls to {path}")
            found[custom] = Call(request, words, body)
        return found

    def lines(self, job: FakeJob) -> Iterable[tuple[str, dict[str, Any]]]:
        """Yield the ids and the lines of results, in another order than that of the calls."""
        for custom in reversed(job.calls):
            line = job.answered.get(custom)
            if line is None and job.state in ("expired", "cancelled"):
                line = self.given_up_line(custom, job.state)
            if line is not None:
                yield custom, line


def _json(value: Any, status: int = 200) -> Sent:
    return Sent.of(dumps(value), status=status)


def _jsonl(lines: Iterable[Any], media_type: str = "application/octet-stream") -> Sent:
    return Sent.of(b"".join(dumps(line) + b"\n" for line in lines), media_type=media_type)


def _query(asked: Asked, name: str, default: str = "") -> str:
    return parse_qs(asked.query).get(name, [default])[0]


def _after(jobs: list[FakeJob], cursor: str) -> list[FakeJob]:
    """Return the jobs behind the one with this id; all without a cursor."""
    names = [job.id for job in jobs]
    return jobs[names.index(cursor) + 1 :] if cursor in names else jobs


def _same_model(calls: dict[str, Call]) -> Refuse | None:
    """Return the failure of a file with calls to several models."""
    models = {call.request.model for call in calls.values()}
    if len(models) <= 1:
        return None
    words = "The provided model does not match the model of the other requests of the batch."
    return Refuse(status=400, message=words, code="mismatched_model")


class _Files(BatchWire):
    """Uploaded files in OpenAI's form, with separate files of answers and of errors."""

    dialect = "openai"
    content: ClassVar[re.Pattern[str]] = re.compile(r"/files/([^/]+)/content$")

    def file_reply(self, vendor: FakeBatchVendor, asked: Asked) -> Sent | None:
        """Return the reply to a request about files; None for another request."""
        if asked.method == "POST" and asked.path.endswith("/files"):
            fields = mirror.read_form(asked.headers.get("content-type", ""), asked.body)
            if fields.get("purpose") != b"batch":
                return vendor.refuse(Refuse(status=400, message="purpose: expected 'batch'"))
            name = f"file-{len(vendor.files) + 1}"
            vendor.add_file(fields.get("file", b""), name)
            return _json(self.file(name, fields.get("file", b""), int(vendor.clock())))
        found = self.content.search(asked.path)
        if asked.method != "GET" or found is None:
            return None
        if found[1] in vendor.files:
            return Sent.of(vendor.files[found[1]], media_type="application/octet-stream")
        kind, _, job = found[1].partition("-of-")
        known = vendor.jobs.get(job)
        if known is None or not vendor.keeps_results:
            return vendor.refuse(_GONE)
        lines = (line for custom, line in self.lines(known) if self.is_error(known, custom) == (kind == "errors"))
        return vendor.results(_jsonl(lines))

    def is_error(self, job: FakeJob, custom: str) -> bool:
        """Return True for a line of the file of errors."""
        return custom in job.refused or custom not in job.answered

    def result_files(self, job: FakeJob) -> tuple[str | None, str | None]:
        """Return the ids of the files of answers and of errors, of a job that has ended."""
        if job.is_running or job.state == "failed":
            return None, None
        kinds = {self.is_error(job, custom) for custom, _ in self.lines(job)}
        return f"answers-of-{job.id}" if False in kinds else None, f"errors-of-{job.id}" if True in kinds else None

    @abstractmethod
    def file(self, name: str, data: bytes, created: int) -> dict[str, Any]:
        """Return the object of an uploaded file."""

    def answer_line(self, custom: str, body: Any, request_id: str | None) -> dict[str, Any]:
        """Return the line of an answer."""
        return mirror.openai_succeeded(custom, body, request_id)

    def error_line(self, custom: str, refuse: Refuse, body: Any) -> dict[str, Any]:
        """Return the line of a call that was refused."""
        return mirror.openai_refused(custom, refuse.status, body)


class _OpenAI(_Files):
    about_jobs = re.compile(r"/v1/(?:files|batches)(?:/|$)")
    job: ClassVar[re.Pattern[str]] = re.compile(r"/batches/([^/]+)(/cancel)?$")
    states: ClassVar[dict[str, str]] = {"running": "in_progress", "ended": "completed"}

    def reply(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        """Return the reply to a request about files or batches."""
        of_file = self.file_reply(vendor, asked)
        if of_file is not None:
            return of_file
        if asked.path.endswith("/batches"):
            return self._create(vendor, asked) if asked.method == "POST" else self._list(vendor, asked)
        found = self.job.search(asked.path)
        if found is None or (asked.method == "POST") != bool(found[2]):
            return vendor.refuse(Refuse(status=404, message=f"no such address: {asked.method} {asked.path}"))
        known = vendor.jobs.get(found[1])
        if known is None:
            return vendor.refuse(_NO_JOB)
        if not found[2]:
            vendor.poll(found[1])
        elif known.is_running:
            vendor.cancel(known)
        else:
            return vendor.refuse(_OVER)
        return _json(self.batch(known))

    def _create(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        wanted = need_object(asked.json, "$")
        data = vendor.files.get(str(wanted.get("input_file_id")))
        if data is None or wanted.get("completion_window") != "24h":
            return vendor.refuse(Refuse(status=400, message="input_file_id or completion_window is wrong"))
        calls: dict[str, Call] = {}
        failure: Refuse | None = None
        try:
            listed = mirror.decode_openai(data)
            if any(path != wanted.get("endpoint") for path, _ in listed.values()):
                raise InvalidOption("the URL of a request does not match the endpoint of the batch")
            calls = self.decoded(listed, lambda path: dialect("responses" if "responses" in path else "openai"))
            failure = _same_model(calls)
        except (MalformedReply, InvalidOption) as error:
            failure = Refuse(status=400, message=error.message, code="invalid_json_line")
        facts = {key: wanted.get(key) for key in ("input_file_id", "endpoint")}
        reference = wanted.get("metadata")
        made = vendor.create(f"batch_{len(vendor.jobs) + 1}", calls, reference=reference, failure=failure, **facts)
        return vendor.created(_json(self.batch(made)))

    def _list(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        limit = min(int(_query(asked, "limit", "20")), vendor.page)
        jobs = _after(vendor.listed(), _query(asked, "after"))
        page = jobs[:limit]
        ends = {"first_id": page[0].id, "last_id": page[-1].id} if page else {"first_id": None, "last_id": None}
        data = [self.batch(job) for job in page]
        return _json({"object": "list", "data": data, **ends, "has_more": len(jobs) > limit})

    def file(self, name: str, data: bytes, created: int) -> dict[str, Any]:
        """Return a file object."""
        named = {"id": name, "object": "file", "filename": "calls.jsonl", "purpose": "batch", "status": "processed"}
        return {**named, "bytes": len(data), "created_at": created}

    def batch(self, job: FakeJob) -> dict[str, Any]:
        """Return a batch object."""
        answers, errors = self.result_files(job)
        why = None
        if job.failure is not None:
            why = {"object": "list", "data": [{"code": job.failure.code, "message": job.failure.message}]}
        failed = sum(self.is_error(job, custom) for custom, _ in self.lines(job))
        return {
            "id": job.id,
            "object": "batch",
            "completion_window": "24h",
            "created_at": int(job.created),
            **job.facts,
            "status": self.states.get(job.state, job.state),
            "metadata": job.reference,
            "errors": why,
            "output_file_id": answers,
            "error_file_id": errors,
            "request_counts": {
                "total": len(job.calls),
                "completed": len(job.answered) - len(job.refused),
                "failed": failed,
            },
        }

    def given_up_line(self, custom: str, reason: str) -> dict[str, Any] | None:
        """Return the line of a call that was not done."""
        return mirror.openai_given_up(custom, reason)


class _Mistral(_Files):
    about_jobs = re.compile(r"/v1/(?:files|batch/jobs)(?:/|$)")
    job: ClassVar[re.Pattern[str]] = re.compile(r"/batch/jobs/([^/]+)(/cancel)?$")
    states: ClassVar[dict[str, str]] = {
        "running": "RUNNING",
        "ended": "SUCCESS",
        "failed": "FAILED",
        "expired": "TIMEOUT_EXCEEDED",
        "cancelling": "CANCELLATION_REQUESTED",
        "cancelled": "CANCELLED",
    }

    def reply(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        """Return the reply to a request about files or jobs."""
        of_file = self.file_reply(vendor, asked)
        if of_file is not None:
            return of_file
        if asked.path.endswith("/batch/jobs"):
            return self._create(vendor, asked) if asked.method == "POST" else self._list(vendor, asked)
        found = self.job.search(asked.path)
        if found is None or (asked.method == "POST") != bool(found[2]):
            return vendor.refuse(Refuse(status=404, message=f"no such address: {asked.method} {asked.path}"))
        known = vendor.jobs.get(found[1])
        if known is None:
            return vendor.refuse(_NO_JOB)
        if not found[2]:
            vendor.poll(found[1])
        elif known.is_running:
            vendor.cancel(known)
        else:
            return vendor.refuse(_OVER)
        return _json(self.batch(known))

    def _create(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        wanted = need_object(asked.json, "$")
        files = wanted.get("input_files") or [None]
        data, endpoint = vendor.files.get(str(files[0])), str(wanted.get("endpoint"))
        if data is None:
            return vendor.refuse(Refuse(status=400, message="input_files: no such file"))
        calls: dict[str, Call] = {}
        failure: Refuse | None = None
        try:
            listed = mirror.decode_mistral(data, endpoint)
            filled = {custom: (path, {"model": wanted.get("model"), **body}) for custom, (path, body) in listed.items()}
            calls = self.decoded(filled, lambda path: dialect("openai"))
        except (MalformedReply, InvalidOption) as error:
            failure = Refuse(status=400, message=error.message)
        facts = {"input_files": files, "endpoint": endpoint, "model": wanted.get("model")}
        name = f"00000000-0000-4000-8000-{len(vendor.jobs) + 1:012d}"
        made = vendor.create(name, calls, reference=wanted.get("metadata"), failure=failure, **facts)
        return vendor.created(_json(self.batch(made)))

    def _list(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        jobs, since = vendor.listed(), _query(asked, "created_after")
        if since:
            earliest = datetime.fromisoformat(since).timestamp()
            jobs = [job for job in jobs if job.created > earliest]
        size = min(int(_query(asked, "page_size", "100")), vendor.page)
        begin = int(_query(asked, "page", "0")) * size
        data = [self.batch(job) for job in jobs[begin : begin + size]]
        return _json({"object": "list", "data": data, "total": len(jobs)})

    def file(self, name: str, data: bytes, created: int) -> dict[str, Any]:
        """Return a file object."""
        named = {"id": name, "object": "file", "filename": "calls.jsonl", "purpose": "batch"}
        return {**named, "bytes": len(data), "created_at": created, "sample_type": "batch_request", "source": "upload"}

    def batch(self, job: FakeJob) -> dict[str, Any]:
        """Return a job."""
        answers, errors = self.result_files(job)
        return {
            "id": job.id,
            "object": "batch",
            **job.facts,
            "metadata": job.reference,
            "errors": [] if job.failure is None else [{"message": job.failure.message, "count": 1}],
            "status": self.states[job.state],
            "created_at": int(job.created),
            "total_requests": len(job.calls),
            "completed_requests": len(job.answered),
            "succeeded_requests": len(job.answered) - len(job.refused),
            "failed_requests": len(job.refused),
            "output_file": answers,
            "error_file": errors,
        }

    def given_up_line(self, custom: str, reason: str) -> dict[str, Any] | None:
        """Return None: a call that was not done has no line."""
        return None


class _Anthropic(BatchWire):
    dialect = "anthropic"
    about_jobs = re.compile(r"/v1/messages/batches(?:/|$)")
    job: ClassVar[re.Pattern[str]] = re.compile(r"/batches/([^/]+)(?:/(cancel|results))?$")
    ids: ClassVar[re.Pattern[str]] = re.compile(r"[a-zA-Z0-9_-]{1,64}")

    def reply(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        """Return the reply to a request about batches."""
        if asked.path.endswith("/batches"):
            return self._create(vendor, asked) if asked.method == "POST" else self._list(vendor, asked)
        found = self.job.search(asked.path)
        known = None if found is None else vendor.jobs.get(found[1])
        if found is None or known is None:
            return vendor.refuse(_NO_JOB)
        if found[2] == "results":
            if known.is_running:
                return vendor.refuse(_RUNNING)
            if not vendor.keeps_results:
                return vendor.refuse(_GONE)
            return vendor.results(_jsonl((line for _, line in self.lines(known)), "application/x-jsonl"))
        if found[2] is None:
            vendor.poll(known.id)
        elif known.is_running:
            vendor.cancel(known)
        return _json(self.batch(vendor, asked, known))

    def _create(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        listed = mirror.decode_anthropic(asked.json)
        if not all(map(self.ids.fullmatch, listed)):
            return vendor.refuse(Refuse(status=400, message="custom_id: expected 1 to 64 letters, digits, _ and -"))
        if vendor.fails is not None:
            return vendor.refuse(vendor.fails)
        calls = self.decoded(listed, lambda path: dialect("anthropic"))
        made = vendor.create(f"msgbatch_{len(vendor.jobs) + 1}", calls)
        return vendor.created(_json(self.batch(vendor, asked, made)))

    def _list(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        limit = min(int(_query(asked, "limit", "20")), vendor.page)
        jobs = _after(vendor.listed(), _query(asked, "after_id"))
        page = jobs[:limit]
        ends = {"first_id": page[0].id, "last_id": page[-1].id} if page else {"first_id": None, "last_id": None}
        data = [self.batch(vendor, asked, job) for job in page]
        return _json({"data": data, **ends, "has_more": len(jobs) > limit})

    def batch(self, vendor: FakeBatchVendor, asked: Asked, job: FakeJob) -> dict[str, Any]:
        """Return a message batch."""
        left = len(job.calls) - len(job.answered)
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if job.is_running:
            counts["processing"] = len(job.calls)
        else:
            counts["succeeded"] = len(job.answered) - len(job.refused)
            counts["errored"] = len(job.refused)
            counts["canceled" if job.state == "cancelled" else "expired"] = left
        status = {"running": "in_progress", "cancelling": "canceling"}.get(job.state, "ended")
        host = asked.headers.get("host", "anthropic.invalid")
        scheme = "https" if host.endswith(".invalid") else "http"
        results = f"{scheme}://{host}/v1/messages/batches/{job.id}/results"
        return {
            "id": job.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": counts,
            "created_at": _moment(job.created),
            "expires_at": _moment(job.created + 24 * 3600),
            "ended_at": _moment(vendor.clock()) if status == "ended" else None,
            "cancel_initiated_at": _moment(vendor.clock()) if job.state.startswith("cancel") else None,
            "archived_at": None,
            "results_url": results if status == "ended" else None,
        }

    def answer_line(self, custom: str, body: Any, request_id: str | None) -> dict[str, Any]:
        """Return the line of an answer."""
        return mirror.anthropic_succeeded(custom, body)

    def error_line(self, custom: str, refuse: Refuse, body: Any) -> dict[str, Any]:
        """Return the line of a call that was refused."""
        return mirror.anthropic_refused(custom, body)

    def given_up_line(self, custom: str, reason: str) -> dict[str, Any] | None:
        """Return the line of a call that was not done."""
        return mirror.anthropic_given_up(custom, reason)


class _Gemini(BatchWire):
    dialect = "gemini"
    about_jobs = re.compile(r":batchGenerateContent$|/(?:batches|files)(?:/[^/]+)?$")
    job: ClassVar[re.Pattern[str]] = re.compile(r"/(batches/[^/:]+)(:cancel)?$")
    create: ClassVar[re.Pattern[str]] = re.compile(r"/([^/]+/[^/:]+):batchGenerateContent$")
    results: ClassVar[re.Pattern[str]] = re.compile(r"/files/results-(\d+):download$")

    def reply(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        """Return the reply to a request about files or batches."""
        path = unquote(asked.path)
        created, found, results = self.create.search(path), self.job.search(path), self.results.search(path)
        if asked.method == "POST" and path.endswith("/files"):
            return self._upload(vendor, asked)
        if asked.method == "POST" and created is not None:
            return self._create(vendor, asked, created[1])
        if asked.method == "GET" and results is not None:
            known = vendor.jobs.get(f"batches/{results[1]}")
            if known is None or not vendor.keeps_results:
                return vendor.refuse(_GONE)
            return vendor.results(_jsonl(line for _, line in self.lines(known)))
        if asked.method == "GET" and path.endswith("/batches"):
            return self._list(vendor, asked)
        known = None if found is None else vendor.jobs.get(found[1])
        if found is None or known is None:
            return vendor.refuse(_NO_JOB)
        if found[2] is None:
            vendor.poll(known.id)
            return _json(self.operation(known))
        if known.is_running:
            known.state = "cancelled"  # at once, as the vendor does
        return _json({})

    def _upload(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        command = asked.headers.get("x-goog-upload-command", "")
        if command == "start":
            host = asked.headers.get("host", "gemini.invalid")
            scheme = "https" if host.endswith(".invalid") else "http"
            url = f"{scheme}://{host}{asked.path}?upload_id={len(vendor.files) + 1}&upload_protocol=resumable"
            return Sent.of(b"", x_goog_upload_url=url, x_goog_upload_status="active")
        if command != "upload, finalize" or asked.headers.get("x-goog-upload-offset") != "0":
            return vendor.refuse(Refuse(status=400, message="this server takes a file in one piece"))
        name = f"files/input-{_query(asked, 'upload_id')}"
        vendor.add_file(asked.body, name)
        file = {"name": name, "mimeType": "jsonl", "sizeBytes": str(len(asked.body)), "state": "ACTIVE"}
        file["uri"] = f"https://gemini.invalid/v1beta/{name}"
        return Sent.of(dumps({"file": file}), x_goog_upload_status="final")

    def _create(self, vendor: FakeBatchVendor, asked: Asked, model: str) -> Sent:
        batch = get_object(need_object(asked.json, "$"), "batch")
        config = get_object(batch, "inputConfig")
        data = vendor.files.get(str(config.get("fileName")))
        if data is None:
            return vendor.refuse(Refuse(status=400, message="batch.inputConfig.fileName: no such file"))
        calls: dict[str, Call] = {}
        failure: Refuse | None = None
        try:
            calls = self.decoded(mirror.decode_gemini(data, model), lambda path: dialect("gemini"))
        except (MalformedReply, InvalidOption) as error:
            failure = Refuse(status=400, message=error.message)
        name = f"batches/{len(vendor.jobs) + 1}"
        reference = batch.get("displayName")
        made = vendor.create(name, calls, reference=reference, failure=failure, model=model, inputConfig=dict(config))
        return vendor.created(_json(self.operation(made)))

    def _list(self, vendor: FakeBatchVendor, asked: Asked) -> Sent:
        limit = min(int(_query(asked, "pageSize", "50")), vendor.page)
        jobs = _after(vendor.listed(), _query(asked, "pageToken"))
        page = jobs[:limit]
        value: dict[str, Any] = {}
        if page:
            value["operations"] = [self.operation(job) for job in page]
        if len(jobs) > limit:
            value["nextPageToken"] = page[-1].id
        return _json(value)

    def operation(self, job: FakeJob) -> dict[str, Any]:
        """Return a long-running operation whose metadata is the batch."""
        state = {"ended": "SUCCEEDED", "cancelling": "RUNNING"}.get(job.state, job.state.upper())
        failed, done = len(job.refused), len(job.answered) - len(job.refused)
        left = len(job.calls) - len(job.answered)
        stats = {"requestCount": len(job.calls), "successfulRequestCount": done, "failedRequestCount": failed}
        metadata = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "name": job.id,
            "displayName": job.reference,
            **job.facts,
            "createTime": _moment(job.created),
            "updateTime": _moment(job.created),
            # 64-bit numbers are texts in the JSON of protocol buffers, and zeros are left out.
            "batchStats": {key: str(count) for key, count in {**stats, "pendingRequestCount": left}.items() if count},
            "state": f"BATCH_STATE_{state}",
        }
        value: dict[str, Any] = {"name": job.id, "metadata": metadata, "done": not job.is_running}
        if job.state == "ended":
            output = {"responsesFile": f"files/results-{job.id.rpartition('/')[2]}"}
            metadata["output"] = output
            value["response"] = {"@type": "type.googleapis.com/google.ai.generativelanguage.v1main.x", **output}
        if job.failure is not None:
            value["error"] = {"code": 3, "message": job.failure.message}
        elif job.state == "cancelled":
            value["error"] = {"code": 1, "message": "the batch was cancelled"}
        return value

    def answer_line(self, custom: str, body: Any, request_id: str | None) -> dict[str, Any]:
        """Return the line of an answer."""
        return mirror.gemini_succeeded(custom, body)

    def error_line(self, custom: str, refuse: Refuse, body: Any) -> dict[str, Any]:
        """Return the line of a call that was refused."""
        return mirror.gemini_refused(custom, body)

    def given_up_line(self, custom: str, reason: str) -> dict[str, Any] | None:
        """Return None: an expired or cancelled batch has no results."""
        return None


def _moment(seconds: float) -> str:
    """Return an RFC 3339 time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


WIRES: dict[str, Callable[[], BatchWire]] = {
    "openai": _OpenAI,
    "mistral": _Mistral,
    "anthropic": _Anthropic,
    "gemini": _Gemini,
}
