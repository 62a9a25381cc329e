"""Blocking calls under IPython: the tests of ``ipython_cells.py``, in a process of their own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CELLS = Path(__file__).with_name("ipython_cells.py")


def test_blocking_calls_work_under_ipython() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CELLS)]
    done = subprocess.run(command, cwd=CELLS.parents[2], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= CELLS.read_text(encoding="utf-8").count("\ndef test_")
