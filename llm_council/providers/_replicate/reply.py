"""Predictions of Replicate's dialect, and the answers in them."""

from __future__ import annotations

import json
from typing import Any

import attrs

from llm_council._wire.openai_chat.reply import picked
from llm_council._wire.payloads import get_text, malformed, need_object, tokens
from llm_council.errors import TruncatedReply
from llm_council.models.reply import FinishReason, GenerateResponse, Usage
from llm_council.providers._replicate.errors import failed

__all__ = ["SUCCEEDED", "Prediction", "decode_response", "read_prediction", "stopped"]

SUCCEEDED = "succeeded"
_FAILED = "failed"
_STOPPED = frozenset({"canceled", "aborted"})
_EXTRA = ("version", "metrics", "logs")
_IN, _OUT = "input_token_count", "output_token_count"


@attrs.frozen(kw_only=True)
class Prediction:
    """What is known of a prediction.

    Attributes:
        id: its id.
        status: the vendor's word: ``"starting"``, ``"processing"``, or one of those with which it ends.
        text: the answer, as far as it has come; None when nothing has.
        error: why it failed.
        stream_url: where its pieces arrive, for a model that streams.
        raw: all that the vendor says of it.
    """

    id: str
    status: str
    text: str | None = None
    error: str | None = None
    stream_url: str | None = None
    raw: dict[str, Any] = attrs.field(factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes: a prediction that is processing may have all of its output already."""
        return self.status in (SUCCEEDED, _FAILED) or self.status in _STOPPED

    @property
    def usage(self) -> Usage | None:
        """The tokens, where the model counts them."""
        metrics = self.raw.get("metrics")
        counted = metrics if isinstance(metrics, dict) else {}
        usage = Usage(input_tokens=tokens(counted.get(_IN)), output_tokens=tokens(counted.get(_OUT)))
        return None if usage.total_tokens is None else usage

    @property
    def extra(self) -> dict[str, Any]:
        """What else the vendor says that a caller may want: the version, metrics with times, the model's logs."""
        return picked(self.raw, _EXTRA)

    def finish(self, max_tokens: int | None = None) -> FinishReason:
        """Return why the model stopped, which the vendor does not say: the count of tokens may show it.

        Args:
            max_tokens: most tokens that were asked for.
        """
        came = self.usage.output_tokens if self.usage is not None else None
        cut = came is not None and max_tokens is not None and came >= max_tokens
        return FinishReason.LENGTH if cut else FinishReason.STOP


def read_prediction(data: Any) -> Prediction:
    """Read a prediction, whatever has become of it.

    Raises:
        MalformedReply: this is none.
    """
    found = need_object(data, "$")
    known = {key: get_text(found, key, "$") for key in ("id", "status")}
    for key, word in known.items():
        if not word:
            raise malformed(f"$.{key}", "a text", found.get(key))
    urls = found.get("urls")
    streamed = urls.get("stream") if isinstance(urls, dict) else None
    error = found.get("error")
    return Prediction(
        id=str(known["id"]),
        status=str(known["status"]),
        text=_text(found.get("output")),
        error=error if isinstance(error, str) else None if error is None else json.dumps(error, ensure_ascii=False),
        stream_url=streamed if isinstance(streamed, str) and streamed else None,
        raw=found,
    )


def _text(output: Any) -> str | None:
    """Return an output as text: language models give a list of pieces, others a text, or a value of their own."""
    if output is None or isinstance(output, str):
        return output
    if isinstance(output, list) and all(isinstance(piece, str) for piece in output):
        return "".join(output)
    return json.dumps(output, ensure_ascii=False)


def decode_response(
    data: Any, *, request_id: str | None = None, model: str | None = None, max_tokens: int | None = None
) -> GenerateResponse:
    """Read the answer in a prediction.

    Args:
        data: the prediction's JSON value.
        request_id: None takes the prediction's own id.
        model: the model that was asked, where the prediction does not say.
        max_tokens: most tokens that were asked for, by which an answer that was cut is told.

    Returns:
        The answer. That of a prediction which has not ended is what has come so far, without a finish reason.

    Raises:
        ProviderError: the prediction failed.
        TruncatedReply: it was cancelled.
        MalformedReply: this is no prediction.
    """
    found = read_prediction(data)
    request_id = request_id or found.id
    if found.status == _FAILED:
        raise failed(found.error or "", request_id=request_id, partial=found.text or None)
    if found.status in _STOPPED:
        raise stopped(found.status, request_id=request_id, partial=found.text or None)
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


def stopped(word: str, *, request_id: str | None, partial: str | None) -> TruncatedReply:
    """Return the error of a prediction that somebody cancelled, or whose time was up."""
    message = f"the prediction was {word}: by somebody else, or by the end of its time"
    return TruncatedReply(message, request_id=request_id, partial=partial, retryable=False)
