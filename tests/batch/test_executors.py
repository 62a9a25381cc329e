"""``Council.map`` with an executor: chunks, shares of the budget, lost workers, and what closing does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from worker_seats import FOLDER, WorkerSeat, calls_in

from llm_council import Budget, Council, CouncilConfig, CouncilResult, Task, errors
from llm_council.batch._shares import Shares
from llm_council.batch.executors import AHEAD, ChunkSettings
from llm_council.events import Event
from llm_council.models import GenerateRequest
from llm_council.testing.fakes import ScriptedProvider

CANARY = "canary-in-the-coal-mine"


def ignore(event: Event) -> None:
    """Listen, as a function that can be pickled."""


def council(seat: Any = None, **options: Any) -> Council:
    seat = ScriptedProvider("An answer.") if seat is None else seat
    return Council([seat], config=CouncilConfig(), strategy="single", **options)


def names(count: int) -> list[str]:
    return [f"task-{number}" for number in range(count)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Inline(Executor):
    """Runs each call at once, from its pickle, in the thread that submits it."""

    def __init__(self) -> None:
        self.pickles: list[bytes] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.pickles.append(pickle.dumps((function, args, kwargs)))
        future: Future[Any] = Future()
        try:
            function, args, kwargs = pickle.loads(self.pickles[-1])
            future.set_result(pickle.loads(pickle.dumps(function(*args, **kwargs))))
        except Exception as error:
            future.set_exception(error)
        return future


class TestThreads:
    def test_results_are_those_of_a_map_without_an_executor(self, threads: ThreadPoolExecutor) -> None:
        tasks = [*names(20), Task("task-x", id="x", metadata={"a": 1}), "", {"task": "task-y", "tusk": 1}]
        with_threads = list(council().map(tasks, output_type=str, executor=threads, chunksize=3))
        without = list(council().map(tasks, output_type=str))
        for one, other in zip(with_threads, without, strict=True):
            assert (one.task_id, one.task, one.status, one.output) == (
                other.task_id,
                other.task,
                other.status,
                other.output,
            )
            assert (type(one.error), one.metadata) == (type(other.error), other.metadata)

    def test_results_come_as_chunks_end_if_they_need_not_be_in_order(self, threads: ThreadPoolExecutor) -> None:
        released = threading.Event()

        async def reply(request: GenerateRequest) -> str:
            if "task-0" in str(request.turns()):
                await anyio.to_thread.run_sync(released.wait)
            return "An answer."

        order = []
        results = council(ScriptedProvider(reply)).map(names(4), executor=threads, chunksize=1, ordered=False)
        for result in results:
            order.append(result.task_id)
            if len(order) == 3:
                released.set()
        assert order[-1] == "0"
        assert sorted(order) == ["0", "1", "2", "3"]

    def test_tasks_are_taken_lazily(self, threads: ThreadPoolExecutor) -> None:
        taken = 0

        def endless() -> Iterator[str]:
            nonlocal taken
            while True:
                taken += 1
                yield f"task-{taken}"

        with council().map(endless(), executor=threads, chunksize=2) as results:
            for _, result in zip(range(6), results, strict=False):
                assert result.success
        assert taken <= 60

    def test_closing_cancels_runs_in_threads_and_chunks_that_were_not_begun(self, threads: ThreadPoolExecutor) -> None:
        begun: list[Any] = []

        async def reply(request: GenerateRequest) -> str:
            if "task-0" not in str(request.turns()):
                begun.append(request)
                await anyio.sleep_forever()
            return "An answer."

        with council(ScriptedProvider(reply)).map(names(12), executor=threads, chunksize=1) as results:
            assert next(iter(results)).task_id == "0"
        assert len(begun) < 11
        assert threads.submit(int).result(timeout=10) == 0  # the threads are free again

    @pytest.mark.anyio
    async def test_a_loop_that_runs_reads_the_map_asynchronously(self, threads: ThreadPoolExecutor) -> None:
        async def source() -> Any:
            for name in names(5):
                await anyio.sleep(0)
                yield name

        read = [result.task_id async for result in council().map(source(), executor=threads, chunksize=2)]
        assert read == ["0", "1", "2", "3", "4"]

    def test_what_the_iterable_raises_comes_after_the_results_before_it(self, threads: ThreadPoolExecutor) -> None:
        def source() -> Iterator[str]:
            yield from names(3)
            raise ZeroDivisionError

        results = iter(council().map(source(), executor=threads))
        read = [next(results).task_id for _ in range(3)]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert read == ["0", "1", "2"]


class TestBudget:
    @pytest.mark.parametrize("chunksize", [1, 4, 50])
    def test_the_budget_is_used_up_and_not_exceeded(self, threads: ThreadPoolExecutor, chunksize: int) -> None:
        seat = ScriptedProvider("An answer.")
        results = list(
            council(seat).map(
                names(40), output_type=str, executor=threads, chunksize=chunksize, budget=Budget(calls=17)
            )
        )
        assert len(seat.requests) == 17
        assert [result.success for result in results].count(True) == 17
        assert {type(result.error) for result in results if not result.success} == {errors.BudgetExceeded}

    def test_a_deadline_ends_the_map(self, threads: ThreadPoolExecutor) -> None:
        seat = ScriptedProvider("An answer.", delay=float("inf"))
        results = list(council(seat).map(names(6), executor=threads, chunksize=1, budget=Budget(deadline=0.2)))
        assert {type(result.error) for result in results} == {errors.DeadlineExceeded}
        assert len(results) == 6

    @pytest.mark.slow
    @given(
        limit=st.integers(1, 60),
        chunks=st.integers(1, 8),
        uses=st.lists(st.integers(0, 9), max_size=30),
    )
    @examples(40)
    def test_shares_never_exceed_what_is_left(self, limit: int, chunks: int, uses: list[int]) -> None:
        shares = Shares(Budget(calls=limit, usd=1.0), chunks, clock=lambda: 0.0)
        held: list[Any] = []
        spent = 0
        for use in uses:
            try:
                share = shares.hold() if len(held) < chunks else None
            except errors.BudgetExceeded:
                assert spent == limit or not held
                break
            if share is not None:
                assert share.as_budget().calls >= 1
                held.append(share)
            assert sum(one.amounts["calls"] for one in held) + spent <= limit
            if use and held:
                done = held.pop(0)
                used = min(use, int(done.amounts["calls"]))
                spent += used
                shares.give_back(done, {"calls": used}, tasks=used, refused=use > used)


class TestSettings:
    @pytest.mark.parametrize("workers", [1, 3, 16])
    @pytest.mark.parametrize("concurrency", [1, 4, 128])
    def test_all_workers_together_run_no_more_than_was_asked_for(self, workers: int, concurrency: int) -> None:
        with ThreadPoolExecutor(workers) as pool:
            settings = ChunkSettings.of(pool, concurrency, None, iter(()))
        assert settings.workers * settings.concurrency <= concurrency
        assert settings.chunks <= workers * AHEAD
        if workers > concurrency:
            assert settings.chunks == concurrency

    def test_few_tasks_are_divided_among_the_workers(self, threads: ThreadPoolExecutor) -> None:
        assert ChunkSettings.of(threads, 128, None, names(10)).size == 5
        assert ChunkSettings.of(threads, 128, 7, names(10)).size == 7

    def test_an_executor_that_runs_calls_at_once_works_and_gets_no_key(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        inline = Inline()
        results = list(council(WorkerSeat, listeners=[ignore]).map(names(5), executor=inline, output_type=int))
        assert [result.status for result in results] == ["failed"] * 5  # the answers are no numbers
        results = list(council(WorkerSeat).map(names(5), executor=inline, chunksize=2))
        assert {result.output["answer"] for result in results} == {str(os.getpid())}
        list(Council(["openai/gpt-5"], config=CouncilConfig()).map(["", ""], executor=inline))
        assert inline.pickles
        assert CANARY.encode() not in b"".join(inline.pickles)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"executor": 4}, r"ProcessPoolExecutor\(4\)"),
            ({"chunksize": 3}, "pass executor="),
            ({"executor": Inline(), "chunksize": 0}, "chunksize"),
        ],
    )
    def test_wrong_arguments_are_refused(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(errors.InvalidOption, match=message):
            council().map(names(1), **options)

    def test_adapter_instances_are_refused_before_anything_is_sent(self) -> None:
        inline = Inline()
        with pytest.raises(errors.InvalidOption, match=r"executor: .*adapter instances .*name its providers"):
            council().map(names(1), executor=inline)
        assert inline.pickles == []

    def test_a_council_that_cannot_be_made_in_a_worker_fails_the_tasks(self) -> None:
        gateway = {"kind": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "default_model": "m"}
        config = CouncilConfig(instances={"gateway": {**gateway, "api_key": CANARY}})
        (result,) = Council(["gateway"], config=config).map(names(1), executor=Inline())
        assert isinstance(result.error, errors.TaskFailed)
        assert "${VARIABLE}" in result.error.message
        assert CANARY not in result.error.message


def by_processes(tasks: list[str], **options: Any) -> list[CouncilResult[Any]]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(council(WorkerSeat).map(tasks, executor=pool, **options))


class TestProcesses:
    @pytest.mark.slow
    def test_a_killed_worker_costs_no_result_and_is_reported(self, folder: Path) -> None:
        tasks = [*names(5), "task-of-the-first-victim", *names(6)]
        results = by_processes(tasks, chunksize=4, budget=Budget(calls=100))
        assert [result.task_id for result in results] == [str(number) for number in range(12)]
        assert {result.status for result in results} == {"completed"}
        (warning,) = results[5].warnings
        assert "BrokenProcessPool" in warning
        assert "was run again" in warning
        assert len(calls_in(folder)) >= 12

    @pytest.mark.slow
    def test_a_task_that_always_kills_its_worker_fails_with_its_chunk_alone(self, folder: Path) -> None:
        results = by_processes(["task-that-kills", *names(4)], chunksize=1)
        assert isinstance(results[0].error, errors.WorkerLost)
        assert {result.status for result in results[1:]} == {"completed"}
