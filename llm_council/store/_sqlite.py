"""A store in a file of SQLite: permissions, schema, damage, and a ``StoreError`` for everything that can be wrong."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from llm_council._runtime import posix
from llm_council.errors import StoreError
from llm_council.store._database import MIGRATIONS, SCHEMA_VERSION, TABLES, Connection, Cursor, Database, newer_error
from llm_council.store._writer import Writer, only_writer

__all__ = ["APPLICATION_ID", "FileWriter", "SQLiteFile", "as_store_error", "connect", "file_id", "quarantine", "render"]

# Windows has neither of the last two.
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)

BUSY_TIMEOUT: Final = 5.0
"""Seconds that a statement waits for other processes."""

APPLICATION_ID: Final = 0x4C4C4D43
"""SQLite's ``application_id`` of our files: ``LLMC``."""

_MARK_OFFSET: Final = 68  # of the application id in the file, in bytes: https://www.sqlite.org/fileformat2.html

_WORDS: Final = {
    **{table: table for table in TABLES},
    "float": "REAL",
    "serial": "INTEGER PRIMARY KEY",
    "now": "((julianday('now') - 2440587.5) * 86400.0)",
    "lock": "",  # BEGIN IMMEDIATE has locked the file
}


@cache
def render(statement: str) -> str:
    """Return a statement of the store as SQLite takes it; see ``Connection``."""
    return statement.format_map(_WORDS)


# While one thread creates the file, no other may open it with SQLite: POSIX drops all of a process's locks on a file
# when it closes any descriptor of it.
_creating = threading.Lock()


def _after_fork() -> None:
    global _creating
    _creating = threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)

_KINDS: Final = {
    sqlite3.SQLITE_ERROR: ("corrupt", "its tables are damaged"),  # our statements fit every intact file
    sqlite3.SQLITE_FULL: ("full", "the disk is full"),
    sqlite3.SQLITE_BUSY: ("locked", f"another process held it for more than {BUSY_TIMEOUT:g} s"),
    sqlite3.SQLITE_LOCKED: ("locked", f"another process held it for more than {BUSY_TIMEOUT:g} s"),
    sqlite3.SQLITE_CORRUPT: ("corrupt", "it is damaged"),
    sqlite3.SQLITE_NOTADB: ("corrupt", "it is damaged"),
    sqlite3.SQLITE_READONLY: ("denied", "it may not be written to"),
    sqlite3.SQLITE_PERM: ("denied", "it may not be opened"),
    sqlite3.SQLITE_CANTOPEN: ("denied", "it cannot be opened"),
}


def as_store_error(error: Exception, path: Path) -> StoreError:
    """Return the ``StoreError`` for any error of the file."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        kind = "denied" if isinstance(error, PermissionError) else "full" if error.errno == 28 else "other"
        return StoreError(f"the run store {path}: {error.strerror or error}", kind=kind)
    if isinstance(error, UnicodeDecodeError):  # a text in the file, or SQLite's message about one
        return StoreError(f"the run store {path}: it is damaged", kind="corrupt")
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    kind, words = _KINDS.get(code, ("other", str(error)))
    return StoreError(f"the run store {path}: {words}", kind=kind)


def connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open the store's file, and upgrade an older schema.

    The file is created with mode 0600 and its folders with 0700, whatever the umask. Links are not followed.

    Args:
        path: the file.
        create: create the file if it does not exist.

    Raises:
        StoreError: it cannot be opened, is damaged, or was written by another program or a newer version.
    """
    try:
        _prepare_file(path, create=create)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise as_store_error(error, path) from None
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        _check_owner(connection, path)
        _restrict_access(path)  # not before: the mode of another program's file stays as it is
        mode = _enable_wal(connection)
        # In WAL mode a commit survives the end of the process without a sync, and a power failure cannot damage the
        # file. Without WAL, as on a network file system, every commit needs a sync.
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
        _migrate(connection)
        _check_tables(connection)
    except Exception as error:  # noqa: BLE001 - sqlite3 raises errors of many types for a damaged file
        connection.close()
        failure = as_store_error(error, path)
        if failure.kind == "corrupt" and not _has_our_mark(path):
            failure = StoreError(f"{path} is not a run store: name a file of its own", kind="foreign")
        raise failure from None
    return connection


def file_id(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, without following links; None if it does not exist.

    An open file that was deleted keeps its inode, so a new file at the same path has another one.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _prepare_file(path: Path, *, create: bool) -> None:
    """Create the file if it does not exist, and refuse a link.

    An existing file is not opened, because closing it would release this process's SQLite locks on it.
    """
    with _creating:
        missing = [folder for folder in path.parents if not folder.exists()] if create else []
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another process was quicker
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)
        if create:
            with suppress(FileExistsError):
                os.close(os.open(path, _CREATE, 0o600))
        try:
            found = path.lstat()
        except FileNotFoundError:
            text = f"there is no run store at {path}; a run with --store or store= makes one"
            raise StoreError(text, kind="missing") from None
        if not stat.S_ISREG(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a file"
            raise StoreError(f"the run store {path} is {what}: name the file itself", kind="denied")


def _restrict_access(path: Path) -> None:
    """Set mode 0600 on a file of this user."""
    found = path.lstat()
    # Windows has no user ids, and no modes to set.
    if hasattr(os, "geteuid") and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != 0o600:
        path.chmod(0o600)


def _has_our_mark(path: Path) -> bool:
    """Return True if a damaged file was a run store: its header has our application id.

    This opens the file, and closing it releases this process's SQLite locks on it; so it is for damaged files alone.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_MARK_OFFSET + 4)
    except OSError:
        return False
    return header[_MARK_OFFSET:] == APPLICATION_ID.to_bytes(4, "big")


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file of another program, or of a newer version."""
    connection.execute("BEGIN")  # one snapshot for all three: another process may be creating the schema
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    connection.execute("COMMIT")
    if application != APPLICATION_ID and (tables or version):
        raise StoreError(f"{path} is another program's database: name a file of its own", kind="foreign")
    if version > SCHEMA_VERSION:
        raise newer_error(str(path), version, what="file")


def _enable_wal(connection: sqlite3.Connection) -> str:
    """Switch to write-ahead logging, and return the mode. SQLite's busy timeout does not cover the switch."""
    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _migrate(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION:
        return
    with transaction(connection):
        # Read again inside the transaction: another process may have migrated the file meanwhile.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in MIGRATIONS[version:]:
            for statement in filter(str.strip, step.split(";")):
                connection.execute(render(statement))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {max(version, SCHEMA_VERSION)}")


_TABLE_CHECKS: Final = (
    "SELECT id, started, status, task, subagent, version, session, owner, beat FROM runs LIMIT 0",
    "SELECT place, run, kind, text FROM papers LIMIT 0",
    "SELECT place, run, name, key, digest, repeats FROM calls LIMIT 0",
    "SELECT place, run, name, text FROM endings LIMIT 0",
    "SELECT place, run, told, session FROM moments LIMIT 0",
)


def _check_tables(connection: sqlite3.Connection) -> None:
    """Raise if a table or a column is missing."""
    for statement in _TABLE_CHECKS:
        connection.execute(statement)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit the statements of the block, or roll all of them back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back on a full disk
            connection.execute("ROLLBACK")
        raise


def quarantine(path: Path) -> Path | None:
    """Move a damaged file and its logs aside. Nothing is deleted.

    Returns:
        The new path; None if the file is not damaged any more, because another process has moved it, or if it was
        never a run store.
    """
    with _locked(path.parent):
        if not _is_damaged(path) or not _has_our_mark(path):
            return None
        aside = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        return aside


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, so that of two processes that find the damage only one moves the file."""
    if "fcntl" in posix.missing():
        # Windows lets nobody rename a file that another process has open, so two cannot move it there.
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_damaged(path: Path) -> bool:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT)
    except sqlite3.Error:
        return False
    try:
        found: Any = connection.execute("PRAGMA integrity_check(1)").fetchone()
        _check_tables(connection)
    except sqlite3.DatabaseError as error:
        return as_store_error(error, path).kind == "corrupt"
    finally:
        connection.close()
    return bool(found[0] != "ok")


class FileConnection(Connection):
    """An open file of SQLite."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        connection.row_factory = sqlite3.Row
        # A damaged text must not end the list of runs.
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        self._connection, self._path = connection, path

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Execute a statement."""
        return self._connection.execute(render(statement), parameters)

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> object:
        """Execute a statement for each of several rows of parameters."""
        return self._connection.executemany(render(statement), parameters)

    def transaction(self) -> AbstractContextManager[None]:
        """Commit the statements of the block, or roll all of them back."""
        return transaction(self._connection)

    def batch(self) -> AbstractContextManager[None]:
        """Commit the statements of the block, or roll all of them back."""
        return transaction(self._connection)

    def expect(self, statement: str, parameters: Sequence[Any], error: Exception) -> None:
        """Execute a statement of a batch, and raise ``error`` if it finds or changes no row."""
        cursor = self._connection.execute(render(statement), parameters)
        found = cursor.rowcount > 0 if cursor.description is None else cursor.fetchone() is not None
        if not found:
            raise error

    def reading(self) -> AbstractContextManager[None]:
        """Execute the statements of the block, each for itself."""
        return nullcontext()

    def now(self) -> float:
        """Return the time by the clock of this machine, whose processes alone share a file."""
        return time.time()

    def after_purge(self) -> None:
        """Empty the log, which holds the deleted rows, too."""
        (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            reason = "the runs are deleted, but the log still holds them while another process reads: purge again later"
            raise StoreError(f"the run store {self._path}: {reason}", kind="locked")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class SQLiteFile(Database):
    """A file of SQLite.

    Args:
        path: the file, as an absolute path.
    """

    errors = sqlite3.Error

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = str(path)

    def connect(self, *, create: bool = True) -> Connection:
        """Open the file, and upgrade an older schema; see ``connect``."""
        return FileConnection(connect(self.path, create=create), self.path)

    def as_store_error(self, error: Exception) -> StoreError:
        """Return the ``StoreError`` for any error of the file."""
        return as_store_error(error, self.path)

    def check(self) -> None:
        """Create the file if it does not exist, and raise if no run can be stored in it. Blocks.

        A damaged store passes, because the run moves it aside; so does a busy one, because the run may find it free.

        Raises:
            StoreError: the file is another program's, or it cannot be created or opened.
        """
        try:
            connect(self.path).close()
        except StoreError as error:
            if error.kind not in ("corrupt", "locked"):
                raise

    def writer(self) -> Writer:
        """Return the only writer of the file in this process."""
        return only_writer(self.path, partial(FileWriter, self.path))


class FileWriter(Writer):
    """The thread that writes to a file of SQLite. It notices a lost file, and moves a damaged one aside.

    Args:
        path: the store's file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(SQLiteFile(path))
        self._path = path
        self._file_id: tuple[int, int] | None = None

    def _opened(self, connection: Connection | None, *, create: bool) -> Connection:
        if connection is None:
            return self._open(create=create)
        # SQLite goes on writing to a deleted file, in WAL mode without any error.
        if file_id(self._path) == self._file_id:
            return connection
        connection.close()  # before the path is opened again; SQLite leaves the log of a moved file alone
        self.losses += 1
        connection = self._open(create=create)
        if create:
            self.notices.append(
                f"the file of the run store {self._path} was deleted or replaced while it was open: earlier"
                " runs may be missing"
            )
        return connection

    def _open(self, *, create: bool) -> Connection:
        try:
            connection = self._database.connect(create=create)
        except StoreError as error:
            if error.kind == "missing":
                raise self.lost_error() from None
            if error.kind != "corrupt":
                raise
            self._move_aside()
            connection = self._database.connect()
        self._file_id = file_id(self._path)
        if self._file_id is None:
            connection.close()
            raise self.lost_error()
        return connection

    def _after_failure(self, connection: Connection | None, failure: StoreError) -> Connection | None:
        if failure.kind != "corrupt" or connection is None:
            return connection
        connection.close()
        self._move_aside()
        return None

    def _move_aside(self) -> None:
        try:
            aside = quarantine(self._path)
        except OSError:  # the folder may not be written to: opening the file reports the damage again
            return
        if aside is not None:
            self.notices.append(f"the run store {self._path} was damaged: it was moved to {aside.name}")
