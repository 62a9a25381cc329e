"""Providers whose vendors fail, and a search for the planted keys after each test."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
from fault_canary import OutputCollector, assert_no_keys, texts_of_error
from fault_dialects import VENDORS, Dialect
from fault_keys import KEY, TOKEN
from fault_rows import exemptions
from fault_server import Behaviour, FaultServer, Wire

from llm_council import _runtime
from llm_council.errors import CouncilError
from llm_council.middleware import Retry
from llm_council.models import GenerateRequest, GenerateResponse, RetryPolicy
from llm_council.models.reply import join
from llm_council.transports import HttpxTransport, RequestsTransport
from llm_council.transports._httpcore import HttpcoreTransport

ASK = GenerateRequest(prompt="What is 6 times 7?")


@pytest.hookimpl(tryfirst=True)  # before the choice by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, because these run in an environment of their own."""
    selected, left_out = [], []
    for item in items:
        if item.nodeid.startswith("tests/faults/"):
            item.add_marker("faults")
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        chosen = {params.get("mock"), params.get("vendor")}
        (left_out if chosen & {*exemptions(getattr(item, "function", None))} else selected).append(item)
    if left_out:
        left_out[0].config.hook.pytest_deselected(items=left_out)
        items[:] = selected


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test for all dialects of a transport concurrently, because most of them wait most of the time."""
    group = pyfuncitem.funcargs.get("vendor")
    if not isinstance(group, VendorGroup):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    group.run(lambda vendor: pyfuncitem.obj(**{**given, "vendor": vendor}), exemptions(pyfuncitem.function))
    return True


TRANSPORTS = {
    "httpx": list(VENDORS),
    "httpcore": ["openai", "ollama"],
    "requests": list(VENDORS),
    "sdk": ["anthropic"],
}
"""The dialects of each transport: httpx over aiohttp, httpx's own pool, requests, the vendor's SDK."""

WORKERS = 10

HERE = str(Path(__file__).parent)

vendors_of_test: list[VendorUnderTest] = []


class VendorUnderTest:
    """One dialect on one transport: its providers, their answers, and their errors."""

    def __init__(self, dialect: Dialect, transport: str) -> None:
        self.dialect = dialect
        self.transport = transport
        self.errors: list[CouncilError] = []
        self.answers: list[GenerateResponse] = []
        self.resources: list[Any] = []
        self.calls: list[httpx.Request] = []
        self.waits: list[float] = []
        vendors_of_test.append(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The ids by which ``exempt`` may name this vendor."""
        return str(self.dialect), self.transport, f"{self.dialect} over {self.transport}"

    def provider(self, url: str = "https://vendor.example/v1", *, retries: int = 2, **options: Any) -> Retry:
        """Return a provider of this dialect that retries without waiting."""
        if self.transport != "sdk":
            options.setdefault("transport", self._transport())
        options.setdefault("headers", {"X-Second-Token": TOKEN})
        options.setdefault("api_key", KEY)
        options.setdefault("default_model", self.dialect.model)
        provider = self.dialect.make(url, **options)
        self.resources += [provider, options.get("transport")]
        return Retry(provider, RetryPolicy(max_retries=retries), sleep=self._sleep)

    def _transport(self) -> Any:
        if self.transport == "requests":
            return RequestsTransport()
        if self.transport == "httpcore":
            self.resources.append(HttpcoreTransport())
            return HttpxTransport(transport=self.resources[-1])
        return HttpxTransport()

    def expected_attempts(self, most: int) -> int:
        """Return the number of attempts for a call that may have reached the vendor."""
        return 1 if self.dialect.once else most

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def mocked(self, *answers: Any, **options: Any) -> Retry:
        """Make a provider whose vendor gives these answers in turn, the last one for ever.

        An answer is bytes (200, JSON), a pair of status and bytes, or a triple with headers.
        """

        def handle(request: httpx.Request) -> httpx.Response:
            reply = answers[min(len(self.calls), len(answers) - 1)]
            status, body, headers = (*reply, {})[:3] if isinstance(reply, tuple) else (200, reply, {})
            if status == 200 and headers.get("content-type") == self.dialect.stream_type:
                setup_reply = self.dialect.around(request.method, request.url.path, "https://vendor.example")
                if setup_reply is not None:
                    return httpx.Response(201, headers={"content-type": "application/json"}, content=setup_reply)
            self.calls.append(request)
            return httpx.Response(status, headers={"content-type": "application/json", **headers}, content=body)

        return self.provider(transport=httpx.MockTransport(handle), **options)

    def ask(self, provider: Any, mode: str = "whole", **facts: Any) -> GenerateResponse:
        """Ask in this mode and return the whole answer."""
        request = GenerateRequest(**{"prompt": ASK.prompt, **facts})
        try:
            answer = provider.generate_sync(request) if mode == "whole" else join(list(provider.stream_sync(request)))
        except CouncilError as error:
            self.errors.append(error)
            raise
        self.answers.append(answer)
        return answer

    def fails(
        self, provider: Any, kind: type[CouncilError], mode: str = "whole", *, tries: int | None = None, **facts: Any
    ) -> Any:
        """Ask, and return the error, of exactly this kind and with all its facts."""
        began = time.monotonic()
        with pytest.raises(CouncilError) as caught:
            self.ask(provider, mode, **facts)
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

    async def aclose(self) -> None:
        """Close what calls in this event loop opened."""
        for thing in self.resources:
            if thing is not None and not isinstance(thing, RequestsTransport):
                await thing.aclose()

    def close(self) -> None:
        """Close what blocking calls opened."""
        for thing in self.resources:
            if isinstance(thing, RequestsTransport):
                thing._session.close()
            elif isinstance(thing, HttpxTransport | HttpcoreTransport):
                _runtime.call(thing.aclose)
            elif thing is not None and hasattr(thing, "close"):
                thing.close()

    def shown_texts(self) -> Iterator[tuple[str, str]]:
        """Yield every text that a caller can see, with its place."""
        for error in self.errors:
            yield from texts_of_error(error)
        for answer in self.answers:
            yield "an answer", repr(answer)
        for thing in self.resources:
            yield "a provider or its transport", f"{thing!r} {vars(thing) if hasattr(thing, '__dict__') else ''}"


class VendorGroup:
    """The vendors of one transport, one for each dialect."""

    def __init__(self, transport: str) -> None:
        if transport == "sdk":
            pytest.importorskip("anthropic")  # before a call's seconds run: it takes some to import
        self.vendors = [VendorUnderTest(VENDORS[name], transport) for name in TRANSPORTS[transport]]

    def run(self, row: Callable[[VendorUnderTest], None], exempt: dict[str, str]) -> None:
        """Run a test for each vendor; the first failure is raised, with a note that names the vendor."""

        def run_one(vendor: VendorUnderTest) -> None:
            try:
                row(vendor)
            except BaseException as error:
                error.add_note(f"{vendor.dialect} over {vendor.transport}")
                raise

        included = [vendor for vendor in self.vendors if not {*vendor.names} & {*exempt}]
        with ThreadPoolExecutor(WORKERS) as pool:
            for done in [pool.submit(run_one, vendor) for vendor in included]:
                done.result()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for dialect in VENDORS.values():
        if dialect.cls.API_KEY_ENV:  # Google's cloud has tokens
            monkeypatch.setenv(dialect.cls.API_KEY_ENV, KEY)


@pytest.fixture(autouse=True)
def _canary(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """After the test, search everything that was shown or written for the keys."""
    collector = OutputCollector(monkeypatch, tmp_path)
    try:
        yield
    finally:
        collector.close()
    vendors = [*vendors_of_test]
    vendors_of_test.clear()
    try:
        printed = ("what was printed", "".join(capfd.readouterr()))
        assert_no_keys(chain([printed], collector.shown_texts(), *(vendor.shown_texts() for vendor in vendors)))
    finally:
        for vendor in vendors:
            vendor.close()


@pytest.fixture
def one_vendor() -> VendorUnderTest:
    """Return a vendor for tests that do not depend on the dialect."""
    return VendorUnderTest(VENDORS["openai"], "httpx")


@pytest.fixture(params=list(TRANSPORTS))
def vendor(request: pytest.FixtureRequest) -> VendorGroup:
    """Return the vendors of each transport, for faults on real sockets; the test gets one at a time."""
    return VendorGroup(request.param)


@pytest.fixture(params=list(VENDORS))
def mock(request: pytest.FixtureRequest) -> VendorUnderTest:
    """Return a vendor for each dialect, for faults in the content of replies."""
    return VendorUnderTest(VENDORS[request.param], "mock")


@pytest.fixture(params=["whole", "stream"])
def mode(request: pytest.FixtureRequest) -> str:
    """Return the mode: whole answers, or streams."""
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultServer]]:
    """Start servers with the given behaviours; all are stopped after the test."""
    servers: list[FaultServer] = []

    def start(*behaviours: Behaviour, tls: bool | Path = False) -> FaultServer:
        servers.append(FaultServer(*(behaviours or (Wire.keep_answering,)), tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Yield a port of 127.0.0.1 that refuses connections and stays reserved."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
