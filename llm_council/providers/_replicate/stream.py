"""Streams of Replicate's dialect: events whose data is raw text, and a last event that ends the prediction.

Specification: https://replicate.com/docs/topics/predictions/streaming.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_council._wire.payloads import loads_object
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.models.limits import Limits
from llm_council.models.reply import FinishReason, GenerateChunk
from llm_council.providers._replicate.errors import prediction_error
from llm_council.providers._replicate.reply import SUCCEEDED, cancelled_error, decode_response

__all__ = ["EventDecoder", "PredictionStream"]

_LIMITS = Limits()


class EventDecoder(Decoder):
    """Decode the events of one stream, in order.

    Args:
        limits: ``json_depth`` bounds the JSON of the last event.
        request_id: the prediction's id.
        model: the model that the request named; the stream does not name one.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        super().__init__(limits, request_id=request_id)
        self._model = model
        self._begun = False

    def feed(self, event: SseEvent) -> GenerateChunk | None:
        """Return the chunk of an event; None if it adds nothing.

        Overridden because blank data is text here, and not a keep-alive.

        Raises:
            ProviderError: the prediction failed, or was cancelled.
        """
        return None if self.done else self._read(event)

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        if event.event == "output":
            # The data is text and not JSON, so its leading spaces count.
            self._texts.append(event.data)
            return GenerateChunk(text=event.data, **self._names()) if event.data or not self._begun else None
        if event.event == "error":
            self.done = True
            detail = (loads_object(event.data) or {}).get("detail")
            message = detail if isinstance(detail, str) else event.data
            raise prediction_error(message, request_id=self._request_id, partial=self.partial or None)
        if event.event == "done":
            self.finished = self.done = True
            reason = (loads_object(event.data) or {}).get("reason")
            if reason == "error":
                raise prediction_error("", request_id=self._request_id, partial=self.partial or None)
            if reason is not None:
                raise cancelled_error(str(reason), request_id=self._request_id, partial=self.partial or None)
            return GenerateChunk(finish_reason=FinishReason.STOP, raw_finish_reason=SUCCEEDED, **self._names())
        return None  # logs, and events of unknown types

    def _names(self) -> dict[str, Any]:
        """Return the facts of the first chunk; nothing for later ones."""
        if self._begun:
            return {}
        self._begun = True
        return {"request_id": self._request_id, "model": self._model}


class PredictionStream(BodyReader):
    """Decode the body of a stream as it arrives, from bytes to chunks.

    Args:
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the prediction's id.
        model: the model that the request named; the stream does not name one.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        events = EventDecoder(limits, request_id=request_id, model=model)
        whole = partial(decode_response, request_id=request_id, model=model)
        super().__init__(events, SseSplitter(limits), limits, whole=whole)
