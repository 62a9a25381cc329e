"""Conversations in a store: a chain of runs, killed and resumed, upgraded, and purged in part."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llm_council import Council, CouncilConfig
from llm_council.errors import InvalidOption, StoreError
from llm_council.store import Store
from llm_council.testing.fakes import ScriptedProvider
from tests.store import conversation

ANSWER = {"type": "string"}
SCRIPT = {"draft": "A draft.", "critique": "RANKING: A", "*": '"Paris"'}


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["critique", "synthesise"])
def test_three_turns_go_on_after_kill_9_in_the_second(tmp_path: Path, phase: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.store.conversation", str(tmp_path), phase]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    before = (tmp_path / "paid").read_text().splitlines()
    store = Store(tmp_path / "runs.db")
    second, first = store.runs_sync()
    assert (second.status, first.status) == ("interrupted", "completed")
    assert (second.follows, first.follows) == (first.run_id, None)

    council = conversation.council(tmp_path)
    with pytest.raises(InvalidOption, match=f"council resume {second.run_id}"):
        council.run(conversation.TURNS[2], history="last")
    resumed = council.resume(second.run_id)
    assert resumed.success
    assert resumed.plan.follows == first.run_id
    third = council.run(conversation.TURNS[2], schema=ANSWER, history="last")

    assert [one.answer for one in third.plan.history] == list(conversation.ANSWERS[:2])
    assert [one.run_id for one in third.plan.history] == [first.run_id, second.run_id]
    assert third.output == conversation.ANSWERS[2]
    chain = [(run.run_id, run.follows) for run in store.runs_sync()]
    assert chain == [(third.run_id, second.run_id), (second.run_id, first.run_id), (first.run_id, None)]
    # An answer that was stored before the kill is not paid for twice.
    paid = Counter((tmp_path / "paid").read_text().splitlines())
    in_flight = Counter(line for line in before if paid[line] > 1)
    assert len(in_flight) >= 1
    assert all(line.startswith("1 ") for line in in_flight)
    assert any(line.startswith("1 draft") and paid[line] == 1 for line in before)
    assert council.replay(third.run_id).to_dict() == third.to_dict()
    assert council.replay(second.run_id).output == resumed.output


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider(SCRIPT, name="ada")


@pytest.fixture
def council(provider: ScriptedProvider, tmp_path: Path) -> Council:
    return Council([provider], config=CouncilConfig(), store=tmp_path / "runs.db")


@pytest.mark.anyio
async def test_a_run_goes_on_from_an_id_its_beginning_or_last(council: Council, tmp_path: Path) -> None:
    first = await council.arun("One?", schema=ANSWER)
    for name in (first.run_id, first.run_id[:6]):
        result = await council.arun("Two?", schema=ANSWER, history=name)
        assert result.plan.follows == first.run_id
    last = await council.arun("Three?", schema=ANSWER, history="last")
    assert last.plan.follows == result.run_id
    assert council.plan("Four?", history=last.run_id).follows == last.run_id
    other = await council.arun("Four?", schema=ANSWER, history="last", store=False)
    assert other.plan.follows == last.run_id
    assert (await Store(tmp_path / "runs.db").runs(limit=1))[0].run_id == last.run_id


def test_an_unknown_run_is_named_before_anything_is_sent(council: Council, provider: ScriptedProvider) -> None:
    council.run("One?")
    asked = len(provider.requests)
    with pytest.raises(StoreError, match="no run abcdef is stored here"):
        council.run("Two?", history="abcdef")
    with pytest.raises(InvalidOption, match=r"history: a run's id is .* list of Message"):
        council.run("Two?", history="What was the first answer?")
    assert len(provider.requests) == asked


def test_a_follow_up_outlives_the_run_before(council: Council, tmp_path: Path) -> None:
    first = council.run("One?", schema=ANSWER)
    second = council.run("Two?", schema=ANSWER, history=first)
    store = Store(tmp_path / "runs.db")
    store.purge_sync(first.run_id)
    assert store.runs_sync()[0].follows == first.run_id
    assert council.replay(second.run_id).to_dict() == second.to_dict()
    third = council.run("Three?", schema=ANSWER, history=second.run_id)
    assert [one.task for one in third.plan.history] == ["One?", "Two?"]


def test_a_store_of_the_schema_before_follow_ups_is_upgraded(
    council: Council, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = council.run("One?", schema=ANSWER)
    path = tmp_path / "runs.db"
    # The file as the version before wrote it: without the column, and with the number of its schema.
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN follows")
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    copy = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    old = Council([ScriptedProvider(SCRIPT, name="ada")], config=CouncilConfig(), store=copy)
    result = old.run("Two?", schema=ANSWER, history=first.run_id)
    assert [(run.run_id, run.follows) for run in Store(copy).runs_sync()] == [
        (result.run_id, first.run_id),
        (first.run_id, None),
    ]


def test_an_export_names_the_run_before(council: Council, tmp_path: Path) -> None:
    first = council.run("One?")
    second = council.run("Two?", history=first)
    exported: dict[str, Any] = Store(tmp_path / "runs.db").export_sync(second.run_id)
    assert exported["follows"] == exported["plan"]["follows"] == first.run_id
