"""An evaluation that is killed with SIGKILL goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from llm_council.evals import replay
from llm_council.evals.journal import FILE
from tests.evals.test_run import without_times

ROOT = Path(__file__).parents[2]
SCRIPT = """\
import sys
from llm_council.evals import evaluate
from tests.evals._council import council_of, tasks_of
evaluate(council_of(), tasks_of(24), arms=["poll", "revise"], samples=3, out=sys.argv[1], resume=True)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], cwd=ROOT, env={**os.environ})


def drafts(folder: Path) -> list[tuple[str, str, int]]:
    """Return what was drawn, in the order of the file; a torn last line is left out."""
    content = (folder / FILE).read_bytes() if (folder / FILE).exists() else b""
    cells = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    return [(cell["item"], cell["seat"], cell["sample"]) for cell in cells if cell.get("cell") == "draft"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_process_leaves_a_journal_from_which_the_same_report_comes(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait(120) == 0
    chance = Random(2026)
    kills, before = 0, -1
    for _ in range(20):
        process = start(killed)
        # At a random point of what is left: by the length of the journal, not by a clock.
        goal = before + chance.randint(1, 12)
        while process.poll() is None and len(drafts(killed)) < goal:
            time.sleep(0.005)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        before = len(drafts(killed))
    assert kills >= 5
    assert start(killed).wait(120) == 0
    assert len(set(drafts(killed))) == len(drafts(killed))
    assert without_times(replay(killed)) == without_times(replay(whole))
