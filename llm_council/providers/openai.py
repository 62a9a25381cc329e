"""OpenAI: Responses and Chat Completions."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlsplit

import attrs

from llm_council._wire.openai_chat import ChatOptions
from llm_council._wire.responses import ResponsesOptions
from llm_council.errors import InvalidOption
from llm_council.providers._call.profiles import Api, ModelProfile, profile_for
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["OpenAIProvider"]

_SUMMARIES = (None, "auto", "concise", "detailed")


class OpenAIProvider(OpenAICompatibleProvider):
    """OpenAI's own models. Reads ``OPENAI_API_KEY``, and ``OPENAI_BASE_URL`` for another address.

    Models from the o-series and GPT-5 on are spoken to by the Responses API, whose reasoning goes back and forth in
    encrypted form: nothing is stored at the vendor unless ``extra_body={"store": True}`` says so. Older models, and
    every model at an address other than OpenAI's own, are spoken to by Chat Completions. ``api`` decides otherwise.

    Headers ``OpenAI-Organization`` and ``OpenAI-Project`` go into ``headers``. OpenAI takes no idempotency key.

    Args:
        reasoning_summary: how readable reasoning comes by the Responses API: ``"auto"``, ``"concise"`` or
            ``"detailed"``; None asks for none, since the vendor refuses it to organisations that it has not verified.
        **options: those of ``OpenAICompatibleProvider``.

    Raises:
        InvalidOption: an argument will not do.
        InvalidKey: the key has a character that no header can carry.
    """

    name = "openai"

    BASE_URL: ClassVar[str] = "https://api.openai.com/v1"
    BASE_URL_ENV: ClassVar[str | None] = "OPENAI_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "OPENAI_API_KEY"
    CHAT: ClassVar[ChatOptions] = ChatOptions(vendor="openai", developer_role="developer")

    def __init__(self, *, reasoning_summary: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        if reasoning_summary not in _SUMMARIES:
            raise InvalidOption(
                f"reasoning_summary: one of auto, concise, detailed, got {reasoning_summary!r:.80}", provider=self.name
            )
        self._summary = reasoning_summary
        host = urlsplit(self.base_url).hostname or ""
        self._is_own = host == "api.openai.com" or host.endswith(".api.openai.com")

    def _identity_extras(self) -> tuple[object, ...]:
        return *super()._identity_extras(), self._summary

    def _api_of(self, model: str | None) -> Api:
        if self._api is not None or not self._is_own:
            return super()._api_of(model)
        profile = self._profile or profile_for(self._family, model or self.default_model)
        return profile.api

    def _responses_options(self, profile: ModelProfile) -> ResponsesOptions:
        store = self._extra_body.get("store", False) is True
        return attrs.evolve(super()._responses_options(profile), store=store, summary=self._summary)
