"""Many tasks with ``Council.map``: its rate beside a plain ``asyncio.gather``, and its memory over 100,000 tasks.

The seats answer at once and in this process, so that nothing but the library is measured.
"""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from measure import best_of_interleaved_async, figure, resident

from llm_council import Council, CouncilConfig
from llm_council.models import GenerateRequest, GenerateResponse, ProviderCapabilities, Usage
from llm_council.providers.base import ProviderAdapter


class Seat(ProviderAdapter):
    """Answers every call at once, with one text."""

    name: ClassVar[str] = "seat"
    capabilities: ClassVar[ProviderCapabilities] = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Return the answer."""
        return GenerateResponse(text="Paris.", model="m", usage=Usage(input_tokens=10, output_tokens=3))


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures; the address is not used."""
    memory = asyncio.run(_memory(5_000 if short else 100_000))
    return [
        memory,
        *asyncio.run(_rates("single", 1, 300 if short else 2_000, rounds=3 if short else 7)),
        *asyncio.run(_rates("council", 3, 100 if short else 600, rounds=3 if short else 7)),
    ]


async def _rates(kind: str, seats: int, tasks: int, *, rounds: int) -> list[dict[str, Any]]:
    """Compare the CPU of so many runs in a map with that of as many in a gather."""
    council = _council(seats)

    async def mapped() -> None:
        async for result in council.map(f"What is the capital of country {number}?" for number in range(tasks)):
            result.raise_for_failure()

    async def gathered() -> None:
        runs = (council.arun(f"What is the capital of country {number}?") for number in range(tasks))
        for result in await asyncio.gather(*runs):
            result.raise_for_failure()

    best = await best_of_interleaved_async({"map": _cpu_of(mapped), "gather": _cpu_of(gathered)}, rounds)
    by_map, by_gather = (best[name] / tasks for name in ("map", "gather"))
    how = f"{1 / by_map:.0f} / gather {1 / by_gather:.0f} runs a second of one core"
    return [
        figure(f"map-{kind}", by_map / by_gather, how),
        figure(f"map-{kind}-cpu", by_map * 1e6, f"{1 / by_map:.0f} runs a second of one core"),
    ]


def _council(seats: int) -> Council:
    named = [type(f"Seat{number}", (Seat,), {"name": f"seat-{number}"})() for number in range(seats)]
    return Council(named, config=CouncilConfig())


def _cpu_of(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    async def take() -> float:
        gc.collect()
        began = time.process_time()
        await work()
        return time.process_time() - began

    return take


async def _memory(tasks: int) -> dict[str, Any]:
    """Return by how much the process grew at most while it read so many results, one by one."""
    council = _council(1)
    await council.arun("warm up")
    before = most = resident()
    began = time.perf_counter()
    read = 0
    async for result in council.map(f"What is the capital of country {number}?" for number in range(tasks)):
        read += result.success
        if read % 50 == 0:
            most = max(most, resident())
    if read != tasks:
        raise RuntimeError(f"{tasks - read} of {tasks} runs failed")
    seconds = time.perf_counter() - began
    how = f"{before / 2**20:.1f} to {most / 2**20:.1f} MiB over {tasks:,} tasks in {seconds:.0f} s"
    return figure("map-memory", (most - before) / 2**20, how)
