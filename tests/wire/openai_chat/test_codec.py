"""The OpenAI chat dialect, case by case."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from llm_council._wire.openai_chat import ChatOptions, ChatStream, ChunkDecoder, decode_response, encode_request
from llm_council._wire.payloads import dumps
from llm_council._wire.sse import SseEvent
from llm_council.errors import ApiError, InvalidOption, MalformedReply, RateLimited, ServerFailed, TruncatedReply
from llm_council.models import (
    Cost,
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    ToolCall,
    Usage,
    join,
)
from llm_council.testing._mirrors.openai_chat import DONE, decode_request, encode_chunks, encode_response, frame

# What is sent


def sent(options: ChatOptions | None = None, **facts: Any) -> dict[str, Any]:
    facts.setdefault("prompt", "hi")
    payload = encode_request(GenerateRequest(**facts), options or ChatOptions())
    del payload["messages"]
    return payload


def turn(message: Message, **options: Any) -> dict[str, Any]:
    return encode_request(GenerateRequest(messages=[message]), ChatOptions(**options))["messages"][0]


def test_unset_fields_are_not_sent() -> None:
    assert encode_request(GenerateRequest(prompt="hi")) == {"messages": [{"role": "user", "content": "hi"}]}


def test_the_given_model_wins_over_the_requests() -> None:
    request = GenerateRequest(prompt="hi", model="a")
    assert encode_request(request, model="b")["model"] == "b"
    assert encode_request(request)["model"] == "a"


def test_options_name_the_servers_own_words() -> None:
    openai = ChatOptions(max_tokens_field="max_completion_tokens", system_role="developer", developer_role="developer")
    assert sent(openai, max_tokens=5) == {"max_completion_tokens": 5}
    assert sent(max_tokens=5) == {"max_tokens": 5}
    for role in ("system", "developer"):
        assert turn(Message(role, "x"))["role"] == "system"
        assert turn(Message(role, "x"), system_role="developer", developer_role="developer")["role"] == "developer"
        assert turn(Message(role, "x"), system_role="user", developer_role="user")["role"] == "user"


def test_streams_ask_for_their_usage_where_the_server_knows_how() -> None:
    assert sent(stream=True) == {"stream": True, "stream_options": {"include_usage": True}}
    assert sent(ChatOptions(stream_usage=False), stream=True) == {"stream": True}
    assert encode_request(GenerateRequest(prompt="x", stream=True), stream=False).keys() == {"messages"}


REASONING: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("effort", {"effort": "low"}, {"reasoning_effort": "low"}),
    ("effort", {"effort": "none"}, {"reasoning_effort": "none"}),
    ("effort", {"budget_tokens": 9}, {}),
    ("object", {"effort": "high"}, {"reasoning": {"effort": "high"}}),
    ("object", {"effort": "high", "budget_tokens": 9}, {"reasoning": {"max_tokens": 9}}),
    ("object", {"effort": "none", "budget_tokens": 9}, {"reasoning": {"effort": "none"}}),
    ("vllm", {"effort": "low", "budget_tokens": 9}, {"reasoning_effort": "low", "thinking_token_budget": 9}),
    (
        "vllm",
        {"effort": "none"},
        {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}},
    ),
    ("none", {"effort": "low"}, {}),
]


@pytest.mark.parametrize(("style", "config", "fields"), REASONING)
def test_reasoning_is_asked_for_in_the_servers_style(
    style: str, config: dict[str, Any], fields: dict[str, Any]
) -> None:
    options = ChatOptions(reasoning=style)
    request = GenerateRequest(prompt="hi", reasoning=ReasoningConfig(**config))
    payload = encode_request(request, options)
    assert {key: value for key, value in payload.items() if key != "messages"} == fields
    assert encode_request(decode_request(payload, options), options) == payload


def test_a_schema_goes_out_as_it_is() -> None:
    wish = StructuredOutput(json_schema={"type": "object"}, name="my answer!", strict=False)
    inner = {"name": "my_answer_", "schema": {"type": "object"}, "strict": False}
    assert sent(structured_output=wish) == {"response_format": {"type": "json_schema", "json_schema": inner}}
    assert sent(ChatOptions(schema="json_object"), structured_output=wish) == {
        "response_format": {"type": "json_object"}
    }
    assert sent(ChatOptions(schema="none"), structured_output=wish) == {}
    assert sent(response_format={"type": "json_object"}) == {"response_format": {"type": "json_object"}}
    assert sent(response_format={"type": "text"}, structured_output=wish)["response_format"]["type"] == "json_schema"


def test_extra_keys_win_over_everything() -> None:
    options = ChatOptions(body={"top_k": 1, "seed": 2})
    assert sent(options, extra={"seed": 3, "provider": {"order": ["x"]}}, temperature=0.5) == {
        "top_k": 1,
        "seed": 3,
        "temperature": 0.5,
        "provider": {"order": ["x"]},
    }


def test_cache_marks_go_only_where_they_are_known() -> None:
    marked = Message("user", [TextPart(text="a", cache=True), TextPart(text="b")])
    assert turn(marked)["content"] == "ab"
    assert turn(marked, cache_control=True)["content"] == [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b"},
    ]
    assert sent(prompt_cache="1h") == {}
    assert sent(ChatOptions(cache_control=True), prompt_cache="1h")["cache_control"]["ttl"] == "1h"


def test_images_go_by_address_and_by_data() -> None:
    parts = [ImagePart(url="https://x/y.png", detail="low"), ImagePart(data="aGk=", media_type="image/png")]
    assert turn(Message("user", parts))["content"] == [
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]


def test_reasoning_goes_back_only_to_its_vendor_and_under_its_key() -> None:
    block = {"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}
    mine = ReasoningPart(text="hm", vendor="openrouter", data=block)
    other = ReasoningPart(text="ho", vendor="anthropic", signature="x")
    answer = Message("assistant", [mine, other, TextPart(text="yes")])
    assert turn(answer) == {"role": "assistant", "content": "yes"}
    assert turn(answer, vendor="openrouter") == {"role": "assistant", "content": "yes"}
    echoed = turn(answer, vendor="openrouter", echo="reasoning_details")
    assert echoed == {"role": "assistant", "content": "yes", "reasoning_details": [block]}
    assert turn(answer, vendor="openrouter", echo="reasoning_content")["reasoning_content"] == "hm"


def test_images_that_tools_return_follow_in_a_users_turn() -> None:
    shot = ImagePart(data="AAAA", media_type="image/png")
    calls = [ToolCall(id=name, name="look") for name in ("a", "b", "c")]
    turns = [
        Message("user", "Look."),
        Message("assistant", tool_calls=calls),
        Message("tool", ["Two:", shot, shot], tool_call_id="a"),
        Message("tool", "None.", tool_call_id="b"),
        Message("tool", [shot], tool_call_id="c"),
    ]
    encoded = encode_request(GenerateRequest(messages=[*turns, Message("user", "And?")]))["messages"]
    assert [(turn["role"], turn["content"]) for turn in encoded[2:5]] == [
        ("tool", "Two:"),
        ("tool", "None."),
        ("tool", ""),
    ]
    assert [part["type"] for part in encoded[5]["content"]] == ["text", "image_url", "image_url", "text", "image_url"]
    assert [part["text"] for part in encoded[5]["content"] if part["type"] == "text"] == [
        "Returned by the tool's call a:",
        "Returned by the tool's call c:",
    ]
    assert [turn["role"] for turn in encoded[5:]] == ["user", "user"]
    assert encode_request(GenerateRequest(messages=turns))["messages"][-1] == encoded[5]


def test_a_tools_turn_needs_the_id_of_its_call() -> None:
    assert turn(Message("tool", "18C", tool_call_id="c", name="weather")) == {
        "role": "tool",
        "content": "18C",
        "tool_call_id": "c",
    }
    with pytest.raises(InvalidOption, match="tool_call_id"):
        turn(Message("tool", "18C"))


def test_a_call_is_sent_back_with_the_vendors_own_keys() -> None:
    call = ToolCall(id="c", name="f", extra={"extra_content": {"sig": 1}, "other": 2})
    message = turn(Message("assistant", tool_calls=[call]), tool_call_keys=["extra_content"])
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"extra_content": {"sig": 1}, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert "extra_content" not in turn(Message("assistant", tool_calls=[call]))["tool_calls"][0]


def test_a_reply_can_be_sent_back_as_a_turn() -> None:
    options = ChatOptions(vendor="openrouter", echo="reasoning_details")
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0},
        {"type": "reasoning.encrypted", "data": "xyz", "index": 1},
    ]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"content": None, "reasoning": "hm", "reasoning_details": details, "tool_calls": [call]}
    response = decode_response({"choices": [{"message": message, "finish_reason": "tool_calls"}]}, options)
    again = encode_request(GenerateRequest(messages=[response.to_message()]), options)["messages"][0]
    assert again == {"role": "assistant", "content": None, "reasoning_details": details, "tool_calls": [call]}


def test_thoughts_that_are_parts_of_the_content_come_back_through_the_mirror() -> None:
    options = ChatOptions(vendor="mistral", echo="content")
    blocks = [{"type": "thinking", "thinking": [{"type": "text", "text": text}], "closed": True} for text in "ab"]
    parts = [ReasoningPart(text=text, vendor="mistral", data=block) for text, block in zip("ab", blocks, strict=True)]
    answer = GenerateResponse(
        text="42", reasoning="ab", reasoning_parts=parts, finish_reason="stop", model="m", request_id="r"
    )
    again = decode_response(encode_response(answer), options)
    assert attrs.evolve(again, raw=None) == answer
    streamed = stream(*encode_chunks(answer), options=options)
    assert (streamed.text, streamed.reasoning, streamed.to_message().text) == ("42", "ab", "42")
    payload = encode_request(GenerateRequest(messages=[answer.to_message()]), options)
    assert payload["messages"][0]["content"] == [*blocks, {"type": "text", "text": "42"}]
    assert encode_request(decode_request(payload, options), options) == payload
    unsigned = Message("assistant", [ReasoningPart(text="hm", vendor="mistral", signature="s")])
    block = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s"}
    assert encode_request(GenerateRequest(messages=[unsigned]), options)["messages"][0]["content"] == [block]


# What comes back whole


def whole(
    message: Any, finish: str | None = "stop", options: ChatOptions | None = None, **top: Any
) -> GenerateResponse:
    reply = {"choices": [{"message": message, "finish_reason": finish}], **top}
    return decode_response(reply, options or ChatOptions())


def test_empty_text_and_no_text_differ() -> None:
    assert whole({"content": ""}).text == ""
    assert whole({"content": None}).text is None
    assert whole({}).text is None
    assert whole(None, "content_filter").finish_reason is FinishReason.CONTENT_FILTER


def test_a_refusal_is_a_filtered_answer() -> None:
    refused = whole({"content": None, "refusal": "I will not."})
    assert (refused.refusal, refused.text) == ("I will not.", None)
    assert (refused.finish_reason, refused.raw_finish_reason) == (FinishReason.CONTENT_FILTER, "stop")
    parts = whole({"content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}, {"type": "new"}]})
    assert (parts.text, parts.refusal) == ("a", "no")


def test_an_unknown_finish_reason_stays_raw_only() -> None:
    answer = whole({"content": "x"}, "repetition")
    assert (answer.finish_reason, answer.raw_finish_reason) == (None, "repetition")
    assert whole({"content": "x"}, None).raw_finish_reason is None
    assert whole({"content": "x"}, "").raw_finish_reason is None


def test_reasoning_is_read_under_both_names() -> None:
    assert whole({"content": "x", "reasoning": "a"}).reasoning == "a"
    assert whole({"content": "x", "reasoning_content": "b"}).reasoning == "b"
    answer = whole(
        {"content": "x", "reasoning_content": "b"}, options=ChatOptions(echo="reasoning_content", vendor="v")
    )
    assert answer.reasoning_parts == (ReasoningPart(text="b", vendor="v"),)


def test_think_tags_are_split_from_the_text_if_the_profile_says_so() -> None:
    text = "<think>hm</think>\nyes"
    assert whole({"content": text}).text == text
    answer = whole({"content": text}, options=ChatOptions(think_tags=True))
    assert (answer.text, answer.reasoning) == ("yes", "hm")
    cut = whole({"content": "<think>hm"}, "length", ChatOptions(think_tags=True))
    assert (cut.text, cut.reasoning) == (None, "hm")


def test_calls_in_odd_shapes_are_read() -> None:
    calls = [
        {"function": {"name": "a", "arguments": None}},
        {"id": 7, "function": {"name": "b", "arguments": {"x": 1}}, "extra_content": {"s": 1}},
    ]
    assert whole({"tool_calls": calls}, "tool_calls").tool_calls == (
        ToolCall(id="call_0", name="a"),
        ToolCall(id="7", name="b", arguments='{"x": 1}', extra={"extra_content": {"s": 1}}),
    )
    legacy = whole({"function_call": {"name": "f", "arguments": "{}"}}, "function_call")
    assert legacy.tool_calls == (ToolCall(id="call_0", name="f", arguments="{}"),)
    assert legacy.finish_reason is FinishReason.TOOL_CALLS


def test_tokens_and_cost_are_the_vendors_or_unknown() -> None:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
        "cost": 0.25,
    }
    answer = whole({"content": "x"}, usage=usage)
    assert answer.usage == Usage(
        input_tokens=10, output_tokens=5, cached_tokens=4, cache_write_tokens=2, reasoning_tokens=3
    )
    assert answer.cost == Cost(usd=0.25, source="reported", complete=True)
    for nothing in (None, {}, [], {"prompt_tokens": "many", "cost": "cheap"}):
        assert whole({"content": "x"}, usage=nothing).usage is None
        assert whole({"content": "x"}, usage=nothing).cost is None
    deepseek = whole({"content": "x"}, usage={"prompt_tokens": 9, "prompt_cache_hit_tokens": 8})
    assert deepseek.usage == Usage(input_tokens=9, cached_tokens=8)
    byok = {"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}
    assert whole({"content": "x"}, usage=byok).cost == Cost(usd=0.75, source="reported", complete=True)


MALFORMED: list[tuple[Any, str]] = [
    (None, "$"),
    ("", "$"),
    ([], "$"),
    (7, "$"),
    ({}, "$.choices"),
    ({"choices": None}, "$.choices"),
    ({"choices": []}, "$.choices"),
    ({"choices": {}}, "$.choices"),
    ({"choices": [None]}, "$.choices[0]"),
    ({"choices": [{}]}, "$.choices[0].message"),
    ({"choices": [{"message": "hi"}]}, "$.choices[0].message"),
    ({"choices": [{"message": {"content": 12345}}]}, "$.choices[0].message.content"),
    ({"choices": [{"message": {"content": ["a"]}}]}, "$.choices[0].message.content[0]"),
    ({"choices": [{"message": {"tool_calls": {}}}]}, "$.choices[0].message.tool_calls"),
    ({"choices": [{"message": {"tool_calls": [{"id": "x"}]}}]}, "$.choices[0].message.tool_calls[0].function"),
    (
        {"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": 7}}]}}]},
        "$.choices[0].message.tool_calls[0].function.arguments",
    ),
]


@pytest.mark.parametrize(("reply", "path"), MALFORMED)
def test_a_broken_reply_names_the_path(reply: Any, path: str) -> None:
    with pytest.raises(MalformedReply) as caught:
        decode_response(reply)
    assert caught.value.path == path


# What streams


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def stop(word: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": word}]}


def stream(*payloads: Any, options: ChatOptions | None = None, end: bytes = DONE) -> GenerateResponse:
    decoder = ChatStream(options or ChatOptions())
    chunks = [chunk for payload in payloads for chunk in decoder.feed(frame(payload))]
    chunks += decoder.feed(end)
    return join([*chunks, *decoder.finish()])


def test_text_comes_in_pieces() -> None:
    decoder = ChunkDecoder()
    first = decoder.feed(SseEvent(dumps({"id": "r", "model": "m", **delta(role="assistant", content="")}).decode()))
    assert isinstance(first, GenerateChunk)
    assert (first.text, first.model, first.request_id) == ("", "m", "r")
    second = decoder.feed(SseEvent(dumps({"id": "r", "model": "m", **delta(content="a")}).decode()))
    assert second == "a"  # nothing but text: no piece is made of it alone
    assert decoder.feed(SseEvent(dumps(delta()).decode())) is None
    assert not decoder.finished
    assert decoder.feed(SseEvent(dumps(stop()).decode())) is not None
    assert decoder.finished
    assert not decoder.done
    assert decoder.feed(SseEvent("[DONE]")) is None
    assert decoder.done
    assert decoder.finish() == []
    assert decoder.partial == "a"


def test_the_end_needs_a_finish_reason_or_done() -> None:
    assert stream(delta(content="a"), stop(), end=b"").text == "a"
    assert stream(delta(content="a")).finish_reason is None
    with pytest.raises(TruncatedReply) as caught:
        stream(delta(content="a"), delta(content="b"), end=b"")
    assert caught.value.partial == "ab"
    with pytest.raises(TruncatedReply):
        stream(end=b"")
    careless = ChatOptions(finish_required=False)
    assert stream(delta(content="a"), options=careless, end=b"").text == "a"
    with pytest.raises(TruncatedReply):
        stream(options=careless, end=b"")


def test_a_half_event_at_the_end_is_a_cut() -> None:
    with pytest.raises(TruncatedReply) as caught:
        stream(delta(content="a"), end=b'data: {"choices": [{"del')
    assert caught.value.partial == "a"
    assert stream(delta(content="a"), end=frame(stop()).rstrip()).text == "a"


def test_an_event_that_is_not_json_is_never_skipped() -> None:
    for event in (b"data: oops\n\n", b"data: 7\n\n", b'data: {"choices": [7]}\n\n', b'data: {"choices": 7}\n\n'):
        with pytest.raises(MalformedReply) as caught:
            stream(delta(content="a"), end=event)
        assert caught.value.partial == "a"


def test_an_error_in_the_middle_keeps_the_text() -> None:
    for event in (
        {"error": {"code": 429, "message": "x"}},
        {"error": {"code": 429, "message": "x"}, **stop("error")},
        {"choices": [{"delta": {}, "finish_reason": "error", "error": {"code": 429, "message": "x"}}]},
    ):
        with pytest.raises(RateLimited) as caught:
            stream({"id": "r", **delta(content="a")}, event)
        assert (caught.value.partial, caught.value.request_id, caught.value.retryable) == ("a", "r", True)
    with pytest.raises(ServerFailed):
        stream(delta(content="a"), stop("error"))


def test_pieces_of_calls_find_their_call() -> None:
    def call(index: int | None, own_id: str | None, name: str | None, arguments: str | None) -> dict[str, Any]:
        piece: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
        if index is not None:
            piece["index"] = index
        if own_id is not None:
            piece["id"] = own_id
        return delta(tool_calls=[piece])

    expected = (ToolCall(id="a", name="f", arguments='{"x":1}'), ToolCall(id="b", name="g", arguments="{}"))
    usual = [call(0, "a", "f", ""), call(0, None, None, '{"x"'), call(1, "b", "g", "{}"), call(0, None, None, ":1}")]
    assert stream(*usual, stop("tool_calls")).tool_calls == expected
    repeating = [call(0, "a", "f", '{"x"'), call(0, "a", "f", ":1}"), call(1, "b", "g", "{}"), call(1, "b", "g", None)]
    assert stream(*repeating, stop("tool_calls")).tool_calls == expected
    from_one = [call(1, "a", "f", '{"x":1}'), call(2, "b", "g", "{}")]
    assert stream(*from_one, stop("tool_calls")).tool_calls == expected
    all_zero = [call(0, "a", "f", '{"x":1}'), call(0, "b", "g", "{}")]
    assert stream(*all_zero, stop("tool_calls")).tool_calls == expected
    unnumbered = [call(None, "a", "f", '{"x"'), call(None, None, None, ":1}"), call(None, "b", "g", "{}")]
    assert stream(*unnumbered, stop("tool_calls")).tool_calls == expected
    no_ids = [call(0, None, "f", '{"x":1}'), call(1, None, "g", "{}")]
    assert [c.id for c in stream(*no_ids, stop("tool_calls")).tool_calls] == ["call_0", "call_1"]
    with pytest.raises(MalformedReply, match="has no name"):
        stream(call(0, "a", None, "{}"), stop("tool_calls"))
    legacy = [delta(function_call={"name": "f", "arguments": "{"}), delta(function_call={"arguments": "}"})]
    assert stream(*legacy, stop("function_call")).tool_calls == (ToolCall(id="call_0", name="f", arguments="{}"),)


def test_blocks_of_reasoning_are_put_together_again() -> None:
    def block(**fields: Any) -> dict[str, Any]:
        return delta(reasoning=fields.get("text"), reasoning_details=[{"index": 0, "type": "reasoning.text", **fields}])

    answer = stream(
        block(text="", signature="", format="f"),
        block(text="a"),
        block(text="b"),
        block(signature="s"),
        delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "x", "index": 1}, 7]),
        stop(),
        options=ChatOptions(vendor="v"),
    )
    assert answer.reasoning == "ab"
    assert answer.reasoning_parts == (
        ReasoningPart(
            text="ab",
            signature="s",
            vendor="v",
            data={"index": 0, "type": "reasoning.text", "text": "ab", "signature": "s", "format": "f"},
        ),
        ReasoningPart(vendor="v", data={"type": "reasoning.encrypted", "data": "x", "index": 1}),
    )
    echoed = stream(delta(reasoning_content="a"), stop(), options=ChatOptions(echo="reasoning_content"))
    assert echoed.reasoning_parts == (ReasoningPart(text="a", vendor="openai"),)


def test_a_refusal_in_pieces_is_a_filtered_answer() -> None:
    answer = stream(delta(refusal="I "), delta(refusal="will not"), stop())
    assert (answer.refusal, answer.finish_reason) == ("I will not", FinishReason.CONTENT_FILTER)


def test_think_tags_are_split_from_streamed_text() -> None:
    words = ["<thi", "nk>h", "m</", "think>", "\n", "yes", " <think>"]
    answer = stream(*(delta(content=word) for word in words), stop(), options=ChatOptions(think_tags=True))
    assert (answer.text, answer.reasoning) == ("yes <think>", "hm")
    held = stream(delta(content="<th"), stop(), options=ChatOptions(think_tags=True))
    assert held.text == "<th"


def test_odd_events_add_their_readable_parts() -> None:
    answer = stream(
        {"choices": [], "object": "", "model": ""},
        {"model": "m", "provider": "P", **delta(content=[{"type": "text", "text": "a"}])},
        {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
        {"provider": "P", **delta(content="b", annotations=[{"url": "u"}])},
        stop(),
        stop(),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.5}},
        {"unheard": "of"},
    )
    assert (answer.text, answer.model, answer.finish_reason) == ("ab", "m", FinishReason.STOP)
    assert answer.usage == Usage(input_tokens=1, output_tokens=2)
    assert answer.cost == Cost(usd=0.5, source="reported", complete=True)
    assert answer.extra == {"provider": "P", "annotations": [{"url": "u"}]}


def test_a_whole_reply_instead_of_a_stream_is_taken() -> None:
    body = dumps(encode_response(GenerateResponse(text="hi", model="m", finish_reason="stop")))
    decoder = ChatStream()
    assert decoder.feed(b"\xef\xbb\xbf \n") == []
    assert decoder.feed(body[:9]) == []
    assert decoder.feed(body[9:]) == []
    assert join(decoder.finish()).text == "hi"
    for page in (b"<!doctype html><p>sign in</p>", b"<html>"):
        decoder = ChatStream()
        decoder.feed(page)
        with pytest.raises(MalformedReply, match="it begins '<"):
            decoder.finish()
    decoder = ChatStream()
    decoder.feed(dumps({"error": {"code": 503, "message": "x"}}))
    with pytest.raises(ApiError):
        decoder.finish()


def test_the_headers_id_wins_over_the_bodys() -> None:
    reply = {"id": "body", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    assert decode_response(reply).request_id == "body"
    assert decode_response(reply, request_id="header").request_id == "header"
    decoder = ChunkDecoder(request_id="header")
    first = decoder.feed(SseEvent(dumps({"id": "body", **delta(content="x")}).decode()))
    assert first is not None
    assert first.request_id == "header"


def test_fakes_write_streams_in_pieces() -> None:
    events = list(encode_chunks(GenerateResponse(text="abcde", finish_reason="stop"), size=2, usage=False))
    texts = [event["choices"][0]["delta"].get("content") for event in events]
    assert texts == ["", "ab", "cd", "e", None]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
