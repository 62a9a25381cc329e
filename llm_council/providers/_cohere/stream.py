"""Streams of Cohere's chat dialect: named events; the last one holds the finish reason and the usage."""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_council._wire.openai_chat.reply import arguments_text, is_empty_call, read_call
from llm_council._wire.payloads import get_text, loads, malformed, need_object, pick_non_empty, text_or_none
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.errors import MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.reply import GenerateChunk, ToolCallDelta
from llm_council.providers._cohere.errors import error_inside
from llm_council.providers._cohere.reply import decode_response, end_facts, parts_to_echo
from llm_council.providers._cohere.request import PLAN

__all__ = ["ChatStream", "EventDecoder"]

_LIMITS = Limits()
_PATH = "$.delta.message"


class EventDecoder(Decoder):
    """Decode the events of one stream, in order. ``message-end`` ends it.

    The server writes ``[DONE]`` after that, which its specification does not mention, so the decoder does not wait for
    it.

    Args:
        limits: ``json_depth`` bounds each event.
        request_id: the id from the HTTP headers; None means the ``id`` in the stream.
        model: the model that the request named; the stream does not name one.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        super().__init__(limits, request_id=request_id)
        self._model = model
        self._own_id: str | None = None  # the id of the message that has begun
        self._logprobs: list[Any] = []
        self._thoughts: dict[Any, list[str]] = {}  # by the index of the content block
        self._plan: list[str] = []
        self._call_indexes: list[Any] = []  # the server's index of each call, in order of arrival
        self._citations: list[Any] = []

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        if event.data.strip() == "[DONE]":
            return None
        value = need_object(self.raise_if_error(loads(event.data, self._limits)), "$")
        kind = value.get("type") or event.event
        if "delta" not in value and isinstance(value.get("message"), dict) and value.get("finish_reason"):
            return self.take_whole(decode_response(value, request_id=self._request_id, model=self._model))
        delta = value.get("delta")
        delta = {} if delta is None else need_object(delta, "$.delta")
        if kind == "message-start":
            own = text_or_none(value.get("id"))
            if self._own_id not in (None, own):
                raise MalformedReply("a second message begins in the middle of the stream", path="$.type")
            self._own_id = own
            self._request_id = self._request_id or own
            return GenerateChunk(request_id=self._request_id, model=self._model)
        if kind == "message-end":
            self.finished = self.done = True
            return GenerateChunk(**end_facts(delta))
        message = delta.get("message")
        message = {} if message is None else need_object(message, _PATH)
        if kind in ("content-start", "content-delta"):
            if value.get("logprobs"):
                self._logprobs.append(value["logprobs"])
            return self._content(value.get("index"), message)
        if kind == "tool-plan-delta":
            plan = get_text(message, PLAN, _PATH)
            self._plan += [plan] if plan else []
            return GenerateChunk()  # empty, but it shows the caller that the stream is alive
        if kind == "tool-call-start":
            return self._call(value.get("index"), message)
        if kind == "tool-call-delta":
            return self._arguments(value.get("index"), message)
        if kind == "citation-start" and message.get("citations"):
            self._citations.append(message["citations"])
            return GenerateChunk()
        return None

    def raise_if_error(self, value: Any) -> Any:
        """Return a JSON value that is not an error.

        Raises:
            ApiError: it is one.
        """
        if isinstance(value, dict):
            error = error_inside(value, request_id=self._request_id, partial=self.partial or None)
            if error is not None:
                raise error
        return value

    def close(self) -> list[GenerateChunk]:
        """Return the collected thinking, plan and citations in one last chunk."""
        plan = "".join(self._plan)
        parts = parts_to_echo(("".join(texts) for texts in self._thoughts.values()), plan)
        collected = {PLAN: plan, "citations": self._citations, "logprobs": self._logprobs}
        extra = pick_non_empty(collected, tuple(collected))
        return [GenerateChunk(reasoning_parts=parts, extra=extra)] if parts or extra else []

    def _content(self, index: Any, message: dict[str, Any]) -> GenerateChunk | None:
        found = message.get("content")
        content = {} if found is None else need_object(found, f"{_PATH}.content")
        text = get_text(content, "text", f"{_PATH}.content") or ""
        thoughts = get_text(content, "thinking", f"{_PATH}.content") or ""
        if text:
            self._texts.append(text)
        if thoughts:
            self._thoughts.setdefault(str(index), []).append(thoughts)
        return GenerateChunk(text=text, reasoning=thoughts) if text or thoughts else None

    def _call(self, index: Any, message: dict[str, Any]) -> GenerateChunk | None:
        begun = _single(message.get("tool_calls"))
        if isinstance(begun, dict) and not begun.get("id") and is_empty_call(begun.get("function")):
            return None
        place = len(self._call_indexes)
        call = read_call(begun, place, f"{_PATH}.tool_calls")
        self._call_indexes.append(index)
        delta = ToolCallDelta(index=place, id=call.id, name=call.name, arguments=call.arguments)
        return GenerateChunk(tool_calls=(delta,))

    def _arguments(self, index: Any, message: dict[str, Any]) -> GenerateChunk | None:
        path = f"{_PATH}.tool_calls.function"
        if message.get("tool_calls") is None:
            return None
        call = need_object(_single(message["tool_calls"]), f"{_PATH}.tool_calls")
        text = arguments_text(need_object(call.get("function"), path).get("arguments"), f"{path}.arguments")
        if not self._call_indexes:
            raise malformed("$.type", "the start of a call before its arguments", "tool-call-delta")
        if not text:
            return None
        last = len(self._call_indexes) - 1
        place = next((at for at in range(last, -1, -1) if self._call_indexes[at] == index), last)
        return GenerateChunk(tool_calls=(ToolCallDelta(index=place, arguments=text),))


def _single(value: Any) -> Any:
    """Return the call in ``tool_calls`` of an event: an object, in spite of the plural; a list of one is accepted."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class ChatStream(BodyReader):
    """Decode the body of a stream as it arrives, from bytes to chunks.

    Args:
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the HTTP headers; None means the ``id`` in the stream.
        model: the model that the request named; the stream does not name one.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        events = EventDecoder(limits, request_id=request_id, model=model)
        whole = partial(decode_response, request_id=request_id, model=model)
        super().__init__(events, SseSplitter(limits), limits, whole=whole)
