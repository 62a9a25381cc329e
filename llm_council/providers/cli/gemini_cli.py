"""Google's Gemini CLI."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from llm_council.errors import AuthenticationFailed
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.gemini_cli import REMEDY, GeminiCliEvents, encode_request
from llm_council.providers._agents.invocation import Invocation
from llm_council.providers._agents.provider import CommandLineProvider

__all__ = ["GeminiCliProvider"]


class GeminiCliProvider(CommandLineProvider):
    """Gemini CLI, signed in with Google or by ``GEMINI_API_KEY``.

    A request's ``extra`` becomes long options: ``{"debug": True}`` is ``--debug``.

    Args:
        **options: those of ``CommandLineProvider``.
    """

    name = "gemini-cli"
    capabilities = ProviderCapabilities(streaming=True, tool_use=True)

    PROGRAM: ClassVar[str] = "gemini"
    INSTALL: ClassVar[str] = "install it with: npm install -g @google/gemini-cli"
    SIGN_IN: ClassVar[str] = REMEDY
    TRIED: ClassVar[str] = "0.61.0"
    VARIABLES: ClassVar[tuple[str, ...]] = (
        "GEMINI_CLI_HOME",
        "GEMINI_MODEL",
        "GOOGLE_CLOUD_LOCATION",
        "GOOGLE_CLOUD_PROJECT",
        "GOOGLE_GEMINI_BASE_URL",
        "GOOGLE_GENAI_USE_GCA",
        "GOOGLE_GENAI_USE_VERTEXAI",
    )
    KEYS: ClassVar[tuple[str, ...]] = ("GEMINI_API_KEY", "GOOGLE_API_KEY")

    def invocation(self, request: GenerateRequest, *, live: bool) -> Invocation:
        """Encode a fitted request; override to add arguments."""
        return encode_request(request)

    def _reader(self) -> GeminiCliEvents:
        return GeminiCliEvents(self._limits)

    async def _sign_in(self) -> str | None:
        key = self._has_key()
        if key:
            return key
        found = self._environment()
        home = found.get("GEMINI_CLI_HOME") or found.get("HOME")
        place = Path(str(home), ".gemini") if home else None
        if place and any((place / name).exists() for name in ("oauth_creds.json", "gemini-credentials.json")):
            return "Google"
        if any(found.get(name) for name in ("GOOGLE_GENAI_USE_GCA", "GOOGLE_GENAI_USE_VERTEXAI")):
            return None  # the cloud's own credentials, which only a call tries
        raise AuthenticationFailed(f"gemini shows no sign-in: {REMEDY}")
