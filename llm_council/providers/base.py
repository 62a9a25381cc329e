"""The one import that the author of a provider needs, and the one door through which every provider is called.

An author subclasses ``ProviderAdapter``, names it, says what it can do and writes ``async def generate``. Callers go
through ``call``, ``stream`` and ``examine``: these bound the time, fit the request, and type what is raised.
"""

from __future__ import annotations

import inspect
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import anyio
import attrs

from llm_council import _runtime, transports
from llm_council._runtime import per_loop
from llm_council.errors import (
    AdapterFailed,
    ApiError,
    Attempt,
    CapabilityMissing,
    ConfigurationError,
    CouncilError,
    InvalidOption,
    MalformedReply,
    MissingCredentials,
    ProviderError,
    RateLimited,
    ServerFailed,
    TimedOut,
)
from llm_council.errors._secrets import Secret
from llm_council.models._attrs import copy_with
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.limits import Limits, Timeouts
from llm_council.models.messages import ImagePart, Message, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.reply import (
    Adjustment,
    Cost,
    CostSource,
    FinishReason,
    GenerateChunk,
    GenerateResponse,
    ToolCallDelta,
    Usage,
)
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers._call import error_mapping, fitting, returns
from llm_council.providers._call.bounded import (
    BoundedStream,
    DetachedCall,
    fallback_for,
    is_cancellable,
    is_own_middleware,
    run_inline,
    seconds_for,
    timeout_error,
)
from llm_council.providers._call.profiles import ModelProfile

if TYPE_CHECKING:
    from llm_council.transports import AsyncClient

__all__ = [
    "AdapterFailed",
    "Adjustment",
    "CapabilityMissing",
    "ConfigurationError",
    "Cost",
    "CostSource",
    "DoctorResult",
    "Effort",
    "FinishReason",
    "GenerateChunk",
    "GenerateRequest",
    "GenerateResponse",
    "GenerateResult",
    "ImagePart",
    "Limits",
    "Message",
    "ModelProfile",
    "ProviderAdapter",
    "ProviderCapabilities",
    "ProviderError",
    "ReasoningConfig",
    "ReasoningPart",
    "Role",
    "Secret",
    "StructuredOutput",
    "TextPart",
    "Timeouts",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "call",
    "examine",
    "stream",
    "try_out",
]
__all__ += ["ApiError", "MalformedReply", "MissingCredentials", "RateLimited", "ServerFailed"]  # what authors raise

GenerateResult: TypeAlias = GenerateResponse | AsyncIterator[GenerateResponse]
"""What ``generate`` may return; the items of an iterator are deltas, the last may carry only facts."""


class ProviderAdapter(_runtime.Closing):
    """What answers a ``GenerateRequest``. One instance serves concurrent calls, in any number of event loops.

    A subclass sets ``name`` and ``capabilities`` and writes ``generate``; it may write ``stream``, ``supports``,
    ``doctor`` and ``aclose``. Its ``__init__`` is its own: nothing here needs ``super().__init__()``.

    Attributes:
        name: the name by which the provider is asked for; letters, digits, ``-``, ``_`` and ``.``.
        capabilities: what it can do; requests are fitted to that.
    """

    name: ClassVar[str]
    capabilities: ClassVar[ProviderCapabilities]

    _timeouts: Timeouts = Timeouts()

    @abstractmethod
    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """Answer a request, which has been fitted to ``capabilities``.

        Args:
            request: what is asked. With ``stream`` set, an async iterator over deltas may be returned.

        Returns:
            The answer, or an async iterator over its pieces; a string will do too.
        """

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer as it arrives; here, whatever ``generate`` returns for a request with ``stream`` set."""
        asked = attrs.evolve(request, stream=True) if self.capabilities.streaming else request
        async with aclosing(returns.pieces(self.generate, asked)) as pieces:
            async for piece in pieces:
                yield piece

    async def supports(self, capability: str) -> bool:
        """Tell whether the provider can do something; an unknown word is no."""
        return self.supports_capability(capability)

    def supports_capability(self, capability: str) -> bool:
        """Tell whether ``capabilities`` has a word, such as ``"tool_use"``; an unknown one is no."""
        return self.capabilities.has(capability)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check the provider's health.

        Args:
            deep: make a real call too, which may cost money.
        """
        if not deep:
            return DoctorResult(ok=True, message=f"{self.name} can be made; whether it answers was not asked")
        return await try_out(self)

    def check(self) -> None:
        """Refuse to start what cannot work, without any I/O: a key that is not set, an extra that is not installed.

        Raises:
            ConfigurationError: it says what is missing, and what to do.
        """

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        """Return what is known of a model of this provider; None leaves a request's knobs as they are."""
        return None

    def cache_identity(self) -> str:
        """Return what tells the answers of two providers apart: never a secret, equal in every process."""
        return f"{type(self).__module__}.{type(self).__qualname__}:{self.name}"

    def account_identity(self) -> str | None:
        """Return what tells two accounts at a vendor apart, never a secret; None where there is no account."""
        return None

    async def _get_client(self) -> AsyncClient:
        """Return an ``httpx.AsyncClient`` for the running event loop; it is closed with the loop or by ``aclose``.

        It has no timeout but for connecting, since the call's deadline rules; no redirects; bounded bodies.
        """
        return await per_loop.get(self, "client", transports.new_client, transports.AsyncClient.aclose)

    async def aclose(self) -> None:
        """Close what was opened in the running event loop; the next call opens it again."""
        await per_loop.aclose(self)

    # --- blocking twins: generated by tools.generate_sync ---
    # through: generate=call, stream=stream, doctor=examine
    def generate_sync(self, request: GenerateRequest) -> GenerateResponse:
        """Ask a provider, and return one whole answer.

        The blocking twin of ``generate``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(call, self, request)

    def stream_sync(self, request: GenerateRequest) -> _runtime.BlockingStream[GenerateChunk]:
        """Ask a provider, and yield the answer as it arrives.

        The blocking twin of ``stream``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.iterate(stream, self, request)

    def supports_sync(self, capability: str) -> bool:
        """Tell whether the provider can do something; an unknown word is no.

        The blocking twin of ``supports``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.supports, capability)

    def doctor_sync(self, *, deep: bool = False) -> DoctorResult:
        """Check a provider's health, whatever its ``doctor`` does; a failure is a result, not an error.

        The blocking twin of ``doctor``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(examine, self, deep=deep)

    def close(self) -> None:
        """Close what blocking calls opened.

        The blocking twin of ``aclose``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        if _runtime.is_started():
            _runtime.call(self.aclose)

    # --- end of blocking twins ---


async def call(
    adapter: ProviderAdapter, request: GenerateRequest, *, deadline: float | None = None
) -> GenerateResponse:
    """Ask a provider, and return one whole answer.

    Args:
        adapter: the provider.
        request: what is asked.
        deadline: most seconds from now; the request's and the run's own limits hold beside it.

    Returns:
        The answer: never empty, with what was changed in the request in ``adjustments``.

    Raises:
        ProviderError: the call failed; ``AdapterFailed`` for whatever an adapter raises of its own.
        ConfigurationError: the call is wrong, a key is missing; nothing was sent.
    """
    if is_own_middleware(adapter):
        return await _passed_on(adapter, request, deadline)
    began = time.monotonic()
    name = _name(adapter)
    arrived: list[GenerateChunk] = []
    try:
        _refuse_other_than_request(request)
        fitted, adjustments = fitting.fit_for(adapter, adapter.generate, request)
        seconds = seconds_for(adapter, request, deadline)
        core = partial(returns.whole, adapter.generate, fitted, arrived)
        if is_cancellable(adapter.generate):
            response = await run_inline(core, seconds, name)
        else:
            response = await DetachedCall(core, name).run(seconds)
        response = returns.checked(response, name=name)
    except CouncilError as error:
        error_mapping.tell(error, name, request, began, partial(returns.text_of, arrived))
        raise
    missed = fitting.missed(request, response, adjustments)
    elapsed = time.monotonic() - began
    return copy_with(
        response,
        model=response.model or request.model,
        adjustments=adjustments + response.adjustments + missed,
        attempts=response.attempts or (Attempt(at=0.0, elapsed=elapsed, request_id=response.request_id),),
    )


async def _passed_on(adapter: ProviderAdapter, request: GenerateRequest, deadline: float | None) -> GenerateResponse:
    """Ask a middleware of our own, in place: what it holds comes through the door, which fits and checks."""
    began = time.monotonic()
    try:
        _refuse_other_than_request(request)
        seconds = seconds_for(adapter, request, deadline)
        # Who only passes a call on leaves its time to those it asks: a scope of its own would cost more than its work.
        bounded = deadline is None and "_bounded_within" in vars(type(adapter))
        with nullcontext() if bounded else anyio.move_on_after(seconds):
            try:
                return await adapter.generate(request)  # type: ignore[return-value]
            except Exception as exc:  # noqa: BLE001 - its clock, its store or its listener may be somebody's
                raise error_mapping.error_for_caller(exc)  # noqa: B904 - it has a cause of its own
        raise timeout_error(_name(adapter), seconds)
    except CouncilError as error:
        error_mapping.tell(error, adapter.name, request, began, None)
        raise


async def stream(
    adapter: ProviderAdapter, request: GenerateRequest, *, deadline: float | None = None
) -> AsyncGenerator[GenerateChunk, None]:
    """Ask a provider, and yield the answer as it arrives.

    Closing it early ends the call. Arguments and errors are those of ``call``; ``partial`` has what came before one.
    """
    began = time.monotonic()
    name = _name(adapter)
    arrived: list[GenerateChunk] = []
    try:
        _refuse_other_than_request(request)
        fitted, adjustments = fitting.fit_for(adapter, adapter.stream, request)
        seconds = seconds_for(adapter, request, deadline)
        pieces: AsyncIterator[GenerateChunk]
        if is_cancellable(adapter.stream):  # it keeps its own limits, and learns of ours by the request
            asked = fitted if deadline is None else copy_with(fitted, timeout_seconds=seconds)
            pieces = returns.pieces(adapter.stream, asked)
        else:
            pieces = BoundedStream(returns.pieces(adapter.stream, fitted), seconds, name)
        with fallback_for(name, seconds):
            async with aclosing(pieces):
                while True:
                    try:
                        piece = await anext(pieces)
                    except StopAsyncIteration:
                        break
                    except BaseException as exc:  # noqa: BLE001 - an author's adapter may raise anything
                        raise error_mapping.error_for_caller(exc)  # noqa: B904 - it has a cause of its own
                    if not arrived:
                        if piece == GenerateChunk(adjustments=piece.adjustments):
                            adjustments += piece.adjustments
                            continue  # they come with the vendor's first piece: a retry before that would repeat them
                        if adjustments:
                            piece = attrs.evolve(piece, adjustments=adjustments + piece.adjustments)
                    arrived.append(piece)
                    yield piece
        response = returns.checked(returns.joined(arrived), name=name)
        missed = fitting.missed(request, response)
        if missed:
            yield GenerateChunk(adjustments=missed)
    except CouncilError as error:
        error_mapping.tell(error, name, request, began, partial(returns.text_of, arrived))
        raise


async def examine(adapter: ProviderAdapter, *, deep: bool = False, deadline: float | None = None) -> DoctorResult:
    """Check a provider's health, whatever its ``doctor`` does; a failure is a result, not an error.

    Args:
        adapter: the provider.
        deep: make a real call too, which may cost money.
        deadline: most seconds; None is 15, or 120 when deep.
    """
    began, seconds = time.monotonic(), (120.0 if deep else 15.0) if deadline is None else deadline
    try:
        call_doctor = DetachedCall(partial(_ask_doctor, adapter, deep=deep), _name(adapter))
        with _runtime.Fallback(seconds, partial(DoctorResult, ok=False, message="something blocks the event loop")):
            result = await call_doctor.run(seconds)
    except CouncilError as error:
        if isinstance(error, TimedOut) and time.monotonic() - began >= seconds:
            return DoctorResult(ok=False, message=f"no answer within {seconds:g} s")
        return DoctorResult(ok=False, message=f"{type(error).__name__}: {error.message}")
    result = DoctorResult(ok=result) if isinstance(result, bool) else result
    if not isinstance(result, DoctorResult):
        return DoctorResult(ok=False, message=f"its doctor returned {type(result).__name__}, not a DoctorResult")
    if result.latency_ms is None:
        return attrs.evolve(result, latency_ms=(time.monotonic() - began) * 1000)
    return result


async def _ask_doctor(adapter: ProviderAdapter, *, deep: bool) -> Any:
    parameters = inspect.signature(adapter.doctor).parameters.values()
    takes_deep = any(p.name == "deep" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    result: Any = await returns.invoke(partial(adapter.doctor, deep=deep) if takes_deep else adapter.doctor)
    if inspect.isawaitable(result):
        result = await result
    if deep and not takes_deep and isinstance(result, DoctorResult) and result.ok:
        return await try_out(adapter)
    return result


async def try_out(adapter: ProviderAdapter) -> DoctorResult:
    """Make a call of the kind that a run makes, as short as it goes."""
    asked, began = GenerateRequest(prompt="Answer with the one word: ready", max_tokens=256), time.monotonic()
    response = await call(adapter, asked)
    latency, model = (time.monotonic() - began) * 1000, response.model
    message = f"{model or adapter.name} answered in {latency:.0f} ms"
    return DoctorResult(ok=True, message=message, latency_ms=latency, details={"model": model})


def _refuse_other_than_request(request: object) -> None:
    if not isinstance(request, GenerateRequest):
        raise InvalidOption(f"expected a GenerateRequest, got {request!r:.80}")


def _name(adapter: Any) -> str:
    if not isinstance(adapter, ProviderAdapter):
        hint = "an instance, not the class" if isinstance(adapter, type) else "a ProviderAdapter"
        raise InvalidOption(f"expected {hint}, got {adapter!r:.80}")
    name = getattr(adapter, "name", None)
    if not isinstance(name, str) or not name:
        raise InvalidOption(f'{type(adapter).__qualname__} has no name: set name = "..." on the class')
    return name
