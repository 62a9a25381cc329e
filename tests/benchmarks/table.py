"""The tables: figures against goals as Markdown, and their place in a page."""

import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from goals import GOALS, Goal

LIBRARIES = ("llm-council-sdk", "httpx", "httpcore", "aiohttp", "anyio", "requests", "httpx2", "openai")


def rows(figures: Iterable[Mapping[str, Any]]) -> str:
    """Return the Markdown table of all goals; a goal without a figure is shown as not measured."""
    by_key = {figure["key"]: figure for figure in figures}
    lines = ["| what | measured | goal | verdict |", "|---|---|---|---|"]
    for key, goal in GOALS.items():
        figure = by_key.get(key)
        if figure is None:
            measured, verdict = "-", "not measured"
        else:
            measured = f"**{_amount(figure['value'], goal.unit)}** ({figure['how']})"
            verdict = "met" if figure["value"] <= goal.most else "missed"
        lines.append(f"| {goal.what} | {measured} | {_bound(goal)} | {verdict} |")
    return "\n".join(lines)


def gross(figures: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the figures that exceed their goal by more than noise explains."""
    found = []
    for figure in figures:
        goal = GOALS[figure["key"]]
        if goal.unit in ("µs", "ms"):  # it tells how fast the machine is, too
            continue
        if goal.gross is not None and figure["value"] > goal.most * goal.gross:
            found.append(f"{goal.what}: {_amount(figure['value'], goal.unit)}, the goal is {_bound(goal)}")
    return found


def machine(peer: str | None) -> str:
    """Return a sentence about the machine, the date and the versions of the libraries."""
    cores = len(os.sched_getaffinity(0))
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    versions = [f"{name} {found}" for name in LIBRARIES if (found := _version(name))]
    versions += [f"the-llm-council {peer}"] if peer else []
    return (
        f"Taken on {datetime.now(UTC):%Y-%m-%d}: {_processor()}, {cores} cores, {platform.system()}, {python}; load "
        f"average before the run {load}. {', '.join(versions)}."
    )


def put(page: Path, marker: str, text: str) -> None:
    """Write a text between the page's two comments of that marker, in place of what was there."""
    begin, end = f"<!-- {marker}: begin -->", f"<!-- {marker}: end -->"
    whole = page.read_text(encoding="utf-8")
    head, found, rest = whole.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no {begin} ... {end}")
    page.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")


def _amount(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:.3f}x" if value < 0.1 else f"{value:.2f}x"
    return f"{value:,.0f} {unit}"


def _bound(goal: Goal) -> str:
    return f"≤ {goal.most:g}x" if goal.unit == "x" else f"≤ {goal.most:g} {goal.unit}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
