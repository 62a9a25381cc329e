"""The texts of seats as other seats are shown them."""

from __future__ import annotations

import attrs

from llm_council._engine.fences import cut_middle, hide_names, neutralise
from llm_council._schema import drop_thinking
from llm_council.models import Plan

__all__ = ["SeatTexts"]


@attrs.define
class SeatTexts:
    """Prepares the text of a seat once, however many other seats read it: the search for names takes the longest.

    Attributes:
        plan: the plan of the run.
    """

    plan: Plan
    _without_names: dict[tuple[str, int], str] = attrs.field(factory=dict)
    _quotable: dict[tuple[str, int], str] = attrs.field(factory=dict)

    def without_names(self, text: str, limit: int) -> str:
        """Return a text without thinking and without the names that would reveal its author.

        Args:
            text: the text as the seat wrote it.
            limit: how many characters of it are shown; of a very long text, only the ends are prepared.
        """
        key = (text, limit)
        if key not in self._without_names:
            self._without_names[key] = hide_names(self.plan, _ends_of(drop_thinking(text), limit))
        return self._without_names[key]

    def quotable(self, text: str, limit: int) -> str:
        """Return a text as ``fences.enclose`` takes it, of at most about ``limit`` characters."""
        key = (text, limit)
        if key not in self._quotable:
            self._quotable[key] = cut_middle(neutralise(self.without_names(text, limit)), limit)
        return self._quotable[key]


def _ends_of(text: str, limit: int) -> str:
    """Return the ends of a very long text, of which no more is quoted, to bound the work on it."""
    return text[: 4 * limit] + text[-4 * limit :] if len(text) > 8 * limit else text
