"""Ollama's own chat dialect, ``POST /api/chat``: JSON, and streams of newline-delimited JSON.

A symmetrical codec of pure functions: what the adapter uses (``encode_request``, ``decode_response``, ``ChatStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_chunks``, ``encode_error``). Errors are a string under ``"error"``, a shape that the
OpenAI dialect's readers know.
"""

from __future__ import annotations

from llm_council._wire.openai_chat.errors import decode_error
from llm_council.providers._ollama.reply import decode_response, encode_chunks, encode_error, encode_response, frame
from llm_council.providers._ollama.request import ChatOptions, decode_request, encode_request
from llm_council.providers._ollama.stream import ChatStream

__all__ = [
    "ChatOptions",
    "ChatStream",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_chunks",
    "encode_error",
    "encode_request",
    "encode_response",
    "frame",
]
