"""Anthropic: Claude, by the Messages API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

from llm_council._wire.anthropic import (
    MessagesOptions,
    MessageStream,
    decode_error,
    decode_response,
    encode_request,
)
from llm_council.errors import ApiError, InvalidOption
from llm_council.models._noun import as_tuple
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers import _account, negotiate
from llm_council.providers._anthropic_fit import enforceable, fit
from llm_council.providers._http import HttpProvider
from llm_council.providers.profiles import ModelProfile
from llm_council.transports import HttpReply

__all__ = ["AnthropicProvider"]


class AnthropicProvider(HttpProvider):
    """Anthropic's own models. Reads ``ANTHROPIC_API_KEY``, and ``ANTHROPIC_BASE_URL`` for another address.

    What the vendor has and no field names, such as ``metadata`` or ``service_tier``, goes into a request's ``extra``.

    Args:
        version: what ``anthropic-version`` says.
        betas: what ``anthropic-beta`` says; none is needed.
        key_header: the header that carries the key; ``"authorization"`` sends it as a bearer token. It is left out
            where ``headers`` holds a credential under either name.
        answer_tokens: most tokens of an answer, thinking included, for requests without ``max_tokens``: the API
            requires a number.
        **options: those of every HTTP provider: ``name``, ``base_url``, ``api_key``, ``default_model``, ``headers``,
            ``transport``, ``timeout``, ``limits``, ``profile``, ``allow_http``.

    Raises:
        InvalidOption: an argument will not do.
        InvalidKey: the key has a character that no header can carry.
    """

    name = "anthropic"
    capabilities = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True
    )

    BASE_URL: ClassVar[str] = "https://api.anthropic.com"
    BASE_URL_ENV: ClassVar[str | None] = "ANTHROPIC_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "ANTHROPIC_API_KEY"

    def __init__(
        self,
        *,
        version: str = "2023-06-01",
        betas: Sequence[str] = (),
        key_header: str = "x-api-key",
        answer_tokens: int = 16_000,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not version or not key_header:
            raise InvalidOption("version and key_header must not be empty")
        self.base_url = self.base_url.removesuffix("/v1")  # the vendor's own variable has none, other vendors' have it
        self._key_header = key_header
        self._said = {"anthropic-version": version, **({"anthropic-beta": ",".join(as_tuple(betas))} if betas else {})}
        self._spoken = MessagesOptions(max_tokens=answer_tokens, display="summarized")
        self._by_profile: dict[int, tuple[ModelProfile, MessagesOptions]] = {}

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, the key's included: override to add to them, or to sign otherwise."""
        said = {name: _account.revealed(value) for name, value in self._headers.items()}
        names = {name.lower() for name in said}
        if self._key and not names & {"authorization", "x-api-key", self._key_header.lower()}:
            key = self._key.reveal()
            said[self._key_header] = f"Bearer {key}" if self._key_header.lower() == "authorization" else key
        return {**{name: value for name, value in self._said.items() if name not in names}, **said}

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        asked, told = await super()._prepared(request)
        asked, shaped = self._shaped(asked)
        asked, fitted = fit(asked, self._options(asked))
        return asked, told + shaped + fitted

    def _shaped(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        """Leave out of the schema what Claude cannot be held to, or ask for the whole of it in words."""
        wanted = request.structured_output
        if wanted is None:
            return request, ()
        found = enforceable(wanted.json_schema)
        if found is None:
            in_words = attrs.evolve(self._profile_of(request.model), structured="none")
            return negotiate.fit(request, self.capabilities, in_words)
        schema, left_out = found
        if schema == wanted.json_schema:
            return request, ()
        told = Adjustment(
            field="structured_output",
            action="projected",
            asked=wanted.name,
            sent=wanted.name,
            reason="; ".join(left_out) or "it takes closed objects",
        )
        return attrs.evolve(request, structured_output=attrs.evolve(wanted, json_schema=schema)), (told,)

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        return "/v1/messages", encode_request(request, self._options(request), stream=stream)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return decode_response(data, self._options(request), request_id=reply.request_id)

    def _refusal(self, reply: HttpReply) -> ApiError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> MessageStream:
        return MessageStream(self._options(request), self._limits, request_id=head.request_id)

    def _options(self, request: GenerateRequest) -> MessagesOptions:
        """Return how to speak to a model; the profiles are few and live as long as the process."""
        profile = self._profile_of(request.model)
        known = self._by_profile.get(id(profile))
        if known is None or known[0] is not profile:
            options = attrs.evolve(
                self._spoken,
                max_output=profile.max_output,
                thinking="budget" if profile.reasoning_style == "budget" else "adaptive",
                cache_control=profile.prompt_cache == "marks",
            )
            known = self._by_profile[id(profile)] = (profile, options)
        return known[1]

    async def _rows(self) -> list[dict[str, Any]] | None:
        data = await self._get("/v1/models?limit=1000", missing=(404, 405))
        listed = data.get("data") if isinstance(data, dict) else None
        if not isinstance(listed, list):
            return None
        return [row for row in listed if isinstance(row, dict) and isinstance(row.get("id"), str)]
