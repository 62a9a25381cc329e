"""The journal of batch jobs: a SQLite file that lets another process go on with the jobs of one that was killed."""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import attrs

from llm_council._runtime import posix
from llm_council.errors import ConfigurationError, CouncilError, StoreError
from llm_council.models._attrs import copy_with, mask_secrets
from llm_council.models._paths import absolute, expand_user
from llm_council.models.reply import GenerateResponse

__all__ = ["BatchJournal", "JournalledCall", "JournalledJob"]

T = TypeVar("T")

KEPT: Final = 30 * 86_400.0
"""Seconds that a job stays in the journal. Vendors keep the results of a job for at most as long."""

_BUSY: Final = 30.0  # seconds to wait for another process that writes
_LOCK_LOOKS: Final = 0.2  # seconds between two tries to lock a job

_VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE jobs (reference TEXT PRIMARY KEY, provider TEXT, created REAL, total INTEGER, job TEXT, state TEXT)",
    "CREATE TABLE calls (id INTEGER PRIMARY KEY, reference TEXT, call TEXT, key TEXT, state TEXT, answer TEXT)",
    "CREATE INDEX calls_key ON calls (key)",
    "CREATE UNIQUE INDEX calls_reference ON calls (reference, call)",
    f"PRAGMA user_version = {_VERSION}",
)


@attrs.frozen(kw_only=True)
class JournalledJob:
    """A job in the journal.

    Attributes:
        reference: our name for it.
        created: when it was journalled, in Unix seconds.
        total: the number of its calls.
        job: the vendor's id; None if it was never read.
        state: ``"sending"``, ``"sent"``, ``"ended"``, ``"cancelled"``, or ``"dropped"`` if it was not sent or failed.
    """

    reference: str
    created: float
    total: int
    job: str | None
    state: str


@attrs.frozen(kw_only=True)
class JournalledCall:
    """A call in the journal.

    Attributes:
        row: its number in the journal.
        reference: the reference of its job.
        call: its id in the job.
        answer: its answer; None if that was not read yet.
    """

    row: int
    reference: str
    call: str
    answer: GenerateResponse | None = None


class BatchJournal:
    """The jobs and calls of one ``Batched``, in a file that other instances and processes may share.

    The file has mode 0600. It holds answers unencrypted, and of each request a hash alone; keys are never in it.
    Methods that read or write it are run in a worker thread.

    Args:
        path: the file; it is created at its first use.
    """

    # A file of lines would not do: two processes may write, and a call is looked up by its key.

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = absolute(expand_user(path))
        self._lock = threading.Lock()
        self._open: tuple[int, Any] | None = None  # process id and connection
        self._closing: weakref.finalize[Any, Any] | None = None
        self._held: set[int] = set()  # rows that calls of this instance have taken or written

    async def take(self, keys: Sequence[str]) -> list[JournalledCall | None]:
        """Return for each call what the journal holds of it: a call of this key with an answer, or that may get one.

        No row is returned twice, unless it was released: equal calls get answers of their own.

        Raises:
            StoreError: the file cannot be read.
        """
        return await self._run(self._take, keys)

    def release(self, row: int) -> None:
        """Let another call of this instance take a row, because the call that had taken it was cancelled."""
        with self._lock:
            self._held.discard(row)

    async def add(self, reference: str, provider: str, keys: Mapping[str, str]) -> list[int]:
        """Write a job that is about to be sent, and return the rows of its calls.

        Args:
            reference: the reference of the job.
            provider: the provider's name, for readers of the file.
            keys: the key of each call, by its id.

        Raises:
            StoreError: the file cannot be written.
        """
        return await self._run(self._add, reference, provider, keys)

    async def find(self, reference: str) -> JournalledJob:
        """Return a job.

        Raises:
            StoreError: it is not in the journal, or the file cannot be read.
        """
        return await self._run(self._find, reference)

    async def set_sent(self, reference: str, job: str) -> None:
        """Write the vendor's id of a job."""
        await self._run(
            self._write, [("UPDATE jobs SET job = ?, state = 'sent' WHERE reference = ?", (job, reference))]
        )

    async def set_cancelled(self, reference: str) -> None:
        """Write that the vendor was asked to cancel a job. Its calls stay: some may have been answered before."""
        await self._run(self._write, [("UPDATE jobs SET state = 'cancelled' WHERE reference = ?", (reference,))])

    async def drop(self, reference: str) -> None:
        """Write that a job was not sent, or brings nothing: no call waits for it any more."""
        await self._run(
            self._write,
            [
                ("UPDATE jobs SET state = 'dropped' WHERE reference = ?", (reference,)),
                ("UPDATE calls SET state = 'failed' WHERE reference = ? AND state = 'waiting'", (reference,)),
            ],
        )

    async def save(self, reference: str, outcomes: Mapping[str, GenerateResponse | CouncilError]) -> None:
        """Write the outcomes of calls, by their ids: the answers, and which of them failed."""
        await self._run(self._save, reference, outcomes)

    async def set_ended(self, reference: str) -> None:
        """Write that a job has ended, if each of its calls has an outcome."""
        waits = "SELECT 1 FROM calls WHERE calls.reference = jobs.reference AND calls.state = 'waiting'"
        statement = f"UPDATE jobs SET state = 'ended' WHERE reference = ? AND state = 'sent' AND NOT EXISTS ({waits})"  # noqa: S608
        await self._run(self._write, [(statement, (reference,))])

    @asynccontextmanager
    async def locked(self, reference: str) -> AsyncIterator[None]:
        """Hold the lock of a job, among all processes: one of them alone sends it, or finds out whether it was sent.

        The lock of a process that is killed is free at once. Windows has no such locks.
        """
        if "fcntl" in posix.missing():
            yield
            return
        import fcntl

        path = self.path.with_name(f"{self.path.name}.{reference}.lock")
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await anyio.sleep(_LOCK_LOOKS)
                except OSError:  # a file system without locks
                    break
            yield
        finally:
            # Whoever waits for this file reads in the journal what became of the job, and sends nothing under its name.
            path.unlink(missing_ok=True)
            os.close(handle)

    async def aclose(self) -> None:
        """Close the file; the next use opens it again."""
        await anyio.to_thread.run_sync(self._close)

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        return await anyio.to_thread.run_sync(function, *arguments)

    def _take(self, keys: Sequence[str]) -> list[JournalledCall | None]:
        found: list[JournalledCall | None] = []
        with self._connection() as connection:
            free = {key: self._free_rows(connection, key) for key in dict.fromkeys(keys)}
            for key in keys:
                row = next(free[key], None)
                if row is not None:
                    self._held.add(row.row)
                found.append(row)
        return found

    def _free_rows(self, connection: Any, key: str) -> Iterator[JournalledCall]:
        """Yield the calls of a key that nobody of this instance holds, those with an answer first."""
        rows = connection.execute(
            "SELECT id, reference, call, state FROM calls WHERE key = ? AND state != 'failed'"
            " ORDER BY state = 'waiting', id",
            (key,),
        ).fetchall()
        for row, reference, call, state in rows:
            if row in self._held:
                continue
            answer = None
            if state == "answered":
                text = connection.execute("SELECT answer FROM calls WHERE id = ?", (row,)).fetchone()[0]
                answer = _decode(text)  # None for a damaged one, which is read again from the vendor
            yield JournalledCall(row=row, reference=reference, call=call, answer=answer)

    def _add(self, reference: str, provider: str, keys: Mapping[str, str]) -> list[int]:
        with self._connection() as connection, _transaction(connection):
            row = (reference, provider, time.time(), len(keys), None, "sending")
            connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?)", row)
            insert = "INSERT INTO calls (reference, call, key, state) VALUES (?, ?, ?, 'waiting')"
            rows = [connection.execute(insert, (reference, call, key)).lastrowid for call, key in keys.items()]
            self._held.update(rows)
        return rows

    def _find(self, reference: str) -> JournalledJob:
        with self._connection() as connection:
            query = "SELECT created, total, job, state FROM jobs WHERE reference = ?"
            row = connection.execute(query, (reference,)).fetchone()
        if row is None:
            raise StoreError(f"the journal {self.path} has lost the batch job {reference}", kind="corrupt")
        created, total, job, state = row
        return JournalledJob(reference=reference, created=created, total=total, job=job, state=state)

    def _write(self, statements: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        with self._connection() as connection, _transaction(connection):
            for statement, values in statements:
                connection.execute(statement, values)

    def _save(self, reference: str, outcomes: Mapping[str, GenerateResponse | CouncilError]) -> None:
        # Encoded before the lock is taken: ten thousand long answers take a while.
        rows = [(*_encode(outcome), reference, call) for call, outcome in outcomes.items()]
        with self._connection() as connection, _transaction(connection):
            connection.executemany("UPDATE calls SET state = ?, answer = ? WHERE reference = ? AND call = ?", rows)

    def _close(self) -> None:
        with self._lock:
            closing, self._closing, self._open = self._closing, None, None
            if closing is not None:
                closing()

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        sqlite3 = import_module("sqlite3")  # not before a file is used
        with self._lock:
            try:
                if self._open is None or self._open[0] != os.getpid():
                    self._connect(sqlite3)
                assert self._open is not None  # noqa: S101 - for the type checker
                yield self._open[1]
            except (sqlite3.Error, OSError) as error:
                remedy = "name a file of its own in a folder that you can write"
                raise StoreError(f"the journal {self.path} cannot be used: {error}: {remedy}") from None

    def _connect(self, sqlite3: Any) -> None:
        if self._closing is not None:
            self._closing.detach()  # a forked child must not close its parent's connection
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # ``sqlite3`` would use the umask
        connection = sqlite3.connect(self.path, timeout=_BUSY, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            with suppress(sqlite3.OperationalError):  # another process is switching the same file to WAL
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # what is sent was on the disk before
            with _transaction(connection):
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                if version not in (0, _VERSION) or (version == 0 and tables):
                    raise StoreError(
                        f"{self.path} is no journal of batch jobs of this version: name a file of its own",
                        kind="foreign",
                    )
                if version == 0:
                    for statement in _SCHEMA:
                        connection.execute(statement)
                old = "SELECT reference FROM jobs WHERE created < ?"
                oldest = (time.time() - KEPT,)
                connection.execute(f"DELETE FROM calls WHERE reference IN ({old})", oldest)  # noqa: S608
                connection.execute("DELETE FROM jobs WHERE created < ?", oldest)
        except BaseException:
            connection.close()
            raise
        self._open = os.getpid(), connection
        self._closing = weakref.finalize(self, connection.close)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path: a copy in another process is another instance."""
        return BatchJournal, (self.path,)

    def __repr__(self) -> str:
        return f"BatchJournal({str(self.path)!r})"


@contextmanager
def _transaction(connection: Any) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back on a full disk
            connection.execute("ROLLBACK")
        raise


def _encode(outcome: GenerateResponse | CouncilError) -> tuple[str, str | None]:
    """Return the state of a call and its answer as JSON, without keys and the vendor's raw reply."""
    from llm_council.models._convert import dump

    if isinstance(outcome, CouncilError):
        return "failed", None
    dumped = dump(mask_secrets(copy_with(outcome, raw=None)))
    fields = {name: value for name, value in dumped.items() if value is not None}
    if fields.get("content") == fields.get("text"):
        fields.pop("content", None)  # ``load`` fills it in from the text
    return "answered", json.dumps(fields)


def _decode(text: str | None) -> GenerateResponse | None:
    """Return an answer; None for a damaged one, or one of a version with other fields."""
    from llm_council.models._convert import load

    try:
        return load(GenerateResponse, json.loads(text or ""))
    except (ValueError, TypeError, ConfigurationError):
        return None
