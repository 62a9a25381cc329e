"""Errors of Cohere's chat dialect: ``{"id", "message"}``, without a code, so the status and the message decide."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.failures import Rows, TextRow
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council._wire.payloads import loads_object, text_or_none
from llm_council.errors import ContentFiltered, ContextTooLong, ProviderError

__all__ = ["decode_error", "error_inside"]

_LONG = re.compile(r"(?i)too many tokens|number of tokens[^\n]{0,80}(?:exceed|too (?:long|large))")
# The dialect has no codes. 498: the prompt or the answer was withheld (Cohere's docs, "Errors"; InvalidTokenError).
ROWS = Rows(texts=(*openai_errors.TEXTS, TextRow(ContextTooLong, _LONG)), classes={498: ContentFiltered})


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Decode the reply to a refused request.

    Arguments are those of ``failures.ErrorDecoder``.
    """
    headers = failures.lowered(headers)
    # Unix seconds, as Cohere's own client reads it (cohere.core.http_client).
    reset = headers.get("x-ratelimit-reset", "")
    text = failures.text_of(body)
    found = text_or_none((loads_object(text) or {}).get("id"))
    return openai_errors.decode_error(
        status,
        headers,
        text,
        now=now,
        request_id=request_id or found or headers.get("x-debug-trace-id"),
        delay=float(reset[:15]) - now if now is not None and reset.isdecimal() else None,
        rows=ROWS,
    )


def error_inside(
    value: Mapping[str, Any], *, request_id: str | None = None, partial: str | None = None
) -> ProviderError | None:
    """Return the error in a reply with status 200, or in an event of a stream; None if it is not an error.

    An error has a text as ``message``, where a reply has an object, and events have a ``delta``.
    """
    if "delta" in value or isinstance(value.get("message"), dict):
        return None
    if value.get("error"):  # a gateway's form
        return openai_errors.error_inside(value, request_id=request_id, partial=partial)
    if not isinstance(value.get("message"), str):
        return None
    # The dialect has no such error: codes and statuses here are those of gateways.
    wrapped = {"error": {key: value.get(key) for key in ("message", "code", "status", "status_code")}}
    return openai_errors.error_inside(wrapped, request_id=text_or_none(value.get("id")) or request_id, partial=partial)
