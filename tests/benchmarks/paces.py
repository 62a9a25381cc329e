"""Many tasks against a vendor that refuses calls above a number at a time: how near they come to the ideal time.

Nothing is configured: neither retries nor a limit. With so many slots, and so many seconds for each call, no client can
be done before tasks x seconds / slots.
"""

import asyncio
import time
from typing import Any

from limited import facts, running
from measure import figure

from llm_council import Council, CouncilConfig
from llm_council.models import RetryPolicy
from llm_council.providers.compatible import OpenAICompatibleProvider


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures: 2,000 tasks of 2 s with 100 slots; 400 of 0.5 s with 50 slots in the short form."""
    tasks, seconds, slots = (400, 0.5, 50) if short else (2000, 2.0, 100)
    with running(slots, seconds) as address:
        took, failed = asyncio.run(_run_all(address, tasks))
        counts = facts(address)
    ideal = tasks * seconds / slots
    how = f"{took:.1f} / ideal {ideal:.1f} s; {counts['refused']} of {counts['served'] + counts['refused']:,} refused"
    return [figure("many-tasks", took / ideal, how), figure("many-tasks-failed", failed, f"{failed} of {tasks:,}")]


async def _run_all(url: str, tasks: int) -> tuple[float, int]:
    provider = OpenAICompatibleProvider(name="vendor", base_url=f"{url}/v1", default_model="m")
    config = CouncilConfig(retry=RetryPolicy(max_retries=0))
    async with Council([provider], config=config, strategy="single") as council:
        began = time.perf_counter()
        numbered = (f"What is 6 times {number}?" for number in range(tasks))
        failed = [result async for result in council.map(numbered, ordered=False) if not result.success]
        return time.perf_counter() - began, len(failed)
