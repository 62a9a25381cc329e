"""Google's dialect: ``generateContent``, as the Gemini API and Vertex AI speak it.

A symmetrical codec of pure functions: what adapters use (``encode_request``, ``decode_response``, ``GeminiStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_chunks``, ``encode_array``, ``encode_error``). In what models differ is data:
``GeminiOptions``.
"""

from __future__ import annotations

from llm_council.providers._google.errors import decode_error, encode_error
from llm_council.providers._google.options import GeminiOptions, ThinkingStyle
from llm_council.providers._google.reply import FrameDecoder, decode_response
from llm_council.providers._google.request import decode_request, encode_request
from llm_council.providers._google.stream import ArraySplitter, GeminiStream
from llm_council.testing._mirrors.gemini_reply import encode_array, encode_chunks, encode_response, frame

__all__ = [
    "ArraySplitter",
    "FrameDecoder",
    "GeminiOptions",
    "GeminiStream",
    "ThinkingStyle",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_array",
    "encode_chunks",
    "encode_error",
    "encode_request",
    "encode_response",
    "frame",
]
