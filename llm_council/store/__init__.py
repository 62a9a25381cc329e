"""The run store: records runs while they go on, in a file of SQLite, in PostgreSQL, or in a store of another author.

Nothing is written unless a path or an address is given: ``Council(store=...)``, ``CouncilConfig(store=...)``,
``LLM_COUNCIL_STORE``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from anyio.to_thread import run_sync

from llm_council import _runtime
from llm_council.errors import InvalidOption, StoreError
from llm_council.models import Plan
from llm_council.models._journal import Journal
from llm_council.models._paths import absolute, expand_user
from llm_council.store import _queries
from llm_council.store._database import Connection, Database
from llm_council.store._queries import RUNNING, RunInfo, StoredCall, StoredRun, checked_id
from llm_council.store._replay import PastRun
from llm_council.store._run_journal import RunJournal
from llm_council.store._run_store import POSTGRES, RunStore, opened, scheme_of
from llm_council.store._sqlite import SQLiteFile
from llm_council.store._writer import Writer

__all__ = ["RunInfo", "RunStore", "Store", "StoredCall", "StoredRun", "open_store"]

T = TypeVar("T")


class Store:
    """A file of SQLite or a PostgreSQL database that holds runs. Any number of processes may use it at the same time.

    Args:
        path: the file; ``~`` is the home folder. The first run creates it, readable by its owner alone. Or the address
            of a database: ``"postgresql://user@host/database"``, as libpq reads it; the first run creates the tables.

    Attributes:
        path: the file, as an absolute path; a store in a database has no such attribute.
        address: the path as a string, or the address with its password as ``***``.

    Raises:
        InvalidOption: the path is empty, or the address is none.
        MissingDependency: the address is one of PostgreSQL, and psycopg is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not name.strip():
            raise InvalidOption(f"store: expected the path of a file, got {path!r:.80}")
        self._database: Database
        if scheme_of(name) in POSTGRES:
            from llm_council.store._postgres import PostgresDatabase  # imports psycopg

            self._database = PostgresDatabase(name)
        else:
            self.path = absolute(expand_user(name))
            self._database = SQLiteFile(self.path)
        self.address = self._database.shown

    async def runs(self, *, limit: int | None = None) -> tuple[RunInfo, ...]:
        """Return the runs, the latest first; none if the store does not exist yet.

        Args:
            limit: most runs to return; None is all.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            return await self._read(partial(_queries.list_runs, writer=self._writer(), limit=limit))
        except StoreError as error:
            if error.kind == "missing":
                return ()
            raise

    async def find(self, run: str) -> str:
        """Return the id of a stored run.

        Args:
            run: its id, the beginning of its id if no other run begins like it, or ``"last"`` for the latest run.

        Raises:
            StoreError: there is no such run, several begin like this, or the store cannot be read.
        """
        return await self._read(partial(_queries.find_run, run=checked_id(run)))

    async def show(self, run_id: str) -> StoredRun:
        """Return a stored run.

        Raises:
            StoreError: there is no such run, or the store cannot be read.
        """
        return await self._read(partial(_queries.show_run, writer=self._writer(), run_id=checked_id(run_id)))

    async def export(self, run_id: str) -> dict[str, Any]:
        """Return a stored run as plain JSON values, with the vendors' replies and all moments.

        Raises:
            StoreError: there is no such run, or the store cannot be read.
        """
        return await self._read(partial(_queries.export_run, writer=self._writer(), run_id=checked_id(run_id)))

    async def purge(self, *run_ids: str, before: datetime | None = None) -> tuple[str, ...]:
        """Delete runs. In a file, their data is overwritten, in its log, too; in a database, its vacuum does that.

        Args:
            *run_ids: the runs.
            before: delete all runs that started before this time and have ended, too.

        Returns:
            The ids of the deleted runs.

        Raises:
            StoreError: a named run is unknown or still running, or the store cannot be written to.
        """
        ids = tuple(checked_id(run_id) for run_id in run_ids)
        return await self._do(partial(_queries.purge, writer=self._writer(), run_ids=ids, before=before))

    async def copy(self, *run_ids: str, to: Store) -> tuple[str, ...]:
        """Copy runs to another store, with everything that is needed to replay and to resume them.

        Args:
            *run_ids: the runs; without any, all that no process works on.
            to: the other store. A run that it has already is left as it is.

        Returns:
            The ids of the copied runs.

        Raises:
            StoreError: a named run is unknown or still running, or a store cannot be used.
        """
        named = [checked_id(run_id) for run_id in run_ids]
        if not named:
            stored = await self._read(partial(_queries.list_runs, writer=self._writer(), limit=None))
            named = [info.run_id for info in reversed(stored) if info.status != RUNNING]
        return await run_sync(self._copy, named, to)

    def _copy(self, run_ids: Sequence[str], to: Store) -> tuple[str, ...]:
        def write(target: Connection) -> tuple[str, ...]:
            copied = []
            for run_id in dict.fromkeys(run_ids):
                # One run at a time is in memory: each may have large files.
                rows = _queries.read(self._database, partial(_queries.read_rows, writer=self._writer(), run_id=run_id))
                if _queries.write_rows(target, rows):
                    copied.append(run_id)
            return tuple(copied)

        return _queries.with_connection(to._database, write, create=True)

    def _check(self) -> None:
        """Create the store if it does not exist, and raise if no run can be stored in it. Blocks.

        Raises:
            StoreError: it cannot be created, opened or written to; names the remedy.
        """
        self._database.check()

    async def _do(self, work: Callable[[Connection], T]) -> T:
        return await run_sync(_queries.with_connection, self._database, work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await run_sync(_queries.read, self._database, work)

    def _writer(self) -> Writer:
        return self._database.writer()

    def _stored(self, run: str) -> StoredRun:
        """Return a run that is named as for ``find``. Blocks."""
        name = checked_id(run)

        def read(connection: Connection) -> StoredRun:
            return _queries.show_run(connection, self._writer(), _queries.find_run(connection, name))

        return _queries.read(self._database, read)

    def _journal(self, plan: Plan) -> Journal:
        """Return the journal of a new run. Call it in the event loop of the run."""
        return RunJournal(self._writer(), plan)

    async def _resumed(self, run_id: str) -> tuple[Plan, Journal]:
        """Take over an interrupted run, and return its plan and the journal that continues it."""
        past = await self._do(partial(_queries.claim, writer=self._writer(), run_id=checked_id(run_id)))
        journal = RunJournal(self._writer(), past.plan, session=past.session, past=past.for_resuming())
        return past.plan, journal

    async def _past_run(self, run_id: str) -> PastRun:
        """Return a run for a replay."""
        return await self._read(partial(_queries.past_run, run_id=checked_id(run_id)))

    def __repr__(self) -> str:
        return f"Store({self.address!r})"

    # --- blocking twins: generated by tools.generate_sync ---
    def runs_sync(self, *, limit: int | None = None) -> tuple[RunInfo, ...]:
        """Return the runs, the latest first; none if the store does not exist yet.

        The blocking twin of ``runs``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.runs, limit=limit)

    def find_sync(self, run: str) -> str:
        """Return the id of a stored run.

        The blocking twin of ``find``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.find, run)

    def show_sync(self, run_id: str) -> StoredRun:
        """Return a stored run.

        The blocking twin of ``show``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.show, run_id)

    def export_sync(self, run_id: str) -> dict[str, Any]:
        """Return a stored run as plain JSON values, with the vendors' replies and all moments.

        The blocking twin of ``export``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.export, run_id)

    def purge_sync(self, *run_ids: str, before: datetime | None = None) -> tuple[str, ...]:
        """Delete runs. In a file, their data is overwritten, in its log, too; in a database, its vacuum does that.

        The blocking twin of ``purge``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.purge, *run_ids, before=before)

    def copy_sync(self, *run_ids: str, to: Store) -> tuple[str, ...]:
        """Copy runs to another store, with everything that is needed to replay and to resume them.

        The blocking twin of ``copy``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.copy, *run_ids, to=to)

    # --- end of blocking twins ---


def open_store(place: str | os.PathLike[str]) -> Store | RunStore:
    """Open a store of runs.

    Args:
        place: the path of a file of SQLite, ``"sqlite:///PATH"``, the address of a PostgreSQL database, such as
            ``"postgresql://user@host/database"``, or that of a plugin's store, such as ``"folder://runs"``: its scheme
            is the name of an entry point in ``llm_council.stores``.

    Raises:
        InvalidOption: the path is empty, the address cannot be read, or no plugin offers this scheme.
        MissingDependency: the address is one of PostgreSQL, and psycopg is not installed.
        PluginLoadError: the plugin cannot be loaded, or its store cannot be opened; names the distribution.
    """
    name = os.fspath(place)
    scheme = scheme_of(name)
    if scheme is None or scheme in POSTGRES:
        return Store(name)
    if scheme == "sqlite":
        return Store(name.partition("://")[2].removeprefix("/"))  # "sqlite:////PATH" is absolute, as in SQLAlchemy
    return opened(name, scheme)
