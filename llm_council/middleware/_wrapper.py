"""The boring base of all middleware: it is the provider that it holds, until a subclass says otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from llm_council.errors import Attempt
from llm_council.models._attrs import copy_with
from llm_council.models.capabilities import DoctorResult
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import heeding
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ModelProfile, ProviderAdapter, call, examine, stream

__all__ = ["Wrapper", "later"]


class Wrapper(ProviderAdapter):
    """Hold a provider and pass everything on to it.

    Args:
        inner: the provider.

    Attributes:
        inner: the provider.
    """

    # A subclass says ``_bounded_within`` where the calls that it makes end in the time of its own, and so does it.
    _makes_several_calls = False  # of its own accord, for one call to it
    _retries = False  # itself or within

    def __init__(self, inner: ProviderAdapter) -> None:
        self.inner = inner
        self.name = inner.name  # type: ignore[misc]  # a class attribute for authors, an instance's own here
        self.capabilities = inner.capabilities  # type: ignore[misc]
        self._timeouts = inner._timeouts
        if not self._makes_several_calls:
            self._makes_several_calls = getattr(inner, "_makes_several_calls", False)
        if not self._retries:
            self._retries = getattr(inner, "_retries", False)

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Ask the held provider."""
        return await call(self.inner, request)

    @heeding
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the held provider's answer as it arrives."""
        async for chunk in stream(self.inner, request):
            yield chunk

    async def supports(self, capability: str) -> bool:
        """Ask the held provider what it can do."""
        return await self.inner.supports(capability)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check the held provider's health."""
        return await examine(self.inner, deep=deep)

    def check(self) -> None:
        """Refuse what the held provider refuses."""
        self.inner.check()

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        return self.inner._profile_of(model)

    def cache_identity(self) -> str:
        """Return the held provider's: how a call is made does not change what is asked."""
        return self.inner.cache_identity()

    def account_identity(self) -> str | None:
        """Return the held provider's."""
        return self.inner.account_identity()

    async def aclose(self) -> None:
        """Close what the held provider opened."""
        await self.inner.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"


def later(attempts: Iterable[Attempt], seconds: float) -> tuple[Attempt, ...]:
    """Return tries as a call sees them that began some seconds before them."""
    return tuple(copy_with(attempt, at=attempt.at + seconds) for attempt in attempts)
