"""Anthropic's message batches.

Sources: Claude API reference, "Message Batches"; Claude docs, "Batch processing"; the types of the ``anthropic``
package. A batch takes calls to any models. It has neither a name nor metadata, and shows the ids of its calls in its
results alone, so that the ids carry our reference. Results come in any order, and stay for 29 days.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from llm_council._wire.payloads import get_object, malformed, text_or_none, tokens
from llm_council.providers._anthropic.errors import error_inside
from llm_council.providers._http.batch_jobs import (
    EncodedCall,
    HttpBatchJobs,
    Job,
    ResultLine,
    need_id,
    readable_jobs,
    unix_seconds,
)
from llm_council.providers.batch_jobs import JobState, JobStatus, split_custom_id
from llm_council.transports import HttpRequest

__all__ = ["AnthropicBatchJobs"]

_PATH = "/v1/messages/batches"
_CLOCKS = 3600.0  # seconds by which our clock and the vendor's may differ, where only time and size tell jobs apart
_GAVE_UP = {"expired": "expired", "canceled": "cancelled"}


class AnthropicBatchJobs(HttpBatchJobs):
    """Jobs at ``/v1/messages/batches``."""

    price = 0.5  # Claude docs, "Batch processing": "reducing costs by 50%"
    most = 100_000  # the same page: "100,000 Message requests or 256 MB in size, whichever is reached first"
    most_bytes = 256_000_000

    def _group(self, call: EncodedCall) -> str:
        return ""

    def _line(self, custom: str, call: EncodedCall) -> dict[str, Any]:
        return {"custom_id": custom, "params": call.payload}

    async def _create(self, lines: list[bytes], call: EncodedCall, reference: str) -> str:
        body = b'{"requests":[%b]}' % b",".join(lines)
        created = await self._send_file("POST", _PATH, body, {"Content-Type": "application/json"})
        return read_job(created).id

    async def _look_up(self, job: str) -> Job:
        return read_job(await self._json("GET", f"{_PATH}/{quote(job, safe='')}"))

    async def _page(self, cursor: str | None, since: float) -> tuple[list[Job], str | None]:
        after = "" if cursor is None else f"&after_id={quote(cursor, safe='')}"
        page = await self._json("GET", f"{_PATH}?limit=100{after}")
        jobs = readable_jobs(page.get("data"), read_job)
        last = text_or_none(page.get("last_id")) or (jobs[-1].id if jobs else None)
        return jobs, last if page.get("has_more") else None

    async def _carries(self, job: Job, reference: str, total: int, since: float) -> bool | None:
        if job.status.total != total:
            return None
        if job.status.state is JobState.RUNNING:
            is_too_old = job.created is not None and job.created < since - _CLOCKS
            return None if is_too_old else False
        for result in job.results:
            async with aclosing(self._lines(result)) as lines:
                async for line in lines:
                    return True if split_custom_id(line.custom_id)[0] == reference else None
        return None

    def _results_request(self, result: str) -> HttpRequest:
        return self._get(result)

    def _read_line(self, line: Mapping[str, Any]) -> ResultLine:
        custom, result = line.get("custom_id"), get_object(line, "result")
        if not isinstance(custom, str):
            raise malformed("$.custom_id", "a string", custom)
        kind = result.get("type")
        if kind == "succeeded":
            return ResultLine(custom_id=custom, body=result.get("message"))
        if kind in _GAVE_UP:
            return ResultLine(custom_id=custom, gave_up=_GAVE_UP[kind])
        inner = get_object(result, "error")
        error = error_inside(inner if "error" in inner else {"error": inner})
        if error is None:
            raise malformed("$.result.type", '"succeeded", "errored", "canceled" or "expired"', kind)
        return ResultLine(custom_id=custom, error=error)

    async def _cancel(self, job: str) -> None:
        await self._json("POST", f"{_PATH}/{quote(job, safe='')}/cancel", {})


def read_job(data: Mapping[str, Any]) -> Job:
    """Read a message batch.

    Raises:
        MalformedReply: it has no id.
    """
    name = need_id(data)
    counts = {key: tokens(value) or 0 for key, value in get_object(data, "request_counts").items()}
    has_ended = data.get("processing_status") == "ended"
    # The counts are zero but for "processing" until the batch has ended.
    state = JobState.RUNNING
    if has_ended and counts.get("canceled"):
        state = JobState.CANCELLED
    elif has_ended and counts.get("expired"):
        state = JobState.EXPIRED
    elif has_ended:
        state = JobState.ENDED
    return Job(
        id=name,
        status=JobStatus(
            state=state,
            total=sum(counts.values()),
            done=counts.get("succeeded"),
            failed=counts.get("errored"),
        ),
        created=unix_seconds(data.get("created_at")),
        results=(f"{_PATH}/{quote(name, safe='')}/results",) if has_ended else (),
    )
