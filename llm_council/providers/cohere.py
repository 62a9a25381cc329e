"""Cohere's Command models, through the v2 chat API."""

from __future__ import annotations

import os
import re
import time
from typing import Any, ClassVar

import attrs

from llm_council.errors import ProviderError
from llm_council.errors._secrets import Secret
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import fitting
from llm_council.providers._cohere import ChatStream, decode_error, decode_response, encode_request
from llm_council.providers._http.provider import HttpProvider
from llm_council.transports import HttpReply

__all__ = ["CohereProvider"]

_OTHER_KEY = "CO_API_KEY"  # the variable that Cohere's own client reads
_TOP_P = (0.01, 0.99)  # the range that the API accepts


class CohereProvider(HttpProvider):
    """Cohere's models. Reads ``COHERE_API_KEY``, else ``CO_API_KEY``, and ``COHERE_BASE_URL`` if set.

    Pass fields that ``GenerateRequest`` lacks, such as ``documents``, ``safety_mode``, ``k`` or ``seed``, in a
    request's ``extra``. Citations are returned in the answer's ``extra``.

    Args:
        api_key: the key; None reads the environment.
        **options: those of ``HttpProvider``.
    """

    name = "cohere"
    capabilities = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True
    )

    BASE_URL: ClassVar[str] = "https://api.cohere.com"

    _ENDPOINTS = re.compile(r"/v[12](?:/(?:chat|models))?$")
    BASE_URL_ENV: ClassVar[str | None] = "COHERE_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "COHERE_API_KEY"

    def __init__(self, *, api_key: str | Secret | None = None, **options: Any) -> None:
        if api_key is None and not os.environ.get("COHERE_API_KEY") and os.environ.get(_OTHER_KEY):
            api_key = f"${{{_OTHER_KEY}}}"
        super().__init__(api_key=api_key, **options)

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        fitted, adjustments = await super()._prepared(request)
        # The API does not accept a schema beside tools (Cohere's docs, "Structured Outputs"): ask for it in words.
        if fitted.structured_output is not None and fitted.tools:
            fitted, of_schema = fitting.emulate_schema(fitted)
            adjustments += of_schema
        fitted, of_top_p = _fit_top_p(fitted)
        return fitted, adjustments + of_top_p

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        return "/v2/chat", encode_request(request, stream=stream)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return decode_response(data, request_id=reply.request_id, model=request.model)

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> ChatStream:
        return ChatStream(self._limits, request_id=head.request_id, model=request.model)

    async def _rows(self) -> list[dict[str, Any]] | None:
        return await self._list("/v1/models?endpoint=chat&page_size=1000", "models", name="name")


def _fit_top_p(request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Limit ``top_p`` to the range that the API accepts."""
    asked = request.top_p
    if asked is None or _TOP_P[0] <= asked <= _TOP_P[1]:
        return request, ()
    sent = min(max(asked, _TOP_P[0]), _TOP_P[1])
    action = "raised" if sent > asked else "lowered"
    adjustment = Adjustment(field="top_p", action=action, asked=asked, sent=sent, reason="it takes 0.01 to 0.99")
    return attrs.evolve(request, top_p=sent), (adjustment,)
