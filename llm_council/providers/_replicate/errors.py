"""What Replicate says when it refuses, which is ``application/problem+json``, and when a prediction has failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llm_council._wire import failures
from llm_council._wire.openai_chat import errors as openai_errors
from llm_council._wire.payloads import loads
from llm_council.errors import ContentFiltered, MalformedReply, ProviderError

__all__ = ["decode_error", "failed"]

# "E6716: ...", "... (E005)", "... (code: PA)" (Replicate's documentation, "Error codes").
_CODE = re.compile(r"\bE\d{3,4}\b|(?<=\(code: )[A-Za-z0-9_-]{1,20}(?=\))")
_FLAGGED = "E005"
_FINAL = frozenset({"E1001", "E4875"})  # out of memory on this input; a webhook without an address


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Read the reply to a refused request; the delay that it asks for stands in the body.

    Arguments are those of ``failures.DecodeError``.
    """
    said = failures.lowered(headers)
    text = failures.text_of(body)
    problem = _parsed(text)
    title, detail = problem.get("title"), problem.get("detail")
    message = None
    if isinstance(title, str) and isinstance(detail, str) and title not in detail:
        message = f"{title}: {' '.join(detail.split())}"
    delay = problem.get("retry_after")
    if isinstance(delay, bool) or not isinstance(delay, int | float):
        # Seconds, as everything here.
        delay = failures.seconds(said.get("ratelimit-reset", "")) if status == 429 else None
    return openai_errors.decode_error(status, said, text, now=now, request_id=request_id, message=message, delay=delay)


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = loads(text)
    except MalformedReply:
        return {}
    return value if isinstance(value, dict) else {}


def failed(message: str, *, request_id: str | None = None, partial: str | None = None) -> ProviderError:
    """Return the error of a prediction that has failed.

    A code is Replicate's own word, and nearly every one of its failures passes; a text without one is what the model's
    own program raised, which it will raise again.

    Args:
        message: what the prediction says of it.
        request_id: the prediction's id.
        partial: the text that had arrived.
    """
    found = _CODE.search(message)
    code = found[0] if found else None
    if code == _FLAGGED:
        return ContentFiltered(message, request_id=request_id, partial=partial)
    return failures.failure(
        message or "the prediction failed",
        status=None,
        code=code,
        retryable=code is not None and code not in _FINAL,
        request_id=request_id,
        partial=partial,
    )
