"""OpenAI's Codex CLI."""

from __future__ import annotations

from typing import ClassVar

from llm_council.errors import AuthenticationFailed
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.codex import REMEDY, CodexEvents, encode_request
from llm_council.providers._agents.invocation import Invocation
from llm_council.providers._agents.provider import CommandLineProvider

__all__ = ["CodexProvider"]


class CodexProvider(CommandLineProvider):
    """Codex CLI, signed in with ChatGPT or by ``CODEX_API_KEY``.

    A request's ``extra`` becomes settings: ``{"model_verbosity": "low"}`` is ``-c model_verbosity="low"``.

    Args:
        **options: those of ``CommandLineProvider``.
    """

    name = "codex"
    # The answer arrives whole, at the end, so there is no streaming.
    capabilities = ProviderCapabilities(tool_use=True, structured_output=True, multimodal=True, reasoning=True)

    PROGRAM: ClassVar[str] = "codex"
    INSTALL: ClassVar[str] = "install it with: npm install -g @openai/codex"
    SIGN_IN: ClassVar[str] = REMEDY
    TRIED: ClassVar[str] = "0.169.0"
    VARIABLES: ClassVar[tuple[str, ...]] = ("CODEX_HOME", "OPENAI_BASE_URL", "CODEX_CA_CERTIFICATE")
    KEYS: ClassVar[tuple[str, ...]] = ("CODEX_API_KEY", "OPENAI_API_KEY")

    def invocation(self, request: GenerateRequest, *, live: bool) -> Invocation:
        """Encode a fitted request; override to add arguments."""
        return encode_request(request)

    def _reader(self) -> CodexEvents:
        return CodexEvents(self._limits)

    async def _sign_in(self) -> str | None:
        if self._environment().get("CODEX_API_KEY"):
            return "CODEX_API_KEY"
        code, _ = await self._probe("login", "status")
        if code == 1:
            raise AuthenticationFailed(f"codex is not signed in: {REMEDY}")
        return "codex login" if code == 0 else None  # an older version does not have this command
