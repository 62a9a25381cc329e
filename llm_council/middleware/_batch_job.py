"""A batch job at the vendor, from its calls to their outcomes: send it, wait for its end, read it, or cancel it."""

from __future__ import annotations

import copy
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import attrs

from llm_council._runtime import live_runs
from llm_council.errors import (
    ApiError,
    BatchIncomplete,
    ConfigurationError,
    ConnectFailed,
    CouncilError,
    ProviderError,
    ReplyError,
    RequestRejected,
    StoreError,
    TimedOut,
)
from llm_council.middleware._batch_journal import BatchJournal
from llm_council.models._attrs import copy_with
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.error_mapping import as_council_error
from llm_council.providers.batch_jobs import BatchCall, BatchJobs, FoundJob, JobState

__all__ = ["BatchSettings", "Job", "WaitingCall", "deliver_error"]

T = TypeVar("T")

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
GROWTH: Final = 1.5
"""The waits between two looks at a job: seconds of the first and of the longest one, and how fast they grow."""

LISTED_AFTER: Final = 10.0
"""Seconds after which a job that was sent must be in the vendor's list: a vendor may list it some seconds late."""

MOST_SENDS: Final = 8
"""How often a job is sent at most while the vendor cannot be reached, which takes about half a minute."""

CANCEL_LIMIT: Final = 4.0
"""Seconds that a cancelled call waits at most for the vendor to take the cancellation of its job."""

MOST_UNREADABLE: Final = 5
"""Replies about a job that may be unreadable before its calls fail: such a reply rarely gets better by waiting."""

SAVED_AT_ONCE: Final = 200
"""Answers that are written to the journal together while the others are read."""

_log = logging.getLogger("llm_council")


@attrs.frozen(kw_only=True)
class BatchSettings:
    """What all event loops of one ``Batched`` share.

    Attributes:
        name: the provider's name.
        jobs: the vendor's side.
        journal: the journal.
        window: seconds in which calls are gathered.
        most: most calls in one job.
        clock: returns monotonic seconds.
        sleep: waits for a number of seconds.
        rng: the source of jitter.
    """

    name: str
    jobs: BatchJobs
    journal: BatchJournal
    window: float
    most: int
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    rng: random.Random


@attrs.define(eq=False, kw_only=True)
class WaitingCall:
    """A call that waits for its outcome.

    Attributes:
        request: the request.
        key: by which another process finds the call in the journal.
        place: what the call will be in a job.
        live: the call of a run that this is; None outside runs.
        event: set when there is an outcome.
        outcome: the answer or the error.
        row: its row in the journal.
        job: the job that it waits for; None while it is being gathered.
        is_taken_up: True if an earlier call of the journal, not this one, was sent to the vendor.
        has_left: True once its caller was cancelled.
    """

    request: GenerateRequest
    key: str
    place: BatchCall
    live: live_runs.LiveCall | None = attrs.field(factory=live_runs.current_call)
    event: anyio.Event = attrs.field(factory=anyio.Event)
    outcome: GenerateResponse | CouncilError | None = None
    row: int | None = None
    job: Job | None = None
    is_taken_up: bool = False
    has_left: bool = False

    def deliver(self, outcome: GenerateResponse | CouncilError) -> None:
        """Wake the caller with an outcome; a second one, and one for a caller that has left, changes nothing."""
        if self.outcome is None and not self.has_left:
            self.outcome = outcome
            if self.live is not None:
                self.live.release()
            self.event.set()


class Job:
    """A job at the vendor, and the calls of this event loop that wait for it.

    Args:
        settings: what all event loops share.
        reference: our name for the job.
        on_end: called when no call waits for the job any more.
        is_new: True if it is to be sent; False for a job of the journal.
    """

    def __init__(
        self, settings: BatchSettings, reference: str, on_end: Callable[[Job], object], *, is_new: bool = False
    ) -> None:
        self.reference = reference
        self._settings = settings
        self._on_end = on_end
        self._is_new = is_new
        self._calls: dict[str, WaitingCall] = {}
        self._left: set[str] = set()  # ids of calls that were cancelled
        self._total = 0
        self._job: str | None = None  # the vendor's id
        self._is_final = False
        self._scope = anyio.CancelScope()

    def attach(self, call_id: str, call: WaitingCall) -> None:
        """Add a call that waits for this job."""
        call.job = self
        self._calls[call_id] = call
        self._left.discard(call_id)

    async def leave(self, call: WaitingCall) -> None:
        """Remove a cancelled call; cancel the job if no call needs it any more."""
        for call_id in [known for known, waiting in self._calls.items() if waiting is call]:
            del self._calls[call_id]
            self._left.add(call_id)
        if self._calls or (
            self._is_new and self._job is None
        ):  # ``_send`` looks whether somebody waits once it is sent
            return
        self._scope.cancel()
        self._on_end(self)
        with anyio.move_on_after(CANCEL_LIMIT, shield=True):
            await self._cancel_unneeded()

    async def work(self) -> None:
        """Send the job or look it up, wait for its end, and deliver the outcomes."""
        try:
            with self._scope:
                await (self._send() if self._is_new else self._look_up())
                while self._calls and self._job is not None:
                    await self._read(await self._wait_for_end(self._job), self._job)
        except Exception as exc:  # noqa: BLE001 - a vendor's side by another author may raise anything
            error = as_council_error(exc)
            for call in self._calls.values():  # the job may go on: a later call takes up its outcome
                if call.row is not None:
                    self._settings.journal.release(call.row)
            deliver_error(self._calls.values(), error)
        finally:
            self._on_end(self)

    async def _send(self) -> None:
        journal = self._settings.journal
        async with journal.locked(self.reference):
            calls = dict(self._calls)
            if not calls:
                return
            self._total = len(calls)
            self._left.clear()
            keys = {call_id: call.key for call_id, call in calls.items()}
            rows = await journal.add(self.reference, self._settings.name, keys)
            for call, row in zip(calls.values(), rows, strict=True):
                call.row = row
            if not self._calls:
                await journal.drop(self.reference)
                return
            since = time.time()
            requests = {call_id: call.request for call_id, call in calls.items()}
            try:
                self._job = await self._send_until_taken(requests, since)
            except Exception:
                await journal.drop(self.reference)
                raise
            await journal.set_sent(self.reference, self._job)
        if not self._calls:
            await self._cancel_unneeded()

    async def _send_until_taken(self, requests: Mapping[str, GenerateRequest], since: float) -> str:
        """Send the job, and return the vendor's id; a failure that may pass is waited for a few times."""
        wait = FIRST_WAIT
        tries = 0
        while True:
            tries += 1
            try:
                return await self._settings.jobs.send(requests, self.reference)
            except ProviderError as error:
                # The vendor may have taken the job although its reply was lost.
                found = None if _was_not_sent(error) else await self._find(total=len(requests), since=since)
                if found is not None:
                    return found
                if not _may_pass(error) or tries == MOST_SENDS or not self._calls:
                    raise
                wait = await self._pause(wait, error.retry_after or 0.0)

    async def _look_up(self) -> None:
        """Find the vendor's id of a job that an earlier call has journalled."""
        journal = self._settings.journal
        known = await journal.find(self.reference)
        if known.job is None and known.state == "sending":
            async with journal.locked(self.reference):  # while a living process sends it, this waits
                known = await journal.find(self.reference)
                if known.job is None and known.state == "sending":
                    job = await self._find(total=known.total, since=known.created)
                    if job is None:
                        await journal.drop(self.reference)
                    else:
                        await journal.set_sent(self.reference, job)
                    known = await journal.find(self.reference)
        self._total, self._job = known.total, known.job
        if self._job is None:
            message = "the batch job of this call was not sent"
            self._deliver({call_id: BatchIncomplete(message, reason="missing") for call_id in self._calls})

    async def _find(self, *, total: int, since: float) -> str | None:
        """Return the vendor's id of the job with our reference; None if there is none."""
        wait = FIRST_WAIT
        has_waited = time.time() >= since + LISTED_AFTER
        while True:
            found = await self._ask(partial(self._settings.jobs.find, self.reference, total=total, since=since))
            certain = [job for job in found if job.is_certain]
            if certain:
                return await self._best(certain)
            if not found and has_waited:
                return None
            if not found:
                has_waited = True
                await self._settings.sleep(min(LISTED_AFTER, max(0.0, since + LISTED_AFTER - time.time())))
                continue
            # Some vendors show our reference only once a job has ended: until then it may be this one.
            states = [await self._ask(partial(self._settings.jobs.status, job.job)) for job in found]
            if all(status.state is JobState.RUNNING for status in states):
                wait = await self._pause(wait)

    async def _best(self, found: Sequence[FoundJob]) -> str:
        """Return the job that has answers, or may get some, of several with one reference."""
        for job in found if len(found) > 1 else ():
            status = await self._ask(partial(self._settings.jobs.status, job.job))
            if status.state in (JobState.RUNNING, JobState.ENDED):
                return job.job
        return found[0].job

    async def _wait_for_end(self, job: str) -> JobState | None:
        """Ask for the state of the job until it is final; None if the vendor does not know the job any more."""
        wait = FIRST_WAIT
        while True:
            try:
                state = (await self._ask(partial(self._settings.jobs.status, job))).state
            except RequestRejected as error:
                if error.status != 404:
                    raise
                self._is_final = True
                return None
            if state is not JobState.RUNNING:
                self._is_final = True
                return state
            wait = await self._pause(wait)

    async def _read(self, state: JobState | None, job: str) -> None:
        """Read the outcomes of the calls that wait, journal them, and deliver them all at once.

        At once, because a council that has its answers makes its next calls, which are to be gathered with those of
        the councils whose answers are read later.
        """
        journal = self._settings.journal
        calls = dict(self._calls)
        outcomes: dict[str, GenerateResponse | CouncilError] = {}
        if state is not None:
            await self._ask(partial(self._read_outcomes, job, calls, outcomes))
        for call_id, call in calls.items():
            if call_id not in outcomes or (state is JobState.FAILED and call.is_taken_up):
                message = f"the batch job {job} brought no outcome of this call; send the call again"
                outcomes[call_id] = BatchIncomplete(message, job=job, reason="missing")
        failed = {call_id: outcome for call_id, outcome in outcomes.items() if isinstance(outcome, CouncilError)}
        await self._save(partial(journal.save, self.reference, failed))
        if state in (None, JobState.FAILED):
            await self._save(partial(journal.drop, self.reference))
        await self._save(partial(journal.set_ended, self.reference))
        self._deliver(outcomes)

    async def _read_outcomes(
        self, job: str, calls: Mapping[str, WaitingCall], outcomes: dict[str, GenerateResponse | CouncilError]
    ) -> None:
        """Add to ``outcomes`` those that it lacks. Those that came before an error stay valid."""
        wanted = {call_id: call.request for call_id, call in calls.items() if call_id not in outcomes}
        unsaved: dict[str, GenerateResponse] = {}
        arriving: Any = self._settings.jobs.outcomes(job, wanted)
        try:
            async with aclosing(arriving):
                async for call_id, outcome in arriving:
                    if call_id not in wanted:
                        continue
                    outcomes[call_id] = outcome
                    if isinstance(outcome, GenerateResponse):
                        outcomes[call_id] = unsaved[call_id] = self._marked(outcome, job)
                    if len(unsaved) == SAVED_AT_ONCE:
                        await self._save(partial(self._settings.journal.save, self.reference, unsaved))
                        unsaved = {}
        finally:
            with anyio.CancelScope(shield=True):
                await self._save(partial(self._settings.journal.save, self.reference, unsaved))

    def _marked(self, answer: GenerateResponse, job: str) -> GenerateResponse:
        return copy_with(answer, extra={**answer.extra, "batch": {"job": job, "reference": self.reference}})

    async def _save(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write to the journal; an answer that is paid for is delivered even if that fails."""
        try:
            await write()
        except StoreError as error:
            _log.warning("%s: outcomes of a batch job are not journalled: %s", self._settings.name, error)

    def _deliver(self, outcomes: Mapping[str, GenerateResponse | CouncilError]) -> None:
        for call_id, outcome in outcomes.items():
            call = self._calls.pop(call_id, None)
            if call is not None:
                call.deliver(outcome)

    async def _cancel_unneeded(self) -> None:
        """Cancel the job at the vendor if all its calls were cancelled here."""
        # Calls of a job that was taken up may still be on their way here from their callers.
        if self._job is None or self._is_final or len(self._left) < self._total:
            return
        try:
            await self._settings.jobs.cancel(self._job)
            await self._settings.journal.set_cancelled(self.reference)
        except Exception as exc:  # noqa: BLE001 - see ``work``
            _log.warning("%s: the batch job %s could not be cancelled: %s", self._settings.name, self._job, exc)

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the vendor until it answers. A failure that may pass is waited for, as long as a call waits."""
        wait = FIRST_WAIT
        unreadable = 0
        while True:
            try:
                return await ask()
            except ProviderError as error:
                unreadable += isinstance(error, ReplyError)
                if not _may_pass(error) or unreadable > MOST_UNREADABLE:
                    raise
                _log.info("%s: batch job %s: %s", self._settings.name, self._job or self.reference, error)
                wait = await self._pause(wait, error.retry_after or 0.0)

    async def _pause(self, wait: float, least: float = 0.0) -> float:
        """Sleep for about ``wait`` seconds, at least ``least``, and return the next wait."""
        await self._settings.sleep(max(least, wait * self._settings.rng.uniform(0.8, 1.2)))
        return min(LONGEST_WAIT, wait * GROWTH)


def _may_pass(error: ProviderError) -> bool:
    """Return True if the same request may succeed later; a time limit is that of one request, not of the job."""
    return error.retryable or isinstance(error, TimedOut)


def _was_not_sent(error: Exception) -> bool:
    """Return True if there can be no job after this error of ``BatchJobs.send``."""
    if isinstance(error, ApiError):
        return error.status is not None and error.status < 500
    return isinstance(error, ConnectFailed | ConfigurationError)


def deliver_error(calls: Iterable[WaitingCall], error: CouncilError) -> None:
    """Wake the callers with an error, each with one of its own."""
    for call in calls:
        # Each caller needs an error of its own, because callers add facts and tracebacks to it.
        call.deliver(copy.copy(error))
