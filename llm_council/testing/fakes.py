"""A provider that answers by a script, for tests and examples without a network."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from math import inf
from typing import ClassVar, TypeAlias

import anyio
import attrs

from llm_council.models import (
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ProviderCapabilities,
    Usage,
)
from llm_council.models._attrs import provider_name
from llm_council.providers.base import ProviderAdapter

__all__ = ["Broken", "Reply", "Script", "ScriptedProvider"]


@attrs.frozen
class Broken:
    """A reply that breaks off: a stream yields the text and then raises the error; ``generate`` raises it at once."""

    text: str
    error: BaseException


Reply: TypeAlias = str | GenerateResponse | BaseException | Broken
"""One reply: a text, a whole response, an exception to raise, or a text that breaks off."""

Script: TypeAlias = (
    Reply
    | Sequence[Reply]
    | Callable[[GenerateRequest], Reply | Awaitable[Reply]]
    | Mapping[str, "Reply | Sequence[Reply] | Callable[[GenerateRequest], Reply | Awaitable[Reply]]"]
)
"""One reply for every call, a sequence of replies, a function of the request, or any of these for each phase."""

Delay: TypeAlias = float | Mapping[str, float]


class ScriptedProvider(ProviderAdapter):
    """Answers by a script and records the requests. It uses no random numbers and no sockets.

    Args:
        script: the replies. A mapping has phases as keys (``"draft"``, ``"critique"``, ``"synthesise"``, ...) and
            ``"*"`` for the others; a call outside a run has the phase ``""``. Each call takes the next reply of a
            sequence.
        name: the provider's name.
        delay: seconds before each reply, or a mapping from phases to seconds; ``inf`` never answers.
        pieces: the number of chunks of a streamed reply.
        capabilities: the declared capabilities; by default everything but images.
        sleep: replaces ``anyio.sleep``, for tests with a fake clock.

    Attributes:
        requests: every request so far, in order.
        cancelled: how many calls were cancelled.
        most_at_once: the maximum number of calls in progress at the same time.
    """

    name: ClassVar[str] = "scripted"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities(
        streaming=True, tool_use=True, structured_output=True, reasoning=True
    )

    def __init__(
        self,
        script: Script,
        *,
        name: str = "scripted",
        delay: Delay = 0.0,
        pieces: int = 3,
        capabilities: ProviderCapabilities | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.name = provider_name(name)  # type: ignore[misc]  # an instance may have a name of its own
        if capabilities is not None:
            self.capabilities = capabilities  # type: ignore[misc]
        self.requests: list[GenerateRequest] = []
        self.cancelled = 0
        self.most_at_once = 0
        self._script = script
        self._delay = delay
        self._pieces = pieces
        self._sleep = sleep
        self._used: dict[str, int] = {}
        self._now = 0

    def asked(self, phase: str) -> list[GenerateRequest]:
        """Return the requests of one phase."""
        return [request for request in self.requests if _phase(request) == phase]

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Return the next reply."""
        reply = await self._reply(request)
        if isinstance(reply, Broken):
            raise reply.error
        return reply

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        """Yield the next reply in pieces."""
        reply = await self._reply(request)
        text = reply.text or ""
        for piece in _split(text, self._pieces):
            yield GenerateChunk(text=piece)
        if isinstance(reply, Broken):
            raise reply.error
        yield attrs.evolve(GenerateChunk.whole(reply), text="")

    async def _reply(self, request: GenerateRequest) -> GenerateResponse | Broken:
        self.requests.append(request)
        reply = self._next(request)  # before the delay, so that calls take replies in the order in which they began
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self._wait(request)
            result = await reply if inspect.isawaitable(reply) else reply
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            if inspect.iscoroutine(reply):
                reply.close()  # cancelled during the delay: it would warn that nobody awaited it
            raise
        finally:
            self._now -= 1
        if isinstance(result, BaseException):
            raise result
        return _answer(request, result) if isinstance(result, str) else result

    async def _wait(self, request: GenerateRequest) -> None:
        delay = self._delay
        seconds = delay.get(_phase(request), delay.get("*", 0.0)) if isinstance(delay, Mapping) else delay
        # A fake clock may pass any finite time at once, but never an infinite one.
        if seconds == inf:
            await anyio.sleep_forever()
        await self._sleep(seconds)

    def _next(self, request: GenerateRequest) -> Reply | Awaitable[Reply]:
        phase, script = "", self._script
        if isinstance(script, Mapping):
            phase = _phase(request) if _phase(request) in script else "*"
            if phase not in script:
                raise LookupError(f"the script says nothing about the phase {_phase(request)!r}")
            script = script[phase]
        if callable(script):
            return script(request)
        if isinstance(script, str) or not isinstance(script, Sequence):
            return script
        place = self._used.get(phase, 0)
        self._used[phase] = place + 1
        if place >= len(script):
            raise LookupError(f"the script has {len(script)} replies, and this is call {place + 1}")
        return script[place]


def _phase(request: GenerateRequest) -> str:
    return str(request.metadata.get("phase", ""))


def _answer(request: GenerateRequest, text: str) -> GenerateResponse:
    """Return a text as a whole answer. Its usage is counted in words, so that tests can predict it."""
    words = sum(len(turn.text.split()) for turn in request.turns())
    return GenerateResponse(
        text=text,
        model=request.model or "scripted-1",
        finish_reason=FinishReason.STOP,
        usage=Usage(input_tokens=words, output_tokens=len(text.split())),
    )


def _split(text: str, pieces: int) -> Iterator[str]:
    # Rounded up, so that there are at most ``pieces`` pieces; a text that is shorter gives one for each character.
    size = max(1, -(-len(text) // pieces))
    for start in range(0, len(text), size):
        yield text[start : start + size]
