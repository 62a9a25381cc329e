"""The start gate: runs start a few at a time, in order of arrival, and each frees its slot."""

import math

import anyio
import pytest

from llm_council._engine.state import MAX_STARTING, StartSlot
from llm_council.errors import DeadlineExceeded, QuorumLost, ServerFailed
from llm_council.events import PhaseStarted, RunStarted, SeatStarted
from llm_council.models import Budget, Phase, Status
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.anyio

RUNS = 20
SCRIPT = {"draft": "391", "critique": "Right.", "synthesise": "It is 391."}


@pytest.fixture
def council(table):
    return table(ann=ScriptedProvider(SCRIPT), bob=ScriptedProvider(SCRIPT), cid=ScriptedProvider(SCRIPT))


async def test_the_first_runs_send_calls_before_the_last_ones_start(council):
    results = []

    async def one():
        results.append(await council.run())

    async with anyio.create_task_group() as group:
        for _ in range(RUNS):
            group.start_soon(one)
    assert [result.status for result in results] == [Status.COMPLETED] * RUNS
    beginning, most = set(), 0
    for event in council.events:
        if isinstance(event, PhaseStarted) and event.phase == Phase.DRAFT:
            beginning.add(event.run_id)
            most = max(most, len(beginning))
        if isinstance(event, SeatStarted) and event.phase == Phase.DRAFT:
            beginning.discard(event.run_id)
    assert most <= MAX_STARTING < RUNS
    assert not beginning


async def test_runs_start_in_the_order_of_their_arrival(council):
    async with anyio.create_task_group() as group:
        for _ in range(RUNS):
            group.start_soon(council.run)
    began = [event.run_id for event in council.events_of(PhaseStarted) if event.phase == Phase.DRAFT]
    came = [event.run_id for event in council.events_of(RunStarted)]
    assert len(began) == RUNS
    # Those that may begin together do so in any order: trio's own is left to chance.
    assert all(abs(began.index(run) - place) < MAX_STARTING for place, run in enumerate(came))


async def _entered(group, entered):
    async def stay(number):
        async with StartSlot(math.inf):
            entered.append(number)
            await anyio.sleep_forever()

    for number in range(MAX_STARTING):
        group.start_soon(stay, number)
    await anyio.wait_all_tasks_blocked()


async def test_a_run_cancelled_while_it_waits_takes_no_slot(council):
    entered = []
    async with anyio.create_task_group() as stayers:
        await _entered(stayers, entered)
        assert len(entered) == MAX_STARTING
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(council.run)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert [result.status for result in council.results] == [Status.CANCELLED]
        assert not council.events_of(SeatStarted)
        stayers.cancel_scope.cancel()
    assert (await council.run()).status is Status.COMPLETED


async def test_waiting_for_a_slot_counts_against_the_deadline(council):
    async with anyio.create_task_group() as stayers:
        await _entered(stayers, [])
        result = await council.run(budget=Budget(deadline=0.05))
        stayers.cancel_scope.cancel()
    assert isinstance(result.error, DeadlineExceeded)
    assert not any(seat.requests for seat in council.seats.values())


async def test_a_run_frees_its_slot_once_its_first_calls_are_sent(table):
    slow = ScriptedProvider(SCRIPT, delay={"draft": float("inf")})
    hanging = table(ann=slow, bob=slow)
    quick = table(ann=ScriptedProvider(SCRIPT), bob=ScriptedProvider(SCRIPT))
    async with anyio.create_task_group() as group:
        for _ in range(2 * MAX_STARTING):
            group.start_soon(hanging.run)
        await anyio.wait_all_tasks_blocked()
        assert (await quick.run()).status is Status.COMPLETED
        group.cancel_scope.cancel()


async def test_a_run_that_fails_frees_its_slot(table):
    down = ScriptedProvider({"*": ServerFailed("down", status=500)})
    for _ in range(MAX_STARTING + 1):
        assert isinstance((await table(ann=down, bob=down).run()).error, QuorumLost)


async def test_every_event_loop_has_its_own_slots():
    async def fill():
        async with anyio.create_task_group() as group:
            entered = []
            await _entered(group, entered)
            group.cancel_scope.cancel()
        return len(entered)

    assert await fill() == MAX_STARTING
    assert await anyio.to_thread.run_sync(anyio.run, fill) == MAX_STARTING
