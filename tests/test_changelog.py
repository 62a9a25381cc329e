"""The changelog has a section for this version, and no line that stands there twice."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import llm_council

LINES = (Path(__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
KINDS = ["Before you upgrade", "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_no_entry_stands_twice() -> None:
    """Two branches that add lines are merged by keeping both, which can also double what was there before."""
    entries = Counter(line for line in LINES if line.startswith("- "))
    assert [line for line, times in entries.items() if times > 1] == []


def test_the_newest_section_with_a_number_is_this_version() -> None:
    titles = [line.removeprefix("## ") for line in LINES if line.startswith("## ")]
    assert titles.pop(0) == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d{2}-\d{2}", title) for title in titles)
    assert titles[0].split()[0] == llm_council.__version__
    assert [title.split()[2] for title in titles] == sorted((title.split()[2] for title in titles), reverse=True)


def test_each_section_has_every_kind_once_and_in_order() -> None:
    for section in "\n".join(LINES).split("\n## ")[1:]:
        kinds = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
