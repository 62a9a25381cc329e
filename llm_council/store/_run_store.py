"""The base of run stores of other authors, and the choice of a store by its address."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

import attrs
from anyio.to_thread import run_sync

from llm_council import _runtime
from llm_council._plugins import find, hidden_hint
from llm_council.errors import CouncilError, InvalidOption, StoreError, near
from llm_council.errors._foreign import strip_secrets
from llm_council.errors._secrets import redact
from llm_council.models import Plan
from llm_council.models._convert import load
from llm_council.models._journal import Journal
from llm_council.store._queries import RUNNING, RunInfo, StoredRun, checked_id, choose_run, longest, stored_call
from llm_council.store._replay import PastRun
from llm_council.store._run_log import Head, LogJournal, LogWriter, as_store_error, read_head, read_log
from llm_council.store._writer import only_writer, process_name

__all__ = ["POSTGRES", "RunStore", "load_plugin", "opened", "scheme_of"]

T = TypeVar("T")

POSTGRES: Final = ("postgresql", "postgres")
"""The schemes of libpq's addresses: no plugin can offer them."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


class RunStore(ABC):
    """A store of runs by another author. A subclass writes four methods, and gets the others.

    For the store, a run has an id, a session number, a short text called head, and a list of records, which are texts
    that only grow in number. Each text is one line of ASCII, and no key is in it; an attached picture, document or
    sound is one text in base64, of up to 67 million characters. The four methods block, and are called in threads,
    several at a time. What they raise becomes a ``StoreError``; a run that goes on continues without
    the store, and its result has a warning. So does a run that has waited ten seconds for ``put``.

    Args:
        url: the address of the store, such as ``"folder://runs"``.

    Attributes:
        url: the address.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def put(self, run_id: str, session: int, head: str, records: Sequence[str], *, expected: int | None) -> bool:
        """Store session and head of a run, and append records, all or nothing; return once that is durable.

        Args:
            run_id: the run: up to 64 letters, digits, ``-`` and ``_``.
            session: the session number to be stored; it changes when another process takes the run over.
            head: replaces the stored head.
            records: the further records, possibly none.
            expected: the session number that the run must have in the store; None for a run that must not exist yet.

        Returns:
            True; False, with nothing stored, if the run is not as ``expected``. Two processes may ask at once: one of
            them gets True.
        """

    @abstractmethod
    def heads(self) -> Iterable[tuple[str, int, str]]:
        """Return id, session number and head of every run, in any order; none if the store does not exist yet."""

    @abstractmethod
    def read(self, run_id: str) -> tuple[int, str, Sequence[str]] | None:
        """Return session number, head and all records of a run, in order; None if there is no such run."""

    @abstractmethod
    def delete(self, run_id: str, *, expected: int) -> bool:
        """Delete a run and its records; return False, with nothing deleted, if it has another session number."""

    def check(self) -> None:
        """Raise an error if no run can be stored here; called before anything is sent. By default, read the heads."""
        list(self.heads())

    async def runs(self, *, limit: int | None = None) -> tuple[RunInfo, ...]:
        """Return the runs, the latest first.

        Args:
            limit: most runs to return; None is all.

        Raises:
            StoreError: the store cannot be read.
        """
        return tuple(head.info(self._writer()) for head in (await self._do(self._latest))[:limit])

    async def find(self, run: str) -> str:
        """Return the id of a stored run.

        Args:
            run: its id, the beginning of its id if no other run begins like it, or ``"last"`` for the latest run.

        Raises:
            StoreError: there is no such run, several begin like this, or the store cannot be read.
        """
        checked_id(run)
        return await self._do(partial(self._find, run))

    async def show(self, run_id: str) -> StoredRun:
        """Return a stored run.

        Raises:
            StoreError: there is no such run, or the store cannot be read.
        """
        return await self._do(partial(self._show, checked_id(run_id)))

    async def export(self, run_id: str) -> dict[str, Any]:
        """Return a stored run as plain JSON values, with the vendors' replies and all moments.

        Raises:
            StoreError: there is no such run, or the store cannot be read.
        """
        return await self._do(partial(self._export, checked_id(run_id)))

    async def purge(self, *run_ids: str, before: datetime | None = None) -> tuple[str, ...]:
        """Delete runs.

        Args:
            *run_ids: the runs.
            before: delete all runs that started before this time and have ended, too.

        Returns:
            The ids of the deleted runs.

        Raises:
            StoreError: a named run is unknown or still running, or the store cannot be written to.
        """
        ids = [checked_id(run_id) for run_id in run_ids]
        return await self._do(partial(self._purge, ids, before))

    def _check(self) -> None:
        try:
            self.check()
        except Exception as error:  # noqa: BLE001 - the store of another author may raise anything
            raise as_store_error(error, self) from None

    async def _do(self, work: Callable[[], T]) -> T:
        return await run_sync(self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns; what it raises becomes a ``StoreError``."""
        try:
            return work()
        except StoreError:
            raise
        except (KeyError, TypeError, ValueError, CouncilError) as error:
            # The message of ``error`` would quote the record.
            reason = f"a record cannot be read ({type(error).__name__})"
            raise StoreError(f"the run store {self}: {reason}", kind="corrupt") from None
        except Exception as error:  # noqa: BLE001 - the store of another author may raise anything
            raise as_store_error(error, self) from None

    def _latest(self) -> list[Head]:
        heads = [read_head(*row) for row in self.heads()]
        return sorted(heads, key=lambda head: (-head.started, head.id))

    def _find(self, run: str) -> str:
        ids = [head.id for head in self._latest()]
        return choose_run(run, [name for name in ids if name.startswith(run)], ids[0] if ids else None)

    def _read(self, run_id: str) -> tuple[Head, Sequence[str]]:
        found = self.read(run_id)
        if found is None:
            raise StoreError(f"no run {run_id} is stored here", kind="unknown-run")
        session, head, records = found
        return read_head(run_id, session, head), records

    def _show(self, run_id: str) -> StoredRun:
        head, records = self._read(run_id)
        log = read_log(records)
        calls = tuple(stored_call(call) for call in log.calls.values())
        return StoredRun(info=head.info(self._writer()), plan=load(Plan, log.plan), calls=calls, result=log.result)

    def _export(self, run_id: str) -> dict[str, Any]:
        head, records = self._read(run_id)
        log, info = read_log(records), head.info(self._writer())
        calls = [
            {**call, "ending": None if call["ending"] is None else json.loads(call["ending"])}
            for call in log.calls.values()
        ]
        return {
            "run_id": info.run_id,
            "started": info.started.isoformat(),
            "status": info.status,
            "subagent": info.subagent,
            "version": info.version,
            "follows": info.follows,
            "session": head.session,
            "plan": log.plan,
            "calls": calls,
            "moments": [{"moment": moment, "at": at} for moment, at in longest(log.moments)],
            "result": log.result,
        }

    def _purge(self, run_ids: Sequence[str], before: datetime | None) -> tuple[str, ...]:
        named = [self._read(run_id)[0] for run_id in dict.fromkeys(run_ids)]
        for head in named:
            if head.is_alive(self._writer()):
                raise head.running_error()
        if before is not None:
            named += [
                head
                for head in self._latest()
                if head.started < before.timestamp() and not head.is_alive(self._writer())
            ]
        found = {head.id: head.session for head in named}
        return tuple(run_id for run_id, session in found.items() if self.delete(run_id, expected=session))

    def _stored(self, run: str) -> StoredRun:
        """Return a run that is named as for ``find``. Blocks."""
        checked_id(run)
        return self._guarded(lambda: self._show(self._find(run)))

    def _journal(self, plan: Plan) -> Journal:
        """Return the journal of a new run. Call it in the event loop of the run."""
        return LogJournal(self._writer(), plan)

    async def _resumed(self, run_id: str) -> tuple[Plan, Journal]:
        """Take over an interrupted run, and return its plan and the journal that continues it."""
        head, past = await self._do(partial(self._claim, checked_id(run_id)))
        return past.plan, LogJournal(self._writer(), past.plan, head, past.for_resuming())

    def _claim(self, run_id: str) -> tuple[Head, PastRun]:
        head, records = self._read(run_id)
        if head.is_alive(self._writer()):
            raise head.running_error()
        past = read_log(records).past(head)
        mine = attrs.evolve(head, session=head.session + 1, status=RUNNING, owner=process_name(), beat=time.time())
        if not self.put(run_id, mine.session, mine.text(), ['["claimed",null]'], expected=head.session):
            raise StoreError(f"the run {run_id} was taken over by another process at this moment", kind="running")
        self._writer().add_run(run_id, mine.session)
        return mine, attrs.evolve(past, session=mine.session)

    async def _past_run(self, run_id: str) -> PastRun:
        """Return a run for a replay."""
        head, records = await self._do(partial(self._read, checked_id(run_id)))
        return await self._do(lambda: read_log(records).past(head))

    def _writer(self) -> LogWriter:
        return only_writer(id(self), partial(LogWriter, self))  # it lives as long as its writer

    def __repr__(self) -> str:
        return redact(f"{type(self).__name__}({getattr(self, 'url', '')!r})")

    # --- blocking twins: generated by tools.generate_sync ---
    def runs_sync(self, *, limit: int | None = None) -> tuple[RunInfo, ...]:
        """Return the runs, the latest first.

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
        """Delete runs.

        The blocking twin of ``purge``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.purge, *run_ids, before=before)

    # --- end of blocking twins ---


def scheme_of(place: str) -> str | None:
    """Return the scheme of a store's address, such as ``"folder"``; None for the path of a file."""
    found = _SCHEME.match(place)
    return found[1].lower() if found else None


def load_plugin(scheme: str) -> Callable[[str], RunStore]:
    """Import the class, or a function of the address, that opens the stores of a scheme.

    Raises:
        PluginLoadError: it cannot be imported, or is neither; names the distribution.
    """
    plugin = find("store")[scheme]
    made = plugin.load()
    if isinstance(made, type) and not issubclass(made, RunStore):
        raise plugin.error(f"expected a subclass of llm_council.store.RunStore, got {made!r:.80}")
    if not callable(made):
        raise plugin.error(f"expected a subclass of llm_council.store.RunStore, or a function, got {made!r:.80}")
    missing = sorted(getattr(made, "__abstractmethods__", ()))
    if missing:
        raise plugin.error(f"{made.__name__} lacks {', '.join(missing)}")
    opener: Callable[[str], RunStore] = made
    return opener


_opened: dict[str, RunStore] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    global _opened, _lock
    # A forked child must not use the connections of its parent.
    _opened, _lock = {}, threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_after_fork)


def opened(url: str, scheme: str) -> RunStore:
    """Return the store of an address with a scheme, one object in this process.

    Raises:
        InvalidOption: no plugin offers this scheme.
        PluginLoadError: the plugin cannot be loaded, or its store cannot be opened; names the distribution.
    """
    with _lock:
        if url not in _opened:
            _opened[url] = _open(url, scheme)
        return _opened[url]


def _open(url: str, scheme: str) -> RunStore:
    plugins = find("store")
    if scheme not in plugins:
        hint = hidden_hint("store", scheme) or near(scheme, [*plugins, "sqlite", *POSTGRES])
        if not hint:
            known = f"; there are {', '.join(sorted(plugins))}" if plugins else ""
            hint = f"{known}; the path of a file needs no plugin"
        raise InvalidOption(f"store: no plugin offers stores of the kind {scheme}://{hint}")
    plugin = plugins[scheme]
    make = load_plugin(scheme)
    try:
        store: object = make(url)
    except (CouncilError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # noqa: BLE001 - a plugin's constructor may raise anything, SystemExit included
        raise plugin.error(f"{redact(url)} cannot be opened", exc) from strip_secrets(exc)
    if not isinstance(store, RunStore):
        raise plugin.error(f"it returned {type(store).__name__}, not a llm_council.store.RunStore")
    if not hasattr(store, "url"):  # its constructor need not call that of its base
        store.url = url
    return store
