"""AI21: the Jamba models.

The dialect is OpenAI's chat without the fields that AI21's API reference lacks: contents are strings only, and there is
no ``tool_choice``, no ``json_schema``, no name on a turn and no ``strict`` on a tool. Replies are decoded as OpenAI's.
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from llm_council._wire.openai_chat import ChatOptions, ReasoningStyle, SchemaStyle
from llm_council._wire.openai_chat import ChatStream as OpenAIStream
from llm_council._wire.openai_chat import encode_request as _encode_for_openai
from llm_council.models._attrs import copy_with
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.limits import Limits
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.transports import HttpReply

__all__ = ["AI21Provider"]

CHAT = ChatOptions(
    vendor="ai21",
    parses_arguments=True,
    reasoning=ReasoningStyle.NONE,
    schema=SchemaStyle.JSON_OBJECT,
    stream_usage=False,  # the last event has the usage in any case
)
"""The options of AI21's server."""

_LIMITS = Limits()


def encode_request(request: GenerateRequest, options: ChatOptions = CHAT) -> dict[str, Any]:
    """Encode a request; ``extra`` is added unchanged.

    Args:
        request: the request, already fitted to the model.
        options: the model's differences.

    Raises:
        InvalidOption: a tool's result without ``tool_call_id``.
    """
    tools = [
        attrs.evolve(tool, strict=None, parameters={"properties": {}, **tool.parameters}) for tool in request.tools
    ]
    payload = _encode_for_openai(attrs.evolve(request, tools=tools) if tools else request, options)
    if request.tool_choice is not None and "tool_choice" not in request.extra:
        del payload["tool_choice"]
    for turn in payload["messages"]:
        turn.pop("name", None)
        if turn["content"] is None:  # of a turn with tool calls; AI21 requires a string
            turn["content"] = ""
    return payload


class ChatStream(OpenAIStream):
    """Read the body of a stream, see ``llm_council._wire.openai_chat.ChatStream``.

    Args:
        options: the model's differences.
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the reply's headers; None takes the id in the stream.
        model: the requested model, since the stream does not name the model.
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
        """Return what these bytes add to the answer."""
        return self._named(super().feed(data))

    def finish(self) -> list[GenerateChunk]:
        """Return what the end of the body adds."""
        return self._named(super().finish())

    def _named(self, chunks: list[GenerateChunk]) -> list[GenerateChunk]:
        if chunks and self._asked:
            chunks[0] = attrs.evolve(chunks[0], model=chunks[0].model or self._asked)
            self._asked = None
        return chunks


class AI21Provider(OpenAICompatibleProvider):
    """AI21's Jamba models. Reads ``AI21_API_KEY``, and ``AI21_BASE_URL`` for another address.

    They accept text and tools. ``tool_choice`` is not supported. Answers can be restricted to JSON, but a schema is
    only described in the prompt. AI21 has no list of models, so ``doctor`` always makes a call, of one token.
    """

    name = "ai21"
    capabilities = ProviderCapabilities(streaming=True, tool_use=True, structured_output=True)

    BASE_URL: ClassVar[str] = "https://api.ai21.com/studio/v1"
    BASE_URL_ENV: ClassVar[str | None] = "AI21_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "AI21_API_KEY"
    CHAT: ClassVar[ChatOptions] = CHAT

    def build_payload(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the JSON body of a fitted request with a model; override to change it."""
        return encode_request(request, self._options(request))

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        response = super()._decode(data, request, reply)
        return response if response.model else copy_with(response, model=request.model)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> ChatStream:
        return ChatStream(self._options(request), self._limits, request_id=head.request_id, model=request.model)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Request one token, the cheapest call that proves the key."""
        response = await self.generate(GenerateRequest(prompt="Hi", max_tokens=1))
        return f"{self.base_url} answers with {response.model}", {"models": [self.default_model]}
