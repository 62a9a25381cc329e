"""What each middleware adds to a call, and what an answer from the cache takes, over a provider that does nothing.

The unit is a bare call of that provider through ``call``, with no middleware.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measure import Call, best_of_interleaved_async, figure, run_concurrently

from llm_council.middleware import Balance, Cached, Failover, Hedge, Limit, Logged, Pinned, Retry, Traced
from llm_council.providers._call.pacing import Pacer
from llm_council.providers.base import GenerateRequest, GenerateResponse, ProviderAdapter, ProviderCapabilities, call

REQUEST = GenerateRequest(
    messages=[
        {"role": "system", "content": "You answer in one sentence. " * 40},
        {"role": "user", "content": "What is 6 times 7? " * 100},
    ],
    model="m",
    max_tokens=500,
    temperature=0.2,
    metadata={"phase": "draft"},
)


class Nothing(ProviderAdapter):
    """Answers at once."""

    name = "nothing"
    capabilities = ProviderCapabilities()

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        """Answer."""
        return GenerateResponse(text="42", finish_reason="stop")


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures; nothing is sent anywhere."""
    return asyncio.run(_measured(200 if short else 500, 5 if short else 25))


async def _measured(calls: int, rounds: int) -> list[dict[str, Any]]:
    bare = Nothing()
    wrapped: dict[str, ProviderAdapter] = {
        "failover": Failover([bare, bare]),
        "balance": Balance([bare, bare]),
        "hedge": Hedge(bare),
        "retry-overhead": Retry(bare),
        "limit": Limit(bare, rate="10M/second", tokens="1000M/second", concurrency=8),
        "cache-write": Cached(bare, mode="write"),
        "logged": Logged(bare),
        "pinned": Pinned(bare, "m"),
    }
    if find_spec("opentelemetry"):
        wrapped["traced"] = Traced(bare)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        hits: dict[str, ProviderAdapter] = {
            "hit-memory": Cached(bare),
            "hit-sqlite": Cached(bare, store=Path(folder) / "cache.db"),
        }
        for adapter in (*wrapped.values(), *hits.values()):
            stack.push_async_callback(adapter.aclose)
        best = await _cpu({"bare": bare, "pace": bare, **wrapped, **hits}, calls, rounds)
    base = best["bare"]
    figures = [
        figure(name, best[name] / base - 1, f"{best[name] * 1e6:.1f} µs through it, {base * 1e6:.1f} without")
        for name in ("pace", *wrapped)
    ]
    whole = (figure(name, best[name] / base, f"{best[name] * 1e6:.1f} / bare {base * 1e6:.1f} µs") for name in hits)
    return [*figures, *whole]


async def _cpu(adapters: dict[str, ProviderAdapter], calls: int, rounds: int) -> dict[str, float]:
    pacer = Pacer()

    def one(name: str, work: Call) -> Any:
        async def once() -> float:
            with pacer.active() if name == "pace" else nullcontext():
                return (await run_concurrently(work, calls, 1))[0]

        return once

    def asking(adapter: ProviderAdapter) -> Call:
        return lambda: call(adapter, REQUEST)

    return await best_of_interleaved_async(
        {name: one(name, asking(adapter)) for name, adapter in adapters.items()}, rounds
    )
