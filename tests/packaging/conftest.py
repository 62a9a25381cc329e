"""A server on 127.0.0.1 that the installed programs ask, and what it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

ANSWER = json.dumps({"answer": "Yes.", "reasoning": "No prime up to 45 divides it. RIGHT, YES, FLAWLESS"})


class Vendor(ThreadingHTTPServer):
    """Answers every question alike, but from the call ``held`` on, not before it is released."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[dict[str, Any]] = []
        self.held = 0
        self.is_held, self.released = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that were killed."""


class Handler(BaseHTTPRequestHandler):
    server: Vendor
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.calls.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if 0 < self.server.held <= len(self.server.calls):
            self.server.is_held.set()
            self.server.released.wait(60)
        message = {"role": "assistant", "content": ANSWER}
        body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _serve() -> Iterator[Vendor]:
    with Vendor() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


vendor = pytest.fixture(_serve, name="vendor")
module_vendor = pytest.fixture(_serve, scope="module", name="module_vendor")
