"""How long command-line agents say to wait: in seconds, as a time span in words, or by the clock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

__all__ = ["wait_said", "wait_until"]

_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_UNITS = {"ms": 0.001, "milli": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PIECE = rf"({_NUMBER})\s*(ms|milli|s|m|h|d)[a-z]*"
_ONE = re.compile(_PIECE, re.IGNORECASE)
# codex: "try again in 3 days 6 hours 57 minutes"; OpenAI's API: "try again in 11.054s"; Google's: "retry in 250ms",
# "reset after 1h49m8s"; gemini: "Suggested retry after 34s".
_SPAN = re.compile(
    rf"(?:try again in|retry (?:in|after)|resets? (?:in|after))\s+((?:{_PIECE}[\s,]*)+|less than a minute)",
    re.IGNORECASE,
)
# Machine words that stand inside of texts: of codex's server, of Google's, of the gemini program's own errors.
_COUNTED = (
    (re.compile(rf'"?resets_in_seconds"?\s*:\s*({_NUMBER})'), 1.0),
    (re.compile(rf'\\?"retryDelay\\?"\s*:\s*\\?"({_NUMBER})s'), 1.0),
    (re.compile(rf"\bretryDelayMs:\s*({_NUMBER})"), 0.001),
)
_UNIX = re.compile(r'(?:limit reached\||"?resets_?at"?\s*:\s*)(\d{10})\b', re.IGNORECASE)
# codex: "try again at 3:28 PM", "try again at Aug 8th, 2026 12:30 PM"; claude: "resets 12:50am", "resets Oct 6, 1pm".
_CLOCK = re.compile(
    r"(?:try again at|resets?(?: at)?)\s+"
    r"(?:(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?"
    r"(?:,?\s+(?P<year>\d{4}))?(?:,|\s+at)?\s+)?"
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?\s?(?P<half>am|pm)\b",
    re.IGNORECASE,
)
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()


def wait_said(text: str, at: datetime | None) -> float | None:
    """Return the seconds that a text says to wait; None where it says none, or a time that has passed.

    Args:
        text: an agent's words.
        at: when they were said, in the time zone in which the agent tells the hour; None understands time spans alone.
    """
    return next((seconds for seconds in _waits(text, at) if seconds > 0), None)


def wait_until(moment: float, at: datetime | None) -> float | None:
    """Return the seconds until a Unix time; None where it has passed, or the time is not known."""
    left = 0.0 if at is None else moment - at.timestamp()
    return left if left > 0 else None


def _waits(text: str, at: datetime | None) -> Iterator[float]:
    for pattern, unit in _COUNTED:
        if found := pattern.search(text):
            yield float(found[1]) * unit
    if found := _SPAN.search(text):
        pieces = _ONE.findall(found[1])
        yield sum(float(number) * _UNITS[unit.lower()] for number, unit in pieces) if pieces else 60.0
    if at is not None:
        if found := _UNIX.search(text):
            yield float(found[1]) - at.timestamp()
        if found := _CLOCK.search(text):
            yield _until(found, at)


def _until(found: re.Match[str], at: datetime) -> float:
    """Return the seconds to an hour of the clock: the next time that it strikes, where no day is named."""
    hour = int(found["hour"]) % 12 + (12 if found["half"].lower() == "pm" else 0)
    try:
        then = at.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
        if found["month"]:
            month = _MONTHS.index(found["month"].lower()) + 1
            then = then.replace(year=int(found["year"] or at.year), month=month, day=int(found["day"]))
            if not found["year"] and then < at - timedelta(days=1):
                then = then.replace(year=at.year + 1)
        elif then <= at:
            then += timedelta(days=1)
    except ValueError:  # no such day
        return 0.0
    return (then - at).total_seconds()
