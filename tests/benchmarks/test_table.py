"""The tables that the benchmarks write, and what the short form calls gross. Nothing is measured here."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield import_module("table")
    for name in ("table", "goals"):
        sys.modules.pop(name, None)


def test_each_goal_has_a_row_with_its_verdict(table: ModuleType) -> None:
    figures = [
        {"key": "blocking", "value": 1.6, "how": "1.6 / httpx 1.0 ms"},
        {"key": "burst", "value": 1.51, "how": "3.02 / httpx 2.0 µs"},
    ]
    rows = table.rows(figures).splitlines()
    assert len(rows) == 2 + len(table.GOALS)
    assert "| blocking call, p50, relative to `httpx.Client` | **1.60x** (1.6 / httpx 1.0 ms) | ≤ 1.6x | met |" in rows
    assert next(row for row in rows if "in a burst" in row).endswith("| ≤ 1.5x | missed |")
    assert next(row for row in rows if "`import llm_council` relative to" in row).endswith(
        "| - | ≤ 0.25x | not measured |"
    )


@pytest.mark.parametrize(("value", "found"), [(3.2, 0), (3.3, 1)])
def test_gross_is_beyond_twice_the_goal(table: ModuleType, value: float, found: int) -> None:
    assert len(table.gross([{"key": "blocking", "value": value, "how": ""}])) == found


def test_a_text_goes_between_its_markers_and_nowhere_else(table: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n", encoding="utf-8")
    table.put(page, "a", "new µ")
    table.put(page, "a", "newer µ")
    assert page.read_text(encoding="utf-8") == ("before\n<!-- a: begin -->\n\nnewer µ\n\n<!-- a: end -->\nafter\n")
    with pytest.raises(ValueError, match="b: begin"):
        table.put(page, "b", "lost")


def test_the_page_has_the_markers(table: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    for marker in ("measured", "profile"):
        table.put(page, marker, f"the {marker} table")
        assert f"the {marker} table" in page.read_text(encoding="utf-8")
