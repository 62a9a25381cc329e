"""The one thread of the process that writes into a store: whatever waits is committed together."""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

import attrs

from llm_council.errors import StoreError
from llm_council.store._database import connect, identity, quarantine, transaction, typed

__all__ = ["BEAT", "Entry", "Write", "Writer", "writer_for"]

BEAT: Final = 5.0
"""Seconds between two signs of life of the runs that go on."""

LINGER: Final = 1.0
"""Seconds that the thread and its connection outlive the last run."""

EXIT: Final = 2.0
"""Seconds that the exit of the process waits for what is still to be written."""

Write: TypeAlias = Callable[[sqlite3.Connection], None]
Done: TypeAlias = Callable[[StoreError | None], None]


@attrs.define(eq=False)
class Entry:
    """One thing to be written.

    Attributes:
        write: writes it, in the thread, inside a transaction.
        done: told when it is committed, or why it never will be; called in the thread.
        creates: whether the store's file is created for it. Entries of a run that has begun are no use in a new file.
    """

    write: Write
    done: Done
    creates: bool = False


class Writer:
    """Write entries in the order in which they come, those that wait together in one transaction.

    The thread starts with the first entry, and ends when no run has gone on for a while.

    Args:
        path: the store's file.

    Attributes:
        notices: what a reader of the next result should know.
        transaction: the number of the transaction that goes on: for what is done once in each.
        losses: how often the file was found to be deleted or replaced while it was open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: SimpleQueue[tuple[Entry, ...]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._living: set[tuple[str, int]] = set()
        self.notices: deque[str] = deque()
        self.transaction = 0
        self.losses = 0
        self._identity: tuple[int, int] | None = None

    def put(self, *entries: Entry) -> None:
        """Hand entries over, to be committed together; this never blocks on the disk."""
        with self._lock:  # so that the thread cannot end between a look and what comes then
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="llm-council-store", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the interpreter is exiting
                    for entry in entries:
                        entry.done(StoreError(f"the run store {self._path}: {error}"))
                    return
                self._thread = thread
            self._waiting.put(entries)

    def lost(self) -> StoreError:
        """Return the error of a run whose file was deleted or replaced."""
        return StoreError(
            f"the run store {self._path}: its file was deleted or replaced during the run, and what it held of this run"
            " went with it",
            kind="missing",
        )

    def live(self, run: str, session: int) -> None:
        """Give a run signs of life from now on."""
        with self._lock:
            self._living.add((run, session))

    def lives(self, run: str, session: int) -> bool:
        """Tell whether a run goes on in this process."""
        with self._lock:
            return (run, session) in self._living

    def over(self, run: str, session: int) -> None:
        """Give a run no more signs of life."""
        with self._lock:
            self._living.discard((run, session))

    def stop(self, timeout: float) -> None:
        """Write what waits, and end the thread."""
        with self._lock:
            self._stopping = True
            thread = self._thread
            self._waiting.put(())  # which wakes the thread
        if thread is not None:
            thread.join(timeout)
        self._stopping = False

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        beaten = time.monotonic()
        try:
            while True:
                batch = self._next(beaten + BEAT)
                if batch is None:
                    return
                if time.monotonic() >= beaten + BEAT:
                    beaten = time.monotonic()
                    batch.append(Entry(self._beat, _nothing))
                if batch:
                    connection = self._commit(connection, batch)
                del batch  # nothing of a run is kept while there is nothing to do
        finally:
            if connection is not None:
                connection.close()

    def _next(self, beat: float) -> list[Entry] | None:
        """Wait for entries, for the next sign of life, or for the end, which is None."""
        idle = time.monotonic() + LINGER
        batch: list[Entry] = []
        while not batch and not self._stopping:
            now = time.monotonic()
            end = beat if self._living else idle
            if end <= now:
                break
            with suppress(Empty):
                batch = [*self._waiting.get(timeout=end - now), *self._rest()]
        if not batch:
            with self._lock:
                batch = self._rest()
                if not batch and (self._stopping or not self._living):
                    self._thread = None
                    return None
        return batch

    def _rest(self) -> list[Entry]:
        """Take what waits."""
        rest: list[Entry] = []
        while not self._waiting.empty():  # nobody else takes from there
            rest += self._waiting.get_nowait()
        return rest

    def _commit(self, connection: sqlite3.Connection | None, batch: list[Entry]) -> sqlite3.Connection | None:
        """Commit entries together; where that fails, one by one, so that one that cannot be written harms no other."""
        creates = any(entry.creates for entry in batch)
        try:
            # SQLite itself would go on writing into a deleted file, in WAL mode without any error.
            if connection is not None and identity(self._path) != self._identity:
                stale, connection = connection, None
                stale.close()  # before the path is opened again; SQLite leaves the log of a moved file alone
                self.losses += 1
                connection = self._open(create=creates)
                if creates:
                    self.notices.append(
                        f"the file of the run store {self._path} was deleted or replaced while it was open: earlier"
                        " runs may be missing"
                    )
            connection = connection or self._open(create=creates)
            self.transaction += 1
            with transaction(connection):
                for entry in batch:
                    entry.write(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits to be told
            fault = typed(error, self._path)
            if connection is not None and len(batch) > 1 and fault.kind not in ("corrupt", "locked"):
                for entry in batch:
                    connection = self._commit(connection, [entry])
                return connection
            for entry in batch:
                entry.done(fault)
            if fault.kind == "corrupt" and connection is not None:
                connection.close()
                self._move_aside()
                return None
            return connection
        for entry in batch:
            entry.done(None)
        return connection

    def _open(self, *, create: bool) -> sqlite3.Connection:
        try:
            connection = connect(self._path, create=create)
        except StoreError as error:
            if error.kind == "missing":
                raise self.lost() from None
            if error.kind != "corrupt":
                raise
            self._move_aside()
            connection = connect(self._path)
        self._identity = identity(self._path)
        if self._identity is None:
            connection.close()
            raise self.lost()
        return connection

    def _move_aside(self) -> None:
        try:
            aside = quarantine(self._path)
        except OSError:  # nothing may be moved there: the next opening tells the same fault
            return
        if aside is not None:
            self.notices.append(f"the run store {self._path} was damaged: it was moved to {aside.name}")

    def _beat(self, connection: sqlite3.Connection) -> None:
        now = time.time()
        with self._lock:
            living = [(now, run, session) for run, session in self._living]
        connection.executemany("UPDATE runs SET beat = ? WHERE id = ? AND session = ?", living)


def _nothing(_: StoreError | None) -> None:
    """Tell nobody: a sign of life that could not be given is given again."""


_writers: dict[Path, Writer] = {}
_lock = threading.Lock()
_inherited: list[dict[Path, Writer]] = []  # a forked child keeps its parent's connections unclosed


def writer_for(path: Path) -> Writer:
    """Return the process's one writer of this file."""
    with _lock:
        if path not in _writers:
            _writers[path] = Writer(path)
        return _writers[path]


def _forked() -> None:
    global _writers, _lock
    _inherited.append(_writers)
    _writers = {}
    _lock = threading.Lock()


def _exit() -> None:
    for writer in list(_writers.values()):
        writer.stop(EXIT)


os.register_at_fork(after_in_child=_forked)
atexit.register(_exit)
