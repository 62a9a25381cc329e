"""``kill -9`` at fifty points of a stored run, half of them next to a commit, then the command ``council resume``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_council import Council, CouncilConfig
from llm_council.store import Store
from llm_council.testing.fakes import ScriptedProvider

POINTS = 50
SCRIPT = Path(__file__).with_name("kill.py")

# Fields that differ between any two runs: ids and times.
TIMES = {"created", "at", "elapsed", "started", "duration", "run_id", "idempotency_key"}


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_fifty_killed_runs_are_intact_and_resume_without_paying_twice(tmp_path: Path) -> None:
    """One test, so that parallel workers do not each kill fifty runs of their own."""
    folder = tmp_path
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder), "7", str(POINTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    facts = [json.loads((folder / str(number) / "facts.json").read_text()) for number in range(POINTS)]
    every_store_is_intact_and_every_run_resumes(facts)
    nothing_is_sent_before_it_is_journalled(facts)
    no_journalled_call_is_paid_twice(facts)
    the_result_is_that_of_an_undisturbed_run(folder, facts)
    a_resumed_run_replays_bit_for_bit(folder, facts)


def every_store_is_intact_and_every_run_resumes(facts: list[dict[str, Any]]) -> None:
    assert sum(fact["killed"] for fact in facts) > POINTS // 2
    assert {fact["intact"] for fact in facts if "intact" in fact} == {"ok"}
    assert [fact["said"] for fact in facts if fact["runs"] and fact["resumed"] != 0] == []
    # The points lie all over the run: before the first call, among the calls, and after the last.
    assert len({len(fact["before"]) for fact in facts}) > 4
    assert any(fact.get("in flight") for fact in facts)


def nothing_is_sent_before_it_is_journalled(facts: list[dict[str, Any]]) -> None:
    for fact in facts:
        sent = {line.split()[0] for line in fact["before"]}
        assert sent <= {*fact.get("journalled", ()), *fact.get("in flight", ())}


def no_journalled_call_is_paid_twice(facts: list[dict[str, Any]]) -> None:
    repeated = 0
    for fact in facts:
        if not fact["runs"]:
            assert fact["before"] == []
            continue
        before = Counter(line.split()[0] for line in fact["before"])
        after = Counter(line.split()[0] for line in fact["after"])
        assert all(after[key] == before[key] == 1 for key in fact["journalled"])
        assert all(count == 1 for key, count in after.items() if key not in fact["in flight"])
        assert all(after[key] == before[key] + 1 for key in fact["in flight"])  # the same key, so the vendor may know
        repeated += sum(before[key] for key in fact["in flight"])
    assert repeated


def the_result_is_that_of_an_undisturbed_run(killed: Path, facts: list[dict[str, Any]]) -> None:
    whole = {}
    for number, fact in enumerate(facts):
        if fact["runs"]:
            result = json.loads((killed / str(number) / "result.json").read_text())
            flagged = [line for line in result["warnings"] if "in flight" in line]
            assert len(flagged) == len(fact["in flight"])
            result["warnings"] = [line for line in result["warnings"] if line not in flagged]
            whole[number] = timeless(result)
    reference = next(whole[number] for number, fact in enumerate(facts) if fact["runs"] and not fact["journalled"])
    assert reference["status"] == "completed"
    assert reference["output"]["reasoning"] == "repaired"
    assert [number for number, result in whole.items() if result != reference] == []


def a_resumed_run_replays_bit_for_bit(killed: Path, facts: list[dict[str, Any]]) -> None:
    council = Council([ScriptedProvider("nobody is asked")], config=CouncilConfig())
    for number, fact in list(enumerate(facts))[::3]:
        if fact["runs"]:
            path = killed / str(number) / "runs.db"
            replayed = council.replay(fact["run"], store=path)
            assert replayed.to_dict() == json.loads((killed / str(number) / "result.json").read_text())
            assert Store(path).show_sync(fact["run"]).result == replayed.to_dict()
