"""A clock and a scripted provider for the tests of middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_council.models import GenerateChunk, GenerateRequest, GenerateResponse, ProviderCapabilities
from llm_council.providers.base import ProviderAdapter


class Clock:
    """A clock whose time passes only in its ``sleep``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class SequenceProvider(ProviderAdapter):
    """Follows a script, one item a call: an error is raised, a float advances the clock, a text is the answer.

    A list of texts and errors is a stream; the last item is repeated for all further calls.
    """

    name = "turns"
    capabilities = ProviderCapabilities(streaming=True, tool_use=True, structured_output=True)

    def __init__(self, name: str, *turns: Any, clock: Clock | None = None, **can: Any) -> None:
        self.name = name  # type: ignore[misc]
        self.turns = list(turns) or [f"{name} answers"]
        self.clock = clock
        self.asked: list[GenerateRequest] = []
        self.closed = 0
        if can:
            self.capabilities = ProviderCapabilities(**can)  # type: ignore[misc]

    def _turn(self, request: GenerateRequest) -> Any:
        self.asked.append(request)
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        turn = self._turn(request)
        if isinstance(turn, BaseException):
            raise turn
        if isinstance(turn, GenerateResponse):
            return turn
        if isinstance(turn, float):
            assert self.clock is not None
            self.clock.now += turn
            turn = "slow"
        return GenerateResponse(text=turn if isinstance(turn, str) else "".join(map(str, turn)), finish_reason="stop")

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        turn = self._turn(request)
        yield GenerateChunk(model=f"{self.name}-1")
        for piece in turn if isinstance(turn, list) else [turn]:
            if isinstance(piece, BaseException):
                raise piece
            yield piece if isinstance(piece, GenerateChunk) else GenerateChunk(text=piece)
        yield GenerateChunk(finish_reason="stop")

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns() -> type[SequenceProvider]:
    return SequenceProvider
