"""Classify a vendor's error reply: the one place that turns status, codes and headers into an error.

``classify`` serves the built-in providers and, through ``llm_council.transports``, the adapters of third parties. A
vendor whose codes or texts have a meaning of their own passes them as ``Rows``; nothing else maps a status.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Protocol

import attrs

from llm_council._wire.failure_rows import (
    CODES,
    DAILY_TEXT,
    LIMIT_AND_REQUESTED,
    NO_ROWS,
    SPENT_TEXT,
    STATUSES,
    TEXTS,
    TYPES,
    USUAL_STATUS,
    Rows,
    TextRow,
    code_rows,
    normalised,
)
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    CapabilityRefused,
    ContentFiltered,
    ContextTooLong,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerFailed,
)
from llm_council.errors._secrets import clean

__all__ = [
    "MAX_ERROR_BODY",
    "REQUEST_ID_HEADERS",
    "Classified",
    "ErrorDecoder",
    "Rows",
    "TextRow",
    "classify",
    "code_rows",
    "error_of",
    "looks_like_html",
    "lowered",
    "moment",
    "names_failure",
    "request_id",
    "retry_after",
    "seconds",
    "should_retry",
    "text_of",
]

MAX_ERROR_BODY = 64 * 1024
"""The most bytes of an error body that are read and stored."""

# RFC 9110, section 10.2.3 allows whole seconds only; vendors send fractions, and proxies send anything.
_SECONDS = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_ENDLESS = frozenset({"inf", "+inf", "infinity", "+infinity"})
# A code of a 409 that names a lock, such as "lock_timeout" or "ResourceLocked"; not "blocked" and not "clock".
_LOCK = re.compile(r"(?i)(?<![bc])lock")

REQUEST_ID_HEADERS = (
    "x-request-id",
    "request-id",
    "x-generation-id",
    "x-amzn-requestid",
    "x-goog-request-id",
    "x-trace-id",
    "cf-ray",
)
"""Headers in which vendors send the id of a request, the most specific first."""


class ErrorDecoder(Protocol):
    """Decodes an error reply; every dialect's ``decode_error`` has this signature."""

    def __call__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes | str,
        *,
        now: float | None = None,
        request_id: str | None = None,
    ) -> ProviderError:
        """Return the error that a reply reports, whatever its body holds. Never raises.

        Args:
            status: the HTTP status, 400 or more.
            headers: the reply's headers, in upper or lower case.
            body: the reply's body; it may be cut.
            now: Unix seconds, see ``retry_after``.
            request_id: the id of the request, if the caller knows it.
        """


def text_of(body: bytes | str) -> str:
    """Return the text of an error body, at most ``MAX_ERROR_BODY`` bytes; bytes that are not UTF-8 become U+FFFD."""
    return body if isinstance(body, str) else bytes(body[:MAX_ERROR_BODY]).decode(errors="replace")


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with lower-case names."""
    return {name.lower(): value for name, value in headers.items()}


def seconds(word: str) -> float | None:
    """Return a header's seconds; None if it is no number. A proxy may add a second value: the largest counts."""
    words = [part.strip().lower() for part in word.split(",")]
    if not all(part in _ENDLESS or _SECONDS.fullmatch(part) for part in words):
        return None
    return max(map(float, words))


def moment(word: str | None) -> float | None:
    """Return an HTTP date as Unix seconds."""
    if not word:
        return None
    try:
        moment = parsedate_to_datetime(word)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds to wait that a vendor asks for; None if it asks for none, or the value is invalid.

    ``retry-after-ms`` wins over ``retry-after``, as in the vendors' own clients. A date is compared with the reply's
    ``Date`` header, so that a wrong local clock does no harm. Infinity is returned: it means that waiting is useless.

    Args:
        headers: the reply's headers, with lower-case names.
        now: Unix seconds, for a date in a reply that has no ``Date``.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        word = headers.get(name)
        if word is None:
            continue
        wait = seconds(word)
        if wait is not None:
            wait *= unit
        elif name == "retry-after":
            then, since = moment(word), moment(headers.get("date"))
            since = now if since is None else since
            wait = None if then is None or since is None else then - since
        if wait is not None and wait > 0:
            return wait
    return None


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the vendor's id of a request from the reply's headers, which have lower-case names."""
    found = next((headers[name] for name in REQUEST_ID_HEADERS if headers.get(name)), None)
    return None if found is None else clean(found, limit=256)  # a server may echo an API key in any header


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return the vendor's ``x-should-retry``; None when it is absent or neither true nor false."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


@attrs.frozen(kw_only=True)
class Classified:
    """The meaning of an error reply's status, codes and headers.

    Attributes:
        cls: the class of the error; ``ServerFailed`` if nothing names one.
        is_known: True if a code, a status or a text names the class.
        status: the HTTP status; without one, the usual status of the class.
        retryable: True if another try may succeed.
        retry_after: the seconds to wait that the vendor asks for, if any.
        request_id: the vendor's id of the request.
        capability: the missing capability, if the class is ``CapabilityRefused`` and the text names one.
    """

    cls: type[ProviderError]
    is_known: bool
    status: int | None
    retryable: bool
    retry_after: float | None
    request_id: str | None
    capability: str | None = None


_PHRASES: dict[int | None, str] = {status.value: status.phrase for status in HTTPStatus}
_PERMANENT = frozenset({501, 505, 510, 511})  # server errors that a retry cannot cure


def names_failure(word: str, rows: Rows = NO_ROWS, *, broadly: bool = False) -> bool:
    """Return True for a machine code that decides the class of an error, whatever its status.

    Args:
        word: the code.
        rows: the vendor's additions to the shared tables.
        broadly: accept the broader types too, which decide only without a status.
    """
    return _by_code([word], rows) is not None or (broadly and _by_type([word], rows) is not None)


def _by_code(codes: Iterable[str], rows: Rows) -> type[ProviderError] | None:
    for word in map(normalised, codes):
        # The names of quotas by the day differ from vendor to vendor: a retry after seconds is useless for all.
        if word.endswith("spendlimitexceeded") or "perday" in word:
            return OutOfCredit
        if found := rows.codes.get(word) or CODES.get(word):
            return found
    return None


def _by_type(codes: Iterable[str], rows: Rows) -> type[ProviderError] | None:
    for word in map(normalised, codes):
        if found := rows.types.get(word) or TYPES.get(word):
            return found
    return None


def _by_status(status: int, rows: Rows) -> type[ProviderError]:
    known = rows.classes.get(status) or STATUSES.get(status)
    if known is not None:
        return known
    if status >= 500:
        return ServerFailed
    return RequestRejected if status >= 400 else ApiError


def classify(
    status: int | None,
    codes: Sequence[str] = (),
    *,
    param: str | None = None,
    message: str = "",
    headers: Mapping[str, str] | None = None,
    rows: Rows = NO_ROWS,
    delay: float | None = None,
    now: float | None = None,
) -> Classified:
    """Classify an error reply.

    The vendor's code decides the class, else the status, else the broader type. The class of a rejected request is
    refined by the parameter at fault and by the vendor's texts.

    Args:
        status: the HTTP status, or a status in the body; None if there is none.
        codes: the vendor's machine codes and types, the most specific first.
        param: the request's parameter at fault, if the vendor names one.
        message: the vendor's message, for dialects without codes.
        headers: the reply's headers, with lower-case names.
        rows: the vendor's additions to the shared tables.
        delay: seconds to wait that the body asks for; used if the headers name none.
        now: Unix seconds, see ``retry_after``.
    """
    headers = headers or {}
    if status is None:
        status = next((rows.statuses[word] for word in codes if word in rows.statuses), None)
    named, row = _class_of(status, codes, param, message, rows)
    cls = ServerFailed if named is None else named
    if status is None:
        status = USUAL_STATUS.get(cls)
    wait = retry_after(headers, now)
    if wait is None and delay is not None and delay > 0:
        wait = delay
    if cls is RateLimited and (SPENT_TEXT.search(message) or (wait is None and DAILY_TEXT.search(message))):
        cls = OutOfCredit
    fits = cls is not RateLimited or _fits_limit(message)
    return Classified(
        cls=cls,
        is_known=named is not None,
        status=status,
        retryable=fits and _is_retryable(cls, status, codes, headers),
        retry_after=None if cls is ContentFiltered else wait,
        request_id=request_id(headers),
        capability=None if row is None else row.capability,
    )


def _fits_limit(message: str) -> bool:
    """Return False for one request that asks for more than a whole limit by the minute."""
    numbers = LIMIT_AND_REQUESTED.search(message)
    return numbers is None or int(numbers[2]) <= int(numbers[1])


def _class_of(
    status: int | None, codes: Sequence[str], param: str | None, message: str, rows: Rows
) -> tuple[type[ProviderError] | None, TextRow | None]:
    """Return the class of a refusal, and the text row that gave it; None where nothing names a class."""
    cls = _by_code(codes, rows)
    # Groq sends this code with 413 for one request over the limit of tokens per minute.
    if cls is RateLimited and status == 413:
        cls = None
    # OpenAI sends this code for any field that is too long: an id, the description of a tool.
    if cls is ContextTooLong and "string_above_max_length" in codes and not _is_conversation(param, message):
        return RequestRejected, None
    if cls is None and rows.texts_decide:
        usable = [row for row in rows.texts if status is None or not row.cls.RETRYABLE]
        found = next((row for row in usable if row.pattern.search(message)), None)
        if found is not None:
            return found.cls, found
    if cls is not None:
        return cls, None
    # The words of a refusal for another parameter may speak of the model too.
    shared = TEXTS if param in (None, "", "model") else [row for row in TEXTS if row.cls is not ModelNotFound]
    cls = _by_type(codes, rows) if status is None else _by_status(status, rows)
    if cls is RequestRejected and status in (None, 400, 404, 410, 412, 422):
        # vLLM and Ollama send this type for an unknown model, vLLM the parameter too; for an unknown route neither.
        if status == 404 and (_by_type(codes, rows) is ModelNotFound or param == "model"):
            return ModelNotFound, None
        return _refined(cls, codes, message, (*_own_texts(rows), *shared))
    if cls is PermissionRefused:
        return _refined(cls, codes, message, shared)
    if cls is None:  # a bare sentence within a reply, perhaps after a part of the answer
        return _refined(cls, codes, message, [row for row in TEXTS if row.cls is ContentFiltered])
    if cls is ServerFailed and status in (500, 501):
        return _refined(cls, codes, message, [row for row in TEXTS if row.cls is CapabilityRefused])
    return cls, None


def _own_texts(rows: Rows) -> Sequence[TextRow]:
    # Texts that decide were searched before the status; those that may not overrule it must not refine it either.
    return () if rows.texts_decide else rows.texts


def _refined(
    cls: type[ProviderError] | None, codes: Sequence[str], message: str, texts: Sequence[TextRow]
) -> tuple[type[ProviderError] | None, TextRow | None]:
    """Return the class of the first text that matches, and its row; the given class if none does."""
    if message.startswith("<"):
        return cls, None
    for row in texts:
        if (row.code is None or row.code in codes) and row.pattern.search(message):
            return row.cls, row
    return cls, None


# "messages", "input", "messages[2].content", "input[0].content[1].text", "prompt" and the like.
_CONVERSATION = re.compile(
    r"(?:messages|input|prompt|instructions|contents|system)(?:\[\d+\]|\.(?:content|text|parts))*"
)
_FIELD = re.compile(r"^Invalid '([^']{1,200})'")


def _is_conversation(param: str | None, message: str) -> bool:
    """Return True if the parameter at fault is the text of the conversation, or if none is named."""
    named = _FIELD.search(message)
    field = param or (named[1] if named else None)
    return field is None or _CONVERSATION.fullmatch(field) is not None


def _is_retryable(
    cls: type[ProviderError], status: int | None, codes: Sequence[str], headers: Mapping[str, str]
) -> bool:
    # OpenAI's and Anthropic's own clients obey this header before any status.
    vendor_retry = should_retry(headers)
    # Waiting does not refill an account, and the same prompt is withheld again.
    if vendor_retry is not None and cls not in (OutOfCredit, ContentFiltered):
        return vendor_retry
    if cls is ServerFailed and status in _PERMANENT:
        return False
    if cls is RequestRejected and status == 409:
        # A conflict is temporary only if its code names a lock; two contradicting requests stay contradicting.
        return any(_LOCK.search(word) for word in codes)
    return cls.RETRYABLE or (cls is RequestRejected and status == 425)


def looks_like_html(text: str) -> bool:
    """Return True for a web page: a proxy sends one, a vendor does not."""
    beginning = text[:1024].lstrip("\ufeff \t\r\n").lower()
    return beginning.startswith(("<!doctype", "<html", "<head", "<body", "<?xml", "<h1", "<title", "<center"))


def error_of(
    message: str,
    *,
    status: int | None,
    code: str | None = None,
    codes: Sequence[str] = (),
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
    rows: Rows = NO_ROWS,
    delay: float | None = None,
    now: float | None = None,
    remedy: str = "",
    **facts: Any,
) -> ProviderError:
    """Build the error of a refusal, with the class that ``classify`` gives it.

    Args:
        message: the vendor's message; for an empty text or a web page the status's name is used.
        status: the HTTP status; None takes the usual status of the class.
        code: the vendor's machine code, shown in the message.
        codes: all its codes, the most specific first; empty takes ``code``.
        param: see ``classify``.
        headers: the reply's headers, with lower-case names.
        rows: see ``classify``.
        delay: see ``classify``.
        now: Unix seconds, see ``retry_after``.
        remedy: how to sign in; added to the message of an authentication error.
        **facts: further facts of the error; a ``request_id`` wins over the header's.
    """
    if not codes and code:
        codes = (code,)
    found = classify(status, codes, param=param, message=message, headers=headers, rows=rows, delay=delay, now=now)
    if not facts.get("request_id"):
        facts["request_id"] = found.request_id
    facts.setdefault("retryable", found.retryable)
    if remedy and found.cls is AuthenticationFailed:
        message = f"{message} ({remedy})"
    if found.cls is CapabilityRefused:
        facts["capability"] = found.capability
    return found.cls(
        _sentence(message, found.status, code),
        status=found.status,
        code=code,
        retry_after=found.retry_after,
        **facts,
    )


def _sentence(message: str, status: int | None, code: str | None) -> str:
    message = message.strip()
    if not message or looks_like_html(message):
        message = _PHRASES.get(status, "the vendor gave no reason")
    details = " ".join(word for word in (f"HTTP {status}" if status else "", code or "") if word)
    return f"{message} ({details})" if details else message
