"""Errors of Google's dialect: ``google.rpc.Status``, whose details are more precise than its code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council._wire import failures
from llm_council._wire.failures import Rows, TextRow, code_rows
from llm_council._wire.payloads import loads, text_or_none
from llm_council.errors import (
    AuthenticationFailed,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    RequestRejected,
)

__all__ = ["decode_error", "error_inside"]

_MAX_MESSAGE = 300  # characters of a body that is not JSON
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{0,9})?)s", re.ASCII)  # a google.protobuf.Duration in JSON

_DAILY = "quota_per_day"  # our code for a daily quota, which has many names

# Reasons of google.rpc.ErrorInfo (google/api/error_reason.proto). RATE_LIMIT_EXCEEDED is in the shared table.
_REASONS: dict[type[ProviderError], str] = {
    AuthenticationFailed: "API_KEY_INVALID CREDENTIALS_MISSING ACCESS_TOKEN_EXPIRED ACCESS_TOKEN_SCOPE_INSUFFICIENT"
    " ACCESS_TOKEN_TYPE_UNSUPPORTED ACCOUNT_STATE_INVALID",
    PermissionRefused: "API_KEY_SERVICE_BLOCKED API_KEY_HTTP_REFERRER_BLOCKED API_KEY_IP_ADDRESS_BLOCKED"
    " SERVICE_DISABLED CONSUMER_SUSPENDED CONSUMER_INVALID",
    OutOfCredit: f"BILLING_DISABLED {_DAILY}",  # a daily quota is refilled at midnight, so a retry is useless
}
# Codes of google.rpc.Code, for an error without a number inside a stream. The shared table has the others.
_TYPES: dict[type[ProviderError], str] = {
    RequestRejected: "INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE NOT_FOUND",
    AuthenticationFailed: "UNAUTHENTICATED",
    RateLimited: "RESOURCE_EXHAUSTED",
}
# INVALID_ARGUMENT covers all rejected requests, so only the message tells them apart.
_TEXTS = (
    TextRow(
        ModelNotFound,
        re.compile(r"(?i)\bmodels?\b[^\n]{0,300}?(?:not found|not supported|does not exist|no longer available)"),
        code="NOT_FOUND",
    ),
    # For proxies that drop the details.
    TextRow(AuthenticationFailed, re.compile(r"(?i)\bapi key (?:not valid|not found|expired)")),
    # Gemini API docs, "Troubleshooting guide", 400 FAILED_PRECONDITION: "free tier is not available in your country".
    TextRow(
        PermissionRefused,
        re.compile(r"(?i)\blocation is not supported\b|\bnot available in your (?:country|region|location)\b"),
        code="FAILED_PRECONDITION",
    ),
    TextRow(
        ContextTooLong,
        re.compile(
            r"(?i)token count[^\n]{0,80}exceeds|exceeds the maximum number of (?:input )?tokens|prompt is too long"
        ),
        code="INVALID_ARGUMENT",
    ),
)
ROWS = Rows(codes=code_rows(_REASONS), types=code_rows(_TYPES), texts=_TEXTS)


@attrs.frozen(kw_only=True)
class _Refusal:
    """The fields of an error.

    Attributes:
        message: the vendor's message.
        number: the HTTP status that the body repeats.
        codes: the machine codes, the most specific first.
        code: the code that the message shows.
        delay: the seconds to wait before a retry.
    """

    message: str
    number: int | None = None
    codes: tuple[str, ...] = ()
    code: str | None = None
    delay: float | None = None


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Decode the reply to a refused request.

    A wrong key has status 400; only the details tell it from other rejected requests. The name of a quota tells a daily
    one from one per minute. The delay before a retry is in the body.

    Arguments are those of ``failures.ErrorDecoder``.
    """
    text = failures.text_of(body)
    try:
        value = loads(text)
    except MalformedReply:
        value = None
    refusal = _read(value, text)
    return _failure(refusal, status, text, headers=failures.lowered(headers), now=now, request_id=request_id)


def error_inside(value: Any, *, request_id: str | None = None, partial: str | None = None) -> ProviderError | None:
    """Return the error in a reply with status 200, or in an event of a stream; None if it is not an error."""
    if not isinstance(value, dict) or not value.get("error"):
        return None
    refusal = _read(value, "")
    status = refusal.number if refusal.number is not None and 400 <= refusal.number <= 599 else None
    body = json.dumps(value, ensure_ascii=False, default=str)[: failures.MAX_ERROR_BODY]
    return _failure(refusal, status, body, headers={}, request_id=request_id, partial=partial)


def _failure(
    refusal: _Refusal,
    status: int | None,
    body: str,
    *,
    headers: Mapping[str, str],
    now: float | None = None,
    **facts: Any,
) -> ProviderError:
    return failures.error_of(
        refusal.message,
        status=status,
        code=refusal.code,
        codes=refusal.codes,
        headers=headers,
        rows=ROWS,
        delay=refusal.delay,
        now=now,
        body=body,
        **facts,
    )


def _read(value: Any, text: str) -> _Refusal:
    if isinstance(value, list) and value:
        value = value[0]  # an error, where the whole reply would have been an array
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, str):
        return _Refusal(message=error)
    if not isinstance(error, dict):
        return _Refusal(message="" if failures.looks_like_html(text) else text[:_MAX_MESSAGE])
    number, listed = error.get("code"), error.get("details")
    details = [detail for detail in listed if isinstance(detail, dict)] if isinstance(listed, list) else []
    delays = map(_DELAY.fullmatch, _texts(detail.get("retryDelay") for detail in details))
    codes = [*_texts(detail.get("reason") for detail in details), *_texts([error.get("status")])]
    is_daily = any("perday" in quota.lower() for quota in _quotas(details))
    return _Refusal(
        message=text_or_none(error.get("message")) or "",
        number=number if isinstance(number, int) and not isinstance(number, bool) else None,
        codes=(_DAILY, *codes) if is_daily else tuple(codes),
        code=codes[0] if codes else None,
        delay=next((float(found[1]) for found in delays if found is not None), None),
    )


def _quotas(details: list[dict[str, Any]]) -> Iterable[str]:
    for detail in details:
        violations, metadata = detail.get("violations"), detail.get("metadata")
        if isinstance(violations, list):
            yield from _texts(found.get("quotaId") for found in violations if isinstance(found, dict))
        if isinstance(metadata, dict):
            yield from _texts([metadata.get("quota_limit")])


def _texts(values: Iterable[Any]) -> Iterable[str]:
    return (value for value in values if isinstance(value, str) and value)
