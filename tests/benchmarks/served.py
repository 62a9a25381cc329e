"""`council serve`: how soon its page is there, the memory that it holds while nobody asks, and many streams at once."""

import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
from loopback import TIMED_EVENTS
from measure import figure

CLIENTS = 200


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures. Without the extra ``serve``, there are none."""
    if not all(map(find_spec, ("jinja2", "sse_starlette", "uvicorn"))):
        print("NOTE: the extra serve is not installed: the page is not measured", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as folder:
        rounds = [_start(folder) for _ in range(3 if short else 8)]
        lags, lost = asyncio.run(_stream_at_once(folder, url))
    seconds = min(first for first, _ in rounds)
    memory = max(held for _, held in rounds)
    return [
        figure("page", 1e3 * seconds, f"best of {len(rounds)}"),
        figure("page-memory", memory, "after the form and the history were read"),
        figure("streams-200", 1e3 * max(lags), f"the slowest; median {1e3 * statistics.median(lags):.0f} ms"),
        figure("streams-200-lost", lost, f"of {CLIENTS}"),
    ]


@contextmanager
def _serving(folder: str, *options: str, **more: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Run the server; yields its process id and the lines that it prints: base_url, api_key and page."""
    environment = {**os.environ, "HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder, **more}
    command = [sys.executable, "-P", "-m", "llm_council", "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        try:
            assert running.stdout is not None
            yield running.pid, dict(running.stdout.readline().split() for _ in range(3))
        finally:
            running.terminate()


def _start(folder: str) -> tuple[float, float]:
    """Return the seconds from the command to the page, and the MiB that the server then holds."""
    began = time.perf_counter()
    with _serving(folder, "-p", "openai", OPENAI_API_KEY="sk-none-is-sent-1234567890") as (process, lines):
        browser = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
        )
        with browser.open(lines["page"], timeout=60) as reply:
            assert b"Ask the council" in reply.read()
        seconds = time.perf_counter() - began
        with browser.open(lines["page"].partition("?")[0] + "history", timeout=60) as reply:
            reply.read()
        return seconds, resident(process)


async def _stream_at_once(folder: str, url: str) -> tuple[list[float], int]:
    """Return the seconds from a seat's first word to the client's, for each of many clients, and the streams lost."""
    config = Path(folder, "council.toml")
    base = f"{url}/50/timed/v1"
    config.write_text(f'[providers.seat]\nkind = "openai-compatible"\nbase_url = "{base}"\ndefault_model = "m"\n')
    lags: list[float] = []
    whole = 0
    with _serving(folder, "-p", "seat", LLM_COUNCIL_CONFIG=str(config)) as (_, lines):
        headers = {"Authorization": f"Bearer {lines['api_key']}"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

            async def ask(number: int) -> None:
                nonlocal whole
                asked = {"model": "council", "stream": True, "messages": [{"role": "user", "content": f"Ask {number}"}]}
                words = ""
                lag = None
                async with session.post(f"{lines['base_url']}/chat/completions", json=asked) as reply:
                    async for line in reply.content:
                        if not line.startswith(b"data: {"):
                            continue
                        for choice in json.loads(line.removeprefix(b"data: "))["choices"]:
                            words += choice["delta"].get("content") or ""
                        if lag is None and " " in words:
                            lag = (time.monotonic_ns() - int(words.split()[0])) / 1e9
                lags.append(math.inf if lag is None else lag)
                whole += len(words.split()) == TIMED_EVENTS

            await asyncio.gather(*(ask(number) for number in range(CLIENTS)))
    return lags, CLIENTS - whole


def resident(process: int) -> float:
    """Return the MiB of memory that a process holds."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024
    output = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(output.stdout) / 1024
