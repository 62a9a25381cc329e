"""Who drafts and who takes the chair, where the caller leaves it to the strategy."""

from __future__ import annotations

from llm_council.strategies.base import Roster

__all__ = ["default_chairs", "default_drafters", "resting"]


def default_drafters(roster: Roster, default: tuple[str, ...]) -> tuple[str, ...]:
    """Return the seats that draft, in the order of the seats: those that the caller wants, else ``default``."""
    wanted = default if roster.drafters is None else roster.drafters
    return tuple(name for name in roster.names if name in wanted)


def resting(roster: Roster, drafters: tuple[str, ...]) -> tuple[str, ...]:
    """Return the seats that do not draft. They judge drafts without defending their own."""
    return tuple(name for name in roster.names if name not in drafters)


def default_chairs(roster: Roster, drafters: tuple[str, ...]) -> tuple[str, ...]:
    """Return the seats in the order in which they take the chair: first the caller's choice, else one that rests."""
    rest = resting(roster, drafters)
    first = roster.chair or (rest[-1] if rest else roster.names[0])
    return (first, *(name for name in roster.names if name != first))
