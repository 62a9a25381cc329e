"""Reasoning that a server of the Responses dialect leaves in the text, between tags or before a closing tag alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council._wire.responses import ResponsesOptions, ResponseStream, decode_response
from llm_council.models import GenerateResponse, join
from llm_council.providers.lmstudio import LMStudioProvider
from llm_council.providers.openai import OpenAIProvider

TAGS = ResponsesOptions(vendor="v", think_tags=True)
CASES = [
    ("hm, 6x7</think>\n\n42", "hm, 6x7", "42"),
    ("<think>hm</think>42", "hm", "42"),
    ("The tag `</think>` ends it.", None, "The tag `</think>` ends it."),
    ("42", None, "42"),
    ("hm</think>", "hm", None),
]


def items(text: str, *, thought: str = "", call: bool = False) -> list[dict[str, Any]]:
    content = [{"type": "reasoning_text", "text": thought}]
    found: list[dict[str, Any]] = [{"type": "reasoning", "id": "rs_1", "summary": [], "content": content}]
    found = found if thought else []
    part = {"type": "output_text", "text": text}
    found.append({"type": "message", "id": "msg_1", "role": "assistant", "content": [part]})
    if call:
        found.append({"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"})
    return found


def reply(output: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": output}


def streamed(output: list[dict[str, Any]], size: int, options: ResponsesOptions = TAGS) -> GenerateResponse:
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": "resp_1", "model": "m"}}]
    for index, item in enumerate(output):
        place = {"output_index": index, "item_id": item["id"]}
        events.append({"type": "response.output_item.added", "item": {**item, "content": []}, **place})
        kinds = {"message": "response.output_text.delta", "reasoning": "response.reasoning_text.delta"}
        text = item["content"][0]["text"] if "content" in item else ""
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        events += [{"type": kinds[item["type"]], "delta": piece, "content_index": 0, **place} for piece in pieces]
        events.append({"type": "response.output_item.done", "item": item, **place})
    events.append({"type": "response.completed", "response": reply(output)})
    reader = ResponseStream(options)
    chunks = []
    for event in events:
        chunks += reader.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return join([*chunks, *reader.finish()])


@pytest.mark.parametrize(("text", "reasoning", "answer"), CASES)
@pytest.mark.parametrize("thought", ["", "First thought."])
def test_a_tag_separates_reasoning_and_answer_in_replies_and_streams(
    text: str, reasoning: str | None, answer: str | None, thought: str
) -> None:
    expected = "\n\n".join(filter(None, (thought, reasoning))) or None
    whole = decode_response(reply(items(text, thought=thought)), TAGS)
    assert (whole.text, whole.reasoning) == (answer, expected)
    for size in (1, 3, 7, 100):
        response = streamed(items(text, thought=thought), size)
        assert (response.text, response.reasoning, response.model) == (answer, expected, "m"), size


@pytest.mark.parametrize("size", [1, 4, 100])
def test_calls_after_the_tag_are_kept(size: int) -> None:
    response = streamed(items("hm</think>I call f.", call=True), size)
    assert (response.text, response.reasoning) == ("I call f.", "hm")
    assert [call.name for call in response.tool_calls] == ["f"]


@pytest.mark.parametrize("size", [1, 100])
def test_a_server_that_separates_reasoning_itself_keeps_the_tag(size: int) -> None:
    text = "hm</think>42"
    plain = ResponsesOptions(vendor="v")
    assert decode_response(reply(items(text)), plain).text == text
    assert streamed(items(text), size, plain).text == text


def test_servers_whose_chat_looks_for_tags_look_for_them_here_too() -> None:
    data = reply(items("hm</think>42"))
    assert LMStudioProvider(api="responses").parse_response(data).text == "42"
    assert OpenAIProvider(api_key="not-a-real-key-000").parse_response(data).text == "hm</think>42"
