"""The queries of ``Store``: list, show, export, replay, claim, purge and copy runs."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from llm_council.errors import CouncilError, InvalidOption, StoreError
from llm_council.models import Plan, Status
from llm_council.models._convert import load
from llm_council.store._database import Connection, Database
from llm_council.store._encoding import FILE, decode_ending, encode, with_files
from llm_council.store._replay import PastCall, PastRun
from llm_council.store._writer import HEARTBEAT, WriterThread, works_on

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
    "read",
    "read_rows",
    "running_error",
    "show_run",
    "stored_call",
    "with_connection",
    "write_paper",
    "write_rows",
]

T = TypeVar("T")
Moments: TypeAlias = list[tuple[str, float]]

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

LEASE: Final = 3 * HEARTBEAT
"""Seconds after its last heartbeat until another process may take a run over."""

RUNNING = "running"
INTERRUPTED = "interrupted"
HOLDER = "holder"
"""The kind of the paper that says since when a process works on a run that it has taken over."""

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


def read(database: Database, work: Callable[[Connection], T]) -> T:
    """Open the store, return the value of ``work``, which only reads, and close the store.

    Raises:
        StoreError: the store cannot be opened or read.
    """

    def reading(connection: Connection) -> T:
        with connection.reading():
            return work(connection)

    return with_connection(database, reading)


def with_connection(database: Database, work: Callable[[Connection], T], *, create: bool = False) -> T:
    """Open the store, return the value of ``work``, and close the store.

    Args:
        database: the store.
        work: called with the connection.
        create: create the store if it does not exist.

    Raises:
        StoreError: the store cannot be opened, read or written to.
    """
    with closing(database.connect(create=create)) as connection:
        try:
            return work(connection)
        except StoreError:
            raise
        except (ValueError, CouncilError) as error:
            # The message of ``error`` would quote the record.
            reason = f"a record cannot be read ({type(error).__name__})"
            raise StoreError(f"the run store {database.shown}: {reason}", kind="corrupt") from None
        except database.errors as error:
            raise database.as_store_error(error) from None


_RUNS = (
    "SELECT id, started, status, task, subagent, version, session, owner, beat, follows,"
    " (SELECT count(*) FROM {endings} WHERE run = id) AS answered,"
    " (SELECT count(*) FROM {calls} WHERE run = id) AS made FROM {runs}"
)


def list_runs(connection: Connection, writer: WriterThread, limit: int | None) -> tuple[RunInfo, ...]:
    """Return the runs, the latest first."""
    latest = f"{_RUNS} ORDER BY started DESC, id"
    rows = connection.execute(latest) if limit is None else connection.execute(f"{latest} LIMIT ?", (limit,))
    now = connection.now()
    return tuple(_info(row, writer, now) for row in rows.fetchall())


def find_run(connection: Connection, run: str) -> str:
    """Return the id of a run; see ``choose_run``."""
    # ``substr``, not LIKE, in which "_" stands for any character.
    rows = connection.execute(
        "SELECT id FROM {runs} WHERE substr(id, 1, ?) = ? ORDER BY started DESC, id", (len(run), run)
    ).fetchall()
    latest = connection.execute("SELECT id FROM {runs} ORDER BY started DESC, id LIMIT 1").fetchone()
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


def _row(connection: Connection, run_id: str, *, lock: bool = False) -> Any:
    """Return the row of a run, with the numbers of its calls and of those that have ended."""
    row = connection.execute(f"{_RUNS} WHERE id = ?{'{lock}' if lock else ''}", (run_id,)).fetchone()
    if row is None:
        raise StoreError(f"no run {run_id} is stored here", kind="unknown-run")
    return row


def _info(row: Any, writer: WriterThread, now: float) -> RunInfo:
    status = row["status"]
    if status == RUNNING and not is_alive(row, writer, now):
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


def is_alive(row: Mapping[str, Any], writer: WriterThread, now: float) -> bool:
    """Return True if the run's process has sent a heartbeat lately and, on this host, still exists.

    Args:
        row: the run's ``id``, ``session``, ``owner`` and ``beat``.
        writer: the writer of its store in this process.
        now: the time by the clock by which ``beat`` was written.
    """
    if now - row["beat"] > LEASE:
        return False
    host, _, process = row["owner"].rpartition(":")
    if row["owner"] == writer.owner():
        return works_on(row["id"], row["session"])
    # On Windows, signal 0 is Ctrl-C: there, the heartbeat alone decides.
    if host == writer.owner().rpartition(":")[0] and process.isdigit() and hasattr(os, "killpg"):
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it exists, and belongs to another user
            return True
    return True


def running_error(run_id: str, owner: str, since: float | None) -> StoreError:
    """Return the error about a run that another process works on.

    Args:
        run_id: the run.
        owner: the process, as ``runs.owner`` names it.
        since: when it began to work on the run, in seconds since 1970; None if that is unknown.
    """
    host, _, process = owner.rpartition(":")
    host = host.partition("/")[0]  # without what ``owner_on`` adds
    when = "" if since is None else f" since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return StoreError(
        f"the run {run_id} is running, in the process {process} on the host {host}{when}: wait for its end, or end that"
        f" process; a run whose process has ended can be resumed after {LEASE:g} s at most",
        kind="running",
    )


def show_run(connection: Connection, writer: WriterThread, run_id: str) -> StoredRun:
    """Return a stored run."""
    row = _row(connection, run_id)
    return StoredRun(
        info=_info(row, writer, connection.now()),
        plan=load(Plan, _paper(connection, run_id, "plan")),
        calls=tuple(stored_call(found) for found in _calls(connection, run_id)),
        result=_paper(connection, run_id, "result"),
    )


def _paper(connection: Connection, run_id: str, kind: str) -> Any:
    """Return the plan, the result or the holder of a run as JSON values; None if it is not stored."""
    found = connection.execute("SELECT text FROM {papers} WHERE run = ? AND kind = ?", (run_id, kind)).fetchone()
    return None if found is None else json.loads(found["text"])


def _files(connection: Connection, run_id: str) -> dict[str, str]:
    """Return the attached files of a run in base64, by their hash."""
    rows = connection.execute(
        "SELECT kind, text FROM {papers} WHERE run = ? AND kind LIKE ?", (run_id, f"{FILE}%")
    ).fetchall()
    return {row["kind"].removeprefix(FILE): row["text"] for row in rows}


_CALLS = (
    "SELECT {calls}.*, {endings}.text AS ending, {endings}.place AS settled FROM {calls} LEFT JOIN {endings}"
    " ON {endings}.run = {calls}.run AND {endings}.name = {calls}.name WHERE {calls}.run = ? ORDER BY {calls}.place"
)


def _calls(connection: Connection, run_id: str) -> Sequence[Any]:
    return connection.execute(_CALLS, (run_id,)).fetchall()


def stored_call(row: Mapping[str, Any]) -> StoredCall:
    """Return a call of its row; ``ending`` is the text of ``encode_ending``, or None."""
    facts = {"name": row["name"], "key": row["key"], "repeats": row["repeats"]}
    if row["ending"] is None:
        return StoredCall(state="in flight", **facts)
    ending = decode_ending(row["ending"])
    if ending.error is None:
        return StoredCall(state="answered", elapsed=ending.elapsed, **facts)
    error = f"{type(ending.error).__name__}: {ending.error.message}"
    return StoredCall(state="failed", elapsed=ending.elapsed, error=error, **facts)


def export_run(connection: Connection, writer: WriterThread, run_id: str) -> dict[str, Any]:
    """Return a stored run as plain JSON values, with its moments and the vendors' replies."""
    row = _row(connection, run_id)
    info = _info(row, writer, connection.now())
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


def _moments(connection: Connection, run_id: str) -> dict[int, Moments]:
    """Return the moments of each session of a run, in order."""
    sessions: dict[int, Moments] = {}
    rows = connection.execute("SELECT session, told FROM {moments} WHERE run = ? ORDER BY place", (run_id,))
    for row in rows:
        moments = sessions.setdefault(row["session"], [])
        moments += [(str(moment), float(at)) for moment, at in json.loads(row["told"])]
    return sessions


def longest(sessions: dict[int, Moments]) -> Moments:
    """Return the moments of the session that came furthest; of equals, the latest."""
    furthest = max(sessions, key=lambda session: (len(sessions[session]), session), default=None)
    return [] if furthest is None else sessions[furthest]


def past_run(connection: Connection, run_id: str) -> PastRun:
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


def claim(connection: Connection, writer: WriterThread, run_id: str) -> PastRun:
    """Take over a run whose process has ended, and return it. Only one process at a time can.

    The holder of a run is its row: the process, the time of its last heartbeat, and the number of its session. Each
    write checks that number, so a process that was suspended for longer than ``LEASE`` writes nothing after it.

    Raises:
        StoreError: another process works on the run.
    """
    session = None
    try:
        with connection.transaction():
            row = _row(connection, run_id, lock=True)
            now = connection.now()
            _refuse_running(connection, row, writer, now)
            past = past_run(connection, run_id)
            values = (RUNNING, past.session + 1, writer.owner(), now, run_id)
            connection.execute("UPDATE {runs} SET status = ?, session = ?, owner = ?, beat = ? WHERE id = ?", values)
            connection.execute("DELETE FROM {papers} WHERE run = ? AND kind IN (?, ?)", (run_id, "result", HOLDER))
            write_paper(connection, run_id, HOLDER, {"session": past.session + 1, "since": now})
            session = past.session + 1
            writer.add_run(run_id, session)  # before the commit, or another thread would find the run without a process
    except BaseException:
        if session is not None:
            writer.remove_run(run_id, session)
        raise
    return attrs.evolve(past, session=session)


def _refuse_running(connection: Connection, row: Any, writer: WriterThread, now: float) -> None:
    """Raise if a process works on a run."""
    if row["status"] != RUNNING or not is_alive(row, writer, now):
        return
    holder = _paper(connection, row["id"], HOLDER)
    raise running_error(row["id"], row["owner"], holder["since"] if holder else row["started"])


def write_paper(connection: Connection, run_id: str, kind: str, value: Any) -> None:
    """Store the plan, the result or the holder of a run."""
    connection.execute("INSERT INTO {papers} (run, kind, text) VALUES (?, ?, ?)", (run_id, kind, encode(value)))


def purge(
    connection: Connection, writer: WriterThread, run_ids: Sequence[str], before: datetime | None
) -> tuple[str, ...]:
    """Delete the named runs, and all runs that started before a time and have ended; return their ids."""
    with connection.transaction():
        now = connection.now()
        rows = [_row(connection, run_id) for run_id in dict.fromkeys(run_ids)]
        for row in rows:
            _refuse_running(connection, row, writer, now)
        if before is not None:
            old = connection.execute(f"{_RUNS} WHERE started < ?", (before.timestamp(),)).fetchall()
            rows += [row for row in old if row["status"] != RUNNING or not is_alive(row, writer, now)]
        gone = []
        for run_id, session in {row["id"]: row["session"] for row in rows}.items():
            # A run that another process takes over at this moment has another session.
            deleted = connection.execute("DELETE FROM {runs} WHERE id = ? AND session = ?", (run_id, session)).rowcount
            if deleted:
                gone.append(run_id)
    connection.after_purge()
    return tuple(gone)


_COLUMNS: Final = {
    "runs": ("id", "started", "status", "task", "subagent", "version", "session", "owner", "beat", "follows"),
    "papers": ("run", "kind", "text"),
    "calls": ("run", "name", "key", "digest", "repeats"),
    "endings": ("run", "name", "text"),
    "moments": ("run", "told", "session"),
}
"""The columns of each table that make up a run; ``place`` counts the rows of a store, and is not among them."""


def read_rows(connection: Connection, writer: WriterThread, run_id: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of a run by table, to be written into another store.

    Raises:
        StoreError: there is no such run, or a process works on it.
    """
    _refuse_running(connection, _row(connection, run_id), writer, connection.now())
    found = {}
    for table, columns in _COLUMNS.items():
        where, order = ("id", "id") if table == "runs" else ("run", "place")
        statement = f"SELECT {', '.join(columns)} FROM {{{table}}} WHERE {where} = ? ORDER BY {order}"  # noqa: S608
        rows = connection.execute(statement, (run_id,)).fetchall()
        found[table] = [tuple(row[column] for column in columns) for row in rows]
    return found


def write_rows(connection: Connection, rows: Mapping[str, Sequence[tuple[Any, ...]]]) -> bool:
    """Write the rows of ``read_rows`` in one transaction; return False, and write nothing, if the run is stored."""
    ((run_id, *_),) = rows["runs"]
    with connection.transaction():
        if connection.execute("SELECT id FROM {runs} WHERE id = ?", (run_id,)).fetchone():
            return False
        for table, columns in _COLUMNS.items():
            marks = ", ".join("?" * len(columns))
            statement = f"INSERT INTO {{{table}}} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
            connection.executemany(statement, rows[table])
    return True
