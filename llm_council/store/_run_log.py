"""A run as a store of another author keeps it: a head, and a list of records that only grows."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import attrs

from llm_council.errors import StoreError
from llm_council.errors._foreign import message_of, strip_secrets
from llm_council.errors._secrets import clean, redact
from llm_council.models import Plan, Status
from llm_council.models._convert import dump, load
from llm_council.models._journal import Call, CallRecord
from llm_council.store._encoding import (
    decode_ending,
    encode,
    encode_ending,
    encode_files,
    request_digest,
    with_files,
)
from llm_council.store._queries import INTERRUPTED, RUNNING, RunInfo, is_alive, longest, running_error
from llm_council.store._replay import PastCall, PastRun
from llm_council.store._run_journal import BufferedJournal, library_version
from llm_council.store._writer import WriteJob, WriterThread, process_name

__all__ = ["Head", "Log", "LogJournal", "LogWriter", "RunLogs", "as_store_error", "read_head", "read_log"]


MAX_WAIT: Final = 10.0
"""Seconds that a run waits for its store before it goes on without it."""


class RunLogs(Protocol):
    """What ``LogWriter`` needs of a store; ``RunStore`` documents it."""

    def put(self, run_id: str, session: int, head: str, records: Sequence[str], *, expected: int | None) -> bool: ...


@attrs.define(kw_only=True)
class Head:
    """The head of a run: what a list of runs shows, and who works on it. It is rewritten with every record.

    Attributes:
        id: the run's id.
        session: number of the process that works on the run, from 1.
        started: when the run started, in seconds since 1970.
        status: a value of ``Status``, or ``"running"``.
        task: the first 200 characters of the task.
        subagent: the name of the subagent.
        version: the version of this library that started the run.
        owner: the process that works on it.
        beat: when that process was alive the last time, in seconds since 1970.
        made: number of calls.
        answered: number of calls that have ended.
        follows: id of the run that it goes on from; None for a run of its own.
    """

    id: str
    session: int = 1
    started: float
    status: str = RUNNING
    task: str
    subagent: str
    version: str
    owner: str
    beat: float
    made: int = 0
    answered: int = 0
    follows: str | None = None

    def text(self) -> str:
        """Return the head as the text that a store holds; id and session stand beside it."""
        values = attrs.asdict(self, filter=lambda field, _: field.name not in ("id", "session"))
        if self.follows is None:  # earlier versions do not know the field
            del values["follows"]
        return json.dumps(values, separators=(",", ":"))

    def info(self, writer: WriterThread) -> RunInfo:
        """Return the run as a list shows it."""
        status = self.status
        if status == RUNNING and not self.is_alive(writer):
            status = INTERRUPTED
        return RunInfo(
            run_id=self.id,
            started=datetime.fromtimestamp(self.started, UTC),
            status=status,
            task=self.task,
            subagent=self.subagent,
            answered=self.answered,
            in_flight=self.made - self.answered,
            version=self.version,
            follows=self.follows,
        )

    def is_alive(self, writer: WriterThread) -> bool:
        """Return True if a process works on the run."""
        return self.status == RUNNING and is_alive(attrs.asdict(self), writer, time.time())

    def running_error(self) -> StoreError:
        """Return the error about a run that another process works on."""
        return running_error(self.id, self.owner, self.started if self.session == 1 else None)


def read_head(run_id: str, session: int, text: str) -> Head:
    """Return the head of a run."""
    return Head(id=run_id, session=session, **json.loads(text))


@attrs.define
class Log:
    """The records of a run, read.

    Attributes:
        plan: its plan, as plain JSON values.
        calls: its calls by name, in the order in which they were first made, with the columns of the table ``calls``
            and ``ending``, a text or None.
        ended: the names of the calls that ended, in the order of their ends.
        moments: the moments of each session.
        result: its result, as plain JSON values; None if there is none yet.
        files: its attached images, documents and sound in base64, by their hash.
    """

    plan: Any = None
    calls: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    ended: list[str] = attrs.field(factory=list)
    moments: dict[int, list[tuple[str, float]]] = attrs.field(factory=dict)
    result: Any = None
    files: dict[str, str] = attrs.field(factory=dict)

    def past(self, head: Head) -> PastRun:
        """Return the run for a replay or for resuming it."""
        # The session that finished a run replayed all moments of the earlier ones, too.
        moments = longest(self.moments) if head.status == RUNNING else self.moments.get(head.session, [])
        names = [*self.ended, *(name for name, call in self.calls.items() if call["ending"] is None)]
        return PastRun(
            plan=with_files(load(Plan, self.plan), self.files),
            session=head.session,
            status=None if head.status == RUNNING else Status(head.status),
            calls={name: _past_call(self.calls[name]) for name in names},
            moments=tuple(moments),
            last=max((at for session in self.moments.values() for _, at in session), default=0.0),
        )


def _past_call(call: Mapping[str, Any]) -> PastCall:
    ending = None if call["ending"] is None else decode_ending(call["ending"])
    return PastCall(digest=call["digest"], ending=ending, repeats=call["repeats"])


def read_log(records: Sequence[str]) -> Log:
    """Read the records of a run, in order."""
    log = Log()
    for text in records:
        kind, value = json.loads(text)
        if kind == "plan":
            log.plan = value
        elif kind == "file":
            log.files[value[0]] = value[1]
        elif kind == "call":
            log.calls.pop(value["name"], None)  # made again: its first ending does not count
            log.ended = [name for name in log.ended if name != value["name"]]
            log.calls[value["name"]] = {**value, "ending": None}
        elif kind == "ending":
            log.calls[value["name"]]["ending"] = value["text"]
            log.ended.append(value["name"])
        elif kind == "moments":
            moments = log.moments.setdefault(value["session"], [])
            moments += [(str(moment), float(at)) for moment, at in value["told"]]
        elif kind == "claimed":
            log.result = None
        elif kind == "result":
            log.result = value
    return log


class Batch:
    """The records of the jobs that are written together, by run."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self.records: dict[str, list[str]] = {}
        self.run: str | None = None  # the run of the job that is being written

    def add(self, run_id: str, kind: str, value: Any) -> None:
        """Add a record to a run, with secrets masked."""
        self._append(run_id, encode([kind, value]))

    def add_file(self, run_id: str, sha256: str, text: str) -> None:
        """Add an attached file in base64 as it is; see ``encode_files``."""
        self._append(run_id, json.dumps(["file", [sha256, text]]))

    def _append(self, run_id: str, record: str) -> None:
        self.run = run_id
        self.records.setdefault(run_id, []).append(record)


class LogWriter(WriterThread):
    """The thread that writes to a store of another author, for each run the records that wait together.

    Args:
        store: the store.

    Attributes:
        store: the store.
        heads: the heads of the runs that this process works on.
    """

    def __init__(self, store: RunLogs) -> None:
        super().__init__(store)
        self.max_wait = MAX_WAIT
        self.store = store
        self.heads: dict[str, Head] = {}
        self._stored: set[str] = set()  # runs whose heads are in the store

    def begin(self, head: Head, *, stored: bool) -> None:
        """Take up a run; ``stored`` is True for one that is resumed."""
        self.heads[head.id] = head
        if stored:
            self._stored.add(head.id)

    def _commit(self, batch: list[WriteJob]) -> None:
        target = Batch(self)
        self.transaction += 1
        outcomes: list[tuple[WriteJob, str | None, StoreError | None]] = []
        for job in batch:
            target.run, error = None, None
            try:
                job.write(target)
            except Exception as exc:  # noqa: BLE001 - a record of a third-party adapter may fail to encode in any way
                error = as_store_error(exc, self.store)
            outcomes.append((job, target.run, error))
        failed = {run_id: error for run_id in target.records if (error := self._put(run_id, target)) is not None}
        for job, run_id, error in outcomes:
            job.on_done(error or failed.get(run_id or ""))

    def _put(self, run_id: str, target: Batch) -> StoreError | None:
        head = self.heads[run_id]
        expected = head.session if run_id in self._stored else None
        records = target.records[run_id]
        error: StoreError | None = None
        try:
            head.beat = time.time()
            if self.store.put(run_id, head.session, head.text(), records, expected=expected):
                self._stored.add(run_id)
            else:
                error = StoreError(f"the run {run_id}: it was purged, or another process has taken it over")
        except Exception as exc:  # noqa: BLE001 - the store of another author may raise anything
            error = as_store_error(exc, self.store)
        self.progress += 1
        # Nothing follows a result, nor a record that was not stored; a heartbeat may fail.
        if head.status != RUNNING or (error is not None and records):
            self.heads.pop(run_id, None)
            self._stored.discard(run_id)
        return error

    def _close(self) -> None:
        """Do nothing: the store keeps its connections."""

    def _write_heartbeats(self, target: Batch) -> None:
        with self._lock:
            runs = [run_id for run_id, _ in self._runs if run_id in self._stored]
        for run_id in runs:
            target.records.setdefault(run_id, [])


class LogJournal(BufferedJournal):
    """The journal of a run in a store of another author."""

    def __init__(self, writer: LogWriter, plan: Plan, head: Head | None = None, past: PastRun | None = None) -> None:
        now = time.time()
        if head is None:
            task = clean(plan.task, limit=200)
            head = Head(
                id=plan.run_id,
                started=now,
                task=task,
                subagent=plan.subagent,
                version=library_version(),
                owner=process_name(),
                beat=now,
                follows=plan.follows,
            )
        self._head = head
        self._store = writer.store
        writer.begin(head, stored=past is not None)
        super().__init__(writer, plan, session=head.session, past=past)

    def _write_moments(self, target: Batch) -> None:
        moments = self._uncommitted_moments()
        if moments:
            target.add(self._run, "moments", {"session": self._session, "told": moments})

    def _write_run(self, plan: Plan, started: float, target: Batch) -> None:
        target.add(self._run, "plan", dump(plan))
        for sha256, text in encode_files(plan).items():
            target.add_file(self._run, sha256, text)

    def _write_call(self, call: Call, repeats: int, target: Batch) -> None:
        key, digest = call.request.idempotency_key, request_digest(call.request)
        target.add(self._run, "call", {"name": call.name, "key": key, "digest": digest, "repeats": repeats})
        self._count(call.name, made=True)

    def _write_ending(self, call: Call, ending: CallRecord, target: Batch) -> None:
        if not ending.sent:  # ``record_call`` was never called
            self._write_call(call, 0, target)
        target.add(self._run, "ending", {"name": call.name, "text": encode_ending(ending)})
        self._count(call.name, made=False)

    def _write_result(self, status: Status, result: Any, target: Batch) -> None:
        target.add(self._run, "result", dict(result()))
        self._head.status = str(status)

    def _count(self, name: str, *, made: bool) -> None:
        past = self._past_calls.get(name)
        if made and past is None:
            self._head.made += 1
        elif made and past is not None and past.ending is not None:  # its ending is dropped with it
            self._head.answered -= 1
        elif not made:
            self._head.answered += 1


def as_store_error(exc: Exception, store: object) -> StoreError:
    """Return the ``StoreError`` for what a store of another author, or the encoding of a record, raised."""
    if isinstance(exc, StoreError):
        return exc
    error = StoreError(redact(f"the run store {store}: {type(exc).__name__}: {message_of(exc)}"))
    error.__cause__ = strip_secrets(exc)
    return error
