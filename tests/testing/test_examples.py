"""The number of examples that the laws of this suite run."""

import re
from pathlib import Path

import pytest
from hypothesis import settings
from strategies import DEFAULT_EXAMPLES, examples, number_of_examples

TESTS = Path(__file__).parents[1]


@pytest.fixture
def profile():
    """Load a profile for one test."""
    before = settings.get_profile("deterministic") if settings().derandomize else settings.get_profile("explore")
    name = "deterministic" if before.derandomize else "explore"
    yield settings.load_profile
    settings.load_profile(name)


def test_explore_runs_every_law_with_more_examples(profile) -> None:
    profile("deterministic")
    assert number_of_examples(DEFAULT_EXAMPLES) == DEFAULT_EXAMPLES
    assert examples(20).max_examples == 20
    profile("explore")
    assert number_of_examples(DEFAULT_EXAMPLES) == 1000
    assert examples(20).max_examples == 333
    assert not examples(20).derandomize


def test_no_law_fixes_its_number_of_examples() -> None:
    """A number that is written down would hold in every profile, and ``explore`` would search no deeper."""
    fixed = [
        f"{path.relative_to(TESTS)}: {found}"
        for path in TESTS.rglob("*.py")
        for found in re.findall(r"max_examples=\d+", path.read_text())
        if path.name not in ("conftest.py", "test_examples.py")
    ]
    assert fixed == []
