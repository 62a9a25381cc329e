"""Prove an adapter right: subclass ``ProviderConformance``, or run ``python -m llm_council.testing pkg:MyProvider``.

Every promise is one test. It plays a vendor on a real loopback socket, and fails with one line that names the promise.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_council.testing.conformance._answers import Answers
from llm_council.testing.conformance._faults import Faults
from llm_council.testing.conformance._life import Life
from llm_council.testing.conformance._promise import (
    BrokenPromise,
    CannotPlay,
    Outcome,
    Player,
    Stage,
    Verdict,
    promise,
    promises,
    prove,
)
from llm_council.testing.conformance._stand import KEY

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


class ProviderConformance(Answers, Faults, Life):
    """The promises of every adapter, as tests of pytest.

    A subclass says which adapter it is::

        class TestMyProvider(ProviderConformance):
            provider = MyProvider

    An adapter that is made in a way of its own overrides ``make``; one that is not reached over HTTP overrides
    ``playing``, which yields a ``Stage``: the adapter, and a ``Player`` in the vendor's place.

    Attributes:
        provider: the adapter's class.
        speaks: the dialect of the fake vendor, by name, or a ``Dialect`` of your own; None takes that of the built-in
            class that the adapter comes from, else ``"openai"``.
        model: the default model that the adapter gets, where it takes one.
        options: further arguments of its class.
        key_variable: the environment variable of its key; None takes the class's ``API_KEY_ENV``, and without one the
            key is passed as ``api_key``.
        backends: the event loops that it runs in: ``"asyncio"``, ``"trio"``.
        not_kept: promises, by the names of their tests without ``test_``, that the adapter does not keep, and why. One
            that it keeps after all fails.
        patience: most seconds for one promise.
        quick: most seconds for what must be prompt: a connection that closes, the first piece of a stream.
    """


def outcomes(stand: ProviderConformance, names: tuple[str, ...] = ()) -> Iterator[Outcome]:
    """Check an adapter's promises one after another, without pytest.

    Args:
        stand: what says which adapter it is.
        names: the promises; none stands for all.
    """
    for kept in promises(stand):
        if not names or kept.name in names:
            yield prove(stand, kept)
