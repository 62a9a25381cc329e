"""Bytes become events by the rules of WHATWG, within bounds."""

from __future__ import annotations

import pytest

from llm_council._wire.sse import NdjsonSplitter, SseEvent, SseSplitter
from llm_council.errors import MalformedReply, ReplyTooLarge
from llm_council.models import Limits


def events(body: bytes, **limits: int) -> list[SseEvent]:
    splitter = SseSplitter(Limits(**limits))
    return [*splitter.feed(body), *splitter.finish()]


def test_one_space_is_stripped_and_no_more() -> None:
    assert events(b"data:a\n\ndata: b\n\ndata:  c\n\n") == [SseEvent("a"), SseEvent("b"), SseEvent(" c")]


def test_data_lines_join_and_an_empty_one_counts() -> None:
    assert events(b"data: a\ndata\ndata: b\n\n") == [SseEvent("a\n\nb")]
    assert events(b"data:\n\n") == [SseEvent("")]


def test_a_name_belongs_to_its_event_alone() -> None:
    assert events(b"event: x\ndata: 1\n\ndata: 2\n\nevent:y\n\ndata: 3\n\n") == [
        SseEvent("1", "x"),
        SseEvent("2"),
        SseEvent("3"),
    ]


def test_keep_alives_are_counted_and_give_no_event() -> None:
    splitter = SseSplitter()
    assert splitter.feed(b": ping\n\n:\n\nretry: 5\n\n") == []
    assert splitter.comments == 2


def test_no_other_character_ends_a_line() -> None:
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"
    assert events(f"data: {text}\n\n".encode()) == [SseEvent(text)]


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        assert SseSplitter().feed(b"data: a" + end * 2) == [SseEvent("a")]
    splitter = SseSplitter()
    assert splitter.feed(b"data: a\r\n\r") == [SseEvent("a")]
    assert splitter.feed(b"\ndata: b\r") == []
    assert splitter.feed(b"\r") == [SseEvent("b")]
    assert splitter.feed(b"") == []


def test_a_line_end_of_two_bytes_is_one_wherever_it_is_cut() -> None:
    body = b"event: x\r\ndata: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n"
    for cut in range(len(body) + 1):
        splitter = SseSplitter()
        found = splitter.feed(body[:cut]) + splitter.feed(b"") + splitter.feed(body[cut:])
        assert found == [SseEvent("a\nb", "x"), SseEvent("c")]


def test_the_end_of_the_stream_ends_the_last_event() -> None:
    splitter = SseSplitter()
    assert splitter.feed(b"data: a\ndata: b") == []
    assert splitter.finish() == [SseEvent("a\nb")]
    assert splitter.finish() == []
    assert events(b"\xef\xbb") == []


def pour(splitter: SseSplitter, piece: bytes) -> None:
    for _ in range(2000):
        splitter.feed(piece)


def test_an_event_has_a_limit_however_it_grows() -> None:
    limits = {"event": 1000}
    with pytest.raises(ReplyTooLarge) as caught:
        events(b"data: " + b"x" * 1001 + b"\n\n", **limits)
    assert caught.value.limit == 1000
    for piece in (b"x" * 10, b"data: xxxxxxxx\n", b"data\n"):
        with pytest.raises(ReplyTooLarge):
            pour(SseSplitter(Limits(event=1000)), piece)
    assert len(events(b"data: xxxx\n\n" * 1000, **limits)) == 1000
    assert events(b": comment\n" * 1000, **limits) == []


def test_bad_utf8_is_refused_where_it_counts() -> None:
    with pytest.raises(MalformedReply):
        events(b"data: \xff\n\n")
    assert events(b": \xff\nunknown: \xff\ndata: ok\n\n") == [SseEvent("ok")]


def test_a_megabyte_in_one_line_takes_linear_time() -> None:
    splitter = SseSplitter()
    for _ in range(20_000):
        splitter.feed(b"x" * 50)
    assert splitter.feed(b"\n\n") == []


def test_ndjson_is_lines() -> None:
    splitter = NdjsonSplitter(Limits(event=20))
    assert splitter.feed(b'{"a":1}\r\n\r\n{"b"') == [SseEvent('{"a":1}')]
    assert splitter.feed(b":2}\n \n") == [SseEvent('{"b":2}')]
    assert splitter.feed(b"{}") == []
    assert splitter.finish() == [SseEvent("{}")]
    with pytest.raises(ReplyTooLarge):
        splitter.feed(b"x" * 21 + b"\n")
    with pytest.raises(MalformedReply):
        NdjsonSplitter().feed(b"\xff\n")
