"""Streams of Cohere's chat dialect: named events, the last of which says why the model stopped, and what it cost."""

from __future__ import annotations

from functools import partial
from typing import Any

from llm_council._wire.openai_chat.calls import arguments_text
from llm_council._wire.openai_chat.reply import get_id
from llm_council._wire.payloads import get_text, loads, malformed, need_object
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import SseEvent, SseSplitter
from llm_council.models.limits import Limits
from llm_council.models.reply import GenerateChunk, ToolCallDelta
from llm_council.providers._cohere.errors import error_inside
from llm_council.providers._cohere.reply import decode_response, end_facts, parts_to_echo, read_call
from llm_council.providers._cohere.request import PLAN

__all__ = ["ChatStream", "EventDecoder"]

_LIMITS = Limits()
_PATH = "$.delta.message"


class EventDecoder(Decoder):
    """Read the events of one stream, in order. The end of the message is the end of it.

    The vendor writes ``[DONE]`` behind it, which its specification does not know: nobody waits for that.

    Args:
        limits: ``json_depth`` bounds each event.
        request_id: the id from the reply's headers; None takes the one in the stream.
        model: the model that was asked; the stream does not say which one answers.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        super().__init__(limits, request_id=request_id)
        self._model = model
        self._thoughts: dict[Any, list[str]] = {}  # by the index of their block
        self._plan: list[str] = []
        self._calls: list[Any] = []  # the vendor's index of each call
        self._citations: list[Any] = []

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        if event.data.strip() == "[DONE]":
            return None
        value = need_object(loads(event.data, self._limits), "$")
        error = error_inside(value, request_id=self._request_id, partial=self.partial or None)
        if error is not None:
            raise error
        kind = value.get("type") or event.event
        delta = value.get("delta")
        delta = {} if delta is None else need_object(delta, "$.delta")
        if kind == "message-start":
            return self._begin(value)
        if kind == "message-end":
            self.finished = self.done = True
            return GenerateChunk(**end_facts(delta))
        message = delta.get("message")
        message = {} if message is None else need_object(message, _PATH)
        if kind in ("content-start", "content-delta"):
            return self._content(value.get("index"), message)
        if kind == "tool-plan-delta":
            plan = get_text(message, PLAN, _PATH)
            self._plan += [plan] if plan else []
            return GenerateChunk()  # nothing to show yet, and yet a sign of life
        if kind == "tool-call-start":
            return self._call(value.get("index"), message)
        if kind == "tool-call-delta":
            return self._arguments(value.get("index"), message)
        if kind == "citation-start" and message.get("citations"):
            self._citations.append(message["citations"])
            return GenerateChunk()
        return None

    def close(self) -> list[GenerateChunk]:
        """Return thinking, plan and citations, each as one."""
        plan = "".join(self._plan)
        parts = parts_to_echo(("".join(texts) for texts in self._thoughts.values()), plan)
        extra = {**({PLAN: plan} if plan else {}), **({"citations": self._citations} if self._citations else {})}
        return [GenerateChunk(reasoning_parts=parts, extra=extra)] if parts or extra else []

    def _begin(self, value: dict[str, Any]) -> GenerateChunk:
        self._request_id = self._request_id or get_id(value)
        return GenerateChunk(request_id=self._request_id, model=self._model)

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

    def _call(self, index: Any, message: dict[str, Any]) -> GenerateChunk:
        call = read_call(_single(message.get("tool_calls")), len(self._calls), f"{_PATH}.tool_calls")
        self._calls.append(index)
        delta = ToolCallDelta(index=len(self._calls) - 1, id=call.id, name=call.name, arguments=call.arguments)
        return GenerateChunk(tool_calls=(delta,))

    def _arguments(self, index: Any, message: dict[str, Any]) -> GenerateChunk | None:
        path = f"{_PATH}.tool_calls.function"
        if message.get("tool_calls") is None:
            return None
        call = need_object(_single(message["tool_calls"]), f"{_PATH}.tool_calls")
        text = arguments_text(need_object(call.get("function"), path).get("arguments"), f"{path}.arguments")
        if not self._calls:
            raise malformed("$.type", "the start of a call before its arguments", "tool-call-delta")
        last = len(self._calls) - 1
        place = next((at for at in range(last, -1, -1) if self._calls[at] == index), last)
        return GenerateChunk(tool_calls=(ToolCallDelta(index=place, arguments=text),)) if text else None


def _single(value: Any) -> Any:
    """Return the one call of an event, which is an object on this wire though its name is a plural."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


class ChatStream(BodyReader):
    """Read the body of a stream as it arrives: bytes in, pieces of the answer out.

    Args:
        limits: ``event`` and ``json_depth`` bound each event.
        request_id: the id from the reply's headers; None takes the one in the stream.
        model: the model that was asked; the stream does not say which one answers.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None, model: str | None = None) -> None:
        events = EventDecoder(limits, request_id=request_id, model=model)
        whole = partial(decode_response, request_id=request_id, model=model)
        super().__init__(events, SseSplitter(limits), limits, whole=whole)
