"""Google's dialect: ``generateContent``, as the Gemini API and Vertex AI speak it.

Pure functions that write requests and read replies, streams and errors. ``GeminiOptions`` holds how models differ.
"""

from __future__ import annotations

from llm_council.providers._google.errors import decode_error
from llm_council.providers._google.options import GeminiOptions, ThinkingStyle
from llm_council.providers._google.reply import FrameDecoder, decode_response
from llm_council.providers._google.request import encode_request
from llm_council.providers._google.stream import ArraySplitter, GeminiStream

__all__ = [
    "ArraySplitter",
    "FrameDecoder",
    "GeminiOptions",
    "GeminiStream",
    "ThinkingStyle",
    "decode_error",
    "decode_response",
    "encode_request",
]
