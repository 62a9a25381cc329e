"""Vendors with rate limits on a loopback socket, which count what they accept and refuse.

``python limited.py RULE LATENCY`` serves in a process of its own until its standard input ends; ``serving`` serves in a
thread. ``GET /facts`` returns the counts as JSON.
"""

import asyncio
import json
import math
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ANSWER = {"answer": "Forty-two.", "reasoning": "Six times seven is forty-two."}
REPLY = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": json.dumps(ANSWER)}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21},
    }
).encode()
Refusal = tuple[int, dict[str, str]]


class Slots:
    """Takes a number of calls at a time.

    Args:
        most: the number, or a function from the calls that were accepted so far to it.
        status: the status of a refusal.
    """

    def __init__(self, most: int | Callable[[int], int], status: int = 429) -> None:
        self._most = most if callable(most) else lambda _: most
        self._status = status
        self._accepted = 0

    def refuse(self, now: float, busy: int) -> Refusal | None:
        """Return the status and headers of a refusal; None accepts the call."""
        if busy >= self._most(self._accepted):
            return self._status, {}
        self._accepted += 1
        return None

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers of an answer."""
        return {}


class Bucket:
    """Takes a number of calls per second, and as many at once after a pause; says when to try again."""

    def __init__(self, rate: float) -> None:
        self._rate = self._left = rate
        self._at = 0.0

    def refuse(self, now: float, busy: int) -> Refusal | None:
        """Return the status and headers of a refusal; None accepts the call."""
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return 429, {"Retry-After": str(math.ceil(1 / self._rate))}
        self._left -= 1
        return None

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers of an answer."""
        return {}


class Window:
    """Takes a number of calls in each window, and says in headers alone what is left, as OpenAI does."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = self._left = most
        self._seconds = seconds
        self._ends = 0.0

    def refuse(self, now: float, busy: int) -> Refusal | None:
        """Return the status and headers of a refusal; None accepts the call."""
        if now >= self._ends:
            self._left, self._ends = self._most, now + self._seconds
        if not self._left:
            return 429, self.headers(now)
        self._left -= 1
        return None

    def headers(self, now: float) -> dict[str, str]:
        """Return the headers of an answer."""
        milliseconds = max(0, math.ceil((self._ends - now) * 1000))
        return {
            "x-ratelimit-limit-requests": str(self._most),
            "x-ratelimit-remaining-requests": str(self._left),
            "x-ratelimit-reset-requests": f"{milliseconds}ms",
        }


Rule = Slots | Bucket | Window


class Vendor:
    """Answers after a time what its rule accepts.

    Args:
        rule: decides which calls are refused.
        latency: seconds until an answer.

    Attributes:
        url: where it listens, once it does.
        busy: calls in progress.
        peak: most calls in progress.
        served: calls that were answered.
        refused: calls that were refused.
    """

    def __init__(self, rule: Rule, latency: float) -> None:
        self.rule = rule
        self.latency = latency
        self.url = ""
        self.busy = self.peak = self.served = self.refused = 0

    def facts(self) -> dict[str, int]:
        """Return the counts."""
        return {"peak": self.peak, "served": self.served, "refused": self.refused}

    async def listen(self) -> asyncio.Server:
        """Start to listen on a free port."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server


class _Connection(asyncio.Protocol):
    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            stop = end + 4 + size
            if len(self._buffer) < stop:
                return
            self._buffer = self._buffer[stop:]
            if head.startswith(b"GET /facts"):
                self._send(200, {}, json.dumps(self._vendor.facts()).encode())
            else:
                self._ask()

    def _ask(self) -> None:
        vendor = self._vendor
        refusal = vendor.rule.refuse(time.monotonic(), vendor.busy)
        if refusal is not None:
            vendor.refused += 1
            self._send(*refusal, b'{"error": {"message": "slow down", "type": "rate_limit_error"}}')
            return
        vendor.busy += 1
        vendor.peak = max(vendor.peak, vendor.busy)
        asyncio.get_running_loop().call_later(vendor.latency, self._answer)

    def _answer(self) -> None:
        self._vendor.busy -= 1
        self._vendor.served += 1
        self._send(200, self._vendor.rule.headers(time.monotonic()), REPLY)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        lines = [f"HTTP/1.1 {status} Fake", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@contextmanager
def serving(rule: Rule, latency: float) -> Iterator[Vendor]:
    """Serve in a thread, and yield the vendor."""
    vendor = Vendor(rule, latency)
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        async with await vendor.listen():
            ready.set()
            await stopped.wait()

    stopped = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="limited-vendor", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield vendor
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)
        loop.close()


@contextmanager
def running(slots: int, latency: float) -> Iterator[str]:
    """Run a vendor with slots in a process of its own, whose CPU time is in no figure; yield its address."""
    command = [sys.executable, __file__, str(slots), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()
            server.wait(10)


def facts(url: str) -> dict[str, Any]:
    """Return the counts of a vendor in another process."""
    with urllib.request.urlopen(f"{url}/facts", timeout=10) as reply:
        counts: dict[str, Any] = json.load(reply)
    return counts


async def _main(slots: int, latency: float) -> None:
    vendor = Vendor(Slots(slots), latency)
    async with await vendor.listen():
        print(vendor.url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the one that started it ends


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))
