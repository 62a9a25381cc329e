"""Opening the store's file: its rights, its schema, and typed errors for all that can be wrong with it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from llm_council.errors import StoreError

__all__ = ["APPLICATION", "MIGRATIONS", "VERSION", "connect", "identity", "quarantine", "transaction", "typed"]

BUSY: Final = 5.0
"""Seconds that a statement waits for other processes."""

APPLICATION: Final = 0x4C4C4D43
"""What tells our file from another program's: ``LLMC``."""

MIGRATIONS: Final[tuple[str, ...]] = (
    # 1: what a replay needs. Rows that change are small; what is long is written once.
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, started REAL NOT NULL, status TEXT NOT NULL, task TEXT NOT NULL, subagent TEXT NOT NULL,
        version TEXT NOT NULL
    );
    CREATE TABLE papers (
        place INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, kind TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX papers_by_run ON papers (run);
    CREATE TABLE calls (
        place INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, name TEXT NOT NULL, key TEXT,
        digest TEXT NOT NULL
    );
    CREATE INDEX calls_by_run ON calls (run);
    CREATE TABLE endings (
        place INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, name TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX endings_by_run ON endings (run);
    CREATE TABLE moments (
        place INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, told TEXT NOT NULL
    );
    CREATE INDEX moments_by_run ON moments (run);
    """,
    # 2: what a resumption needs
    """
    ALTER TABLE runs ADD COLUMN session INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE runs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN beat REAL NOT NULL DEFAULT 0;
    ALTER TABLE calls ADD COLUMN repeats INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE moments ADD COLUMN session INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX runs_by_start ON runs (started);
    """,
)
"""Each step's statements, from an empty file on. A step that was released is never changed."""

VERSION: Final = len(MIGRATIONS)

_reaching = threading.Lock()


def _forked() -> None:
    global _reaching
    _reaching = threading.Lock()


os.register_at_fork(after_in_child=_forked)

_KINDS: Final = {
    sqlite3.SQLITE_ERROR: ("corrupt", "its tables are damaged"),  # our statements are fixed: they fit any whole file
    sqlite3.SQLITE_FULL: ("full", "the disk is full"),
    sqlite3.SQLITE_BUSY: ("locked", f"another process held it for more than {BUSY:g} s"),
    sqlite3.SQLITE_LOCKED: ("locked", f"another process held it for more than {BUSY:g} s"),
    sqlite3.SQLITE_CORRUPT: ("corrupt", "it is damaged"),
    sqlite3.SQLITE_NOTADB: ("corrupt", "it is no SQLite database"),
    sqlite3.SQLITE_READONLY: ("denied", "it may not be written to"),
    sqlite3.SQLITE_PERM: ("denied", "it may not be opened"),
    sqlite3.SQLITE_CANTOPEN: ("denied", "it cannot be opened"),
}


def typed(error: Exception, path: Path) -> StoreError:
    """Return the typed error that stands for what went wrong with the file."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        kind = "denied" if isinstance(error, PermissionError) else "full" if error.errno == 28 else "other"
        return StoreError(f"the run store {path}: {error.strerror or error}", kind=kind)
    if isinstance(error, UnicodeDecodeError):  # of a text in the file, or of SQLite's own words about one
        return StoreError(f"the run store {path}: it is damaged", kind="corrupt")
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    kind, words = _KINDS.get(code, ("other", str(error)))
    return StoreError(f"the run store {path}: {words}", kind=kind)


def connect(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open the store's file, bringing an older schema up to this version's.

    The file is made with the rights 0600 and its folders with 0700, whatever the umask. Links are not followed.

    Args:
        path: the file.
        create: make it where there is none.

    Raises:
        StoreError: it cannot be opened, is damaged, another program's, or a newer version's.
    """
    try:
        _reach(path, create=create)
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)  # the busy handler, before all else
    except (OSError, sqlite3.Error) as error:
        raise typed(error, path) from None
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        _recognise(connection, path)
        mode = _logged_ahead(connection)
        # In WAL mode a commit survives the end of the process without being forced to the disk, and the file is never
        # damaged; where there is no WAL, on a network's file system, every commit is forced.
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
        _migrate(connection)
        _probe(connection)
    except Exception as error:  # noqa: BLE001 - a damaged file makes the module raise all kinds of things
        connection.close()
        raise typed(error, path) from None
    return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, links not followed; None where there is no such file.

    Of two files that exist at the same time, an open one that was deleted included, these differ.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _reach(path: Path, *, create: bool) -> None:
    """Make sure that the file is there, is no link, and can be read by nobody else.

    A file that is there is not opened: closing it would end the locks that SQLite holds on it for this process.
    """
    with _reaching:
        missing = [folder for folder in path.parents if not folder.exists()] if create else []
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another process was quicker
                folder.mkdir(mode=0o700)
                folder.chmod(0o700)
        if create:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        try:
            found = path.lstat()
        except FileNotFoundError:
            raise StoreError(f"there is no run store at {path}", kind="missing") from None
        if not stat.S_ISREG(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no file"
            raise StoreError(f"the run store {path} is {what}: name the file itself", kind="denied")
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != 0o600:
            path.chmod(0o600)


def _recognise(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is somebody else's, or that a later version wrote."""
    connection.execute("BEGIN")  # another process may be making it: all three as they are at one moment
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    connection.execute("COMMIT")
    if application != APPLICATION and (tables or version):
        raise StoreError(f"{path} is another program's database: name a file of its own", kind="foreign")
    if version > VERSION:
        raise StoreError(
            f"the run store {path} was written by a newer version of llm_council (schema {version}, this one knows"
            f" {VERSION}): upgrade, or name another file",
            kind="newer",
        )


def _logged_ahead(connection: sqlite3.Connection) -> str:
    """Switch to write-ahead logging: the switch itself does not heed the busy handler."""
    end = time.monotonic() + BUSY
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode & 0xFF) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _migrate(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    with transaction(connection):
        # Asked again inside: another process may have done it meanwhile.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in MIGRATIONS[version:]:
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {max(version, VERSION)}")


_PROBES: Final = (
    "SELECT id, started, status, task, subagent, version, session, owner, beat FROM runs LIMIT 0",
    "SELECT place, run, kind, text FROM papers LIMIT 0",
    "SELECT place, run, name, key, digest, repeats FROM calls LIMIT 0",
    "SELECT place, run, name, text FROM endings LIMIT 0",
    "SELECT place, run, told, session FROM moments LIMIT 0",
)


def _probe(connection: sqlite3.Connection) -> None:
    """Look whether everything is there that this version reads and writes."""
    for probe in _PROBES:
        connection.execute(probe)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block does, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite itself rolls back on a full disk
            connection.execute("ROLLBACK")
        raise


def quarantine(path: Path) -> Path | None:
    """Move a damaged file aside, with its logs; nothing is deleted.

    Returns:
        Where it is now; None where it is not damaged any more: another process was quicker.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # of two processes that find the damage, one moves the file
        if not _damaged(path):
            return None
        aside = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
        return aside
    finally:
        os.close(folder)


def _damaged(path: Path) -> bool:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY)
    except sqlite3.Error:
        return False
    try:
        found: Any = connection.execute("PRAGMA integrity_check(1)").fetchone()
        _probe(connection)
    except sqlite3.DatabaseError as error:
        return typed(error, path).kind == "corrupt"
    finally:
        connection.close()
    return bool(found[0] != "ok")
