"""One provider after the other, until one answers."""

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
)
from llm_council.middleware._several import FAILURES, Member, Several
from llm_council.middleware._wrapper import later
from llm_council.models._attrs import copy_with
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers.base import ProviderAdapter

__all__ = ["Failover"]


class Failover(Several):
    """Ask the first provider; where it fails, the next.

    What the next could do no better fails at once: a request that the vendor does not accept (``RequestRejected``,
    ``RequestTooLarge``) and an answer that it withheld (``ContentFiltered``). An unknown model, too long a context, a
    missing capability or a missing key of one provider is no reason not to ask another.

    A provider that failed ``failures`` times in a row is left alone for ``cool_down`` seconds, or for as long as its
    Retry-After said; a wrong key or an empty account does that at once. Then one call looks whether it is well again.

    Args:
        providers: the providers, the first choice first.
        name: the name of this instance.
        mid_stream: what happens to a stream that breaks off after its first words: ``"error"`` raises, ``"restart"``
            sends a piece with ``reset`` set, which voids all that came before it, then the next provider's answer.
            Before the first words, the next provider is asked without anybody noticing.
        patience: most seconds for one provider while another could follow; None leaves it the call's own time.
        failures: failures in a row after which a provider is left alone.
        cool_down: seconds for which it is.
        clock: monotonic seconds.
    """

    name = "failover"

    _heeds_cancellation = True
    _makes_several_calls = True

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
        self._restarts = mid_stream == "restart"
        self._patience = patience

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask one provider after the other, until one answers."""
        row = _Row(self, request)
        member = row.first()
        while True:
            try:
                response = await self._ask(member, request, row.patience())
            except FAILURES as error:
                member = row.after(error)
            else:
                return row.answered(response)

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer of the first provider that gives one."""
        row = _Row(self, request)
        member = row.first()
        shown = False
        while True:
            silent: list[GenerateChunk] = []  # pieces without words: of a provider that then fails, nobody sees them
            said = False
            try:
                async with aclosing(self._listen(member, request, row.patience())) as chunks:
                    async for chunk in chunks:
                        if not said and not (chunk.text or chunk.reasoning or chunk.refusal or chunk.tool_calls):
                            silent.append(chunk)
                            continue
                        for piece in silent:
                            yield piece
                        silent.clear()
                        said = shown = True
                        yield chunk
                for piece in silent:
                    yield piece
            except FAILURES as error:
                if shown and not self._restarts:
                    row.give_up(error)
                failed, member = member, row.after(error)
                if said:
                    yield GenerateChunk(reset=f"{failed.name} failed after its first words: {error.message}")
            else:
                return


class _Row:
    """The providers that one call has asked, and will ask."""

    def __init__(self, failover: Failover, request: GenerateRequest) -> None:
        self._failover = failover
        self._scope = call_context.current()
        self._clock = failover._clock
        self._began = self._start = self._clock()
        said = [seconds for seconds in (request.timeout_seconds, self._scope.left()) if seconds is not None]
        self._ends = self._scope.clock() + min(said) if said else math.inf
        self._left = list(reversed(failover._members))
        self._tries: list[Attempt] = []
        self._best: CouncilError | None = None

    def first(self) -> Member:
        """Return whom to ask first.

        Raises:
            ServerFailed: all of them are left alone.
        """
        member = self._admitted()
        if member is None:
            raise self._failover._resting()
        return member

    def patience(self) -> float | None:
        """Return the most seconds for the one that is asked now: all there are where nobody could follow."""
        now = self._clock()
        others = any(member.breaker.wait(now) == 0 for member in self._left)
        return self._failover._patience if others else None

    def after(self, error: CouncilError) -> Member:
        """Return whom to ask after a failure.

        Raises:
            CouncilError: nobody; it has all tries.
        """
        if not _may_be_better(error) or self._scope.clock() >= self._ends:
            self.give_up(error)
        member = self._admitted()
        if member is None:
            self.give_up(error)
        if self._scope.afford is not None and not self._scope.afford(error):
            member.breaker.ended()
            self.give_up(error)
        self._tries.append(self._try(error, 0.0))
        if self._best is None or error.retryable:
            self._best = error
        if self._scope.tried is not None:
            self._scope.tried(error, 0.0)
        self._start = self._clock()
        return member

    def give_up(self, error: CouncilError) -> NoReturn:
        """Raise the error with all tries; after one that another try may mend, that one: the whole row may be tried."""
        self._tries.append(self._try(error, None))
        best = self._best
        if best is not None and best.retryable and not error.retryable and _may_be_better(error):
            error = best
        error.attempts = tuple(self._tries)
        raise error

    def answered(self, response: GenerateResponse) -> GenerateResponse:
        """Return the answer with all tries."""
        if not self._tries:
            return response
        return copy_with(response, attempts=(*self._tries, *later(response.attempts, self._start - self._began)))

    def _admitted(self) -> Member | None:
        while self._left:
            member = self._left.pop()
            if member.breaker.admit(self._clock()):
                return member
        return None

    def _try(self, error: CouncilError, wait: float | None) -> Attempt:
        return Attempt(
            at=self._start - self._began,
            elapsed=self._clock() - self._start,
            error=type(error).__name__,
            message=f"{error.provider or self._failover.name}: {error.message}",
            status=getattr(error, "status", None),
            request_id=error.request_id,
            retry_in=wait,
        )


def _may_be_better(error: CouncilError) -> bool:
    """Tell whether another provider may do what this one did not."""
    if isinstance(error, ContentFiltered | RequestTooLarge):
        return False
    return type(error) is not RequestRejected
