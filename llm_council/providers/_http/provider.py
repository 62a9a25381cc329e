"""The base of all HTTP providers: encode the request, send it, decode the reply or raise."""

from __future__ import annotations

import math
import os
import re
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any, ClassVar, Protocol

import anyio
import attrs

from llm_council import transports
from llm_council._runtime.large_work import run_large
from llm_council._wire import rate_headers
from llm_council._wire.payloads import dumps, loads, raise_if_html
from llm_council._wire.reading import looks_like_stream
from llm_council.errors import (
    CapabilityRefused,
    ConfigurationError,
    ConnectionLost,
    CouncilError,
    EmptyReply,
    InvalidKey,
    InvalidOption,
    MalformedReply,
    MissingCredentials,
    ProviderError,
    TimedOut,
    TransportError,
    TruncatedReply,
    near,
)
from llm_council.errors._secrets import Secret
from llm_council.models import Limits, Timeouts
from llm_council.models._attrs import as_instance, copy_with, provider_name
from llm_council.models.capabilities import DoctorResult
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import error_mapping, fitting, pacing, second_way
from llm_council.providers._call.bounded import StreamLimits, cancellable, time_left
from llm_council.providers._call.fitting import fits_requests
from llm_council.providers._call.profiles import default_model_of, family_of, profile_for
from llm_council.providers._call.projecting import Restorer
from llm_council.providers._call.returns import join_chunks
from llm_council.providers._http import account
from llm_council.providers._http.continuation import Continuation, JoinedReplies
from llm_council.providers.base import ModelProfile, ProviderAdapter, try_out
from llm_council.transports import HttpReply, HttpRequest, ReplyStream, Transport

__all__ = ["HttpProvider", "StreamReader"]

ALLOW_HTTP = "LLM_COUNCIL_ALLOW_HTTP"

_LINGER = 0.1  # seconds for a finished stream to end its connection in order, so that the pool can reuse it
_AFTER_FINISH = 2.0  # seconds to wait for usage and the end mark after the model has stopped
_SHOWN = 20  # the number of models that a doctor's details list


class StreamReader(Protocol):
    """The decoder of a dialect's streams; see ``llm_council._wire``."""

    @property
    def done(self) -> bool: ...

    @property
    def finished(self) -> bool: ...

    has_usage: bool

    @property
    def partial(self) -> str: ...

    def feed(self, data: bytes) -> list[GenerateChunk]: ...

    def finish(self) -> list[GenerateChunk]: ...


class HttpProvider(ProviderAdapter):
    """Base of the providers that are reached over HTTP. A subclass sets the address and implements the dialect.

    ``OpenAICompatibleProvider`` documents the arguments and class attributes; ``extra_body``, ``api`` and ``CHAT`` are
    its own.

    Raises:
        InvalidOption: the address or another argument is invalid.
        InvalidKey: the key has a character that no header can carry.
    """

    BASE_URL: ClassVar[str] = ""
    BASE_URL_ENV: ClassVar[str | None] = None
    NEEDS_KEY: ClassVar[bool] = True
    DEFAULT_MODEL: ClassVar[str | None] = None
    IDEMPOTENCY_HEADER: ClassVar[str | None] = None
    SERVES_WHAT_IT_LISTS: ClassVar[bool] = False

    _CONTINUATION: ClassVar[Continuation | None] = None
    _ENDPOINTS: ClassVar[re.Pattern[str]] = re.compile(
        r"/(?:(?:chat/)?completions|responses|embeddings|(?<=/v1/)models)$"
    )

    @error_mapping.hide_frames
    def __init__(
        self,
        *,
        name: str | None = None,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        default_model: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Any = None,
        timeout: Timeouts = Timeouts(),
        limits: Limits = Limits(),
        profile: ModelProfile | Mapping[str, Any] | None = None,
        allow_http: bool = False,
    ) -> None:
        if name is not None:
            self.name = provider_name(name)  # type: ignore[misc]  # a class attribute for authors, an instance's own here
        allow_http = allow_http or os.environ.get(ALLOW_HTTP, "").strip() == "1"
        address = base_url or (os.environ.get(self.BASE_URL_ENV, "").strip() if self.BASE_URL_ENV else "")
        address = account.address(address or self.BASE_URL, allow_http=allow_http)
        # People copy addresses from examples of requests, with the endpoint at their end.
        self.base_url = account.without_endpoint(address, self._ENDPOINTS)
        self.default_model = default_model or self.DEFAULT_MODEL or default_model_of(type(self))
        self._key, self._bad_key = account.read_key(api_key, self.API_KEY_ENV, self.name)
        self._headers = {key: account.sealed(key, value) for key, value in (headers or {}).items()}
        self._owns_transport = transport is None
        self._http_transport: Transport | None = None if transport is None else transports.as_transport(transport)
        self._timeouts = as_instance("timeout", Timeouts, timeout)
        self._limits = as_instance("limits", Limits, limits)
        self._profile = None if profile is None else as_instance("profile", ModelProfile, profile)
        self._family = family_of(type(self))
        self._found_model: str | None = None
        self._unreasoning: set[str | None] = set()  # models that refused a wish for reasoning

    def __init_subclass__(cls, **options: Any) -> None:
        """Make a subclass that overrides ``generate`` stream by it too, unless it overrides ``stream``."""
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = error_mapping.hide_frames(cls.__init__)  # type: ignore[method-assign]
        if "generate" in vars(cls) and "stream" not in vars(cls):
            cls.stream = ProviderAdapter.stream  # type: ignore[method-assign]

    # Implemented by the dialect:

    @abstractmethod
    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Return the path and the JSON payload of a request."""

    @abstractmethod
    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        """Return the response in a reply's JSON."""

    @abstractmethod
    def _refusal(self, reply: HttpReply) -> ProviderError:
        """Return the error for a reply with status 400 or more."""

    @abstractmethod
    def _reader(self, request: GenerateRequest, head: HttpReply) -> StreamReader:
        """Return a decoder for the stream that begins with this head."""

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, with the key; override to add headers or to sign in another way."""
        headers = {key: account.revealed(value) for key, value in self._headers.items()}
        if self._key and not any(key.lower() == "authorization" for key in headers):
            headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return headers

    # Shared by all dialects:

    @property
    def _transport(self) -> Transport:
        """The transport. Ours is made by the first call, because importing httpx takes a good part of the start-up."""
        if self._http_transport is None:
            self._http_transport = transports.HttpxTransport()
        return self._http_transport

    @cancellable
    @fits_requests
    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Send a request, and return the answer."""
        response = await second_way.ask(self, request, self._answer)
        ignored = await fitting.find_violations(request, response)
        return attrs.evolve(response, adjustments=response.adjustments + ignored) if ignored else response

    async def _answer(self, request: GenerateRequest) -> GenerateResponse:
        asked, adjustments = await self._prepared(request)
        reply = await self._send(asked, request)
        if reply.status >= 400:
            refusal = self._refusal(reply)
            asked, dropped = self._without_reasoning(asked, refusal)
            adjustments += dropped
            reply = await self._send(asked, request)
        if reply.status >= 400:
            raise self._refusal(reply)
        decoded = await run_large(len(reply.body), partial(self._decode_body, asked, reply))
        response = await self._with_rest(decoded, asked, request)
        if request.structured_output is not None or request.tools:
            restore = partial(self._restorer(request, asked).restore, response)
            response = await run_large(len(response.text or ""), restore)
        if adjustments:
            return attrs.evolve(response, adjustments=adjustments + response.adjustments)
        return response

    async def _with_rest(
        self, response: GenerateResponse, asked: GenerateRequest, request: GenerateRequest
    ) -> GenerateResponse:
        """Return the whole answer, where the vendor sends it in several replies.

        Args:
            response: the first reply.
            asked: the fitted form of the request.
            request: the request.
        """
        if self._CONTINUATION is None:
            return response
        joined = JoinedReplies(self._CONTINUATION)
        pieces, raws = [joined.add(GenerateChunk.whole(response))], [response.raw]
        following = joined.next_request(asked)
        if following is None:
            return response
        while following is not None:
            reply = await self._send(following, request)
            if reply.status >= 400:
                raise self._refusal(reply)
            rest = await run_large(len(reply.body), partial(self._decode_body, following, reply))
            pieces.append(joined.add(GenerateChunk.whole(rest)))
            raws.append(rest.raw)
            following = joined.next_request(following)
        return copy_with(join([*pieces, *joined.finish()]), raw=raws)

    async def _send(self, asked: GenerateRequest, request: GenerateRequest) -> HttpReply:
        """Send the fitted form of a request."""
        http = self._post(asked, stream=False)
        total = time_left(request, self._timeouts.total)
        reply = await self._transport.send(http, limits=self._limits, timeouts=self._timeouts, deadline=total)
        self._report_limits(reply)
        return reply

    def _report_limits(self, reply: HttpReply) -> None:
        """Tell the current pacer, if there is one, what the reply says is left of the vendor's rate limits."""
        pacer = pacing.current()
        if pacer is not None:
            pacer.learn(self, rate_headers.remaining(reply.headers, time.time()))

    def _without_reasoning(
        self, asked: GenerateRequest, refusal: ProviderError
    ) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        """Return the request without its wish for reasoning, which this model was found not to have.

        No profile knows all models of a user's own server. The finding is remembered for the life of the instance.

        Raises:
            ProviderError: the refusal, if it is about something else.
        """
        lacks = isinstance(refusal, CapabilityRefused) and refusal.capability == "reasoning"
        if not lacks or asked.reasoning is None:
            raise refusal
        self._unreasoning.add(asked.model)
        return self._drop_reasoning(asked)

    def _drop_reasoning(self, asked: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        reason = "the vendor refuses it for this model"
        dropped = Adjustment(field="reasoning", action="dropped", asked=asked.reasoning, sent=None, reason=reason)
        return copy_with(asked, reasoning=None), (dropped,)

    def _decode_body(self, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        """Return the response in a reply's body, which at some gateways is a stream that nobody asked for.

        Raises:
            EmptyReply: the body is empty.
            ProviderError: the body is an error, or none of this dialect.
        """
        if not reply.body.strip():
            raise EmptyReply(f"{self.name} sent an empty reply (HTTP {reply.status})", request_id=reply.request_id)
        try:
            return self._decode_text(request, reply)
        except ProviderError as error:
            error.fill(request_id=reply.request_id)
            raise

    def _decode_text(self, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        try:
            data = loads(reply.body, self._limits, content_type=reply.content_type)
        except MalformedReply as error:
            if not looks_like_stream(reply.body):
                raise
            reader = self._reader(request, reply)
            try:
                return join([*reader.feed(reply.body), *reader.finish()])
            except TruncatedReply as cut:
                if cut.partial:
                    raise
                raise error from None  # nothing of an answer: no stream, but other text
        return self._decode(data, request, reply)

    def _restorer(self, request: GenerateRequest, asked: GenerateRequest) -> Restorer:
        return Restorer(request, asked, self.capabilities, self._profile_of(asked.model))

    @cancellable
    @fits_requests
    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Send a request, and yield the answer as it arrives."""
        arrived: list[GenerateChunk] = []
        async with aclosing(second_way.ask_streamed(self, request, self._pieces)) as pieces:
            async for piece in pieces:
                if fitting.may_be_ignored(request):
                    arrived.append(piece)
                yield piece
        ignored = await fitting.find_violations(request, join_chunks(arrived)) if arrived else ()
        if ignored:
            yield GenerateChunk(adjustments=ignored)

    async def _pieces(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        if not self._profile_of(request.model).streams:
            yield GenerateChunk.whole(await self._answer(request))
            return
        total = time_left(request, self._timeouts.total)
        limits = StreamLimits(self.name, total, self._timeouts.idle)
        self.check()  # before anything is imported for the call
        prepare = getattr(self._transport, "prepare", None)  # a transport of the caller's need not have it
        if prepare is not None:
            await limits.prepare(prepare)
        asked, adjustments = await limits.wait(partial(self._prepared, request))
        if adjustments:
            yield GenerateChunk(adjustments=adjustments)
        joined = JoinedReplies(self._CONTINUATION)
        restorer: Restorer | None = None
        following: GenerateRequest | None = asked
        while following is not None:
            async with AsyncExitStack() as stack:
                reply, asked, dropped = await self._open(stack, following, limits, total)
                if dropped:
                    adjustments += dropped
                    yield GenerateChunk(adjustments=dropped)
                # Some servers answer a request for a stream with one JSON body, others with a proxy's HTML page.
                reader, arriving, undecided = self._reader(asked, reply.head), aiter(reply), True
                restorer = restorer or self._restorer(request, asked)
                while not reader.done:
                    data = await self._next(arriving, reader, limits)
                    if data is None:
                        break
                    undecided = undecided and raise_if_html(data, reply.head.content_type)
                    pieces = reader.feed(data)
                    for piece in _as_answer(pieces, joined, restorer, adjustments):
                        yield piece
                    # Comments and keep-alive events give no pieces. After the loop, so that the consumer's pauses do
                    # not count as silence of the vendor.
                    if pieces:
                        limits.content_arrived()
                late = list(_as_answer(reader.finish(), joined, restorer, adjustments))
                following = joined.next_request(asked)
                if following is None:
                    late += await run_large(restorer.size, partial(_last_pieces, joined, restorer))
                for piece in late:
                    yield piece
                # Reading up to the end of the body lets the pool reuse the connection; closing it early drops it.
                with anyio.move_on_after(_LINGER):
                    await anext(arriving, None)

    async def _open(
        self, stack: AsyncExitStack, asked: GenerateRequest, limits: StreamLimits, total: float | None
    ) -> tuple[ReplyStream, GenerateRequest, tuple[Adjustment, ...]]:
        """Send the fitted form of a request; return the reply once its head has arrived, what was sent, and why.

        Raises:
            ProviderError: the vendor refused the request.
        """
        dropped: tuple[Adjustment, ...] = ()
        while True:
            http = self._post(asked, stream=True)
            opened = self._transport.stream(http, limits=self._limits, timeouts=self._timeouts, deadline=total)
            limits.content_arrived()  # the consumer's pause is no silence of the vendor
            reply = await limits.wait(partial(stack.enter_async_context, opened))
            self._report_limits(reply.head)
            if reply.status < 400:
                return reply, asked, dropped
            refusal = self._refusal(await limits.wait(reply.read))
            asked, dropped = self._without_reasoning(asked, refusal)  # at most once: then there is nothing to drop

    async def _next(self, arriving: AsyncIterator[bytes], reader: StreamReader, limits: StreamLimits) -> bytes | None:
        """Return the next bytes; None at the end of the answer."""
        idle = math.inf
        if reader.finished:
            idle = _LINGER if reader.has_usage else _AFTER_FINISH
        try:
            return await limits.wait(partial(anext, arriving, None), idle=idle)
        except TransportError as error:
            if reader.finished:  # the answer is complete; only its usage may be missing
                return None
            if isinstance(error, TimedOut):
                error.fill(partial=reader.partial or None)
            # Another attempt could not continue the text, so that this is a cut answer, not a lost connection.
            if isinstance(error, ConnectionLost) and reader.partial:
                cut = TruncatedReply("the connection ended before the answer did", partial=reader.partial)
                raise cut from error.with_traceback(None)
            raise

    async def doctor(self, *, deep: bool = False) -> DoctorResult:
        """Request the list of models; ``deep`` also makes a call of the kind that a run makes."""
        began = time.monotonic()
        try:
            self.check()
            message, details = await self._inspect()
        except CouncilError as error:
            error_mapping.advise(error, self._key_advice, self._model_advice, self._address_advice)
            return DoctorResult(ok=False, message=error.message, latency_ms=(time.monotonic() - began) * 1000)
        latency = (time.monotonic() - began) * 1000
        if deep:
            called = await try_out(self)
            return attrs.evolve(called, details={**details, **called.details})
        return DoctorResult(ok=True, message=message, latency_ms=latency, details=details)

    async def _inspect(self) -> tuple[str, dict[str, Any]]:
        """Check the server without a call to a model; return a message and details by name.

        Raises:
            CouncilError: the server does not answer, or not as it should.
        """
        rows = await self._rows()
        if rows is None:
            return f"{self.base_url} answers, but lists no models; a deep check makes a call", {}
        models, wanted = [row["id"] for row in rows], self.default_model
        if self.SERVES_WHAT_IT_LISTS:
            if not models:
                raise ConfigurationError(f"{self.base_url} answers, but has no model")
            if wanted and wanted not in models and f"{wanted}:latest" not in models:
                raise ConfigurationError(f"{self.base_url} answers, but has no model {wanted!r}{near(wanted, models)}")
        details = {"models": models[:_SHOWN], "count": len(models), **self._facts(rows[:_SHOWN])}
        return f"{self.base_url} answers; {len(models)} model{'' if len(models) == 1 else 's'}", details

    def _facts(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return further facts for ``doctor`` from the rows of the list of models."""
        return {}

    async def _rows(self) -> list[dict[str, Any]] | None:
        """Return the models that the server lists, each with an ``id``; None if it has no such list."""
        return await self._list("/models")

    async def _list(self, path: str, key: str = "data", *, name: str = "id") -> list[dict[str, Any]] | None:
        """Return the objects of a list, each with its name as ``id``; None if the server has no such list.

        Args:
            path: the path of the list.
            key: the key of the list in the reply; some servers send the bare list.
            name: the key of an object's name.
        """
        data = await self._get(path, missing=(404, 405))
        listed = data.get(key) if isinstance(data, dict) else data
        if not isinstance(listed, list):
            return None
        rows = [{**row, "id": row.get(name)} for row in listed if isinstance(row, dict)]
        return [row for row in rows if isinstance(row["id"], str)]

    async def _get(self, path: str, *, missing: tuple[int, ...] = ()) -> Any:
        """Return the JSON of a small GET; None for a status in ``missing``."""
        http = HttpRequest(method="GET", url=self._url(path), headers=self._signed({}))
        reply = await self._transport.send(http, limits=self._limits, timeouts=self._timeouts, deadline=15.0)
        if reply.status in missing:
            return None
        if reply.status >= 400:
            raise self._refusal(reply)
        return loads(reply.body, self._limits, content_type=reply.content_type)

    def check(self) -> None:
        """Check without I/O that the provider has an address and a key.

        Raises:
            InvalidOption: it has no address.
            MissingCredentials: the key is not set; the message names the environment variable.
            InvalidKey: the environment variable holds no valid key.
        """
        if not self.base_url:
            remedy = f"set {self.BASE_URL_ENV}, or pass base_url" if self.BASE_URL_ENV else "pass base_url"
            raise InvalidOption(f"{self.name} has no address: {remedy}", provider=self.name)
        if self._bad_key is not None:
            raise InvalidKey(self._bad_key, provider=self.name)
        if not self._key and self.API_KEY_ENV and self.NEEDS_KEY and not self._is_signed():
            message = f"{self.name} needs a key: set {self.API_KEY_ENV}, or pass api_key"
            raise MissingCredentials(message, provider=self.name).fill(variables=(self.API_KEY_ENV,))

    def cache_identity(self) -> str:
        """Return the name, the address, the account's fingerprint, and a hash of ``_identity_extras``."""
        identity = self.account_identity() or f"{self.base_url}:"
        extras = account.hash_of_extras(*self._identity_extras())
        return f"{self._class_identity()}:{identity}:{self.default_model or ''}{extras}{self._arguments_identity()}"

    def _identity_extras(self) -> tuple[object, ...]:
        """Return what shapes the answers of this instance but stands in no request: headers, the profile."""
        return self._headers, self._profile

    def account_identity(self) -> str | None:
        """Return the address and the account's fingerprint."""
        return f"{self.base_url}:{self._key.fingerprint()}" if self._key else None

    def _has_credentials(self) -> bool:
        """Return True if calls carry a key, or a header that holds one."""
        return self._key is not None or self._is_signed()

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        if self._owns_transport and self._http_transport is not None:
            await self._http_transport.aclose()
        await super().aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self.base_url}>"

    def _profile_of(self, model: str | None) -> ModelProfile:
        return self._profile or profile_for(self._family, model or self.default_model)

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        """Fit the request, and fill in the model."""
        self.check()
        fitted, adjustments = fitting.fit(request, self.capabilities, self._profile_of(request.model))
        model = fitted.model or self.default_model or await self._only_model()
        if fitted.model != model:
            fitted = copy_with(fitted, model=model)
        if fitted.reasoning is not None and model in self._unreasoning:
            fitted, dropped = self._drop_reasoning(fitted)
            adjustments += dropped
        return fitted, adjustments

    async def _only_model(self) -> str:
        """Return the first model that the user's own server serves; the server is asked once.

        Raises:
            InvalidOption: it serves none, or this provider is not of that kind.
        """
        if self._found_model is None and self.SERVES_WHAT_IT_LISTS:
            rows = await self._rows()
            self._found_model = rows[0]["id"] if rows else None
        if self._found_model is None:
            raise InvalidOption(f"{self.name} has no default model: say which, as {self.name}/MODEL or default_model")
        return self._found_model

    def _post(self, request: GenerateRequest, *, stream: bool) -> HttpRequest:
        path, payload = self._encode(request, stream=stream)
        plain = {"Content-Type": "application/json", "Accept": "text/event-stream" if stream else "application/json"}
        if self.IDEMPOTENCY_HEADER and request.idempotency_key:
            plain[self.IDEMPOTENCY_HEADER] = request.idempotency_key
            if request.sample is not None:  # else the vendor would answer each draw with the first one
                plain[self.IDEMPOTENCY_HEADER] += f"-sample-{request.sample}"
        return HttpRequest(url=self._url(path), headers=self._signed(plain), body=dumps(payload))

    def _signed(self, plain: dict[str, str]) -> dict[str, str]:
        return {"Accept": "application/json", **plain, **self.headers()}

    def _key_advice(self) -> str:
        """Return which key was sent, and from where it came."""
        own = self.API_KEY_ENV
        if self._key is None:
            if self._is_signed():
                return "check the credentials in the headers"
            return f"no key was sent: set {own}" if own else "no key was sent: pass api_key"
        if self._key.variable:
            return f"check the key in {self._key.variable}"
        return "check the key in api_key" + (f"; without api_key, {own} is read" if own else "")

    def _address_advice(self) -> str:
        variable = self.BASE_URL_ENV
        return f"start it, or name its address in {variable or 'base_url'}"

    def _is_signed(self) -> bool:
        """Return True if one of the caller's headers carries a credential."""
        return any(not isinstance(value, str) for value in self._headers.values())

    def _url(self, path: str) -> str:
        return f"{self.base_url}{path}"


def _as_answer(
    pieces: Iterable[GenerateChunk], joined: JoinedReplies, restorer: Restorer, adjustments: tuple[Adjustment, ...]
) -> Iterator[GenerateChunk]:
    """Yield the pieces of one reply as pieces of the answer."""
    for piece in pieces:
        if piece.reset is not None:  # it begins the answer anew, and voids the pieces before it
            piece = attrs.evolve(piece, adjustments=adjustments)
        yield from restorer.feed(joined.add(piece))


def _last_pieces(joined: JoinedReplies, restorer: Restorer) -> list[GenerateChunk]:
    """Return what follows the pieces of the last reply."""
    pieces = [shown for piece in joined.finish() for shown in restorer.feed(piece)]
    return [*pieces, *restorer.finish()]
