"""The environments called ``lowest`` really hold every core dependency at the bound that the metadata declares."""

import os
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

CORE = [
    requirement
    for requirement in map(Requirement, requires("llm-council-sdk") or ())
    if not (requirement.marker and "extra" in str(requirement.marker))
]


def lower_bound(requirement: Requirement) -> Version:
    (bound,) = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    return bound


@pytest.mark.parametrize("requirement", CORE, ids=lambda requirement: requirement.name)
def test_declares_one_lower_bound(requirement: Requirement) -> None:
    assert lower_bound(requirement) <= Version(version(requirement.name))


@pytest.mark.skipif("LLM_COUNCIL_LOWEST" not in os.environ, reason="only in the environments called lowest")
@pytest.mark.parametrize("requirement", CORE, ids=lambda requirement: requirement.name)
def test_lower_bound_is_what_runs(requirement: Requirement) -> None:
    assert Version(version(requirement.name)) == lower_bound(requirement)
