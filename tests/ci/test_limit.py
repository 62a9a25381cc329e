"""The wrapper that bounds every command of every environment."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = Path(__file__).parents[2] / ".ci" / "limit.py"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(LIMIT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_passes_on_the_exit_status_and_the_output() -> None:
    done = run("60", sys.executable, "-c", "print('hello'); raise SystemExit(3)")
    assert (done.returncode, done.stdout) == (3, "hello\n")


@pytest.mark.slow
def test_ends_the_command_and_its_children(tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    child = f"import pathlib, time\nwhile True:\n    pathlib.Path({str(beat)!r}).touch(); time.sleep(0.05)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    done = run("2", sys.executable, "-c", parent)
    assert done.returncode == 124
    assert "stopped after 2 s" in done.stderr
    last = beat.stat().st_mtime_ns
    time.sleep(0.5)
    assert beat.stat().st_mtime_ns == last
