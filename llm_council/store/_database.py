"""What the store needs of a database: its tables, their migrations, and an interface that SQLite and PostgreSQL fulfil.

The statements of the store are written once, for both: in ``_queries.py`` and ``_run_journal.py``. What differs is in
``_sqlite.py`` and ``_postgres.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol

from llm_council.errors import StoreError

if TYPE_CHECKING:
    from llm_council.store._writer import Writer

__all__ = ["MIGRATIONS", "SCHEMA_VERSION", "TABLES", "Connection", "Cursor", "Database", "newer_error"]

TABLES: Final = ("runs", "papers", "calls", "endings", "moments")
"""``papers`` holds a run's plan, result, files and holder, ``calls`` and ``endings`` how each call began and ended,
``moments`` the times of everything that happened, by which a replay is ordered.
"""

MIGRATIONS: Final[tuple[str, ...]] = (
    # 1: for replay. Rows that are updated are small; long texts are written once.
    """
    CREATE TABLE {runs} (
        id TEXT PRIMARY KEY, started {float} NOT NULL, status TEXT NOT NULL, task TEXT NOT NULL, subagent TEXT NOT NULL,
        version TEXT NOT NULL
    );
    CREATE TABLE {papers} (
        place {serial}, run TEXT NOT NULL REFERENCES {runs} ON DELETE CASCADE, kind TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX {papers}_by_run ON {papers} (run);
    CREATE TABLE {calls} (
        place {serial}, run TEXT NOT NULL REFERENCES {runs} ON DELETE CASCADE, name TEXT NOT NULL, key TEXT,
        digest TEXT NOT NULL
    );
    CREATE INDEX {calls}_by_run ON {calls} (run);
    CREATE TABLE {endings} (
        place {serial}, run TEXT NOT NULL REFERENCES {runs} ON DELETE CASCADE, name TEXT NOT NULL,
        text TEXT NOT NULL
    );
    CREATE INDEX {endings}_by_run ON {endings} (run);
    CREATE TABLE {moments} (
        place {serial}, run TEXT NOT NULL REFERENCES {runs} ON DELETE CASCADE, told TEXT NOT NULL
    );
    CREATE INDEX {moments}_by_run ON {moments} (run);
    """,
    # 2: for resume
    """
    ALTER TABLE {runs} ADD COLUMN session INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE {runs} ADD COLUMN owner TEXT NOT NULL DEFAULT '';
    ALTER TABLE {runs} ADD COLUMN beat {float} NOT NULL DEFAULT 0;
    ALTER TABLE {calls} ADD COLUMN repeats INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE {moments} ADD COLUMN session INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX {runs}_by_start ON {runs} (started);
    """,
    # 3: for follow-ups. No foreign key: a follow-up holds what it needs of the run before, which may be purged.
    """
    ALTER TABLE {runs} ADD COLUMN follows TEXT;
    """,
)
"""The statements of each step, from an empty database on. A released step must never be changed."""

SCHEMA_VERSION: Final = len(MIGRATIONS)


class Cursor(Protocol):
    """The rows of a statement; a row is read by the names of its columns."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(ABC):
    """An open database, for one thread.

    Statements name a table as ``{runs}`` and a parameter as ``?``. ``{now}`` is the value of ``now()``. ``{lock}`` at
    the end of a SELECT locks its rows of ``runs`` until the end of the transaction.
    """

    @abstractmethod
    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Cursor:
        """Execute a statement."""

    @abstractmethod
    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> object:
        """Execute a statement for each of several rows of parameters."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """Commit the statements of the block, or roll all of them back."""

    @abstractmethod
    def batch(self) -> AbstractContextManager[None]:
        """Commit the statements of the block, or roll all back. They may be sent together at the end of the block.

        So the block reads no rows and no ``rowcount``, and what the database refuses may be raised at its end.
        """

    @abstractmethod
    def expect(self, statement: str, parameters: Sequence[Any], error: Exception) -> None:
        """Execute a statement of a batch, and raise ``error`` if it finds or changes no row, before the commit."""

    @abstractmethod
    def reading(self) -> AbstractContextManager[None]:
        """Execute the statements of the block, which only read."""

    @abstractmethod
    def now(self) -> float:
        """Return the time by the clock that all processes of this store share, in seconds since 1970."""

    @abstractmethod
    def after_purge(self) -> None:
        """Remove what the deleted rows left behind, as far as the database can.

        Raises:
            StoreError: another process prevents it.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class Database(ABC):
    """A place for runs.

    Attributes:
        shown: the place as messages name it, without a password.
        errors: the class of the errors that its driver raises.
    """

    shown: str
    errors: type[Exception]

    @abstractmethod
    def connect(self, *, create: bool = True) -> Connection:
        """Open the database, and upgrade an older schema.

        Args:
            create: create the tables if they do not exist.

        Raises:
            StoreError: it cannot be opened, or was written by a newer version. ``kind`` is ``"missing"`` if there is no
                store and ``create`` is False.
        """

    @abstractmethod
    def as_store_error(self, error: Exception) -> StoreError:
        """Return the ``StoreError`` for any error of the database."""

    @abstractmethod
    def check(self) -> None:
        """Create the tables if they do not exist, and raise if no run can be stored. Blocks.

        Raises:
            StoreError: no run can be stored; names the remedy.
        """

    @abstractmethod
    def writer(self) -> Writer:
        """Return the only writer of this database in this process."""


def newer_error(shown: str, version: int, *, what: str) -> StoreError:
    """Return the error about a store of a newer version; ``what`` is another one of: a file, or a database."""
    return StoreError(
        f"the run store {shown} was written by a newer version of llm_council (schema {version}, this one knows"
        f" {SCHEMA_VERSION}): upgrade, or name another {what}",
        kind="newer",
    )
