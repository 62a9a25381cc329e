"""Pinned: always call one model of a provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from llm_council.middleware.wrapper import Wrapper
from llm_council.models._attrs import copy_with
from llm_council.models.attachments import Attachment
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ModelProfile, ProviderAdapter, call, stream

__all__ = ["Pinned"]


class Pinned(Wrapper):
    """Call one model, whichever the request names. ``Failover`` needs this for providers that name models differently.

    Args:
        inner: the provider.
        model: the vendor's name of the model.
    """

    _is_own_middleware = True
    _keeps_time_limits = True

    def __init__(self, inner: ProviderAdapter, model: str) -> None:
        super().__init__(inner)
        self.name = f"{inner.name}/{model}"  # type: ignore[misc]
        self.model = model

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the model."""
        return await call(self.inner, copy_with(request, model=self.model))

    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the model's answer as it arrives."""
        async with aclosing(stream(self.inner, copy_with(request, model=self.model))) as chunks:
            async for chunk in chunks:
                yield chunk

    def _check_model(self, model: str | None) -> None:
        self.inner._check_model(self.model)

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        return self.inner._profile_of(self.model)

    def _file_fault(self, file: Attachment, model: str | None) -> str | None:
        return super()._file_fault(file, self.model)

    def _size_fault(self, files: Sequence[Attachment], model: str | None) -> str | None:
        return super()._size_fault(files, self.model)

    def cache_identity(self) -> str:
        """Return the wrapped provider's identity and the model."""
        return f"{super().cache_identity()}/{self.model}"
