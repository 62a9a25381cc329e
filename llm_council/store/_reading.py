"""What is asked of a store: which runs it has, what became of them, and that they be forgotten."""

from __future__ import annotations

import json
import math
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs

from llm_council.errors import CouncilError, InvalidOption, StoreError
from llm_council.models import Plan, Status
from llm_council.models._convert import load
from llm_council.store._database import connect, transaction, typed
from llm_council.store._journals import owner
from llm_council.store._recall import Past, PastCall
from llm_council.store._records import ending_from
from llm_council.store._writer import BEAT, writer_for

__all__ = ["RunInfo", "StoredCall", "StoredRun", "checked_id", "claimed", "exported", "listed", "opened", "past_of"]

T = TypeVar("T")

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

RUNNING = "running"
INTERRUPTED = "interrupted"


@attrs.frozen(kw_only=True)
class RunInfo:
    """A run, at a glance.

    Attributes:
        run_id: the run.
        started: when, in UTC.
        status: how it ended: a word of ``Status``; ``"running"`` while it goes on, ``"interrupted"`` when its process
            ended before it did.
        task: the beginning of what was asked.
        subagent: the role that was played.
        answered: calls whose ending is in the store.
        in_flight: calls that have none.
        version: the version of llm_council that began it.
    """

    run_id: str
    started: datetime
    status: str
    task: str
    subagent: str
    answered: int
    in_flight: int
    version: str


@attrs.frozen(kw_only=True)
class StoredCall:
    """One call of a stored run.

    Attributes:
        name: phase, seat and number, such as ``"draft/local-1/1"``.
        key: its idempotency key.
        state: ``"answered"``, ``"failed"`` or ``"in flight"``.
        elapsed: seconds; None while it is in flight.
        error: why it failed.
        repeats: how often it was made again because it was in flight when the run was interrupted.
    """

    name: str
    key: str | None
    state: str
    elapsed: float | None = None
    error: str | None = None
    repeats: int = 0


@attrs.frozen(kw_only=True)
class StoredRun:
    """Everything that a store has of a run.

    Attributes:
        info: the run, at a glance.
        plan: what it set out to do.
        calls: its calls, in the order in which they were first made.
        result: what came of it, as ``CouncilResult.to_dict`` gives it; None while there is none.
    """

    info: RunInfo
    plan: Plan
    calls: tuple[StoredCall, ...]
    result: Mapping[str, Any] | None


def checked_id(run_id: str) -> str:
    """Return a run's id, if it is one.

    Raises:
        InvalidOption: it is none.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):  # type: ignore[redundant-expr]
        raise InvalidOption(f"a run's id is 1 to 64 letters, digits, '_' or '-', got {run_id!r:.80}")
    return run_id


def opened(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    """Open the store, do some work with it, and close it.

    Raises:
        StoreError: it cannot be opened or read.
    """
    with closing(connect(path, create=False)) as connection:
        connection.row_factory = sqlite3.Row
        connection.text_factory = _text  # a damaged record is one that cannot be read, and not the end of a list
        try:
            return work(connection)
        except sqlite3.Error as error:
            raise typed(error, path) from None
        except StoreError:
            raise
        except (ValueError, CouncilError) as error:
            why = f"a record cannot be read ({type(error).__name__})"  # its own words would quote the record
            raise StoreError(f"the run store {path}: {why}", kind="corrupt") from None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_RUNS = (
    "SELECT id, started, status, task, subagent, version, session, owner, beat,"
    " (SELECT count(*) FROM endings WHERE run = id) AS answered,"
    " (SELECT count(*) FROM calls WHERE run = id) AS made FROM runs"
)


def listed(connection: sqlite3.Connection, path: Path, limit: int | None) -> tuple[RunInfo, ...]:
    """Return the runs, the latest first."""
    rows = connection.execute(f"{_RUNS} ORDER BY started DESC, id LIMIT ?", (-1 if limit is None else limit,))
    return tuple(_info(row, path) for row in rows)


def _row(connection: sqlite3.Connection, run_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(f"{_RUNS} WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise StoreError(f"no run {run_id} is stored here", kind="unknown-run")
    return row


def _info(row: sqlite3.Row, path: Path) -> RunInfo:
    status = row["status"]
    if status == RUNNING and not _is_alive(row, path):
        status = INTERRUPTED
    return RunInfo(
        run_id=row["id"],
        started=datetime.fromtimestamp(row["started"], UTC),
        status=status,
        task=row["task"],
        subagent=row["subagent"],
        answered=row["answered"],
        in_flight=row["made"] - row["answered"],
        version=row["version"],
    )


def _is_alive(row: sqlite3.Row, path: Path) -> bool:
    """Tell whether the process of a run still works on it: it gives signs of life, and exists where it can be seen."""
    if time.time() - row["beat"] > 3 * BEAT:
        return False
    host, _, process = row["owner"].rpartition(":")
    if row["owner"] == owner():
        return writer_for(path).lives(row["id"], row["session"])
    if host == os.uname().nodename and process.isdigit():
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's, and there
            return True
    return True


def shown(connection: sqlite3.Connection, path: Path, run_id: str) -> StoredRun:
    """Return everything of a run."""
    row = _row(connection, run_id)
    return StoredRun(
        info=_info(row, path),
        plan=load(Plan, _paper(connection, run_id, "plan")),
        calls=tuple(_call(found) for found in _calls(connection, run_id)),
        result=_paper(connection, run_id, "result"),
    )


def _paper(connection: sqlite3.Connection, run_id: str, kind: str) -> Any:
    found = connection.execute("SELECT text FROM papers WHERE run = ? AND kind = ?", (run_id, kind)).fetchone()
    return None if found is None else json.loads(found[0])


_CALLS = (
    "SELECT calls.*, endings.text AS ending, endings.place AS settled FROM calls LEFT JOIN endings"
    " ON endings.run = calls.run AND endings.name = calls.name WHERE calls.run = ? ORDER BY calls.place"
)


def _calls(connection: sqlite3.Connection, run_id: str) -> Sequence[sqlite3.Row]:
    return connection.execute(_CALLS, (run_id,)).fetchall()


def _call(row: sqlite3.Row) -> StoredCall:
    facts = {"name": row["name"], "key": row["key"], "repeats": row["repeats"]}
    if row["ending"] is None:
        return StoredCall(state="in flight", **facts)
    ending = ending_from(row["ending"])
    if ending.error is None:
        return StoredCall(state="answered", elapsed=ending.elapsed, **facts)
    error = f"{type(ending.error).__name__}: {ending.error.message}"
    return StoredCall(state="failed", elapsed=ending.elapsed, error=error, **facts)


def exported(connection: sqlite3.Connection, path: Path, run_id: str) -> dict[str, Any]:
    """Return everything of a run as plain JSON values, its moments and the models' replies included."""
    row = _row(connection, run_id)
    info = _info(row, path)
    calls = [
        {
            "name": call["name"],
            "key": call["key"],
            "digest": call["digest"],
            "repeats": call["repeats"],
            "ending": None if call["ending"] is None else json.loads(call["ending"]),
        }
        for call in _calls(connection, run_id)
    ]
    return {
        "run_id": info.run_id,
        "started": info.started.isoformat(),
        "status": info.status,
        "subagent": info.subagent,
        "version": info.version,
        "session": row["session"],
        "plan": _paper(connection, run_id, "plan"),
        "calls": calls,
        "moments": [{"moment": moment, "at": at} for moment, at in _moments(connection, run_id)[0]],
        "result": _paper(connection, run_id, "result"),
    }


def _moments(connection: sqlite3.Connection, run_id: str) -> tuple[list[tuple[str, float]], float]:
    """Return the moments of the process that came furthest, the latest one among equals, and the last time of all."""
    sessions: dict[int, list[tuple[str, float]]] = {}
    rows = connection.execute("SELECT session, told FROM moments WHERE run = ? ORDER BY place", (run_id,))
    for row in rows:
        told = [(str(moment), float(at)) for moment, at in json.loads(row["told"])]
        sessions.setdefault(row["session"], []).extend(told)
    last = max((at for moments in sessions.values() for _, at in moments), default=0.0)
    furthest = max(sessions, key=lambda session: (len(sessions[session]), session), default=None)
    return ([] if furthest is None else sessions[furthest]), last


def past_of(connection: sqlite3.Connection, run_id: str) -> Past:
    """Return a run as it is to be told again."""
    row = _row(connection, run_id)
    moments, last = _moments(connection, run_id)
    if row["status"] != RUNNING:  # the process that finished it tells the whole of it, however it came there
        mine = connection.execute(
            "SELECT told FROM moments WHERE run = ? AND session = ? ORDER BY place", (run_id, row["session"])
        )
        moments = [(str(moment), float(at)) for told in mine for moment, at in json.loads(told["told"])]
    calls = sorted(_calls(connection, run_id), key=lambda call: call["settled"] or math.inf)
    return Past(
        plan=load(Plan, _paper(connection, run_id, "plan")),
        session=row["session"],
        status=None if row["status"] == RUNNING else Status(row["status"]),
        calls={
            call["name"]: PastCall(
                digest=call["digest"],
                ending=None if call["ending"] is None else ending_from(call["ending"]),
                repeats=call["repeats"],
            )
            for call in calls
        },
        moments=tuple(moments),
        last=last,
    )


def claimed(connection: sqlite3.Connection, path: Path, run_id: str) -> Past:
    """Take a run over from the process that left it, and return it; of two that try, one does.

    Raises:
        StoreError: another process works on it, or has just taken it over.
    """
    with transaction(connection):
        row = _row(connection, run_id)
        if row["status"] == RUNNING and _is_alive(row, path):
            raise StoreError(f"the run {run_id} is running, in the process {row['owner']}", kind="running")
        past = past_of(connection, run_id)
        values = (RUNNING, past.session + 1, owner(), time.time(), run_id)
        connection.execute("UPDATE runs SET status = ?, session = ?, owner = ?, beat = ? WHERE id = ?", values)
        connection.execute("DELETE FROM papers WHERE run = ? AND kind = 'result'", (run_id,))
        writer_for(path).live(run_id, past.session + 1)
    return attrs.evolve(past, session=past.session + 1)


def purged(
    connection: sqlite3.Connection, path: Path, run_ids: Sequence[str], before: datetime | None
) -> tuple[str, ...]:
    """Forget runs, and return which: those that are named, and those that began before a time and do not go on."""
    with transaction(connection):
        rows = [_row(connection, run_id) for run_id in dict.fromkeys(run_ids)]
        for row in rows:
            if row["status"] == RUNNING and _is_alive(row, path):
                raise StoreError(f"the run {row['id']} is running, in the process {row['owner']}", kind="running")
        if before is not None:
            old = connection.execute(f"{_RUNS} WHERE started < ?", (before.timestamp(),))
            rows += [row for row in old if row["status"] != RUNNING or not _is_alive(row, path)]
        gone = tuple(dict.fromkeys(str(row["id"]) for row in rows))
        connection.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in gone])
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        words = "the runs are deleted, but another process still reads what it had of them: purge again later"
        raise StoreError(f"the run store {path}: {words}", kind="locked")
    return gone
