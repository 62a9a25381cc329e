"""The run store: records runs while they go on, in one SQLite file or in a store of another author.

Nothing is written unless a path or an address is given: ``Council(store=...)``, ``CouncilConfig(store=...)``,
``LLM_COUNCIL_STORE``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from sqlite3 import Connection
from typing import Any, TypeVar

from anyio.to_thread import run_sync

from llm_council import _runtime
from llm_council.errors import InvalidOption, StoreError
from llm_council.models import Plan
from llm_council.models._journal import Journal
from llm_council.models._paths import absolute, expand_user
from llm_council.store import _queries
from llm_council.store._database import connect
from llm_council.store._queries import RunInfo, StoredCall, StoredRun, checked_id
from llm_council.store._replay import PastRun
from llm_council.store._run_journal import RunJournal
from llm_council.store._run_store import RunStore, opened, scheme_of
from llm_council.store._writer import writer_for

__all__ = ["RunInfo", "RunStore", "Store", "StoredCall", "StoredRun", "open_store"]

T = TypeVar("T")


class Store:
    """A file of runs. Any number of processes may use it at the same time.

    Args:
        path: the file; ``~`` is the home folder. The first run creates it, readable by its owner alone.

    Attributes:
        path: the file, as an absolute path.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        if not name.strip():
            raise InvalidOption(f"store: expected the path of a file, got {path!r:.80}")
        self.path = absolute(expand_user(name))

    async def runs(self, *, limit: int | None = None) -> tuple[RunInfo, ...]:
        """Return the runs, the latest first; none if the file does not exist yet.

        Args:
            limit: most runs to return; None is all.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            return await self._do(partial(_queries.list_runs, path=self.path, limit=limit))
        except StoreError as error:
            if error.kind == "missing":
                return ()
            raise

    async def find(self, run: str) -> str:
        """Return the id of a stored run.

        Args:
            run: its id, the beginning of its id if no other run begins like it, or ``"last"`` for the latest run.

        Raises:
            StoreError: there is no such run, several begin like this, or the file cannot be read.
        """
        return await self._do(partial(_queries.find_run, run=checked_id(run)))

    async def show(self, run_id: str) -> StoredRun:
        """Return a stored run.

        Raises:
            StoreError: there is no such run, or the file cannot be read.
        """
        return await self._do(partial(_queries.show_run, path=self.path, run_id=checked_id(run_id)))

    async def export(self, run_id: str) -> dict[str, Any]:
        """Return a stored run as plain JSON values, with the vendors' replies and all moments.

        Raises:
            StoreError: there is no such run, or the file cannot be read.
        """
        return await self._do(partial(_queries.export_run, path=self.path, run_id=checked_id(run_id)))

    async def purge(self, *run_ids: str, before: datetime | None = None) -> tuple[str, ...]:
        """Delete runs; their data is overwritten in the file and in its log.

        Args:
            *run_ids: the runs.
            before: delete all runs that started before this time and have ended, too.

        Returns:
            The ids of the deleted runs.

        Raises:
            StoreError: a named run is unknown or still running, or the file cannot be written.
        """
        ids = tuple(checked_id(run_id) for run_id in run_ids)
        return await self._do(partial(_queries.purge, path=self.path, run_ids=ids, before=before))

    def _check(self) -> None:
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

    async def _do(self, work: Callable[[Connection], T]) -> T:
        return await run_sync(_queries.with_connection, self.path, work)

    def _stored(self, run: str) -> StoredRun:
        """Return a run that is named as for ``find``. Blocks."""
        name = checked_id(run)

        def read(connection: Connection) -> StoredRun:
            return _queries.show_run(connection, self.path, _queries.find_run(connection, name))

        return _queries.with_connection(self.path, read)

    def _journal(self, plan: Plan) -> Journal:
        """Return the journal of a new run. Call it in the event loop of the run."""
        return RunJournal(writer_for(self.path), plan)

    async def _resumed(self, run_id: str) -> tuple[Plan, Journal]:
        """Take over an interrupted run, and return its plan and the journal that continues it."""
        past = await self._do(partial(_queries.claim, path=self.path, run_id=checked_id(run_id)))
        journal = RunJournal(writer_for(self.path), past.plan, session=past.session, past=past.for_resuming())
        return past.plan, journal

    async def _past_run(self, run_id: str) -> PastRun:
        """Return a run for a replay."""
        return await self._do(partial(_queries.past_run, run_id=checked_id(run_id)))

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    # --- blocking twins: generated by tools.generate_sync ---
    def runs_sync(self, *, limit: int | None = None) -> tuple[RunInfo, ...]:
        """Return the runs, the latest first; none if the file does not exist yet.

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
        """Delete runs; their data is overwritten in the file and in its log.

        The blocking twin of ``purge``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.purge, *run_ids, before=before)

    # --- end of blocking twins ---


def open_store(place: str | os.PathLike[str]) -> Store | RunStore:
    """Open a store of runs.

    Args:
        place: the path of a file of SQLite, ``"sqlite:///PATH"``, or the address of a plugin's store, such as
            ``"postgresql://host/database"``: its scheme is the name of an entry point in ``llm_council.stores``.

    Raises:
        InvalidOption: the path is empty, or no plugin offers this scheme.
        PluginLoadError: the plugin cannot be loaded, or its store cannot be opened; names the distribution.
    """
    name = os.fspath(place)
    scheme = scheme_of(name)
    if scheme is None:
        return Store(name)
    if scheme == "sqlite":
        return Store(name.partition("://")[2].removeprefix("/"))  # "sqlite:////PATH" is absolute, as in SQLAlchemy
    return opened(name, scheme)
