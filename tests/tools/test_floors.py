"""The layout of the package stays within its limits."""

from graphlib import CycleError

import pytest

grimp = pytest.importorskip("grimp", reason="the environment of lint brings import-linter's graph library")

from tools import floors  # noqa: E402


def test_a_floor_is_one_above_the_highest_import():
    assert floors.floors_of({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": 3, "b": 2, "c": 1}


def test_a_circle_is_an_error():
    with pytest.raises(CycleError):
        floors.floors_of({"a": {"b"}, "b": {"a"}})


def test_the_package_has_no_circle_and_stays_within_the_limits():
    measured = floors.floors_of(floors.imports_of_nodes())
    assert len(measured) <= floors.LIMITS["nodes"]
    assert max(measured.values()) <= floors.LIMITS["floors"]
