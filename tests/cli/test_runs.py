"""Stored runs on the command line."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llm_council import errors
from llm_council.models import GenerateRequest
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import ANSWER, Council


@pytest.fixture(autouse=True)
def _store(new_user: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLM_COUNCIL_STORE", str(tmp_path / "runs.db"))


def stored(council: Council) -> str:
    code, out, _ = council("run", "-p", "scripted:3", "--json", "Where?")
    assert code == 0
    return str(json.loads(out)["run_id"])


def test_runs_are_listed_shown_exported_and_deleted(council: Council, seat: ScriptedProvider) -> None:
    assert council("runs", "list") == (0, "run  began  status  subagent  task\n", "")
    run = stored(council)
    code, out, _ = council("runs", "list")
    assert (code, out.splitlines()[1].split()[0]) == (0, run)
    assert "completed" in out
    assert "Where?" in out
    (info,) = json.loads(council("runs", "list", "--json")[1])
    assert (info["run_id"], info["answered"]) == (run, 6)
    _, out, _ = council("runs", "show", run)
    assert "draft/scripted-1/1" in out
    assert "Paris" in out
    shown = json.loads(council("runs", "show", run, "--json")[1])
    assert shown["result"]["output"]["answer"] == "Paris"
    assert len(shown["calls"]) == 6
    exported = json.loads(council("runs", "export", run)[1])
    assert exported["calls"][0]["ending"]["response"]["text"] == ANSWER
    assert council("runs", "purge", run) == (0, "1 run deleted\n", "")
    stored(council)
    assert council("runs", "purge", "--days", "1")[1] == "0 runs deleted\n"
    assert council("runs", "purge", "--days", "0")[1] == "1 run deleted\n"


def test_a_replay_prints_what_the_run_printed(council: Council, seat: ScriptedProvider) -> None:
    code, out, _ = council("run", "-p", "scripted:3", "--json", "Where?")
    asked = len(seat.requests)
    run = json.loads(out)["run_id"]
    assert council("replay", run, "--json") == (code, out, "")
    assert council("replay", run)[1] == council("resume", run)[1]
    assert len(seat.requests) == asked


def test_show_names_the_files_of_a_run(council: Council, seat: ScriptedProvider) -> None:
    Path("notes.txt").write_text("Notes.")
    assert council("run", "-p", "scripted", "Where?", "-f", "notes.txt", "-f", "notes.txt")[0] == 0
    assert "files    notes.txt (text), notes.txt (text)\n" in council("runs", "show", "last")[1]


def test_an_interrupted_run_is_resumed(council: Council, seat: ScriptedProvider, tmp_path: Path) -> None:
    run = stored(council)
    asked = len(seat.requests)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as connection, connection:
        connection.execute("UPDATE runs SET status = 'running', beat = 0")
        connection.execute("DELETE FROM papers WHERE kind = 'result'")
        connection.execute("DELETE FROM endings WHERE name LIKE 'synthesise/%'")
    assert f"council resume {run}" in council("runs", "show", run)[1]
    code, out, err = council("resume", run)
    assert code == 0
    assert "Paris" in out
    assert "was asked again for its synthesise" in err
    assert len(seat.requests) == asked + 1
    assert "repeated 1 times" in council("runs", "show", run)[1]


def test_resume_of_a_run_that_fails_again_exits_with_1(council: Council, tmp_path: Path) -> None:
    def refuse(_: GenerateRequest) -> errors.AuthenticationFailed:
        return errors.AuthenticationFailed("no")

    with registry.overriding(scripted=ScriptedProvider(refuse, name="scripted")):
        code, out, _ = council("run", "-p", "scripted:3", "--json", "Where?")
        run = json.loads(out)["run_id"]
        assert code == 1
        code, out, err = council("replay", run)
        assert (code, out) == (1, "")
        assert "scripted-1: no" in err
        assert council("resume", run)[0] == 1


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("runs", "show", "nothing"), 1, "no run store"),
        (("replay", "../x"), 2, "a run's id"),
        (("runs", "purge"), 2, "--days"),
        (("resume", "nothing"), 1, "no run store"),
    ],
)
def test_wrong_usage_exits_with_a_message(council: Council, words: tuple[str, ...], code: int, expected: str) -> None:
    found, out, err = council(*words)
    assert (found, out) == (code, "")
    assert expected in err


def test_without_a_store_the_message_says_how_to_name_one(council: Council, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_COUNCIL_STORE")
    code, _, err = council("runs", "list")
    assert code == 2
    assert "--store PATH" in err


def test_verbose_prints_the_id_of_a_stored_run(council: Council, seat: ScriptedProvider, tmp_path: Path) -> None:
    other = str(tmp_path / "other.db")
    code, _, err = council("run", "-p", "scripted:3", "--store", other, "--verbose", "Where?")
    assert code == 0
    (info,) = json.loads(council("runs", "list", "--store", other, "--json")[1])
    assert f"stored as {info['run_id']}" in err
    assert not (tmp_path / "runs.db").exists()


def test_a_store_that_cannot_be_used_is_refused_before_the_first_call(
    council: Council, seat: ScriptedProvider, tmp_path: Path
) -> None:
    notes = tmp_path / "my.txt"
    notes.write_text("dear diary\n")
    before = sorted(tmp_path.iterdir())
    for path, reason in (
        (notes, "is not a run store: name a file of its own"),
        (tmp_path, "is not a file: name the file itself"),
        (notes / "x", "; name another file"),
    ):
        code, out, err = council("run", "-p", "scripted:3", "--store", str(path), "Where?")
        assert (code, out) == (2, "")
        assert err.startswith("council: --store: ")
        assert reason in err
    assert not seat.requests
    assert notes.read_text() == "dear diary\n"
    assert sorted(tmp_path.iterdir()) == before
