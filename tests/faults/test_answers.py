"""Replies with status 200 that hold no answer or an incomplete one."""

from __future__ import annotations

import gzip
import json
import zlib
from functools import lru_cache

import pytest
from fault_dialects import compact
from fault_rows import each, exempt

from llm_council import errors
from llm_council.models import FinishReason, Limits

ONCE = "not retried, because the prediction may have been created."

INSIDE = {
    "openai": [
        ({"error": {"message": "overloaded", "type": "server_error", "code": None}}, errors.ServerFailed, 3),
        ({"error": {"message": "no", "code": 401}}, errors.AuthenticationFailed, 1),
        ({"error": {"message": "slow down", "code": 429}}, errors.RateLimited, 3),
        ({"error": {"message": "pay", "code": "insufficient_quota"}}, errors.OutOfCredit, 1),
        ({"error": {"message": "long", "code": "context_length_exceeded"}}, errors.ContextTooLong, 1),
        ({"error": "something went wrong"}, errors.ServerFailed, 3),
        ({"choices": [{"error": {"code": 502, "message": "upstream"}, "message": {}}]}, errors.ServerFailed, 3),
    ],
    "anthropic": [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, errors.ServerFailed, 3),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "busy"}}, errors.RateLimited, 3),
        ({"type": "error", "error": {"type": "authentication_error", "message": "no"}}, errors.AuthenticationFailed, 1),
    ],
    "gemini": [
        ({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}, errors.ServerFailed, 3),
        ({"error": {"code": 429, "message": "busy", "status": "RESOURCE_EXHAUSTED"}}, errors.RateLimited, 3),
        ({"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}, errors.PermissionRefused, 1),
    ],
    "ollama": [({"error": "the model runner has stopped"}, errors.ServerFailed, 3)],
    "cohere": [({"id": "e-1", "message": "internal server error"}, errors.ServerFailed, 3)],
    "replicate": [
        ({"id": "p1", "status": "failed", "error": "Director: unexpected error (E6716)"}, errors.ServerFailed, 3),
        ({"id": "p1", "status": "failed", "error": "ValueError: no such prompt"}, errors.ServerFailed, 1),
    ],
    "responses": [
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, errors.RateLimited, 3),
        ({"id": "r", "status": "failed", "error": {"code": "server_error", "message": "no"}}, errors.ServerFailed, 3),
        ({"id": "r", "status": "failed", "output": []}, errors.ServerFailed, 3),
    ],
}


def test_error_inside(mock):
    """An error object: classified by its own code as if that were the status, and retried accordingly."""
    for body, kind, tries in INSIDE.get(mock.dialect.id) or INSIDE[mock.dialect.kin]:
        mock.calls.clear()
        error = mock.fails(mock.mocked(compact(body)), kind, tries=tries)
        assert len(mock.calls) == tries, body
        assert error.status not in (None, 200)


@exempt("replicate", "a prediction without an id and a status is invalid: `MalformedReply`, one attempt.")
def test_error_of_a_gateway_inside(mock):
    """An error in the shape that gateways use, for any vendor: classified by its code or number as well."""
    for error, kind, tries in (
        ({"message": "slow down", "code": 429}, errors.RateLimited, 3),
        ({"message": "no", "code": 401}, errors.AuthenticationFailed, 1),
        ({"message": "busy", "code": 503}, errors.ServerFailed, 3),
        ("something went wrong", errors.ServerFailed, 3),
    ):
        mock.calls.clear()
        mock.fails(mock.mocked(compact({"error": error})), kind, tries=tries)


def test_invalid_token_counts(mock):
    """Token counts that are negative, text, or have hundreds of digits are unknown; the answer is used."""
    for count in ("-3", '"3"', "9" * 400, "3.5", "null", "[]", "true"):
        mock.calls.clear()
        body = mock.dialect.body().replace(b":3,", b":%b," % count.encode()).replace(b":3}", b":%b}" % count.encode())
        answer = mock.ask(mock.mocked(body))
        assert (answer.text, answer.usage.input_tokens, answer.usage.output_tokens) == ("fine", None, 2)


PAGE = b"<!doctype html><html><head><title>Please sign in</title></head><body>captive portal</body></html>"


def test_html(mock, mode):
    """A web page: `MalformedReply` with the content type and the first 80 characters; retried once."""
    error = mock.fails(
        mock.mocked((200, PAGE, {"content-type": "text/html; charset=utf-8"})), errors.MalformedReply, mode
    )
    assert "text/html" in error.message
    assert PAGE.decode()[:40] in error.message
    assert PAGE.decode()[85:] not in error.message
    assert len(mock.calls) == mock.expected_attempts(2)


@each("kind", ["text/plain", "application/octet-stream", "", "text/html", "APPLICATION/JSON; x=y"])
def test_json_with_another_content_type(mock, kind):
    """JSON with another content type, or none, is read."""
    assert mock.ask(mock.mocked((200, mock.dialect.body(), {"content-type": kind}))).text == "fine"


@pytest.mark.parametrize("said", [(200, b""), (200, b" \r\n\t "), (204, b""), (200, b"\xef\xbb\xbf")])
def test_empty(mock, mode, said):
    """No body, or status 204: `EmptyReply`, retried once. A stream may raise `TruncatedReply`, since its end is
    missing.
    """
    kinds = (
        (errors.EmptyReply, errors.TruncatedReply)
        if mode == "stream" and not mock.dialect.once
        else (errors.EmptyReply, errors.MalformedReply)
    )
    with pytest.raises(kinds):
        mock.ask(mock.mocked(said), mode)
    assert len(mock.calls) == mock.expected_attempts(2)


@exempt("replicate", ONCE)
def test_success_after_an_empty_reply(mock):
    """An empty reply before a success is not raised."""
    assert mock.ask(mock.mocked(b"", mock.dialect.body())).text == "fine"


@each("part", [0.1, 0.5, 0.9, -1])
def test_cut_json(mock, part):
    """JSON that ends early on a complete connection: `MalformedReply`, retried once."""
    body = mock.dialect.body("words " * 50)
    error = mock.fails(mock.mocked(body[: int(len(body) * part) if part > 0 else part]), errors.MalformedReply)
    assert error.path == "$"
    assert len(mock.calls) == mock.expected_attempts(2)


def test_empty_answer(mock):
    """No choices, null, an empty text or blanks: `EmptyReply` or `MalformedReply`; an answer is never None or empty."""
    for value in mock.dialect.empties:
        mock.calls.clear()
        with pytest.raises((errors.EmptyReply, errors.MalformedReply)):
            mock.ask(mock.mocked(compact(value), retries=0))


def test_wrong_types(mock):
    """Lists, numbers, strings and nulls in place of an object: `MalformedReply` with the path."""
    for value in mock.dialect.misfits:
        mock.calls.clear()
        with pytest.raises((errors.MalformedReply, errors.EmptyReply)) as caught:
            mock.ask(mock.mocked(compact(value), retries=0))
        if isinstance(caught.value, errors.MalformedReply):
            assert caught.value.path, value


def test_every_value_of_a_wrong_type(mock):
    """Any value of a good answer replaced by another type, or left out: an answer with text, or a typed error."""

    def spoiled(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                for other in (None, 5, "x", [], {}, True, -1.5, [None]):
                    yield {**value, key: other}
                yield {name: field for name, field in value.items() if name != key}
                for changed in spoiled(inner):
                    yield {**value, key: changed}
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                for changed in spoiled(inner):
                    yield [*value[:place], changed, *value[place + 1 :]]

    for value in spoiled(mock.dialect.reply("fine")):
        mock.calls.clear()
        try:
            answer = mock.ask(
                mock.mocked(compact(value), retries=0), timeout_seconds=0.5 if mock.dialect.once else None
            )
        except errors.ProviderError:
            continue
        assert type(answer.text) is str
        assert answer.text.strip()


@exempt("replicate", "it does not report why a model stopped; the token count shows it if `max_tokens` was set.")
def test_cut_at_the_limit(mock, mode):
    """An answer that reached its token limit has that `finish_reason`; one without text is `TruncatedReply`."""
    dialect = mock.dialect
    if mode == "stream":
        body = b"".join([*dialect.pieces(["part"]), *dialect.cut_end])
        provider = mock.mocked((200, body, {"content-type": dialect.stream_type}))
    else:
        provider = mock.mocked(compact(dialect.finished("part", dialect.cut)))
    answer = mock.ask(provider, mode)
    assert (answer.text, answer.finish_reason) == ("part", FinishReason.LENGTH)
    mock.calls.clear()
    mock.fails(mock.mocked(compact(dialect.finished("", dialect.cut))), errors.TruncatedReply, tries=1)


@exempt("ollama", "it withholds no answers.")
@exempt("cohere", "it withholds answers by status 498 only, which is `ContentFiltered` as well.")
@exempt(
    "replicate", "it withholds answers by the code E005 of a failed prediction, which is `ContentFiltered` as well."
)
def test_filtered(mock):
    """An answer that the vendor withheld: `ContentFiltered`, one attempt; never an empty text."""
    mock.fails(mock.mocked(compact(mock.dialect.finished("", mock.dialect.filtered))), errors.ContentFiltered, tries=1)


@exempt("replicate", "its statuses are a closed set; with an unknown one, the call waits until the deadline.")
def test_unknown_fields(mock):
    """Unknown fields, an unknown finish reason and missing usage are accepted; usage is then None, not 0."""
    value = mock.dialect.finished("fine", "new_reason_of_2027")
    value = {name: field for name, field in value.items() if not any(word in name for word in ("usage", "count"))}
    answer = mock.ask(mock.mocked(compact({**value, "brand_new": {"a": [1, {"b": None}]}})))
    assert (answer.text, answer.usage) == ("fine", None)
    assert answer.finish_reason != FinishReason.STOP or answer.raw_finish_reason == "new_reason_of_2027"


ODD = {
    "not UTF-8": b'{"a":"\xff\xfe"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "deep and cut": b"[" * 200_000,
    "NaN": b'{"a":NaN}',
    "Infinity": b"-Infinity",
    "5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "1e999": b'{"a":1e999}',
    "two values": b"{}{}",
    "JSON lines": b'{"a":1}\n{"a":2}\n',
    "single quotes": b"{'a': 1}",
    "a control character": b'{"a":"\x01"}',
    "NUL": b"\0\0\0\0",
}


@each("fault", ODD)
def test_invalid_json(mock, fault):
    """Invalid JSON (not UTF-8, too deep, NaN, 5,000 digits, several values): `MalformedReply`."""
    mock.fails(mock.mocked(ODD[fault], retries=0), errors.MalformedReply)


def test_byte_order_mark(mock):
    """JSON after a byte order mark is read."""
    assert mock.ask(mock.mocked(b"\xef\xbb\xbf" + mock.dialect.body())).text == "fine"


@exempt("replicate", "the data of its streams is text, which has no surrogates.")
def test_surrogates(mock, mode):
    """A lone surrogate in the text becomes U+FFFD; a pair becomes its character."""
    value = json.dumps(mock.dialect.reply("PLACE")).replace("PLACE", r"a\ud83d b\ud83d\ude00 c\ude00").encode()
    body, kind = value, {}
    if mode == "stream":
        first, *end = mock.dialect.stream("PLACE")[-1 - len(mock.dialect.end) :]
        begin = mock.dialect.pieces([])
        body = b"".join([*begin, first.replace(b"PLACE", rb"a\ud83d b\ud83d\ude00 c\ude00"), *end])
        kind = {"content-type": mock.dialect.stream_type}
    text = mock.ask(mock.mocked((200, body, kind)), mode).text
    assert text == "a\ufffd b\U0001f600 c\ufffd"
    text.encode()


def plain(body, *headers):
    return b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Type: application/json", *headers, b"", b"")) + body


@lru_cache(1)
def bomb(size=64 * 2**20):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(b" " * 2**20) for _ in range(size // 2**20)]) + packer.flush()


HUGE = {
    "a length of 1 GB": lambda wire: flood(wire, plain(b"", b"Content-Length: 1000000000"), b" " * 2**20),
    "chunks without end": lambda wire: flood(
        wire, plain(b"", b"Transfer-Encoding: chunked"), b"100000\r\n" + b" " * 2**20 + b"\r\n"
    ),
    "no length": lambda wire: flood(wire, plain(b"", b"Connection: close"), b" " * 2**20),
    "a bomb": lambda wire: wire.answer(plain(bomb(), b"Content-Encoding: gzip", b"Content-Length: %d" % len(bomb()))),
    "a bomb of deflate": lambda wire: wire.answer(plain(zlib.compress(b" " * 2**24, 9), b"Content-Encoding: deflate")),
}


def flood(wire, head, part):
    wire.request()
    wire.send(head)
    for _ in range(1000):
        wire.send(part)
    wire.server.drained = True


@pytest.mark.parametrize("fault", HUGE)
def test_huge(vendor, serve, fault):
    """A body beyond the limit, in any framing or as a bomb: `ReplyTooLarge` with the limit, one attempt, connection
    closed.
    """
    server = serve(HUGE[fault])
    server.drained = False
    error = vendor.fails(vendor.provider(server.url, limits=Limits(body=2**20)), errors.ReplyTooLarge, tries=1)
    assert error.limit == 2**20
    assert server.connections == 1
    assert not server.drained


def test_bomb_behind_a_redirect(vendor, serve):
    """A decompression bomb as the body of a redirect is not decompressed: `RedirectRefused`."""
    head = b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb())
    vendor.fails(vendor.provider(serve(lambda wire: wire.answer(head, bomb())).url), errors.RedirectRefused, tries=1)


def test_bomb_of_an_error(vendor, serve):
    """A decompression bomb as the body of a 500: `ServerFailed`, cut at 64 KiB."""
    head = b"HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb())
    provider = vendor.provider(serve(lambda wire: wire.answer(head, bomb())).url, retries=0)
    assert len(vendor.fails(provider, errors.ServerFailed).body) <= 64 * 1024


PACKED = {
    "no gzip at all": (b"{}", b"gzip"),
    "cut": (gzip.compress(b"{}" * 500, mtime=0)[:20], b"gzip"),
    "no trailer": (gzip.compress(b"{}", mtime=0)[:-4], b"gzip"),
    "a bit flipped": (gzip.compress(b"hello" * 99, mtime=0)[:-6] + b"\0\0\0\0\0\0", b"gzip"),
    "not asked for": (b"{}", b"br"),
    "packed twice": (gzip.compress(gzip.compress(b"{}")), b"gzip, gzip"),
}


@pytest.mark.parametrize("fault", PACKED)
def test_invalid_compression(vendor, serve, fault):
    """A compressed body that is damaged, cut, or in an encoding that was not requested: `MalformedReply`."""
    body, how = PACKED[fault]
    reply = plain(body, b"Content-Encoding: " + how, b"Content-Length: %d" % len(body))
    provider = vendor.provider(serve(lambda wire: wire.answer(reply)).url)
    vendor.fails(provider, errors.MalformedReply, tries=vendor.expected_attempts(2))


def test_gzip(vendor, serve):
    """A reply in gzip is read."""
    body = gzip.compress(vendor.dialect.body())
    reply = plain(body, b"Content-Encoding: gzip", b"Content-Length: %d" % len(body))
    assert vendor.ask(vendor.provider(serve(lambda wire: wire.answer(reply)).url)).text == "fine"


NOT_HTTP = {
    "junk": b"\x00\x01\x02 this is no HTTP at all\r\n\r\n",
    "another protocol": b"220 mail.example.com ESMTP ready\r\n\r\n",
    "a header of 2 MiB": b"HTTP/1.1 200 OK\r\nX-Big: " + b"a" * 2**21 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "70 KiB of headers": b"HTTP/1.1 200 OK\r\n"
    + b"X-Some: %b\r\n" % (b"a" * 1000) * 70
    + b"Content-Length: 2\r\n\r\n{}",
    "two lengths": plain(b"{}", b"Content-Length: 2", b"Content-Length: 5"),
    "a length of words": plain(b"{}", b"Content-Length: five"),
    "a negative length": plain(b"{}", b"Content-Length: -1"),
    "a NUL in a header": plain(b"{}", b"X-Bad: a\x00b", b"Content-Length: 2"),
    "a bare CR in a header": plain(b"{}", b"X-Bad: a\rX-Evil: b", b"Content-Length: 2"),
    "a line that is no header": plain(b"{}", b"Garbage", b"Content-Length: 2"),
    "a space before the colon": plain(b"{}", b"X-Bad : a", b"Content-Length: 2"),
    "a header without a name": plain(b"{}", b": a", b"Content-Length: 2"),
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}",
    "another protocol from here on": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "no head at all": b'{"choices": []}\r\n\r\n',
    "a bad chunk size": plain(b"zz\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
}


WELL_FORMED = {("httpx", "70 KiB of headers"), ("sdk", "70 KiB of headers"), ("requests", "a bare CR in a header")}


@pytest.mark.parametrize("fault", NOT_HTTP)
def test_not_http(vendor, serve, fault):
    """Bytes that are not HTTP, headers over 64 KiB, two lengths, a NUL: a typed error; the connection is closed.

    Limits: many small headers that exceed 64 KiB together are refused, but over `httpx` the connection is kept if the
    whole reply has arrived. `requests` reads a bare CR in a header as the end of its line.
    """
    inner = (vendor.transport, fault) in WELL_FORMED
    good = vendor.dialect.body()

    def misbehave(wire):
        wire.request()
        try:
            wire.send(NOT_HTTP[fault])
        finally:
            if inner:
                wire.keep_answering(wire.ok(good))
            wire.see_close()

    server = serve(misbehave, lambda wire: wire.keep_answering(wire.ok(good)))
    provider = vendor.provider(server.url, retries=0)
    with pytest.raises((errors.TransportError, errors.ReplyError)) as caught:
        vendor.ask(provider, timeout_seconds=5)
    assert not isinstance(caught.value, errors.TimedOut)
    assert vendor.ask(provider).text == "fine"
    assert server.connections == (1 if inner else 2)
