"""Storing, listing, showing, exporting, replaying, resuming and purging runs."""

from __future__ import annotations

import copy
import json
import os
import sqlite3
import stat
import string
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import Budget, Council, CouncilConfig, errors
from llm_council.errors._secrets import Secret
from llm_council.events import Event, SeatFinished
from llm_council.models import GenerateRequest, Phase
from llm_council.models._convert import dump
from llm_council.models._journal import Call, CallRecord
from llm_council.results import CouncilResult
from llm_council.store import Store, _encoding
from llm_council.store._run_journal import RunJournal
from llm_council.store._writer import writer_for
from llm_council.testing.fakes import ScriptedProvider

ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
# The labels of a run are drawn: every letter stands in the ranking.
REVIEW = "Good.\nRANKING: " + " > ".join(string.ascii_uppercase)
SCRIPT = {"draft": "It is Paris.", "critique": REVIEW, "synthesise": ANSWER}


def seats(script: Any = SCRIPT, **options: Any) -> list[ScriptedProvider]:
    """Return three seats; each has its own copy of the script, because an error instance cannot be shared."""
    return [ScriptedProvider(copy.deepcopy(script), name=name, **options) for name in ("ada", "bob", "cyd")]


def refused(_: GenerateRequest) -> errors.AuthenticationFailed:
    return errors.AuthenticationFailed("no", status=401)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "runs.db"


@pytest.fixture
def council(path: Path) -> Council:
    return Council(seats(), config=CouncilConfig(seed="a seed"), store=path)


def test_nothing_is_sent_before_every_answer_so_far_is_committed(path: Path) -> None:
    answered: list[str] = []

    def asked(request: GenerateRequest) -> str:
        phase = str(request.metadata["phase"])
        with closing(sqlite3.connect(path, timeout=5)) as connection:
            committed = [name.partition("/")[0] for (name,) in connection.execute("SELECT name FROM endings")]
            noted = {name.partition("/")[0] for (name,) in connection.execute("SELECT name FROM calls")}
        assert phase in noted
        if phase == "critique":  # of one draft, at least; another may have come since
            assert "draft" in committed
        if phase in ("synthesise", "repair"):
            assert sorted(committed) == sorted(answered)
        answered.append(phase)
        return "{" if phase == "synthesise" else SCRIPT.get(phase, ANSWER)

    council = Council(seats(dict.fromkeys((*SCRIPT, "repair"), asked)), config=CouncilConfig(), store=path)
    result = council.run("Where?")
    assert (result.status, result.errors) == ("completed", {})
    assert len(answered) == 7


@pytest.mark.anyio
async def test_calls_that_are_made_in_one_turn_of_the_loop_are_committed_together(
    council: Council, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await council.arun("Where?")  # so that the writer's thread is there
    writer, plan = writer_for(path), council.plan("Where else?")
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


def test_nothing_is_written_unless_a_store_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    council = Council(seats(), config=CouncilConfig())
    assert council.run("Where?").success
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.InvalidOption, match="no run store is configured"):
        council.replay("some-run")


def test_a_store_is_named_by_argument_configuration_environment_or_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_COUNCIL_STORE", str(tmp_path / "environment.db"))
    assert CouncilConfig.from_env().store == str(tmp_path / "environment.db")
    Council(seats(), config=CouncilConfig.from_env()).run("Where?")
    Council(seats(), config=CouncilConfig.from_env(), store=tmp_path / "argument.db").run("Where?")
    council = Council(seats(), config=CouncilConfig(store=str(tmp_path / "configuration.db")))
    council.run("Where?")
    council.run("Where?", store=tmp_path / "run.db")
    council.run("Where?", store=False)
    for name in ("environment", "argument", "configuration", "run"):
        assert len(Store(tmp_path / f"{name}.db").runs_sync()) == 1
    with pytest.raises(errors.InvalidOption, match="store"):
        CouncilConfig(store=" ")


def test_a_projects_configuration_file_cannot_name_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "council.toml").write_text('[council]\nstore = "runs.db"\n')
    with pytest.raises(errors.UntrustedConfig, match="store"):
        CouncilConfig.discover(tmp_path)


def test_files_are_readable_by_their_owner_alone(council: Council, path: Path) -> None:
    mask = os.umask(0)
    try:
        council.run("Where?")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = list(path.parent.iterdir())
    assert path in files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_others_can_read_is_made_private(council: Council, path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    path.chmod(0o644)
    council.run("Where?")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_runs_are_listed_shown_and_exported(council: Council, path: Path) -> None:
    first, second = council.run("Where?", metadata={"ticket": 7}), council.run("Where else?", "implementer")
    store = Store(path)
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
async def test_the_awaited_methods_return_what_the_blocking_ones_do(council: Council, path: Path) -> None:
    result = await council.run("Where?")
    store = Store(path)
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
def test_a_replay_returns_the_same_result_and_events_as_the_run(path: Path, script: Any, streamed: bool) -> None:
    received: list[Event] = []
    council = Council(seats(script), config=CouncilConfig(), store=path, listeners=[received.append])
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
    path: Path, grace: float | None, anyio_backend: str
) -> None:
    slow = ScriptedProvider(SCRIPT, name="ada", delay={"draft": 0.05 if grace is None else 30.0})
    quick = [ScriptedProvider(SCRIPT, name=name, delay=0.01) for name in ("bob", "cyd", "dan")]
    council = Council([slow, *quick], config=CouncilConfig(), store=path, budget=Budget(grace=grace, deadline=20))
    result = await council.arun("Where?")
    assert (result.status == "completed") == (grace is None)
    other = "trio" if anyio_backend == "asyncio" else "asyncio"
    replayed = await anyio.to_thread.run_sync(lambda: anyio.run(council.areplay, result.run_id, backend=other))
    assert replayed.to_dict() == result.to_dict()


def test_a_replay_breaks_ties_by_the_seed_of_the_run(path: Path) -> None:
    voters = seats({"draft": "It is Paris.", "rank": "All hold.", "*": ANSWER})
    winners = set()
    for seed in ("one", "two", "three", "four", "five", "six"):
        result = Council(voters, config=CouncilConfig(seed=seed), store=path, strategy="vote").run("Where?")
        replayed = Council(voters[::-1], config=CouncilConfig(seed="another")).replay(result.run_id, store=path)
        assert replayed.to_dict() == result.to_dict()
        winners.add(result.chair)
    assert winners == {"ada", "bob", "cyd"}


def test_a_run_that_its_deadline_ended_replays(path: Path) -> None:
    council = Council(
        seats(delay=30.0), config=CouncilConfig(), store=path, budget=Budget(deadline=0.2), strategy="vote"
    )
    result = council.run("Where?")
    assert isinstance(result.error, errors.DeadlineExceeded)
    assert council.replay(result.run_id).to_dict() == result.to_dict()


def test_replay_refuses_an_unknown_run_an_invalid_id_and_a_changed_call(council: Council, path: Path) -> None:
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
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE calls SET digest = 'another' WHERE name LIKE 'synthesise/%'")
    with pytest.raises(errors.StoreError, match="asked otherwise") as caught:
        council.replay(result.run_id)
    assert caught.value.kind == "diverged"


def test_no_secret_is_stored(path: Path) -> None:
    key = Secret('canary-"quoted\\key-0123456789')
    text_with_keys = f"the key is {key.reveal()} and sk-another0123456789abcdef"
    council = Council(seats({**SCRIPT, "draft": text_with_keys}), config=CouncilConfig(), store=path)
    result = council.run(f"Where? {key.reveal()}", metadata={"note": text_with_keys, key.reveal(): 1})
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert len(held) > 10_000
    for trace in (key.reveal(), json.dumps(key.reveal())[1:-1], "sk-another"):
        assert trace.encode() not in held
    replayed = council.replay(result.run_id)
    assert replayed.drafts["ada"] == "the key is *** and ***"


def test_purge_removes_the_runs_text_from_the_files(council: Council, path: Path) -> None:
    kept_run = council.run("Where is the kept one?")
    gone = council.run("Where is the CANARY-OF-THE-TASK?")
    store = Store(path)
    assert store.purge_sync(gone.run_id) == (gone.run_id,)
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"CANARY-OF-THE-TASK" not in held
    assert gone.run_id.encode() not in held
    assert [info.run_id for info in store.runs_sync()] == [kept_run.run_id]
    with pytest.raises(errors.StoreError, match="no run"):
        store.purge_sync(gone.run_id)
    assert store.purge_sync(before=datetime.now(UTC) - timedelta(days=1)) == ()
    assert store.purge_sync(before=datetime.now(UTC) + timedelta(days=1)) == (kept_run.run_id,)


@pytest.mark.anyio
async def test_a_running_run_can_be_neither_purged_nor_resumed(path: Path) -> None:
    council = Council(seats(delay=float("inf")), config=CouncilConfig(), store=path)
    store = Store(path)
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
async def test_a_cancelled_run_resumes(path: Path) -> None:
    config = CouncilConfig(seed="a seed")
    slow = Council(seats(delay={"critique": float("inf")}), config=config, store=path)
    async with anyio.create_task_group() as group:
        group.start_soon(slow.arun, "Where?")
        while not (found := await Store(path).runs()) or found[0].answered < 2 or found[0].in_flight < 3:
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    while (await Store(path).show(found[0].run_id)).info.status != "cancelled":
        await anyio.sleep(0.01)
    council = Council(seats(), config=config, store=path)
    result = await council.aresume(found[0].run_id)
    assert result.status == "completed"
    assert len([line for line in result.warnings if "in flight" in line]) == 3
    assert not any(seat.inner.asked("draft") for seat in council._seating.providers.values())
    assert (await council.areplay(result.run_id)).to_dict() == result.to_dict()
    assert {call.repeats for call in (await Store(path).show(result.run_id)).calls} == {0, 1}


def test_resuming_a_failed_run_repeats_the_calls_that_failed(path: Path) -> None:
    down = {**SCRIPT, "synthesise": refused, "critique": "x"}
    failing = Council(seats({**SCRIPT, "draft": refused}), config=CouncilConfig(), store=path)
    lost = failing.run("Where?")
    assert lost.status == "failed"
    council = Council(seats(down), config=CouncilConfig(), store=path)
    result = council.resume(lost.run_id)
    assert result.status == "degraded"
    assert result.warnings
    assert not [line for line in result.warnings if "in flight" in line]
    assert council.replay(result.run_id).to_dict() == result.to_dict()
    assert council.resume(result.run_id).to_dict() == result.to_dict()


def test_resume_refuses_a_council_that_lacks_a_seat_of_the_run(path: Path) -> None:
    failing = Council(seats(refused), config=CouncilConfig(), store=path)
    lost = failing.run("Where?")
    with pytest.raises(errors.UnknownProvider, match="ada"):
        Council([ScriptedProvider(SCRIPT, name="zoe")], config=CouncilConfig(), store=path).resume(lost.run_id)
    assert Store(path).show_sync(lost.run_id).info.status == "failed"


def test_a_run_of_another_process_is_taken_over_only_without_heartbeats(council: Council, path: Path) -> None:
    result = council.run("Where?")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET status = 'running', owner = 'elsewhere:1', beat = 0")
        connection.execute("DELETE FROM papers WHERE kind = 'result'")
    assert Store(path).runs_sync()[0].status == "interrupted"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET beat = 1e12")
    with pytest.raises(errors.StoreError) as caught:
        council.resume(result.run_id)
    assert caught.value.kind == "running"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE runs SET beat = 0")
    again = council.resume(result.run_id)
    assert again.to_dict() == {**result.to_dict(), "duration": again.duration}


@pytest.mark.anyio
async def test_a_process_whose_run_was_taken_over_writes_no_more_of_it(path: Path) -> None:
    taken = anyio.Event()

    async def later(_: GenerateRequest) -> str:
        await taken.wait()
        return "Good."

    council = Council(seats({**SCRIPT, "critique": later}), config=CouncilConfig(), store=path)
    results: list[CouncilResult] = []

    async def run() -> None:
        results.append(await council.arun("Where?"))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        while not await Store(path).runs():
            await anyio.sleep(0.005)
        with closing(sqlite3.connect(path, timeout=5)) as connection, connection:
            connection.execute("UPDATE runs SET session = 2")
        taken.set()
    assert results[0].success
    assert any("taken it over" in line for line in results[0].warnings)
    assert (await Store(path).runs())[0].status in ("running", "interrupted")


ENDINGS = st.builds(
    CallRecord,
    response=st.none() | strategies.responses(),
    error=st.none() | strategies.errors(),
    elapsed=st.floats(0, 1e6),
    sent=st.booleans(),
    cut=st.booleans(),
    spent=st.dictionaries(st.sampled_from(["calls", "tokens", "usd"]), st.integers(0, 10**9)),
    problem=st.none() | strategies.problems(),
    kept=st.none() | st.integers(0, 10**6),
)


@examples(30)
@given(ENDINGS)
def test_an_ending_is_decoded_as_it_was_encoded_with_secrets_masked(ending: CallRecord) -> None:
    text = _encoding.encode_ending(ending)
    assert text.isascii()
    assert dump(_encoding.decode_ending(text)) == _encoding.mask(dump(ending))
    assert _encoding.encode_ending(_encoding.decode_ending(text)) == text


@examples(15)
@given(strategies.requests(), strategies.requests())
def test_requests_for_different_things_have_different_digests(one: GenerateRequest, other: GenerateRequest) -> None:
    aside = attrs.evolve(one, idempotency_key="another", metadata={"run_id": "another"}, timeout_seconds=1.0)
    assert _encoding.request_digest(one) == _encoding.request_digest(aside)
    if _encoding.mask(dump(attrs.evolve(other, **_same(one)))) != _encoding.mask(dump(one)):
        assert _encoding.request_digest(one) != _encoding.request_digest(other)


def _same(one: GenerateRequest) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("idempotency_key", "metadata", "timeout_seconds", "stream")}


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_value_without_secrets_is_stored_unchanged(value: Any) -> None:
    assert json.loads(_encoding.encode({"value": value})) == {"value": value}


def test_an_ending_that_is_too_large_is_stored_without_the_raw_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_council.models import GenerateResponse

    monkeypatch.setattr(_encoding, "MAX_LENGTH", 2000)
    ending = CallRecord(response=GenerateResponse(text="words", raw={"long": "x" * 3000}))
    assert _encoding.decode_ending(_encoding.encode_ending(ending)).response == GenerateResponse(text="words")
    with pytest.raises(errors.StoreError, match="larger"):
        _encoding.encode_ending(CallRecord(response=GenerateResponse(text="x" * 3000)))


def test_many_councils_write_one_store(path: Path) -> None:
    async def main() -> list[str]:
        council = Council(seats(), config=CouncilConfig(), store=path)
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
    assert sorted(info.run_id for info in Store(path).runs_sync()) == sorted(ids)


@pytest.mark.slow
def test_six_processes_start_at_once_and_write_one_store(
    path: Path, tmp_path: Path, python: Callable[..., Any]
) -> None:
    script = """
        import os, sys
        from llm_council import Council, CouncilConfig
        from llm_council.testing.fakes import ScriptedProvider
        ANSWER = '{"answer": "Paris", "reasoning": "It is the capital."}'
        review = "RANKING: " + " > ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        seats = [ScriptedProvider({"critique": review, "*": ANSWER}, name=name) for name in ("ada", "bob", "cyd")]
        council = Council(seats, config=CouncilConfig(), store=sys.argv[1])
        import llm_council.store
        council.run("Where?", store=False)  # so that no child spends seconds on imports in its event loop
        children = []
        for _ in range(6):
            child = os.fork()
            if child == 0:
                warnings = [line for _ in range(3) for line in council.run("Where?").warnings]
                from llm_council.store import _writer
                _writer.stop_all()
                sys.stderr.write("".join(warnings))
                sys.stderr.flush()
                os._exit(len(warnings))
            children.append(child)
        sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    """
    done = python(script, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    infos = Store(path).runs_sync()
    assert len(infos) == 18
    assert {(info.status, info.answered) for info in infos} == {("completed", 6)}


def test_a_process_that_ends_has_written_everything(path: Path, python: Callable[..., Any]) -> None:
    script = """
        import sys
        from llm_council import Council, CouncilConfig
        from llm_council.testing.fakes import ScriptedProvider
        council = Council([ScriptedProvider("words")], config=CouncilConfig(), store=sys.argv[1])
        council.run("Where?", schema={"type": "string"})
    """
    done = python(script, str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.name for file in path.parent.iterdir()] == ["runs.db"]  # closed: its log is gone
    assert len(Store(path).runs_sync()) == 1
