"""The kit passes a correct provider, and finds the one fault of each broken one by the promise that names it."""

from __future__ import annotations

import pytest
from broken_providers import FAULTS, Correct

from llm_council.testing.conformance import ProviderConformance, Verdict, outcomes


class TestCorrect(ProviderConformance):
    provider = Correct


@pytest.mark.parametrize(("provider", "name"), FAULTS.items(), ids=[cls.__name__ for cls in FAULTS])
def test_each_fault_breaks_the_promise_that_names_it(provider, name):
    stand = type("Broken", (ProviderConformance,), {"provider": provider})()
    (found,) = outcomes(stand, (name,))
    assert found.verdict is Verdict.BROKEN
    assert found.line.startswith(f"{provider.__name__} fails {name!r}: ")
    assert "\n" not in found.line
    # A colon after what was found, and then what to do.
    assert ": " in found.line.removeprefix(f"{provider.__name__} fails {name!r}: ").partition(" [expected: ")[0]
