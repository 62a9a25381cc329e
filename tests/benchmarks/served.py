"""`council serve`: how soon its page is there, and the memory that the server holds while nobody asks."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from http.cookiejar import CookieJar
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measure import figure


def measured(url: str, *, short: bool) -> list[dict[str, Any]]:
    """Return the figures; the server of the others is not needed. Without the extra ``serve``, there are none."""
    if not all(map(find_spec, ("jinja2", "sse_starlette", "uvicorn"))):
        print("NOTE: the extra serve is not installed: the page is not measured", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as folder:
        rounds = [_start(folder) for _ in range(3 if short else 8)]
    seconds = min(first for first, _ in rounds)
    memory = max(held for _, held in rounds)
    return [
        figure("page", 1e3 * seconds, f"best of {len(rounds)}"),
        figure("page-memory", memory, "after the form and the history were read"),
    ]


def _start(folder: str) -> tuple[float, float]:
    """Return the seconds from the command to the page, and the MiB that the server then holds."""
    environment = {**os.environ, "OPENAI_API_KEY": "sk-none-is-sent-1234567890"}
    environment |= {"HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
    command = [sys.executable, "-P", "-m", "llm_council", "serve", "-p", "openai", "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        try:
            assert running.stdout is not None
            lines = dict(running.stdout.readline().split() for _ in range(3))
            browser = urllib.request.build_opener(
                urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
            )
            with browser.open(lines["page"], timeout=60) as reply:
                assert b"Ask the council" in reply.read()
            seconds = time.perf_counter() - began
            with browser.open(lines["page"].partition("?")[0] + "history", timeout=60) as reply:
                reply.read()
            return seconds, resident(running.pid)
        finally:
            running.terminate()


def resident(process: int) -> float:
    """Return the MiB of memory that a process holds."""
    status = Path(f"/proc/{process}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024
    output = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, text=True, check=True)
    return int(output.stdout) / 1024
