"""What Cohere says when it refuses: ``{"id", "message"}``, and a status that says the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.failures import Rows, TextRow
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council._wire.payloads import loads_object
from llm_council.errors import (
    ApiError,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
)

__all__ = ["decode_error", "error_inside"]

_BLOCKED = 498  # "Unsafe request": the prompt or the answer was withheld
_RESET = "x-ratelimit-reset"  # Unix seconds, as the vendor's own client reads it
_TRACE = "x-debug-trace-id"
_LONG = re.compile(r"(?i)too many tokens|number of tokens[^\n]{0,80}(?:exceed|too (?:long|large))")
ROWS = Rows(texts=(*openai_errors.TEXTS, TextRow(ContextTooLong, _LONG)))  # the dialect has no codes


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Read the reply to a refused request.

    Arguments are those of ``failures.DecodeError``.

    Returns:
        ``ContentFiltered`` for what was withheld; every other refusal is an ``ApiError``.
    """
    headers = failures.lowered(headers)
    reset = headers.get(_RESET, "")
    text = failures.text_of(body)
    found = (loads_object(text) or {}).get("id")
    error = openai_errors.decode_error(
        status,
        headers,
        text,
        now=now,
        request_id=request_id or (found if isinstance(found, str) and found else None) or headers.get(_TRACE),
        delay=float(reset[:15]) - now if now is not None and reset.isdecimal() else None,
        rows=ROWS,
    )
    if status == _BLOCKED:
        return ContentFiltered(error.message, request_id=error.request_id)
    return error


def error_inside(value: Any, *, request_id: str | None = None, partial: str | None = None) -> ApiError | None:
    """Return the error that a reply with status 200, or one event of a stream, is; None when it is none.

    The envelope is that of a refusal: a message, and nothing of an answer beside it.
    """
    if not isinstance(value, dict) or "delta" in value or isinstance(value.get("message"), dict):
        return None
    if value.get("error"):  # a gateway's
        return openai_errors.error_inside(value, request_id=request_id, partial=partial)
    if not isinstance(value.get("message"), str):
        return None
    found = value.get("id")
    wrapped = {"error": {key: value.get(key) for key in ("message", "code", "status", "status_code")}}
    known = found if isinstance(found, str) and found else request_id
    return openai_errors.error_inside(wrapped, request_id=known, partial=partial)
