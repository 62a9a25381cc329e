"""Google's Gemini API. For Vertex AI, which has the same dialect behind Google Cloud's sign-in, see ``vertex``."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from llm_council.errors import InvalidOption, ProviderError
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.profiles import ModelProfile
from llm_council.providers._google import GeminiOptions, GeminiStream, decode_error, decode_response, encode_request
from llm_council.providers._google.reply import CONTINUATION
from llm_council.providers._google.request import ThinkingStyle
from llm_council.providers._http import account
from llm_council.providers._http.continuation import Continuation
from llm_council.providers._http.provider import HttpProvider
from llm_council.transports import HttpReply

if TYPE_CHECKING:
    from llm_council.providers._google.batch_jobs import GeminiBatchJobs

__all__ = ["GeminiProvider"]

_KEY = "x-goog-api-key"
_STYLES = {str(style): style for style in ThinkingStyle}


class GeminiProvider(HttpProvider):
    """The Gemini API. Reads ``GEMINI_API_KEY``, and ``GOOGLE_GEMINI_BASE_URL`` if set.

    A request's ``extra`` is merged into the body: ``{"generationConfig": {"topK": 5}}``, ``{"safetySettings": [...]}``,
    ``{"tools": [{"googleSearch": {}}]}``, ``{"cachedContent": "cachedContents/..."}``.

    Args:
        api_version: the version in the address, such as ``"v1beta"`` or ``"v1"``; empty if ``base_url`` contains it.
        **options: those of ``HttpProvider``.

    Raises:
        InvalidOption: the version has characters other than letters and digits.
    """

    name = "gemini"
    capabilities = ProviderCapabilities(
        streaming=True,
        tool_use=True,
        structured_output=True,
        multimodal=True,
        documents=True,
        audio=True,
        reasoning=True,
    )

    BASE_URL: ClassVar[str] = "https://generativelanguage.googleapis.com"

    _ENDPOINTS = re.compile(r"/models(?:/[^/]+:\w+)?$")
    BASE_URL_ENV: ClassVar[str | None] = "GOOGLE_GEMINI_BASE_URL"
    API_KEY_ENV: ClassVar[str | None] = "GEMINI_API_KEY"

    _CONTINUATION: ClassVar[Continuation | None] = CONTINUATION

    def __init__(self, *, api_version: str = "v1beta", **options: Any) -> None:
        super().__init__(**options)
        if not re.fullmatch(r"[A-Za-z0-9]*", str(api_version)):
            raise InvalidOption(f'GeminiProvider.api_version: a word such as "v1beta", got {api_version!r:.80}')
        self.api_version = api_version
        if api_version:
            self.base_url = self.base_url.removesuffix(f"/{api_version}")

    def batch_jobs(self) -> GeminiBatchJobs | None:
        """Return the Gemini API's batch jobs. Schemas stand in the prompt there, beside JSON mode."""
        from llm_council.providers._google.batch_jobs import GeminiBatchJobs

        return GeminiBatchJobs(self)

    def _identity_extras(self) -> tuple[object, ...]:
        return *super()._identity_extras(), self.api_version

    def build_payload(self, request: GenerateRequest) -> dict[str, Any]:
        """Return the JSON body of a fitted request; override to change it."""
        profile = self._profile_of(request.model)
        thinking = _STYLES.get(profile.reasoning_style, ThinkingStyle.LEVEL)
        return encode_request(request, GeminiOptions(thinking=thinking, schema=profile.structured))

    def parse_response(self, data: Any) -> GenerateResponse:
        """Return the answer in the JSON of a whole reply; override to read more of it. Streams do not use it.

        Raises:
            ApiError: the reply is an error.
            MalformedReply: the reply is not of this dialect.
        """
        return decode_response(data)

    def headers(self) -> dict[str, str]:
        """Return the headers of every request. The key goes into a header, and never into a URL, which logs store."""
        headers = {name: account.revealed(value) for name, value in self._headers.items()}
        if self._key and not any(name.lower() in (_KEY, "authorization") for name in headers):
            headers[_KEY] = self._key.reveal()
        return headers

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        model = request.model or ""
        path = model if "/" in model else f"models/{model}"  # such as tunedModels/NAME
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/{quote(path, safe='/')}:{method}", self.build_payload(request)

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        return self.parse_response(data)

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> GeminiStream:
        return GeminiStream(self._limits)

    async def _rows(self) -> list[dict[str, Any]] | None:
        rows = await self._list("/models?pageSize=1000", "models", name="name")
        if rows is None:
            return None
        return [{"id": row["id"].removeprefix("models/")} for row in rows if _generates_text(row)]

    def _url(self, path: str) -> str:
        return super()._url(f"/{self.api_version}{path}" if self.api_version else path)

    def _profile_of(self, model: str | None) -> ModelProfile:
        return super()._profile_of((model or self.default_model or "").removeprefix("models/"))


def _generates_text(row: dict[str, Any]) -> bool:
    """Return True if a listed model answers prompts; others embed text or generate images."""
    methods = row.get("supportedGenerationMethods")
    return not isinstance(methods, list) or "generateContent" in methods
