"""Vertex AI: Gemini and Claude behind Google Cloud's sign-in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import error_mapping, profiles
from llm_council.providers._call.bounded import heeding
from llm_council.providers._call.profiles import ModelProfile
from llm_council.providers._google.sign_in import SignedTransport, SignIn
from llm_council.providers._google.vertex import is_claude
from llm_council.providers._http import account
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers._vertex import ClaudeOnVertex, GeminiOnVertex, Place
from llm_council.providers.base import ProviderAdapter

__all__ = ["VertexProvider"]


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

    @error_mapping.guarded
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

    @heeding
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Send a request, and return the answer."""
        return await self._speaker(request.model).generate(request)

    @heeding
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
        place, beside = self._place, account.mark(*self._gemini._besides(), *self._claude._besides())
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
