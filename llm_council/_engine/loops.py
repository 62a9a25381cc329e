"""Models that say the same words over and over: found while they do, at a small and constant cost a character."""

from __future__ import annotations

import re

__all__ = ["Loops"]

LENGTH = 8192
"""Characters that must repeat exactly before it is called a loop."""

ROUNDS = 16
"""Times that the repeated part must stand in them."""

WORDS = 3
"""Different words of three letters or more in the repeated part: rows of zeros, dashes or blanks are no loop."""

_STEP = 2048  # looked at each time so much has come: the work a character stays the same however long the text gets
_PROBE = 64
_WORD = re.compile(r"[^\W\d_]{3,}")


class Loops:
    """Watch a text for a loop at its end."""

    def __init__(self) -> None:
        self._tail = ""
        self._fresh: list[str] = []
        self._waiting = 0
        self._seen = 0

    def feed(self, text: str) -> int | None:
        """Take the next characters.

        Returns:
            Where in the whole text the second round begins; None while there is no loop.
        """
        self._fresh.append(text)
        self._waiting += len(text)
        self._seen += len(text)
        if self._waiting < _STEP:
            return None
        tail = self._tail = (self._tail + "".join(self._fresh))[-LENGTH:]
        self._fresh.clear()
        self._waiting = 0
        if len(tail) < LENGTH:
            return None
        period = _period(tail)
        return None if period is None else self._seen - LENGTH + period


def _period(tail: str) -> int | None:
    """Return after how many characters a text repeats itself from end to end, if it is a loop."""
    before = tail.rfind(tail[-_PROBE:], 0, len(tail) - 1)
    period = len(tail) - _PROBE - before
    if before < 0 or period > LENGTH // ROUNDS or tail[period:] != tail[:-period]:
        return None
    return period if len(set(_WORD.findall(2 * tail[-period:]))) >= WORDS else None
