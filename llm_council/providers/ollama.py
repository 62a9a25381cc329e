"""Ollama, through its native API: models on your own machine, or on ollama.com."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from llm_council._wire.history import InstructionPlace
from llm_council.errors import ProviderError
from llm_council.models._attrs import as_dict
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers._ollama import ChatOptions, ChatStream, decode_error, decode_response, encode_request
from llm_council.transports import HttpReply

__all__ = ["OllamaProvider"]


class OllamaProvider(HttpProvider):
    """An Ollama server. Reads ``OLLAMA_BASE_URL``, and ``OLLAMA_API_KEY`` for ``https://ollama.com``.

    Without a default model, requests go to the first model that the server lists. A server silently truncates prompts
    that are longer than its context: for long tasks raise it with ``extra_body={"options": {"num_ctx": 32768}}``.

    Args:
        extra_body: Ollama's own fields for every request, such as ``keep_alive``, and ``num_ctx`` inside ``options``; a
            request's ``extra`` replaces them.
        **options: those of ``OpenAICompatibleProvider``. ``/v1`` or ``/api`` at the end of ``base_url`` is removed.
    """

    name = "ollama"
    capabilities = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True
    )

    BASE_URL: ClassVar[str] = "http://localhost:11434"

    # The adapter ollama-openai reads the same variable, where the address ends in /v1.
    _ENDPOINTS = re.compile(r"/(?:v1|api)(?:/(?:chat|generate|tags|models|chat/completions|completions))?$")
    BASE_URL_ENV: ClassVar[str | None] = "OLLAMA_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "OLLAMA_API_KEY"
    NEEDS_KEY: ClassVar[bool] = False
    SERVES_WHAT_IT_LISTS: ClassVar[bool] = True

    def __init__(self, *, extra_body: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._extra_body = as_dict(extra_body)

    def _identity_extras(self) -> tuple[object, ...]:
        return *super()._identity_extras(), self._extra_body

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        return "/api/chat", encode_request(request, self._options(request), stream=stream)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return decode_response(data, self._options(request), request_id=reply.request_id)

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> ChatStream:
        return ChatStream(self._options(request), self._limits, request_id=head.request_id)

    def _options(self, request: GenerateRequest) -> ChatOptions:
        profile = self._profile_of(request.model)
        return ChatOptions(
            think_levels=profile.reasoning_style == "level",
            one_instruction=profile.instruction_place is InstructionPlace.FIRST,
            think_tags=True,
            body=self._extra_body,
        )

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Check the server's version and the models that it has."""
        found = await self._get("/api/version", missing=(404, 405))
        message, details = await super()._inspect()
        version = found.get("version") if isinstance(found, dict) else None
        return message, {**details, "version": version} if isinstance(version, str) else details

    async def _rows(self) -> list[dict[str, Any]] | None:
        data = await self._get("/api/tags", missing=(404, 405))
        listed = data.get("models") if isinstance(data, dict) else None
        if not isinstance(listed, list):
            return None
        # Both keys hold the same name (Ollama's docs, "List models"); old servers and imitations leave one out.
        named = [{**row, "id": row.get("model") or row.get("name")} for row in listed if isinstance(row, dict)]
        return [row for row in named if isinstance(row["id"], str)]
