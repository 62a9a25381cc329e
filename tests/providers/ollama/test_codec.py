"""Ollama's dialect by example: payloads for requests, and responses for replies, streams and errors."""

from typing import Any

import attrs
import pytest

from llm_council._wire.payloads import dumps
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    CapabilityRefused,
    ContextTooLong,
    InvalidOption,
    MalformedReply,
    ModelNotFound,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import (
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
    join,
)
from llm_council.providers._ollama import ChatOptions, ChatStream, decode_error, decode_response, encode_request
from llm_council.testing._mirrors.ollama import decode_request, encode_error, frame

END = {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4, "eval_duration": 7}


def line(**message: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": "", **message}, "done": False}


LAST = {**line(), **END}


def read(*lines: Any, **options: Any) -> GenerateResponse:
    stream = ChatStream(ChatOptions(**options))
    chunks = stream.feed(b"".join(frame(value) for value in lines))
    return join([*chunks, *stream.finish()])


def test_limits_and_sampling_are_sent_in_options() -> None:
    request = GenerateRequest(
        model="m",
        prompt="x",
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        stop=["END"],
        extra={"keep_alive": "5m", "options": {"num_ctx": 8192, "top_p": 0.1}},
    )
    common = ChatOptions(body={"keep_alive": 0, "logprobs": True, "options": {"seed": 1, "num_ctx": 1}})
    assert encode_request(request, common) == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "stream": False,
        "keep_alive": "5m",
        "logprobs": True,
        "options": {"num_predict": 9, "temperature": 0.5, "top_p": 0.1, "stop": ["END"], "num_ctx": 8192, "seed": 1},
    }


def test_the_body_of_every_request_is_not_decoded_as_extra() -> None:
    common = ChatOptions(body={"keep_alive": 0, "options": {"num_ctx": 8192, "temperature": 0.5}})
    request = GenerateRequest(model="m", messages=[Message("user", "x")], max_tokens=9, extra={"options": {"seed": 1}})
    assert decode_request(encode_request(request, common), common) == request
    warmer = attrs.evolve(request, temperature=1.0)
    assert decode_request(encode_request(warmer, common), common) == warmer


def test_stream_is_always_sent() -> None:
    request = GenerateRequest(model="m", prompt="x")
    assert encode_request(request)["stream"] is False
    assert encode_request(request, stream=True)["stream"] is True
    assert decode_request({"messages": [{"role": "user", "content": "x"}]}).stream is True  # the server's default


def test_every_kind_of_turn_is_encoded() -> None:
    call = ToolCall(id="call_9", name="add", arguments={"a": 2})
    turns = [
        Message("developer", "Be terse."),
        Message("user", ["Look:", ImagePart(data="AAAA", media_type="image/jpeg")]),
        Message(
            "assistant",
            [ReasoningPart(text="hm", vendor="ollama"), ReasoningPart(text="not ours", vendor="anthropic")],
            tool_calls=[call, ToolCall(id="call_10", name="stop", arguments="  ")],
        ),
        Message("tool", "5", tool_call_id="call_9"),
        Message("tool", "ok", tool_call_id="unknown"),
        Message("tool", "ok", name="said"),
    ]
    assert encode_request(GenerateRequest(messages=turns))["messages"] == [
        {"role": "system", "content": "Be terse."},
        {"role": "user", "content": "Look:", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [
                {"function": {"name": "add", "arguments": {"a": 2}}},
                {"function": {"name": "stop", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "5", "tool_name": "add"},
        {"role": "tool", "content": "ok"},
        {"role": "tool", "content": "ok", "tool_name": "said"},
    ]


@pytest.mark.parametrize("arguments", ["{", "[1]", '"x"', '{"a": NaN}'])
def test_arguments_that_are_not_an_object_stand_in_one(arguments: str) -> None:
    call = ToolCall(id="c", name="add", arguments=arguments)
    request = GenerateRequest(messages=[Message("assistant", "", tool_calls=[call])])
    (sent,) = encode_request(request)["messages"][0]["tool_calls"]
    assert sent["function"] == {"name": "add", "arguments": {"arguments": arguments}}


def test_an_image_url_raises_invalid_option() -> None:
    request = GenerateRequest(messages=[Message("user", [ImagePart(url="https://example.com/a.png")])])
    with pytest.raises(InvalidOption, match="as data only"):
        encode_request(request)


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"structured_output": StructuredOutput(json_schema=SCHEMA)}, SCHEMA),
        ({"response_format": {"type": "json_object"}}, "json"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}, SCHEMA),
        ({"response_format": {"type": "text"}}, None),
        ({}, None),
    ],
)
def test_schemas_and_response_formats_become_the_format_field(asked: dict[str, Any], sent: Any) -> None:
    assert encode_request(GenerateRequest(prompt="x", **asked)).get("format") == sent


@pytest.mark.parametrize("wanted", [{"type": "grammar"}, {"type": "json_schema"}, {}])
def test_an_unsupported_response_format_raises_invalid_option(wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="response_format"):
        encode_request(GenerateRequest(prompt="x", response_format=wanted))


@pytest.mark.parametrize(
    ("effort", "switch", "level"),
    [
        ("none", False, False),
        ("minimal", True, "low"),
        ("low", True, "low"),
        ("medium", True, "medium"),
        ("high", True, "high"),
        ("xhigh", True, "high"),
        ("max", True, "max"),
    ],
)
def test_reasoning_becomes_a_boolean_or_a_level(effort: str, switch: bool, level: str | bool) -> None:
    request = GenerateRequest(prompt="x", reasoning=ReasoningConfig(effort=effort))
    assert encode_request(request)["think"] is switch
    assert encode_request(request, ChatOptions(think_levels=True))["think"] == level
    assert "think" not in encode_request(GenerateRequest(prompt="x", reasoning=ReasoningConfig(budget_tokens=5)))


def test_tools_are_sent_and_tool_choice_is_not() -> None:
    request = GenerateRequest(prompt="x", tools=[Tool(name="f", description="d", strict=True)], tool_choice="required")
    payload = encode_request(request)
    assert payload["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": Tool(name="f").parameters}}
    ]
    assert "tool_choice" not in payload


def test_a_whole_reply() -> None:
    reply = {**line(content="42", thinking="six times seven"), **END}
    response = decode_response(reply, request_id="r")
    assert (response.text, response.reasoning, response.model) == ("42", "six times seven", "m")
    assert response.to_message().content == (
        ReasoningPart(text="six times seven", vendor="ollama"),
        TextPart(text="42"),
    )
    assert (response.finish_reason, response.request_id, response.raw) == (FinishReason.STOP, "r", reply)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 4)
    assert response.extra == {"eval_duration": 7}


@pytest.mark.parametrize(
    ("word", "finish"), [("stop", "stop"), ("length", "length"), ("load", None), ("new", None), (None, None)]
)
def test_finish_reasons(word: str | None, finish: str | None) -> None:
    response = decode_response({**LAST, "done_reason": word})
    assert (response.finish_reason, response.raw_finish_reason) == (finish, word)
    called = decode_response({**LAST, **line(tool_calls=[{"function": {"name": "f"}}]), "done_reason": word})
    assert called.finish_reason == ("length" if word == "length" else "tool_calls")


def test_usage_without_the_count_of_a_cached_prompt() -> None:
    usage = decode_response({"message": {"content": "x"}, "eval_count": 4}).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (None, 4)
    assert decode_response({"message": {"content": "x"}}).usage is None


def test_tool_calls_on_an_earlier_line_get_generated_ids() -> None:
    def calls(*names: str, **more: Any) -> dict[str, Any]:
        return line(tool_calls=[{"function": {"name": name, "arguments": {"n": name}}, **more} for name in names])

    response = read(calls("a", "b"), calls("c", id="own"), LAST)
    assert [(call.id, call.name, call.parse()) for call in response.tool_calls] == [
        ("call_0", "a", {"n": "a"}),
        ("call_1", "b", {"n": "b"}),
        ("own", "c", {"n": "c"}),
    ]
    assert (response.finish_reason, response.raw_finish_reason) == (FinishReason.TOOL_CALLS, "stop")


def test_thoughts_between_think_tags_are_separated_from_the_text() -> None:
    pieces = [line(content=text) for text in ("<thi", "nk>hm</th", "ink>\n\n4", "2")]
    response = read(*pieces, LAST, think_tags=True)
    assert (response.text, response.reasoning) == ("42", "hm")
    whole = decode_response({**LAST, **line(content="<think>hm</think>\n\n42")}, ChatOptions(think_tags=True))
    assert (whole.text, whole.reasoning, whole.reasoning_parts) == ("42", "hm", response.reasoning_parts)
    unfinished = read(line(content="<think>hm</th"), LAST, think_tags=True)
    assert (unfinished.text, unfinished.reasoning) == (None, "hm</th")
    assert read(*pieces, LAST).text == "<think>hm</think>\n\n42"


def test_lines_after_the_last_object_are_ignored() -> None:
    stream = ChatStream()
    stream.feed(frame(line(content="a")) + frame(LAST))
    assert (stream.done, stream.finished, stream.partial) == (True, True, "a")
    assert stream.feed(frame(line(content="b")) + b"not json\n") == []
    assert stream.finish() == []


def test_an_error_in_a_stream_has_the_partial_text() -> None:
    with pytest.raises(ServerFailed, match="unexpected EOF") as caught:
        read(line(content="Hel"), line(content="lo"), encode_error("unexpected EOF"))
    assert (caught.value.partial, caught.value.retryable) == ("Hello", True)


@pytest.mark.parametrize("rest", [b"", b'{"model":"m","mess', frame(line(content="b")).rstrip()])
def test_a_stream_that_ends_early_is_truncated(rest: bytes) -> None:
    stream = ChatStream()
    stream.feed(frame(line(content="a")) + rest)
    with pytest.raises(TruncatedReply) as caught:
        stream.finish()
    assert caught.value.partial in ("a", "ab")


def test_a_web_page_is_malformed() -> None:
    with pytest.raises(MalformedReply, match="not JSON"):
        ChatStream().feed(b"<html>\n<body>")


@pytest.mark.parametrize(
    ("status", "message", "cls"),
    [
        (400, "registry.ollama.ai/library/gemma:latest does not support tools", CapabilityRefused),
        (400, "the input length exceeds the context length", ContextTooLong),
        (401, "unauthorized", AuthenticationFailed),
        (404, "model 'x' not found", ModelNotFound),
        (404, 'model "x" not found, try pulling it first', ModelNotFound),
        (404, "page not found", RequestRejected),
        (500, "the model failed to generate a response", ServerFailed),
        (503, "server busy, please try again.  maximum pending requests exceeded", ServerFailed),
    ],
)
def test_errors_are_classified_by_status_and_message(status: int, message: str, cls: type[ApiError]) -> None:
    error = decode_error(status, {}, dumps(encode_error(message)))
    assert type(error) is cls
    assert message in error.message
    assert error.retryable is (status >= 500)
