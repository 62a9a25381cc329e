"""A minimal journal, in the same runs as the store's own: the lower limit of what storing a run costs."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from unittest import mock

from llm_council import store
from llm_council.models import Status
from llm_council.models._journal import Call, CallRecord, Journal
from llm_council.store._encoding import encode, request_digest

Rows = Callable[[], list[tuple[str, str]]]
Handed = tuple[asyncio.AbstractEventLoop, asyncio.Future[None], Rows]


class BareJournals:
    """Bare journals, which replace the store's own in work that passes ``with_bare_journal``.

    A thread commits plain rows at the same points as the store, and the run waits for each transaction: calls with a
    digest of their request, and the JSON of replies, before the next calls are sent; the JSON of the result before it
    is returned. Keys are masked in all JSON. Calls of one iteration of the event loop share a transaction. There are no
    typed errors and no heartbeat, and no plan or times from which a run could be resumed or replayed.

    Args:
        file: the path of the database.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._work = queue.SimpleQueue[Handed | None]()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> "BareJournals":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.put(None)
        self._thread.join()

    def with_bare_journal(self, work: Callable[[], Awaitable[float]]) -> Callable[[], Awaitable[float]]:
        """Return work whose runs are recorded by bare journals."""

        async def take() -> float:
            with mock.patch.object(store, "RunJournal", self._journal):
                return await work()

        return take

    def _journal(self, *_: object) -> "_BareJournal":
        return _BareJournal(self._work)

    def _write(self) -> None:
        connection = sqlite3.connect(self._file, isolation_level=None)
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t (a, b);")
        while (handed := self._work.get()) is not None:
            loop, done, rows = handed
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO t VALUES (?, ?)", rows())
            connection.execute("COMMIT")
            loop.call_soon_threadsafe(done.set_result, None)
        connection.close()


class _BareJournal(Journal):
    def __init__(self, work: queue.SimpleQueue[Handed | None]) -> None:
        self._work = work
        self._calls: list[Call] = []
        self._endings: list[tuple[str, CallRecord]] = []
        self._committed: asyncio.Future[None] | None = None

    async def record_call(self, call: Call) -> None:
        self._calls.append(call)
        if self._committed is None:
            loop = asyncio.get_running_loop()
            self._committed = loop.create_future()
            loop.call_soon(self._hand_over, loop, list)
        await self._committed

    async def record_ending(self, call: Call, ending: CallRecord) -> None:
        self._endings.append((call.name, ending))

    async def record_result(self, status: Status, result: Callable[[], Mapping[str, Any]]) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        self._committed = done = loop.create_future()
        self._hand_over(loop, lambda: [("result", encode(result()))])
        await done
        return ()

    def _hand_over(self, loop: asyncio.AbstractEventLoop, last: Rows) -> None:
        calls, endings, done = self._calls, self._endings, self._committed
        self._calls, self._endings, self._committed = [], [], None
        assert done is not None

        def rows() -> list[tuple[str, str]]:
            replies = [(name, encode(ending.response.raw)) for name, ending in endings if ending.response]
            return [*((call.name, request_digest(call.request)) for call in calls), *replies, *last()]

        self._work.put((loop, done, rows))
