"""``RequestsTransport``: sessions and mocks of the caller, and worker threads."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time

import anyio
import pytest
import requests
import responses
from requests.adapters import HTTPAdapter

from llm_council import errors
from llm_council.models import Limits
from llm_council.transports import HttpRequest, RequestsTransport

pytestmark = pytest.mark.anyio

URL = "https://model.example/v1/chat"


async def test_the_responses_mock_answers_send():
    with responses.RequestsMock() as mocked:
        mocked.post(URL, json={"a": 1}, headers={"X-Request-Id": "r1"})
        transport = RequestsTransport(requests.Session())
        reply = await transport.send(HttpRequest(url=URL, headers={"authorization": "Bearer x"}, body=b'{"q":1}'))
        assert (json.loads(reply.body), reply.request_id) == ({"a": 1}, "r1")
        sent = mocked.calls[0].request
        assert (sent.body, sent.headers["authorization"]) == (b'{"q":1}', "Bearer x")
        assert sent.headers["accept-encoding"] == "gzip, identity"


async def test_the_responses_mock_answers_stream():
    with responses.RequestsMock() as mocked:
        mocked.post(URL, body=b"data: 1\n\n" * 100_000, content_type="text/event-stream")
        async with RequestsTransport(requests.Session()).stream(HttpRequest(url=URL)) as stream:
            assert stream.head.content_type == "text/event-stream"
            assert b"".join([chunk async for chunk in stream]) == b"data: 1\n\n" * 100_000


async def test_an_empty_body_of_a_mock_is_a_complete_reply():
    with responses.RequestsMock() as mocked:
        mocked.post(URL, body=b"")
        assert (await RequestsTransport(requests.Session()).send(HttpRequest(url=URL))).body == b""


async def test_the_responses_mock_may_compress_fail_and_redirect():
    with responses.RequestsMock() as mocked:
        transport = RequestsTransport(requests.Session())
        mocked.post(URL, body=gzip.compress(b"x" * 1000, mtime=0), headers={"content-encoding": "gzip"})
        assert (await transport.send(HttpRequest(url=URL))).body == b"x" * 1000
        mocked.post(URL + "/429", status=429, headers={"Retry-After": "3"}, body="slow")
        reply = await transport.send(HttpRequest(url=URL + "/429"))
        assert (reply.status, reply.retry_after, reply.body) == (429, 3.0, b"slow")
        mocked.post(URL + "/302", status=302, headers={"Location": "https://elsewhere.example/"})
        with pytest.raises(errors.RedirectRefused, match="elsewhere"):
            await transport.send(HttpRequest(url=URL + "/302"))
        mocked.post(URL + "/big", body=b"x" * 1000)
        with pytest.raises(errors.ReplyTooLarge):
            await transport.send(HttpRequest(url=URL + "/big"), limits=Limits(body=10))
        mocked.post(URL + "/timeout", body=requests.ReadTimeout())
        with pytest.raises(errors.TimedOut):
            await transport.send(HttpRequest(url=URL + "/timeout"))
        with pytest.raises(errors.ConnectFailed):
            await transport.send(HttpRequest(url=URL + "/not-mocked"))


async def test_headers_params_hooks_and_auth_of_the_session_are_used(serve):
    server = serve()
    session = requests.Session()
    session.headers["X-Corporate"] = "yes"
    session.headers["User-Agent"] = "corporate"
    session.params = {"tenant": "7"}
    seen = []
    session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))

    class Token(requests.auth.AuthBase):
        def __call__(self, prepared):
            prepared.headers["X-Token"] = "signed"
            return prepared

    session.auth = Token()
    transport = RequestsTransport(session)
    for _ in range(3):
        await transport.send(HttpRequest(url=server.url))
    await transport.aclose()
    head = server.requests[0].lower()
    for line in (b"x-corporate: yes", b"user-agent: corporate", b"x-token: signed", b"/v1/chat?tenant=7"):
        assert line in head
    assert seen == [200] * 3
    assert len(session.hooks["response"]) == 1
    assert server.connections == 1
    session.close()


async def test_netrc_does_not_replace_the_authorization_header(serve, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server = serve()
    transport = RequestsTransport()
    await transport.send(HttpRequest(url=server.url, headers={"authorization": "Bearer ours"}))
    await transport.aclose()
    assert b"bearer ours" in server.requests[0].lower()
    assert b"basic" not in server.requests[0].lower()


async def test_standard_adapters_get_a_connection_for_each_thread(serve):
    class Corporate(HTTPAdapter):
        pass

    session = requests.Session()
    corporate = Corporate()
    session.mount("https://intranet.example", corporate)
    session.mount("http://", HTTPAdapter(max_retries=0))
    transport = RequestsTransport(session, max_workers=25)
    assert session.get_adapter("https://intranet.example/x") is corporate
    assert session.get_adapter("http://127.0.0.1")._pool_maxsize == 25

    def slow(wire):
        while wire.request():
            time.sleep(0.05)
            wire.send(wire.ok())

    server = serve(slow)
    for _ in range(2):
        async with anyio.create_task_group() as group:
            for _ in range(25):
                group.start_soon(transport.send, HttpRequest(url=server.url))
    assert server.connections <= 25  # reused in the second round
    session.close()


async def test_at_most_max_workers_threads_run(serve):
    running, most = 0, 0
    lock = threading.Lock()

    def slow(wire):
        nonlocal running, most
        while wire.request():
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.05)
            with lock:
                running -= 1
            wire.send(wire.ok())

    server = serve(slow)
    transport = RequestsTransport(max_workers=3)
    async with anyio.create_task_group() as group:
        for _ in range(9):
            group.start_soon(transport.send, HttpRequest(url=server.url))
    assert most <= 3
    await transport.aclose()


async def test_every_read_has_a_timeout():
    transport = RequestsTransport(timeout=(1.0, None))
    from llm_council.models import Timeouts

    assert transport._socket_timeouts(Timeouts(), None) == (1.0, 600.0)
    assert transport._socket_timeouts(Timeouts(total=None), None) == (1.0, 600.0)
    assert transport._socket_timeouts(Timeouts(connect=0.5, read=7), 3.0) == (0.5, 4.0)
    assert RequestsTransport(timeout=(None, 2.0))._socket_timeouts(Timeouts(connect=None), 30.0) == (31.0, 2.0)


async def test_a_hook_that_raises_for_status_is_translated():
    session = requests.Session()
    session.hooks["response"].append(lambda response, **_: response.raise_for_status())
    with responses.RequestsMock() as mocked:
        mocked.post(URL, status=401, body="no")
        with pytest.raises(errors.AuthenticationFailed):
            await RequestsTransport(session).send(HttpRequest(url=URL))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_its_own_connections(serve, python):
    server = serve()
    ran = python(
        """
        import os, sys, warnings, anyio
        from llm_council.transports import HttpRequest, RequestsTransport
        warnings.simplefilter("ignore", DeprecationWarning)
        transport = RequestsTransport()
        async def ask():
            assert (await transport.send(HttpRequest(url=sys.argv[1]))).status == 200
        anyio.run(ask)
        child = os.fork()
        if not child:
            anyio.run(ask)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        anyio.run(ask)
        anyio.run(transport.aclose)
        """,
        server.url,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(server.requests) == 3
    assert server.connections == 2
