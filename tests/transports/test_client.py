"""``new_client``: the ``httpx.AsyncClient`` for adapters of third parties."""

from __future__ import annotations

import gzip
import json

import anyio
import httpx
import pytest

from llm_council import errors
from llm_council.errors._secrets import MASK, masked
from llm_council.transports import AsyncClient, _environment, new_client, translate

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    async with new_client() as new:
        yield new


async def test_the_client_is_an_httpx_client_without_redirects(client):
    assert AsyncClient is httpx.AsyncClient
    assert type(client) is httpx.AsyncClient
    assert client.timeout == httpx.Timeout(None, connect=10.0)
    assert not client.follow_redirects


async def test_plain_calls_share_a_connection_and_load_no_certificates(client, serve, anyio_backend_name):
    _environment._context.cache_clear()
    server = serve()
    for _ in range(20):
        response = await client.post(server.url, json={"q": 1}, headers={"authorization": "Bearer x"})
        assert response.json() == {"ok": True}
        assert response.http_version == "HTTP/1.1"
        assert response.reason_phrase == "OK"
        assert response.request.url == server.url
    assert server.connections == 1
    if anyio_backend_name == "asyncio":  # httpx's own pool loads the certificates when it is made
        assert _environment._context.cache_info().currsize == 0
    head = server.requests[0].lower()
    assert b"accept-encoding: gzip, identity" in head
    assert b"authorization: bearer x" in head
    assert json.loads(head.partition(b"\r\n\r\n")[2]) == {"q": 1}


async def test_the_credentials_of_a_request_are_masked_afterwards(client, serve):
    server = serve()
    sent = {
        "Authorization": "Bearer plain-key-of-mine-1",
        "X-House-Key": "plain-key-of-mine-2",
        "Cookie": "session=plain-key-of-mine-3",
        "Idempotency-Key": "no-credential-4",
        "X-Short-Token": "short",
        "X-House-Token": "developers",
        "X-Auth-Mode": "no-credential-6",
        "X-Trace": "no-credential-5",
    }
    text = " ".join([*sent.values(), "Bearer"])
    assert masked(text) == text
    await client.get(server.url, headers=sent)
    plain = "no-credential-4 short developers no-credential-6 no-credential-5 Bearer"
    assert masked(text) == f"Bearer {MASK} {MASK} {MASK} {plain}"
    for number in range(100):  # short-lived tokens are not all remembered
        await client.get(server.url, headers={"Authorization": f"Bearer passing-token-{number}"})
    assert len(client._transport._inner._secrets) <= 64
    assert masked("passing-token-99 passing-token-0") == f"{MASK} passing-token-0"


async def test_a_streamed_request_body_is_sent_in_chunks(client, serve):
    def echo(wire):
        seen = b""
        while not seen.endswith(b"0\r\n\r\n"):
            seen += wire.sock.recv(65536)
        wire.send(wire.ok(seen))

    async def body():
        yield b"one"
        yield b"two"

    sent = (await client.post(serve(echo).url, content=body())).content
    assert sent.lower().count(b"transfer-encoding: chunked") == 1
    assert b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n" in sent


async def test_a_streamed_response_is_read_and_its_connection_reused(client, serve):
    server = serve(lambda wire: wire.keep_answering(wire.ok(b"one\ntwo\n")))
    for _ in range(2):
        async with client.stream("GET", server.url) as response:
            assert [line async for line in response.aiter_lines()] == ["one", "two"]
    assert server.connections == 1


def packed(body: bytes, status: bytes = b"200 OK") -> bytes:
    body = gzip.compress(body, mtime=0)
    return b"HTTP/1.1 %b\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


async def test_a_gzip_body_is_decompressed(client, serve):
    server = serve(lambda wire: wire.keep_answering(packed(b'{"packed":true}')))
    for _ in range(2):
        assert (await client.get(server.url)).json() == {"packed": True}
    assert server.connections == 1


@pytest.mark.slow
async def test_a_decompression_bomb_raises_reply_too_large(client, serve):
    server = serve(lambda wire: wire.answer(packed(bytes(40 * 2**20))), lambda wire: wire.keep_answering())
    with pytest.raises(httpx.DecodingError) as caught:
        await client.get(server.url)
    error = translate(caught.value)
    assert type(error) is errors.ReplyTooLarge
    assert error.limit == 16 * 2**20
    assert (await client.get(server.url)).status_code == 200


async def test_the_body_of_an_error_is_cut(client, serve):
    server = serve(lambda wire: wire.answer(packed(b"x" * 10**6, b"500 Oops")))
    response = await client.get(server.url)
    assert len(response.content) == 64 * 1024
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    error = translate(caught.value)
    assert type(error) is errors.ServerFailed
    assert error.body.startswith("xxx")


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"x" * 100, mtime=0)[:-5]], ids=["none", "no trailer"])
async def test_invalid_gzip_raises_malformed_reply(client, serve, body):
    reply = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with pytest.raises(httpx.DecodingError) as caught:
        await client.get(serve(lambda wire: wire.answer(reply)).url)
    assert type(translate(caught.value)) is errors.MalformedReply


async def test_no_redirect_is_followed(client, serve):
    other = serve()
    reply = b"HTTP/1.1 307 Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % other.url.encode()
    response = await client.post(serve(lambda wire: wire.answer(reply)).url, content=b"secret")
    assert response.status_code == 307
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    assert type(translate(caught.value)) is errors.RedirectRefused
    assert other.connections == 0


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b"])
async def test_a_header_with_a_line_break_is_not_sent(client, serve, value):
    server = serve()
    with pytest.raises(httpx.LocalProtocolError) as caught:
        await client.get(server.url, headers={"x-key": value})
    assert type(translate(caught.value)) is errors.InvalidOption
    assert server.connections == 0


async def test_failures_raise_the_exceptions_of_httpx(client, serve, closed_port):
    with pytest.raises(httpx.ConnectError) as caught:
        await client.get(f"http://127.0.0.1:{closed_port}/")
    assert translate(caught.value).kind == "refused"
    with pytest.raises(httpx.ConnectError) as caught:
        await client.get("http://no-such-host.invalid/")
    assert translate(caught.value).kind == "dns"
    with pytest.raises(httpx.ReadTimeout) as caught:
        await client.get(serve(lambda wire: wire.answer_and_wait()).url, timeout=0.2)
    assert caught.value.request.method == "GET"
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(serve(lambda wire: wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")).url)
    with pytest.raises(httpx.RemoteProtocolError) as caught:
        await client.get(serve(lambda wire: wire.answer(b"this is not http\r\n\r\n")).url)
    assert type(translate(caught.value)) is errors.MalformedReply


async def test_a_request_is_sent_again_if_the_reused_connection_was_closed(client, serve):
    def once(wire):
        wire.request()
        wire.send(wire.ok())
        wire.request()

    server = serve(once, lambda wire: wire.keep_answering())
    for _ in range(2):
        assert (await client.post(server.url, json={})).status_code == 200


async def test_cancelling_closes_the_connection(client, serve):
    server = serve(lambda wire: wire.answer_and_wait())
    with anyio.move_on_after(0.3):
        await client.get(server.url)
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 2)


async def test_a_client_that_sent_nothing_can_be_closed_twice():
    for _ in range(50):
        client = new_client()
        await client.aclose()
        await client.aclose()
        assert client.is_closed
