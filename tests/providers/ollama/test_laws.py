"""The five laws of a dialect, stated for Ollama's."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import strategies
import wire_laws
from hypothesis import given
from hypothesis import strategies as st

from llm_council import models as m
from llm_council._wire.history import CallIds, fit_history
from llm_council.providers import _ollama
from llm_council.providers._ollama import ChatOptions, ChatStream, encode_request
from llm_council.testing._mirrors import ollama as mirror
from llm_council.testing._mirrors.ollama import encode_chunks, frame

pytestmark = pytest.mark.slow

MODELS = [
    ChatOptions(),
    ChatOptions(think_levels=True, think_tags=True),
    ChatOptions(body={"keep_alive": "5m", "options": {"num_ctx": 4096, "temperature": 0.25}}),
]
words = strategies.words
texts = st.text(max_size=30)
json_objects = st.dictionaries(texts, strategies.json_values(leaves=3), max_size=3)
calls = st.builds(m.ToolCall, id=words, name=words, arguments=json_objects)


def requests() -> st.SearchStrategy[m.GenerateRequest]:
    """Return requests that the dialect can express: images as data, arguments that are objects."""
    image = st.builds(m.ImagePart, data=st.just("iVBORw0KGgo="), media_type=st.just("image/png"))
    text = st.builds(m.TextPart, text=texts)
    thought = st.builds(m.ReasoningPart, text=texts, vendor=st.sampled_from(["ollama", "another"]))
    turns = st.one_of(
        st.builds(m.Message, st.sampled_from(["system", "developer"]), texts),
        st.builds(m.Message, st.just("user"), st.lists(text | image, max_size=3), name=st.none() | words),
        st.builds(
            m.Message,
            st.just("assistant"),
            st.lists(thought | text, max_size=3),
            tool_calls=st.lists(calls, max_size=2),
        ),
        st.builds(m.Message, st.just("tool"), texts, tool_call_id=words, name=st.none() | words),
    )
    return st.builds(
        m.GenerateRequest,
        model=words,
        messages=strategies.conversations(turns),
        stream=st.booleans(),
        max_tokens=st.none() | st.integers(1, 10**6),
        temperature=st.none() | st.floats(0, 2),
        top_p=st.none() | st.floats(0, 1),
        stop=st.lists(words, max_size=3),
        tools=st.lists(strategies.tools(), max_size=2),
        structured_output=st.none() | strategies.structured_outputs(),
        reasoning=st.none() | strategies.reasoning_configs(),
        extra=st.fixed_dictionaries(
            {},
            optional={
                "keep_alive": st.integers(0, 60),
                "options": st.fixed_dictionaries({"seed": st.integers(0, 9)}, optional={"top_k": st.just(4)}),
            },
        ),
    )


def finished(word: str, called: list[m.ToolCall], thoughts: str | None, **facts: Any) -> m.GenerateResponse:
    finish = m.FinishReason.of(word)
    if called and finish != "length":
        finish = m.FinishReason.TOOL_CALLS
    parts = [m.ReasoningPart(text=thoughts, vendor="ollama")] if thoughts else []
    return m.GenerateResponse(
        reasoning=thoughts,
        reasoning_parts=parts,
        tool_calls=called,
        finish_reason=finish,
        raw_finish_reason=word,
        **facts,
    )


def replies() -> st.SearchStrategy[m.GenerateResponse]:
    """Return answers that the dialect can express completely."""
    counted = st.integers(0, 10**9)
    return st.builds(
        finished,
        st.sampled_from(["stop", "length", "load", "novel_word"]),
        st.lists(calls, max_size=2, unique_by=lambda call: call.id),
        st.none() | st.text(min_size=1, max_size=30),
        text=st.none() | texts,
        usage=st.none() | st.builds(m.Usage, input_tokens=st.none() | counted, output_tokens=counted),
        model=words,
        extra=st.dictionaries(st.sampled_from(["total_duration", "load_duration", "remote_model"]), words),
    )


@given(requests(), st.booleans())
def test_the_facts_of_a_request_come_back(request: m.GenerateRequest, think_levels: bool) -> None:
    options = ChatOptions(think_levels=think_levels)
    again = mirror.decode_request(encode_request(request, options), options)
    turns = fit_history(request.messages, vendor="ollama", ids=CallIds(may_be_empty=True))
    names = {call.id: call.name for turn in turns for call in turn.tool_calls}
    for found, turn in zip(again.messages, turns, strict=True):
        assert found.role == (m.Role.SYSTEM if turn.role == m.Role.DEVELOPER else turn.role)
        assert found.text == turn.text
        assert [call.parse() for call in found.tool_calls] == [call.parse() for call in turn.tool_calls]
        assert [call.name for call in found.tool_calls] == [call.name for call in turn.tool_calls]
        if turn.role == m.Role.TOOL:
            assert found.name == (turn.name or names.get(turn.tool_call_id or ""))
        parts = () if isinstance(turn.content, str) else turn.content
        sent = [part.data for part in parts if isinstance(part, m.ImagePart)]
        assert [part.data for part in found.content if isinstance(part, m.ImagePart)] == sent
        thoughts = "".join(part.text for part in parts if isinstance(part, m.ReasoningPart) and part.vendor == "ollama")
        assert "".join(part.text for part in found.content if isinstance(part, m.ReasoningPart)) == thoughts
    for name in ("model", "stream", "max_tokens", "temperature", "top_p", "stop", "extra"):
        assert getattr(again, name) == getattr(request, name)
    for tool, offered in zip(again.tools, request.tools, strict=True):
        assert attrs.evolve(offered, strict=tool.strict) == tool
    schemas = [one and one.json_schema for one in (again.structured_output, request.structured_output)]
    assert schemas[0] == schemas[1]
    effort = request.reasoning and request.reasoning.effort
    if effort is None:
        assert again.reasoning is None
    elif think_levels:
        nearest = {"minimal": "low", "xhigh": "high"}.get(effort, effort)
        assert again.reasoning == m.ReasoningConfig(effort=nearest)
    else:
        assert again.reasoning == m.ReasoningConfig(effort="none" if effort == "none" else "medium")


lookalikes = wire_laws.lookalikes(
    "message content thinking tool_calls function name arguments id model done done_reason error eval_count"
    " prompt_eval_count role messages tools format think options stop num_predict temperature images tool_name stream"
    " type parameters",
    ["text", "stop", "user", 0, 1, -1, 2.5, "json", "{"],
    most=15,
)


def wrapped(value: Any) -> list[Any]:
    return [
        value,
        {"message": value},
        {"message": {"content": value, "done": True}},
        {"message": {"thinking": value, "tool_calls": value}, "done": value, "done_reason": value},
        {"message": {"tool_calls": [value]}, "eval_count": value},
        {"message": {"tool_calls": [{"function": value}]}, "done": True},
        {"message": {"tool_calls": [{"id": value, "function": {"name": "f", "arguments": value}}]}, "done": True},
        {"messages": [value]},
        {"messages": [{"role": "user", "content": value}], "tools": value, "options": value, "format": value},
        {"messages": [{"role": "user", "images": value}], "think": value, "options": {"stop": value}},
        {"messages": [{"role": "user"}], "tools": [{"function": value}], "options": {"num_predict": value}},
        {"messages": [{"role": "user", "tool_calls": [{"function": {"name": "f", "arguments": value}}]}]},
        {"error": value},
    ]


def bodies(response: m.GenerateResponse, size: int) -> list[bytes]:
    """Return the stream with each kind of line end, and without the last line end."""
    lines = b"".join(frame(event) for event in encode_chunks(response, size=size))
    return [*(lines.replace(b"\n", end) for end in (b"\n", b"\r\n", b"\n\n")), lines.rstrip()]


def feed(junk: Any, model: ChatOptions) -> None:
    stream = ChatStream(model)
    m.join([*stream.feed(frame(junk)), *stream.finish()])


class TestLaws(wire_laws.DialectLaws):
    dialect = wire_laws.Dialect(
        codec=_ollama,
        mirror=mirror,
        stream=ChatStream,
        requests=requests(),
        replies=replies(),
        bodies=bodies,
        alike=lookalikes,
        wrapped=wrapped,
        unsaid={"structured", "attempts", "adjustments", "raw", "cost", "refusal", "request_id"},
        options=MODELS,
        refusable=lambda request: True,  # an image by its address, arguments or a format it has no words for
        feed=feed,
        heads=[b"", b"{", b'{"message": '],
    )
