"""The one thread of this process that writes to a store: it commits together all records that wait."""

from __future__ import annotations

import atexit
import os
import platform
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar, cast

import attrs

from llm_council.errors import StoreError
from llm_council.store._database import Connection, Database

__all__ = ["HEARTBEAT", "Write", "WriteJob", "Writer", "WriterThread", "only_writer", "process_name", "works_on"]

W = TypeVar("W", bound="WriterThread")

HEARTBEAT: Final = 5.0
"""Seconds between two updates of ``runs.beat``, by which other processes know that a run is alive."""

MAX_IDLE: Final = 1.0
"""Seconds after the last run until the thread closes its connection and ends."""

MAX_BATCH: Final = 500
"""Jobs from which on a batch takes no further ones: a commit of all that wait could take too long."""

EXIT_TIMEOUT: Final = 2.0
"""Seconds that the exit of the process waits for pending records."""

Write: TypeAlias = Callable[[Any], object]
"""Writes a record to the target of a batch: a ``Connection``, or a ``Batch`` of a store of another author."""

_WHOLE_BATCH: Final = ("corrupt", "locked", "unreachable")  # failures that are no fault of one record

OnDone: TypeAlias = Callable[[StoreError | None], object]


def process_name() -> str:
    """Return the name of this process in ``runs.owner``: host name and process id."""
    return f"{platform.node()}:{os.getpid()}"


@attrs.define(eq=False)
class WriteJob:
    """One record to be written.

    Attributes:
        write: writes it; called in the thread, inside a transaction.
        on_done: called in the thread with None once it is committed, or with the error that prevents it for good.
        creates_store: True if the store's file or tables are created for it. The later records of a run do not create
            them, because they are of no use in a new store.
    """

    write: Write
    on_done: OnDone
    creates_store: bool = False


class WriterThread(ABC):
    """Writes jobs in the order in which they are put, those that wait together at once.

    The thread starts with the first job, and ends after ``MAX_IDLE`` seconds without a run.

    Args:
        place: the store, as messages name it.

    Attributes:
        place: the same.
        max_wait: seconds without progress after which a run no longer waits for its commit, and goes on without the
            store; None waits for its end.
        progress: number of batches that have ended, so that a store that is slow can be told from one that hangs.
        notices: messages for the result of the next run.
        transaction: number of the current transaction; a retry has a number of its own.
    """

    max_wait: float | None = None

    def __init__(self, place: object) -> None:
        self.place = place
        self._jobs: SimpleQueue[tuple[WriteJob, ...]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._runs: set[tuple[str, int]] = set()
        self.notices: deque[str] = deque()
        self.progress = 0
        self.transaction = 0

    @abstractmethod
    def _commit(self, batch: list[WriteJob]) -> None:
        """Write jobs, and call ``on_done`` of each; called in the thread."""

    @abstractmethod
    def _close(self) -> None:
        """Close what ``_commit`` opened; called at the end of the thread."""

    @abstractmethod
    def _write_heartbeats(self, target: Any) -> None:
        """Write the time into the runs of ``_runs``; called as the job of a batch."""

    def owner(self) -> str:
        """Return the name of this process, by which other processes know who works on a run."""
        return process_name()

    def put(self, *jobs: WriteJob) -> None:
        """Add jobs that are committed together. Never blocks on the disk."""
        with self._lock:  # so that the thread cannot end between this check and the put
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="llm-council-store", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the interpreter is exiting
                    for job in jobs:
                        job.on_done(StoreError(f"the run store {self.place}: {error}"))
                    return
                self._thread = thread
            self._jobs.put(jobs)

    def add_run(self, run: str, session: int) -> None:
        """Send heartbeats for a run from now on."""
        with self._lock:
            self._runs.add((run, session))

    def has_run(self, run: str, session: int) -> bool:
        """Return True if this process works on the run in this store."""
        with self._lock:
            return (run, session) in self._runs

    def remove_run(self, run: str, session: int) -> None:
        """Send no more heartbeats for a run."""
        with self._lock:
            self._runs.discard((run, session))

    def stop(self, timeout: float) -> None:
        """Write the waiting jobs, and end the thread."""
        with self._lock:
            self._stopping = True
            thread = self._thread
            self._jobs.put(())  # wakes the thread
        if thread is not None:
            thread.join(timeout)
        self._stopping = False

    def _work(self) -> None:
        next_heartbeat = time.monotonic() + HEARTBEAT
        try:
            while True:
                batch = self._next_batch(next_heartbeat)
                if batch is None:
                    return
                if time.monotonic() >= next_heartbeat:
                    next_heartbeat = time.monotonic() + HEARTBEAT
                    # A failed heartbeat needs no report: the next one follows.
                    batch.append(WriteJob(self._write_heartbeats, lambda _: None))
                if batch:
                    self._commit(batch)
                    self.progress += 1
                del batch  # or the last run's result would stay in memory while this thread waits
        finally:
            self._close()

    def _next_batch(self, next_heartbeat: float) -> list[WriteJob] | None:
        """Wait for jobs. Returns an empty list when a heartbeat is due, None when the thread is to end."""
        idle_end = time.monotonic() + MAX_IDLE
        batch: list[WriteJob] = []
        while not batch and not self._stopping:
            now = time.monotonic()
            end = next_heartbeat if self._runs else idle_end
            if end <= now:
                break
            with suppress(Empty):
                batch = [*self._jobs.get(timeout=end - now), *self._waiting_jobs()]
        if not batch:
            with self._lock:
                batch = self._waiting_jobs()
                if not batch and (self._stopping or not self._runs):
                    self._thread = None
                    return None
        return batch

    def _waiting_jobs(self) -> list[WriteJob]:
        jobs: list[WriteJob] = []
        while len(jobs) < MAX_BATCH and not self._jobs.empty():  # this thread is the only one that takes jobs
            jobs += self._jobs.get_nowait()
        return jobs


class Writer(WriterThread):
    """The thread that writes to a database, those jobs that wait together in one transaction.

    Args:
        database: the database.

    Attributes:
        losses: how often the store was found to be deleted or replaced while it was open.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database.shown)
        self._database = database
        self._connection: Connection | None = None
        self.losses = 0

    def lost_error(self) -> StoreError:
        """Return the error of a run whose store was deleted or replaced."""
        return StoreError(
            f"the run store {self._database.shown}: its file was deleted or replaced during the run, and what it held"
            " of this run went with it",
            kind="missing",
        )

    def _commit(self, batch: list[WriteJob]) -> None:
        self._connection = self._transact(self._connection, batch)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _transact(self, connection: Connection | None, batch: list[WriteJob]) -> Connection | None:
        """Commit jobs together. If that fails, commit them one by one, so that one bad record affects no other.

        Returns:
            The connection for the next batch; None if it must be opened again.
        """
        create = any(job.creates_store for job in batch)
        held, connection = connection, None
        try:
            connection = self._opened(held, create=create)
            self.transaction += 1
            with connection.batch():
                for job in batch:
                    job.write(connection)
        except Exception as error:  # noqa: BLE001 - a record of a third-party adapter may fail to encode in any way
            failure = self._database.as_store_error(error)
            if self._may_retry(connection, failure):
                return self._transact(self._after_failure(connection, failure), batch)
            if connection is not None and len(batch) > 1 and failure.kind not in _WHOLE_BATCH:
                for job in batch:
                    connection = self._transact(connection, [job])
                return connection
            for job in batch:
                job.on_done(failure)
            return self._after_failure(connection, failure)
        for job in batch:
            job.on_done(None)
        return connection

    def _opened(self, connection: Connection | None, *, create: bool) -> Connection:
        """Return an open connection for a batch."""
        return connection or self._database.connect(create=create)

    def _may_retry(self, connection: Connection | None, failure: StoreError) -> bool:
        """Return True if a batch is to be written again. May wait before."""
        return False

    def _after_failure(self, connection: Connection | None, failure: StoreError) -> Connection | None:
        """Return the connection for the next batch; close one that is of no use any more."""
        return connection

    def _write_heartbeats(self, connection: Connection) -> None:
        with self._lock:
            rows = sorted(self._runs)
        connection.executemany("UPDATE {runs} SET beat = {now} WHERE id = ? AND session = ?", rows)


_writers: dict[Hashable, WriterThread] = {}
_lock = threading.Lock()
# A forked child never closes its parent's connections: closing one would release the parent's locks on the file.
_inherited: list[dict[Hashable, WriterThread]] = []


def only_writer(place: Hashable, make: Callable[[], W]) -> W:
    """Return the only writer of a store in this process.

    Args:
        place: the store: equal for equal stores.
        make: makes the writer if there is none yet.
    """
    with _lock:
        if place not in _writers:
            _writers[place] = make()
        return cast(W, _writers[place])


def works_on(run: str, session: int) -> bool:
    """Return True if this process works on a run, by whatever address of its store."""
    with _lock:
        writers = list(_writers.values())
    return any(writer.has_run(run, session) for writer in writers)


def _after_fork() -> None:
    global _writers, _lock
    _inherited.append(_writers)
    _writers = {}
    _lock = threading.Lock()


def stop_all() -> None:
    """Write the waiting records of all stores, for at most ``EXIT_TIMEOUT`` seconds each."""
    for writer in list(_writers.values()):
        writer.stop(EXIT_TIMEOUT)


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(stop_all)
