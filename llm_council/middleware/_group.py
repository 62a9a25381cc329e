"""The base of middleware with several providers, which calls one of them or one after the other."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager

import anyio
import attrs

from llm_council.errors import (
    ConfigurationError,
    CouncilError,
    DeadlineTooShort,
    InvalidOption,
    MissingCredentials,
    MissingDependency,
    ProviderError,
    ServerFailed,
)
from llm_council.middleware._breaker import Breaker
from llm_council.models._attrs import provider_name
from llm_council.models.attachments import Attachment
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.limits import Timeouts
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import pacing
from llm_council.providers.base import ModelProfile, ProviderAdapter, call, examine, stream

__all__ = ["FAILURES", "Member", "ProviderGroup"]

FAILURES = (ProviderError, MissingCredentials, MissingDependency)
"""Errors after which another provider may succeed; a missing key or package concerns one provider alone."""


@attrs.define(eq=False)
class Member:
    """One provider of a group, with its state.

    Attributes:
        place: its index in the group.
        name: the provider's name, with a number if an earlier one has the same.
        provider: the provider.
        breaker: decides whether it may be called.
        weight: its weight for ``Balance``.
        busy: calls in progress.
        chosen: calls so far.
        speed: smoothed seconds until the whole answer (key False) and until the first piece of a stream (key True).
    """

    place: int
    name: str
    provider: ProviderAdapter
    breaker: Breaker
    weight: float = 1.0
    busy: int = 0
    chosen: int = 0
    speed: dict[bool, float] = attrs.field(factory=dict)


class ProviderGroup(ProviderAdapter):
    """A group of providers. It has a capability if any of them has; each one fits the request to itself.

    Args:
        providers: the providers, at least one.
        name: the name of this instance; None is that of the class.
        failures: failures in a row after which a provider gets no calls.
        cool_down: seconds without calls, unless the vendor's Retry-After is set. Then one call tests the provider.
        clock: returns monotonic seconds.
    """

    _goes_on = False  # True if a call that fails at one provider goes on to another

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
            self.name = provider_name(name)  # type: ignore[misc]  # a class attribute of adapters, an instance attribute here
        self.capabilities = _union([p.capabilities for p in providers])  # type: ignore[misc]
        self._timeouts = Timeouts(total=None)  # each provider has its own
        self._clock = clock
        self._members = tuple(
            Member(place, name, provider, Breaker(failures, cool_down))
            for place, (name, provider) in enumerate(zip(_unique_names(providers), providers, strict=True))
        )

    def states(self) -> dict[str, str]:
        """Return the state of each provider's circuit breaker, by name: ``"closed"``, ``"open"`` or ``"half-open"``."""
        return {member.name: str(member.breaker.state) for member in self._members}

    async def supports(self, capability: str) -> bool:
        """Return True if any of the providers has the capability."""
        for provider in self.providers:
            if await provider.supports(capability):
                return True
        return False

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check all providers; the group is healthy if one of them is."""
        found: dict[int, DoctorResult] = {}

        async def check(index: int, provider: ProviderAdapter) -> None:
            found[index] = await examine(provider, deep=deep)

        async with anyio.create_task_group() as group:
            for index, provider in enumerate(self.providers):
                group.start_soon(check, index, provider)
        results = [(member.name, found[member.place]) for member in self._members]
        healthy = sum(result.ok for _, result in results)
        messages = "; ".join(f"{name}: {result.message}" for name, result in results)
        message = f"{healthy} of {len(results)} are well; {messages}"
        details = {name: {"ok": result.ok, "message": result.message} for name, result in results}
        return DoctorResult(ok=healthy > 0, message=message, details=details)

    def check(self) -> None:
        """Raise the first provider's error if every provider's check fails, or one for all if only keys are missing."""
        errors: list[ConfigurationError] = []
        for provider in self.providers:
            try:
                provider.check()
            except ConfigurationError as error:
                errors.append(error)
            else:
                return
        missing = [error for error in errors if isinstance(error, MissingCredentials)]
        raise MissingCredentials.joined(missing) if len(missing) == len(errors) else errors[0]

    def _check_deadline(self, seconds: float | None) -> None:
        """Raise the first provider's error if the deadline is too short for every provider."""
        errors: list[DeadlineTooShort] = []
        for provider in self.providers:
            try:
                provider._check_deadline(seconds)
            except DeadlineTooShort as error:
                errors.append(error)
            else:
                return
        raise errors[0]

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        """Return only whether all models are small: each provider fits the request to its own profile."""
        profiles = [provider._profile_of(model) for provider in self.providers]
        small = [profile for profile in profiles if profile is not None and profile.prose_first]
        if len(small) < len(profiles):
            return None
        plain_prompts = all(profile.plain_prompts for profile in small)
        warning = next((profile.warning for profile in small if profile.warning), "")
        return ModelProfile(prose_first=True, plain_prompts=plain_prompts, warning=warning)

    def _file_fault(self, file: Attachment, model: str | None) -> str | None:
        """Return None if one of the providers takes the file: a call goes on to the next one that does."""
        faults = [provider._file_fault(file, model) for provider in self.providers]
        return None if None in faults else faults[0]

    def _size_fault(self, files: Sequence[Attachment], model: str | None) -> str | None:
        """Return None if the files are small enough for one of the providers."""
        faults = [provider._size_fault(files, model) for provider in self.providers]
        return None if None in faults else faults[0]

    def cache_identity(self) -> str:
        """Return the class name and the providers' identities."""
        return f"{type(self).__name__}({', '.join(provider.cache_identity() for provider in self.providers)})"

    def account_identity(self) -> str | None:
        """Return the providers' accounts; None if one of them has none."""
        accounts = [provider.account_identity() for provider in self.providers]
        known = [account for account in accounts if account is not None]
        return "+".join(sorted(set(known))) if len(known) == len(accounts) else None

    async def aclose(self) -> None:
        """Close the resources of the providers."""
        for provider in self.providers:
            await provider.aclose()
        await super().aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.providers)!r})"

    async def _call(self, member: Member, request: GenerateRequest, within: float | None = None) -> GenerateResponse:
        """Call a member that its breaker has admitted, and record the outcome."""
        began = self._clock()
        with self._record_outcome(member):
            response = await call(member.provider, request, deadline=within)
        self._measure(member, began, streamed=False)
        return response

    async def _stream(
        self, member: Member, request: GenerateRequest, within: float | None = None
    ) -> AsyncGenerator[GenerateChunk, None]:
        """Stream from a member that its breaker has admitted, and record the outcome."""
        began = self._clock()
        first = True
        with self._record_outcome(member):
            async with aclosing(stream(member.provider, request, deadline=within)) as chunks:
                async for chunk in chunks:
                    if first:
                        first = False
                        self._measure(member, began, streamed=True)
                    yield chunk

    @contextmanager
    def _record_outcome(self, member: Member) -> Iterator[None]:
        member.busy += 1
        member.chosen += 1
        try:
            yield
        except CouncilError as error:
            # Paced calls wait at a provider that refuses them: it is busy, and ``Balance`` prefers the others.
            if not self._goes_on and pacing.current() is not None and pacing.is_refusal(error):
                member.breaker.ended()
            else:
                member.breaker.failed(error, self._clock())
            raise
        except BaseException:  # a cancellation, or a stream that its consumer closed
            member.breaker.ended()
            raise
        finally:
            member.busy -= 1
        member.breaker.succeeded()

    def _measure(self, member: Member, began: float, *, streamed: bool) -> None:
        seconds = self._clock() - began
        # An exponential average: a slow answer loses half of its weight after three more.
        average = member.speed.get(streamed, seconds)
        member.speed[streamed] = average + 0.2 * (seconds - average)

    def _none_available(self) -> ServerFailed:
        """Return the error for a call when no provider may be called."""
        now = self._clock()
        waits = {member.name: member.breaker.wait(now) for member in self._members}
        pauses = ", ".join(f"{name} for {wait:.1f} s" for name, wait in waits.items())
        error = ServerFailed(
            f"{self.name}: no provider can be called now; after failures, these get no calls: {pauses}",
            retry_after=max(0.001, min(waits.values())),
        )
        pacer = pacing.current()
        if pacer is not None and all(member.breaker.was_refused for member in self._members):
            pacer.postpone(error)
        return error


def _unique_names(providers: Sequence[ProviderAdapter]) -> list[str]:
    """Return the providers' names; repeated ones get a number."""
    names: list[str] = []
    for provider in providers:
        name, number = provider.name, 1
        while name in names:
            number += 1
            name = f"{provider.name}-{number}"
        names.append(name)
    return names


def _union(every: Sequence[ProviderCapabilities]) -> ProviderCapabilities:
    """Return the capabilities that any of them has; ``max_tokens`` only if all have one."""
    names = ("streaming", "tool_use", "structured_output", "multimodal", "documents", "audio", "reasoning")
    flags = {name: any(capabilities.has(name) for capabilities in every) for name in names}
    limits = [capabilities.max_tokens for capabilities in every if capabilities.max_tokens is not None]
    return ProviderCapabilities(**flags, max_tokens=max(limits) if len(limits) == len(every) else None)
