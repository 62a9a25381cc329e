"""AI21: the Jamba models."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_council._wire.openai_chat import ChatOptions
from llm_council.models._attrs import copy_with
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._ai21 import CHAT, ChatStream, encode_request
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.transports import HttpReply

__all__ = ["AI21Provider"]


class AI21Provider(OpenAICompatibleProvider):
    """AI21's Jamba models. Reads ``AI21_API_KEY``, and ``AI21_BASE_URL`` for another address.

    They take text and tools; a tool can be neither forced nor forbidden by name, and an answer can be held to JSON, its
    schema only asked for. AI21 lists no models, so that even the cheap ``doctor`` makes a call: of one token.
    """

    name = "ai21"
    capabilities = ProviderCapabilities(streaming=True, tool_use=True, structured_output=True)

    BASE_URL: ClassVar[str] = "https://api.ai21.com/studio/v1"
    BASE_URL_ENV: ClassVar[str | None] = "AI21_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "AI21_API_KEY"
    CHAT: ClassVar[ChatOptions] = CHAT

    def build_payload(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the JSON body of a request, which has its model and has been fitted; override to change it."""
        return encode_request(request, self._options(request))

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        response = super()._decode(data, request, reply)
        return response if response.model else copy_with(response, model=request.model)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> ChatStream:
        return ChatStream(self._options(request), self._limits, request_id=head.request_id, model=request.model)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Ask for one token: there is nothing cheaper that proves the key."""
        response = await self.generate(GenerateRequest(prompt="Hi", max_tokens=1))
        return f"{self.base_url} answers with {response.model}", {"models": [self.default_model]}
