"""Replicate's dialect: predictions, which are created, polled until they end, streamed, and cancelled.

Specification: https://replicate.com/docs/reference/http. The server's half, which the tests need, is in
``llm_council.testing``.
"""

from __future__ import annotations

from llm_council.providers._replicate.errors import decode_error
from llm_council.providers._replicate.reply import decode_response
from llm_council.providers._replicate.request import ModelInputs, encode_request
from llm_council.providers._replicate.stream import PredictionStream

__all__ = ["ModelInputs", "PredictionStream", "decode_error", "decode_response", "encode_request"]
