"""Tasks in Parquet, for which pyarrow is needed."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llm_council.batch.lines import Line
from llm_council.batch.task_files import FileTask, TaskFile
from llm_council.errors import InvalidTaskSet, MissingDependency


def test_without_pyarrow_the_way_on_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tasks.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match="parquet") as missing:
        TaskFile(str(path)).scan()
    assert "save the tasks as JSON Lines" in missing.value.message


def test_rows_are_tasks(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "tasks.parquet"
    columns = {
        "id": pa.array([1, 2, 3], pa.int64()),
        "task": pa.array(["one", None, "three"]),
        "files": pa.array([["a.png"], None, None]),
        "weight": pa.array([0.5, None, float("nan")]),
        "at": pa.array([datetime(2026, 1, 2, tzinfo=UTC)] * 3, pa.timestamp("us", tz="UTC")),
    }
    parquet.write_table(pa.table(columns), path, row_group_size=2)
    file = TaskFile(str(path))
    assert file.unit == "row"
    first, second, third = file.tasks()
    assert isinstance(first, FileTask)
    assert (first.line, first.id, first.task, first.files) == (1, "1", "one", ("a.png",))
    assert first.metadata == {"weight": 0.5, "at": "2026-01-02T00:00:00+00:00"}
    assert isinstance(second, Line)
    assert "the row has id, at" in (second.problem or "")
    assert isinstance(third, FileTask)
    assert third.metadata == {"at": "2026-01-02T00:00:00+00:00"}


def test_a_file_that_is_no_table_of_tasks_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "tasks.parquet"
    parquet.write_table(pa.table({"question": ["one"]}), path)
    with pytest.raises(InvalidTaskSet, match="no column 'task', but question"):
        TaskFile(str(path)).scan()
    path.write_bytes(b"not Parquet at all")
    with pytest.raises(InvalidTaskSet, match="cannot be read as Parquet"):
        TaskFile(str(path)).scan()
