"""The OpenAI chat dialect, spoken by OpenAI, OpenRouter, vLLM, LM Studio, Ollama, llama.cpp and most gateways.

A symmetrical codec of pure functions: what adapters use (``encode_request``, ``decode_response``, ``ChatStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_chunks``, ``encode_error``). In what servers differ is data: ``ChatOptions``.
"""

from __future__ import annotations

from llm_council._wire.openai_errors import decode_error, encode_error
from llm_council._wire.openai_mirror import DONE, encode_chunks, encode_response, frame
from llm_council._wire.openai_options import ChatOptions, ReasoningStyle, SchemaStyle
from llm_council._wire.openai_reply import decode_response
from llm_council._wire.openai_request import decode_request, encode_request
from llm_council._wire.openai_stream import ChatStream, ChunkDecoder

__all__ = [
    "DONE",
    "ChatOptions",
    "ChatStream",
    "ChunkDecoder",
    "ReasoningStyle",
    "SchemaStyle",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_chunks",
    "encode_error",
    "encode_request",
    "encode_response",
    "frame",
]
