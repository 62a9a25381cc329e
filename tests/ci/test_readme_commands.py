"""The script that reads the set-up commands out of the README for CI."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "readme_commands.py"

INSTALL = "```console\n$ python3 -m venv .venv && .venv/bin/ask\nanswer: 42\n```\n"
TEST = "```console\n$ python3 -m venv .venv && .venv/bin/tox\n```\n"


def run(readme: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), str(readme)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_readme_of_this_project_installs_then_tests() -> None:
    done = run(ROOT / "README.md")
    assert (done.returncode, done.stderr) == (0, "")
    install, test = done.stdout.splitlines()
    assert ".venv/bin/council run " in install
    assert test.endswith(" .venv/bin/tox")  # the default list, which .ci/run runs nowhere else


def test_prints_commands_without_prompt_and_output(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{INSTALL}\nProse.\n\n{TEST}")
    done = run(readme)
    assert done.returncode == 0
    assert done.stdout == "python3 -m venv .venv && .venv/bin/ask\npython3 -m venv .venv && .venv/bin/tox\n"


def test_joins_continued_lines(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(INSTALL + TEST.replace("&& ", "&& \\\n    "))
    done = run(readme)
    assert done.stdout.splitlines()[1].split() == ["python3", "-m", "venv", ".venv", "&&", ".venv/bin/tox"]


def test_ignores_other_commands_and_other_blocks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    other = "```console\n$ council doctor\n```\n```sh\n$ python3 -m venv elsewhere\n```\n$ python3 -m venv prose\n"
    readme.write_text(INSTALL + other + TEST)
    done = run(readme)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(("text", "count"), [("", 0), (INSTALL, 1), (INSTALL + TEST + TEST, 3)])
def test_fails_unless_there_are_two(tmp_path: Path, text: str, count: int) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    done = run(readme)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"expected 2 set-up commands, found {count}" in done.stderr
