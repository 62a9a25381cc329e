"""How many runs of a map go on at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Final

from llm_council.errors import InvalidOption
from llm_council.middleware.wrapper import providers_within
from llm_council.models._attrs import is_int
from llm_council.providers.base import ProviderAdapter

__all__ = ["MOST", "check_concurrency", "default_concurrency"]

MOST: Final = 128
"""Runs at the same time where no provider has a limit of its own. A run that waits for a model takes 60 to 150 KiB."""

MOST_GATHERED: Final = 10_000
"""Likewise where a provider gathers calls into batch jobs: as many runs as start together share their jobs."""

WAITING_SHARE: Final = 0.25
"""Share of a run's deadline that its calls may wait for the limits of its providers."""


def check_concurrency(value: object) -> None:
    """Refuse what is no number of runs.

    Raises:
        InvalidOption: it is neither None nor a whole number of 1 or more.
    """
    if value is not None and (not is_int(value) or value < 1):  # type: ignore[operator]
        raise InvalidOption(f"concurrency: a whole number of 1 or more, got {value!r:.80}")


def default_concurrency(
    seats: Mapping[str, ProviderAdapter], *, calls: int | None = None, deadline: float | None = None
) -> int:
    """Return how many runs the limits of the providers have room for: at least one, at most ``MOST``.

    With a provider that gathers calls into batch jobs, at most ``MOST_GATHERED``.

    More runs would wait for their turn at a provider, and waiting counts against the deadline of a run.

    Args:
        seats: the provider of each seat, by the seat's name.
        calls: most calls of one run; None is unknown.
        deadline: seconds that a run may take; None is unlimited.
    """
    gathers = any(provider._gathers_calls for outer in seats.values() for provider in providers_within(outer))
    runs = [MOST_GATHERED if gathers else MOST]
    for outer in {id(adapter): adapter for adapter in seats.values()}.values():
        seated = sum(adapter is outer for adapter in seats.values())
        for provider in providers_within(outer):
            at_once = provider._most_calls_at_once()
            if at_once is not None:
                runs.append(ceil(at_once / seated))
            rate = provider._most_calls_per_second()
            if rate is not None and deadline is not None:
                share = seated / len(seats)
                runs.append(int(rate * deadline * WAITING_SHARE / ((calls or len(seats)) * share)))
    return max(1, min(runs))
