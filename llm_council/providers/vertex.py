"""Vertex AI: Gemini and Claude behind Google Cloud's sign-in.

The bodies are those of Google's and Anthropic's own APIs. In a body for Claude the address names the model, and
``anthropic_version`` replaces the header of Anthropic's API.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar
from urllib.parse import quote

from llm_council._wire.payloads import loads
from llm_council.errors import ApiError, InvalidOption, MalformedReply
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers import _anthropic, _google
from llm_council.providers._call import error_mapping, profiles
from llm_council.providers._call.bounded import cancellable
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers._call.profiles import ModelProfile
from llm_council.providers._google.sign_in import SignedTransport, SignIn
from llm_council.providers._http import account
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.base import ProviderAdapter
from llm_council.providers.gemini import GeminiProvider
from llm_council.transports import HttpReply

__all__ = ["VertexProvider"]

_BASE_URL_ENV = "GOOGLE_VERTEX_BASE_URL"
_PROJECT_ENV = "GOOGLE_CLOUD_PROJECT"
_LOCATION_ENVS = ("GOOGLE_CLOUD_LOCATION", "CLOUD_ML_REGION")  # Google's own client's, and Anthropic's
_MULTI_REGIONS = frozenset({"us", "eu"})
_OTHERS = "Vertex AI is spoken to about models of Google and Anthropic"


class VertexProvider(ProviderAdapter):
    """Gemini and Claude on Vertex AI; a model whose name begins with ``claude`` is Anthropic's.

    Tokens are those of Google's application default credentials: ``gcloud auth application-default login``, the file
    that ``GOOGLE_APPLICATION_CREDENTIALS`` names, or the machine's own account in Google's cloud. They are looked for
    by the first call, and never by making this. Needs the extra ``vertex``.

    Args:
        project: the project's id; None takes ``GOOGLE_CLOUD_PROJECT``, else the credentials' own.
        location: such as ``"eu"``; None takes ``GOOGLE_CLOUD_LOCATION``, else ``CLOUD_ML_REGION``, else ``"global"``.
        credentials: credentials of google-auth to sign in with. They are not pickled.
        default_model: the model for requests that name none; None is the Gemini API's.
        base_url: another address than the location's, without the version; ``GOOGLE_VERTEX_BASE_URL`` if set.
        api_version: the version in the address; None is ``"v1beta1"`` for Gemini and ``"v1"`` for Claude.
        claude_version: what ``anthropic_version`` says.
        answer_tokens: see ``AnthropicProvider``.
        **options: those of ``HttpProvider``. ``headers`` with an ``Authorization`` replaces the sign-in.

    Raises:
        InvalidOption: an argument will not do.
    """

    name = "vertex"
    capabilities = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True
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
        return await self._speaker(request.model).generate(request)

    @cancellable
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Send a request, and yield the answer as it arrives."""
        pieces: Any = self._speaker(request.model).stream(request)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Sign in, and list Google's models; ``deep`` makes a call too, of the kind that a run makes."""
        return await self._speaker(None).doctor(deep=deep)

    def check(self) -> None:
        """Refuse to start what cannot work, without looking for credentials.

        Raises:
            MissingDependency: google-auth is not installed.
        """
        if not self._place.is_signed:
            self._place.sign_in.check()

    def cache_identity(self) -> str:
        """Return the name, and whose models are asked where."""
        place, beside = self._place, account.mark(*self._gemini._identity_extras(), *self._claude._identity_extras())
        where = f"{self._gemini.base_url}:{place.project}:{place.location}"
        return f"{super().cache_identity()}:{where}:{self.default_model}{beside}"

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._transport.aclose()
        await super().aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self._gemini.base_url}>"

    def _speaker(self, model: str | None) -> HttpProvider:
        return self._claude if is_claude(model or self.default_model) else self._gemini

    def _profile_of(self, model: str | None) -> ModelProfile:
        return self._speaker(model)._profile_of(model)


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
        said = next((word for name in _LOCATION_ENVS if (word := os.environ.get(name, "").strip())), "global")
        self.location = location or said
        if not re.fullmatch(r"[a-z0-9-]+", self.location):
            raise InvalidOption(f'location: a word such as "global" or "europe-west1", got {self.location!r:.80}')
        self.project = project or os.environ.get(_PROJECT_ENV, "").strip() or None
        self.sign_in = sign_in
        self.is_signed = False

    @property
    def address(self) -> str:
        """The address of the location, unless ``GOOGLE_VERTEX_BASE_URL`` says another."""
        return os.environ.get(_BASE_URL_ENV, "").strip() or host(self.location)

    async def find(self) -> None:
        """Make sure that there is a project.

        Raises:
            MissingCredentials: nobody is signed in.
            InvalidOption: nobody says which project.
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
        return f"/{address}{self._place.path(request.model)}:{method}", encode_claude(payload, version=said)

    def _refusal(self, reply: HttpReply) -> ApiError:
        return decode_claude_error(
            reply.status, reply.headers, reply.body, now=time.time(), request_id=reply.request_id
        )

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Fetch a token: Vertex AI lists no models of Anthropic's."""
        await self._place.find()
        if not self._place.is_signed:
            await self._place.sign_in.headers()
        return f"signed in to project {self._place.project}; whether Claude answers there, a deep check tells", {}


def host(location: str) -> str:
    """Return the address of a location: ``"global"``, a continent such as ``"eu"``, or a region."""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def is_claude(model: str) -> bool:
    """Tell whether a model is Anthropic's; every other one is taken for Google's.

    Args:
        model: ``"claude-..."``, or with its publisher before it: ``"anthropic/claude-..."``.
    """
    publisher, _, name = model.rpartition("/")
    return publisher.rpartition("/")[2] == "anthropic" or (not publisher and name.startswith("claude"))


def resource(model: str, *, project: str, location: str) -> str:
    """Return the path of a model, from ``/projects``.

    Args:
        model: its name, with or without its publisher; a date may follow ``@``. ``endpoints/NUMBER`` is a tuned model.
        project: the project's id.
        location: where it is served.

    Raises:
        InvalidOption: the publisher is neither Google nor Anthropic.
    """
    publisher, _, name = model.rpartition("/")
    publisher = publisher.rpartition("/")[2] or ("anthropic" if is_claude(model) else "google")
    within = f"/projects/{quote(project, safe=':')}/locations/{quote(location, safe='')}"
    if publisher == "endpoints":
        return f"{within}/endpoints/{quote(name, safe='')}"
    if publisher not in ("google", "anthropic", "models"):  # models/NAME is how the Gemini API writes it
        raise InvalidOption(f"{_OTHERS}, not of {publisher!r:.80}")
    publisher = "google" if publisher == "models" else publisher
    return f"{within}/publishers/{publisher}/models/{quote(name, safe='@')}"


def encode_claude(payload: Mapping[str, Any], *, version: str) -> dict[str, Any]:
    """Return a request of Anthropic's dialect as it goes to Vertex AI.

    Args:
        payload: the request.
        version: what ``anthropic_version`` says.
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
) -> ApiError:
    """Read the reply to a refused request for Claude: the platform's refusals are Google's, the model's Anthropic's.

    Arguments are those of ``failures.DecodeError``.
    """
    try:
        value = loads(body)
    except MalformedReply:
        value = None
    theirs = isinstance(value, dict) and value.get("type") == "error"
    decode = _anthropic.decode_error if theirs else _google.decode_error
    return decode(status, headers, body, now=now, request_id=request_id)
