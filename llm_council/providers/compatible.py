"""Any server that speaks one of OpenAI's dialects: a hosted gateway, a house's own, a local engine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from llm_council._wire import responses
from llm_council._wire.openai_chat import ChatOptions, ChatStream, decode_error, decode_response, encode_request
from llm_council._wire.responses import LEAST_TOKENS, ResponsesOptions, ResponseStream
from llm_council.errors import ApiError, InvalidOption
from llm_council.errors._secrets import Secret
from llm_council.models import Limits, Timeouts
from llm_council.models._attrs import as_dict, copy_with
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.profiles import Api, ModelProfile
from llm_council.providers._http.provider import HttpProvider
from llm_council.transports import HttpReply

__all__ = ["OpenAICompatibleProvider"]


class OpenAICompatibleProvider(HttpProvider):
    """A provider behind a ``/chat/completions`` address, or a ``/responses`` one.

    An instance needs no subclass::

        OpenAICompatibleProvider(name="gateway", base_url="https://llm.example.com/v1", default_model="house-70b")

    A subclass that differs in facts sets class attributes; one that differs in more overrides a hook: ``headers()``,
    ``build_payload(request)``, ``parse_response(data)``::

        class Gateway(OpenAICompatibleProvider):
            name = "gateway"
            BASE_URL = "https://llm.example.com/v1"
            API_KEY_ENV = "GATEWAY_KEY"
            DEFAULT_MODEL = "house-70b"

            def build_payload(self, request):
                return {**super().build_payload(request), "tenant": "research"}

    Args:
        name: the name of this instance; None is the class's.
        base_url: where it is reached; None takes ``BASE_URL_ENV``'s variable, else ``BASE_URL``. HTTPS, or HTTP on a
            loopback address.
        api_key: the key, or ``"${VARIABLE}"``; None takes ``API_KEY_ENV``'s variable. It is read now, sent in a header
            to this address and nowhere else.
        default_model: the model for requests that name none.
        headers: further headers; those whose names speak of keys or tokens are treated as secrets.
        transport: how bytes are moved: a ``Transport``, or an ``httpx.AsyncClient``, httpx transport or
            ``requests.Session`` of your own, which is not closed here.
        timeout: bounds on single waits.
        limits: bounds on sizes.
        profile: what its models take, as a ``ModelProfile`` or a mapping of its fields; None looks it up.
        extra_body: fields of the server's own that every request carries; a request's ``extra`` wins over them.
        api: ``"chat"`` (``/chat/completions``) or ``"responses"`` (``/responses``); None takes the class's own choice,
            which is chat everywhere but at OpenAI's own address.
        allow_http: take a plain ``http://`` address that is not loopback; keys and prompts can then be read on the way.

    Attributes:
        BASE_URL: the address, up to and without ``/chat/completions``.
        BASE_URL_ENV: the variable that sets another one.
        API_KEY_ENV: the variable of the key; None takes a key only where one is passed.
        NEEDS_KEY: whether a call without a key is refused before it is sent.
        DEFAULT_MODEL: the model for requests that name none.
        IDEMPOTENCY_HEADER: the header for a request's idempotency key, where the server takes one.
        SERVES_WHAT_IT_LISTS: the server lists exactly what it serves: its first model is the default, and ``doctor``
            misses one that is not listed.
        CHAT: in what the server's dialect differs, where no profile says it.
    """

    name = "openai-compatible"
    capabilities = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True
    )

    CHAT: ClassVar[ChatOptions] = ChatOptions(vendor="openai-compatible", think_tags=True)

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
        self._spoken: dict[int, tuple[ModelProfile, ChatOptions]] = {}
        self._without_stops: dict[int, tuple[ModelProfile, ModelProfile]] = {}

    def _besides(self) -> tuple[object, ...]:
        return *super()._besides(), self._extra_body, self._api

    def build_payload(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the JSON body of a request, which has its model and has been fitted; override to change it.

        What a stream needs beside it (``stream``, ``stream_options``) is there when ``request.stream`` is set.
        """
        if self._api_of(request.model) is Api.RESPONSES:
            return responses.encode_request(request, self._responses_options(self._profile_of(request.model)))
        return encode_request(request, self._options(request))

    def parse_response(self, data: Any) -> GenerateResponse:
        """Return the answer in a whole reply's JSON; override to read what the server adds. Streams do not come here.

        Raises:
            ApiError: the reply holds an error.
            MalformedReply: it is no reply of this dialect.
        """
        if isinstance(data, dict) and _is_response(data):
            return responses.decode_response(data, ResponsesOptions(vendor=self.CHAT.vendor))
        return decode_response(data, self.CHAT)

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        asked = request if request.stream == stream else copy_with(request, stream=stream)
        return _PATHS[self._api_of(request.model)], self.build_payload(asked)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        response = self.parse_response(data)
        if reply.request_id and response.request_id != reply.request_id:
            return copy_with(response, request_id=reply.request_id)
        return response

    def _refusal(self, reply: HttpReply) -> ApiError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> ChatStream | ResponseStream:
        if self._api_of(request.model) is Api.RESPONSES:
            options = self._responses_options(self._profile_of(request.model))
            return ResponseStream(options, self._limits, request_id=head.request_id)
        return ChatStream(self._options(request), self._limits, request_id=head.request_id)

    def _api_of(self, model: str | None) -> Api:
        """Return by which API a model is spoken to."""
        return self._api or Api.CHAT

    def _profile_of(self, model: str | None) -> ModelProfile:
        profile = super()._profile_of(model)
        if self._api_of(model) is Api.CHAT or not profile.stop:
            return profile
        known = self._without_stops.get(id(profile))
        if known is None or known[0] is not profile:
            known = self._without_stops[id(profile)] = (profile, attrs.evolve(profile, stop=False))
        return known[1]

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        asked, told = await super()._prepared(request)
        few = asked.max_tokens
        if few is None or few >= LEAST_TOKENS or self._api_of(asked.model) is Api.CHAT:
            return asked, told
        reason = "the fewest tokens that it takes"
        raised = Adjustment(field="max_tokens", action="raised", asked=few, sent=LEAST_TOKENS, reason=reason)
        return copy_with(asked, max_tokens=LEAST_TOKENS), (*told, raised)

    def _options(self, request: GenerateRequest) -> ChatOptions:
        """Return how to speak to a model by chat; the profiles are few and live as long as the process."""
        profile = self._profile_of(request.model)
        known = self._spoken.get(id(profile))
        if known is None or known[0] is not profile:
            options = attrs.evolve(
                self.CHAT,
                max_tokens_field=profile.token_field,
                system_role=profile.system_role,
                developer_role="user" if profile.system_role == "user" else self.CHAT.developer_role,
                reasoning=profile.reasoning_style,
                schema=profile.structured,
                cache_control=profile.prompt_cache == "marks",
                body={**self.CHAT.body, **self._extra_body},
            )
            known = self._spoken[id(profile)] = (profile, options)
        return known[1]

    def _responses_options(self, profile: ModelProfile) -> ResponsesOptions:
        """Return how to speak to a model by Responses."""
        return ResponsesOptions(
            vendor=self.CHAT.vendor,
            system_role=profile.system_role,
            reasons=profile.reasons,
            effort=profile.reasoning_style != "none",
            body=self._extra_body,
        )


_PATHS = {Api.CHAT: "/chat/completions", Api.RESPONSES: "/responses"}


def _is_response(data: dict[str, Any]) -> bool:
    """Tell a reply of the Responses API, which not every server calls so."""
    named = data.get("object") == "response"
    return named or ("choices" not in data and ("output" in data or data.get("status") == "failed"))


def _api(word: str) -> Api:
    try:
        return Api(word)
    except ValueError:
        raise InvalidOption(f"api: one of {', '.join(Api)}, got {word!r:.80}") from None
