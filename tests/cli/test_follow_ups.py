"""``council run -c`` and ``--continue``: going on from a stored run."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import llm_council
from llm_council import CouncilConfig
from llm_council.errors import ServerFailed
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import Council

STORE = ("--store", "runs.db")


def earlier(seat: ScriptedProvider) -> list[str]:
    """Return the earlier tasks that the last call holds."""
    return re.findall(r"^Earlier task \d:\n(.*)$", seat.requests[-1].turns()[1].text, re.MULTILINE)


def listed(council: Council) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(council("runs", "list", *STORE, "--json")[1])
    return found


@pytest.fixture
def first(council: Council, seat: ScriptedProvider) -> str:
    """Run a first task, and return the id of the run."""
    assert council("run", "Where is it?", "-p", "scripted:2", *STORE)[0] == 0
    return str(listed(council)[0]["run_id"])


def test_c_goes_on_from_the_last_run_with_its_seats(council: Council, seat: ScriptedProvider, first: str) -> None:
    before = len(seat.requests)
    code, out, _ = council("run", "-c", "And since when?", *STORE)
    assert (code, out) == (0, "Paris\n")
    assert {request.metadata["seat"] for request in seat.requests[before:]} == {"scripted-1", "scripted-2"}
    assert earlier(seat) == ["Where is it?"]
    said = seat.requests[-1].turns()[1].text
    assert said.index("Paris\n\nIt is the seat of government.") < said.index("Task:\nAnd since when?")
    assert [run["follows"] for run in listed(council)] == [first, None]


def test_continue_goes_on_from_another_run_with_other_seats(
    council: Council, seat: ScriptedProvider, first: str
) -> None:
    council("run", "Something else?", "-p", "scripted", *STORE)
    code, _, _ = council("run", "--continue", first[:8], "And since when?", "-p", "scripted/other", *STORE)
    assert code == 0
    assert listed(council)[0]["follows"] == first
    assert seat.requests[-1].model == "other"
    assert earlier(seat)[0] == "Where is it?"


def test_the_store_may_come_from_the_environment(
    council: Council, seat: ScriptedProvider, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_COUNCIL_STORE", "runs.db")
    assert council("run", "-c", "And since when?")[0] == 0
    assert council("run", "And?", "--continue", "last")[0] == 0
    assert earlier(seat) == ["Where is it?", "And since when?"]


@pytest.mark.parametrize("words", [("-c",), ("--continue", "ab12")])
def test_without_a_store_the_command_exits_with_2_and_says_how_to_set_one(
    council: Council, seat: ScriptedProvider, words: tuple[str, ...]
) -> None:
    code, out, err = council("run", *words, "And?", "-p", "scripted")
    assert (code, out) == (2, "")
    assert f"{words[0]} goes on from a stored run" in err
    for remedy in ("--store PATH", "LLM_COUNCIL_STORE", "set store in your own file"):
        assert remedy in err
    assert seat.requests == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-c", *STORE), "-c: there is no run store at"),
        (("-c", "--continue", "ab"), "give one of them"),
    ],
)
def test_a_wrong_line_exits_with_2(council: Council, seat: ScriptedProvider, words: tuple[str, ...], said: str) -> None:
    code, _, err = council("run", *words, "And?", "-p", "scripted")
    assert code == 2
    assert said in err
    assert seat.requests == []


def test_an_unknown_run_exits_with_2(council: Council, seat: ScriptedProvider, first: str) -> None:
    before = len(seat.requests)
    code, _, err = council("run", "--continue", "zzz", "And?", *STORE)
    assert code == 2
    assert "--continue: no run zzz is stored here; `council runs list` lists them" in err
    assert len(seat.requests) == before


def test_a_run_without_an_answer_exits_with_2_and_names_the_remedy(council: Council, seat: ScriptedProvider) -> None:
    seat._script = {"*": ServerFailed("down", status=500)}
    assert council("run", "Where?", "-p", "scripted", *STORE)[0] == 1
    code, _, err = council("run", "-c", "And?", *STORE)
    assert code == 2
    assert "has no answer, it is failed: `council resume " in err


def test_a_dry_run_and_a_stored_run_show_what_they_go_on_from(
    council: Council, seat: ScriptedProvider, first: str
) -> None:
    _, out, _ = council("run", "-c", "And?", *STORE, "--dry-run")
    assert f"follows {first} (1 earlier task)" in out.splitlines()
    assert len(listed(council)) == 1
    council("run", "-c", "And?", *STORE)
    lines = council("runs", "show", "last", *STORE)[1].splitlines()
    assert f"follows  {first}" in lines
    assert "earlier  Where is it?" in lines
    shown = json.loads(council("runs", "show", "last", *STORE, "--json")[1])
    assert shown["follows"] == first


def test_purging_a_run_names_the_runs_that_hold_its_texts(council: Council, seat: ScriptedProvider, first: str) -> None:
    council("run", "-c", "Second?", *STORE)
    council("run", "-c", "Third?", *STORE)
    council("run", "Another?", "-p", "scripted", *STORE)
    ids = {run["task"]: run["run_id"] for run in listed(council)}
    second, third = ids["Second?"], ids["Third?"]
    code, out, err = council("runs", "purge", first, *STORE)
    assert (code, out) == (0, "1 run deleted\n")
    assert "2 runs that go on from them hold their texts, too" in err
    assert f"council runs purge {second} {third} --store runs.db" in err
    assert council("run", "--continue", third, "Fourth?", *STORE)[0] == 0
    assert earlier(seat)[0] == "Where is it?"
    fourth = listed(council)[0]["run_id"]
    assert council("runs", "purge", second, third, fourth, *STORE)[1:] == ("3 runs deleted\n", "")


def test_a_provider_that_is_gone_names_the_remedy(council: Council, seat: ScriptedProvider) -> None:
    own = ScriptedProvider('{"answer": "x", "reasoning": ""}', name="made-in-code")
    llm_council.Council([own], config=CouncilConfig(), store="runs.db").run("Where?")
    code, _, err = council("run", "-c", "And?", *STORE)
    assert code == 2
    assert "made-in-code" in err
    assert "name others with -p" in err
    assert council("run", "-c", "And?", "-p", "scripted", *STORE)[0] == 0
