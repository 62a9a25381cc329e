"""The base of middleware that wraps one provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from llm_council.errors import Attempt, InvalidOption, NotAnAdapter
from llm_council.models._attrs import copy_with
from llm_council.models.attachments import Attachment
from llm_council.models.capabilities import DoctorResult
from llm_council.models.reply import GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import cancellable
from llm_council.providers._call.construction import accepted_options
from llm_council.providers._call.files import kind_fault
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers.base import ModelProfile, ProviderAdapter, call, examine, stream

__all__ = ["Wrapper", "providers_within", "shift_attempts"]


class Wrapper(ProviderAdapter):
    """A middleware: a provider that wraps another one, and passes everything on to it. Subclass it to write your own.

    Override ``generate``, call ``await super().generate(request)`` in it, and change what comes before and after. A
    stream then goes through ``generate`` too, and brings the answer in one piece; override ``stream`` to pass on the
    pieces as they arrive. ``name``, ``capabilities``, ``doctor``, ``check``, ``supports`` and ``cache_identity`` are
    those of the wrapped provider, unless the subclass has its own.

    Args:
        inner: the provider.

    Attributes:
        inner: the provider.

    Raises:
        NotAnAdapter: ``inner`` is no provider, such as a name or a class; the message names the remedy.
    """

    # A middleware of this package sets two class attributes for ``providers.base.call``. ``_is_own_middleware``: its
    # methods end when they are cancelled. ``_keeps_time_limits``: it awaits nothing but calls within the time of its
    # own call. Each class sets them itself, because they must not hold for a subclass by another author.
    _makes_several_calls = False  # True if one call may lead to several calls of vendors

    def __init_subclass__(cls, **options: Any) -> None:
        """Make a subclass that overrides ``generate`` stream by it too, unless it overrides ``stream``."""
        super().__init_subclass__(**options)
        # Otherwise the streams of a council would silently bypass the middleware.
        if "generate" in vars(cls) and "stream" not in vars(cls):
            cls.stream = ProviderAdapter.stream  # type: ignore[method-assign]

    def __init__(self, inner: ProviderAdapter) -> None:
        given: object = inner
        if not isinstance(given, ProviderAdapter):
            remedy = f"get_provider({given!r:.80})" if isinstance(given, str) else "an instance of ProviderAdapter"
            raise NotAnAdapter(f"{type(self).__qualname__} wraps a provider, got {given!r:.80}: pass {remedy}")
        self.inner = inner
        # Class attributes of adapters, instance attributes here.
        for attribute in ("name", "capabilities"):
            if not hasattr(type(self), attribute):
                setattr(self, attribute, getattr(inner, attribute))
        self._timeouts = inner._timeouts
        self._makes_several_calls = self._makes_several_calls or getattr(inner, "_makes_several_calls", False)

    if not TYPE_CHECKING:  # for type checkers, it would make every attribute exist

        def __getattr__(self, name: str) -> Any:
            """Explain a missing attribute that ``__init__`` of this class sets."""
            if name in ("inner", "name", "capabilities"):
                raise InvalidOption(f"{type(self).__qualname__}.__init__ must call super().__init__(inner)")
            raise AttributeError(f"{type(self).__qualname__!r} object has no attribute {name!r}")

    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Call the wrapped provider."""
        return await call(self.inner, request)

    @cancellable
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the wrapped provider's answer as it arrives."""
        async with aclosing(stream(self.inner, request)) as chunks:
            async for chunk in chunks:
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

    def _check_deadline(self, seconds: float | None) -> None:
        self.inner._check_deadline(seconds)

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        return self.inner._profile_of(model)

    def _file_fault(self, file: Attachment, model: str | None) -> str | None:
        return kind_fault(file, self.capabilities, None) or self.inner._file_fault(file, model)

    def _size_fault(self, files: Sequence[Attachment], model: str | None) -> str | None:
        return self.inner._size_fault(files, model)

    def cache_identity(self) -> str:
        """Return the wrapped provider's identity: most middleware changes how a call is made, not what is asked.

        The further arguments of a subclass are part of it. Override this method in one that always changes requests or
        answers.
        """
        inner = self.inner.cache_identity()
        takes = accepted_options(type(self))
        own = self._arguments_identity() if takes is None or len(takes) > 1 else ""
        return f"{type(self).__module__}.{type(self).__qualname__}{own}({inner})" if own else inner

    def _limit_identity(self) -> str:
        is_default = type(self).cache_identity is Wrapper.cache_identity
        return self.inner._limit_identity() if is_default else self.cache_identity()

    def account_identity(self) -> str | None:
        """Return the identity of the wrapped provider's account."""
        return self.inner.account_identity()

    async def aclose(self) -> None:
        """Close the resources of the wrapped provider."""
        await self.inner.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({vars(self).get('inner')!r})"


def providers_within(adapter: ProviderAdapter) -> Iterator[ProviderAdapter]:
    """Yield a provider and those that it holds in its attributes, at any depth, however its class names them."""
    found = [adapter]
    seen: set[int] = set()
    while found:
        current = found.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        for value in vars(current).values():
            held = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else [value]
            found += [item for item in held if isinstance(item, ProviderAdapter)]


def shift_attempts(attempts: Iterable[Attempt], seconds: float) -> tuple[Attempt, ...]:
    """Return attempts whose ``at`` counts from the start of an outer call, which began ``seconds`` earlier."""
    return tuple(copy_with(attempt, at=attempt.at + seconds) for attempt in attempts)
