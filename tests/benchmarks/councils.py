"""Whole councils: two draft, three criticise as drafts arrive, one synthesises; the answer meets the advisor's schema.

Every call is real HTTP. At 200 ms per call the critical path is three calls long: nothing can be quicker than 0.6 s.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from journals import BareJournals
from measure import (
    best_of_interleaved,
    best_of_interleaved_async,
    figure,
    format_comparison,
    resident,
    run_concurrently,
)

from llm_council import Council, CouncilConfig
from llm_council.models import GenerateRequest
from llm_council.providers.base import call
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.fakes import ScriptedProvider
from llm_council.transports import HttpRequest, HttpxTransport

T = TypeVar("T")

PAYLOAD = {"model": "m", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}
TASK = "What is 6 times 7?"
LATENCY = 0.2
CRITICAL_PATH = 3 * LATENCY
WAITING = 3.0
"""Seconds per call where every run is to be waiting at the same time."""


def council(url: str, delay: float = 0.0) -> Council:
    """Return a council of three seats over HTTP, with nothing from the user's own configuration."""
    base = f"{url}/{round(delay * 1000)}/plain/v1"
    seats = [OpenAICompatibleProvider(name=f"seat-{n}", base_url=base, default_model="m") for n in (1, 2, 3)]
    return Council(seats, config=CouncilConfig())


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures of one council, of one that is stored, and of many at once."""
    return [
        *asyncio.run(_against_the_critical_path(url, short=short)),
        *asyncio.run(_against_a_council_by_hand(url, short=short)),
        *asyncio.run(_of_strategies(short=short)),
        *asyncio.run(_with_a_store(url, short=short)),
        *asyncio.run(_many_at_once(url, 300 if short else 1000)),
        *_memory(url, short=short),
    ]


async def _against_the_critical_path(url: str, *, short: bool) -> list[dict[str, Any]]:
    async with AsyncExitStack() as opened:
        seated = await opened.enter_async_context(council(url, LATENCY))

        async def once() -> None:
            (await seated.arun(TASK)).raise_for_failure()

        best = {}
        for width in (64, 1):  # the 64 first, so that the single council runs in a process that has run the code before
            await run_concurrently(once, width, width)
            rounds = 3 if short else 7 if width > 1 else 14
            best[width] = min([(await run_concurrently(once, width, width))[1] for _ in range(rounds)])
        session = await opened.enter_async_context(aiohttp.ClientSession())

        async def in_a_row() -> None:
            for _ in range(3):
                await _posted(session, url, LATENCY)

        bare = min([(await run_concurrently(in_a_row, 1, 1))[1] for _ in range(3 if short else 14)])
    one, many = best[1], best[64]
    three = f"three calls of bare aiohttp in a row {bare / CRITICAL_PATH:.3f}x"
    return [
        figure("critical-path", one / CRITICAL_PATH, f"{one:.3f} / {CRITICAL_PATH:.1f} s; {three}"),
        figure("at-once-64", many / CRITICAL_PATH, f"{many:.3f} / {CRITICAL_PATH:.1f} s"),
    ]


async def _posted(session: aiohttp.ClientSession, url: str, delay: float) -> None:
    async with session.post(f"{url}/{delay * 1000:.0f}/plain/v1/chat/completions", json=PAYLOAD) as reply:
        await reply.json()


async def _against_a_council_by_hand(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Compare the CPU of a run with that of the same six calls without checks, limits, events and errors.

    Two further candidates make these calls over our transport, and through our adapter: they show what each part costs.
    """
    runs, rounds = (10, 5) if short else (20, 15)
    address = f"{url}/0/plain/v1"
    async with AsyncExitStack() as opened:
        seated = await opened.enter_async_context(council(url))
        session = await opened.enter_async_context(aiohttp.ClientSession())
        adapter = await opened.enter_async_context(OpenAICompatibleProvider(name="seat", base_url=address))
        transport = HttpxTransport()
        opened.push_async_callback(transport.aclose)

        async def by_aiohttp(text: str) -> str:
            payload = {"model": "m", "messages": [{"role": "user", "content": text}]}
            async with session.post(f"{address}/chat/completions", json=payload) as reply:
                answer: str = (await reply.json())["choices"][0]["message"]["content"]
            return answer

        async def by_transport(text: str) -> str:
            payload = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
            request = HttpRequest(url=f"{address}/chat/completions", body=payload)
            answer: str = json.loads((await transport.send(request)).body)["choices"][0]["message"]["content"]
            return answer

        async def by_adapter(text: str) -> str:
            return (await call(adapter, GenerateRequest(model="m", prompt=text))).text or ""

        def by_hand(ask: Callable[[str], Awaitable[str]]) -> Callable[[], Awaitable[None]]:
            async def run() -> None:
                drafts = await asyncio.gather(ask(TASK), ask(TASK))
                shown = "\n\n".join((TASK, "Criticise the drafts.", *drafts))
                reviews = await asyncio.gather(*(ask(shown) for _ in range(3)))
                json.loads(await ask("\n\n".join((TASK, "Write the answer.", *drafts, *reviews))))

            return run

        async def by_council() -> None:
            (await seated.arun(TASK)).raise_for_failure()

        def taking(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
            async def take() -> float:
                return (await run_concurrently(work, runs, 1))[0]

            return take

        candidates = {
            "ours": taking(by_council),
            "by hand": taking(by_hand(by_aiohttp)),
            "over our transport": taking(by_hand(by_transport)),
            "through our adapter": taking(by_hand(by_adapter)),
        }
        cpu = await best_of_interleaved_async(candidates, rounds)
    how = format_comparison(cpu, "ours", "by hand", 1e3, "ms")
    return [figure("cpu-by-hand", cpu["ours"] / cpu["by hand"], how)]


async def _of_strategies(*, short: bool) -> list[dict[str, Any]]:
    """Compare the CPU of strategies with seats that answer at once, without HTTP."""
    runs, rounds = (20, 5) if short else (40, 15)

    def taking(strategy: str) -> Callable[[], Awaitable[float]]:
        async def take() -> float:
            seats = [ScriptedProvider(_say, name=f"seat-{n}") for n in (1, 2, 3)]
            async with Council(seats, config=CouncilConfig(), strategy=strategy) as seated:

                async def once() -> None:
                    (await seated.arun(TASK, schema={"type": "integer"})).raise_for_failure()

                return (await run_concurrently(once, runs, 1))[0]

        return take

    cpu = await best_of_interleaved_async({name: taking(name) for name in ("poll", "synthesize")}, rounds)
    how = format_comparison(cpu, "poll", "synthesize", 1e3, "ms")
    return [figure("cpu-poll", cpu["poll"] / cpu["synthesize"], how)]


def _say(request: GenerateRequest) -> str:
    match request.metadata["phase"]:
        case "draft":
            return "6 times 7 is 42.\nANSWER: 42"
        case "critique":
            return "Both drafts are right.\nRANKING: A > B"
    return "42"


async def _with_a_store(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Compare runs that are stored with runs that are not: the wall at 200 ms a call, the CPU at none."""
    runs, rounds = (5, 3) if short else (20, 9)
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        slow, quick = [await opened.enter_async_context(council(url, delay)) for delay in (LATENCY, 0.0)]

        def taking(seated: Council, store: str | None, calls: int, figure: int) -> Callable[[], Awaitable[float]]:
            async def once() -> None:
                (await seated.arun(TASK, store=store)).raise_for_failure()

            async def take() -> float:
                return (await run_concurrently(once, calls, 1))[figure]

            return take

        file = str(Path(folder, "runs.db"))
        wall = await best_of_interleaved_async(
            {"stored": taking(slow, file, 1, 1), "plain": taking(slow, None, 1, 1)}, 2 * rounds
        )
        bare = opened.enter_context(BareJournals(str(Path(folder, "bare.db"))))
        candidates = {"stored": taking(quick, file, runs, 0), "plain": taking(quick, None, runs, 0)}
        cpu = await best_of_interleaved_async(
            {**candidates, "bare": bare.with_bare_journal(taking(quick, file, runs, 0))}, rounds
        )
    added = {name: (cpu[name] - cpu["plain"]) * 1e3 for name in ("stored", "bare")}
    how = f"{added['stored']:.2f} / {added['bare']:.2f} ms; a run without either takes {cpu['plain'] * 1e3:.1f} ms"
    return [
        figure("store-wall", wall["stored"] / wall["plain"], format_comparison(wall, "stored", "plain", 1e3, "ms")),
        figure("store-cpu", added["stored"] / added["bare"], how),
    ]


async def _many_at_once(url: str, width: int) -> list[dict[str, Any]]:
    """Run so many at once, with the garbage collector and without."""
    failed = 0
    async with council(url, LATENCY) as seated:

        async def once() -> None:
            nonlocal failed
            failed += (await seated.arun(TASK)).error is not None

        await run_concurrently(once, 64, 64)
        few = min([(await run_concurrently(once, 64, 64))[0] for _ in range(3)])
        failed = 0
        cold, wall = await run_concurrently(once, width, width)
        warm, _ = await run_concurrently(once, width, width)  # the runs of 64 had open connections, too
        gc.disable()
        try:
            few_uncollected = min([(await run_concurrently(once, 64, 64))[0] for _ in range(3)])
            many_uncollected, _ = await run_concurrently(once, width, width)
        finally:
            gc.enable()
    runs = 3 * width + 3 * 64  # those without the collector included; the count began after the first 3 * 64
    many = min(cold, warm)
    uncollected = many_uncollected / few_uncollected
    return [
        figure(
            "cpu-1000",
            many / few,
            f"{many * 1e3:.2f} / {few * 1e3:.2f} ms; {uncollected:.2f}x without the garbage collector; "
            f"{width:,} runs took {wall:.1f} s",
        ),
        figure("failed-1000", failed, f"{failed} of {runs:,}"),
    ]


def _memory(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Take the most memory that runs hold at once, connections and answers included, each time in a fresh process.

    A process that has done more before has memory to reuse, and would seem to need none.
    """
    width, waiting = (300, 100) if short else (1000, 300)
    ours, bare = (memory_per_run(url, how, width, LATENCY) for how in ("councils", "connections"))
    all_waiting = memory_per_run(url, "councils", waiting, WAITING)
    program = Path(__file__).with_name("waiting.py")
    command = [sys.executable, program, str(width), "resident"]
    batch = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [
        figure("memory-1000", ours, f"{LATENCY * 1e3:.0f} ms per call"),
        figure(
            "memory-waiting",
            all_waiting - bare,
            f"{waiting} runs, {WAITING:g} s per call; {all_waiting:.0f} KiB with their three connections, which take"
            f" {bare:.0f} with bare aiohttp",
        ),
        figure("memory-batch", batch, f"{width:,} runs of three scripted seats, in the phase in which they hold most"),
    ]


def memory_per_run(url: str, how: str, width: int, delay: float) -> float:
    """Return the KiB that one run of so many holds, or its three connections, in a process that does nothing else."""
    command = [sys.executable, __file__, url, how, str(width), str(delay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / width / 1024


async def _held_by_councils(url: str, width: int, delay: float) -> int:
    async with council(url, delay) as seated:

        async def once() -> None:
            (await seated.arun(TASK)).raise_for_failure()

        await run_concurrently(once, 16, 16)
        return (await _peak(run_concurrently(once, width, width)))[0]


async def _peak(work: Awaitable[T]) -> tuple[int, T]:
    """Return the most memory that the work held beyond what was held before, in bytes, and what it returned."""
    before, peak, stop = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, resident())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        done = await work
    finally:
        stop.set()
        watching.join()
    return max(0, peak - before), done


async def _held_by_connections(url: str, width: int, delay: float) -> int:
    """Return the most memory that three calls of bare aiohttp for each of so many runs hold at once, in bytes."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def once() -> None:
            await _posted(session, url, delay)

        await run_concurrently(once, 48, 48)
        return (await _peak(run_concurrently(once, 3 * width, 3 * width)))[0]


def against_the_peer(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Compare the CPU of a run; the peer has its locks and its files off, its drafts and chair on the same server."""
    python = Path(os.environ.get("LLM_COUNCIL_PEER", ""), "bin", "python")
    if not python.is_file():
        return []
    runs, rounds = (3, 2) if short else (10, 4)

    def ours() -> float:
        async def main() -> float:
            async with council(url) as seated:

                async def once() -> None:
                    (await seated.arun(TASK)).raise_for_failure()

                await run_concurrently(once, 5, 1)
                return (await run_concurrently(once, runs * 5, 1))[0]

        return asyncio.run(main())

    last: dict[str, float] = {}

    def peers() -> float:
        script = Path(__file__).with_name("peer.py")
        output = subprocess.run(
            [python, "-I", script, url, str(runs)], capture_output=True, text=True, check=True, timeout=120
        )
        last.update(json.loads(output.stdout.splitlines()[-1]))
        return last["cpu"]

    best = best_of_interleaved({"ours": ours, "peer": peers}, rounds)
    how = f"{best['ours'] * 1e3:.2f} / {best['peer'] * 1e3:.1f} ms; of 6 and {last['calls']:.0f} calls"
    return [figure("cpu-run", best["ours"] / best["peer"], how)]


async def soak(url: str, runs: int, *, width: int = 16) -> list[dict[str, Any]]:
    """Run so many councils in one process; the first fifth of them counts as warm-up."""
    failed = 0
    async with council(url) as seated:

        async def once() -> None:
            nonlocal failed
            failed += (await seated.arun(TASK)).error is not None

        began = time.perf_counter()
        await run_concurrently(once, runs // 5, 2 * width)  # the pool is then as large as it will be
        before = _held()
        await run_concurrently(once, runs - runs // 5, width)
        after = _held()
        seconds = time.perf_counter() - began
    if failed:
        raise RuntimeError(f"{failed} of {runs} runs failed")
    gained = {name: after[name] - before[name] for name in before}
    growth = gained["memory"] / 1024 / (runs * 0.8 / 1000)
    how = f"{before['memory'] / 2**20:.1f} to {after['memory'] / 2**20:.1f} MiB; {runs:,} runs in {seconds:.0f} s"
    figures = [figure("soak-memory", growth, how)]
    for name in ("sockets", "threads", "tasks"):
        figures.append(figure(f"soak-{name}", gained[name], f"{before[name]} to {after[name]}"))
    return figures


def _held() -> dict[str, int]:
    return {
        "memory": resident(),
        "sockets": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
    }


if __name__ == "__main__":
    holding = {"councils": _held_by_councils, "connections": _held_by_connections}[sys.argv[2]]
    print(asyncio.run(holding(sys.argv[1], int(sys.argv[3]), float(sys.argv[4]))))
