"""What becomes of a request for a model on Replicate, and what follows one prediction's stream."""

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
    CapabilityMissing,
    ConnectFailed,
    ConnectionLost,
    InvalidOption,
    ProviderError,
    TimedOut,
    TruncatedReply,
)
from llm_council.models.capabilities import ProviderCapabilities
from llm_council.models.messages import ImagePart
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse
from llm_council.models.request import Effort, GenerateRequest
from llm_council.providers._call.bounded import GRACE, time_left
from llm_council.providers._http.provider import HttpProvider
from llm_council.providers._replicate import (
    ModelInputs,
    Prediction,
    PredictionStream,
    decode_error,
    decode_response,
    read_prediction,
)
from llm_council.transports import HttpReply, HttpRequest

__all__ = ["Running", "ended", "fit", "followed", "running"]

_SLOWER = 1.5  # by which the time between two looks grows
_LONGEST = 5.0  # seconds between two looks
_PATIENCE = 30.0  # seconds that a refused look is put off at most
_STUMBLES = 4  # looks in a row that may fail
_BEFORE = frozenset({"connect", "pool"})  # phases of a call in which nothing has been sent
_GATEWAYS = frozenset({502, 504})  # whose word says nothing about what stands behind them
_LEAST = 5  # seconds of a prediction's life, the fewest that Replicate takes
_GOODBYE = GRACE * 0.8  # seconds for telling that nobody waits any more


def fit(request: GenerateRequest, inputs: ModelInputs) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    """Leave out what a model has no input for, and say so. Pure, and a fixed point.

    Args:
        request: what is asked.
        inputs: what the model calls its inputs.

    Raises:
        CapabilityMissing: there are images, and the model takes none.
    """
    changes: dict[str, Any] = {}
    told: list[Adjustment] = []

    def drop(field: str, reason: str, *, empty: Any = None) -> None:
        changes[field] = empty
        told.append(Adjustment(field=field, action="dropped", asked=getattr(request, field), reason=reason))

    for field in ("max_tokens", "temperature", "top_p"):
        if getattr(request, field) is not None and getattr(inputs, field) is None:
            drop(field, "the model has no input for it")
    if request.stop and inputs.stop is None:
        drop("stop", "the model has no input for it", empty=())
    elif not inputs.takes_list(inputs.stop) and any("," in word for word in request.stop):
        drop("stop", "the model takes stop texts between commas, and one of these holds a comma", empty=())
    images = _images(request)
    if images and inputs.images is None:
        raise CapabilityMissing("the model has no input for images; nothing was asked", capability="multimodal")
    if images > 1 and not inputs.takes_list(inputs.images):
        told.append(Adjustment(field="messages", action="lowered", asked=images, sent=1, reason="it takes one image"))
    reason = _unthinkable(request, inputs)
    if reason is not None:
        drop("reasoning", reason)
    return (attrs.evolve(request, **changes) if changes else request), tuple(told)


def _images(request: GenerateRequest) -> int:
    contents = [turn.content for turn in request.messages if not isinstance(turn.content, str)]
    return sum(isinstance(part, ImagePart) for content in contents for part in content)


def _unthinkable(request: GenerateRequest, inputs: ModelInputs) -> str | None:
    """Return why a wish for reasoning cannot be sent; None where it can, or there is none."""
    config = request.reasoning
    if config is None:
        return None
    if inputs.effort is not None and config.effort is not None:
        known = not inputs.efforts or str(config.effort) in inputs.efforts
        return None if known else f"the model takes reasoning effort {', '.join(inputs.efforts)} only"
    told = config.budget_tokens is not None or config.effort is Effort.NONE
    return None if inputs.budget is not None and told else "the model has no input for it"


class Running:
    """One prediction on its way.

    Attributes:
        prediction: what was last heard of it.
        ended: whether nothing more is to be expected of it.
    """

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self.ended = prediction.ended

    def heard(self, prediction: Prediction) -> None:
        """Take what is new of it."""
        self.prediction, self.ended = prediction, prediction.ended


@asynccontextmanager
async def running(provider: HttpProvider, request: GenerateRequest, *, stream: bool) -> AsyncIterator[Running]:
    """Create a prediction, once, and cancel it where the block is left before its end.

    An error in the block may be tried again where the prediction is known to have been cancelled: another one beside it
    would be paid for too.

    Args:
        provider: whose it is.
        request: what is asked, which has been fitted.
        stream: whether its pieces are wanted.

    Raises:
        ProviderError: it was not created; where that is not certain, the error says that it is not to be tried again.
    """
    begun = Running(await _create(provider, request, stream=stream))
    try:
        yield begun
    except BaseException as error:
        if not begun.ended:
            cancelled = await _cancel(provider, begun.prediction)
            if isinstance(error, ProviderError) and not cancelled:
                error.retryable = False
        raise


async def _create(provider: HttpProvider, request: GenerateRequest, *, stream: bool) -> Prediction:
    left = time_left(request, provider._timeouts.total)
    asked = _bounded(provider._post(request, stream=stream), left)
    try:
        reply = await provider._transport.send(
            asked, limits=provider._limits, timeouts=provider._timeouts, deadline=left
        )
        if reply.status >= 400:
            raise provider._refusal(reply)
        return read_prediction(loads(reply.body, provider._limits, content_type=reply.content_type))
    except ProviderError as error:
        if not _unborn(error):
            error.retryable = False  # it may have been created all the same
        raise


def _bounded(asked: HttpRequest, left: float | None) -> HttpRequest:
    """Return a request for a prediction that ends by itself, so that one of which nobody hears any more does too."""
    said = {} if left is None else {"Cancel-After": f"{max(_LEAST, math.ceil(left))}s"}
    return attrs.evolve(asked, headers={**asked.headers, "Accept": "application/json", **said})


def _unborn(error: ProviderError) -> bool:
    """Tell whether an error says for certain that nothing was created."""
    if isinstance(error, ApiError):
        return error.status not in _GATEWAYS
    return isinstance(error, ConnectFailed) or (isinstance(error, TimedOut) and error.phase in _BEFORE)


async def _cancel(provider: HttpProvider, prediction: Prediction) -> bool:
    """Tell that nobody waits any more; return whether that was heard."""
    path = f"/v1/predictions/{quote(prediction.id, safe='')}/cancel"
    http = HttpRequest(url=provider._url(path), headers=provider._signed({}))
    with anyio.move_on_after(_GOODBYE, shield=True), suppress(ProviderError):
        reply = await provider._transport.send(http, limits=provider._limits, timeouts=provider._timeouts)
        return reply.status < 400
    return False


async def ended(provider: HttpProvider, begun: Running, request: GenerateRequest, *, poll: float) -> GenerateResponse:
    """Wait for a prediction's end, looking at it now and then, and return the answer.

    A look that fails is repeated: the prediction goes on meanwhile.

    Args:
        provider: whose it is.
        begun: the prediction.
        request: what was asked.
        poll: seconds to the first look; they grow from look to look.
    """
    failed = 0
    while not begun.ended:
        await anyio.sleep(poll)
        poll = min(poll * _SLOWER, max(poll, _LONGEST))
        try:
            begun.heard(await _look(provider, begun.prediction))
            failed = 0
        except ProviderError as error:
            failed += 1
            if not error.retryable or failed > _STUMBLES:
                raise
            poll = max(poll, min(error.retry_after or 0.0, _PATIENCE))
    return decode_response(begun.prediction.raw, model=request.model, max_tokens=request.max_tokens)


async def _look(provider: HttpProvider, prediction: Prediction) -> Prediction:
    """Return what has become of a prediction."""
    return read_prediction(await provider._get(f"/v1/predictions/{quote(prediction.id, safe='')}"))


async def followed(
    provider: HttpProvider, begun: Running, request: GenerateRequest, *, poll: float
) -> AsyncGenerator[GenerateChunk, None]:
    """Yield the answer as it arrives; of a prediction that does not stream, or whose stream breaks off, at its end.

    Args:
        provider: whose it is.
        begun: the prediction.
        request: what was asked.
        poll: see ``ended``.
    """
    said = ""
    follower = _follower(provider, begun.prediction)
    try:
        if follower is not None:
            pieces: Any = follower.stream(request)
            async with aclosing(pieces):
                async for piece in pieces:
                    said += piece.text
                    yield piece
            begun.ended = True
            with suppress(ProviderError):  # the answer is whole; only the count of tokens may be missing
                found = await _look(provider, begun.prediction)
                finish = found.finish(request.max_tokens)
                yield GenerateChunk(usage=found.usage, finish_reason=finish, extra=found.extra)
            return
    except (ApiError, ConnectFailed, ConnectionLost, TruncatedReply) as error:
        begun.ended = follower is not None and follower.ended
        if begun.ended:
            raise
        whole = await ended(provider, begun, request, poll=poll)
        if not (whole.text or "").startswith(said):
            raise error.with_traceback(None) from None
    else:
        whole = await ended(provider, begun, request, poll=poll)
    yield attrs.evolve(GenerateChunk.whole(whole), text=(whole.text or "")[len(said) :])


def _follower(provider: HttpProvider, prediction: Prediction) -> Follower | None:
    """Return what reads a prediction's stream; None where there is none, or none at an address to send a prompt to."""
    if prediction.stream_url is None or prediction.ended:
        return None
    try:
        return Follower(provider, prediction.stream_url, prediction.id)
    except (InvalidOption, ValueError):
        return None


class Follower(HttpProvider):
    """Read the stream of one prediction, at the address that the prediction names.

    That address is a secret between the vendor and its reader: a key goes there only where the vendor itself is.

    Args:
        provider: whose prediction it is.
        url: where its pieces arrive.
        prediction: the prediction's id.
    """

    name = "replicate"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(streaming=True)

    def __init__(self, provider: HttpProvider, url: str, prediction: str) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        at_home = provider.base_url == origin or provider.base_url.startswith(f"{origin}/")
        super().__init__(
            name=provider.name,
            base_url=origin,
            api_key=provider._key if at_home else None,
            transport=provider._transport,
            timeout=provider._timeouts,
            limits=provider._limits,
            allow_http=provider.base_url.startswith("http:"),
        )
        self._address = url
        self._prediction = prediction
        self._reads: PredictionStream | None = None

    @property
    def ended(self) -> bool:
        """Whether the stream has said that the prediction ended, well or not."""
        return self._reads is not None and self._reads.done

    async def _prepared(self, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
        return request, ()

    def _post(self, request: GenerateRequest, *, stream: bool) -> HttpRequest:
        headers = {**self.headers(), "Accept": "text/event-stream", "Cache-Control": "no-store"}
        return HttpRequest(method="GET", url=self._address, headers=headers)

    def _encode(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        raise NotImplementedError  # nothing is asked here

    def _decode(self, data: Any, request: GenerateRequest, reply: HttpReply) -> GenerateResponse:
        raise NotImplementedError

    def _refusal(self, reply: HttpReply) -> ProviderError:
        return decode_error(reply.status, reply.headers, reply.body, request_id=self._prediction)

    def _reader(self, request: GenerateRequest, head: HttpReply) -> PredictionStream:
        self._reads = PredictionStream(self._limits, request_id=self._prediction, model=request.model)
        return self._reads
