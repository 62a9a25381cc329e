"""Balance: spread calls over several providers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from math import inf
from typing import Final

from llm_council.errors import CapabilityMissing, InvalidOption, near
from llm_council.middleware._group import Member, ProviderGroup
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ProviderAdapter

__all__ = ["Balance"]

_STRATEGIES: Final = ("least-busy", "round-robin", "weighted", "fastest")
_MEASURED_SHARE: Final = 0.05  # share of the calls that measure a random provider


class Balance(ProviderGroup):
    """Spread calls over providers. Each call goes to one of them; wrap this in ``Retry`` to try another one after it.

    A provider that failed ``failures`` times in a row gets no calls for ``cool_down`` seconds, or for the time of its
    Retry-After; then one call tests it. A provider without a capability that the request needs is skipped.

    Args:
        providers: the providers.
        strategy: ``"least-busy"``: the fewest calls in progress, by weight. ``"round-robin"``: in turn.
            ``"weighted"``: at random, in proportion to the weights. ``"fastest"``: the shortest smoothed time to an
            answer, times the calls in progress. One call in 20 goes to a random provider, to measure it.
        weights: one number above 0 for each provider; None is equal weights.
        name: the name of this instance.
        failures: failures in a row after which a provider gets no calls.
        cool_down: seconds without calls.
        clock: returns monotonic seconds.
        rng: the source of randomness.
    """

    name = "balance"

    _is_own_middleware = True
    _keeps_time_limits = True

    def __init__(
        self,
        providers: Sequence[ProviderAdapter],
        *,
        strategy: str = "least-busy",
        weights: Sequence[float] | None = None,
        name: str | None = None,
        failures: int = 5,
        cool_down: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(providers, name=name, failures=failures, cool_down=cool_down, clock=clock)
        if strategy not in _STRATEGIES:
            hint = near(strategy, _STRATEGIES) or f": one of {', '.join(_STRATEGIES)}"
            raise InvalidOption(f"Balance knows no strategy {strategy!r:.80}{hint}")
        if weights is not None:
            if len(weights) != len(self._members) or not all(0 < weight < inf for weight in weights):
                raise InvalidOption(f"weights: a number above 0 for each of {len(self._members)}, got {weights!r:.80}")
            for member, weight in zip(self._members, weights, strict=True):
                member.weight = weight
        self._strategy = strategy
        self._rng = rng or random.Random()
        self._turn = 0
        self._lock = threading.Lock()
        self._makes_several_calls = any(getattr(provider, "_makes_several_calls", False) for provider in providers)

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call one of the providers."""
        unable: list[Member] = []
        while True:
            member = self._pick(unable, streamed=False)
            try:
                return await self._call(member, request)
            except CapabilityMissing:
                unable.append(member)
                if len(unable) == len(self._members):
                    raise

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer of one of the providers."""
        unable: list[Member] = []
        while True:
            member = self._pick(unable, streamed=True)
            try:
                async with aclosing(self._stream(member, request)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except CapabilityMissing:  # raised before anything is sent
                unable.append(member)
                if len(unable) == len(self._members):
                    raise
            else:
                return

    def _pick(self, unable: Sequence[Member], *, streamed: bool) -> Member:
        """Choose a provider to call.

        Raises:
            ServerFailed: none may be called now.
        """
        now = self._clock()
        with self._lock:
            # ``admit`` may still refuse: a failure in another thread may have opened the breaker since.
            ready = [m for m in self._members if m not in unable and m.breaker.wait(now) == 0]
            while ready:
                member = ready[0] if len(ready) == 1 else self._choose(ready, streamed=streamed)
                if member.breaker.admit(now):
                    return member
                ready.remove(member)
        raise self._none_available()

    def _choose(self, ready: Sequence[Member], *, streamed: bool) -> Member:
        match self._strategy:
            case "least-busy":
                return min(ready, key=lambda member: (member.busy / member.weight, member.chosen / member.weight))
            case "round-robin":
                # The first one at or after the turn; members that may not be called are passed over.
                member = min(ready, key=lambda member: (member.place - self._turn) % len(self._members))
                self._turn = member.place + 1
                return member
            case "weighted":
                return self._rng.choices(ready, [member.weight for member in ready])[0]
        # "fastest": a provider that was never measured comes first, or it would never be called.
        unknown = [member for member in ready if streamed not in member.speed]
        if unknown:
            return min(unknown, key=lambda member: (member.busy, member.chosen))
        if self._rng.random() < _MEASURED_SHARE:
            return self._rng.choice(ready)
        return min(ready, key=lambda member: member.speed[streamed] * (member.busy + 1))
