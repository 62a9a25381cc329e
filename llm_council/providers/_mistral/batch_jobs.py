"""Mistral's batch jobs: an uploaded file of calls, a job, and files of answers and of errors.

Sources: docs.mistral.ai, "Batch processing"; the types of the ``mistralai`` package (``BatchJob``, ``BatchRequest``,
``mistralai.extra.batch``). A job has one endpoint, and here one model. Answers come in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

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

__all__ = ["REFERENCE", "MistralBatchJobs"]

REFERENCE = "llm_council_reference"
"""The key of our reference in a job's metadata."""

_PAGE = 100

# Any other status, such as "QUEUED" or "CANCELLATION_REQUESTED", is one of a job that goes on.
_STATES = {
    "SUCCESS": JobState.ENDED,
    "FAILED": JobState.FAILED,
    "TIMEOUT_EXCEEDED": JobState.EXPIRED,
    "CANCELLED": JobState.CANCELLED,
}


class MistralBatchJobs(HttpBatchJobs):
    """Jobs at ``/batch/jobs``, with files at ``/files``."""

    price = 0.5  # docs.mistral.ai, "Batch processing": "at a 50% discount"
    most = 1_000_000  # the same page: "up to 1M requests"
    most_bytes = 512_000_000  # API reference, "Upload file": "individual files can be a maximum of 512 MB"

    def _group(self, call: EncodedCall) -> str:
        return f"{call.path} {call.asked.model}"

    def _line(self, custom: str, call: EncodedCall) -> dict[str, Any]:
        return {"custom_id": custom, "body": call.payload}

    async def _create(self, lines: list[bytes], call: EncodedCall, reference: str) -> str:
        body, headers = file_form(lines, reference)
        file = await self._send_file("POST", "/files", body, headers)
        job = {
            "input_files": [need_id(file)],
            "endpoint": f"/v1{call.path}",
            "model": call.asked.model,
            "metadata": {REFERENCE: reference},
            "timeout_hours": int(self.seconds // 3600),
        }
        return read_job(await self._json("POST", "/batch/jobs", job)).id

    async def _look_up(self, job: str) -> Job:
        return read_job(await self._json("GET", f"/batch/jobs/{quote(job, safe='')}"))

    async def _page(self, cursor: str | None, since: float) -> tuple[list[Job], str | None]:
        number = int(cursor or 0)
        query = {
            "page": number,
            "page_size": _PAGE,
            "created_after": datetime.fromtimestamp(max(since, 0.0), UTC).isoformat(),
            "order_by": "-created",
        }
        page = await self._json("GET", f"/batch/jobs?{urlencode(query)}")
        rows = page.get("data")  # missing if there are none
        jobs = readable_jobs(rows, read_job)
        # A server may send smaller pages than it was asked for; an empty page is the last one.
        total = tokens(page.get("total"))
        is_last = not rows or (total is not None and (number + 1) * len(rows) >= total)
        return jobs, None if is_last else str(number + 1)

    def _results_request(self, result: str) -> HttpRequest:
        return self._get(f"/files/{quote(result, safe='')}/content")

    def _read_line(self, line: Mapping[str, Any]) -> ResultLine:
        return read_line(line)

    async def _cancel(self, job: str) -> None:
        await self._json("POST", f"/batch/jobs/{quote(job, safe='')}/cancel", {})


def read_job(data: Mapping[str, Any]) -> Job:
    """Read a batch job.

    Raises:
        MalformedReply: it has no id.
    """
    state = _STATES.get(str(data.get("status")), JobState.RUNNING)
    listed = data.get("errors")
    errors = [error for error in listed if isinstance(error, dict)] if isinstance(listed, list) else []
    done = tokens(data.get("succeeded_requests"))
    results = tuple(file for key in ("output_file", "error_file") if (file := text_or_none(data.get(key))))
    if awaits_results(state, results, done):
        state = JobState.RUNNING
    return Job(
        id=need_id(data),
        status=JobStatus(
            state=state,
            total=tokens(data.get("total_requests")),
            done=done,
            failed=tokens(data.get("failed_requests")),
            error=text_or_none(errors[0].get("message")) if errors else None,
        ),
        reference=text_or_none(get_object(data, "metadata").get(REFERENCE)),
        created=amount(data.get("created_at")),
        results=results,
        failure=partial(job_failure, errors) if state is JobState.FAILED else None,
    )
