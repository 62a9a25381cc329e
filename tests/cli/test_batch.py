"""`council batch`: what is run, what is written, what is said, and with which status it ends."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_council.batch import result_file
from llm_council.errors import AuthenticationFailed
from llm_council.models import Cost, GenerateRequest, GenerateResponse, Usage
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import Council

RUN = ("batch", "tasks.jsonl", "-o", "results.jsonl", "-p", "one")
ABSTAINING = ("--strategy", "poll", "--strategy-option", "abstain_below=0.9")


class Seat:
    """Answers with the number of the task; what fails and what it costs can be changed.

    Attributes:
        asked: how often each task was asked for.
        failing: words of tasks that fail.
        usd: what a call costs.
        says: what is answered; None for JSON.
    """

    def __init__(self) -> None:
        self.asked = Counter[str]()
        self.failing: set[str] = set()
        self.usd: float | None = 0.5
        self.says: str | None = None

    def __call__(self, request: GenerateRequest) -> GenerateResponse:
        text = "".join(turn.text for turn in request.turns())
        task = next(word for word in text.split() if word.startswith("number-"))
        self.asked[task] += 1
        if task in self.failing:
            raise AuthenticationFailed("the key is wrong", status=401)
        answer = self.says or json.dumps({"answer": f"It is {task}.", "reasoning": "So it says."})
        cost = None if self.usd is None else Cost(usd=self.usd, source="reported")
        return GenerateResponse(text=answer, usage=Usage(input_tokens=10, output_tokens=5), cost=cost)


@pytest.fixture
def one() -> Iterator[Seat]:
    seat = Seat()
    with registry.overriding(one=ScriptedProvider(seat, name="one"), two=ScriptedProvider(seat, name="two")):
        yield seat


def write_tasks(*names: Any, path: str = "tasks.jsonl") -> None:
    lines = [{"id": f"q{name}", "task": f"Say number-{name}"} if isinstance(name, int) else name for name in names]
    Path(path).write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def results() -> dict[str, Any]:
    lines = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def test_each_task_gets_a_line_and_nothing_else_is_left(council: Council, one: Seat) -> None:
    write_tasks(1, {"id": 2, "task": "Say number-2", "gold": "two"}, '"Say number-3"')
    code, out, err = council(*RUN)
    assert (code, out) == (0, "")
    assert "3 of 3 tasks succeeded, $1.5" in err
    found = results()
    assert list(found["q1"])[:6] == ["id", "task", "status", "success", "output", "text"]
    assert found["q1"]["output"]["answer"] == "It is number-1."
    assert (found["q1"]["status"], found["q1"]["success"], found["q1"]["error"]) == ("completed", True, None)
    assert found["2"]["metadata"] == {"gold": "two"}
    assert {line["task"] for line in found.values()} == {"Say number-1", "Say number-2", "Say number-3"}
    assert sorted(path.name for path in Path().iterdir()) == ["results.jsonl", "tasks.jsonl"]


def test_a_whole_result_has_drafts_calls_and_plan(council: Council, one: Seat) -> None:
    write_tasks(1)
    assert council(*RUN, "--full")[0] == 0
    (line,) = results().values()
    assert {"drafts", "seats", "plan", "phases"} <= set(line)
    assert next(iter(line)) == "id"


def test_finished_tasks_are_skipped_and_new_ones_are_run(council: Council, one: Seat) -> None:
    write_tasks(1, 2)
    assert council(*RUN)[0] == 0
    write_tasks(3, 2, 1)
    code, _, err = council(*RUN)
    assert code == 0
    assert "3 of 3 tasks succeeded" in err
    assert set(results()) == {"q1", "q2", "q3"}
    assert one.asked == {"number-1": 1, "number-2": 1, "number-3": 1}


def test_failures_are_counted_kept_and_run_again_only_when_asked_for(council: Council, one: Seat) -> None:
    write_tasks(1, 2, 3)
    one.failing = {"number-2"}
    code, _, err = council(*RUN)
    assert code == 1
    assert "council: q2 failed: " in err
    assert "2 of 3 tasks succeeded, 1 failed" in err
    assert "council batch tasks.jsonl -o results.jsonl -p one --retry-failed" in err
    assert results()["q2"]["error"]["type"] == "QuorumLost"
    assert Path("results.jsonl.runs.db").exists()
    assert council(*RUN)[0] == 1
    assert one.asked["number-2"] == 1
    one.failing = set()
    code, _, err = council(*RUN, "--retry-failed")
    assert code == 0
    assert one.asked == {"number-1": 1, "number-2": 2, "number-3": 1}
    assert results()["q2"]["status"] == "completed"
    assert not Path("results.jsonl.runs.db").exists()


def test_a_run_that_failed_although_all_calls_were_answered_is_made_anew(council: Council, one: Seat) -> None:
    write_tasks(1)
    Path("schema.json").write_text('{"type": "integer"}')
    command = (*RUN, "--schema", "schema.json")
    one.says = "five"
    assert council(*command)[0] == 1
    first = results()["q1"]
    assert first["error"]["type"] == "InvalidOutput"
    calls = one.asked.total()
    assert council(*command, "--retry-failed")[0] == 1
    assert one.asked.total() == 2 * calls
    second = results()["q1"]["run_id"]
    assert second == f"{first['run_id']}-2"
    one.says = "5"
    assert council(*command)[0] == 1
    assert council(*command, "--retry-failed")[0] == 0
    assert results()["q1"]["run_id"] == f"{first['run_id']}-3"
    assert council(*command)[0] == 0
    assert one.asked.total() == 2 * calls + 1


def test_what_is_stored_is_written_again_without_a_call(council: Council, one: Seat) -> None:
    write_tasks(1, 2, 3)
    one.failing = {"number-2"}
    council(*RUN)
    before = results()
    Path("results.jsonl").unlink()
    assert council(*RUN)[0] == 1
    assert results() == before
    assert one.asked.total() == 3


def test_a_torn_line_is_completed(council: Council, one: Seat) -> None:
    write_tasks(1, 2)
    one.failing = {"number-1"}  # so that the store stays
    council(*RUN)
    path = Path("results.jsonl")
    before, content = results(), path.read_bytes()
    path.write_bytes(content[:-20])
    _, _, err = council(*RUN)
    assert "the last line of results.jsonl was torn" in err
    assert results() == before
    assert one.asked.total() == 2


def test_broken_lines_are_named_and_do_not_stop_the_rest(council: Council, one: Seat) -> None:
    write_tasks(1, "{", 1, {"id": "x", "question": "y"}, {"id": "f", "task": "z", "files": ["/etc/passwd"]}, 2)
    code, _, err = council(*RUN)
    assert code == 1
    assert "tasks.jsonl: line 2: not JSON" in err
    assert "line 3: the id 'q1' is not unique: line 1 has it, too" in err
    assert "line 4: 'task' is missing" in err
    assert "line 5: files: '/etc/passwd' is not read unless --files-in names its folder" in err
    assert "2 of 2 tasks succeeded, 4 broken lines" in err
    assert set(results()) == {"q1", "q2"}


def test_strict_sends_nothing_if_a_line_is_broken(council: Council, one: Seat) -> None:
    write_tasks(1, "{")
    code, _, err = council(*RUN, "--strict")
    assert code == 2
    assert "line 2: not JSON" in err
    assert "1 line is broken: nothing was sent, because of --strict" in err
    assert not one.asked
    assert not Path("results.jsonl").exists()


def test_many_broken_lines_are_listed_by_their_numbers(council: Council, one: Seat) -> None:
    write_tasks(1, *["{"] * 50)
    _, _, err = council(*RUN)
    assert "30 more lines are broken: 22, 23," in err
    assert err.count("not JSON") == 20


@pytest.mark.parametrize("change", [("-p", "two"), ("-m", "large"), ("--context", "c"), ("--seed", "s")])
def test_results_of_other_options_are_refused(council: Council, one: Seat, change: tuple[str, ...]) -> None:
    write_tasks(1, 2)
    assert council(*RUN)[0] == 0
    content = Path("results.jsonl").read_bytes()
    code, _, err = council(*RUN, *change)
    assert code == 2
    assert "results.jsonl: line 1 was made with other options" in err
    assert Path("results.jsonl").read_bytes() == content
    assert council(*RUN, "--concurrency", "1", "--deadline", "7", "--budget-usd", "9")[0] == 0
    assert one.asked.total() == 2


def test_results_of_another_task_with_the_same_id_are_refused(council: Council, one: Seat) -> None:
    write_tasks(1)
    assert council(*RUN)[0] == 0
    write_tasks(2, {"id": "q1", "task": "Say number-9"})
    code, _, err = council(*RUN)
    assert code == 2
    assert "line 1 answers another task than line 2 of tasks.jsonl, and both have the id 'q1'" in err


def test_results_of_other_tasks_stay(council: Council, one: Seat) -> None:
    write_tasks(1)
    assert council(*RUN)[0] == 0
    write_tasks(2)
    code, _, err = council(*RUN)
    assert code == 0
    assert "1 results of tasks that are not in tasks.jsonl" in err
    assert set(results()) == {"q1", "q2"}


def test_another_file_is_not_written_over(council: Council, one: Seat) -> None:
    write_tasks(1)
    Path("results.jsonl").write_text("my notes\n")
    code, _, err = council(*RUN)
    assert code == 2
    assert "line 1 is no result" in err
    assert Path("results.jsonl").read_text() == "my notes\n"
    code, _, err = council("batch", "tasks.jsonl", "-o", "results.csv", "-p", "one")
    assert (code, "name a .jsonl file" in err) == (2, True)


def test_a_budget_is_one_for_all_tasks_and_counts_earlier_ones(council: Council, one: Seat) -> None:
    write_tasks(*range(6))
    code, _, err = council(*RUN, "--budget-usd", "1.5", "--concurrency", "1")
    assert code == 1
    assert len(results()) == 3
    assert "3 are left: the money of --budget-usd is spent" in err
    assert "to go on: council batch tasks.jsonl" in err
    code, _, err = council(*RUN, "--budget-usd", "1.5")
    assert code == 2
    assert "raise it to go on" in err
    assert council(*RUN, "--budget-usd", "10")[0] == 0
    assert one.asked == {f"number-{number}": 1 for number in range(6)}


def test_an_unknown_price_is_said(council: Council, one: Seat) -> None:
    write_tasks(1)
    one.usd = None
    assert "1 of 1 tasks succeeded, cost unknown" in council(*RUN)[2]


def test_a_sample_is_drawn_by_its_seed_and_can_grow(council: Council, one: Seat) -> None:
    write_tasks(*range(30))
    assert council(*RUN, "--sample", "5")[0] == 0
    first = set(results())
    assert len(first) == 5
    assert council(*RUN, "--sample", "8")[0] == 0
    assert first < set(results())
    assert one.asked.total() == 8


def test_without_a_file_results_go_to_stdout(council: Council, one: Seat) -> None:
    write_tasks(1, 2)
    code, out, err = council("batch", "-", "-p", "one", stdin=Path("tasks.jsonl").read_text())
    assert code == 0
    assert {json.loads(line)["id"] for line in out.splitlines()} == {"q1", "q2"}
    assert [path.name for path in Path().iterdir()] == ["tasks.jsonl"]
    code, _, err = council("batch", "tasks.jsonl", "-p", "one", "--retry-failed")
    assert (code, "--retry-failed needs -o" in err) == (2, True)


def test_with_a_store_alone_stored_runs_are_written_again(council: Council, one: Seat) -> None:
    write_tasks(1, 2)
    command = ("batch", "tasks.jsonl", "-p", "one", "--store", "runs.db")
    first, second = council(*command)[1], council(*command)[1]
    assert sorted(first.splitlines()) == sorted(second.splitlines())
    assert one.asked.total() == 2
    assert "2 of 2" in council(*command)[2]


def test_a_store_of_the_user_is_kept(council: Council, one: Seat) -> None:
    write_tasks(1)
    assert council(*RUN, "--store", "runs.db")[0] == 0
    assert Path("runs.db").exists()
    assert not Path("results.jsonl.runs.db").exists()
    run_id = results()["q1"]["run_id"]
    code, out, _ = council("replay", run_id, "--store", "runs.db", "--json")
    assert (code, json.loads(out)["output"]["answer"]) == (0, "It is number-1.")


def test_a_dry_run_counts_and_sends_and_writes_nothing(council: Council, one: Seat) -> None:
    write_tasks(1, 2, 3, "{")
    code, out, _ = council(*RUN, "--dry-run")
    assert code == 0
    assert "3 to run, 1 broken line in tasks.jsonl" in out
    assert "calls   3: 3 drafts; up to 6 repairs" in out
    assert "unknown for one" in out
    assert "the batch stops at $7" in council(*RUN, "--dry-run", "--budget-usd", "7")[1]
    assert [path.name for path in Path().iterdir()] == ["tasks.jsonl"]
    assert not one.asked
    write_tasks(1, 2)
    council(*RUN)
    write_tasks(1, 2, 3)
    assert "1 to run, 2 done in tasks.jsonl" in council(*RUN, "--dry-run")[1]


def test_roles_files_and_contexts_differ_from_task_to_task(council: Council, one: Seat) -> None:
    Path("pages").mkdir()
    Path("pages/a.txt").write_text("page text")
    Path("secret.txt").write_text("no")
    write_tasks(
        {"id": "a", "task": "Say number-1", "files": ["a.txt"], "context": "c"},
        {"id": "b", "task": "Say number-2", "files": ["../secret.txt"]},
        {"id": "c", "task": "Say number-3", "files": ["none.txt"]},
        {"id": "d", "task": "Say number-4", "subagent": "unheard-of"},
        {"id": "e", "task": "Say number-5", "subagent": "router"},
    )
    code, _, err = council(*RUN, "--files-in", "pages", "--full")
    assert code == 1
    assert "line 2: files: '../secret.txt' is outside of the folder" in err
    assert "line 3: files: there is no file 'none.txt' in pages" in err
    assert "line 4: there is no subagent 'unheard-of'" in err
    found = results()
    assert set(found) == {"a", "e"}
    assert [file["name"] for file in found["a"]["plan"]["files"]] == [str(Path("pages/a.txt"))]
    assert found["a"]["plan"]["context"] == "c"
    assert found["e"]["subagent"] == "router"


def test_abstained_and_degraded_have_statuses_of_their_own(council: Council, one: Seat) -> None:
    def split(request: GenerateRequest) -> str:
        return f"ANSWER: {next(numbers)}"

    def broken(request: GenerateRequest) -> str:
        raise AuthenticationFailed("no", status=401)

    Path("schema.json").write_text('{"type": "integer"}')
    write_tasks(1)
    numbers = iter(range(9))
    with registry.overriding(many=ScriptedProvider(split, name="many"), bad=ScriptedProvider(broken, name="bad")):
        command = ("batch", "tasks.jsonl", "-p", "many:3", "--schema", "schema.json", *ABSTAINING)
        code, _, err = council(*command, "-o", "abstained.jsonl")
        assert (code, "0 of 1 tasks succeeded, 1 abstained" in err) == (4, True)
        command = ("batch", "tasks.jsonl", "-p", "one,bad", "-o", "results.jsonl")
        assert council(*command)[0] == 0
        code, _, err = council(*command, "--strict")
    assert (code, "1 of 1 tasks succeeded, 1 degraded" in err) == (3, True)


def test_ctrl_c_says_what_is_done_and_how_to_go_on(
    council: Council, one: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tasks(1, 2, 3, 4)
    real = result_file.ResultFile.add

    def add(self: Any, values: Any) -> None:
        real(self, values)
        if len(self.finished) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(result_file.ResultFile, "add", add)
        code, _, err = council(*RUN, "--concurrency", "1")
    assert code == 130
    assert "of 4 tasks are done; to go on: council batch tasks.jsonl -o results.jsonl -p one" in err
    assert set(results()) == {"q1", "q2"}
    assert council(*RUN)[0] == 0
    assert set(results()) == {"q1", "q2", "q3", "q4"}
    # The call of the third task may have been on its way.
    assert (one.asked["number-1"], one.asked["number-2"]) == (1, 1)


def test_a_full_disk_ends_the_batch_with_the_way_on(
    council: Council, one: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tasks(1, 2)

    def add(self: Any, values: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(result_file.ResultFile, "add", add)
        code, _, err = council(*RUN)
    assert code == 1
    assert "cannot write results.jsonl: No space left on device; to go on: council batch" in err
    assert council(*RUN)[0] == 0
    assert one.asked.total() == 2


def test_the_words_are_checked(council: Council, one: Seat) -> None:
    assert "name a file of tasks" in council("batch")[2]
    assert "too many arguments" in council("batch", "a", "b", "c")[2]
    assert "cannot be read" in council("batch", "none.jsonl", "-p", "one")[2]
    write_tasks(1)
    code, _, err = council("batch", "unheard-of", "tasks.jsonl", "-p", "one")
    assert (code, "unheard-of" in err) == (2, True)
