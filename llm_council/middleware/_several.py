"""The base of middleware that holds several providers and asks one of them, or one after the other."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import anyio
import attrs

from llm_council.errors import (
    ConfigurationError,
    CouncilError,
    InvalidOption,
    MissingCredentials,
    MissingDependency,
    ProviderError,
    ServerFailed,
)
from llm_council.middleware._breaker import Breaker
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.limits import Timeouts
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers.base import ModelProfile, ProviderAdapter, call, examine, stream

__all__ = ["FAILURES", "Member", "Several"]

FAILURES = (ProviderError, MissingCredentials, MissingDependency)
"""What another provider may do better: a key that one lacks is no reason not to ask the next."""


@attrs.define(eq=False)
class Member:
    """One of the providers held, and how it does.

    Attributes:
        place: its place among them, from 0.
        name: the provider's name, numbered where another has it.
        provider: the provider.
        breaker: whether it may be asked.
        weight: its share, where shares are weighed.
        busy: calls in progress.
        chosen: calls so far.
        speed: smoothed seconds of a whole answer, and of the first words of a streamed one; None is unknown.
    """

    place: int
    name: str
    provider: ProviderAdapter
    breaker: Breaker
    weight: float = 1.0
    busy: int = 0
    chosen: int = 0
    speed: dict[bool, float] = attrs.field(factory=dict)


class Several(ProviderAdapter):
    """Hold providers. It can do what any of them can; each fits what it is asked to itself.

    Args:
        providers: the providers, at least one.
        name: the name of this instance; None is the class's.
        failures: failures in a row after which a provider is left alone.
        cool_down: seconds for which it is, unless the vendor said how long; then one call looks whether it is well.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        providers: Sequence[ProviderAdapter],
        *,
        name: str | None = None,
        failures: int = 5,
        cool_down: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(providers, ProviderAdapter | str) or not all(isinstance(p, ProviderAdapter) for p in providers):
            raise InvalidOption(f"{type(self).__name__} takes a list of providers, got {providers!r:.80}")
        if not providers:
            raise InvalidOption(f"{type(self).__name__} needs at least one provider")
        self.providers = tuple(providers)
        if name is not None:
            self.name = name  # type: ignore[misc]  # a class attribute for authors, an instance's own here
        self.capabilities = _united([p.capabilities for p in providers])  # type: ignore[misc]
        self._timeouts = Timeouts(total=None)  # each provider has its own
        self._retries = any(getattr(provider, "_retries", False) for provider in providers)
        self._clock = clock
        self._members = tuple(
            Member(place, name, provider, Breaker(failures, cool_down))
            for place, (name, provider) in enumerate(zip(_numbered(providers), providers, strict=True))
        )

    def states(self) -> dict[str, str]:
        """Return how each provider stands, by its name: ``"closed"``, ``"open"`` or ``"half-open"``."""
        return {member.name: str(member.breaker.state) for member in self._members}

    async def supports(self, capability: str) -> bool:
        """Tell whether any of the providers can do something."""
        for provider in self.providers:
            if await provider.supports(capability):
                return True
        return False

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check all providers; one that is well is enough."""
        found: dict[int, DoctorResult] = {}

        async def check(index: int, provider: ProviderAdapter) -> None:
            found[index] = await examine(provider, deep=deep)

        async with anyio.create_task_group() as group:
            for index, provider in enumerate(self.providers):
                group.start_soon(check, index, provider)
        results = [(member.name, found[member.place]) for member in self._members]
        well = [name for name, result in results if result.ok]
        message = f"{len(well)} of {len(results)} are well; " + "; ".join(f"{name}: {r.message}" for name, r in results)
        details = {name: {"ok": result.ok, "message": result.message} for name, result in results}
        return DoctorResult(ok=bool(well), message=message, details=details)

    def check(self) -> None:
        """Refuse to start when every provider refuses; the first one says why."""
        refusal: ConfigurationError | None = None
        for provider in self.providers:
            try:
                provider.check()
            except ConfigurationError as error:
                refusal = refusal or error
            else:
                return
        if refusal is not None:
            raise refusal

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        """Know nothing of the models, for each provider fits the request to its own, but whether all are that small."""
        profiles = [provider._profile_of(model) for provider in self.providers]
        return ModelProfile(prose_first=True) if all(p is not None and p.prose_first for p in profiles) else None

    def cache_identity(self) -> str:
        """Return the class and what the providers return."""
        return f"{type(self).__name__}({', '.join(provider.cache_identity() for provider in self.providers)})"

    def account_identity(self) -> str | None:
        """Return what the providers return; None when one of them has no account."""
        accounts = [provider.account_identity() for provider in self.providers]
        known = [account for account in accounts if account is not None]
        return "+".join(sorted(set(known))) if len(known) == len(accounts) else None

    async def aclose(self) -> None:
        """Close what the providers opened."""
        for provider in self.providers:
            await provider.aclose()
        await super().aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.providers)!r})"

    async def _ask(self, member: Member, request: GenerateRequest, within: float | None = None) -> GenerateResponse:
        """Ask a member that its breaker has admitted, and note how it went."""
        began = self._clock()
        member.busy += 1
        member.chosen += 1
        try:
            response = await call(member.provider, request, deadline=within)
        except BaseException as error:
            self._note(member, error)
            raise
        finally:
            member.busy -= 1
        member.breaker.succeeded()
        self._timed(member, began, streamed=False)
        return response

    async def _listen(
        self, member: Member, request: GenerateRequest, within: float | None = None
    ) -> AsyncGenerator[GenerateChunk, None]:
        """Listen to a member that its breaker has admitted, and note how it went."""
        began = self._clock()
        member.busy += 1
        member.chosen += 1
        timed = False
        try:
            async with aclosing(stream(member.provider, request, deadline=within)) as chunks:
                async for chunk in chunks:
                    if not timed:
                        timed = True
                        self._timed(member, began, streamed=True)
                    yield chunk
        except BaseException as error:
            self._note(member, error)
            raise
        finally:
            member.busy -= 1
        member.breaker.succeeded()

    def _note(self, member: Member, error: BaseException) -> None:
        if isinstance(error, CouncilError):
            member.breaker.failed(error, self._clock())
        else:  # a cancellation, or a stream that was left
            member.breaker.ended()

    def _timed(self, member: Member, began: float, *, streamed: bool) -> None:
        seconds = self._clock() - began
        before = member.speed.get(streamed)
        member.speed[streamed] = seconds if before is None else before + 0.2 * (seconds - before)

    def _resting(self) -> ServerFailed:
        """Return the error for when nobody may be asked."""
        now = self._clock()
        waits = {member.name: member.breaker.wait(now) for member in self._members}
        said = ", ".join(f"{name} for {wait:.1f} s" for name, wait in waits.items())
        return ServerFailed(
            f"nobody of {self.name} can be asked: after failures, these are left alone: {said}",
            retry_after=max(0.001, min(waits.values())),
        )


def _numbered(providers: Sequence[ProviderAdapter]) -> list[str]:
    """Return the providers' names, each once."""
    names: list[str] = []
    for provider in providers:
        name, number = provider.name, 1
        while name in names:
            number += 1
            name = f"{provider.name}-{number}"
        names.append(name)
    return names


def _united(all_of_them: Sequence[ProviderCapabilities]) -> ProviderCapabilities:
    """Return what any of them can do; the most tokens only where all say it."""
    most = [can.max_tokens for can in all_of_them]
    words = ("streaming", "tool_use", "structured_output", "multimodal", "reasoning")
    can = {word: any(can.has(word) for can in all_of_them) for word in words}
    return ProviderCapabilities(**can, max_tokens=None if None in most else max(m for m in most if m is not None))
