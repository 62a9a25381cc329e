"""The two kinds of models on Vertex AI, each a provider of its own dialect that sends elsewhere."""

from __future__ import annotations

import os
import re
import time
from typing import Any, ClassVar

from llm_council.errors import ApiError, InvalidOption
from llm_council.models.reply import Adjustment
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.profiles import ModelProfile
from llm_council.providers._google import vertex as wire
from llm_council.providers._google.sign_in import SignIn
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.transports import HttpReply

__all__ = ["ClaudeOnVertex", "GeminiOnVertex", "Place"]

_ADDRESS = "GOOGLE_VERTEX_BASE_URL"
_PROJECT = "GOOGLE_CLOUD_PROJECT"
_LOCATIONS = ("GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION")  # Google's own client's, and Anthropic's


class Place:
    """Whose models are asked, and where.

    Args:
        project: the project's id; None takes ``GOOGLE_CLOUD_PROJECT``, else the credentials' own.
        location: None takes ``GOOGLE_CLOUD_LOCATION``, else ``CLOUD_ML_REGION``, else ``"global"``.
        sign_in: how.

    Attributes:
        is_signed: whether the caller signs the requests, so that nobody is asked for credentials.

    Raises:
        InvalidOption: the location is no plain word.
    """

    def __init__(self, project: str | None, location: str | None, sign_in: SignIn) -> None:
        said = next((word for name in _LOCATIONS if (word := os.environ.get(name, "").strip())), "global")
        self.location = location or said
        if not re.fullmatch(r"[a-z0-9-]+", self.location):
            raise InvalidOption(f'location: a word such as "global" or "europe-west1", got {self.location!r:.80}')
        self.project = project or os.environ.get(_PROJECT, "").strip() or None
        self.sign_in = sign_in
        self.is_signed = False

    @property
    def address(self) -> str:
        """The address of the location, unless ``GOOGLE_VERTEX_BASE_URL`` says another."""
        return os.environ.get(_ADDRESS, "").strip() or wire.host(self.location)

    async def find(self) -> None:
        """Make sure that there is a project.

        Raises:
            MissingCredentials: nobody is signed in.
            InvalidOption: nobody says which project.
        """
        if self.project is None and not self.is_signed:
            self.project = await self.sign_in.project()
        if self.project is None:
            raise InvalidOption(f"vertex needs a project: set {_PROJECT}, or pass project")

    def path(self, model: str | None) -> str:
        """Return the path of a model, from ``/projects``."""
        return wire.resource(model or "", project=self.project or "", location=self.location)


class GeminiOnVertex(GeminiProvider):
    """Google's models on Vertex AI."""

    name = "vertex"

    BASE_URL_ENV: ClassVar[str | None] = None
    API_KEY_ENV: ClassVar[str | None] = None

    def __init__(self, place: Place, **options: Any) -> None:
        self._place = place
        super().__init__(**options)

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        prepared = await super()._prepared(request)
        await self._place.find()
        return prepared

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{self._place.path(request.model)}:{method}", self.build_payload(request)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        await self._place.find()
        return await super()._inspect()

    async def _rows(self) -> list[dict[str, Any]] | None:
        data = await self._get("/publishers/google/models?pageSize=200", missing=(404, 405))
        listed = data.get("publisherModels") if isinstance(data, dict) else None
        if not isinstance(listed, list):
            return None
        names = [row.get("name") for row in listed if isinstance(row, dict)]
        return [{"id": name.rpartition("/")[2]} for name in names if isinstance(name, str)]

    def _profile_of(self, model: str | None) -> ModelProfile:
        return super()._profile_of((model or self.default_model or "").rpartition("/")[2])


class ClaudeOnVertex(AnthropicProvider):
    """Anthropic's models on Vertex AI."""

    name = "vertex"

    BASE_URL_ENV: ClassVar[str | None] = None
    API_KEY_ENV: ClassVar[str | None] = None

    def __init__(self, place: Place, *, api_version: str, version: str, **options: Any) -> None:
        self._place = place
        super().__init__(version=version, **options)
        self._versions = (api_version, version)

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, without the version, which goes into the body."""
        return {name: value for name, value in super().headers().items() if name != "anthropic-version"}

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        prepared = await super()._prepared(request)
        await self._place.find()
        return prepared

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        _, payload = super()._encode(request, stream=stream)
        address, said = self._versions
        method = "streamRawPredict" if stream else "rawPredict"
        return f"/{address}{self._place.path(request.model)}:{method}", wire.encode_claude(payload, version=said)

    def _refusal(self, reply: HttpReply) -> ApiError:
        return wire.decode_error(reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Fetch a token: Vertex AI lists no models of Anthropic's."""
        await self._place.find()
        if not self._place.is_signed:
            await self._place.sign_in.headers()
        return f"signed in to project {self._place.project}; whether Claude answers there, a deep check tells", {}
