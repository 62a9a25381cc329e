"""Streams that end early, do not end, are empty, or are too large."""

from __future__ import annotations

import gzip
import json
import time
import zlib

import anyio
import pytest
from fault_dialects import chunk, compact
from fault_rows import exempt

from llm_council import errors
from llm_council.models import FinishReason, GenerateRequest, Limits, Timeouts
from llm_council.providers.base import stream

LAST = b"0\r\n\r\n"
LINES = "its events are lines of JSON."
POLLED = "the prediction goes on without its stream: it is polled until it ends, and its answer is used."


def sent(one_vendor, parts, *, last=LAST, then="answer"):
    """Return a behaviour: the parts as chunks, then the end of the body, FIN, RST or silence."""
    data = [one_vendor.dialect.head(), *(chunk(part) for part in parts), last]
    return streaming(one_vendor, lambda wire: getattr(wire, then)(*data))


def streaming(one_vendor, behaviour):
    """Return a behaviour that answers first what comes before a stream."""

    def behave(wire):
        wire.around = one_vendor.dialect.around
        behaviour(wire)

    return behave


def begun(one_vendor):
    return one_vendor.dialect.pieces(["fi", "ne"])


@pytest.mark.parametrize("how", ["whole", "few bytes", "one event"])
def test_good(vendor, serve, how):
    """A good stream is read, however its bytes are split."""
    parts = vendor.dialect.stream()
    data = b"".join(parts)
    cut = {"whole": parts, "one event": [data], "few bytes": [data[i : i + 3] for i in range(0, len(data), 3)]}[how]
    answer = vendor.ask(vendor.provider(serve(sent(vendor, cut)).url), "stream")
    assert (answer.text, answer.finish_reason) == ("fine", FinishReason.STOP)


@exempt("replicate", POLLED)
@pytest.mark.parametrize(
    ("last", "then"),
    [(LAST, "answer"), (b"", "answer"), (b"", "answer_and_reset"), (b"5\r\nhe", "answer"), (b"", "half an event")],
    ids=["an end of the body", "FIN", "RST", "FIN inside a chunk", "half an event"],
)
def test_no_end_mark(vendor, serve, last, then):
    """An end without the vendor's end mark, by FIN, RST or a complete body: `TruncatedReply` with the text so far. The
    request is not sent again, because text was returned. A cut answer is never used as a complete one.
    """
    parts = begun(vendor)
    if then == "half an event":
        parts, then = [*parts, vendor.dialect.end[0][:-9]], "answer"
    server = serve(sent(vendor, parts, last=last, then=then))
    error = vendor.fails(vendor.provider(server.url), errors.TruncatedReply, "stream")
    assert error.partial == "fine"
    assert len(server.requests) == 1


@exempt("replicate", POLLED)
@pytest.mark.parametrize("then", ["answer", "answer_and_reset"])
def test_end_before_the_first_text(vendor, serve, then):
    """An end before the first text: the request is sent again, and its answer is used."""
    good = sent(vendor, vendor.dialect.stream())
    server = serve(sent(vendor, [], last=b"", then=then), good)
    assert vendor.ask(vendor.provider(server.url), "stream").text == "fine"
    assert len(server.requests) == 2


def test_error_first(vendor, serve):
    """An error event before the first text: classified by its content, not by status 200; the request is sent again."""
    server = serve(sent(vendor, [vendor.dialect.broken]), sent(vendor, vendor.dialect.stream()))
    assert vendor.ask(vendor.provider(server.url), "stream").text == "fine"
    assert len(server.requests) == 2
    server = serve(sent(vendor, [vendor.dialect.broken]))
    error = vendor.fails(vendor.provider(server.url), errors.ServerFailed, "stream", tries=3)
    assert error.status != 200


def test_error_in_the_middle(vendor, serve):
    """An error event after text: the same class, with the text so far; one attempt, and the error is not part of the
    text.
    """
    server = serve(sent(vendor, [*begun(vendor), vendor.dialect.broken]))
    error = vendor.fails(vendor.provider(server.url), errors.ServerFailed, "stream")
    assert error.partial == "fine"
    assert len(server.requests) == 1


def test_comments(vendor, serve):
    """Comments that keep a connection open are not content, at any position."""
    note = b"\n" if vendor.dialect.ndjson else b": keep-alive\n\n"
    parts = [note]
    for part in vendor.dialect.stream():
        parts += [part, note, note]
    assert vendor.ask(vendor.provider(serve(sent(vendor, parts)).url), "stream").text == "fine"


@pytest.mark.parametrize("begins", [True, False])
def test_endless_comments(vendor, serve, begins):
    """Comments only: `TimedOut` of phase `idle`, which counts content and not bytes; the connection is closed."""
    note = b"\n" if vendor.dialect.ndjson else b": keep-alive\n\n"

    def keep_alive(wire):
        wire.request()
        wire.send(vendor.dialect.head(), *(chunk(part) for part in (begun(vendor) if begins else [])))
        try:
            for _ in range(400):
                wire.send(chunk(note), pause=0.02)
        except OSError:
            wire.server.client_closed.set()
            raise

    server = serve(streaming(vendor, keep_alive))
    provider = vendor.provider(server.url, retries=0, timeout=Timeouts(idle=0.5))
    error = vendor.fails(provider, errors.TimedOut, "stream")
    assert (error.phase, error.partial) == ("idle", "fine" if begins else None)
    assert server.client_closed.wait(10)


@pytest.mark.parametrize(("limit", "phase"), [({"timeout": Timeouts(idle=0.4)}, "idle"), ({}, "deadline")])
def test_silence(vendor, serve, limit, phase):
    """Silence in the middle: `TimedOut` of phase `idle` or `deadline`, with the text so far; the connection is
    closed.
    """
    server = serve(sent(vendor, begun(vendor), last=b"", then="answer_and_wait"))
    provider = vendor.provider(server.url, **limit)
    error = vendor.fails(provider, errors.TimedOut, "stream", **({"timeout_seconds": 0.6} if not limit else {}))
    assert (error.phase, error.partial) == (phase, "fine")
    assert len(server.requests) == 1
    assert server.client_closed.wait(10)


def endless(vendor, part, pause=0.0):
    def flood(wire):
        wire.request()
        wire.send(vendor.dialect.head(), *(chunk(piece) for piece in vendor.dialect.pieces([])))
        try:
            for _ in range(100_000):
                wire.send(chunk(part), pause=pause)
        finally:
            wire.server.client_closed.set()

    return streaming(vendor, flood)


def test_slow_endless_text(vendor, serve):
    """Slow text without end: `TimedOut` by the deadline, with the text so far; the connection is closed."""
    part = vendor.dialect.pieces(["word "])[-1]
    server = serve(endless(vendor, part, pause=0.02))
    error = vendor.fails(vendor.provider(server.url), errors.TimedOut, "stream", timeout_seconds=0.8)
    assert error.phase == "deadline"
    assert error.partial.startswith("word word")
    assert server.client_closed.wait(10)


def test_flood(vendor, serve):
    """Fast text without end: `ReplyTooLarge` with the stream limit and the text so far; the connection is closed."""
    part = vendor.dialect.pieces(["word " * 1000])[-1]
    server = serve(endless(vendor, part))
    error = vendor.fails(vendor.provider(server.url, limits=Limits(stream=200_000)), errors.ReplyTooLarge, "stream")
    assert error.limit == 200_000
    assert error.partial.startswith("word word")
    assert server.client_closed.wait(10)


@pytest.mark.parametrize("ends", [True, False])
def test_giant_event(vendor, serve, ends):
    """One event over its limit, complete or not: `ReplyTooLarge` with the event limit."""
    giant = vendor.dialect.pieces(["x" * 100_000])[-1]
    server = serve(sent(vendor, [giant if ends else giant[:-2]], last=b"" if not ends else LAST))
    error = vendor.fails(vendor.provider(server.url, limits=Limits(event=50_000)), errors.ReplyTooLarge, "stream")
    assert error.limit == 50_000


@pytest.mark.parametrize(
    "extra", [b"\r\n" * 3000, b"data:\n" * 20_000, b"event: x\n" * 20_000, b"id: 1\nretry: 5\n\n" * 3000]
)
def test_lines_without_content(vendor, serve, extra):
    """Blank lines, empty data, names, ids and retry fields without a number: no content, and bounded like all else."""
    if vendor.dialect.ndjson:
        extra = b"\n" * len(extra)
    provider = vendor.provider(
        serve(sent(vendor, [extra, *vendor.dialect.stream()])).url, limits=Limits(event=2**20), retries=0
    )
    try:
        answer = vendor.ask(provider, "stream")
    except errors.ReplyError:
        assert b"data:" in extra
    else:
        assert (answer.text or "").lstrip("\n") == "fine"  # the data of Replicate's events is text


def test_end_mark_but_no_end(vendor, serve):
    """The vendor's end mark on a connection that stays open: the answer is returned at the mark."""
    server = serve(sent(vendor, vendor.dialect.stream(), last=b"", then="answer_and_wait"))
    began = time.monotonic()
    assert vendor.ask(vendor.provider(server.url), "stream").text == "fine"
    assert time.monotonic() - began < 9


TEXT = "é😀\u2028b\u2029c\u0085d\x0be\x0cf\x1cg — 日本"


@pytest.mark.parametrize("cut", ["CRLF", "CR", "LF", "no space", "bytes"])
def test_text_is_exact(vendor, serve, cut):
    """Split UTF-8, all line endings, U+2028 and U+0085, no space after `data:`: the text is what the vendor wrote."""
    data = json.dumps({"x": TEXT}, ensure_ascii=False).encode()
    raw = [part.replace(b'"PLACE"', data[6:-1]) for part in vendor.dialect.stream("PLACE")]
    raw = [part.replace(b"PLACE", TEXT.encode()) for part in raw]  # where data is text
    whole = b"".join(raw)
    end = {"CRLF": b"\r\n", "CR": b"\r"}.get(cut, b"\n")
    if end == b"\r" and vendor.dialect.ndjson:
        end = b"\r\n"
    whole = whole.replace(b"\n", end)
    if cut == "no space":
        whole = whole.replace(b"data: ", b"data:").replace(b"event: ", b"event:")
    parts = [whole[i : i + 3] for i in range(0, len(whole), 3)] if cut == "bytes" else [whole]
    assert vendor.ask(vendor.provider(serve(sent(vendor, parts)).url), "stream").text == TEXT


def test_unknown_events(vendor, serve):
    """Events of an unknown name or type, ids and retry fields are ignored."""
    parts = []
    for part in vendor.dialect.stream():
        parts += [part, vendor.dialect.news] if part not in vendor.dialect.end else [part]
    assert vendor.ask(vendor.provider(serve(sent(vendor, parts)).url), "stream").text == "fine"


@exempt("ollama", LINES)
@exempt("replicate", "its data is text, and these are its lines.")
def test_several_data_lines(vendor, serve):
    """The `data:` lines of one event are joined by line feeds."""
    parts = [
        part.replace(b'{"', b'{\ndata: "', 1) if part.count(b"data: {") == 1 else part
        for part in vendor.dialect.stream()
    ]
    assert vendor.ask(vendor.provider(serve(sent(vendor, parts)).url), "stream").text == "fine"


@exempt("replicate", "its data is text, and any text is valid.")
@pytest.mark.parametrize("bad", [b"{not json}", b"\xff\xfe", b'"text"', b"[1]", b"5", b"null"])
def test_malformed_event(vendor, serve, bad):
    """An event that is not JSON, not UTF-8 or of a wrong type: `MalformedReply` with the text so far; it is not
    skipped.
    """
    event = bad + b"\n" if vendor.dialect.ndjson else b"data: " + bad + b"\n\n"
    server = serve(sent(vendor, [*begun(vendor), event, *vendor.dialect.end]))
    error = vendor.fails(vendor.provider(server.url), errors.MalformedReply, "stream")
    assert error.partial == "fine"
    assert len(server.requests) == 1


def test_json_in_place_of_a_stream(vendor, serve):
    """A whole answer in place of a stream is read as one piece; an error as that error."""
    server = serve(lambda wire: wire.answer(wire.ok(vendor.dialect.body())))
    assert vendor.ask(vendor.provider(server.url), "stream").text == "fine"
    body = compact(vendor.dialect.refusal(429, None, "slow down"))
    refusal = b"HTTP/1.1 429 Busy\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    server = serve(lambda wire: wire.answer(refusal))
    vendor.fails(vendor.provider(server.url), errors.RateLimited, "stream", tries=3)


@exempt("ollama", LINES)
def test_pretty_json_in_place_of_a_stream(mock):
    """The same over several lines, as some proxies write it."""
    body = json.dumps(mock.dialect.reply("fine"), indent=2).encode()
    assert mock.ask(mock.mocked(body), "stream").text == "fine"


@pytest.mark.parametrize("page", [b"<html><body>sign in</body></html>", b"\n\n <!DOCTYPE html><p>sign in"])
def test_html_in_place_of_a_stream(vendor, serve, page):
    """A web page with any content type: `MalformedReply` with its type and beginning; never an empty answer."""
    server = serve(sent(vendor, [page]))
    error = vendor.fails(vendor.provider(server.url, retries=0), errors.MalformedReply, "stream")
    assert page.strip()[:20].decode() in error.message
    assert vendor.dialect.stream_type in error.message


def test_wrong_content_type(vendor, serve):
    """A stream with another content type is read as a stream."""
    kind = vendor.dialect.stream_type.encode()
    head = vendor.dialect.head().replace(kind, b"text/plain")
    data = b"".join(chunk(part) for part in vendor.dialect.stream())
    server = serve(streaming(vendor, lambda wire: wire.answer(head, data, LAST)))
    assert vendor.ask(vendor.provider(server.url), "stream").text == "fine"


def test_odd_fields(mock):
    """A byte order mark, comments and ids that are not UTF-8, invalid retry fields, text after the end: ignored."""
    stream = b"".join(mock.dialect.stream())
    odd = [b"\xef\xbb\xbf" + stream, stream + b"garbage{{{\n\n", stream.rstrip(b"\n")]
    if not mock.dialect.ndjson:
        fields = b": \xff\xfe\n\nid: \xff\nretry: 99999999999999999999\nfoo: bar\nbaz\n\n"
        odd += [fields + stream, stream.replace(b"\n\n", b"\n\n" + fields)]
    for body in odd:
        mock.calls.clear()
        assert mock.ask(mock.mocked((200, body, {"content-type": mock.dialect.stream_type})), "stream").text == "fine"


def test_compressed_stream(vendor, serve):
    """A stream in gzip is read as it arrives; a decompression bomb is `ReplyTooLarge`."""
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in vendor.dialect.stream()]
    head = vendor.dialect.head(b"Content-Encoding: gzip\r\n")
    data = [head, *(chunk(part) for part in [*parts, packer.flush()])]
    server = serve(streaming(vendor, lambda wire: wire.answer_and_wait(*data)))
    assert vendor.ask(vendor.provider(server.url), "stream").text == "fine"
    bomb = gzip.compress(b"".join(vendor.dialect.pieces([])) + vendor.dialect.pieces(["x" * 2**21])[-1])
    server = serve(streaming(vendor, lambda wire: wire.answer(head, chunk(bomb), LAST)))
    provider = vendor.provider(server.url, retries=0, limits=Limits(stream=2**20, event=2**22))
    vendor.fails(provider, errors.ReplyTooLarge, "stream")


def test_empty_deltas(vendor, serve):
    """A stream that ends properly without text: `EmptyReply`, not an empty answer."""
    parts = [*vendor.dialect.pieces([""]), *vendor.dialect.end]
    vendor.fails(vendor.provider(serve(sent(vendor, parts)).url, retries=0), errors.EmptyReply, "stream")


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["break", "aclose", "cancel"])
async def test_consumer_leaves(one_vendor, serve, how):
    """A consumer that leaves early: the connection is closed at once, and the next call works."""
    endless_words = sent(one_vendor, one_vendor.dialect.pieces(["word "] * 3), last=b"", then="answer_and_wait")
    server = serve(endless_words, lambda wire: wire.keep_answering(wire.ok(one_vendor.dialect.body())))
    provider = one_vendor.provider(server.url, retries=0)
    pieces = stream(provider, GenerateRequest(prompt="?"))
    with anyio.move_on_after(0.5 if how == "cancel" else 20):
        async for _ in pieces:
            if how != "cancel":
                break
    if how != "cancel":
        await pieces.aclose()
    assert await anyio.to_thread.run_sync(server.client_closed.wait, 10)
    assert (await provider.generate(GenerateRequest(prompt="?"))).text == "fine"
    await provider.aclose()
