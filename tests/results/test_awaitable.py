"""Results that may be awaited, shown on toys."""

import asyncio
import copy
import gc
import json
import pickle
import warnings
import weakref

import anyio
import attrs
import pytest

from llm_council import errors
from llm_council.results._awaitable import AwaitableDict, AwaitableRecord


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Result(AwaitableRecord):
    text: str
    notes: dict = attrs.field(factory=dict)

    @property
    def success(self):
        return bool(self.text)

    def to_dict(self):
        return {"text": self.text, "notes": self.notes}


@attrs.frozen(kw_only=True, eq=False, repr=False, slots=False)
class Unslotted(AwaitableRecord):
    text: str


class Report(AwaitableDict[str, int]):
    pass


async def make(text="done", runs=None):
    if runs is not None:
        runs.append(text)
    await anyio.sleep(0)
    return Result(text=text)


async def fail():
    await anyio.sleep(0)
    raise errors.UnknownProvider("no such provider")


@pytest.mark.anyio
class TestPending:
    async def test_await_fills_in_the_same_object(self):
        pending = Result.pending(make(), anyio.Event)
        assert isinstance(pending, Result)
        result = await pending
        assert result is pending
        assert (result.text, result.success, result.to_dict()) == ("done", True, {"text": "done", "notes": {}})
        assert result == Result(text="done")

    async def test_a_second_await_gives_the_same_result_and_runs_nothing(self):
        runs = []
        pending = Result.pending(make(runs=runs), anyio.Event)
        assert await pending is await pending
        assert runs == ["done"]

    async def test_two_tasks_may_await_it_at_once(self):
        runs, seen = [], []
        pending = Result.pending(make(runs=runs), anyio.Event)

        async def wait():
            seen.append((await pending).text)

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
        assert (runs, seen) == (["done"], ["done"] * 3)

    async def test_a_class_with_a_dict_works_too(self):
        async def core():
            return Unslotted(text="x")

        assert (await Unslotted.pending(core(), anyio.Event)).text == "x"

    async def test_reading_a_field_before_await_raises_an_error_that_names_await(self):
        pending = Result.pending(make(), anyio.Event)
        reads = [
            lambda: pending.text,
            lambda: pending.success,
            pending.to_dict,
            lambda: hasattr(pending, "text"),
            lambda: pending.txet,
            lambda: attrs.evolve(pending, text="b"),
            lambda: attrs.asdict(pending),
        ]
        for read in reads:
            with pytest.raises(errors.InsideEventLoopError, match="await"):
                read()
        assert "await" in repr(pending)
        await pending

    async def test_it_is_equal_to_itself_only_and_hashes_by_identity(self):
        one, two = Result.pending(make(), anyio.Event), Result.pending(make(), anyio.Event)
        assert one == one
        assert one != two
        assert one != Result(text="done")
        assert one != 3
        assert len({one, two}) == 2
        number = hash(one)
        await one
        await two
        assert hash(one) == number
        assert one == two

    async def test_private_names_and_dunders_raise_attribute_error(self):
        pending = Result.pending(make(), anyio.Event)
        for name in ("__len__", "_repr_html_", "_ipython_display_", "__array__", "__fspath__"):
            with pytest.raises(AttributeError):
                getattr(pending, name)
        await pending

    async def test_a_pending_result_cannot_be_copied_or_pickled(self):
        pending = Result.pending(make(), anyio.Event)
        for take in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="awaited"):
                take(pending)
        await pending
        assert copy.deepcopy(pending) == pending

    async def test_an_error_is_raised_each_time(self):
        pending = Result.pending(fail(), anyio.Event)
        for _ in range(2):
            with pytest.raises(errors.UnknownProvider):
                await pending
        with pytest.raises(errors.UnknownProvider):
            pending.text  # noqa: B018

    async def test_cancelling_the_first_task_cancels_the_run(self):
        cancelled = []

        async def slow():
            try:
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class():
                cancelled.append(True)
                raise

        pending = Result.pending(slow(), anyio.Event)
        with anyio.move_on_after(0.01):
            await pending
        assert cancelled
        with pytest.raises(errors.CouncilError, match="cancelled"):
            await pending


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestAsyncio:
    async def test_gather(self):
        results = await asyncio.gather(*(Result.pending(make(str(number)), anyio.Event) for number in range(5)))
        assert [result.text for result in results] == ["0", "1", "2", "3", "4"]

    async def test_the_same_one_twice(self):
        pending = Result.pending(make(), anyio.Event)
        assert await asyncio.gather(pending, pending) == [pending, pending]

    async def test_wait_for(self):
        assert (await asyncio.wait_for(Result.pending(make(), anyio.Event), 30)).text == "done"

    async def test_wait_for_cancels(self):
        async def slow():
            await anyio.sleep(60)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Result.pending(slow(), anyio.Event), 0.01)

    async def test_ensure_future_and_shield(self):
        assert (await asyncio.ensure_future(Result.pending(make(), anyio.Event))).text == "done"
        assert (await asyncio.shield(Result.pending(make(), anyio.Event))).text == "done"


def test_a_result_that_is_never_awaited_warns():
    async def main():
        with pytest.warns(RuntimeWarning, match="make' was never awaited"):
            Result.pending(make(), anyio.Event)

    asyncio.run(main())


@pytest.mark.anyio
async def test_awaiting_a_finished_result_returns_it():
    result = Result(text="x")
    assert await result is result
    assert await asyncio_or_trio_nested(result) is result


async def asyncio_or_trio_nested(result):
    return await result


def test_a_finished_result_behaves_like_an_attrs_instance():
    result = Result(text="x", notes={"a": 1})
    assert repr(result) == "Result(text='x', notes={'a': 1})"
    assert result == Result(text="x", notes={"a": 1})
    assert result != Result(text="y")
    with pytest.raises(AttributeError, match="txet"):
        result.txet  # noqa: B018
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        result.text = "y"
    assert copy.copy(result) == copy.deepcopy(result) == result
    assert weakref.ref(result)() is result
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del result
        gc.collect()


@pytest.mark.anyio
class TestDict:
    async def test_await_fills_the_dict(self):
        async def core():
            await anyio.sleep(0)
            return Report(a=1)

        pending = Report.pending(core(), anyio.Event)
        assert "await" in repr(pending)
        assert await pending is pending
        assert pending == {"a": 1}
        assert {**pending} == dict(pending) == {"a": 1}
        assert json.dumps(pending) == '{"a": 1}'
        assert repr(pending) == "{'a': 1}"
        assert await pending is pending

    async def test_every_access_before_await_raises(self):
        async def core():
            return Report(a=1)

        pending = Report.pending(core(), anyio.Event)
        looks = [
            *(lambda: pending["a"], lambda: list(pending), lambda: len(pending), lambda: bool(pending), pending.items),
            *(lambda: "a" in pending, lambda: pending.get("a"), lambda: dict(pending), lambda: {**pending}),
            *(lambda: pending | {}, lambda: {} | pending, pending.copy, lambda: pending.pop("a"), pending.keys),
            *(pending.values, lambda: pending.update(a=1), lambda: pending.setdefault("a", 1)),
            lambda: list(reversed(pending)),
        ]
        for look in looks:
            with pytest.raises(errors.InsideEventLoopError, match="await"):
                look()
        for take in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="awaited"):
                take(pending)
        assert pending != {"a": 1}
        assert {pending: 1}[pending] == 1
        await pending

    async def test_a_finished_one_behaves_like_a_dict(self):
        report = Report(a=1)
        assert await report is report
        assert report == {"a": 1}
        assert report | {"b": 2} == {"a": 1, "b": 2}
        assert copy.deepcopy(report) == report
        assert not Report()
