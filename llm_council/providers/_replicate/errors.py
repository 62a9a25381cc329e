"""Errors of Replicate's dialect: refused requests (``application/problem+json``), and predictions that failed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llm_council._wire import failures
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council._wire.payloads import loads_object
from llm_council.errors import ContentFiltered, ProviderError

__all__ = ["decode_error", "prediction_error"]

# Forms of an error code: "E6716: ...", "... (E005)", "... (code: PA)" (Replicate's docs, "Error codes").
_CODE = re.compile(r"\bE\d{3,4}\b|(?<=\(code: )[A-Za-z0-9_-]{1,20}(?=\))")
_FLAGGED = "E005"
_FINAL = frozenset({"E1001", "E4875"})  # out of memory for this input; a webhook without a URL


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Decode the reply to a refused request. The body holds the delay before a retry.

    Arguments are those of ``failures.ErrorDecoder``.
    """
    headers = failures.lowered(headers)
    text = failures.text_of(body)
    problem = loads_object(text) or {}
    title, detail = problem.get("title"), problem.get("detail")
    message = None
    if isinstance(title, str) and isinstance(detail, str) and title not in detail:
        message = f"{title}: {' '.join(detail.split())}"
    delay = problem.get("retry_after")
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        # Seconds until the limit resets, not a Unix time as with other vendors.
        delay = failures.seconds(headers.get("ratelimit-reset", "")) if status == 429 else None
    return openai_errors.decode_error(
        status, headers, text, now=now, request_id=request_id, message=message, delay=delay
    )


def prediction_error(message: str, *, request_id: str | None = None, partial: str | None = None) -> ProviderError:
    """Return the error of a prediction that failed.

    A message with a code comes from Replicate, and nearly all of its failures are temporary. A message without one
    comes from the model's own program, which would fail again.

    Args:
        message: the error of the prediction.
        request_id: the prediction's id.
        partial: the text so far.
    """
    found = _CODE.search(message)
    code = found[0] if found else None
    if code == _FLAGGED:
        return ContentFiltered(message, request_id=request_id, partial=partial)
    return failures.error_of(
        message or "the prediction failed",
        status=None,
        code=code,
        retryable=code is not None and code not in _FINAL,
        request_id=request_id,
        partial=partial,
    )
