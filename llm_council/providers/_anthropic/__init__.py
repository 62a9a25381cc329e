"""Anthropic's Messages dialect, ``POST /v1/messages``: Anthropic, Claude on cloud platforms, and some gateways.

Specification: https://platform.claude.com/docs/en/api/messages. The server's half, which the tests need, is in
``llm_council.testing``.
"""

from __future__ import annotations

from llm_council.providers._anthropic.errors import decode_error
from llm_council.providers._anthropic.reply import decode_response
from llm_council.providers._anthropic.request import MessagesOptions, encode_request
from llm_council.providers._anthropic.stream import MessageStream

__all__ = ["MessageStream", "MessagesOptions", "decode_error", "decode_response", "encode_request"]
