"""What vendors and gateways say beyond the recorded samples: whole, and cut anywhere.

Each case is taken from a vendor's reference or from a public report of what it sends.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_council._wire import openai_chat, responses
from llm_council._wire.payloads import dumps
from llm_council.errors import (
    ApiError,
    AuthenticationFailed,
    CapabilityRefused,
    ContentFiltered,
    ContextTooLong,
    MalformedReply,
    ModelNotFound,
    OutOfCredit,
    PermissionRefused,
    ProviderError,
    RateLimited,
    RequestRejected,
    RequestTooLarge,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import FinishReason, GenerateChunk, GenerateRequest, GenerateResponse, Message, ToolCall, join
from llm_council.providers import _google, _ollama
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.openai import OpenAIProvider
from llm_council.providers.openrouter import OpenRouterProvider
from llm_council.providers.registry import get_class
from llm_council.providers.vllm import VLLMProvider
from llm_council.testing._mirrors.openai_chat import decode_request

READERS: dict[str, Callable[[], Any]] = {
    "chat": openai_chat.ChatStream,
    "responses": responses.ResponseStream,
    "gemini": _google.GeminiStream,
    "ollama": _ollama.ChatStream,
}


def read(dialect: str, pieces: list[bytes]) -> tuple[GenerateResponse, Any]:
    """Return what the pieces of a body say, and the fault that ended them: its class, code and what it keeps."""
    reader, chunks, fault = READERS[dialect](), [], None
    try:
        for piece in pieces:
            chunks += reader.feed(piece)
        chunks += reader.finish()
    except ProviderError as error:
        fault = (type(error), getattr(error, "status", None), error.partial)
    return join(chunks), fault


def events(*values: Any) -> bytes:
    """Write events; bytes stand for themselves."""
    return b"".join(
        value
        if isinstance(value, bytes)
        else b"data: " + (value.encode() if isinstance(value, str) else dumps(value)) + b"\n\n"
        for value in values
    )


def lines(*values: Any) -> bytes:
    return b"".join(dumps(value) + b"\n" for value in values)


def everywhere(dialect: str, body: bytes) -> tuple[GenerateResponse, Any]:
    """Read a body whole, byte by byte, and in every two pieces: always the same."""
    found = read(dialect, [body])
    assert read(dialect, [body[at : at + 1] for at in range(len(body))]) == found
    for cut in range(1, len(body), max(1, len(body) // 40)):  # every byte of it is cut above
        assert read(dialect, [body[:cut], body[cut:]]) == found
    return found


def delta(finish: str | None = None, **said: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": said, "finish_reason": finish}]}


def piece(index: int | None = None, name: str | None = None, said: str | None = None, **more: Any) -> dict[str, Any]:
    placed = {} if index is None else {"index": index}
    return {**placed, "type": "function", "function": {"name": name, "arguments": said}, **more}


CALLED = [("f", "{}"), ("g", '{"x":1}')]
CALLS: dict[str, list[dict[str, Any]]] = {
    "numbered": [
        delta(tool_calls=[piece(0, "f", "{}", id="a"), piece(1, "g", "", id="b")]),
        delta(tool_calls=[piece(1, None, '{"x":1}')]),
    ],
    "neither numbered nor named by ids": [delta(tool_calls=[piece(None, "f", "{}"), piece(None, "g", '{"x":1}')])],
    "all zero, with empty ids": [
        delta(tool_calls=[piece(0, "f", "{}", id="")]),
        delta(tool_calls=[piece(0, "g", '{"x"', id="")]),
        delta(tool_calls=[piece(0, None, ":1}", id="")]),
    ],
    "names repeated without ids": [
        delta(tool_calls=[piece(0, "f", "{"), piece(1, "g", "")]),
        delta(tool_calls=[piece(0, "f", "}")]),
        delta(tool_calls=[piece(1, "g", '{"x":')]),
        delta(tool_calls=[piece(1, "g", "1}")]),
        delta(tool_calls=[piece(0, "f", "")]),
    ],
    "found by ids alone": [
        delta(tool_calls=[piece(None, "f", "", id="a"), piece(None, "g", "", id="b")]),
        delta(tool_calls=[piece(None, None, "{}", id="a")]),
        delta(tool_calls=[piece(None, None, '{"x":1}', id="b")]),
    ],
    "in one event with the end": [delta(tool_calls=[piece(1, "f", "{}", id="a"), piece(2, "g", '{"x":1}', id="b")])],
    "beside a search of the server's own": [
        delta(
            content="",
            tool_calls=[
                {"index": 0, "id": "s", "type": "web_search", "web_search": {"query": "q"}},
                piece(1, "f", "{}", id="a"),
            ],
        ),
        delta(tool_calls=[{"index": 0, "web_search": {"results": []}, "type": "web_search"}]),
        delta(tool_calls=[piece(2, "g", '{"x":1}', id="b")]),
    ],
}


@pytest.mark.parametrize("case", CALLS)
def test_pieces_of_calls_are_put_together(case: str) -> None:
    response, fault = everywhere("chat", events(*CALLS[case], delta("tool_calls"), "[DONE]"))
    assert fault is None
    assert [(call.name, call.arguments) for call in response.tool_calls] == CALLED
    assert len({call.id for call in response.tool_calls}) == 2
    assert response.finish_reason is FinishReason.TOOL_CALLS


def test_a_call_with_free_text_is_read_and_goes_back_as_it_came() -> None:
    first = {"id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    body = events(
        delta(tool_calls=[{"index": 0, **first}]),
        delta(tool_calls=[{"index": 0, "custom": {"input": " -l"}}]),
        delta("tool_calls"),
        "[DONE]",
    )
    streamed, fault = everywhere("chat", body)
    whole = {"id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls -l"}}
    answer = openai_chat.decode_response(
        {"choices": [{"message": {"tool_calls": [whole]}, "finish_reason": "tool_calls"}]}
    )
    expected = (ToolCall(id="c1", name="shell", arguments="ls -l", extra={"type": "custom"}),)
    assert (streamed.tool_calls, answer.tool_calls, fault) == (expected, expected, None)
    again = openai_chat.encode_request(GenerateRequest(messages=[Message("user", "x"), answer.to_message()]))
    assert again["messages"][1]["tool_calls"] == [whole]
    assert decode_request(again).messages[1].tool_calls == expected


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ('{"a": 1,}', '{"a": 1}'),
        ("[1]", '{"arguments": "[1]"}'),
        ("not json", '{"arguments": "not json"}'),
    ],
)
def test_arguments_of_earlier_calls_are_objects_for_servers_that_read_them(written: str, sent: str) -> None:
    call = ToolCall(id="c", name="f", arguments=written)
    request = GenerateRequest(messages=[Message("assistant", "", tool_calls=[call])])
    for provider in (VLLMProvider, OpenRouterProvider, OpenAICompatibleProvider, get_class("groq")):
        (turn,) = openai_chat.encode_request(request, vars(provider)["CHAT"])["messages"]
        assert turn["tool_calls"][0]["function"]["arguments"] == sent
    for own in (OpenAIProvider, get_class("azure-openai")):  # where they go back as they came
        (turn,) = openai_chat.encode_request(request, vars(own)["CHAT"])["messages"]
        assert turn["tool_calls"][0]["function"]["arguments"] == (written or "{}")


def test_calls_of_the_servers_own_tools_are_left_out() -> None:
    search = {"id": "s", "type": "web_search", "web_search": {"query": "q"}}
    choice = {"message": {"content": "It is so.", "tool_calls": [search]}, "finish_reason": "stop"}
    answer = openai_chat.decode_response({"choices": [choice]})
    assert (answer.text, answer.tool_calls) == ("It is so.", ())


def test_thoughts_that_are_parts_of_the_content_are_reasoning() -> None:
    """Mistral's reasoning models (docs.mistral.ai, "Reasoning")."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}], "closed": True}
    parts = [thinking, {"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "42"}]
    answer = openai_chat.decode_response({"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]})
    body = events(delta(content=""), delta(content=[thinking]), delta(content="4"), delta(content="2"), delta("stop"))
    streamed, fault = everywhere("chat", body)
    for found in (answer, streamed):
        assert (found.text, found.reasoning, found.finish_reason, fault) == ("42", "Let me see.", "stop", None)


USAGES: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    # xAI counts reasoning beside the completion, and bills in ticks (docs.x.ai, "Consumption and Rate Limits").
    (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "cost_in_usd_ticks": 232856000,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        (32, 103, None, 94, 0.0232856),
    ),
    (
        {
            "prompt_tokens": 32,
            "completion_tokens": 99,
            "total_tokens": 131,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        (32, 99, None, 94, None),
    ),
    ({"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, "cached_tokens": 4}, (5, 6, 4, None, None)),
    ({"prompt_tokens": 5.0, "completion_tokens": None, "prompt_tokens_details": None}, (5, None, None, None, None)),
    (
        {"prompt_tokens": 5, "completion_tokens": True, "prompt_tokens_details": [1], "cost": "1"},
        (5, None, None, None, None),
    ),
]


@pytest.mark.parametrize(("usage", "expected"), USAGES)
def test_odd_usage_gives_its_readable_counts(usage: dict[str, Any], expected: tuple[Any, ...]) -> None:
    answer = openai_chat.decode_response(
        {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    )
    streamed, fault = everywhere("chat", events(delta("stop", content="x"), {"choices": [], "usage": usage}, "[DONE]"))
    assert fault is None
    for found in (answer, streamed):
        counted = found.usage
        assert counted is not None
        usd = None if found.cost is None else found.cost.usd
        assert (
            counted.input_tokens,
            counted.output_tokens,
            counted.cached_tokens,
            counted.reasoning_tokens,
            usd,
        ) == expected


def test_groqs_streams_may_count_and_fail_in_a_place_of_their_own() -> None:
    counted = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    answer, fault = everywhere(
        "chat", events(delta(content="x"), delta("stop") | {"x_groq": {"usage": counted}}, "[DONE]")
    )
    assert (answer.usage.total_tokens if answer.usage else None, fault) == (3, None)
    answer, fault = everywhere(
        "chat", events(delta(content="x"), {"choices": [], "x_groq": {"error": "over capacity"}})
    )
    assert (answer.text, fault) == ("x", (ServerFailed, 500, "x"))
    wrong = {"error": {"message": "Failed to call a function.", "code": "tool_use_failed", "failed_generation": "<f>"}}
    answer, fault = everywhere("chat", events(delta(content="x"), {"choices": [], "x_groq": wrong}))
    assert fault == (MalformedReply, None, "x")


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("model_length", "length"),  # Mistral
        ("eos_token", "stop"),  # Hugging Face's text-generation-inference
        ("insufficient_system_resource", "error"),  # DeepSeek
        ("abort", "error"),  # vLLM
        ("repetition", None),  # vLLM; unknown words never raise
        (7, None),
    ],
)
def test_finish_reasons_of_gateways_have_one_meaning(word: Any, meaning: str | None) -> None:
    choice = {"message": {"content": "x"}, "finish_reason": word}
    assert openai_chat.decode_response({"choices": [choice]}).finish_reason == meaning


def test_words_about_the_server_are_no_error() -> None:
    waiting = [{"type": "ping"}, {"status": "queued", "message": "A worker is waking up."}, {"code": 0, "msg": "ok"}]
    answer, fault = everywhere("chat", events(*waiting, delta(content="x"), *waiting, delta("stop"), "[DONE]"))
    assert (answer.text, fault) == ("x", None)


def test_a_whole_message_in_a_stream_does_not_repeat_the_text() -> None:
    last = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "It is so."}, "finish_reason": "stop"}]
    }
    assert everywhere("chat", events(last, "[DONE]"))[0].text == "It is so."
    assert everywhere("chat", events(delta(content="It "), last, "[DONE]"))[0].text == "It is so."


# What is no answer.

BEFORE = delta(content="Hel")
BROKEN: dict[str, tuple[bytes, type[ProviderError], int | None]] = {
    "named event": (b'event: error\ndata: {"message":"slow down","code":"rate_limit_exceeded"}\n\n', RateLimited, 429),
    "named event, nested": (
        b'event: error\ndata: {"error":{"message":"x","type":"server_error"}}\n\n',
        ServerFailed,
        500,
    ),
    "named event, a string": (
        b'event: error\ndata: {"error":"overloaded","error_type":"overloaded_error"}\n\n',
        ServerFailed,
        500,
    ),
    "envelope without a name": (events({"message": "quota", "code": 429}), RateLimited, 429),
    "code in a string": (events({"error": {"message": "x", "code": "503"}}), ServerFailed, 503),
    "plain JSON": (b'{"error":{"message":"x","code":429}}', RateLimited, 429),
    "plain JSON on many lines": (
        json.dumps({"error": {"message": "data: x", "code": 400}}, indent=1).encode() + b"\n",
        RequestRejected,
        400,
    ),
    "in the choice": (
        events({"choices": [{"index": 0, "delta": {}, "error": {"code": 502, "message": "up"}}]}),
        ServerFailed,
        502,
    ),
    "by the finish reason": (events(delta("error", content="")), ServerFailed, 500),
    "error, then the end mark": (
        events({"error": {"message": "x", "type": "BadRequestError", "code": 400}}, "[DONE]"),
        RequestRejected,
        400,
    ),
    "cut": (b"data: {", TruncatedReply, None),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_error_behind_text_is_typed_and_keeps_the_text(case: str) -> None:
    body, cls, status = BROKEN[case]
    answer, fault = everywhere("chat", events(BEFORE, b": keep-alive\n\n") + body)
    assert (answer.text, fault) == ("Hel", (cls, status, "Hel"))


REFUSALS: list[tuple[int, Any, type[ApiError], bool, str]] = [
    (
        422,
        {
            "object": "error",
            "message": {"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}]},
            "type": "invalid_request_error",
        },
        RequestRejected,
        False,
        "body.top_k: Extra inputs",
    ),
    (
        400,
        {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"},
        ModelNotFound,
        False,
        "Invalid",
    ),
    (
        413,
        {
            "error": {
                "message": "Request too large for model `x` on tokens per minute: Limit 6000",
                "type": "tokens",
                "code": "rate_limit_exceeded",
            }
        },
        RequestTooLarge,
        False,
        "Limit 6000",
    ),
    (
        413,
        {"error": {"code": "tokens_limit_reached", "message": "Request body too large for gpt-4o model."}},
        ContextTooLong,
        False,
        "gpt-4o",
    ),
    (
        400,
        {"code": "Client specified an invalid argument", "error": "This model's maximum prompt length is 131072."},
        ContextTooLong,
        False,
        "131072",
    ),
    (
        404,
        {"code": "Some requested entity was not found", "error": "The model x does not exist."},
        ModelNotFound,
        False,
        "exist",
    ),
    (500, {"detail": {"error": {"message": "slow", "code": "rate_limit_exceeded"}}}, RateLimited, True, "slow"),
    (429, {"error": {"error": {"message": "deep", "code": "insufficient_quota"}}}, ApiError, False, "deep"),
    (403, {"success": False, "errors": [{"code": 10000, "message": "not yours"}]}, ApiError, False, "not yours"),
    (
        401,
        {"statusCode": 401, "message": "Unauthorized. Access token is missing."},
        AuthenticationFailed,
        False,
        "token",
    ),
    (429, {"statusCode": 429, "message": "Rate limit is exceeded."}, RateLimited, True, "Rate limit"),
    (
        404,
        {"status": 404, "title": "Not Found", "detail": "Function 'x': Not found"},
        RequestRejected,
        False,
        "Function",
    ),
    (
        400,
        {
            "error": {
                "message": "filtered",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        ContentFiltered,
        False,
        "content_filter",
    ),
    (404, {"error": {"code": "DeploymentNotFound", "message": "no"}}, ModelNotFound, False, "no"),
    (
        402,
        {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}},
        ApiError,
        False,
        "Insufficient",
    ),
]


@pytest.mark.parametrize(("status", "body", "cls", "retryable", "words"), REFUSALS)
def test_envelopes_of_gateways_are_opened(
    status: int, body: Any, cls: type[ProviderError], retryable: bool, words: str
) -> None:
    error: Any = openai_chat.decode_error(status, {}, dumps(body))
    assert isinstance(error, cls)
    assert (error.status, error.retryable) == (status, retryable)
    assert words in str(error)


TOO_LONG = [
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",  # vLLM
    "You passed 5001 input tokens and requested 1. The model's context length is only 5000",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",  # SGLang
    "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",  # text-generation-inference
    "The number of tokens to keep from the initial prompt is greater than the context length.",  # LM Studio
    "the model is loaded with context length of only 4096 tokens, which is not enough",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",  # Mistral
    "the request exceeds the available context size, try increasing it",  # llama.cpp
    "prompt too long; exceeded max context length by 5 tokens",  # Ollama
]


@pytest.mark.parametrize("words", TOO_LONG)
def test_a_prompt_that_is_too_long_is_recognised_by_its_text(words: str) -> None:
    for body in ({"error": {"message": words, "type": "BadRequestError", "code": 400}}, {"error": words}):
        error = openai_chat.decode_error(400, {}, dumps(body))
        assert (type(error), error.retryable) == (ContextTooLong, False)


@pytest.mark.parametrize(
    ("body", "cls"),
    [
        ({"error": "Unexpected endpoint or method."}, ServerFailed),
        ({"error": {"code": 429, "message": "slow"}, "choices": []}, RateLimited),
        ({"message": "slow", "code": 429}, RateLimited),
        ({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, RequestRejected),
        ({"success": False, "errors": [{"code": 1, "message": "x"}]}, ServerFailed),
        ({"choices": None, "error": None}, MalformedReply),
    ],
)
def test_a_refusal_with_status_200_is_an_error(body: Any, cls: type[ProviderError]) -> None:
    with pytest.raises(cls):
        openai_chat.decode_response(body)
    assert everywhere("chat", dumps(body))[1][0] is cls


# OpenRouter's own words for what went wrong ("Errors and Debugging"), in a reply whose status says nothing.
TYPES: dict[str, tuple[type[ProviderError], bool]] = {
    **dict.fromkeys(("context_length_exceeded",), (ContextTooLong, False)),
    **dict.fromkeys(("authentication",), (AuthenticationFailed, False)),
    **dict.fromkeys(("permission_denied",), (PermissionRefused, False)),
    **dict.fromkeys(("payment_required",), (OutOfCredit, False)),
    **dict.fromkeys(("rate_limit_exceeded",), (RateLimited, True)),
    **dict.fromkeys(("payload_too_large",), (RequestTooLarge, False)),
    **dict.fromkeys(
        ("provider_overloaded", "provider_unavailable", "server", "timeout", "unmapped"), (ServerFailed, True)
    ),
    **dict.fromkeys(
        ("max_tokens_exceeded", "token_limit_exceeded", "string_too_long", "invalid_request", "invalid_prompt",
         "not_found", "precondition_failed", "unprocessable", "invalid_image", "image_too_large",
         "image_too_small", "unsupported_image_format", "image_not_found", "image_download_failed"),
        (RequestRejected, False),
    ),
    **dict.fromkeys(("content_policy_violation", "refusal"), (ContentFiltered, False)),
}  # fmt: skip


@pytest.mark.parametrize("word", TYPES)
def test_openrouters_types_of_errors_have_one_meaning(word: str) -> None:
    cls, retryable = TYPES[word]
    body = {"error": {"message": "Provider returned error", "metadata": {"error_type": word, "provider_name": "P"}}}
    with pytest.raises(cls) as caught:
        openai_chat.decode_response(body)
    assert (type(caught.value), caught.value.retryable, caught.value.code) == (cls, retryable, word)  # type: ignore[attr-defined]
    answer, fault = everywhere("chat", events(BEFORE, {**delta(""), **body}))
    assert (answer.text, fault) == ("Hel", (cls, caught.value.status, "Hel"))  # type: ignore[attr-defined]


# Responses.


def reply(status: str = "completed", **facts: Any) -> dict[str, Any]:
    return {"id": "r", "object": "response", "model": "m", "status": status, "output": [], **facts}


def said(text: str) -> dict[str, Any]:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


CODES = {
    "server_error": (ServerFailed, True),
    "vector_store_timeout": (ServerFailed, True),
    "rate_limit_exceeded": (RateLimited, True),
    "model_not_found": (ModelNotFound, False),
    "context_length_exceeded": (ContextTooLong, False),
    **dict.fromkeys(
        (
            "invalid_prompt",
            "data_residency_mismatch",
            "invalid_image",
            "invalid_image_format",
            "invalid_base64_image",
            "invalid_image_url",
            "image_too_large",
            "image_too_small",
            "image_parse_error",
            "invalid_image_mode",
            "image_file_too_large",
            "unsupported_image_media_type",
            "empty_image_file",
            "failed_to_download_image",
            "image_file_not_found",
        ),
        (RequestRejected, False),
    ),
    **dict.fromkeys(
        ("bio_policy", "cyber_policy", "misalignment_policy_violation", "image_content_policy_violation"),
        (ContentFiltered, False),
    ),
}


@pytest.mark.parametrize("code", CODES)
def test_a_reply_that_failed_is_typed_by_each_of_the_vendors_codes(code: str) -> None:
    cls, retryable = CODES[code]
    body = reply("failed", error={"code": code, "message": "so"})
    with pytest.raises(cls) as caught:
        responses.decode_response(body)
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    begun = {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "a"}
    for end in (
        {"type": "response.failed", "response": body},
        {"type": "error", "code": code, "message": "so", "param": None, "sequence_number": 3},
        {"type": "error", "error": {"type": "x", "code": code, "message": "so"}},
    ):
        assert everywhere("responses", events(begun, end)) == (
            join([GenerateChunk(text="a")]),
            (cls, caught.value.status, "a"),
        )


OWN = [
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "computer_call",
    "tool_search_call",
    "tool_search_output",
    "compaction",
    "program",
    "something_new",
]


@pytest.mark.parametrize("kind", OWN)
def test_items_of_the_vendors_own_tools_are_sent_back_unchanged(kind: str) -> None:
    item = {"type": kind, "id": "i", "status": "completed"}
    whole = reply(output=[item, said("So.")])
    opened = {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress"}}
    busy = {"type": f"response.{kind}.delta", "output_index": 0, "item_id": "i", "delta": "noise"}
    closed = {"type": "response.output_item.done", "output_index": 0, "item": item}
    words = {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "So."}
    noted = {"type": "response.output_text.annotation.added", "output_index": 1, "annotation": {"type": "url_citation"}}
    end = {"type": "response.completed", "response": whole}
    streamed, fault = everywhere("responses", events(opened, busy, closed, {"type": "keepalive"}, words, noted, end))
    answer = responses.decode_response(whole)
    assert fault is None
    for found in (answer, streamed):
        assert (found.text, found.tool_calls, found.finish_reason) == ("So.", (), FinishReason.STOP)
        assert [part.data for part in found.reasoning_parts] == [item]


def test_a_call_of_a_custom_tool_is_the_callers_and_its_result_has_a_type_of_its_own() -> None:
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c1", "name": "shell", "input": "ls -l"}
    whole = reply(output=[{**item, "status": "completed"}])
    begun = {"type": "response.output_item.added", "output_index": 0, "item": {**item, "input": ""}}
    pieces = [
        {"type": "response.custom_tool_call_input.delta", "output_index": 0, "item_id": "ctc_1", "delta": words}
        for words in ("ls", " -l")
    ]
    done = {"type": "response.custom_tool_call_input.done", "output_index": 0, "item_id": "ctc_1", "input": "ls -l"}
    closed = {"type": "response.output_item.done", "output_index": 0, "item": item}
    end = {"type": "response.completed", "response": whole}
    streamed, fault = everywhere("responses", events(begun, *pieces, done, closed, end))
    late, _ = everywhere("responses", events(end))
    later, _ = everywhere("responses", events(begun, pieces[0], end))
    answer = responses.decode_response(whole)
    assert fault is None
    call = ToolCall(id="c1", name="shell", arguments="ls -l", extra={"id": "ctc_1", "type": "custom"})
    for found in (answer, streamed, late, later):
        assert (found.tool_calls, found.finish_reason) == ((call,), FinishReason.TOOL_CALLS)
    result = Message("tool", "total 0", tool_call_id="c1")
    sent = {key: item[key] for key in ("type", "call_id", "name", "input")}
    output = {"type": "custom_tool_call_output", "call_id": "c1", "output": "total 0"}
    again = responses.encode_request(GenerateRequest(messages=[Message("user", "x"), answer.to_message(), result]))
    assert again["input"][1:] == [sent, output]
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    after = responses.decode_response(reply(output=[item, thought, {**item, "call_id": "c2", "input": "pwd"}]))
    turns = [Message("user", "x"), after.to_message(), result, Message("tool", "/", tool_call_id="c2")]
    again = responses.encode_request(GenerateRequest(messages=turns))
    later = {"id": "ctc_1", **sent, "call_id": "c2", "input": "pwd"}
    assert again["input"][1:] == [item, thought, later, output, {**output, "call_id": "c2", "output": "/"}]


@pytest.mark.parametrize(
    ("facts", "word", "meaning"),
    [
        (
            {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            "max_output_tokens",
            "length",
        ),
        (
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
            "content_filter",
        ),
        ({"status": "incomplete", "incomplete_details": {"reason": "steered"}}, "steered", None),
        ({"status": "incomplete", "incomplete_details": None, "output": None}, "incomplete", None),
        ({"status": "cancelled", "output": None}, "cancelled", None),
        ({"status": "queued"}, "queued", None),
    ],
)
def test_an_incomplete_reply_gives_its_reason_or_status(facts: dict[str, Any], word: str, meaning: str | None) -> None:
    answer = responses.decode_response(reply(**facts))
    assert (answer.raw_finish_reason, answer.finish_reason) == (word, meaning)


def test_reasoning_that_is_counted_beside_the_output_is_output() -> None:
    counted = {"input_tokens": 32, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 94}}
    for total, output in ((135, 103), (41, 9), (None, 9)):
        answer = responses.decode_response(reply(output=[said("So.")], usage={**counted, "total_tokens": total}))
        assert answer.usage is not None
        assert (answer.usage.output_tokens, answer.usage.reasoning_tokens) == (output, 94)


def test_parts_that_are_null_are_none() -> None:
    odd = [
        {"type": "message", "content": None},
        {"type": "reasoning", "summary": None, "content": None},
        {"type": "message", "content": [{"type": "output_audio"}, {"type": "output_text", "text": None}]},
        said("So."),
    ]
    answer = responses.decode_response(reply(output=odd, usage={"input_tokens": 1, "input_tokens_details": None}))
    assert (answer.text, answer.usage and answer.usage.input_tokens) == ("So.", 1)


# Gemini.

FINISHES = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            "IMAGE_OTHER",
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            "MALFORMED_FUNCTION_CALL",
            "UNEXPECTED_TOOL_CALL",
            "TOO_MANY_TOOL_CALLS",
            "OTHER",
            "MISSING_THOUGHT_SIGNATURE",
            "MALFORMED_RESPONSE",
            "NO_IMAGE",
        ),
        "error",
    ),
    "CONTINUATION": "length",  # without its token it cannot be continued
    **dict.fromkeys(("ESCALATION", "SOMETHING_NEW"), None),
}


def frame(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "g", **more}


@pytest.mark.parametrize("word", FINISHES)
@pytest.mark.parametrize("content", [{"content": {}}, {"content": None}, {"content": {"role": "model"}}, {}])
def test_an_end_without_parts_is_read(word: str, content: dict[str, Any]) -> None:
    body = {"candidates": [{**content, "finishReason": word, "finishMessage": "so", "index": 0}], "modelVersion": "g"}
    answer = _google.decode_response(body)
    assert (answer.text, answer.raw_finish_reason, answer.finish_reason) == (None, word, FINISHES[word])
    assert answer.extra["finishMessage"] == "so"
    streamed, fault = everywhere("gemini", events(frame({"text": "Hel"}, finish=None), body))
    assert (streamed.text, streamed.finish_reason, fault) == ("Hel", FINISHES[word], None)


def test_a_reply_without_a_candidate_is_an_empty_answer() -> None:
    for body in (
        {"usageMetadata": {"promptTokenCount": 3}},
        {"candidates": [], "promptFeedback": {"safetyRatings": [1]}},
    ):
        answer = _google.decode_response(body)
        assert (answer.text, answer.finish_reason) == (None, None)
        assert everywhere("gemini", events(body))[1] == (TruncatedReply, None, None)
    with pytest.raises(MalformedReply):
        _google.decode_response({"unheard": "of"})


@pytest.mark.parametrize(
    "word", ["SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_SAFETY", "MODEL_ARMOR", "JAILBREAK"]
)
def test_a_blocked_prompt_is_a_filtered_answer(word: str) -> None:
    body = {
        "promptFeedback": {"blockReason": word, "blockReasonMessage": "no"},
        "usageMetadata": {"promptTokenCount": 3},
    }
    streamed, fault = everywhere("gemini", events(body))
    for found in (_google.decode_response(body), streamed):
        assert (found.text, found.raw_finish_reason, found.finish_reason, fault) == (None, word, "content_filter", None)
        assert found.extra["promptFeedback"]["blockReasonMessage"] == "no"


PARTS = [
    {"text": "Let me run it.", "thought": True, "thoughtSignature": "c2ln"},
    {"executableCode": {"language": "PYTHON", "code": "print(6 * 7)"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "42"}},
    {},
    {"text": ""},
    {"text": "It is 42.", "thoughtSignature": "dGV4dA=="},
    {"functionCall": {"name": "f"}, "thoughtSignature": "Y2FsbA=="},
    {"functionCall": {"name": "g", "id": None, "args": None}},
    {"text": "", "thoughtSignature": "ZW5k"},
]


def test_every_kind_of_part_is_read_and_what_was_signed_goes_back() -> None:
    body = frame(*PARTS)
    one_by_one = [frame(part, finish=None) for part in PARTS[:-1]] + [frame(PARTS[-1])]
    arrays = [
        dumps([body]),
        json.dumps(one_by_one, indent=2).encode(),
        b"[" + b"\n,\r\n".join(map(dumps, one_by_one)) + b"\n]\n",
    ]
    for found in (_google.decode_response(body), *(everywhere("gemini", b)[0] for b in (events(*one_by_one), *arrays))):
        assert (found.text, found.reasoning, found.finish_reason) == ("It is 42.", "Let me run it.", "tool_calls")
        assert [(call.name, call.arguments) for call in found.tool_calls] == [("f", ""), ("g", "")]
        sent = json.dumps(_google.encode_request(GenerateRequest(messages=[Message("user", "x"), found.to_message()])))
        assert all(word in sent for word in ("c2ln", "dGV4dA==", "Y2FsbA==", "ZW5k", "executableCode", "OUTCOME_OK"))


def test_what_follows_the_answer_counts_and_disturbs_nothing() -> None:
    late = {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 3}}
    answer, fault = everywhere("gemini", events(frame({"text": "a"}), late, "[DONE]"))
    assert (answer.text, answer.usage and answer.usage.output_tokens, fault) == ("a", 5, None)


GOOGLE: dict[str, tuple[int, Any, type[ApiError], bool]] = {
    "a key, its details lost": (
        400,
        {"message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"},
        AuthenticationFailed,
        False,
    ),
    "a place": (
        400,
        {"message": "User location is not supported for the API use.", "status": "FAILED_PRECONDITION"},
        PermissionRefused,
        False,
    ),
    "a deadline": (504, {"message": "Deadline expired", "status": "DEADLINE_EXCEEDED"}, ServerFailed, True),
    "a cancellation": (499, {"message": "The operation was cancelled.", "status": "CANCELLED"}, RequestRejected, False),
    "too many tokens": (
        400,
        {
            "message": "The input token count (1200000) exceeds the maximum number of tokens",
            "status": "INVALID_ARGUMENT",
        },
        ContextTooLong,
        False,
    ),
    "a publisher's model": (
        404,
        {"message": "Publisher Model `projects/p/z` was not found", "status": "NOT_FOUND"},
        ModelNotFound,
        False,
    ),
}


@pytest.mark.parametrize("case", GOOGLE)
@pytest.mark.parametrize("in_array", [False, True])
def test_googles_refusals_are_typed_in_a_reply_and_in_a_stream(case: str, in_array: bool) -> None:
    status, said, cls, retryable = GOOGLE[case]
    body: Any = {"error": {"code": status, **said}}
    error = _google.decode_error(status, {}, dumps([body] if in_array else body))
    assert (type(error), error.status, error.retryable) == (cls, status, retryable)
    begun = frame({"text": "Hel"}, finish=None)
    sent = dumps([begun, body]) if in_array else events(begun, body)
    answer, fault = everywhere("gemini", sent)
    assert (answer.text, fault) == ("Hel", (cls, status, "Hel"))
    answer, fault = everywhere("gemini", events(begun) + json.dumps(body, indent=2).encode())
    assert (answer.text, fault) == ("Hel", (cls, status, "Hel"))


# Ollama.


def line(done: bool = False, **facts: Any) -> dict[str, Any]:
    return {"model": "l", "created_at": "2026-11-22T00:00:00Z", "done": done, **facts}


def test_ollamas_stream_says_calls_thoughts_and_its_end() -> None:
    body = lines(
        line(message={"role": "assistant", "content": "", "thinking": "Hm"}),
        line(
            message={"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
        ),
        line(
            message={
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"index": 1, "name": "g", "arguments": {"x": 1}}}],
            }
        ),
        line(done=True, done_reason="stop", eval_count=3),
    )
    answer, fault = everywhere("ollama", body)
    assert (answer.reasoning, answer.finish_reason, fault) == ("Hm", "tool_calls", None)
    assert [(call.name, call.parse()) for call in answer.tool_calls] == [("f", {}), ("g", {"x": 1})]
    assert len({call.id for call in answer.tool_calls}) == 2
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (None, 3)


@pytest.mark.parametrize(
    ("word", "meaning"), [("stop", "stop"), ("length", "length"), ("load", None), ("unload", None), (None, None)]
)
def test_ollamas_words_about_the_server_mean_nothing_about_the_answer(word: str | None, meaning: str | None) -> None:
    end = line(done=True, done_reason=word, message={"role": "assistant", "content": ""})
    assert _ollama.decode_response(end).finish_reason == meaning
    assert everywhere("ollama", lines(end))[0].finish_reason == meaning


@pytest.mark.parametrize(
    ("status", "words", "cls", "retryable"),
    [
        (404, 'model "x" not found, try pulling it first', ModelNotFound, False),
        (400, "registry.ollama.ai/library/x does not support tools", CapabilityRefused, False),
        (401, "unauthorized", AuthenticationFailed, False),
        (429, "you've reached your hourly usage limit", RateLimited, True),
        (500, "model requires more system memory (8 GiB) than is available (4 GiB)", ServerFailed, True),
        (503, "server busy, please try again. maximum pending requests exceeded", ServerFailed, True),
    ],
)
def test_ollamas_refusals_are_typed(status: int, words: str, cls: type[ProviderError], retryable: bool) -> None:
    error: Any = _ollama.decode_error(status, {}, dumps({"error": words}))
    assert (type(error), error.status, error.retryable) == (cls, status, retryable)
    begun = line(message={"role": "assistant", "content": "Hel"})
    answer, fault = everywhere("ollama", lines(begun, {"error": words}))
    assert (answer.text, fault) == ("Hel", (ServerFailed, 500, "Hel"))
