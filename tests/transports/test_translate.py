"""``translate`` and ``api_error``: exceptions of HTTP libraries and SDKs, and replies, become typed errors."""

from __future__ import annotations

import errno
import http.client
import json
import pickle
import socket
import ssl

import aiohttp
import httpx
import pytest
import requests
import urllib3

from llm_council import errors
from llm_council._wire.openai_chat import decode_error
from llm_council.transports import HttpReply, api_error, translate

KEY = "sk-canary-0123456789abcdef"
REQUEST = httpx.Request(
    "POST", f"https://u:hidden@api.example.com:8443/v1?key={KEY}", headers={"authorization": f"Bearer {KEY}"}
)


def caused(exc: BaseException, cause: BaseException) -> BaseException:
    exc.__cause__ = cause
    return exc


def aiohttp_key() -> aiohttp.client_reqrep.ConnectionKey:
    return aiohttp.client_reqrep.ConnectionKey("host", 443, True, True, None, None, None)


CASES = [
    (httpx.ConnectTimeout("x"), errors.TimedOut, {"phase": "connect", "retryable": True}),
    (httpx.ReadTimeout("x"), errors.TimedOut, {"phase": "read"}),
    (httpx.PoolTimeout("x"), errors.TimedOut, {"phase": "pool"}),
    (caused(httpx.ConnectError("x"), ConnectionRefusedError()), errors.ConnectFailed, {"kind": "refused"}),
    (caused(httpx.ConnectError("x"), socket.gaierror(-2, "no")), errors.ConnectFailed, {"kind": "dns"}),
    (
        caused(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "no")),
        errors.ConnectFailed,
        {"kind": "tls", "retryable": False},
    ),
    (
        caused(httpx.ConnectError("x"), ExceptionGroup("all", [OSError("x"), ConnectionRefusedError()])),
        errors.ConnectFailed,
        {"kind": "refused"},
    ),
    (httpx.ConnectError("x"), errors.ConnectFailed, {"kind": "other", "retryable": True}),
    (httpx.ProxyError("x"), errors.ConnectFailed, {"kind": "proxy"}),
    (httpx.ReadError("x"), errors.ConnectionLost, {"retryable": True}),
    (httpx.WriteError("x"), errors.ConnectionLost, {}),
    (httpx.RemoteProtocolError("x"), errors.ConnectionLost, {}),
    (httpx.LocalProtocolError("x"), errors.InvalidOption, {}),
    (httpx.UnsupportedProtocol("x"), errors.InvalidOption, {}),
    (httpx.InvalidURL("x"), errors.InvalidOption, {}),
    (httpx.DecodingError("x"), errors.MalformedReply, {"retryable": True}),
    (httpx.TooManyRedirects("x"), errors.RedirectRefused, {"retryable": False}),
    (httpx.HTTPError("x"), errors.TransportError, {}),
    (aiohttp.ConnectionTimeoutError("x"), errors.TimedOut, {"phase": "connect"}),
    (aiohttp.SocketTimeoutError("x"), errors.TimedOut, {"phase": "read"}),
    (
        aiohttp.ClientConnectorError(aiohttp_key(), ConnectionRefusedError(111, "no")),
        errors.ConnectFailed,
        {"kind": "refused"},
    ),
    (aiohttp.ClientConnectorDNSError(aiohttp_key(), socket.gaierror(-2, "no")), errors.ConnectFailed, {"kind": "dns"}),
    (
        aiohttp.ClientConnectorCertificateError(aiohttp_key(), ssl.SSLCertVerificationError(1, "no")),
        errors.ConnectFailed,
        {"kind": "tls"},
    ),
    (aiohttp.ClientProxyConnectionError(aiohttp_key(), OSError(111, "no")), errors.ConnectFailed, {"kind": "proxy"}),
    (aiohttp.ServerDisconnectedError(), errors.ConnectionLost, {}),
    (aiohttp.ClientOSError(errno.ECONNRESET, "x"), errors.ConnectionLost, {}),
    (aiohttp.ClientPayloadError("x"), errors.ConnectionLost, {}),
    (aiohttp.InvalidURL("x"), errors.InvalidOption, {}),
    (requests.ConnectTimeout("x"), errors.TimedOut, {"phase": "connect"}),
    (requests.ReadTimeout("x"), errors.TimedOut, {"phase": "read"}),
    (requests.exceptions.ProxyError("x"), errors.ConnectFailed, {"kind": "proxy"}),
    (requests.exceptions.SSLError("x"), errors.ConnectFailed, {"kind": "tls", "retryable": False}),
    (
        requests.ConnectionError(urllib3.exceptions.ProtocolError("x", http.client.RemoteDisconnected("x"))),
        errors.ConnectionLost,
        {},
    ),
    (
        requests.ConnectionError(urllib3.exceptions.ProtocolError("x", http.client.BadStatusLine("x"))),
        errors.MalformedReply,
        {},
    ),
    (
        requests.ConnectionError(
            urllib3.exceptions.MaxRetryError(
                None, "/", caused(urllib3.exceptions.NewConnectionError(None, "x"), ConnectionRefusedError())
            )
        ),
        errors.ConnectFailed,
        {"kind": "refused"},
    ),
    (requests.ConnectionError("no mock for this"), errors.ConnectFailed, {"kind": "other"}),
    (requests.exceptions.InvalidHeader("x"), errors.InvalidOption, {}),
    (requests.exceptions.InvalidHeader(urllib3.exceptions.InvalidHeader("x")), errors.MalformedReply, {}),
    (requests.exceptions.ChunkedEncodingError("x"), errors.ConnectionLost, {}),
    (requests.exceptions.ContentDecodingError("x"), errors.MalformedReply, {}),
    (requests.TooManyRedirects("x"), errors.RedirectRefused, {}),
    (requests.exceptions.MissingSchema("x"), errors.InvalidOption, {}),
    (requests.exceptions.JSONDecodeError("x", "doc", 0), errors.MalformedReply, {}),
    (requests.RequestException("x"), errors.TransportError, {}),
    (urllib3.exceptions.ReadTimeoutError(None, "/", "x"), errors.TimedOut, {"phase": "read"}),
    (urllib3.exceptions.IncompleteRead(1, 2), errors.ConnectionLost, {}),
    (urllib3.exceptions.ProtocolError("x", ConnectionResetError()), errors.ConnectionLost, {}),
    (urllib3.exceptions.DecodeError("x"), errors.MalformedReply, {}),
    (ssl.SSLError(1, "x"), errors.ConnectFailed, {"kind": "tls"}),
    (socket.gaierror(-2, "x"), errors.ConnectFailed, {"kind": "dns"}),
    (ConnectionRefusedError(), errors.ConnectFailed, {"kind": "refused"}),
    (ConnectionResetError(), errors.ConnectionLost, {}),
    (BrokenPipeError(), errors.ConnectionLost, {}),
    (TimeoutError(), errors.TimedOut, {"phase": "read"}),
    (json.JSONDecodeError("x", "doc", 0), errors.MalformedReply, {}),
]


@pytest.mark.parametrize(
    ("exc", "kind", "facts"),
    CASES,
    ids=[f"{type(exc).__module__}.{type(exc).__name__}-{i}" for i, (exc, *_) in enumerate(CASES)],
)
def test_an_exception_is_translated_by_its_type(exc, kind, facts):
    error = translate(exc)
    assert type(error) is kind
    assert {name: getattr(error, name) for name in facts} == facts
    assert type(error.__cause__) is type(exc)
    assert error.__cause__.__cause__ is None
    assert str(error)
    str(error.__cause__)  # must not need what was removed
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (kind, str(error))


@pytest.mark.parametrize(
    "exc", [ValueError("x"), OSError("x"), FileNotFoundError("x"), KeyError("x"), RuntimeError("x")]
)
def test_unknown_exceptions_are_not_translated(exc):
    assert translate(exc) is None


def test_our_own_errors_are_returned_unchanged():
    error = errors.RateLimited("x")
    assert translate(error) is error


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, errors.RequestRejected, False),
        (401, errors.AuthenticationFailed, False),
        (402, errors.OutOfCredit, False),
        (403, errors.PermissionRefused, False),
        (404, errors.RequestRejected, False),
        (408, errors.ServerFailed, True),
        (409, errors.RequestRejected, False),
        (425, errors.RequestRejected, True),
        (501, errors.ServerFailed, False),
        (413, errors.RequestTooLarge, False),
        (418, errors.RequestRejected, False),
        (422, errors.RequestRejected, False),
        (429, errors.RateLimited, True),
        (500, errors.ServerFailed, True),
        (529, errors.ServerFailed, True),
    ],
)
def test_a_status_is_classified_and_its_secrets_are_removed(status, kind, retryable):
    headers = {"Retry-After": "7", "X-Request-Id": "r1"}
    response = httpx.Response(status, headers=headers, text=f"wrong key {KEY}\x1b[2J", request=REQUEST)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    error = translate(caught.value)
    assert type(error) is kind
    assert (error.status, error.retry_after, error.request_id, error.retryable) == (status, 7.0, "r1", retryable)
    assert error.body == "wrong key ***[2J"
    shown = f"{error!r} {error} {error.__cause__!r} {error.__dict__} {error.__cause__.__dict__}"
    assert KEY not in shown
    assert "hidden" not in shown


def test_x_should_retry_overrides_the_status():
    assert not api_error(HttpReply(status=503, headers={"x-should-retry": "false"})).retryable
    assert api_error(HttpReply(status=400, headers={"x-should-retry": "true"})).retryable


def test_a_404_shows_the_url():
    error = api_error(HttpReply(status=404, url="https://api.example.com/v2/chat"))
    assert "https://api.example.com/v2/chat" in str(error)


def test_an_unread_response_has_a_status_and_no_body():
    response = httpx.Response(503, stream=httpx.ByteStream(b"unread"), request=REQUEST)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    error = translate(caught.value)
    assert (type(error), error.status, error.body) == (errors.ServerFailed, 503, "")


def test_a_redirect_raised_by_httpx_is_refused():
    response = httpx.Response(302, headers={"location": "https://elsewhere.example/?t=hidden"}, request=REQUEST)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    error = translate(caught.value)
    assert type(error) is errors.RedirectRefused
    assert "elsewhere.example" in str(error)
    assert "hidden" not in str(error)


def test_statuses_of_requests_and_aiohttp_are_classified():
    response = requests.Response()
    response.status_code, response._content, response.url = 429, b"slow down", "https://api.example.com/v1"
    response.headers["Retry-After"] = "3"
    with pytest.raises(requests.HTTPError) as caught:
        response.raise_for_status()
    error = translate(caught.value)
    assert (type(error), error.retry_after, error.body) == (errors.RateLimited, 3.0, "slow down")
    assert error.__cause__.response is None

    info = aiohttp.RequestInfo(
        aiohttp.client_reqrep.URL("https://api.example.com/v1"),
        "POST",
        aiohttp.client_reqrep.CIMultiDictProxy(aiohttp.client_reqrep.CIMultiDict({"authorization": KEY})),
        aiohttp.client_reqrep.URL("https://api.example.com/v1"),
    )
    error = translate(aiohttp.ClientResponseError(info, (), status=401, message="no"))
    assert (type(error), error.status) == (errors.AuthenticationFailed, 401)
    assert not error.__cause__.request_info.headers
    assert "api.example.com" in str(error.__cause__)


def test_the_error_names_the_host_and_its_cause_has_no_traceback():
    try:
        raise httpx.ReadError("read", request=REQUEST)
    except httpx.ReadError as exc:
        error = translate(exc)
    assert "api.example.com:8443" in str(error)
    assert error.__cause__.__traceback__ is None
    assert error.__cause__._request is None
    assert str(translate(httpx.ReadError("x"), "host:1")) == "the connection to host:1 ended before the reply did"


def of_sdk(name: str, library: str, **facts: object) -> BaseException:
    """Return an exception as the vendors' SDKs raise it."""
    bases: tuple[type, ...] = (Exception,)
    for word in ("APIError", name):
        bases = (type(word, bases, {"__module__": library}),)
    exc: BaseException = bases[0](f"the message, and {KEY}")
    vars(exc).update(message=f"the message, and {KEY}", body={"key": KEY}, **facts)
    return exc


@pytest.mark.parametrize("library", ["openai", "anthropic", "groq", "together", "cerebras"])
def test_the_exceptions_of_sdks_are_translated(library):
    headers = {"Retry-After": "7", "X-Request-Id": "r1"}
    response = httpx.Response(429, headers=headers, text="slow down", request=REQUEST)
    refusal = of_sdk("APIStatusError", library, response=response, status_code=429)
    error = translate(refusal)
    assert (type(error), error.retry_after, error.request_id, error.body) == (
        errors.RateLimited,
        7.0,
        "r1",
        "slow down",
    )
    midway = translate(of_sdk("APIStatusError", library, response=httpx.Response(200), status_code=200))
    assert (type(midway), midway.message) == (errors.ServerFailed, "the message, and ***")
    assert type(translate(of_sdk("APITimeoutError", library))) is errors.TimedOut
    assert type(translate(of_sdk("APIResponseValidationError", library))) is errors.MalformedReply
    lost = translate(of_sdk("APIConnectionError", library))
    refused = translate(caused(of_sdk("APIConnectionError", library), httpx.ConnectError("x")))
    assert (type(lost), type(refused)) == (errors.ConnectionLost, errors.ConnectFailed)
    for found in (error, midway, lost, refused):
        assert KEY not in f"{found!r} {found} {found.__cause__!r} {found.__dict__} {found.__cause__.__dict__}"


def of_httpx(status, headers, body):
    response = httpx.Response(status, headers=headers, content=body, request=REQUEST)
    return httpx.HTTPStatusError("x", request=REQUEST, response=response)


def of_requests(status, headers, body):
    response = requests.Response()
    response.status_code, response._content, response.url = status, body, "https://api.example.com/v1"
    response.headers.update(headers)
    return requests.HTTPError("x", response=response)


def of_openai(status, headers, body):
    response = httpx.Response(status, headers=headers, content=body, request=REQUEST)
    return of_sdk("APIStatusError", "openai", response=response, status_code=status)


def of_aiohttp(status, headers, _):
    url = aiohttp.client_reqrep.URL("https://api.example.com/v1")
    sent = aiohttp.client_reqrep.CIMultiDict(headers)
    info = aiohttp.RequestInfo(url, "POST", aiohttp.client_reqrep.CIMultiDictProxy(sent), url)
    return aiohttp.ClientResponseError(info, (), status=status, message="no", headers=sent)


HEADERS = [
    {},
    {"Retry-After": "7"},
    {"Retry-After-Ms": "1500", "Retry-After": "9"},
    {"Retry-After": "1_0"},
    {"Retry-After": "inf"},
    {"Retry-After": "Fri, 01 Jan 2100 00:00:30 GMT", "Date": "Fri, 01 Jan 2100 00:00:00 GMT"},
    {"X-Should-Retry": "true"},
    {"X-Should-Retry": "false"},
    *(
        {name: "id-1", "cf-ray": "ray"}
        for name in ("x-request-id", "request-id", "x-generation-id", "x-amzn-requestid")
    ),
    *({name: "id-1", "cf-ray": "ray"} for name in ("x-goog-request-id", "x-trace-id")),
    {"cf-ray": "ray"},
]
BODIES = [b"", b'{"error": {"code": "lock_timeout"}}', b'{"error": {"code": "insufficient_quota"}}', b"<html>"]


@pytest.mark.parametrize(
    "status", [400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 425, 429, 500, 501, 502, 503, 504, 505, 511, 524, 529]
)
def test_third_party_adapters_get_the_same_errors_as_built_in_providers(status):
    def facts(error):
        return type(error), error.status, error.code, error.retryable, error.retry_after, error.request_id

    for headers in HEADERS:
        for body in BODIES:
            reply = HttpReply(
                status=status, headers={name.lower(): value for name, value in headers.items()}, body=body
            )
            built_in = decode_error(status, reply.headers, body, request_id=reply.request_id)
            assert facts(api_error(reply)) == facts(built_in)
            raised = [of_httpx, of_requests, of_openai, *([] if body else [of_aiohttp])]  # aiohttp keeps no body
            for make in raised:
                assert facts(translate(make(status, headers, body))) == facts(built_in), (make, headers, body)


def test_a_409_is_retryable_only_if_its_code_names_a_lock():
    def retryable(code):
        return api_error(HttpReply(status=409, body=json.dumps({"error": {"code": code}}).encode())).retryable

    assert [
        word for word in ("lock_timeout", "ResourceLocked", "request_blocked", "clock_skew") if retryable(word)
    ] == [
        "lock_timeout",
        "ResourceLocked",
    ]
