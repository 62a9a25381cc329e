"""Replies of Google's dialect. A whole reply and each event of a stream have the same shape, and one decoder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import attrs

from llm_council._wire.other_content import OtherContent, declare
from llm_council._wire.payloads import get_text, loads, malformed, need_list, need_object, text_or_none, tokens
from llm_council._wire.reading import Decoder
from llm_council._wire.sse import SseEvent
from llm_council.errors import MalformedReply
from llm_council.models._attrs import copy_with
from llm_council.models.limits import Limits
from llm_council.models.messages import ReasoningPart, new_call_id
from llm_council.models.reply import FinishReason, GenerateChunk, GenerateResponse, ToolCallDelta, Usage, join
from llm_council.providers._google.errors import error_inside
from llm_council.providers._google.request import SIGNATURE, VENDOR
from llm_council.providers._http.continuation import Continuation

__all__ = ["CONTINUATION", "FrameDecoder", "decode_response", "read_finish", "reasoning_part"]


def _renumber(extra: Mapping[str, Any], before: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """Count sources and offsets of a continued reply from the beginning of the answer; see ``Continuation``.

    A support names its sources by their indices in ``groundingChunks``, and its text by offsets in bytes, as citations
    do (google.genai.types.GroundingSupport, Segment, Citation). The API leaves out an offset of 0.
    """
    found = dict(extra)
    grounding = extra.get("groundingMetadata")
    if isinstance(grounding, Mapping) and isinstance(grounding.get("groundingSupports"), list):
        known = before.get("groundingMetadata")
        chunks = known.get("groundingChunks") if isinstance(known, Mapping) else None
        shift = len(chunks) if isinstance(chunks, list) else 0
        supports = [_renumber_support(support, shift, size) for support in grounding["groundingSupports"]]
        found["groundingMetadata"] = {**grounding, "groundingSupports": supports}
    citations = extra.get("citationMetadata")
    if isinstance(citations, Mapping):  # "citationSources" of the Gemini API, "citations" of Vertex AI
        found["citationMetadata"] = {
            key: [_moved(item, size) for item in value] if isinstance(value, list) else value
            for key, value in citations.items()
        }
    return found


def _renumber_support(support: Any, shift: int, size: int) -> Any:
    if not isinstance(support, Mapping):
        return support
    changed = {**support, "segment": _moved(support.get("segment"), size)} if "segment" in support else {**support}
    indices = support.get("groundingChunkIndices")
    if isinstance(indices, list):
        changed["groundingChunkIndices"] = [index + shift if isinstance(index, int) else index for index in indices]
    return changed


def _moved(span: Any, size: int) -> Any:
    if not isinstance(span, Mapping) or not isinstance(span.get("endIndex"), int):
        return span
    return {**span, "startIndex": (tokens(span.get("startIndex")) or 0) + size, "endIndex": span["endIndex"] + size}


# "The response reached the per-request token limit, but generation is not yet complete": the same request with the
# token brings the rest (google.genai.types.FinishReason and Candidate.continuation_token, 3.6).
CONTINUATION = Continuation("CONTINUATION", "continuationToken", _renumber)

declare(OtherContent(media=("inlineData", "fileData"), errors=("finishMessage",)))  # its parts have no type
REPLY_EXTRA = ("promptFeedback",)
CANDIDATE_EXTRA = (
    "finishMessage",
    "safetyRatings",
    "citationMetadata",
    "groundingMetadata",
    "urlContextMetadata",
    "avgLogprobs",
    CONTINUATION.key,
)
LOGPROBS = "logprobsResult"
"""The key of the candidate's log probabilities; a stream brings those of each event's tokens."""

# Values of FinishReason (Gemini API reference, "Candidate"); MODEL_ARMOR is of Vertex AI.
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
    CONTINUATION.word: FinishReason.LENGTH,
    **dict.fromkeys(_FILTERS, FinishReason.CONTENT_FILTER),
    **dict.fromkeys(_FAILURES, FinishReason.ERROR),
}

# One step of a JSONPath: .name, [0], ['name'] or ["name"].
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]|\["([^"]*)"\]""")
_MAX_STEPS = 100  # no tool's schema is nested deeper
_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")  # the fields of google.genai.types.PartialArg

_LIMITS = Limits()


def decode_response(data: Any, *, request_id: str | None = None) -> GenerateResponse:
    """Decode a whole reply, or the JSON array of a whole stream.

    Args:
        data: the JSON value of the reply.
        request_id: the id from the HTTP headers; None means the one in the reply.

    Returns:
        The answer. For a blocked prompt it has no text and the finish reason ``content_filter``; the vendor's reason is
        in ``raw_finish_reason`` and ``extra["promptFeedback"]``.

    Raises:
        ApiError: the reply is an error.
        MalformedReply: the reply is not of this dialect.
        TruncatedReply: the array ends before the answer does.
    """
    decoder = FrameDecoder(request_id=request_id)
    frames = data if isinstance(data, list) else [data]
    chunks = [chunk for frame in frames if (chunk := decoder.read(frame)) is not None]
    if not decoder.begun and not any(_is_empty_answer(frame) for frame in frames):
        raise MalformedReply("$.candidates: the reply has no candidate", path="$.candidates", request_id=request_id)
    chunks += decoder.finish() if isinstance(data, list) else decoder.close()
    return copy_with(join(chunks), raw=data)


def _is_empty_answer(frame: Any) -> bool:
    """Return True for a reply of this dialect without candidates: the model wrote nothing."""
    keys = ("usageMetadata", "modelVersion", "promptFeedback")
    return isinstance(frame, dict) and any(frame.get(key) for key in keys)


def read_finish(word: str, *, has_calls: bool = False) -> FinishReason | None:
    """Return the finish reason for the vendor's word; None for an unknown word.

    The API sends ``STOP`` for answers and for tool calls alike.
    """
    if word == "STOP" and has_calls:
        return FinishReason.TOOL_CALLS
    if word.startswith("IMAGE_"):
        return FinishReason.CONTENT_FILTER
    return _FINISHES.get(word)


def read_usage(value: Any) -> Usage | None:
    """Return the token counts; None when the reply has none. The API leaves counts of 0 out."""
    if not isinstance(value, dict):
        return None
    usage = Usage(
        input_tokens=_sum(value, "promptTokenCount", "toolUsePromptTokenCount"),
        # candidatesTokenCount excludes thoughts (Gemini API reference, "UsageMetadata"); Usage counts them.
        output_tokens=_sum(value, "candidatesTokenCount", "thoughtsTokenCount"),
        cached_tokens=tokens(value.get("cachedContentTokenCount")),
        reasoning_tokens=tokens(value.get("thoughtsTokenCount")),
    )
    return None if usage == Usage() else usage


def _sum(value: Mapping[str, Any], *keys: str) -> int | None:
    known = [count for key in keys if (count := tokens(value.get(key))) is not None]
    return sum(known) if known else None


def reasoning_part(part: Mapping[str, Any]) -> ReasoningPart | None:
    """Return what a later request must send back of a part that is not a call; None if there is nothing to send back.

    This is a signature with the thought that it signs, or a whole part that ``GenerateResponse`` has no field for, such
    as code that ran on the vendor's side and its output, or a generated image.
    """
    signature = part.get(SIGNATURE)
    signature = signature if isinstance(signature, str) and signature else None
    text = part.get("text")
    if not isinstance(text, str):
        return ReasoningPart(signature=signature, vendor=VENDOR, data=part) if part else None
    if signature is None:
        return None
    return ReasoningPart(text=text if part.get("thought") is True else "", signature=signature, vendor=VENDOR)


@attrs.define
class _PartialCall:
    """A tool call that is arriving.

    Attributes:
        index: the index of the call in the answer, from 0.
        id: the vendor's id, or a generated one.
        name: the tool's name.
        extra: fields of the part that ``ToolCall`` lacks.
        arguments: the arguments so far; None if there are none yet.
    """

    index: int
    id: str
    name: str
    extra: dict[str, Any]
    arguments: dict[str, Any] | None = None

    def add(self, piece: Mapping[str, Any], path: str) -> None:
        """Put one of ``partialArgs`` in its place; strings at one place are concatenated.

        Args:
            piece: an object with ``jsonPath`` and a value.
            path: where the piece is in the reply.

        Raises:
            MalformedReply: the arguments have no such place.
        """
        steps = _parse_json_path(get_text(piece, "jsonPath", path) or "", f"{path}.jsonPath")
        key = next((key for key in _VALUES if key in piece), None)
        if key is None:
            return
        value = None if key == "nullValue" else piece[key]
        if self.arguments is None:
            self.arguments = {}
        inner: Any = self.arguments
        for step, following in pairwise(steps):
            inner = _descend(inner, step, {} if isinstance(following, str) else [], path)
        known = _descend(inner, steps[-1], value, path)
        if known is not value:
            both = isinstance(known, str) and isinstance(value, str)
            inner[steps[-1]] = known + value if both else value

    def delta(self) -> ToolCallDelta:
        arguments = "" if self.arguments is None else json.dumps(self.arguments, ensure_ascii=False)
        return ToolCallDelta(index=self.index, id=self.id, name=self.name, arguments=arguments, extra=self.extra)


def _parse_json_path(text: str, path: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 1
    while text[:1] == "$" and position < len(text) and len(steps) < _MAX_STEPS:
        match = _STEP.match(text, position)
        if match is None:
            break
        name, index, *quoted = match.groups()
        steps.append(int(index) if index is not None else next(key for key in (name, *quoted) if key is not None))
        position = match.end()
    if not steps or position < len(text):
        raise MalformedReply(f"{path}: {text!r:.80} is not a path in arguments", path=path)
    return steps


def _descend(container: Any, step: str | int, default: Any, path: str) -> Any:
    """Return the value at a step, after storing ``default`` there if there is none."""
    if isinstance(step, str) and isinstance(container, dict):
        return container.setdefault(step, default)
    if isinstance(step, int) and isinstance(container, list) and step <= len(container):
        if step == len(container):
            container.append(default)
        return container[step]
    raise malformed(path, "an object" if isinstance(step, str) else "a list with the items before it", container)


class FrameDecoder(Decoder):
    """Decode the events of one stream, in order. Only the end of the body ends it.

    Args:
        limits: ``json_depth`` bounds each event.
        request_id: the id from the HTTP headers; None means the one in the stream.

    Attributes:
        begun: a candidate has arrived, or the reason why the prompt was blocked.
    """

    def __init__(self, limits: Limits = _LIMITS, *, request_id: str | None = None) -> None:
        super().__init__(limits, request_id=request_id)
        self.begun = False
        self._reported: dict[str, Any] = {}  # facts that every event repeats
        self._logprobs: dict[str, list[Any]] = {}
        self._first_id: str | None = None  # the reply's own id, and that of the current event
        self._current_id: str | None = None
        self._calls = 0
        self._open_call: _PartialCall | None = None

    def _read(self, event: SseEvent) -> GenerateChunk | None:
        if event.data.strip() == "[DONE]":  # gateways in front of the vendor end a stream this way
            return None
        return self.read(loads(event.data, self._limits))

    def read(self, value: Any) -> GenerateChunk | None:
        """Return the chunk of an event's JSON value; see ``feed``."""
        value = need_object(self.raise_if_error(value), "$")
        facts: dict[str, Any] = {}
        self._current_id = get_text(value, "responseId", "$")
        self._first_id = self._first_id or self._current_id
        self._add_names(value, facts)
        usage = read_usage(value.get("usageMetadata"))
        if usage is not None:
            facts["usage"] = usage
        self._add_extra(value, REPLY_EXTRA, facts)
        feedback = value.get("promptFeedback")
        blocked = text_or_none(feedback.get("blockReason")) if isinstance(feedback, dict) else None
        if blocked is not None:
            self.begun = self.finished = True
            facts.update(finish_reason=FinishReason.CONTENT_FILTER, raw_finish_reason=blocked)
        listed = value.get("candidates")
        for index, found in enumerate([] if listed is None else need_list(listed, "$.candidates")):
            candidate = need_object(found, f"$.candidates[{index}]")
            if candidate.get("index") in (0, None):  # the first candidate is the answer
                self.begun = True
                self._add_candidate(candidate, f"$.candidates[{index}]", facts)
                break
        return GenerateChunk(**facts) if facts else None

    def raise_if_error(self, value: Any) -> Any:
        """Return an event's JSON value, without the array around it.

        Raises:
            ApiError: the event is an error.
        """
        if isinstance(value, list) and len(value) == 1:
            value = value[0]  # an error, where the whole reply would have been an array
        if isinstance(value, dict) and value.get("error"):
            error = error_inside(value, request_id=self._request_id, partial=self.partial or None)
            if error is not None:
                raise error
        return value

    def close(self) -> list[GenerateChunk]:
        """Return a call that arrived in pieces and was not ended, and the collected log probabilities."""
        calls: list[ToolCallDelta] = []
        self._end_call(calls)
        extra = {LOGPROBS: self._logprobs} if self._logprobs else {}
        return [GenerateChunk(tool_calls=tuple(calls), extra=extra)] if calls or extra else []

    def _add_names(self, value: dict[str, Any], facts: dict[str, Any]) -> None:
        if self._request_id is None:
            self._request_id = get_text(value, "responseId", "$") or None
        for fact, name in (("request_id", self._request_id), ("model", get_text(value, "modelVersion", "$"))):
            if name and self._reported.get(fact) != name:
                self._reported[fact] = facts[fact] = name

    def _add_extra(self, source: dict[str, Any], keys: tuple[str, ...], facts: dict[str, Any]) -> None:
        for key in keys:
            found = source.get(key)
            if found not in (None, "", [], {}) and self._reported.get(key) != found:
                self._reported[key] = found
                facts.setdefault("extra", {})[key] = found

    def _add_candidate(self, candidate: dict[str, Any], path: str, facts: dict[str, Any]) -> None:
        content = candidate.get("content")
        content = need_object({} if content is None else content, f"{path}.content")
        listed = content.get("parts")
        calls: list[ToolCallDelta] = []
        if self.finished and listed and self._current_id != self._first_id:
            raise MalformedReply("a second answer begins in the middle of the stream", path=path)
        for index, found in enumerate([] if listed is None else need_list(listed, f"{path}.content.parts")):
            part_path = f"{path}.content.parts[{index}]"
            self._add_part(need_object(found, part_path), part_path, facts, calls)
        word = text_or_none(candidate.get("finishReason"))
        if word is not None and word != "FINISH_REASON_UNSPECIFIED":
            self.finished = True
            self._end_call(calls)
            facts["raw_finish_reason"] = word
            finish = read_finish(word, has_calls=self._calls > 0)
            if finish is not None:
                facts["finish_reason"] = finish
        if calls:
            facts["tool_calls"] = tuple(calls)
        self._add_extra(candidate, CANDIDATE_EXTRA, facts)
        logprobs = candidate.get(LOGPROBS)
        for key, listed in logprobs.items() if isinstance(logprobs, dict) else ():
            if isinstance(listed, list):  # chosenCandidates and topCandidates, one for each token
                self._logprobs.setdefault(key, []).extend(listed)

    def _add_part(self, part: dict[str, Any], path: str, facts: dict[str, Any], calls: list[ToolCallDelta]) -> None:
        if part.get("functionCall") is not None:
            path = f"{path}.functionCall"
            self._add_call(need_object(part["functionCall"], path), part, path, calls)
            return
        echo = reasoning_part(part)
        if echo is not None:
            facts["reasoning_parts"] = (*facts.get("reasoning_parts", ()), echo)
        text = get_text(part, "text", path)
        if not text:
            return
        if part.get("thought") is True:
            facts["reasoning"] = facts.get("reasoning", "") + text
        else:
            self._texts.append(text)
            facts["text"] = facts.get("text", "") + text

    def _add_call(self, call: dict[str, Any], part: Mapping[str, Any], path: str, calls: list[ToolCallDelta]) -> None:
        """Add a call. A call without a name continues the open one with more arguments (Vertex AI, ``partialArgs``)."""
        name = get_text(call, "name", path)
        if name:
            self._end_call(calls)
            call_id = get_text(call, "id", path)
            if not call_id:  # the API sends ids to newer models only
                own = self._request_id
                call_id = f"call_{own}_{self._calls}" if own else new_call_id(self._calls)
            extra = {SIGNATURE: part[SIGNATURE]} if part.get(SIGNATURE) else {}
            self._open_call = _PartialCall(self._calls, call_id, name, extra)
            self._calls += 1
        elif self._open_call is None:
            if not call.get("args") and not call.get("partialArgs"):
                return  # a call without name and arguments calls nothing
            raise malformed(f"{path}.name", "a name", call.get("name"))
        arguments = call.get("args")
        if arguments is not None:
            known = self._open_call.arguments or {}
            self._open_call.arguments = {**known, **need_object(arguments, f"{path}.args")}
        pieces = call.get("partialArgs")
        for index, piece in enumerate([] if pieces is None else need_list(pieces, f"{path}.partialArgs")):
            piece_path = f"{path}.partialArgs[{index}]"
            self._open_call.add(need_object(piece, piece_path), piece_path)
        if call.get("willContinue") is not True:
            self._end_call(calls)

    def _end_call(self, calls: list[ToolCallDelta]) -> None:
        if self._open_call is not None:
            calls.append(self._open_call.delta())
            self._open_call = None
