"""Slow clients, many clients, and a server that stops: what each holds, and for how long (tox -e serve)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from llm_council import Council, CouncilConfig
from llm_council.models import Budget, GenerateRequest, GenerateResponse, Usage
from llm_council.serve.access import Access, Key
from llm_council.store import Store
from llm_council.testing.fakes import ScriptedProvider

pytestmark = pytest.mark.serve

uvicorn = pytest.importorskip("uvicorn", reason="the environment serve installs it")

from llm_council.serve import guard, runs, server  # noqa: E402
from llm_council.serve.app import make_app  # noqa: E402

TOKEN = "a-token-of-some-length"
HOST = "127.0.0.1:8642"
HEADERS = [
    (b"host", HOST.encode()),
    (b"authorization", f"Bearer {TOKEN}".encode()),
    (b"content-type", b"application/json"),
]


@pytest.fixture
def anyio_backend() -> str:
    """The server runs on asyncio."""
    return "asyncio"


@attrs.define
class Exchange:
    """A request to an application, and what it sent.

    Attributes:
        body: the pieces of the body.
        sent: the messages of the application.
        leave: the client leaves once this is set.
        take: called before a message is taken, as a slow client takes its time.
    """

    body: list[bytes]
    sent: list[Any] = attrs.field(factory=list)
    leave: anyio.Event = attrs.field(factory=anyio.Event)
    take: Callable[[Any], Any] | None = None
    ends: bool = True

    async def receive(self) -> Any:
        """Return the next piece, and that the client has left once it has."""
        if self.body:
            piece = self.body.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.body) or not self.ends}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a message."""
        if self.take is not None:
            await self.take(message)
        self.sent.append(message)

    @property
    def status(self) -> int:
        """The status of the reply."""
        return int(self.sent[0]["status"])

    @property
    def text(self) -> str:
        """The body of the reply."""
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    @property
    def answer(self) -> str:
        """The words of a stream."""
        data = [line.removeprefix("data: ") for line in self.text.split("\n\n") if line.startswith("data: ")]
        assert data.pop() == "[DONE]"
        return "".join(json.loads(one)["choices"][0]["delta"].get("content") or "" for one in data)


def chat(**fields: Any) -> bytes:
    """Return the body of a request."""
    asked = {"model": "council/single", "messages": [{"role": "user", "content": "2+2?"}], **fields}
    return json.dumps(asked).encode()


async def ask(app: Any, exchange: Exchange) -> Exchange:
    """Send a request to an application, and return the exchange once it has been answered."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "root_path": "",
        "query_string": b"",
        "headers": HEADERS,
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
    }
    await app(scope, exchange.receive, exchange.send)
    return exchange


@contextmanager
def app_of(
    seats: list[ScriptedProvider], key: Key | None = None, config: CouncilConfig | None = None, grace: float = 30.0
) -> Iterator[Any]:
    """Return the application of a council."""
    council = Council(seats, config=config or CouncilConfig())
    yield make_app(council, Access([key or Key(name="ann", secret=TOKEN, at_once=500)]), frozenset({HOST}), grace)


@pytest.mark.anyio
async def test_two_hundred_clients_at_once_lose_no_word_of_their_streams() -> None:
    words = " ".join(f"word{number}" for number in range(20))
    seat = ScriptedProvider(words, name="ann", pieces=20)
    exchanges = [Exchange([chat(stream=True)]) for _ in range(200)]
    with app_of([seat], Key(name="ann", secret=TOKEN, per_minute=500, at_once=500)) as app:
        async with anyio.create_task_group() as group:
            for exchange in exchanges:
                group.start_soon(ask, app, exchange)
    assert [exchange.answer for exchange in exchanges] == [words] * 200


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_its_calls_and_pays_what_is_known(stream: bool) -> None:
    key = Key(name="ann", secret=TOKEN, usd=5.0)
    seat = ScriptedProvider("x", name="ann", delay=float("inf"))
    exchange = Exchange([chat(stream=stream)])
    with app_of([seat], key) as app:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, app, exchange)
            with anyio.fail_after(20):
                while not seat.requests:
                    await anyio.sleep(0)
                assert key.reserved == 5.0
                exchange.leave.set()
    assert seat.cancelled == 1
    # The call may have been billed, so its estimate counts, and not all that was reserved.
    assert 0 < key.spent < 0.1
    assert (key.reserved, key.running) == (0, 0)


@pytest.mark.anyio
async def test_a_run_whose_price_is_unknown_counts_as_estimated() -> None:
    class Unpriced(ScriptedProvider):
        async def generate(self, request: GenerateRequest) -> GenerateResponse:
            answer = await super().generate(request)
            return attrs.evolve(answer, usage=Usage(input_tokens=1_000, output_tokens=1_000))

    key = Key(name="ann", secret=TOKEN, usd=5.0)
    with app_of([Unpriced("yes", name="ann")], key, CouncilConfig(budget=Budget(usd=1.0))) as app:
        assert (await ask(app, Exchange([chat()]))).status == 200
    assert key.spent == pytest.approx(0.02)  # the assumed prices of a thousand tokens in and out
    assert key.reserved == 0


@pytest.mark.anyio
async def test_a_body_that_does_not_arrive_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    with app_of([ScriptedProvider("x", name="ann")]) as app:
        exchange = await ask(app, Exchange([b'{"model":'], ends=False))
    assert exchange.status == 408
    assert json.loads(exchange.text)["error"]["code"] == "request_timeout"


@pytest.mark.anyio
async def test_a_client_that_takes_nothing_loses_its_stream_and_its_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SEND_TIMEOUT", 0.05)

    async def hang(message: Any) -> None:
        if b"content" in message.get("body", b""):
            await anyio.sleep_forever()

    key = Key(name="ann", secret=TOKEN)
    seat = ScriptedProvider("x", name="ann", delay=float("inf"))
    with app_of([seat], key) as app, anyio.fail_after(20):
        exchange = await ask(app, Exchange([chat(stream=True)], take=hang))
    assert "[DONE]" not in exchange.text
    assert key.running == 0


@pytest.mark.anyio
async def test_a_silent_stream_is_kept_open_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PING", 0.01)
    with app_of([ScriptedProvider("yes", name="ann", delay=0.2)]) as app:
        exchange = await ask(app, Exchange([chat(stream=True)]))
    assert ": ping\n\n" in exchange.text
    assert exchange.answer == "yes"


@pytest.mark.anyio
async def test_a_key_has_so_many_runs_at_once() -> None:
    key = Key(name="ann", secret=TOKEN, at_once=1)
    seat = ScriptedProvider("yes", name="ann", delay=float("inf"))
    first = Exchange([chat(stream=True)])
    with app_of([seat], key) as app:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, app, first)
            while not seat.requests:
                await anyio.sleep(0)
            refused = await ask(app, Exchange([chat()]))
            first.leave.set()
    assert refused.status == 429
    assert (b"retry-after", b"1") in refused.sent[0]["headers"]
    assert json.loads(refused.text)["error"]["code"] == "rate_limit_exceeded"
    assert key.running == 0


@pytest.mark.anyio
async def test_a_server_has_so_many_requests_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_AT_ONCE", 0)
    with app_of([ScriptedProvider("yes", name="ann")]) as app:
        refused = await ask(app, Exchange([chat()]))
    assert refused.status == 503
    assert (b"retry-after", b"1") in refused.sent[0]["headers"]


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_that_the_end_of_the_server_cuts_off_is_an_error_that_names_it(stream: bool) -> None:
    seat = ScriptedProvider("yes", name="ann", delay=float("inf"))
    exchange = Exchange([chat(stream=stream)])
    with app_of([seat], grace=0.0) as app:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, app, exchange)
            group.start_soon(app.state.shutdown.watch)
            with anyio.fail_after(20):
                while not seat.requests:
                    await anyio.sleep(0)
                app.state.shutdown.begin()
    assert seat.cancelled == 1
    assert exchange.status == (200 if stream else 503)
    *_, last = [line for line in exchange.text.split("\n\n") if line]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert (error["code"], error["type"]) == ("server_stopped", "server_error")
    assert "the server stopped before the run" in error["message"]


@pytest.mark.anyio
async def test_a_connection_whose_head_does_not_arrive_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)
    with app_of([ScriptedProvider("yes", name="ann")]) as app, server.bind(server.Serving(port=0)) as listening:
        config = uvicorn.Config(app, log_level="error", http=server._Connection, lifespan="off")
        running = uvicorn.Server(config)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(running.serve, sockets=[listening]))
            port = listening.getsockname()[1]
            with anyio.fail_after(20):
                for begun in (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"):
                    async with await anyio.connect_tcp("127.0.0.1", port) as connection:
                        if begun:
                            await connection.send(begun)
                        with pytest.raises(anyio.EndOfStream):
                            await connection.receive()
            running.should_exit = True


SLOW = '''
"""Run the command with a seat that never answers; its first words come at once."""
import sys
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from llm_council.cli import main

with registry.overriding(ann=ScriptedProvider("yes", name="ann", delay=float("inf"))):
    main()
'''


def _is_listening(url: str) -> bool:
    import httpx

    try:
        httpx.get(f"{url}/models", trust_env=False)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_server_that_is_told_to_stop_ends_quietly_and_leaves_its_run_resumable(
    tmp_path: Path, signals: list[signal.Signals]
) -> None:
    import httpx

    (tmp_path / "start.py").write_text(SLOW)
    folders = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(tmp_path))
    store = str(tmp_path / "runs.db")
    command = [sys.executable, str(tmp_path / "start.py"), "serve", "-p", "ann", "--port", "0", "--store", store]
    command += ["--grace", "0" if len(signals) == 1 else "60"]
    with subprocess.Popen(
        command, env={**os.environ, **folders}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().split()[1]
            headers = {"authorization": f"Bearer {running.stdout.readline().split()[1]}"}
            headers["content-type"] = "application/json"
            request = {"content": chat(stream=True), "headers": headers, "trust_env": False, "timeout": 30}
            with httpx.stream("POST", f"{url}/chat/completions", **request) as reply:
                lines = reply.iter_lines()
                next(lines)
                while not any(run.in_flight for run in Store(store).runs_sync()):
                    pass
                running.send_signal(signals[0])
                if len(signals) == 1:
                    data = [line.removeprefix("data: ") for line in lines if line]
                    assert json.loads(data[-1])["error"]["code"] == "server_stopped"
                else:
                    while _is_listening(url):  # until the first signal has been seen
                        pass
                    running.send_signal(signals[1])
                    with pytest.raises(httpx.RemoteProtocolError):
                        list(lines)
            _, err = running.communicate(timeout=30)
        finally:
            running.kill()
    assert "Traceback" not in err
    assert running.returncode == (-signal.SIGTERM if len(signals) == 1 else 130)
    (stored,) = Store(store).runs_sync()
    assert stored.status in ("interrupted", "cancelled")
