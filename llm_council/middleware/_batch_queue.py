"""Gather the calls of one event loop until no more can come, and hand them to batch jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

from llm_council._runtime import call_context, loops
from llm_council.errors import CouncilError
from llm_council.middleware._batch_job import BatchSettings, Job, WaitingCall, deliver_error
from llm_council.models.reply import GenerateResponse
from llm_council.providers._call.error_mapping import as_council_error
from llm_council.providers.batch_jobs import new_reference

__all__ = ["LOOK", "BatchQueue"]

LOOK: Final = 0.1
"""Seconds between two looks at the gathered calls. No call may have come or gone between them for a job to be sent
before its window ends."""


class BatchQueue:
    """The waiting calls and the jobs of one event loop."""

    def __init__(self, settings: BatchSettings) -> None:
        self.settings = settings
        self._gathered: dict[WaitingCall, None] = {}  # in the order in which they came
        self._jobs: dict[str, Job] = {}
        self._is_gathering = False

    async def wait(self, call: WaitingCall) -> GenerateResponse | CouncilError:
        """Return the outcome of a call. If its caller is cancelled, a job that no other call needs is cancelled too."""
        self._gathered[call] = None
        if call.live is not None:
            call.live.hold()
        if not self._is_gathering:
            self._is_gathering = True
            self._spawn(self._gather)
        try:
            await call.event.wait()
        except BaseException:
            await self._leave(call)
            raise
        assert call.outcome is not None  # noqa: S101 - for the type checker
        return call.outcome

    async def aclose(self) -> None:
        """Do nothing: calls that wait go on waiting, and what they wait for ends with them or with the event loop."""

    def _start(self, job: Job) -> None:
        """Work on a job until it has no waiting calls left."""
        self._jobs[job.reference] = job
        self._spawn(job.work)

    def _forget(self, job: Job) -> None:
        """Forget a job that has nothing left to do."""
        self._jobs.pop(job.reference, None)

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            # A job serves calls of many runs: it must not stand under the deadline of the call that came first.
            with call_context.entered(call_context.RunScope()):
                await work()

        loops.current().spawn(run, lambda: None)

    async def _leave(self, call: WaitingCall) -> None:
        if call.outcome is None and call.live is not None:
            call.live.release()
        call.has_left = True
        if call.row is not None:  # paid for, or about to be: an equal call may have its answer
            self.settings.journal.release(call.row)
        self._gathered.pop(call, None)
        if call.job is not None:
            await call.job.leave(call)

    async def _gather(self) -> None:
        calls: list[WaitingCall] = []
        try:
            while self._gathered:
                await self._window()
                calls, self._gathered = list(self._gathered), {}
                await self._dispatch(calls)
        except Exception as exc:  # noqa: BLE001 - a clock of the caller's may raise anything, and no call may hang
            deliver_error([*calls, *self._gathered], as_council_error(exc))
            self._gathered.clear()
        finally:
            self._is_gathering = False

    async def _window(self) -> None:
        """Wait until the window ends, a job is full, or no further call can come."""
        settings = self.settings
        end = settings.clock() + settings.window
        seen: object = None
        while self._gathered and len(self._gathered) < min(settings.most, settings.jobs.most):
            left = end - settings.clock()
            if left <= 0:
                return
            await settings.sleep(min(left, LOOK))
            now = self._still_state()
            if now is not None and now == seen:
                return
            seen = now

    def _still_state(self) -> object:
        """Return a value that stays equal while nothing happens; None if another call may come at any moment."""
        if any(call.live is None for call in self._gathered):
            return None
        councils = {call.live.run.runs for call in self._gathered if call.live is not None}
        if any(council.moving for council in councils):
            return None
        return len(self._gathered), {council: council.changes for council in councils}

    async def _dispatch(self, calls: Sequence[WaitingCall]) -> None:
        """Give each call what the journal has of it; send the others as new jobs."""
        known = await self.settings.journal.take([call.key for call in calls])
        fresh: list[WaitingCall] = []
        answered: list[tuple[WaitingCall, GenerateResponse]] = []
        for call, found in zip(calls, known, strict=True):
            if found is None:
                fresh.append(call)
                continue
            call.row, call.is_taken_up = found.row, True
            if call.has_left:
                self.settings.journal.release(found.row)
            elif found.answer is not None:
                answered.append((call, found.answer))
            else:
                job = self._jobs.get(found.reference)
                if job is None:
                    job = Job(self.settings, found.reference, self._forget)
                    self._start(job)
                job.attach(found.call, call)
        for call, answer in answered:
            call.deliver(answer)
        for part in self._split(call for call in fresh if not call.has_left):
            job = Job(self.settings, new_reference(), self._forget, is_new=True)
            for number, call in enumerate(part):
                job.attach(str(number), call)
            self._start(job)

    def _split(self, calls: Iterable[WaitingCall]) -> Iterator[list[WaitingCall]]:
        """Yield the calls of each job: of one group, and no more calls and bytes than a job may have."""
        jobs = self.settings.jobs
        most = min(self.settings.most, jobs.most)
        parts: dict[str, list[WaitingCall]] = {}
        sizes: dict[str, int] = {}
        for call in calls:
            group, size = call.place.group, call.place.size
            part = parts.setdefault(group, [])
            if part and (len(part) == most or sizes[group] + size > jobs.most_bytes):
                yield part
                part = parts[group] = []
            sizes[group] = size if not part else sizes[group] + size
            part.append(call)
        yield from parts.values()
