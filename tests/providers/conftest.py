"""Adapters to call through ``call``, and a vendor on a real socket that answers by a script."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from llm_council.providers.base import GenerateRequest, ProviderAdapter, ProviderCapabilities

EVERYTHING = ProviderCapabilities(
    streaming=True, tool_use=True, structured_output=True, multimodal=True, reasoning=True, max_tokens=None
)


@pytest.fixture
def made() -> Callable[..., ProviderAdapter]:
    """Make an adapter whose ``generate`` is the given function of the request."""

    def make(generate: Any, *, capabilities: ProviderCapabilities = EVERYTHING, **methods: Any) -> ProviderAdapter:
        def method(function: Any) -> Any:
            return staticmethod(function)

        body = {"name": "made", "capabilities": capabilities, "generate": method(generate)}
        body |= {name: method(function) for name, function in methods.items()}
        return type("Made", (ProviderAdapter,), body)()

    return make


@pytest.fixture
def ask() -> GenerateRequest:
    return GenerateRequest(prompt="What is 6 times 7?")


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    protocol_version = "HTTP/1.1"
    server: Any
    body: Any = None

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = json.loads(self.rfile.read(length)) if length else None
        seen = SimpleNamespace(command=self.command, path=self.path, headers=self.headers, body=self.body)
        self.server.seen.append(seen)  # one handler serves all requests of a connection
        self.server.connections.add(self.client_address)
        try:
            self.server.script(self)
        except OSError:
            self.server.hung_up.set()

    do_GET = do_POST = _handle

    def say(self, value: Any, status: int = 200, content_type: str = "application/json", **headers: str) -> None:
        """Answer with a whole body: bytes, or a value as JSON."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def answer(self, text: str | None = "42", **facts: Any) -> None:
        """Answer as a chat does."""
        message = {"role": "assistant", "content": text}
        self.say(
            {
                "id": "gen-1",
                "model": (self.body or {}).get("model"),
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 2},
                **facts,
            },
            x_request_id="req-1",
        )

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        """Send bytes of a stream."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, value: Any) -> None:
        self.send(b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n")

    def piece(self, text: str = "", finish: str | None = None) -> None:
        """Send a piece of an answer."""
        delta = {"content": text} if text else {}
        self.event({"id": "gen-1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def end_stream(self) -> None:
        self.event(b"[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def chat(self) -> None:
        """Answer whatever is asked, whole or in pieces."""
        if self.path.endswith("/models"):
            self.say({"data": [{"id": "m"}, {"id": "n"}]})
        elif self.body.get("stream"):
            self.begin_stream()
            self.piece("4")
            self.piece("2")
            self.piece(finish="stop")
            self.end_stream()
        else:
            self.answer()

    def log_message(self, *args: Any) -> None:
        pass


class Vendor(ThreadingHTTPServer):
    """A server; ``script`` is called with each exchange."""

    daemon_threads = True
    request_queue_size = 128  # a burst of connections must not overflow it: the kernel would cut some

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.script: Callable[[Exchange], None] = Exchange.chat
        self.seen: list[Any] = []
        self.connections: set[Any] = set()
        self.hung_up = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def body(self) -> Any:
        """The last request's."""
        return self.seen[-1].body

    @property
    def headers(self) -> Any:
        """The last request's."""
        return self.seen[-1].headers


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    server = Vendor()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)
