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
        lags = asyncio.run(_stream_at_once(folder, url))
    seconds = min(first for first, _ in rounds)
    memory = max(held for _, held in rounds)
    slowest, middle = (max(lags), statistics.median(lags)) if lags else (math.inf, math.inf)
    return [
        figure("page", 1e3 * seconds, f"best of {len(rounds)}"),
        figure("page-memory", memory, "after the form and the history were read"),
        figure("streams-200", 1e3 * slowest, f"the slowest; median {1e3 * middle:.0f} ms"),
        figure("streams-200-lost", CLIENTS - len(lags), f"of {CLIENTS}"),
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


async def _stream_at_once(folder: str, url: str) -> list[float]:
    """Stream to many clients, and return the seconds from the seat's first word to each client that lost no word."""
    config = Path(folder, "council.toml")
    base = f"{url}/50/timed/v1"
    config.write_text(f'[providers.seat]\nkind = "openai-compatible"\nbase_url = "{base}"\ndefault_model = "m"\n')
    with _serving(folder, "-p", "seat", LLM_COUNCIL_CONFIG=str(config)) as (_, lines):
        headers = {"Authorization": f"Bearer {lines['api_key']}"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            asked = (_stream(session, f"{lines['base_url']}/chat/completions", number) for number in range(CLIENTS))
            lags = await asyncio.gather(*asked)
    return [lag for lag in lags if lag is not None]


async def _stream(session: aiohttp.ClientSession, url: str, number: int) -> float | None:
    """Return the seconds from the seat's first word to this client; None if a word is lost."""
    body = {"model": "council", "stream": True, "messages": [{"role": "user", "content": f"Ask {number}"}]}
    words, lag = "", 0.0
    try:
        async with session.post(url, json=body) as reply:
            async for line in reply.content:
                if line.startswith(b"data: {"):
                    choices = json.loads(line.removeprefix(b"data: "))["choices"]
                    words += "".join(choice["delta"].get("content") or "" for choice in choices)
                if not lag and " " in words:
                    lag = (time.monotonic_ns() - int(words.split()[0])) / 1e9
    except (aiohttp.ClientError, KeyError) as error:  # no stream, a broken one, or one that ends with an error
        print(f"NOTE: stream {number}: {error!r}", file=sys.stderr)
        return None
    return lag if len(words.split()) == TIMED_EVENTS else None


def resident(process: int) -> float:
    """Return the MiB of memory that a process holds."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024
    output = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(output.stdout) / 1024
