"""Anthropic's Claude Code."""

from __future__ import annotations

import json
from typing import ClassVar

import attrs

from llm_council._wire.payloads import dumps
from llm_council.errors import AuthenticationFailed
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.claude_code import LONGEST_SCHEMA, REMEDY, ClaudeCodeEvents, encode_request
from llm_council.providers._agents.invocation import Invocation
from llm_council.providers._agents.provider import CommandLineProvider

__all__ = ["ClaudeCodeProvider"]


class ClaudeCodeProvider(CommandLineProvider):
    """Claude Code, signed in with a subscription or by ``ANTHROPIC_API_KEY``.

    A request's ``extra`` becomes long options: ``{"max_budget_usd": 1}`` is ``--max-budget-usd=1``.

    Args:
        **options: those of ``CommandLineProvider``.
    """

    name = "claude-code"
    capabilities = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True
    )

    PROGRAM: ClassVar[str] = "claude"
    INSTALL: ClassVar[str] = "install it with: npm install -g @anthropic-ai/claude-code"
    SIGN_IN: ClassVar[str] = REMEDY
    TRIED: ClassVar[str] = "2.1.197"
    VARIABLES: ClassVar[tuple[str, ...]] = (
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_MODEL",
        "CLAUDE_CONFIG_DIR",
    )
    KEYS: ClassVar[tuple[str, ...]] = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
    TAKES_MAX_TOKENS: ClassVar[bool] = True

    def invocation(self, request: GenerateRequest, *, live: bool) -> Invocation:
        """Encode a fitted request; override to add arguments."""
        return encode_request(request, live=live)

    def _abilities(self, request: GenerateRequest) -> ProviderCapabilities:
        wanted = request.structured_output
        too_long = wanted is not None and len(dumps(wanted.json_schema)) > LONGEST_SCHEMA
        return attrs.evolve(self.capabilities, structured_output=False) if too_long else super()._abilities(request)

    def _reader(self) -> ClaudeCodeEvents:
        return ClaudeCodeEvents(self._limits)

    async def _sign_in(self) -> str | None:
        _, output = await self._probe("auth", "status")
        try:
            status = json.loads(output)
        except ValueError:
            return self._has_key()  # an older version does not have this command
        if not isinstance(status, dict) or not isinstance(status.get("loggedIn"), bool):
            return self._has_key()
        if not status["loggedIn"]:
            raise AuthenticationFailed(f"claude is not signed in: {REMEDY}")
        return str(status.get("apiKeySource") or status.get("authMethod") or "its own means")
