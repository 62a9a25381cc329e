"""Vertex AI: Gemini and Claude behind Google Cloud's sign-in.

Payloads and replies are those of Google's and Anthropic's own APIs. For Claude, the model is part of the URL, and the
field ``anthropic_version`` replaces the header of Anthropic's API.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar
from urllib.parse import quote

from llm_council._wire.payloads import loads_object
from llm_council.errors import InvalidOption, ProviderError
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers import _anthropic, _google
from llm_council.providers._call import error_mapping, profiles
from llm_council.providers._call.bounded import cancellable
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers._call.profiles import ModelProfile
from llm_council.providers._google.sign_in import REMEDY, SignedTransport, SignIn
from llm_council.providers._http import account
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import ProviderAdapter
from llm_council.providers.gemini import GeminiProvider
from llm_council.transports import HttpReply

__all__ = ["VertexProvider"]

_BASE_URL_ENV = "GOOGLE_VERTEX_BASE_URL"
_PROJECT_ENV = "GOOGLE_CLOUD_PROJECT"
_LOCATION_ENVS = ("GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION")  # the variables of Google's client and of Anthropic's
_MULTI_REGIONS = frozenset({"us", "eu"})


class VertexProvider(ProviderAdapter):
    """Gemini and Claude on Vertex AI; a model whose name starts with ``claude`` is Anthropic's.

    Signs in with Google's application default credentials: ``gcloud auth application-default login``, the file that
    ``GOOGLE_APPLICATION_CREDENTIALS`` names, or the account of a machine in Google Cloud. The first call loads them.
    Needs the extra ``vertex``.

    Args:
        project: the project's id; None takes ``GOOGLE_CLOUD_PROJECT``, else the credentials' own.
        location: such as ``"eu"``; None takes ``GOOGLE_CLOUD_LOCATION``, else ``CLOUD_ML_REGION``, else ``"global"``.
        credentials: credentials of google-auth; None loads the default ones. They are not pickled.
        default_model: the model for requests that name none; None means the Gemini API's default.
        base_url: an address without the version; None takes ``GOOGLE_VERTEX_BASE_URL``, else the location's.
        api_version: the version in the URL; None means ``"v1beta1"`` for Gemini and ``"v1"`` for Claude.
        claude_version: the value of ``anthropic_version``.
        answer_tokens: see ``AnthropicProvider``.
        **options: those of ``HttpProvider``. ``headers`` with an ``Authorization`` replaces the sign-in.

    Raises:
        InvalidOption: an argument is invalid.
    """

    name = "vertex"
    capabilities = ProviderCapabilities(
        streaming=True,
        tool_use=True,
        structured_output=True,
        multimodal=True,
        documents=True,
        audio=True,
        reasoning=True,
    )

    @error_mapping.hide_frames
    def __init__(
        self,
        *,
        project: str | None = None,
        location: str | None = None,
        credentials: Any = None,
        default_model: str | None = None,
        base_url: str | None = None,
        api_version: str | None = None,
        claude_version: str = "vertex-2023-10-16",
        answer_tokens: int = 16_000,
        **options: Any,
    ) -> None:
        self._place = place = Place(project, location, SignIn(credentials))
        self._transport = signed = SignedTransport(options.pop("transport", None), place.sign_in)
        self.default_model = default_model or profiles.default_model("gemini") or ""
        shared = {"base_url": base_url or place.address, "default_model": self.default_model, **options}
        shared["transport"] = signed
        claude = {"version": claude_version, "answer_tokens": answer_tokens, **shared}
        self._claude = ClaudeOnVertex(place, api_version=api_version or "v1", **claude)
        self._gemini = GeminiOnVertex(place, api_version=api_version or "v1beta1", **shared)
        place.is_signed = self._gemini._is_signed()
        self._timeouts = self._gemini._timeouts
        self.name = self._gemini.name  # type: ignore[misc]  # an instance's own

    @cancellable
    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Send a request, and return the answer."""
        return await self._provider_for(request.model).generate(request)

    @cancellable
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Send a request, and yield the answer as it arrives."""
        pieces: Any = self._provider_for(request.model).stream(request)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Sign in, and list Google's models; ``deep`` also makes a call like those of a run."""
        return await self._provider_for(None).doctor(deep=deep)

    def check(self) -> None:
        """Check for missing packages, without loading credentials.

        Raises:
            MissingDependency: google-auth is not installed.
        """
        if not self._place.is_signed:
            self._place.sign_in.check()

    def _key_advice(self) -> str:
        """Return where Google's credentials come from."""
        return "check the credentials in the headers" if self._place.is_signed else REMEDY

    def cache_identity(self) -> str:
        """Return the name, the address, the project and the location."""
        place = self._place
        extras = account.hash_of_extras(*self._gemini._identity_extras(), *self._claude._identity_extras())
        where = f"{self._gemini.base_url}:{place.project}:{place.location}"
        return f"{self._class_identity()}:{where}:{self.default_model}{extras}{self._arguments_identity()}"

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._transport.aclose()
        await super().aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self._gemini.base_url}>"

    def _provider_for(self, model: str | None) -> HttpProvider:
        return self._claude if is_claude(model or self.default_model) else self._gemini

    def _profile_of(self, model: str | None) -> ModelProfile:
        return self._provider_for(model)._profile_of(model)


class Place:
    """The project and the location of requests.

    Args:
        project: the project's id; None takes ``GOOGLE_CLOUD_PROJECT``, else the credentials' own.
        location: None takes ``GOOGLE_CLOUD_LOCATION``, else ``CLOUD_ML_REGION``, else ``"global"``.
        sign_in: the source of tokens.

    Attributes:
        is_signed: the caller signs the requests, so no credentials are loaded.

    Raises:
        InvalidOption: the location has characters other than lower-case letters, digits and hyphens.
    """

    def __init__(self, project: str | None, location: str | None, sign_in: SignIn) -> None:
        found = [os.environ.get(name, "").strip() for name in _LOCATION_ENVS]
        self.location = location or next(filter(None, found), "global")
        if not re.fullmatch(r"[a-z0-9-]+", self.location):
            raise InvalidOption(f'location: a word such as "global" or "europe-west1", got {self.location!r:.80}')
        self.project = project or os.environ.get(_PROJECT_ENV, "").strip() or None
        self.sign_in = sign_in
        self.is_signed = False

    @property
    def address(self) -> str:
        """Return ``GOOGLE_VERTEX_BASE_URL`` if set, else the address of the location."""
        return os.environ.get(_BASE_URL_ENV, "").strip() or host(self.location)

    async def find(self) -> None:
        """Determine the project.

        Raises:
            MissingCredentials: there are no credentials.
            InvalidOption: neither the caller nor the credentials name a project.
        """
        if self.project is None and not self.is_signed:
            self.project = await self.sign_in.project()
        if self.project is None:
            raise InvalidOption(f"vertex needs a project: set {_PROJECT_ENV}, or pass project")

    def path(self, model: str | None) -> str:
        """Return the path of a model, from ``/projects``."""
        return resource(model or "", project=self.project or "", location=self.location)


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

    def batch_jobs(self) -> None:
        """Return None: batch jobs on Vertex AI have another wire, and read and write Cloud Storage."""

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        await self._place.find()
        return await super()._inspect()

    async def _rows(self) -> list[dict[str, Any]] | None:
        rows = await self._list("/publishers/google/models?pageSize=200", "publisherModels", name="name")
        return None if rows is None else [{"id": row["id"].rpartition("/")[2]} for row in rows]

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
        self._on_cloud = True
        self._versions = (api_version, version)

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, without the version, which goes into the payload."""
        return {name: value for name, value in super().headers().items() if name != "anthropic-version"}

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        prepared = await super()._prepared(request)
        await self._place.find()
        return prepared

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        _, payload = super()._encode(request, stream=stream)
        api_version, anthropic_version = self._versions
        method = "streamRawPredict" if stream else "rawPredict"
        path = f"/{api_version}{self._place.path(request.model)}:{method}"
        return path, encode_claude(payload, version=anthropic_version)

    def _refusal(self, reply: HttpReply) -> ProviderError:
        now = time.time()
        return decode_claude_error(reply.status, reply.headers, reply.body, now=now, request_id=reply.request_id)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Fetch a token, since Vertex AI does not list Anthropic's models."""
        await self._place.find()
        if not self._place.is_signed:
            await self._place.sign_in.headers()
        return f"signed in to project {self._place.project}; a deep check tells whether Claude answers there", {}


def host(location: str) -> str:
    """Return the address of a location: ``"global"``, a multi-region such as ``"eu"``, or a region."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def is_claude(model: str) -> bool:
    """Return True if a model is Anthropic's; every other model counts as Google's.

    Args:
        model: ``"claude-..."``, or with its publisher: ``"anthropic/claude-..."``.
    """
    publisher, _, name = model.rpartition("/")
    return publisher.rpartition("/")[2] == "anthropic" or (not publisher and name.startswith("claude"))


def resource(model: str, *, project: str, location: str) -> str:
    """Return the path of a model, from ``/projects``.

    Args:
        model: the name, with or without the publisher; a date may follow ``@``. ``endpoints/NUMBER`` is a tuned model.
        project: the project's id.
        location: the location that serves it.

    Raises:
        InvalidOption: the publisher is neither Google nor Anthropic.
    """
    publisher, _, name = model.rpartition("/")
    publisher = publisher.rpartition("/")[2] or ("anthropic" if is_claude(model) else "google")
    within = f"/projects/{quote(project, safe=':')}/locations/{quote(location, safe='')}"
    if publisher == "endpoints":
        return f"{within}/endpoints/{quote(name, safe='')}"
    if publisher not in ("google", "anthropic", "models"):  # models/NAME is the form of the Gemini API
        raise InvalidOption(
            f"on Vertex AI, only models of Google and Anthropic are supported, not of {publisher!r:.80}"
        )
    publisher = "google" if publisher == "models" else publisher
    return f"{within}/publishers/{publisher}/models/{quote(name, safe='@')}"


def encode_claude(payload: Mapping[str, Any], *, version: str) -> dict[str, Any]:
    """Convert a payload of Anthropic's API to the form of Vertex AI.

    Args:
        payload: the payload for Anthropic's API.
        version: the value of ``anthropic_version``.
    """
    body = {key: value for key, value in payload.items() if key != "model"}
    return {"anthropic_version": version, **body}


def decode_claude_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes | str,
    *,
    now: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """Decode the reply to a refused request for Claude, in Google's form or in Anthropic's.

    Arguments are those of ``failures.ErrorDecoder``.
    """
    value = loads_object(body) or {}
    decode = _anthropic.decode_error if value.get("type") == "error" else _google.decode_error
    return decode(status, headers, body, now=now, request_id=request_id)
