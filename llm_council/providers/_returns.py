"""Whatever an adapter's ``generate`` or ``stream`` returns becomes pieces, and pieces one whole answer."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio.to_thread
import attrs

from llm_council._runtime.thread import hidden
from llm_council._wire.payloads import well_formed
from llm_council.errors import (
    AdapterFailed,
    ContentFiltered,
    EmptyReply,
    InvalidOption,
    MalformedReply,
    TruncatedReply,
)
from llm_council.models.reply import FinishReason, GenerateChunk, GenerateResponse, join

__all__ = ["Piece", "checked", "invoke", "joined", "pieces", "text_of", "whole"]

Piece = GenerateResponse | GenerateChunk | str
"""What an adapter may return or yield."""


async def invoke(method: Callable[..., Any], *args: Any) -> Any:
    """Call an adapter's method; one that was written as a plain ``def`` may block, so it gets a worker thread."""
    written = inspect.unwrap(method)
    if inspect.iscoroutinefunction(written):
        return await method(*args)
    if inspect.isasyncgenfunction(written):
        return method(*args)
    return await anyio.to_thread.run_sync(partial(method, *args), abandon_on_cancel=True)


async def whole(value: Any, arrived: list[GenerateChunk]) -> GenerateResponse:
    """Return the one answer in what ``generate`` returned.

    Args:
        value: a response, a string, an async iterator over pieces, or an awaitable of one of these.
        arrived: gets the pieces as they come, for the error of a call that breaks off.

    Raises:
        AdapterFailed: it is something else.
        MalformedReply: the pieces do not fit together.
    """
    value = await _awaited(value)
    if isinstance(value, GenerateResponse):
        return value
    if not hasattr(value, "__aiter__"):
        return _response(value)
    async for piece in pieces(value):
        arrived.append(piece)  # one by one: what has arrived is kept when the rest does not  # noqa: PERF401
    return joined(arrived)


def joined(arrived: list[GenerateChunk]) -> GenerateResponse:
    """Join the pieces of an answer.

    Raises:
        MalformedReply: they do not fit together.
    """
    try:
        return join(arrived)
    except InvalidOption as error:
        raise MalformedReply(error.message, partial=text_of(arrived)) from None


async def pieces(value: Any) -> AsyncIterator[GenerateChunk]:
    """Yield what an adapter returned, piece by piece; the items of an async iterator are deltas.

    Raises:
        AdapterFailed: it is nothing that an adapter may return.
    """
    value = await _awaited(value)
    if not hasattr(value, "__aiter__"):
        yield GenerateChunk.whole(_response(value))
        return
    iterator = aiter(value)
    calls = 0
    try:
        async for item in iterator:
            piece = item if isinstance(item, GenerateChunk) else _piece(item, calls)
            if isinstance(item, GenerateResponse):
                calls += len(item.tool_calls)
            if not isinstance(piece.text, str):
                raise AdapterFailed(f"the adapter yielded a text of type {type(piece.text).__name__}")
            yield piece
    finally:
        aclose = getattr(iterator, "aclose", None)
        if aclose is not None:
            await aclose()


def checked(response: GenerateResponse, *, name: str) -> GenerateResponse:
    """Refuse an answer that is none: empty, of a wrong type, withheld, or cut before it began.

    Args:
        response: what the adapter answered.
        name: the adapter's name.

    Raises:
        AdapterFailed: the text is no string.
        ContentFiltered: the vendor withheld the answer, or the model refused.
        TruncatedReply: the model used up its tokens before the answer began, or stopped with an error.
        EmptyReply: there is no text, no tool call and no structured value.
    """
    text = response.text
    if text is not None and type(text) is not str:
        if not isinstance(text, str):
            raise AdapterFailed(f"{name} answered with a text of type {type(text).__name__}, not a string")
        text = str.__str__(text)
    if text is not None and not text.isascii():
        text = well_formed(text)
    if response.finish_reason == FinishReason.ERROR:
        raise TruncatedReply(f"{name} stopped with an error in the middle of its answer", partial=text)
    if (text and not text.isspace()) or response.tool_calls or response.structured is not None:
        return response if text is response.text else attrs.evolve(response, text=text, content=text)
    if response.refusal or response.finish_reason == FinishReason.CONTENT_FILTER:
        raise ContentFiltered(
            f"{name} withheld its answer: {response.refusal or 'content filter'}", partial=response.refusal
        )
    if response.finish_reason == FinishReason.LENGTH:
        raise TruncatedReply(
            f"{name} used up max_tokens before its answer began, on reasoning perhaps: raise max_tokens",
            partial=text,
            retryable=False,
        )
    raise EmptyReply(f"{name} answered with nothing")


def text_of(arrived: list[GenerateChunk]) -> str | None:
    """Return the text that has arrived; None when there is none."""
    return "".join(piece.text for piece in arrived) or None


async def _awaited(value: Any) -> Any:
    for _ in range(3):  # a coroutine that returns a coroutine is a forgotten await; a longer chain is nonsense
        if not inspect.isawaitable(value):
            break
        value = await value
    return value


def _piece(item: Any, calls: int) -> GenerateChunk:
    piece = GenerateChunk.whole(_response(item))
    if calls and piece.tool_calls:  # the calls of each response count from 0
        moved = tuple(attrs.evolve(delta, index=delta.index + calls) for delta in piece.tool_calls)
        return attrs.evolve(piece, tool_calls=moved)
    return piece


def _response(value: Any) -> GenerateResponse:
    if isinstance(value, GenerateResponse):
        return value
    if isinstance(value, str):
        return GenerateResponse(text=str.__str__(value))
    if isinstance(value, GenerateChunk):
        return join([value])
    kind = type(value).__name__
    if inspect.isgenerator(value):
        kind, remedy = "a generator", "write `async def generate` to yield pieces"
    elif value is None:
        kind, remedy = "None", "return a GenerateResponse"
    else:
        remedy = "return a GenerateResponse, a string, or an async iterator of these"
    raise AdapterFailed(f"the adapter returned {kind}: {remedy}")


hidden.update(core.__code__ for core in (invoke, whole))
