"""The server that all clients call: a process of its own, whose CPU time is in no figure.

The path says how it answers: ``/MILLISECONDS/KIND/...``: the delay before the answer, and the kind of answer, which is
``plain`` (an answer that fits our own advisor), ``peer`` (one that fits the peer's router), ``burst`` (a long stream
all at once), ``paced`` (a stream with a pause after each event) or ``timed`` (a slow stream, whose words tell when they
were sent). With ``"stream": true`` answers come word by word.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

EVENTS = 500
"""Events with text in a burst."""

PACED_EVENTS = 200
"""Events with text in a paced stream."""

PAUSE = 0.001

TIMED_EVENTS = 40
"""Events with text in a timed stream."""

TIMED_PAUSE = 0.25  # a stream of ten seconds

OURS = {"answer": "Forty-two, as six times seven is forty-two. " * 8, "reasoning": "Multiplication. " * 8}
PEERS = {
    "task_type": "planning",
    "risk_level": "low",
    "subagent_to_run": "planner",
    "reasoning": "Multiplication is a matter of planning, as everybody knows who ever planned one. " * 6,
}


def _whole(answer: dict[str, str]) -> bytes:
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": json.dumps(answer)},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 90, "total_tokens": 102},
    }
    body = json.dumps(reply).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})
    event = b"data: %b\n\n" % data.encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


WHOLE = {b"plain": _whole(OURS), b"peer": _whole(PEERS)}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = _event({"content": "word "})
LAST = _event({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
BURST = HEAD + WORD * EVENTS + LAST


def _streamed(answer: dict[str, str]) -> bytes:
    words = json.dumps(answer).split(" ")
    return (
        HEAD + b"".join(_event({"content": f"{word} "}) for word in words[:-1]) + _event({"content": words[-1]}) + LAST
    )


STREAMED = {b"plain": _streamed(OURS), b"peer": _streamed(PEERS), b"burst": BURST}


class _Connection(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._buffer = b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
            stop = end + 4 + size
            if len(self._buffer) < stop:
                return
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            _, delay, kind, _ = head.split(b" ", 2)[1].split(b"/", 3)
            if delay == b"0":
                self._answer(kind, body)
            else:
                self._loop.call_later(int(delay) / 1000, self._answer, kind, body)

    def _answer(self, kind: bytes, body: bytes) -> None:
        if kind == b"paced":
            self._loop.create_task(self._pace())
        elif kind == b"timed":
            self._loop.create_task(self._tell_times())
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._transport.write(STREAMED[kind])
        else:
            self._transport.write(WHOLE[kind])

    async def _pace(self) -> None:
        self._transport.write(HEAD)
        for _ in range(PACED_EVENTS):
            if self._transport.is_closing():  # the reader had enough
                return
            self._transport.write(WORD)
            await asyncio.sleep(PAUSE)
        self._transport.write(LAST)

    async def _tell_times(self) -> None:
        self._transport.write(HEAD)
        for _ in range(TIMED_EVENTS):
            # This clock counts from the start of the machine, so that all processes read the same.
            self._transport.write(_event({"content": f"{time.monotonic_ns()} "}))
            await asyncio.sleep(TIMED_PAUSE)
        self._transport.write(LAST)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until the process that started it ends


@contextmanager
def running() -> Iterator[str]:
    """Run the server and yield its address."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()
            server.wait(10)


if __name__ == "__main__":
    asyncio.run(_serve())
