"""The provider of a fictional vendor: what a contributor writes in ``providers/`` for a new dialect."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from parrot_wire import TalkStream, decode_error, decode_response, encode_request

from llm_council.errors import ApiError
from llm_council.models import GenerateRequest, GenerateResponse, ProviderCapabilities
from llm_council.providers._http.provider import HttpProvider
from llm_council.transports import HttpReply

__all__ = ["ParrotProvider"]


class ParrotProvider(HttpProvider):
    """Parrot models. Reads its key from ``PARROT_KEY``."""

    name = "parrot"
    capabilities = ProviderCapabilities(streaming=True)

    BASE_URL: ClassVar[str] = "https://api.parrot.example/v1"
    API_KEY_ENV: ClassVar[str | None] = "PARROT_KEY"

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        return "/talk", encode_request(request, stream=stream)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return decode_response(data)

    def _refusal(self, reply: HttpReply) -> ApiError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> TalkStream:
        return TalkStream(self._limits, request_id=head.request_id)
