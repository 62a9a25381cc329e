"""Task sets: the layouts that are read, and what is said of broken ones."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_council.batch import lines
from llm_council.errors import InvalidOption, InvalidTaskSet
from llm_council.evals import EvalTask, Scorer, ScorerKind, TaskSet, read_tasks
from llm_council.evals import _layouts as layouts
from llm_council.models import Message

GOOD = {"id": "a", "input": "How many?", "target": "18", "scorer": "number"}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def refused(path: Path, **options: Any) -> InvalidTaskSet:
    with pytest.raises(InvalidTaskSet) as caught:
        read_tasks(path, **options)
    return caught.value


def test_json_lines_with_the_fields_of_inspect_are_read(tmp_path: Path) -> None:
    lines = [
        {"id": "gsm8k-17", "input": "Ducks?", "target": "18", "scorer": "number", "metadata": {"cluster": "gsm8k"}},
        {"id": "arc-3", "input": "Which?", "choices": ["iron", "pear"], "target": "B", "scorer": "choice"},
        {
            "id": "rev-9",
            "input": [{"role": "user", "content": [{"type": "text", "text": "Review"}]}],
            "target": {"verdict": "reject"},
            "scorer": {"kind": "fields", "paths": ["$.verdict"]},
        },
    ]
    found = read_tasks(write(tmp_path / "set.jsonl", *lines))
    assert found.name == "set"
    assert [task.id for task in found.tasks] == ["gsm8k-17", "arc-3", "rev-9"]
    assert [task.cluster for task in found.tasks] == ["gsm8k", "arc-3", "rev-9"]
    assert found.tasks[2].input == (Message("user", "Review"),)
    assert found.tasks[2].vote_on == ("$.verdict",)
    assert found.tasks[1].schema == {"type": "string", "enum": ["iron", "pear"]}


def test_a_header_names_the_set_its_licence_and_the_scorer(tmp_path: Path) -> None:
    body = b'{"input": "a?", "target": "1"}\n'
    digest = hashlib.sha256(body).hexdigest()
    header = {"council_eval": 1, "name": "mine", "licence": "MIT", "source": "me", "scorer": "number", "sha256": digest}
    path = tmp_path / "set.jsonl"
    path.write_bytes(json.dumps(header).encode() + b"\n" + body)
    found = read_tasks(path)
    assert (found.name, found.licence, found.source, found.sha256) == ("mine", "MIT", "me", digest)
    assert found.tasks[0].scorer.kind == ScorerKind.NUMBER


def test_the_hash_of_a_set_is_that_of_its_tasks_whatever_the_header_says(tmp_path: Path) -> None:
    plain = read_tasks(write(tmp_path / "plain.jsonl", GOOD))
    named = read_tasks(write(tmp_path / "named.jsonl", {"council_eval": 1, "licence": "MIT"}, GOOD))
    other = read_tasks(write(tmp_path / "other.jsonl", {**GOOD, "target": "19"}))
    assert plain.sha256 == named.sha256 != other.sha256


def test_tasks_that_differ_from_the_hash_of_the_header_are_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "set.jsonl", {"council_eval": 1, "sha256": "0" * 64}, GOOD))
    assert error.line == 1
    assert "take the original, or remove it" in error.message


def test_a_task_without_an_id_gets_its_number_and_a_line_end_of_windows_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"input": "a", "target": 1}\r\n\r\n{"input": "b", "target": 2}\r\n')
    found = read_tasks(path)
    assert [(task.id, task.input, task.scorer.kind) for task in found.tasks] == [
        ("1", "a", "number"),
        ("2", "b", "number"),
    ]


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ({"target": "red"}, "exact"),
        ({"target": ["red", "rouge"]}, "exact"),
        ({"target": 3.5}, "number"),
        ({"target": True}, "bool"),
        ({"target": {"a": 1}}, "fields"),
        ({"target": "red", "choices": ["red", "blue"]}, "choice"),
    ],
)
def test_a_set_without_scorers_gets_the_one_that_fits_its_targets(
    tmp_path: Path, task: dict[str, Any], kind: str
) -> None:
    found = read_tasks(write(tmp_path / "set.jsonl", {"input": "?", **task}))
    assert found.tasks[0].scorer.kind == kind


def test_unknown_keys_of_a_line_are_kept_as_metadata(tmp_path: Path) -> None:
    found = read_tasks(write(tmp_path / "set.jsonl", {**GOOD, "level": 3, "metadata": {"topic": "ducks"}}))
    assert found.tasks[0].metadata == {"level": 3, "topic": "ducks"}


# Other layouts


def test_a_table_is_read_with_choices_as_json_or_with_bars(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text(
        "id,input,target,choices,scorer,cluster\n"
        '1,"What,\nis it?",B,iron | pear,choice,g\n'
        '2,x,pear,"[""iron"",""pear""]",choice,g\n'
    )
    found = read_tasks(path)
    assert [task.choices for task in found.tasks] == [("iron", "pear")] * 2
    assert found.tasks[0].input == "What,\nis it?"
    assert [task.cluster for task in found.tasks] == ["g", "g"]
    assert [task.metadata for task in found.tasks] == [{"cluster": "g"}] * 2


def test_the_line_of_a_table_counts_the_lines_of_cells(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text('input,target,scorer\n"a\nb",1,number\nc,one,number\nd,2\n')
    error = refused(path)
    assert [line for line, _ in error.faults] == [4, 5]
    assert "write the digits" in error.faults[0][1]
    assert "2 cells for 3 columns" in error.faults[1][1]


def test_a_table_without_a_column_of_inputs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("question,answer\na,b\n")
    assert "'input' is not there: question, answer" in refused(path).message


@pytest.mark.parametrize("is_new", [True, False])
def test_choices_that_lm_eval_logged_are_read(tmp_path: Path, is_new: bool) -> None:
    requests: Any = [["Q: a?", " iron"], ["Q: a?", " pear"]]
    if is_new:
        requests = {f"gen_args_{i}": {"arg_0": one, "arg_1": two} for i, (one, two) in enumerate(requests)}
    logged = {"doc_id": 7, "doc": {"q": "a"}, "target": "1", "arguments": requests, "resps": [], "filtered_resps": []}
    task = read_tasks(write(tmp_path / "samples.jsonl", logged)).tasks[0]
    assert (task.id, task.input, task.choices, task.target) == ("7", "Q: a?", ("iron", "pear"), "1")
    assert task.scorer.kind == ScorerKind.CHOICE


def test_texts_that_lm_eval_logged_once_for_each_filter_are_read_once(tmp_path: Path) -> None:
    prompt = json.dumps([{"role": "user", "content": "Ducks?"}])
    logged = {
        "doc_id": 0,
        "doc": {},
        "target": "He has 9 * 200.\n#### 1,800",
        "arguments": {"gen_args_0": {"arg_0": [prompt], "arg_1": {"until": []}}},
    }
    found = read_tasks(write(tmp_path / "s.jsonl", {**logged, "filter": "strict"}, {**logged, "filter": "flexible"}))
    assert len(found.tasks) == 1
    assert found.tasks[0].input == (Message("user", "Ducks?"),)
    assert (found.tasks[0].target, found.tasks[0].scorer.kind) == (1800, "number")


# Bad sets


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"input": "a"', "not JSON"),
        ("[1, 2]", "expected a JSON object"),
        ('"text"', "expected a JSON object"),
        ('{"input": "a", "target": NaN, "scorer": "number"}', "NaN is not JSON"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ({"target": "1", "scorer": "number"}, "'input' is missing: .*target"),
        ({"input": " ", "target": "1", "scorer": "number"}, "write the question"),
        ({"input": [], "target": "1", "scorer": "number"}, "a list of messages"),
        ({"input": [{"role": "user", "content": [{"type": "image"}]}], "target": 1, "scorer": "number"}, "of text"),
        ({"input": "a", "scorer": "number"}, "target is missing"),
        ({"input": "a", "target": "eighteen", "scorer": "number"}, "write the digits"),
        ({"input": "a", "target": "maybe", "scorer": "bool"}, "write true or false"),
        ({"input": "a", "target": "((", "scorer": "regex"}, "no regular expression"),
        ({"input": "a", "target": 5, "scorer": "regex"}, "no pattern"),
        ({"input": "a", "target": "?!", "scorer": "exact"}, "use the scorer regex"),
        ({"input": "a", "target": ["x", ""], "scorer": "contains"}, "no words"),
        ({"input": "a", "target": "x", "choices": ["x", "y"], "scorer": "exact"}, "use 'choice'"),
        ({"input": "a", "target": "x", "scorer": "choice"}, "needs 'choices'"),
        ({"input": "a", "target": "x", "choices": ["x", "The X!"], "scorer": "choice"}, "tell them apart"),
        ({"input": "a", "target": "z", "choices": ["x", "y"], "scorer": "choice"}, "none of the 2 choices"),
        ({"input": "a", "target": "2", "choices": ["x", "y"], "scorer": "choice"}, "0 is the first"),
        ({"input": "a", "target": "A", "choices": ["B", "A"], "scorer": "choice"}, "letter of one choice and the text"),
        ({"input": "a", "target": ["x", "y"], "choices": ["x", "y"], "scorer": "choice"}, "takes one target"),
        ({"input": "a", "target": "x", "choices": [1, 2], "scorer": "choice"}, "a list of texts"),
        ({"input": "a", "target": "x", "scorer": "fields"}, "no JSON object"),
        ({"input": "a", "target": {"b": 1}, "scorer": {"kind": "fields", "paths": ["$.c"]}}, "target has no"),
        ({"input": "a", "target": {"b": 1}, "scorer": {"kind": "fields", "paths": ["$.*"]}}, "names one part"),
        ({"input": "a", "target": {"b": 1}, "scorer": {"kind": "fields", "paths": "$.b"}}, "a list of paths"),
        (
            {"input": "a", "target": {"b": 1}, "scorer": {"kind": "fields", "schema": {"required": ["c"]}}},
            "does not meet the scorer's schema",
        ),
        (
            {
                "input": "a",
                "target": {"b": "x"},
                "scorer": {"kind": "fields", "paths": [{"path": "b", "compare": "number"}]},
            },
            "no number",
        ),
        ({"input": "a", "target": "x", "scorer": "exat"}, "did you mean 'exact'"),
        ({"input": "a", "target": "x", "scorer": {"full": True}}, "'kind' is missing"),
        ({"input": "a", "target": "x", "scorer": {"kind": "exact", "full": True}}, "full belongs to the scorer regex"),
        ({"input": "a", "target": "x", "scorer": {"kind": "regex", "ful": True}}, "did you mean 'full'"),
        ({"input": "a", "target": "x", "scorer": ["exact", "number"]}, "one scorer, not a list"),
        ({"input": "a", "scorer": "judge"}, "rubric is missing"),
        ({"input": "a", "target": "1", "scorer": "number", "metadata": [1]}, "expected a mapping"),
        ({"doc_id": 1, "arguments": {}, "target": "x"}, "log the samples again"),
        ({"doc_id": 1, "arguments": [["a", " x"], ["b", " x"]], "target": "x"}, "different contexts"),
        ({"council_eval": 1}, "a header can only be the first line"),
    ],
)
def test_a_bad_line_is_named_with_a_remedy(tmp_path: Path, line: Any, says: str) -> None:
    error = refused(write(tmp_path / "set.jsonl", GOOD, line))
    assert error.line == 2
    assert "set.jsonl: line 2: " in error.message
    assert re.search(says, error.faults[0][1]), error.faults


def test_an_id_that_is_given_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "set.jsonl", GOOD, {**GOOD, "id": "b"}, GOOD))
    assert error.line == 3
    assert "the id 'a' is not unique: line 1 has it, too" in error.message


def test_scorers_that_some_lines_leave_out_are_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "set.jsonl", GOOD, {"input": "b", "target": "2"}))
    assert error.line == 2
    assert "mixed scorers" in error.message
    assert len(read_tasks(tmp_path / "set.jsonl", scorer="number").tasks) == 2


def test_scorers_that_would_be_guessed_differently_are_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "set.jsonl", {"input": "a", "target": 1}, {"input": "b", "target": "two"}))
    assert error.line == 2
    assert "looks like exact, and that of line 1 like number" in error.message


def test_judged_tasks_beside_measured_ones_are_refused(tmp_path: Path) -> None:
    judged = {"id": "b", "input": "b", "scorer": {"kind": "judge", "rubric": "It is short."}}
    error = refused(write(tmp_path / "set.jsonl", GOOD, judged))
    assert error.line == 2
    assert "a set of their own" in error.message


def test_all_problems_are_reported_and_the_first_three_are_told(tmp_path: Path) -> None:
    bad = [{**GOOD, "id": str(number), "target": "x"} for number in range(9)]
    error = refused(write(tmp_path / "set.jsonl", *bad))
    assert [line for line, _ in error.faults] == list(range(1, 10))
    assert error.message.endswith("and 6 more")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no task"),
        (b"\n \n", "holds no task"),
        (b'{"council_eval": 1}\n', "holds no task"),
        (b'[{"input": "a"}]', "jq -c"),
        (b'{"council_eval": 2}\n{"input": "a", "target": 1}\n', "version 2 of the layout"),
        (b'{"input": "\xff", "target": 1}\n', "line 1: byte 12 is not UTF-8"),
        (b'{"council_eval": 1, "scorer": "nope"}\n{"input": "a", "target": 1}\n', "line 1: there is no scorer"),
    ],
)
def test_a_file_that_is_no_set_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)
    assert says in refused(path).message


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "check the path" in refused(tmp_path / "none.jsonl").message
    assert "name one file of it" in refused(tmp_path).message


def test_a_huge_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "set.jsonl", GOOD, {**GOOD, "id": "b"})
    monkeypatch.setattr(layouts, "MAX_TASKS", 1)
    assert "2 tasks are more than 1: take a sample, or split the file" in refused(path).message
    monkeypatch.setattr(lines, "MAX_LINE", 20)
    assert "shorten the task" in refused(path).message
    monkeypatch.setattr(layouts, "MAX_BYTES", 50)
    assert "bytes are more than 50" in refused(path).message


def test_three_thousand_tasks_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "set.jsonl", *({**GOOD, "id": f"t{number}"} for number in range(3_000)))
    assert len(read_tasks(path).tasks) == 3_000


# Tasks in code


def test_a_task_survives_its_line(tmp_path: Path) -> None:
    task = EvalTask(
        id="a",
        input=(Message("system", "Be brief."), Message("user", "Which?")),
        choices=("iron", "pear"),
        target="pear",
        scorer="choice",
        metadata={"cluster": "fruit"},
    )
    fields = EvalTask(
        id="b",
        input="Read.",
        target={"total": 3, "items": [{"name": "x"}]},
        scorer=Scorer.of({"kind": "fields", "paths": ["$.items[0].name", {"path": "total", "abs": 0.5}]}),
    )
    path = write(tmp_path / "set.jsonl", task.to_dict(), fields.to_dict())
    assert read_tasks(path).tasks == (task, fields)
    assert fields.vote_on == ("$.items.0.name", "$.total")


def test_a_set_in_code_is_checked_too() -> None:
    task = EvalTask(id="a", input="?", target=1, scorer="number")
    with pytest.raises(InvalidTaskSet, match="not unique"):
        TaskSet(name="x", tasks=(task, task), sha256="")
    with pytest.raises(InvalidOption, match="write the digits"):
        EvalTask(id="a", input="?", target="one", scorer="number")
