"""``HttpxTransport``: clients and transports of the caller, event loops and proxies."""

from __future__ import annotations

import asyncio
import gzip

import anyio
import httpx
import pytest

from llm_council import errors
from llm_council.models import Limits, Timeouts
from llm_council.transports import HttpRequest, HttpxTransport, RequestsTransport

URL = "http://model.example/v1/chat?x=1"


def mock(**reply):
    return httpx.MockTransport(lambda request: httpx.Response(reply.pop("status", 200), **reply))


@pytest.mark.anyio
async def test_a_mock_transport_answers_send_and_stream():
    asked = []

    def answer(request):
        asked.append(request)
        return httpx.Response(200, content=b'{"a":1}', headers={"x-request-id": "r1"})

    transport = HttpxTransport(transport=httpx.MockTransport(answer))
    reply = await transport.send(HttpRequest(url=URL, headers={"a": "b"}, body=b"{}"))
    assert (reply.body, reply.request_id, reply.url) == (b'{"a":1}', "r1", "http://model.example/v1/chat")
    assert str(asked[0].url) == URL
    assert (asked[0].method, asked[0].headers["a"], asked[0].content) == ("POST", "b", b"{}")
    async with transport.stream(HttpRequest(url=URL)) as stream:
        assert b"".join([chunk async for chunk in stream]) == b'{"a":1}'


@pytest.mark.anyio
async def test_a_mock_transport_may_stream_or_compress_its_body():
    async def body():
        yield b"one"
        yield b"two"

    reply = await HttpxTransport(transport=mock(content=body())).send(HttpRequest(url=URL))
    assert reply.body == b"onetwo"
    packed = gzip.compress(b"hello", mtime=0)
    reply = await HttpxTransport(transport=mock(content=packed, headers={"content-encoding": "gzip"})).send(
        HttpRequest(url=URL)
    )
    assert reply.body == b"hello"


@pytest.mark.anyio
async def test_the_body_of_a_mock_transport_is_bounded():
    with pytest.raises(errors.ReplyTooLarge):
        await HttpxTransport(transport=mock(content=b"x" * 100)).send(HttpRequest(url=URL), limits=Limits(body=99))


@pytest.mark.anyio
async def test_an_exception_of_a_mock_transport_is_translated():
    def fail(request):
        raise httpx.ConnectTimeout("no", request=request)

    with pytest.raises(errors.TimedOut, match=r"model\.example:80") as caught:
        await HttpxTransport(transport=httpx.MockTransport(fail)).send(HttpRequest(url=URL))
    assert caught.value.phase == "connect"


@pytest.mark.anyio
async def test_the_callers_client_adds_its_headers_auth_and_hooks(serve):
    server = serve()
    hooked = []

    async def hook(request):
        hooked.append(request)

    async with httpx.AsyncClient(
        headers={"X-Corporate": "yes", "user-agent": "corporate", "a": "theirs"},
        auth=("user", "pass"),
        follow_redirects=True,
        timeout=0.001,
        event_hooks={"request": [hook]},
    ) as client:
        transport = HttpxTransport(client)
        reply = await transport.send(HttpRequest(url=server.url, headers={"a": "ours"}), timeouts=Timeouts(connect=5))
        assert reply.status == 200
        await transport.aclose()
        assert not client.is_closed
    head = server.requests[0].lower()
    assert b"x-corporate: yes" in head
    assert b"authorization: basic" in head
    assert b"user-agent: corporate" in head
    assert b"\r\na: ours" in head
    assert b"theirs" not in head
    assert b"accept-encoding: gzip, identity" in head
    assert head.count(b"host:") == 1
    assert len(hooked) == 1


@pytest.mark.anyio
async def test_the_callers_client_does_not_follow_redirects(serve):
    other = serve()
    reply = b"HTTP/1.1 302 Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % other.url.encode()
    server = serve(lambda wire: wire.answer(reply))
    async with httpx.AsyncClient(follow_redirects=True) as client:
        with pytest.raises(errors.RedirectRefused):
            await HttpxTransport(client).send(HttpRequest(url=server.url))
    assert other.connections == 0


@pytest.mark.anyio
async def test_waiting_for_the_callers_pool_times_out(serve):
    server = serve(lambda wire: wire.answer_and_wait())
    timeout = httpx.Timeout(0.001, pool=0.2)
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1), timeout=timeout) as client:
        transport = HttpxTransport(client)
        async with anyio.create_task_group() as group:
            group.start_soon(transport.send, HttpRequest(url=server.url))
            await anyio.sleep(0.1)
            with pytest.raises(errors.TimedOut, match="pool") as caught:
                await transport.send(HttpRequest(url=server.url))
            group.cancel_scope.cancel()
    assert caught.value.phase == "pool"


def test_client_and_transport_exclude_each_other():
    with pytest.raises(errors.InvalidOption):
        HttpxTransport(httpx.AsyncClient(), transport=mock())


def test_one_transport_serves_many_event_loops(serve):
    server = serve()
    transport = HttpxTransport()

    async def twice():
        for _ in range(2):
            assert (await transport.send(HttpRequest(url=server.url))).status == 200

    for backend in ("asyncio", "trio", "asyncio", "trio"):
        anyio.run(twice, backend=backend)
    assert server.connections == 4
    assert len(server.requests) == 8


def test_a_closed_transport_opens_a_new_pool(serve):
    server = serve()

    async def use():
        transport = HttpxTransport()
        for _ in range(2):
            await transport.send(HttpRequest(url=server.url))
            await transport.aclose()
            await transport.aclose()

    asyncio.run(use())
    assert server.connections == 2


TRANSPORTS = pytest.mark.parametrize("kind", [HttpxTransport, RequestsTransport])


@pytest.fixture
def proxied(monkeypatch, serve):
    """Set HTTP_PROXY to a server that answers every request, and return it."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxy = serve()
    monkeypatch.setenv("HTTP_PROXY", f"http://user:hidden@127.0.0.1:{proxy.port}")
    return proxy


@TRANSPORTS
@pytest.mark.anyio
async def test_the_proxy_of_the_environment_is_used(proxied, kind):
    transport = kind()
    reply = await transport.send(HttpRequest(url="http://model.example/v1"))
    assert reply.status == 200
    head = proxied.requests[0].lower()
    assert head.startswith(b"post http://model.example/v1 http/1.1\r\n")
    assert b"proxy-authorization: basic dxnlcjpoawrkzw4=" in head  # user:hidden, lower case
    await transport.aclose()


@TRANSPORTS
@pytest.mark.anyio
async def test_no_proxy_is_respected(proxied, serve, monkeypatch, kind):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    server = serve()
    transport = kind()
    assert (await transport.send(HttpRequest(url=server.url))).status == 200
    assert (proxied.connections, server.connections) == (0, 1)
    await transport.aclose()


@pytest.mark.anyio
async def test_trust_env_false_ignores_the_proxy(proxied, serve):
    server = serve()
    transport = HttpxTransport(trust_env=False)
    assert (await transport.send(HttpRequest(url=server.url))).status == 200
    assert proxied.connections == 0
    await transport.aclose()


@TRANSPORTS
@pytest.mark.anyio
async def test_a_proxy_that_refuses_is_a_proxy_failure(proxied, closed_port, monkeypatch, kind):
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://user:hidden@127.0.0.1:{closed_port}")
    transport = kind()
    for url in ("http://model.example/", "https://model.example/"):
        with pytest.raises(errors.ConnectFailed) as caught:
            await transport.send(HttpRequest(url=url))
        assert caught.value.kind == "proxy"
        assert "hidden" not in f"{caught.value} {caught.value.__cause__!r} {caught.value.__dict__}"
    await transport.aclose()


@TRANSPORTS
@pytest.mark.anyio
async def test_a_proxy_that_requires_a_password_is_a_proxy_failure(proxied, serve, monkeypatch, kind):
    refusing = serve(lambda wire: wire.answer(b"HTTP/1.1 407 Denied\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{refusing.port}")
    transport = kind()
    with pytest.raises(errors.ConnectFailed) as caught:
        await transport.send(HttpRequest(url="https://model.example/"))
    assert caught.value.kind == "proxy"
    assert refusing.requests[0].startswith(b"CONNECT model.example:443")
    await transport.aclose()


@pytest.mark.anyio
async def test_an_unsupported_kind_of_proxy_is_refused(proxied, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1:70")
    transport = HttpxTransport()
    with pytest.raises(errors.InvalidOption):
        await transport.send(HttpRequest(url="http://model.example/"))
    await transport.aclose()
