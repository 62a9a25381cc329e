"""Predictions of Replicate's dialect, and the answers in them."""

from __future__ import annotations

import json
from typing import Any

import attrs

from llm_council._wire.payloads import (
    get_object,
    get_text,
    malformed,
    need_object,
    pick_non_empty,
    text_or_none,
    tokens,
)
from llm_council.errors import TruncatedReply
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._replicate.errors import prediction_error

__all__ = ["SUCCEEDED", "Prediction", "cancelled_error", "decode_response", "read_prediction"]

SUCCEEDED = "succeeded"
_FAILED = "failed"
# "aborted": the deadline passed before the prediction started (Replicate's changelog 2025-10-16).
_CANCELLED = frozenset({"canceled", "aborted"})
_EXTRA = ("version", "metrics", "logs")


@attrs.frozen(kw_only=True)
class Prediction:
    """The state of a prediction.

    Attributes:
        id: the prediction's id.
        status: ``"starting"``, ``"processing"``, ``"succeeded"``, ``"failed"``, ``"canceled"`` or ``"aborted"``.
        text: the answer so far; None if there is none yet.
        error: why it failed.
        stream_url: the URL of the stream, for a model that streams.
        raw: the whole JSON of the prediction.
    """

    id: str
    status: str
    text: str | None = None
    error: str | None = None
    stream_url: str | None = None
    raw: dict[str, Any] = attrs.field(factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Return True if the state is final. A prediction that is processing may already have its whole output."""
        return self.status in (SUCCEEDED, _FAILED) or self.status in _CANCELLED

    @property
    def usage(self) -> Usage | None:
        """Return the token counts; None if the model reports none."""
        counts = get_object(self.raw, "metrics")  # those of language models; others report times only
        usage = Usage(
            input_tokens=tokens(counts.get("input_token_count")),
            output_tokens=tokens(counts.get("output_token_count")),
        )
        return None if usage.total_tokens is None else usage

    @property
    def extra(self) -> dict[str, Any]:
        """Return the version, the metrics (with times in seconds), and the model's logs."""
        return pick_non_empty(self.raw, _EXTRA)

    def finish(self, max_tokens: int | None = None) -> FinishReason:
        """Return the finish reason. Replicate does not report one: an answer of ``max_tokens`` counts as cut off.

        Args:
            max_tokens: the limit on answer tokens in the request.
        """
        count = self.usage.output_tokens if self.usage is not None else None
        is_cut = count is not None and max_tokens is not None and count >= max_tokens
        return FinishReason.LENGTH if is_cut else FinishReason.STOP


def read_prediction(data: Any) -> Prediction:
    """Decode a prediction in any state.

    Raises:
        MalformedReply: the JSON is not a prediction.
    """
    found = need_object(data, "$")
    for key in ("id", "status"):
        if not get_text(found, key, "$"):
            raise malformed(f"$.{key}", "a text", found.get(key))
    error = found.get("error")
    if error is not None and not isinstance(error, str):
        error = json.dumps(error, ensure_ascii=False)
    return Prediction(
        id=found["id"],
        status=found["status"],
        text=_read_output(found.get("output")),
        error=error,
        stream_url=text_or_none(get_object(found, "urls").get("stream")),
        raw=found,
    )


def _read_output(output: Any) -> str | None:
    """Return an output as text. Language models write a list of pieces; other models a text, or any JSON value."""
    if output is None or isinstance(output, str):
        return output
    if isinstance(output, list) and all(isinstance(piece, str) for piece in output):
        return "".join(output)
    return json.dumps(output, ensure_ascii=False)


def decode_response(
    data: Any, *, request_id: str | None = None, model: str | None = None, max_tokens: int | None = None
) -> GenerateResponse:
    """Decode the answer in a prediction.

    Args:
        data: the JSON value of the prediction.
        request_id: the request's id; None means the prediction's own id.
        model: the model that the request named, for a prediction that names none.
        max_tokens: the limit on answer tokens in the request; see ``Prediction.finish``.

    Returns:
        The answer. For a prediction that has not ended, it is the text so far, without a finish reason.

    Raises:
        ProviderError: the prediction failed.
        TruncatedReply: the prediction was cancelled.
        MalformedReply: the JSON is not a prediction.
    """
    found = read_prediction(data)
    request_id = request_id or found.id
    if found.status == _FAILED:
        raise prediction_error(found.error or "", request_id=request_id, partial=found.text or None)
    if found.status in _CANCELLED:
        raise cancelled_error(found.status, request_id=request_id, partial=found.text or None)
    done = found.status == SUCCEEDED
    return GenerateResponse(
        text=found.text,
        usage=found.usage,
        model=get_text(found.raw, "model", "$") or model,
        finish_reason=found.finish(max_tokens) if done else None,
        raw_finish_reason=SUCCEEDED if done else None,
        request_id=request_id,
        extra=found.extra,
        raw=data,
    )


def cancelled_error(status: str, *, request_id: str | None, partial: str | None) -> TruncatedReply:
    """Return the error for a prediction that was cancelled by someone else, or reached its deadline."""
    message = f"the prediction was {status} by another client, or at its deadline"
    return TruncatedReply(message, request_id=request_id, partial=partial, retryable=False)
