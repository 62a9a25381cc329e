"""The laws of the store, in a file of SQLite and in a PostgreSQL database (tox -e postgres)."""

from __future__ import annotations

import copy
import json
import string
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from llm_council import Budget, Council, CouncilConfig, errors
from llm_council.errors._secrets import Secret
from llm_council.events import Event, SeatFinished
from llm_council.models import GenerateRequest, Phase
from llm_council.models._convert import dump
from llm_council.models._journal import Call
from llm_council.results import CouncilResult
from llm_council.store import Store, _database, _writer
from llm_council.store._database import TABLES
from llm_council.store._run_journal import RunJournal
from llm_council.testing.fakes import ScriptedProvider
from tests.store.places import Place

ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
# The labels of a run are drawn: every letter stands in the ranking.
REVIEW = "Good.\nRANKING: " + " > ".join(string.ascii_uppercase)
SCRIPT = {"draft": "It is Paris.", "critique": REVIEW, "synthesise": ANSWER}


def seats(script: Any = SCRIPT, **options: Any) -> list[ScriptedProvider]:
    """Return three seats; each has its own copy of the script, because an error instance cannot be shared."""
    return [ScriptedProvider(copy.deepcopy(script), name=name, **options) for name in ("ada", "bob", "cyd")]


def refused(_: GenerateRequest) -> errors.AuthenticationFailed:
    return errors.AuthenticationFailed("no", status=401)


def warned(council: Council) -> str:
    """Run the council, and return the warnings of its result."""
    result = council.run("Where?")
    assert result.success
    return "\n".join(result.warnings)


@pytest.fixture
def council(place: Place) -> Council:
    return Council(seats(), config=CouncilConfig(seed="a seed"), store=place.address)


@pytest.fixture(autouse=True)
def _fresh_writers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Start each test without an open connection, and close all at its end."""
    monkeypatch.setattr(_writer, "_writers", {})
    yield
    _writer.stop_all()


def test_nothing_is_sent_before_every_answer_so_far_is_committed(place: Place) -> None:
    answered: list[str] = []

    def asked(request: GenerateRequest) -> str:
        phase = str(request.metadata["phase"])
        committed = [name.partition("/")[0] for (name,) in place.query("SELECT name FROM {endings}")]
        noted = {name.partition("/")[0] for (name,) in place.query("SELECT name FROM {calls}")}
        assert phase in noted
        if phase == "critique":  # of one draft, at least; another may have come since
            assert "draft" in committed
        if phase in ("synthesise", "repair"):
            assert sorted(committed) == sorted(answered)
        answered.append(phase)
        return "{" if phase == "synthesise" else SCRIPT.get(phase, ANSWER)

    council = Council(seats(dict.fromkeys((*SCRIPT, "repair"), asked)), config=CouncilConfig(), store=place.address)
    result = council.run("Where?")
    assert (result.status, result.errors) == ("completed", {})
    assert len(answered) == 7


@pytest.mark.anyio
async def test_calls_that_are_made_in_one_turn_of_the_loop_are_committed_together(
    council: Council, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await council.arun("Where?")  # so that the writer's thread is there
    writer, plan = Store(place.address)._writer(), council.plan("Where else?")
    journal = RunJournal(writer, plan)
    transactions: list[int] = []

    async def record(name: str) -> None:
        time.sleep(0.05)  # long enough for the thread to begin a transaction, if the first call had woken it
        request = GenerateRequest(prompt="Where else?")
        await journal.record_call(Call(name=name, phase=Phase.DRAFT, seat=name, request=request))

    def write_call(*args: Any) -> None:
        transactions.append(writer.transaction)
        RunJournal._write_call(journal, *args)

    monkeypatch.setattr(journal, "_write_call", write_call)
    try:
        async with anyio.create_task_group() as group:
            for name in ("ada", "bob", "cyd"):
                group.start_soon(record, name)
    finally:
        writer.remove_run(plan.run_id, 1)
    assert (len(transactions), len(set(transactions)), journal.warnings()) == (3, 1, ())


def test_runs_are_listed_shown_and_exported(council: Council, place: Place) -> None:
    first, second = council.run("Where?", metadata={"ticket": 7}), council.run("Where else?", "implementer")
    store = Store(place.address)
    assert [info.run_id for info in store.runs_sync()] == [second.run_id, first.run_id]
    assert len(store.runs_sync(limit=1)) == 1
    shown = store.show_sync(first.run_id)
    assert (shown.info.status, shown.info.task, shown.info.subagent) == ("completed", "Where?", "advisor")
    assert (shown.info.answered, shown.info.in_flight) == (6, 0)
    assert abs(shown.info.started - datetime.now(UTC)) < timedelta(minutes=5)
    assert dump(shown.plan) == dump(first.plan)
    assert {call.state for call in shown.calls} == {"answered"}
    assert CouncilResult.from_dict(shown.result or {}) == first
    exported = store.export_sync(first.run_id)
    assert exported["result"] == first.to_dict()
    replies = {call["name"]: call["ending"]["response"]["text"] for call in exported["calls"]}
    assert replies["draft/ada/1"] == "It is Paris."
    assert json.loads(json.dumps(exported)) == exported


@pytest.mark.anyio
async def test_the_awaited_methods_return_what_the_blocking_ones_do(council: Council, place: Place) -> None:
    result = await council.run("Where?")
    store = Store(place.address)
    (info,) = await store.runs()
    assert info.run_id == result.run_id
    assert (await council.replay(result.run_id)).to_dict() == result.to_dict()
    assert (await council.aresume(result.run_id)).to_dict() == result.to_dict()
    assert (await store.export(result.run_id))["status"] == "completed"
    assert await store.purge(result.run_id) == (result.run_id,)
    assert await store.runs() == ()


@pytest.mark.parametrize(
    "script",
    [
        SCRIPT,
        {**SCRIPT, "synthesise": ["not JSON", "{}"], "repair": ["{}", ANSWER]},
        {**SCRIPT, "draft": [errors.ServerFailed("busy", status=503), "late", "later"]},
        {**SCRIPT, "synthesise": [errors.ContextTooLong("too long"), ANSWER, ANSWER, ANSWER]},
        {**SCRIPT, "draft": refused},
        {**SCRIPT, "draft": "unicode \ud83d \x00 \U0001f600 " + "x" * 100_000},
    ],
    ids=["plain", "repaired", "retried", "shortened", "failed", "odd"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_replay_returns_the_same_result_and_events_as_the_run(place: Place, script: Any, streamed: bool) -> None:
    received: list[Event] = []
    council = Council(seats(script), config=CouncilConfig(), store=place.address, listeners=[received.append])
    if streamed:
        with council.stream("Where?") as events:
            list(events)
        result = events.result
    else:
        result = council.run("Where?")
    ended = [
        (event.seat, event.phase, event.at, event.elapsed) for event in received if isinstance(event, SeatFinished)
    ]
    received.clear()
    asked = len([request for seat in council._seating.providers.values() for request in seat.inner.requests])
    replayed = council.replay(result.run_id)
    assert json.dumps(replayed.to_dict(), sort_keys=True) == json.dumps(result.to_dict(), sort_keys=True)
    again = [
        (event.seat, event.phase, event.at, event.elapsed) for event in received if isinstance(event, SeatFinished)
    ]
    assert again == ended
    assert asked == len([r for seat in council._seating.providers.values() for r in seat.inner.requests])


@pytest.mark.parametrize("grace", [0.0, None])
@pytest.mark.anyio
async def test_a_replay_keeps_the_order_of_answers_and_the_calls_that_were_cut(
    place: Place, grace: float | None, anyio_backend: str
) -> None:
    slow = ScriptedProvider(SCRIPT, name="ada", delay={"draft": 0.05 if grace is None else 30.0})
    quick = [ScriptedProvider(SCRIPT, name=name, delay=0.01) for name in ("bob", "cyd", "dan")]
    council = Council(
        [slow, *quick], config=CouncilConfig(), store=place.address, budget=Budget(grace=grace, deadline=20)
    )
    result = await council.arun("Where?")
    assert (result.status == "completed") == (grace is None)
    other = "trio" if anyio_backend == "asyncio" else "asyncio"
    replayed = await anyio.to_thread.run_sync(lambda: anyio.run(council.areplay, result.run_id, backend=other))
    assert replayed.to_dict() == result.to_dict()


def test_a_replay_breaks_ties_by_the_seed_of_the_run(place: Place) -> None:
    voters = seats({"draft": "It is Paris.", "rank": "All hold.", "*": ANSWER})
    winners = set()
    for seed in ("one", "two", "three", "four", "five", "six"):
        result = Council(voters, config=CouncilConfig(seed=seed), store=place.address, strategy="vote").run("Where?")
        replayed = Council(voters[::-1], config=CouncilConfig(seed="another")).replay(
            result.run_id, store=place.address
        )
        assert replayed.to_dict() == result.to_dict()
        winners.add(result.chair)
    assert winners == {"ada", "bob", "cyd"}


def test_a_run_that_its_deadline_ended_replays(place: Place) -> None:
    council = Council(
        seats(delay=30.0), config=CouncilConfig(), store=place.address, budget=Budget(deadline=0.2), strategy="vote"
    )
    result = council.run("Where?")
    assert isinstance(result.error, errors.DeadlineExceeded)
    assert council.replay(result.run_id).to_dict() == result.to_dict()


def test_replay_refuses_an_unknown_run_an_invalid_id_and_a_changed_call(council: Council, place: Place) -> None:
    with pytest.raises(errors.StoreError) as caught:
        council.replay("0123")
    assert caught.value.kind == "missing"
    result = council.run("Where?")
    with pytest.raises(errors.StoreError) as caught:
        council.replay("0123")
    assert caught.value.kind == "unknown-run"
    for hostile in ("../x", "a b", "", "x" * 65, "a;b", "a\n"):
        with pytest.raises(errors.InvalidOption):
            council.replay(hostile)
    place.change("UPDATE {calls} SET digest = 'another' WHERE substr(name, 1, 10) = 'synthesise'")
    with pytest.raises(errors.StoreError, match="asked otherwise") as caught:
        council.replay(result.run_id)
    assert caught.value.kind == "diverged"


def test_no_secret_is_stored(place: Place) -> None:
    key = Secret('canary-"quoted\\key-0123456789')
    text_with_keys = f"the key is {key.reveal()} and sk-another0123456789abcdef"
    council = Council(seats({**SCRIPT, "draft": text_with_keys}), config=CouncilConfig(), store=place.address)
    result = council.run(f"Where? {key.reveal()}", metadata={"note": text_with_keys, key.reveal(): 1})
    held = place.held()
    assert len(held) > 10_000
    for trace in (key.reveal(), json.dumps(key.reveal())[1:-1], "sk-another"):
        assert trace not in held
    replayed = council.replay(result.run_id)
    assert replayed.drafts["ada"] == "the key is *** and ***"


@pytest.mark.anyio
async def test_a_running_run_can_be_neither_purged_nor_resumed(place: Place) -> None:
    council = Council(seats(delay=float("inf")), config=CouncilConfig(), store=place.address)
    store = Store(place.address)
    async with anyio.create_task_group() as group:
        group.start_soon(council.arun, "Where?")
        while not (found := await store.runs()):
            await anyio.sleep(0.01)
        assert found[0].status == "running"
        for attempt in (store.purge, council.aresume):
            with pytest.raises(errors.StoreError) as caught:
                await attempt(found[0].run_id)
            assert caught.value.kind == "running"
        assert await store.purge(before=datetime.now(UTC) + timedelta(days=1)) == ()
        group.cancel_scope.cancel()
    while (await store.show(found[0].run_id)).info.status != "cancelled":
        await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_a_cancelled_run_resumes(place: Place) -> None:
    config = CouncilConfig(seed="a seed")
    slow = Council(seats(delay={"critique": float("inf")}), config=config, store=place.address)
    async with anyio.create_task_group() as group:
        group.start_soon(slow.arun, "Where?")
        while not (found := await Store(place.address).runs()) or found[0].answered < 2 or found[0].in_flight < 3:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    while (await Store(place.address).show(found[0].run_id)).info.status != "cancelled":
        await anyio.sleep(0.01)
    council = Council(seats(), config=config, store=place.address)
    result = await council.aresume(found[0].run_id)
    assert result.status == "completed"
    assert len([line for line in result.warnings if "in flight" in line]) == 3
    assert not any(seat.inner.asked("draft") for seat in council._seating.providers.values())
    assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()
    assert {call.repeats for call in (await Store(place.address).show(result.run_id)).calls} == {0, 1}


def test_resuming_a_failed_run_repeats_the_calls_that_failed(place: Place) -> None:
    down = {**SCRIPT, "synthesise": refused, "critique": "x"}
    failing = Council(seats({**SCRIPT, "draft": refused}), config=CouncilConfig(), store=place.address)
    lost = failing.run("Where?")
    assert lost.status == "failed"
    council = Council(seats(down), config=CouncilConfig(), store=place.address)
    result = council.resume(lost.run_id)
    assert result.status == "degraded"
    assert result.warnings
    assert not [line for line in result.warnings if "in flight" in line]
    assert council.replay(result.run_id).to_dict() == result.to_dict()
    assert council.resume(result.run_id).to_dict() == result.to_dict()


def test_resume_refuses_a_council_that_lacks_a_seat_of_the_run(place: Place) -> None:
    failing = Council(seats(refused), config=CouncilConfig(), store=place.address)
    lost = failing.run("Where?")
    with pytest.raises(errors.UnknownProvider, match="ada"):
        Council([ScriptedProvider(SCRIPT, name="zoe")], config=CouncilConfig(), store=place.address).resume(lost.run_id)
    assert Store(place.address).show_sync(lost.run_id).info.status == "failed"


def test_a_run_of_another_process_is_taken_over_only_without_heartbeats(council: Council, place: Place) -> None:
    result = council.run("Where?")
    place.change(
        "UPDATE {runs} SET status = 'running', owner = 'elsewhere:1', beat = 0",
        "DELETE FROM {papers} WHERE kind = 'result'",
    )
    assert Store(place.address).runs_sync()[0].status == "interrupted"
    place.change("UPDATE {runs} SET beat = 1e12")
    with pytest.raises(
        errors.StoreError, match=r"in the process 1 on the host elsewhere since 20\d\d-\d\d-\d\d"
    ) as caught:
        council.resume(result.run_id)
    assert caught.value.kind == "running"
    place.change("UPDATE {runs} SET beat = 0")
    again = council.resume(result.run_id)
    assert again.to_dict() == {**result.to_dict(), "duration": again.duration}


@pytest.mark.anyio
async def test_a_process_whose_run_was_taken_over_writes_no_more_of_it(place: Place) -> None:
    taken = anyio.Event()

    async def later(_: GenerateRequest) -> str:
        await taken.wait()
        return "Good."

    council = Council(seats({**SCRIPT, "critique": later}), config=CouncilConfig(), store=place.address)
    results: list[CouncilResult] = []

    async def run() -> None:
        results.append(await council.arun("Where?"))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        while not await Store(place.address).runs():
            await anyio.sleep(0.005)
        place.change("UPDATE {runs} SET session = 2")
        taken.set()
    assert results[0].success
    assert any("taken it over" in line for line in results[0].warnings)
    assert (await Store(place.address).runs())[0].status in ("running", "interrupted")


def test_many_councils_write_one_store(place: Place) -> None:
    async def main() -> list[str]:
        council = Council(seats(), config=CouncilConfig(), store=place.address)
        ids: list[str] = []

        async def one() -> None:
            result = await council.arun("Where?")
            assert result.warnings == ()
            ids.append(result.run_id)

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(one)
        return ids

    ids = anyio.run(main)
    assert sorted(info.run_id for info in Store(place.address).runs_sync()) == sorted(ids)


def test_a_record_that_cannot_be_written_does_not_affect_the_others_of_its_batch(place: Place) -> None:
    writer = Store(place.address)._writer()
    found: dict[str, errors.StoreError | None] = {}
    done = threading.Semaphore(0)

    def entry(name: str, row: str) -> _writer.WriteJob:
        def tell(fault: errors.StoreError | None) -> None:
            found[name] = fault
            done.release()

        return _writer.WriteJob(lambda connection: connection.execute(statement, (row,)), tell, creates_store=True)

    statement = "INSERT INTO {runs} (id, started, status, task, subagent, version) VALUES (?, 0, 'x', '', '', '')"
    together = {"a": "other", "b": "same", "c": "same", "d": "d"}
    writer.put(*(entry(name, row) for name, row in together.items()))
    for _ in range(4):
        assert done.acquire(timeout=10)
    assert [name for name, fault in found.items() if fault is not None] == ["c"]
    assert len(Store(place.address).runs_sync()) == 3
    writer.stop(10)


def test_a_run_is_stored_whole_when_every_transaction_is_retried(
    council: Council, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, reported = _writer.Writer._next_batch, []
    wrong = _writer.WriteJob(
        lambda connection: connection.execute("INSERT INTO {runs} (id) VALUES ('x')"), reported.append
    )

    def batch(self: _writer.Writer, beat: float) -> list[_writer.WriteJob] | None:
        found = batches(self, beat)
        return [*found, wrong] if found else found

    monkeypatch.setattr(_writer.Writer, "_next_batch", batch)
    result = council.run("Where?")
    assert (result.status, result.warnings) == ("completed", ())
    assert None not in reported
    assert reported
    assert council.replay(result.run_id).to_dict() == result.to_dict()
    moments = [moment["moment"] for moment in Store(place.address).export_sync(result.run_id)["moments"]]
    assert len(moments) == len(set(moments))
    assert moments[-1] == "finished"


def test_the_writers_thread_ends_when_no_run_goes_on(council: Council, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_writer, "MAX_IDLE", 0.01)
    monkeypatch.setattr(_writer, "HEARTBEAT", 0.02)  # the thread may wait for the next one first
    for _ in range(3):
        assert warned(council) == ""
        end = time.monotonic() + 10
        while any(thread.name == "llm-council-store" for thread in threading.enumerate()):
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_long_run_sends_heartbeats(council: Council, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_writer, "HEARTBEAT", 0.02)
    writer = Store(place.address)._writer()
    result = council.run("Where?")

    def beat() -> float:
        return float(place.query("SELECT beat FROM {runs}")[0][0])

    before = beat()
    writer.add_run(result.run_id, 1)
    writer.put(_writer.WriteJob(lambda _: None, lambda _: None))
    end = time.monotonic() + 10
    while beat() == before:
        assert time.monotonic() < end
        time.sleep(0.01)
    writer.remove_run(result.run_id, 1)


def test_a_forked_child_has_a_writer_of_its_own(place: Place, python: Callable[..., Any]) -> None:
    script = """
        import os, sys
        from llm_council import Council, CouncilConfig
        from llm_council.store import Store, _writer
        from llm_council.testing.fakes import ScriptedProvider
        council = Council([ScriptedProvider("words")], config=CouncilConfig(), store=sys.argv[1])
        council.run("Where?")
        child = os.fork()
        council.run("Where?")
        if child == 0:
            _writer.stop_all()
            os._exit(len(Store(sys.argv[1]).runs_sync()) not in (2, 3))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(Store(sys.argv[1]).runs_sync()) == 3
    """
    done = python(script, place.address)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("version", range(1, _database.SCHEMA_VERSION))
def test_a_store_of_every_older_version_is_brought_up_to_date(council: Council, place: Place, version: int) -> None:
    result = council.run("Where?")
    _writer.stop_all()
    older = place.older(version)
    assert older.columns() != place.columns()
    (info,) = Store(older.address).runs_sync()
    assert (info.run_id, info.status, info.answered) == (result.run_id, "completed", len(result.seats) * 2)
    assert council.replay(result.run_id, store=older.address).to_dict() == result.to_dict()
    assert council.run("Where else?", store=older.address).warnings == ()
    assert older.version() == _database.SCHEMA_VERSION
    assert older.columns() == place.columns()


def test_a_migration_that_fails_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(place.address)
    store._database.connect().close()
    broken = (*_database.MIGRATIONS, "CREATE TABLE further (x INTEGER); ALTER TABLE nothing ADD COLUMN x INTEGER;")
    module = sys.modules[type(store._database).__module__]
    monkeypatch.setattr(module, "MIGRATIONS", broken)
    monkeypatch.setattr(module, "SCHEMA_VERSION", len(broken))
    with pytest.raises(errors.StoreError):
        store._database.connect()
    assert place.version() == len(broken) - 1
    with pytest.raises(Exception, match="further"):
        place.query("SELECT * FROM further")


def test_a_store_of_a_newer_version_is_refused_with_the_remedy(council: Council, place: Place) -> None:
    council.run("Where?")
    _writer.stop_all()
    place.set_version(_database.SCHEMA_VERSION + 1)
    held = place.held()
    result = council.run("Where?")
    assert result.success
    assert "newer version" in str(result.warnings)
    for look in (Store(place.address).runs_sync, lambda: council.replay("0"), lambda: council.resume("0")):
        with pytest.raises(errors.StoreError, match="upgrade, or name another") as caught:
            look()
        assert caught.value.kind == "newer"
    assert place.held() == held


def test_a_run_that_was_purged_meanwhile_says_so(council: Council, place: Place) -> None:
    def purge(_: GenerateRequest) -> str:
        place.change("DELETE FROM {runs}")
        return ANSWER

    purged = Council(seats({**SCRIPT, "synthesise": purge}), config=CouncilConfig(), store=place.address)
    result = purged.run("Where?")
    assert result.success
    (warning,) = [line for line in result.warnings if "not stored whole" in line]
    assert "it was purged, or another process has taken it over (not stored: the answers of synthesise/" in warning
    assert place.query("SELECT * FROM {endings}") == []


def test_runs_are_purged_by_name_and_by_age(council: Council, place: Place) -> None:
    kept, gone = council.run("Where?"), council.run("Where is the CANARY-OF-THE-TASK?")
    store = Store(place.address)
    assert store.purge_sync(gone.run_id) == (gone.run_id,)
    assert [info.run_id for info in store.runs_sync()] == [kept.run_id]
    assert "CANARY" not in place.held()
    with pytest.raises(errors.StoreError, match="no run"):
        store.purge_sync(gone.run_id)
    assert store.purge_sync(before=datetime.now(UTC) - timedelta(days=1)) == ()
    assert store.purge_sync(before=datetime.now(UTC) + timedelta(days=1)) == (kept.run_id,)
    assert [place.query(f"SELECT * FROM {{{table}}}") for table in TABLES] == [[]] * len(TABLES)


def test_a_conversation_goes_on_from_a_stored_run(council: Council, place: Place) -> None:
    first = council.run("Where?")
    second = council.run("And then?", history="last")
    assert second.plan.follows == first.run_id
    assert [info.follows for info in Store(place.address).runs_sync()] == [first.run_id, None]
    assert council.replay(second.run_id).to_dict() == second.to_dict()


def test_an_attached_picture_is_stored_and_shown_again(place: Place) -> None:
    capabilities = attrs.evolve(ScriptedProvider.capabilities, multimodal=True)
    sees = ScriptedProvider([errors.AuthenticationFailed("no", status=401), "It is red."], capabilities=capabilities)
    one = Council([sees], config=CouncilConfig(), store=place.address, strategy="single")
    failed = one.run("What is it?", files=[b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
    assert one.resume(failed.run_id).text == "It is red."
    first, again = sees.requests
    assert first.messages == again.messages


def test_of_many_that_resume_a_run_one_does(place: Place) -> None:
    slow = ScriptedProvider(SCRIPT, name="ada", delay={"critique": 0.2})
    failed = Council([ScriptedProvider(refused, name="ada")], config=CouncilConfig(), store=place.address).run("Where?")
    council = Council([slow], config=CouncilConfig(), store=place.address)
    outcomes: list[Any] = []

    def resume() -> None:
        try:
            outcomes.append(council.resume(failed.run_id))
        except errors.StoreError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=resume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    resumed = [one for one in outcomes if isinstance(one, CouncilResult)]
    refusals = [one for one in outcomes if isinstance(one, errors.StoreError)]
    assert {one.run_id for one in resumed} == {failed.run_id}
    assert len(slow.asked("draft")) == 1
    assert len(resumed) + len(refusals) == 4
    assert {error.kind for error in refusals} <= {"running"}


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def test_runs_are_copied_to_another_store(
    council: Council, place: Place, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    first, second = council.run("Where?"), council.run("And then?", history="last")
    failed = Council(seats(refused), config=CouncilConfig(), store=place.address).run("Where?")
    other = tmp_path / "other.db" if kind == "sqlite" else request.getfixturevalue("server").address("copies")
    if kind == "postgres":
        request.getfixturevalue("server").run("DROP DATABASE IF EXISTS copies", "CREATE DATABASE copies")
    source, target = Store(place.address), Store(other)
    assert source.copy_sync(first.run_id, to=target) == (first.run_id,)
    assert set(source.copy_sync(to=target)) == {second.run_id, failed.run_id}
    assert source.copy_sync(to=target) == ()
    assert target.runs_sync() == source.runs_sync()
    for run in (first, second, failed):
        assert target.export_sync(run.run_id) == source.export_sync(run.run_id)
    assert council.replay(second.run_id, store=other).to_dict() == second.to_dict()
    resumed = council.resume(failed.run_id, store=other)
    assert resumed.success
    assert source.show_sync(failed.run_id).info.status == "failed"
    with pytest.raises(errors.StoreError, match="no run"):
        source.copy_sync("abc", to=target)
