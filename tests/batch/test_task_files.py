"""Files of tasks: what is read, which ids they get, and what is said of broken lines."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council.batch import lines
from llm_council.batch.lines import Line
from llm_council.batch.task_files import FileTask, TaskFile
from llm_council.errors import InvalidOption, InvalidTaskSet


def write(path: Path, *records: Any) -> TaskFile:
    """Write records as JSON Lines, text as it is."""
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(f"{text}\n" for text in texts))
    return TaskFile(str(path))


def tasks_of(file: TaskFile) -> list[FileTask]:
    return [task for task in file.tasks() if isinstance(task, FileTask)]


def problems_of(file: TaskFile) -> dict[int, str]:
    return {line.number: line.problem or "" for line in file.tasks() if isinstance(line, Line)}


def test_a_line_of_json_is_a_task_with_its_fields(tmp_path: Path) -> None:
    file = write(
        tmp_path / "tasks.jsonl",
        {"id": "q1", "task": "What?", "subagent": "reviewer", "context": "c", "files": ["a.png"], "gold": 4},
        {"id": 2, "input": "Who?", "metadata": {"source": "s"}, "context": None},
        "",
        '"When?"',
    )
    first, second, third = tasks_of(file)
    assert (first.line, first.id, first.task, first.subagent) == (1, "q1", "What?", "reviewer")
    assert (first.context, first.files, first.metadata) == ("c", ("a.png",), {"gold": 4})
    assert (second.id, second.task, second.context, second.metadata) == ("2", "Who?", None, {"source": "s"})
    assert (third.line, third.task) == (4, "When?")
    assert problems_of(file) == {}


def test_broken_lines_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "tasks.jsonl",
        {"id": "a", "task": "one"},
        '{"id": "b", "task": ',
        {"id": "a", "task": "two"},
        {"id": "c", "question": "three"},
        {"id": "d", "task": "  "},
        ["four"],
        {"id": True, "task": "five"},
        {"id": "e", "task": "six", "files": 3},
        {"id": "f", "task": "seven", "input": "eight"},
        '{"id": "\\ud800", "task": "nine"}',
        {"id": "g", "task": "ten", "context": 7},
        {"id": "z", "task": "last"},
    )
    assert [task.id for task in tasks_of(file)] == ["a", "z"]
    problems = problems_of(file)
    assert list(problems) == [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert "not JSON" in problems[2]
    assert "line 1 has it, too" in problems[3]
    assert "'task' is missing" in problems[4]
    assert "id, question" in problems[4]
    assert "not empty" in problems[5]
    assert "JSON object" in problems[6]
    assert "whole number" in problems[7]
    assert "list of paths" in problems[8]
    assert "both" in problems[9]
    assert "surrogate" in problems[10]
    assert "expected text" in problems[11]
    scan = file.scan()
    assert scan.tasks == 2
    assert [number for number, _ in scan.problems] == list(problems)


def test_a_table_is_read_with_the_numbers_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text(
        'id,task,files,gold\n1,"two\nlines",,x\n2,"say ""hi""","[""a.png"", ""b.png""]",\n3,too,many,cells,here\n4,"end'
    )
    file = TaskFile(str(path))
    first, second = tasks_of(file)
    assert (first.line, first.id, first.task, first.metadata) == (2, "1", "two\nlines", {"gold": "x"})
    assert (second.line, second.task, second.files) == (4, 'say "hi"', ("a.png", "b.png"))
    problems = problems_of(file)
    assert list(problems) == [5, 6]
    assert "5 cells for 4 columns" in problems[5]
    assert "check the quotes" in problems[6]


def test_a_table_of_another_encoding_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "tasks.tsv"
    path.write_bytes("\ufefftask\tid\nGrüße\ta\n".encode() + "Grüße\tb\n".encode("latin-1") + b"ok\tc\n")
    file = TaskFile(str(path))
    assert [task.id for task in tasks_of(file)] == ["a", "c"]
    assert "UTF-8" in problems_of(file)[3]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tasks.jsonl", b"", "holds no task"),
        ("tasks.jsonl", b"\n\n", "holds no task"),
        ("tasks.json", b'[\n{"task": "a"}]', "jq -c"),
        ("tasks.jsonl", '{"task": "a"}'.encode("utf-16"), "UTF-8"),
        ("tasks.csv", b"question,id\na,b\n", "'task' is not there: question, id"),
        ("tasks.csv", b'"task\n', "check the quotes"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidTaskSet) as refused:
        TaskFile(str(path)).scan()
    assert said in refused.value.message
    assert str(path) in refused.value.message


def test_a_folder_and_a_missing_file_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidTaskSet, match="it is a folder"):
        TaskFile(str(tmp_path))
    with pytest.raises(InvalidTaskSet, match="check the path"):
        TaskFile(str(tmp_path / "none.jsonl"))


def test_a_pipe_is_read_once_and_scanned_often(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b'{"task": "a"}\n')
    os.close(write)
    file = TaskFile(f"/dev/fd/{read}")
    os.close(read)
    assert file.scan() == file.scan()
    assert [task.task for task in tasks_of(file)] == ["a"]
    assert tasks_of(TaskFile("-", piped=b'"a"\n"b"'))[1].line == 2


def test_an_endless_line_is_a_problem_and_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    file = write(tmp_path / "tasks.jsonl", {"task": "x" * 1_000}, {"task": "ok"})
    assert [(task.line, task.task) for task in tasks_of(file)] == [(2, "ok")]
    assert "more than 100 bytes" in problems_of(file)[1]


def test_a_field_that_looks_misspelt_is_pointed_out(tmp_path: Path) -> None:
    file = write(tmp_path / "tasks.jsonl", {"task": "a", "contxt": "b", "gold": 1})
    (hint,) = file.scan().hints
    assert "'contxt'" in hint
    assert "did you mean 'context'?" in hint


# Ids

_records = st.fixed_dictionaries(
    {"task": st.text(min_size=1).filter(str.strip)},
    optional={"context": st.text(), "gold": st.integers() | st.text() | st.none()},
)


@examples(30)
@given(st.lists(_records, min_size=1, max_size=8), st.data())
def test_a_line_without_id_has_the_same_id_wherever_it_stands(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    def ids(several: list[dict[str, Any]]) -> list[str]:
        piped = "\n".join(map(json.dumps, several)).encode()
        return [task.id for task in tasks_of(TaskFile("-", piped=piped))]

    found = ids(records)
    assert len(set(found)) == len(records)
    moved = data.draw(st.permutations(records))
    assert sorted(ids(moved)) == sorted(found)
    assert ids(records[:3]) == found[:3]


@examples(30)
@given(st.lists(st.text().filter(str.strip), min_size=1, max_size=8))
def test_a_table_and_lines_of_json_hold_the_same_tasks(texts: list[str]) -> None:
    texts = [text.replace("\r", "").replace("\0", "") or "x" for text in texts]
    texts = [text if text.strip() else "x" for text in texts]
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_ALL)
    writer.writerows([["task"], *([text] for text in texts)])
    piped = "\n".join(json.dumps({"task": text}) for text in texts).encode()
    as_lines = TaskFile("-", piped=piped)
    as_table = TaskFile("-", piped=table.getvalue().encode())
    as_table._kind = ".csv"
    assert [(task.id, task.key) for task in tasks_of(as_table)] == [(task.id, task.key) for task in tasks_of(as_lines)]


def test_what_is_asked_decides_the_key_and_nothing_else(tmp_path: Path) -> None:
    base = {"id": "a", "task": "What?"}
    records = [base, {**base, "gold": 1}, {**base, "task": "Who?"}, {**base, "context": "c"}, {**base, "id": "b"}]
    keys = []
    for record in records:
        keys += [task.key for task in tasks_of(TaskFile("-", piped=json.dumps(record).encode()))]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@examples(20)
@given(st.integers(1, 60), st.integers(1, 60), st.text())
def test_a_sample_is_the_same_each_time_and_part_of_a_larger_one(small: int, large: int, seed: str) -> None:
    small, large = sorted((small, large))
    file = TaskFile("-", piped="\n".join(json.dumps({"id": n, "task": "?"}) for n in range(40)).encode())
    chosen = file.sample(small, seed)
    assert len(chosen) == min(small, 40)
    assert chosen == file.sample(small, seed)
    assert chosen <= file.sample(large, seed)


def test_another_seed_draws_another_sample() -> None:
    file = TaskFile("-", piped="\n".join(json.dumps({"id": n, "task": "?"}) for n in range(200)).encode())
    assert file.sample(20, "a") != file.sample(20, "b")


def test_a_check_of_the_caller_makes_a_line_a_broken_one(tmp_path: Path) -> None:
    def check(task: FileTask) -> None:
        if task.subagent:
            raise InvalidOption(f"there is no subagent {task.subagent!r}")

    path = tmp_path / "tasks.jsonl"
    write(path, {"id": "a", "task": "one", "subagent": "none"}, {"id": "a", "task": "two"})
    file = TaskFile(str(path), check=check)
    seen: list[FileTask] = []
    scan = file.scan(seen.append)
    assert scan.problems == ((1, "there is no subagent 'none'"),)
    assert [task.task for task in seen] == ["two"]
