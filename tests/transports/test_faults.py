"""Network failures on real sockets become typed errors, over httpx and requests, under asyncio and trio."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import ssl
import sys
import time
from pathlib import Path

import anyio
import pytest
import requests

from llm_council import errors
from llm_council.models import Limits, Timeouts
from llm_council.transports import HttpRequest, HttpxTransport, RequestsTransport

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789abcdef"


def ask(url: str, **options) -> HttpRequest:
    return HttpRequest(url=url, headers={"authorization": f"Bearer {KEY}"}, body=b'{"q":1}', **options)


def shown(error: BaseException) -> str:
    """Return all that a log could show of an error and its cause."""
    return f"{error!r} {error} {error.__cause__!r} {error.__cause__} {error.__dict__}"


async def test_a_reply_is_returned_and_its_connection_reused(transport, serve):
    server = serve(lambda wire: wire.keep_answering(wire.ok(b"hi", b"X-Request-Id: r1", b"Set-Cookie: a=b")))
    for _ in range(20):
        reply = await transport.send(ask(server.url))
    assert (reply.status, reply.body, reply.request_id) == (200, b"hi", "r1")
    assert server.connections == 1
    assert all(b"cookie" not in request.lower() for request in server.requests)
    head = server.requests[0].lower()
    assert head.startswith(b"post /v1/chat http/1.1\r\n")
    assert head.endswith(b'\r\n\r\n{"q":1}')
    assert b"\r\naccept-encoding: gzip, identity\r\n" in head
    assert head.count(b"user-agent:") == 1


async def test_a_stream_yields_the_whole_body(transport, serve):
    chunks = [b"data: %d\n\n" % i for i in range(5)]
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = serve(lambda wire: wire.keep_answering(head + b"".join(parts) + b"0\r\n\r\n"))
    for _ in range(3):
        async with transport.stream(ask(server.url)) as reply:
            assert reply.status == 200
            assert reply.head.content_type == "text/event-stream"
            assert b"".join([chunk async for chunk in reply]) == b"".join(chunks)
    assert server.connections == 1


async def test_a_stream_yields_a_chunk_before_the_next_arrives(transport, serve):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server = serve(lambda wire: wire.answer_and_wait(head + b"3\r\none\r\n"))
    with anyio.fail_after(5):
        async with transport.stream(ask(server.url)) as reply:
            async for chunk in reply:
                assert chunk == b"one"
                break
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 2)


async def test_a_refused_connection_is_connect_failed(transport, closed_port):
    with pytest.raises(errors.ConnectFailed, match=f"127.0.0.1:{closed_port} refused") as caught:
        await transport.send(ask(f"http://127.0.0.1:{closed_port}/v1?key=abc"))
    assert caught.value.kind == "refused"
    assert caught.value.retryable
    assert "abc" not in shown(caught.value)
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is None


async def test_an_unknown_host_is_connect_failed(transport):
    with pytest.raises(errors.ConnectFailed, match="does not resolve") as caught:
        await transport.send(ask("http://no-such-host.invalid/v1"))
    assert caught.value.kind == "dns"


async def test_a_self_signed_certificate_is_not_trusted(transport, serve):
    server = serve(tls=True)
    with pytest.raises(errors.ConnectFailed, match="SSL_CERT_FILE") as caught:
        await transport.send(ask(server.url))
    assert caught.value.kind == "tls"
    assert not caught.value.retryable
    assert server.requests == []


async def test_tls_to_a_plain_port_is_connect_failed(transport, serve):
    server = serve(lambda wire: wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    with pytest.raises(errors.ConnectFailed) as caught:
        await transport.send(ask(server.url.replace("http:", "https:")))
    assert caught.value.kind == "tls"


async def test_a_tls_handshake_without_an_answer_times_out(transport, serve):
    server = serve(lambda wire: wire.see_close())
    with pytest.raises(errors.TimedOut) as caught:
        await transport.send(ask(server.url.replace("http:", "https:")), timeouts=Timeouts(connect=0.5))
    # urllib3 raises the same timeout during the TLS handshake and after it.
    assert caught.value.phase == ("read" if isinstance(transport, RequestsTransport) else "connect")


async def test_connecting_times_out(transport):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        try:
            with pytest.raises(errors.TimedOut) as caught:
                await transport.send(
                    ask(f"http://127.0.0.1:{listener.getsockname()[1]}/"), timeouts=Timeouts(connect=0.5)
                )
        finally:
            for filler in fillers:
                filler.close()
    assert caught.value.phase == "connect"
    assert caught.value.retryable


async def test_reading_times_out(transport, serve):
    server = serve(lambda wire: wire.answer_and_wait())
    with pytest.raises(errors.TimedOut) as caught:
        await transport.send(ask(server.url), timeouts=Timeouts(read=0.3))
    assert caught.value.phase == "read"
    assert server.connections == 1
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 2)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

LOST = {
    "end without a byte": lambda wire: wire.answer(),
    "reset without a byte": lambda wire: wire.answer_and_reset(),
    "reset in the head": lambda wire: wire.answer_and_reset(HEAD[:25]),
    "end in the head": lambda wire: wire.answer(HEAD[:25]),
    "reset in the body": lambda wire: wire.answer_and_reset(HEAD + b"x" * 50),
    "short body": lambda wire: wire.answer(HEAD + b"x" * 50),
    "no last chunk": lambda wire: wire.answer(CHUNKED + b"5\r\nhello\r\n"),
    "end in a chunk": lambda wire: wire.answer(CHUNKED + b"5\r\nhel"),
}


@pytest.mark.parametrize("fault", LOST)
async def test_a_lost_connection_is_typed_and_the_next_call_succeeds(transport, serve, fault):
    server = serve(LOST[fault], lambda wire: wire.keep_answering())
    with pytest.raises(errors.ConnectionLost) as caught:
        await transport.send(ask(server.url))
    assert caught.value.retryable
    assert KEY not in shown(caught.value)
    assert server.connections == 1
    assert (await transport.send(ask(server.url))).status == 200


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # httpcore leaks a socket that is reset early
async def test_a_connection_reset_on_accept_is_a_transport_error(transport, serve):
    server = serve(lambda wire: wire.reset(), lambda wire: wire.keep_answering())
    with pytest.raises(errors.TransportError) as caught:  # before or after the end of the TCP handshake
        await transport.send(ask(server.url))
    assert caught.value.retryable
    assert server.connections == 1
    assert (await transport.send(ask(server.url))).status == 200


async def test_bytes_that_arrived_before_the_loss_are_yielded(transport, serve):
    """Even if the reader starts after the connection has broken."""
    server = serve(lambda wire: wire.answer(CHUNKED + b"5\r\nhello\r\n", b"6\r\n world\r\n", pause=0.05))
    got = []

    async def read_late():
        async with transport.stream(ask(server.url)) as reply:
            await anyio.sleep(0.4)
            async for chunk in reply:
                got.append(chunk)

    with pytest.raises(errors.ConnectionLost):
        await read_late()
    assert b"".join(got) == b"hello world"


NOT_HTTP = {
    "junk": b"\x00\x01\x02 this is no HTTP at all\r\n\r\n",
    "another protocol": b"220 mail.example.com ESMTP ready\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 10\r\n\r\nhello",
    "a header of 2 MiB": b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 2**21 + b"\r\nContent-Length: 2\r\n\r\nhi",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX-Bad: a\x00b\r\nContent-Length: 2\r\n\r\nhi",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
}


@pytest.mark.parametrize("fault", NOT_HTTP)
async def test_a_reply_that_is_not_http_is_malformed(transport, serve, fault):
    def misbehave(wire):
        wire.request()
        try:
            wire.send(NOT_HTTP[fault])
        finally:
            wire.see_close()

    server = serve(misbehave, lambda wire: wire.keep_answering())
    with anyio.fail_after(20), pytest.raises(errors.MalformedReply):
        await transport.send(ask(server.url))
    reply = await transport.send(ask(server.url))
    assert reply.status == 200
    assert server.connections == 2  # the first one was closed, not reused


async def test_headers_that_are_too_large_together_are_malformed(transport, serve):
    many = b"X-Some: %b\r\n" % (b"a" * 1000) * 70
    server = serve(lambda wire: wire.answer(b"HTTP/1.1 200 OK\r\n" + many + b"Content-Length: 2\r\n\r\nhi"))
    with pytest.raises(errors.MalformedReply):
        await transport.send(ask(server.url))


async def test_a_request_is_sent_again_if_the_reused_connection_was_closed(transport, serve):
    def once_then_gone(wire):
        wire.request()
        wire.send(wire.ok())
        wire.request()  # and no answer

    server = serve(once_then_gone, lambda wire: wire.keep_answering())
    assert (await transport.send(ask(server.url))).status == 200
    assert (await transport.send(ask(server.url))).status == 200
    assert server.connections == 2
    assert len(server.requests) == 3


async def test_a_request_is_sent_again_if_the_reused_connection_was_reset(transport, serve):
    def once_then_reset(wire):
        wire.request()
        wire.send(wire.ok())
        wire.request()
        wire.reset()

    server = serve(once_then_reset, lambda wire: wire.keep_answering())
    for _ in range(2):
        assert (await transport.send(ask(server.url))).status == 200
    assert server.connections == 2


async def test_a_request_is_not_sent_again_after_the_reply_began(transport, serve):
    def once_then_half(wire):
        wire.request()
        wire.send(wire.ok())
        wire.request()
        wire.send(HEAD + b"half")

    server = serve(once_then_half, lambda wire: wire.keep_answering())
    await transport.send(ask(server.url))
    with pytest.raises(errors.ConnectionLost):
        await transport.send(ask(server.url))
    assert server.connections == 1


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(transport, serve, status):
    other = serve()
    target = other.url.encode() + b"?token=hidden-token"
    reply = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, target)
    server = serve(lambda wire: wire.answer(reply))
    with pytest.raises(errors.RedirectRefused, match=str(status)) as caught:
        await transport.send(ask(server.url))
    assert not caught.value.retryable
    assert "hidden-token" not in shown(caught.value)
    assert other.connections == 0
    assert len(server.requests) == 1


async def test_the_body_of_a_redirect_is_not_read(transport, serve):
    sent = []

    def flood(wire):
        wire.request()
        wire.send(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 1000000000\r\n\r\n")
        for _ in range(1000):
            wire.send(b"x" * 1_000_000)
            sent.append(1)

    with pytest.raises(errors.RedirectRefused):
        await transport.send(ask(serve(flood).url))
    assert len(sent) < 50


async def test_the_body_of_an_error_is_cut(transport, serve):
    def flood(wire):
        wire.request()
        wire.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 1000000000\r\nX-Request-Id: r2\r\n\r\n")
        for _ in range(1000):
            wire.send(b"x" * 1_000_000)

    reply = await transport.send(ask(serve(flood).url), limits=Limits(error_body=1000))
    assert (reply.status, reply.body, reply.request_id) == (500, b"x" * 1000, "r2")


async def test_a_body_beyond_the_limit_is_refused_early(transport, serve):
    sent = []

    def flood(wire):
        wire.request()
        wire.send(CHUNKED)
        for _ in range(1000):
            wire.send(b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n")
            sent.append(1)

    server = serve(flood, lambda wire: wire.keep_answering())
    with pytest.raises(errors.ReplyTooLarge) as caught:
        await transport.send(ask(server.url), limits=Limits(body=3_000_000))
    assert caught.value.limit == 3_000_000
    assert not caught.value.retryable
    assert len(sent) < 50
    assert (await transport.send(ask(server.url))).status == 200


async def test_a_stream_has_its_own_limit(transport, serve):
    server = serve(lambda wire: wire.answer(wire.ok(b"x" * 5000)))
    got = []
    with pytest.raises(errors.ReplyTooLarge):
        await drain(transport.stream(ask(server.url), limits=Limits(stream=4999, body=1)), got.append)
    assert len(b"".join(got)) <= 4999


async def drain(stream, take):
    async with stream as reply:
        async for chunk in reply:
            take(chunk)


def gzipped(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body


async def test_a_gzip_body_is_decompressed(transport, serve):
    packed = gzip.compress(b"hello " * 100_000, mtime=0)
    server = serve(lambda wire: wire.keep_answering(gzipped(packed)))
    for _ in range(2):
        assert (await transport.send(ask(server.url))).body == b"hello " * 100_000
    assert server.connections == 1


@pytest.mark.slow
async def test_a_decompression_bomb_raises_reply_too_large(transport, serve):
    bomb = gzip.compress(bytes(64 * 2**20))
    server = serve(lambda wire: wire.answer(gzipped(bomb)), lambda wire: wire.keep_answering())
    with pytest.raises(errors.ReplyTooLarge) as caught:
        await transport.send(ask(server.url), limits=Limits(body=2**20))
    assert caught.value.limit == 2**20
    assert (await transport.send(ask(server.url))).status == 200


@pytest.mark.parametrize(
    "body",
    [b"no gzip at all", gzip.compress(b"x" * 1000, mtime=0)[:-9], gzip.compress(b"x" * 99, mtime=0)[:12]],
    ids=["none", "no trailer", "head alone"],
)
async def test_invalid_gzip_raises_malformed_reply(transport, serve, body):
    server = serve(lambda wire: wire.answer(gzipped(body)))
    with pytest.raises(errors.MalformedReply):
        await transport.send(ask(server.url))


async def test_an_encoding_that_was_not_requested_is_refused(transport, serve):
    server = serve(lambda wire: wire.answer(wire.ok(b"??", b"Content-Encoding: br")))
    with pytest.raises(errors.MalformedReply, match="br"):
        await transport.send(ask(server.url))


async def test_a_slow_reply_ends_at_the_deadline(transport, serve):
    server = serve(lambda wire: wire.answer(HEAD, *[b"x"] * 100, pause=0.1))
    started = time.monotonic()
    with anyio.move_on_after(0.7) as scope:
        await transport.send(ask(server.url), deadline=0.7)
    assert scope.cancelled_caught
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("answered", [b"", HEAD + b"some"], ids=["waiting", "reading"])
async def test_cancelling_closes_the_connection(transport, serve, answered):
    server = serve(lambda wire: wire.answer_and_wait(answered), lambda wire: wire.keep_answering())
    with anyio.move_on_after(0.5) as scope:
        await transport.send(ask(server.url))
    assert scope.cancelled_caught
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 2)
    assert (await transport.send(ask(server.url))).status == 200


async def test_cancelling_closes_the_connections_of_the_callers_session(serve):
    """Also connections of proxies, of the caller's own adapters, and reused ones."""

    class Adapter(requests.adapters.HTTPAdapter):
        pass

    with requests.Session() as session:
        session.mount("http://", Adapter())
        session.trust_env = False
        transport = RequestsTransport(session)
        server = serve(
            lambda wire: (wire.request(), wire.send(wire.ok()), wire.answer_and_wait()),
            lambda wire: wire.keep_answering(),
        )
        proxied = serve(lambda wire: wire.answer_and_wait())
        assert (await transport.send(ask(server.url))).status == 200
        for url, proxies, at in (
            (server.url, {}, server),
            ("http://gateway.example/v1", {"http": proxied.url}, proxied),
        ):
            session.proxies = proxies
            with anyio.move_on_after(0.3) as scope:
                await transport.send(ask(url))
            assert scope.cancelled_caught
            assert await anyio.to_thread.run_sync(at.client_closed.wait, 5)
        session.proxies = {}
        assert (await transport.send(ask(server.url))).status == 200
        assert len(server.requests) == 3


async def test_a_thread_that_waits_for_a_head_ends_soon_after_the_deadline(serve):
    transport = RequestsTransport()
    server = serve(lambda wire: wire.answer_and_wait())
    with anyio.move_on_after(0.3) as scope:
        await transport.send(ask(server.url), deadline=0.3)
    assert scope.cancelled_caught
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 5)
    await transport.aclose()


async def test_the_pool_works_after_cancelled_calls(transport, serve):
    def answer_late(wire):
        while wire.request():
            time.sleep(0.02)
            wire.send(wire.ok())

    server = serve(answer_late)
    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(cancelled_after, transport, server.url, number % 10 / 100)
    with anyio.fail_after(30):
        for _ in range(5):
            assert (await transport.send(ask(server.url))).status == 200


async def cancelled_after(transport, url, seconds):
    with anyio.move_on_after(seconds):
        await transport.send(ask(url), deadline=seconds)


async def test_an_exception_of_the_reader_is_not_translated(transport, serve):
    server = serve(lambda wire: wire.answer_and_wait(HEAD + b"some"))

    def fail(chunk):
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await drain(transport.stream(ask(server.url)), fail)
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 2)


async def test_an_early_reply_to_a_large_request_is_read(transport, serve):
    def refuse(wire):
        wire.sock.recv(1000)
        wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge")
        wire.sock.shutdown(socket.SHUT_WR)
        while wire.sock.recv(65536):
            pass

    server = serve(refuse)
    reply = await transport.send(HttpRequest(url=server.url, body=b"x" * 5_000_000))
    assert (reply.status, reply.body) == (413, b"large")


async def test_a_certificate_of_ssl_cert_file_is_trusted(serve, monkeypatch, transport):
    from llm_council.transports import _environment

    pem = str(Path(__file__).with_name("localhost.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", pem)
    _environment._context.cache_clear()
    try:
        server = serve(tls=True)
        trusting = type(transport)()
        for _ in range(3):
            assert (await trusting.send(ask(server.url))).status == 200
        assert server.connections == 1
        await trusting.aclose()
    finally:
        _environment._context.cache_clear()


def test_aclose_closes_tls_connections_before_the_loop_ends(serve, monkeypatch):
    from llm_council.transports import _environment

    monkeypatch.setenv("SSL_CERT_FILE", str(Path(__file__).with_name("localhost.pem")))
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    _environment._context.cache_clear()
    server = serve(tls=True)

    async def visit() -> int:
        transport = HttpxTransport()
        reply = await transport.send(ask(server.url))
        await transport.aclose()
        return reply.status

    try:
        for _ in range(10):
            assert asyncio.run(visit()) == 200
        gc.collect()
    finally:
        _environment._context.cache_clear()
    assert lost == []


async def test_an_unreadable_ssl_cert_file_is_named(monkeypatch, tmp_path):
    from llm_council.transports import _environment

    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent.pem"))
    _environment._context.cache_clear()
    with pytest.raises(errors.InvalidOption, match="SSL_CERT_FILE"):
        await HttpxTransport().send(ask("https://127.0.0.1:1/"))
    _environment._context.cache_clear()
    assert isinstance(ssl.create_default_context(), ssl.SSLContext)
