"""The one retry loop.

The known libraries sleep past deadlines and take no clock; this is small enough to own. What may be tried again is not
decided here but where an error is born: ``CouncilError.retryable``, from status and the vendor's machine code.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import anyio

from llm_council._runtime import call_context
from llm_council.errors import Attempt, ProviderError, ReplyError, TimedOut
from llm_council.middleware._wrapper import Wrapper, later
from llm_council.models._attrs import copy_with
from llm_council.models.limits import RetryPolicy
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import heeding, seconds_for
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter, call, stream

__all__ = ["Retry"]


class Retry(Wrapper):
    """Make a failed call again, when it may succeed and there is time.

    Waits grow from ``policy.base`` with full jitter up to ``policy.cap``; a vendor's Retry-After is kept to the letter
    when it is at most ``policy.max_retry_after`` and fits into the time left, else the call fails at once with
    ``retry_after`` set. A timeout and a reply that cannot be read are tried again once. A stream is restarted only
    before its first piece with content was handed on. Every try carries the same idempotency key.

    Args:
        inner: the provider.
        policy: how often and how long.
        sleep: waits for some seconds.
        rng: the source of jitter.
    """

    _heeds_cancellation = True
    _bounded_within = True
    _makes_several_calls = True
    _retries = True

    def __init__(
        self,
        inner: ProviderAdapter,
        policy: RetryPolicy | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(inner)
        self.policy = policy or RetryPolicy()
        self._sleep = sleep
        self._rng = rng or random.Random()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask the held provider, again where that may help."""
        tries = _Tries(self, request)
        while True:
            tries.begin()
            try:
                response = await call(self.inner, request, deadline=tries.left())
            except ProviderError as error:
                await self._sleep(tries.failed(error))
            else:
                return copy_with(response, attempts=tries.succeeded(response))

    @heeding
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the held provider's answer as it arrives; before its first words, restart where that may help."""
        tries = _Tries(self, request)
        while True:
            tries.begin()
            shown = False
            try:
                async with aclosing(stream(self.inner, request)) as chunks:
                    async for chunk in chunks:
                        shown = shown or bool(chunk.text or chunk.reasoning or chunk.refusal or chunk.tool_calls)
                        yield chunk
            except ProviderError as error:
                if shown:
                    tries.give_up(error)
                    raise
                await self._sleep(tries.failed(error))
            else:
                tries.succeeded()
                return


class _Tries:
    """The tries of one call."""

    def __init__(self, retry: Retry, request: GenerateRequest) -> None:
        self._policy, self._rng = retry.policy, retry._rng
        self._scope = call_context.current()
        self._began = self._scope.clock()
        left = seconds_for(retry, request, None)
        self._ends = math.inf if left is None else self._began + left
        self._plural: bool = getattr(retry.inner, "_makes_several_calls", False)
        self._tries: list[Attempt] = []
        self._retries = 0
        self._start = self._began

    def begin(self) -> None:
        """Note the start of a try."""
        self._start = self._scope.clock()

    def left(self) -> float | None:
        """Return the seconds that are left to a further try; None for the first one, which has what the call has."""
        return max(0.0, self._ends - self._start) if self._retries and self._ends < math.inf else None

    def succeeded(self, response: GenerateResponse | None = None) -> tuple[Attempt, ...]:
        """Note the end of the call, and return all its tries: those that what is held made in its last one, too."""
        if self._scope.tokens is not None:
            self._scope.tokens.give_back()
        if response is None or not self._plural or len(response.attempts) < 2:
            self._tries.append(self._attempt(request_id=response.request_id if response else None))
        else:
            self._tries += later(response.attempts, self._start - self._began)
        return tuple(self._tries)

    def failed(self, error: ProviderError) -> float:
        """Return the seconds to wait before the next try.

        Raises:
            ProviderError: the same error, with every try in ``attempts``: there is to be no next one.
        """
        wait = self._wait(error)
        if wait is None:
            self.give_up(error)
            try:
                raise error
            finally:
                del error  # no cycle through the traceback: it would keep what the call had read
        self._note(error, wait)
        self._retries += 1
        return wait

    def give_up(self, error: ProviderError) -> None:
        """Write every try into the error of the last one."""
        self._note(error, None)
        error.attempts = tuple(self._tries)
        error.elapsed = self._scope.clock() - self._began

    def _note(self, error: ProviderError, wait: float | None) -> None:
        if self._plural and len(error.attempts) > 1:  # those that what is held made in this one
            *earlier, last = later(error.attempts, self._start - self._began)
            self._tries += [*earlier, copy_with(last, retry_in=wait)]
        else:
            self._tries.append(self._failure(error, wait))
        if self._scope.tried is not None:
            self._scope.tried(error, wait)

    def _failure(self, error: ProviderError, wait: float | None) -> Attempt:
        return self._attempt(
            error=type(error).__name__,
            message=error.message,
            status=getattr(error, "status", None),
            request_id=error.request_id,
            retry_in=wait,
        )

    def _attempt(self, **facts: object) -> Attempt:
        at = self._start - self._began
        return Attempt(at=at, elapsed=self._scope.clock() - self._start, **facts)  # type: ignore[arg-type]

    def _wait(self, error: ProviderError) -> float | None:
        policy = self._policy
        number = self._retries
        once = isinstance(error, TimedOut | ReplyError)
        if not error.retryable or number >= (min(1, policy.max_retries) if once else policy.max_retries):
            return None
        left = self._ends - self._scope.clock()
        asked = error.retry_after
        if asked is not None and asked > 0:
            if not asked <= min(policy.max_retry_after, left):
                return None
            wait = asked
        else:
            wait = self._rng.uniform(0, min(policy.cap, policy.base * 2**number))
        if wait >= left:
            return None
        tokens = self._scope.tokens
        if tokens is not None and not tokens.take(timeout=isinstance(error, TimedOut)):
            return None
        if self._scope.afford is not None and not self._scope.afford(error):
            return None
        return wait
