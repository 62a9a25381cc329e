"""One call of a provider, blocking and in an event loop, compared with the clients that a user would use instead."""

import asyncio
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import aiohttp
import httpx
import requests
from measure import (
    Call,
    best_of_interleaved,
    best_of_interleaved_async,
    figure,
    format_comparison,
    p50,
    run_concurrently,
)

from llm_council.middleware.retry import Retry
from llm_council.providers.base import GenerateRequest, call
from llm_council.providers.compatible import OpenAICompatibleProvider

MESSAGES = [{"role": "user", "content": "What is 6 times 7?"}]
PAYLOAD = {"model": "m", "messages": MESSAGES}
REQUEST = GenerateRequest(prompt="What is 6 times 7?")
PLAIN = "/0/plain/v1"
POST = f"{PLAIN}/chat/completions"


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures of blocking calls, then of calls in a loop."""
    return [*_blocking(url, short=short), *asyncio.run(_asynchronous(url, short=short))]


def _blocking(url: str, *, short: bool) -> list[dict[str, Any]]:
    calls, rounds = (60, 3) if short else (300, 7)
    provider = OpenAICompatibleProvider(base_url=url + PLAIN, default_model="m")
    with httpx.Client() as client, requests.Session() as session, provider:
        candidates = {
            "ours": lambda: p50(lambda: provider.generate_sync(REQUEST), calls),
            "httpx": lambda: p50(lambda: client.post(url + POST, json=PAYLOAD).json(), calls),
            "requests": lambda: p50(lambda: session.post(url + POST, json=PAYLOAD).json(), calls),
        }
        if find_spec("openai"):
            sdk = import_module("openai").OpenAI(api_key="none", base_url=url + PLAIN)
            candidates["openai"] = lambda: p50(lambda: sdk.chat.completions.create(model="m", messages=MESSAGES), calls)
        best = best_of_interleaved(candidates, rounds)
    return [figure("blocking", best["ours"] / best["httpx"], format_comparison(best, "ours", "httpx", 1e3, "ms"))]


async def _asynchronous(url: str, *, short: bool) -> list[dict[str, Any]]:
    figures = []
    async with AsyncExitStack() as opened:
        candidates = await _candidates(url, opened)
        if short:  # the slowest of all, and no goal depends on it
            del candidates["httpx"]
        for width in (1, 32, 256):
            calls = max(100, width * 2) if short else max(400, width * 3)
            best = await _cpu(candidates, calls, width, 2 if short else 4)
            how = format_comparison(best, "ours", "aiohttp", 1e3, "ms")
            figures.append(figure(f"async-{width}", best["ours"] / best["aiohttp"], how))
            figures += [
                figure(
                    f"{peer}-{width}",
                    best["ours"] / best[peer],
                    format_comparison(_only(best, peer), "ours", peer, 1e3, "ms"),
                )
                for peer in ("openai", "httpx2")
                if peer in best and width > 1
            ]
        provider = OpenAICompatibleProvider(base_url=url + PLAIN, default_model="m")
        opened.push_async_callback(provider.aclose)
        retry = Retry(provider)
        pair: dict[str, Call] = {"ours": lambda: call(retry, REQUEST), "without": lambda: call(provider, REQUEST)}
        best = await _cpu(pair, 100 if short else 400, 1, 3 if short else 9)
        figures.append(
            figure("retry-http", best["ours"] / best["without"], format_comparison(best, "ours", "without", 1e3, "ms"))
        )
    return figures


async def _candidates(url: str, opened: AsyncExitStack) -> dict[str, Call]:
    session = await opened.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
    provider = OpenAICompatibleProvider(base_url=url + PLAIN, default_model="m")
    opened.push_async_callback(provider.aclose)

    async def by_aiohttp() -> object:
        async with session.post(url + POST, json=PAYLOAD) as reply:
            return await reply.json()

    def posting(client: Any) -> Call:
        async def post() -> object:
            return (await client.post(url + POST, json=PAYLOAD)).json()

        return post

    candidates: dict[str, Call] = {"ours": lambda: call(provider, REQUEST), "aiohttp": by_aiohttp}
    for name in ("httpx", "httpx2"):
        if find_spec(name):
            library = import_module(name)
            # Without a bound of its own: the comparison is of the work, not of the queue.
            limits = library.Limits(max_connections=None, max_keepalive_connections=None)
            client = await opened.enter_async_context(library.AsyncClient(limits=limits, timeout=60))
            candidates[name] = posting(client)
    if find_spec("openai"):
        sdk = await opened.enter_async_context(
            import_module("openai").AsyncOpenAI(api_key="none", base_url=url + PLAIN, max_retries=0)
        )
        candidates["openai"] = lambda: sdk.chat.completions.create(model="m", messages=MESSAGES)
    return candidates


async def _cpu(candidates: dict[str, Call], calls: int, width: int, rounds: int) -> dict[str, float]:
    def one(work: Call) -> Any:
        async def once() -> float:
            return (await run_concurrently(work, calls, width))[0]

        return once

    return await best_of_interleaved_async({name: one(work) for name, work in candidates.items()}, rounds)


def _only(best: dict[str, float], peer: str) -> dict[str, float]:
    return {name: best[name] for name in ("ours", peer)}
