"""Promises about requests: the vendor reads what the caller asked for, whole and in a stream, or hears why not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from llm_council.errors import ConfigurationError, InvalidOption, MalformedReply
from llm_council.models import (
    FinishReason,
    GenerateRequest,
    GenerateResponse,
    Message,
    ReasoningConfig,
    StructuredOutput,
    Tool,
    ToolCall,
)
from llm_council.providers.base import call
from llm_council.testing.conformance._base import ASK, TEXT, ConformanceBase, call_streamed
from llm_council.testing.conformance._promises import Player, fail, promise
from llm_council.testing.servers import Asked

__all__ = ["Requests"]

_WAYS = (("generate", call), ("stream", call_streamed))
_TURNS = (
    Message("system", "Speak as turn-one."),
    Message("user", "This is turn-two."),
    Message("assistant", "This was turn-three."),
    Message("user", "And here is turn-four."),
)
_TOOL = Tool(
    name="get_weather",
    description="Tell the weather, described-7.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "description": "The city, described-8."}},
        "required": ["city"],
    },
)
_OTHER = Tool(name="get_time", description="Tell the time, described-9.", parameters=_TOOL.parameters)
# Two calls of one tool, so that a result can be matched with its call only by its id or its place.
_CALLS = (
    ToolCall(id="call_7", name="get_weather", arguments='{"city": "Oslo"}'),
    ToolCall(id="call_8", name="get_weather", arguments='{"city": "Bergen"}'),
)
_RESULTS = {"call_7": "Rain, result-seven", "call_8": "Sun, result-eight"}
_HISTORY = (
    *ASK.turns(),
    Message("assistant", "", tool_calls=_CALLS),
    *(Message("tool", text, tool_call_id=name, name="get_weather") for name, text in _RESULTS.items()),
)
# Values that the caller may set, and that some models or vendors refuse: each is sent, or reported as adjusted.
_EXTREMES: tuple[dict[str, Any], ...] = (
    {"temperature": 1.875},
    {"temperature": 0.0},
    {"top_p": 0.015625},
    {"max_tokens": 7_654_321},
    {"stop": ("HALT1", "HALT2", "HALT3", "HALT4", "HALT5", "HALT6")},
)
# What a request says in both ways. The others are fields of the transport or of one dialect.
_SAID = (
    "model",
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "tools",
    "tool_choice",
    "reasoning",
    "structured_output",
)


class Requests(ConformanceBase):
    """The vendor reads what the caller asked for, whole and in a stream."""

    @promise("the model of a request is the model that is asked")
    async def test_model(self) -> None:
        """Ask for a model that is not the default."""
        # Of the shape of the default: some vendors choose the address by the family of the model.
        model = f"{self.model or 'model'}-asked-7"
        async with self.stage(TEXT) as stage:
            for way, ask in _WAYS:
                try:
                    await ask(stage.adapter, attrs.evolve(ASK, model=model))
                except ConfigurationError:
                    if stage.vendor.calls:
                        raise
                    continue  # it knows all of its models, and does not answer with another
                asked = _last_call(stage.vendor)
                if not (asked.holds("asked-7") or "asked-7" in asked.path):
                    fail(f"{way} did not send the model of the request: send request.model, and the default if None")

    @promise("the turns of a conversation keep their roles and their order")
    async def test_roles(self) -> None:
        """Send four turns, and read them as the vendor does."""
        async with self.stage(TEXT) as stage:
            for way, ask in _WAYS:
                await ask(stage.adapter, GenerateRequest(messages=_TURNS))
                turns = _read_turns(stage.vendor)
                words = [turn.text.split()[-1].rstrip(".") for turn in _TURNS]
                if _is_one_prompt(turns, words[1:]):
                    continue
                for expected, word in zip(_TURNS, words, strict=True):
                    roles = [str(turn.role) for turn in turns if word in turn.text]
                    # OpenAI calls the instructions of newer models those of the developer.
                    allowed = ("system", "developer") if expected.role == "system" else (expected.role,)
                    if len(roles) != 1 or roles[0] not in allowed:
                        found = " and ".join(roles) or "not at all"
                        fail(f"{way} sent the {expected.role} turn {found}: send each turn once, by turn.role")
                sent = [word for turn in turns for word in words if word in turn.text]
                if sent != words:
                    fail(f"{way} sent the turns as {', '.join(sent)}: send request.turns() in its order")

    @promise("a tool is offered with its description and parameters, and tool_choice is sent or adjusted")
    async def test_tool_offers(self) -> None:
        """Offer two tools with descriptions, under every choice."""
        async with self.stage(TEXT) as stage:
            if not stage.adapter.capabilities.tool_use:
                return
            request = attrs.evolve(ASK, tools=[_TOOL, _OTHER])
            for way, ask in _WAYS:
                await ask(stage.adapter, request)
                plain = _last_call(stage.vendor)
                for word, what in (
                    ("described-7", "the description of a tool"),
                    ("described-9", "the description of the second tool"),
                    ("described-8", "the description of a tool's parameter"),
                    ("city", "the parameters of a tool"),
                ):
                    if not plain.holds(word):
                        fail(f"{way} did not send {what}: send name, description and parameters of each tool")
                for choice in ("required", "none", "get_time"):
                    response = await ask(stage.adapter, attrs.evolve(request, tool_choice=choice))
                    asked = _last_call(stage.vendor)
                    if "tool_choice" in _adjusted(response):
                        continue
                    read = _read(stage.vendor, asked)
                    understood = read.tool_choice if read is not None else None
                    if asked.body == plain.body or understood not in (None, choice):
                        fail(f"{way} did not send tool_choice={choice!r}: send it or report an Adjustment of it")

    @promise("the tool calls of a conversation and their results reach the vendor, matched by their ids")
    async def test_tool_history(self) -> None:
        """Send two calls of one tool and both results."""
        async with self.stage(TEXT) as stage:
            if not stage.adapter.capabilities.tool_use:
                return
            for way, ask in _WAYS:
                await ask(stage.adapter, GenerateRequest(messages=_HISTORY, tools=[_TOOL]))
                asked = _last_call(stage.vendor)
                for word in ("Oslo", "Bergen"):
                    if not asked.holds(word):
                        fail(f"{way} dropped a tool call of an assistant turn: send turn.tool_calls")
                for text in _RESULTS.values():
                    if not asked.holds(text):
                        fail(f"{way} dropped the result of a tool call: send every turn of the role tool")
                turns = _read_turns(stage.vendor)
                if not _is_one_prompt(turns, list(_RESULTS.values())):
                    _require_matched(way, turns)

    @promise("parallel tool calls are returned one by one, with ids of their own and the text beside them")
    async def test_parallel_calls(self) -> None:
        """Let the vendor call one tool twice and another once."""
        calls = [*_CALLS, ToolCall(id="call_9", name="get_time", arguments='{"city": "Narvik"}')]
        said = GenerateResponse(text="I look, beside-7.", tool_calls=calls, finish_reason=FinishReason.TOOL_CALLS)
        declared = getattr(self.provider, "capabilities", None)
        async with self.stage(said if getattr(declared, "tool_use", True) is True else TEXT) as stage:
            if not stage.adapter.capabilities.tool_use:
                return
            for way, ask in _WAYS:
                response = await ask(stage.adapter, attrs.evolve(ASK, tools=[_TOOL, _OTHER]))
                back = [(found.name, found.arguments and found.parse()) for found in response.tool_calls]
                expected = [(found.name, found.parse()) for found in calls]
                if back != expected:
                    fail(
                        f"{way} returned the {len(calls)} parallel calls as {back!r}: return one ToolCall for each;"
                        " the pieces of a stream belong together by their index"
                    )
                if "beside-7" not in (response.text or ""):
                    fail(f"{way} lost the text beside the tool calls: return both, text and tool_calls")
                if len({found.id for found in response.tool_calls}) < len(calls):
                    fail(f"{way} returned parallel calls with one id: give each ToolCall the vendor's id, or a new one")

    @promise("an unusual value is sent unchanged, or an adjustment reports what was sent")
    async def test_silent_changes(self) -> None:
        """Set values that are large, small or many."""
        async with self.stage(TEXT) as stage:
            for fields in _EXTREMES:
                ((field, value),) = fields.items()
                for way, ask in _WAYS:
                    response = await ask(stage.adapter, attrs.evolve(ASK, **fields))
                    asked = _last_call(stage.vendor)
                    values = value if isinstance(value, tuple) else (value,)
                    if field not in _adjusted(response) and not all(asked.holds(one) for one in values):
                        fail(f"{way} changed {field}={value!r} silently: send it, or report an Adjustment of {field}")

    @promise("a stream sends the same request and reports the same adjustments as a whole answer")
    async def test_same_request(self) -> None:
        """Compare what the vendor reads, and what the answers report."""
        asks = [
            GenerateRequest(messages=_TURNS),
            attrs.evolve(ASK, temperature=0.25, top_p=0.75, max_tokens=77, stop="HALT7"),
            attrs.evolve(ASK, reasoning=ReasoningConfig(effort="high")),
            *(attrs.evolve(ASK, **fields) for fields in _EXTREMES),
        ]
        async with self.stage(TEXT) as stage:
            if stage.adapter.capabilities.tool_use:
                asks.append(attrs.evolve(ASK, tools=[_TOOL], tool_choice="required"))
            if stage.adapter.capabilities.structured_output:
                asks.append(attrs.evolve(ASK, structured_output=StructuredOutput(json_schema=_TOOL.parameters)))
            for request in asks:
                reported, read = [], []
                for _, ask in _WAYS:
                    reported.append(_adjusted(await ask(stage.adapter, request)))
                    read.append(_read(stage.vendor, _last_call(stage.vendor)))
                if reported[0] != reported[1]:
                    names = ", ".join(sorted(reported[0] ^ reported[1]))
                    one = "stream" if reported[0] - reported[1] else "generate"
                    fail(f"{one} reports no adjustment of {names}: put it into the first GenerateChunk, too")
                whole, streamed = read
                if whole is None or streamed is None:
                    continue
                for field in _SAID:
                    if getattr(whole, field) != getattr(streamed, field):
                        fail(f"stream sent another {field} than generate: build both requests by one function")
                if [(turn.role, turn.text) for turn in whole.turns()] != [
                    (turn.role, turn.text) for turn in streamed.turns()
                ]:
                    fail("stream sent other turns than generate: build both requests by one function")


def _last_call(vendor: Player) -> Asked:
    # A request without a body follows up on a call: Replicate streams an answer from an address of its own.
    asked = [call for call in vendor.calls if call.body] or vendor.calls
    if not asked:
        fail("no request reached the vendor: call it in generate and stream")
    return asked[-1]


def _read(vendor: Player, asked: Asked) -> GenerateRequest | None:
    """Return a call as the vendor's dialect reads it; None if the stand-in has no dialect."""
    read = getattr(vendor, "read", None)
    if read is None:
        return None
    try:
        found: GenerateRequest | None = read(asked)
    except (MalformedReply, InvalidOption) as error:
        fail(f"the vendor cannot read the request ({error}): write it in the vendor's dialect")
    return found


def _read_turns(vendor: Player) -> tuple[Message, ...]:
    read = _read(vendor, _last_call(vendor))
    # A stand-in without a dialect shows only texts.
    return () if read is None else read.turns()


def _is_one_prompt(turns: Sequence[Message], words: Sequence[str]) -> bool:
    """Return True if the conversation is written into one prompt, as programs and completion models take it."""
    return not turns or any(all(word in turn.text for word in words) for turn in turns)


def _adjusted(response: GenerateResponse) -> frozenset[str]:
    return frozenset(change.field for change in response.adjustments)


def _require_matched(way: str, turns: Sequence[Message]) -> None:
    """Fail unless each result of a tool follows its call, and refers to it."""
    calls = [found for turn in turns for found in turn.tool_calls]
    if [found.arguments and found.parse() for found in calls] != [found.parse() for found in _CALLS]:
        fail(f"{way} dropped or changed a tool call of an assistant turn: send each of turn.tool_calls in its order")
    results = [turn for turn in turns if turn.role == "tool"]
    if [turn.text for turn in results] != list(_RESULTS.values()):
        fail(f"{way} sent the results of tools as other turns, or in another order: send each as a turn of the tool")
    for found, result in zip(calls, results, strict=True):
        # A dialect without ids matches by name and place.
        if result.tool_call_id is not None and result.tool_call_id != found.id:
            fail(f"{way} sent the result of the call {found.id!r} for {result.tool_call_id!r}: send turn.tool_call_id")
