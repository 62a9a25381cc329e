"""Anthropic's Messages dialect, spoken by Anthropic, by Claude on cloud platforms and by some engines and gateways.

A symmetrical codec of pure functions: what adapters use (``encode_request``, ``decode_response``, ``MessageStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_events``, ``encode_error``). In what models differ is data: ``MessagesOptions``.
"""

from __future__ import annotations

from llm_council.providers._anthropic.errors import decode_error, encode_error
from llm_council.providers._anthropic.options import MessagesOptions, ThinkingStyle
from llm_council.providers._anthropic.reply import decode_response
from llm_council.providers._anthropic.request import encode_request
from llm_council.providers._anthropic.stream import EventDecoder, MessageStream
from llm_council.providers._anthropic.thinking import thinking_budget
from llm_council.testing._mirrors.anthropic_reply import encode_events, encode_response, frame
from llm_council.testing._mirrors.anthropic_request import decode_request

__all__ = [
    "EventDecoder",
    "MessageStream",
    "MessagesOptions",
    "ThinkingStyle",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_error",
    "encode_events",
    "encode_request",
    "encode_response",
    "frame",
    "thinking_budget",
]
