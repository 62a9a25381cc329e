"""Measure the CPU of one call over each way to send it, as ratios to raw aiohttp in the same run.

Run ``python tests/benchmarks/bench_transports.py [--calls 1500] [--rounds 5] [--stock]``. The server is another
process on 127.0.0.1, so that only the client's CPU counts; each figure is the best of the rounds, which take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import httpx

from llm_council.transports import HttpRequest, HttpxTransport, new_client

SERVER = r"""
import asyncio
ANSWER = b'{"choices":[{"message":{"content":"an answer of usual size"},"finish_reason":"stop"}]}'.ljust(1200)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Request-Id: r1\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
EVENT = b'data: {"choices":[{"delta":{"content":"word "}}]}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)

class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if len(self.buffer) < end + 4 + size:
                return
            self.buffer = self.buffer[end + 4 + size :]
            if b"/stream" in head.split(b"\r\n")[0]:
                asyncio.get_running_loop().create_task(self.stream())
            else:
                self.transport.write(WHOLE)

    async def stream(self):
        self.transport.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            self.transport.write(CHUNK)
            await asyncio.sleep(0.001)
        self.transport.write(b"0\r\n\r\n")

async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
BODY = b'{"model":"m","messages":[{"role":"user","content":"What is measured here?"}]}'
HEADERS = {"authorization": "Bearer none", "content-type": "application/json", "accept": "application/json"}
CHUNKS = 200

Call = Callable[[], Awaitable[object]]


async def load(call: Call, in_flight: int, calls: int) -> float:
    """Make the calls, so many at a time, and return the CPU seconds of one."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            await call()

    started = time.process_time()
    await asyncio.gather(*[work() for _ in range(in_flight)])
    return (time.process_time() - started) / calls


async def compare(ways: dict[str, Call], in_flight: int, calls: int, rounds: int) -> dict[str, float]:
    """Return the best CPU seconds per call of each way."""
    best = dict.fromkeys(ways, float("inf"))
    for call in ways.values():
        await load(call, in_flight, in_flight * 2)
    for _ in range(rounds):
        for name, call in ways.items():
            best[name] = min(best[name], await load(call, in_flight, calls))
    return best


def show(title: str, best: dict[str, float], unit: float, word: str) -> None:
    """Print one row of ratios to the first way."""
    base = next(iter(best.values()))
    print(
        f"{title:>14}  "
        + "  ".join(f"{name} {seconds * unit:.3f} {word} = {seconds / base:.2f}x" for name, seconds in best.items())
    )


async def main(port: int, options: argparse.Namespace) -> None:
    """Measure whole replies at 1, 32 and 256 in flight, then a paced stream."""
    url = f"http://127.0.0.1:{port}/v1/chat"
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    transport = HttpxTransport(trust_env=False)
    client = new_client(trust_env=False)
    pool = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    stock = httpx.AsyncClient(timeout=None, limits=pool, trust_env=False)

    async def by_aiohttp() -> None:
        async with session.post(url, data=BODY, headers=HEADERS) as response:
            await response.read()

    async def by_transport() -> None:
        await transport.send(HttpRequest(url=url, headers=HEADERS, body=BODY))

    async def by_client() -> None:
        await client.post(url, content=BODY, headers=HEADERS)

    async def by_stock() -> None:
        await stock.post(url, content=BODY, headers=HEADERS)

    ways: dict[str, Call] = {"aiohttp": by_aiohttp, "HttpxTransport": by_transport, "new_client": by_client}
    if options.stock:
        ways["stock httpx"] = by_stock
    for in_flight in (1, 32, 256):
        show(f"{in_flight} in flight", await compare(ways, in_flight, options.calls, options.rounds), 1e3, "ms")

    async def stream_by_transport() -> None:
        async with transport.stream(HttpRequest(url=url + "/stream", headers=HEADERS, body=BODY)) as reply:
            async for _ in reply:
                pass

    async def stream_by_stock() -> None:
        async with stock.stream("POST", url + "/stream", content=BODY, headers=HEADERS) as response:
            async for _ in response.aiter_bytes():
                pass

    streams: dict[str, Call] = {"stock httpx": stream_by_stock, "HttpxTransport": stream_by_transport}
    best = await compare(streams, 1, 4, options.rounds)
    show("paced chunk", {name: seconds / CHUNKS for name, seconds in best.items()}, 1e6, "us")
    await session.close()
    await transport.aclose()
    await client.aclose()
    await stock.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stock", action="store_true", help="measure httpx's own pool too: slow")
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            asyncio.run(main(int(server.stdout.readline()), parser.parse_args()))
        finally:
            server.kill()
