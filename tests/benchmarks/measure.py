"""Measure candidates in turns, so that other load on the machine affects all of them alike."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from statistics import median
from typing import Any

Call = Callable[[], Awaitable[object]]


def cpu_of(command: list[str], env: Mapping[str, str] | None = None) -> float:
    """Run a command, its output dropped, and return its CPU seconds.

    CPU and not wall time: a start-up waits for nothing, and the figure holds on a machine that is busy.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, stream) for stream in (0, 1, 2)]
        pid = os.posix_spawn(command[0], command, {**os.environ, **(env or {})}, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    finally:
        os.close(null)
    if status:
        raise RuntimeError(f"{command} failed with status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_utime + usage.ru_stime


def best_of_interleaved(candidates: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Measure the candidates in turns, after a warm-up round, and return the best figure of each."""
    for candidate in candidates.values():
        candidate()
    rows = [{name: candidate() for name, candidate in candidates.items()} for _ in range(rounds)]
    return {name: min(row[name] for row in rows) for name in candidates}


async def best_of_interleaved_async(
    candidates: Mapping[str, Callable[[], Awaitable[float]]], rounds: int
) -> dict[str, float]:
    """Do as ``best_of_interleaved`` does, in an event loop."""
    for candidate in candidates.values():
        await candidate()
    rows = [{name: await candidate() for name, candidate in candidates.items()} for _ in range(rounds)]
    return {name: min(row[name] for row in rows) for name in candidates}


def p50(work: Callable[[], object], calls: int) -> float:
    """Return the median seconds of so many calls."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


async def run_concurrently(work: Call, calls: int, width: int) -> tuple[float, float]:
    """Make so many calls, so many in flight, and return the CPU seconds of one and the wall seconds of all."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await work()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    return (time.process_time() - cpu) / calls, time.perf_counter() - wall


def resident() -> int:
    """Return the bytes of memory that this process has."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  # read often: as plain as can be
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def figure(key: str, value: float, how: str) -> dict[str, Any]:
    """Return one figure, for the goal of that key."""
    return {"key": key, "value": value, "how": how}


def format_comparison(best: Mapping[str, float], ours: str, base: str, scale: float, unit: str) -> str:
    """Format what was measured: our figure, that of the base, then those of the others."""
    digits = 3 if best[base] * scale < 1 else 1
    others = [f"{name} {best[name] * scale:.{digits}f}" for name in best if name not in (ours, base)]
    rest = f"; {', '.join(others)}" if others else ""
    return f"{best[ours] * scale:.{digits}f} / {base} {best[base] * scale:.{digits}f} {unit}{rest}"
