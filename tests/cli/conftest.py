"""Fixtures for tests of the command: a place without settings, a scripted seat, and a call of the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_council.cli import main
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from tests.cli._command import SCRIPT, Council


@pytest.fixture
def new_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand in an empty folder, without settings and keys; the user's own file would be in ``tmp_path / "home"``."""
    for name in tuple(os.environ):
        if (name.startswith("LLM_COUNCIL_") and name != "LLM_COUNCIL_SHARED") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def seat() -> Iterator[ScriptedProvider]:
    """Register the provider ``scripted``."""
    provider = ScriptedProvider(SCRIPT, name="scripted")
    with registry.overriding(scripted=provider):
        yield provider


@pytest.fixture
def council(new_user: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Council:
    """Return a function that runs the command in this process."""

    def run(*words: str, stdin: str | bytes | None = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["council", *words])
        read, write = os.pipe()
        os.write(write, stdin.encode() if isinstance(stdin, str) else stdin or b"")
        os.close(write)
        with open(read, encoding="utf-8") as pipe, monkeypatch.context() as patch:  # noqa: PTH123
            patch.setattr(sys, "stdin", None if stdin is None else pipe)
            with pytest.raises(SystemExit) as exit_:
                main()
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run
