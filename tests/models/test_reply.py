"""Answers, their pieces, tokens and money."""

from __future__ import annotations

import pytest
import strategies
from hypothesis import given

from llm_council.errors import InvalidOption
from llm_council.models import (
    Cost,
    FinishReason,
    GenerateChunk,
    GenerateResponse,
    ImagePart,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolCallDelta,
    Usage,
    join,
)


def test_text_and_content_are_derived_from_each_other() -> None:
    assert GenerateResponse(text="a").content == "a"
    assert GenerateResponse(content="a").text == "a"
    assert GenerateResponse(content=[TextPart(text="a"), TextPart(text="b")]).text == "ab"
    assert GenerateResponse(content=[ImagePart(url="https://x/y")]).text is None
    assert GenerateResponse(text="").content == ""
    assert GenerateResponse().content is None


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("STOP", FinishReason.STOP),
        ("end_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("novel", None),
        ("", None),
    ],
)
def test_a_finish_reason_is_normalised_and_the_vendors_word_is_stored(word: str, reason: FinishReason | None) -> None:
    response = GenerateResponse(text="x", finish_reason=word)
    assert response.finish_reason is reason
    assert response.raw_finish_reason == word
    assert GenerateResponse(text="x", finish_reason=word, raw_finish_reason="theirs").raw_finish_reason == "theirs"


def test_unknown_token_counts_are_none_not_zero() -> None:
    assert Usage().total_tokens is None
    odd = Usage.counted(input_tokens=30.0, output_tokens=-1, cached_tokens="3", reasoning_tokens=True)
    assert odd == Usage(input_tokens=30)
    assert Usage.counted(cache_write_tokens=10**18, output_tokens=float("inf")) == Usage()
    assert Usage(input_tokens=3).total_tokens == 3
    total = Usage(input_tokens=3, cached_tokens=1) + Usage(input_tokens=4, estimated=True)
    assert total == Usage(input_tokens=7, cached_tokens=1, estimated=True)


def test_costs_add_up_and_report_whether_they_are_complete() -> None:
    reported = Cost(usd=0.25, source="reported", complete=True)
    assert reported + reported == Cost(usd=0.5, source="reported", complete=True)
    assert reported + Cost(usd=0.25, source="table", complete=True) == Cost(usd=0.5, source="table", complete=True)
    assert reported + Cost() == Cost(usd=0.25, source="reported", complete=False)
    assert Cost() + Cost() == Cost()
    with pytest.raises(ValueError, match="guess"):
        Cost(source="guess")


def test_the_share_of_a_sum_is_what_was_paid_of_the_direct_prices():
    direct, batched = Cost(usd=1.0, complete=True), Cost(usd=0.5, complete=True, share=0.5)
    assert (batched + batched).share == 0.5
    assert (direct + batched).share == 0.75  # 1.50 dollars instead of 2
    assert (batched + Cost()).share == (Cost() + batched).share == 0.5
    assert (Cost(share=0.5) + Cost(share=0.5)).share == 0.5
    assert (Cost(usd=0.0) + Cost(usd=0.0, share=0.5)).share == 1.0


def test_to_message_puts_signed_reasoning_first() -> None:
    thought = ReasoningPart(text="hm", signature="s", vendor="v")
    call = ToolCall(id="1", name="f")
    turn = GenerateResponse(text="yes", reasoning_parts=[thought], tool_calls=[call]).to_message()
    assert turn.role == "assistant"
    assert turn.content == (thought, TextPart(text="yes"))
    assert turn.tool_calls == (call,)
    assert GenerateResponse(text="yes").to_message().content == "yes"
    assert GenerateResponse(tool_calls=[call]).to_message().content == ""


@given(strategies.responses())
def test_a_complete_answer_as_one_chunk_joins_to_itself(response: GenerateResponse) -> None:
    again = join([GenerateChunk.whole(response)])
    for name in ("reasoning_parts", "finish_reason", "raw_finish_reason", "usage", "cost", "model", "request_id"):
        assert getattr(again, name) == getattr(response, name)
    assert again.text == (response.text or None)
    assert [(call.name, call.arguments) for call in again.tool_calls] == [
        (call.name, call.arguments) for call in response.tool_calls
    ]
    assert (again.structured, again.extra, again.adjustments) == (
        response.structured,
        response.extra,
        response.adjustments,
    )


def test_join_concatenates_text_and_takes_the_last_of_other_values() -> None:
    pieces = [
        GenerateChunk(text="a", model="m", request_id="r", usage=Usage(output_tokens=1)),
        GenerateChunk(reasoning="h", tool_calls=(ToolCallDelta(index=1, id="c1", name="g", arguments="{"),)),
        GenerateChunk(text="b", tool_calls=(ToolCallDelta(index=0, name="f"), ToolCallDelta(index=1, arguments="}"))),
        GenerateChunk(finish_reason=FinishReason.STOP, usage=Usage(output_tokens=2), extra={"x": 1}),
    ]
    answer = join(pieces)
    assert (answer.text, answer.reasoning, answer.model, answer.request_id) == ("ab", "h", "m", "r")
    assert answer.usage == Usage(output_tokens=2)
    assert answer.tool_calls == (
        ToolCall(id="call_0", name="f"),
        ToolCall(id="c1", name="g", arguments="{}"),
    )
    assert answer.extra == {"x": 1}
    assert join([]).text is None


def test_join_refuses_a_tool_call_without_a_name() -> None:
    with pytest.raises(InvalidOption, match="without a name"):
        join([GenerateChunk(tool_calls=(ToolCallDelta(index=0, id="x"),))])


def test_join_drops_chunks_before_a_reset() -> None:
    first = GenerateChunk(text="one", reasoning="hm", usage=Usage(input_tokens=1), extra={"a": 1}, model="m-1")
    again = GenerateChunk(reset="m-1 failed")
    delta = ToolCallDelta(index=0, id="c", name="look", arguments="{}")
    whole = join([first, GenerateChunk(tool_calls=(delta,)), again, GenerateChunk(text="two", model="m-2")])
    assert whole == GenerateResponse(text="two", model="m-2")
