"""An answer that Gemini sends in several replies, each with a token that asks for the next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_council.errors import RateLimited, TruncatedReply
from llm_council.models import GenerateRequest, GenerateResponse, StructuredOutput, join
from llm_council.providers._http.continuation import MOST_REPLIES
from llm_council.providers.base import call, stream
from llm_council.providers.gemini import GeminiProvider

pytestmark = pytest.mark.anyio

SHAPED = StructuredOutput(json_schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})


def frame(*parts: Any, token: str | None = None, finish: str | None = "STOP", **facts: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, **facts}
    if finish is not None:
        candidate["finishReason"] = finish
    if token is not None:
        candidate["continuationToken"] = token
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "thoughtsTokenCount": 1}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-x"}


def going_on(*parts: Any, token: str | None, **facts: Any) -> dict[str, Any]:
    return frame(*parts, token=token, finish="CONTINUATION", **facts)


@pytest.fixture
def at(vendor: Any, monkeypatch: pytest.MonkeyPatch) -> GeminiProvider:
    monkeypatch.setenv("GEMINI_API_KEY", "AIza-test-key-0123456789012345")
    return GeminiProvider(base_url=vendor.url.removesuffix("/v1"))


def serve(vendor: Any, *replies: Any) -> None:
    """Answer with one reply after the other, as a stream where one is asked for; the last one is repeated."""
    left = list(replies)

    def script(exchange: Any) -> None:
        reply = left.pop(0) if len(left) > 1 else left[0]
        frames = reply if isinstance(reply, list) else [reply]
        if "stream" not in exchange.path:
            exchange.say(frames)
            return
        exchange.begin_stream()
        for value in frames:
            exchange.send(b"data: " + json.dumps(value).encode() + b"\r\n\r\n")
        exchange.wfile.write(b"0\r\n\r\n")

    vendor.script = script


async def answer(provider: GeminiProvider, request: GenerateRequest, streamed: bool) -> GenerateResponse:
    async with provider:
        if not streamed:
            return await call(provider, request)
        return join([chunk async for chunk in stream(provider, request)])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
class TestContinuation:
    async def test_the_rest_is_asked_for_with_the_token(
        self, at: GeminiProvider, vendor: Any, ask: GenerateRequest, streamed: bool
    ) -> None:
        chosen = {"chosenCandidates": [{"token": "x"}]}
        serve(
            vendor,
            going_on({"text": "The answer ", "thoughtSignature": "c2ln"}, token="dDE=", logprobsResult=chosen),
            going_on({"text": "is "}, token="dDI="),
            frame({"text": "42."}, logprobsResult=chosen),
        )
        response = await answer(at, ask, streamed)
        assert (response.text, response.finish_reason, response.raw_finish_reason) == (
            "The answer is 42.",
            "stop",
            "STOP",
        )
        assert response.usage is not None
        assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.reasoning_tokens) == (
            15,
            9,
            3,
        )
        assert "continuationToken" not in response.extra
        assert len(response.extra["logprobsResult"]["chosenCandidates"]) == 2
        assert [part.signature for part in response.reasoning_parts] == ["c2ln"]
        first, second, third = (dict(seen.body) for seen in vendor.seen)
        assert "continuationToken" not in first
        assert (second.pop("continuationToken"), third.pop("continuationToken")) == ("dDE=", "dDI=")
        assert first == second == third
        assert len({seen.path for seen in vendor.seen}) == 1

    async def test_calls_of_several_replies_are_numbered_on(
        self, at: GeminiProvider, vendor: Any, ask: GenerateRequest, streamed: bool
    ) -> None:
        one, two = ({"functionCall": {"name": name, "args": {}}} for name in ("one", "two"))
        serve(vendor, going_on(one, token="dDE="), frame(two))
        response = await answer(at, ask, streamed)
        assert [call.name for call in response.tool_calls] == ["one", "two"]
        assert response.finish_reason == "tool_calls"
        assert len({call.id for call in response.tool_calls}) == 2

    async def test_the_whole_answer_is_held_to_the_schema(
        self, at: GeminiProvider, vendor: Any, streamed: bool
    ) -> None:
        serve(vendor, going_on({"text": '{"a": "x'}, token="dDE="), frame({"text": 'y"}'}))
        response = await answer(at, GenerateRequest(prompt="x", structured_output=SHAPED), streamed)
        assert (response.text, response.adjustments) == ('{"a": "xy"}', ())

    @pytest.mark.parametrize("token", [None, "dDE="], ids=["no token", "the same token"])
    async def test_an_answer_that_cannot_be_continued_was_cut(
        self, at: GeminiProvider, vendor: Any, ask: GenerateRequest, streamed: bool, token: str | None
    ) -> None:
        serve(vendor, going_on({"text": "4"}, token=token))
        response = await answer(at, ask, streamed)
        assert (response.finish_reason, response.raw_finish_reason) == ("length", "CONTINUATION")
        assert response.extra.get("continuationToken") == token
        assert len(vendor.seen) == (1 if token is None else 2)

    @pytest.mark.slow
    async def test_the_number_of_replies_is_bounded(
        self, at: GeminiProvider, vendor: Any, ask: GenerateRequest, streamed: bool
    ) -> None:
        serve(vendor, *(going_on({"text": "x"}, token=f"t{number}") for number in range(2 * MOST_REPLIES)))
        response = await answer(at, ask, streamed)
        assert (response.text, response.finish_reason) == ("x" * MOST_REPLIES, "length")
        assert len(vendor.seen) == MOST_REPLIES
        assert response.extra["continuationToken"] == f"t{MOST_REPLIES - 1}"

    async def test_a_refused_continuation_raises(
        self, at: GeminiProvider, vendor: Any, ask: GenerateRequest, streamed: bool
    ) -> None:
        serve(vendor, going_on({"text": "4"}, token="dDE="))
        whole = vendor.script

        def script(exchange: Any) -> None:
            if len(vendor.seen) == 1:
                whole(exchange)
            else:
                exchange.say({"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}}, status=429)

        vendor.script = script
        with pytest.raises(RateLimited):
            await answer(at, ask, streamed)

    async def test_sources_and_offsets_are_counted_from_the_beginning_of_the_answer(
        self, at: GeminiProvider, vendor: Any, ask: GenerateRequest, streamed: bool
    ) -> None:
        def grounded(*sources: str, start: int | None, end: int, chunks: list[int]) -> dict[str, Any]:
            segment = {"endIndex": end} if start is None else {"startIndex": start, "endIndex": end}
            support = {"segment": segment, "groundingChunkIndices": chunks}
            listed = [{"web": {"uri": uri}} for uri in sources]
            return {
                "groundingMetadata": {"groundingChunks": listed, "groundingSupports": [support]},
                "citationMetadata": {"citationSources": [dict(segment)]},
            }

        serve(
            vendor,
            going_on({"text": "Né. "}, token="dDE=", **grounded("a", "b", start=None, end=3, chunks=[1])),
            going_on({"text": "Or "}, token="dDI=", **grounded("c", start=None, end=2, chunks=[0])),
            frame({"text": "no."}, **grounded("d", start=1, end=2, chunks=[0])),
        )
        response = await answer(at, ask, streamed)
        grounding = response.extra["groundingMetadata"]
        assert [chunk["web"]["uri"] for chunk in grounding["groundingChunks"]] == ["a", "b", "c", "d"]
        assert [support["groundingChunkIndices"] for support in grounding["groundingSupports"]] == [[1], [2], [3]]
        cited = response.extra["citationMetadata"]["citationSources"]
        spans = [(span.get("startIndex", 0), span["endIndex"]) for span in cited]
        assert spans == [(0, 3), (5, 7), (9, 10)]  # in bytes: the first reply has five of them
        assert [support["segment"]["endIndex"] for support in grounding["groundingSupports"]] == [3, 7, 10]


async def test_a_token_before_the_end_of_a_stream_counts(at: GeminiProvider, vendor: Any, ask: GenerateRequest) -> None:
    serve(vendor, [frame({"text": "4"}, finish=None, token="dDE="), going_on(token=None)], frame({"text": "2"}))
    response = await answer(at, ask, streamed=True)
    assert (response.text, response.finish_reason) == ("42", "stop")
    assert response.usage is not None
    assert response.usage.input_tokens == 10  # of a reply, the last count holds; of an answer, the sum


async def test_a_stream_that_is_cut_in_its_second_reply_is_truncated(
    at: GeminiProvider, vendor: Any, ask: GenerateRequest
) -> None:
    serve(vendor, going_on({"text": "4"}, token="dDE="), frame({"text": "2"}, finish=None))
    with pytest.raises(TruncatedReply):
        await answer(at, ask, streamed=True)
