"""Where the CPU time of a council run goes, and which code allocated its memory, summed by area of the code.

The time of built-in functions counts for the Python function that called them.
"""

import asyncio
import cProfile
import gc
import pstats
import sysconfig
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

from councils import TASK, council
from measure import run_concurrently

import llm_council

OURS = str(Path(llm_council.__file__).parent)
SITE = sysconfig.get_path("purelib")
STDLIB = sysconfig.get_path("stdlib")

AREAS = {
    "_engine": "engine: phases, prompts, fences, tally",
    "providers": "providers: call entry, fitting, adapters",
    "_wire": "wire: requests encoded, replies decoded and checked",
    "transports": "transports: our part of HTTP",
    "models": "models: construction and validation",
    "results": "results",
    "_schema": "schema: answers extracted and validated",
    "subagents": "subagents",
}

MEMORY_LATENCY = 2.0
"""Seconds that each call takes while memory is measured: all runs must then be in the same phase."""

Function = tuple[str, int, str]


def summary(url: str, runs: int) -> str:
    """Return the Markdown summary of a profile of so many runs, one after the other, at zero latency."""
    stats = asyncio.run(_profile(url, runs))
    own = _own_time(stats)
    total = sum(own.values())
    areas: Counter[str] = Counter()
    for (file, _, _), seconds in own.items():
        areas[_area(file)] += seconds
    (first, second, third), rest = areas.most_common(3), areas.most_common()[3:]
    named = "; ".join(f"{area} ({seconds / total:.0%})" for area, seconds in (first, second, third))
    lines = [
        f"The three largest costs: {named}.",
        "",
        "| where | share of the CPU of a run |",
        "|---|---|",
        *(f"| {area} | {seconds / total:.1%} |" for area, seconds in (first, second, third)),
        *(f"| {area} | {seconds / total:.1%} |" for area, seconds in rest if seconds / total >= 0.005),
        "",
        "| function | own time, built-ins it calls included | calls per run |",
        "|---|---|---|",
        *_functions(own, stats, total, runs),
    ]
    return "\n".join(lines)


def memory(url: str, runs: int) -> str:
    """Return the Markdown summary of what so many runs hold at once, all of them waiting for their critics."""
    held = asyncio.run(_held(url, runs))
    total = sum(held.values())
    lines = [
        f"A run that waits for its critics holds {total / 1024:.0f} KiB of Python's memory:",
        "",
        "| what was allocated by | KiB of a run |",
        "|---|---|",
        *(f"| {area} | {size / 1024:.1f} |" for area, size in held.most_common() if size >= 512),
    ]
    return "\n".join(lines)


async def _held(url: str, runs: int) -> Counter[str]:
    async with council(url, MEMORY_LATENCY) as seated:

        async def once() -> None:
            (await seated.arun(TASK)).raise_for_failure()

        await run_concurrently(once, 4, 4)
        gc.collect()
        tracemalloc.start(1)
        before = tracemalloc.take_snapshot()
        running = asyncio.ensure_future(run_concurrently(once, runs, runs))
        await asyncio.sleep(1.5 * MEMORY_LATENCY)  # the drafts are there, the critics at work
        gc.collect()
        after = tracemalloc.take_snapshot()
        tracemalloc.stop()
        await running
    held: Counter[str] = Counter()
    for found in after.compare_to(before, "filename"):
        held[_area(found.traceback[0].filename)] += found.size_diff
    return Counter({area: size // runs for area, size in held.items()})


async def _profile(url: str, runs: int) -> Any:
    async with council(url) as seated:
        for _ in range(20):
            (await seated.arun(TASK)).raise_for_failure()
        profile = cProfile.Profile(time.thread_time)  # CPU time, which does not count the wait for the server
        profile.enable()
        for _ in range(runs):
            await seated.arun(TASK)
        profile.disable()
    return pstats.Stats(profile).stats  # type: ignore[attr-defined]


def _own_time(stats: Any) -> Counter[Function]:
    """Return the own seconds of each Python function, with those of the built-ins that it calls."""
    own: Counter[Function] = Counter()
    for function, (_, _, seconds, _, callers) in stats.items():
        if function[0] != "~" or not callers:
            own[function] += seconds
            continue
        for caller, (_, _, part, _) in callers.items():
            own[caller] += part
    return own


def _area(file: str) -> str:
    if file.startswith(OURS):
        part = file[len(OURS) + 1 :].split("/")[0].removesuffix(".py")
        return AREAS.get(part, "other llm_council modules")
    if file.startswith(SITE):
        return f"`{file[len(SITE) + 1 :].split('/')[0].removesuffix('.py')}`"
    if file.startswith("<attrs"):
        return AREAS["models"]
    if file.startswith(STDLIB):
        part = file[len(STDLIB) + 1 :].split("/")[0].removesuffix(".py")
        return {"asyncio": "`asyncio` and its sockets", "selectors": "`asyncio` and its sockets"}.get(
            part, f"`{part}`" if part in ("json", "re", "ssl") else "the rest of the standard library"
        )
    return "built-ins and generated code"


def _functions(own: Counter[Function], stats: Any, total: float, runs: int) -> list[str]:
    lines = []
    for function, seconds in own.most_common(10):
        file, _, name = function
        shown = file.removeprefix(str(Path(OURS).parent)).removeprefix(SITE).removeprefix(STDLIB).lstrip("/")
        calls = stats[function][1] / runs if function in stats else 0
        lines.append(f"| `{name}` in `{shown}` | {seconds / total:.1%} | {calls:,.0f} |")
    return lines
