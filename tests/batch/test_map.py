"""``Council.map``: a result for each task, whatever fails; taken lazily, closed cleanly."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Budget, Council, CouncilConfig, CouncilMap, CouncilResult, Status, Task, errors
from llm_council.events import Event
from llm_council.models import GenerateRequest
from llm_council.store import Store
from llm_council.testing.fakes import ScriptedProvider

STEADY = 0.02


def question(request: GenerateRequest) -> str:
    """Return the word of the task that the request quotes."""
    return next(word for turn in request.turns() for word in turn.text.split() if word.startswith("task-"))


def first_alone() -> ScriptedProvider:
    """Return a seat that answers the first task once others wait, and no other task."""

    async def answer(request: GenerateRequest) -> str:
        if question(request) != "task-0":
            await anyio.sleep_forever()
        while len(seat.requests) < 3:
            await anyio.sleep(0.001)
        return question(request)

    seat = ScriptedProvider(answer)
    return seat


def echo(**options: Any) -> ScriptedProvider:
    return ScriptedProvider(question, **options)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, and then until nothing more happens by itself."""
    with anyio.fail_after(60):
        while not holds():
            await anyio.sleep(0.001)
    await anyio.wait_all_tasks_blocked()


def council_of(*seats: ScriptedProvider, **options: Any) -> Council:
    return Council(list(seats) or [echo()], config=CouncilConfig(), strategy="single", **options)


def tasks(number: int) -> list[str]:
    return [f"task-{place}" for place in range(number)]


def ids(results: list[CouncilResult[Any]]) -> list[str | None]:
    return [result.task_id for result in results]


# The shapes in which it is used.


def test_a_script_reads_the_results_in_the_order_of_the_tasks() -> None:
    results = list(council_of().map(tasks(5)))
    assert [result.output["answer"] for result in results] == tasks(5)
    assert ids(results) == ["0", "1", "2", "3", "4"]
    assert all(result.status == Status.COMPLETED and result.run_id for result in results)


@pytest.mark.anyio
async def test_a_program_with_an_event_loop_reads_them_with_async_for() -> None:
    async with council_of().map(tasks(5)) as mapped:
        assert isinstance(mapped, CouncilMap)
        results = [result async for result in mapped]
    assert [result.output["answer"] for result in results] == tasks(5)


@pytest.mark.anyio
async def test_tasks_may_come_from_an_async_generator_which_is_closed_at_the_end() -> None:
    closed: list[str] = []

    async def arriving() -> AsyncIterator[str]:
        try:
            for task in tasks(100):
                await anyio.sleep(0)
                yield task
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0)
            closed.append("closed")

    results = [result async for result in council_of().map(arriving())]
    assert (len(results), closed) == (100, ["closed"])
    async with council_of().map(arriving(), concurrency=2) as mapped:
        async for _ in mapped:
            break
    assert closed == ["closed", "closed"]


def test_results_come_as_their_runs_end_if_they_need_not_be_in_order() -> None:
    released = anyio.Event()

    async def answer(request: GenerateRequest) -> str:
        if question(request) == "task-0":
            await released.wait()
        return question(request)

    with council_of(ScriptedProvider(answer)).map(tasks(3), ordered=False) as mapped:
        reader = iter(mapped)
        assert {next(reader).task_id, next(reader).task_id} == {"1", "2"}


def test_a_task_has_its_own_id_subagent_context_files_and_metadata(tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("for everyone", encoding="utf-8")
    (tmp_path / "one.txt").write_text("for one", encoding="utf-8")
    seat = echo()
    given_tasks = [
        Task("task-0", id="q-1", context="alone", metadata={"level": 2, "own": True}),
        {"task": "task-1", "id": 7, "files": [tmp_path / "one.txt"], "metadata": None},
        {"task": "task-2", "subagent": "router", "context": None},
    ]
    first, second, third = council_of(seat).map(
        given_tasks, context="shared", files=[tmp_path / "all.txt"], metadata={"level": 1, "all": True}
    )
    assert (first.task_id, second.task_id, third.task_id) == ("q-1", "7", "2")
    assert (first.plan.context, second.plan.context, third.plan.context) == ("alone", "shared", "shared")
    assert first.metadata == {"level": 2, "own": True, "all": True}
    assert second.metadata == {"level": 1, "all": True}
    assert [file.text for file in first.plan.files] == ["for everyone"]
    assert [file.text for file in second.plan.files] == ["for everyone", "for one"]
    assert [result.subagent for result in (first, second, third)] == ["advisor", "advisor", "router"]
    assert len({result.run_id for result in (first, second, third)}) == 3
    assert len({result.plan.seed for result in (first, second, third)}) == 3


def test_options_hold_for_all_tasks_and_the_output_is_of_the_type() -> None:
    seat = ScriptedProvider("42")
    results = list(council_of(seat).map(tasks(2), output_type=int, max_tokens=50))
    assert [result.output for result in results] == [42, 42]
    assert {request.max_tokens for request in seat.requests} == {50}


def test_each_run_is_stored_and_replayed_with_the_id_of_its_task(tmp_path: Path) -> None:
    council = council_of(store=tmp_path / "runs.db")
    results = list(council.map([Task("task-0", id="q-1"), Task("task-1", id="q-2")]))
    assert {info.run_id for info in Store(tmp_path / "runs.db").runs_sync()} == {result.run_id for result in results}
    replayed = [council.replay_sync(result.run_id) for result in results]
    assert ids(replayed) == ["q-1", "q-2"]
    assert [one.to_dict() for one in replayed] == [one.to_dict() for one in results]


def test_a_map_is_read_once_and_can_be_closed_before() -> None:
    seat = echo()
    mapped = council_of(seat).map(tasks(3))
    mapped.close()
    with pytest.raises(errors.ConfigurationError, match="CouncilMap was iterated or closed before"):
        iter(mapped)
    assert seat.requests == []


def test_no_tasks_are_no_results() -> None:
    assert list(council_of().map([])) == []


# Failures are results.


def test_a_task_that_is_wrong_is_a_failed_result_that_says_why() -> None:
    wrong: list[Any] = [
        {"tsk": "task-0"},
        {"task": "task-1", "contxt": "x"},
        3,
        "  ",
        {"task": "task-4", "id": "own", "subagent": "reviwer"},
        {"task": "task-5", "files": ["/nowhere/at/all.txt"]},
        {"task": "task-6", "files": "a.txt"},
        {"task": "task-7", "metadata": 3},
        {4: 5},
    ]
    seat = echo()
    results = list(council_of(seat).map(wrong, metadata={"set": "a"}))
    assert [result.status for result in results] == [Status.FAILED] * len(wrong)
    found = [result.error for result in results]
    assert all(isinstance(error, errors.TaskFailed) for error in found)
    words = ["'task'", "did you mean 'context'", "got int", "empty", "did you mean 'reviewer'", "/nowhere/at/all.txt"]
    words += ["Task.files: expected a sequence", "Task.metadata: expected a mapping", "takes no 4"]
    for error, word in zip(found, words, strict=True):
        assert word in str(error)
    assert [error.cause for error in found if isinstance(error, errors.TaskFailed)][4:6] == [
        "UnknownSubagent",
        "InvalidOption",
    ]
    assert ids(results) == ["0", "1", "2", "3", "own", "5", "6", "7", "8"]
    assert {result.run_id for result in results} == {""}
    assert all(result.metadata == {"set": "a"} for result in results)
    for result in results:
        again = CouncilResult.from_dict(result.to_dict())
        assert (again.task_id, type(again.error), str(again.error)) == (
            result.task_id,
            type(result.error),
            str(result.error),
        )
    assert seat.requests == []


def test_a_failed_run_and_a_broken_listener_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: GenerateRequest) -> str:
        if question(request) == "task-1":
            raise errors.AuthenticationFailed("the key is wrong")
        return question(request)

    def listener(event: Event) -> None:
        raise ValueError("broken")

    council = council_of(ScriptedProvider(answer), listeners=[listener])
    results = list(council.map(tasks(3)))
    assert [result.status for result in results] == [Status.COMPLETED, Status.FAILED, Status.COMPLETED]
    assert isinstance(results[1].error, errors.QuorumLost)
    assert results[1].run_id


def test_what_the_iterable_raises_is_raised_after_the_results_before_it() -> None:
    def broken() -> Iterator[str]:
        yield from tasks(3)
        raise OSError("the file is gone")

    results: list[CouncilResult[Any]] = []
    with pytest.raises(OSError, match="the file is gone"):
        results.extend(council_of(echo(delay=STEADY)).map(broken()))
    assert ids(results) == ["0", "1", "2"]
    assert all(result.success for result in results)


@pytest.mark.parametrize(
    ("given_tasks", "options", "named"),
    [
        ("task", {}, "put it in a list"),
        ({"task": "x"}, {}, "put it in a list"),
        (Task("x"), {}, "put it in a list"),
        (3, {}, "an iterable or an async iterable"),
        (["x"], {"concurrency": 0}, "concurrency: a whole number of 1 or more, got 0"),
        (["x"], {"concurrency": True}, "concurrency"),
        (["x"], {"ordered": "yes"}, "ordered: True or False"),
        (["x"], {"budget": 3}, "expected a Budget"),
        (["x"], {"budget": Budget(quorum=2)}, "quorum belongs to each run"),
        (["x"], {"budget": Budget(grace=2)}, "grace belongs to each run"),
        (["x"], {"concurency": 3}, "did you mean 'concurrency'"),
        (["x"], {"subagent": "reviwer"}, "did you mean 'reviewer'"),
        (["x"], {"strategy": "synthesise"}, "did you mean 'synthesize'"),
        (["x"], {"schema": {"type": "objekt"}}, "did you mean 'object'"),
        (["x"], {"max_tokens": 0}, "max_tokens"),
        (["x"], {"metadata": 3}, "metadata"),
        (["x"], {"store": 3}, "store: expected a path"),
    ],
)
def test_a_wrong_option_is_refused_at_the_call(given_tasks: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        council_of().map(given_tasks, **options)
    assert named in str(caught.value)


def test_a_file_of_all_tasks_that_cannot_be_read_is_raised_before_anything_is_taken() -> None:
    taken: list[str] = []
    with pytest.raises(errors.InvalidOption, match=r"/nowhere\.txt"):
        list(council_of().map((taken.append(task) or task for task in tasks(3)), files=["/nowhere.txt"]))
    assert taken == []


def test_a_task_says_what_is_wrong_with_it() -> None:
    assert Task("x", id=3).id == "3"  # type: ignore[arg-type]
    for arguments, named in [
        ({"task": ""}, "Task.task: text that is not empty"),
        ({"task": "x", "id": True}, "Task.id"),
        ({"task": "x", "id": " "}, "Task.id"),
        ({"task": "x", "context": 3}, "Task.context"),
        ({"task": "x", "files": [3]}, "Task.files"),
        ({"task": "x", "subagnt": "y"}, "did you mean 'subagent'"),
    ]:
        with pytest.raises(errors.ConfigurationError) as caught:
            Task(**arguments)  # type: ignore[arg-type]
        assert named in str(caught.value)


# Laziness and concurrency.


@pytest.mark.anyio
@pytest.mark.parametrize("ordered", [True, False])
async def test_tasks_are_taken_only_as_runs_may_start(ordered: bool) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"task-{taken}"

    seat = echo()
    async with council_of(seat).map(endless(), concurrency=3, ordered=ordered) as mapped:
        read = 0
        async for _ in mapped:
            read += 1
            await anyio.sleep(0)
            assert taken <= read + 3 * 3
            if read == 30:
                break
    assert seat.most_at_once <= 3
    assert len(seat.requests) <= taken


@pytest.mark.anyio
async def test_a_slow_first_task_stops_the_others_before_their_results_pile_up() -> None:
    released = anyio.Event()

    async def answer(request: GenerateRequest) -> str:
        if question(request) == "task-0":
            await released.wait()
        return question(request)

    taken = 0

    def counted() -> Iterator[str]:
        nonlocal taken
        for task in tasks(100):
            taken += 1
            yield task

    results: list[CouncilResult[Any]] = []

    async def read() -> None:
        async for result in council_of(ScriptedProvider(answer)).map(counted(), concurrency=4):
            results.append(result)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until(lambda: taken >= 12)
        assert (results, taken) == ([], 12)
        released.set()
    assert ids(results) == [str(place) for place in range(100)]


@pytest.mark.anyio
async def test_a_reader_that_pauses_stops_the_map_and_loses_nothing() -> None:
    seat = echo()
    async with council_of(seat).map(tasks(50), concurrency=2, ordered=False) as mapped:
        reader = aiter(mapped)
        first = await anext(reader)
        await until(lambda: len(seat.requests) >= 1 + 3 * 2)
        assert len(seat.requests) == 1 + 3 * 2
        rest = [result async for result in reader]
    assert sorted(ids([first, *rest]), key=str) == sorted(map(str, range(50)))


@pytest.mark.anyio
async def test_an_iterable_that_takes_its_time_is_read_outside_of_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llm_council.batch.map.SLOW", 0.0)
    threads: list[threading.Thread] = []

    def reading() -> Iterator[str]:
        for task in tasks(5):
            threads.append(threading.current_thread())
            yield task
        raise OSError("the file is gone")

    results: list[CouncilResult[Any]] = []
    with pytest.raises(OSError, match="the file is gone"):
        results += [result async for result in council_of().map(reading(), concurrency=2)]
    here = threading.current_thread()
    assert threads[0] is here
    assert here not in threads[1:]
    monkeypatch.setattr("llm_council.batch.map.SLOW", 60.0)
    threads.clear()
    with pytest.raises(OSError, match="the file is gone"):
        results += [result async for result in council_of().map(reading(), concurrency=2)]
    assert set(threads) == {here}


# Closing.


@pytest.mark.anyio
async def test_leaving_a_map_cancels_what_goes_on_and_leaves_no_task() -> None:
    seat = first_alone()
    async with council_of(seat).map(tasks(20), concurrency=5) as mapped:
        async for result in mapped:
            assert result.task_id == "0"
            break
    assert seat.cancelled == len(seat.requests) - 1
    assert 1 <= seat.cancelled <= 5


@pytest.mark.anyio
async def test_a_cancelled_reader_cancels_the_runs() -> None:
    seat = echo(delay=float("inf"))

    async def read() -> None:
        async for _ in council_of(seat).map(tasks(20), concurrency=5):
            raise AssertionError("no run can end")

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await until(lambda: len(seat.requests) >= 5)
        group.cancel_scope.cancel()
    assert seat.cancelled == len(seat.requests) == 5


@pytest.mark.anyio
async def test_a_bare_break_ends_the_runs_soon() -> None:
    seat = first_alone()
    async for result in council_of(seat).map(tasks(20), concurrency=5):
        assert result.task_id == "0"
        break
    await until(lambda: seat.cancelled == len(seat.requests) - 1 >= 1)


def test_leaving_a_map_in_plain_code_cancels_too_and_starts_no_further_thread() -> None:
    list(council_of().map(tasks(1)))
    threads = set(threading.enumerate())
    seat = first_alone()
    with council_of(seat).map(iter(tasks(20)), concurrency=5) as mapped:
        for result in mapped:
            assert result.task_id == "0"
            break
    assert seat.cancelled == len(seat.requests) - 1 >= 1
    assert set(threading.enumerate()) == threads


def test_what_ends_the_process_ends_the_map() -> None:
    def listener(event: Event) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        list(council_of(echo(), listeners=[listener]).map(tasks(5)))


# The law.

kinds = st.sampled_from(["fine", "fails", "wrong", "unknown", "slow"])


@pytest.mark.slow
@pytest.mark.anyio
@examples(30)
@given(st.lists(kinds, max_size=12), st.integers(1, 6), st.booleans(), st.booleans())
async def test_each_task_has_exactly_one_result_and_order_holds(
    drawn: list[str], concurrency: int, ordered: bool, is_async: bool
) -> None:
    async def answer(request: GenerateRequest) -> str:
        word = question(request)
        if word.endswith("fails"):
            raise errors.ContentFiltered("no")
        if word.endswith("slow"):
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
        return word

    given_tasks: list[Any] = [f"task-{place}-{kind}" for place, kind in enumerate(drawn)]
    for place, kind in enumerate(drawn):
        if kind == "wrong":
            given_tasks[place] = {"text": place}
        elif kind == "unknown":
            given_tasks[place] = {"task": given_tasks[place], "subagent": "nobody"}

    async def arriving() -> AsyncIterator[Any]:
        for task in given_tasks:
            await anyio.lowlevel.checkpoint()
            yield task

    source: Any = arriving() if is_async else given_tasks
    seat = ScriptedProvider(answer)
    results = [r async for r in council_of(seat).map(source, concurrency=concurrency, ordered=ordered)]
    wanted = [str(place) for place in range(len(drawn))]
    assert (ids(results) if ordered else sorted(ids(results), key=int)) == wanted
    for result in results:
        kind = drawn[int(result.task_id or "")]
        assert result.success == (kind in ("fine", "slow"))
        if result.success:
            assert result.output["answer"] == f"task-{result.task_id}-{kind}"
    assert seat.most_at_once <= concurrency
