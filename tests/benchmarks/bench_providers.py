"""What a call through the door costs, as ratios against raw clients in the same run.

Run it by hand on a quiet machine: ``python tests/benchmarks/bench_providers.py``. The server is a process of its own,
so that the CPU counted is the client's. Ratios are of medians over rounds that alternate between the two.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import aiohttp
import httpx

from llm_council.providers.base import GenerateRequest, call, stream
from llm_council.providers.compatible import OpenAICompatibleProvider

SERVER = r"""
import asyncio, json, sys
REPLY = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0,
    "message": {"role": "assistant", "content": "forty-two, " * 40}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 90, "total_tokens": 102}}).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(REPLY), REPLY)
def event(delta, finish=None):
    return b"data: " + json.dumps({"id": "x", "model": "m", "choices": [
        {"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
EVENTS = [event({"content": "word "}) for _ in range(500)] + [event({}, "stop"), b"data: [DONE]\n\n"]
BODY = b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in EVENTS) + b"0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
class Server(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.buffer = transport, b""
    def data_received(self, data):
        self.buffer += data
        while True:
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found: return
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
            size = int(lengths[0].split(b":")[1]) if lengths else 0
            if len(rest) < size: return
            body, self.buffer = rest[:size], rest[size:]
            self.transport.write(HEAD + BODY if b'"stream":true' in body.replace(b" ", b"") else WHOLE)
async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
asyncio.run(main())
"""
PAYLOAD = {"model": "m", "messages": [{"role": "user", "content": "What is 6 times 7?"}]}
REQUEST = GenerateRequest(prompt="What is 6 times 7?")
ROUNDS = 7


async def _at_once(work: Callable[[], Awaitable[object]], calls: int, width: int) -> float:
    """Return the CPU seconds of one of so many calls, so many in flight."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await work()

    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(width)))
    return (time.process_time() - began) / calls


async def asynchronous(url: str) -> None:
    provider = OpenAICompatibleProvider(base_url=f"{url}/v1", default_model="m")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def raw() -> object:
            async with session.post(f"{url}/v1/chat/completions", json=PAYLOAD) as reply:
                return await reply.json()

        async def ours() -> object:
            return await call(provider, REQUEST)

        for width in (1, 32, 256):
            calls = max(600, width * 4)
            for work in (raw, ours):
                await _at_once(work, width * 2, width)
            pairs = [(await _at_once(raw, calls, width), await _at_once(ours, calls, width)) for _ in range(ROUNDS)]
            _tell(f"async CPU per call, {width} in flight, against aiohttp", pairs)

        client = httpx.AsyncClient()

        async def raw_stream() -> None:
            body = {**PAYLOAD, "stream": True}
            async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
                async for _ in reply.aiter_lines():
                    pass

        async def our_stream() -> None:
            async for _ in stream(provider, REQUEST):
                pass

        for work in (raw_stream, our_stream):
            await _at_once(work, 3, 1)
        pairs = [(await _at_once(raw_stream, 10, 1), await _at_once(our_stream, 10, 1)) for _ in range(ROUNDS)]
        _tell("stream CPU per 500 events in a burst, against httpx", pairs)
        await client.aclose()
    await provider.aclose()


def blocking(url: str) -> None:
    client = httpx.Client()
    provider = OpenAICompatibleProvider(base_url=f"{url}/v1", default_model="m")

    def p50(work: Callable[[], object], calls: int = 300) -> float:
        times = []
        for _ in range(calls):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    def raw() -> object:
        return client.post(f"{url}/v1/chat/completions", json=PAYLOAD).json()

    def ours() -> object:
        return provider.generate_sync(REQUEST)

    for work in (raw, ours):
        p50(work, 30)
    _tell("blocking call, p50, against httpx.Client", [(p50(raw), p50(ours)) for _ in range(ROUNDS)])
    provider.close()
    client.close()


def _tell(what: str, pairs: list[tuple[float, float]]) -> None:
    raw, ours = (statistics.median(side) * 1e3 for side in zip(*pairs, strict=True))
    print(f"{what}: {ours:.3f} ms / {raw:.3f} ms = {ours / raw:.2f}")


def main() -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        asyncio.run(asynchronous(url))
        blocking(url)
    finally:
        server.stdin.close()
        server.wait(10)


if __name__ == "__main__":
    main()
