"""Replicate's dialect: predictions, which are created, polled until they end, streamed, and cancelled.

Specification: https://replicate.com/docs/reference/http. The server's half, which the tests need, is in
``llm_council.testing``.
"""

from __future__ import annotations

from llm_council.providers._replicate.errors import decode_error
from llm_council.providers._replicate.reply import Prediction, decode_response, read_prediction
from llm_council.providers._replicate.request import (
    ModelInputs,
    encode_request,
    fit,
    predictions_path,
    read_inputs,
    schema_path,
)
from llm_council.providers._replicate.stream import PredictionStream

__all__ = [
    "ModelInputs",
    "Prediction",
    "PredictionStream",
    "decode_error",
    "decode_response",
    "encode_request",
    "fit",
    "predictions_path",
    "read_inputs",
    "read_prediction",
    "schema_path",
]
