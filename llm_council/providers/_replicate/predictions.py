"""The life of a prediction on Replicate: create it once, poll or follow it to its end, cancel it when abandoned."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import anyio
import attrs

from llm_council._wire.payloads import loads
from llm_council.errors import (
    ApiError,
    ConnectFailed,
    ConnectionLost,
    InvalidOption,
    ProviderError,
    TimedOut,
    TruncatedReply,
)
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.bounded import GRACE, time_left
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers._replicate.errors import decode_error
from llm_council.providers._replicate.reply import Prediction, decode_response, read_prediction
from llm_council.providers._replicate.stream import PredictionStream
from llm_council.transports import HttpReply, HttpRequest

__all__ = ["follow", "poll_to_end", "prediction_for"]

_POLL_GROWTH = 1.5  # factor from one poll interval to the next
_MAX_POLL = 5.0  # seconds between two polls
_MAX_RETRY_AFTER = 30.0  # seconds; a longer Retry-After of a poll is cut to this
_MAX_FAILED_POLLS = 4  # in a row
_UNSENT_PHASES = frozenset({"connect", "pool"})  # a timeout in these phases means nothing was sent
_GATEWAY_STATUSES = frozenset({502, 504})  # the server behind the gateway may have handled the request
_MIN_CANCEL_AFTER = 5  # seconds, the smallest value that the header Cancel-After accepts
_CANCEL_TIMEOUT = GRACE * 0.8  # seconds for cancelling a prediction within the caller's grace period


class Running:
    """A prediction that was created.

    Attributes:
        prediction: the latest state of the prediction.
        ended: nothing more is expected of it.
    """

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self.ended = prediction.ended


@asynccontextmanager
async def prediction_for(provider: HttpProvider, request: GenerateRequest, *, stream: bool) -> AsyncIterator[Running]:
    """Create a prediction, once, and cancel it if the block is left before the prediction ends.

    An error of the block stays retryable only if the cancellation succeeded: each prediction is billed, so a second one
    must not run beside the first.

    Args:
        provider: the provider that sends the requests.
        request: the request, already fitted to the model.
        stream: whether to ask for a stream.

    Raises:
        ProviderError: the prediction was not created. The error is not retryable where that is uncertain.
    """
    running = Running(await _create(provider, request, stream=stream))
    try:
        yield running
    except BaseException as error:  # cancellation included; re-raised below
        if not running.ended:
            cancelled = await _cancel(provider, running.prediction)
            if isinstance(error, ProviderError) and not cancelled:
                error.retryable = False
        raise


async def _create(provider: HttpProvider, request: GenerateRequest, *, stream: bool) -> Prediction:
    # Creating is not idempotent: Replicate's own client never retries a POST.
    left = time_left(request, provider._timeouts.total)
    post = provider._post(request, stream=stream)
    headers = {**post.headers, "Accept": "application/json"}
    if left is not None:
        # Ends the prediction if this process dies (Replicate's changelog 2025-10-16, "Set deadlines for predictions").
        headers["Cancel-After"] = f"{max(_MIN_CANCEL_AFTER, math.ceil(left))}s"
    try:
        reply = await provider._transport.send(
            attrs.evolve(post, headers=headers), limits=provider._limits, timeouts=provider._timeouts, deadline=left
        )
        if reply.status >= 400:
            raise provider._refusal(reply)
        return read_prediction(loads(reply.body, provider._limits, content_type=reply.content_type))
    except ProviderError as error:
        if not _is_unsent(error):
            error.retryable = False
        raise


def _is_unsent(error: ProviderError) -> bool:
    """Return True if an error proves that no prediction was created."""
    if isinstance(error, ApiError):
        return error.status not in _GATEWAY_STATUSES
    return isinstance(error, ConnectFailed) or (isinstance(error, TimedOut) and error.phase in _UNSENT_PHASES)


async def _cancel(provider: HttpProvider, prediction: Prediction) -> bool:
    """Cancel a prediction; return True if the server confirmed it."""
    http = HttpRequest(url=provider._url(f"{_path(prediction)}/cancel"), headers=provider._signed({}))
    with anyio.move_on_after(_CANCEL_TIMEOUT, shield=True), suppress(ProviderError):
        reply = await provider._transport.send(http, limits=provider._limits, timeouts=provider._timeouts)
        return reply.status < 400
    return False


async def poll_to_end(
    provider: HttpProvider, running: Running, request: GenerateRequest, *, poll: float
) -> GenerateResponse:
    """Poll a prediction until it ends, and return the answer. A failed poll is repeated.

    Args:
        provider: the provider that sends the requests.
        running: the prediction.
        request: the request that created it.
        poll: seconds until the first poll; the interval grows from poll to poll.
    """
    failures = 0
    # No header "Prefer: wait": a reply to it may still be "processing", so polling is needed anyway.
    while not running.ended:
        await anyio.sleep(poll)
        poll = min(poll * _POLL_GROWTH, max(poll, _MAX_POLL))
        try:
            running.prediction = await _get(provider, running.prediction)
            running.ended = running.prediction.ended
            failures = 0
        except ProviderError as error:
            failures += 1
            if not error.retryable or failures > _MAX_FAILED_POLLS:
                raise
            poll = max(poll, min(error.retry_after or 0.0, _MAX_RETRY_AFTER))
    return decode_response(running.prediction.raw, model=request.model, max_tokens=request.max_tokens)


async def _get(provider: HttpProvider, prediction: Prediction) -> Prediction:
    return read_prediction(await provider._get(_path(prediction)))


def _path(prediction: Prediction) -> str:
    return f"/v1/predictions/{quote(prediction.id, safe='')}"


async def follow(
    provider: HttpProvider, running: Running, request: GenerateRequest, *, poll: float
) -> AsyncGenerator[GenerateChunk, None]:
    """Yield the answer as it arrives.

    Falls back to polling if the prediction has no stream, or if its stream breaks off; the rest of the answer then
    comes in one chunk.

    Args:
        provider: the provider that sends the requests.
        running: the prediction.
        request: the request that created it.
        poll: see ``poll_to_end``.
    """
    text = ""
    follower = _follower(provider, running.prediction)
    # Polling completes the answer where an error does not say how the prediction ended.
    try:
        if follower is not None:
            chunks: Any = follower.stream(request)
            async with aclosing(chunks):
                async for chunk in chunks:
                    text += chunk.text
                    yield chunk
            running.ended = True
            with suppress(ProviderError):  # the answer is complete; only the token counts may be missing
                found = await _get(provider, running.prediction)
                finish = found.finish(request.max_tokens)
                yield GenerateChunk(usage=found.usage, finish_reason=finish, extra=found.extra)
            return
    except (ApiError, ConnectFailed, ConnectionLost, TruncatedReply) as error:
        running.ended = follower is not None and follower.ended
        if running.ended:
            raise
        whole = await poll_to_end(provider, running, request, poll=poll)
        if not (whole.text or "").startswith(text):
            raise error.with_traceback(None) from None
    else:
        whole = await poll_to_end(provider, running, request, poll=poll)
    yield attrs.evolve(GenerateChunk.whole(whole), text=(whole.text or "")[len(text) :])


def _follower(provider: HttpProvider, prediction: Prediction) -> Follower | None:
    """Return a reader of a prediction's stream; None if it has no stream, or one at an address that is not allowed."""
    if prediction.stream_url is None or prediction.ended:
        return None
    try:
        return Follower(provider, prediction.stream_url, prediction.id)
    except (InvalidOption, ValueError):
        return None


class Follower(HttpProvider):
    """Reads the stream of one prediction at the URL that the prediction names.

    The URL itself is the credential. The API key is sent only if the URL is on the provider's own host.

    Args:
        provider: the provider of the prediction.
        url: the URL of the stream.
        prediction: the prediction's id.
    """

    name = "replicate"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(streaming=True)

    def __init__(self, provider: HttpProvider, url: str, prediction: str) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        is_own_host = provider.base_url == origin or provider.base_url.startswith(f"{origin}/")
        super().__init__(
            name=provider.name,
            base_url=origin,
            api_key=provider._key if is_own_host else None,
            transport=provider._transport,
            timeout=provider._timeouts,
            limits=provider._limits,
            allow_http=provider.base_url.startswith("http:"),
        )
        self._stream_url = url
        self._prediction = prediction
        self._body_reader: PredictionStream | None = None

    @property
    def ended(self) -> bool:
        """Return True once the stream has reported the prediction's end, whether it succeeded or failed."""
        return self._body_reader is not None and self._body_reader.done

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        return request, ()

    def _post(self, request: GenerateRequest, *, stream: bool) -> HttpRequest:
        headers = {**self.headers(), "Accept": "text/event-stream", "Cache-Control": "no-store"}
        return HttpRequest(method="GET", url=self._stream_url, headers=headers)

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError  # a stream has no payload

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        raise NotImplementedError

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, request_id=self._prediction)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> PredictionStream:
        self._body_reader = PredictionStream(self._limits, request_id=self._prediction, model=request.model)
        return self._body_reader
