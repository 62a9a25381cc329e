"""Recorded replies with a key missing, null or strange: read as before, or refused where the answer itself is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wire_samples import INDEX, SAMPLES, body_of, reply

from llm_council._wire import openai_chat, responses
from llm_council._wire.payloads import dumps
from llm_council.errors import ProviderError
from llm_council.models import GenerateResponse, join
from llm_council.providers import _google, _ollama

pytestmark = pytest.mark.slow

CHAT = (openai_chat.decode_response, openai_chat.ChatStream)
RESPONSES = (responses.decode_response, responses.ResponseStream)
GEMINI = (_google.decode_response, _google.GeminiStream)
DIALECTS: dict[str, tuple[Callable[[Any], GenerateResponse], Callable[[], Any]]] = {
    **dict.fromkeys(("openai_chat", "openrouter", "vllm", "lmstudio_chat", "ollama_openai", "openai_compatible"), CHAT),
    **dict.fromkeys(("openai_responses", "openrouter_responses", "lmstudio_responses"), RESPONSES),
    **dict.fromkeys(("gemini", "vertex_gemini"), GEMINI),
    "ollama_native": (_ollama.decode_response, _ollama.ChatStream),
}
# Where the answer stands; everything else may be missing.
CHAT_WORDS = {"choices", "delta", "message", "content", "finish_reason", "reasoning", "reasoning_content", "refusal"}
CHAT_WORDS |= {"tool_calls", "function", "name", "arguments", "error"}
RESPONSES_WORDS = {"output", "content", "text", "type", "response", "item", "name", "arguments", "summary", "status"}
RESPONSES_WORDS |= {"reason", "incomplete_details", "refusal", "delta"}
GEMINI_WORDS = {"candidates", "content", "parts", "text", "thought", "functionCall", "name", "args", "finishReason"}
GEMINI_WORDS |= {"partialArgs", "jsonPath", "stringValue", "willContinue", "blockReason", "promptFeedback"}
OLLAMA_WORDS = {"message", "content", "thinking", "tool_calls", "function", "name", "arguments", "done", "done_reason"}
WORDS = {CHAT: CHAT_WORDS, RESPONSES: RESPONSES_WORDS, GEMINI: GEMINI_WORDS, DIALECTS["ollama_native"]: OLLAMA_WORDS}


def few(*, streamed: bool) -> list[Any]:
    """Take the first small samples of each wire that hold an answer."""
    found: dict[str, list[Any]] = {}
    for row in INDEX:
        is_answer = row["status"] == 200 and "error" not in row["file"] and "enum_as_int" not in row["kinds"]
        if row["api"] not in DIALECTS or not is_answer or bool(row["body_file"]) is not streamed:
            continue
        rows = found.setdefault(row["api"], [])
        if len(rows) < 2 and SAMPLES.joinpath(row["body_file"] or row["file"]).stat().st_size < 30_000:
            rows.append(row)
    return [pytest.param(row, id=row["file"]) for rows in found.values() for row in rows]


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


GONE = object()


def without(value: Any, key: str, instead: Any) -> Any:
    """Replace what stands under a key, wherever it occurs, or take the key out."""
    if isinstance(value, dict):
        return {
            name: instead if name == key else without(inner, key, instead)
            for name, inner in value.items()
            if name != key or instead is not GONE
        }
    return [without(item, key, instead) for item in value] if isinstance(value, list) else value


def answer_fields(response: GenerateResponse) -> Any:
    calls = [(call.name, call.arguments) for call in response.tool_calls]
    return response.text or "", (response.reasoning or "").strip(), response.refusal, response.finish_reason, calls


def arguments_of(value: Any) -> set[str]:
    """Return the keys of calls' arguments, which are the answer's own."""
    if isinstance(value, dict):
        own = [inner for name, inner in value.items() if name in ("args", "arguments")]
        return set().union(*map(keys, own), *map(arguments_of, value.values()))
    return set().union(*map(arguments_of, value)) if isinstance(value, list) else set()


def assert_tolerant(row: Any, value: Any, read: Callable[[Any], GenerateResponse]) -> None:
    words = WORDS[DIALECTS[row["api"]]] | arguments_of(value)
    before = answer_fields(read(value))
    for key in sorted(keys(value)):
        for instead in (GONE, None, "zork", 7, [], {"zork": [None]}):
            try:
                after = answer_fields(read(without(value, key, instead)))
            except ProviderError:
                assert key in words or instead not in (GONE, None), (key, instead)
            else:
                assert after == before or key in words or instead not in (GONE, None), (key, instead)


@pytest.mark.parametrize("row", few(streamed=False))
def test_a_whole_reply_is_read_whatever_is_missing_beside_the_answer(row: Any) -> None:
    body = reply(row)["body"]
    assert_tolerant(row, body, DIALECTS[row["api"]][0])


def events(body: bytes) -> Iterator[Any]:
    for line in body.splitlines():
        text = line.removeprefix(b"data:").strip()
        if text[:1] == b"{":
            yield json.loads(text)


@pytest.mark.parametrize("row", few(streamed=True))
def test_a_stream_is_read_whatever_is_missing_beside_the_answer(row: Any) -> None:
    begin, end = (b"", b"\n") if row["body_file"].endswith(".ndjson") else (b"data: ", b"\n\n")

    def read(values: list[Any]) -> GenerateResponse:
        stream = DIALECTS[row["api"]][1]()
        chunks = stream.feed(b"".join(begin + dumps(value) + end for value in values))
        return join([*chunks, *stream.finish()])

    assert_tolerant(row, list(events(body_of(row))), read)
