"""What a user reads while typing: ``help()``, completion in notebooks and editors, and ``print`` of a result."""

from __future__ import annotations

import inspect
import json
import pydoc
from typing import Any

import pytest

from llm_council import Council, CouncilConfig, RunOptions, errors
from llm_council.results import CouncilResult
from llm_council.testing.fakes import ScriptedProvider

OPTIONS = tuple(RunOptions.__annotations__)
PREAMBLE = "from llm_council import Council, TextDelta, SeatFinished\ncouncil = Council()\n"


def completions(source: str) -> set[str]:
    """Return what jedi, which IPython and editors use, offers at the end of a program."""
    jedi = pytest.importorskip("jedi")
    lines = (PREAMBLE + source).split("\n")
    return {found.name for found in jedi.Script("\n".join(lines)).complete(len(lines), len(lines[-1]))}


def test_help_explains_every_option_of_a_run() -> None:
    text = pydoc.render_doc(Council.run, renderer=pydoc.plaintext)
    arguments = text.partition("Args:")[2].partition("Returns:")[0]
    for name in ("task", "subagent", "output_type", *OPTIONS):
        assert f" {name}: " in arguments


@pytest.mark.parametrize("method", ["run", "arun", "run_sync", "stream", "plan"])
def test_the_signature_has_every_option_with_its_type(method: str) -> None:
    parameters = inspect.signature(getattr(Council, method)).parameters
    assert list(parameters) == ["self", "task", "subagent", "output_type", *OPTIONS]
    for name, annotation in RunOptions.__annotations__.items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        if name != "files":  # an empty tuple is its default
            assert parameters[name].annotation == annotation.__forward_arg__


@pytest.mark.parametrize("method", ["run", "arun", "run_sync", "stream", "plan"])
@pytest.mark.slow
def test_options_are_completed(method: str) -> None:
    assert {f"{name}=" for name in ("output_type", *OPTIONS)} <= completions(f"council.{method}(")


@pytest.mark.parametrize(
    ("source", "offered"),
    [
        ("for event in council.stream('x'):\n    if isinstance(event, TextDelta):\n        event.te", {"text"}),
        (
            "for event in council.stream('x'):\n    if isinstance(event, SeatFinished):\n        event.response.us",
            {"usage"},
        ),
        ("async def f():\n    async for event in council.stream('x'):\n        event.elap", {"elapsed"}),
        ("council.run('x').dra", {"drafts"}),
        ("async def f():\n    (await council.arun('x')).dra", {"drafts"}),
    ],
)
@pytest.mark.slow
def test_events_and_results_are_completed(source: str, offered: set[str]) -> None:
    assert completions(source) == offered


def council(answer: Any) -> Council:
    return Council([ScriptedProvider({"*": answer if isinstance(answer, str) else json.dumps(answer)})])


def test_print_shows_the_answer() -> None:
    result = council({"answer": "Paris.\n\nIt is \x1b[2Jlarge.", "reasoning": "It is the seat."}).run("Where?")
    assert str(result) == f"{result}" == "Paris.\n\nIt is \u241b[2Jlarge."
    assert repr(result).startswith("<CouncilResult ")


def test_print_shows_an_answer_of_another_shape_as_indented_text() -> None:
    schema = {"type": "object"}
    result = council({"verdict": "approve", "issues": ["one", "two"]}).run("Fine?", schema=schema)
    assert str(result) == "verdict: approve\nissues:\n  - one\n  - two"


def test_print_shows_why_a_run_failed() -> None:
    seats = [ScriptedProvider([errors.RequestRejected("bad model", status=400)] * 9)]
    result = Council(seats, config=CouncilConfig()).run("Where?")
    assert isinstance(result, CouncilResult)
    assert str(result).startswith("failed: QuorumLost: ")
    assert "bad model" in str(result)


@pytest.mark.parametrize("task", [["a", "b"], ("a",), None, 3, b"x"])
@pytest.mark.parametrize("method", ["run", "run_sync", "plan"])
def test_a_task_that_is_no_text_is_refused(task: Any, method: str) -> None:
    with pytest.raises(errors.InvalidOption, match=f"a task is text, got {type(task).__name__}") as caught:
        getattr(council("x"), method)(task)
    assert ("once for each" in str(caught.value)) == isinstance(task, list | tuple)
