"""Replies and streams of a form that no specification has."""

from __future__ import annotations

import json

import pytest
from fault_rows import exempt

from llm_council import errors

LINES = "its events are lines of JSON, without names and comments."
POLLED = "its replies are predictions, which are polled; their stream is text."
FAILURE = {"code": 503, "message": "the slot failed", "type": "server_error"}


def streamed(bench, *parts):
    """Return an answer whose body is made of these parts."""
    return 200, b"".join(parts), {"content-type": bench.dialect.stream_type}


@exempt("replicate", POLLED)
def test_stream_unasked(mock):
    """A stream where a whole reply was asked for, under any content type: it is read to its end."""
    body = b"".join(mock.dialect.stream())
    for kind in (mock.dialect.stream_type, "application/json"):
        assert mock.ask(mock.mocked((200, body, {"content-type": kind}))).text == "fine"


@exempt("replicate", POLLED)
def test_whole_reply_unasked(mock):
    """A whole reply where a stream was asked for, alone, after comments, or before the end mark: it is the answer."""
    whole = mock.dialect.body()
    forms = [whole]
    if "event-stream" in mock.dialect.stream_type:
        forms += [b": PROCESSING\n\n" + whole, whole + b"\n\ndata: [DONE]\n\n", b"data: " + whole + b"\n\n"]
    for form in forms:
        assert mock.ask(mock.mocked(streamed(mock, form)), "stream").text == "fine"


@exempt("replicate", POLLED)
@exempt("ollama", LINES)
@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"])
def test_error_outside_events(mock, end):
    """An error in a field `error:`, in an event of that name, or in a bare line: raised with the server's own words and
    the text so far, also before an end mark. A cut answer is never used as a complete one.
    """
    inside = json.dumps(FAILURE).encode()
    for form in (b"error: " + inside, b"event: error\ndata: " + inside, b'{"error":' + inside + b"}"):
        seat = mock.mocked(streamed(mock, *mock.dialect.pieces(["fi", "ne"]), form, b"\n\n", end))
        error = mock.fails(seat, errors.ServerFailed, "stream")
        assert FAILURE["message"] in error.message
        assert error.partial == "fine"
