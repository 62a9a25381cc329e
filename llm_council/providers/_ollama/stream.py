"""Streams of Ollama's chat dialect: one JSON object per line, the last with ``"done": true``."""

from __future__ import annotations

from typing import Any

from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.payloads import get_text, loads, need_object, pick_non_empty, text_or_none
from llm_council._wire.reading import BodyReader, Decoder
from llm_council._wire.sse import NdjsonSplitter, SseEvent
from llm_council._wire.think import LONE_TAG, ThoughtSplitter
from llm_council.models.limits import Limits
from llm_council.models.reply import GenerateChunk, ToolCallDelta
from llm_council.providers._ollama.reply import EXTRA, read_calls, read_finish, read_text, read_usage, thoughts_to_echo
from llm_council.providers._ollama.request import DEFAULT, ChatOptions

__all__ = ["ChatStream", "LineDecoder"]

_LIMITS = Limits()


class LineDecoder(Decoder):
    """Decode the lines of one stream, in order. The object with ``"done": true`` ends it.

    Args:
        options: how the model differs.
        limits: ``json_depth`` bounds each line.
        request_id: the id from the HTTP headers.
    """

    def __init__(
        self, options: ChatOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(limits, request_id=request_id)
        self._began = False
        self._splitter = ThoughtSplitter() if options.think_tags else None
        self._thoughts: list[str] = []
        self._calls = 0
        self._model: str | None = None
        self._logprobs: list[Any] = []

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        # A server that fails midway writes {"error": ...} on a line of its own (Ollama's docs, "Errors").
        value = need_object(self.raise_if_error(loads(event.data, self._limits)), "$")
        found = value.get("message")
        message = {} if found is None else need_object(found, "$.message")
        facts: dict[str, Any] = {}
        if not self._began and self._request_id is not None:
            facts["request_id"] = self._request_id
        self._began = True
        model = get_text(value, "model", "$")
        if model and model != self._model:  # every line repeats it
            self._model = facts["model"] = model
        self._add_thoughts(get_text(message, "thinking", "$.message") or "", facts)
        self._add_text(read_text(message) or "", facts)
        # A call arrives whole, usually on a line before the last one.
        calls = read_calls(message.get("tool_calls"), self._calls)
        if calls:
            facts["tool_calls"] = tuple(
                ToolCallDelta(index=self._calls + place, id=call.id, name=call.name, arguments=call.arguments)
                for place, call in enumerate(calls)
            )
            self._calls += len(calls)
        if isinstance(value.get("logprobs"), list):
            self._logprobs += value["logprobs"]  # those of this line's tokens
        if value.get("done") is True:
            self._end(value, facts)
        return GenerateChunk(**facts) if facts else None

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

    def _add_text(self, content: str, facts: dict[str, Any]) -> None:
        if content and self._splitter is not None:
            thoughts, content = self._splitter.feed(content)
            self._restart(self._splitter, facts)
            self._add_thoughts(thoughts, facts)
        if content:
            self._texts.append(content)
            facts["text"] = content

    def _restart(self, splitter: ThoughtSplitter, facts: dict[str, Any]) -> None:
        """Begin the answer anew if its text so far turns out to be reasoning; what else was reported is repeated."""
        if not splitter.restarted or not self.partial:
            return
        self._texts.clear()
        again = {"reset": LONE_TAG, "request_id": self._request_id, "model": self._model}
        facts.update((key, fact) for key, fact in again.items() if fact is not None)
        if self._thoughts:
            facts["reasoning"] = "".join(self._thoughts)

    def _add_thoughts(self, thoughts: str, facts: dict[str, Any]) -> None:
        if thoughts:
            self._thoughts.append(thoughts)
            facts["reasoning"] = facts.get("reasoning", "") + thoughts

    def _end(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        self.done = self.finished = True
        if self._splitter is not None:
            thoughts, rest = self._splitter.finish()
            self._restart(self._splitter, facts)
            self._add_thoughts(thoughts, facts)
            if rest:
                self._texts.append(rest)
                facts["text"] = facts.get("text", "") + rest
        parts = thoughts_to_echo("".join(self._thoughts))
        if parts:
            facts["reasoning_parts"] = parts
        word = text_or_none(value.get("done_reason"))
        finish = read_finish(word, has_calls=self._calls > 0)
        optional = {"raw_finish_reason": word, "finish_reason": finish, "usage": read_usage(value)}
        facts.update((key, fact) for key, fact in optional.items() if fact is not None)
        extra = {**pick_non_empty(value, EXTRA), **pick_non_empty({"logprobs": self._logprobs}, ("logprobs",))}
        if extra:
            facts["extra"] = extra


class ChatStream(BodyReader):
    """Decode the body of a stream as it arrives, from bytes to chunks.

    A whole reply on one line is a stream of one object.

    Args:
        options: how the model differs.
        limits: ``event`` and ``json_depth`` bound each line.
        request_id: the id from the HTTP headers.
    """

    def __init__(
        self, options: ChatOptions = DEFAULT, limits: Limits = _LIMITS, *, request_id: str | None = None
    ) -> None:
        super().__init__(LineDecoder(options, limits, request_id=request_id), NdjsonSplitter(limits), limits)
