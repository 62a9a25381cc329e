"""OpenAI's Responses dialect, spoken by OpenAI, OpenRouter, LM Studio, Ollama, vLLM and llama.cpp beside their chat.

Pure functions for adapters: ``encode_request``, ``decode_response``, ``decode_error`` and the stream reader
``ResponseStream``. ``ResponsesOptions`` holds the differences between servers. Refused requests have the shape of the
chat dialect; an error inside a stream is flat or nested. The server's half is in ``testing/_mirrors/responses.py``.
"""

from __future__ import annotations

from llm_council._wire.openai_chat.errors import decode_error
from llm_council._wire.responses.reply import decode_response
from llm_council._wire.responses.request import LEAST_TOKENS, ResponsesOptions, encode_request
from llm_council._wire.responses.stream import EventDecoder, ResponseStream

__all__ = [
    "LEAST_TOKENS",
    "EventDecoder",
    "ResponseStream",
    "ResponsesOptions",
    "decode_error",
    "decode_response",
    "encode_request",
]
