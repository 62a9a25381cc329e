"""How many examples a law gets: a share of what the profile in force allows."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

DEFAULT_EXAMPLES = 60
"""The examples of a law without a share of its own, in the profile ``deterministic``."""


def number_of_examples(share: int) -> int:
    """Return ``share`` in the profile ``deterministic``, and as many times more as the profile in force has more."""
    return max(1, share * settings().max_examples // DEFAULT_EXAMPLES)


def examples(share: int, **options: Any) -> settings:
    """Return the settings of a law that runs ``share`` examples in the profile ``deterministic``.

    A plain ``settings(max_examples=...)`` would hold in every profile, so that ``HYPOTHESIS_PROFILE=explore`` would
    search no deeper.
    """
    return settings(max_examples=number_of_examples(share), **options)
