"""The number of threads of the engine."""

import os

import pytest

from llm_council.providers._local import engine as local_engine
from llm_council.providers._local.engine import default_threads


@pytest.mark.parametrize(
    ("cores", "quota", "threads"),
    [
        (1, None, (1, 1)),
        (2, None, (1, 2)),
        (64, None, (4, 8)),
        (64, "max 100000", (4, 8)),
        (64, "200000 100000", (1, 2)),
        (64, "50000 100000", (1, 1)),
        (2, "800000 100000", (1, 2)),
        (2, "nonsense", (1, 2)),
        (2, "1 0", (1, 2)),
    ],
)
def test_generating_leaves_one_core_free(monkeypatch, tmp_path, cores, quota, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(local_engine, "_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert default_threads() == threads
