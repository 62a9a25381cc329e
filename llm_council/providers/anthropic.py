"""Anthropic's Claude models, through the Messages API."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from llm_council._wire.history import InstructionPlace
from llm_council.errors import InvalidOption, ProviderError
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
from llm_council.providers._anthropic.fit import fit
from llm_council.providers._anthropic.request import ThinkingStyle
from llm_council.providers._anthropic.sdk import SdkTransport, address_of, is_installed, version_in_body
from llm_council.providers._call.profiles import ModelProfile
from llm_council.providers._http import account
from llm_council.providers._http.provider import HttpProvider
from llm_council.transports import HttpReply

if TYPE_CHECKING:
    from llm_council.providers._anthropic.batch_jobs import AnthropicBatchJobs

__all__ = ["AnthropicProvider"]

_VERSION = "2023-06-01"
_STYLES = {str(style): style for style in ThinkingStyle}


class AnthropicProvider(HttpProvider):
    """Anthropic's own models. Reads ``ANTHROPIC_API_KEY``, and ``ANTHROPIC_BASE_URL`` for another address.

    Requests go through Anthropic's own client if it is installed (extra ``anthropic``), and through plain HTTP if it is
    not, or if a ``transport`` is given. Requests, answers and errors are the same either way. The client neither
    retries nor follows redirects.

    Pass fields that ``GenerateRequest`` lacks, such as ``metadata`` or ``service_tier``, in a request's ``extra``.

    Args:
        client: an ``anthropic.AsyncAnthropic``, or one of the clients for Bedrock, Vertex and Foundry, which signs its
            own requests. The provider does not close it; it belongs to the event loop that uses it. If its cloud lists
            no models, ``doctor`` makes a call of one token even without ``deep``.
        version: the value of ``anthropic-version``; None means ``"2023-06-01"``. For the clients for
            Bedrock and Vertex it is a field of the body: ``"bedrock-2023-05-31"``, ``"vertex-2023-10-16"``.
        betas: the values of ``anthropic-beta``; none is needed.
        key_header: the header for the key; ``"authorization"`` sends it as a bearer token. It is omitted if ``headers``
            has a credential.
        answer_tokens: the limit on answer tokens, thinking included, for requests without ``max_tokens``, since the API
            requires one.
        **options: those of every HTTP provider: ``name``, ``base_url``, ``api_key``, ``default_model``, ``headers``,
            ``transport``, ``timeout``, ``limits``, ``profile``, ``allow_http``.

    Raises:
        InvalidOption: an argument is invalid.
        InvalidKey: the key has a character that is not allowed in a header.
    """

    name = "anthropic"
    capabilities = ProviderCapabilities(
        streaming=True,
        tool_use=True,
        structured_output=True,
        multimodal=True,
        documents=True,
        reasoning=True,
    )

    BASE_URL: ClassVar[str] = "https://api.anthropic.com"

    _ENDPOINTS = re.compile(r"/v1(?:/(?:messages(?:/count_tokens)?|models|complete))?$")
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
        if client is not None:
            duplicates = [name for name in ("transport", "base_url", "api_key") if options.get(name) is not None]
            if duplicates:
                names = ", ".join(duplicates)
                raise InvalidOption(f"client has an address, a key and a transport of its own: leave out {names}")
            options["base_url"] = address_of(client)
        super().__init__(**options)
        if version == "" or not key_header:
            raise InvalidOption("version and key_header must not be empty")
        # ANTHROPIC_BASE_URL has no /v1, unlike the variables of other vendors, but users write it all the same.
        self.base_url = self.base_url.removesuffix("/v1")
        self._client = client
        in_body = None if client is None else version_in_body(client)
        self._on_cloud = in_body is not None
        self._key_header = key_header
        self._fixed_headers = {"anthropic-beta": ",".join(as_tuple(betas))} if betas else {}
        body: dict[str, Any] = {}
        if in_body is None:
            self._fixed_headers["anthropic-version"] = version or _VERSION
        else:
            body = {"anthropic_version": version or in_body}
        self._base_options = MessagesOptions(max_tokens=answer_tokens, display="summarized", body=body)
        if client is not None:  # the client signs, so a key of the environment must not be sent too
            self._key = self._bad_key = None
        if by_sdk:
            self._http_transport = SdkTransport(client, self.base_url)

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, including the key; override to add headers or to sign differently."""
        headers = {name: account.revealed(value) for name, value in self._headers.items()}
        names = {name.lower() for name in headers}
        if self._key and not names & {"authorization", "x-api-key", self._key_header.lower()}:
            key = self._key.reveal()
            headers[self._key_header] = f"Bearer {key}" if self._key_header.lower() == "authorization" else key
        return {**{name: value for name, value in self._fixed_headers.items() if name not in names}, **headers}

    def batch_jobs(self) -> AnthropicBatchJobs | None:
        """Return Anthropic's message batches; None for the clients of clouds, which have none."""
        from llm_council.providers._anthropic.batch_jobs import AnthropicBatchJobs

        return None if self._on_cloud else AnthropicBatchJobs(self)

    def _identity_extras(self) -> tuple[object, ...]:
        options = self._base_options
        return *super()._identity_extras(), self._fixed_headers, options.max_tokens, options.body

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        fitted, adjustments = await super()._prepared(request)
        fitted, of_fields = fit(fitted, self._options(fitted))
        return fitted, adjustments + of_fields

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        return "/v1/messages", encode_request(request, self._options(request), stream=stream)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return decode_response(data, self._options(request), request_id=reply.request_id)

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> MessageStream:
        return MessageStream(self._options(request), self._limits, request_id=head.request_id)

    def _options(self, request: GenerateRequest) -> MessagesOptions:
        profile = self._profile_of(request.model)
        return attrs.evolve(
            self._base_options,
            max_output=profile.max_output,
            thinking=_STYLES.get(profile.reasoning_style, ThinkingStyle.ADAPTIVE),
            cache_control=profile.prompt_cache == "marks",
            # Clouds refuse the field at the top (Claude API docs, "Prompt caching", automatic caching).
            automatic_cache=not self._on_cloud,
            instructions_in_place=profile.instruction_place is InstructionPlace.AFTER_USER,
        )

    def _key_advice(self) -> str:
        """Return which key was sent, and from where it came."""
        return super()._key_advice() if self._client is None else "check the credentials of the client"

    def _is_signed(self) -> bool:
        return self._client is not None or super()._is_signed()

    def _profile_of(self, model: str | None) -> ModelProfile:
        """Look up a model by Anthropic's name, which clouds put a prefix before: ``us.anthropic.claude-...``."""
        name = model or self.default_model or ""
        profile = super()._profile_of(name[max(name.lower().rfind("claude-"), 0) :])
        # Clouds took the role later than Anthropic's own address (Claude API docs, "Mid-conversation system messages").
        if self._on_cloud and self._profile is None:
            return attrs.evolve(profile, instruction_place=InstructionPlace.FIRST)
        return profile

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        if self._client is None or getattr(self._client, "models", None) is not None:
            return await super()._inspect()
        # Bedrock and Vertex AI list no models of Anthropic, so their clients have no ``models``.
        response = await self.generate(GenerateRequest(prompt="Hi", max_tokens=1))
        return f"{self.base_url} answers with {response.model}", {"models": [self.default_model]}

    async def _rows(self) -> list[dict[str, Any]] | None:
        return await self._list("/v1/models?limit=1000")
