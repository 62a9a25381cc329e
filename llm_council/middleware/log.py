"""Logged: log each call, without prompts and answers."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from llm_council._runtime import call_context
from llm_council.errors import CouncilError
from llm_council.errors._secrets import redact
from llm_council.middleware.wrapper import Wrapper
from llm_council.models.reply import GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Logged"]


class Logged(Wrapper):
    """Log each call with the standard library: INFO when it answered, WARNING when it failed.

    The record has attributes for structured handlers: ``provider``, ``model``, ``run_id``, ``phase``, ``streamed``,
    ``elapsed`` (seconds), ``attempts`` and ``request_id``; after an answer ``finish_reason``, ``input_tokens``,
    ``output_tokens`` and ``usd``; after a failure ``error`` and ``status``. Neither message nor attributes hold a
    prompt, an answer, or the message of an error, which may quote them.

    Args:
        inner: the provider.
        logger: the logger or its name.
        content: also log prompts, answers and messages of errors, in separate records of level DEBUG.
        clock: returns monotonic seconds.
    """

    _is_own_middleware = True
    _keeps_time_limits = True

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

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the wrapped provider, and log the outcome."""
        began = self._clock()
        self._log_request(request)
        try:
            response = await call(self.inner, request)
        except CouncilError as error:
            self._log_failure(request, error, began, streamed=False)
            raise
        self._log_answer(request, response, began, streamed=False)
        return response

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the wrapped provider's answer as it arrives, and log the outcome."""
        began = self._clock()
        self._log_request(request)
        chunks: list[GenerateChunk] = []
        try:
            async with aclosing(stream(self.inner, request)) as arriving:
                async for chunk in arriving:
                    chunks.append(chunk)
                    yield chunk
        except CouncilError as error:
            self._log_failure(request, error, began, streamed=True)
            raise
        self._log_answer(request, join(chunks), began, streamed=True)

    def _log_request(self, request: GenerateRequest) -> None:
        if self._content and self._logger.isEnabledFor(logging.DEBUG):
            for turn in request.turns():
                self._logger.debug("%s is asked: %s: %s", self.name, turn.role, redact(turn.text))

    def _log_answer(
        self, request: GenerateRequest, response: GenerateResponse, began: float, *, streamed: bool
    ) -> None:
        if not self._logger.isEnabledFor(logging.INFO):
            return
        usage, cost, reason = response.usage, response.cost, response.finish_reason
        attributes = self._attributes(request, began, streamed=streamed) | {
            "model": response.model or request.model,
            "finish_reason": None if reason is None else str(reason),
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "usd": cost.usd if cost else None,
            "attempts": len(response.attempts) or 1,
            "request_id": response.request_id,
        }
        tokens = usage.total_tokens if usage else None
        count = "unknown" if tokens is None else tokens
        summary = f"{attributes['model'] or self.name}: {count} tokens, {attributes['finish_reason']}"
        self._logger.info("%s answered in %.2f s: %s", self.name, attributes["elapsed"], summary, extra=attributes)
        if self._content:
            self._logger.debug("%s answered: %s", self.name, redact(response.text or ""))

    def _log_failure(self, request: GenerateRequest, error: CouncilError, began: float, *, streamed: bool) -> None:
        kind, status = type(error).__name__, getattr(error, "status", None)
        attributes = self._attributes(request, began, streamed=streamed) | {
            "model": error.model or request.model,
            "error": kind,
            "status": status,
            "attempts": len(error.attempts) or 1,
            "request_id": error.request_id,
        }
        summary = kind if status is None else f"{kind} (HTTP {status})"
        self._logger.warning("%s failed after %.2f s: %s", self.name, attributes["elapsed"], summary, extra=attributes)
        if self._content:
            self._logger.debug("%s failed: %s", self.name, error.message)

    def _attributes(self, request: GenerateRequest, began: float, *, streamed: bool) -> dict[str, Any]:
        # None of these names may be one of a record's own, such as ``name``: ``logging`` raises KeyError for it.
        return {
            "provider": self.name,
            "run_id": call_context.current().run_id,
            "phase": request.metadata.get("phase"),
            "streamed": streamed,
            "elapsed": self._clock() - began,
        }
