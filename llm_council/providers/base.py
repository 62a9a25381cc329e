"""The one module that the author of a provider imports, and the functions through which every provider is called.

An author subclasses ``ProviderAdapter``, sets ``name`` and ``capabilities``, and writes ``async def generate``. Callers
use ``call``, ``stream`` and ``examine``. These limit the time, fit the request, check the answer, and map what the
adapter raises to typed errors.
"""

from __future__ import annotations

import inspect
import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import anyio
import attrs

from llm_council import _runtime, transports
from llm_council._runtime import call_context, per_loop
from llm_council._runtime.frames import user_traceback
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
    UnknownOption,
)
from llm_council.errors._secrets import Secret
from llm_council.models._attrs import copy_with
from llm_council.models.attachments import Attachment
from llm_council.models.capabilities import DoctorResult, ProviderCapabilities
from llm_council.models.limits import Limits, Timeouts
from llm_council.models.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
)
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
from llm_council.providers._call import construction, error_mapping, fitting, pacing, returns, second_way
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
from llm_council.providers._call.files import kind_fault, size_fault
from llm_council.providers._call.profiles import ModelProfile

if TYPE_CHECKING:
    from llm_council.providers.batch_jobs import BatchJobs
    from llm_council.transports import AsyncClient

__all__ = [
    "AdapterFailed",
    "Adjustment",
    "AudioPart",
    "CapabilityMissing",
    "ConfigurationError",
    "Cost",
    "CostSource",
    "DoctorResult",
    "DocumentPart",
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
# The errors that authors raise.
__all__ += ["ApiError", "MalformedReply", "MissingCredentials", "RateLimited", "ServerFailed"]

GenerateResult: TypeAlias = GenerateResponse | AsyncIterator[GenerateResponse]
"""What ``generate`` may return. The items of an iterator are deltas; the last one may have no text."""


class ProviderAdapter(_runtime.Closeable):
    """Base of all providers. One instance serves concurrent calls, in any number of event loops.

    A subclass sets ``name`` and ``capabilities`` and writes ``generate``. It may override ``stream``, ``supports``,
    ``doctor`` and ``aclose``. Its ``__init__`` need not call ``super().__init__()``.

    Attributes:
        name: the provider's name; letters, digits, ``-``, ``_`` and ``.``.
        capabilities: what the provider can do; requests are fitted to it.
        API_KEY_ENV: the environment variable that makes the provider available, usually that of its key; None if there
            is none. While it is set, a ``Council()`` without named seats seats the provider. An error about the key
            names it.
    """

    name: ClassVar[str]
    capabilities: ClassVar[ProviderCapabilities]
    API_KEY_ENV: ClassVar[str | None] = None

    _timeouts: Timeouts = Timeouts()
    _gathers_calls = False  # True for a middleware that sends the calls of many runs together
    _arguments_hash = ""  # of the constructor's arguments, for ``cache_identity``

    # Here and not in ``__init__``, which the classes of authors need not call.
    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Refuse unknown keywords, and remember a hash of the arguments.

        Raises:
            UnknownOption: the class accepts no such keyword; the message lists those that it accepts.
        """
        construction.refuse_unknown_options(cls, options, cls.__qualname__)
        if arguments and cls.__init__ is object.__init__:
            raise UnknownOption(f"{cls.__qualname__} takes no arguments")
        created = super().__new__(cls)
        # A built-in class names in ``cache_identity`` which of its arguments decide an answer.
        if not construction.belongs_to_library(cls.__init__):
            vars(created)["_arguments_hash"] = construction.arguments_hash(cls, arguments, options)
        return created

    @abstractmethod
    async def generate(self, request: GenerateRequest) -> GenerateResult:
        """Answer a request, which has been fitted to ``capabilities``.

        Args:
            request: the request. If its ``stream`` is set, the method may return an async iterator of deltas.

        Returns:
            The answer: a response, a string, or an async iterator of its pieces.
        """

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the answer as it arrives; by default, what ``generate`` returns for a request with ``stream`` set."""
        asked = attrs.evolve(request, stream=True) if self.capabilities.streaming else request
        async with aclosing(returns.iterate(self.generate, asked)) as pieces:
            async for piece in pieces:
                yield piece

    async def supports(self, capability: str) -> bool:
        """Return True if the provider has a capability; False for an unknown word."""
        return self.supports_capability(capability)

    def supports_capability(self, capability: str) -> bool:
        """Return True if ``capabilities`` has a word such as ``"tool_use"``; False for an unknown word."""
        return self.capabilities.has(capability)

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Check the provider's health.

        Args:
            deep: also make a real call, which may cost money.
        """
        if not deep:
            return DoctorResult(ok=True, message=f"{self.name} can be made; whether it answers was not asked")
        return await try_out(self)

    def check(self) -> None:
        """Check without I/O that the provider can be called: its key is set, its extra is installed.

        Raises:
            ConfigurationError: something is missing; the message names the remedy.
        """

    def _most_calls_at_once(self) -> int | None:
        """Return how many calls this provider makes at the same time, while others wait; None if that is unlimited."""
        return None

    def _most_calls_per_second(self) -> float | None:
        """Return how many calls this provider makes in a second, while others wait; None if that is unlimited."""
        return None

    def batch_jobs(self) -> BatchJobs | None:
        """Return the vendor's batch jobs; None if the vendor offers none, or this provider does not speak them."""
        return None

    def _key_advice(self) -> str:
        """Return what to check after the vendor refused the key, in words; empty if that is unknown."""
        return f"check the key in {self.API_KEY_ENV}" if self.API_KEY_ENV else ""

    def _check_model(self, model: str | None) -> None:
        """Raise ``ConfigurationError`` if a model of this provider is known not to be there; None is the default."""

    def _model_advice(self) -> str:
        """Return what to check after the vendor did not know the model, in words."""
        return f"check the name of the model, in {self.name}/MODEL or default_model"

    def _address_advice(self) -> str:
        """Return what to do if no server listens at the provider's address, in words; empty if that is unknown."""
        return ""

    def _check_deadline(self, seconds: float | None) -> None:
        """Raise ``DeadlineTooShort`` if a run of so many seconds is too short for every call; None is no deadline."""

    def _profile_of(self, model: str | None) -> ModelProfile | None:
        """Return the facts about a model of this provider; None leaves a request's parameters as they are."""
        return None

    def _file_fault(self, file: Attachment, model: str | None) -> str | None:
        """Return why a model cannot see or hear a file, as ``"takes no images"``; None if it can."""
        return kind_fault(file, self.capabilities, self._profile_of(model))

    def _size_fault(self, files: Sequence[Attachment], model: str | None) -> str | None:
        """Return which file is too large for a model, with its size and the limit; None if all are small enough."""
        return size_fault(files, self._profile_of(model))

    def cache_identity(self) -> str:
        """Return a key for caches that is the same in every process, and holds no secret.

        Two providers that may answer one request differently have different keys. By default, the key holds the class,
        the name, and a hash of the arguments of the constructor: an object among them that is no data, such as a
        client, makes it unique. Override this method if something else decides the answers, such as a variable.
        """
        return f"{self._class_identity()}{self._arguments_identity()}"

    def _class_identity(self) -> str:
        return f"{type(self).__module__}.{type(self).__qualname__}:{self.name}"

    def _arguments_identity(self) -> str:
        """Return the hash of the arguments, after a colon; nothing for a constructor of this library."""
        return f":{self._arguments_hash}" if self._arguments_hash else ""

    def _limit_identity(self) -> str:
        """Return a key for limits without an account; unlike ``cache_identity``, never that of one process alone."""
        is_default = type(self).cache_identity is ProviderAdapter.cache_identity
        return self._class_identity() if is_default else self.cache_identity()

    def account_identity(self) -> str | None:
        """Return a key for the account at the vendor, which holds no secret; None if there is no account."""
        return None

    # Not ``async def``, for which a blocking twin would be generated: a client belongs to its event loop.
    def http_client(self) -> Coroutine[Any, Any, AsyncClient]:
        """Await an ``httpx.AsyncClient`` for the running event loop; it is closed with the loop or by ``aclose``.

        It limits only the time to connect, since the call has a deadline of its own. It follows no redirects, and
        limits the size of a reply.
        """
        return per_loop.get(self, "client", transports.new_client, transports.AsyncClient.aclose)

    # The name of ``http_client`` in 0.1.0, which the adapters of authors call.
    async def _get_client(self) -> AsyncClient:
        return await self.http_client()

    async def aclose(self) -> None:
        """Close what was opened in the running event loop; the next call opens it again."""
        await per_loop.aclose(self)

    # --- blocking twins: generated by tools.generate_sync ---
    # through: generate=call, stream=stream, doctor=examine
    def generate_sync(self, request: GenerateRequest) -> GenerateResponse:
        """Call a provider, and return its whole answer.

        The blocking twin of ``generate``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(call, self, request)

    def stream_sync(self, request: GenerateRequest) -> _runtime.BlockingStream[GenerateChunk]:
        """Call a provider, and yield its answer as it arrives.

        The blocking twin of ``stream``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.iterate(stream, self, request)

    def supports_sync(self, capability: str) -> bool:
        """Return True if the provider has a capability; False for an unknown word.

        The blocking twin of ``supports``; it raises ``InsideEventLoopError`` in a running event loop.
        """
        return _runtime.call(self.supports, capability)

    def doctor_sync(self, *, deep: bool = False) -> DoctorResult:
        """Check a provider's health. A failure is a result, not an error, whatever the provider's ``doctor`` does.

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
    """Call a provider, and return its whole answer.

    Args:
        adapter: the provider.
        request: the request.
        deadline: a time limit in seconds from now, beside those of the request and of the run.

    Returns:
        The answer, which is never empty. Its ``adjustments`` report what was changed in the request.

    Raises:
        ProviderError: the call failed; ``AdapterFailed`` for an exception of the adapter's own.
        ConfigurationError: the call is invalid, or a key is missing; nothing was sent.
    """
    with nullcontext() if deadline is None else call_context.limited(deadline):  # middleware learns of it
        if is_own_middleware(adapter):
            return await _passed_on(adapter, request, deadline)
        began = time.monotonic()
        name = _name_of(adapter)
        arrived: list[GenerateChunk] = []
        try:
            _refuse_other_than_request(request)
            seconds = seconds_for(adapter, request, deadline)
            limit = _TimeLimit(seconds)
            attempt: Callable[[GenerateRequest], Awaitable[GenerateResponse]]
            attempt = partial(_attempt, adapter, arrived=arrived, limit=limit)
            pacer = pacing.current()
            if pacer is not None:
                attempt = partial(_paced_attempt, pacer, adapter, attempt, limit)
            if fitting.fits_itself(adapter.generate):  # and gives a refused schema its second way
                response = await attempt(request)
            else:
                response = await second_way.ask(adapter, request, attempt)
        except CouncilError as error:
            error_mapping.advise(error, adapter._key_advice, adapter._model_advice, adapter._address_advice)
            error_mapping.annotate(error, name, request, began, partial(returns.partial_text, arrived))
            error.__traceback__ = user_traceback(error)  # without the frames between here and the adapter
            raise
        violations = await fitting.find_violations(request, response)
        elapsed = time.monotonic() - began
        return copy_with(
            response,
            model=response.model or request.model,
            adjustments=response.adjustments + violations,
            attempts=response.attempts or (Attempt(at=0.0, elapsed=elapsed, request_id=response.request_id),),
        )


class _TimeLimit:
    """The seconds of a call, which its attempts share: the first gets them all, a second what is left."""

    __slots__ = ("_began", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._began: float | None = None

    def left(self) -> float | None:
        now = time.monotonic()
        if self._began is None or self._seconds is None:
            self._began = now
            return self._seconds
        return max(self._seconds - (now - self._began), 0.0)


async def _attempt(
    adapter: ProviderAdapter, request: GenerateRequest, *, arrived: list[GenerateChunk], limit: _TimeLimit
) -> GenerateResponse:
    """Call an adapter once; ``arrived`` receives the pieces of its answer."""
    name = _name_of(adapter)
    fitted, adjustments = fitting.fit_unless_marked(adapter, adapter.generate, request)
    arrived.clear()
    seconds = limit.left()
    if is_cancellable(adapter.generate):  # one of ours, which returns its whole answer
        response = returns.as_response(await run_inline(partial(adapter.generate, fitted), seconds, name))
    else:
        core = partial(returns.collect, adapter.generate, fitted, arrived)
        response = await DetachedCall(core, name).run(seconds)
    response = returns.require_answer(response, name=name)
    return copy_with(response, adjustments=adjustments + response.adjustments) if adjustments else response


async def _paced_attempt(
    pacer: pacing.Pacer,
    adapter: ProviderAdapter,
    attempt: Callable[[GenerateRequest], Awaitable[GenerateResponse]],
    limit: _TimeLimit,
    request: GenerateRequest,
) -> GenerateResponse:
    """Call an adapter once, when it is the call's turn; the wait is part of the call's time."""
    return await pacer.ask(adapter, limit.left(), partial(attempt, request))


async def _passed_on(adapter: ProviderAdapter, request: GenerateRequest, deadline: float | None) -> GenerateResponse:
    """Call a middleware of ours. The providers that it wraps are reached through ``call``, which fits and checks."""
    began = time.monotonic()
    try:
        _refuse_other_than_request(request)
        seconds = seconds_for(adapter, request, deadline)
        # A middleware that only passes the call on needs no limit: the call that it makes has the same one.
        bounded = deadline is None and "_keeps_time_limits" in vars(type(adapter))
        with nullcontext() if bounded else anyio.move_on_after(seconds):
            try:
                return await adapter.generate(request)  # type: ignore[return-value]
            except Exception as exc:  # noqa: BLE001 - a clock, a store or a listener of the caller's may raise anything
                raise error_mapping.error_for_caller(exc)  # noqa: B904 - it has a cause of its own
        raise timeout_error(_name_of(adapter), seconds)
    except CouncilError as error:
        error_mapping.annotate(error, adapter.name, request, began, None)
        raise


async def stream(
    adapter: ProviderAdapter, request: GenerateRequest, *, deadline: float | None = None
) -> AsyncGenerator[GenerateChunk, None]:
    """Call a provider, and yield its answer as it arrives.

    Closing the iterator early ends the call. Arguments and errors are those of ``call``; an error's ``partial`` holds
    the text that came before it.
    """
    began = time.monotonic()
    name = _name_of(adapter)
    arrived: list[GenerateChunk] = []
    try:
        _refuse_other_than_request(request)
        seconds = seconds_for(adapter, request, deadline)
        open_stream: Callable[[GenerateRequest], AsyncIterator[GenerateChunk]]
        open_stream = partial(_open_stream, adapter, seconds=seconds, deadline=deadline)
        pacer = None if is_own_middleware(adapter) else pacing.current()  # below it is the adapter that is paced
        if pacer is not None:
            open_stream = partial(_open_paced_stream, pacer, adapter, open_stream, seconds)
        adjustments: tuple[Adjustment, ...] = ()
        pieces: Any  # an iterator with ``aclose``
        if request.structured_output is None or fitting.fits_itself(adapter.stream):
            fitted, adjustments = fitting.fit_unless_marked(adapter, adapter.stream, request)
            pieces = open_stream(fitted)
        else:
            pieces = second_way.ask_streamed(adapter, request, partial(_fitted_stream, adapter, open_stream))
        with fallback_for(name, seconds):
            async with aclosing(pieces):
                # Not ``async for``: an exception of the consumer, thrown in at ``yield``, is not the adapter's.
                while True:
                    try:
                        piece = await anext(pieces)
                    except StopAsyncIteration:
                        break
                    except BaseException as exc:  # noqa: BLE001 - an author's adapter may raise anything
                        raise error_mapping.error_for_caller(exc)  # noqa: B904 - it has a cause of its own
                    if not arrived:
                        # Adjustments come with the vendor's first piece. A retry before it would repeat them.
                        if piece == GenerateChunk(adjustments=piece.adjustments):
                            adjustments += piece.adjustments
                            continue
                        if adjustments:
                            piece = attrs.evolve(piece, adjustments=adjustments + piece.adjustments)
                    arrived.append(piece)
                    yield piece
        response = returns.require_answer(returns.join_chunks(arrived), name=name)
        violations = await fitting.find_violations(request, response)
        if violations:
            yield GenerateChunk(adjustments=violations)
    except CouncilError as error:
        error_mapping.advise(error, adapter._key_advice, adapter._model_advice, adapter._address_advice)
        error_mapping.annotate(error, name, request, began, partial(returns.partial_text, arrived))
        raise


def _open_stream(
    adapter: ProviderAdapter, request: GenerateRequest, *, seconds: float | None, deadline: float | None
) -> AsyncIterator[GenerateChunk]:
    """Begin the stream of a fitted request."""
    if is_cancellable(adapter.stream):  # it keeps its own time limits; the request carries a further one
        asked = request if deadline is None else copy_with(request, timeout_seconds=seconds)
        return returns.iterate(adapter.stream, asked)
    return BoundedStream(returns.iterate(adapter.stream, request), seconds, _name_of(adapter))


def _open_paced_stream(
    pacer: pacing.Pacer,
    adapter: ProviderAdapter,
    open_stream: Callable[[GenerateRequest], AsyncIterator[GenerateChunk]],
    seconds: float | None,
    request: GenerateRequest,
) -> AsyncIterator[GenerateChunk]:
    """Return the stream of a fitted request, which begins when it is the call's turn."""
    return pacer.ask_streamed(adapter, seconds, partial(open_stream, request))


async def _fitted_stream(
    adapter: ProviderAdapter,
    open_stream: Callable[[GenerateRequest], AsyncIterator[GenerateChunk]],
    request: GenerateRequest,
) -> AsyncGenerator[GenerateChunk, None]:
    """Fit a request, and yield its stream with the changes first; raise typed errors only."""
    fitted, adjustments = fitting.fit_unless_marked(adapter, adapter.stream, request)
    if adjustments:
        yield GenerateChunk(adjustments=adjustments)
    pieces: Any = open_stream(fitted)
    async with aclosing(pieces):
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except BaseException as exc:  # noqa: BLE001 - an author's adapter may raise anything
                raise error_mapping.error_for_caller(exc)  # noqa: B904 - it has a cause of its own
            yield piece


async def examine(adapter: ProviderAdapter, *, deep: bool = False, deadline: float | None = None) -> DoctorResult:
    """Check a provider's health. A failure is a result, not an error, whatever the provider's ``doctor`` does.

    Args:
        adapter: the provider.
        deep: also make a real call, which may cost money.
        deadline: a time limit in seconds; None is 15, or 120 for a deep check.
    """
    began = time.monotonic()
    seconds = deadline
    if seconds is None:
        seconds = 120.0 if deep else 15.0
    try:
        # In a task of its own: the ``doctor`` of an author may ignore its cancellation.
        call_doctor = DetachedCall(partial(_ask_doctor, adapter, deep=deep), _name_of(adapter))
        with _runtime.Fallback(seconds, partial(DoctorResult, ok=False, message="something blocks the event loop")):
            result = await call_doctor.run(seconds)
    except CouncilError as error:
        if isinstance(error, TimedOut) and time.monotonic() - began >= seconds:
            return DoctorResult(ok=False, message=f"no answer within {seconds:g} s")
        error_mapping.advise(error, adapter._key_advice, adapter._model_advice, adapter._address_advice)
        return DoctorResult(ok=False, message=f"{type(error).__name__}: {error.message}")
    # Authors also return a plain bool.
    result = DoctorResult(ok=result) if isinstance(result, bool) else result
    if not isinstance(result, DoctorResult):
        return DoctorResult(ok=False, message=f"its doctor returned {type(result).__name__}, not a DoctorResult")
    if result.latency_ms is None:
        return attrs.evolve(result, latency_ms=(time.monotonic() - began) * 1000)
    return result


async def _ask_doctor(adapter: ProviderAdapter, *, deep: bool) -> Any:
    # An author may have written ``doctor`` without ``deep``; then a deep check makes the call here.
    parameters = inspect.signature(adapter.doctor).parameters.values()
    takes_deep = any(p.name == "deep" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    result: Any = await returns.invoke(partial(adapter.doctor, deep=deep) if takes_deep else adapter.doctor)
    if inspect.isawaitable(result):
        result = await result
    if deep and not takes_deep and isinstance(result, DoctorResult) and result.ok:
        return await try_out(adapter)
    return result


async def try_out(adapter: ProviderAdapter) -> DoctorResult:
    """Make a short call of the kind that a run makes, and return its result."""
    request = GenerateRequest(prompt="Answer with the one word: ready", max_tokens=256)
    began = time.monotonic()
    response = await call(adapter, request)
    latency = (time.monotonic() - began) * 1000
    model = response.model
    message = f"{model or adapter.name} answered in {latency:.0f} ms"
    return DoctorResult(ok=True, message=message, latency_ms=latency, details={"model": model})


def _refuse_other_than_request(request: object) -> None:
    if not isinstance(request, GenerateRequest):
        raise InvalidOption(f"expected a GenerateRequest, got {request!r:.80}")


def _name_of(adapter: Any) -> str:
    if not isinstance(adapter, ProviderAdapter):
        hint = "an instance, not the class" if isinstance(adapter, type) else "a ProviderAdapter"
        raise InvalidOption(f"expected {hint}, got {adapter!r:.80}")
    name = getattr(adapter, "name", None)
    if not isinstance(name, str) or not name:
        raise InvalidOption(f'{type(adapter).__qualname__} has no name: set name = "..." on the class')
    return name
