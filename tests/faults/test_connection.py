"""Connections that cannot be made, that break, or that bring no answer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import anyio
import httpx
import pytest
from fault_dialects import chunk
from fault_rows import exempt
from fault_server import OTHER_PEM

from llm_council import errors
from llm_council.models import GenerateRequest, Timeouts
from llm_council.transports import _environment


def good(one_vendor):
    """Return the behaviour that answers every request."""
    return lambda wire: wire.keep_answering(wire.ok(one_vendor.dialect.body()))


def test_refused(vendor, mode, closed_port):
    """A port that refuses: `ConnectFailed` of kind `refused`, retried; the message names host and port."""
    error = vendor.fails(vendor.provider(f"http://127.0.0.1:{closed_port}/v1"), errors.ConnectFailed, mode, tries=3)
    assert error.kind == "refused"
    assert f"127.0.0.1:{closed_port}" in error.message


def test_dns(vendor):
    """A host name that does not resolve: `ConnectFailed` of kind `dns`; retried."""
    error = vendor.fails(vendor.provider("https://no-such-host.invalid/v1", retries=1), errors.ConnectFailed, tries=2)
    assert error.kind == "dns"
    assert "does not resolve" in error.message
    assert "no-such-host.invalid" in error.message


@pytest.mark.parametrize("host", ["a..invalid", ".invalid", "a" * 64 + ".invalid"])
def test_invalid_host_name(vendor, host):
    """A host name with an empty label, or one that is too long: `InvalidOption`; nothing is sent."""
    with pytest.raises(errors.InvalidOption, match="not a host name"):
        vendor.ask(vendor.provider(f"https://{host}/v1"))


def test_model_name_in_a_path(mock):
    """A model name with dots, slashes, a query or a fragment reaches no other address: it is quoted or refused."""
    for model in ("../../../elsewhere?a=1#b", "a/../../elsewhere", "../elsewhere", "%2e%2e/elsewhere", "elsewhere?x#y"):
        mock.calls.clear()
        with contextlib.suppress(errors.InvalidOption, errors.ReplyError):  # Vertex AI asks its other models
            mock.ask(mock.mocked(mock.dialect.body(), retries=0), model=model)
        for call in mock.calls:
            path = call.url.path  # decoded once
            assert "/elsewhere" not in path or "/models/" in path or "/%2e%2e/" in path
            assert ".." not in path.split("/")
            assert not call.url.query or call.url.query == b"alt=sse"


def test_tls_self_signed(vendor, serve):
    """A certificate that is not trusted: `ConnectFailed` of kind `tls`, one attempt; the message names
    `SSL_CERT_FILE`.
    """
    server = serve(tls=True)
    error = vendor.fails(vendor.provider(server.url), errors.ConnectFailed, tries=1)
    assert (error.kind, error.retryable) == ("tls", False)
    assert "SSL_CERT_FILE" in error.message
    assert not server.requests


@pytest.fixture
def trusted_elsewhere(monkeypatch):
    """Trust the certificate of another host."""
    monkeypatch.setenv("SSL_CERT_FILE", str(OTHER_PEM))
    _environment._context.cache_clear()
    yield OTHER_PEM
    _environment._context.cache_clear()


def test_tls_wrong_host(vendor, serve, trusted_elsewhere):
    """A trusted certificate for another host: the same, and no byte of the request is sent."""
    server = serve(tls=trusted_elsewhere)
    error = vendor.fails(vendor.provider(server.url), errors.ConnectFailed, tries=1)
    assert error.kind == "tls"
    assert not server.requests


def test_tls_to_a_plain_port(vendor, serve):
    """TLS to a port that does not speak TLS: the same, at once."""
    server = serve(lambda wire: wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    error = vendor.fails(vendor.provider(server.url.replace("http:", "https:")), errors.ConnectFailed, tries=1)
    assert error.kind == "tls"
    assert server.connections == 1


def test_tls_to_a_silent_port(vendor, serve):
    """TLS to a port that sends nothing: `TimedOut` by the connect timeout, or by the deadline.

    Limits: over `requests` the phase is `read`, because urllib3 raises the same timeout during the handshake and after
    it.
    """
    server = serve(lambda wire: wire.see_close())
    provider = vendor.provider(server.url.replace("http:", "https:"), retries=0, timeout=Timeouts(connect=0.3))
    error = vendor.fails(provider, errors.TimedOut, timeout_seconds=8)
    assert error.phase == ("read" if vendor.transport == "requests" else "connect")


def test_connect_timeout(vendor):
    """A connection that is not accepted: `TimedOut` of phase `connect`, retried while there is time."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            provider = vendor.provider(
                f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout=Timeouts(connect=0.2)
            )
            error = vendor.fails(provider, errors.TimedOut, tries=2)
        finally:
            for filler in fillers:
                filler.close()
    assert (error.phase, error.retryable) == ("connect", True)


@exempt("replicate", "not retried, because the prediction may have been created.")
def test_reset_on_accept(vendor, serve, mode):
    """A connection that is reset at once: retried, and the answer of the next connection is used."""
    server = serve(lambda wire: wire.answer_and_reset(), lambda wire: wire.answer(reply(vendor, mode, wire)))
    assert vendor.ask(vendor.provider(server.url), mode).text == "fine"
    assert server.connections == 2


def reply(one_vendor, mode, wire):
    if mode == "whole":
        return wire.ok(one_vendor.dialect.body())
    return one_vendor.dialect.head() + b"".join(chunk(part) for part in one_vendor.dialect.stream()) + b"0\r\n\r\n"


def test_idle_connection_closed(vendor, serve):
    """A reused connection that the server just closed: the request is sent again on a new one, and no error is
    reported.

    Limits: an httpx or Anthropic client of the caller manages its own connections: there it is `ConnectionLost`, which
    is retried.
    """

    def once(wire):
        wire.request()
        wire.send(wire.ok(vendor.dialect.body()))
        wire.request()

    server = serve(once, good(vendor))
    provider = vendor.provider(server.url, retries=0)
    assert [vendor.ask(provider).text for _ in range(2)] == ["fine", "fine"]
    assert server.connections == 2


@exempt("httpcore", "under asyncio it does not notice such bytes; our own pools use it under other event loops only.")
def test_unsolicited_bytes(vendor, serve):
    """Bytes that a server sends on an idle connection are not used as the answer to the next request."""
    stray = vendor.dialect.body("stray")

    def restless(wire):
        wire.request()
        wire.send(wire.ok(vendor.dialect.body()))
        time.sleep(0.1)
        wire.send(wire.ok(stray))
        wire.server.said.set()
        wire.keep_answering(wire.ok(vendor.dialect.body()))

    server = serve(restless, good(vendor))
    server.said = threading.Event()
    provider = vendor.provider(server.url, retries=0)
    assert vendor.ask(provider).text == "fine"
    assert server.said.wait(10)
    time.sleep(0.3)
    assert vendor.ask(provider).text == "fine"


def test_interim_replies(vendor, serve):
    """Interim replies (100, 102, 103) before the answer are skipped; if they do not end: `TimedOut` by the deadline."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3
    interim += b"HTTP/1.1 102 Processing\r\n\r\n"
    server = serve(lambda wire: wire.keep_answering(interim + wire.ok(vendor.dialect.body())))
    provider = vendor.provider(server.url, retries=0)
    assert [vendor.ask(provider).text for _ in range(2)] == ["fine", "fine"]

    def endless(wire):
        wire.request()
        while True:
            wire.send(interim, pause=0.02)

    error = vendor.fails(vendor.provider(serve(endless).url), errors.TimedOut, timeout_seconds=0.6)
    assert error.phase == "deadline"


def test_early_reply(vendor, serve):
    """An error reply that arrives while a large request is still being sent is read."""

    def impatient(wire):
        wire.sock.recv(1000)
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        wire.sock.shutdown(socket.SHUT_WR)
        wire.see_close()

    provider = vendor.provider(serve(impatient).url, retries=0)
    error = vendor.fails(provider, errors.RequestTooLarge, prompt="words " * 700_000)
    assert error.status == 413
    vendor.errors.clear()  # frames with a prompt of megabytes take seconds to look through


def test_read_timeout(vendor, serve):
    """A server that never answers: `TimedOut` of phase `read`, retried at most once; the connection is closed."""
    server = serve(lambda wire: wire.answer_and_wait())
    error = vendor.fails(vendor.provider(server.url, timeout=Timeouts(read=0.2)), errors.TimedOut)
    assert (error.phase, len(error.attempts)) == ("read", vendor.expected_attempts(2))
    assert server.connections == vendor.expected_attempts(2)
    assert server.client_closed.wait(10)


def test_never_answers_deadline(vendor, serve, mode):
    """The same without a read timeout: `TimedOut` of phase `deadline` in time, one attempt; the connection is
    closed.
    """
    server = serve(lambda wire: wire.answer_and_wait())
    error = vendor.fails(vendor.provider(server.url), errors.TimedOut, mode, timeout_seconds=0.8)
    assert (error.phase, error.retryable) == ("deadline", False)
    assert server.connections == 1
    assert server.client_closed.wait(10)


@pytest.mark.parametrize("part", ["head", "body"])
def test_slow_loris(vendor, serve, part, mode):
    """A byte now and then, in the head or the body: `TimedOut` of phase `deadline`, one attempt."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    slow = [head[i : i + 1] for i in range(len(head))] if part == "head" else [head, *[b" "] * 1000]
    server = serve(lambda wire: wire.answer(*slow, pause=0.05))
    error = vendor.fails(vendor.provider(server.url), errors.TimedOut, mode, timeout_seconds=0.8)
    assert (error.phase, len(error.attempts)) == ("deadline", 1)
    assert server.connections == 1


def cuts(body):
    half = len(body) // 2
    long = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (len(body) + 10)
    chunked = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return {
        "FIN in the head": ("answer", long[:40]),
        "RST in the head": ("answer_and_reset", long[:40]),
        "FIN in the body": ("answer", long + body[:half]),
        "RST in the body": ("answer_and_reset", long + body[:half]),
        "short body, whole JSON": ("answer", long + body),
        "no last chunk, whole JSON": ("answer", chunked + chunk(body)),
        "end inside a chunk": ("answer", chunked + chunk(body)[:-8]),
    }


@pytest.mark.parametrize("fault", list(cuts(b"")))
def test_cut(vendor, serve, fault):
    """A reply that is cut in its head or body: `ConnectionLost`, three attempts; it is never used as a complete
    answer.
    """
    how, data = cuts(vendor.dialect.body())[fault]
    server = serve(lambda wire: getattr(wire, how)(data))
    error = vendor.fails(vendor.provider(server.url), errors.ConnectionLost, tries=vendor.expected_attempts(3))
    assert error.retryable != vendor.dialect.once
    assert server.connections == vendor.expected_attempts(3)


@pytest.mark.parametrize("fault", ["FIN in the body", "not HTTP", "never answers"])
def test_next_call_after_a_fault(vendor, serve, fault):
    """After any fault, the next call on the same client works."""
    data = {"FIN in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "not HTTP": b"\0\1\2\r\n\r\n"}
    mended = threading.Event()

    def behave(wire):
        if mended.is_set():
            good(vendor)(wire)
        elif fault in data:
            wire.answer(data[fault])
        else:
            wire.answer_and_wait()

    server = serve(behave)
    provider = vendor.provider(server.url, retries=0)
    seconds = 0.6
    while not server.connections:  # on a busy machine the time may be over before the call has connected
        with pytest.raises(errors.ProviderError):
            vendor.ask(provider, timeout_seconds=None if fault in data else seconds)
        seconds *= 2
    mended.set()
    assert [vendor.ask(provider).text for _ in range(3)] == ["fine"] * 3


@pytest.mark.anyio
async def test_pool_exhausted(one_vendor, serve):
    """A pool of the caller without a free connection: `TimedOut` of phase `pool`, and the message says so.

    Limits: our own pools have no limit, and a `requests` session opens the connections it needs; only an
    `httpx.AsyncClient` of the caller can be exhausted.
    """
    server = serve(lambda wire: wire.answer_and_wait())
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(None, pool=0.2)) as client:
        provider = one_vendor.provider(server.url, transport=client, retries=0)
        async with anyio.create_task_group() as group:
            holder = anyio.CancelScope()

            async def hold():
                with holder:
                    await provider.generate(GenerateRequest(prompt="?"))

            group.start_soon(hold)
            while not server.connections:
                await anyio.sleep(0.01)
            with pytest.raises(errors.TimedOut, match="pool") as caught:
                await provider.generate(GenerateRequest(prompt="?"))
            assert caught.value.phase == "pool"
            holder.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["httpx", "requests"])
async def test_cancelled_under_contention(one_vendor, serve, kind):
    """After 200 calls that are cancelled at various moments, the pool answers the next five."""
    body = one_vendor.dialect.body()

    def late(wire):
        while wire.request():
            time.sleep(0.02)
            wire.send(wire.ok(body))

    one_vendor.transport = kind
    provider = one_vendor.provider(serve(late).url, retries=0)

    async def cancelled(seconds):
        with anyio.move_on_after(seconds):
            await provider.generate(GenerateRequest(prompt="?"))

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(cancelled, number % 20 / 200)
    with anyio.fail_after(30):
        for _ in range(5):
            assert (await provider.generate(GenerateRequest(prompt="?"))).text == "fine"
    await provider.aclose()


def test_proxy_of_the_environment(vendor, serve, monkeypatch, closed_port):
    """`HTTP_PROXY` and the like are used; a proxy that fails: `ConnectFailed` of kind `proxy`, without its password.

    Limits: an httpx or Anthropic client of the caller does not distinguish its proxy from the server: there the kind is
    `refused` or `other`.
    """
    monkeypatch.setenv("HTTP_PROXY", f"http://user:proxy-word-7@127.0.0.1:{closed_port}")
    provider = vendor.provider("http://vendor.example/v1", allow_http=True, retries=0)
    error = vendor.fails(provider, errors.ConnectFailed)
    assert error.kind == "proxy"
    assert all("proxy-word-7" not in text for _, text in vendor.shown_texts())


def test_proxy_name_does_not_resolve(one_vendor, monkeypatch):
    """A proxy whose host name does not resolve: kind `proxy`, not `dns`."""
    monkeypatch.setenv("HTTP_PROXY", "http://no-such-proxy.invalid:3128")
    provider = one_vendor.provider("http://vendor.example/v1", allow_http=True, retries=0)
    assert one_vendor.fails(provider, errors.ConnectFailed).kind == "proxy"


def test_other_calls_are_not_affected(vendor, serve):
    """Concurrent calls on one client: the fault of one call does not affect the others."""
    turn = threading.Lock()

    def mixed(wire):
        while wire.request():
            with turn:
                bad = wire.server.connections % 2
            if bad:
                wire.reset()
                return
            wire.send(wire.ok(vendor.dialect.body()))

    provider = vendor.provider(serve(mixed).url, retries=0)

    async def many():
        answers = await asyncio.gather(
            *(provider.generate(GenerateRequest(prompt="?")) for _ in range(20)), return_exceptions=True
        )
        await vendor.aclose()
        return answers

    answers = asyncio.run(many())
    assert all(isinstance(one, errors.TransportError) or one.text == "fine" for one in answers)
    assert any(not isinstance(one, Exception) for one in answers)
