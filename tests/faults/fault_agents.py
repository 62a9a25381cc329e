"""Command-line agents with a chosen misbehaviour, as programs on a separate PATH."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_council.providers._agents.provider import CommandLineProvider
from llm_council.providers.cli.claude_code import ClaudeCodeProvider
from llm_council.providers.cli.codex import CodexProvider
from llm_council.providers.cli.gemini_cli import GeminiCliProvider

LONG = 30.0  # seconds in which anything here ends, on any machine

CLASSES: dict[str, type[CommandLineProvider]] = {
    "codex": CodexProvider,
    "claude": ClaudeCodeProvider,
    "gemini": GeminiCliProvider,
}
OWN_KEY = {"codex": "CODEX_API_KEY", "claude": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}

_SOURCE = Path(__file__).with_name("fault_agent_program.py")


class Scene:
    """A folder of programs, and records of their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.home = folder / "home"
        self.temporary = folder / "tmp"
        for place in (self.bin, self.home, self.temporary):
            place.mkdir()

    def program(self, agent: str, mode: str = "", answer: str = "42", *, at: Path | None = None) -> Path:
        """Write an agent with this behaviour; an empty answer repeats the prompt."""
        path = (at or self.bin) / agent
        script_arguments = (agent, mode, str(self.folder / f"seen-{agent}"), answer)
        source = _SOURCE.read_text().replace('"", "", "", ""', repr(script_arguments)[1:-1])
        path.write_text(f"#!{sys.executable} -IS\n{source}")
        path.chmod(0o755)
        return path

    def make(self, agent: str, mode: str = "", answer: str = "42", **options: Any) -> CommandLineProvider:
        """Return the provider of an agent with this behaviour."""
        self.program(agent, mode, answer)
        return CLASSES[agent](**options)

    def seen(self, agent: str) -> list[dict[str, Any]]:
        """Return the records of an agent's calls."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob(f"seen-{agent}.[0-9]*"))]

    def forget(self, agent: str) -> None:
        """Remove the records of an agent's calls, and its programs."""
        for path in (*self.folder.glob(f"seen-{agent}.[0-9]*"), self.bin / agent):
            path.unlink()

    def hanging(self, agent: str) -> list[int]:
        """Return the processes of an agent that hangs; empty before it does."""
        path = self.folder / f"seen-{agent}.hanging"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def await_hanging(self, agent: str) -> list[int]:
        """Wait until an agent hangs, and return its processes."""
        ends = time.monotonic() + LONG
        while not (pids := self.hanging(agent)):
            assert time.monotonic() < ends, f"{agent} was not started"
            time.sleep(0.02)
        return pids

    def await_tidiness(self) -> None:
        """Wait until no temporary file is left."""
        ends = time.monotonic() + LONG
        while left := list(self.temporary.iterdir()):
            assert time.monotonic() < ends, left
            time.sleep(0.02)


def await_death(pids: Iterable[int]) -> None:
    """Wait until processes have ended; a zombie has."""
    ends = time.monotonic() + LONG
    waiting = list(pids)
    assert waiting
    while waiting := [pid for pid in waiting if not _is_dead(pid)]:
        assert time.monotonic() < ends, f"{waiting} live on"
        time.sleep(0.02)


def _is_dead(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.strip().startswith("Z")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Yield a folder with a PATH, a home and a folder for temporary files, which must be empty at the end."""
    made = Scene(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(made.home))
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    for cls in CLASSES.values():
        for name in (*cls.VARIABLES, *cls.KEYS):
            monkeypatch.delenv(name, raising=False)
    yield made
    assert list(made.temporary.iterdir()) == []


@pytest.fixture(params=list(CLASSES))
def agent(request: pytest.FixtureRequest) -> str:
    """Return the name of each agent."""
    name: str = request.param
    return name
