"""A vendor repeats the API key in every part of its replies; no result, event, log or output of the run contains it."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llm_council import Council, CouncilConfig, CouncilResult, RetryPolicy
from llm_council.events import Event
from llm_council.models._convert import dump
from llm_council.providers.compatible import OpenAICompatibleProvider

KEY = "zq9-canary-of-the-run-7f3k"
TOKEN = "wv4-second-canary-8m2"


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"id-{KEY}",
        "object": "chat.completion",
        "model": f"model-{KEY}",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        **more,
    }


def events(*texts: str, end: bool = True) -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}], "model": f"m-{KEY}"} for text in texts]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x": KEY}] if end else []
    lines = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return lines + (b"data: [DONE]\n\n" if end else b"")


REPEATED = f"I was called with {KEY} and {TOKEN}."
ANSWER = json.dumps({"answer": REPEATED, "reasoning": KEY, KEY: TOKEN})
JSON, SSE, HTML = "application/json", "text/event-stream", "text/html"

REPLIES: dict[str, tuple[int, str, bytes]] = {
    "answer": (200, JSON, json.dumps(chat(ANSWER, system_fingerprint=KEY)).encode()),
    "text": (200, JSON, json.dumps(chat(REPEATED)).encode()),
    "refused": (401, JSON, json.dumps({"error": {"message": REPEATED, "code": KEY, "type": TOKEN}}).encode()),
    "failed": (500, HTML, f"<h1>{REPEATED}</h1>".encode()),
    "rejected": (400, JSON, json.dumps({"error": REPEATED}).encode()),
    "html": (200, HTML, f"{KEY} {REPEATED}".encode()),
    "junk": (200, JSON, f'{{"choices": "{KEY}", "x": "{TOKEN}"'.encode()),
    "odd": (200, JSON, json.dumps({"choices": [{"message": {"content": [KEY]}}]}).encode()),
    "error in 200": (200, JSON, json.dumps({"error": {"message": REPEATED, "code": KEY}}).encode()),
    "stream": (200, SSE, events(*ANSWER)),
    "cut stream": (200, SSE, events(*REPEATED, end=False)),
    "error in stream": (
        200,
        SSE,
        events(REPEATED, end=False) + f'data: {{"error": {{"message": "{KEY}"}}}}\n\n'.encode(),
    ),
    "withheld": (200, JSON, json.dumps(chat(REPEATED)).replace('"stop"', '"content_filter"').encode()),
    "tools": (200, JSON, json.dumps(chat("")).replace('"content": ""', f'"refusal": "{KEY}"').encode()),
}


class RepeatingVendor(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.request_headers.append(str(self.headers))
        status, kind, body = REPLIES[self.server.mode]
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "X-Request-Id": f"request-{KEY}",
            "Set-Cookie": f"session={TOKEN}",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def vendor() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), RepeatingVendor) as server:
        server.daemon_threads = True
        server.request_headers = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that any library logs, at every level."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


def representations(value: Any) -> Iterator[tuple[str, str]]:
    """Yield each text form of a value that could be printed, logged or stored, with the name of the form."""
    yield "repr", repr(value)
    yield "str", str(value)
    yield "pickle", pickle.dumps(value).decode("latin-1")
    yield "copy", repr(copy.deepcopy(value))
    yield "json", json.dumps(dump(value), default=repr)
    if isinstance(value, BaseException):
        shown = traceback.TracebackException.from_exception(value, capture_locals=True)
        yield "traceback", "".join(shown.format())
        yield "facts", repr(vars(value))
    if isinstance(value, CouncilResult):
        yield "markdown", value.to_markdown()
        yield "html", value.to_html()
        yield "result", json.dumps(value.to_dict())


def find_leaks(values: list[Any]) -> list[str]:
    found = []
    for value in values:
        for way, text in representations(value):
            found += [f"{type(value).__name__}: {way}: {text}" for canary in (KEY, TOKEN) if canary in text]
    return found


@pytest.mark.parametrize("mode", REPLIES)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_no_output_of_a_run_contains_the_key(
    vendor: Any, logged: io.StringIO, mode: str, streamed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    vendor.mode = mode
    seat = OpenAICompatibleProvider(
        name="repeating",
        base_url=f"http://127.0.0.1:{vendor.server_address[1]}/v1",
        api_key=KEY,
        headers={"X-Extra-Token": TOKEN},
        default_model="a-model",
    )
    received: list[Event] = []
    config = CouncilConfig(retry=RetryPolicy(max_retries=1, base=0.0), max_repairs=1)
    with Council([seat, seat], config=config, listeners=[received.append]) as council:
        if streamed:
            with council.stream("What was I called with?") as stream:
                words = "".join(getattr(event, "text", "") or "" for event in stream)
            result = stream.result
            assert KEY not in words
            assert TOKEN not in words
        else:
            result = council.run_sync("What was I called with?")
        assert KEY in vendor.request_headers[0], "the key is sent to the vendor"
        assert TOKEN in vendor.request_headers[0]
        values: list[Any] = [result, council, council.config, seat, *received, *result.errors.values()]
        values += [error for error in (result.error,) if error is not None]
        values = [value for value in values if value is not council]
        assert find_leaks(values) == []
        assert KEY not in repr(council)
    out, err = capfd.readouterr()
    for text in (logged.getvalue(), out, err):
        assert KEY not in text
        assert TOKEN not in text
