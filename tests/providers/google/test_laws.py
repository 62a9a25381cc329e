"""The five laws of Google's dialect, for generated requests and answers."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import strategies
import wire_laws
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from llm_council import models as m
from llm_council._wire.history import CallIds
from llm_council._wire.payloads import dumps, loads
from llm_council._wire.sse import SseEvent
from llm_council.errors import InvalidOption
from llm_council.providers import _google
from llm_council.providers._google import GeminiOptions, GeminiStream, decode_response, encode_request
from llm_council.providers._google.reply import FrameDecoder
from llm_council.providers._google.stream import ArraySplitter
from llm_council.testing._mirrors import gemini
from llm_council.testing._mirrors.gemini import decode_request, encode_array, encode_chunks, encode_response, frame

pytestmark = pytest.mark.slow

MODELS = [
    GeminiOptions(),
    GeminiOptions(thinking="budget"),
    GeminiOptions(thinking="none", schema="json_object"),
    GeminiOptions(schema="none"),
]
words = strategies.words
some_text = st.text(min_size=1, max_size=20)
objects = st.dictionaries(words, strategies.json_values(leaves=3), max_size=3)


def called(found: dict[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False)


calls = st.builds(
    m.ToolCall,
    id=words,
    name=words,
    arguments=st.just("") | objects.map(called),
    extra=st.dictionaries(st.just("thoughtSignature"), words, max_size=1),
)
code = st.builds(lambda text: {"executableCode": {"language": "PYTHON", "code": text}}, some_text)
signed = (
    st.builds(m.ReasoningPart, text=some_text, signature=words, vendor=st.just("gemini"))
    | st.builds(m.ReasoningPart, signature=words, vendor=st.just("gemini"))
    | code.map(lambda part: m.ReasoningPart(vendor="gemini", data=part))
)


files = strategies.images() | strategies.pdfs() | strategies.recordings()
asked = some_text | st.lists(st.builds(m.TextPart, text=some_text) | files, min_size=1, max_size=3)
answers = st.builds(
    lambda thoughts, text, wished: m.Message("assistant", [*thoughts, m.TextPart(text=text)], tool_calls=wished),
    st.lists(signed, max_size=3),
    some_text,
    st.lists(calls, max_size=3, unique_by=lambda call: call.id),
)
results = some_text | objects.map(called)
instructions = st.none() | some_text
rounds = st.lists(st.tuples(asked, st.none() | answers), min_size=1, max_size=3)
offers = st.lists(strategies.tools(), max_size=2)
options_of_request = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 9999),
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "stop": st.lists(words, min_size=1, max_size=5),
        "structured_output": strategies.structured_outputs(),
        "reasoning": strategies.reasoning_configs(),
        "extra": st.fixed_dictionaries(
            {},
            optional={
                "generationConfig": st.fixed_dictionaries({"topK": st.integers(1, 40)}),
                "tools": st.just([{"googleSearch": {}}]),
                "cachedContent": words,
            },
        ),
    },
)


@st.composite
def requests(draw: st.DrawFn) -> m.GenerateRequest:
    """Return requests that the dialect can express; each tool result answers an earlier call."""
    turns: list[m.Message] = []
    instruction = draw(instructions)
    if instruction is not None:
        turns.append(m.Message("system", instruction))
    for question, answer in draw(rounds):
        turns.append(m.Message("user", question))
        if answer is not None:
            turns.append(answer)
            turns += [
                m.Message("tool", draw(results), name=call.name, tool_call_id=call.id) for call in answer.tool_calls
            ]
    offered = draw(offers)
    choices = [None, "auto", "none", "required", *(tool.name for tool in offered)]
    choice = draw(st.sampled_from(choices)) if offered else None
    return m.GenerateRequest(messages=turns, tools=offered, tool_choice=choice, **draw(options_of_request))


EFFORTS = {"none": "none", "minimal": "minimal", "low": "low", "medium": "medium"}  # every higher effort is HIGH
BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192}  # every higher effort is 24,576


def expected_reasoning(config: m.ReasoningConfig | None, style: str) -> m.ReasoningConfig | None:
    """Return the reasoning settings that a model with levels, or with budgets, takes."""
    if config is None or (config.effort is None and (style == "level" or config.budget_tokens is None)):
        return None
    if style == "level":
        return m.ReasoningConfig(effort=EFFORTS.get(str(config.effort), "high"))
    if config.effort != "none" and config.budget_tokens is not None:
        return m.ReasoningConfig(budget_tokens=config.budget_tokens)
    return m.ReasoningConfig(budget_tokens=BUDGETS.get(str(config.effort), 24_576))


def parts_of(request: m.GenerateRequest, kind: type) -> list[Any]:
    return [
        part
        for turn in request.messages
        if not isinstance(turn.content, str)
        for part in turn.content
        if isinstance(part, kind)
    ]


@examples(25)
@given(requests(), st.sampled_from(["level", "budget"]))
def test_the_facts_of_a_request_come_back(request: m.GenerateRequest, style: Any) -> None:
    options = GeminiOptions(thinking=style)
    again = decode_request(encode_request(request, options), options, model="x", stream=True)
    request = strategies.as_sent(request, "gemini", CallIds(may_be_empty=True))
    assert (again.model, again.stream) == ("x", True)
    for role in ("system", "user", "assistant", "tool"):
        texts = [[turn.text for turn in found.messages if turn.role == role] for found in (again, request)]
        assert texts[0] == texts[1]
    for kind in (m.ImagePart, m.DocumentPart, m.AudioPart, m.ReasoningPart):
        found, sent = parts_of(again, kind), parts_of(request, kind)
        if kind is not m.ReasoningPart:  # the dialect has no word for detail and name, and needs a type
            found = [(part.url, part.data) for part in found]
            sent = [(part.url, part.data) for part in sent]
        assert found == sent
    assert [turn.tool_calls for turn in again.messages if turn.role == "assistant"] == [
        turn.tool_calls for turn in request.messages if turn.role == "assistant"
    ]
    results = [(turn.name, turn.tool_call_id) for turn in request.messages if turn.role == "tool"]
    assert [(turn.name, turn.tool_call_id) for turn in again.messages if turn.role == "tool"] == results
    for name in ("max_tokens", "temperature", "top_p", "stop", "tool_choice", "extra"):
        assert getattr(again, name) == getattr(request, name)
    assert again.reasoning == expected_reasoning(request.reasoning, style)
    assert [attrs.evolve(tool, strict=None) for tool in again.tools] == [
        attrs.evolve(tool, strict=None) for tool in request.tools
    ]
    schemas = [one and one.json_schema for one in (again.structured_output, request.structured_output)]
    assert schemas[0] == schemas[1]


def test_a_result_of_an_unknown_call_raises_invalid_option() -> None:
    with pytest.raises(InvalidOption, match="tool_call_id"):
        encode_request(m.GenerateRequest(messages=[m.Message("tool", "18C", tool_call_id="call_1")]))


counted = st.integers(0, 10**9)
maybe_counted = st.none() | counted


@st.composite
def usages(draw: st.DrawFn) -> m.Usage:
    thoughts, answer_tokens = draw(maybe_counted), draw(counted)
    return m.Usage(
        input_tokens=draw(maybe_counted),
        output_tokens=answer_tokens + (thoughts or 0),
        cached_tokens=draw(maybe_counted),
        reasoning_tokens=thoughts,
    )


def finished(
    raw: str, said: str, parts: list[m.ReasoningPart], wished: list[m.ToolCall], **facts: Any
) -> m.GenerateResponse:
    finishes = {"STOP": "tool_calls" if wished else "stop", "MAX_TOKENS": "length", "OTHER": "error"}
    finishes |= {"SAFETY": "content_filter", "IMAGE_SAFETY": "content_filter"}
    return m.GenerateResponse(
        reasoning=said + "".join(part.text for part in parts) or None,
        reasoning_parts=parts,
        tool_calls=wished,
        finish_reason=m.FinishReason.of(finishes.get(raw)),
        raw_finish_reason=raw,
        **facts,
    )


def replies() -> st.SearchStrategy[m.GenerateResponse]:
    """Return answers that the dialect can express completely."""
    ratings = st.lists(st.fixed_dictionaries({"category": words}), min_size=1, max_size=2)
    return st.builds(
        finished,
        st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY", "IMAGE_SAFETY", "OTHER", "NOVEL_WORD"]),
        st.just("") | some_text,
        st.lists(signed, max_size=3),
        st.lists(calls, max_size=2, unique_by=lambda call: call.id),
        text=st.none() | some_text,
        usage=st.none() | usages(),
        model=words,
        request_id=words,
        extra=st.fixed_dictionaries({}, optional={"finishMessage": words, "safetyRatings": ratings}),
    )


@given(words, st.none() | words)
def test_a_blocked_prompt_comes_back(reason: str, message: str | None) -> None:
    feedback = {"blockReason": reason, **({"blockReasonMessage": message} if message else {})}
    response = m.GenerateResponse(
        model="m",
        finish_reason="content_filter",
        raw_finish_reason=reason,
        request_id="r",
        extra={"promptFeedback": feedback},
    )
    payload = encode_response(response)
    assert "candidates" not in payload
    assert decode_response(payload) == attrs.evolve(response, raw=payload)
    assert TestLaws.dialect.read([frame(event) for event in encode_chunks(response)]) == response


@given(st.lists(st.dictionaries(st.text(max_size=5), strategies.json_values(leaves=3), max_size=3), max_size=4))
def test_an_array_is_split_into_its_objects_wherever_the_bytes_are_cut(values: list[dict[str, Any]]) -> None:
    for body in (encode_array(values), json.dumps(values, indent=1).encode()):
        for size in (1, 3, len(body)):
            splitter = ArraySplitter()
            found = [one for at in range(0, len(body), size) for one in splitter.feed(body[at : at + size])]
            assert [loads(one.data) for one in found] == values
            assert splitter.closed


lookalikes = wire_laws.lookalikes(
    "candidates content parts text thought thoughtSignature functionCall functionResponse name args id response index"
    " finishReason promptFeedback blockReason usageMetadata promptTokenCount error code message status details reason"
    " violations quotaId metadata retryDelay partialArgs jsonPath stringValue willContinue inlineData fileData mimeType"
    " data fileUri role tools functionDeclarations parametersJsonSchema toolConfig functionCallingConfig mode",
    ["user", "model", "STOP", "$.a.b[0]", "$.a", "$[", "34.5s", "RESOURCE_EXHAUSTED", 0, 1, -1, 2.5, True, "{"],
)


def wrapped(value: Any) -> list[Any]:
    parts = [{"functionCall": {"name": "f", "willContinue": True}}, {"functionCall": {"partialArgs": [value, value]}}]
    return [
        value,
        [value],
        {"candidates": value},
        {"candidates": [value], "promptFeedback": value, "usageMetadata": value},
        {"candidates": [{"content": value, "finishReason": value}]},
        {"candidates": [{"content": {"parts": [value]}, "finishReason": "STOP"}], "modelVersion": value},
        {"candidates": [{"content": {"parts": [{"functionCall": value}]}}], "responseId": value},
        {"candidates": [{"content": {"parts": parts}}]},
        {"candidates": [{"content": {"parts": [*parts[:1], {"functionCall": {"partialArgs": [
            {"jsonPath": value, "stringValue": "x"}, {"jsonPath": "$.a[0].b", "stringValue": value},
            {"jsonPath": "$.a", "numberValue": value}]}}]}}]},
        {"contents": [value]},
        {"contents": [{"role": "user", "parts": [value]}], "tools": value, "toolConfig": value},
        {"contents": [{"role": "model", "parts": [value]}], "systemInstruction": value, "generationConfig": value},
        {"contents": [{"parts": [{"functionResponse": value}]}], "tools": [{"functionDeclarations": value}]},
        {"contents": [{"parts": [{"inlineData": value}]}], "generationConfig": {"thinkingConfig": value}},
        {"error": value},
        {"error": {"message": value, "code": value, "status": value, "details": value}},
        {"error": {"message": "x", "code": 429, "details": [value, {"violations": value, "metadata": value}]}},
    ]  # fmt: skip


def decode_frame(junk: Any, _: Any) -> None:
    decoder = FrameDecoder()
    decoder.feed(SseEvent(dumps(junk).decode()))
    m.join(decoder.finish())


def bodies(response: m.GenerateResponse, size: int) -> list[bytes]:
    """Return the stream as server-sent events, and as one JSON array."""
    events = list(encode_chunks(response, size=size))
    return [b"".join(map(frame, events)), encode_array(events)]


@given(replies(), st.integers(1, 9))
def test_a_whole_array_is_decoded_to_the_answer(response: m.GenerateResponse, size: int) -> None:
    array = encode_array(encode_chunks(response, size=size))
    assert attrs.evolve(decode_response(loads(array)), raw=None) == response


class TestLaws(wire_laws.DialectLaws):
    dialect = wire_laws.Dialect(
        codec=_google,
        mirror=gemini,
        stream=GeminiStream,
        requests=requests(),
        replies=replies(),
        bodies=bodies,
        alike=lookalikes,
        wrapped=wrapped,
        unsaid={"structured", "attempts", "adjustments", "raw", "cost", "refusal"},
        options=MODELS,
        any_turn=lambda turn: attrs.evolve(turn, name=turn.name or "tool"),
        feed=decode_frame,
        varied=False,
        hostile=1,
        odd=[10**400, {"parts": [{"text": 5}]}],
        heads=[b"", b"[", b"[{", b"{", b"data: ", b"data: {"],
        examples_of_any=40,
    )
