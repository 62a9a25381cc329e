"""Requests of the OpenAI chat dialect, and the differences between its servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs

from llm_council._wire.history import CallIds, drop_empty_answers, fit_history, join_instructions
from llm_council._wire.payloads import as_object_text, join_tools, with_extra
from llm_council._wire.prompt_cache import BREAKPOINT, mark_instructions, prefix_key
from llm_council.errors import CapabilityMissing, InvalidOption
from llm_council.models._attrs import as_dict, as_tuple, strict_init
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
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool

__all__ = [
    "CUSTOM",
    "DEFAULT",
    "THINKING",
    "USAGE_IN_STREAM",
    "ChatOptions",
    "ReasoningStyle",
    "SchemaStyle",
    "encode_choice",
    "encode_reasoning",
    "encode_request",
    "encode_tool",
    "schema_description",
    "schema_name",
]

USAGE_IN_STREAM = {"include_usage": True}
CUSTOM = "custom"
"""The type of calls whose argument is free text, and the key of their name and input."""
THINKING = "thinking"
"""The type of content parts that hold reasoning (Mistral's API reference, ``ThinkChunk``)."""


class ReasoningStyle(StrEnum):
    """How a request sets the reasoning effort.

    ``effort`` is ``reasoning_effort``; ``object`` is OpenRouter's ``reasoning: {effort | max_tokens}``; ``vllm`` is
    ``reasoning_effort`` with ``thinking_token_budget``, and the chat template's switch to turn it off.
    """

    NONE = "none"
    EFFORT = "effort"
    OBJECT = "object"
    VLLM = "vllm"


class SchemaStyle(StrEnum):
    """The ``response_format`` that a server accepts for a schema: the schema, JSON mode alone, or none."""

    NONE = "none"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


@strict_init
@attrs.frozen(kw_only=True)
class ChatOptions:
    """The differences between servers of the dialect; profiles fill them in.

    Attributes:
        vendor: the vendor of the reasoning blocks; only blocks of the same vendor are sent back.
        max_tokens_field: the key of the limit on the answer's tokens.
        system_role: the role of a system turn.
        developer_role: the role of a developer turn.
        one_instruction: take one system turn alone, the first; those that follow it are joined to it.
        reasoning: how a request sets the reasoning effort.
        echo: the key under which an assistant's turn carries its reasoning back: ``"reasoning_details"`` (the blocks
            unchanged), ``"content"`` (its parts that are thoughts, unchanged), ``"reasoning_content"`` or
            ``"reasoning"`` (their text); None sends none back.
        schema: how a structured output is requested.
        seed: the key of the seed; None for a server that documents none.
        stream_usage: request the usage of a stream.
        cache_control: send cache marks; most servers cache without marks and refuse them.
        cache_key: send ``prompt_cache_key``, where the server knows it.
        cache_breakpoints: send ``prompt_cache_breakpoint``, see ``BREAKPOINT``.
        longest_call_id: the most characters of the id of a call; None is unlimited.
        call_id_length: the number of characters that such an id must have, all letters and digits; None is any.
        tool_call_keys: the vendor's own keys of a tool call that must be sent back.
        parses_arguments: the server reads the arguments of earlier calls as JSON: others are put into an object.
        think_tags: the model writes its reasoning into the answer, between ``<think>`` tags.
        finish_required: a stream without finish reason and ``[DONE]`` was cut; False for servers that send neither.
        file_urls: documents may be addresses.
        document_types: the media types of documents that it takes; empty takes all.
        audio_formats: the formats of sound that it takes; empty takes all.
        body: further keys of every request; a request's ``extra`` overrides them.
    """

    vendor: str = "openai"
    max_tokens_field: str = "max_tokens"
    system_role: str = "system"
    developer_role: str = "system"
    one_instruction: bool = False
    reasoning: ReasoningStyle = attrs.field(default=ReasoningStyle.EFFORT, converter=ReasoningStyle)
    echo: str | None = None
    schema: SchemaStyle = attrs.field(default=SchemaStyle.JSON_SCHEMA, converter=SchemaStyle)
    seed: str | None = None
    stream_usage: bool = True
    cache_control: bool = False
    cache_key: bool = False
    cache_breakpoints: bool = False
    longest_call_id: int | None = None
    call_id_length: int | None = None
    tool_call_keys: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    parses_arguments: bool = False
    think_tags: bool = False
    finish_required: bool = True
    file_urls: bool = False
    document_types: tuple[str, ...] = attrs.field(default=(), converter=as_tuple)
    audio_formats: tuple[str, ...] = attrs.field(default=("wav", "mp3"), converter=as_tuple)
    body: Mapping[str, Any] = attrs.field(factory=dict, converter=as_dict)


DEFAULT = ChatOptions()
"""Options that nearly every server of the dialect accepts."""


def encode_request(
    request: GenerateRequest, options: ChatOptions = DEFAULT, *, model: str | None = None, stream: bool | None = None
) -> dict[str, Any]:
    """Encode a request. Fields that the request leaves out are left out; ``extra`` is added, see ``with_extra``.

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
    ids = CallIds(longest=options.longest_call_id, exactly=options.call_id_length)
    turns = fit_history(request.turns(), vendor=options.vendor, ids=ids)
    if options.one_instruction:
        turns = join_instructions(turns)
    if request.prompt_cache and options.cache_breakpoints:
        turns = mark_instructions(turns)
    payload["messages"] = drop_empty_answers(_encode_turns(turns, options))
    cache = None
    if request.prompt_cache and options.cache_control:
        # OpenRouter, "Prompt caching": the mark at the top of the request; ttl is "5m" (the default) or "1h".
        cache = {"type": "ephemeral"}
        if isinstance(request.prompt_cache, str):
            cache["ttl"] = request.prompt_cache
    optional = {
        options.max_tokens_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "tools": join_tools(options.body.get("tools") or [], [encode_tool(tool) for tool in request.tools]) or None,
        "tool_choice": encode_choice(request.tool_choice),
        "response_format": _encode_format(request, options),
        "cache_control": cache,
        "prompt_cache_key": prefix_key(request, name) if request.prompt_cache and options.cache_key else None,
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    if options.seed is not None and request.sample is not None:
        payload[options.seed] = request.sample
    if request.reasoning is not None:
        payload.update(encode_reasoning(request.reasoning, options))
    if request.stream if stream is None else stream:
        payload["stream"] = True
        if options.stream_usage:
            payload["stream_options"] = dict(USAGE_IN_STREAM)
    return with_extra(payload, request.extra)


def _encode_turns(turns: Iterable[Message], options: ChatOptions) -> list[dict[str, Any]]:
    """Encode the conversation. A tool's turn takes text only, so images that tools return go into a user's turn.

    A line of text before the images names the call that returned them.
    """
    messages: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for turn in turns:
        if shown and turn.role != Role.TOOL:
            messages.append({"role": str(Role.USER), "content": shown})
            shown = []
        if turn.role == Role.TOOL and not isinstance(turn.content, str):
            files = (ImagePart, DocumentPart, AudioPart)
            images = [_encode_part(part, options) for part in turn.content if isinstance(part, files)]
            if images:
                whose = {"type": "text", "text": f"Returned by the tool's call {turn.tool_call_id}:"}
                shown += [whose, *images]
                turn = attrs.evolve(turn, content=turn.text)
        messages.append(_encode_turn(turn, options))
    return [*messages, {"role": str(Role.USER), "content": shown}] if shown else messages


def _encode_turn(turn: Message, options: ChatOptions) -> dict[str, Any]:
    words = {str(Role.SYSTEM): options.system_role, str(Role.DEVELOPER): options.developer_role}
    role = words.get(turn.role, str(turn.role))
    if turn.role == Role.ASSISTANT and options.cache_breakpoints:
        options = attrs.evolve(options, cache_breakpoints=False)  # the API takes none in its own turns
    message: dict[str, Any] = {"role": role, "content": _encode_content(turn.content, options)}
    if turn.role == Role.TOOL:
        if not turn.tool_call_id:
            raise InvalidOption("a tool's turn needs tool_call_id: the id of the call that it answers")
        message["tool_call_id"] = turn.tool_call_id
        return message  # the API reference has no name for tool messages
    if turn.name is not None:
        message["name"] = turn.name
    if turn.tool_calls:
        message["tool_calls"] = [_encode_call(call, options) for call in turn.tool_calls]
        message["content"] = message["content"] or None
    message.update(_encode_thoughts(turn, options))
    return message


def _encode_content(content: str | tuple[Part, ...], options: ChatOptions) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    blocks = (
        _thinking_block(part, options) if isinstance(part, ReasoningPart) else _encode_part(part, options)
        for part in content
    )
    parts = [block for block in blocks if block is not None]
    if all(part["type"] == "text" and len(part) == 2 for part in parts):
        return "".join(part["text"] for part in parts)  # some servers accept a string only
    return parts


def _encode_file(part: DocumentPart | AudioPart, options: ChatOptions) -> dict[str, Any]:
    """Encode a document or sound (API reference, "Create chat completion", content parts ``file``, ``input_audio``)."""
    if isinstance(part, DocumentPart):
        if part.url is not None and not options.file_urls:
            raise CapabilityMissing(
                "documents are taken as data only: pass DocumentPart(data=...); nothing was sent",
                capability="documents",
            )
        if part.url is None and options.document_types and part.media_type not in options.document_types:
            raise CapabilityMissing(
                f"Chat Completions takes {', '.join(options.document_types)} alone, not {part.media_type}: use "
                'api="responses", or pass a text as TextPart; nothing was sent',
                capability="documents",
            )
        data = part.url or f"data:{part.media_type};base64,{part.data}"
        return {"type": "file", "file": {"filename": part.filename, "file_data": data}}
    if part.data is None or (options.audio_formats and part.format not in options.audio_formats):
        formats = ", ".join(options.audio_formats) or "any format"
        raise CapabilityMissing(
            f"sound is taken as data in {formats}: pass AudioPart(data=..., media_type=...); nothing was sent",
            capability="audio",
        )
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}


def _encode_part(part: TextPart | ImagePart | DocumentPart | AudioPart, options: ChatOptions) -> dict[str, Any]:
    if isinstance(part, DocumentPart | AudioPart):
        return _encode_file(part, options)
    if isinstance(part, ImagePart):
        image: dict[str, Any] = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    block: dict[str, Any] = {"type": "text", "text": part.text}
    if part.cache and options.cache_control:
        block["cache_control"] = {"type": "ephemeral"}
    if part.cache and options.cache_breakpoints:
        block |= BREAKPOINT
    return block


def _encode_thoughts(turn: Message, options: ChatOptions) -> dict[str, Any]:
    """Return the key with which an assistant's turn carries its reasoning back; empty if the server has none."""
    if options.echo in (None, "content") or isinstance(turn.content, str):
        return {}
    parts = [part for part in turn.content if isinstance(part, ReasoningPart) and part.vendor == options.vendor]
    blocks = [dict(part.data) for part in parts if part.data is not None]
    # OpenRouter, "Preserving reasoning": the blocks must come back complete, in order and unmodified.
    found = blocks if options.echo == "reasoning_details" else "".join(part.text for part in parts)
    return {str(options.echo): found} if found else {}


def _thinking_block(part: ReasoningPart, options: ChatOptions) -> dict[str, Any] | None:
    """Return reasoning as a part of the content, unchanged if the server wrote it; None if it is not sent back."""
    if options.echo != "content" or part.vendor != options.vendor:
        return None
    if part.data is not None:
        return dict(part.data) if part.data.get("type") == THINKING else None
    if not part.text:
        return None
    block: dict[str, Any] = {"type": THINKING, THINKING: [{"type": "text", "text": part.text}]}
    return block if part.signature is None else {**block, "signature": part.signature}


def _encode_call(call: ToolCall, options: ChatOptions) -> dict[str, Any]:
    vendor_keys = {key: call.extra[key] for key in options.tool_call_keys if key in call.extra}
    if call.extra.get("type") == CUSTOM:
        return {**vendor_keys, "id": call.id, "type": CUSTOM, CUSTOM: {"name": call.name, "input": call.arguments}}
    # Chat templates parse the arguments: a call without any must still read as an object.
    arguments = call.arguments if call.arguments.strip() else "{}"
    if options.parses_arguments:
        arguments = as_object_text(arguments)
    function = {"name": call.name, "arguments": arguments}
    return {**vendor_keys, "id": call.id, "type": "function", "function": function}


def encode_tool(tool: Tool) -> dict[str, Any]:
    """Return a tool as a row of ``tools``."""
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def encode_choice(choice: str | None) -> str | dict[str, Any] | None:
    """Return ``tool_choice``: a mode word, or the function to call."""
    if choice is None or choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _encode_format(request: GenerateRequest, options: ChatOptions) -> dict[str, Any] | None:
    wanted = request.structured_output
    if wanted is None:
        return None if request.response_format is None else dict(request.response_format)
    if options.schema is SchemaStyle.NONE:
        return None
    if options.schema is SchemaStyle.JSON_OBJECT:
        return {"type": "json_object"}
    schema = {"name": schema_name(wanted), "schema": dict(wanted.json_schema), "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": {**schema, **schema_description(wanted)}}


def schema_description(wanted: StructuredOutput) -> dict[str, str]:
    """Return the schema's own description, for which the vendor has a field beside the name; empty if it has none."""
    found = wanted.json_schema.get("description")
    return {"description": found} if isinstance(found, str) and found else {}


def schema_name(wanted: StructuredOutput) -> str:
    """Return a schema's name in the characters that the vendor accepts; ``output`` for an empty name."""
    # API reference, response_format.json_schema.name: letters, digits, underscores and dashes, at most 64 of them.
    return re.sub(r"[^A-Za-z0-9_-]", "_", wanted.name)[:64] or "output"


def encode_reasoning(config: ReasoningConfig, options: ChatOptions) -> dict[str, Any]:
    """Return the fields that set effort and budget, in the server's style."""
    effort = None if config.effort is None else str(config.effort)
    budget = config.budget_tokens
    if options.reasoning is ReasoningStyle.OBJECT:
        if budget is not None and effort != Effort.NONE:
            return {"reasoning": {"max_tokens": budget}}  # OpenRouter refuses both
        return {} if effort is None else {"reasoning": {"effort": effort}}
    if options.reasoning is ReasoningStyle.NONE:
        return {}
    fields: dict[str, Any] = {} if effort is None else {"reasoning_effort": effort}
    if options.reasoning is ReasoningStyle.VLLM:
        if budget is not None:
            fields["thinking_token_budget"] = budget
        if effort == Effort.NONE:
            # vLLM's documentation, "Reasoning outputs": the switch in the chat templates of Qwen, GLM and DeepSeek.
            fields["chat_template_kwargs"] = {"enable_thinking": False}
    return fields
