"""Resources per event loop and owner."""

import asyncio
import copy
import gc
import pickle
import threading
import time
import warnings
import weakref

import anyio
import attrs
import pytest
import trio

from llm_council import _runtime
from llm_council._runtime import per_loop


class Client:
    """A resource that knows its loop and whether it was closed there."""

    made: list["Client"]

    def __init__(self, journal):
        self.loop = thread_and_loop()
        self.closed_in = None
        journal.append(self)

    async def aclose(self):
        await anyio.sleep(0)
        self.closed_in = thread_and_loop()


def thread_and_loop():
    return threading.get_ident(), anyio.lowlevel.current_token()


@attrs.frozen
class Frozen:
    """Slotted, with weak references."""

    name: str = "frozen"


@attrs.define(weakref_slot=False)
class NoWeakReference:
    name: str = "bare"


class Unhashable:
    __hash__ = None

    def __eq__(self, other):
        return True


class Plain:
    pass


async def client_of(owner, journal, key="client"):
    return await per_loop.get(owner, key, lambda: Client(journal), Client.aclose)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.fixture
def journal():
    return []


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [Plain, Frozen, NoWeakReference, Unhashable])
class TestOneLoop:
    async def test_a_resource_is_made_once_per_owner_and_key(self, kind, journal):
        owner, other = kind(), kind()
        first = await client_of(owner, journal)
        assert await client_of(owner, journal) is first
        assert await client_of(owner, journal, "second") is not first
        assert await client_of(other, journal) is not first
        assert len(journal) == 3
        await per_loop.aclose(owner)
        await per_loop.aclose(other)

    async def test_aclose_is_idempotent_and_the_owner_can_be_used_again(self, kind, journal):
        owner, other = kind(), kind()
        await per_loop.aclose(owner)
        first = await client_of(owner, journal)
        open_client = await client_of(other, journal)
        await per_loop.aclose(owner)
        await per_loop.aclose(owner)
        assert first.closed_in == first.loop
        assert open_client.closed_in is None
        again = await client_of(owner, journal)
        assert again is not first
        assert again.closed_in is None
        await per_loop.aclose(owner)
        await per_loop.aclose(other)


@pytest.mark.anyio
async def test_a_resource_that_fails_to_close_does_not_keep_the_others_open(journal):
    async def fail(resource):
        raise OSError("gone")

    owner = Plain()
    client = await client_of(owner, journal)
    await per_loop.get(owner, "bad", object, fail)
    await per_loop.aclose(owner)
    assert client.closed_in is not None


@pytest.mark.anyio
async def test_a_resource_that_hangs_on_closing_is_abandoned(journal, monkeypatch):
    monkeypatch.setattr(per_loop, "CLOSE_TIMEOUT", 0.01)
    owner = Plain()
    client = await client_of(owner, journal)
    await per_loop.get(owner, "hanging", object, lambda _: anyio.sleep(60))
    await per_loop.aclose(owner)
    assert client.closed_in is not None


@pytest.mark.anyio
async def test_a_resource_is_closed_even_when_the_task_is_cancelled(journal):
    owner = Plain()
    client = await client_of(owner, journal)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await per_loop.aclose(owner)
    assert client.closed_in is not None


@pytest.mark.anyio
async def test_the_resources_of_a_collected_owner_are_closed_soon(journal):
    owner = Plain()
    client = await client_of(owner, journal)
    del owner
    gc.collect()
    with anyio.fail_after(20):
        while client.closed_in is None:
            await anyio.sleep(0.01)
    assert client.closed_in == client.loop


def test_blocking_calls_share_a_resource_and_close_closes_it_in_its_loop(journal):
    owner = Plain()
    first = _runtime.call(client_of, owner, journal)
    assert _runtime.call(client_of, owner, journal) is first
    per_loop.close(owner)
    per_loop.close(owner)
    assert first.closed_in == first.loop
    assert _runtime.call(client_of, owner, journal) is not first
    per_loop.close(owner)


def test_close_starts_no_thread():
    _runtime.shutdown()
    per_loop.close(Plain())
    assert not _runtime.is_started()


def test_the_resources_of_an_owner_that_blocking_code_drops_are_closed_soon(journal):
    owner = Plain()
    client = _runtime.call(client_of, owner, journal)
    del owner
    gc.collect()
    assert until(lambda: client.closed_in is not None)
    assert client.closed_in == client.loop


def test_the_resources_of_an_owner_in_a_cycle_are_closed_soon(journal):
    owner = Plain()
    owner.itself = owner
    client = _runtime.call(client_of, owner, journal)
    del owner
    gc.collect()
    assert until(lambda: client.closed_in is not None)


def test_shutdown_closes_everything_in_its_loop(journal):
    owner = Plain()
    client = _runtime.call(client_of, owner, journal)
    assert _runtime.shutdown()
    assert client.closed_in == client.loop
    assert _runtime.call(client_of, owner, journal) is not client


@pytest.mark.parametrize("run", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)])
def test_the_end_of_a_loop_closes_its_resources(run, journal):
    owner = Plain()
    run(client_of(owner, journal))
    (client,) = journal
    assert client.closed_in == client.loop


@pytest.mark.parametrize("steps", range(6))
def test_the_resources_of_an_owner_that_is_collected_as_its_loop_ends_are_closed_once(steps, journal):
    async def main():
        await client_of(Plain(), journal)
        for _ in range(steps):  # the close has not begun, has begun, or has ended
            await anyio.sleep(0)

    for _ in range(20):  # at the end of trio it is a matter of chance which comes first
        asyncio.run(main())
        trio.run(main)
    assert [client.closed_in == client.loop for client in journal] == [True] * 40


def test_one_owner_has_a_resource_in_each_of_four_loops(journal):
    owner = Plain()
    _runtime.call(client_of, owner, journal)
    asyncio.run(client_of(owner, journal))
    asyncio.run(client_of(owner, journal))
    trio.run(client_of, owner, journal)
    assert len({id(client) for client in journal}) == 4
    assert [client.closed_in == client.loop for client in journal] == [False, True, True, True]
    per_loop.close(owner)
    assert journal[0].closed_in is not None


def test_ended_loops_are_not_held_in_memory(journal):
    owner, loops = Plain(), []

    async def main():
        await client_of(owner, journal)
        loops.append(weakref.ref(asyncio.get_running_loop()))

    for _ in range(3):
        asyncio.run(main())
    journal.clear()
    gc.collect()
    assert [loop() for loop in loops] == [None] * 3


def test_the_next_loop_drops_the_resources_of_a_loop_that_closed_without_cleanup(journal):
    owner, gone = Plain(), []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client_of(owner, journal))
    loop.close()
    gone.append(weakref.ref(journal.pop()))
    gone.append(weakref.ref(loop))
    del loop
    asyncio.run(client_of(owner, journal))
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_connection_that_ends_with_its_loop_gives_no_resource_warning():
    """A socket stays open in the resource; only closing it in its loop is free of ResourceWarning."""

    class Connection:
        def __init__(self, stream):
            self.stream = stream

        async def aclose(self):
            await self.stream.aclose()

    async def main():
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener, anyio.create_task_group() as group:

            async def hold(stream):
                async with stream:
                    await anyio.sleep(60)

            group.start_soon(listener.serve, hold)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            stream = await anyio.connect_tcp("127.0.0.1", port)
            await per_loop.get(owner, "connection", lambda: Connection(stream), Connection.aclose)
            group.cancel_scope.cancel()

    owner = Plain()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(main())
        trio.run(main)
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


def test_copies_and_pickles_of_an_owner_have_resources_of_their_own(journal):
    owner = Frozen("a")
    first = _runtime.call(client_of, owner, journal)
    for twin in (copy.copy(owner), copy.deepcopy(owner), pickle.loads(pickle.dumps(owner))):
        assert twin == owner
        assert _runtime.call(client_of, twin, journal) is not first
    per_loop.close(owner)


def test_a_new_owner_with_the_id_of_a_collected_one_does_not_get_its_resources(journal):
    async def main():
        owner = Plain()
        number = id(owner)
        first = await client_of(owner, journal)
        del owner
        keep = []
        for _ in range(10_000):  # until the memory is used again; the close of the first has not run yet
            other = Plain()
            if id(other) == number:
                return await client_of(other, journal) is not first
            keep.append(other)
        return None

    assert asyncio.run(main()) is not False


def test_owners_that_threads_drop_at_the_same_time_are_all_closed(journal):
    def work():
        for _ in range(50):
            _runtime.call(client_of, Plain(), journal)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(journal) == 200
    assert until(lambda: all(client.closed_in == client.loop for client in journal))
