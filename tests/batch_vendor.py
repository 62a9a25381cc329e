"""A vendor of batch jobs in memory, for the tests of ``Batched``: what it was sent, what it answered, what was paid."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import count

import anyio
import anyio.lowlevel
import attrs

from llm_council.errors import BatchIncomplete, CouncilError, InvalidOption, RequestRejected
from llm_council.models import Cost, GenerateRequest, GenerateResponse, ProviderCapabilities, Usage
from llm_council.providers.base import ProviderAdapter
from llm_council.providers.batch_jobs import BatchCall, BatchJobs, FoundJob, JobState, JobStatus

ANSWER_USAGE = Usage(input_tokens=1000, output_tokens=1000)


def echo(request: GenerateRequest) -> GenerateResponse | CouncilError:
    """Answer with the prompt."""
    return GenerateResponse(text=f"answer to {request.prompt}", finish_reason="stop")


@attrs.define
class SentJob:
    """A job that the vendor has taken."""

    reference: str
    calls: dict[str, GenerateRequest]
    state: JobState = JobState.RUNNING
    looks: int = 0


@attrs.define
class Vendor(BatchJobs):
    """The account of a vendor, with its jobs by their ids.

    Attributes:
        answer: returns the outcome of a call.
        looks: how often the state of a job is asked before it ends.
        ends: the state in which jobs end.
        answered: how many calls of a job have an outcome if it does not end well.
        error: why jobs fail, in the vendor's words.
        on_send: called before and after a job is taken, with ``"before"`` and ``"after"``.
        failures: errors that the next requests about jobs raise, by the name of the method.
        names_reference: False for a vendor that shows the reference only once a job has ended.
        paid: how often the answer to each call was paid, by ``job/call``.
    """

    answer: Callable[[GenerateRequest], GenerateResponse | CouncilError] = echo
    looks: int = 2
    ends: JobState = JobState.ENDED
    answered: int = 0
    error: str | None = None
    on_send: Callable[[str], None] = lambda moment: None
    failures: dict[str, list[Exception]] = attrs.field(factory=dict)
    names_reference: bool = True
    most: int = 10_000
    most_bytes: int = 100_000_000
    price: float = 0.5
    jobs: dict[str, SentJob] = attrs.field(factory=dict)
    numbers: Iterator[int] = attrs.field(factory=count)
    paid: Counter[str] = attrs.field(factory=Counter)
    asked: Counter[str] = attrs.field(factory=Counter)
    cancelled: list[str] = attrs.field(factory=list)

    def snapshot(self) -> Vendor:
        """Return the vendor as it is now, for a process that starts after this moment."""
        twin = copy.copy(self)
        twin.jobs = {name: attrs.evolve(job, calls=dict(job.calls)) for name, job in self.jobs.items()}
        twin.numbers = count(len(self.jobs))
        twin.paid, twin.asked, twin.cancelled = Counter(self.paid), Counter(), []
        return twin

    def _step(self, method: str) -> None:
        self.asked[method] += 1
        failures = self.failures.get(method)
        if failures:
            raise failures.pop(0)

    async def prepare(self, request: GenerateRequest) -> BatchCall:
        return BatchCall(group=request.model or "", size=len(request.prompt or "") + 100)

    async def send(self, calls: Mapping[str, GenerateRequest], reference: str) -> str:
        if not 0 < len(calls) <= self.most:
            raise InvalidOption(f"{len(calls)} calls in a job")
        if len({(await self.prepare(request)).group for request in calls.values()}) > 1:
            raise InvalidOption("calls of several groups")
        self.on_send("before")
        await anyio.lowlevel.checkpoint()
        self._step("send")
        name = f"job-{next(self.numbers)}"  # one step of Python, so that no two threads get the same number
        self.jobs[name] = SentJob(reference, dict(calls))
        self.on_send("after")
        self._step("sent")
        return name

    async def find(self, reference: str, *, total: int, since: float) -> tuple[FoundJob, ...]:
        await anyio.lowlevel.checkpoint()
        self._step("find")
        found = []
        for name, job in self.jobs.items():
            if self.names_reference or job.state is not JobState.RUNNING:
                if job.reference == reference:
                    found.append(FoundJob(job=name, is_certain=True))
            elif len(job.calls) == total:
                self._look(job)
                found.append(FoundJob(job=name, is_certain=False))
        return tuple(found)

    def _look(self, job: SentJob) -> None:
        job.looks += 1
        if job.state is JobState.RUNNING and job.looks > self.looks:
            job.state = self.ends

    async def status(self, job: str) -> JobStatus:
        await anyio.lowlevel.checkpoint()
        self._step("status")
        if job not in self.jobs:
            raise RequestRejected(f"no job {job}", status=404)
        sent = self.jobs[job]
        self._look(sent)
        return JobStatus(
            state=sent.state, total=len(sent.calls), error=self.error if sent.state is JobState.FAILED else None
        )

    async def outcomes(
        self, job: str, calls: Mapping[str, GenerateRequest]
    ) -> AsyncIterator[tuple[str, GenerateResponse | CouncilError]]:
        sent = self.jobs[job]
        assert sent.state is not JobState.RUNNING
        in_order = sorted(sent.calls.items(), key=lambda item: item[1].prompt or "")  # trio starts tasks in any order
        for number, (call, request) in enumerate(in_order):
            if call not in calls:
                continue
            assert calls[call].prompt == request.prompt
            await anyio.lowlevel.checkpoint()
            self._step("outcome")
            if sent.state is JobState.FAILED:
                yield call, RequestRejected(self.error or "failed", status=400)
            elif sent.state is not JobState.ENDED and number >= self.answered:
                yield call, BatchIncomplete(f"the call is {sent.state}", job=job, reason=str(sent.state))
            else:
                yield call, self._outcome(f"{job}/{call}", request)

    def _outcome(self, call: str, request: GenerateRequest) -> GenerateResponse | CouncilError:
        outcome = self.answer(request)
        if isinstance(outcome, CouncilError):
            return outcome
        self.paid[call] = 1  # reading it again costs nothing
        return attrs.evolve(outcome, usage=ANSWER_USAGE, cost=Cost(share=self.price))

    async def cancel(self, job: str) -> None:
        await anyio.lowlevel.checkpoint()
        self._step("cancel")
        self.cancelled.append(job)
        if self.jobs[job].state is JobState.RUNNING:
            self.jobs[job].state = JobState.CANCELLED


class BatchProvider(ProviderAdapter):
    """A provider whose calls can be made in jobs; a direct call fails."""

    name = "vendor"
    capabilities = ProviderCapabilities(streaming=True, structured_output=True)

    def __init__(self, vendor: Vendor | None = None) -> None:
        self.vendor = vendor or Vendor()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        raise AssertionError("a direct call")

    def batch_jobs(self) -> BatchJobs:
        return self.vendor

    def cache_identity(self) -> str:  # the same in every process
        return "vendor:account"


class Time:
    """Monotonic time that passes in ``sleep`` alone; each sleep takes ``step`` real seconds, however long it is."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await anyio.sleep(self.step)
