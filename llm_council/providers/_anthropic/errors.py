"""What servers of Anthropic's Messages dialect say when they refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council._wire.payloads import loads
from llm_council.errors import (
    ApiError,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    RequestRejected,
    ServerFailed,
)
from llm_council.providers._google import errors as gemini_errors

__all__ = ["STATUSES", "decode_error", "error_inside"]


STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that each of the vendor's types comes with (Messages API reference, "Errors")."""

# All of these are "invalid_request_error" or "not_found_error": the vendor has no code that tells them apart. What such
# a text decides is the class, never whether to try again: none of them is worth another try.
_SAID: tuple[tuple[type[ApiError], re.Pattern[str]], ...] = (
    (OutOfCredit, re.compile(r"(?i)credit balance is too low|reached your specified (?:\w+ )*usage limits")),
    (
        ContextTooLong,
        re.compile(r"(?i)prompt is too long|exceeds? (?:the )?context (?:limit|window)|input is too long"),
    ),
    (
        ModelNotFound,
        re.compile(
            r"(?i)^model: |\bmodel\b[^\n]{0,300}?(?:not found|does not exist|not available|identifier is invalid)"
        ),
    ),
)


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ApiError:
    """Read the reply to a refused request.

    The class comes from the vendor's type, else from the status; texts tell an empty account, a prompt that is too long
    and an unknown model from other rejected requests. Refusals of the platforms that serve Claude are read as Google's
    and Amazon's own; bodies in other shapes, such as a proxy's, as those of the OpenAI dialect are.

    Arguments are those of ``failures.DecodeError``.
    """
    text = failures.text_of(body)
    refusal = _parsed(text)
    said = failures.lowered(headers)
    kind, message = _read(refusal)
    if kind is None or refusal.get("type") != "error":
        kind, message = _amazons(said, refusal)
    if kind is None:
        decode = gemini_errors.decode_error if _is_googles(refusal) else openai_errors.decode_error
        return decode(status, headers, text, now=now, request_id=request_id)
    found = request_id or refusal.get("request_id")
    facts = {"request_id": found} if isinstance(found, str) and found else {}
    return failures.failure(
        _class(kind, message, status),
        message,
        status=status,
        code=kind,
        headers=said,
        now=now,
        body=text,
        **facts,
    )


def error_inside(
    value: Mapping[str, Any], *, request_id: str | None = None, partial: str | None = None
) -> ApiError | None:
    """Return the error that a reply with status 200, or an event of a stream, is; None when it is none.

    Its class and status are those of its own type.
    """
    if value.get("type") != "error" and not value.get("error"):
        return None
    kind, message = _read(value)
    status = STATUSES.get(kind or "")
    named = failures.by_code(kind) or failures.by_type(kind)
    if status is None and named is None and value.get("error"):  # a gateway's, whose number may say more
        return openai_errors.error_inside(value, request_id=request_id, partial=partial)
    cls = named or ServerFailed
    found = value.get("request_id")
    return failures.failure(
        cls if status is None else _class(kind, message, status),
        message,
        status=status,
        code=kind,
        body=json.dumps(value, ensure_ascii=False, default=str)[: failures.KEPT],
        request_id=found if isinstance(found, str) and found else request_id,
        partial=partial,
    )


def _class(kind: str | None, message: str, status: int) -> type[ApiError]:
    cls = failures.by_code(kind) or failures.by_status(status)
    if cls is RequestRejected:
        return next((named for named, pattern in _SAID if pattern.search(message)), cls)
    return cls


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = loads(text) if text.lstrip("\ufeff \t\r\n")[:1] == "{" else None
    except MalformedReply:
        return {}
    return value if isinstance(value, dict) else {}


def _read(value: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return type and message of the vendor's envelope; no type where it is another's."""
    error = value.get("error")
    if not isinstance(error, dict):
        return None, error if isinstance(error, str) else ""
    kind, message = error.get("type"), error.get("message")
    return kind if isinstance(kind, str) and kind else None, message if isinstance(message, str) else ""


def _amazons(headers: Mapping[str, str], value: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return name and message of an error of Amazon's own; no name where it is another's.

    The name stands in a header, before a colon, or in the body, after a hash (Smithy's AWS JSON and REST protocols).
    """
    word = headers.get("x-amzn-errortype") or value.get("__type")
    if not isinstance(word, str) or not word:
        return None, ""
    message = value.get("message") or value.get("Message")
    return word.partition(":")[0].rpartition("#")[2], message if isinstance(message, str) else ""


def _is_googles(value: Mapping[str, Any]) -> bool:
    error = value.get("error")
    return isinstance(error, dict) and isinstance(error.get("code"), int) and isinstance(error.get("status"), str)
