"""A council on a local Ray, which sends no telemetry (tox -e ray)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray

ray = pytest.importorskip("ray", reason="the environment ray installs it")
ray_data = pytest.importorskip("ray.data", reason="the environment ray installs it")

from worker_seats import FOLDER, WorkerSeat, calls_in  # noqa: E402

from llm_council import Council, CouncilConfig, CouncilMapper  # noqa: E402

COLUMNS = {"by": "output.answer", "usd": "cost.usd", "tokens": "usage.total_tokens"}
ROWS = 500


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Start Ray, whose sockets need a short path, and return the folder in which its workers note their calls."""
    assert os.environ.get("RAY_USAGE_STATS_ENABLED") == "0", "run tox -e ray: it turns telemetry off"
    short = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    path = os.pathsep.join(str(Path(__file__).parents[number]) for number in (0, 2))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        _temp_dir=str(short / "ray"),
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": {FOLDER: str(short), "PYTHONPATH": path}},
    )
    ray_data.DataContext.get_current().enable_progress_bars = False
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(FOLDER, str(short))
            yield short
    finally:
        ray.shutdown()
        shutil.rmtree(short, ignore_errors=True)


def council() -> Council:
    return Council([WorkerSeat], config=CouncilConfig(), strategy="single")


def rows(count: int = ROWS) -> Any:
    return ray_data.from_items(
        [{"q": "task-that-breaks" if number == 7 else f"task-{number}"} for number in range(count)]
    )


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_500_rows_are_answered_by_workers(folder: Path, batch_format: str) -> None:
    before = len(calls_in(folder))
    mapper = CouncilMapper(council(), "q", columns=COLUMNS)
    out = rows().map_batches(mapper, batch_size=32, batch_format=batch_format).take_all()
    assert sorted(row["q"] for row in out) == sorted(row["q"] for row in rows().take_all())
    (failed,) = [row for row in out if row["status"] != "completed"]
    assert failed["q"] == "task-that-breaks"
    assert failed["error"].startswith("QuorumLost")
    assert len(calls_in(folder)) - before == ROWS
    assert str(os.getpid()) not in calls_in(folder)


def test_actors_make_the_mapper_themselves(folder: Path) -> None:
    out = (
        rows(40)
        .map_batches(
            CouncilMapper,
            fn_constructor_args=(council(), "q"),
            compute=ray_data.ActorPoolStrategy(size=1),
            batch_size=16,
        )
        .take_all()
    )
    assert [row["status"] for row in out].count("completed") == 39
