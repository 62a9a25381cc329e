"""What every dialect's reader of streams does, shown with the smallest dialect there is."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import pytest

from llm_council._wire.payloads import get_text, loads, need_object
from llm_council._wire.reading import BodyReader, Decoder, join_texts
from llm_council._wire.sse import NdjsonSplitter, SseEvent, SseSplitter
from llm_council.errors import MalformedReply, ReplyTooLarge, TruncatedReply
from llm_council.models import FinishReason, GenerateChunk, GenerateResponse, Limits, Usage, join


class EventDecoder(Decoder):
    def _read(self, event: SseEvent) -> GenerateChunk | None:
        value = need_object(loads(event.data, self._limits), "$")
        if value.get("type") == "end":
            self.finished = self.done = True
            return GenerateChunk(finish_reason=FinishReason.STOP)
        text = get_text(value, "text", "$") or ""
        self._texts.append(text)
        return GenerateChunk(text=text)

    def close(self) -> list[GenerateChunk]:
        return [GenerateChunk(reasoning="kept back")]


def decode_response(value: Any, *, request_id: str | None = None) -> GenerateResponse:
    return GenerateResponse(text=need_object(value, "$")["text"], request_id=request_id)


class ChatStream(BodyReader):
    def __init__(self, limits: Limits = Limits(), *, request_id: str | None = None) -> None:
        events = EventDecoder(limits, request_id=request_id)
        whole = partial(decode_response, request_id=request_id)
        super().__init__(events, SseSplitter(limits), limits, whole=whole)


STREAM = (
    b'\xef\xbb\xbf: hello\n\ndata: {"text": "a"}\n\ndata:  \n\ndata: {"text": "\xc3\xa9"}\n\ndata: {"type": "end"}\n\n'
)
AT = STREAM.index(b"data:  ")
FIRST, REST = STREAM[:AT], STREAM[AT:]


def read(*pieces: bytes) -> GenerateResponse:
    reader = ChatStream(request_id="r")
    chunks = [chunk for piece in pieces for chunk in reader.feed(piece)]
    return join([*chunks, *reader.finish()])


@pytest.mark.parametrize("cut", range(len(STREAM)))
def test_a_body_reads_the_same_wherever_it_is_cut(cut: int) -> None:
    answer = read(STREAM[:cut], STREAM[cut:])
    assert (answer.text, answer.reasoning, answer.finish_reason) == ("aé", "kept back", "stop")


def test_the_reader_exposes_its_decoders_state() -> None:
    reader = ChatStream()
    reader.feed(FIRST)
    assert (reader.partial, reader.finished, reader.done) == ("a", False, False)
    reader.feed(REST)
    assert (reader.partial, reader.finished, reader.done) == ("aé", True, True)
    assert reader.feed(b'data: {"text": "too late"}\n\n') == []


@pytest.mark.parametrize("end", [b"", b'data: {"text": "b', b'data: {"text": "\xc3'])
def test_a_body_that_ends_too_early_is_no_answer(end: bytes) -> None:
    with pytest.raises(TruncatedReply) as caught:
        read(FIRST, end)
    assert (caught.value.partial, caught.value.request_id) == ("a", "r")


def test_a_foreign_event_is_refused_with_the_partial_text() -> None:
    with pytest.raises(MalformedReply) as caught:
        read(FIRST, b'data: {"text": 5}\n\n', REST)
    assert (caught.value.partial, caught.value.path, caught.value.request_id) == ("a", "$.text", "r")


@pytest.mark.parametrize("cut", range(20))
def test_a_whole_reply_is_taken_where_a_stream_was_asked_for(cut: int) -> None:
    body = b'\xef\xbb\xbf \n{"text": "whole"}\n'
    answer = read(body[:cut], body[cut:])
    assert (answer.text, answer.request_id) == ("whole", "r")


def test_a_proxys_page_is_shown_once_it_is_there() -> None:
    with pytest.raises(MalformedReply, match="it begins '<html>sign in"):
        read(b"<html>", b"sign in</html>")


def test_a_dialect_whose_whole_reply_is_a_stream_is_read_at_once() -> None:
    reader = BodyReader(EventDecoder(), NdjsonSplitter())
    assert [chunk.text for chunk in reader.feed(b'{"text": "a"}\n{"te')] == ["a"]
    assert [chunk.text for chunk in reader.feed(b'xt": "b"}\n')] == ["b"]
    with pytest.raises(TruncatedReply):
        reader.finish()


def test_texts_that_arrive_at_once_are_one_piece():
    usage = Usage(input_tokens=1)
    words = [GenerateChunk(model="m", text="a"), GenerateChunk(text="b"), GenerateChunk(text="c")]
    rest = [GenerateChunk(reasoning="r"), GenerateChunk(text="d"), GenerateChunk(text="e", usage=usage)]
    read = join_texts([*words, *rest])
    assert [chunk.text for chunk in read] == ["a", "bc", "", "d", "e"]
    assert join(read) == join([*words, *rest])
    assert join_texts(words[1:]) == [GenerateChunk(text="bc")]
    assert join_texts(words[:1]) == words[:1]
    assert join_texts([]) == []


def test_an_error_of_a_stream_is_freed_without_the_garbage_collector() -> None:
    """Its partial text may hold many MiB."""
    stream = ChatStream(limits=Limits(event=100))
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ReplyTooLarge) as caught:
            stream.feed(b"data: " + b"x" * 5000)
        freed = weakref.ref(caught.value)
        del caught
        assert freed() is None
    finally:
        gc.enable()
