"""Streams of Replicate's dialect: events whose data is raw text, and one that says that the prediction has ended."""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_council._wire.payloads import loads
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.errors import MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.reply import FinishReason, GenerateChunk
from llm_council.providers._replicate.errors import failed
from llm_council.providers._replicate.reply import SUCCEEDED, decode_response, stopped

__all__ = ["EventDecoder", "PredictionStream"]

_LIMITS = Limits()


class EventDecoder(Decoder):
    """Read the events of one stream, in order. A space at the beginning of a piece, or a piece of spaces, is text.

    Args:
        limits: ``json_depth`` bounds the JSON of the last event.
        request_id: the prediction's id.
        model: the model that was asked; the stream does not say which one answers.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        super().__init__(limits, request_id=request_id)
        self._model = model
        self._begun = False

    def feed(self, event: SseEvent) -> GenerateChunk | None:
        """Return what an event adds to the answer; None when it adds nothing.

        Raises:
            ProviderError: the prediction failed, or was cancelled.
        """
        return None if self.done else self._read(event)

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        if event.event == "output":
            self._texts.append(event.data)
            return GenerateChunk(text=event.data, **self._first()) if event.data or not self._begun else None
        if event.event == "error":
            self.done = True
            raise failed(_detail(event.data), request_id=self._request_id, partial=self.partial or None)
        if event.event == "done":
            self.finished = self.done = True
            reason = _object(event.data).get("reason")
            if reason == "error":
                raise failed("", request_id=self._request_id, partial=self.partial or None)
            if reason is not None:
                raise stopped(str(reason), request_id=self._request_id, partial=self.partial or None)
            return GenerateChunk(finish_reason=FinishReason.STOP, raw_finish_reason=SUCCEEDED, **self._first())
        return None  # logs, and what comes to be

    def _first(self) -> dict[str, Any]:
        if self._begun:
            return {}
        self._begun = True
        return {"request_id": self._request_id, "model": self._model}


def _object(data: str) -> dict[str, Any]:
    try:
        value = loads(data)
    except MalformedReply:
        return {}
    return value if isinstance(value, dict) else {}


def _detail(data: str) -> str:
    detail = _object(data).get("detail")
    return detail if isinstance(detail, str) else data


class PredictionStream(BodyReader):
    """Read the body of a stream as it arrives: bytes in, pieces of the answer out.

    Args:
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the prediction's id.
        model: the model that was asked; the stream does not say which one answers.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        events = EventDecoder(limits, request_id=request_id, model=model)
        whole = partial(decode_response, request_id=request_id, model=model)
        super().__init__(events, SseSplitter(limits), limits, whole=whole)
