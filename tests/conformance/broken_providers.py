"""A correct provider of the OpenAI dialect, and a family of subclasses with one fault each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import attrs
import httpx

from llm_council.errors import AuthenticationFailed
from llm_council.models import Adjustment, GenerateChunk, GenerateRequest, GenerateResponse, Message, Usage
from llm_council.providers.compatible import OpenAICompatibleProvider
from llm_council.testing.conformance import KEY

MOST_STOPS = 4


class Correct(OpenAICompatibleProvider):
    """Sends at most four stop words, and says so. The hooks are where the broken ones go wrong."""

    name = "correct"
    API_KEY_ENV: ClassVar[str | None] = "CORRECT_KEY"

    def change(self, request: GenerateRequest, *, stream: bool) -> GenerateRequest:
        return request

    def change_response(self, response: GenerateResponse) -> GenerateResponse:
        return response

    def change_chunk(self, chunk: GenerateChunk) -> GenerateChunk:
        return chunk

    def reported(self, changes: tuple[Adjustment, ...], *, stream: bool) -> tuple[Adjustment, ...]:
        return changes

    async def generate(self, request: GenerateRequest) -> GenerateResponse:
        fitted, changes = _fit_stops(self.change(request, stream=False))
        response = await super().generate(fitted)
        changes = response.adjustments + changes
        return self.change_response(attrs.evolve(response, adjustments=self.reported(changes, stream=False)))

    async def stream(self, request: GenerateRequest) -> AsyncIterator[GenerateChunk]:
        fitted, changes = _fit_stops(self.change(request, stream=True))
        yield GenerateChunk(adjustments=self.reported(changes, stream=True))
        chunks = super().stream(fitted)
        try:
            async for chunk in chunks:
                yield self.change_chunk(chunk)
        finally:
            await chunks.aclose()


def _fit_stops(request: GenerateRequest) -> tuple[GenerateRequest, tuple[Adjustment, ...]]:
    if len(request.stop) <= MOST_STOPS:
        return request, ()
    sent = request.stop[:MOST_STOPS]
    change = Adjustment(field="stop", action="lowered", asked=request.stop, sent=sent, reason="at most four")
    return attrs.evolve(request, stop=sent), (change,)


def _with_turns(request: GenerateRequest, turns: list[Message]) -> GenerateRequest:
    return attrs.evolve(request, prompt=None, messages=turns)


# The model


class IgnoresModel(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, model=None)


class StreamIgnoresModel(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, model=None) if stream else request


# The turns of a conversation


class ChangesTurns(Correct):
    """A base: changes each turn; None drops it."""

    def turn(self, turn: Message) -> Message | None:
        return turn

    def change(self, request, *, stream):
        turns = [self.turn(turn) for turn in request.turns()]
        return _with_turns(request, [turn for turn in turns if turn is not None])


class SystemAsUser(ChangesTurns):
    def turn(self, turn):
        return attrs.evolve(turn, role="user") if turn.role == "system" else turn


class AssistantAsUser(ChangesTurns):
    def turn(self, turn):
        plain = turn.role == "assistant" and not turn.tool_calls
        return attrs.evolve(turn, role="user") if plain else turn


class DropsSystem(ChangesTurns):
    def turn(self, turn):
        return None if turn.role == "system" else turn


class StreamDropsSystem(Correct):
    def change(self, request, *, stream):
        turns = [turn for turn in request.turns() if not (stream and turn.role == "system")]
        return _with_turns(request, turns)


class MergesSystemIntoUser(Correct):
    def change(self, request, *, stream):
        first, *rest = request.turns()
        if first.role != "system":
            return request
        return _with_turns(request, [Message("user", f"{first.text} {rest[0].text}"), *rest[1:]])


class SystemLast(Correct):
    def change(self, request, *, stream):
        return _with_turns(request, sorted(request.turns(), key=lambda turn: turn.role == "system"))


# Tools in a conversation


class ChangesResultIds(ChangesTurns):
    def turn(self, turn):
        return attrs.evolve(turn, tool_call_id="call_0") if turn.role == "tool" else turn


class DropsAssistantCalls(ChangesTurns):
    def turn(self, turn):
        return attrs.evolve(turn, tool_calls=()) if turn.tool_calls else turn


class KeepsFirstCall(ChangesTurns):
    def turn(self, turn):
        return attrs.evolve(turn, tool_calls=turn.tool_calls[:1])


class EmptiesArguments(ChangesTurns):
    def turn(self, turn):
        return attrs.evolve(turn, tool_calls=[attrs.evolve(call, arguments="{}") for call in turn.tool_calls])


class DropsResults(ChangesTurns):
    def turn(self, turn):
        return None if turn.role == "tool" else turn


class ResultsAsUser(ChangesTurns):
    def turn(self, turn):
        return Message("user", turn.text) if turn.role == "tool" else turn


class SwapsResultIds(Correct):
    def change(self, request, *, stream):
        turns = list(request.turns())
        places = [place for place, turn in enumerate(turns) if turn.role == "tool"]
        ids = [turns[place].tool_call_id for place in places]
        for place, name in zip(places, reversed(ids), strict=True):
            turns[place] = attrs.evolve(turns[place], tool_call_id=name)
        return _with_turns(request, turns)


# Offers of tools, and calls that come back


class DropsToolChoice(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, tool_choice=None)


class ChoosesAuto(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, tool_choice="auto") if request.tool_choice else request


class StreamDropsToolChoice(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, tool_choice=None) if stream else request


class DropsDescriptions(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, tools=[attrs.evolve(tool, description=None) for tool in request.tools])


class DropsParameters(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, tools=[attrs.evolve(tool, parameters={}) for tool in request.tools])


class OffersFirstTool(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, tools=request.tools[:1])


class MergesParallelCalls(Correct):
    def change_response(self, response):
        return attrs.evolve(response, tool_calls=response.tool_calls[:1])

    def change_chunk(self, chunk):
        return attrs.evolve(chunk, tool_calls=[attrs.evolve(delta, index=0) for delta in chunk.tool_calls])


class StreamMergesParallelCalls(Correct):
    def change_chunk(self, chunk):
        return attrs.evolve(chunk, tool_calls=[attrs.evolve(delta, index=0) for delta in chunk.tool_calls])


class OneIdForAllCalls(Correct):
    def change_response(self, response):
        return attrs.evolve(response, tool_calls=[attrs.evolve(call, id="call_1") for call in response.tool_calls])


class LosesTextBesideCalls(Correct):
    def change_response(self, response):
        return attrs.evolve(response, text=None, content=None) if response.tool_calls else response


# Token counts


class LosesUsageDetail(Correct):
    """A base: loses one count."""

    lost: ClassVar[str] = "cached_tokens"

    def change_response(self, response):
        return attrs.evolve(response, usage=response.usage and attrs.evolve(response.usage, **{self.lost: None}))

    def change_chunk(self, chunk):
        return attrs.evolve(chunk, usage=chunk.usage and attrs.evolve(chunk.usage, **{self.lost: None}))


class LosesCachedTokens(LosesUsageDetail):
    pass


class LosesReasoningTokens(LosesUsageDetail):
    lost = "reasoning_tokens"


class StreamLosesCachedTokens(LosesUsageDetail):
    def change_response(self, response):
        return response


class CountsCachedTokensBeside(Correct):
    def change_response(self, response):
        usage = response.usage or Usage()
        if usage.input_tokens is None or usage.cached_tokens is None:
            return response
        return attrs.evolve(response, usage=attrs.evolve(usage, input_tokens=usage.input_tokens - usage.cached_tokens))


# Sampling parameters and adjustments


class ClampsTemperature(Correct):
    def change(self, request, *, stream):
        return (
            request if request.temperature is None else attrs.evolve(request, temperature=min(request.temperature, 1))
        )


class ClampsMaxTokens(Correct):
    def change(self, request, *, stream):
        return (
            request if request.max_tokens is None else attrs.evolve(request, max_tokens=min(request.max_tokens, 4096))
        )


class DropsZero(Correct):
    """Takes a temperature of 0 for none."""

    def change(self, request, *, stream):
        return attrs.evolve(request, temperature=request.temperature or None)


class DropsSmallTopP(Correct):
    def change(self, request, *, stream):
        return request if request.top_p is None else attrs.evolve(request, top_p=max(request.top_p, 0.1))


class CutsStopsSilently(Correct):
    def reported(self, changes, *, stream):
        return ()


class StreamReportsNoAdjustments(Correct):
    def reported(self, changes, *, stream):
        return () if stream else changes


class WholeReportsNoAdjustments(Correct):
    def reported(self, changes, *, stream):
        return changes if stream else ()


class StreamDropsTopP(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, top_p=None) if stream else request


class StreamReversesTurns(Correct):
    def change(self, request, *, stream):
        return _with_turns(request, list(reversed(request.turns()))) if stream else request


class DropsExtra(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, extra={})


class DropsStops(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, stop=())


class DropsReasoning(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, reasoning=None)


class StreamDropsReasoning(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, reasoning=None) if stream else request


class DropsSchema(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, structured_output=None)


class StreamDropsSchema(Correct):
    def change(self, request, *, stream):
        return attrs.evolve(request, structured_output=None) if stream else request


class DropsImages(ChangesTurns):
    def turn(self, turn):
        return attrs.evolve(turn, content=turn.text)


class LosesFinishReason(Correct):
    def change_response(self, response):
        return attrs.evolve(response, finish_reason="stop")


# Clients and identities


class OpensClientPerCall(Correct):
    async def generate(self, request):
        client = httpx.AsyncClient()
        client.build_request("GET", self.base_url)
        return await super().generate(request)


class NoCacheIdentity(Correct):
    def cache_identity(self):
        return f"{type(self).__name__}:{self.name}"


class CacheIdentityWithoutModel(Correct):
    def cache_identity(self):
        return f"{type(self).__name__}:{self.base_url}"


class RandomCacheIdentity(Correct):
    numbers: ClassVar[Any] = itertools.count()

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.number = next(self.numbers)

    def cache_identity(self):
        return f"{super().cache_identity()}:{self.number}"


# The key


class AsksFirst(Correct):
    """A base: asks first whether the key is good, with a client of its own; its error holds no key."""

    async def generate(self, request):
        if self.is_refused(await self.ask(request)):
            raise AuthenticationFailed("the key was refused")
        return await super().generate(request)

    async def ask(self, request):
        async with httpx.AsyncClient() as client:
            return await client.get(f"{self.base_url}/models", headers={"Authorization": f"Bearer {KEY}"})

    def is_refused(self, reply):
        return reply.status_code == 401


class KeyInParsedBody(AsksFirst):
    """Holds the parsed body of a refusal, which repeats the key, in a variable while it raises."""

    async def generate(self, request):
        reply = await self.ask(request)
        if self.is_refused(reply):
            body = reply.json()
            raise AuthenticationFailed("the key was refused", code=body["error"]["code"])
        return await super().generate(request)


class KeyInAttribute(AsksFirst):
    """Puts the parsed body of a refusal on the error."""

    async def generate(self, request):
        reply = await self.ask(request)
        if self.is_refused(reply):
            error = AuthenticationFailed("the key was refused")
            error.details = reply.json()
            raise error
        return await super().generate(request)


class StreamKeyInParsedBody(Correct):
    async def stream(self, request):
        async with httpx.AsyncClient() as client:
            reply = await client.get(f"{self.base_url}/models", headers={"Authorization": f"Bearer {KEY}"})
        if reply.status_code == 401:
            body = reply.json()
            raise AuthenticationFailed("the key was refused", code=body["error"]["code"])
        async for chunk in super().stream(request):
            yield chunk


FAULTS: dict[type[Correct], str] = {
    IgnoresModel: "model",
    StreamIgnoresModel: "model",
    SystemAsUser: "roles",
    AssistantAsUser: "roles",
    DropsSystem: "conversation",
    StreamDropsSystem: "roles",
    MergesSystemIntoUser: "roles",
    SystemLast: "roles",
    StreamReversesTurns: "same_request",
    ChangesResultIds: "tool_history",
    SwapsResultIds: "tool_history",
    DropsAssistantCalls: "tool_history",
    KeepsFirstCall: "tool_history",
    EmptiesArguments: "tool_history",
    DropsResults: "tool_history",
    ResultsAsUser: "tool_history",
    DropsToolChoice: "tool_offers",
    ChoosesAuto: "tool_offers",
    StreamDropsToolChoice: "tool_offers",
    DropsDescriptions: "tool_offers",
    DropsParameters: "tool_offers",
    OffersFirstTool: "tool_offers",
    MergesParallelCalls: "parallel_calls",
    StreamMergesParallelCalls: "parallel_calls",
    OneIdForAllCalls: "parallel_calls",
    LosesCachedTokens: "usage_details",
    LosesReasoningTokens: "usage_details",
    StreamLosesCachedTokens: "usage_details",
    CountsCachedTokensBeside: "usage_details",
    ClampsTemperature: "silent_changes",
    ClampsMaxTokens: "silent_changes",
    DropsZero: "silent_changes",
    DropsSmallTopP: "silent_changes",
    CutsStopsSilently: "silent_changes",
    StreamReportsNoAdjustments: "same_request",
    WholeReportsNoAdjustments: "same_request",
    StreamDropsTopP: "same_request",
    LosesTextBesideCalls: "parallel_calls",
    DropsExtra: "extra",
    DropsStops: "knobs",
    DropsReasoning: "reasoning",
    StreamDropsReasoning: "same_request",
    DropsSchema: "schema",
    StreamDropsSchema: "same_request",
    DropsImages: "images",
    LosesFinishReason: "finish",
    OpensClientPerCall: "clients",
    NoCacheIdentity: "cache_identity",
    CacheIdentityWithoutModel: "cache_identity",
    RandomCacheIdentity: "cache_identity",
    KeyInParsedBody: "secrets",
    KeyInAttribute: "secrets",
    StreamKeyInParsedBody: "secrets",
}
