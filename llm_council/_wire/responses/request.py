"""Requests of OpenAI's Responses dialect (API reference, "Create a model response")."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs

from llm_council._wire.history import CallIds, fit_history
from llm_council._wire.openai_chat.request import CUSTOM, schema_description, schema_name
from llm_council._wire.payloads import join_tools, with_extra
from llm_council._wire.prompt_cache import BREAKPOINT, mark_instructions, prefix_key
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models._attrs import as_dict, strict_init
from llm_council.models.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
)
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, Tool

__all__ = ["ENCRYPTED", "LEAST_TOKENS", "encode_choice", "encode_request", "encode_tool", "text_in", "thinks"]

Item = dict[str, Any]

ENCRYPTED = "reasoning.encrypted_content"
LEAST_TOKENS = 16
"""The vendor refuses a smaller ``max_output_tokens``."""

CALLS = ("function_call", "custom_tool_call")
"""The types of the items that ask for a call of the caller's: with JSON, and with free text."""

_NAMESPACE = "namespace"
"""The key of the tool's namespace, which a call is refused without (API reference, "Tool search")."""

_IDS = CallIds(longest=64, echoed=dict.fromkeys(CALLS, "call_id"))
"""``call_id`` is a string of at most 64 characters (OpenAI's OpenAPI description, ``FunctionCallItemParam``)."""

_INSTRUCTIONS = (Role.SYSTEM, Role.DEVELOPER)
_MERGED = ("text", "reasoning")  # objects that a request's ``extra`` adds to, and does not replace


@strict_init
@attrs.frozen(kw_only=True)
class ResponsesOptions:
    """The differences between models and servers of the dialect; profiles fill them in.

    Attributes:
        vendor: the vendor of the reasoning items; only items of the same vendor are sent back.
        system_role: the role of system and developer turns after the beginning.
        store: True lets the vendor keep the exchange; None leaves the field out, for servers that do not know it.
        reasons: the model reasons by default. With ``store`` False its reasoning is requested in encrypted form, since
            it cannot be sent back otherwise.
        effort: send the effort; False for servers that take none.
        cache_key: send ``prompt_cache_key``, where the server knows it.
        cache_breakpoints: send ``prompt_cache_breakpoint``, see ``BREAKPOINT``.
        think_tags: the model may write its reasoning into the answer, between ``<think>`` tags.
        summary: the summary of reasoning to request: ``"auto"``, ``"concise"``, ``"detailed"``, or None for none.
        body: further keys of every request; a request's ``extra`` overrides them.
    """

    vendor: str = "openai"
    system_role: str = "developer"
    store: bool | None = None
    reasons: bool = False
    effort: bool = True
    cache_key: bool = False
    cache_breakpoints: bool = False
    think_tags: bool = False
    summary: str | None = None
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = ResponsesOptions()
"""Options that every server of the dialect accepts."""


def encode_request(
    request: GenerateRequest,
    options: ResponsesOptions = DEFAULT,
    *,
    model: str | None = None,
    stream: bool | None = None,
) -> dict[str, Any]:
    """Encode a request. Fields that the request leaves out are left out.

    System and developer turns at the beginning become ``instructions``, up to one with a cache mark, which that field
    cannot hold; a limit under 16 tokens becomes 16. The dialect has no stop texts; repeated prefixes are cached, and
    found by ``prompt_cache_key``. ``extra`` is merged into ``text`` and ``reasoning``, its tools join the request's,
    and it replaces every other field.

    Args:
        request: the request, already fitted to the model.
        options: the server's differences.
        model: the model's name; None takes ``request.model``.
        stream: True requests a stream; None takes ``request.stream``.

    Raises:
        InvalidOption: a tool's result without ``tool_call_id``, or nothing but empty turns.
    """
    payload: dict[str, Any] = dict(options.body)
    name = model or request.model
    if name:
        payload["model"] = name
    turns = fit_history(request.turns(), vendor=options.vendor, ids=_IDS)
    if request.prompt_cache and options.cache_breakpoints:
        turns = mark_instructions(turns)
    instructions, payload["input"] = _encode_turns(turns, options)
    wanted = _encode_format(request)
    reasons = thinks(request.reasoning, options)
    reasoning: dict[str, Any] = {}
    if options.effort and request.reasoning is not None and request.reasoning.effort is not None:
        reasoning["effort"] = str(request.reasoning.effort)
    if options.summary is not None and reasons:
        reasoning["summary"] = options.summary
    optional = {
        "instructions": instructions or None,
        "max_output_tokens": None if request.max_tokens is None else max(request.max_tokens, LEAST_TOKENS),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": join_tools(options.body.get("tools") or [], [encode_tool(tool) for tool in request.tools]) or None,
        "tool_choice": encode_choice(request.tool_choice),
        "text": None if wanted is None else {"format": wanted},
        "reasoning": reasoning or None,
        # API reference, store and include: the vendor keeps a reply unless store is false, and reasoning of a reply
        # that it does not keep can come back in encrypted form only.
        "store": options.store,
        "include": [ENCRYPTED] if options.store is False and reasons else None,
        "prompt_cache_key": prefix_key(request, name) if request.prompt_cache and options.cache_key else None,
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    if request.stream if stream is None else stream:
        payload["stream"] = True
    # Users set text.verbosity and reasoning.summary in extra, beside the format and the effort of the request.
    return with_extra(payload, request.extra, merged=_MERGED)


def _encode_turns(turns: Sequence[Message], options: ResponsesOptions) -> tuple[str, str | list[Item]]:
    """Return the instructions at the beginning of a conversation, and its other turns, which are never empty."""
    custom: set[Any] = {call.id for turn in turns for call in turn.tool_calls if call.extra.get("type") == CUSTOM}
    # A turn of the caller's own making may hold the echoed item beside a call without ``extra``, or without a call.
    echoed = [item for turn in turns for item in _echoed(turn, options)]
    custom |= {item.get("call_id") for item in echoed if item.get("type") == "custom_tool_call"}
    written = [(turn, items) for turn in turns if (items := _encode_turn(turn, options, custom))]
    instructions: list[str] = []
    for turn, _ in written[:-1]:
        if turn.role not in _INSTRUCTIONS or not turn.text or not isinstance(_encode_content(turn, options), str):
            break
        instructions.append(turn.text)
    items = [item for _, found in written[len(instructions) :] for item in found]
    if not items:
        raise InvalidOption("the request holds nothing but empty turns: it needs a user's turn")
    if len(items) == 1 and items[0].get("role") == Role.USER and isinstance(items[0]["content"], str):
        return "\n\n".join(instructions), items[0]["content"]
    return "\n\n".join(instructions), items


def _encode_turn(turn: Message, options: ResponsesOptions, custom: Collection[Any]) -> list[Item]:
    if turn.role == Role.TOOL:
        if not turn.tool_call_id:
            raise InvalidOption("a tool's turn needs tool_call_id: the id of the call that it answers")
        # API reference, input items: the result of a custom tool's call has a type of its own.
        word = "custom_tool_call_output" if turn.tool_call_id in custom else "function_call_output"
        return [{"type": word, "call_id": turn.tool_call_id, "output": _encode_content(turn, options)}]
    if turn.role != Role.ASSISTANT:
        role = options.system_role if turn.role in _INSTRUCTIONS else str(turn.role)
        return [{"role": role, "content": _encode_content(turn, options)}]
    echoed = _echoed(turn, options)
    called = {item.get("call_id") for item in echoed if item.get("type") in CALLS}
    items = list(echoed)
    content = _encode_content(turn, options)
    if isinstance(content, str):  # an echoed message already holds the beginning of the text
        content = content.removeprefix("".join(text_in(item) for item in echoed))
    if content:
        items.append({"role": str(Role.ASSISTANT), "content": content})
    calls = [call for call in turn.tool_calls if call.id not in called]
    return items + [_encode_call(call, beside=bool(echoed)) for call in calls]


def _echoed(turn: Message, options: ResponsesOptions) -> list[Item]:
    """Return the output items that go back unchanged, but without nulls: the vendor sends nulls and refuses them."""
    parts = () if isinstance(turn.content, str) else turn.content
    found = [part.data for part in parts if isinstance(part, ReasoningPart) and part.vendor == options.vendor]
    return [{key: value for key, value in item.items() if value is not None} for item in found if item is not None]


def text_in(item: Mapping[str, Any]) -> str:
    """Return the text of an output message; malformed parts are skipped."""
    content = item.get("content") if item.get("type") == "message" else None
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list | tuple) else []
    texts = [part.get("text") for part in parts if part.get("type") == "output_text"]
    return "".join(text for text in texts if isinstance(text, str))


def _encode_content(turn: Message, options: ResponsesOptions) -> str | list[Item]:
    if isinstance(turn.content, str):
        return turn.content
    marks = options.cache_breakpoints and turn.role != Role.ASSISTANT  # the API takes none in its own turns
    parts = [_encode_part(part, marks=marks) for part in turn.content if not isinstance(part, ReasoningPart)]
    if all(part["type"] == "input_text" and len(part) == 2 for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _encode_part(part: TextPart | ImagePart | DocumentPart | AudioPart, *, marks: bool) -> Item:
    if isinstance(part, ImagePart):
        url = part.url or f"data:{part.media_type};base64,{part.data}"
        # The SDK's type ResponseInputImageParam requires detail.
        return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
    if isinstance(part, DocumentPart):  # the SDK's type ResponseInputFileParam
        if part.url is not None:
            return {"type": "input_file", "file_url": part.url}
        return {
            "type": "input_file",
            "filename": part.filename,
            "file_data": f"data:{part.media_type};base64,{part.data}",
        }
    if isinstance(part, AudioPart):
        raise CapabilityMissing(
            'the Responses API takes no sound: use api="chat"; nothing was sent', capability="audio"
        )
    block: Item = {"type": "input_text", "text": part.text}
    return {**block, **BREAKPOINT} if part.cache and marks else block


def _encode_call(call: ToolCall, *, beside: bool) -> Item:
    own = {_NAMESPACE: call.extra[_NAMESPACE]} if _NAMESPACE in call.extra else {}
    if beside and "id" in call.extra:  # without its reasoning, an item with an id of the vendor's is refused
        own["id"] = call.extra["id"]
    if call.extra.get("type") == CUSTOM:
        return {**own, "type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments}
    arguments = call.arguments if call.arguments.strip() else "{}"
    return {**own, "type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}


def encode_tool(tool: Tool) -> dict[str, Any]:
    """Encode a tool. ``strict: null`` lets the vendor decide whether to enforce the schema."""
    written: dict[str, Any] = {
        "type": "function",
        "name": tool.name,
        "parameters": dict(tool.parameters),
        "strict": tool.strict,
    }
    if tool.description is not None:
        written["description"] = tool.description
    return written


def encode_choice(choice: str | None) -> str | dict[str, Any] | None:
    """Encode ``tool_choice``: a mode, or the tool to call."""
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": choice}


def _encode_format(request: GenerateRequest) -> dict[str, Any] | None:
    wanted = request.structured_output
    if wanted is not None:
        schema = dict(wanted.json_schema)
        named = {"type": "json_schema", "name": schema_name(wanted), "schema": schema, "strict": wanted.strict}
        return {**named, **schema_description(wanted)}
    given = request.response_format  # in the shape of the chat APIs, which nest the schema under json_schema
    inner = None if given is None else given.get("json_schema")
    if isinstance(inner, Mapping):
        return {"type": "json_schema", **inner}
    return None if given is None else dict(given)


def thinks(config: ReasoningConfig | None, options: ResponsesOptions) -> bool:
    """Return True if the model reasons with this configuration."""
    effort = None if config is None or not options.effort else config.effort
    return options.reasons if effort is None else effort is not Effort.NONE
