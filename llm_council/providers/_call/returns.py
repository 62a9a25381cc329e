"""Turn what an adapter's ``generate`` or ``stream`` returns into chunks, or into one checked answer."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from llm_council._runtime.worker_threads import run_blocking
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
from llm_council.providers._call.mask import ChunkMask
from llm_council.providers._call.other_content import error_details, is_unfinished, other_content

__all__ = ["as_response", "collect", "invoke", "iterate", "join_chunks", "partial_text", "require_answer"]


async def invoke(method: Callable[..., Any], *args: Any) -> Any:
    """Call an adapter's method. One written as a plain ``def`` may block, so it runs in a worker thread."""
    if inspect.iscoroutinefunction(method):
        return await method(*args)
    function = inspect.unwrap(method)
    if inspect.iscoroutinefunction(function):
        return await method(*args)
    if inspect.isasyncgenfunction(function):
        return method(*args)
    # In a list: trio refuses a thread's function that returns a coroutine, but a forgotten ``await`` is allowed here.
    (returned,) = await run_blocking(lambda: [method(*args)])
    return returned


async def collect(
    method: Callable[..., Any], request: GenerateRequest, arrived: list[GenerateChunk]
) -> GenerateResponse:
    """Call an adapter's ``generate``, and return its one answer: from a response, a string, or an async iterator.

    Args:
        method: the adapter's ``generate``.
        request: the request.
        arrived: receives the chunks as they come, for the error of a call that breaks off.

    Raises:
        AdapterFailed: the method returned anything else.
        MalformedReply: the chunks do not fit together.
    """
    value = await _await_all(await invoke(method, request))
    if not hasattr(value, "__aiter__"):
        return as_response(value)
    async with _closing(aiter(value)) as items:
        calls = 0
        async for item in items:
            chunk, calls = _as_chunk(item, calls)
            arrived.append(chunk)
    return join_chunks(arrived)


async def iterate(method: Callable[..., Any], request: GenerateRequest) -> AsyncGenerator[GenerateChunk, None]:
    """Call an adapter's method, and yield its answer in chunks, with keys masked.

    Raises:
        AdapterFailed: the method returned nothing that an adapter may return.
    """
    value = await _await_all(await invoke(method, request))
    if not hasattr(value, "__aiter__"):
        yield mask_secrets(GenerateChunk.whole(as_response(value)))
        return
    async with _closing(aiter(value)) as items:
        mask = ChunkMask()
        calls = 0
        try:
            async for item in items:
                chunk, calls = _as_chunk(item, calls)
                shown = mask.apply(chunk)
                if shown is not None:
                    yield shown
        except Exception:  # raised again below; not for a cancellation, whose reader takes no more text
            if (rest := mask.rest()) is not None:  # it arrived before the error
                yield rest
            raise
        if (rest := mask.rest()) is not None:
            yield rest


def join_chunks(arrived: list[GenerateChunk]) -> GenerateResponse:
    """Join the chunks of an answer.

    Raises:
        MalformedReply: they do not fit together.
    """
    try:
        return join(arrived)
    except InvalidOption as error:
        raise MalformedReply(error.message).fill(partial=partial_text(arrived)) from None


def require_answer(response: GenerateResponse, *, name: str) -> GenerateResponse:
    """Return a response with keys masked, and refuse one that holds no answer.

    Args:
        response: the adapter's response.
        name: the adapter's name.

    Raises:
        AdapterFailed: the text is no string.
        ContentFiltered: the vendor withheld the whole answer, or the model refused.
        TruncatedReply: the model used up its tokens before its answer began, or stopped with an error.
        EmptyReply: there is no text, no tool call, no structured value, and nothing else that is an answer. It is not
            retryable for a reply that the vendor still makes in the background.
    """
    text = response.text
    # A subclass of str may carry attributes, and override methods that are called later: only its characters are taken.
    if text is not None and type(text) is not str:
        if not isinstance(text, str):
            raise AdapterFailed(f"{name} answered with a text of type {type(text).__name__}, not a string")
        text = str.__str__(text)
    if text is not None:
        # A lone surrogate cannot be encoded as UTF-8, and would fail in a store or a terminal.
        text = masked(text if text.isascii() else well_formed(text))
    response = mask_secrets(response)  # a server may repeat a key in its answer
    if response.finish_reason == FinishReason.ERROR:
        details = error_details(response)
        reason = f": {details}" if details else ""
        word = response.raw_finish_reason
        named = f" ({word})" if word and FinishReason.of(word) is None else ""
        raise TruncatedReply(f"{name} stopped with an error in the middle of its answer{named}{reason}", partial=text)
    has_text = bool(text) and not str(text).isspace()
    if has_text or response.tool_calls or response.structured is not None or other_content(response) is not None:
        return response if text is response.text else attrs.evolve(response, text=text, content=text)
    if response.refusal or response.finish_reason == FinishReason.CONTENT_FILTER:
        word = f" ({response.raw_finish_reason})" if response.raw_finish_reason else ""
        reason = response.refusal or f"content filter{word}"
        raise ContentFiltered(f"{name} withheld its answer: {reason}", partial=response.refusal)
    if response.finish_reason == FinishReason.LENGTH:
        raise TruncatedReply(
            f"{name} used up max_tokens before its answer began, on reasoning perhaps: raise max_tokens",
            partial=text,
            retryable=False,
        )
    if is_unfinished(response):
        raise EmptyReply(
            f"{name} makes the answer in the background (status {response.raw_finish_reason}): ask for the reply "
            f"{response.request_id}, since another call starts another job",
            retryable=False,
        )
    raise EmptyReply(f"{name} answered with nothing")


def partial_text(arrived: list[GenerateChunk]) -> MaskedText | None:
    """Return the text that has arrived since the last reset; None if there is none."""
    start = max((index for index, chunk in enumerate(arrived) if chunk.reset is not None), default=0)
    return MaskedText(chunk.text for chunk in arrived[start:]) or None


async def _await_all(value: Any) -> Any:
    """Await a value, and what it returns: an author may have forgotten an ``await``, but hardly more than twice."""
    for _ in range(3):
        if not inspect.isawaitable(value):
            break
        value = await value
    return value


def _as_chunk(item: Any, calls: int) -> tuple[GenerateChunk, int]:
    """Return an item as a chunk, and the number of tool calls so far.

    The tool calls of each whole response are numbered from 0, so those of a later response are moved up.
    """
    if isinstance(item, GenerateChunk):
        chunk = item
    else:
        chunk = GenerateChunk.whole(as_response(item))
        if calls and chunk.tool_calls:
            moved = tuple(attrs.evolve(delta, index=delta.index + calls) for delta in chunk.tool_calls)
            chunk = attrs.evolve(chunk, tool_calls=moved)
        calls += len(chunk.tool_calls)
    if not isinstance(chunk.text, str):
        raise AdapterFailed(f"the adapter yielded a text of type {type(chunk.text).__name__}")
    return chunk, calls


@asynccontextmanager
async def _closing(items: AsyncIterator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """Close an async iterator when the block ends, if it has ``aclose``."""
    try:
        yield items
    finally:
        aclose = getattr(items, "aclose", None)
        if aclose is not None:
            await aclose()


def as_response(value: Any) -> GenerateResponse:
    """Return what a ``generate`` returned as a response.

    Raises:
        AdapterFailed: it is nothing that a ``generate`` may return.
    """
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
