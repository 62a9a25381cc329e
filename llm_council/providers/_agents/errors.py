"""Read the text and exit status of a failed command-line agent: rows for the classifier, and the seconds to wait.

Agents report failures as sentences for people; their events carry few codes. The patterns below come from the programs'
sources and from recorded runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import attrs

from llm_council._wire import failures
from llm_council._wire.failures import Rows, TextRow
from llm_council.errors import (
    AuthenticationFailed,
    CommandFailed,
    ConnectFailed,
    ContentFiltered,
    ContextTooLong,
    CouncilError,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    ServerFailed,
    TruncatedReply,
)

__all__ = ["Ended", "error_from_text", "failed", "last_object", "stderr_suffix", "wait_from_text", "wait_until"]

_SHOWN = 300  # characters of an agent's own words in a message
_OBJECT = re.compile(r"^\{", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        exit_code: its exit status; negative for a signal.
        stderr: the end of its stderr.
        at: the time of the end, in the machine's time zone, in which agents name the hour at which a limit ends; None
            if unknown.
    """

    exit_code: int = 0
    stderr: str = ""
    at: datetime | None = None


def last_object(text: str) -> dict[str, Any] | None:
    """Return the last JSON object in a text that begins at the start of a line, among warnings and stack traces."""
    decoder = json.JSONDecoder()
    for found in reversed([match.start() for match in _OBJECT.finditer(text)]):
        try:
            value, _ = decoder.raw_decode(text, found)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return None


_STATUS = re.compile(r"(?i)\b(?:unexpected|last) status:? (\d{3})\b|\bAPI Error:?[^\n]{0,40}?\(?\b([45]\d{2})\b")
# The agents' events carry no error codes, so these patterns match the texts that their terminals show to people. The
# first class whose pattern matches counts: OutOfCredit stands before RateLimited, since the programs call the end of a
# plan a limit too.
_TEXTS: dict[type[ProviderError], str] = {
    OutOfCredit: r"quota exceeded|(?:current|daily) quota|usage limit|credit balance|insufficient_quota|out of credits"
    r"|billing|(?:hit|reached) your (?!rate)[^\n]{0,30}limit|(?:hour|weekly|session|opus|sonnet|plan) limit reached"
    r"|out of (?:extra )?usage|spend[_ ]limit|upgrade to plus",
    AuthenticationFailed: r"not (?:logged|signed) in|please run /login|codex login|(?:log ?|sign )in again"
    r"|failed to (?:log ?in|authenticate)|missing bearer|(?:set an|invalid) auth method|(?:invalid|incorrect) api key"
    r"|api key not valid|invalid bearer token|401 unauthorized|token (?:has )?(?:been )?(?:expired|revoked)"
    r"|could not be refreshed|oauth token|authentication_error",
    ModelNotFound: r"\bmodels?\b[^\n]{0,200}?(?:does not exist|not found|not supported|may not exist|is not available)",
    ContextTooLong: r"prompt is too long|context window|context length|maximum context|ran out of room"
    r"|input token count",
    RateLimited: r"rate limit|too many requests|\b429\b|wait and try again later",
    PermissionRefused: r"organization has been disabled",
    ServerFailed: r"overloaded|at capacity|internal server error|service unavailable|bad gateway|high demand"
    r"|capacity is unavailable|request timed out",
    ContentFiltered: r"content_filter|content filtering policy|(?:usage|misalignment) policy|safety_blocked|prohibited"
    r"|flagged for|flagged as potentially",
}
ROWS = Rows(texts=[TextRow(cls, re.compile(f"(?i){text}")) for cls, text in _TEXTS.items()], texts_decide=True)
_CONNECTION = re.compile(
    r"(?i)connection (?:failed|refused|error)|error sending request|failed to lookup|could not resolve|ENOTFOUND"
    r"|ECONNREFUSED|ETIMEDOUT|fetch failed|unable to connect"
)
_CUT = re.compile(
    r"(?i)max_output_tokens|output token maximum|stream (?:disconnected|closed) before|ended without a finish"
)
_LENGTH = re.compile(r"(?i)max_output_tokens|output token maximum")


def error_from_text(
    message: str,
    *,
    remedy: str,
    status: int | None = None,
    at: datetime | None = None,
    wait: float | None = None,
    **facts: Any,
) -> CouncilError | None:
    """Return the error that a text describes; None if no pattern matches.

    Args:
        message: the agent's text.
        remedy: how to sign in; added to the message of an authentication error.
        status: the HTTP status that the agent reported, if any.
        at: the time of the text, see ``Ended``.
        wait: seconds to wait from another source, used when the text names none.
        **facts: further facts of the error.
    """
    found = _STATUS.search(message)
    if status is None and found:
        status = int(found[1] or found[2])
    seconds = wait_from_text(message, at) or wait
    if failures.classify(status, message=message, rows=ROWS).is_known:
        return failures.error_of(message, status=status, rows=ROWS, delay=seconds, remedy=remedy, **facts)
    if _CONNECTION.search(message):
        return ConnectFailed(message, kind="dns" if "lookup" in message or "ENOTFOUND" in message else "other")
    if _CUT.search(message):
        return TruncatedReply(message, partial=facts.get("partial"), retryable=not _LENGTH.search(message))
    return None


def failed(text: str, ended: Ended, name: str, remedy: str) -> CouncilError:
    """Return the error of a program that ended with a non-zero exit status."""
    tail = ended.stderr.strip()
    # Only the end of stderr: earlier lines may hold unrelated warnings that match a pattern.
    known = error_from_text(text or tail[-2048:], remedy=remedy, at=ended.at)
    if known is not None:
        return known
    how = f"was killed by signal {-ended.exit_code}" if ended.exit_code < 0 else f"ended with {ended.exit_code}"
    words = f": {text[:_SHOWN]}" if text else stderr_suffix(tail)
    return CommandFailed(f"{name} {how}{words}", exit_code=ended.exit_code, stderr_tail=ended.stderr)


def stderr_suffix(stderr: str) -> str:
    """Return the end of a program's stderr as the end of an error message; empty if stderr is empty."""
    tail = stderr.strip()
    return f"; its stderr ends: {tail[-_SHOWN:]}" if tail else ""


# How long to wait.

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
# Fields inside texts: of Codex's server, of Google's API, and of the Gemini program's own errors.
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


def wait_from_text(text: str, at: datetime | None) -> float | None:
    """Return the seconds to wait that a text names; None if it names none, or a time that has passed.

    Args:
        text: the agent's text.
        at: the time of the text, in the time zone in which the agent names the hour; None reads time spans only.
    """
    return next((seconds for seconds in _waits(text, at) if seconds > 0), None)


def wait_until(moment: float, at: datetime | None) -> float | None:
    """Return the seconds from ``at`` until a Unix time; None if it has passed or ``at`` is unknown."""
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
    """Return the seconds until a clock time; without a day, its next occurrence."""
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
