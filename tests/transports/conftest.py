"""Servers that misbehave, and the transports to test with them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from fault_server import Behaviour, FaultServer, Wire

from llm_council.transports import HttpxTransport, RequestsTransport, Transport


@pytest.fixture
def serve() -> Iterator[Callable[..., FaultServer]]:
    """Start servers with the given behaviours; all are stopped after the test."""
    servers: list[FaultServer] = []

    def start(*behaviours: Behaviour, tls: bool = False) -> FaultServer:
        servers.append(FaultServer(*(behaviours or (Wire.keep_answering,)), tls=tls))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(params=[HttpxTransport, RequestsTransport], ids=["httpx", "requests"])
async def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Transport]:
    """Yield each transport, in an environment without proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    made: Transport = request.param()
    yield made
    await made.aclose()


@pytest.fixture
def closed_port() -> int:
    """Return a port of 127.0.0.1 that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
