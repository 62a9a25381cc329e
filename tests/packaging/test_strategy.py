"""A strategy of another distribution, copied from the page about strategies, built, and installed beside the wheel.

The environment ``pkg`` does that; it says in ``LLM_COUNCIL_PLUGGED`` where both are installed.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.packaging

TASK = "Is 2027 a prime number?"
CONFIG = """
[council]
providers = ["house:3"]
store = "runs.sqlite"

[providers.house]
kind = "openai-compatible"
base_url = "{url}"
default_model = "m"

[strategies.strict]
kind = "approve"
word = "FLAWLESS"
"""
KIT = """
from council_approve import Approve
from llm_council.testing import StrategyConformance

class TestApprove(StrategyConformance):
    strategy = Approve()

promises = [name for name in dir(TestApprove) if name.startswith("test_")]
for name in promises:
    getattr(TestApprove(), name)()
print(len(promises))
"""


class Reader:
    """Somebody who has installed both distributions."""

    def __init__(self, folder: Path, url: str) -> None:
        self.binaries = Path(os.environ["LLM_COUNCIL_PLUGGED"]) / "bin"
        self.folder = folder
        config = folder / "home" / "llm-council" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(CONFIG.format(url=url))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder / "home"),
        }

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        command = [str(self.binaries / program), *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **pipes)

    def run(self, program: str, *arguments: str) -> str:
        process = self.start(program, *arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out


@pytest.fixture
def reader(tmp_path: Path, vendor: Any) -> Reader:
    return Reader(tmp_path, vendor.url)


def test_it_is_listed_with_the_table_of_the_configuration(reader: Reader) -> None:
    listed = {row["name"]: row for row in json.loads(reader.run("council", "strategies", "--json"))}
    assert listed["approve"]["source"].startswith("council-approve")
    assert listed["approve"]["summary"] == "Return the draft that most other seats call right."
    assert listed["strict"]["source"] == "configuration"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--strategy", "approve", "--strategy-option", "word=YES"], "YES"),
        (["--strategy", "strict"], "FLAWLESS"),
    ],
)
def test_it_runs_from_the_command_line_and_from_a_table(
    reader: Reader, vendor: Any, options: list[str], word: str
) -> None:
    result = json.loads(reader.run("council", "run", "--json", *options, TASK))
    assert (result["status"], result["output"]["answer"]) == ("completed", "Yes.")
    assert (result["plan"]["strategy"], result["plan"]["strategy_options"]) == ("approve", {"word": word})
    assert sum(f"End with the word {word} if all of it holds" in json.dumps(call) for call in vendor.calls) == 6


def test_a_killed_run_is_resumed_and_replayed_by_its_name(reader: Reader, vendor: Any) -> None:
    vendor.held = 5  # the second judgement
    process = reader.start("council", "run", "--json", "--strategy", "approve", TASK)
    assert vendor.is_held.wait(60)
    process.kill()
    process.communicate(timeout=60)
    before, vendor.held = len(vendor.calls), 0
    vendor.released.set()
    resumed = json.loads(reader.run("council", "resume", "last", "--json"))
    assert (resumed["status"], resumed["plan"]["strategy"]) == ("completed", "approve")
    answered = 3  # the drafts, at the least
    assert len(vendor.calls) - before <= resumed["plan"]["most_calls"] - answered
    made = len(vendor.calls)
    replayed = json.loads(reader.run("council", "replay", "last", "--json"))
    assert replayed == resumed
    assert len(vendor.calls) == made


def test_the_kit_finds_nothing(reader: Reader) -> None:
    assert int(reader.run("python", "-W", "error", "-c", KIT)) >= 8
