"""A line in the log for each call, without a word of what was said."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from llm_council._runtime import call_context
from llm_council.errors import CouncilError
from llm_council.errors._secrets import redact
from llm_council.middleware._wrapper import Wrapper
from llm_council.models.reply import GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Logged"]


class Logged(Wrapper):
    """Log each call with the standard library: INFO when it answered, WARNING when it failed.

    The message is for people. The facts are attributes of the record, for structured handlers: ``provider``, ``model``,
    ``run_id``, ``phase``, ``streamed``, ``elapsed`` (seconds), ``attempts``, ``request_id``; of an answer
    ``finish_reason``, ``input_tokens``, ``output_tokens``, ``usd``; of a failure ``error`` and ``status``. Neither has
    a prompt, an answer, or the message of an error, which may repeat them.

    Args:
        inner: the provider.
        logger: the logger or its name.
        content: log prompts, answers and messages of errors too, in records of their own on level DEBUG.
        clock: monotonic seconds.
    """

    _heeds_cancellation = True
    _bounded_within = True

    def __init__(
        self,
        inner: ProviderAdapter,
        *,
        logger: logging.Logger | str = "llm_council.calls",
        content: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._content = content
        self._clock = clock

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask the held provider, and log how it went."""
        began = self._clock()
        self._asks(request)
        try:
            response = await call(self.inner, request)
        except CouncilError as error:
            self._failed(request, error, began, streamed=False)
            raise
        self._answered(request, response, began, streamed=False)
        return response

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the held provider's answer as it arrives, and log how it went."""
        began = self._clock()
        self._asks(request)
        chunks: list[GenerateChunk] = []
        try:
            async with aclosing(stream(self.inner, request)) as arriving:
                async for chunk in arriving:
                    chunks.append(chunk)
                    yield chunk
        except CouncilError as error:
            self._failed(request, error, began, streamed=True)
            raise
        self._answered(request, join(chunks), began, streamed=True)

    def _asks(self, request: GenerateRequest) -> None:
        if self._content and self._logger.isEnabledFor(logging.DEBUG):
            for turn in request.turns():
                self._logger.debug("%s is asked: %s: %s", self.name, turn.role, redact(turn.text))

    def _answered(self, request: GenerateRequest, response: GenerateResponse, began: float, *, streamed: bool) -> None:
        if not self._logger.isEnabledFor(logging.INFO):
            return
        usage, cost, reason = response.usage, response.cost, response.finish_reason
        facts = self._facts(request, began, streamed=streamed) | {
            "model": response.model or request.model,
            "finish_reason": None if reason is None else str(reason),
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "usd": cost.usd if cost else None,
            "attempts": len(response.attempts) or 1,
            "request_id": response.request_id,
        }
        tokens = usage.total_tokens if usage else None
        said = (
            f"{facts['model'] or self.name}: {'unknown' if tokens is None else tokens} tokens, {facts['finish_reason']}"
        )
        self._logger.info("%s answered in %.2f s: %s", self.name, facts["elapsed"], said, extra=facts)
        if self._content:
            self._logger.debug("%s answered: %s", self.name, redact(response.text or ""))

    def _failed(self, request: GenerateRequest, error: CouncilError, began: float, *, streamed: bool) -> None:
        kind, status = type(error).__name__, getattr(error, "status", None)
        facts = self._facts(request, began, streamed=streamed) | {
            "model": error.model or request.model,
            "error": kind,
            "status": status,
            "attempts": len(error.attempts) or 1,
            "request_id": error.request_id,
        }
        said = kind if status is None else f"{kind} (HTTP {status})"
        self._logger.warning("%s failed after %.2f s: %s", self.name, facts["elapsed"], said, extra=facts)
        if self._content:
            self._logger.debug("%s failed: %s", self.name, error.message)

    def _facts(self, request: GenerateRequest, began: float, *, streamed: bool) -> dict[str, Any]:
        return {
            "provider": self.name,
            "run_id": call_context.current().run_id,
            "phase": request.metadata.get("phase"),
            "streamed": streamed,
            "elapsed": self._clock() - began,
        }
