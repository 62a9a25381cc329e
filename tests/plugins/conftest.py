"""Fixtures for tests of plugins: a folder on the path in which distributions are installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import council, new_user, seat

__all__ = ["command", "council", "install", "new_user", "seat"]


@pytest.fixture
def command(council: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """The command, in tests where ``council`` is something else."""
    return council


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that installs a distribution of one module, as pip would lay it out.

    It takes the name of the distribution, the source of its module ``NAME_plugin``, and for each group the entry
    points, whose values may leave the module out.
    """

    def make(name: str, source: str, **groups: Mapping[str, str]) -> None:
        site = tmp_path / f"site-{name}"
        module = f"{name}_plugin"
        info = site / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = []
        for group, points in groups.items():
            lines += [f"[llm_council.{group}]", *(f"{key} = {module}:{value}" for key, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(site)

    yield make
    for module in [module for module in sys.modules if module.endswith("_plugin")]:
        del sys.modules[module]
