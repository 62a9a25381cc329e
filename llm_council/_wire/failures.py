"""What a refusal means, whichever the dialect: status codes, machine codes, and how long to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Protocol

from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    ContextTooLong,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
)

__all__ = [
    "KEPT",
    "DecodeError",
    "by_code",
    "by_status",
    "by_type",
    "failure",
    "looks_like_html",
    "lowered",
    "request_id",
    "retry_after",
    "text_of",
]

KEPT = 64 * 1024
"""Bytes of a refusal's body that are read and kept."""

# RFC 9110, section 10.2.3 knows whole seconds; vendors send fractions, and proxies send anything.
_SECONDS = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_ENDLESS = frozenset({"inf", "+inf", "infinity", "+infinity"})
_REQUEST_IDS = ("x-request-id", "request-id", "x-generation-id", "x-amzn-requestid", "cf-ray")


class DecodeError(Protocol):
    """What reads the reply to a refused request: every dialect's ``decode_error`` is one."""

    def __call__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes | str,
        *,
        now: float | None = None,
        request_id: str | None = None,
    ) -> ProviderError:
        """Return the error that a refusal is, whatever its body holds; never raise one.

        Args:
            status: the HTTP status, 400 or more.
            headers: the reply's, in any case.
            body: the reply's, cut at will.
            now: Unix seconds, see ``retry_after``.
            request_id: the id of the request, where the caller knows it already.
        """


def text_of(body: bytes | str) -> str:
    """Return the text of a refusal's body, ``KEPT`` bytes at most; what is no UTF-8 is replaced."""
    return body if isinstance(body, str) else bytes(body[:KEPT]).decode("utf-8", "replace")


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with lower-case names."""
    return {name.lower(): value for name, value in headers.items()}


def _number(word: str) -> float | None:
    """Return seconds; of several, which proxies add, the most."""
    words = [part.strip().lower() for part in word.split(",")]
    if not all(part in _ENDLESS or _SECONDS.fullmatch(part) for part in words):
        return None
    return max(map(float, words))


def _moment(word: str | None) -> float | None:
    """Return an HTTP date as Unix seconds."""
    if not word:
        return None
    try:
        moment = parsedate_to_datetime(word)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a vendor asks us to wait; None when it does not, or asks for nonsense.

    ``retry-after-ms`` wins over ``retry-after``, as in the vendors' own clients. A date counts from the reply's own
    ``Date``, so that a wrong clock here does no harm. An infinite wish is kept: it says that waiting is useless.

    Args:
        headers: the reply's, with lower-case names.
        now: Unix seconds, for a date in a reply that has no ``Date``.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        word = headers.get(name)
        if word is None:
            continue
        seconds = _number(word)
        if seconds is not None:
            seconds *= unit
        elif name == "retry-after":
            then, since = _moment(word), _moment(headers.get("date"))
            since = now if since is None else since
            seconds = None if then is None or since is None else then - since
        if seconds is not None and seconds > 0:
            return seconds
    return None


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the vendor's id of a request from the reply's headers, which have lower-case names."""
    return next((headers[name] for name in _REQUEST_IDS if headers.get(name)), None)


def _squashed(word: str) -> str:
    return re.sub("[^a-z0-9]", "", word.lower())


def _table(rows: Mapping[type[ApiError], str]) -> dict[str, type[ApiError]]:
    return {_squashed(word): cls for cls, words in rows.items() for word in words.split()}


# Machine codes that say what happened whatever the status (vendors' API references and recorded replies); those in one
# word with capitals are Amazon's (Bedrock Runtime API reference, "InvokeModel", and AWS's common errors).
_CODES = _table(
    {
        OutOfCredit: "insufficient_quota billing_hard_limit_reached billing_not_active billing_error payment_required"
        " credit_balance_exhausted insufficient_credits insufficient_balance exceeded_current_quota_error",
        ContextTooLong: "context_length_exceeded context_window_exceeded exceed_context_size_error prompt_too_long"
        " context_length_error string_above_max_length model_context_window_exceeded input_too_long"
        " tokens_limit_reached",
        ModelNotFound: "model_not_found model_not_exist model_not_available model_not_supported unknown_model"
        " invalid_model deployment_not_found model_does_not_exist model_not_loaded"
        " ResourceNotFoundException",
        AuthenticationFailed: "invalid_api_key incorrect_api_key authentication_error authentication unauthorized"
        " invalid_authentication account_deactivated no_api_key missing_api_key expired_api_key"
        " UnrecognizedClientException InvalidSignatureException IncompleteSignatureException ExpiredTokenException"
        " MissingAuthenticationTokenException",
        PermissionRefused: "permission_denied permission_error insufficient_permissions forbidden"
        " unsupported_country_region_territory AccessDeniedException",
        RateLimited: "rate_limit_exceeded rate_limit_error rate_limited rate_limit_reached too_many_requests"
        " rate_limit_reached_error ThrottlingException",
        RequestTooLarge: "request_too_large payload_too_large",
        ServerFailed: "overloaded_error provider_overloaded provider_unavailable engine_overloaded model_overloaded"
        " server_is_overloaded engine_overloaded_error slow_down ModelNotReadyException ModelTimeoutException"
        " ModelErrorException ModelStreamErrorException ServiceUnavailableException InternalServerException",
    }
)

# Broader words, which vendors also write beside a status that says more: asked when there is none.
_TYPES = _table(
    {
        ServerFailed: "server_error server internal_server_error internal_error api_error service_unavailable"
        " service_unavailable_error timeout timeout_error bad_gateway upstream_error",
        RequestRejected: "invalid_request invalid_request_error not_found precondition_failed unprocessable"
        " content_policy_violation refusal max_tokens_exceeded token_limit_exceeded string_too_long"
        " unsupported_image_format image_not_found image_download_failed bad_request_error bad_request validation_error"
        " unprocessable_entity_error data_residency_mismatch bio_policy misalignment_policy_violation invalid_image"
        " invalid_image_format invalid_base64_image invalid_image_url image_too_large image_too_small image_parse_error"
        " image_content_policy_violation invalid_image_mode image_file_too_large unsupported_image_media_type"
        " empty_image_file failed_to_download_image image_file_not_found invalid_prompt ValidationException",
        ModelNotFound: "not_found_error",
        PermissionRefused: "permission moderation",
        OutOfCredit: "quota_exceeded",
    }
)

_STATUSES: dict[int, type[ApiError]] = {
    401: AuthenticationFailed,
    402: OutOfCredit,
    403: PermissionRefused,
    408: ServerFailed,
    413: RequestTooLarge,
    429: RateLimited,
}
_STANDS_FOR: dict[type[ApiError], int] = {
    OutOfCredit: 402,
    ContextTooLong: 400,
    ModelNotFound: 404,
    AuthenticationFailed: 401,
    PermissionRefused: 403,
    RateLimited: 429,
    RequestTooLarge: 413,
    RequestRejected: 400,
    ServerFailed: 500,
}
_FINAL = frozenset({501, 505, 510, 511})  # server errors that no repetition cures


def by_code(word: str | None) -> type[ApiError] | None:
    """Return what a vendor's machine code says whatever the status is."""
    squashed = _squashed(word) if word else ""
    return OutOfCredit if squashed.endswith("spendlimitexceeded") else _CODES.get(squashed)


def by_type(word: str | None) -> type[ApiError] | None:
    """Return what one of the vendors' broader words says, for an error without a status."""
    return _TYPES.get(_squashed(word)) if word else None


def by_status(status: int) -> type[ApiError]:
    """Return what a status alone says."""
    known = _STATUSES.get(status)
    if known is not None:
        return known
    return ServerFailed if status >= 500 else RequestRejected if status >= 400 else ApiError


def looks_like_html(text: str) -> bool:
    """Tell whether a text is a web page: a proxy's, never a vendor's."""
    beginning = text[:1024].lstrip("\ufeff \t\r\n").lower()
    return beginning.startswith(("<!doctype", "<html", "<head", "<body", "<?xml", "<h1", "<title", "<center"))


def failure(
    cls: type[ApiError],
    message: str,
    *,
    status: int | None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    now: float | None = None,
    body: str = "",
    **facts: Any,
) -> ApiError:
    """Build the error of a class that has been found, with what status and headers say about trying again.

    Args:
        cls: what the error is.
        message: the vendor's own words; empty or a web page, the status stands for them.
        status: the HTTP status; None takes the one that the class stands for.
        code: the vendor's machine code.
        headers: the reply's, with lower-case names.
        now: Unix seconds, see ``retry_after``.
        body: the vendor's body.
        **facts: further facts of the error.
    """
    headers = headers or {}
    known = _STANDS_FOR.get(cls) if status is None else status
    retryable = cls.RETRYABLE
    if cls is ServerFailed and known in _FINAL:
        retryable = False
    elif cls is RequestRejected and known in (409, 425):
        # 409 is a lost race for a lock where the code says so; else two requests contradict each other for good.
        retryable = known == 425 or "lock" in (code or "").lower()
    wish = headers.get("x-should-retry", "").strip().lower()
    if wish in ("true", "false") and cls is not OutOfCredit:  # no wait fills an account
        retryable = wish == "true"
    facts.setdefault("request_id", request_id(headers))
    return cls(
        _sentence(message, known, code),
        status=known,
        code=code,
        body=body,
        retry_after=retry_after(headers, now),
        retryable=retryable,
        **facts,
    )


def _sentence(message: str, status: int | None, code: str | None) -> str:
    message = message.strip()
    if not message or looks_like_html(message):
        try:
            message = HTTPStatus(status or 0).phrase
        except ValueError:
            message = "the vendor gave no reason"
    said = " ".join(word for word in (f"HTTP {status}" if status else "", code or "") if word)
    return f"{message} ({said})" if said else message
