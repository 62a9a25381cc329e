"""What servers of Anthropic's Messages dialect say when they refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.failures import Rows, TextRow, code_rows
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council._wire.payloads import loads
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    RateLimited,
    RequestRejected,
    ServerFailed,
)
from llm_council.providers._google import errors as gemini_errors

__all__ = ["decode_error", "error_inside"]


# Names of Amazon's errors, where Bedrock serves Claude (Bedrock Runtime API reference, "InvokeModel", and AWS's common
# errors).
_AMAZONS = {
    ModelNotFound: "ResourceNotFoundException",
    AuthenticationFailed: "UnrecognizedClientException InvalidSignatureException IncompleteSignatureException"
    " ExpiredTokenException MissingAuthenticationTokenException",
    PermissionRefused: "AccessDeniedException",
    RateLimited: "ThrottlingException",
    ServerFailed: "ModelNotReadyException ModelTimeoutException ModelErrorException ModelStreamErrorException"
    " ServiceUnavailableException InternalServerException",
}

# An empty account, a prompt that is too long and an unknown model share the types "invalid_request_error" and
# "not_found_error": the vendor has no code that tells them apart.
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
    codes=code_rows(_AMAZONS),
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
    return failures.failure(
        message,
        status=status,
        code=kind,
        headers=said,
        rows=ROWS,
        now=now,
        body=text,
        request_id=found if isinstance(found, str) else None,
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
    is_known = kind is not None and failures.names_failure(kind, ROWS, broadly=True)
    if not is_known and value.get("error"):  # a gateway's, whose number may say more
        return openai_errors.error_inside(value, request_id=request_id, partial=partial)
    found = value.get("request_id")
    return failures.failure(
        message,
        status=None,
        code=kind,
        rows=ROWS,
        body=json.dumps(value, ensure_ascii=False, default=str)[: failures.KEPT],
        request_id=found if isinstance(found, str) and found else request_id,
        partial=partial,
    )


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
