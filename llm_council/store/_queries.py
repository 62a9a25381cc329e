"""The queries of ``Store``: list, show, export, replay, claim and purge runs."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import attrs

from llm_council.errors import CouncilError, InvalidOption, StoreError
from llm_council.models import Plan, Status
from llm_council.models._convert import load
from llm_council.store._database import as_store_error, connect, transaction
from llm_council.store._encoding import FILE, decode_ending, with_files
from llm_council.store._replay import PastCall, PastRun
from llm_council.store._writer import HEARTBEAT, WriterThread, process_name, writer_for

__all__ = [
    "RunInfo",
    "StoredCall",
    "StoredRun",
    "checked_id",
    "choose_run",
    "claim",
    "export_run",
    "is_alive",
    "list_runs",
    "longest",
    "past_run",
    "purge",
    "show_run",
    "stored_call",
    "with_connection",
]

T = TypeVar("T")
Moments: TypeAlias = list[tuple[str, float]]

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

RUNNING = "running"
INTERRUPTED = "interrupted"
LAST = "last"
"""The name of the run that started last."""


@attrs.frozen(kw_only=True)
class RunInfo:
    """A run in the list of runs.

    Attributes:
        run_id: the id of the run.
        started: when it started, in UTC.
        status: a value of ``Status``; ``"running"`` while the run goes on, ``"interrupted"`` if its process ended
            before the run did.
        task: the first 200 characters of the task.
        subagent: the name of the subagent.
        answered: number of calls that have ended.
        in_flight: number of calls that have not ended.
        version: the version of llm_council that started the run.
        follows: id of the run that it goes on from; None for a run of its own. That run may have been purged.
    """

    run_id: str
    started: datetime
    status: str
    task: str
    subagent: str
    answered: int
    in_flight: int
    version: str
    follows: str | None = None


@attrs.frozen(kw_only=True)
class StoredCall:
    """One call of a stored run.

    Attributes:
        name: phase, seat and number, such as ``"draft/local-1/1"``.
        key: its idempotency key.
        state: ``"answered"``, ``"failed"`` or ``"in flight"``.
        elapsed: seconds; None while it is in flight.
        error: type and message of the error of a failed call.
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
    """A stored run.

    Attributes:
        info: the run as it is listed.
        plan: its plan.
        calls: its calls, in the order in which they were first made.
        result: the result as ``CouncilResult.to_dict`` returns it; None if there is none yet.
    """

    info: RunInfo
    plan: Plan
    calls: tuple[StoredCall, ...]
    result: Mapping[str, Any] | None


def checked_id(run_id: str) -> str:
    """Return a run id.

    Raises:
        InvalidOption: it is not a valid run id.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):  # type: ignore[redundant-expr]
        raise InvalidOption(f"a run's id is 1 to 64 letters, digits, '_' or '-', got {run_id!r:.80}")
    return run_id


def with_connection(path: Path, work: Callable[[sqlite3.Connection], T]) -> T:
    """Open the store, call ``work`` with the connection, close the store, and return the value of ``work``.

    Raises:
        StoreError: the store cannot be opened or read.
    """
    with closing(connect(path, create=False)) as connection:
        connection.row_factory = sqlite3.Row
        # A damaged text must not end the list of runs.
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            return work(connection)
        except sqlite3.Error as error:
            raise as_store_error(error, path) from None
        except StoreError:
            raise
        except (ValueError, CouncilError) as error:
            # The message of ``error`` would quote the record.
            reason = f"a record cannot be read ({type(error).__name__})"
            raise StoreError(f"the run store {path}: {reason}", kind="corrupt") from None


_RUNS = (
    "SELECT id, started, status, task, subagent, version, session, owner, beat, follows,"
    " (SELECT count(*) FROM endings WHERE run = id) AS answered,"
    " (SELECT count(*) FROM calls WHERE run = id) AS made FROM runs"
)


def list_runs(connection: sqlite3.Connection, path: Path, limit: int | None) -> tuple[RunInfo, ...]:
    """Return the runs, the latest first."""
    rows = connection.execute(f"{_RUNS} ORDER BY started DESC, id LIMIT ?", (-1 if limit is None else limit,))
    return tuple(_info(row, path) for row in rows)


def find_run(connection: sqlite3.Connection, run: str) -> str:
    """Return the id of a run; see ``choose_run``."""
    # ``substr``, not LIKE, in which "_" stands for any character.
    rows = connection.execute(
        "SELECT id FROM runs WHERE substr(id, 1, ?) = ? ORDER BY started DESC, id", (len(run), run)
    ).fetchall()
    latest = connection.execute("SELECT id FROM runs ORDER BY started DESC, id LIMIT 1").fetchone()
    return choose_run(run, [row["id"] for row in rows], latest["id"] if latest else None)


def choose_run(run: str, found: Sequence[str], latest: str | None) -> str:
    """Return the id of a run that is named by its id, by the beginning of its id, or by ``"last"``.

    Args:
        run: the name.
        found: the ids that begin with it, the latest first.
        latest: the id of the run that started last; None if there is none.

    Raises:
        StoreError: there is no such run, or several begin like this.
    """
    if run in found or len(found) == 1:
        return run if run in found else found[0]
    if found:
        listed = f"{', '.join(found[:5])}{', ...' if len(found) > 5 else ''}"
        raise StoreError(f"{len(found)} runs begin with {run}: {listed}; give more of the id", kind="unknown-run")
    if run == LAST:
        if latest is None:
            raise StoreError("no run is stored here yet", kind="unknown-run")
        return latest
    raise StoreError(f"no run {run} is stored here; `council runs list` lists them", kind="unknown-run")


def _row(connection: sqlite3.Connection, run_id: str) -> sqlite3.Row:
    """Return the row of a run, with the numbers of its calls and of those that have ended."""
    row: sqlite3.Row | None = connection.execute(f"{_RUNS} WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise StoreError(f"no run {run_id} is stored here", kind="unknown-run")
    return row


def _info(row: sqlite3.Row, path: Path) -> RunInfo:
    status = row["status"]
    if status == RUNNING and not is_alive(row, writer_for(path)):
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
        follows=row["follows"],
    )


def is_alive(row: sqlite3.Row | Mapping[str, Any], writer: WriterThread) -> bool:
    """Return True if the run's process has sent a heartbeat lately and, on this host, still exists."""
    if time.time() - row["beat"] > 3 * HEARTBEAT:
        return False
    host, _, process = row["owner"].rpartition(":")
    if row["owner"] == process_name():
        return writer.has_run(row["id"], row["session"])
    # On Windows, signal 0 is Ctrl-C: there, the heartbeat alone decides.
    if host == platform.node() and process.isdigit() and hasattr(os, "killpg"):
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it exists, and belongs to another user
            return True
    return True


def show_run(connection: sqlite3.Connection, path: Path, run_id: str) -> StoredRun:
    """Return a stored run."""
    row = _row(connection, run_id)
    return StoredRun(
        info=_info(row, path),
        plan=load(Plan, _paper(connection, run_id, "plan")),
        calls=tuple(stored_call(found) for found in _calls(connection, run_id)),
        result=_paper(connection, run_id, "result"),
    )


def _paper(connection: sqlite3.Connection, run_id: str, kind: str) -> Any:
    """Return the plan or the result of a run as JSON values; None if it is not stored."""
    found = connection.execute("SELECT text FROM papers WHERE run = ? AND kind = ?", (run_id, kind)).fetchone()
    return None if found is None else json.loads(found[0])


def _files(connection: sqlite3.Connection, run_id: str) -> dict[str, str]:
    """Return the attached files of a run in base64, by their hash."""
    rows = connection.execute(
        "SELECT kind, text FROM papers WHERE run = ? AND kind LIKE ?", (run_id, f"{FILE}%")
    ).fetchall()
    return {kind.removeprefix(FILE): text for kind, text in rows}


_CALLS = (
    "SELECT calls.*, endings.text AS ending, endings.place AS settled FROM calls LEFT JOIN endings"
    " ON endings.run = calls.run AND endings.name = calls.name WHERE calls.run = ? ORDER BY calls.place"
)


def _calls(connection: sqlite3.Connection, run_id: str) -> Sequence[sqlite3.Row]:
    return connection.execute(_CALLS, (run_id,)).fetchall()


def stored_call(row: sqlite3.Row | Mapping[str, Any]) -> StoredCall:
    """Return a call of its row; ``ending`` is the text of ``encode_ending``, or None."""
    facts = {"name": row["name"], "key": row["key"], "repeats": row["repeats"]}
    if row["ending"] is None:
        return StoredCall(state="in flight", **facts)
    ending = decode_ending(row["ending"])
    if ending.error is None:
        return StoredCall(state="answered", elapsed=ending.elapsed, **facts)
    error = f"{type(ending.error).__name__}: {ending.error.message}"
    return StoredCall(state="failed", elapsed=ending.elapsed, error=error, **facts)


def export_run(connection: sqlite3.Connection, path: Path, run_id: str) -> dict[str, Any]:
    """Return a stored run as plain JSON values, with its moments and the vendors' replies."""
    row = _row(connection, run_id)
    info = _info(row, path)
    moments = longest(_moments(connection, run_id))
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
        "follows": info.follows,
        "session": row["session"],
        "plan": _paper(connection, run_id, "plan"),
        "calls": calls,
        "moments": [{"moment": moment, "at": at} for moment, at in moments],
        "result": _paper(connection, run_id, "result"),
    }


def _moments(connection: sqlite3.Connection, run_id: str) -> dict[int, Moments]:
    """Return the moments of each session of a run, in order."""
    sessions: dict[int, Moments] = {}
    rows = connection.execute("SELECT session, told FROM moments WHERE run = ? ORDER BY place", (run_id,))
    for row in rows:
        moments = sessions.setdefault(row["session"], [])
        moments += [(str(moment), float(at)) for moment, at in json.loads(row["told"])]
    return sessions


def longest(sessions: dict[int, Moments]) -> Moments:
    """Return the moments of the session that came furthest; of equals, the latest."""
    furthest = max(sessions, key=lambda session: (len(sessions[session]), session), default=None)
    return [] if furthest is None else sessions[furthest]


def past_run(connection: sqlite3.Connection, run_id: str) -> PastRun:
    """Return a stored run for a replay or for resuming it."""
    row = _row(connection, run_id)
    sessions = _moments(connection, run_id)
    # The session that finished a run replayed all moments of the earlier ones, too.
    moments = longest(sessions) if row["status"] == RUNNING else sessions.get(row["session"], [])
    calls = sorted(_calls(connection, run_id), key=lambda call: call["settled"] or math.inf)
    return PastRun(
        plan=with_files(load(Plan, _paper(connection, run_id, "plan")), _files(connection, run_id)),
        session=row["session"],
        status=None if row["status"] == RUNNING else Status(row["status"]),
        calls={
            call["name"]: PastCall(
                digest=call["digest"],
                ending=None if call["ending"] is None else decode_ending(call["ending"]),
                repeats=call["repeats"],
            )
            for call in calls
        },
        moments=tuple(moments),
        last=max((at for session in sessions.values() for _, at in session), default=0.0),
    )


def claim(connection: sqlite3.Connection, path: Path, run_id: str) -> PastRun:
    """Take over a run whose process has ended, and return it. Only one process at a time can.

    Raises:
        StoreError: another process works on the run.
    """
    with transaction(connection):
        row = _row(connection, run_id)
        if row["status"] == RUNNING and is_alive(row, writer_for(path)):
            raise StoreError(f"the run {run_id} is running, in the process {row['owner']}", kind="running")
        past = past_run(connection, run_id)
        values = (RUNNING, past.session + 1, process_name(), time.time(), run_id)
        connection.execute("UPDATE runs SET status = ?, session = ?, owner = ?, beat = ? WHERE id = ?", values)
        connection.execute("DELETE FROM papers WHERE run = ? AND kind = 'result'", (run_id,))
        writer_for(path).add_run(run_id, past.session + 1)
    return attrs.evolve(past, session=past.session + 1)


def purge(
    connection: sqlite3.Connection, path: Path, run_ids: Sequence[str], before: datetime | None
) -> tuple[str, ...]:
    """Delete the named runs, and all runs that started before a time and have ended; return their ids."""
    with transaction(connection):
        rows = [_row(connection, run_id) for run_id in dict.fromkeys(run_ids)]
        for row in rows:
            if row["status"] == RUNNING and is_alive(row, writer_for(path)):
                raise StoreError(f"the run {row['id']} is running, in the process {row['owner']}", kind="running")
        if before is not None:
            old = connection.execute(f"{_RUNS} WHERE started < ?", (before.timestamp(),))
            rows += [row for row in old if row["status"] != RUNNING or not is_alive(row, writer_for(path))]
        gone = tuple(dict.fromkeys(str(row["id"]) for row in rows))
        connection.executemany("DELETE FROM runs WHERE id = ?", [(run_id,) for run_id in gone])
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        reason = "the runs are deleted, but the log still holds them while another process reads: purge again later"
        raise StoreError(f"the run store {path}: {reason}", kind="locked")
    return gone
