"""``Council.map``: run many tasks, several at the same time, and yield a result for each."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count
from typing import Any, Final, Generic, TypeAlias

import anyio
import anyio.abc
import anyio.to_thread

from llm_council._runtime import DualIterable
from llm_council.errors import CouncilError, InvalidOption, RunError, TaskFailed
from llm_council.models import Plan, Status, Task
from llm_council.models._attrs import copy_with
from llm_council.providers._call.pacing import Pacer
from llm_council.results import CouncilResult, OutputT

__all__ = [
    "CLOSING",
    "WAITING",
    "AsCompleted",
    "CouncilMap",
    "InOrder",
    "RunTask",
    "Tasks",
    "as_async_iterator",
    "check_tasks",
    "close_tasks",
    "failed_result",
    "map_tasks",
    "read_task",
    "readable_part",
]

Tasks: TypeAlias = Iterable[str | Mapping[str, Any] | Task] | AsyncIterable[str | Mapping[str, Any] | Task]
"""Tasks to run: texts, mappings with the names of the attributes of ``Task``, or ``Task`` objects."""

RunTask: TypeAlias = Callable[[Task], Awaitable[CouncilResult[Any]]]
"""Runs one task, whose id is set. A ``CouncilError`` that it raises becomes a failed result."""

WAITING: Final = 2
"""Results that may wait to be read, for each run that may go on at the same time. In order, they wait for a slow task
before them; a reader may be slow, too."""

SLOW: Final = 0.25
"""Seconds. An iterable that has taken longer for one task is read in worker threads from then on, because it blocks the
event loop, and with it all runs and their deadlines. Others are not: a thread costs more than their next task."""

_END: Final = object()

CLOSING: Final = 5.0
"""Seconds that the clean-up of the caller's async generator may take."""


class CouncilMap(DualIterable[CouncilResult[OutputT]], Generic[OutputT]):
    """The results of ``Council.map``, for ``for`` and ``async for``, ``with`` and ``async with``. It is read once.

    Closing it, or leaving a ``with`` block, cancels the runs that go on, and waits until they have ended. After a bare
    ``break`` they end soon. Nothing is run before the first result is asked for.
    """


def check_tasks(tasks: object) -> None:
    """Refuse what is no collection of tasks.

    Raises:
        InvalidOption: the message names the remedy.
    """
    if isinstance(tasks, str | bytes | Mapping | Task):
        raise InvalidOption(f"tasks: expected several tasks, got {tasks!r:.80}; put it in a list, or call run")
    if not isinstance(tasks, Iterable | AsyncIterable):
        raise InvalidOption(f"tasks: expected an iterable or an async iterable, got {tasks!r:.80}")


def map_tasks(
    tasks: Tasks,
    prepare: Callable[[], Awaitable[RunTask]],
    *,
    concurrency: int,
    ordered: bool,
    subagent: str,
    metadata: Mapping[str, Any],
    expecting: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> CouncilMap[Any]:
    """Return the results of tasks.

    Args:
        tasks: the tasks; the next one is taken when a run may start.
        prepare: returns the function that runs one task; awaited before the first task is taken.
        concurrency: most runs at the same time.
        ordered: True yields the results in the order of the tasks, False as the runs end.
        subagent: name of the role of tasks that name none, for the results of tasks that have no run.
        metadata: data of all tasks; what a task has under the same key takes its place.
        expecting: returns a context that is entered while the next task is waited for.
    """
    return CouncilMap(partial(_results, tasks, prepare, concurrency, ordered, subagent, metadata, expecting))


async def _results(
    tasks: Tasks,
    prepare: Callable[[], Awaitable[RunTask]],
    concurrency: int,
    ordered: bool,  # noqa: FBT001 - passed on by position
    subagent: str,
    metadata: Mapping[str, Any],
    expecting: Callable[[], AbstractContextManager[None]],
) -> AsyncIterator[CouncilResult[Any]]:
    work = _Work(await prepare(), concurrency, expecting, ordered=ordered, subagent=subagent, metadata=metadata)
    async with anyio.create_task_group() as group:
        group.start_soon(work.feed, tasks, group)
        try:
            while (result := await work.take()) is not None:
                yield result
        except GeneratorExit:  # closed between two results
            group.cancel_scope.cancel()
            return
    if work.failure is not None:  # raised here: the task group would wrap it
        raise work.failure


class _Work:
    """The runs of a map, from the task that is taken to the result that is read.

    Args:
        run_task: runs one task.
        concurrency: most runs at the same time.
        expecting: see ``map_tasks``.
        ordered: True for results in the order of the tasks.
        subagent: see ``map_tasks``.
        metadata: see ``map_tasks``.

    Attributes:
        failure: what the caller's iterable raised, or what ended the process; None otherwise.
    """

    def __init__(
        self,
        run_task: RunTask,
        concurrency: int,
        expecting: Callable[[], AbstractContextManager[None]],
        *,
        ordered: bool,
        subagent: str,
        metadata: Mapping[str, Any],
    ) -> None:
        self.failure: BaseException | None = None
        self._run_task = run_task
        self._expecting = expecting
        self._subagent, self._metadata = subagent, metadata
        self._concurrency = concurrency
        self._most = concurrency * (1 + WAITING)
        self._results: InOrder | AsCompleted = InOrder() if ordered else AsCompleted()
        self._pacer = Pacer()
        self._running = 0
        self._taken_all = False
        self._room = anyio.Event()  # a run has ended, or a result was read
        self._news = anyio.Event()  # a result has come, or there will be none

    async def feed(self, tasks: Tasks, group: anyio.abc.TaskGroup) -> None:
        """Take the tasks one by one, each when there is room for it, and start their runs."""
        try:
            items = as_async_iterator(tasks)
            try:
                for number in count():
                    await self._wait_for_room()
                    with self._expecting():
                        item = await anext(items)
                    self._running += 1
                    group.start_soon(self._run, item, number, group)
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
            self._taken_all = True
            self._news.set()

    async def take(self) -> CouncilResult[Any] | None:
        """Return the next result, once there is one; None after the last."""
        while True:
            result = self._results.pop()
            if result is not None:
                self._room.set()
                return result
            if self._taken_all and not self._running:
                return None
            self._news = anyio.Event()
            await self._news.wait()

    async def _wait_for_room(self) -> None:
        while self._running >= self._concurrency or self._running + len(self._results) >= self._most:
            self._room = anyio.Event()
            await self._room.wait()
        await self._pacer.wait_for_room()

    async def _run(self, item: object, number: int, group: anyio.abc.TaskGroup) -> None:
        try:
            with self._pacer.active():
                result = await self._result(item, number)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:  # noqa: BLE001 - such as SystemExit, which a listener may raise
            self.failure = error
            group.cancel_scope.cancel()
            return
        self._running -= 1
        self._results.add(number, result)
        self._room.set()
        self._news.set()

    async def _result(self, item: object, number: int) -> CouncilResult[Any]:
        """Run one task; whatever fails becomes its result."""
        error: CouncilError
        task: Task | None = None
        try:
            task = read_task(item, number, self._metadata)
            return await self._run_task(task)
        except CouncilError as failure:
            error = failure
        except Exception as failure:
            logging.getLogger("llm_council").error("task %d failed", number, exc_info=failure)
            error = TaskFailed(f"{type(failure).__name__}: {failure}", cause=type(failure).__name__)
        task = task if task is not None else readable_part(item, number, self._metadata)
        return failed_result(task, error, self._subagent)


def read_task(item: object, number: int, metadata: Mapping[str, Any]) -> Task:
    """Return a task with its id and its metadata.

    Args:
        item: what the caller's iterable has yielded.
        number: its place, counted from 0.
        metadata: data of all tasks.

    Raises:
        InvalidOption, UnknownOption: it is no task.
    """
    task = Task.of(item)
    name = str(number) if task.id is None else task.id
    return copy_with(task, id=name, metadata={**metadata, **task.metadata})


class InOrder:
    """Results that are read in the order of their tasks."""

    def __init__(self) -> None:
        self._by_number: dict[int, CouncilResult[Any]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def add(self, number: int, result: CouncilResult[Any]) -> None:
        """Add the result of a task."""
        self._by_number[number] = result

    def is_readable(self) -> bool:
        """Return True if the next result is there."""
        return self._next in self._by_number

    def pop(self) -> CouncilResult[Any] | None:
        """Return the next result; None if it is not there yet."""
        result = self._by_number.pop(self._next, None)
        if result is not None:
            self._next += 1
        return result


class AsCompleted:
    """Results that are read in the order in which they come."""

    def __init__(self) -> None:
        self._queue: deque[CouncilResult[Any]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, number: int, result: CouncilResult[Any]) -> None:
        """Add the result of a task."""
        self._queue.append(result)

    def is_readable(self) -> bool:
        """Return True if there is a result."""
        return bool(self._queue)

    def pop(self) -> CouncilResult[Any] | None:
        """Return the next result; None if it is not there yet."""
        return self._queue.popleft() if self._queue else None


def failed_result(task: Task, error: CouncilError, subagent: str) -> CouncilResult[Any]:
    """Return the result of a task that has no run: its ``run_id`` is empty.

    Args:
        task: the task, with its id.
        error: why it has no run.
        subagent: name of the role of tasks that name none.
    """
    if not isinstance(error, RunError):
        wrapped = TaskFailed(error.message, cause=type(error).__name__)
        wrapped.__cause__ = error.with_traceback(None)
        error = wrapped
    plan = Plan(
        run_id="",
        task=task.task,
        subagent=subagent if task.subagent is None else task.subagent,
        context=task.context,
        task_id=task.id,
        metadata=task.metadata,
    )
    return CouncilResult(
        run_id="",
        task=plan.task,
        subagent=plan.subagent,
        status=Status.FAILED,
        error=error.with_traceback(None),
        plan=plan,
        metadata=plan.metadata,
    )


def readable_part(item: object, number: int, metadata: Mapping[str, Any]) -> Task:
    """Return what can be read of an item that is no valid task, so that its result can be told from others."""
    facts = item if isinstance(item, Mapping) else {}
    text, name = facts.get("task", item), facts.get("id")
    is_name = isinstance(name, str | int) and not isinstance(name, bool) and str(name).strip()
    shown = text if isinstance(text, str) and text.strip() else f"{item!r:.80}"
    return Task(shown, id=str(name) if is_name else str(number), metadata=metadata)


async def as_async_iterator(tasks: Tasks) -> AsyncGenerator[object, None]:
    """Yield the tasks."""
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
        return
    iterator, is_slow = iter(tasks), False
    while True:
        began = time.monotonic()
        # Abandoned when the map is closed: the thread ends once the iterable answers.
        take = partial(next, iterator, _END)
        task = await anyio.to_thread.run_sync(take, abandon_on_cancel=True) if is_slow else take()
        is_slow = is_slow or time.monotonic() - began > SLOW
        if task is _END:
            return
        yield task


async def close_tasks(tasks: Tasks) -> None:
    """Let an async generator of the caller clean up: unlike another one, nothing closes it when it is dropped."""
    if isinstance(tasks, AsyncGenerator):
        with anyio.move_on_after(CLOSING, shield=True):
            await tasks.aclose()
