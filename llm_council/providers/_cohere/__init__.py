"""Cohere's chat dialect, ``POST /v2/chat``: JSON, and streams of named events.

A symmetrical codec of pure functions: what the adapter uses (``encode_request``, ``decode_response``, ``ChatStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_events``, ``encode_error``).
"""

from __future__ import annotations

from llm_council.providers._cohere.errors import decode_error, encode_error
from llm_council.providers._cohere.reply import DONE, decode_response, encode_events, encode_response, frame
from llm_council.providers._cohere.request import decode_request, encode_request
from llm_council.providers._cohere.stream import ChatStream, EventDecoder

__all__ = [
    "DONE",
    "ChatStream",
    "EventDecoder",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_error",
    "encode_events",
    "encode_request",
    "encode_response",
    "frame",
]
