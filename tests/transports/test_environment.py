"""What the environment says about proxies and TLS means the same on every transport, and errors name the variable."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from llm_council.errors import ConnectFailed, InvalidOption
from llm_council.transports import HttpRequest, HttpxTransport, RequestsTransport, Transport, _environment, new_client
from llm_council.transports._environment import Proxies, is_exempt, tls_context

PEM = Path(__file__).with_name("localhost.pem")
TRANSPORTS: dict[str, Callable[[], Transport]] = {"httpx": HttpxTransport, "requests": RequestsTransport}
every = pytest.mark.parametrize("make", TRANSPORTS.values(), ids=TRANSPORTS)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)


class Handler(BaseHTTPRequestHandler):
    """Answers every request with the status of its path, and with a cookie."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        self.send_response(407 if "proxy-refuses" in self.path else 200)
        self.send_header("set-cookie", "a=b")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def get(transport: Transport, url: str) -> int:
    try:
        return (await transport.send(HttpRequest(method="GET", url=url, headers={}))).status
    finally:
        await transport.aclose()


@pytest.mark.anyio
@every
@pytest.mark.parametrize("scheme", ["socks", "socks4", "socks5", "socks5h"])
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
async def test_a_socks_proxy_is_named(
    make: Callable[[], Transport], scheme: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, f"{scheme}://user:hunter2@127.0.0.1:9")
    with pytest.raises(InvalidOption, match=f"{variable} names a SOCKS proxy") as caught:
        await get(make(), "http://llm.example.com/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.anyio
@every
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:port", "http://", "ftp://127.0.0.1:9", "http://[::1"])
async def test_a_malformed_proxy_is_named(
    make: Callable[[], Transport], proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(InvalidOption, match="HTTP_PROXY"):
        await get(make(), "http://llm.example.com/")


@pytest.mark.anyio
@every
async def test_a_407_is_the_proxys(
    make: Callable[[], Transport], server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(ConnectFailed, match="wants a user and a password") as caught:
        await get(make(), "http://llm.example.com/proxy-refuses")
    assert (caught.value.kind, caught.value.retryable) == ("proxy", False)


@pytest.mark.parametrize(
    ("listed", "host", "exempt"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "10.1.2.3:8080", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("example.com, 192.168.0.0/16", "192.168.4.4", True),
        ("fd00::/8", "[fd12::1]:80", True),
        ("10.0.0.0/8", "ten.example.com", False),
        ("no/network", "10.1.2.3", False),
        ("example.com", "llm.example.com", True),
    ],
)
def test_networks_are_exempt(listed: str, host: str, exempt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", listed)
    assert is_exempt(host) is exempt
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert (Proxies().find(f"http://{host}/") is None) is exempt


@pytest.mark.anyio
@every
async def test_a_network_in_no_proxy_is_reached_without_the_proxy(
    make: Callable[[], Transport], server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert await get(make(), f"http://127.0.0.1:{server.server_port}/") == 200


@pytest.fixture
def tls_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.anyio
@every
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_a_file_of_authorities_is_trusted(
    make: Callable[[], Transport], variable: str, tls_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(PEM))
    assert await get(make(), tls_server) == 200


@pytest.mark.anyio
@every
async def test_an_untrusted_certificate_is_told_with_what_is_trusted(
    make: Callable[[], Transport], tls_server: str
) -> None:
    with pytest.raises(ConnectFailed, match="certifi's authorities are trusted; set SSL_CERT_FILE"):
        await get(make(), tls_server)


@pytest.mark.anyio
async def test_a_session_of_the_caller_is_not_said_to_read_our_variables(tls_server: str) -> None:
    with requests.Session() as session, pytest.raises(ConnectFailed, match="REQUESTS_CA_BUNDLE") as caught:
        await get(RequestsTransport(session), tls_server)
    assert "SSL_CERT_FILE" not in str(caught.value)


def test_named_authorities_are_added_to_certifis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(tls_context().get_ca_certs())
    monkeypatch.setenv("SSL_CERT_FILE", str(Path(__file__).parents[1] / "faults" / "elsewhere.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert len(tls_context().get_ca_certs()) >= before
    assert "SSL_CERT_FILE, SSL_CERT_DIR" in _environment.trusted_authorities()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "SSLKEYLOGFILE"])
def test_a_path_that_cannot_be_used_is_named(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "absent" / "file"))
    _environment._context.cache_clear()
    try:
        with pytest.raises(InvalidOption, match=variable):
            tls_context()
    finally:
        _environment._context.cache_clear()


def test_loops_that_are_closed_without_cleaning_up_leave_no_lines(
    server: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    transport = HttpxTransport()
    request = HttpRequest(method="GET", url=f"http://127.0.0.1:{server.server_port}/", headers={})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            loop = asyncio.new_event_loop()
            assert loop.run_until_complete(transport.send(request)).status == 200
            loop.close()
        del transport
        gc.collect()
    assert "Unclosed" not in caplog.text


@pytest.mark.anyio
@every
async def test_no_transport_keeps_cookies(make: Callable[[], Transport], server: HTTPServer) -> None:
    transport = make()
    request = HttpRequest(method="GET", url=f"http://127.0.0.1:{server.server_port}/", headers={})
    for _ in range(2):
        await transport.send(request)
    await transport.aclose()
    assert not [headers for headers in server.seen if "Cookie" in headers]  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_the_client_for_authors_keeps_no_cookies(server: HTTPServer) -> None:
    async with new_client() as client:
        for _ in range(2):
            await client.get(f"http://127.0.0.1:{server.server_port}/")
        assert not client.cookies
    assert not [headers for headers in server.seen if "cookie" in {name.lower() for name in headers}]  # type: ignore[attr-defined]


@pytest.mark.parametrize("transport", ["HttpxTransport", "RequestsTransport"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.slow
def test_a_key_log_that_cannot_be_written_is_named_by_the_first_call_of_a_process(
    transport: str, backend: str, python: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "absent" / "file"))
    done = python(
        f"""
        import anyio
        from llm_council import transports
        from llm_council.errors import InvalidOption

        async def main():
            try:
                transport = transports.{transport}()
                await transport.send(transports.HttpRequest(method="GET", url="https://127.0.0.1:9/", headers={{}}))
            except InvalidOption as error:
                print(error)

        anyio.run(main, backend="{backend}")
        """
    )
    assert done.stdout.startswith("SSLKEYLOGFILE names"), done.stderr
