"""LM Studio: models on your own machine."""

from __future__ import annotations

from typing import ClassVar

import attrs

from llm_council._wire.openai_chat import ChatOptions
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["LMStudioProvider"]


class LMStudioProvider(OpenAICompatibleProvider):
    """LM Studio's server. Reads ``LMSTUDIO_BASE_URL``, and ``LMSTUDIO_API_KEY`` if the server requires a token.

    With one model loaded the server may answer with that model, whatever the request names: see ``response.model``.
    """

    name = "lmstudio"
    # Reasoning arrives in answers, but no request field sets its effort.
    capabilities = attrs.evolve(OpenAICompatibleProvider.capabilities, reasoning=False)

    BASE_URL: ClassVar[str] = "http://localhost:1234/v1"
    BASE_URL_ENV: ClassVar[str | None] = "LMSTUDIO_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "LMSTUDIO_API_KEY"
    NEEDS_KEY: ClassVar[bool] = False
    SERVES_WHAT_IT_LISTS: ClassVar[bool] = True
    CHAT: ClassVar[ChatOptions] = ChatOptions(
        vendor="lmstudio",
        parses_arguments=True,
        think_tags=True,
        seed="seed",  # docs, "Chat Completions", supported payload parameters
    )
