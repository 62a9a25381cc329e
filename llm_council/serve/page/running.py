"""Runs that the page has started. They go on in the server, whether a browser looks or not."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import itemgetter
from typing import Any, Final, TypeAlias

import anyio
import attrs
from anyio.abc import TaskGroup, TaskStatus

from llm_council._engine import resume
from llm_council.council import Council
from llm_council.errors import CouncilError
from llm_council.errors._secrets import redact
from llm_council.events import AnyEvent, Event, RunStarted, listening
from llm_council.models import Budget, Phase, Plan
from llm_council.results import CouncilResult
from llm_council.serve.access import Key
from llm_council.serve.chat import RequestRefused
from llm_council.serve.page.board import Board, Card, Words
from llm_council.serve.page.parts import board_part, phase_part, phase_title, result_part, seat_card, shown_words

__all__ = ["Message", "PageRun", "Runs"]

MOST_RUNNING: Final = 20
"""Runs that may go on at once."""

MOST_ENDED: Final = 50
"""Runs that are remembered after their end; those of a store can be read there afterwards."""

REMEMBERED: Final = 3600.0
"""Seconds after which a run that has ended is forgotten."""

RECENT: Final = 60.0
"""Seconds after the end of a run in which its messages are kept for browsers that connect again."""

MOST_LOG: Final = 4 * 2**20
"""Characters of messages that are kept for browsers that connect again; others load the page anew."""

LARGE: Final = 4_000
"""Characters of Markdown that are rendered in a thread: the worst text takes a second."""

RESUMABLE: Final = ("interrupted", "cancelled", "failed")
"""How a run has ended, or was cut off, that can be resumed."""

Events: TypeAlias = AsyncGenerator[AnyEvent, None]

_logger = logging.getLogger("llm_council")


@attrs.frozen
class Message:
    """A message of the stream of a run.

    Attributes:
        number: counts up from 1; the id of the event, so that a browser can go on where it left.
        kind: the name of the event: ``words``, ``part``, ``say``, ``reload`` or ``end``.
        data: its JSON.
    """

    number: int
    kind: str
    data: str


class PageRun:
    """A run that the page has started.

    Args:
        run_id: its id, that of the store too.
        plan: its plan.
        scope: cancels it.
        csrf: the value that its forms send.
        is_stored: True if a store knows what was answered.

    Attributes:
        board: what the page shows.
        result: the result; None until the run has ended, and if it was cancelled.
        error: why there is no result; None if there is one, or the run goes on.
        ended: when it ended, in seconds of a monotonic clock; None while it goes on.
        scope: cancels the run.
    """

    def __init__(self, run_id: str, plan: Plan, scope: anyio.CancelScope, csrf: str, *, is_stored: bool) -> None:
        self.run_id = run_id
        self.plan = plan
        self.board = Board(plan=plan)
        self.result: CouncilResult[Any] | None = None
        self.error: str | None = None
        self.began = time.monotonic()
        self.ended: float | None = None
        self.scope = scope
        self._csrf = csrf
        self._is_stored = is_stored
        self._log: deque[Message] = deque()
        self._size = 0
        self._last = 0
        self._changed = anyio.Event()

    @property
    def last(self) -> int:
        """Number of the last message: what a page that is made now shows already."""
        return self._last

    async def take(self, event: AnyEvent) -> None:
        """Take an event, and write the messages of what it changes."""
        for change in self.board.take(event):
            match change:
                case Words():
                    self._write("words", {"card": change.card.number, "text": change.text})
                case Card():
                    if change.state == "done" and len(change.text) > LARGE:
                        await anyio.to_thread.run_sync(shown_words, change)
                    self._write("part", seat_card(change))
                case Phase():  # before str, which it is too
                    self._write("part", phase_part(change))
                    self._write("say", {"text": f"Phase: {phase_title(change)}"})
                case name:
                    self._write("part", board_part(name, self.board, self.run_id, self._csrf))

    async def end(self, result: CouncilResult[Any] | None, error: str | None = None, status: str = "failed") -> None:
        """Note how the run ended."""
        # Comparing and rendering long drafts may take a second, in which other requests must be answered.
        shown = await anyio.to_thread.run_sync(partial(result_part, result, error))
        self.ended = time.monotonic()
        self.result, self.error = result, error
        self.board.status = str(result.status) if result is not None else status
        if result is not None:
            self.board.tally, self.board.agreement, self.board.dissent = result.tally, result.agreement, result.dissent
            self.board.ranking, self.board.elapsed = result.ranking, result.duration
            self.board.usd, self.board.is_usd_complete = result.cost.usd or 0.0, result.cost.complete
        self.board.has_answer = result is not None and result.success
        self.board.can_resume = self._is_stored and self.board.status in RESUMABLE
        for card in self.board.stop_writing():
            if result is None:  # nobody knows what a call cost that was cut off
                self.board.is_usd_complete = False
            self._write("part", seat_card(card))
        for name in ("facts", "votes", "after"):
            self._write("part", board_part(name, self.board, self.run_id, self._csrf))
        self._write("part", shown)
        self._write("say", {"text": f"The run has ended: {self.board.status}"})
        self._write("end", {})

    async def follow(self, after: int) -> AsyncIterator[Message]:
        """Yield the messages after the one of a number, as they come, until the end of the run."""
        while True:
            changed = self._changed
            first = self._log[0].number if self._log else self._last + 1
            if after + 1 < first:
                yield Message(self._last, "reload", "{}")
                return
            for message in [one for one in self._log if one.number > after]:
                after = message.number
                yield message
                if message.kind == "end":
                    return
            if self.ended is not None and after >= self._last:
                yield Message(self._last, "end", "{}")
                return
            if after >= self._last:
                await changed.wait()

    def forget_messages(self) -> None:
        """Forget the messages of a run that has ended. Browsers that have not had them load the page."""
        self._log.clear()
        self._size = 0

    def _write(self, kind: str, data: dict[str, Any]) -> None:
        self._last += 1
        # ASCII alone: some readers take U+0085 and U+2028 for the end of a line.
        message = Message(self._last, kind, json.dumps(data, separators=(",", ":")))
        self._log.append(message)
        self._size += len(message.data)
        while self._size > MOST_LOG and len(self._log) > 1:
            self._size -= len(self._log.popleft().data)
        self._changed.set()
        self._changed = anyio.Event()


class Runs:
    """The runs of the page.

    Args:
        council: the council.
        owner: the key whose budget pays.
        grace: seconds that runs have to end when the server stops.
        csrf: the value that forms send.
    """

    def __init__(self, council: Council, owner: Key, grace: float, csrf: str) -> None:
        self._council = council
        self._owner = owner
        self._grace = grace
        self._csrf = csrf
        self._runs: dict[str, PageRun] = {}
        self._group: TaskGroup | None = None
        self._one_ended = anyio.Event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Run what the page starts, until the server stops. Runs then have the time of grace to end."""
        async with anyio.create_task_group() as group:
            self._group = group
            try:
                yield
            finally:
                self._group = None
                with anyio.move_on_after(self._grace, shield=True):
                    while self.running():
                        await self._one_ended.wait()
                group.cancel_scope.cancel()  # what is cut off can be resumed, if it is stored

    def find(self, run_id: str) -> PageRun | None:
        """Return a run; None if the page has not started it, or it is forgotten."""
        return self._runs.get(run_id)

    def running(self) -> list[PageRun]:
        """Return the runs that go on, the newest first."""
        return [run for run in reversed(self._runs.values()) if run.ended is None]

    def remembered(self) -> list[PageRun]:
        """Return all runs, the newest first."""
        self._forget()
        return list(reversed(self._runs.values()))

    async def ask(self, council: Council, task: str, subagent: str, options: dict[str, Any]) -> PageRun:
        """Start a run, and return it as soon as it has a plan.

        Args:
            council: the council, or one with other seats.
            task: the task.
            subagent: the role.
            options: options of ``Council.stream``, with a ``budget``.

        Raises:
            CouncilError: nothing was sent: an option is wrong, a provider is not ready, or there are too many runs.
        """
        self._check_room()
        kept: list[CouncilResult[Any]] = []
        budget: Budget = options["budget"]
        reserved = self._owner.reserve(budget.usd)
        options = {**options, "budget": attrs.evolve(budget, usd=reserved)}

        async def events() -> Events:
            async with council.stream(task, subagent, **options) as stream:
                async for event in stream:
                    yield event
            kept.append(stream.result)

        return await self._start(events, kept, reserved, council)

    async def resume(self, run_id: str) -> PageRun:
        """Continue a stored run that was interrupted, cancelled or failed.

        Raises:
            CouncilError: it cannot be continued.
        """
        council = self._council
        store = council._required(None)
        kept: list[CouncilResult[Any]] = []

        async def events() -> Events:
            sender, receiver = anyio.create_memory_object_stream[AnyEvent](math.inf)
            failures: list[CouncilError] = []

            def send(event: Event) -> None:
                with suppress(anyio.BrokenResourceError):
                    sender.send_nowait(event)  # type: ignore[arg-type]

            async def work() -> None:
                with sender, listening(*council._listeners, send), council._live_runs.entered():
                    try:
                        all_phases = tuple(Phase)
                        result = await resume.resume(
                            store, run_id, council._reseat, council._strategy, deltas=all_phases
                        )
                        kept.append(result)
                    except CouncilError as error:
                        failures.append(error)

            async with anyio.create_task_group() as group:
                group.start_soon(work)
                with receiver:
                    async for event in receiver:
                        yield event
            if failures:
                raise failures[0]

        return await self._start(events, kept, None, council)

    async def _start(
        self, events: Callable[[], Events], kept: list[CouncilResult[Any]], reserved: float | None, council: Council
    ) -> PageRun:
        group = self._check_room()
        run: PageRun = await group.start(self._follow, events, kept, reserved, council)
        return run

    def _check_room(self) -> TaskGroup:
        """Return where runs go on.

        Raises:
            RequestRefused: no more may go on.
        """
        self._forget()
        if self._group is None:
            raise RequestRefused("the server is stopping: ask when it has started again", status=503)
        if len(self.running()) >= MOST_RUNNING:
            raise RequestRefused(
                f"{MOST_RUNNING} runs go on already: wait until one has ended, or cancel one", status=429
            )
        return self._group

    async def _follow(
        self,
        events: Callable[[], Events],
        kept: list[CouncilResult[Any]],
        reserved: float | None,
        council: Council,
        *,
        task_status: TaskStatus[PageRun],
    ) -> None:
        """Run the council, and write what happens into the run's messages."""
        run: PageRun | None = None
        try:
            with anyio.CancelScope() as scope:
                stream = events()
                try:
                    async for event in stream:
                        if run is None and isinstance(event, RunStarted):
                            run = self._runs[event.run_id] = self._new(event, scope)
                            task_status.started(run)
                        if run is not None:
                            await run.take(event)
                finally:
                    with anyio.CancelScope(shield=True):
                        await stream.aclose()
            if run is None:
                raise RequestRefused("the run has an answer already: reload its page", status=409)
            if kept:
                await run.end(kept[0])
            else:
                await run.end(None, "The run was cancelled.", status="cancelled")
        except CouncilError as error:
            if run is None:  # raised where the run was to start
                raise
            await run.end(None, redact(f"{type(error).__name__}: {error}"))
        except Exception:
            if run is None:
                raise
            _logger.exception("the run %s failed", run.run_id)
            await run.end(None, "The server failed: its log says how.")
        finally:
            self._owner.settle(reserved, _cost(kept))
            await self._close(council)
            self._one_ended.set()
            self._one_ended = anyio.Event()

    def _new(self, event: RunStarted, scope: anyio.CancelScope) -> PageRun:
        is_stored = self._council.config.store is not None
        return PageRun(event.run_id, event.plan, scope, self._csrf, is_stored=is_stored)

    async def _close(self, council: Council) -> None:
        """Close the connections of seats that only this run had."""
        ours = {id(adapter) for adapter in self._council._seating.providers.values()}
        with anyio.CancelScope(shield=True):
            for adapter in council._seating.providers.values():
                if id(adapter) not in ours:
                    await adapter.aclose()

    def _forget(self) -> None:
        """Forget runs that ended long ago, and the oldest of too many."""
        now = time.monotonic()
        ended = [(run.ended, run) for run in self._runs.values() if run.ended is not None]
        ended.sort(key=itemgetter(0), reverse=True)
        for place, (at, run) in enumerate(ended):
            if now - at > RECENT:
                run.forget_messages()
            if place >= MOST_ENDED or now - at > REMEMBERED:
                del self._runs[run.run_id]


def _cost(kept: list[CouncilResult[Any]]) -> float | None:
    """Return what a run cost; None if that is unknown."""
    return kept[0].cost.usd if kept and kept[0].cost.complete else None
