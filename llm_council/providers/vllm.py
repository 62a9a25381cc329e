"""vLLM: an engine of your own."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_council._wire.openai import ChatOptions
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["VLLMProvider"]


class VLLMProvider(OpenAICompatibleProvider):
    """A vLLM server. Reads ``VLLM_BASE_URL``, and ``VLLM_API_KEY`` where it was started with ``--api-key``.

    Schemas go as ``response_format``; ``guided_json`` and its kin are ignored silently by the server, so they are not
    sent. Its own fields, such as ``top_k``, go into ``extra_body`` or a request's ``extra``.
    """

    name = "vllm"

    BASE_URL: ClassVar[str] = "http://localhost:8000/v1"
    BASE_URL_ENV: ClassVar[str | None] = "VLLM_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "VLLM_API_KEY"
    NEEDS_KEY: ClassVar[bool] = False
    SERVES_WHAT_IT_LISTS: ClassVar[bool] = True
    CHAT: ClassVar[ChatOptions] = ChatOptions(vendor="vllm", think_tags=True)

    def _facts(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"max_model_len": {row["id"]: row.get("max_model_len") for row in rows}}
