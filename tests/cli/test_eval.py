"""``council eval`` and ``council grade``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llm_council.cli._eval import resume_command
from llm_council.evals.work import save_tasks
from llm_council.providers import registry
from tests.cli._command import Council
from tests.evals._council import SEATS, WORLD, PricedSeat, tasks_of
from tests.evals.test_judged import Reader, Writer, letters

SEATED = ("-p", "ann,bob,cy")


@pytest.fixture
def seats(new_user: None) -> Iterator[dict[str, PricedSeat]]:
    """Register three simulated seats, and write a task set."""
    save_tasks(tasks_of(12), Path("set.jsonl"))
    made = {name: PricedSeat(right, world=WORLD, name=name) for name, right in SEATS.items()}
    with ExitStack() as stack:
        for name, seat in made.items():
            stack.enter_context(registry.overriding(**{name: seat}))
        yield made


def test_a_plan_sends_nothing(council: Council, seats: dict[str, PricedSeat]) -> None:
    code, out, _ = council("eval", "set.jsonl", *SEATED, "--arms", "poll,revise", "--plan")
    assert code == 0
    assert out.startswith("12 tasks; nothing was sent.")
    assert "pool: ann" in out
    assert [seat.calls for seat in seats.values()] == [0, 0, 0]


def test_an_evaluation_prints_verdict_and_table_and_writes_its_files(
    council: Council, seats: dict[str, PricedSeat]
) -> None:
    words = ("eval", "set.jsonl", *SEATED, "--samples", "1", "--pool-only", "--out", "run")
    code, out, err = council(*words, "--html", "report.html", "--markdown", "report.md")
    assert code == 0
    assert "council pays" in out.partition("\n")[0]
    assert "single:ann" in out
    assert err.splitlines()[-1].startswith("12/12 tasks, $0.0360, 36 calls: ")
    assert Path("report.html").read_text().startswith("<!doctype html>")
    assert Path("report.md").read_text().startswith("# Does a council pay on world?")
    assert sorted(path.name for path in Path("run").iterdir()) == [
        "journal.jsonl",
        "report.html",
        "report.json",
        "report.md",
        "tasks.jsonl",
    ]
    code, again, _ = council("eval", "--replay", "run")
    assert (code, again) == (0, out)
    assert sum(seat.calls for seat in seats.values()) == 36
    code, _, err = council(*words)
    assert code == 2
    assert "--resume" in err
    assert council(*words, "--resume")[:2] == (0, out)


def test_prose_is_scored_by_the_judge_that_is_named(council: Council, seats: dict[str, PricedSeat]) -> None:
    save_tasks(letters(2), Path("letters.jsonl"))
    with registry.overriding(writer=Writer("writer", 5), reader=Reader()):
        words = ("eval", "letters.jsonl", "-p", "writer", "--arms", "single", "--samples", "1")
        assert "name one of another family" in council(*words)[2]
        code, out, _ = council(*words, "--judge", "reader", "--plan")
        assert (code, "judge: reader" in out) == (0, True)
        code, out, _ = council(*words, "--judge", "reader")
    assert code == 0
    assert "judged, not measured: the scores are those of reader" in out


def test_json_stands_alone_on_stdout(council: Council, seats: dict[str, PricedSeat]) -> None:
    code, out, _ = council("eval", "set.jsonl", *SEATED, "--samples", "1", "--pool-only", "--json", "-")
    assert code == 0
    assert json.loads(out)["items"] == 12


def test_a_limit_ends_between_two_tasks(council: Council, seats: dict[str, PricedSeat]) -> None:
    code, out, _ = council("eval", "set.jsonl", *SEATED, "--samples", "2", "--pool-only", "--max-usd", "0.01")
    assert code == 0
    assert "the limit of 0.01 US dollars was reached after 2 of 12 tasks" in out
    assert sum(seat.calls for seat in seats.values()) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name one file of tasks"),
        (("set.jsonl", "--resume", *SEATED), "--resume needs --out"),
        (("set.jsonl", "--replay", "run"), "--replay takes no task set"),
        (("set.jsonl", *SEATED, "--arms", "revize"), "did you mean 'revise'"),
        (("set.jsonl", *SEATED, "--arms", ""), "--arms is empty"),
        (("set.jsonl", *SEATED, "--primary", "nobody"), "primary: no arm of several seats is named 'nobody'"),
        (("set.jsonl", *SEATED, "--primary", "nobody", "--plan"), "primary: no arm of several seats"),
        (("set.jsonl", *SEATED, "--best", "nobody", "--plan"), "best: no seat is named 'nobody'"),
        (("set.jsonl", *SEATED, "--html", "nowhere/x.html"), "--html: there is no folder nowhere"),
        (("none.jsonl", *SEATED), "none.jsonl"),
        (("broken.jsonl", *SEATED), "line 1"),
        (("--replay", "nowhere"), "no journal"),
        (("export", "set.jsonl"), "--inspect"),
        (("set.jsonl", "--from-store"), "takes no task set"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(
    council: Council, seats: dict[str, PricedSeat], words: tuple[str, ...], message: str
) -> None:
    Path("broken.jsonl").write_text("{\n")
    code, out, err = council("eval", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert [seat.calls for seat in seats.values()] == [0, 0, 0]


def test_a_file_that_cannot_be_written_keeps_no_other_one_back(council: Council, seats: dict[str, PricedSeat]) -> None:
    code, _, err = council("eval", "set.jsonl", *SEATED, "--arms", "poll", "--weights", "w.toml", "--html", "page.html")
    assert code == 2
    assert "weights need" in err
    assert Path("page.html").is_file()


def test_options_without_effect_on_a_replay_are_named(council: Council, seats: dict[str, PricedSeat]) -> None:
    council("eval", "set.jsonl", *SEATED, "--arms", "poll", "--out", "run")
    code, _, err = council("eval", "--replay", "run", "--arms", "revise", "--best", "ann")
    assert code == 0
    assert "without effect on --replay, which reports on what has run: --arms, --best" in err


def test_a_set_that_was_changed_in_the_folder_is_not_replayed(council: Council, seats: dict[str, PricedSeat]) -> None:
    council("eval", "set.jsonl", *SEATED, "--arms", "poll", "--out", "run")
    copy = Path("run", "tasks.jsonl")
    copy.write_text(copy.read_text().replace('"target": ', '"target": 1', 1))
    code, out, err = council("eval", "--replay", "run")
    assert (code, out) == (2, "")
    assert "was changed after the evaluation" in err


def test_a_set_is_exported(council: Council, seats: dict[str, PricedSeat]) -> None:
    code, out, _ = council("eval", "export", "set.jsonl", "--inspect")
    assert code == 0
    assert json.loads(out.splitlines()[0])["target"] == str(WORLD.right_answer(0))


def test_stored_runs_are_graded_and_reported_on(council: Council, seats: dict[str, PricedSeat]) -> None:
    Path("number.json").write_text('{"type": "number"}')
    for item in range(2):
        words = ("run", f"What is item {item}?", *SEATED, "--strategy", "revise", "--schema", "number.json")
        assert council(*words, "--store", "runs.db")[0] == 0
        code, out, _ = council("grade", "last", str(WORLD.right_answer(item)), "--store", "runs.db")
        assert code == 0
        assert "runs.db.grades.jsonl" in out
    code, out, _ = council("eval", "--from-store", "runs.db")
    assert code == 0
    assert "as it ran: revise" in out


def test_a_grade_that_no_evaluation_can_use_is_noted_at_once(council: Council, seats: dict[str, PricedSeat]) -> None:
    Path("number.json").write_text('{"type": "number"}')
    words = ("run", "What is item 0?", *SEATED, "--strategy", "revise", "--schema", "number.json")
    assert council(*words, "--store", "runs.db")[0] == 0
    code, out, err = council("grade", "last", "many", "--store", "runs.db")
    assert code == 0
    assert "written to" in out
    assert "leaves this one out: " in err
    assert "is no number" in err
    assert "leaves" not in council("grade", "last", "3", "--store", "runs.db")[2]


def test_the_command_to_go_on_has_the_arms_and_numbers_of_the_evaluation() -> None:
    names = ("samples", "repeat", "max_usd", "judge", "judge_may_sit", "best", "primary", "margin", "seed")
    flags = {**dict.fromkeys(names), "out": "my run", "arms": ("poll,revise",), "pool_only": False, "samples": 3}
    expected = "council eval set.jsonl --resume --out 'my run' --samples 3 --arms poll,revise"
    assert resume_command("set.jsonl", flags) == expected
    assert resume_command("set.jsonl", {**flags, "pool_only": True, "max_usd": 2.5}).endswith("--pool-only")
    judged = resume_command("set.jsonl", {**flags, "judge": "openai/gpt-5.4", "judge_may_sit": True})
    assert "--judge openai/gpt-5.4 " in judged
    assert judged.endswith(" --judge-may-sit")
