"""``Council.map`` on an executor: workers get the tasks in chunks, and the results stream back chunk by chunk.

Any ``concurrent.futures.Executor`` will do: process and thread pools, and that of Dask. A chunk holds a share of the
map's budget (``_shares``), and runs in an event loop of its worker (``_chunks``). Tasks are taken lazily: two chunks
for each worker are on their way, so that none waits for its next one.

A lost worker: its chunk is run once more, and its results say so in their warnings. Dask gives it to another worker. A
pool of processes is unusable once a process of it was killed; each further chunk then gets a process of its own, with
the settings of the pool. So a task that kills its process can harm neither this process nor another chunk. Where the
second worker is lost, too, the results of the chunk are failed ones with ``WorkerLost``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import count
from typing import Any, Final
from uuid import uuid4

import anyio
import anyio.abc
import attrs

from llm_council._runtime import loops
from llm_council.batch._chunks import (
    MOST_STARTS,
    ChunkOutcome,
    ChunkRequest,
    CouncilSource,
    SharedCouncil,
    StopSignal,
    run_chunk,
)
from llm_council.batch._shares import Share, Shares
from llm_council.batch._worker_councils import CouncilRecipe
from llm_council.batch.map import (
    CLOSING,
    WAITING,
    AsCompleted,
    CouncilMap,
    InOrder,
    Tasks,
    as_async_iterator,
    close_tasks,
    failed_result,
    read_task,
    readable_part,
)
from llm_council.errors import BudgetExceeded, CouncilError, InvalidOption, TaskFailed, WorkerLost
from llm_council.models import Budget, Task
from llm_council.models._attrs import copy_with, is_int
from llm_council.results import CouncilResult

__all__ = ["ChunkSettings", "check_executor", "map_in_executor", "source_for"]

AHEAD: Final = 2
"""Chunks for each worker that are on their way: one that it runs, one that it runs next."""

ROUNDS: Final = 4
"""Tasks of a chunk for each run that its worker may make at the same time: at its end, fewer runs go on."""

MOST_TASKS: Final = 64
"""Most tasks of a chunk by default, if its worker runs no more at the same time: what a lost worker costs."""

LINGER: Final = 0.05
"""Seconds that a chunk which is not full waits for the next task, such as one of a queue."""


def check_executor(executor: object, chunksize: object) -> None:
    """Refuse what is no executor, and no size of a chunk.

    Raises:
        InvalidOption: the message names the remedy.
    """
    if not isinstance(executor, Executor):
        raise InvalidOption(
            f"executor: expected a concurrent.futures.Executor, such as ProcessPoolExecutor(4) or client.get_executor()"
            f" of Dask, got {type(executor).__name__}"
        )
    if chunksize is not None and (not is_int(chunksize) or chunksize < 1):  # type: ignore[operator]
        raise InvalidOption(f"chunksize: a whole number of 1 or more, got {chunksize!r:.80}")


def source_for(council: Any, executor: Executor) -> CouncilSource:
    """Return what gives the workers of an executor a council.

    Raises:
        InvalidOption: the workers are no threads of this process, and the council cannot be pickled.
    """
    if type(executor) is ThreadPoolExecutor:  # a subclass may pickle, such as the pool of interpreters
        return SharedCouncil(council)
    try:
        return CouncilRecipe.of(council)
    except TypeError as error:
        raise InvalidOption(f"executor: {error}") from None


@attrs.frozen(kw_only=True)
class ChunkSettings:
    """How the tasks of a map are divided among the workers.

    Attributes:
        workers: chunks that run at the same time.
        chunks: chunks that are on their way at the same time.
        concurrency: runs at the same time in each chunk.
        size: tasks of a chunk.
    """

    workers: int
    chunks: int
    concurrency: int
    size: int

    @classmethod
    def of(cls, executor: Executor, concurrency: int, chunksize: int | None, tasks: object) -> ChunkSettings:
        """Return the settings for an executor.

        Args:
            executor: the executor.
            concurrency: most runs at the same time, of all workers together.
            chunksize: tasks of a chunk; None chooses.
            tasks: the tasks; if they have a length, each worker gets some.
        """
        available = _workers_of(executor)
        workers = min(available, concurrency)
        each = concurrency // workers
        chunks = workers * AHEAD if workers == available else workers
        size = chunksize
        if size is None:
            size = max(each, min(each * ROUNDS, MOST_TASKS))
            if hasattr(tasks, "__len__"):
                size = max(1, min(size, -(-len(tasks) // workers)))
        return cls(workers=workers, chunks=chunks, concurrency=min(each, size), size=size)


def _workers_of(executor: Executor) -> int:
    """Return how many workers an executor has; where it does not tell, as many as this machine has processors."""
    workers: Any = getattr(executor, "_max_workers", None)  # of the pools of Python, of loky and of mpi4py
    client: Any = getattr(executor, "_client", None)
    if client is not None and hasattr(client, "nthreads"):  # of Dask
        workers = sum(client.nthreads().values())
    return workers if is_int(workers) and workers > 0 else os.cpu_count() or 1


def map_in_executor(
    tasks: Tasks,
    executor: Executor,
    prepare: Callable[[], Awaitable[tuple[CouncilSource, Mapping[str, Any]]]],
    *,
    settings: ChunkSettings,
    ordered: bool,
    budget: Budget | None,
    subagent: str,
    metadata: Mapping[str, Any],
) -> CouncilMap[Any]:
    """Return the results of tasks that the workers of an executor run.

    Args:
        tasks: the tasks.
        executor: the executor; it is not shut down.
        prepare: returns what gives a worker its council, and the options of the map; awaited before the first task.
        settings: how the tasks are divided.
        ordered: True yields the results in the order of the tasks.
        budget: limits on all runs together.
        subagent: name of the role of tasks that name none.
        metadata: data of all tasks.
    """

    async def results() -> AsyncIterator[CouncilResult[Any]]:
        source, options = await prepare()
        stop = StopSignal() if isinstance(source, SharedCouncil) else None
        request = ChunkRequest(
            name="", source=source, settings=options, tasks=(), concurrency=settings.concurrency, stop=stop
        )
        shares = None if budget is None else Shares(budget, settings.chunks)
        work = _Chunks(executor, request, settings, shares, ordered=ordered, subagent=subagent, metadata=metadata)
        async with anyio.create_task_group() as group:
            group.start_soon(work.pull, tasks)
            group.start_soon(work.feed, group)
            try:
                while (result := await work.take()) is not None:
                    yield result
            except GeneratorExit:  # closed between two results
                group.cancel_scope.cancel()
                return
        if work.failure is not None:  # raised here: the task group would wrap it
            raise work.failure

    return CouncilMap(results)


_Numbered = tuple[int, Task]


class _Chunks:
    """The chunks of a map, from the task that is taken to the result that is read.

    Attributes:
        failure: what the caller's iterable raised; None otherwise.
    """

    def __init__(
        self,
        executor: Executor,
        request: ChunkRequest,
        settings: ChunkSettings,
        shares: Shares | None,
        *,
        ordered: bool,
        subagent: str,
        metadata: Mapping[str, Any],
    ) -> None:
        self.failure: BaseException | None = None
        self._executor, self._request, self._settings, self._shares = executor, request, settings, shares
        self._subagent, self._metadata = subagent, metadata
        self._most = settings.size * settings.chunks * (1 + WAITING)
        self._results: InOrder | AsCompleted = InOrder() if ordered else AsCompleted()
        self._queue: deque[_Numbered] = deque()
        self._running = 0  # chunks
        self._pulled_all = False
        self._broken = False  # the pool is, by a process that was killed
        self._names = (f"{prefix}-{number}" for prefix in [uuid4().hex] for number in count())
        self._news = anyio.Event()  # something has changed

    async def pull(self, tasks: Tasks) -> None:
        """Take the tasks one by one, as many as the next chunk has."""
        try:
            items = as_async_iterator(tasks)
            try:
                for number in count():
                    while len(self._queue) >= self._settings.size or self._has_enough_results():
                        await self._wait()
                    item = await anext(items)
                    try:
                        self._queue.append((number, read_task(item, number, self._metadata)))
                    except Exception as error:  # noqa: BLE001 - a mapping of the caller may raise anything
                        unread = readable_part(item, number, self._metadata)
                        self._fail([(number, unread)], _as_council_error(error))
                    self._tell()
            except StopAsyncIteration:
                pass
            finally:
                await items.aclose()
                await close_tasks(tasks)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - of the caller's iterable: what goes on is finished first
            self.failure = error
        finally:
            self._pulled_all = True
            self._tell()

    async def feed(self, group: anyio.abc.TaskGroup) -> None:
        """Send chunks to the workers, each when there is room for it."""
        while True:
            while self._running >= self._settings.chunks or self._has_enough_results():
                await self._wait()
            chunk = await self._next_chunk()
            if not chunk:
                return
            try:
                share = await self._hold_share()
            except CouncilError as error:  # of the budget or the deadline
                self._fail(chunk, error)
                continue
            self._running += 1
            submitted = anyio.Event()
            group.start_soon(self._run, chunk, share, submitted)
            # In the order of the tasks: else later chunks could hold all workers while the first one is waited for.
            await submitted.wait()

    async def take(self) -> CouncilResult[Any] | None:
        """Return the next result, once there is one; None after the last."""
        while True:
            result = self._results.pop()
            if result is not None:
                self._tell()
                return result
            if self._pulled_all and not self._running and not self._queue:
                return None
            await self._wait()

    def _has_enough_results(self) -> bool:
        # In order, results may wait for a task that has not been sent: then it must be sent, or nobody goes on.
        return len(self._results) >= self._most and (self._running > 0 or self._results.is_readable())

    async def _next_chunk(self) -> list[_Numbered]:
        """Return the tasks of the next chunk; an empty list after the last."""
        while not self._queue:
            if self._pulled_all and not self._running:  # a chunk that goes on may give tasks back
                return []
            await self._wait()
        with anyio.move_on_after(LINGER):
            while len(self._queue) < self._settings.size and not self._pulled_all:
                await self._wait()
        chunk = [self._queue.popleft() for _ in range(min(len(self._queue), self._settings.size))]
        self._tell()  # there is room for the tasks of the next one
        return chunk

    async def _hold_share(self) -> Share | None:
        """Return a share of the budget for the next chunk, once there is one; None if the map has no budget."""
        if self._shares is None:
            return None
        while (share := self._shares.hold()) is None:
            await self._wait()
        return share

    async def _run(self, chunk: list[_Numbered], share: Share | None, submitted: anyio.Event) -> None:
        """Have a worker run a chunk, and another one if that is lost; whatever fails becomes results.

        Args:
            chunk: the tasks.
            share: its share of the budget.
            submitted: set once the executor has the chunk, or it has failed.
        """
        losses: list[str] = []
        name = next(self._names)
        try:
            while (outcome := await self._send(name, chunk, share, losses, submitted)) is None:
                self._lose(chunk, share)
                share = None
                if len(losses) == MOST_STARTS:
                    raise WorkerLost(f"two workers were lost while they ran the chunk of this task: {losses[-1]}")
                share = await self._hold_share()
            self._receive(chunk, share, outcome, losses)
        except Exception as error:  # noqa: BLE001 - of the worker, such as a council that cannot be made there
            self._lose(chunk, share)
            self._fail(chunk, _as_council_error(error))
        finally:
            submitted.set()
        self._running -= 1
        self._tell()

    async def _send(
        self, name: str, chunk: list[_Numbered], share: Share | None, losses: list[str], submitted: anyio.Event
    ) -> ChunkOutcome | None:
        """Have a worker run a chunk. If the worker is lost, return None and say in ``losses`` how."""
        request = attrs.evolve(
            self._request,
            name=name,
            tasks=tuple(task for _, task in chunk),
            budget=None if share is None else share.as_budget(),
            sent=time.time(),
        )
        try:
            if self._broken:
                return await self._in_own_process(request, submitted)
            return await self._in_worker(self._executor, request, submitted)
        except Exception as error:
            if not _is_loss(error):
                raise
            self._broken = self._broken or isinstance(error, BrokenProcessPool)
            losses.append(f"{type(error).__name__}: {error}"[:_LONGEST_REASON])
            return None

    async def _in_worker(self, executor: Executor, request: ChunkRequest, submitted: anyio.Event) -> ChunkOutcome:
        # In a thread: an executor may run a task at once, or start a process first.
        future = await anyio.to_thread.run_sync(partial(executor.submit, run_chunk, request))
        submitted.set()
        loop, done = loops.current(), anyio.Event()
        future.add_done_callback(lambda _: loop.call_soon(done.set))
        try:
            await done.wait()
        except anyio.get_cancelled_exc_class():
            if not future.cancel() and request.stop is not None:
                request.stop.stop()
                with anyio.move_on_after(CLOSING, shield=True):
                    await done.wait()
            raise
        return future.result()

    async def _in_own_process(self, request: ChunkRequest, submitted: anyio.Event) -> ChunkOutcome:
        settings: Any = {name: getattr(self._executor, f"_{name}", None) for name in ("mp_context", "initializer")}
        pool = ProcessPoolExecutor(1, initargs=getattr(self._executor, "_initargs", ()), **settings)
        try:
            return await self._in_worker(pool, request, submitted)
        finally:
            pool.shutdown(wait=False)

    def _receive(
        self, chunk: list[_Numbered], share: Share | None, outcome: ChunkOutcome, losses: Sequence[str]
    ) -> None:
        """Take the results of a chunk; tasks for which its share was too small are sent again with a larger one."""
        warnings = [_LOST.format(reason) for reason in losses] or [_LOST_BY_DASK] * (outcome.starts - 1)
        again = []
        for (number, task), result in zip(chunk, outcome.results, strict=True):
            if share is not None and not share.is_rest and _is_refused(result):
                again.append((number, task))
            else:
                self._results.add(number, _with_warnings(result, warnings))
        self._queue.extendleft(reversed(again))
        if share is not None and self._shares is not None:
            refused = sum(map(_is_refused, outcome.results))
            self._shares.give_back(share, outcome.spent, tasks=len(chunk) - refused, refused=refused > 0)

    def _lose(self, chunk: list[_Numbered], share: Share | None) -> None:
        if share is not None and self._shares is not None:
            self._shares.lose(share, len(chunk))
            self._tell()

    def _fail(self, chunk: list[_Numbered], error: CouncilError) -> None:
        for number, task in chunk:
            self._results.add(number, failed_result(task, error, self._subagent))
        self._tell()

    async def _wait(self) -> None:
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()


_LOST: Final = "the worker of this task was lost ({}): it was run again, and what the first run spent is not known"
_LOST_BY_DASK: Final = (
    "Dask lost the worker of this task, and ran it again on another: what the first run spent is not known"
)
_LONGEST_REASON: Final = 200  # characters


def _is_loss(error: Exception) -> bool:
    """Return True if an executor reports that the worker of a chunk is gone, not that the chunk failed."""
    # ``KilledWorker`` is Dask's, which is not imported here; it cancels the tasks of a cluster that restarts.
    return isinstance(error, BrokenExecutor | CancelledError) or type(error).__name__ == "KilledWorker"


def _is_refused(result: CouncilResult[Any]) -> bool:
    """Return True for a task whose run was not begun because the share of its chunk was too small."""
    return isinstance(result.error, BudgetExceeded) and not result.run_id


def _with_warnings(result: CouncilResult[Any], warnings: Sequence[str]) -> CouncilResult[Any]:
    return copy_with(result, warnings=(*result.warnings, *warnings)) if warnings else result


def _as_council_error(error: Exception) -> CouncilError:
    if isinstance(error, CouncilError):
        return error
    return TaskFailed(f"{type(error).__name__}: {error}", cause=type(error).__name__)
