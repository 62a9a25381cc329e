"""A fake vendor of batch jobs: it keeps jobs in memory, and works on them while it is polled."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs

from llm_council._wire.payloads import dumps
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models import GenerateResponse
from llm_council.testing.servers._batch_wires import WIRES, BatchWire, Call
from llm_council.testing.servers._dialect import complete
from llm_council.testing.servers._exchange import Asked, Cut, Delayed, Ending, Hang, Refuse, Said, Sent
from llm_council.testing.servers._vendor import FakeVendor, obliging

__all__ = ["FakeBatchVendor", "FakeJob"]


@attrs.define(kw_only=True, eq=False, repr=False)
class FakeJob:
    """A job of a fake vendor.

    Attributes:
        id: the vendor's id.
        calls: the calls by their ``custom_id``, in the order in which they were sent.
        state: ``"running"``, ``"cancelling"``, ``"ended"``, ``"failed"``, ``"expired"`` or ``"cancelled"``.
        created: Unix seconds.
        reference: the client's name for the job, or its metadata; None if the vendor takes none.
        facts: what else the client sent with the job.
        polls: requests for its status so far.
        lists: requests for the list of jobs that did not show it yet.
        answered: lines of results by ``custom_id``, of the calls that are done.
        refused: the ids of calls that were refused.
        failure: why it failed as a whole.
    """

    id: str
    calls: dict[str, Call]
    state: str = "running"
    created: float
    reference: Any = None
    facts: dict[str, Any] = attrs.field(factory=dict)
    polls: int = 0
    lists: int = 0
    answered: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    refused: set[str] = attrs.field(factory=set)
    failure: Refuse | None = None

    @property
    def is_running(self) -> bool:
        """True until the job has a final state."""
        return self.state in ("running", "cancelling")

    def __repr__(self) -> str:
        return f"<FakeJob {self.id} {self.state}, {len(self.answered)} of {len(self.calls)} calls done>"


class FakeBatchVendor(FakeVendor):
    """Plays a vendor that takes batch jobs, besides direct calls.

    ``said`` is asked for each call of a job, once: a text or a ``GenerateResponse`` answers it, ``Refuse`` is an error
    of this call alone, and ``Hang`` leaves the call undone, so that the job expires. A share of the calls is done at
    each request for the status of the job.

    Args:
        speaks: ``"openai"``, ``"mistral"``, ``"anthropic"`` or ``"gemini"``.
        said: the reply to every call.
        key: the key that a header of every request must contain; None accepts every caller.
        polls: requests for a job's status until it is done; 0 is done when it is created, ``math.inf`` never.
        hidden: requests for the list of jobs that do not show a new job yet.
        page: the most jobs in a page of the list.
        clock: returns Unix seconds.
        seconds: the age at which an unfinished job expires; None is never.

    Attributes:
        jobs: the jobs by id, the oldest first. Those that were created again are there too.
        files: uploaded files by id.
        fails: the failure of every new job as a whole, or None. Anthropic refuses such a job when it is created.
        on_created: what happens to the reply when a job has been created: None sends it; ``Hang``, ``Cut``,
            ``Delayed`` and ``Refuse`` spoil it, while the job goes on.
        on_results: what happens to the next file of results that is asked for; it is None again afterwards.
        keeps_results: False answers that results are gone.
    """

    def __init__(
        self,
        speaks: str = "openai",
        said: Said = obliging,
        *,
        key: str | None = None,
        polls: float = 1,
        hidden: int = 0,
        page: int = 100,
        clock: Callable[[], float] = time.time,
        seconds: float | None = None,
    ) -> None:
        if speaks not in WIRES:
            raise InvalidOption(f"no fake vendor takes batch jobs as {speaks!r}: one of {', '.join(sorted(WIRES))}")
        self._wire: BatchWire = WIRES[speaks]()
        super().__init__(self._wire.dialect, said, key=key)
        self.polls = polls
        self.hidden = hidden
        self.page = page
        self.clock = clock
        self.seconds = seconds
        self.jobs: dict[str, FakeJob] = {}
        self.files: dict[str, bytes] = {}
        self.fails: Refuse | None = None
        self.on_created: Refuse | Hang | Cut | Delayed | None = None
        self.on_results: Refuse | Hang | Cut | Delayed | None = None
        self.keeps_results = True
        self._jobs_lock = threading.RLock()  # requests arrive in threads of the server

    @property
    def calls(self) -> list[Asked]:
        """The direct requests that ran a model, in order."""
        return [asked for asked in super().calls if not self._wire.is_about_jobs(asked)]

    @property
    def paid(self) -> Counter[str]:
        """How often each call, by its ``custom_id``, was answered in any job."""
        return Counter(custom for job in self.jobs.values() for custom in job.answered if custom not in job.refused)

    def _knows(self, asked: Asked) -> bool:
        return self._wire.is_about_jobs(asked) or super()._knows(asked)

    def reply(self, asked: Asked) -> Sent:
        """Record a request, and return the reply to it."""
        if not self._wire.is_about_jobs(asked):
            return super().reply(asked)
        with self._changed:
            self.asked.append(asked)
            self._changed.notify_all()
        if self.key is not None and not any(self.key in value for value in asked.headers.values()):
            return self.refuse(Refuse(status=401, message="this key is not known"))
        try:
            with self._jobs_lock:
                return self._wire.reply(self, asked)
        except (MalformedReply, InvalidOption) as error:
            return self.refuse(Refuse(status=400, message=error.message))

    def refuse(self, refuse: Refuse) -> Sent:
        """Return an error in the dialect's own shape."""
        return Sent.of(dumps(self.dialect.refusal(refuse)), status=refuse.status, x_request_id="req-refused")

    # What the wires call:

    def add_file(self, data: bytes, name: str) -> None:
        """Store an uploaded file."""
        self.files[name] = data

    def create(
        self, job: str, calls: dict[str, Call], *, reference: Any = None, failure: Refuse | None = None, **facts: Any
    ) -> FakeJob:
        """Begin a job."""
        made = FakeJob(id=job, calls=calls, created=self.clock(), reference=reference, facts=facts)
        made.failure = failure or self.fails
        if made.failure is not None:
            made.state = "failed"
        self.jobs[job] = made
        self._work(made)
        return made

    def created(self, sent: Sent) -> Sent:
        """Return the reply to the request that created a job, spoiled as ``on_created`` says."""
        return self._spoiled(sent, self.on_created)

    def results(self, sent: Sent) -> Sent:
        """Return a file of results, spoiled as ``on_results`` says."""
        how, self.on_results = self.on_results, None
        return self._spoiled(sent, how)

    def _spoiled(self, sent: Sent, how: Refuse | Hang | Cut | Delayed | None) -> Sent:
        match how:
            case Refuse():
                return self.refuse(how)
            case Hang():
                return Sent(silent=True, ending=Ending.HANG)
            case Cut():
                return sent.broken(how.share, Ending.CUT)
            case Delayed():
                return attrs.evolve(sent, delay=how.seconds)
        return sent

    def poll(self, job: str) -> FakeJob | None:
        """Return a job after some more work on it; None if there is none with this id."""
        found = self.jobs.get(job)
        if found is not None and found.is_running:
            found.polls += 1
            self._work(found)
        return found

    def listed(self) -> list[FakeJob]:
        """Return the jobs that the list shows by now, the newest first."""
        shown = [job for job in reversed(self.jobs.values()) if job.lists >= self.hidden]
        for job in self.jobs.values():
            job.lists += 1
        return shown

    def cancel(self, job: FakeJob) -> None:
        """Begin to cancel a job; it is cancelled at the next request for its status."""
        job.state = "cancelling"

    def finish(self, job: str | None = None) -> None:
        """Do every call of a job, or of all jobs, at once; those that hang expire."""
        with self._jobs_lock:
            for found in [self.jobs[job]] if job is not None else self.jobs.values():
                if found.is_running:
                    self._do(found, len(found.calls))
                    self._end(found)

    def expire(self, job: str | None = None) -> None:
        """Let a job, or all jobs, run out of time: calls that are not done stay undone."""
        with self._jobs_lock:
            for found in [self.jobs[job]] if job is not None else self.jobs.values():
                if found.is_running:
                    found.state = "expired"

    def _work(self, job: FakeJob) -> None:
        if job.state == "cancelling":
            job.state = "cancelled"
        if job.state != "running":
            return
        if self.seconds is not None and self.clock() - job.created > self.seconds:
            job.state = "expired"
            return
        share = 1.0 if self.polls <= 0 else min(job.polls / self.polls, 1.0)
        self._do(job, math.floor(len(job.calls) * share))
        if share == 1.0:
            self._end(job)

    def _end(self, job: FakeJob) -> None:
        job.state = "ended" if len(job.answered) == len(job.calls) else "expired"

    def _do(self, job: FakeJob, count: int) -> None:
        """Answer the first calls of a job."""
        for custom, call in list(job.calls.items())[:count]:
            if custom not in job.answered:
                self._answer(job, custom, call)

    def _answer(self, job: FakeJob, custom: str, call: Call) -> None:
        said: Any = self.said
        while callable(said):
            said = said(call.request)
        match said:
            case str() | GenerateResponse():
                answer = complete(said, call.request)
                job.answered[custom] = self._wire.answer_line(custom, call.dialect.whole(answer), answer.request_id)
            case Refuse():
                job.refused.add(custom)
                job.answered[custom] = self._wire.error_line(custom, said, call.dialect.refusal(said))
            case Hang():
                pass
            case _:
                raise InvalidOption(f"a call of a job is answered, refused or left undone, not {said!r:.80}")
