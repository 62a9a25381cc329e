"""The base of middleware with one provider: it passes everything on, except for what a subclass overrides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from llm_council.errors import Attempt
from llm_council.models._attrs import copy_with
from llm_council.models.capabilities import DoctorResult
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import cancellable
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ModelProfile, ProviderAdapter, call, examine, stream

__all__ = ["Wrapper", "shift_attempts"]


class Wrapper(ProviderAdapter):
    """Wrap a provider, and pass everything on to it.

    A middleware of this package sets two class attributes for ``providers.base.call``. ``_is_own_middleware``: its
    methods end when they are cancelled. ``_keeps_time_limits``: it awaits nothing but calls within the time of its own
    call. Each class sets them itself, because they must not hold for a subclass by another author.

    Args:
        inner: the provider.

    Attributes:
        inner: the provider.
    """

    _makes_several_calls = False  # True if one call may lead to several calls of vendors
    _retries = False  # True if it, or a provider inside, repeats failed calls

    def __init__(self, inner: ProviderAdapter) -> None:
        self.inner = inner
        self.name = inner.name  # type: ignore[misc]  # a class attribute of adapters, an instance attribute here
        self.capabilities = inner.capabilities  # type: ignore[misc]
        self._timeouts = inner._timeouts
        self._makes_several_calls = self._makes_several_calls or getattr(inner, "_makes_several_calls", False)
        self._retries = self._retries or getattr(inner, "_retries", False)

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the wrapped provider."""
        return await call(self.inner, request)

    @cancellable
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the wrapped provider's answer as it arrives."""
        async for chunk in stream(self.inner, request):
            yield chunk

    async def supports(self, capability: str) -> bool:
        """Return the wrapped provider's answer."""
        return await self.inner.supports(capability)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check the health of the wrapped provider."""
        return await examine(self.inner, deep=deep)

    def check(self) -> None:
        """Raise what the wrapped provider's check raises."""
        self.inner.check()

    def _check_model(self, model: str | None) -> None:
        self.inner._check_model(model)

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        return self.inner._profile_of(model)

    def cache_identity(self) -> str:
        """Return the wrapped provider's identity: middleware changes how a call is made, not what is asked."""
        return self.inner.cache_identity()

    def account_identity(self) -> str | None:
        """Return the identity of the wrapped provider's account."""
        return self.inner.account_identity()

    async def aclose(self) -> None:
        """Close the resources of the wrapped provider."""
        await self.inner.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


def shift_attempts(attempts: Iterable[Attempt], seconds: float) -> tuple[Attempt, ...]:
    """Return attempts whose ``at`` counts from the start of an outer call, which began ``seconds`` earlier."""
    return tuple(copy_with(attempt, at=attempt.at + seconds) for attempt in attempts)
