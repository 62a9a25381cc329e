"""Forms of replies and streams that servers send and no specification has: every dialect reads them, or tells why not.

What a stream says is what the whole reply says. See ``docs/reference/faults.md``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_council._engine.calls import invalid_answer
from llm_council._wire import openai_chat, responses
from llm_council._wire.openai_chat import ChatOptions
from llm_council._wire.reading import later_usage, looks_like_stream
from llm_council.errors import ApiError, ContentFiltered, ContextTooLong, EmptyReply, MalformedReply, ProviderError
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse, Message, Usage, join
from llm_council.providers import _anthropic as anthropic
from llm_council.providers import _cohere as cohere
from llm_council.providers import _google as google
from llm_council.providers import _ollama as ollama
from llm_council.providers._anthropic.request import encode_request
from llm_council.providers._call.returns import require_answer
from llm_council.providers.anthropic import AnthropicProvider
from llm_council.providers.cohere import CohereProvider
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.providers.gemini import GeminiProvider
from llm_council.providers.ollama import OllamaProvider
from llm_council.transports import HttpReply


def events(*values: Any) -> bytes:
    """Write values as events; a text is written as it is."""
    return b"".join(f"data: {v if isinstance(v, str) else json.dumps(v)}\n\n".encode() for v in values)


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def read(stream: Any, body: bytes, step: int | None = None) -> GenerateResponse:
    pieces = [body[at : at + step] for at in range(0, len(body), step)] if step else [body]
    chunks = [chunk for piece in pieces for chunk in stream.feed(piece)]
    return join([*chunks, *stream.finish()])


CHAT = {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {"content": "hi"}}]}
CHAT_END = {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
CLAUDE = [
    {"type": "message_start", "message": {"id": "m1", "type": "message", "model": "m", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
]
CLAUDE_END = [
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    {"type": "message_stop"},
]
RESPONSE = {"id": "resp_1", "object": "response", "model": "m", "status": "in_progress", "output": []}
RESPONSES = [
    {"type": "response.created", "response": RESPONSE},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "hi"},
]
SAID = {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}
RESPONSES_END = [{"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": [SAID]}}]
COHERE = [
    {"type": "message-start", "id": "c1", "delta": {"message": {"role": "assistant"}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "hi"}}}},
]
COHERE_END = [{"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}]
GEMINI = {"candidates": [{"index": 0, "content": {"parts": [{"text": "hi"}]}}], "responseId": "g1"}
GEMINI_END = {"candidates": [{"index": 0, "finishReason": "STOP"}], "responseId": "g1"}
OLLAMA = {"model": "m", "message": {"content": "hi"}, "done": False}
OLLAMA_END = {"model": "m", "message": {"content": ""}, "done": True, "done_reason": "stop"}

STREAMS: dict[str, tuple[Callable[[], Any], bytes, bytes]] = {
    "chat": (openai_chat.ChatStream, events(CHAT), events(CHAT_END, "[DONE]")),
    "responses": (responses.ResponseStream, events(*RESPONSES), events(*RESPONSES_END)),
    "anthropic": (anthropic.MessageStream, events(*CLAUDE), events(*CLAUDE_END)),
    "cohere": (cohere.ChatStream, events(*COHERE), events(*COHERE_END)),
    "gemini": (google.GeminiStream, events(GEMINI), events(GEMINI_END)),
}
every_stream = pytest.mark.parametrize("dialect", STREAMS)
FAILURE = {"code": 400, "message": "the request exceeds the available context size", "type": "invalid_request_error"}
ERRORS = {
    "a field of its own": b"error: " + json.dumps(FAILURE).encode() + b"\n\n",
    "an event of that name": b"event: error\ndata: " + json.dumps(FAILURE).encode() + b"\n\n",
    "an event of that name, in words": b"event: error\ndata: the request exceeds the available context size\n\n",
    "a bare line": json.dumps({"error": FAILURE}).encode() + b"\n\n",
    "bare lines": json.dumps({"error": FAILURE}, indent=1).encode() + b"\n\n",
    "an event": events({"error": FAILURE}),
}


@every_stream
@pytest.mark.parametrize("form", ERRORS)
@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n"])
def test_an_error_is_raised_wherever_it_stands_in_a_stream(dialect: str, form: str, end: bytes) -> None:
    make, begun, _ = STREAMS[dialect]
    for before, partial in ((begun, "hi"), (b": hello\n\n", None)):
        for step in (None, 7):
            with pytest.raises(ApiError, match="exceeds the available context size") as caught:
                read(make(), before + ERRORS[form] + end, step)
            assert caught.value.partial == partial


def test_the_field_of_llama_cpp_gets_its_class() -> None:
    with pytest.raises(ContextTooLong):
        read(openai_chat.ChatStream(), events(CHAT) + ERRORS["a field of its own"] + b"data: [DONE]\n\n")


def test_an_event_without_its_field_name_is_read() -> None:
    body = events(CHAT) + lines(CHAT) + events(CHAT_END, "[DONE]")
    assert read(openai_chat.ChatStream(), body).text == "hihi"


# A stream where a whole reply was asked for, and the reverse.

PROVIDERS: dict[str, tuple[Callable[[], Any], bytes]] = {
    "chat": (lambda: OpenAICompatibleProvider(base_url="http://127.0.0.1:1"), events(CHAT, CHAT_END, "[DONE]")),
    "responses": (
        lambda: OpenAICompatibleProvider(base_url="http://127.0.0.1:1", api="responses"),
        events(*RESPONSES, *RESPONSES_END),
    ),
    "anthropic": (lambda: AnthropicProvider(api_key="k"), events(*CLAUDE, *CLAUDE_END)),
    "cohere": (lambda: CohereProvider(api_key="k"), events(*COHERE, *COHERE_END)),
    "gemini": (lambda: GeminiProvider(api_key="k"), events(GEMINI, GEMINI_END)),
    "ollama": (lambda: OllamaProvider(), lines(OLLAMA, OLLAMA_END)),
}


@pytest.mark.parametrize("dialect", PROVIDERS)
@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
def test_a_stream_that_was_not_asked_for_is_read(dialect: str, content_type: str) -> None:
    make, body = PROVIDERS[dialect]
    reply = HttpReply(status=200, headers={"content-type": content_type}, body=body)
    answer = make()._decode_body(GenerateRequest(prompt="x", model="m"), reply)
    assert (answer.text, answer.finish_reason) == ("hi", FinishReason.STOP)


def test_what_is_no_stream_stays_malformed() -> None:
    assert not looks_like_stream(b'{"choices": [')
    assert not looks_like_stream(b"<html>data: x</html>")
    assert looks_like_stream(b": PROCESSING\n\n{}")


WHOLES: dict[str, Any] = {
    "chat": {"id": "r", "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]},
    "responses": {**RESPONSE, "status": "completed", "output": [SAID]},
    "anthropic": {"type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"},
    "cohere": {"message": {"content": [{"type": "text", "text": "hi"}]}, "finish_reason": "COMPLETE"},
    "gemini": {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]},
}


@every_stream
def test_a_whole_reply_is_read_in_place_of_a_stream(dialect: str) -> None:
    make, begun, _ = STREAMS[dialect]
    whole = json.dumps(WHOLES[dialect]).encode()
    forms = [
        whole,
        b": PROCESSING\n\n" + whole,
        b"data:" + whole + b"\n\n",
        whole + b"\n\ndata: [DONE]\n\n",
        json.dumps(WHOLES[dialect], indent=1).encode(),
    ]
    if dialect != "gemini":  # there a whole reply has the form of any event
        forms.append(begun + b"data: " + whole + b"\n\n")
    for form in forms:
        for step in (None, 5):
            answer = read(make(), form, step)
            assert (answer.text, answer.finish_reason) == ("hi", FinishReason.STOP), form


# Counts.


@pytest.mark.parametrize(
    ("known", "new", "answered", "counted"),
    [
        (None, Usage(input_tokens=0), True, Usage(input_tokens=0)),
        (Usage(input_tokens=9, output_tokens=1), Usage(output_tokens=7), True, Usage(input_tokens=9, output_tokens=7)),
        (Usage(input_tokens=9), Usage(input_tokens=0, output_tokens=7), True, Usage(input_tokens=9, output_tokens=7)),
        (Usage(input_tokens=0), Usage(input_tokens=9), True, Usage(input_tokens=9)),
        (Usage(output_tokens=4), Usage(output_tokens=0), True, Usage(output_tokens=4)),
        (Usage(output_tokens=1), Usage(output_tokens=0), False, Usage(output_tokens=0)),
    ],
)
def test_zero_replaces_no_count(known: Usage | None, new: Usage, answered: bool, counted: Usage) -> None:
    assert later_usage(known, new, answered=answered) == counted


def test_counts_stand_in_several_places_of_the_chat_dialect() -> None:
    use = {"prompt_tokens": 10, "completion_tokens": 3, "cached_tokens": 4}
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    counted = Usage(input_tokens=10, output_tokens=3, cached_tokens=4)
    timings = {"prompt_n": 6, "cache_n": 4, "predicted_n": 3}
    for end in (
        {**CHAT_END, "choices": [{**CHAT_END["choices"][0], "usage": use}]},
        {**CHAT_END, "usage": nothing, "x_groq": {"usage": use}},
        {**CHAT_END, "timings": timings},
        {**CHAT_END, "usage": use, "timings": {**timings, "predicted_n": 99}},
    ):
        assert read(openai_chat.ChatStream(), events(CHAT, end, "[DONE]")).usage == counted
        assert read(openai_chat.ChatStream(), events(CHAT, end, {"choices": [], "usage": nothing})).usage == counted
        choice = {**WHOLES["chat"]["choices"][0], **{k: v for k, v in end["choices"][0].items() if k == "usage"}}
        whole = {**end, "choices": [choice]}
        assert openai_chat.decode_response(whole).usage == counted


def claude_usage(start: dict[str, int], end: dict[str, Any]) -> GenerateResponse:
    opening = {"type": "message_start", "message": {**CLAUDE[0]["message"], "usage": start}}  # type: ignore[dict-item]
    closing = {**CLAUDE_END[1], "usage": end}
    return read(anthropic.MessageStream(), events(opening, *CLAUDE[1:], CLAUDE_END[0], closing, CLAUDE_END[2]))


def test_iterations_are_summed_and_kept_in_streams_and_whole_replies_alike() -> None:
    rows = [
        {"type": "compaction", "input_tokens": 50_000, "output_tokens": 120, "cache_read_input_tokens": 5_000},
        {"type": "advisor_message", "model": "other", "input_tokens": 900, "output_tokens": 90},
        {"type": "message", "input_tokens": 220, "output_tokens": 8, "cache_read_input_tokens": 0},
    ]
    usage = {"input_tokens": 220, "output_tokens": 8, "iterations": rows, "server_tool_use": {"web_search_requests": 2}}
    streamed = claude_usage({"input_tokens": 220, "output_tokens": 1}, usage)
    whole = anthropic.decode_response({**WHOLES["anthropic"], "usage": usage})
    for answer in (streamed, whole):
        assert answer.usage == Usage(input_tokens=55_220, output_tokens=128, cached_tokens=5_000)
        assert answer.extra["iterations"] == rows
        assert answer.extra["server_tool_use"] == {"web_search_requests": 2}


def test_the_last_turns_iterations_do_not_lower_a_sum_of_turns() -> None:
    usage = {"input_tokens": 900, "output_tokens": 50, "iterations": [{"input_tokens": 300, "output_tokens": 20}]}
    assert anthropic.decode_response({**WHOLES["anthropic"], "usage": usage}).usage == Usage(
        input_tokens=900, output_tokens=50
    )


# Reasoning whose opening tag stood in the prompt.


@pytest.mark.parametrize("step", [None, 1, 40])
def test_reasoning_before_a_lone_closing_tag_is_no_text(step: int | None) -> None:
    said = ["They ask. ", "</th", "ink>", "\n\nTwo."]
    options = ChatOptions(think_tags=True)
    chat = events(*({**CHAT, "choices": [{"index": 0, "delta": {"content": word}}]} for word in said))
    whole = {
        **WHOLES["chat"],
        "model": "m",
        "choices": [{**WHOLES["chat"]["choices"][0], "message": {"content": "".join(said)}}],
    }
    for one in (read(openai_chat.ChatStream(options), chat + events(CHAT_END, "[DONE]"), step),
                openai_chat.decode_response(whole, options)):  # fmt: skip
        assert (one.text, one.reasoning, one.model, one.request_id) == ("Two.", "They ask.", "m", "r")
    told = ollama.ChatOptions(think_tags=True)
    body = lines(*({**OLLAMA, "message": {"content": word}} for word in said), OLLAMA_END)
    answer = read(ollama.ChatStream(told), body, step)
    assert (answer.text, answer.reasoning, answer.model) == ("Two.", "They ask.", "m")


# Calls, contents and parts.


@pytest.mark.parametrize("empty", [{"name": "", "arguments": ""}, {}, {"name": None, "arguments": None}, ""])
@pytest.mark.parametrize("calls", [None, []])
def test_an_empty_legacy_call_calls_nothing(empty: Any, calls: Any) -> None:
    message = {"role": "assistant", "content": "4", "function_call": empty, "tool_calls": calls}
    whole = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    streamed = events({"choices": [{"index": 0, "delta": message}]}, CHAT_END, "[DONE]")
    for answer in (openai_chat.decode_response(whole), read(openai_chat.ChatStream(), streamed)):
        assert (answer.text, answer.tool_calls) == ("4", ())


def test_empty_rows_of_calls_call_nothing() -> None:
    row = {"function": {"name": "", "arguments": ""}}
    assert openai_chat.decode_response({"choices": [{"message": {"content": "4", "tool_calls": [row]}}]}).text == "4"
    assert ollama.decode_response({"message": {"content": "4", "tool_calls": [row]}, "done": True}).tool_calls == ()
    assert cohere.decode_response({"message": {"content": "4", "tool_calls": [row]}}).tool_calls == ()
    parts = [{"text": "4"}, {"functionCall": {}}]
    assert google.decode_response({"candidates": [{"content": {"parts": parts}}]}).tool_calls == ()
    with pytest.raises(MalformedReply):  # arguments without a name are a fault
        openai_chat.decode_response({"choices": [{"message": {"tool_calls": [{"function": {"arguments": "{1}"}}]}}]})


def test_a_content_that_the_server_has_decoded_is_its_json() -> None:
    value = {"title": "Pears", "type": "fruit"}
    for found in (value, [{"title": "Pears"}]):
        whole = openai_chat.decode_response({"choices": [{"message": {"content": found}}]})
        streamed = read(openai_chat.ChatStream(), events({"choices": [{"delta": {"content": found}}]}, CHAT_END))
        assert json.loads(whole.text or "") == json.loads(streamed.text or "") == found
    assert json.loads(ollama.decode_response({"message": {"content": value}, "done": True}).text or "") == value
    assert json.loads(cohere.decode_response({"message": {"content": value}}).text or "") == value


def test_what_a_stream_says_beside_text_is_kept_as_in_a_whole_reply() -> None:
    word = {"token": "hi", "logprob": -0.1}
    tool = {"index": 0, "type": "search", "arguments": "{}"}
    sound = {"id": "a", "data": "AAAA", "transcript": "hi"}
    reference = {"type": "reference", "reference_ids": [1]}
    deltas = [
        {"delta": {"content": [{"type": "text", "text": "hi"}, reference], "executed_tools": [tool]}},
        {"delta": {"executed_tools": [{"index": 0, "output": "found"}], "audio": {"id": "a", "data": "AA"}}},
        {"delta": {"audio": {"data": "AA", "transcript": "hi"}}, "logprobs": {"content": [word], "refusal": None}},
        {"delta": {}, "logprobs": {"content": [word], "refusal": None}, "finish_reason": "stop"},
    ]
    message = {
        "content": [{"type": "text", "text": "hi"}, reference],
        "executed_tools": [{**tool, "output": "found"}],
        "audio": sound,
    }
    logprobs = {"content": [word, word], "refusal": None}
    reply = {"citations": ["https://a.example"]}
    choice = {"message": message, "logprobs": logprobs, "finish_reason": "stop"}
    whole = openai_chat.decode_response({**reply, "choices": [choice]})
    streamed = read(openai_chat.ChatStream(), events(*({**reply, "choices": [delta]} for delta in deltas), "[DONE]"))
    assert streamed.extra == whole.extra
    assert whole.extra.keys() == {"citations", "parts", "executed_tools", "audio", "logprobs"}


def test_log_probabilities_of_other_dialects_are_kept() -> None:
    row = {"token": "hi", "logprob": -0.1}
    streamed = read(
        ollama.ChatStream(), lines({**OLLAMA, "logprobs": [row]}, {**OLLAMA, "logprobs": [row]}, OLLAMA_END)
    )
    assert streamed.extra["logprobs"] == [row, row]
    chosen = {"chosenCandidates": [row]}
    frames = [{"candidates": [{**one["candidates"][0], "logprobsResult": chosen}]} for one in (GEMINI, GEMINI_END)]
    assert read(google.GeminiStream(), events(*frames)).extra["logprobsResult"] == {"chosenCandidates": [row, row]}
    part = {"type": "output_text", "text": "hi", "logprobs": [row]}
    whole = {**WHOLES["responses"], "output": [{"type": "message", "content": [part]}]}
    assert responses.decode_response(whole).extra["logprobs"] == [row]
    end = {"type": "response.completed", "response": whole}
    assert read(responses.ResponseStream(), events(*RESPONSES, end)).extra["logprobs"] == [row]


def test_a_delta_of_another_type_completes_its_block() -> None:
    parts = [{"content": "The house ", "encrypted_content": "c2VhbA=="}, {"content": "asked for towers."}]
    body = events(
        CLAUDE[0],
        {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction", "content": None}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", **part}} for part in parts),
        {"type": "content_block_stop", "index": 0},
        *({**one, "index": 1} if "index" in one else one for one in (*CLAUDE[1:], *CLAUDE_END)),
    )
    answer = read(anthropic.MessageStream(), body)
    block = {"type": "compaction", "content": "The house asked for towers.", "encrypted_content": "c2VhbA=="}
    assert (answer.text, answer.extra["blocks"]) == ("hi", [block])
    request = GenerateRequest(model="m", messages=[Message("user", "a"), answer.to_message(), Message("user", "b")])
    assert encode_request(request)["messages"][1]["content"][0] == block


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ENC"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize("output", [[], None, [{**THOUGHT, "encrypted_content": None}, CALL], [THOUGHT, CALL]])
def test_items_that_only_their_own_events_bring_are_kept(output: Any) -> None:
    done = [
        {"type": "response.output_item.done", "output_index": at, "item": item}
        for at, item in enumerate((THOUGHT, CALL))
    ]
    end = {"type": "response.completed", "response": {**RESPONSE, "status": "completed", "output": output}}
    answer = read(responses.ResponseStream(), events(RESPONSES[0], *done, end))
    assert [(part.signature, part.data) for part in answer.reasoning_parts] == [("ENC", THOUGHT)]
    assert [call.name for call in answer.tool_calls] == ["f"]


# A second message, and replies without text.

SECOND: dict[str, bytes] = {
    "chat": events(CHAT_END, {**CHAT, "id": "r2"}),
    "responses": events({**RESPONSES[0], "response": {**RESPONSE, "id": "resp_2"}}),
    "anthropic": events({"type": "message_start", "message": {"id": "m2", "type": "message", "content": []}}),
    "cohere": events({**COHERE[0], "id": "c2"}),
    "gemini": events(GEMINI_END, {**GEMINI, "responseId": "g2"}),
}


@every_stream
def test_a_second_message_in_a_stream_is_malformed(dialect: str) -> None:
    make, begun, _ = STREAMS[dialect]
    with pytest.raises(MalformedReply, match="second") as caught:
        read(make(), begun + SECOND[dialect])
    assert caught.value.partial == "hi"


def test_a_message_that_begins_again_after_its_first_words_is_a_second_one_whatever_its_id() -> None:
    with pytest.raises(MalformedReply, match="second") as caught:
        read(anthropic.MessageStream(), events(*CLAUDE, *CLAUDE, *CLAUDE_END))
    assert caught.value.partial == "hi"


def test_a_message_that_is_begun_twice_is_one() -> None:
    assert read(anthropic.MessageStream(), events(CLAUDE[0], *CLAUDE, *CLAUDE_END)).text == "hi"


PICTURE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
OTHER: dict[str, GenerateResponse] = {
    "a picture of the Responses API": responses.decode_response(
        {**RESPONSE, "status": "completed", "output": [{"type": "image_generation_call", "result": "iVBO"}]}
    ),
    "a search that the caller runs": responses.decode_response(
        {**RESPONSE, "status": "completed", "output": [{"type": "tool_search_call", "execution": "client"}]}
    ),
    "a picture of Gemini": google.decode_response({"candidates": [{"content": {"parts": [PICTURE]}}]}),
    "a picture of the chat dialect": openai_chat.decode_response(
        {"choices": [{"message": {"content": None, "images": [{"type": "image_url"}]}}]}
    ),
    "sound": openai_chat.decode_response({"choices": [{"message": {"content": None, "audio": {"data": "AA"}}}]}),
    "a turn to continue": anthropic.decode_response(
        {"type": "message", "content": [{"type": "server_tool_use", "name": "x"}], "stop_reason": "pause_turn"}
    ),
}


@pytest.mark.parametrize("kind", OTHER)
def test_a_reply_that_holds_no_text_is_an_answer_and_for_a_council_an_error_that_is_not_retried(kind: str) -> None:
    assert require_answer(OTHER[kind], name="p") == OTHER[kind]
    error = invalid_answer(OTHER[kind])
    assert isinstance(error, EmptyReply)
    assert not error.retryable


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_job_in_the_background_is_not_started_twice(status: str) -> None:
    with pytest.raises(EmptyReply, match="resp_1") as caught:
        require_answer(responses.decode_response({**RESPONSE, "status": status}), name="p")
    assert not caught.value.retryable


@pytest.mark.parametrize("item", [THOUGHT, {"type": "web_search_call", "status": "completed"}])
def test_a_reply_that_ends_before_its_answer_may_be_asked_for_again(item: dict[str, Any]) -> None:
    with pytest.raises(EmptyReply) as caught:
        require_answer(responses.decode_response({**RESPONSE, "status": "completed", "output": [item]}), name="p")
    error: ProviderError = caught.value
    assert error.retryable


@pytest.mark.parametrize("word", ["sensitive", "content_filtered", "guardrail_intervened", "ERROR_TOXIC"])
def test_a_withheld_answer_is_filtered_by_whichever_word_its_vendor_has(word: str) -> None:
    answer = openai_chat.decode_response({"choices": [{"message": {"content": "Well,"}, "finish_reason": word}]})
    assert (answer.finish_reason, answer.raw_finish_reason) == ("content_filter", word)
    assert isinstance(invalid_answer(answer), ContentFiltered)
