"""What a reply's headers say is left of a vendor's rate limits, and when those limits are full again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from llm_council._wire.failures import moment

__all__ = ["Remaining", "remaining"]


class Remaining(NamedTuple):
    """The rest of one limit.

    Attributes:
        name: the header that reports it.
        unit: ``"calls"`` or ``"tokens"``.
        left: calls or tokens that the vendor still accepts.
        seconds: the time until the limit is full again.
    """

    name: str
    unit: str
    left: int
    seconds: float


_ROWS: Final = (
    # OpenAI, https://platform.openai.com/docs/guides/rate-limits: "1s", "6m0s", "12ms" until the limit "resets to its
    # initial state". Groq, https://console.groq.com/docs/rate-limits: the same names, "2m59.56s".
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "calls"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", "tokens"),
    # Cerebras, https://inference-docs.cerebras.ai/support/rate-limits: seconds as a decimal number.
    ("x-ratelimit-remaining-requests-day", "x-ratelimit-reset-requests-day", "calls"),
    ("x-ratelimit-remaining-tokens-minute", "x-ratelimit-reset-tokens-minute", "tokens"),
    # Anthropic, https://platform.claude.com/docs/en/api/rate-limits: an RFC 3339 time.
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset", "calls"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset", "tokens"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset", "tokens"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset", "tokens"),
    # OpenRouter, https://openrouter.ai/docs/api_reference/limits: Unix milliseconds; other gateways: Unix seconds.
    ("x-ratelimit-remaining", "x-ratelimit-reset", "calls"),
    # draft-ietf-httpapi-ratelimit-headers, up to version 07: seconds.
    ("ratelimit-remaining", "ratelimit-reset", "calls"),
)
_COUNT = re.compile(r"\d{1,15}", re.ASCII)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,20})?", re.ASCII)
_PART = re.compile(r"(\d{1,15}(?:\.\d{1,20})?)(ms|d|h|m|s)", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Larger numbers are no wait but a time: these are three years in seconds, and the year 1973 in milliseconds.
_UNIX_SECONDS, _UNIX_MILLISECONDS = 1e8, 1e11


def remaining(headers: Mapping[str, str], now: float) -> list[Remaining]:
    """Return what is left of each limit that the headers report in full; a limit without a reset time is left out.

    Args:
        headers: the reply's headers, with lower-case names.
        now: Unix seconds, for a reset time in a reply that has no ``Date``.
    """
    found: list[Remaining] = []
    for name, reset, unit in _ROWS:
        left = headers.get(name)
        if left is None or not _COUNT.fullmatch(left):
            continue
        seconds = _seconds_until(headers.get(reset, ""), headers, now)
        if seconds is not None:
            found.append(Remaining(name, unit, int(left), seconds))
    return found


def _seconds_until(word: str, headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a reset header stands for, at least 0; None if it cannot be read."""
    word = word.strip()
    at: float
    if _NUMBER.fullmatch(word):
        at = float(word)
        if at < _UNIX_SECONDS:
            return at
        if at >= _UNIX_MILLISECONDS:
            at /= 1000
    elif _PART.match(word):
        parts = _PART.findall(word)
        is_duration = "".join(number + unit for number, unit in parts) == word
        return sum(float(number) * _UNITS[unit] for number, unit in parts) if is_duration else None
    else:
        try:
            time = datetime.fromisoformat(word)
        except ValueError:
            return None
        at = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    # Compared with the vendor's clock where it is known, so that a wrong local one does no harm.
    since = moment(headers.get("date"))
    return max(0.0, at - (now if since is None else since))
