"""Streams for both worlds: one task, an item for each demand, clean-up that is awaited."""

import asyncio
import contextvars
import gc
import sys
import threading
import time
import traceback
import weakref

import anyio
import anyio.to_thread
import pytest
import trio

from llm_council import _runtime, errors

word = contextvars.ContextVar("word", default="unset")


class Journal(list):
    """What happened inside a stream, and a way to wait for it from outside the loop."""

    def wait_for(self, entry, seconds=20.0):
        deadline = time.monotonic() + seconds
        while entry not in self and time.monotonic() < deadline:
            time.sleep(0.005)
        return entry in self


async def numbers(journal, end=5):
    """Hold a cancel scope and a task group across every yield, and await in the clean-up."""
    journal.append("open")
    try:
        with anyio.CancelScope():
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 0)
                for number in range(end):
                    await anyio.sleep(0)
                    journal.append(number)
                    yield number
    finally:
        await anyio.sleep(0.01)
        journal.append("clean")


async def failing(journal):
    yield 1
    raise ValueError("mid-stream")


async def failing_clean_up(journal):
    try:
        yield 1
    finally:
        await anyio.sleep(0)
        raise ValueError("in clean-up")


class Stream(_runtime.DualStream):
    """A dual stream whose result is the sum."""

    def __init__(self, core, *args):
        async def summing(keep):
            total = 0
            try:
                generator = core(*args)
                try:
                    async for item in generator:
                        total += item
                        yield item
                finally:
                    await generator.aclose()
            finally:
                keep(total)

        super().__init__(summing)


@pytest.fixture
def journal():
    return Journal()


class TestBlocking:
    def test_a_stream_yields_the_items_of_its_core(self, journal):
        assert list(_runtime.iterate(numbers, journal)) == [0, 1, 2, 3, 4]
        assert journal == ["open", 0, 1, 2, 3, 4, "clean"]

    def test_nothing_is_read_ahead_or_before_the_first_item(self, journal):
        stream = _runtime.iterate(numbers, journal)
        time.sleep(0.02)
        assert journal == []
        assert next(stream) == 0
        time.sleep(0.05)
        assert journal == ["open", 0]
        stream.close()

    def test_leaving_the_block_waits_for_awaited_clean_up(self, journal):
        with _runtime.iterate(numbers, journal) as stream:
            for number in stream:
                if number == 1:
                    break
        assert journal == ["open", 0, 1, "clean"]
        assert list(stream) == []

    def test_an_error_in_the_block_closes_the_stream(self, journal):
        with pytest.raises(KeyError), _runtime.iterate(numbers, journal) as stream:
            {}[next(stream)]
        assert journal == ["open", 0, "clean"]

    def test_a_break_without_a_with_block_closes_soon(self, journal):
        for number in _runtime.iterate(numbers, journal):
            if number == 1:
                break
        assert journal.wait_for("clean")
        assert journal == ["open", 0, 1, "clean"]

    def test_a_stream_in_a_garbage_cycle_is_closed(self, journal):
        stream = _runtime.iterate(numbers, journal)
        next(stream)
        cycle = [stream]
        cycle.append(cycle)
        del stream, cycle
        gc.collect()
        assert journal.wait_for("clean")

    def test_a_stream_that_is_never_iterated_starts_nothing(self, journal):
        _runtime.iterate(numbers, journal)
        with _runtime.iterate(numbers, journal):
            pass
        gc.collect()
        assert journal == []

    def test_a_stream_may_be_closed_twice_and_after_its_end(self, journal):
        stream = _runtime.iterate(numbers, journal)
        stream.close()
        stream.close()
        assert list(stream) == []
        stream = _runtime.iterate(numbers, journal)
        assert len(list(stream)) == 5
        stream.close()

    def test_an_error_mid_stream_is_raised_once_with_the_authors_frames(self, journal):
        stream = _runtime.iterate(failing, journal)
        assert next(stream) == 1
        with pytest.raises(ValueError, match="mid-stream") as caught:
            next(stream)
        frames = traceback.extract_tb(caught.value.__traceback__)
        assert len(frames) <= 6
        assert frames[-1].name == "failing"
        assert "run" not in [frame.name for frame in frames]
        assert list(stream) == []
        stream.close()

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
    def test_system_exit_mid_stream_ends_that_stream_only(self, kind):
        async def core():
            yield 1
            raise kind

        stream = _runtime.iterate(core)
        next(stream)
        with pytest.raises(kind):
            next(stream)
        assert _runtime.call(anyio.sleep, 0) is None

    def test_an_error_in_the_clean_up_is_raised_by_close(self, journal):
        stream = _runtime.iterate(failing_clean_up, journal)
        next(stream)
        with pytest.raises(ValueError, match="in clean-up"):
            stream.close()
        stream.close()

    def test_an_error_in_the_clean_up_of_a_dropped_stream_goes_to_the_exception_handler_of_the_loop(self, journal):
        reports, come = [], threading.Event()

        def handler(_, context):
            reports.append(context)
            come.set()

        stream = _runtime.iterate(failing_clean_up, journal)
        next(stream)
        loop = stream._job.thread.loop
        loop.set_exception_handler(handler)  # asyncio's own writes into its log
        try:
            del stream
            come.wait(20)
        finally:
            loop.set_exception_handler(None)
        assert [context["message"] for context in reports] == ["the clean-up of a dropped stream failed"]
        assert str(reports[0]["exception"]) == "in clean-up"

    def test_wrong_arguments_fail_at_the_call_and_name_the_core(self):
        with pytest.raises(TypeError, match=r"numbers\(\) missing 1 required positional argument: 'journal'"):
            _runtime.iterate(numbers)

    def test_a_core_may_return_or_await_to_an_async_iterator(self, journal):
        def plain():
            return numbers(journal)

        async def awaited():
            return numbers(journal)

        assert list(_runtime.iterate(plain)) == list(_runtime.iterate(awaited)) == [0, 1, 2, 3, 4]

    def test_an_async_iterator_without_aclose(self):
        class Two:
            left = 2

            def __aiter__(self):
                return self

            async def __anext__(self):
                if not self.left:
                    raise StopAsyncIteration
                self.left -= 1
                return self.left

        assert list(_runtime.iterate(Two)) == [1, 0]

    def test_context_goes_in_and_does_not_come_out(self):
        async def core():
            yield word.get()
            word.set("changed inside")
            yield word.get()

        def run():
            word.set("from the caller")
            return list(_runtime.iterate(core)), word.get()

        assert contextvars.copy_context().run(run) == (["from the caller", "changed inside"], "from the caller")

    def test_one_task_serves_the_whole_stream(self):
        async def core():
            for _ in range(3):
                yield id(asyncio.current_task())

        assert len(set(_runtime.iterate(core))) == 1

    def test_closing_from_another_thread_cancels_the_item_that_is_being_produced(self, journal):
        async def core():
            try:
                yield 1
                journal.append("waiting")
                await anyio.sleep(60)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                    journal.append("clean")

        stream = _runtime.iterate(core)
        rest = []
        thread = threading.Thread(target=lambda: rest.extend(stream))
        thread.start()
        assert journal.wait_for("waiting")
        stream.close()
        thread.join(20)
        assert (rest, journal) == ([1], ["waiting", "clean"])

    def test_several_threads_share_one_stream_without_loss(self, journal):
        stream, seen = _runtime.iterate(numbers, journal, 200), []
        threads = [threading.Thread(target=lambda: seen.extend(stream)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(seen) == list(range(200))

    def test_a_dropped_stream_does_not_outlive_its_use(self, journal):
        stream = _runtime.iterate(numbers, journal)
        next(stream)
        gone = weakref.ref(stream)
        del stream
        assert gone() is None
        assert journal.wait_for("clean")

    def test_shutdown_ends_open_streams_with_their_clean_up(self, journal):
        stream = _runtime.iterate(numbers, journal)
        next(stream)
        assert _runtime.shutdown()
        assert journal == ["open", 0, "clean"]
        with pytest.raises(errors.RuntimeShutdownError):
            next(stream)
        assert list(stream) == []
        stream.close()

    @pytest.mark.anyio
    async def test_a_blocking_stream_inside_a_loop_is_refused(self, journal):
        with pytest.raises(errors.InsideEventLoopError):
            _runtime.iterate(numbers, journal)

    @pytest.mark.anyio
    async def test_a_stream_made_outside_a_loop_cannot_be_iterated_inside_one(self, journal):
        stream = await anyio.to_thread.run_sync(_runtime.iterate, numbers, journal)
        with pytest.raises(errors.InsideEventLoopError, match="async for"):
            next(stream)
        with pytest.raises(errors.InsideEventLoopError, match="aclose"):
            stream.close()


class TestDualBlocking:
    def test_the_result_is_there_after_the_end(self, journal):
        stream = Stream(numbers, journal)
        with pytest.raises(errors.ConfigurationError, match="end"):
            stream.result  # noqa: B018
        assert list(stream) == [0, 1, 2, 3, 4]
        assert stream.result == 10

    def test_leaving_the_block_early_keeps_the_partial_result(self, journal):
        with Stream(numbers, journal) as stream:
            for number in stream:
                if number == 2:
                    break
        assert stream.result == 3
        assert journal[-1] == "clean"

    def test_a_break_closes_soon_even_if_the_stream_is_still_referenced(self, journal):
        stream = Stream(numbers, journal)
        for _ in stream:
            break
        assert journal.wait_for("clean")
        stream.close()
        assert stream.result == 0

    def test_a_stream_is_consumed_once(self, journal):
        stream = Stream(numbers, journal)
        list(stream)
        with pytest.raises(errors.ConfigurationError, match="new one"):
            iter(stream)
        closed = Stream(numbers, journal)
        closed.close()
        with pytest.raises(errors.ConfigurationError, match="new one"):
            iter(closed)

    def test_the_error_of_a_missing_result_says_that_the_stream_ended_without_one(self, journal):
        stream = _runtime.DualStream(lambda keep: numbers(journal))
        list(stream)
        with pytest.raises(errors.ConfigurationError, match="ended without"):
            stream.result  # noqa: B018

    def test_a_failing_clean_up_is_raised_when_the_block_ends(self, journal):
        with pytest.raises(ValueError, match="in clean-up"), Stream(failing_clean_up, journal) as stream:
            next(iter(stream))


@pytest.mark.anyio
class TestDualAwaited:
    async def test_an_awaited_stream_yields_the_same_items_and_result(self, journal):
        stream = Stream(numbers, journal)
        assert [item async for item in stream] == [0, 1, 2, 3, 4]
        assert stream.result == 10
        assert journal == ["open", 0, 1, 2, 3, 4, "clean"]

    async def test_nothing_is_read_ahead(self, journal):
        async with Stream(numbers, journal) as stream:
            iterator = aiter(stream)
            assert journal == []
            assert await anext(iterator) == 0
            await anyio.sleep(0.02)
            assert journal == ["open", 0]

    async def test_leaving_the_block_waits_for_awaited_clean_up(self, journal):
        async with Stream(numbers, journal) as stream:
            async for number in stream:
                if number == 1:
                    break
        assert journal == ["open", 0, 1, "clean"]
        assert stream.result == 1

    async def test_a_break_closes_soon_and_leaves_the_consumers_cancel_scopes_intact(self, journal):
        with anyio.CancelScope() as outer:
            async for _ in Stream(numbers, journal):
                break
            with anyio.fail_after(20):
                while "clean" not in journal:
                    await anyio.sleep(0.01)
        assert not outer.cancel_called

    async def test_a_cancelled_consumer_cancels_and_waits_for_the_clean_up(self, journal):
        async def core():
            try:
                yield 1
                journal.append("waiting")
                scope.cancel()
                await anyio.sleep(60)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                journal.append("clean")

        stream = Stream(core)
        with anyio.CancelScope() as scope:
            async for _ in stream:
                pass
        assert scope.cancelled_caught
        assert journal == ["waiting", "clean"]
        assert stream.result == 1

    async def test_a_cancellation_between_items_reaches_the_consumer(self, journal):
        with anyio.CancelScope() as scope:
            async with Stream(numbers, journal) as stream:
                async for _ in stream:
                    scope.cancel()
                    await anyio.sleep(60)
        assert scope.cancelled_caught
        assert journal[:2] == ["open", 0]
        assert stream.result == 0

    async def test_an_error_mid_stream_reaches_the_consumer(self, journal):
        stream = Stream(failing, journal)
        with pytest.raises(ValueError, match="mid-stream") as caught:
            async for _ in stream:
                pass
        assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "failing"
        assert stream.result == 1

    async def test_system_exit_mid_stream_reaches_the_consumer(self):
        async def core():
            yield 1
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            async for _ in Stream(core):
                pass
        await anyio.sleep(0)

    async def test_a_stream_is_consumed_once(self, journal):
        stream = Stream(numbers, journal)
        async for _ in stream:
            pass
        with pytest.raises(errors.ConfigurationError, match="new one"):
            aiter(stream)

    async def test_the_blocking_methods_are_refused_inside_a_loop_and_name_the_awaited_ones(self, journal):
        stream = Stream(numbers, journal)
        with pytest.raises(errors.InsideEventLoopError, match="async for"):
            iter(stream)
        with pytest.raises(errors.InsideEventLoopError, match="async with"), stream:
            pass
        with pytest.raises(errors.InsideEventLoopError, match="aclose"):
            stream.close()
        assert [item async for item in stream] == [0, 1, 2, 3, 4]

    async def test_a_closed_or_unused_stream_starts_nothing(self, journal):
        Stream(numbers, journal)
        async with Stream(numbers, journal):
            pass
        assert journal == []

    async def test_context_goes_in_and_does_not_come_out(self):
        async def core():
            assert word.get() == "from the caller"
            word.set("changed inside")
            yield 1

        word.set("from the caller")
        assert [item async for item in Stream(core)] == [1]
        assert word.get() == "from the caller"

    async def test_an_awaited_stream_runs_in_the_consumers_loop(self):
        async def core():
            yield threading.get_ident()

        assert [item async for item in Stream(core)] == [threading.get_ident()]


@pytest.mark.parametrize("run", [asyncio.run, trio.run])
def test_the_end_of_a_loop_closes_its_open_streams(run, journal):
    iterators = []

    async def core():
        try:
            yield 1
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            journal.append("clean")

    async def main():
        iterators.append(aiter(Stream(core)))
        await anext(iterators[0])

    run(main) if run is trio.run else run(main())
    assert journal == ["clean"]
    iterators.clear()


def test_a_stream_that_is_dropped_after_its_loop_ended_prints_nothing(journal, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    iterators = []

    async def main():
        iterators.append(aiter(Stream(numbers, journal)))
        await anext(iterators[0])

    asyncio.run(main())
    iterators.clear()
    gc.collect()
    assert journal == ["open", 0, "clean"]
    assert unraisable == []
