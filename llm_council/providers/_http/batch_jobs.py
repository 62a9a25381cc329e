"""What vendors' batch jobs share over HTTP: fitting, sizes, requests within a time limit, files of JSON lines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import attrs

from llm_council._runtime.large_work import run_large
from llm_council._wire.payloads import dumps, loads, malformed, need_object, text_or_none
from llm_council.errors import (
    BatchIncomplete,
    CouncilError,
    InvalidOption,
    MalformedReply,
    ProviderError,
    ReplyTooLarge,
)
from llm_council.models._attrs import copy_with
from llm_council.models.limits import Limits
from llm_council.models.reply import Adjustment, Cost, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import error_mapping, fitting, returns
from llm_council.providers._call.bounded import StreamLimits, timeout_error
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers.batch_jobs import (
    BatchCall,
    BatchJobs,
    FoundJob,
    JobState,
    JobStatus,
    custom_id,
    split_custom_id,
)
from llm_council.transports import HttpReply, HttpRequest

__all__ = [
    "EncodedCall",
    "HttpBatchJobs",
    "Job",
    "Outcome",
    "ResultLine",
    "awaits_results",
    "need_id",
    "readable_jobs",
    "unix_seconds",
]

_SECONDS = 60.0  # for a small request: a status, a page of a list
_SECONDS_TO_SEND = 900.0  # for the calls of a job
_CLOCKS = 86_400.0  # seconds by which our clock and the vendor's may differ
_LARGER = 16  # times the limit of a reply: pages of a list may hold the inline results of other programs' jobs
_PAGES = 1000  # of a list of jobs
_LONGEST_ID = "x" * 64

Outcome: TypeAlias = GenerateResponse | CouncilError


@attrs.frozen(kw_only=True)
class EncodedCall:
    """A call as a direct request would send it.

    Attributes:
        asked: the fitted request, with its model.
        path: the path of the address for direct calls.
        payload: the JSON of the body, without ``stream``.
    """

    asked: GenerateRequest
    path: str
    payload: dict[str, Any]


@attrs.frozen(kw_only=True)
class Job:
    """What a vendor says about a job.

    Attributes:
        id: the vendor's id.
        status: the state.
        reference: our reference; None if the vendor does not show it.
        created: Unix seconds; None is unknown.
        results: the addresses of its outcomes, as paths or ids of files.
        failure: makes the error of a call in a job that failed as a whole; None otherwise.
    """

    id: str
    status: JobStatus
    reference: str | None = None
    created: float | None = None
    results: tuple[str, ...] = ()
    failure: Callable[[], ProviderError] | None = None


@attrs.frozen(kw_only=True)
class ResultLine:
    """The outcome of one call, as a vendor writes it.

    Attributes:
        custom_id: the id with which the call was sent.
        body: the JSON of the answer, in the form of a direct reply.
        request_id: the vendor's id of the request.
        error: why there is no answer.
        gave_up: why the vendor did not make the call, as in ``BatchIncomplete.reason``.
    """

    custom_id: object
    body: Any = None
    request_id: str | None = None
    error: ProviderError | None = None
    gave_up: str | None = None


class HttpBatchJobs(BatchJobs):
    """Base of the batch jobs of HTTP providers. A subclass implements the vendor's wire.

    Args:
        provider: the adapter, whose address, key, transport and codecs are used.
    """

    _NEWEST_FIRST = True  # the vendor lists its newest jobs first

    def __init__(self, provider: HttpProvider) -> None:
        self._provider = provider

    # Implemented for each vendor:

    @abstractmethod
    def _group(self, call: EncodedCall) -> str:
        """Return what all calls of a job must share."""

    @abstractmethod
    def _line(self, custom: str, call: EncodedCall) -> dict[str, Any]:
        """Return the JSON of a call in a job."""

    @abstractmethod
    async def _create(self, lines: list[bytes], call: EncodedCall, reference: str) -> str:
        """Create a job from encoded lines, and return its id; ``call`` is any of its calls."""

    @abstractmethod
    async def _look_up(self, job: str) -> Job:
        """Return what the vendor says about a job."""

    @abstractmethod
    async def _page(self, cursor: str | None, since: float) -> tuple[list[Job], str | None]:
        """Return a page of the list of jobs, and the cursor of the next one; None if there is none."""

    @abstractmethod
    def _results_request(self, result: str) -> HttpRequest:
        """Return the request for a file of results."""

    @abstractmethod
    def _read_line(self, line: Mapping[str, Any]) -> ResultLine:
        """Read a line of results.

        Raises:
            MalformedReply: it is none of this vendor.
        """

    @abstractmethod
    async def _cancel(self, job: str) -> None:
        """Ask the vendor to cancel a job."""

    # Shared by all vendors:

    async def prepare(self, request: GenerateRequest) -> BatchCall:
        """Return the group and the size of a call."""
        call, _ = await self._encode(request)
        return BatchCall(group=self._group(call), size=len(self._encoded_line(_LONGEST_ID, call)) + 1)

    async def send(self, calls: Mapping[str, GenerateRequest], reference: str) -> str:
        """Send a job, and return the vendor's id of it."""
        if not 0 < len(calls) <= self.most:
            raise InvalidOption(f"a job of {self._provider.name} has 1 to {self.most} calls, got {len(calls)}")
        async with self._reported():
            encoded: dict[str, EncodedCall] = {}
            for call, request in calls.items():
                encoded[custom_id(reference, call)], _ = await self._encode(request)
                await anyio.lowlevel.checkpoint()  # encoding thousands of calls must not stop the event loop
            if len({self._group(call) for call in encoded.values()}) > 1:
                raise InvalidOption("the calls of a job must have the same group: ask prepare() for it")
            lines = await run_large(self.most_bytes, lambda: [self._encoded_line(*item) for item in encoded.items()])
            size = sum(map(len, lines)) + len(lines)
            if size > self.most_bytes:
                raise InvalidOption(f"a job of {self._provider.name} has at most {self.most_bytes} bytes, got {size}")
            return await self._create(lines, next(iter(encoded.values())), reference)

    async def find(self, reference: str, *, total: int, since: float) -> tuple[FoundJob, ...]:
        """Return the jobs that carry a reference, or may carry it, the oldest first."""
        oldest = since - _CLOCKS
        found: list[tuple[float, FoundJob]] = []
        async with self._reported():
            cursor: str | None = None
            for _ in range(_PAGES):
                jobs, cursor = await self._page(cursor, oldest)
                recent = [job for job in jobs if job.created is None or job.created >= oldest]
                for job in recent:
                    is_certain = await self._carries(job, reference, total, since)
                    if is_certain is not None:
                        found.append((job.created or 0.0, FoundJob(job=job.id, is_certain=is_certain)))
                if cursor is None or (self._NEWEST_FIRST and jobs and not recent):
                    break
        return tuple(job for _, job in sorted(found, key=lambda item: item[0]))

    async def _carries(self, job: Job, reference: str, total: int, since: float) -> bool | None:
        """Return True if a job carries a reference, False if it may carry it, and None if it does not."""
        return True if job.reference == self._name_of(reference) else None

    def _name_of(self, reference: str) -> str:
        """Return the reference as the job carries it."""
        return reference

    async def status(self, job: str) -> JobStatus:
        """Return the state of a job."""
        async with self._reported():
            return (await self._look_up(job)).status

    async def cancel(self, job: str) -> None:
        """Ask the vendor to cancel a job; a job that is no longer running is left as it is."""
        async with self._reported():
            try:
                await self._cancel(job)
            except ProviderError:
                if (await self._look_up(job)).status.state is JobState.RUNNING:
                    raise

    async def outcomes(
        self, job: str, calls: Mapping[str, GenerateRequest]
    ) -> AsyncIterator[tuple[str, GenerateResponse | CouncilError]]:
        """Yield one outcome for each call of a job that is no longer running."""
        async with self._reported():
            ended = await self._look_up(job)
        if ended.status.state is JobState.RUNNING:
            raise InvalidOption(f"the job {job} is still running: ask for its outcomes when it has ended")
        left = dict(calls)
        for result in ended.results:
            async with aclosing(self._lines(result)) as lines:
                async for line in lines:
                    _, call = split_custom_id(line.custom_id)
                    request = left.pop(call, None)
                    if request is not None:
                        yield call, await self._outcome(line, request, ended)
                        await anyio.lowlevel.checkpoint()  # a piece of the file may hold hundreds of answers
        for call, request in left.items():
            yield call, self._described(self._unanswered(ended), request)

    async def _outcome(self, line: ResultLine, request: GenerateRequest, job: Job) -> Outcome:
        if line.gave_up is not None:
            return self._described(_incomplete(job, line.gave_up), request)
        if line.error is not None:
            return self._described(line.error, request)
        try:
            return await self._decode(line, request)
        except CouncilError as error:
            return self._described(error.with_traceback(None).fill(request_id=line.request_id), request)

    async def _decode(self, line: ResultLine, request: GenerateRequest) -> GenerateResponse:
        provider = self._provider
        asked, adjustments = await self._fit(request)
        headers = {"x-request-id": line.request_id} if line.request_id else {}
        decoded = provider._decode(line.body, asked, HttpReply(status=200, headers=headers))
        size = len(decoded.text or "")
        response = await run_large(size, partial(provider._restorer(request, asked).restore, decoded))
        response = returns.require_answer(response, name=provider.name)
        response = copy_with(
            response,
            model=response.model or asked.model,
            adjustments=adjustments + response.adjustments,
            cost=copy_with(response.cost or Cost(), share=self.price),
        )
        violations = await fitting.find_violations(request, response)
        return copy_with(response, adjustments=response.adjustments + violations)

    def _unanswered(self, job: Job) -> ProviderError:
        """Return the error of a call for which there is no line."""
        if job.failure is not None:
            return job.failure()
        state = job.status.state
        return _incomplete(job, "missing" if state is JobState.ENDED else str(state))

    async def _encode(self, request: GenerateRequest) -> tuple[EncodedCall, tuple[Adjustment, ...]]:
        """Return a call as a direct request would send it, and what was changed in the request."""
        asked, adjustments = await self._fit(request)
        path, payload = self._provider._encode(asked, stream=False)
        payload.pop("stream", None)  # no vendor streams the answers of a job
        return EncodedCall(asked=asked, path=path, payload=payload), adjustments

    def _encoded_line(self, custom: str, call: EncodedCall) -> bytes:
        """Return a call as a line of JSON, in which no reader of lines finds another line break."""
        line = dumps(self._line(custom, call))
        for char in ("\x85", "\u2028", "\u2029"):  # those beside JSON's control characters that ``splitlines`` knows
            line = line.replace(char.encode(), b"\\u%04x" % ord(char))
        return line

    async def _fit(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        return await self._provider._prepared(request)

    def _described(self, error: CouncilError, request: GenerateRequest) -> CouncilError:
        """Return the error of a call with the name of its provider and model, and what to check."""
        provider = self._provider
        error_mapping.advise(error, provider._key_advice, provider._model_advice, provider._address_advice)
        return error.fill(provider=provider.name, model=request.model or provider.default_model)

    @asynccontextmanager
    async def _reported(self) -> AsyncIterator[None]:
        """Write the provider's name, and what to check, into the error of a request."""
        provider = self._provider
        try:
            yield
        except CouncilError as error:
            error_mapping.advise(error, provider._key_advice, provider._model_advice, provider._address_advice)
            error.fill(provider=provider.name)
            raise

    async def _json(
        self, method: str, path: str, value: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send a small request, and return the JSON object of its reply."""
        body = b"" if value is None else dumps(value)
        return await self._object(await self._request(method, path, body, headers=headers))

    async def _object(self, reply: HttpReply) -> dict[str, Any]:
        read = partial(loads, reply.body, self._provider._limits, content_type=reply.content_type)
        return need_object(await run_large(len(reply.body), read), "$")

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        seconds: float = _SECONDS,
        url: str | None = None,
    ) -> HttpReply:
        """Send a request, and return the reply if its status is below 400.

        Args:
            method: the HTTP method.
            path: the path below the provider's address.
            body: the whole body.
            headers: further headers.
            seconds: the time limit.
            url: the whole address instead of a path.

        Raises:
            ProviderError: the vendor refused, or was not reached in time.
        """
        provider = self._provider
        provider.check()
        plain = {"Content-Type": "application/json"} if body else {}
        signed = provider._signed({**plain, **(headers or {})})
        http = HttpRequest(method=method, url=url or provider._url(path), headers=signed, body=body)
        limits = attrs.evolve(provider._limits, body=provider._limits.body * _LARGER)
        reply: HttpReply | None = None
        with anyio.move_on_after(seconds):
            reply = await provider._transport.send(http, limits=limits, timeouts=provider._timeouts, deadline=seconds)
        if reply is None:
            raise timeout_error(provider.name, seconds)
        if reply.status >= 400:
            raise provider._refusal(reply)
        return reply

    async def _send_file(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], *, url: str | None = None
    ) -> dict[str, Any]:
        """Send the calls of a job, and return the JSON object of the reply."""
        reply = await self._request(method, path, body, headers=headers, seconds=_SECONDS_TO_SEND, url=url)
        return await self._object(reply)

    def _get(self, path: str) -> HttpRequest:
        provider = self._provider
        return HttpRequest(method="GET", url=provider._url(path), headers=provider._signed({"Accept": "*/*"}))

    async def _lines(self, result: str) -> AsyncGenerator[ResultLine, None]:
        """Yield the lines of a file of results as they arrive; nothing if the vendor no longer has the file.

        Raises:
            ProviderError: the file could not be read to its end.
        """
        provider = self._provider
        limits = StreamLimits(provider.name, None, provider._timeouts.idle)
        async with self._reported():
            provider.check()
            http = self._results_request(result)
            # A file has the answers of all calls; only the size of one line says something about the vendor's health.
            sizes = attrs.evolve(provider._limits, stream=provider._limits.body * max(self.most, 1))
            opened = provider._transport.stream(http, limits=sizes, timeouts=provider._timeouts)
            async with opened as reply:
                if reply.status in (404, 410):
                    return
                if reply.status >= 400:
                    raise provider._refusal(await limits.wait(reply.read))
                buffer = _Lines(provider._limits)
                arriving = aiter(reply)
                while True:
                    limits.content_arrived()  # the consumer's pause is no silence of the vendor
                    data = await limits.wait(partial(anext, arriving, None))
                    for text in buffer.finish() if data is None else buffer.feed(data):
                        line = await self._parsed(text)
                        if line is not None:
                            yield line
                    if data is None:
                        return

    async def _parsed(self, text: bytes) -> ResultLine | None:
        """Return a line of results; None for one that is broken, whose call is then without an outcome."""
        try:
            value = await run_large(len(text), partial(loads, text, self._provider._limits))
            return self._read_line(need_object(value, "$"))
        except MalformedReply:
            return None


class _Lines:
    """Splits bytes into lines that are not empty."""

    def __init__(self, limits: Limits) -> None:
        self._longest = limits.body
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete.

        Raises:
            ReplyTooLarge: a line is longer than a reply may be.
        """
        self._rest += data
        if b"\n" not in data:
            self._check(len(self._rest))
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            self._check(len(line))
        return [line for line in lines if line.strip()]

    def finish(self) -> list[bytes]:
        """Return the last line, if it has no line break."""
        return [bytes(self._rest)] if self._rest.strip() else []

    def _check(self, size: int) -> None:
        if size > self._longest:
            raise ReplyTooLarge(f"a line of a batch job's results is larger than {self._longest} bytes")


_WHY = {
    "expired": "ran out of time before this call was answered",
    "cancelled": "was cancelled before this call was answered",
    "failed": "failed before this call was answered",
    "missing": "has no outcome of this call: its results may have been deleted, or this line is broken",
}


def _incomplete(job: Job, reason: str) -> BatchIncomplete:
    return BatchIncomplete(f"the batch job {job.id} {_WHY[reason]}; send the call again", job=job.id, reason=reason)


def awaits_results(state: JobState, results: tuple[str, ...], done: int | None) -> bool:
    """Return True for a job that has ended with answers, but whose files of results are not named yet."""
    return state is JobState.ENDED and not results and bool(done)


def readable_jobs(rows: Any, read: Callable[[Mapping[str, Any]], Job]) -> list[Job]:
    """Return the jobs in a list; those that cannot be read are left out, as they are of other programs."""
    jobs = []
    for row in rows if isinstance(rows, list) else ():
        with suppress(MalformedReply):
            jobs.append(read(need_object(row, "$")))
    return jobs


def need_id(data: Mapping[str, Any]) -> str:
    """Return the id of a job or a file.

    Raises:
        MalformedReply: there is none.
    """
    value = data.get("id")
    if not isinstance(value, str) or not value:
        raise malformed("$.id", "a string", value)
    return value


def unix_seconds(moment: Any) -> float | None:
    """Return the Unix seconds of an RFC 3339 time; None for anything else."""
    try:
        return datetime.fromisoformat(text_or_none(moment) or "").timestamp()
    except ValueError:
        return None
