"""The journals of runs: one that writes as a run goes on, and one that tells a run again."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import anyio

from llm_council._runtime import loops
from llm_council.errors import StoreError
from llm_council.errors._secrets import clean
from llm_council.models import Plan, Status
from llm_council.models._journal import Call, Ending
from llm_council.store._recall import Past, Recall
from llm_council.store._records import digest, ending_text, plain_text, text_of
from llm_council.store._writer import Entry, Write, Writer

__all__ = ["ReplayJournal", "RunJournal", "owner"]

TOGETHER: Final = 0.005
"""Seconds for which an answer waits for what comes after it, to be committed with that."""


def owner() -> str:
    """Name this process, to other processes that use the same store."""
    return f"{os.uname().nodename}:{os.getpid()}"


class RunJournal:
    """Write down a run as it goes on. What cannot be written is warned of, and never disturbs the run.

    The run waits for commits before what leaves it: before a call is sent, and before its result is told. Since all is
    written in the order in which it came, every answer that led there is committed, too.

    Args:
        writer: writes into the store.
        plan: what the run sets out to do.
        session: which of the run's processes this is, from 1.
        past: what of the run is in the store already, to be told again.
    """

    def __init__(self, writer: Writer, plan: Plan, *, session: int = 1, past: Past | None = None) -> None:
        self._writer = writer
        self._run, self._session = plan.run_id, session
        self._past = past
        self._recall = Recall(past) if past is not None else None
        self._shift = past.last if past is not None else 0.0
        self._repeated = {name: call.repeats for name, call in past.calls.items() if call.repeats} if past else {}
        self._told: list[tuple[str, float]] = []
        self._noted = self._noting = 0  # of these, committed, and in the transaction that goes on
        self._transaction = 0
        self._losses: int | None = None  # the writer's count when this run was first written: a higher one lost it
        self._fault: StoreError | None = None
        self._notices: list[str] = []
        self._kept: list[Entry] = []  # what waits for what comes after it, to be committed with that
        self._committed: anyio.Event | None = None  # what those wait for whose turn of the loop this is
        self._loop = loops.current()
        writer.live(self._run, session)
        if past is None:
            started = time.time()
            self._keep(Entry(partial(self._begin, plan, started), self._failed, creates=True))

    def record_moment(self, moment: str, now: float) -> float:
        """Return the time of a moment, that of the earlier process where it had it."""
        told = self._recall.at(moment) if self._recall is not None and moment else None
        at = now + self._shift if told is None else told
        if moment:
            self._told.append((moment, at))
        return at

    def record_decision(self, moment: str, *, now: bool) -> bool:
        """Return what was decided: as in the earlier process, if it was."""
        decided = now or (self._recall is not None and self._recall.had(moment))
        if decided:
            self.record_moment(moment, 0.0)
        return decided

    def stored_ending(self, call: Call) -> Ending | None:
        """Return the ending that is in the store."""
        return self._recall.ending(call.name, call.request) if self._recall is not None else None

    async def wait_in_order(self, call: Call) -> None:
        """Wait until what came before an ending has come again."""
        if self._recall is not None:
            await self._recall.turn(call.name)

    async def record_call(self, call: Call) -> None:
        """Write down that a call is about to be made, and return once it is committed."""
        known = self._past.calls.get(call.name) if self._past is not None else None
        if known is not None and known.ending is None:
            self._repeated[call.name] = known.repeats + 1
        repeats = self._repeated.get(call.name, 0)
        await self._written(lambda connection: _ask(connection, self._run, call, repeats, again=known is not None))

    async def record_ending(self, call: Call, ending: Ending) -> None:
        """Write down an ending, with what the run writes next if that comes at once."""
        again = self._past is not None and call.name in self._past.calls
        self._keep(self._entry(lambda connection: _answer(connection, self._run, call, ending, again=again)))

    def warnings(self) -> tuple[str, ...]:
        """Say which calls were made twice, and what the store does not have."""
        faults = () if self._fault is None else (self._words(self._fault),)
        return (*_repeats(self._repeated), *faults)

    async def record_result(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        """Write down the result."""
        known = self._fault is not None
        try:
            await self._written(self._end(status, result))
        finally:
            self._writer.over(self._run, self._session)
        fault = self._fault
        return (*self._notices, *(() if fault is None or known else (self._words(fault),)))

    def record_result_nowait(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        """Write down the result of a run that was cancelled; nobody waits."""
        self._kept.append(self._entry(self._end(status, result)))
        self._hand_over()
        self._writer.over(self._run, self._session)

    def _words(self, fault: StoreError) -> str:
        return f"this run is not stored whole: {fault.message}"

    def _end(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> Callable[[sqlite3.Connection], None]:
        def write(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE runs SET status = ? WHERE id = ?", (str(status), self._run))
            _paper(connection, self._run, "result", plain_text(dict(result())))

        return write

    def _begin(self, plan: Plan, started: float, connection: sqlite3.Connection) -> None:
        """Write down the run itself."""
        self._losses = self._writer.losses
        _begin(connection, plan, started)

    def _entry(self, write: Write) -> Entry:
        """Have something written after the moments before it."""

        def work(connection: sqlite3.Connection) -> None:
            if self._transaction != self._writer.transaction:
                self._note(connection)
                self._transaction = self._writer.transaction
            write(connection)

        return Entry(work, self._done)

    def _keep(self, entry: Entry) -> None:
        """Have an entry committed with what comes after it, if that comes at once."""
        self._kept.append(entry)
        self._loop.after(TOGETHER, self._hand_over)

    async def _written(self, write: Write) -> None:
        """Wait until something is committed, or cannot be, with all that was kept and all else of this turn."""
        self._kept.append(self._entry(write))
        if self._committed is None:
            self._committed = anyio.Event()
            self._loop.after(0.0, self._hand_over)
        await self._committed.wait()

    def _hand_over(self) -> None:
        """Give the writer what was kept."""
        kept, self._kept = self._kept, []
        committed, self._committed = self._committed, None
        if committed is not None:
            kept.append(Entry(_nothing, partial(self._wake, committed)))
        if self._fault is None and kept:
            self._writer.put(*kept)
        elif committed is not None:
            committed.set()

    def _wake(self, committed: anyio.Event, _: StoreError | None) -> None:
        """Tell those who wait, from the writer's thread."""
        self._loop.soon(committed.set)

    def _note(self, connection: sqlite3.Connection) -> None:
        """Write down the moments that are not yet, once in each transaction.

        Raises:
            StoreError: the run is not in this file, or belongs to another process.
        """
        if self._losses is None:  # a resumed run
            self._losses = self._writer.losses
        if self._losses != self._writer.losses:
            raise self._writer.lost()
        told = self._told[self._noted :]
        self._noting = self._noted + len(told)
        if told:
            note = json.dumps(told, separators=(",", ":"))
            mine = connection.execute(_NOTE, (note, self._run, self._session)).rowcount > 0
        else:
            mine = connection.execute(_MINE, (self._run, self._session)).fetchone() is not None
        if not mine:
            raise StoreError(f"the run {self._run}: it was purged, or another process has taken it over")

    def _done(self, fault: StoreError | None) -> None:
        """Take note of a commit, or of why there is none, in the writer's thread."""
        self._failed(fault)
        if fault is None:
            self._noted = self._noting
            if self._writer.notices:
                self._notices.append(self._writer.notices.popleft())

    def _failed(self, fault: StoreError | None) -> None:
        """Take note of a fault, in the writer's thread: nothing more is written of this run."""
        if fault is not None and self._fault is None:
            self._fault = fault


def _nothing(_: sqlite3.Connection) -> None:
    """Write nothing: this entry is there to tell when those before it are committed."""


@cache
def _version() -> str:
    try:
        return version("llm-council-sdk")
    except PackageNotFoundError:
        return "unknown"


# Both find nothing for a run that was purged, or that another process has taken over.
_NOTE = "INSERT INTO moments (told, run, session) SELECT ?, id, session FROM runs WHERE id = ? AND session = ?"
_MINE = "SELECT 1 FROM runs WHERE id = ? AND session = ?"


def _begin(connection: sqlite3.Connection, plan: Plan, started: float) -> None:
    values = (plan.run_id, started, clean(plan.task, limit=200), plan.subagent, _version(), owner(), time.time())
    connection.execute(
        "INSERT INTO runs (id, started, status, task, subagent, version, owner, beat)"
        " VALUES (?, ?, 'running', ?, ?, ?, ?, ?)",
        values,
    )
    _paper(connection, plan.run_id, "plan", text_of(plan))


def _paper(connection: sqlite3.Connection, run: str, kind: str, text: str) -> None:
    connection.execute("INSERT INTO papers (run, kind, text) VALUES (?, ?, ?)", (run, kind, text))


def _ask(connection: sqlite3.Connection, run: str, call: Call, repeats: int, *, again: bool) -> None:
    if again:
        for table in ("calls", "endings"):
            connection.execute(f"DELETE FROM {table} WHERE run = ? AND name = ?", (run, call.name))  # noqa: S608
    values = (run, call.name, call.request.idempotency_key, digest(call.request), repeats)
    connection.execute("INSERT INTO calls (run, name, key, digest, repeats) VALUES (?, ?, ?, ?, ?)", values)


def _answer(connection: sqlite3.Connection, run: str, call: Call, ending: Ending, *, again: bool) -> None:
    if not ending.sent:  # refused before it was made
        _ask(connection, run, call, 0, again=again)
    values = (run, call.name, ending_text(ending))
    connection.execute("INSERT INTO endings (run, name, text) VALUES (?, ?, ?)", values)


def _repeats(repeated: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(
        f"{name.split('/', 1)[1].rpartition('/')[0]} was asked again for its {name.partition('/')[0]}, by the same key:"
        " the first call was in flight when the run was interrupted, and may have been billed"
        for name in sorted(repeated)
    )


class ReplayJournal:
    """Tell a whole run again; nothing is asked, and nothing is written.

    Args:
        past: the run.

    Attributes:
        fault: why the run cannot be told again.
        scope: cancelled then.
    """

    def __init__(self, past: Past) -> None:
        self._past = past
        self._recall = Recall(past)
        self._last = 0.0
        self.fault: StoreError | None = None
        self.scope = anyio.CancelScope()

    def record_moment(self, moment: str, now: float) -> float:
        """Return when a moment came."""
        told = self._recall.at(moment) if moment else None
        if told is not None:
            self._last = told
        return self._last

    def record_decision(self, moment: str, *, now: bool) -> bool:
        """Return what was decided."""
        decided = self._recall.had(moment)
        if decided:
            self._recall.at(moment)
        return decided

    def stored_ending(self, call: Call) -> Ending | None:
        """Return an ending; a call that has none ends the replay."""
        ending = self._recall.ending(call.name, call.request)
        if ending is None:
            known = self._past.calls.get(call.name)
            why = "was never answered" if known is None or known.ending is None else "was asked otherwise"
            self.fault = StoreError(f"the run {self._past.plan.run_id}: {call.name} {why}", kind="diverged")
            self.scope.cancel()
            return Ending(error=self.fault, sent=False)
        return ending

    async def wait_in_order(self, call: Call) -> None:
        """Wait until what came before an ending has come again."""
        if self.fault is not None:
            await anyio.sleep_forever()  # until the scope is cancelled, which it is
        await self._recall.turn(call.name)

    async def record_call(self, call: Call) -> None:
        """Note nothing: nothing is asked."""

    async def record_ending(self, call: Call, ending: Ending) -> None:
        """Note nothing."""

    def warnings(self) -> tuple[str, ...]:
        """Say which calls were made twice."""
        return _repeats({name: call.repeats for name, call in self._past.calls.items() if call.repeats})

    async def record_result(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        """Note nothing."""
        return ()

    def record_result_nowait(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> None:
        """Note nothing."""
