"""Personas of a configuration on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from llm_council.cli._main import cli
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import Council

ROWS = """\
[[seats]]
provider = "scripted/m"
name = "sceptic"
instructions = "You doubt every claim that has no source."
temperature = 0.5

[[seats]]
provider = "scripted"
name = "fan"
"""


@pytest.fixture(autouse=True)
def project(new_user: None) -> None:
    Path("council.toml").write_text(ROWS)


def test_a_persona_is_asked_with_the_model_that_stands_before_it(council: Council, seat: ScriptedProvider) -> None:
    code, out, _ = council("run", "Where?", "-p", "scripted/big@sceptic,scripted", "--json")
    assert code == 0
    assert [one["name"] for one in json.loads(out)["seats"]] == ["sceptic", "scripted"]
    asked = {request.metadata["seat"]: request for request in seat.asked("draft")}
    assert (asked["sceptic"].model, asked["sceptic"].temperature) == ("big", 0.5)
    assert asked["sceptic"].turns()[0].text.endswith("You doubt every claim that has no source.")
    assert "source" not in asked["scripted"].turns()[0].text


def test_models_are_given_to_personas(council: Council, seat: ScriptedProvider) -> None:
    _, out, _ = council("run", "Where?", "-p", "scripted@sceptic,scripted@fan:2", "-m", "a,b", "--dry-run", "--json")
    seats = [(one["name"], one["model"]) for one in json.loads(out)["seats"]]
    assert seats == [("sceptic", "a"), ("fan-1", "b"), ("fan-2", "b")]
    code, _, err = council("run", "Where?", "-p", "@sceptic", "-m", "a")
    assert code == 2
    assert "PROVIDER@sceptic" in err


def test_a_dry_run_shows_the_personas(council: Council, seat: ScriptedProvider) -> None:
    code, out, _ = council("run", "Where?", "--dry-run")
    lines = out.splitlines()
    assert code == 0
    assert lines[1].startswith("seats   sceptic, fan; ")
    line = "persona sceptic (scripted/m, temperature 0.5): You doubt every claim that has no source."
    assert [text for text in lines if text.startswith("persona")] == [line]


def test_an_unknown_persona_is_a_usage_error_that_names_the_nearest(council: Council, seat: ScriptedProvider) -> None:
    code, out, err = council("run", "Where?", "-p", "scripted@skeptic")
    assert (code, out) == (2, "")
    assert "there is no persona 'skeptic'; did you mean 'sceptic'?" in err
    assert seat.requests == []


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        (["run", "-p"], "openai/gpt@", ["openai/gpt@sceptic", "openai/gpt@fan"]),
        (["run", "-p"], "local,@f", ["local,@fan"]),
        (["run", "--chair"], "", ["sceptic", "fan"]),
        (["run", "-p", "local@fan:2,ollama", "--chair"], "", ["fan-1", "fan-2", "ollama"]),
    ],
)
def test_personas_are_completed(
    words: list[str], incomplete: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logging.disable", lambda: None)  # for the whole process: here, that of all tests
    offered = ShellComplete(cli, {}, "council", "_X").get_completions(words, incomplete)
    assert [item.value for item in offered] == expected
