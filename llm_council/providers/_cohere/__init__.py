"""Cohere's chat dialect, ``POST /v2/chat``: JSON, and streams of named server-sent events.

Specification: https://docs.cohere.com/reference/chat. The server's half, which the tests need, is in
``llm_council.testing``.
"""

from __future__ import annotations

from llm_council.providers._cohere.errors import decode_error
from llm_council.providers._cohere.reply import decode_response
from llm_council.providers._cohere.request import encode_request
from llm_council.providers._cohere.stream import ChatStream

__all__ = ["ChatStream", "decode_error", "decode_response", "encode_request"]
