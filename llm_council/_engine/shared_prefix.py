"""What the calls of a run to one provider and model share in the vendor's prompt cache, and who writes it.

Writing a prefix into the cache costs more than its tokens (1.25 times at Anthropic and OpenAI), reading it a tenth of
them. "A cache entry becomes readable only after the first response begins streaming": of requests that are sent at
once, each pays the writing (github.com/anthropics/skills, claude-api, shared/prompt-caching.md, "Concurrent-request
timing"). So the first call goes ahead alone until its answer begins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from math import inf
from typing import Final

import anyio
import attrs

from llm_council._engine.prompts import mark_shared_part
from llm_council._engine.request_tokens import file_tokens
from llm_council.models import GenerateChunk, GenerateRequest, Phase, Plan, SeatSpec, TextPart
from llm_council.models._attrs import copy_with
from llm_council.providers.base import ProviderAdapter

__all__ = ["PrefixWriter", "PrefixWriters", "answer_has_begun", "request_to_send"]

MAX_WAIT: Final = 10.0
"""Seconds that a call waits at most for the answer of another one to begin."""

MAX_WAIT_SHARE: Final = 1 / 4
"""Share of a call's time that it may wait likewise."""

MARKED: Final = ("marks", "breakpoints")
"""The caches (``ModelProfile.prompt_cache``) that store a prefix up to a mark, and charge for it."""


def request_to_send(plan: Plan, adapter: ProviderAdapter, seat: str, request: GenerateRequest) -> GenerateRequest:
    """Return the request of a call; calls to one provider and model find what they share in the vendor's cache.

    A vendor that caches up to a mark gets one mark, after task, context and files. What follows differs from call to
    call, so a further mark would only cost. The journal stores the request without the mark.

    Args:
        plan: the plan of the run.
        adapter: the provider of the seat.
        seat: the seat's name.
        request: the request.
    """
    profile = adapter._profile_of(request.model)
    # Only models with a row are known to take marks.
    if not plan.rules or profile is None or not profile.since or profile.prompt_cache not in (*MARKED, "automatic"):
        return request
    if _calls_alike(plan, seat) < 2:
        return request
    if profile.prompt_cache in MARKED:
        request = mark_shared_part(plan, request)
    if profile.prompt_cache in ("automatic", "breakpoints"):
        request = copy_with(request, prompt_cache=True)
    return request


def _calls_alike(plan: Plan, name: str) -> int:
    """Return how many calls of a run begin like those of a seat, at the same provider and model; without repairs."""
    wanted = _prefix_of(plan.seat(name))
    alike = {other.name for other in plan.seats if _prefix_of(other) == wanted}
    calls = sum(other in alike for other in (*plan.drafters * plan.samples, *plan.reviewers))
    writes = Phase.SYNTHESISE in plan.phases and (plan.chair_by_rank or not alike.isdisjoint(plan.chairs[:1]))
    return calls + writes


def _prefix_of(seat: SeatSpec) -> tuple[str, str | None, str]:
    """Return what the prefix of a seat's calls depends on: instructions of its own stand in the system turn."""
    return seat.provider, seat.model, seat.instructions


def answer_has_begun(chunk: GenerateChunk) -> bool:
    """Return True for a piece that a vendor sends once it has read the prompt: a part of the answer, or its usage.

    An id or a model alone does not count: the Responses API sends them when it accepts a request.
    """
    parts = (chunk.text, chunk.reasoning, chunk.refusal, chunk.tool_calls, chunk.reasoning_parts)
    return any(parts) or chunk.usage is not None or chunk.finish_reason is not None


@attrs.define
class PrefixWriter:
    """Lets the calls that share one prefix go on as soon as one of them has written it.

    A call that fails before its answer begins makes way for the next one.
    """

    _lock: anyio.Lock = attrs.field(factory=anyio.Lock)
    _is_written: bool = False

    @asynccontextmanager
    async def turn(self, longest: float) -> AsyncIterator[Callable[[], None] | None]:
        """Wait until the prefix is written, or it is this call's turn to write it.

        Args:
            longest: seconds to wait at most.

        Yields:
            What the call that writes is to call when its answer begins; None for the others, which just go on.
        """
        is_first = False
        if not self._is_written:
            with anyio.move_on_after(longest):
                await self._lock.acquire()
                is_first = True
        if is_first and self._is_written:
            self._lock.release()
            is_first = False
        if not is_first:
            yield None
            return

        def begun() -> None:
            nonlocal is_first
            if is_first:
                is_first = False
                self._is_written = True
                self._lock.release()

        try:
            yield begun
        finally:
            if is_first:
                self._lock.release()


@attrs.define
class PrefixWriters:
    """The prefixes of one run; see ``_prefix_of``."""

    _writers: dict[tuple[str, str | None, str], PrefixWriter] = attrs.field(factory=dict)

    def turn(
        self, plan: Plan, adapter: ProviderAdapter, seat: str, request: GenerateRequest, end: float
    ) -> AbstractAsyncContextManager[Callable[[], None] | None]:
        """Wait for the turn of a call; calls that share nothing, or too little for a cache, do not wait.

        Args:
            plan: the plan of the run.
            adapter: the provider of the seat.
            seat: the seat's name.
            request: what ``request_to_send`` returned.
            end: when the call must end, on the event loop's clock.

        Returns:
            A context with the value of ``PrefixWriter.turn``.
        """
        tokens = _marked_tokens(request)
        profile = None if tokens is None else adapter._profile_of(request.model)
        least = None if profile is None else profile.cache_minimum
        if tokens is None or least is None or tokens < least or not adapter.capabilities.streaming:
            return nullcontext()
        writer = self._writers.setdefault(_prefix_of(plan.seat(seat)), PrefixWriter())
        left = inf if end == inf else end - anyio.current_time()
        return writer.turn(min(MAX_WAIT, left * MAX_WAIT_SHARE))


def _marked_tokens(request: GenerateRequest) -> int | None:
    """Estimate the tokens up to the mark in a request, four characters each; None without a mark."""
    characters = tokens = 0
    for turn in request.messages:
        if isinstance(turn.content, str):
            characters += len(turn.content)
            continue
        for part in turn.content or ():
            characters += len(getattr(part, "text", None) or "")
            tokens += file_tokens(part)
            if isinstance(part, TextPart) and part.cache:
                return characters // 4 + tokens
    return None
