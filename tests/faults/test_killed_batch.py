"""Killed processes of `council batch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kill_strategies import install
from test_killed_strategies import timeless

POINTS = 20
SEED = 18
SCRIPT = Path(__file__).with_name("kill_batch.py")


def results(content: str) -> list[Any]:
    """Return the lines of results in the order of their ids, without times."""
    return sorted(map(timeless, map(json.loads, content.splitlines())), key=lambda line: str(line["id"]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="commands are forked")
def test_a_killed_batch_goes_on_where_it_was(tmp_path: Path) -> None:
    """`kill -9` at twenty random points, half of them followed by a second one: the same command again leaves the
    results of an undisturbed one, makes no call again whose answer is stored, and no answered task again.
    """
    install(tmp_path / "plugin")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("LLM_COUNCIL_", "XDG_"))}
    path = os.pathsep.join((str(tmp_path / "plugin"), str(SCRIPT.parent)))
    command = [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path), str(SEED), str(POINTS)]
    environment = {**own, "PYTHONPATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads((tmp_path / "facts.json").read_text())
    whole = results(facts["lines"])
    assert [line["status"] for line in whole] == ["completed"] * 8
    torn = stored = 0
    for killed in facts["killed"]:
        *stages, last = killed["stages"]
        assert last["ended"] == 0, killed["said"]
        assert results(last["results"]) == whole, stages
        assert len(set(last["paid"])) == len(set(facts["whole"]))
        assert killed["left"] == ["paid", "results.jsonl", "schema.json", "stderr", "stdout", "steps", "tasks.jsonl"]
        for before, after in zip(stages, killed["stages"][1:], strict=True):
            assert before["ended"] == -9, before
            assert before.get("intact", "ok") == "ok"
            once = Counter(before["paid"])
            again = Counter(after["paid"]) - once
            assert not set(again) & set(before["answered"]), before["point"]
            assert max(again.values(), default=1) == 1
            # What is made again was in flight, or is of a task that had not begun.
            assert set(once) & set(again) <= set(before["in flight"]), before["point"]
            stored += bool(before["answered"])
            torn += not before["results"].endswith("\n") and bool(before["results"])
    assert stored >= POINTS // 2
    assert torn
