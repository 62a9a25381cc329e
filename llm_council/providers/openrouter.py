"""OpenRouter: many vendors' models behind one address and one key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from llm_council._wire.openai_chat import ChatOptions
from llm_council.errors import OutOfCredit
from llm_council.models._attrs import as_dict, as_tuple
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.profiles import ModelProfile, profile_for
from llm_council.providers.compatible import OpenAICompatibleProvider

__all__ = ["OpenRouterProvider"]

# Whose rows of profiles hold for the models of a vendor. With ``require_parameters``, a parameter that a model refuses
# leaves no endpoint: "No endpoints found that can handle the requested parameters" (CultivateLabs/raif#507).
_VENDORS = {"anthropic": "anthropic", "google": "gemini", "openai": "openai", "x-ai": "xai"}


class OpenRouterProvider(OpenAICompatibleProvider):
    """OpenRouter. Reads ``OPENROUTER_API_KEY``; models are named ``vendor/model``, such as ``openai/gpt-5-mini``.

    Args:
        models: fallback models, in order, for when the first is down or refuses.
        routing: OpenRouter's ``provider`` object: ``order``, ``only``, ``ignore``, ``allow_fallbacks``,
            ``data_collection``, ``sort``, ``max_price`` and others. For a request with a schema,
            ``require_parameters`` defaults to True: without it a vendor may ignore the schema silently. Sampling
            parameters and stop texts that a model refuses are left out, since no vendor serves it with them.
        referer: your site, for OpenRouter's rankings; sent only when given.
        title: your application's name in the rankings; sent only when given.
        **options: those of ``OpenAICompatibleProvider``.
    """

    name = "openrouter"
    capabilities = attrs.evolve(OpenAICompatibleProvider.capabilities, documents=True, audio=True)

    BASE_URL: ClassVar[str] = "https://openrouter.ai/api/v1"
    BASE_URL_ENV: ClassVar[str | None] = "OPENROUTER_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "OPENROUTER_API_KEY"
    CHAT: ClassVar[ChatOptions] = ChatOptions(
        vendor="openrouter",
        seed="seed",  # API reference, "Send chat completion request"
        echo="reasoning_details",
        parses_arguments=True,  # for the models of vendors whose calls hold objects
        longest_call_id=40,  # OpenAI's limit, whose models it serves beside others
        stream_usage=False,  # usage always comes; asking for it is deprecated
        file_urls=True,  # OpenRouter, "PDF Inputs"
        audio_formats=(),  # OpenRouter, "Audio Inputs": which ones depends on the model's vendor
    )

    def __init__(
        self,
        *,
        models: Sequence[str] = (),
        routing: Mapping[str, Any] | None = None,
        referer: str | None = None,
        title: str | None = None,
        **options: Any,
    ) -> None:
        own = {"HTTP-Referer": referer, "X-OpenRouter-Title": title}
        headers = {name: value for name, value in own.items() if value is not None}
        super().__init__(**{**options, "headers": {**headers, **(options.get("headers") or {})}})
        self._fallbacks = as_tuple(models)
        self._routing = as_dict(routing)

    def _identity_extras(self) -> tuple[object, ...]:
        return *super()._identity_extras(), self._fallbacks, self._routing

    def build_payload(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the body of a request, with routing and fallbacks; the request's ``extra`` wins over both."""
        payload = super().build_payload(request)
        routing = dict(self._routing)
        if request.structured_output is not None:
            routing.setdefault("require_parameters", True)
        if routing:
            payload["provider"] = {**routing, **(payload.get("provider") or {})}
        if self._fallbacks:
            payload.setdefault("models", list(self._fallbacks))
        return payload

    def _profile_of(self, model: str | None) -> ModelProfile:
        """Look up a model, and take from its vendor's rows which parameters, and which files, it refuses."""
        profile = super()._profile_of(model)
        vendor, _, name = (model or self.default_model or "").lower().partition("/")
        if self._profile is not None or vendor not in _VENDORS:
            return profile
        name = name.partition(":")[0]  # a variant, such as ":free"
        if vendor == "anthropic":
            name = name.replace(".", "-")
        facts = profile_for(_VENDORS[vendor], name)
        return attrs.evolve(
            profile,
            sampling=facts.sampling,
            reasons=facts.reasons,
            stop=facts.stop,
            prefill=facts.prefill,
            images=facts.images,
            audio=facts.audio,
        )

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Query the key's own endpoint: the list of models is public, so it does not prove the key."""
        reply = await self._get("/key")
        data = reply.get("data") if isinstance(reply, dict) else None
        details = {key: data.get(key) for key in ("limit_remaining", "usage", "is_free_tier")} if data else {}
        left = details.get("limit_remaining")
        if isinstance(left, int | float) and left <= 0:
            raise OutOfCredit("the key's limit is used up: raise it, or add credit", provider=self.name)
        return "the key is good" + ("" if left is None else f"; {left:g} USD of its limit left"), details
