"""OpenAI: Responses and Chat Completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import attrs

from llm_council._wire.openai_chat import ChatOptions
from llm_council._wire.responses import ResponsesOptions
from llm_council.errors import InvalidOption
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.profiles import Api, ModelProfile, api_for_tools, profile_for
from llm_council.providers.compatible import OpenAICompatibleProvider

if TYPE_CHECKING:
    from llm_council.providers._openai.batch_jobs import OpenAIBatchJobs

__all__ = ["OpenAIProvider"]

_SUMMARIES = (None, "auto", "concise", "detailed")


class OpenAIProvider(OpenAICompatibleProvider):
    """OpenAI's own models. Reads ``OPENAI_API_KEY``, and ``OPENAI_BASE_URL`` for another address.

    The o-series and models from GPT-5 on use the Responses API, with reasoning sent back in encrypted form: the vendor
    stores nothing unless ``extra_body={"store": True}`` is set. Older models, and every model at another address than
    OpenAI's own, use Chat Completions. ``api`` overrides this choice.

    Pass ``OpenAI-Organization`` and ``OpenAI-Project`` in ``headers``. OpenAI accepts no idempotency key.

    Args:
        reasoning_summary: the summary of reasoning that the Responses API returns: ``"auto"``, ``"concise"`` or
            ``"detailed"``. None requests none, since the vendor refuses summaries to organisations that it has not
            verified.
        **options: those of ``OpenAICompatibleProvider``.

    Raises:
        InvalidOption: an argument is invalid.
        InvalidKey: the key has a character that no header can carry.
    """

    name = "openai"
    capabilities = attrs.evolve(OpenAICompatibleProvider.capabilities, documents=True, audio=True)

    BASE_URL: ClassVar[str] = "https://api.openai.com/v1"
    BASE_URL_ENV: ClassVar[str | None] = "OPENAI_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "OPENAI_API_KEY"
    CHAT: ClassVar[ChatOptions] = ChatOptions(
        vendor="openai",
        seed="seed",  # API reference, "Create chat completion"; the Responses API has none
        developer_role="developer",
        document_types=("application/pdf",),  # guide "File inputs": "Chat Completions accepts only PDF files"
        longest_call_id=40,  # its answer to a longer one: 400, string_above_max_length, "maximum length 40"
    )

    def __init__(self, *, reasoning_summary: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        if reasoning_summary not in _SUMMARIES:
            raise InvalidOption(
                f"reasoning_summary: one of auto, concise, detailed, got {reasoning_summary!r:.80}", provider=self.name
            )
        self._summary = reasoning_summary
        host = urlsplit(self.base_url).hostname or ""
        # Regional addresses are eu.api.openai.com and the like (guide "Your data", data residency).
        self._is_own = host == "api.openai.com" or host.endswith(".api.openai.com")

    def batch_jobs(self) -> OpenAIBatchJobs:
        """Return OpenAI's batch jobs."""
        from llm_council.providers._openai.batch_jobs import OpenAIBatchJobs

        return OpenAIBatchJobs(self)

    def _identity_extras(self) -> tuple[object, ...]:
        return *super()._identity_extras(), self._summary

    def _api_of(self, model: str | None) -> Api:
        if self._api is not None or not self._is_own:
            return super()._api_of(model)
        profile = self._profile or profile_for(self._family, model or self.default_model)
        return profile.api

    def _api_for(self, request: GenerateRequest) -> Api:
        return api_for_tools(request, super()._api_for(request), chosen=self._api)

    def _responses_options(self, profile: ModelProfile) -> ResponsesOptions:
        store = self._extra_body.get("store", False) is True
        return attrs.evolve(
            super()._responses_options(profile),
            store=store,
            summary=self._summary,
            cache_key=self._is_own,
            cache_breakpoints=self._is_marked(profile),
        )

    def _options(self, request: GenerateRequest) -> ChatOptions:
        marks = self._is_marked(self._profile_of(request.model))
        return attrs.evolve(super()._options(request), cache_key=self._is_own, cache_breakpoints=marks)

    def _is_marked(self, profile: ModelProfile) -> bool:
        """Return True if prompts get cache marks, which other servers of the dialect need not know."""
        return self._is_own and profile.prompt_cache == "breakpoints"
