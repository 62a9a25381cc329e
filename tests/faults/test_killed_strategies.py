"""Killed runs of each strategy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kill_strategies import CASES, install

from llm_council.strategies._find import BUILT_IN

POINTS = 30
SEED = 15
SCRIPT = Path(__file__).with_name("kill_strategies.py")

TIMES = {"created", "at", "elapsed", "started", "duration", "run_id", "idempotency_key"}


def timeless(value: Any) -> Any:
    """Return a result without ids, times and notes about killed calls, which differ between any two runs."""
    if isinstance(value, dict):
        return {
            key: [line for line in item if "in flight" not in line] if key == "warnings" else timeless(item)
            for key, item in value.items()
            if key not in TIMES
        }
    if isinstance(value, str):
        return re.sub(r"after \d+\.\d s", "after a while", value)
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
@pytest.mark.parametrize("name", CASES)
def test_killed_and_resumed(name: str, tmp_path: Path) -> None:
    """`kill -9` at thirty random points of a stored run of each built-in strategy, then `council resume`: the result is
    the undisturbed one but for times, the store is intact, and no call whose answer is stored is made again.
    """
    assert set(CASES) == set(BUILT_IN)
    install(tmp_path / "plugin")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("LLM_COUNCIL_", "XDG_"))}
    path = os.pathsep.join((str(tmp_path / "plugin"), str(SCRIPT.parent)))
    command = [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path), name, str(SEED), str(POINTS)]
    environment = {**own, "PYTHONPATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads((tmp_path / "facts.json").read_text())
    whole = timeless(json.loads((tmp_path / "whole" / "result.json").read_text()))
    assert whole["status"] == "completed", whole["error"]
    stored = 0
    for number, killed in enumerate(facts["killed"]):
        before = killed["before"]
        assert killed["ended"] == -9, killed
        assert before.get("intact", "ok") == "ok"
        once = Counter(before["paid"])
        # Nothing is sent before the journal holds it.
        assert set(once) <= {*before["answered"], *before["in flight"]}
        if not before["runs"]:
            continue
        stored += 1
        assert killed["resumed"] == 0, (killed["point"], killed["said"])
        assert timeless(json.loads((tmp_path / str(number) / "result.json").read_text())) == whole, killed["point"]
        again = Counter(killed["after"]["paid"]) - once
        assert not set(again) & set(before["answered"]), killed["point"]
        assert max(again.values(), default=1) == 1
        assert set(once) & set(again) <= set(before["in flight"])
        assert len(once | again) == len(set(facts["whole"])), killed["point"]
    # The first run is killed at its end; where the others lie depends on the threads.
    assert stored
    assert any(killed["before"]["answered"] for killed in facts["killed"])
