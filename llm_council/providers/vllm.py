"""vLLM: an inference server that you run yourself."""

from __future__ import annotations

from typing import Any, ClassVar

from llm_council._wire.openai_chat import ChatOptions
from llm_council.errors import InvalidOption
from llm_council.models.request import GenerateRequest
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["VLLMProvider"]


class VLLMProvider(OpenAICompatibleProvider):
    """A vLLM server. Reads ``VLLM_BASE_URL``, and ``VLLM_API_KEY`` for a server started with ``--api-key``.

    Schemas are sent as ``response_format``. vLLM's own fields, such as ``top_k``, go into ``extra_body`` or a request's
    ``extra``. ``guided_json`` and the other ``guided_*`` fields are refused, since the server ignores them silently.
    """

    name = "vllm"

    BASE_URL: ClassVar[str] = "http://localhost:8000/v1"
    BASE_URL_ENV: ClassVar[str | None] = "VLLM_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "VLLM_API_KEY"
    NEEDS_KEY: ClassVar[bool] = False
    SERVES_WHAT_IT_LISTS: ClassVar[bool] = True
    CHAT: ClassVar[ChatOptions] = ChatOptions(
        vendor="vllm",
        parses_arguments=True,  # vllm/entrypoints/chat_utils.py: json.loads of the arguments of each call
        think_tags=True,
        seed="seed",  # docs, "OpenAI-Compatible Server", chat parameters
    )

    def build_payload(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the body of a request.

        Raises:
            InvalidOption: the body has a ``guided_*`` field, which current servers ignore.
        """
        payload = super().build_payload(request)
        # vLLM's documentation, "Structured outputs": version 0.12 removed these fields for structured_outputs.
        ignored = sorted(key for key in payload if key.startswith("guided_"))
        if ignored:
            raise InvalidOption(
                f"vLLM ignores {', '.join(ignored)} and answers as it likes: ask with structured_output, or pass"
                " structured_outputs in extra"
            )
        return payload

    def _facts(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"max_model_len": {row["id"]: row.get("max_model_len") for row in rows}}
