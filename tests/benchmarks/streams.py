"""A streamed answer, compared with lines that httpx reads, and with the openai SDK."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any

import httpx
from loopback import EVENTS, PACED_EVENTS
from measure import best_of_interleaved_async, figure, format_comparison

from llm_council.providers.base import GenerateRequest, stream
from llm_council.providers.compatible import OpenAICompatibleProvider

MESSAGES = [{"role": "user", "content": "What is 6 times 7?"}]
PAYLOAD = {"model": "m", "messages": MESSAGES, "stream": True}
REQUEST = GenerateRequest(prompt="What is 6 times 7?")

Read = Callable[[], AsyncIterator[object]]


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures of a burst, of a paced stream, and of the first chunk."""
    return asyncio.run(_measured(url, short=short))


async def _measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    figures = []
    async with AsyncExitStack() as opened:
        client = await opened.enter_async_context(httpx.AsyncClient())
        for key, events in (("burst", EVENTS), ("paced", PACED_EVENTS)):
            candidates = _readers(f"{url}/0/{key}/v1", client, opened)
            repeats = 3 if short else 10 if key == "burst" else 4
            costs = {name: partial(_cpu, read, repeats, events) for name, read in candidates.items()}
            best = await best_of_interleaved_async(costs, 3 if short else 7)
            figures.append(
                figure(key, best["ours"] / best["httpx"], format_comparison(best, "ours", "httpx", 1e6, "µs"))
            )
        firsts: dict[str, Callable[[], Awaitable[float]]] = {
            name: partial(_first, read, 5 if short else 15) for name, read in candidates.items()
        }
        best = await best_of_interleaved_async(firsts, 3 if short else 7)
        figures.append(
            figure("first-chunk", best["ours"] / best["httpx"], format_comparison(best, "ours", "httpx", 1e3, "ms"))
        )
    return figures


def _readers(base: str, client: httpx.AsyncClient, opened: AsyncExitStack) -> dict[str, Read]:
    provider = OpenAICompatibleProvider(base_url=base, default_model="m")
    opened.push_async_callback(provider.aclose)

    async def by_hand() -> AsyncIterator[object]:
        """Read the text with as little code as possible."""
        async with client.stream("POST", f"{base}/chat/completions", json=PAYLOAD) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line[6:])["choices"][0]["delta"].get("content")

    candidates: dict[str, Read] = {"ours": lambda: stream(provider, REQUEST), "httpx": by_hand}
    if find_spec("openai"):
        sdk = import_module("openai").AsyncOpenAI(api_key="none", base_url=base, max_retries=0)
        opened.push_async_callback(sdk.close)

        async def by_openai() -> AsyncIterator[object]:
            async with await sdk.chat.completions.create(model="m", messages=MESSAGES, stream=True) as chunks:
                async for chunk in chunks:
                    yield chunk

        candidates["openai"] = by_openai
    return candidates


async def _cpu(read: Read, repeats: int, events: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        async with aclosing(read()) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                pass
    return (time.process_time() - began) / repeats / events


async def _first(read: Read, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        async with aclosing(read()) as chunks:  # type: ignore[type-var]
            async for _ in chunks:
                times.append(time.perf_counter() - began)
                break
    return median(times)
