"""Requests of the OpenAI chat dialect."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from llm_council._wire.openai_chat.calls import CUSTOM
from llm_council._wire.openai_chat.options import DEFAULT, ChatOptions, ReasoningStyle, SchemaStyle
from llm_council._wire.openai_chat.thoughts import (
    THINKING,
    decode_thoughts,
    encode_thoughts,
    reasoning_part,
    thinking_block,
)
from llm_council._wire.payloads import get_text, kind, malformed, need_list, need_object
from llm_council.errors import InvalidOption, MalformedReply
from llm_council.models.messages import ImagePart, Message, Part, ReasoningPart, Role, TextPart, ToolCall
from llm_council.models.request import Effort, GenerateRequest, ReasoningConfig, StructuredOutput, Tool

__all__ = ["decode_request", "encode_request"]


_USAGE = {"include_usage": True}
_NAME = re.compile(r"[^A-Za-z0-9_-]")  # what names of schemas may not hold (OpenAI API reference)


def encode_request(
    request: GenerateRequest,
    options: ChatOptions = DEFAULT,
    *,
    model: str | None = None,
    stream: bool | None = None,
) -> dict[str, Any]:
    """Write a request as this server takes it. What the request leaves out is left out.

    Args:
        request: what is asked; ``fitting.fit`` has made it fit the model.
        options: in what the server differs.
        model: the model's name, for a request that has none or another one.
        stream: whether to ask for a stream; None takes ``request.stream``.

    Raises:
        InvalidOption: a tool's result without ``tool_call_id``.
    """
    payload: dict[str, Any] = dict(options.body)
    name = model or request.model
    if name:
        payload["model"] = name
    payload["messages"] = _encode_turns(request.turns(), options)
    optional = {
        options.max_tokens_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "tools": [_encode_tool(tool) for tool in request.tools] or None,
        "tool_choice": _encode_choice(request.tool_choice),
        "response_format": _encode_format(request, options),
        "cache_control": _encode_cache(request, options),
    }
    payload.update((key, value) for key, value in optional.items() if value is not None)
    if request.reasoning is not None:
        payload.update(_encode_reasoning(request.reasoning, options))
    if request.stream if stream is None else stream:
        payload["stream"] = True
        if options.stream_usage:
            payload["stream_options"] = dict(_USAGE)
    payload.update(request.extra)
    return payload


def _encode_turns(turns: Iterable[Message], options: ChatOptions) -> list[dict[str, Any]]:
    """Write the conversation; images that tools returned follow their results in a user's turn, since those take text.

    Each of them stands behind the words that say whose it is.
    """
    messages: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for turn in turns:
        if shown and turn.role != Role.TOOL:
            messages.append({"role": str(Role.USER), "content": shown})
            shown = []
        if turn.role == Role.TOOL and not isinstance(turn.content, str):
            images = [_encode_part(part, options) for part in turn.content if isinstance(part, ImagePart)]
            if images:
                whose = {"type": "text", "text": f"Returned by the tool's call {turn.tool_call_id}:"}
                shown += [whose, *images]
                turn = attrs.evolve(turn, content=turn.text)
        messages.append(_encode_turn(turn, options))
    return [*messages, {"role": str(Role.USER), "content": shown}] if shown else messages


def _encode_turn(turn: Message, options: ChatOptions) -> dict[str, Any]:
    words = {str(Role.SYSTEM): options.system_role, str(Role.DEVELOPER): options.developer_role}
    role = words.get(turn.role, str(turn.role))
    message: dict[str, Any] = {"role": role, "content": _encode_content(turn.content, options)}
    if turn.role == Role.TOOL:
        if not turn.tool_call_id:
            raise InvalidOption("a tool's turn needs tool_call_id: the id of the call that it answers")
        message["tool_call_id"] = turn.tool_call_id
        return message  # the schema knows no name here
    if turn.name is not None:
        message["name"] = turn.name
    if turn.tool_calls:
        message["tool_calls"] = [_encode_call(call, options) for call in turn.tool_calls]
        message["content"] = message["content"] or None
    message.update(encode_thoughts(turn, options))
    return message


def _encode_content(content: str | tuple[Part, ...], options: ChatOptions) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    blocks = (
        thinking_block(part, options) if isinstance(part, ReasoningPart) else _encode_part(part, options)
        for part in content
    )
    parts = [block for block in blocks if block is not None]
    if all(part["type"] == "text" and len(part) == 2 for part in parts):
        return "".join(part["text"] for part in parts)  # a string is what every server takes
    return parts


def _encode_part(part: TextPart | ImagePart, options: ChatOptions) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        image: dict[str, Any] = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    block: dict[str, Any] = {"type": "text", "text": part.text}
    if part.cache and options.cache_control:
        block["cache_control"] = {"type": "ephemeral"}
    return block


def _encode_call(call: ToolCall, options: ChatOptions) -> dict[str, Any]:
    kept = {key: call.extra[key] for key in options.tool_call_keys if key in call.extra}
    if call.extra.get("type") == CUSTOM:
        return {**kept, "id": call.id, "type": CUSTOM, CUSTOM: {"name": call.name, "input": call.arguments}}
    # Chat templates parse the arguments: a call without any must still read as an object.
    function = {"name": call.name, "arguments": call.arguments if call.arguments.strip() else "{}"}
    return {**kept, "id": call.id, "type": "function", "function": function}


def _encode_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _encode_choice(choice: str | None) -> str | dict[str, Any] | None:
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
    name = _NAME.sub("_", wanted.name)[:64] or "output"
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": dict(wanted.json_schema), "strict": wanted.strict},
    }


def _encode_cache(request: GenerateRequest, options: ChatOptions) -> dict[str, Any] | None:
    wish = request.prompt_cache
    if not wish or not options.cache_control:
        return None
    return {"type": "ephemeral", "ttl": wish} if isinstance(wish, str) else {"type": "ephemeral"}


def _encode_reasoning(config: ReasoningConfig, options: ChatOptions) -> dict[str, Any]:
    effort = None if config.effort is None else str(config.effort)
    budget = config.budget_tokens
    if options.reasoning is ReasoningStyle.OBJECT:
        if budget is not None and effort != Effort.NONE:
            return {"reasoning": {"max_tokens": budget}}  # either of the two, never both
        return {} if effort is None else {"reasoning": {"effort": effort}}
    if options.reasoning is ReasoningStyle.NONE:
        return {}
    fields: dict[str, Any] = {} if effort is None else {"reasoning_effort": effort}
    if options.reasoning is ReasoningStyle.VLLM:
        if budget is not None:
            fields["thinking_token_budget"] = budget
        if effort == Effort.NONE:
            fields["chat_template_kwargs"] = dict(_NO_THINKING)
    return fields


_NO_THINKING = {"enable_thinking": False}  # the switch in the chat templates of Qwen, GLM and DeepSeek models


def decode_request(payload: Any, options: ChatOptions = DEFAULT) -> GenerateRequest:
    """Read a request: the mirror of ``encode_request``, for fake vendors.

    What has no place in a ``GenerateRequest``, or not in the form that ``encode_request`` writes, stays in ``extra``.

    Raises:
        MalformedReply: the payload is no request of this dialect.
    """
    rest = dict(need_object(payload, "$"))
    turns = need_list(rest.pop("messages", None), "$.messages")
    facts: dict[str, Any] = {
        "messages": [_decode_turn(turn, f"$.messages[{index}]", options) for index, turn in enumerate(turns)],
        "model": rest.pop("model", None),
        "stream": rest.pop("stream", False) is True,
        **_taken(rest, "max_tokens", options.max_tokens_field),
        **_taken(rest, "temperature"),
        **_taken(rest, "top_p"),
        **_decode_stop(rest),
        **_decode_tools(rest),
        **_decode_format(rest),
        **_decode_cache(rest, options),
        **_decode_reasoning(rest, options),
    }
    if facts["stream"] and options.stream_usage and rest.get("stream_options") == _USAGE:
        del rest["stream_options"]
    for key, value in options.body.items():
        if key in rest and rest[key] == value:
            del rest[key]
    if facts["model"] is not None and not isinstance(facts["model"], str):
        raise malformed("$.model", "a string", facts["model"])
    try:
        return GenerateRequest(**facts, extra=rest)
    except InvalidOption as error:
        raise MalformedReply(str(error), path="$") from None


def _taken(rest: dict[str, Any], name: str, key: str | None = None) -> dict[str, Any]:
    value = rest.pop(key or name, None)
    return {} if value is None else {name: value}


def _decode_stop(rest: dict[str, Any]) -> dict[str, Any]:
    stop = rest.get("stop")
    words = [stop] if isinstance(stop, str) else stop
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        return {}
    del rest["stop"]
    return {"stop": words}


def _decode_tools(rest: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    listed = rest.get("tools")
    if isinstance(listed, list) and listed:
        try:
            tools = [Tool.of(tool["function"]) for tool in listed if tool.get("type") == "function"]
        except (InvalidOption, KeyError, AttributeError, TypeError):
            tools = []
        if len(tools) == len(listed) and [_encode_tool(tool) for tool in tools] == listed:
            facts["tools"] = tools
            del rest["tools"]
    choice = rest.get("tool_choice")
    named = choice.get("function") if isinstance(choice, dict) else None
    name = named.get("name") if isinstance(named, dict) else choice
    if isinstance(name, str) and _encode_choice(name) == choice:
        facts["tool_choice"] = name
        del rest["tool_choice"]
    return facts


def _decode_format(rest: dict[str, Any]) -> dict[str, Any]:
    wanted = rest.pop("response_format", None)
    if wanted is None:
        return {}
    if not isinstance(wanted, dict):
        raise malformed("$.response_format", "an object", wanted)
    inner = wanted.get("json_schema")
    if (
        isinstance(inner, dict)
        and inner.keys() == {"name", "schema", "strict"}
        and wanted.keys() == {"type", "json_schema"}
    ):
        name, schema, strict = inner["name"], inner["schema"], inner["strict"]
        plain = isinstance(name, str) and 0 < len(name) <= 64 and not _NAME.search(name)
        if plain and isinstance(schema, dict) and isinstance(strict, bool):
            return {"structured_output": StructuredOutput(json_schema=schema, name=name, strict=strict)}
    return {"response_format": wanted}


def _decode_cache(rest: dict[str, Any], options: ChatOptions) -> dict[str, Any]:
    mark = rest.get("cache_control") if options.cache_control else None
    if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or not mark.keys() <= {"type", "ttl"}:
        return {}
    life = mark.get("ttl", True)
    if life is not True and not (isinstance(life, str) and life):
        return {}
    del rest["cache_control"]
    return {"prompt_cache": life}


def _decode_reasoning(rest: dict[str, Any], options: ChatOptions) -> dict[str, Any]:
    found: Mapping[str, Any] = rest
    budget_key = "thinking_token_budget"
    if options.reasoning is ReasoningStyle.OBJECT:
        inner = rest.get("reasoning")
        found, budget_key = (inner if isinstance(inner, dict) else {}), "max_tokens"
    effort = found.get("effort" if options.reasoning is ReasoningStyle.OBJECT else "reasoning_effort")
    budget = found.get(budget_key)
    try:
        config = ReasoningConfig(effort=effort, budget_tokens=budget)
    except (InvalidOption, TypeError):
        return {}
    written = _encode_reasoning(config, options)
    if not written or any(rest.get(key) != value for key, value in written.items()):
        return {}
    for key in written:
        del rest[key]
    return {"reasoning": config}


def _decode_turn(value: Any, path: str, options: ChatOptions) -> Message:
    turn = need_object(value, path)
    role = get_text(turn, "role", path)
    if not role:
        raise malformed(f"{path}.role", "a role", turn.get("role"))
    parts = [*decode_thoughts(turn, path, options), *_decode_content(turn.get("content"), f"{path}.content", options)]
    calls = turn.get("tool_calls")
    calls = [] if calls is None else need_list(calls, f"{path}.tool_calls")
    return Message(
        role,
        parts,
        name=get_text(turn, "name", path),
        tool_calls=[_decode_call(call, f"{path}.tool_calls[{index}]", options) for index, call in enumerate(calls)],
        tool_call_id=get_text(turn, "tool_call_id", path),
    )


def _decode_content(value: Any, path: str, options: ChatOptions) -> list[Part]:
    if value is None:
        return []
    if isinstance(value, str):
        return [TextPart(text=value)]
    parts: list[Part] = []
    for index, block in enumerate(need_list(value, path)):
        here = f"{path}[{index}]"
        word = get_text(need_object(block, here), "type", here)
        if word == "text":
            parts.append(TextPart(text=get_text(block, "text", here) or "", cache="cache_control" in block))
        elif word == "image_url":
            image = need_object(block.get("image_url"), f"{here}.image_url")
            url = get_text(image, "url", f"{here}.image_url")
            try:
                parts.append(ImagePart(url=url, detail=get_text(image, "detail", f"{here}.image_url")))
            except InvalidOption as error:
                raise MalformedReply(f"{here}: {error}", path=here) from None
        elif word == THINKING and options.echo == "content":
            parts.append(reasoning_part(block, options.vendor))
        else:
            raise MalformedReply(f"{here}.type: a part of type {word!r:.80} is not known ({kind(word)})", path=here)
    return parts


def _decode_call(value: Any, path: str, options: ChatOptions) -> ToolCall:
    call = need_object(value, path)
    word, key = (CUSTOM, "input") if call.get("type") == CUSTOM else ("function", "arguments")
    inner = need_object(call.get(word), f"{path}.{word}")
    name = get_text(inner, "name", f"{path}.{word}")
    if not name:
        raise malformed(f"{path}.{word}.name", "a name", inner.get("name"))
    extra = {key: call[key] for key in options.tool_call_keys if key in call}
    return ToolCall(
        id=get_text(call, "id", path) or "",
        name=name,
        arguments=get_text(inner, key, f"{path}.{word}") or "",
        extra={**extra, "type": CUSTOM} if word == CUSTOM else extra,
    )
