"""Requests of Anthropic's Messages dialect: how models differ, thinking budgets, and the payload."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import takewhile
from typing import Any

import attrs

from llm_council._wire.history import (
    CallIds,
    InstructionPlace,
    fit_history,
    is_blank,
    is_instruction,
    move_instructions,
)
from llm_council._wire.payloads import arguments_object, join_tools, with_extra
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models._attrs import as_dict, optional, positive_int, strict_init
from llm_council.models.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
)
from llm_council.models.request import Effort, GenerateRequest, Tool

__all__ = [
    "DEFAULT",
    "MessagesOptions",
    "ThinkingStyle",
    "encode_block",
    "encode_choice",
    "encode_request",
    "encode_thinking",
    "encode_tool",
    "offers_tools",
    "thinking_budget",
]

Block = dict[str, Any]

# The pattern of tool call ids is ^[a-zA-Z0-9_-]+$ (Messages API reference, "tool_use_id"). Bedrock, which serves the
# same models, takes at most 64 characters (Converse API reference, ``ToolUseBlock.toolUseId``).
_IDS = CallIds(refused="^A-Za-z0-9_-", longest=64, echoed={"tool_use": "id"})
_CHOICES = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}

# Claude API docs, "Prompt caching", what cannot be cached.
_UNMARKED = ("thinking", "redacted_thinking")

# The smallest ``budget_tokens`` that the API accepts (anthropic.types.ThinkingConfigEnabledParam).
_MIN_BUDGET = 1024

# Budgets for the effort words, for models that only take a budget. The numbers are ours: Anthropic documents none.
_BUDGETS = {
    Effort.MINIMAL: _MIN_BUDGET,
    Effort.LOW: 2_048,
    Effort.MEDIUM: 8_192,
    Effort.HIGH: 16_384,
    Effort.XHIGH: 24_576,
    Effort.MAX: 32_000,
}


class ThinkingStyle(StrEnum):
    """How a model is asked to think.

    ``adaptive`` is ``thinking: {type: adaptive}`` with ``output_config.effort`` (Claude 4.6 and later).
    ``between-tools`` is the same, but turned off by ``{type: between_tools}`` instead of ``{type: disabled}`` (Sonnet
    5.5). ``budget`` is ``thinking: {type: enabled, budget_tokens}``, with a budget derived from the effort (Claude 3.7
    to 4.5).
    """

    ADAPTIVE = "adaptive"
    BETWEEN_TOOLS = "between-tools"
    BUDGET = "budget"


@strict_init
@attrs.frozen(kw_only=True)
class MessagesOptions:
    """How one model or server of the dialect differs from another; filled from the model's profile.

    Attributes:
        vendor: the vendor of reasoning blocks; only blocks of this vendor are sent back.
        max_tokens: the limit on answer tokens for requests without one, since the API requires a number.
        max_output: the largest limit that the model accepts; None means unknown.
        thinking: how the model is asked to think.
        instructions_in_place: the model takes instructions between the turns, see ``InstructionPlace``.
        display: ``"summarized"`` or ``"omitted"`` thinking, for adaptive thinking; None leaves it to the model.
        cache_control: send cache marks.
        automatic_cache: mark the end of the conversation by a field at the top of the request; False marks its last
            block, for Bedrock and Vertex AI, which refuse that field.
        body: fields that every request carries; fields of the request replace them.
    """

    vendor: str = "anthropic"
    max_tokens: int = attrs.field(default=16_000, validator=positive_int)
    max_output: int | None = attrs.field(default=None, validator=optional(positive_int))
    thinking: ThinkingStyle = attrs.field(default=ThinkingStyle.ADAPTIVE, converter=ThinkingStyle)
    instructions_in_place: bool = False
    display: str | None = None
    cache_control: bool = True
    automatic_cache: bool = True
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = MessagesOptions()
"""The options of current models at Anthropic's own address."""


def encode_request(
    request: GenerateRequest,
    options: MessagesOptions = DEFAULT,
    *,
    model: str | None = None,
    stream: bool | None = None,
) -> dict[str, Any]:
    """Encode a request as the payload of ``POST /v1/messages``. Keys of ``request.extra`` are added unchanged.

    The instructions at the beginning are joined into ``system``, and later ones too unless the model takes them in
    their place. Consecutive turns of one role become one message, in which tool results come first. Blank texts are
    dropped, since the API rejects them.

    Args:
        request: the request, already fitted to the model.
        options: how the model differs.
        model: the model's name; None means ``request.model``.
        stream: whether to ask for a stream; None means ``request.stream``.

    Raises:
        InvalidOption: a tool's result has no ``tool_call_id``, or the request has nothing but instructions and empty
            turns.
    """
    payload: dict[str, Any] = dict(options.body)
    name = model or request.model
    if name:
        payload["model"] = name
    mark: dict[str, Any] = {"type": "ephemeral"}
    if isinstance(request.prompt_cache, str) and request.prompt_cache:
        mark["ttl"] = request.prompt_cache
    thinking, effort = encode_thinking(request, options)
    max_tokens = request.max_tokens
    if max_tokens is None:
        # Thinking counts toward max_tokens (anthropic.types.MessageCreateParams, "thinking").
        max_tokens = options.max_tokens + (thinking or {}).get("budget_tokens", 0)
        if options.max_output is not None:
            max_tokens = min(max_tokens, options.max_output)
    payload["max_tokens"] = max_tokens
    place = InstructionPlace.AFTER_USER if options.instructions_in_place else InstructionPlace.FIRST
    turns = move_instructions(fit_history(request.turns(), vendor=options.vendor, ids=_IDS), place)
    front = list(takewhile(is_instruction, turns))
    payload["messages"] = _encode_turns(turns[len(front) :], options, mark)
    is_marked = bool(request.prompt_cache) and options.cache_control
    if is_marked and not options.automatic_cache:
        _mark_end(payload["messages"], mark)
    output = {"effort": effort, "format": _encode_format(request)}
    optional = {
        "system": _mark_system(_encode_system(front, options, mark), request, options, mark),
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop_sequences": list(request.stop) or None,
        "tools": join_tools(options.body.get("tools") or [], [encode_tool(tool) for tool in request.tools]) or None,
        "tool_choice": encode_choice(request.tool_choice) if offers_tools(request) else None,
        "thinking": thinking,
        "output_config": {key: value for key, value in output.items() if value is not None} or None,
        "cache_control": mark if is_marked and options.automatic_cache else None,
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    if request.stream if stream is None else stream:
        payload["stream"] = True
    return with_extra(payload, request.extra, merged=("output_config",))


def offers_tools(request: GenerateRequest) -> bool:
    """Return True if a request offers a function, or a tool of the vendor's in ``extra``."""
    return bool(request.tools or request.extra.get("tools"))


def thinking_budget(request: GenerateRequest, options: MessagesOptions) -> int | None:
    """Return the number of thinking tokens to ask for.

    A budget must be smaller than ``max_tokens``; a larger one is cut to half of ``max_tokens``.

    Returns:
        The budget; None if the request has no budget, or ``max_tokens`` leaves no room for the smallest one.
    """
    config = request.reasoning
    if config is None or config.effort is Effort.NONE:
        return None
    ceiling = request.max_tokens or options.max_output
    if config.budget_tokens is not None:
        budget = max(config.budget_tokens, _MIN_BUDGET)
    elif options.thinking is not ThinkingStyle.BUDGET or config.effort is None:
        return None
    else:
        budget = _BUDGETS[config.effort]
        if ceiling is not None:
            budget = min(budget, ceiling // 2)
    if ceiling is not None and budget >= ceiling:
        budget = ceiling // 2
    return budget if budget >= _MIN_BUDGET else None


def encode_thinking(request: GenerateRequest, options: MessagesOptions) -> tuple[dict[str, Any] | None, str | None]:
    """Return the fields ``thinking`` and ``output_config.effort`` of a request; None for a field that is not sent."""
    config = request.reasoning
    if config is None:
        return None, None
    if config.effort is Effort.NONE:
        is_between = options.thinking is ThinkingStyle.BETWEEN_TOOLS
        return {"type": "between_tools" if is_between else "disabled"}, None
    effort = None
    if options.thinking is not ThinkingStyle.BUDGET and config.effort is not None:
        # "low" is the smallest effort of the API (anthropic.types.OutputConfigParam).
        effort = str(Effort.LOW if config.effort is Effort.MINIMAL else config.effort)
    budget = thinking_budget(request, options)
    if budget is not None:
        return {"type": "enabled", "budget_tokens": budget}, effort
    if effort is None:
        return None, None
    thinking = {"type": "adaptive"}
    if options.display is not None:
        thinking["display"] = options.display
    return thinking, effort


def _encode_system(
    turns: Iterable[Message], options: MessagesOptions, mark: Mapping[str, Any]
) -> str | list[Block] | None:
    blocks: list[Block] = []
    for turn in turns:
        blocks += [block for block in _encode_parts(turn.content, options, mark) if block["type"] == "text"]
    if all(map(_is_plain, blocks)):
        return "\n\n".join(block["text"] for block in blocks) or None
    return blocks  # cache marks need blocks


def _mark_system(
    system: str | list[Block] | None, request: GenerateRequest, options: MessagesOptions, mark: Mapping[str, Any]
) -> str | list[Block] | None:
    """Mark the end of the instructions: requests that share tools and instructions, and no more, find them cached.

    The mark at the top of the request is moved to the end of the conversation (Anthropic's docs, "Prompt caching",
    automatic caching), where another conversation does not find it.
    """
    if not system or not request.prompt_cache or not options.cache_control:
        return system
    blocks: list[Block] = [{"type": "text", "text": system}] if isinstance(system, str) else system
    if any("cache_control" in block for block in blocks):  # the caller has marked the prefix; four marks are allowed
        return blocks
    return [*blocks[:-1], {**blocks[-1], "cache_control": dict(mark)}]


def _mark_end(messages: list[dict[str, Any]], mark: Mapping[str, Any]) -> None:
    """Mark the last block of a conversation; thinking takes no mark, and an earlier block takes it instead."""
    for message in reversed(messages):
        content = message["content"]
        if isinstance(content, str):
            message["content"] = content = [{"type": "text", "text": content}]
        for index in reversed(range(len(content))):
            if content[index]["type"] not in _UNMARKED:
                content[index] = {**content[index], "cache_control": dict(mark)}
                return


def _encode_turns(turns: Iterable[Message], options: MessagesOptions, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
    merged: list[tuple[str, list[Block]]] = []
    for turn in turns:
        if turn.role == Role.TOOL:
            role, blocks = str(Role.USER), [_encode_result(turn, options, mark)]
        elif is_instruction(turn):
            # The role's content is text alone (anthropic.types.SystemMessageParam).
            found = _encode_parts(turn.content, options, mark)
            role, blocks = str(Role.SYSTEM), [block for block in found if block["type"] == "text"]
        else:
            role, blocks = str(turn.role), _encode_parts(turn.content, options, mark)
            # Reasoning parts may echo a call as the vendor wrote it.
            echoed = {block["id"] for block in blocks if block["type"] == "tool_use"}
            calls = [_encode_call(call) for call in turn.tool_calls]
            blocks += [call for call in calls if call["id"] not in echoed]
        if not blocks:
            continue
        if merged and merged[-1][0] == role:
            merged[-1][1].extend(blocks)
        else:
            merged.append((role, blocks))
    if not merged:
        raise InvalidOption("the request has nothing but instructions and empty turns: it needs a user's turn")
    for _, blocks in merged:
        # Tool results must come first in a message (Anthropic's docs, "Handle tool calls"). The sort is stable.
        blocks.sort(key=lambda block: block["type"] != "tool_result")
    return [{"role": role, "content": _shorten(blocks)} for role, blocks in merged]


def _shorten(blocks: list[Block]) -> str | list[Block]:
    """Return a single plain text as a string, the short form of the API; other blocks unchanged."""
    return str(blocks[0]["text"]) if len(blocks) == 1 and _is_plain(blocks[0]) else blocks


def _is_plain(block: Mapping[str, Any]) -> bool:
    return block["type"] == "text" and len(block) == 2


def _encode_parts(content: str | tuple[Part, ...], options: MessagesOptions, mark: Mapping[str, Any]) -> list[Block]:
    """Return the blocks of one turn. Plain texts are joined, and text that an echoed block holds is not repeated."""
    parts = (TextPart(text=content),) if isinstance(content, str) else content
    blocks: list[Block] = []
    echoed = ""
    for part in parts:
        if echoed and isinstance(part, TextPart):
            part, echoed = attrs.evolve(part, text=part.text.removeprefix(echoed)), ""
        echoed += _text_of(part, options.vendor)
        block = _encode_part(part, options, mark)
        if block is not None:
            blocks.append(block)
    if len(blocks) > 1 and all(map(_is_plain, blocks)):
        return [{"type": "text", "text": "".join(block["text"] for block in blocks)}]
    return blocks


def _text_of(part: Part, vendor: str) -> str:
    """Return the text of a block that goes back unchanged, or would if it were not blank."""
    if not isinstance(part, ReasoningPart) or part.vendor != vendor or part.data is None:
        return ""
    text = part.data.get("text") if part.data.get("type") == "text" else None
    return text if isinstance(text, str) else ""


def _encode_part(part: Part, options: MessagesOptions, mark: Mapping[str, Any]) -> Block | None:
    if isinstance(part, ReasoningPart):
        return encode_block(part, options.vendor)
    if isinstance(part, ImagePart):
        if part.url is not None:
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        return {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": part.data}}
    if isinstance(part, DocumentPart):
        return _encode_document(part)
    if isinstance(part, AudioPart):
        raise CapabilityMissing("Claude takes no sound; nothing was sent", capability="audio")
    if is_blank(part.text):
        return None
    block: Block = {"type": "text", "text": part.text}
    if part.cache and options.cache_control:
        block["cache_control"] = dict(mark)
    return block


def _encode_document(part: DocumentPart) -> Block:
    """Encode a document (anthropic.types.DocumentBlockParam): PDF as data or URL, plain text as text."""
    source: dict[str, Any]
    if part.url is not None:
        source = {"type": "url", "url": part.url}
    elif part.media_type == "application/pdf":
        source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    elif (part.media_type or "").startswith("text/"):
        text = base64.b64decode(part.data or "").decode("utf-8", "replace")
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        raise CapabilityMissing(
            f"Claude takes PDF and text, not {part.media_type}; nothing was sent", capability="documents"
        )
    block: Block = {"type": "document", "source": source}
    return block if part.name is None else {**block, "title": part.name}


def encode_block(part: ReasoningPart, vendor: str) -> Block | None:
    """Return the content block of a reasoning part; None if it is of another vendor, or thinking without a signature.

    The API verifies signatures, and rejects thinking blocks that were changed (Anthropic's docs, "Extended thinking").
    """
    if part.vendor != vendor:
        return None
    if part.data is not None:
        kind, text = part.data.get("type"), part.data.get("text")
        # Claude itself writes blank texts between blocks, and rejects them when they come back.
        is_refused = not isinstance(kind, str) or (kind == "text" and isinstance(text, str) and is_blank(text))
        return None if is_refused else dict(part.data)
    if part.signature is None:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _encode_result(turn: Message, options: MessagesOptions, mark: Mapping[str, Any]) -> Block:
    if not turn.tool_call_id:
        raise InvalidOption("a message of role 'tool' needs tool_call_id: the id of the call that it answers")
    result: Block = {"type": "tool_result", "tool_use_id": turn.tool_call_id}
    blocks = [
        block for block in _encode_parts(turn.content, options, mark) if block["type"] in ("text", "image", "document")
    ]
    if blocks:
        result["content"] = _shorten(blocks)
    return result


def _encode_call(call: ToolCall) -> Block:
    arguments = arguments_object(call.arguments)
    if arguments is None:  # the API takes objects only, and the model may have written anything
        arguments = {"invalid_json": call.arguments}
    block = {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}
    if "caller" in call.extra:
        block["caller"] = call.extra["caller"]
    return block


def encode_tool(tool: Tool) -> dict[str, Any]:
    """Encode a tool. ``input_schema`` gets the ``type: object`` that the API requires."""
    encoded: dict[str, Any] = {"name": tool.name, "input_schema": {"type": "object", **tool.parameters}}
    if tool.description is not None:
        encoded["description"] = tool.description
    if tool.strict is not None:
        encoded["strict"] = tool.strict
    return encoded


def encode_choice(choice: str | None) -> dict[str, Any] | None:
    """Encode a tool choice: a mode, or the name of the tool that must be called."""
    if choice is None:
        return None
    return dict(_CHOICES.get(choice) or {"type": "tool", "name": choice})


def _encode_format(request: GenerateRequest) -> dict[str, Any] | None:
    schema: Any = None
    if request.structured_output is not None:
        schema = request.structured_output.json_schema
    elif request.response_format and request.response_format.get("type") == "json_schema":
        inner = request.response_format.get("json_schema")  # OpenAI's form of a response format
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
    return {"type": "json_schema", "schema": dict(schema)} if isinstance(schema, Mapping) else None
