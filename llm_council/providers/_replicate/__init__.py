"""Replicate's dialect: predictions, which are created, looked at until they end, streamed, and cancelled.

A symmetrical codec of pure functions: what the adapter uses (``encode_request``, ``read_inputs``, ``read_prediction``,
``decode_response``, ``PredictionStream``, ``decode_error``), and its mirror for fake vendors and for the laws that
tests state (``decode_request``, ``encode_response``, ``encode_events``, ``encode_error``). What a model's inputs are
called is data: ``ModelInputs``.
"""

from __future__ import annotations

from llm_council.providers._replicate.errors import decode_error, encode_error
from llm_council.providers._replicate.inputs import ModelInputs, read_inputs
from llm_council.providers._replicate.reply import (
    Prediction,
    decode_response,
    encode_events,
    encode_response,
    frame,
    read_prediction,
)
from llm_council.providers._replicate.request import decode_request, encode_request, predictions_path, schema_path
from llm_council.providers._replicate.stream import EventDecoder, PredictionStream

__all__ = [
    "EventDecoder",
    "ModelInputs",
    "Prediction",
    "PredictionStream",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_error",
    "encode_events",
    "encode_request",
    "encode_response",
    "frame",
    "predictions_path",
    "read_inputs",
    "read_prediction",
    "schema_path",
]
