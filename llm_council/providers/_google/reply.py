"""Replies of Google's dialect: a whole one, and each event of a stream, have the same shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_council._wire.payloads import get_text, loads, malformed, need_list, need_object, tokens
from llm_council._wire.reading import Decoder
from llm_council._wire.sse import SseEvent
from llm_council.errors import MalformedReply
from llm_council.models._attrs import copy_with
from llm_council.models.limits import Limits
from llm_council.models.reply import FinishReason, GenerateChunk, GenerateResponse, ToolCallDelta, Usage, join
from llm_council.providers._google.contents import SIGNATURE, reasoning_part
from llm_council.providers._google.errors import error_inside
from llm_council.providers._google.partial import PartialCall

__all__ = ["CANDIDATE_EXTRA", "REPLY_EXTRA", "FrameDecoder", "decode_response", "finish_of"]

REPLY_EXTRA = ("promptFeedback",)
CANDIDATE_EXTRA = ("finishMessage", "safetyRatings", "citationMetadata", "groundingMetadata", "urlContextMetadata")
_LIMITS = Limits()
_UNKNOWN = Usage()
_FILTERS = ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR")
_FAILURES = (
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
    "OTHER",
    "NO_IMAGE",
)
_FINISHES = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(_FILTERS, FinishReason.CONTENT_FILTER),
    **dict.fromkeys(_FAILURES, FinishReason.ERROR),
}


def finish_of(word: str, *, called: bool = False) -> FinishReason | None:
    """Read the vendor's word, which is the same whether the model stopped to answer or to call tools.

    None for a word that is not known: an unknown word is no proof of a whole answer.
    """
    if word == "STOP" and called:
        return FinishReason.TOOL_CALLS
    if word.startswith("IMAGE_"):
        return FinishReason.CONTENT_FILTER
    return _FINISHES.get(word)


def decode_response(data: Any, *, request_id: str | None = None) -> GenerateResponse:
    """Read a whole reply, or the JSON array of a whole stream.

    Args:
        data: the reply's JSON value.
        request_id: the id from the reply's headers; None takes the one in the reply.

    Returns:
        The answer as it is. A prompt that was blocked is an answer without text whose finish reason is
        ``content_filter``; the vendor's words are in ``raw_finish_reason`` and ``extra["promptFeedback"]``.

    Raises:
        ApiError: the reply holds an error.
        MalformedReply: the reply is not one of this dialect.
        TruncatedReply: the array ends before the answer does.
    """
    decoder = FrameDecoder(request_id=request_id)
    frames = data if isinstance(data, list) else [data]
    chunks = [chunk for frame in frames if (chunk := decoder.read(frame)) is not None]
    if not decoder.begun and not any(_is_ours(frame) for frame in frames):
        raise MalformedReply("$.candidates: the reply has no candidate", path="$.candidates", request_id=request_id)
    chunks += decoder.finish() if isinstance(data, list) else decoder.close()
    return copy_with(join(chunks), raw=data)


def _is_ours(frame: Any) -> bool:
    """Tell whether a reply without a candidate is one of this dialect: the model said nothing, and counted it."""
    return isinstance(frame, dict) and any(
        frame.get(key) for key in ("usageMetadata", "modelVersion", "promptFeedback")
    )


class FrameDecoder(Decoder):
    """Read the events of one stream, in order. There is no end mark but the end of the body.

    Args:
        limits: ``json_depth`` bounds each event.
        request_id: the id from the reply's headers; None takes the one in the stream.

    Attributes:
        begun: a candidate, or the word that the prompt was blocked, has come.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None) -> None:
        super().__init__(limits, request_id=request_id)
        self.begun = False
        self._told: dict[str, Any] = {}
        self._calls = 0
        self._open: PartialCall | None = None

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        if len(event.data) < 20 and event.data.strip() == "[DONE]":  # gateways in front of the vendor end so
            return None
        return self.read(loads(event.data, self._limits))

    def read(self, value: Any) -> GenerateChunk | None:
        """Return what an event's JSON value adds, see ``feed``."""
        value = need_object(self.refuse(value), "$")
        facts: dict[str, Any] = {}
        self._name(value, facts)
        usage = read_usage(value.get("usageMetadata"))
        if usage is not None:
            facts["usage"] = usage
        feedback = value.get("promptFeedback")
        blocked = feedback.get("blockReason") if isinstance(feedback, dict) else None
        self._tell(value, REPLY_EXTRA, facts)
        if isinstance(blocked, str) and blocked:
            self.begun = self.finished = True
            facts.update(finish_reason=FinishReason.CONTENT_FILTER, raw_finish_reason=blocked)
        listed = value.get("candidates")
        for index, found in enumerate([] if listed is None else need_list(listed, "$.candidates")):
            candidate = need_object(found, f"$.candidates[{index}]")
            if candidate.get("index") in (0, None):
                self.begun = True
                self._choose(candidate, f"$.candidates[{index}]", facts)
                break
        return GenerateChunk(**facts) if facts else None

    def refuse(self, value: Any) -> Any:
        """Return an event's JSON value without the array around it.

        Raises:
            ApiError: it is an error.
        """
        if isinstance(value, list) and len(value) == 1:
            value = value[0]  # how an error is written where the whole reply is an array
        if isinstance(value, dict) and value.get("error"):
            error = error_inside(value, request_id=self._request_id, partial=self.partial or None)
            if error is not None:
                raise error
        return value

    def close(self) -> list[GenerateChunk]:
        """Return what the end of the reply adds: a call that the vendor sent in pieces and did not end."""
        calls: list[ToolCallDelta] = []
        self._end(calls)
        return [GenerateChunk(tool_calls=tuple(calls))] if calls else []

    def _name(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        if self._request_id is None:
            self._request_id = get_text(value, "responseId", "$") or None
        for fact, name in (("request_id", self._request_id), ("model", get_text(value, "modelVersion", "$"))):
            if name and self._told.get(fact) != name:
                self._told[fact] = facts[fact] = name

    def _tell(self, source: dict[str, Any], keys: tuple[str, ...], facts: dict[str, Any]) -> None:
        for key in keys:
            found = source.get(key)
            if found not in (None, "", [], {}) and self._told.get(key) != found:
                self._told[key] = found
                facts.setdefault("extra", {})[key] = found

    def _choose(self, candidate: dict[str, Any], path: str, facts: dict[str, Any]) -> None:
        content = candidate.get("content")
        content = need_object({} if content is None else content, f"{path}.content")
        listed = content.get("parts")
        calls: list[ToolCallDelta] = []
        for index, found in enumerate([] if listed is None else need_list(listed, f"{path}.content.parts")):
            here = f"{path}.content.parts[{index}]"
            self._part(need_object(found, here), here, facts, calls)
        word = candidate.get("finishReason")
        if isinstance(word, str) and word and word != "FINISH_REASON_UNSPECIFIED":
            self.finished = True
            self._end(calls)
            facts["raw_finish_reason"] = word
            finish = finish_of(word, called=self._calls > 0)
            if finish is not None:
                facts["finish_reason"] = finish
        if calls:
            facts["tool_calls"] = tuple(calls)
        self._tell(candidate, CANDIDATE_EXTRA, facts)

    def _part(self, part: dict[str, Any], path: str, facts: dict[str, Any], calls: list[ToolCallDelta]) -> None:
        if part.get("functionCall") is not None:
            self._call(need_object(part["functionCall"], f"{path}.functionCall"), part, f"{path}.functionCall", calls)
            return
        kept = reasoning_part(part)
        if kept is not None:
            facts["reasoning_parts"] = (*facts.get("reasoning_parts", ()), kept)
        text = get_text(part, "text", path)
        if not text:
            return
        if part.get("thought") is True:
            facts["reasoning"] = facts.get("reasoning", "") + text
        else:
            self._texts.append(text)
            facts["text"] = facts.get("text", "") + text

    def _call(self, call: dict[str, Any], part: Mapping[str, Any], path: str, calls: list[ToolCallDelta]) -> None:
        """Read a call, which is whole in nearly every reply; else its arguments follow in pieces without a name."""
        name = get_text(call, "name", path)
        if name:
            self._end(calls)
            own = get_text(call, "id", path) or f"call_{'_'.join(filter(None, (self._request_id, str(self._calls))))}"
            signed = {SIGNATURE: part[SIGNATURE]} if part.get(SIGNATURE) else {}
            self._open = PartialCall(self._calls, own, name, signed)
            self._calls += 1
        elif self._open is None:
            raise malformed(f"{path}.name", "a name", call.get("name"))
        args = call.get("args")
        if args is not None:
            self._open.take(need_object(args, f"{path}.args"))
        pieces = call.get("partialArgs")
        for index, piece in enumerate([] if pieces is None else need_list(pieces, f"{path}.partialArgs")):
            self._open.put(need_object(piece, f"{path}.partialArgs[{index}]"), f"{path}.partialArgs[{index}]")
        if call.get("willContinue") is not True:
            self._end(calls)

    def _end(self, calls: list[ToolCallDelta]) -> None:
        if self._open is not None:
            found, self._open = self._open, None
            arguments = "" if found.args is None else json.dumps(found.args, ensure_ascii=False)
            calls.append(
                ToolCallDelta(index=found.index, id=found.id, name=found.name, arguments=arguments, extra=found.extra)
            )


def read_usage(value: Any) -> Usage | None:
    """Read the tokens; None when the vendor says none. A count of 0 is left out on this wire."""
    if not isinstance(value, dict):
        return None
    thoughts = tokens(value.get("thoughtsTokenCount"))
    usage = Usage(
        input_tokens=_sum(value, "promptTokenCount", "toolUsePromptTokenCount"),
        output_tokens=_sum(value, "candidatesTokenCount", "thoughtsTokenCount"),
        cached_tokens=tokens(value.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )
    return None if usage == _UNKNOWN else usage


def _sum(value: Mapping[str, Any], *keys: str) -> int | None:
    known = [count for key in keys if (count := tokens(value.get(key))) is not None]
    return sum(known) if known else None
