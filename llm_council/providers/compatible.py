"""The provider for any server that speaks one of OpenAI's dialects: a gateway, a company's server, a local engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import urlsplit

import attrs

from llm_council._wire import responses
from llm_council._wire.history import InstructionPlace
from llm_council._wire.openai_chat import ChatOptions, ChatStream, decode_error, decode_response, encode_request
from llm_council._wire.responses import LEAST_TOKENS, ResponsesOptions, ResponseStream
from llm_council.errors import InvalidOption, ProviderError
from llm_council.errors._secrets import Secret
from llm_council.models import Limits, Timeouts
from llm_council.models._attrs import as_dict, copy_with
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.profiles import Api, ModelProfile, api_for_tools
from llm_council.providers._http.provider import HttpProvider
from llm_council.transports import HttpReply

__all__ = ["OpenAICompatibleProvider"]


class OpenAICompatibleProvider(HttpProvider):
    """A provider behind a ``/chat/completions`` address, or a ``/responses`` one.

    An instance needs no subclass::

        OpenAICompatibleProvider(name="gateway", base_url="https://llm.example.com/v1", default_model="house-70b")

    A subclass sets class attributes for facts, and overrides hooks for behaviour: ``headers()``,
    ``build_payload(request)``, ``parse_response(data)``::

        class Gateway(OpenAICompatibleProvider):
            name = "gateway"
            BASE_URL = "https://llm.example.com/v1"
            API_KEY_ENV = "GATEWAY_KEY"
            DEFAULT_MODEL = "house-70b"

            def build_payload(self, request):
                return {**super().build_payload(request), "tenant": "research"}

    Args:
        name: the name of this instance; None takes that of the class.
        base_url: the address; None reads the variable ``BASE_URL_ENV``, else takes ``BASE_URL``. HTTPS, or HTTP on a
            loopback address.
        api_key: the key, or ``"${VARIABLE}"``; None reads the variable ``API_KEY_ENV``. It is read now, and sent in a
            header to this address only.
        default_model: the model for requests that name none.
        headers: further headers; one whose name contains "key", "token" or the like is treated as a secret.
        transport: a ``Transport``, or an ``httpx.AsyncClient``, httpx transport or
            ``requests.Session`` of your own, which is not closed here.
        timeout: time limits of single waits.
        limits: limits on sizes.
        profile: what its models accept, as a ``ModelProfile`` or a mapping of its fields; None looks it up by model.
        extra_body: further fields of every request's body; a request's ``extra`` wins over them.
        api: ``"chat"`` (``/chat/completions``) or ``"responses"`` (``/responses``); None leaves it to the class,
            which takes chat everywhere but at OpenAI's own address. At an address of OpenAI or Azure, a request with
            tools goes to ``/responses`` where the model takes tools and an effort there alone.
        allow_http: accept a plain ``http://`` address that is not loopback; others can then read keys and prompts.

    Attributes:
        BASE_URL: the address without ``/chat/completions``.
        BASE_URL_ENV: the environment variable that sets another address.
        API_KEY_ENV: the environment variable of the key; None takes a key only by argument.
        NEEDS_KEY: True refuses a call without a key before it is sent.
        DEFAULT_MODEL: the model for requests that name none.
        IDEMPOTENCY_HEADER: the header for a request's idempotency key, if the server accepts one.
        SERVES_WHAT_IT_LISTS: True if the server lists exactly the models it serves: the first is the default, and
            ``doctor`` reports a default model that is not listed.
        CHAT: how the server's dialect differs, apart from what profiles say about models.
    """

    name = "openai-compatible"
    capabilities = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True
    )

    CHAT: ClassVar[ChatOptions] = ChatOptions(
        vendor="openai-compatible",
        think_tags=True,
        parses_arguments=True,
    )

    _last_options: tuple[ModelProfile, ChatOptions] | None = None

    def __init__(
        self,
        *,
        name: str | None = None,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        default_model: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Any = None,
        timeout: Timeouts = Timeouts(),
        limits: Limits = Limits(),
        profile: ModelProfile | Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        api: str | None = None,
        allow_http: bool = False,
    ) -> None:
        super().__init__(
            name=name,
            base_url=base_url,
            api_key=api_key,
            default_model=default_model,
            headers=headers,
            transport=transport,
            timeout=timeout,
            limits=limits,
            profile=profile,
            allow_http=allow_http,
        )
        self._extra_body = as_dict(extra_body)
        self._api = None if api is None else _api(api)

    def _identity_extras(self) -> tuple[object, ...]:
        return *super()._identity_extras(), self._extra_body, self._api

    def build_payload(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the JSON body of a fitted request with its model; override to change it.

        If ``request.stream`` is set, the body has ``stream`` and ``stream_options`` too.
        """
        if self._api_for(request) is Api.RESPONSES:
            return responses.encode_request(request, self._responses_options(self._profile_of(request.model)))
        return encode_request(request, self._options(request))

    def parse_response(self, data: Any) -> GenerateResponse:
        """Return the response in a whole reply's JSON; override to read what the server adds. Not called for streams.

        Raises:
            ApiError: the reply holds an error.
            MalformedReply: it is not a reply of this dialect.
        """
        if isinstance(data, dict) and _is_response(data):
            return responses.decode_response(
                data, ResponsesOptions(vendor=self.CHAT.vendor, think_tags=self.CHAT.think_tags)
            )
        return decode_response(data, self.CHAT)

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        asked = request if request.stream == stream else copy_with(request, stream=stream)
        # Some gateways stream unless they are told not to.
        return _PATHS[self._api_for(request)], {"stream": False, **self.build_payload(asked)}

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        response = self.parse_response(data)
        if reply.request_id and response.request_id != reply.request_id:
            return copy_with(response, request_id=reply.request_id)
        return response

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> ChatStream | ResponseStream:
        if self._api_for(request) is Api.RESPONSES:
            options = self._responses_options(self._profile_of(request.model))
            return ResponseStream(options, self._limits, request_id=head.request_id)
        return ChatStream(self._options(request), self._limits, request_id=head.request_id)

    def _api_of(self, model: str | None) -> Api:
        """Return the API to use for a model."""
        return self._api or Api.CHAT

    def _api_for(self, request: GenerateRequest) -> Api:
        """Return the API to use for a fitted request."""
        api = self._api_of(request.model)
        return api_for_tools(request, api, chosen=self._api) if _serves_openai(self.base_url) else api

    def _profile_of(self, model: str | None) -> ModelProfile:
        profile = super()._profile_of(model)
        if self._api_of(model) is Api.CHAT or not profile.stop:
            return profile
        return attrs.evolve(profile, stop=False)  # the Responses API has no stop sequences

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        fitted, adjustments = await super()._prepared(request)
        if self._api_for(fitted) is Api.CHAT:
            return fitted, adjustments
        if fitted.stop:  # of a request that only its tools send there; see ``_profile_of``
            reason = "the Responses API has no stop sequences"
            dropped = Adjustment(field="stop", action="dropped", asked=fitted.stop, reason=reason)
            fitted, adjustments = copy_with(fitted, stop=()), (*adjustments, dropped)
        limit = fitted.max_tokens
        if limit is None or limit >= LEAST_TOKENS:
            return fitted, adjustments
        reason = "the fewest tokens that it takes"
        raised = Adjustment(field="max_tokens", action="raised", asked=limit, sent=LEAST_TOKENS, reason=reason)
        return copy_with(fitted, max_tokens=LEAST_TOKENS), (*adjustments, raised)

    def _options(self, request: GenerateRequest) -> ChatOptions:
        """Return the dialect options for a model over chat completions."""
        profile = self._profile_of(request.model)
        if self._last_options is not None and self._last_options[0] is profile:
            return self._last_options[1]
        options = attrs.evolve(
            self.CHAT,
            max_tokens_field=profile.token_field,
            system_role=profile.system_role,
            developer_role="user" if profile.system_role == "user" else self.CHAT.developer_role,
            one_instruction=profile.instruction_place is InstructionPlace.FIRST,
            reasoning=profile.reasoning_style,
            schema=profile.structured,
            cache_control=profile.prompt_cache == "marks",
            body={**self.CHAT.body, **self._extra_body},
        )
        self._last_options = profile, options  # the calls of a seat name one model
        return options

    def _responses_options(self, profile: ModelProfile) -> ResponsesOptions:
        """Return the dialect options for a model over the Responses API."""
        return ResponsesOptions(
            vendor=self.CHAT.vendor,
            system_role=profile.system_role,
            reasons=profile.reasons,
            effort=profile.reasoning_style != "none",
            think_tags=self.CHAT.think_tags,
            body=self._extra_body,
        )


_PATHS = {Api.CHAT: "/chat/completions", Api.RESPONSES: "/responses"}


# Azure: learn.microsoft.com, "Azure OpenAI in Microsoft Foundry Models v1 API".
_OPENAI_HOSTS = (".api.openai.com", ".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")


@lru_cache(maxsize=64)
def _serves_openai(url: str) -> bool:
    """Return True for an address of OpenAI or Azure, which serves OpenAI's models over both of their APIs."""
    parts = urlsplit(url)
    return f".{parts.hostname}".endswith(_OPENAI_HOSTS) and parts.path.rstrip("/").endswith("/v1")


def _is_response(data: dict[str, Any]) -> bool:
    """Return True for a reply of the Responses API; not every server sends ``object``."""
    # A failed response may lack ``output``; a reply of the chat API has ``choices``.
    if data.get("object") == "response":
        return True
    return "choices" not in data and ("output" in data or data.get("status") == "failed")


def _api(word: str) -> Api:
    try:
        return Api(word)
    except ValueError:
        raise InvalidOption(f"api: one of {', '.join(Api)}, got {word!r:.80}") from None
