"""Seats before vendors that fail, and a planted key that must be found nowhere afterwards."""

from __future__ import annotations

import copy
import io
import logging
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fault_dialects import DIALECTS, Dialect
from fault_keys import KEY, TOKEN
from fault_server import Behaviour, FaultServer, Wire

from llm_council import _runtime
from llm_council.errors import CouncilError
from llm_council.middleware import Retry
from llm_council.models import GenerateRequest, GenerateResponse, RetryPolicy
from llm_council.models.reply import join
from llm_council.transports import HttpxTransport, RequestsTransport

ASK = GenerateRequest(prompt="What is 6 times 7?")


@pytest.hookimpl(tryfirst=True)  # before the choice by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder: they have an environment of their own."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("faults")


SOCKETS = [
    ("openai", "httpx"),
    ("openai", "requests"),
    ("anthropic", "httpx"),
    ("gemini", "requests"),
    ("ollama", "httpx"),
]
"""Every dialect and every transport, though not each with each: neither knows of the other."""


HERE = str(Path(__file__).parent)

benches: list[Bench] = []  # of the test that runs


class Bench:
    """One dialect on one transport: seats, what they answer, and everything that they tell."""

    def __init__(self, dialect: Dialect, transport: str) -> None:
        self.dialect = dialect
        self.transport = transport
        self.told: list[CouncilError] = []
        self.answers: list[GenerateResponse] = []
        self.made: list[Any] = []
        self.calls: list[httpx.Request] = []
        self.waits: list[float] = []
        benches.append(self)

    def seat(self, url: str = "https://vendor.example/v1", *, retries: int = 2, **options: Any) -> Retry:
        """Make a provider of this dialect that tries again at once."""
        if self.transport == "requests":
            options.setdefault("transport", RequestsTransport())
        elif self.dialect.name == "anthropic":  # else the vendor's own client moves the bytes, where it is installed
            options.setdefault("transport", HttpxTransport())
        options.setdefault("headers", {"X-Second-Token": TOKEN})
        options.setdefault("api_key", KEY)
        options.setdefault("default_model", "m-1")
        provider = self.dialect.cls(base_url=url, **options)
        self.made += [provider, options.get("transport")]
        return Retry(provider, RetryPolicy(max_retries=retries), sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def mocked(self, *answers: Any, **options: Any) -> Retry:
        """Make a seat whose vendor gives these answers in turn, the last one for ever.

        An answer is bytes (200, JSON), a pair of status and bytes, or a triple with headers.
        """

        def handle(request: httpx.Request) -> httpx.Response:
            said = answers[min(len(self.calls), len(answers) - 1)]
            self.calls.append(request)
            status, body, headers = (*said, {})[:3] if isinstance(said, tuple) else (200, said, {})
            return httpx.Response(status, headers={"content-type": "application/json", **headers}, content=body)

        return self.seat(transport=httpx.MockTransport(handle), **options)

    def ask(self, seat: Any, mode: str = "whole", **facts: Any) -> GenerateResponse:
        """Ask in this mode and return the whole answer."""
        request = GenerateRequest(prompt=ASK.prompt, **facts)
        try:
            answer = seat.generate_sync(request) if mode == "whole" else join(list(seat.stream_sync(request)))
        except CouncilError as error:
            self.told.append(error)
            raise
        self.answers.append(answer)
        return answer

    def fails(
        self, seat: Any, kind: type[CouncilError], mode: str = "whole", *, tries: int | None = None, **facts: Any
    ) -> Any:
        """Ask, and return the error, of exactly this kind and with all its facts."""
        began = time.monotonic()
        with pytest.raises(CouncilError) as caught:
            self.ask(seat, mode, **facts)
        error = caught.value
        assert type(error) is kind, f"{type(error).__name__}: {error}"
        assert time.monotonic() - began < 20
        assert error.provider == self.dialect.name
        assert error.elapsed is not None
        assert error.message
        assert len(error.message) <= 1024
        assert error.message.isprintable() or "\n" in error.message
        if tries is not None:
            assert len(error.attempts) == tries, error.attempts
        return error

    def close(self) -> None:
        """Close what blocking calls opened."""
        for thing in self.made:
            if isinstance(thing, RequestsTransport):
                thing._session.close()
            elif isinstance(thing, HttpxTransport):
                _runtime.call(thing.aclose)
            elif thing is not None and hasattr(thing, "close"):
                thing.close()

    def shows(self) -> Iterator[tuple[str, str]]:
        """Yield all that was told, with where it was."""
        for error in self.told:
            told = traceback.TracebackException.from_exception(error, capture_locals=True)
            told.stack = traceback.StackSummary.from_list(frame for frame in told.stack if HERE not in frame.filename)
            yield "a traceback with its locals", "".join(told.format())
            yield "a pickled error", pickle.dumps(error).decode("latin-1")
            yield "a copied error", repr(vars(copy.deepcopy(error)))
            cause: BaseException | None = error
            while cause is not None:
                yield "an error and its causes", f"{cause!r} {cause} {vars(cause)} {cause.args}"
                cause = cause.__cause__ or cause.__context__
        for answer in self.answers:
            yield "an answer", repr(answer)
        for thing in self.made:
            yield "a provider or its transport", f"{thing!r} {vars(thing) if hasattr(thing, '__dict__') else ''}"


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for dialect in DIALECTS.values():
        monkeypatch.setenv(dialect.cls.API_KEY_ENV, KEY)


@pytest.fixture(autouse=True)
def _canary(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Listen to every logger at DEBUG; afterwards the key is in nothing that a fault made anyone say."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    shown = [("the logs", said.getvalue()), ("what was printed", "".join(capfd.readouterr()))]
    for made in benches:
        shown += made.shows()
        made.close()
    benches.clear()
    for where, text in shown:
        for key in (KEY, TOKEN):
            assert key not in text, f"the key is in {where}: {text[max(0, text.index(key) - 300) :][:600]}"


@pytest.fixture
def bench() -> Bench:
    """Give a bench for rows that know no dialect."""
    return Bench(DIALECTS["openai"], "httpx")


@pytest.fixture(params=SOCKETS, ids=["-".join(pair) for pair in SOCKETS])
def vendor(request: pytest.FixtureRequest) -> Bench:
    """Give each dialect and each transport, for faults on real sockets."""
    name, transport = request.param
    return Bench(DIALECTS[name], transport)


@pytest.fixture(params=list(DIALECTS))
def mock(request: pytest.FixtureRequest) -> Bench:
    """Give each dialect, for faults in what was said."""
    return Bench(DIALECTS[request.param], "mock")


@pytest.fixture(params=["whole", "stream"])
def mode(request: pytest.FixtureRequest) -> str:
    """Ask for whole answers, and for streams."""
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultServer]]:
    """Start fault servers; all are stopped after the test."""
    servers: list[FaultServer] = []

    def start(*behaviours: Behaviour, tls: bool | Path = False) -> FaultServer:
        servers.append(FaultServer(*(behaviours or (Wire.keep_answering,)), tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def closed_port() -> int:
    """Return a port of 127.0.0.1 that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
