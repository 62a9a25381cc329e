"""AI21's chat dialect: OpenAI's, less the keys that AI21's own API reference does not have.

What reads it is OpenAI's half as it stands; only requests are written otherwise. Contents are strings and nothing else,
there is no ``tool_choice``, no ``json_schema`` and no name beside a turn, and a tool knows no ``strict``.
"""

from __future__ import annotations

from typing import Any

import attrs

from llm_council._wire.openai_chat import (
    DONE,
    ChatOptions,
    ReasoningStyle,
    SchemaStyle,
    decode_error,
    decode_request,
    decode_response,
    encode_chunks,
    encode_error,
    encode_response,
    frame,
)
from llm_council._wire.openai_chat import ChatStream as OpenAIStream
from llm_council._wire.openai_chat import encode_request as encode_for_openai
from llm_council.models.limits import Limits
from llm_council.models.reply import GenerateChunk
from llm_council.models.request import GenerateRequest

__all__ = [
    "CHAT",
    "DONE",
    "ChatStream",
    "decode_error",
    "decode_request",
    "decode_response",
    "encode_chunks",
    "encode_error",
    "encode_request",
    "encode_response",
    "frame",
]

CHAT = ChatOptions(
    vendor="ai21",
    reasoning=ReasoningStyle.NONE,
    schema=SchemaStyle.JSON_OBJECT,
    stream_usage=False,  # the last event counts the tokens, unasked
)
"""What AI21 takes."""

_LIMITS = Limits()


def encode_request(request: GenerateRequest, options: ChatOptions = CHAT) -> dict[str, Any]:
    """Write a request; ``extra`` goes beside the fields, as it is.

    Args:
        request: what is asked; ``fitting.fit`` has made it fit the model.
        options: in what the model differs.

    Raises:
        InvalidOption: a tool's result without ``tool_call_id``.
    """
    payload = encode_for_openai(request, options)
    if request.tool_choice is not None and "tool_choice" not in request.extra:
        del payload["tool_choice"]
    for turn in payload["messages"]:
        turn.pop("name", None)
        if turn["content"] is None:  # beside the calls of tools
            turn["content"] = ""
    if request.tools and "tools" not in request.extra:
        for tool in payload["tools"]:
            tool["function"].pop("strict", None)
            tool["function"]["parameters"].setdefault("properties", {})
    return payload


class ChatStream(OpenAIStream):
    """Read the body of a stream, see ``llm_council._wire.openai_chat.ChatStream``.

    Args:
        options: in what the model differs.
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the reply's headers; None takes the one in the stream.
        model: the model that was asked; the stream does not say which one answers.
    """

    def __init__(
        self,
        options: ChatOptions = CHAT,
        limits: Limits = _LIMITS,
        *,
        request_id: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(options, limits, request_id=request_id)
        self._asked = model

    def feed(self, data: bytes) -> list[GenerateChunk]:
        """Return what these bytes add to the answer: nothing for a keep-alive."""
        return self._named(super().feed(data))

    def finish(self) -> list[GenerateChunk]:
        """Return what the end of the body adds."""
        return self._named(super().finish())

    def _named(self, chunks: list[GenerateChunk]) -> list[GenerateChunk]:
        if chunks and self._asked:
            chunks[0] = attrs.evolve(chunks[0], model=chunks[0].model or self._asked)
            self._asked = None
        return chunks
