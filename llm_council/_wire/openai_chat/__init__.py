"""The OpenAI chat dialect, spoken by OpenAI, OpenRouter, vLLM, LM Studio, Ollama, llama.cpp and most gateways.

A symmetrical codec of pure functions: what adapters use (``encode_request``, ``decode_response``, ``ChatStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_chunks``, ``encode_error``). In what servers differ is data: ``ChatOptions``.
"""

from __future__ import annotations

from llm_council._wire.openai_chat.errors import decode_error, encode_error
from llm_council._wire.openai_chat.options import ChatOptions, ReasoningStyle, SchemaStyle
from llm_council._wire.openai_chat.reply import decode_response
from llm_council._wire.openai_chat.request import decode_request, encode_request
from llm_council._wire.openai_chat.stream import ChatStream, ChunkDecoder
from llm_council.testing._mirrors.openai_chat_reply import DONE, encode_chunks, encode_response, frame

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
