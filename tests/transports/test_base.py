"""Requests, replies and headers: which values are refused, and what ``repr`` hides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models import Limits
from llm_council.transports import HttpReply, HttpRequest, ReplyStream
from llm_council.transports._base import build_headers, host_of, parse_headers
from llm_council.transports._reply import read_head

URL = "https://api.example.com/v1/chat"


def test_repr_hides_credentials_query_and_body():
    request = HttpRequest(
        url=URL + "?key=hidden-1", headers={"X-Api-Key": "hidden-2", "Accept": "text/plain"}, body=b"hidden-3"
    )
    assert "hidden" not in repr(request)
    assert "text/plain" in repr(request)
    reply = HttpReply(status=200, headers={"set-cookie": "hidden-4", "x-request-id": "r1"}, body=b"hidden-5", url=URL)
    assert "hidden" not in repr(reply)
    assert "r1" in repr(reply)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b", "ключ", "a\x7f", 5, None, b"bytes"])
def test_a_header_value_that_is_not_printable_ascii_is_refused(value):
    with pytest.raises(InvalidOption, match="x-key") as caught:
        HttpRequest(url=URL, headers={"x-key": value})
    assert str(value) not in str(caught.value) or value == 5


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "é"])
def test_an_invalid_header_name_is_refused(name):
    with pytest.raises(InvalidOption):
        HttpRequest(url=URL, headers={name: "x"})


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "example.com",
        "",
        "http://",
        "http://user:hidden@example.com/",
        "http://example.com:port/",
        "http://[::1/",
        "http://example.com/a b",
        "http://example.com/\r\nX: 1",
        "http://exämple.com/",
    ],
)
def test_an_invalid_url_is_refused_without_showing_its_password(url):
    with pytest.raises(InvalidOption) as caught:
        HttpRequest(url=url)
    assert "hidden" not in str(caught.value)


def test_an_invalid_method_is_refused():
    with pytest.raises(InvalidOption):
        HttpRequest(method="GET /\r\n", url=URL)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "1"}, 1.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "junk", "retry-after": "7"}, 7.0),
        ({"retry-after": "inf"}, float("inf")),
        ({"retry-after": "31536000"}, 31536000.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:30 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 09:00:00 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, None),
        ({"retry-after": "Sun, 22 Nov 1999 09:00:00 GMT"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_seconds(headers, seconds):
    assert HttpReply(status=429, headers=headers).retry_after == seconds


@given(st.text(max_size=40))
def test_retry_after_is_positive_or_none_for_any_text(text):
    seconds = HttpReply(status=429, headers={"retry-after": text, "date": text}).retry_after
    assert seconds is None or seconds > 0


def test_a_reply_has_a_content_type_a_request_id_and_retry_advice():
    reply = HttpReply(
        status=503,
        headers={"content-type": "Text/HTML; charset=utf-8", "request-id": "r2", "x-should-retry": "False"},
    )
    assert (reply.content_type, reply.request_id, reply.should_retry) == ("text/html", "r2", False)
    assert HttpReply(status=200).should_retry is None
    assert HttpReply(status=200).request_id is None


def test_repeated_reply_headers_are_joined_and_large_ones_refused():
    pairs = [(b"X-A", b"1"), (b"x-a", b"2"), (b"Content-Length", b"5"), (b"content-length", b"5")]
    assert parse_headers(pairs, 1000) == {"x-a": "1, 2", "content-length": "5, 5"}
    with pytest.raises(MalformedReply):
        parse_headers([(b"a", b"x" * 100)], 100)


@pytest.mark.parametrize("value", [b"a\0b", b"a\nb", b"a\rb"])
def test_a_reply_header_with_a_control_character_is_refused(value):
    with pytest.raises(MalformedReply):
        parse_headers([(b"a", value)], 1000)


@pytest.mark.parametrize("lengths", [[b"5", b"6"], [b"5, 6"], [b"-1"], [b"+5"], [b"five"], [b""], [b"5;"]])
def test_an_ambiguous_content_length_is_refused(lengths):
    with pytest.raises(MalformedReply):
        parse_headers([(b"Content-Length", length) for length in lengths], 1000)


def test_requests_accept_gzip_only_and_may_set_the_user_agent():
    assert build_headers({"Accept-Encoding": "br", "A": "b"}) == {"A": "b", "accept-encoding": "gzip, identity"}
    assert build_headers({}, user_agent="me")["user-agent"] == "me"
    assert "user-agent" not in build_headers({"User-Agent": "mine"}, user_agent="me")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://u:p@host/x?key=1", "host:443"),
        ("http://host:8080", "host:8080"),
        ("http://[::1]:80/", "[::1]:80"),
        ("/relative?key=1", "/relative"),
        ("http://[bad", "an unreadable address"),
    ],
)
def test_host_of_returns_host_and_port_only(url, host):
    assert host_of(url) == host


def test_the_url_of_a_reply_has_no_query():
    head = read_head(HttpRequest(url=URL + "?key=hidden"), 200, [], Limits())
    assert head.url == URL


@pytest.mark.anyio
async def test_read_returns_the_rest_of_a_stream():
    async def chunks():
        for chunk in (b"a", b"b", b"c"):
            yield chunk

    stream = ReplyStream(HttpReply(status=201, headers={"a": "b"}, url=URL), chunks())
    async for chunk in stream:
        assert chunk == b"a"
        break
    reply = await stream.read()
    assert (reply.status, reply.headers, reply.body, reply.url) == (201, {"a": "b"}, b"bc", URL)
