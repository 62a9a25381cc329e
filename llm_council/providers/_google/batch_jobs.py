"""Batch jobs of the Gemini API: an uploaded file of calls, a batch, and a file of answers.

Sources: Gemini API docs, "Batch API" and "Files API"; API reference, "Batch API"; the ``google-genai`` package
(``batches``, ``files``). Calls are sent as a file and not inside the request that creates the job, because the answers
to the latter come without their keys (python-genai, issues 1886 and 2008) and not always in order (pull request 2124).
A file has calls to one model. It is deleted by the vendor after 48 hours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import attrs

from llm_council._wire.payloads import dumps, get_object, malformed, text_or_none
from llm_council.errors import MalformedReply, ProviderError
from llm_council.models.reply import Adjustment
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import fitting
from llm_council.providers._google.errors import decode_error
from llm_council.providers._http.batch_jobs import (
    EncodedCall,
    HttpBatchJobs,
    Job,
    ResultLine,
    readable_jobs,
    unix_seconds,
)
from llm_council.providers.batch_jobs import JobState, JobStatus
from llm_council.transports import HttpRequest

__all__ = ["GeminiBatchJobs"]

_STATES = {
    "SUCCEEDED": JobState.ENDED,
    "PARTIALLY_SUCCEEDED": JobState.ENDED,
    "FAILED": JobState.FAILED,
    "EXPIRED": JobState.EXPIRED,
    "CANCELLED": JobState.CANCELLED,
}
_PREFIX = re.compile(r"^(?:BATCH|JOB)_STATE_")
_NAME = re.compile(r"(?:batches|files)/[A-Za-z0-9._-]+")

# google/rpc/code.proto: the numbers of errors inside of results, with their HTTP statuses.
_CODES = {
    1: (499, "CANCELLED"),
    2: (500, "UNKNOWN"),
    3: (400, "INVALID_ARGUMENT"),
    4: (504, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    6: (409, "ALREADY_EXISTS"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    10: (409, "ABORTED"),
    11: (400, "OUT_OF_RANGE"),
    12: (501, "UNIMPLEMENTED"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
    15: (500, "DATA_LOSS"),
    16: (401, "UNAUTHENTICATED"),
}
_CANCELLED = 1


class GeminiBatchJobs(HttpBatchJobs):
    """Jobs at ``/batches``, with files at ``/files``."""

    price = 0.5  # Gemini API docs, "Batch API": "50% of the standard cost"
    most = 100_000  # no number is documented: what the size of a file usually allows
    most_bytes = 2_000_000_000  # the same page: "The maximum allowed file size for an input file is 2GB"
    seconds = 48 * 3600.0  # the same page: expired "because it was running or pending for more than 48 hours"

    _NEWEST_FIRST = False  # not documented

    async def _fit(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        # In batch jobs, answers do not follow a schema in responseJsonSchema (crmne/ruby_llm, issue 894: 0 of 502, and
        # python-genai, issue 1608), or the job fails (python-genai, issue 1307). JSON mode works.
        profile = self._provider._profile_of(request.model)
        if profile.structured == "json_schema":
            profile = attrs.evolve(profile, structured="json_object")
        fitted, adjustments = fitting.fit(request, self._provider.capabilities, profile)
        asked, further = await self._provider._prepared(fitted)
        return asked, adjustments + further

    def _group(self, call: EncodedCall) -> str:
        return call.path

    def _line(self, custom: str, call: EncodedCall) -> dict[str, Any]:
        return {"key": custom, "request": call.payload}

    async def _create(self, lines: list[bytes], call: EncodedCall, reference: str) -> str:
        file = await self._upload(b"\n".join(lines) + b"\n", reference)
        batch = {"displayName": self._name_of(reference), "inputConfig": {"fileName": file}}
        model = call.path.rpartition(":")[0]
        return read_job(await self._json("POST", f"{model}:batchGenerateContent", {"batch": batch})).id

    async def _upload(self, body: bytes, reference: str) -> str:
        """Upload a file by the resumable protocol in one piece, and return its name."""
        start = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(len(body)),
            "X-Goog-Upload-Header-Content-Type": "jsonl",  # as in the vendor's examples
        }
        provider = self._provider
        # The address of uploads has the version behind "/upload".
        path = provider._url("/files").removeprefix(provider.base_url)
        described = dumps({"file": {"displayName": self._name_of(reference)}})
        begun = await self._request("POST", "", described, headers=start, url=f"{provider.base_url}/upload{path}")
        target = urlsplit(begun.headers.get("x-goog-upload-url", ""))
        if not target.path:
            raise MalformedReply("the vendor named no address for the upload of a batch job's file")
        # Only the path is taken from the reply: prompts and key go to the provider's own address.
        own = urlsplit(provider.base_url)
        url = f"{own.scheme}://{own.netloc}{target.path}{f'?{target.query}' if target.query else ''}"
        finish = {"X-Goog-Upload-Offset": "0", "X-Goog-Upload-Command": "upload, finalize"}
        reply = await self._send_file("POST", "", body, {"Content-Type": "application/jsonl", **finish}, url=url)
        return _need_name(get_object(reply, "file").get("name"), "$.file.name")

    def _name_of(self, reference: str) -> str:
        return f"llm-council-{reference}"

    async def _look_up(self, job: str) -> Job:
        return read_job(await self._json("GET", f"/{_need_name(job, 'the id of the job')}"))

    async def _page(self, cursor: str | None, since: float) -> tuple[list[Job], str | None]:
        token = "" if cursor is None else f"&pageToken={quote(cursor, safe='')}"
        page = await self._json("GET", f"/batches?pageSize=100{token}")
        # The list is missing if there are no jobs.
        return readable_jobs(page.get("operations"), read_job), text_or_none(page.get("nextPageToken"))

    def _results_request(self, result: str) -> HttpRequest:
        return self._get(f"/{_need_name(result, '$.response.responsesFile')}:download?alt=media")

    def _read_line(self, line: Mapping[str, Any]) -> ResultLine:
        custom = line.get("key")
        if not isinstance(custom, str):
            raise malformed("$.key", "a string", custom)
        error = line.get("error", line.get("status"))  # the guide calls it a "status object"
        if isinstance(error, dict):
            if error.get("code") == _CANCELLED:
                return ResultLine(custom_id=custom, gave_up="cancelled")
            return ResultLine(custom_id=custom, error=read_status(error))
        return ResultLine(custom_id=custom, body=line.get("response"))

    async def _cancel(self, job: str) -> None:
        await self._request("POST", f"/{_need_name(job, 'the id of the job')}:cancel")


def read_job(data: Mapping[str, Any]) -> Job:
    """Read an operation, whose metadata is the batch.

    Raises:
        MalformedReply: it has no name.
    """
    metadata, stats = get_object(data, "metadata"), get_object(get_object(data, "metadata"), "batchStats")
    outputs = (get_object(data, "response"), get_object(metadata, "output"))
    file = next((found for output in outputs if (found := text_or_none(output.get("responsesFile")))), None)
    state = _STATES.get(_PREFIX.sub("", str(metadata.get("state"))), JobState.RUNNING)
    # The state may come before the file (tidyverse/ellmer, pull request 926).
    if state is JobState.ENDED and file is None:
        state = JobState.RUNNING
    error = get_object(data, "error")
    return Job(
        id=_need_name(data.get("name"), "$.name"),
        status=JobStatus(
            state=state,
            total=_count(stats.get("requestCount")),
            done=_count(stats.get("successfulRequestCount")),
            failed=_count(stats.get("failedRequestCount")),
            error=text_or_none(error.get("message")),
        ),
        reference=text_or_none(metadata.get("displayName")),
        created=unix_seconds(metadata.get("createTime")),
        results=(file,) if file else (),
        failure=partial(read_status, error) if state is JobState.FAILED else None,
    )


def read_status(error: Mapping[str, Any]) -> ProviderError:
    """Return the error for a ``google.rpc.Status``, whose code is a number of that enumeration or an HTTP status."""
    number = error.get("code")
    known = number if isinstance(number, int) and not isinstance(number, bool) else 3
    status, word = _CODES.get(known, (known if 400 <= known <= 599 else 400, ""))
    value = {"status": word, **error, "code": status} if word else {**error, "code": status}
    return decode_error(status, {}, dumps({"error": value}))


def _need_name(value: Any, path: str) -> str:
    """Return the name of a resource, which becomes part of an address."""
    if isinstance(value, str) and _NAME.fullmatch(value) and not value.endswith(("/.", "/..")):
        return value
    raise malformed(path, 'a name such as "batches/abc"', value)


def _count(value: Any) -> int | None:
    """Return a count, which 64-bit numbers in JSON are as texts."""
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else None
