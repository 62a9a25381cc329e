"""Errors of Anthropic's Messages dialect: refused requests, and error events inside streams."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.failures import Rows, TextRow, code_rows
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council._wire.payloads import loads_object
from llm_council.errors import (
    AuthenticationFailed,
    ContextTooLong,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerFailed,
)
from llm_council.providers._google import errors as gemini_errors

__all__ = ["decode_error", "error_inside"]

# Exceptions of Amazon Bedrock, which serves Claude (Bedrock Runtime API reference, "InvokeModel" and "Common errors").
_BEDROCK: dict[type[ProviderError], str] = {
    ModelNotFound: "ResourceNotFoundException",
    AuthenticationFailed: "UnrecognizedClientException InvalidSignatureException IncompleteSignatureException"
    " ExpiredTokenException MissingAuthenticationTokenException",
    PermissionRefused: "AccessDeniedException",
    RateLimited: "ThrottlingException",
    ServerFailed: "ModelNotReadyException ModelTimeoutException ModelErrorException ModelStreamErrorException"
    " ServiceUnavailableException InternalServerException",
}

# An empty account, a too long prompt and an unknown model share the types "invalid_request_error" and
# "not_found_error" with other rejected requests. Only the message tells them apart.
_TEXTS = (
    TextRow(OutOfCredit, re.compile(r"(?i)credit balance is too low|reached your specified (?:\w+ )*usage limits")),
    TextRow(
        ContextTooLong,
        re.compile(r"(?i)prompt is too long|exceeds? (?:the )?context (?:limit|window)|input is too long"),
    ),
    TextRow(
        ModelNotFound,
        re.compile(
            r"(?i)^model: |\bmodel\b[^\n]{0,300}?(?:not found|does not exist|not available|identifier is invalid)"
        ),
    ),
)

ROWS = Rows(
    codes=code_rows(_BEDROCK),
    types=code_rows({RequestRejected: "not_found_error ValidationException"}),  # an unknown path is not_found_error too
    texts=_TEXTS,
    # An event of a stream has a type and no status (Messages API reference, "Errors").
    statuses={"invalid_request_error": 400, "not_found_error": 404, "timeout_error": 504, "overloaded_error": 529},
)


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Decode the reply to a refused request.

    Errors of Bedrock and Vertex AI are decoded in the form of these platforms. Bodies of any other form, such as those
    of proxies, are decoded as in the OpenAI dialect.

    Arguments are those of ``failures.ErrorDecoder``.
    """
    text = failures.text_of(body)
    value = loads_object(text) or {}
    headers = failures.lowered(headers)
    kind, message = _read_error(value)
    if kind is None or value.get("type") != "error":
        kind, message = _read_bedrock(headers, value)
    if kind is None:
        decode = gemini_errors.decode_error if _is_google(value) else openai_errors.decode_error
        return decode(status, headers, text, now=now, request_id=request_id)
    found = request_id or value.get("request_id")
    return failures.error_of(
        message,
        status=status,
        code=kind,
        headers=headers,
        rows=ROWS,
        now=now,
        body=text,
        request_id=found if isinstance(found, str) else None,
    )


def error_inside(
    value: Mapping[str, Any], *, request_id: str | None = None, partial: str | None = None
) -> ProviderError | None:
    """Return the error in a reply with status 200, or in an event of a stream; None if it is not an error."""
    if value.get("type") != "error" and not value.get("error"):
        return None
    kind, message = _read_error(value)
    # An event has no status, so its type decides alone, even a broad one such as "invalid_request_error".
    is_known = kind is not None and failures.names_failure(kind, ROWS, broadly=True)
    if not is_known and value.get("error"):  # a gateway's form, whose code may be an HTTP status
        return openai_errors.error_inside(value, request_id=request_id, partial=partial)
    found = value.get("request_id")
    return failures.error_of(
        message,
        status=None,
        code=kind,
        rows=ROWS,
        body=json.dumps(value, ensure_ascii=False, default=str)[: failures.MAX_ERROR_BODY],
        request_id=found if isinstance(found, str) and found else request_id,
        partial=partial,
    )


def _read_error(value: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return type and message of an error in Anthropic's form; the type is None for another form."""
    error = value.get("error")
    if not isinstance(error, dict):
        return None, error if isinstance(error, str) else ""
    kind, message = error.get("type"), error.get("message")
    return kind if isinstance(kind, str) and kind else None, message if isinstance(message, str) else ""


def _read_bedrock(headers: Mapping[str, str], value: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return name and message of an error in Bedrock's form; the name is None for another form.

    The name is in a header, before a colon, or in the body, after a hash (Smithy, AWS JSON and REST protocols).
    """
    name = headers.get("x-amzn-errortype") or value.get("__type")
    if not isinstance(name, str) or not name:
        return None, ""
    message = value.get("message") or value.get("Message")
    return name.partition(":")[0].rpartition("#")[2], message if isinstance(message, str) else ""


def _is_google(value: Mapping[str, Any]) -> bool:
    error = value.get("error")
    return isinstance(error, dict) and isinstance(error.get("code"), int) and isinstance(error.get("status"), str)
