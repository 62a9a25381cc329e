"""Anthropic: Claude, by the Messages API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs

from llm_council.errors import ApiError, InvalidOption
from llm_council.models._attrs import as_tuple
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._anthropic import (
    MessagesOptions,
    MessageStream,
    decode_error,
    decode_response,
    encode_request,
)
from llm_council.providers._anthropic.fit import enforceable, fit
from llm_council.providers._anthropic.sdk import (
    SdkTransport,
    address_of,
    is_installed,
    lists_models,
    versions_in_body,
)
from llm_council.providers._call import fitting
from llm_council.providers._call.profiles import ModelProfile
from llm_council.providers._http import account
from llm_council.providers._http.provider import HttpProvider
from llm_council.transports import HttpReply

__all__ = ["AnthropicProvider"]

_VERSION = "2023-06-01"


class AnthropicProvider(HttpProvider):
    """Anthropic's own models. Reads ``ANTHROPIC_API_KEY``, and ``ANTHROPIC_BASE_URL`` for another address.

    Bytes are moved by the vendor's own client where it is installed (extra ``anthropic``), by plain HTTP where it is
    not or a ``transport`` is given. Requests, answers and errors are the same either way; the client neither retries
    nor follows redirects.

    What the vendor has and no field names, such as ``metadata`` or ``service_tier``, goes into a request's ``extra``.

    Args:
        client: an ``anthropic.AsyncAnthropic`` of your own, or one of its kin for Bedrock, Vertex and Foundry, which
            knows its address and signs for itself. It is not closed here, and belongs to the event loop it is used in.
            Where its cloud lists no models, even the cheap ``doctor`` makes a call: of one token.
        version: what ``anthropic-version`` says; None is ``"2023-06-01"``. The clients for Bedrock and Vertex say it
            in the body instead, by default in a word of their own.
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
        client: Any = None,
        version: str | None = None,
        betas: Sequence[str] = (),
        key_header: str = "x-api-key",
        answer_tokens: int = 16_000,
        **options: Any,
    ) -> None:
        by_sdk = options.get("transport") is None and (client is not None or is_installed())
        super().__init__(**_with_client(client, options))
        if version == "" or not key_header:
            raise InvalidOption("version and key_header must not be empty")
        self.base_url = self.base_url.removesuffix("/v1")  # the vendor's own variable has none, other vendors' have it
        self._client = client
        self._key_header = key_header
        said = {"anthropic-version": version or _VERSION, "anthropic-beta": ",".join(as_tuple(betas))}
        body: dict[str, Any] = {}
        if client is not None and versions_in_body(client):
            del said["anthropic-version"]
            body = {} if version is None else {"anthropic_version": version}
        self._said = {name: word for name, word in said.items() if word}
        self._spoken = MessagesOptions(max_tokens=answer_tokens, display="summarized", body=body)
        if client is not None:  # it signs for itself: a key of the environment's is not sent beside
            self._key = self._bad_key = None
        if by_sdk:
            self._http_transport = SdkTransport(client, self.base_url)
        self._by_profile: dict[int, tuple[ModelProfile, MessagesOptions]] = {}

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, the key's included: override to add to them, or to sign otherwise."""
        said = {name: account.revealed(value) for name, value in self._headers.items()}
        names = {name.lower() for name in said}
        if self._key and not names & {"authorization", "x-api-key", self._key_header.lower()}:
            key = self._key.reveal()
            said[self._key_header] = f"Bearer {key}" if self._key_header.lower() == "authorization" else key
        return {**{name: value for name, value in self._said.items() if name not in names}, **said}

    def _identity_extras(self) -> tuple[object, ...]:
        spoken = self._spoken
        return *super()._identity_extras(), self._said, spoken.max_tokens, spoken.body

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
            return fitting.emulate_schema(request)
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

    def _is_signed(self) -> bool:
        return self._client is not None or super()._is_signed()

    def _profile_of(self, model: str | None) -> ModelProfile:
        """Look a model up by the vendor's name, which the clouds write theirs around: ``us.anthropic.claude-...``."""
        name = model or self.default_model or ""
        return super()._profile_of(name[max(name.lower().rfind("claude-"), 0) :])

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        if self._client is None or lists_models(self._client):
            return await super()._inspect()
        response = await self.generate(GenerateRequest(prompt="Hi", max_tokens=1))
        return f"{self.base_url} answers with {response.model}", {"models": [self.default_model]}

    async def _rows(self) -> list[dict[str, Any]] | None:
        data = await self._get("/v1/models?limit=1000", missing=(404, 405))
        listed = data.get("data") if isinstance(data, dict) else None
        if not isinstance(listed, list):
            return None
        return [row for row in listed if isinstance(row, dict) and isinstance(row.get("id"), str)]


def _with_client(client: Any, options: dict[str, Any]) -> dict[str, Any]:
    if client is None:
        return options
    twice = [name for name in ("transport", "base_url", "api_key") if options.get(name) is not None]
    if twice:
        raise InvalidOption(f"client has an address, a key and a transport of its own: leave out {', '.join(twice)}")
    return {**options, "base_url": address_of(client)}
