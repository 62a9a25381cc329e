"""Failover: call one provider after the other, until one answers."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import NoReturn

from llm_council._runtime import call_context
from llm_council.errors import (
    Attempt,
    ContentFiltered,
    CouncilError,
    InvalidOption,
    RequestRejected,
    RequestTooLarge,
    failed_attempt,
)
from llm_council.middleware._group import FAILURES, Member, ProviderGroup
from llm_council.middleware.retry import Retry
from llm_council.middleware.wrapper import providers_within, shift_attempts
from llm_council.models._attrs import copy_with
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter

__all__ = ["Failover"]


class Failover(ProviderGroup):
    """Call the first provider; if it fails, the next.

    Errors that the next provider would repeat are raised at once: a request that the vendor rejects
    (``RequestRejected``, ``RequestTooLarge``) and an answer that it filtered (``ContentFiltered``). After an unknown
    model, too long a context, a missing capability or a missing key, the next provider is called.

    A provider that failed ``failures`` times in a row gets no calls for ``cool_down`` seconds, or for the time of its
    Retry-After; a wrong key or an empty account has that effect at once. Then one call tests it.

    Args:
        providers: the providers, the first choice first.
        name: the name of this instance.
        mid_stream: what happens to a stream that fails after its first text: ``"error"`` raises, ``"restart"`` yields a
            chunk with ``reset`` set, which voids all chunks before it, then the next provider's answer. Before the
            first text, the next provider is called and the consumer does not notice.
        patience: most seconds for one provider while another one could follow; None is the call's own time.
        failures: failures in a row after which a provider gets no calls.
        cool_down: seconds without calls.
        clock: returns monotonic seconds.
    """

    name = "failover"

    _is_own_middleware = True
    _makes_several_calls = True
    _goes_on = True

    def __init__(
        self,
        providers: Sequence[ProviderAdapter],
        *,
        name: str | None = None,
        mid_stream: str = "error",
        patience: float | None = None,
        failures: int = 5,
        cool_down: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(providers, name=name, failures=failures, cool_down=cool_down, clock=clock)
        if mid_stream not in ("error", "restart"):
            raise InvalidOption(f"mid_stream: 'error' or 'restart', got {mid_stream!r:.80}")
        if patience is not None and not patience > 0:
            raise InvalidOption(f"patience: a number of seconds above 0, got {patience!r:.80}")
        for held in (held for provider in providers for held in providers_within(provider)):
            if isinstance(held, Retry):
                held._can_go_on = True
        self._restarts = mid_stream == "restart"
        self._patience = patience

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call one provider after the other, until one answers."""
        attempts = _Attempts(self, request)
        member = attempts.first()
        while True:
            try:
                response = await self._call(member, request, attempts.patience())
            except FAILURES as error:
                member = attempts.after(error)
            else:
                return attempts.with_attempts(response)

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer of the first provider that gives one."""
        attempts = _Attempts(self, request)
        member = attempts.first()
        yielded = False
        while True:
            held: list[GenerateChunk] = []  # chunks before the first text; dropped if the provider then fails
            begun = False
            try:
                async with aclosing(self._stream(member, request, attempts.patience())) as chunks:
                    async for chunk in chunks:
                        begun = begun or bool(chunk.text or chunk.reasoning or chunk.refusal or chunk.tool_calls)
                        held.append(chunk)
                        if not begun:
                            continue
                        yielded = True
                        for piece in held:
                            yield piece
                        held.clear()
                for piece in held:
                    yield piece
            except FAILURES as error:
                if yielded and not self._restarts:
                    attempts.give_up(error)
                failed, member = member, attempts.after(error)
                if begun:
                    yield GenerateChunk(reset=f"{failed.name} failed after its first words: {error.message}")
            else:
                return


class _Attempts:
    """The attempts of one call, and the providers that it has not called yet."""

    def __init__(self, failover: Failover, request: GenerateRequest) -> None:
        self._failover = failover
        self._scope = call_context.current()
        self._clock = failover._clock
        self._began = self._start = self._clock()
        bounds = [seconds for seconds in (request.timeout_seconds, self._scope.left()) if seconds is not None]
        self._end = self._scope.clock() + min(bounds) if bounds else math.inf
        self._left = list(reversed(failover._members))  # ``pop`` takes the last one
        self._attempts: list[Attempt] = []
        self._best: CouncilError | None = None

    def first(self) -> Member:
        """Return the first provider.

        Raises:
            ServerFailed: none may be called now.
        """
        member = self._next_admitted()
        if member is None:
            raise self._failover._none_available()
        return member

    def patience(self) -> float | None:
        """Return the most seconds for the current provider; None if no other one could follow it."""
        now = self._clock()
        others = any(member.breaker.wait(now) == 0 for member in self._left)
        return self._failover._patience if others else None

    def after(self, error: CouncilError) -> Member:
        """Return the next provider after a failure.

        Raises:
            CouncilError: the same error, with all attempts, if there is no next provider.
        """
        if not _may_differ_elsewhere(error) or self._scope.clock() >= self._end:
            self.give_up(error)
        member = self._next_admitted()
        if member is None:
            self.give_up(error)
        if self._scope.afford is not None and not self._scope.afford(error):
            member.breaker.ended()  # it was admitted, but is not called
            self.give_up(error)
        self._attempts.append(self._attempt(error, 0.0))
        if self._best is None or error.retryable:
            self._best = error
        if self._scope.on_failed_attempt is not None:
            self._scope.on_failed_attempt(error, 0.0)
        self._start = self._clock()
        return member

    def give_up(self, error: CouncilError) -> NoReturn:
        """Raise the error, or a retryable one from before it, with all attempts.

        A retryable error makes a ``Retry`` around this middleware repeat all calls.
        """
        self._attempts.append(self._attempt(error, None))
        best = self._best
        if best is not None and best.retryable and not error.retryable and _may_differ_elsewhere(error):
            error = best
        error.attempts = tuple(self._attempts)
        raise error

    def with_attempts(self, response: GenerateResponse) -> GenerateResponse:
        """Return the answer with the attempts of all providers."""
        if not self._attempts:
            return response
        return copy_with(
            response, attempts=(*self._attempts, *shift_attempts(response.attempts, self._start - self._began))
        )

    def _next_admitted(self) -> Member | None:
        while self._left:
            member = self._left.pop()
            if member.breaker.admit(self._clock()):
                return member
        return None

    def _attempt(self, error: CouncilError, wait: float | None) -> Attempt:
        at, elapsed = self._start - self._began, self._clock() - self._start
        message = f"{error.provider or self._failover.name}: {error.message}"
        return failed_attempt(error, at=at, elapsed=elapsed, retry_in=wait, message=message)


def _may_differ_elsewhere(error: CouncilError) -> bool:
    """Return True if another provider may succeed after this error."""
    if isinstance(error, ContentFiltered | RequestTooLarge):
        return False
    # Subclasses such as ``ModelNotFound`` and ``ContextTooLong`` depend on the provider.
    return type(error) is not RequestRejected
