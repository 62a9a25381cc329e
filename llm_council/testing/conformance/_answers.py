"""Promises about answers: the request reaches the vendor, and the vendor's answer comes back."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs

from llm_council.errors import CapabilityMissing, ProviderError, TruncatedReply
from llm_council.models import (
    AudioPart,
    DocumentPart,
    FinishReason,
    GenerateChunk,
    GenerateRequest,
    GenerateResponse,
    ImagePart,
    Message,
    ProviderCapabilities,
    ReasoningConfig,
    StructuredOutput,
    TextPart,
    Tool,
    ToolCall,
    Usage,
)
from llm_council.providers._call import returns
from llm_council.providers.base import ProviderAdapter, call, stream
from llm_council.testing.conformance._base import ASK, ODD_TEXT, TEXT, ConformanceBase, both_ways, call_streamed
from llm_council.testing.conformance._promises import Player, fail, promise
from llm_council.testing.servers import Edited, Hang

__all__ = ["Answers"]

_WEATHER = Tool(
    name="get_weather",
    description="Tell the weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
_SCHEMA = {
    "type": "object",
    "properties": {"verdict_word": {"type": "string"}},
    "required": ["verdict_word"],
    "additionalProperties": False,
}
# A PNG of one pixel, in base64.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_DOCUMENT = base64.b64encode(b"%PDF-1.7 of the kit").decode()
_SOUND = base64.b64encode(b"RIFF of the kit").decode()
# The names of sampling parameters in every dialect of the kit.
_SAMPLING = {"temperature", "top_p", "topP", "p", "k", "top_k", "topK", "stop", "stop_sequences", "stopSequences"}
# Numbers that appear nowhere else in a reply, so that finding one means that the dialect has the count.
_DETAILS: dict[str, Any] = {"cached_tokens": 1973, "cache_write_tokens": 517, "reasoning_tokens": 1031}


class Answers(ConformanceBase):
    """The request reaches the vendor, and the vendor's answer comes back."""

    @promise("generate returns a response, a string, or an async iterator of these")
    async def test_returns(self) -> None:
        """Look at what ``generate`` returns before ``call`` converts it."""
        async with self.stage(TEXT) as stage:
            for request in (ASK, attrs.evolve(ASK, stream=True)):
                value = await returns.invoke(stage.adapter.generate, request)
                if hasattr(value, "__aiter__"):
                    for item in [item async for item in value]:
                        _require_answer(item, "yielded")
                else:
                    _require_answer(value, "returned")

    @promise("the vendor's text is the answer, whole and as a stream")
    async def test_answers(self) -> None:
        """Compare the text, with characters in it that some line splitters take for a line end."""
        async with self.stage(TEXT) as stage:
            for response in await both_ways(stage.adapter):
                if response.text != TEXT:
                    fail(
                        f"the vendor sent {TEXT!r}, but the adapter returned {response.text!r}:"
                        " return its text unchanged, decoded as UTF-8"
                    )
            stage.vendor.said = ODD_TEXT
            for ask in (call, call_streamed):
                try:
                    found = repr((await ask(stage.adapter, ASK)).text)
                except ProviderError as error:
                    found = f"{type(error).__name__}: {error.message}"
                if found != repr(ODD_TEXT):
                    hint = "split lines at \\n only; httpx's aiter_lines() also splits them at U+2028"
                    fail(f"the vendor sent {ODD_TEXT!r}, with U+2028 in it, but the adapter returned {found}: {hint}")

    @promise(
        "every message of a conversation reaches the vendor, the system message too",
        remedy="send each of request.turns(), with its role",
    )
    async def test_conversation(self) -> None:
        """Send four turns."""
        # Words that no vendor's default prompt contains, so that finding them means that the turn was sent.
        turns = [
            Message("system", "Speak as turn-one."),
            Message("user", "This is turn-two."),
            Message("assistant", "This was turn-three."),
            Message("user", "And here is turn-four."),
        ]
        async with self.stage(TEXT) as stage:
            await call(stage.adapter, GenerateRequest(messages=turns))
            for word in ("turn-one", "turn-two", "turn-three", "turn-four"):
                _require_sent(stage.vendor, word, f"the turn with {word!r}")

    @promise(
        "a sampling parameter is sent if it is set, or an adjustment reports why not; none is sent unset",
        remedy="send each parameter that is not None, and no other; report an Adjustment of one that you leave out",
    )
    async def test_knobs(self) -> None:
        """Call with no sampling parameter, then with all of them."""
        values: dict[str, Any] = {"temperature": 0.25, "top_p": 0.75, "max_tokens": 77, "stop": "HALT7"}
        async with self.stage(TEXT) as stage:
            await call(stage.adapter, ASK)
            unset = _SAMPLING & _keys(stage.vendor.calls[-1].json)
            if unset:
                fail(f"{', '.join(sorted(unset))} was sent, but the request does not set it")
            response = await call(stage.adapter, attrs.evolve(ASK, **values))
            adjusted = {change.field for change in response.adjustments}
            for field, value in values.items():
                if field not in adjusted:
                    _require_sent(stage.vendor, value, f"{field}={value!r}")

    @promise(
        "the fields of a request's extra are sent unchanged, and its metadata is not sent",
        remedy="merge request.extra into what you send, and leave metadata out",
    )
    async def test_extra(self) -> None:
        """Send one ``extra`` field and one ``metadata`` field."""
        async with self.stage(TEXT) as stage:
            await call(stage.adapter, attrs.evolve(ASK, metadata={"note": "meta-7"}, extra={"x_house": "extra-7"}))
            _require_sent(stage.vendor, "extra-7", "extra={'x_house': 'extra-7'}")
            if stage.vendor.calls[-1].holds("meta-7"):
                fail("the request's metadata was sent")

    @promise(
        "tools and their results reach the vendor, and its calls are returned; without tool_use nothing is sent",
        remedy="send request.tools and the turns of tools, and return each ToolCall; else declare tool_use=False",
    )
    async def test_tools(self) -> None:
        """Offer a tool, let the vendor call it, and send its result."""
        calls = [ToolCall(id="call_7", name="get_weather", arguments='{"city": "Oslo"}')]
        said = GenerateResponse(tool_calls=calls, finish_reason=FinishReason.TOOL_CALLS)
        request = attrs.evolve(ASK, tools=[_WEATHER])
        declared = getattr(self.provider, "capabilities", None)
        async with self.stage(said if getattr(declared, "tool_use", True) is True else TEXT) as stage:
            if not stage.adapter.capabilities.tool_use:
                await _require_refusal(stage.adapter, stage.vendor, request, "tools")
                return
            for response in await both_ways(stage.adapter, request):
                _require_sent(stage.vendor, "get_weather", "the tool 'get_weather'")
                back = [(found.name, found.parse()) for found in response.tool_calls]
                if back != [("get_weather", {"city": "Oslo"})]:
                    fail(f"the vendor called get_weather(city='Oslo'), but the adapter returned the calls {back!r}")
            turn = response.to_message()
            result = Message("tool", "Rain, 7 degrees", tool_call_id=turn.tool_calls[0].id, name="get_weather")
            stage.vendor.said = TEXT
            await call(stage.adapter, GenerateRequest(messages=[*ASK.turns(), turn, result], tools=[_WEATHER]))
            _require_sent(stage.vendor, "Rain, 7 degrees", "the tool's result")

    @promise(
        "a schema reaches the vendor, natively or in the prompt, and the JSON is returned",
        remedy="send structured_output.json_schema and return the JSON, or declare structured_output=False",
    )
    async def test_schema(self) -> None:
        """Call with a schema."""
        async with self.stage('{"verdict_word": "yes"}') as stage:
            request = attrs.evolve(ASK, structured_output=StructuredOutput(json_schema=_SCHEMA))
            response = await call(stage.adapter, request)
            _require_sent(stage.vendor, "verdict_word", "the schema's 'verdict_word'")
            value = response.structured
            # An adapter may return the text and leave the parsing to the engine.
            if value is None:
                value = json.loads(response.text or "null")
            if value != {"verdict_word": "yes"}:
                fail(f"the vendor sent {{'verdict_word': 'yes'}}, but the adapter returned {value!r}")

    @promise(
        "images reach the vendor; without multimodal nothing is sent",
        remedy="send each ImagePart, or declare multimodal=False",
    )
    async def test_images(self) -> None:
        """Send a picture of one pixel."""
        picture = (TextPart(text="What is this?"), ImagePart(data=_PIXEL, media_type="image/png"))
        request = GenerateRequest(messages=[Message("user", picture)])
        async with self.stage(TEXT) as stage:
            if not stage.adapter.capabilities.multimodal:
                await _require_refusal(stage.adapter, stage.vendor, request, "images")
                return
            await call(stage.adapter, request)
            _require_sent(stage.vendor, _PIXEL, "the image")

    @promise(
        "documents and sound reach the vendor, or are refused before anything is sent",
        remedy="send each DocumentPart and AudioPart, raise CapabilityMissing, or declare documents=False, audio=False",
    )
    async def test_files(self) -> None:
        """Send a PDF and a recording. A model of a provider that takes them may take none, and then says so."""
        document = DocumentPart(data=_DOCUMENT, media_type="application/pdf", name="report.pdf")
        sound = AudioPart(data=_SOUND, media_type="audio/wav")
        for part, capability, what in ((document, "documents", "documents"), (sound, "audio", "sound")):
            request = GenerateRequest(messages=[Message("user", (TextPart(text="What is this?"), part))])
            async with self.stage(TEXT) as stage:
                if not stage.adapter.capabilities.has(capability):
                    await _require_refusal(stage.adapter, stage.vendor, request, what)
                    continue
                try:
                    await call(stage.adapter, request)
                except CapabilityMissing:
                    if stage.vendor.calls:
                        fail(f"CapabilityMissing was raised for {what}, but only after a request was sent")
                else:
                    _require_sent(stage.vendor, part.data, f"the {part.media_type}")

    @promise(
        "a reasoning effort changes the request to the vendor, or an adjustment reports why not",
        remedy="send request.reasoning, or report an Adjustment of it",
    )
    async def test_reasoning(self) -> None:
        """Compare a request that asks for reasoning with one that does not."""
        async with self.stage(TEXT) as stage:
            await call(stage.adapter, ASK)
            response = await call(stage.adapter, attrs.evolve(ASK, reasoning=ReasoningConfig(effort="high")))
            adjusted = any(change.field == "reasoning" for change in response.adjustments)
            plain, reasoning = ((asked.path, asked.query, asked.body) for asked in stage.vendor.calls[-2:])
            if plain == reasoning and not adjusted:
                fail("the reasoning effort changed nothing in the request to the vendor, and no adjustment reports it")

    @promise(
        "if streaming is declared, chunks arrive while the vendor writes; closing early closes the connection",
        remedy="yield each piece as it arrives, and read the reply in `async with`; else declare streaming=False",
    )
    async def test_streaming(self) -> None:
        """Read the first chunk from a vendor that has not finished, and close the stream."""
        long = " ".join(f"word{number}" for number in range(60))
        async with self.stage(TEXT) as stage:
            await both_ways(stage.adapter)
            if not stage.adapter.capabilities.streaming:
                return
            # Half of the text, then silence: an adapter that collects the stream first never yields.
            stage.vendor.said = Hang(long)
            pieces = stream(stage.adapter, ASK, deadline=self.quick)
            try:
                async for piece in pieces:
                    if piece.text:
                        break
            except ProviderError as error:
                fail(f"no chunk arrived before the vendor had finished: {type(error).__name__}: {error.message}")
            finally:
                await pieces.aclose()
            await self.left(stage.vendor, "the stream was closed early")

    @promise(
        "usage has the vendor's token counts, or None",
        remedy="pass the vendor's counts to Usage.counted()",
    )
    async def test_usage(self) -> None:
        """Compare the counts of the answer with the vendor's."""
        said = GenerateResponse(text=TEXT, usage=Usage(input_tokens=31, output_tokens=17))
        async with self.stage(said) as stage:
            for response in await both_ways(stage.adapter):
                usage = response.usage
                if usage is not None and not (usage.input_tokens in (31, None) and usage.output_tokens in (17, None)):
                    fail(f"the vendor counted 31 input and 17 output tokens, but the adapter returned {usage!r}")

    @promise("cached and reasoning tokens are reported if the vendor counts them, as a part of input and output")
    async def test_usage_details(self) -> None:
        """Compare each count that the reply holds with that of the answer."""
        replies: list[str] = []

        def record(value: Any) -> Any:
            replies.append(json.dumps(value))
            return value

        said = GenerateResponse(text=TEXT, usage=Usage(input_tokens=4096, output_tokens=2048, **_DETAILS))
        async with self.stage(Edited(said, record)) as stage:
            for response in await both_ways(stage.adapter):
                usage = response.usage or Usage()
                for field, (whole, count) in {
                    "input_tokens": ("input", 4096),
                    "output_tokens": ("output", 2048),
                }.items():
                    found = getattr(usage, field)
                    if found not in (count, None):
                        fail(
                            f"the vendor counted {count} {whole} tokens in all, but {field} is {found}:"
                            " include cached tokens in the input, and reasoning in the output"
                        )
                for field, count in _DETAILS.items():
                    whole_count = usage.output_tokens if field == "reasoning_tokens" else usage.input_tokens
                    # Not every dialect has every count, and an adapter may report no usage at all.
                    counted = any(str(count) in reply for reply in replies)
                    if counted and whole_count is not None and getattr(usage, field) != count:
                        fail(
                            f"the vendor counted {count} {field}, but the adapter reported {getattr(usage, field)}:"
                            f" pass {field} to Usage.counted()"
                        )

    @promise(
        "an answer that was cut at max_tokens has the finish reason 'length'",
        remedy="set finish_reason to the vendor's own word",
    )
    async def test_finish(self) -> None:
        """Let the vendor end the answer at the limit."""
        said = GenerateResponse(text="Half of an", finish_reason=FinishReason.LENGTH)
        async with self.stage(said) as stage:
            for ask in (call, call_streamed):
                try:
                    response = await ask(stage.adapter, ASK)
                except TruncatedReply:  # an adapter may raise the error itself
                    continue
                if response.finish_reason is None and await _yields_only_strings(stage.adapter):
                    continue
                if response.finish_reason != FinishReason.LENGTH:
                    fail(f"the finish_reason is {response.finish_reason!r}, not 'length'")

    @promise(
        "it has a name and capabilities, and supports() agrees with them; an unknown capability is False",
        remedy="set name and capabilities, and let supports() answer by them",
    )
    async def test_identity(self) -> None:
        """Ask for every capability, and for one that does not exist."""
        async with self.stage(TEXT) as stage:
            adapter = stage.adapter
            name = getattr(adapter, "name", None)
            if not isinstance(name, str) or not name or not all(c.isalnum() or c in "-_." for c in name):
                fail(f"its name is {name!r}: use letters, digits, '-', '_' and '.'")
            if not isinstance(getattr(adapter, "capabilities", None), ProviderCapabilities):
                fail("its capabilities are not a ProviderCapabilities")
            for word in ("streaming", "tool_use", "structured_output", "multimodal", "reasoning", "telepathy"):
                said = await adapter.supports(word)
                if said is not adapter.capabilities.has(word):
                    fail(f"supports({word!r}) returned {said!r}, but capabilities has {not said}")
            if adapter.cache_identity() != adapter.cache_identity():
                fail("cache_identity() returned two different values")


def _require_answer(value: Any, did: str) -> None:
    if isinstance(value, GenerateResponse | GenerateChunk | str):
        return
    fail(f"generate {did} {type(value).__name__}: return a GenerateResponse, a string, or an async iterator of these")


async def _yields_only_strings(adapter: ProviderAdapter) -> bool:
    """Return True if ``generate`` gives nothing but strings, which carry no finish reason."""
    value = await returns.invoke(adapter.generate, ASK)
    if hasattr(value, "__aiter__"):
        return all([isinstance(item, str) async for item in value])
    return isinstance(value, str)


def _require_sent(vendor: Player, value: Any, what: str) -> None:
    # A request without a body follows up on a call: Replicate streams an answer from an address of its own.
    asked = [call for call in vendor.calls if call.body] or vendor.calls
    if not asked or not asked[-1].holds(value):
        fail(f"{what} did not reach the vendor")


def _keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()


async def _require_refusal(adapter: ProviderAdapter, vendor: Player, request: GenerateRequest, what: str) -> None:
    try:
        await call(adapter, request)
    except CapabilityMissing:
        if vendor.calls:
            fail(f"CapabilityMissing was raised for {what}, but only after a request was sent")
        return
    fail(f"the adapter accepted {what}, but its capabilities do not declare them: raise CapabilityMissing")
