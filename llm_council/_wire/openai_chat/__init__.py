"""The OpenAI chat dialect, spoken by OpenAI, OpenRouter, vLLM, LM Studio, Ollama, llama.cpp and most gateways.

Pure functions for adapters: ``encode_request``, ``decode_response``, ``decode_error``, and the stream reader
``ChatStream``. ``ChatOptions`` holds the differences between servers. The server's half is in
``testing/_mirrors/openai_chat.py``.
"""

from __future__ import annotations

from llm_council._wire.openai_chat.errors import decode_error
from llm_council._wire.openai_chat.reply import decode_response
from llm_council._wire.openai_chat.request import ChatOptions, ReasoningStyle, SchemaStyle, encode_request
from llm_council._wire.openai_chat.stream import ChatStream, ChunkDecoder

__all__ = [
    "ChatOptions",
    "ChatStream",
    "ChunkDecoder",
    "ReasoningStyle",
    "SchemaStyle",
    "decode_error",
    "decode_response",
    "encode_request",
]
