"""The kit passes a correct provider, and finds the one fault of each broken one by the promise that names it."""

from __future__ import annotations

import pytest
from broken_providers import FAULTS, AsksFirst, Correct, KeyInAttribute, KeyInParsedBody, StreamKeyInParsedBody

from llm_council.testing.conformance import ProviderConformance, Verdict, outcomes

pytestmark = pytest.mark.slow


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


def test_a_refusal_that_holds_no_key_is_no_fault():
    stand = type("Kept", (ProviderConformance,), {"provider": AsksFirst})()
    assert [found.verdict for found in outcomes(stand, ("secrets", "clients"))] == [Verdict.KEPT, Verdict.KEPT]


@pytest.mark.parametrize(
    ("provider", "place"),
    [
        (KeyInParsedBody, "the variable 'body' of generate() in broken_providers.py:"),
        (StreamKeyInParsedBody, "the variable 'body' of stream() in broken_providers.py:"),
        (KeyInAttribute, "the attribute 'details' of AuthenticationFailed and in a pickled error: "),
    ],
)
def test_the_place_of_a_key_is_named(provider, place):
    stand = type("Broken", (ProviderConformance,), {"provider": provider})()
    (found,) = outcomes(stand, ("secrets",))
    assert found.line.startswith(f"{provider.__name__} fails 'secrets': the key is in {place}")
    assert "canary7key" not in found.line
