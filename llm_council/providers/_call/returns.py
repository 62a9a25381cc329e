"""Whatever an adapter's ``generate`` or ``stream`` returns becomes pieces, and pieces one whole answer."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import attrs

from llm_council._wire.payloads import well_formed
from llm_council.errors import (
    AdapterFailed,
    ContentFiltered,
    EmptyReply,
    InvalidOption,
    MalformedReply,
    TruncatedReply,
)
from llm_council.errors._secrets import MaskedText, masked
from llm_council.models._attrs import mask_secrets
from llm_council.models.reply import FinishReason, GenerateChunk, GenerateResponse, join
from llm_council.models.request import GenerateRequest
from llm_council.providers._call.mask import PieceVeil

__all__ = ["checked", "invoke", "joined", "pieces", "text_of", "whole"]


async def invoke(method: Callable[..., Any], *args: Any) -> Any:
    """Call an adapter's method; one that was written as a plain ``def`` may block, so it gets a worker thread."""
    written = inspect.unwrap(method)
    if inspect.iscoroutinefunction(written):
        return await method(*args)
    if inspect.isasyncgenfunction(written):
        return method(*args)
    # In a list: trio refuses a thread's function that returns a coroutine, which is a forgotten await here.
    (returned,) = await anyio.to_thread.run_sync(lambda: [method(*args)], abandon_on_cancel=True)
    return returned


async def whole(method: Callable[..., Any], request: GenerateRequest, arrived: list[GenerateChunk]) -> GenerateResponse:
    """Return the one answer in what ``generate`` returns: a response, a string, or an async iterator over pieces.

    Args:
        method: the adapter's ``generate``.
        request: what is asked.
        arrived: gets the pieces as they come, for the error of a call that breaks off.

    Raises:
        AdapterFailed: it is something else.
        MalformedReply: the pieces do not fit together.
    """
    value = await _awaited(await invoke(method, request))
    if not hasattr(value, "__aiter__"):
        return _response(value)
    async with _closing(aiter(value)) as items:
        calls = 0
        async for item in items:
            piece, calls = _piece(item, calls)
            arrived.append(piece)
    return joined(arrived)


async def pieces(method: Callable[..., Any], request: GenerateRequest) -> AsyncGenerator[GenerateChunk, None]:
    """Yield what an adapter's method returns, piece by piece; the items of an async iterator are deltas.

    Raises:
        AdapterFailed: it is nothing that an adapter may return.
    """
    value = await _awaited(await invoke(method, request))
    if not hasattr(value, "__aiter__"):
        yield mask_secrets(GenerateChunk.whole(_response(value)))
        return
    async with _closing(aiter(value)) as items:
        veils = PieceVeil()
        calls = 0
        try:
            async for item in items:
                piece, calls = _piece(item, calls)
                shown = veils.over(piece)
                if shown is not None:
                    yield shown
        except Exception:
            if (rest := veils.rest()) is not None:  # it had arrived before the error
                yield rest
            raise
        if (rest := veils.rest()) is not None:
            yield rest


def joined(arrived: list[GenerateChunk]) -> GenerateResponse:
    """Join the pieces of an answer.

    Raises:
        MalformedReply: they do not fit together.
    """
    try:
        return join(arrived)
    except InvalidOption as error:
        raise MalformedReply(error.message).fill(partial=text_of(arrived)) from None


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
    if text is not None:
        text = masked(text if text.isascii() else well_formed(text))
    response = mask_secrets(response)  # a server may repeat a key, in its answer or beside it
    if response.finish_reason == FinishReason.ERROR:
        # Where the vendor says it: Cohere's word, and Google's.
        why = response.extra.get("error") or response.extra.get("finishMessage")
        said = f": {why}" if isinstance(why, str) and why else ""
        word = response.raw_finish_reason
        named = f" ({word})" if word and FinishReason.of(word) is None else ""
        raise TruncatedReply(f"{name} stopped with an error in the middle of its answer{named}{said}", partial=text)
    if (text and not text.isspace()) or response.tool_calls or response.structured is not None:
        return response if text is response.text else attrs.evolve(response, text=text, content=text)
    if response.refusal or response.finish_reason == FinishReason.CONTENT_FILTER:
        word = f" ({response.raw_finish_reason})" if response.raw_finish_reason else ""
        why = response.refusal or f"content filter{word}"
        raise ContentFiltered(f"{name} withheld its answer: {why}", partial=response.refusal)
    if response.finish_reason == FinishReason.LENGTH:
        raise TruncatedReply(
            f"{name} used up max_tokens before its answer began, on reasoning perhaps: raise max_tokens",
            partial=text,
            retryable=False,
        )
    raise EmptyReply(f"{name} answered with nothing")


def text_of(arrived: list[GenerateChunk]) -> MaskedText | None:
    """Return the text that has arrived; None when there is none. What came before a reset is void."""
    void = max((index for index, piece in enumerate(arrived) if piece.reset is not None), default=0)
    return MaskedText(piece.text for piece in arrived[void:]) or None


async def _awaited(value: Any) -> Any:
    for _ in range(3):  # a coroutine that returns a coroutine is a forgotten await; a longer chain is nonsense
        if not inspect.isawaitable(value):
            break
        value = await value
    return value


def _piece(item: Any, calls: int) -> tuple[GenerateChunk, int]:
    """Return an item as a piece, and the tool calls so far: those of each whole response count from 0."""
    if isinstance(item, GenerateChunk):
        piece = item
    else:
        piece = GenerateChunk.whole(_response(item))
        if calls and piece.tool_calls:
            moved = tuple(attrs.evolve(delta, index=delta.index + calls) for delta in piece.tool_calls)
            piece = attrs.evolve(piece, tool_calls=moved)
        calls += len(piece.tool_calls)
    if not isinstance(piece.text, str):
        raise AdapterFailed(f"the adapter yielded a text of type {type(piece.text).__name__}")
    return piece, calls


@asynccontextmanager
async def _closing(items: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """Close an async iterator when the block ends; plain ones have nothing to close."""
    try:
        yield items
    finally:
        aclose = getattr(items, "aclose", None)
        if aclose is not None:
            await aclose()


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
