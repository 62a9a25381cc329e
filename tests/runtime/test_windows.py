"""Without what Windows lacks, the package imports and a council runs over HTTP; the rest says what is missing.

The names are hidden from a program on Linux, which shows what this package uses itself. The Windows code of Python and
of the libraries is not run.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from llm_council import errors
from llm_council._runtime import posix

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shown():
    """What the program printed: the lines of each part by its label."""
    command = [sys.executable, "-X", "dev", "-W", "error", str(Path(__file__).with_name("windows_program.py"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    # asyncio's debug mode logs a line for every step over 0.1 s, which a busy machine takes now and then.
    assert [line for line in done.stderr.splitlines() if not line.startswith("Executing <")] == []
    assert done.returncode == 0
    parts = {}
    for line in done.stdout.splitlines():
        label, _, rest = line.partition(": ")
        parts.setdefault(label, []).append(rest)
    return parts


@pytest.mark.slow
def test_every_module_can_be_imported(shown):
    assert shown["import"] == ["all"]


@pytest.mark.slow
def test_a_council_runs_over_http(shown):
    assert shown["http"] == [
        "blocking completed ['answer', 'reasoning']",
        "stream RunFinished",
        "replay completed",
        "awaited completed",
        "command 0 True",
    ]


def test_agents_and_the_embedded_engine_say_what_is_missing(shown):
    lacks = f"fcntl, os.fork, os.killpg, signal.SIGKILL, which Python on this platform ({sys.platform}) does not have"
    ways = (
        "run this program on Linux, macOS or in the Windows Subsystem for Linux, or use providers with an HTTP address"
    )
    agents = f"command-line agents need {lacks}: {ways}"
    engine = f"the embedded engine needs {lacks}: {ways}"
    assert shown["program"] == [*[agents, f"False {agents}"] * 3, engine, f"False {engine}"]


def test_only_what_is_missing_is_named(monkeypatch):
    assert posix.missing() == ()
    posix.require_posix("this needs")
    monkeypatch.delattr("os.killpg")
    with pytest.raises(errors.UnsupportedEnvironmentError, match=r"^this needs os\.killpg, which"):
        posix.require_posix("this needs")
