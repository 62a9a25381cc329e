"""The report of a result: its text, its failures once and in order, and objects as a terminal shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council import errors
from llm_council.cli import _render, _result
from llm_council.models import Plan, SeatSpec
from llm_council.results import CouncilResult

FLAGS: dict[str, Any] = {
    "json_": False,
    "format_": None,
    "output": None,
    "plain": False,
    "raw": False,
    "verbose": False,
    "store": None,
    "strict": False,
}


def result(**facts: Any) -> CouncilResult:
    seats = [SeatSpec(name=name, provider="p", warning="a demonstration model") for name in ("ada", "bob", "cyd")]
    plan = Plan(run_id="r1", task="t", subagent="advisor", seats=seats)
    return CouncilResult(
        **{"run_id": "r1", "task": "t", "subagent": "advisor", "status": "completed"} | facts, plan=plan
    )


def printed(capsys: pytest.CaptureFixture[str], made: CouncilResult, **flags: Any) -> tuple[str, list[str]]:
    _result.print_result(made, {**FLAGS, **flags})
    out, err = capsys.readouterr()
    return out, err.splitlines()


def test_a_failed_run_names_each_reason_once_the_most_important_first(capsys: pytest.CaptureFixture[str]) -> None:
    slow, wrong = errors.RateLimited("too many requests"), errors.AuthenticationFailed("set ADA_KEY")
    failures = {"ada": slow, "bob": wrong, "cyd": errors.RateLimited("too many requests")}
    message = "0 of 1 required seats answered; " + "; ".join(f"{name}: {error}" for name, error in failures.items())
    made = result(
        status="failed",
        error=errors.QuorumLost(message, outcomes=failures),
        errors=failures,
        warnings=("ada gave no draft: too many requests",),
    )
    out, err = printed(capsys, made)
    assert out == ""
    assert err == [
        "council: 0 of 1 required seats answered",
        "  bob: set ADA_KEY",
        "  ada: too many requests (also cyd); wait, or seat fewer models of this provider",
    ]


def test_seats_that_failed_alike_share_a_line_and_a_remedy_stands_once(capsys: pytest.CaptureFixture[str]) -> None:
    failures = {
        name: errors.TimedOut(f"{name} was cut after {seconds} s: the time of the run was over")
        for name, seconds in (("ada", "0.2"), ("bob", "0.0"))
    }
    late = errors.DeadlineExceeded("no seat answered within the 0.2 s of the run")
    _, err = printed(capsys, result(status="failed", error=late, errors=failures))
    assert err == [
        "council: no seat answered within the 0.2 s of the run; raise --deadline",
        "  ada: was cut after 0.2 s: the time of the run was over (also bob)",
    ]


def test_a_seat_whose_reason_is_that_of_the_run_has_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    seat = errors.BudgetExceeded("the budget of this run is 0 US dollars")
    error = errors.BudgetExceeded("the budget of this run is 0 US dollars: no draft could be asked for")
    _, err = printed(capsys, result(status="failed", error=error, errors={"ada": seat}))
    (line,) = err
    assert line.count("the budget of this run") == line.count("raise --budget-usd") == 1


def test_a_degraded_run_names_each_failure_of_a_seat_once(capsys: pytest.CaptureFixture[str]) -> None:
    made = result(
        status="degraded",
        output="Paris",
        errors={"ada": errors.TimedOut("no answer within 5 s"), "bob": errors.AuthenticationFailed("set BOB_KEY")},
        warnings=(
            "a demonstration model",
            "cyd took the chair",
            "ada gave no draft: no answer within 5 s",
            "bob gave no critique: set BOB_KEY",
            "bob could not write the answer: set BOB_KEY",
            "cyd took the chair",
        ),
    )
    out, err = printed(capsys, made)
    assert out == "Paris\n"
    assert err == [
        "council: bob gave no critique: set BOB_KEY",
        "council: ada gave no draft: no answer within 5 s; raise --deadline, or the timeouts of the provider",
        "council: cyd took the chair",
    ]


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errors.DeadlineExceeded("no seat answered within the 5 s of the run"), "raise --deadline"),
        (errors.BudgetExceeded("the limit of 1 USD is reached"), "raise --budget-usd"),
        (errors.InvalidOutput("the answer does not meet its schema"), "relax the schema"),
        (errors.QuorumLost("1 of 2 required seats answered"), "required seats answered"),
    ],
)
def test_a_failure_names_the_setting_to_change(
    capsys: pytest.CaptureFixture[str], error: errors.CouncilError, remedy: str
) -> None:
    _, err = printed(capsys, result(status="failed", error=error))
    assert len(err) == 1
    assert remedy in err[0]


def test_plain_prints_the_text_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    text = "## Answer\n**Paris**\n\n## Reasoning\nIt is."
    made = result(text=text, output={"answer": "**Paris**", "reasoning": "It is."})
    assert printed(capsys, made, plain=True)[0] == f"{text}\n"
    assert printed(capsys, made)[0] == "**Paris**\n"
    assert printed(capsys, result(output={"a": 1}), plain=True)[0] == "a: 1\n"


def test_an_answer_is_printed_without_label_indentation_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    code = "Use this:\n\n    x = 1\n\n- one\n- two"
    for reasoning in ("It is.", ""):
        assert printed(capsys, result(output={"answer": code, "reasoning": reasoning}))[0] == f"{code}\n"
    more = {"answer": "Paris", "confidence": 0.9}  # of a schema of one's own: nothing is left out
    assert printed(capsys, result(output=more))[0] == "answer: Paris\nconfidence: 0.9\n"


def rendered(monkeypatch: pytest.MonkeyPatch, output: Any, columns: int = 80) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = _render.render(result(output=output), "")
    assert shown is not None
    return shown


def test_an_object_is_rendered_with_its_keys_as_titles(monkeypatch: pytest.MonkeyPatch) -> None:
    output = {
        "verdict": "approve",
        "blocking": False,
        "notes": None,
        "summary": "It is **good**. " * 8,
        "issues": [{"path": "a.py", "lines": [1, 2]}, "plain *text*"],
        "nothing": [],
        "reasoning": "",
    }
    assert rendered(monkeypatch, output, 60).splitlines() == [
        *["Verdict: approve", "", "Blocking: no", "", "Notes: -", "", "Summary"],
        *["  It is good. It is good. It is good. It is good. It is"],
        *["  good. It is good. It is good. It is good.", "", "Issues"],
        *["  • Path: a.py", "    Lines", "      • 1", "      • 2", "  • plain text", "", "Nothing: none"],
    ]


@pytest.mark.parametrize("output", ["text", "", [], {}, 3, None, [[1]], {"answer": 3}, {"answer": "a\n\nb"}])
def test_any_json_answer_is_rendered(monkeypatch: pytest.MonkeyPatch, output: Any) -> None:
    shown = rendered(monkeypatch, output)
    if output not in (None, "", [], {}):
        assert shown
    deep = output
    for _ in range(12):
        deep = {"k\x1b[2J": [deep]}
    assert "\x1b[2J" not in rendered(monkeypatch, deep)
    assert rendered(monkeypatch, deep, 12)


def test_a_very_long_answer_is_not_rendered() -> None:
    assert _render.render(result(output="x"), "x" * 300_000) is None


def test_the_report_of_json_is_the_whole_result(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, result(output={"answer": "é"}), json_=True)
    assert json.loads(out)["output"] == {"answer": "é"}
    assert err == []
