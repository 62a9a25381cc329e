"""Google's dialect, ``generateContent``, which the Gemini API and Vertex AI share.

Specification: https://ai.google.dev/api/generate-content. The server's half, which the tests need, is in
``llm_council.testing``.
"""

from __future__ import annotations

from llm_council.providers._google.errors import decode_error
from llm_council.providers._google.reply import decode_response
from llm_council.providers._google.request import GeminiOptions, encode_request
from llm_council.providers._google.stream import GeminiStream

__all__ = ["GeminiOptions", "GeminiStream", "decode_error", "decode_response", "encode_request"]
