"""Councils on two worker processes of Dask, and on batches of pandas, Arrow and datasets (tox -e dask)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.dask

pandas = pytest.importorskip("pandas", reason="the environment dask installs it")
pyarrow = pytest.importorskip("pyarrow", reason="the environment dask installs it")
distributed = pytest.importorskip("distributed", reason="the environment dask installs it")
frames = pytest.importorskip("dask.dataframe", reason="the environment dask installs it")
datasets = pytest.importorskip("datasets", reason="the environment dask installs it")

from worker_seats import FOLDER, WorkerSeat, calls_in  # noqa: E402

from llm_council import Budget, Council, CouncilConfig, CouncilMapper  # noqa: E402

COLUMNS = {"by": "output.answer", "usd": "cost.usd", "tokens": "usage.total_tokens", "fine": "success"}
TASKS = ["task-1", "task-that-breaks", None, "task-4"]
ADDED = [*COLUMNS, "status", "error"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit="2GiB",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        yield client


def council() -> Council:
    return Council([WorkerSeat], config=CouncilConfig(), strategy="single")


def mapper() -> CouncilMapper:
    return CouncilMapper(council(), "q", columns=COLUMNS)


class TestContainers:
    def test_a_frame_keeps_its_index_and_gets_typed_columns(self, folder: Path) -> None:
        frame = pandas.DataFrame({"q": TASKS, "id": [1, 2, 3, 4]}, index=[9, 8, 7, 6])
        out = mapper()(frame)
        assert list(frame.columns) == ["q", "id"]
        assert list(out.columns) == ["q", "id", *ADDED]
        assert list(out.index) == [9, 8, 7, 6]
        assert list(out["status"]) == ["completed", "failed", "failed", "completed"]
        assert list(out["by"].isna()) == [False, True, True, False]
        empty = mapper()(frame.iloc[:0])
        broken = mapper()(frame.iloc[1:3])
        assert list(out.dtypes[ADDED]) == list(empty.dtypes[ADDED]) == list(broken.dtypes[ADDED])

    @pytest.mark.parametrize("as_batch", [False, True])
    def test_an_arrow_table_keeps_its_schema_and_gets_typed_columns(self, folder: Path, as_batch: bool) -> None:
        table = pyarrow.table({"q": TASKS}, schema=pyarrow.schema([("q", "large_string")], metadata={"a": "b"}))
        given = table.to_batches()[0] if as_batch else table
        out = mapper()(given)
        assert type(out) is type(given)
        assert out.schema.metadata == {b"a": b"b"}
        assert [str(kind) for kind in out.schema.types] == [
            *("large_string", "string", "double", "int64", "bool", "string", "string"),
        ]
        assert out.column("status").to_pylist() == ["completed", "failed", "failed", "completed"]
        assert mapper()(given.slice(1, 2)).schema == mapper()(given.slice(0, 0)).schema == out.schema

    def test_text_that_arrow_refuses_does_not_cost_the_other_rows(self, folder: Path) -> None:
        out = CouncilMapper(council(), "q", columns=["text"])(pyarrow.table({"q": ["a"]}))
        assert out.column("status").to_pylist() == ["completed"]


class TestDatasets:
    def test_columns_have_one_type_although_the_first_failure_comes_late(self, folder: Path) -> None:
        datasets.disable_progress_bars()
        rows = datasets.Dataset.from_dict({"q": [f"task-{number}" for number in range(8)] + ["task-that-breaks"]})
        options: dict[str, Any] = {"batched": True, "batch_size": 3, "writer_batch_size": 3}
        out = rows.map(mapper(), **options)
        assert list(out["status"]) == ["completed"] * 8 + ["failed"]
        assert out["error"][8].startswith("QuorumLost")
        fewer = rows.map(mapper(), remove_columns=["q"], **options)
        assert fewer.column_names == ADDED

    def test_results_in_the_cache_are_not_paid_again(self, folder: Path, tmp_path: Path) -> None:
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict({"q": ["task-1", "task-2"]}).save_to_disk(tmp_path / "rows")
        for _ in range(2):
            datasets.load_from_disk(tmp_path / "rows").map(mapper(), batched=True)
            assert len(calls_in(folder)) == 2


class TestDask:
    def test_partitions_are_answered_by_workers_and_nothing_is_sent_to_learn_the_columns(
        self, client: Any, folder: Path
    ) -> None:
        texts = [f"task-{number}" for number in range(19)] + ["task-that-breaks"]
        frame = frames.from_pandas(pandas.DataFrame({"q": texts}), npartitions=4)
        planned = frame.map_partitions(mapper())
        assert list(planned.columns) == ["q", *ADDED]
        assert calls_in(folder) == []
        out = planned.compute()
        assert list(out["q"]) == texts
        assert list(out["status"]) == ["completed"] * 19 + ["failed"]
        assert str(os.getpid()) not in calls_in(folder)
        assert len(calls_in(folder)) == 20

    def test_a_worker_killed_in_mid_run_costs_no_result_and_is_reported(self, client: Any, folder: Path) -> None:
        texts = [*(f"task-{number}" for number in range(9)), "task-of-the-first-victim", "task-10", "task-11"]
        results = list(council().map(texts, executor=client.get_executor(), chunksize=4, budget=Budget(calls=100)))
        assert [result.task_id for result in results] == [str(number) for number in range(12)]
        assert {result.status for result in results} == {"completed"}
        assert str(os.getpid()) not in calls_in(folder)
        (warning,) = results[9].warnings
        assert warning.startswith("Dask lost the worker of this task, and ran it again")
        assert results[0].warnings == ()
