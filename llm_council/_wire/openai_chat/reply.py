"""Whole replies of the OpenAI chat dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_council._wire.openai_chat.errors import choice_error, error_inside
from llm_council._wire.openai_chat.request import CUSTOM, DEFAULT, THINKING, ChatOptions
from llm_council._wire.payloads import (
    amount,
    get_object,
    get_text,
    malformed,
    need_list,
    need_object,
    pick_non_empty,
    text_or_none,
    tokens,
)
from llm_council._wire.think import split_thoughts
from llm_council.models.messages import ReasoningPart, ToolCall, new_call_id
from llm_council.models.reply import Cost, CostSource, FinishReason, GenerateResponse, Usage

__all__ = ["decode_response"]

# "citations" and "search_results" are Perplexity's and xAI's.
REPLY_EXTRA = ("provider", "service_tier", "system_fingerprint", "citations", "search_results")
CHOICE_EXTRA = ("native_finish_reason",)
# What a stream brings in pieces: of the choice, and of its message. "executed_tools" are the calls of Groq's own tools.
CHOICE_PIECES = ("logprobs",)
MESSAGE_EXTRA = ("annotations", "images", "executed_tools", "audio")
# Counts of the server's own tools: OpenRouter's, Perplexity's and xAI's.
USAGE_EXTRA = (
    "server_tool_use",
    "server_tool_use_details",
    "server_side_tool_usage_details",
    "num_search_queries",
    "num_sources_used",
    "num_server_side_tools_used",
)
PARTS = "parts"
"""The key in ``extra`` of content parts that are neither text, refusal nor reasoning."""
# The keys of a call that ToolCall holds. Others are the vendor's own, such as Google's extra_content.
_OURS = ("id", "type", "function", "index", CUSTOM)
_TEXTS = (None, "text", "output_text")
_PARTS = (*_TEXTS, "refusal", THINKING)
_UNKNOWN = Usage()
_TICKS = 1e10  # ticks of a US dollar, xAI's unit of cost


def decode_response(data: Any, options: ChatOptions = DEFAULT, *, request_id: str | None = None) -> GenerateResponse:
    """Decode a whole reply.

    Args:
        data: the reply's JSON value.
        options: the server's differences.
        request_id: the id from the reply's headers; None takes the id in the reply.

    Returns:
        The answer. Empty text stays empty; no text is None. The finish reason of a refusal is ``content_filter``; the
        vendor's own word is in ``raw_finish_reason``.

    Raises:
        ApiError: the reply holds an error, or its finish reason is one.
        MalformedReply: the reply is not one of this dialect.
    """
    reply = need_object(data, "$")
    request_id = request_id or text_or_none(reply.get("id"))
    error = error_inside(reply, request_id=request_id)
    if error is not None:
        raise error
    choices = need_list(reply.get("choices"), "$.choices")
    if not choices:
        raise malformed("$.choices", "at least one choice", choices)
    choice = need_object(choices[0], "$.choices[0]")  # extra={"n": 2} adds further choices, which stay in raw
    message = choice.get("message")
    if message is None and choice.get("finish_reason"):
        message = {}  # some servers leave out a message that was filtered
    path = "$.choices[0].message"
    message = need_object(message, path)
    text, refusal, thoughts = read_content(message.get("content"), f"{path}.content")
    error = choice_error(choice, request_id=request_id, partial=text)
    if error is not None:
        raise error
    refusal = get_text(message, "refusal", path) or refusal
    # The key is "reasoning" at OpenRouter, Groq and new vLLM, "reasoning_content" at DeepSeek, xAI and old vLLM.
    reasoning = get_text(message, "reasoning", path) or get_text(message, "reasoning_content", path) or thoughts or None
    if options.think_tags and text:
        found, answer = split_thoughts(text)
        if found or answer != text:
            text, reasoning = answer or None, f"{reasoning or ''}{found}" or None
    word = text_or_none(choice.get("finish_reason"))
    finish = FinishReason.CONTENT_FILTER if refusal else FinishReason.of(word)
    usage = usage_in(reply, choice, message)
    parts = other_parts(message.get("content"))
    extra = {
        **pick_non_empty(reply, REPLY_EXTRA),
        **usage_extra(usage),
        **pick_non_empty(choice, (*CHOICE_EXTRA, *CHOICE_PIECES)),
        **pick_non_empty(message, MESSAGE_EXTRA),
    }
    return GenerateResponse(
        text=text,
        reasoning=reasoning,
        reasoning_parts=_reasoning_parts(message, reasoning, options),
        refusal=refusal,
        tool_calls=_tool_calls(message, path),
        usage=read_usage(usage),
        cost=read_cost(usage),
        model=get_text(reply, "model", "$") or None,
        finish_reason=finish,
        raw_finish_reason=word,
        request_id=request_id,
        extra={**extra, PARTS: parts} if parts else extra,
        raw=data,
    )


def read_content(value: Any, path: str) -> tuple[str | None, str | None, str]:
    """Return text, refusal and reasoning of a reply's content: a string, null, or a list of parts.

    Mistral's reasoning models write their reasoning as parts of the content. An object is an answer that the server
    has decoded already, as Cloudflare's Workers AI does for a schema: the text is its JSON.
    """
    # Nearly every server sends a string; parts come from Mistral, and from gateways that pass on their own format.
    if value is None or isinstance(value, str):
        return value, None, ""
    listed = _listed_parts(value)
    if listed is None and isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False), None, ""
    texts: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    for index, part in enumerate(need_list(value if listed is None else listed, path)):
        here = f"{path}[{index}]"
        part = need_object(part, here)
        if part.get("type") == "refusal":
            refusals.append(get_text(part, "refusal", here) or "")
        elif part.get("type") == "thinking" and part.get("thinking") is not None:
            thoughts.append(read_content(part["thinking"], f"{here}.thinking")[0] or "")
        elif part.get("type") in _TEXTS:
            texts.append(get_text(part, "text", here) or "")
    return "".join(texts) if texts else None, "".join(refusals) or None, "".join(thoughts)


def _listed_parts(value: Any) -> list[Any] | None:
    """Return the parts of a content that is not a string; None for a JSON value of another kind."""
    if isinstance(value, dict):
        return [value] if value.get("type") in _PARTS[1:] else None
    # A part names its type, or has nothing but a text: a list of other objects is an answer.
    is_answer = isinstance(value, list) and bool(value) and all(_is_plain_object(part) for part in value)
    return value if isinstance(value, list) and not is_answer else None


def _is_plain_object(value: Any) -> bool:
    return isinstance(value, dict) and "type" not in value and value.keys() != {"text"}


def other_parts(content: Any) -> list[dict[str, Any]]:
    """Return the content parts that ``read_content`` does not read, such as references and pictures."""
    listed = None if isinstance(content, str) else _listed_parts(content)
    return [part for part in listed or () if isinstance(part, dict) and part.get("type") not in _PARTS]


def reasoning_parts_of(content: Any) -> list[dict[str, Any]]:
    """Return the content parts that hold reasoning, unchanged."""
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") == THINKING]


def _reasoning_parts(
    message: Mapping[str, Any], reasoning: str | None, options: ChatOptions
) -> tuple[ReasoningPart, ...]:
    blocks = message.get("reasoning_details")
    if isinstance(blocks, list) and blocks:
        return tuple(reasoning_part(block, options.vendor) for block in blocks if isinstance(block, dict))
    if options.echo == "content":
        return tuple(reasoning_part(block, options.vendor) for block in reasoning_parts_of(message.get("content")))
    return thoughts_to_echo(reasoning, options)


def reasoning_part(block: dict[str, Any], vendor: str) -> ReasoningPart:
    """Return a block of reasoning, unchanged in ``data``, with its text and signature.

    The block is one of OpenRouter's ``reasoning_details``, or a content part of type ``thinking``.
    """
    text = block.get(THINKING) if block.get("type") == THINKING else block.get("text") or block.get("summary")
    if isinstance(text, list):  # Mistral's chunks: texts, and references, which have no words
        pieces = [piece.get("text") for piece in text if isinstance(piece, dict)]
        text = "".join(piece for piece in pieces if isinstance(piece, str))
    return ReasoningPart(
        text=text if isinstance(text, str) else "",
        signature=text_or_none(block.get("signature")),
        vendor=vendor,
        data=block,
    )


def thoughts_to_echo(reasoning: str | None, options: ChatOptions) -> tuple[ReasoningPart, ...]:
    """Return reasoning as a part to send back as text, for servers that require it beside tool calls."""
    if reasoning and options.echo not in (None, "reasoning_details", "content"):
        return (ReasoningPart(text=reasoning, vendor=options.vendor),)
    return ()


def _tool_calls(message: Mapping[str, Any], path: str) -> list[ToolCall]:
    """Decode whole calls. Calls of the server's own tools, such as a web search, are left out.

    Raises:
        MalformedReply: a call has the wrong type, or no name.
    """
    values, path_of_calls = message.get("tool_calls"), f"{path}.tool_calls"
    if not values and not is_empty_call(message.get("function_call")):
        # The only form before 2023-11; some servers still write it.
        values, path_of_calls = [{"function": message["function_call"]}], f"{path}.function_call"
    calls = []
    for index, value in enumerate([] if values is None else need_list(values, path_of_calls)):
        here = f"{path_of_calls}[{index}]"
        call = need_object(value, here)
        key = call_key(call)
        if is_foreign(call) or (not call.get("id") and is_empty_call(call.get(key))):
            continue
        inner = need_object(call.get(key), f"{here}.{key}")
        name = get_text(inner, "name", f"{here}.{key}")
        if not name:
            raise malformed(f"{here}.{key}.name", "a name", inner.get("name"))
        arguments = call_input(inner, key, f"{here}.{key}")
        calls.append(ToolCall(id=call_id(call.get("id"), index), name=name, arguments=arguments, extra=all_extra(call)))
    return calls


def read_call(value: Any, index: int, path: str) -> ToolCall:
    """Decode a function call of a dialect that has no other kind of call, such as Cohere's and Ollama's.

    Args:
        value: the call; a missing id becomes a new one, missing arguments an empty text.
        index: the index of the call in the answer.
        path: where the call is in the reply.

    Raises:
        MalformedReply: the call has no name.
    """
    call = need_object(value, path)
    function = need_object(call.get("function"), f"{path}.function")
    name = get_text(function, "name", f"{path}.function")
    if not name:
        raise malformed(f"{path}.function.name", "a name", function.get("name"))
    arguments = arguments_text(function.get("arguments"), f"{path}.function.arguments")
    return ToolCall(id=call_id(call.get("id"), index), name=name, arguments=arguments)


def is_empty_call(inner: Any) -> bool:
    """Return True for a call without name and arguments: servers write one beside an answer that calls nothing."""
    if not isinstance(inner, dict):
        return not inner
    return not inner.get("name") and str(inner.get("arguments") or inner.get("input") or "").strip() in ("", "{}")


def call_key(call: Mapping[str, Any]) -> str:
    """Return the key of a call's name and arguments: ``function``, or ``custom`` for a free-text tool."""
    return CUSTOM if call.get("type") == CUSTOM or (CUSTOM in call and "function" not in call) else "function"


def is_foreign(call: Mapping[str, Any]) -> bool:
    """Return True for a call of the server's own tools, such as a web search, which callers do not answer."""
    return call.get("type") not in (None, "", "function", CUSTOM) and call.get("function") is None


def call_input(inner: Mapping[str, Any], key: str, path: str) -> str:
    """Return a call's arguments: JSON text, or free text for a custom tool."""
    if key == CUSTOM:
        return get_text(inner, "input", path) or ""
    return arguments_text(inner.get("arguments"), f"{path}.arguments")


def all_extra(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vendor's own keys of a call; ``type`` marks the call of a custom tool."""
    return {**call_extra(call), "type": CUSTOM} if call_key(call) == CUSTOM else call_extra(call)


def call_id(value: Any, index: int) -> str:
    """Return the id of a call; a new one if the server gave none."""
    return str(value) if isinstance(value, str | int) and value != "" else new_call_id(index)


def arguments_text(value: Any, path: str) -> str:
    """Return a call's arguments as JSON text; some servers send an object instead of text."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    raise malformed(path, "a string", value)


def call_extra(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vendor's own keys of a call, such as Google's thought signature."""
    return {key: value for key, value in call.items() if key not in _OURS}


def usage_in(reply: Mapping[str, Any], *inner: Mapping[str, Any]) -> Any:
    """Return the usage of a reply or event: the first of its places that counts anything.

    Groq's streams may write it under ``x_groq``, Moonshot's into the choice. llama.cpp's ``timings`` (its server's
    README, "Timings and context usage") count only where there is no usage.

    Args:
        reply: the reply or event.
        inner: its choice, and the message or delta in it.
    """
    places = (reply, get_object(reply, "x_groq"), *inner)
    found = [place["usage"] for place in places if isinstance(place.get("usage"), dict)]
    timings = get_object(reply, "timings")
    if timings.get("prompt_n") is not None and timings.get("predicted_n") is not None:
        cached = tokens(timings.get("cache_n"))
        sent = (tokens(timings["prompt_n"]) or 0) + (cached or 0)
        counts = {"prompt_tokens": sent, "completion_tokens": timings["predicted_n"], "cached_tokens": cached}
        found.append(counts)
    return next((usage for usage in found if _counts_anything(usage)), found[0] if found else None)


def _counts_anything(usage: Mapping[str, Any]) -> bool:
    return any(tokens(usage.get(key)) for key in ("prompt_tokens", "completion_tokens", "total_tokens", "cost"))


def usage_extra(usage: Any) -> dict[str, Any]:
    """Return what a usage tells beside tokens and cost: how often the server's own tools were used."""
    return pick_non_empty(usage, USAGE_EXTRA) if isinstance(usage, dict) else {}


def read_usage(value: Any, sent: str = "prompt_tokens", received: str = "completion_tokens") -> Usage | None:
    """Read the token counts; None when the vendor gives none.

    Args:
        value: the ``usage`` of a reply.
        sent: the key of the prompt's tokens; its details stand under the same key with ``_details``.
        received: the key of the answer's tokens, likewise.
    """
    if not isinstance(value, dict):
        return None
    details = get_object(value, f"{sent}_details")
    input_tokens, output_tokens = tokens(value.get(sent)), tokens(value.get(received))
    reasoning = tokens(get_object(value, f"{received}_details").get("reasoning_tokens"))
    if input_tokens is not None and output_tokens is not None and reasoning:
        # xAI counts reasoning beside the answer's tokens, not among them: only the total shows it.
        beside = tokens(value.get("total_tokens")) == input_tokens + output_tokens + reasoning
        output_tokens += reasoning if beside else 0
    # DeepSeek and Moonshot write the cached tokens beside the details, under these two keys.
    cached = (details.get("cached_tokens"), value.get("prompt_cache_hit_tokens"), value.get("cached_tokens"))
    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=next((count for count in map(tokens, cached) if count is not None), None),
        cache_write_tokens=tokens(details.get("cache_write_tokens")),
        reasoning_tokens=reasoning,
    )
    return None if usage == _UNKNOWN else usage


def read_cost(usage: Any) -> Cost | None:
    """Return the cost: OpenRouter reports US dollars, xAI ticks of a US dollar (1e-10).

    For a request with the user's own key at the upstream vendor ("BYOK"), OpenRouter reports its fee and, in
    ``cost_details``, the upstream's price: the cost is the sum.
    """
    if not isinstance(usage, dict):
        return None
    usd, ticks = amount(usage.get("cost")), amount(usage.get("cost_in_usd_ticks"))
    if usd is None:
        return None if ticks is None else Cost(usd=ticks / _TICKS, source=CostSource.REPORTED, complete=True)
    if usage.get("is_byok") is True:
        usd += amount(get_object(usage, "cost_details").get("upstream_inference_cost")) or 0.0
    return Cost(usd=usd, source=CostSource.REPORTED, complete=True)
