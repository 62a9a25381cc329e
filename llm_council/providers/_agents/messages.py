"""What command-line agents mean by what they say: words and exit statuses in, typed errors out."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import attrs

from llm_council._wire import failures
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    CommandFailed,
    ConnectFailed,
    ContentFiltered,
    ContextTooLong,
    CouncilError,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    ServerFailed,
    TruncatedReply,
)
from llm_council.providers._agents.waits import wait_said

__all__ = ["Ended", "by_words", "failed", "last_object", "said_on"]

_SHOWN = 300  # characters of an agent's own words in a message
_OBJECT = re.compile(r"^\{", re.MULTILINE)


@attrs.frozen(kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        exit_code: its exit status; negative for a signal.
        stderr: the end of what it wrote there.
        at: when, in the machine's time zone, by which agents tell the hour at which a limit ends; None is not known.
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


# What agents say in words. Their events carry no codes: these texts are all there is, here as in their own terminals.
_STATUS = re.compile(r"(?i)\b(?:unexpected|last) status:? (\d{3})\b|\bAPI Error:?[^\n]{0,40}?\(?\b([45]\d{2})\b")
_WORDS: tuple[tuple[type[ApiError], str], ...] = (
    (
        OutOfCredit,
        r"quota exceeded|(?:current|daily) quota|usage limit|credit balance|insufficient_quota|out of credits|billing",
    ),
    (
        OutOfCredit,
        r"(?:hit|reached) your (?!rate)[^\n]{0,30}limit|(?:hour|weekly|session|opus|sonnet|plan) limit reached",
    ),
    (OutOfCredit, r"out of (?:extra )?usage|spend[_ ]limit|upgrade to plus"),
    (
        AuthenticationFailed,
        r"not (?:logged|signed) in|please run /login|codex login|(?:log ?|sign )in again",
    ),
    (
        AuthenticationFailed,
        r"failed to (?:log ?in|authenticate)|missing bearer|(?:set an|invalid) auth method",
    ),
    (
        AuthenticationFailed,
        r"(?:invalid|incorrect) api key|api key not valid|invalid bearer token|401 unauthorized",
    ),
    (
        AuthenticationFailed,
        r"token (?:has )?(?:been )?(?:expired|revoked)|could not be refreshed|oauth token|authentication_error",
    ),
    (
        ModelNotFound,
        r"\bmodels?\b[^\n]{0,200}?(?:does not exist|not found|not supported|may not exist|is not available)",
    ),
    (
        ContextTooLong,
        r"prompt is too long|context window|context length|maximum context|ran out of room|input token count",
    ),
    (RateLimited, r"rate limit|too many requests|\b429\b|wait and try again later"),
    (PermissionRefused, r"organization has been disabled"),
    (ServerFailed, r"overloaded|at capacity|internal server error|service unavailable|bad gateway"),
    (ServerFailed, r"high demand|capacity is unavailable|request timed out"),
)
_MEANINGS = tuple((cls, re.compile(f"(?i){words}")) for cls, words in _WORDS)
_CONNECTION = re.compile(
    r"(?i)connection (?:failed|refused|error)|error sending request|failed to lookup|could not resolve|ENOTFOUND"
    r"|ECONNREFUSED|ETIMEDOUT|fetch failed|unable to connect"
)
_FILTERED = re.compile(r"(?i)content_filter|(?:usage|misalignment) policy|safety_blocked|prohibited|flagged for")
_CUT = re.compile(
    r"(?i)max_output_tokens|output token maximum|stream (?:disconnected|closed) before|ended without a finish"
)
_LENGTH = re.compile(r"(?i)max_output_tokens|output token maximum")


def by_words(
    message: str,
    *,
    remedy: str,
    status: int | None = None,
    at: datetime | None = None,
    wait: float | None = None,
    **facts: Any,
) -> CouncilError | None:
    """Return the error that an agent's words mean; None where they mean none.

    Args:
        message: its words.
        remedy: what to do about a missing sign-in.
        status: the HTTP status that it passed on, where it did.
        at: when it said so, see ``Ended``.
        wait: seconds to wait that it said elsewhere, where these words say none.
        **facts: further facts of the error.
    """
    found = _STATUS.search(message)
    if status is None and found:
        status = int(found[1] or found[2])
    seconds = wait_said(message, at) or wait
    if seconds is not None:
        facts["headers"] = {"retry-after": f"{seconds:.3f}"}
    for cls, words in _MEANINGS:
        if words.search(message) and (status is None or cls not in (ServerFailed, RateLimited)):
            if cls is AuthenticationFailed:
                message = f"{message} ({remedy})"
            return failures.failure(cls, message, status=status, **facts)
    if status is not None:
        cls = failures.by_status(status)
        return failures.failure(cls, f"{message} ({remedy})" if status == 401 else message, status=status, **facts)
    if _FILTERED.search(message):
        return ContentFiltered(message, partial=facts.get("partial"))
    if _CONNECTION.search(message):
        return ConnectFailed(message, kind="dns" if "lookup" in message or "ENOTFOUND" in message else "other")
    if _CUT.search(message):
        return TruncatedReply(message, partial=facts.get("partial"), retryable=not _LENGTH.search(message))
    return None


def failed(said: str, ended: Ended, name: str, remedy: str) -> CouncilError:
    """Return the error of a program that ended with one."""
    tail = ended.stderr.strip()
    # Of its stderr, which other words may stand in, only what it says last.
    known = by_words(said or tail[-2048:], remedy=remedy, at=ended.at)
    if known is not None:
        return known
    how = f"was killed by signal {-ended.exit_code}" if ended.exit_code < 0 else f"ended with {ended.exit_code}"
    words = f": {said[:_SHOWN]}" if said else said_on(tail)
    return CommandFailed(f"{name} {how}{words}", exit_code=ended.exit_code, stderr_tail=ended.stderr)


def said_on(stderr: str) -> str:
    """Return the end of a program's stderr for a message; nothing where it is empty."""
    tail = stderr.strip()
    return f"; its stderr ends: {tail[-_SHOWN:]}" if tail else ""
