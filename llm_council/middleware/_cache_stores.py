"""Stores of cached answers: in memory, or in a SQLite file."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final, Protocol

import anyio.to_thread
import attrs

from llm_council.errors import ConfigurationError, InvalidOption, StoreError
from llm_council.models._paths import expand_user
from llm_council.models.limits import MIB
from llm_council.models.reply import GenerateResponse

__all__ = ["CacheStore", "Entry", "MemoryStore", "SQLiteStore"]


@attrs.frozen(kw_only=True)
class Entry:
    """A stored answer.

    Attributes:
        response: the answer, without the vendor's raw reply.
        cuts: lengths in characters of the pieces in which its text was streamed; empty if it was not.
        at: when it was stored, in seconds since the epoch.
        expires: when it expires, in seconds since the epoch; None is never.
    """

    response: GenerateResponse
    cuts: tuple[int, ...] = ()
    at: float = 0.0
    expires: float | None = None


class CacheStore(Protocol):
    """A store for ``Cached``. Concurrent calls use it, from any number of event loops."""

    async def get(self, key: str, now: float) -> Entry | None:
        """Return the answer under a key; None if there is none, or it has expired."""
        ...

    async def put(self, key: str, entry: Entry, now: float) -> None:
        """Store an answer, replace an older one, and delete others if there is no room."""
        ...

    async def aclose(self) -> None:
        """Close the store; the next call opens it again."""
        ...


class MemoryStore:
    """Store answers in this process; the least recently used are deleted first.

    Args:
        size: most bytes, approximately.
    """

    def __init__(self, size: int = 64 * MIB) -> None:
        self._left = self._size = _positive(size)
        self._entries: OrderedDict[str, tuple[Entry, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str, now: float) -> Entry | None:
        """Return the answer under a key; None if there is none, or it has expired."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            entry = found[0]
            if entry.expires is not None and entry.expires <= now:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry

    async def put(self, key: str, entry: Entry, now: float) -> None:
        """Store an answer; one that is larger than the whole store is not stored."""
        weight = len(key) + len(repr(entry.response)) + 1000  # about 1000 bytes of objects around the text
        with self._lock:
            if key in self._entries:
                self._drop(key)
            if weight > self._size:
                return
            self._entries[key] = entry, weight
            self._left -= weight
            while self._left < 0:
                self._drop(next(iter(self._entries)))

    async def aclose(self) -> None:
        """Do nothing: the answers stay in memory."""

    def _drop(self, key: str) -> None:
        self._left += self._entries.pop(key)[1]


_SCHEMA: Final = (
    "CREATE TABLE entries (key TEXT PRIMARY KEY, at REAL, expires REAL, size INTEGER, body TEXT)",
    "CREATE INDEX entries_at ON entries (at)",
    "CREATE INDEX entries_expires ON entries (expires)",
    # The triggers keep the total, because ``sum(size)`` would read the whole table at every write.
    "CREATE TABLE total (size INTEGER NOT NULL)",
    "INSERT INTO total VALUES (0)",
    "CREATE TRIGGER added AFTER INSERT ON entries BEGIN UPDATE total SET size = size + new.size; END",
    "CREATE TRIGGER removed AFTER DELETE ON entries BEGIN UPDATE total SET size = size - old.size; END",
    "PRAGMA user_version = 1",
)


class SQLiteStore:
    """Store answers in a file that several processes may share; the oldest are deleted first.

    The file has mode 0600, and holds the answers unencrypted. Reads and writes run in a worker thread.

    Args:
        path: the file; it is created at its first use.
        size: most bytes of answers.
        timeout: seconds to wait for another process that writes.
    """

    def __init__(self, path: str | os.PathLike[str], *, size: int = 256 * MIB, timeout: float = 1.0) -> None:
        self.path = expand_user(path)
        self._size = _positive(size)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._open: tuple[int, Any] | None = None  # process id and connection
        self._closing: weakref.finalize[Any, Any] | None = None

    async def get(self, key: str, now: float) -> Entry | None:
        """Return the answer under a key; None if there is none, or it has expired.

        Raises:
            StoreError: the file cannot be read, or another program wrote it.
        """
        return await anyio.to_thread.run_sync(self._get, key, now)

    async def put(self, key: str, entry: Entry, now: float) -> None:
        """Store an answer; one that is larger than the whole store is not stored.

        Raises:
            StoreError: the file cannot be written.
        """
        await anyio.to_thread.run_sync(self._put, key, entry, now)

    async def aclose(self) -> None:
        """Close the file; the next call opens it again."""
        await anyio.to_thread.run_sync(self._close)

    def _get(self, key: str, now: float) -> Entry | None:
        with self._connection() as connection:
            row = connection.execute("SELECT at, expires, body FROM entries WHERE key = ?", (key,)).fetchone()
        if row is None or (row[1] is not None and row[1] <= now):
            return None
        return _decode(*row)

    def _put(self, key: str, entry: Entry, now: float) -> None:
        body = _encode(entry)
        size = len(body)
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute("DELETE FROM entries WHERE key = ? OR expires <= ?", (key, now))
                if size <= self._size:
                    row = (key, entry.at, entry.expires, size, body)
                    connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
                while connection.execute("SELECT size FROM total").fetchone()[0] > self._size:
                    connection.execute("DELETE FROM entries WHERE key = (SELECT key FROM entries ORDER BY at LIMIT 1)")
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise

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
                raise StoreError(f"the cache {self.path} cannot be used: {error}") from None

    def _connect(self, sqlite3: Any) -> None:
        if self._closing is not None:
            self._closing.detach()  # a forked child must not close its parent's connection
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # ``sqlite3`` would use the umask
        connection = sqlite3.connect(
            self.path, timeout=self._timeout, check_same_thread=False, isolation_level=None, cached_statements=16
        )
        try:
            # SQLite's advice for a file that somebody else could have written.
            connection.execute("PRAGMA trusted_schema = OFF")
            with suppress(sqlite3.OperationalError):  # another process is switching the same file to WAL
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, 1):
                raise StoreError(f"the cache {self.path} was written by another version: remove it")
            for statement in _SCHEMA if version == 0 else ():
                connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._open = os.getpid(), connection
        self._closing = weakref.finalize(self, connection.close)

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"


def _encode(entry: Entry) -> str:
    from llm_council.models._convert import dump

    fields = {name: value for name, value in dump(entry.response).items() if value not in (None, [], {})}
    if fields.get("content") == fields.get("text"):
        fields.pop("content", None)  # ``load`` fills it in from the text
    return json.dumps([fields, entry.cuts], separators=(",", ":"))


def _decode(at: float, expires: float | None, body: str) -> Entry | None:
    """Decode an entry; None if that fails: a damaged answer counts as missing."""
    from llm_council.models._convert import load

    try:
        fields, cuts = json.loads(body)
        response = load(GenerateResponse, fields)
        return Entry(response=response, cuts=tuple(int(cut) for cut in cuts), at=at, expires=expires)
    except (ValueError, TypeError, ConfigurationError):
        return None


def _positive(size: int) -> int:
    if type(size) is not int or size < 1:
        raise InvalidOption(f"size: a number of bytes of 1 or more, got {size!r:.80}")
    return size
