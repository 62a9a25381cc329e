"""Retry: repeat a failed call. This is the only retry loop of the package.

The retry libraries on PyPI sleep past a deadline and cannot take a clock, so this loop is our own. It does not decide
which errors may be retried: the place that raises an error sets ``CouncilError.retryable``.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import anyio

from llm_council._runtime import call_context
from llm_council.errors import (
    Attempt,
    InvalidOption,
    ProviderError,
    RateLimited,
    ReplyError,
    TimedOut,
    failed_attempt,
)
from llm_council.middleware.wrapper import Wrapper, providers_within, shift_attempts
from llm_council.models._attrs import copy_with
from llm_council.models.limits import RetryPolicy
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import pacing
from llm_council.providers._call.bounded import cancellable, seconds_for
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Retry"]

_RECHECK = 1.0
"""Most seconds until a call asks again for a provider of a group whose providers have all refused calls: a call that
tests one of them may show that it is back before its time."""


class Retry(Wrapper):
    """Repeat a failed call if it may succeed and there is time.

    The waits grow from ``policy.base`` with full jitter up to ``policy.cap``. A vendor's Retry-After replaces the wait
    if it is at most ``policy.max_retry_after`` and fits into the time left; otherwise the call fails at once with
    ``retry_after`` set. A timeout and an unreadable reply are retried once. A stream is restarted only before its first
    chunk with content. All attempts carry the same idempotency key.

    In a mapping over many tasks, a call that the vendor refuses for its rate is sent again when it is its turn, as
    often as its time allows: that is no retry. In a ``Failover``, which can go on to another provider, it stays one.

    Args:
        inner: the provider.
        policy: the number of retries and their waits.
        sleep: waits for a number of seconds.
        rng: the source of jitter.
    """

    _is_own_middleware = True
    _keeps_time_limits = True
    _makes_several_calls = True
    _can_go_on = False  # set by a ``Failover`` that holds this instance, and can go on to another provider

    def __init__(
        self,
        inner: ProviderAdapter,
        policy: RetryPolicy | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(inner)
        given: object = policy
        if given is not None and not isinstance(given, RetryPolicy):
            raise InvalidOption(f"policy: expected RetryPolicy(max_retries=...), got {given!r:.80}")
        self.policy = policy or RetryPolicy()
        self._sleep = sleep
        self._rng = rng or random.Random()
        held = providers_within(inner)
        self._inner_reports_attempts = any(getattr(provider, "_makes_several_calls", False) for provider in held)

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the wrapped provider, and repeat the call if that may help."""
        attempts = _Attempts(self, request)
        while True:
            attempts.begin()
            try:
                response = await call(self.inner, request, deadline=attempts.left())
            except ProviderError as error:
                wait = attempts.failed(error)
                if wait is None:
                    raise
                await self._sleep(wait)
            else:
                return copy_with(response, attempts=attempts.succeeded(response))

    @cancellable
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the wrapped provider's answer as it arrives; restart it before its first content if that may help."""
        attempts = _Attempts(self, request)
        while True:
            attempts.begin()
            shown = False
            try:
                async with aclosing(stream(self.inner, request, deadline=attempts.left())) as chunks:
                    async for chunk in chunks:
                        shown = shown or bool(chunk.text or chunk.reasoning or chunk.refusal or chunk.tool_calls)
                        yield chunk
            except ProviderError as error:
                if shown:
                    attempts.give_up(error)
                    raise
                wait = attempts.failed(error)
                if wait is None:
                    raise
                await self._sleep(wait)
            else:
                attempts.succeeded()
                return


class _Attempts:
    """The attempts of one call."""

    def __init__(self, retry: Retry, request: GenerateRequest) -> None:
        self._policy, self._rng = retry.policy, retry._rng
        self._scope = call_context.current()
        self._began = self._scope.clock()
        left = seconds_for(retry, request, None)
        self._end = math.inf if left is None else self._began + left
        # Failover and Hedge report the attempts of their own calls, which replace the one attempt seen here.
        self._inner_reports_attempts = retry._inner_reports_attempts
        self._attempts: list[Attempt] = []
        self._retries = 0
        self._start = self._began
        self._is_repeated = False
        self._pacer = None if retry._can_go_on else pacing.current()

    def begin(self) -> None:
        """Record the start of an attempt."""
        self._start = self._scope.clock()

    def left(self) -> float | None:
        """Return the seconds left for a retry; None for the first attempt, which the call's own time bounds."""
        return max(0.0, self._end - self._start) if self._is_repeated and self._end < math.inf else None

    def succeeded(self, response: GenerateResponse | None = None) -> tuple[Attempt, ...]:
        """Record success, and return all attempts, those of the wrapped provider in its last call included."""
        if self._scope.tokens is not None:
            self._scope.tokens.give_back()
        if response is None or not self._inner_reports_attempts or len(response.attempts) < 2:
            at, elapsed = self._start - self._began, self._scope.clock() - self._start
            request_id = response.request_id if response else None
            self._attempts.append(Attempt(at=at, elapsed=elapsed, request_id=request_id))
        else:
            self._attempts += shift_attempts(response.attempts, self._start - self._began)
        return tuple(self._attempts)

    def failed(self, error: ProviderError) -> float | None:
        """Return the seconds to wait before the next attempt; None if the error, now with all attempts, is final."""
        wait = self._wait_for_turn(error)
        if wait is not None:
            self._is_repeated = True
            return wait
        wait = self._wait(error)
        if wait is None:
            self.give_up(error)
            return None
        self._record(error, wait)
        self._retries += 1
        self._is_repeated = True
        return wait

    def give_up(self, error: ProviderError) -> None:
        """Set ``attempts`` and ``elapsed`` of the last error."""
        self._record(error, None)
        error.attempts = tuple(self._attempts)
        error.elapsed = self._scope.clock() - self._began

    def _record(self, error: ProviderError, wait: float | None) -> None:
        if self._inner_reports_attempts and len(error.attempts) > 1:
            *earlier, last = shift_attempts(error.attempts, self._start - self._began)
            self._attempts += [*earlier, copy_with(last, retry_in=wait)]
        else:
            at, elapsed = self._start - self._began, self._scope.clock() - self._start
            self._attempts.append(failed_attempt(error, at=at, elapsed=elapsed, retry_in=wait))
        if self._scope.on_failed_attempt is not None:
            self._scope.on_failed_attempt(error, wait)

    def _wait_for_turn(self, error: ProviderError) -> float | None:
        """Return the seconds until a refused call may be sent again at no cost; None if the error is another one.

        The call then waits for its turn at the pace of its provider, which follows the vendor's Retry-After. Only a
        refusal that no provider has seen, such as that of a ``Limit``, is waited for here.
        """
        pacer = self._pacer
        left = self._end - self._scope.clock()
        if pacer is None or left <= 0:
            return None
        wait = 0.0
        if pacer.is_postponed(error):
            wait = min(_RECHECK, error.retry_after or _RECHECK)
        elif not pacer.may_repeat(error):
            if not isinstance(error, RateLimited) or not error.retryable or not error.retry_after:
                return None
            wait = error.retry_after
        if not wait < left:  # NaN included
            return None
        if self._scope.on_refused is not None:
            self._scope.on_refused(error, error.retry_after or 0.0)
        return wait

    def _wait(self, error: ProviderError) -> float | None:
        """Return the seconds to wait before a retry; None if there is to be none."""
        policy = self._policy
        most = policy.max_retries
        # A vendor may bill an answer that came too late or cannot be read.
        if isinstance(error, TimedOut | ReplyError):
            most = min(1, most)
        if not error.retryable or self._retries >= most:
            return None
        left = self._end - self._scope.clock()
        wait = error.retry_after
        if wait is None or wait <= 0:
            # "Full jitter" of "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
            wait = self._rng.uniform(0, min(policy.cap, policy.base * 2**self._retries))
        elif not wait <= policy.max_retry_after:  # NaN included
            return None
        if wait >= left:  # the next attempt would have no time
            return None
        # A run's retry tokens stop all its seats from retrying against an overloaded vendor at the same time.
        tokens = self._scope.tokens
        if tokens is not None and not tokens.take(timeout=isinstance(error, TimedOut)):
            return None
        if self._scope.afford is not None and not self._scope.afford(error):
            return None
        return wait
