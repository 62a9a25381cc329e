"""OpenAI's batch jobs: an uploaded file of calls, a batch, and files of answers and of errors.

Sources: OpenAI API reference, "Batch" and "Files"; guide "Batch API"; the types of the ``openai`` package. A file has
calls to one endpoint and one model. Answers come in any order. ``custom_id`` is unique in a file. Metadata has 16 pairs
of at most 64 and 512 characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

from llm_council._wire.payloads import amount, get_object, text_or_none, tokens
from llm_council.providers._http.batch_files import file_form, job_failure, read_line
from llm_council.providers._http.batch_jobs import (
    EncodedCall,
    HttpBatchJobs,
    Job,
    ResultLine,
    awaits_results,
    need_id,
    readable_jobs,
)
from llm_council.providers.batch_jobs import JobState, JobStatus
from llm_council.transports import HttpRequest

__all__ = ["REFERENCE", "OpenAIBatchJobs"]

REFERENCE = "llm_council_reference"
"""The key of our reference in a job's metadata."""

# Any other status, such as "validating" or "cancelling", is one of a job that goes on.
_STATES = {
    "completed": JobState.ENDED,
    "failed": JobState.FAILED,
    "expired": JobState.EXPIRED,
    "cancelled": JobState.CANCELLED,
}


class OpenAIBatchJobs(HttpBatchJobs):
    """Jobs at ``/batches``, with files at ``/files``."""

    price = 0.5  # help.openai.com, "Batch API FAQ": "50% cost discount vs. the synchronous APIs"
    most = 50_000  # API reference, "Create batch": "up to 50,000 requests, and can be up to 200 MB in size"
    most_bytes = 200_000_000

    _VERSION: ClassVar[str] = "/v1"  # before the path of an endpoint, whatever the base URL

    def _group(self, call: EncodedCall) -> str:
        return f"{call.path} {call.asked.model}"

    def _line(self, custom: str, call: EncodedCall) -> dict[str, Any]:
        return {"custom_id": custom, "method": "POST", "url": self._VERSION + call.path, "body": call.payload}

    async def _create(self, lines: list[bytes], call: EncodedCall, reference: str) -> str:
        body, headers = file_form(lines, reference)
        file = await self._send_file("POST", "/files", body, headers)
        job = {
            "input_file_id": need_id(file),
            "endpoint": self._VERSION + call.path,
            "completion_window": "24h",
            "metadata": {REFERENCE: reference},
        }
        return read_job(await self._json("POST", "/batches", job)).id

    async def _look_up(self, job: str) -> Job:
        return read_job(await self._json("GET", f"/batches/{quote(job, safe='')}"))

    async def _page(self, cursor: str | None, since: float) -> tuple[list[Job], str | None]:
        after = "" if cursor is None else f"&after={quote(cursor, safe='')}"
        page = await self._json("GET", f"/batches?limit=100{after}")
        jobs = readable_jobs(page.get("data"), read_job)
        last = text_or_none(page.get("last_id")) or (jobs[-1].id if jobs else None)
        return jobs, last if page.get("has_more") else None

    def _results_request(self, result: str) -> HttpRequest:
        return self._get(f"/files/{quote(result, safe='')}/content")

    def _read_line(self, line: Mapping[str, Any]) -> ResultLine:
        return read_line(line)

    async def _cancel(self, job: str) -> None:
        await self._json("POST", f"/batches/{quote(job, safe='')}/cancel", {})


def read_job(data: Mapping[str, Any]) -> Job:
    """Read a batch object.

    Raises:
        MalformedReply: it has no id.
    """
    counts = get_object(data, "request_counts")
    state = _STATES.get(str(data.get("status")), JobState.RUNNING)
    listed = get_object(data, "errors").get("data")
    errors = [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []
    done = tokens(counts.get("completed"))
    # A file that does not exist is null, or an empty text.
    results = tuple(file for key in ("output_file_id", "error_file_id") if (file := text_or_none(data.get(key))))
    if awaits_results(state, results, done):
        state = JobState.RUNNING
    return Job(
        id=need_id(data),
        status=JobStatus(
            state=state,
            total=tokens(counts.get("total")),
            done=done,
            failed=tokens(counts.get("failed")),
            error=text_or_none(errors[0].get("message")) if errors else None,
        ),
        reference=text_or_none(get_object(data, "metadata").get(REFERENCE)),
        created=amount(data.get("created_at")),
        results=results,
        failure=partial(job_failure, errors) if state is JobState.FAILED else None,
    )
