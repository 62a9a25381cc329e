"""Run in the environment of the closest peer: the CPU of one of its council runs, its locks and files off.

``python peer.py URL RUNS`` prints one line of JSON.
"""

import asyncio
import json
import os
import sys
import time

os.environ["LLM_COUNCIL_DISABLE_PROVIDER_LOCKS"] = "1"
os.environ["OPENROUTER_API_KEY"] = "none"

import llm_council
from llm_council.providers.openrouter import OpenRouterProvider


async def _main(url: str, runs: int) -> None:
    os.environ["OPENROUTER_BASE_URL"] = f"{url}/0/peer/v1"
    config = llm_council.CouncilConfig(
        providers=["openrouter"],
        models=["m/one", "m/two", "m/three"],
        enable_artifact_store=False,
        disable_local_evidence=True,
    )
    calls = 0
    generate = OpenRouterProvider.generate

    async def counted(self: OpenRouterProvider, request: object) -> object:
        nonlocal calls
        calls += 1
        return await generate(self, request)

    OpenRouterProvider.generate = counted
    council = llm_council.Council(config=config)

    async def once() -> None:
        result = await council.run("What is 6 times 7?", subagent="router")
        if not result.success:
            raise SystemExit(f"the peer's run failed: {result}")

    await once()
    each = calls
    began = time.process_time()
    for _ in range(runs):
        await once()
    print(json.dumps({"cpu": (time.process_time() - began) / runs, "calls": each}))


asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
