"""Ollama's own chat dialect, ``POST /api/chat``: JSON, and streams of newline-delimited JSON.

Specification: https://docs.ollama.com/api/chat. An error is a string under ``"error"``, which the error reader of the
OpenAI dialect understands. The server's half, which the tests need, is in ``llm_council.testing``.
"""

from __future__ import annotations

from llm_council._wire.openai_chat.errors import decode_error
from llm_council.providers._ollama.reply import decode_response
from llm_council.providers._ollama.request import ChatOptions, encode_request
from llm_council.providers._ollama.stream import ChatStream

__all__ = ["ChatOptions", "ChatStream", "decode_error", "decode_response", "encode_request"]
