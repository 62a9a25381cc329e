"""OpenAI, Chat Completions."""

from __future__ import annotations

from typing import ClassVar

from llm_council._wire.openai import ChatOptions
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["OpenAIProvider"]


class OpenAIProvider(OpenAICompatibleProvider):
    """OpenAI's own models. Reads ``OPENAI_API_KEY``, and ``OPENAI_BASE_URL`` for another address.

    Headers ``OpenAI-Organization`` and ``OpenAI-Project`` go into ``headers``. OpenAI takes no idempotency key.
    """

    name = "openai"

    BASE_URL: ClassVar[str] = "https://api.openai.com/v1"
    BASE_URL_ENV: ClassVar[str | None] = "OPENAI_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "OPENAI_API_KEY"
    CHAT: ClassVar[ChatOptions] = ChatOptions(vendor="openai", developer_role="developer")
