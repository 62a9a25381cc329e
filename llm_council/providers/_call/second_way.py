"""A schema that the vendor refuses, or finds unmet, is asked for once more, in the prompt."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import attrs

from llm_council.errors import (
    ApiError,
    CapabilityMissing,
    CapabilityRefused,
    CouncilError,
    MalformedReply,
    ProcessError,
    RequestRejected,
    ServerFailed,
)
from llm_council.models.reply import Adjustment, GenerateChunk, GenerateResponse
from llm_council.models.request import GenerateRequest
from llm_council.providers._call import fitting

__all__ = ["ask", "ask_streamed"]

_MOST = 1000  # refusals that are remembered
_REASON = 200  # characters of the vendor's message in an adjustment

# Servers that compile a schema to a grammar report a failure of that as one of their own.
_ABOUT_SCHEMA = re.compile(r"(?i)schema|grammar|response_format|structured output|guided|xgrammar|outlines")

_final_refusals: weakref.WeakSet[CouncilError] = weakref.WeakSet()
"""Refusals after which the schema stood in the prompt: a middleware around need not ask again."""

_refused: dict[tuple[str, str, str], str] = {}
"""The reason by provider, model and schema, for the life of the process."""


async def ask(
    adapter: Any,
    request: GenerateRequest,
    attempt: Callable[[GenerateRequest], Awaitable[GenerateResponse]],
) -> GenerateResponse:
    """Make a call; if the vendor refuses its schema, make it once more with the schema in the prompt.

    A schema that this provider and model refused before is sent in the prompt at once. One that the model did not meet
    this time is not remembered.

    Args:
        adapter: the provider.
        request: the request.
        attempt: makes the call.

    Raises:
        CouncilError: the call failed; if the second one is rejected as well, the first error.
    """
    if request.structured_output is None:
        return await attempt(request)
    asked, known = _first_request(adapter, request)
    try:
        response = await attempt(asked)
    except CouncilError as error:
        if not _is_refusal(error, asked):
            raise
        refusal = error.with_traceback(None)
    else:
        return _with(response, known)
    asked, adjustments = _emulated(request, _reason(refusal))
    try:
        response = await attempt(asked)
    except RequestRejected:
        raise _final(refusal) from None  # the schema was not the reason
    _remember(adapter, request, refusal)
    return _with(response, adjustments)


async def ask_streamed(
    adapter: Any,
    request: GenerateRequest,
    attempt: Callable[[GenerateRequest], AsyncIterator[GenerateChunk]],
) -> AsyncGenerator[GenerateChunk, None]:
    """Make a call as ``ask`` does, and yield its answer. After the first piece there is no second call."""
    if request.structured_output is None:
        unchecked: Any = attempt(request)
        async with aclosing(unchecked):
            async for piece in unchecked:
                yield piece
        return
    asked, known = _first_request(adapter, request)
    refusal: CouncilError | None = None
    try:
        async with aclosing(_begun(attempt(asked), known)) as pieces:
            async for piece in pieces:
                yield piece
        return
    except _RefusedAtOnce as failure:
        error = failure.error
        if not _is_refusal(error, asked):
            raise error from error.__cause__
        refusal = error.with_traceback(None)
    asked, adjustments = _emulated(request, _reason(refusal))
    try:
        async with aclosing(_begun(attempt(asked), adjustments)) as pieces:
            async for piece in pieces:
                if refusal is not None:
                    _remember(adapter, request, refusal)
                    refusal = None
                yield piece
    except _RefusedAtOnce as failure:
        if refusal is not None and isinstance(failure.error, RequestRejected):
            raise _final(refusal) from None
        raise failure.error from failure.error.__cause__


class _RefusedAtOnce(Exception):
    """A call failed before its first piece."""

    def __init__(self, error: CouncilError) -> None:
        super().__init__()
        self.error = error


async def _begun(
    arriving: AsyncIterator[GenerateChunk], adjustments: tuple[Adjustment, ...]
) -> AsyncGenerator[GenerateChunk, None]:
    """Yield the pieces of a call, with further adjustments in the first one that holds more than adjustments.

    Raises:
        _RefusedAtOnce: the call failed before such a piece.
    """
    has_begun = False
    known = adjustments
    pieces: Any = arriving
    async with aclosing(pieces):
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                break
            except CouncilError as error:
                if has_begun:
                    raise
                raise _RefusedAtOnce(error) from None
            if not has_begun:
                adjustments += piece.adjustments
                if piece == GenerateChunk(adjustments=piece.adjustments):
                    continue
                has_begun = True
                piece = attrs.evolve(piece, adjustments=adjustments)
            elif piece.reset is not None:  # it voids the pieces before it
                piece = attrs.evolve(piece, adjustments=known + piece.adjustments)
            yield piece
    if not has_begun and adjustments:
        yield GenerateChunk(adjustments=adjustments)


def _first_request(adapter: Any, request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    known = _refused.get(_key(adapter, request)) if _refused else None
    return (request, ()) if known is None else _emulated(request, known)


def _key(adapter: Any, request: GenerateRequest) -> tuple[str, str, str]:
    wanted = request.structured_output
    address = getattr(adapter, "base_url", "")
    model = request.model or getattr(adapter, "default_model", None)
    schema = json.dumps(wanted.json_schema, sort_keys=True) if wanted is not None else ""
    return f"{getattr(adapter, 'name', '')} {address}", str(model), schema


def _remember(adapter: Any, request: GenerateRequest, refusal: CouncilError) -> None:
    if _is_missed(refusal):
        return
    while len(_refused) >= _MOST:
        _refused.pop(next(iter(_refused)), None)
    _refused[_key(adapter, request)] = _reason(refusal)


def _final(refusal: CouncilError) -> CouncilError:
    _final_refusals.add(refusal)
    return refusal


def _is_refusal(error: CouncilError, request: GenerateRequest) -> bool:
    """Return True if a vendor may have refused the schema of a request.

    A rejection need not say so (Gemini's "Request contains an invalid argument"), so each counts that is not of a kind
    of its own, such as an unknown model. The failure of a server or a program counts if its message is about schemas.
    """
    if request.structured_output is None or error in _final_refusals:
        return False
    if _is_missed(error):
        return True
    if isinstance(error, CapabilityRefused):  # of no kind where a gateway has no vendor for all parameters together
        return error.capability in (None, "structured_output")
    if isinstance(error, RequestRejected):
        return type(error) is RequestRejected
    if isinstance(error, CapabilityMissing):  # the vendor's: ours is raised by the fitting, for tools and images
        return error.capability == "structured_output"
    if isinstance(error, ServerFailed | ProcessError):
        body = error.body if isinstance(error, ApiError) else ""
        return _ABOUT_SCHEMA.search(f"{error.message} {body}") is not None
    return False


def _is_missed(error: CouncilError) -> bool:
    """Return True if the vendor checked what the model wrote, and found that it does not meet the schema."""
    return isinstance(error, MalformedReply) and error.code is not None


def _reason(error: CouncilError) -> str:
    what = "the answer did not meet the schema" if _is_missed(error) else "the vendor refused the schema"
    return f"{what}, which stands in the prompt: {error.message[:_REASON]}"


def _emulated(request: GenerateRequest, reason: str) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    wanted = request.structured_output
    emulated, _ = fitting.emulate_schema(request)
    name = None if wanted is None else wanted.name
    return emulated, (Adjustment(field="structured_output", action="emulated", asked=name, reason=reason),)


def _with(response: GenerateResponse, adjustments: tuple[Adjustment, ...]) -> GenerateResponse:
    return attrs.evolve(response, adjustments=adjustments + response.adjustments) if adjustments else response
