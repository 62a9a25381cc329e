"""Test an adapter: subclass ``ProviderConformance``, or run ``python -m llm_council.testing pkg:MyProvider``.

Every promise is one test. It runs the adapter against a fake vendor on a loopback socket, and fails with one line that
names the promise and what was found.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_council.testing.conformance._answers import Answers
from llm_council.testing.conformance._base import KEY
from llm_council.testing.conformance._faults import Faults
from llm_council.testing.conformance._lifecycle import Lifecycle
from llm_council.testing.conformance._promises import (
    BrokenPromise,
    CannotPlay,
    Outcome,
    Player,
    Stage,
    Verdict,
    check,
    promise,
    promises,
)
from llm_council.testing.conformance._requests import Requests

__all__ = [
    "KEY",
    "BrokenPromise",
    "CannotPlay",
    "Outcome",
    "Player",
    "ProviderConformance",
    "Stage",
    "Verdict",
    "outcomes",
    "promise",
]


class ProviderConformance(Answers, Requests, Faults, Lifecycle):
    """The promises of every adapter, as pytest tests.

    A subclass names the adapter::

        class TestMyProvider(ProviderConformance):
            provider = MyProvider

    Override ``make`` if the adapter's class takes other arguments than ``base_url``, ``api_key`` and
    ``default_model``. Override ``playing`` if the adapter does not speak HTTP: it yields a ``Stage``, which is the
    adapter and a ``Player`` in the vendor's place.

    Attributes:
        provider: the adapter's class.
        speaks: the dialect of the fake vendor: a name, or a ``Dialect`` of your own. None takes the dialect of the
            built-in class that the adapter inherits from, or else ``"openai"``.
        model: the default model that is passed to the adapter, if it takes one.
        options: further arguments of its class.
        key_variable: the environment variable for its key. None takes the class's ``API_KEY_ENV``; without one the
            key is passed as ``api_key``.
        backends: the event loops to test in: ``"asyncio"``, ``"trio"``.
        not_kept: the promises that the adapter does not keep, each with the reason. A key is the name of a test
            without ``test_``. The test of a listed promise fails if the adapter keeps it.
        patience: the maximum seconds for one promise.
        quick: the maximum seconds for what must be prompt: closing a connection, the first chunk of a stream.
    """


def outcomes(stand: ProviderConformance, names: tuple[str, ...] = ()) -> Iterator[Outcome]:
    """Check an adapter's promises one after another, without pytest.

    If the first shows that the adapter speaks another dialect than the fake vendor, it is the only outcome.

    Args:
        stand: an instance of the class that names the adapter.
        names: the promises to check; empty for all.
    """
    for each in promises(stand):
        if not names or each.name in names:
            yield check(stand, each)
            if stand.stopped_by() is not None:
                return
