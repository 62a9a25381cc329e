"""Blocking calls: one loop, one thread, one process."""

import abc
import asyncio
import contextvars
import gc
import inspect
import logging
import sys
import threading
import time
import traceback
import types
import weakref

import anyio
import anyio.to_thread
import pytest

from llm_council import _runtime, errors
from llm_council._runtime.thread import LoopThread

pytestmark = pytest.mark.filterwarnings("error")

word = contextvars.ContextVar("word", default="unset")


async def echo(value):
    await anyio.sleep(0)
    return value


class Provider:
    """A toy with an async core and its twin."""

    def __init__(self, answer="answer"):
        self.answer = answer

    async def generate(self, request):
        await anyio.sleep(0)
        return f"{self.answer} to {request}"

    def generate_sync(self, request):
        return _runtime.call(self.generate, request)

    async def arun(self):
        pass

    def run_sync(self):
        return _runtime.call(self.arun)

    def close(self):
        return _runtime.call(self.aclose)

    async def aclose(self):
        pass


def loop_threads():
    return [thread for thread in threading.enumerate() if thread.name == "llm-council"]


def test_a_call_returns_what_the_core_returns():
    assert _runtime.call(echo, 3) == 3
    assert _runtime.call(echo, value=4) == 4


def test_all_calls_share_one_thread():
    async def here():
        return threading.get_ident(), id(asyncio.get_running_loop())

    seen = {_runtime.call(here) for _ in range(5)}
    threads = [threading.Thread(target=lambda: seen.add(_runtime.call(here))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 1
    assert seen.pop()[0] != threading.get_ident()
    assert len(loop_threads()) == 1


def test_many_threads_get_their_own_answers():
    wrong = []

    def work(number):
        provider = Provider(str(number))
        for turn in range(20):
            answer = provider.generate_sync(turn)
            if answer != f"{number} to {turn}":
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_calls_from_several_threads_run_concurrently():
    barrier = {"here": 0}

    async def meet(event):
        barrier["here"] += 1
        if barrier["here"] == 3:
            event["all"].set()
        await event["all"].wait()

    async def make():
        return anyio.Event()

    event = {"all": _runtime.call(make)}
    threads = [threading.Thread(target=_runtime.call, args=(meet, event)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_the_core_of_a_subclass_is_called():
    class Other(Provider):
        async def generate(self, request):
            return "overridden"

    assert Other().generate_sync("q") == "overridden"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, BaseException])
def test_what_a_core_raises_reaches_its_caller_and_nobody_else(kind):
    waiting = threading.Thread(target=_runtime.call, args=(anyio.sleep, 0.05))
    waiting.start()
    error = kind("own")

    async def fail():
        await anyio.sleep(0)
        raise error

    with pytest.raises(kind) as caught:
        _runtime.call(fail)
    assert caught.value is error
    waiting.join(30)
    assert not waiting.is_alive()
    assert _runtime.call(echo, 1) == 1
    assert len(loop_threads()) == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_system_exit_in_a_task_of_an_adapters_own_does_not_end_the_loop(kind, caplog):
    caplog.set_level(logging.CRITICAL, "asyncio")

    async def fail():
        raise kind("own")

    async def core():
        await asyncio.create_task(fail())

    before = loop_threads()
    with pytest.raises(kind):
        _runtime.call(core)
    assert _runtime.call(echo, 1) == 1
    assert before in ([], loop_threads())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_stopped_loop_ends_even_if_a_later_callback_of_the_iteration_raises_system_exit(kind):
    def fail():
        raise kind("own")

    runtime = LoopThread()
    runtime.loop.call_soon(runtime.loop.stop)
    runtime.loop.call_soon(fail)
    runtime.loop.run_forever()
    assert not runtime.loop.is_running()
    runtime.loop.close()


def test_system_exit_while_the_loop_shuts_down_does_not_keep_it_from_ending(caplog):
    caplog.set_level(logging.CRITICAL, "asyncio")

    async def core():
        async def exit_when_cancelled():
            try:
                await asyncio.sleep(60)
            finally:
                raise SystemExit("own")

        core.stray = asyncio.create_task(exit_when_cancelled())
        await asyncio.sleep(0)

    _runtime.call(core)
    loop = core.stray.get_loop()
    assert _runtime.shutdown()
    assert loop.is_closed()
    assert isinstance(core.stray.exception(), SystemExit)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_at_exit_the_thread_ends_even_if_no_thread_can_be_started_for_its_executor(monkeypatch):
    async def refuse(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    runtime = LoopThread()
    monkeypatch.setattr(runtime.loop, "shutdown_default_executor", refuse)
    runtime.start()
    runtime.exiting = True
    assert runtime.stop(10)
    assert runtime.loop.is_closed()


def test_the_traceback_has_six_frames_at_most_and_ends_in_the_authors_code():
    class Faulty(Provider):
        async def generate(self, request):
            raise ValueError("the author's")

    with pytest.raises(ValueError, match="the author's") as caught:
        Faulty().generate_sync("q")
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert len(frames) <= 6
    assert frames[-1].line == 'raise ValueError("the author\'s")'
    assert [frame.name for frame in frames[-3:]] == ["generate_sync", "call", "generate"]


def test_an_error_leaves_no_cycle_behind():
    class Marker:
        pass

    async def core(marker):
        raise ValueError(1)

    gc.collect()
    gc.disable()
    try:
        marker = Marker()
        gone = weakref.ref(marker)
        with pytest.raises(ValueError, match="1") as caught:
            _runtime.call(core, marker)
        caught.value.__traceback__ = None
        del caught, marker
        deadline = time.monotonic() + 10
        while gone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # the loop thread drops its end of the call in its own time
        assert gone() is None
    finally:
        gc.enable()


def test_wrong_arguments_name_the_core():
    with pytest.raises(TypeError, match=r"Provider\.generate\(\) missing 1 required positional argument: 'request'"):
        _runtime.call(Provider().generate)


def test_context_goes_in_and_does_not_come_out():
    async def core():
        before = word.get()
        word.set("changed inside")
        return before

    def run():
        word.set("from the caller")
        return _runtime.call(core), word.get()

    assert contextvars.copy_context().run(run) == ("from the caller", "from the caller")


@pytest.mark.anyio
class TestInsideALoop:
    async def test_a_blocking_call_raises_and_names_the_core(self):
        assert _runtime.running_inside_loop()
        with pytest.raises(errors.InsideEventLoopError, match=r"Provider\.generate_sync\(\) .*: await generate\(\)"):
            Provider().generate_sync("q")
        with pytest.raises(errors.InsideEventLoopError, match=r"Provider\.close\(\) .*: await aclose\(\)"):
            Provider().close()
        with pytest.raises(errors.InsideEventLoopError, match=r"Provider\.run_sync\(\) .*: await arun\(\)"):
            Provider().run_sync()
        with pytest.raises(errors.InsideEventLoopError, match="echo"):
            _runtime.call(echo, 1)
        with pytest.raises(errors.InsideEventLoopError, match=r"shutdown\(\) .*: await anyio\.to_thread"):
            _runtime.shutdown()

    async def test_the_message_of_shutdown_does_not_depend_on_the_function_that_called_it(self):
        async def stop_sync():
            _runtime.shutdown()

        with pytest.raises(errors.InsideEventLoopError, match=r"^shutdown\(\) .*: await anyio\.to_thread"):
            await stop_sync()

    async def test_a_plain_function_that_advances_a_stream_is_told_to_use_a_worker_thread(self):
        def first(stream):
            return next(stream)

        async def items():
            yield 1

        stream = await anyio.to_thread.run_sync(_runtime.iterate, items)
        try:
            with pytest.raises(errors.InsideEventLoopError, match=r"__next__\(\) .*to_thread.*\(first, \.\.\.\)"):
                first(stream)
        finally:
            await anyio.to_thread.run_sync(stream.close)

    async def test_a_blocking_call_in_a_worker_thread_works(self):
        assert await anyio.to_thread.run_sync(Provider().generate_sync, "q") == "answer to q"
        assert not await anyio.to_thread.run_sync(_runtime.running_inside_loop)


def test_a_blocking_call_in_a_plain_callback_of_the_loop_raises():
    caught = []

    def callback(done):
        try:
            _runtime.call(echo, 1)
        except errors.InsideEventLoopError as error:
            caught.append(error)
        done.set_result(None)

    async def main():
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(callback, done)
        await done

    asyncio.run(main())
    assert len(caught) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_blocking_call_in_asyncio_to_thread_works():
    assert await asyncio.to_thread(Provider().generate_sync, "q") == "answer to q"


def test_a_blocking_call_inside_an_adapter_raises_instead_of_waiting_for_itself():
    class Nested(Provider):
        async def generate(self, request):
            return Provider().generate_sync(request)

    with pytest.raises(errors.InsideEventLoopError):
        Nested().generate_sync("q")


def test_a_blocking_call_in_a_worker_thread_of_an_adapter_works():
    async def core():
        return await anyio.to_thread.run_sync(Provider().generate_sync, "q")

    assert _runtime.call(core) == "answer to q"


def test_a_half_imported_trio_does_not_count_as_an_event_loop(monkeypatch):
    monkeypatch.setitem(sys.modules, "trio.lowlevel", types.ModuleType("trio.lowlevel"))
    assert not _runtime.running_inside_loop()


@pytest.mark.parametrize(
    ("module", "function"), [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")]
)
def test_green_threads_are_refused_with_the_remedy(monkeypatch, module, function):
    _runtime.shutdown()
    patched = types.ModuleType(module)
    setattr(patched, function, lambda name: name in {"thread", "threading"})
    monkeypatch.setitem(sys.modules, module, patched)
    with pytest.raises(errors.UnsupportedEnvironmentError, match="gthread"):
        _runtime.call(echo, 1)
    monkeypatch.undo()
    assert _runtime.call(echo, 1) == 1


def test_gevent_that_is_imported_but_has_not_patched_threads_is_accepted(monkeypatch):
    _runtime.shutdown()
    unpatched = types.ModuleType("gevent.monkey")
    unpatched.is_module_patched = lambda name: False
    monkeypatch.setitem(sys.modules, "gevent.monkey", unpatched)
    assert _runtime.call(echo, 1) == 1


def test_shutdown_ends_the_thread_and_the_next_call_starts_a_new_one():
    assert _runtime.call(echo, 1) == 1
    (thread,) = loop_threads()
    assert _runtime.shutdown()
    assert not thread.is_alive()
    assert not _runtime.is_started()
    assert _runtime.shutdown()
    assert _runtime.call(echo, 2) == 2


def test_shutdown_cancels_running_calls_and_waits_for_their_clean_up():
    entered, cleaned, caught = threading.Event(), [], []

    async def core():
        try:
            entered.set()
            await anyio.sleep(60)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                cleaned.append(True)

    def run():
        try:
            _runtime.call(core)
        except errors.RuntimeShutdownError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert entered.wait(30)
    assert _runtime.shutdown()
    assert cleaned
    thread.join(30)
    assert len(caught) == 1


def test_shutdown_gives_up_after_its_timeout_and_the_next_call_gets_a_new_thread():
    entered, leave = threading.Event(), threading.Event()

    async def stuck():
        entered.set()
        leave.wait(60)

    thread = threading.Thread(target=_runtime.call, args=(stuck,))
    thread.start()
    assert entered.wait(30)
    try:
        assert not _runtime.shutdown(timeout=0.05)
        assert _runtime.call(echo, 5) == 5
    finally:
        leave.set()
    thread.join(30)
    assert not thread.is_alive()


def test_every_call_that_is_made_during_shutdown_ends():
    stop, trouble = threading.Event(), []

    def work():
        while not stop.is_set():
            try:
                _runtime.call(echo, 1)
            except errors.RuntimeShutdownError:
                pass
            except BaseException as error:
                trouble.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        _runtime.shutdown()
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not trouble


def test_a_call_raises_if_the_thread_cannot_start(monkeypatch):
    _runtime.shutdown()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start")))
        with pytest.raises(RuntimeError, match="can't start"):
            _runtime.call(echo, 1)
    assert _runtime.call(echo, 1) == 1


class TestBlocking:
    def test_the_twin_of_a_function_blocks(self):
        twin = _runtime.blocking(echo)
        assert twin(7) == 7
        assert twin.__name__ == "echo_sync"
        assert inspect.signature(twin) == inspect.signature(echo)
        assert not inspect.iscoroutinefunction(twin)

    def test_the_twin_of_a_method_looks_the_core_up_at_call_time(self):
        class Base:
            async def models(self, prefix=""):
                return [prefix + "base"]

            models_sync = _runtime.blocking(models)

        class Derived(Base):
            async def models(self, prefix=""):
                return [prefix + "derived"]

        assert Base().models_sync() == ["base"]
        assert Derived().models_sync(prefix="my-") == ["my-derived"]
        assert list(inspect.signature(Base().models_sync).parameters) == ["prefix"]

    def test_an_abstract_core_does_not_make_its_twin_abstract(self):
        class Base(abc.ABC):
            @abc.abstractmethod
            async def models(self): ...

            models_sync = _runtime.blocking(models)

        class Derived(Base):
            async def models(self):
                return ["m"]

        assert Derived().models_sync() == ["m"]

    def test_only_coroutine_functions_are_accepted(self):
        with pytest.raises(TypeError, match="coroutine function"):
            _runtime.blocking(len)

    @pytest.mark.anyio
    async def test_inside_a_loop_the_error_names_the_core(self):
        with pytest.raises(errors.InsideEventLoopError, match=r"echo\(\) blocks.*"):
            _runtime.blocking(echo)(1)


def test_importing_the_package_starts_no_thread(python):
    done = python("""
        import sys, threading
        import llm_council
        from llm_council import _runtime
        assert threading.active_count() == 1
        assert not _runtime.is_started()
        assert "trio" not in sys.modules
    """)
    assert (done.returncode, done.stderr) == (0, "")
