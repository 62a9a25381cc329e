"""Anthropic's Messages dialect, spoken by Anthropic, by Claude on cloud platforms and by some engines and gateways.

Pure functions that write requests and read replies, streams and errors. ``MessagesOptions`` holds how models differ.
"""

from __future__ import annotations

from llm_council.providers._anthropic.errors import decode_error
from llm_council.providers._anthropic.options import MessagesOptions, ThinkingStyle
from llm_council.providers._anthropic.reply import decode_response
from llm_council.providers._anthropic.request import encode_request
from llm_council.providers._anthropic.stream import EventDecoder, MessageStream
from llm_council.providers._anthropic.thinking import thinking_budget

__all__ = [
    "EventDecoder",
    "MessageStream",
    "MessagesOptions",
    "ThinkingStyle",
    "decode_error",
    "decode_response",
    "encode_request",
    "thinking_budget",
]
