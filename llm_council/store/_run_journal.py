"""The journal that stores a run while it goes on."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import anyio

from llm_council._runtime import loops
from llm_council.errors import StoreError
from llm_council.errors._secrets import clean
from llm_council.models import Plan, Status
from llm_council.models._convert import dump
from llm_council.models._journal import Call, CallRecord, Journal
from llm_council.store._database import Connection
from llm_council.store._encoding import FILE, encode_ending, encode_files, request_digest
from llm_council.store._queries import write_paper
from llm_council.store._replay import PastRun, Replay, repeat_warnings
from llm_council.store._writer import OnDone, Write, WriteJob, Writer, WriterThread

__all__ = ["BufferedJournal", "RunJournal", "library_version"]

MAX_DELAY: Final = 0.005
"""Seconds that an ending waits for the next record, to be committed with it: a commit costs more than a record."""


class BufferedJournal(Journal):
    """Stores a run while it goes on, through the thread of a writer; a subclass knows how the records are written.

    A failure to write becomes a warning of the result, and never disturbs the run.

    The run waits for a commit before each call is sent and before its result is returned. Records are committed in the
    order in which they are made, so all answers that led to a call are stored when it is sent.

    Args:
        writer: writes to the store.
        plan: the plan of the run.
        session: number of this process among those that have worked on the run, from 1.
        past: the stored part of a resumed run.
    """

    def __init__(self, writer: WriterThread, plan: Plan, *, session: int = 1, past: PastRun | None = None) -> None:
        self._writer = writer
        self._run, self._session = plan.run_id, session
        self._past_calls = past.calls if past is not None else {}
        self._replay = Replay(past) if past is not None else None
        self._time_before = past.last if past is not None else 0.0
        self._repeats = {name: call.repeats for name, call in self._past_calls.items() if call.repeats}
        self._moments: list[tuple[str, float]] = []
        self._committed_moments = 0
        self._written_moments = 0  # of these, those of the transaction that goes on are not committed
        self._transaction = 0  # the writer's transaction in which the moments were last written
        self._error: StoreError | None = None
        self._is_stored = past is not None  # the run itself, beside its calls
        self._unstored: list[str] = []  # names of the calls whose endings are not stored
        self._notices: list[str] = []
        self._pending: list[WriteJob] = []
        self._committed: anyio.Event | None = None  # set once all that is pending now is committed
        self._loop = loops.current()
        writer.add_run(self._run, session)
        if past is None:
            begin = partial(self._write_run, plan, time.time())
            self._submit_soon(WriteJob(begin, self._on_begin, creates_store=True))

    def record_moment(self, moment: str, now: float) -> float:
        """Record a moment, and return its time: that of the earlier process, if it came that far."""
        at = self._replay.take_time(moment) if self._replay is not None and moment else None
        if at is None:
            at = now + self._time_before
        if moment:
            self._moments.append((moment, at))
        return at

    def record_decision(self, moment: str, *, now: bool) -> bool:
        """Return True if that is the decision now, or was the earlier process's."""
        decision = now or (self._replay is not None and self._replay.has_moment(moment))
        if decision:
            self.record_moment(moment, 0.0)
        return decision

    def stored_ending(self, call: Call) -> CallRecord | None:
        """Return the ending that the earlier process stored."""
        return self._replay.ending(call.name, call.request) if self._replay is not None else None

    async def wait_in_order(self, call: Call) -> None:
        """Wait until everything before a stored ending has happened again."""
        if self._replay is not None:
            await self._replay.wait_in_order(call.name)

    async def record_call(self, call: Call) -> None:
        """Store a call, and return once it is committed."""
        past = self._past_calls.get(call.name)
        if past is not None and past.ending is None:
            self._repeats[call.name] = past.repeats + 1
        await self._commit(partial(self._write_call, call, self._repeats.get(call.name, 0)))

    async def record_ending(self, call: Call, ending: CallRecord) -> None:
        """Store an ending, in one transaction with the next record if that comes at once."""

        def on_done(error: StoreError | None) -> None:
            if error is not None:
                self._unstored.append(call.name)
            self._on_commit(error)

        if self._error is not None:
            self._unstored.append(call.name)
        else:
            self._submit_soon(self._job(partial(self._write_ending, call, ending), on_done))

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about calls that were made twice, and about records that could not be written."""
        return (*repeat_warnings(self._repeats), *self._error_warnings())

    async def record_result(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        """Store the result, and return the warnings that arose meanwhile."""
        known = self._error_warnings()
        try:
            await self._commit(partial(self._write_result, status, result))
        finally:
            self._writer.remove_run(self._run, self._session)
        return (*self._notices, *(() if known else self._error_warnings()))

    def record_result_nowait(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        """Store the result of a cancelled run without waiting for it."""
        self._pending.append(self._job(partial(self._write_result, status, result), self._on_commit))
        self._submit()
        self._writer.remove_run(self._run, self._session)

    def _error_warnings(self) -> tuple[str, ...]:
        error = self._error
        if error is None:
            return ()
        if not self._is_stored:
            missing = "nothing of it is stored"
        else:
            names = sorted(set(self._unstored))
            calls = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
            missing = f"not stored: {f'the answers of {calls}, and ' if names else ''}its result"
        return (f"this run is not stored whole: {error.message} ({missing})",)

    # --- In the event loop: hand records to the writer.

    def _submit_soon(self, job: WriteJob) -> None:
        self._pending.append(job)
        self._loop.call_later(MAX_DELAY, self._submit)

    async def _commit(self, write: Write) -> None:
        """Wait until a record is committed or has failed, together with all other records of this turn of the loop."""
        self._pending.append(self._job(write, self._on_commit))
        if self._committed is None:
            self._committed = anyio.Event()
            self._loop.call_later(0.0, self._submit)
        await self._wait(self._committed)

    async def _wait(self, committed: anyio.Event) -> None:
        """Wait for a commit; give the store up if the writer writes nothing of any run meanwhile."""
        limit, progress = self._writer.max_wait, None
        while not committed.is_set() and progress != self._writer.progress:
            progress = self._writer.progress
            with anyio.move_on_after(limit):
                await committed.wait()
        if not committed.is_set():
            self._on_error(StoreError(f"the run store {self._writer.place} did not answer within {limit:g} s"))

    def _submit(self) -> None:
        """Hand all pending records to the writer."""
        jobs, self._pending = self._pending, []
        committed, self._committed = self._committed, None
        if committed is not None:
            # The last job writes nothing: it reports that those before it are committed.
            jobs.append(WriteJob(lambda _: None, lambda _: self._loop.call_soon(committed.set)))
        if self._error is None and jobs:
            self._writer.put(*jobs)
        elif committed is not None:
            committed.set()

    def _job(self, write: Write, on_done: OnDone) -> WriteJob:
        """Return a job that first writes the moments before a record, once in each transaction, then the record."""

        def work(target: Any) -> None:
            if self._error is not None:  # a record before this one is not stored
                raise self._error
            if self._transaction != self._writer.transaction:
                self._write_moments(target)
                self._transaction = self._writer.transaction
            write(target)

        return WriteJob(work, on_done)

    # --- In the writer's thread: write records, and take note of commits.

    def _on_begin(self, error: StoreError | None) -> None:
        self._is_stored = error is None
        self._on_error(error)

    def _on_commit(self, error: StoreError | None) -> None:
        self._on_error(error)
        if error is None:
            self._committed_moments = self._written_moments
            if self._writer.notices:
                self._notices.append(self._writer.notices.popleft())

    def _on_error(self, error: StoreError | None) -> None:
        """Keep the first error; nothing of this run is written after it."""
        if self._error is None:
            self._error = error

    def _uncommitted_moments(self) -> list[tuple[str, float]]:
        """Return the moments that are to be written with the next record."""
        moments = self._moments[self._committed_moments :]
        self._written_moments = self._committed_moments + len(moments)
        return moments

    def _gone_error(self) -> StoreError:
        return StoreError(f"the run {self._run}: it was purged, or another process has taken it over")

    @abstractmethod
    def _write_moments(self, target: Any) -> None:
        """Write the moments that are not committed yet.

        Raises:
            StoreError: the run is not in this store any more, or another process has taken it over.
        """

    @abstractmethod
    def _write_run(self, plan: Plan, started: float, target: Any) -> None: ...

    @abstractmethod
    def _write_call(self, call: Call, repeats: int, target: Any) -> None: ...

    @abstractmethod
    def _write_ending(self, call: Call, ending: CallRecord, target: Any) -> None: ...

    @abstractmethod
    def _write_result(self, status: Status, result: Callable[[], Mapping[str, Any]], target: Any) -> None: ...


class RunJournal(BufferedJournal):
    """The journal of a run in a database."""

    def __init__(self, writer: Writer, plan: Plan, *, session: int = 1, past: PastRun | None = None) -> None:
        self._database = writer
        self._losses: int | None = None  # the writer's count at the first write; a higher one means the store was lost
        super().__init__(writer, plan, session=session, past=past)

    def _write_moments(self, connection: Connection) -> None:
        if self._losses is None:  # a resumed run
            self._losses = self._database.losses
        if self._losses != self._database.losses:
            raise self._database.lost_error()
        moments = self._uncommitted_moments()
        # Both statements find nothing for a run that was purged, or that another process has taken over. They lock the
        # run, so that no other process takes it over before this transaction ends.
        if moments:
            connection.expect(
                "INSERT INTO {moments} (told, run, session)"
                " SELECT ?, id, session FROM {runs} WHERE id = ? AND session = ?{lock}",
                (json.dumps(moments, separators=(",", ":")), self._run, self._session),
                self._gone_error(),
            )
        else:
            connection.expect(
                "SELECT id FROM {runs} WHERE id = ? AND session = ?{lock}",
                (self._run, self._session),
                self._gone_error(),
            )

    def _write_run(self, plan: Plan, started: float, connection: Connection) -> None:
        self._losses = self._database.losses
        task = clean(plan.task, limit=200)
        owner = self._writer.owner()
        connection.execute(
            "INSERT INTO {runs} (id, started, status, task, subagent, version, owner, beat, follows)"
            " VALUES (?, ?, 'running', ?, ?, ?, ?, {now}, ?)",
            (self._run, started, task, plan.subagent, library_version(), owner, plan.follows),
        )
        write_paper(connection, self._run, "plan", dump(plan))
        for sha256, text in encode_files(plan).items():
            connection.execute(
                "INSERT INTO {papers} (run, kind, text) VALUES (?, ?, ?)", (self._run, f"{FILE}{sha256}", text)
            )

    def _write_call(self, call: Call, repeats: int, connection: Connection) -> None:
        if call.name in self._past_calls:
            connection.execute("DELETE FROM {calls} WHERE run = ? AND name = ?", (self._run, call.name))
            connection.execute("DELETE FROM {endings} WHERE run = ? AND name = ?", (self._run, call.name))
        connection.execute(
            "INSERT INTO {calls} (run, name, key, digest, repeats) VALUES (?, ?, ?, ?, ?)",
            (self._run, call.name, call.request.idempotency_key, request_digest(call.request), repeats),
        )

    def _write_ending(self, call: Call, ending: CallRecord, connection: Connection) -> None:
        if not ending.sent:  # ``record_call`` was never called
            self._write_call(call, 0, connection)
        connection.execute(
            "INSERT INTO {endings} (run, name, text) VALUES (?, ?, ?)", (self._run, call.name, encode_ending(ending))
        )

    def _write_result(self, status: Status, result: Callable[[], Mapping[str, Any]], connection: Connection) -> None:
        connection.execute("UPDATE {runs} SET status = ? WHERE id = ?", (str(status), self._run))
        write_paper(connection, self._run, "result", dict(result()))


@cache
def library_version() -> str:
    """Return the version of this library, which is stored with each run."""
    try:
        return version("llm-council-sdk")
    except PackageNotFoundError:
        return "unknown"
