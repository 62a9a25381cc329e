"""A thousand tasks, three seats, five samples: everything stays in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Not getrusage(): its maximum counts what the process that forked this one had in memory.
SCRIPT = """\
import pathlib, sys
from llm_council.evals import evaluate, replay
from tests.evals._council import council_of, tasks_of
report = evaluate(council_of(), tasks_of(1000), pool_only=True, out=sys.argv[1])
assert replay(sys.argv[1]).to_dict() == report.to_dict()
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print(report.items, report.calls, int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
@pytest.mark.timeout(400)
def test_a_thousand_tasks_take_less_than_300_mb(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    items, calls, megabytes = map(int, done.stdout.split())
    assert (items, calls) == (1000, 15_000)
    assert megabytes < 300
