"""The memory of runs that wait: thousands of them may wait for one batch job."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "waiting.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_council_that_waits_for_its_seats_holds_at_most_100_kb():
    # In a process of its own, because one that has done more has memory to reuse, and would seem to need none.
    done = subprocess.run(
        [sys.executable, PROGRAM, "300", "traced"], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert 10 < float(done.stdout) <= 100
