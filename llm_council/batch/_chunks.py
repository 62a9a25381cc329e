"""One chunk of a map in a worker of an executor: what is sent there, what is done there, and what comes back."""

from __future__ import annotations

import asyncio
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import anyio
import attrs

from llm_council._runtime import loops
from llm_council.errors import WorkerLost
from llm_council.models import Budget, Task
from llm_council.models._attrs import copy_with
from llm_council.results import CouncilResult

__all__ = ["ChunkOutcome", "ChunkRequest", "StopSignal", "run_chunk"]

MOST_STARTS: Final = 2  # a chunk that was lost is run once more


class ChunkCouncil(Protocol):
    """What a worker uses of a ``Council``."""

    async def _map_chunk(
        self, tasks: Sequence[Task], settings: Mapping[str, Any], concurrency: int, budget: Budget | None
    ) -> tuple[list[CouncilResult[Any]], dict[str, float]]: ...


class CouncilSource(Protocol):
    """Gives a worker its council: a ``CouncilRecipe``, or the council itself where nothing is pickled."""

    def council(self) -> Any: ...


@attrs.frozen
class SharedCouncil:
    """The council of this process, for workers that are threads."""

    _council: Any

    def council(self) -> Any:
        """Return the council."""
        return self._council


class StopSignal:
    """Cancels chunks that run in threads of this process. Other processes cannot be reached: their chunks go on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._cancel: set[Callable[[], object]] = set()

    def stop(self) -> None:
        """Cancel the chunks that run, and those that begin later."""
        with self._lock:
            self._stopped = True
            running = list(self._cancel)
        for cancel in running:
            cancel()

    @contextmanager
    def cancelling(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Have a scope of the running event loop cancelled by ``stop``."""
        loop = loops.current()

        def cancel() -> None:
            loop.call_soon(scope.cancel)

        with self._lock:
            self._cancel.add(cancel)
            stopped = self._stopped
        if stopped:
            scope.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._cancel.discard(cancel)


@attrs.frozen(kw_only=True)
class ChunkRequest:
    """A chunk on its way to a worker. It can be pickled, unless it has a ``stop``.

    Attributes:
        name: names the chunk among all chunks of all maps. Dask would answer equal calls once.
        source: gives the council.
        settings: the options of the map.
        tasks: the tasks, with their ids.
        concurrency: most runs at the same time.
        budget: the share of the map's budget; its deadline counts from ``sent``. None if the map has no budget.
        sent: when the chunk was sent, in seconds since the epoch, by the clock of ``host``.
        host: name of the machine that sent it.
        stop: cancels the chunk; for threads of this process only.
    """

    name: str
    source: CouncilSource
    settings: Mapping[str, Any]
    tasks: tuple[Task, ...]
    concurrency: int
    budget: Budget | None = None
    sent: float = attrs.field(factory=time.time)
    host: str = attrs.field(factory=platform.node)
    stop: StopSignal | None = None


@attrs.frozen(kw_only=True)
class ChunkOutcome:
    """What a worker sends back.

    Attributes:
        results: the results in the order of the tasks.
        spent: what the runs took of the budget, by the names of its limits.
        starts: how often the chunk was begun: more than once if Dask ran it again after it had lost a worker.
    """

    results: list[CouncilResult[Any]]
    spent: dict[str, float]
    starts: int = 1


def run_chunk(request: ChunkRequest) -> ChunkOutcome:
    """Run the tasks of a chunk, in an event loop of their own.

    Raises:
        WorkerLost: the chunk was begun twice before, and both workers were lost.
        ConfigurationError: the council cannot be made here, or an option is wrong here.
    """
    starts = _count_starts(request.name)
    if starts > MOST_STARTS:
        raise WorkerLost("two workers were lost while they ran the chunk of this task; it was not run a third time")
    results, spent = asyncio.run(_run(request))
    return ChunkOutcome(results=results, spent=spent, starts=starts)


async def _run(request: ChunkRequest) -> tuple[list[CouncilResult[Any]], dict[str, float]]:
    council: ChunkCouncil = request.source.council()
    budget = request.budget
    if budget is not None and budget.deadline is not None and request.host == platform.node():
        # The chunk has waited for its worker. The clocks of other machines may differ from this one.
        waited = max(0.0, time.time() - request.sent)
        budget = copy_with(budget, deadline=max(budget.deadline - waited, 0.001))
    with anyio.CancelScope() as scope:
        if request.stop is None:
            return await council._map_chunk(request.tasks, request.settings, request.concurrency, budget)
        with request.stop.cancelling(scope):
            return await council._map_chunk(request.tasks, request.settings, request.concurrency, budget)
    return [], {}  # stopped: nobody reads the results


def _count_starts(name: str) -> int:
    """Return how often a chunk was begun, this time included.

    Dask itself runs a task again when its worker was lost, and reports that to nobody. The log of events of its
    scheduler outlives the worker.
    """
    distributed: Any = sys.modules.get("distributed")
    if distributed is None:
        return 1
    try:
        distributed.get_worker()
    except ValueError:  # not in a task of Dask
        return 1
    client, topic = distributed.get_client(), f"llm-council-{name}"
    before = client.get_events(topic)
    client.log_event(topic, "begun")  # waits until the scheduler has it: the next call may end this process
    return 1 + len(before)
