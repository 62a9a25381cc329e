"""What CI itself installs has one version, and a hash."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CI = ROOT / ".ci"
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def pins() -> dict[str, str]:
    return dict(PINNED.findall((CI / "tools.txt").read_text()))


def test_every_tool_is_pinned_with_hashes() -> None:
    blocks = re.split(r"\n(?=\S)", (CI / "tools.txt").read_text().strip())
    assert len(blocks) == len(pins())
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


def test_the_pins_hold_what_is_asked_for() -> None:
    asked = [line for line in (CI / "tools.in").read_text().splitlines() if line and not line.startswith("#")]
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    for text in [*asked, *backend, *tox["tox"]["requires"].split()]:
        requirement = Requirement(text)
        assert pins()[canonicalize_name(requirement.name)] in requirement.specifier


def test_ci_installs_with_hashes_alone() -> None:
    lines = [
        line for line in (CI / "run").read_text().splitlines() if "pip install" in line and not line.startswith("#")
    ]
    assert lines
    assert [line for line in lines if "--require-hashes" not in line or ".ci/tools.txt" not in line] == []
    assert "npm install" not in (ROOT / "tox.ini").read_text()


def test_the_agents_are_pinned_with_hashes() -> None:
    wanted = json.loads((CI / "agents" / "package.json").read_text())["dependencies"]
    locked = json.loads((CI / "agents" / "package-lock.json").read_text())["packages"]
    assert wanted
    assert locked[""]["dependencies"] == wanted
    assert {name: locked[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    assert [name for name, row in locked.items() if name and not row.get("integrity", "").startswith("sha512-")] == []
