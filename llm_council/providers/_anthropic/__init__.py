"""Anthropic's Messages dialect, spoken by Anthropic, by Claude on cloud platforms and by some engines and gateways.

A symmetrical codec of pure functions: what adapters use (``encode_request``, ``decode_response``, ``MessageStream``,
``decode_error``), and its mirror for fake vendors and for the laws that tests state (``decode_request``,
``encode_response``, ``encode_events``, ``encode_error``). In what models differ is data: ``MessagesOptions``.
"""

from __future__ import annotations

from llm_council._wire.anthropic_errors import decode_error, encode_error
from llm_council._wire.anthropic_mirror import encode_events, encode_response, frame
from llm_council._wire.anthropic_mirror_request import decode_request
from llm_council._wire.anthropic_options import MessagesOptions, ThinkingStyle
from llm_council._wire.anthropic_reply import decode_response
from llm_council._wire.anthropic_request import encode_request
from llm_council._wire.anthropic_stream import EventDecoder, MessageStream
from llm_council._wire.anthropic_thinking import thinking_budget

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
