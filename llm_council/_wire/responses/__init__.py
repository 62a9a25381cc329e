"""OpenAI's Responses dialect, spoken by OpenAI, OpenRouter, LM Studio, Ollama, vLLM and llama.cpp beside their chat.

A symmetrical codec of pure functions: what adapters use (``encode_request``, ``decode_response``, ``ResponseStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_events``, ``encode_error``). In what servers differ is data: ``ResponsesOptions``. Refused
requests are told as in the chat dialect; an error inside a stream is flat or nested.
"""

from __future__ import annotations

from llm_council._wire.openai_chat.errors import decode_error, encode_error
from llm_council._wire.responses.options import ResponsesOptions
from llm_council._wire.responses.reply import decode_response
from llm_council._wire.responses.request import LEAST_TOKENS, encode_request
from llm_council._wire.responses.stream import EventDecoder, ResponseStream
from llm_council.testing._mirrors.responses_reply import encode_events, encode_response, frame
from llm_council.testing._mirrors.responses_request import decode_request

__all__ = [
    "LEAST_TOKENS",
    "EventDecoder",
    "ResponseStream",
    "ResponsesOptions",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_error",
    "encode_events",
    "encode_request",
    "encode_response",
    "frame",
]
