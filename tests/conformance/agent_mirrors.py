"""The events that each command-line agent writes for an answer, for fake programs; and the whole stdout decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_council._wire.payloads import dumps
from llm_council.models import GenerateResponse, Usage
from llm_council.models.reply import join
from llm_council.providers._agents import claude_code, codex, gemini_cli
from llm_council.providers._agents.errors import Ended
from llm_council.providers._agents.invocation import AgentEvents

READERS: dict[Any, type[AgentEvents]] = {
    codex: codex.CodexEvents,
    claude_code: claude_code.ClaudeCodeEvents,
    gemini_cli: gemini_cli.GeminiCliEvents,
}


def decode_response(dialect: Any, stdout: bytes, ended: Ended) -> GenerateResponse:
    """Decode the whole stdout of a program and its end, by the module of its dialect."""
    events = READERS[dialect]()
    return join([*events.feed(stdout), *events.finish(ended)])


def encode_codex_events(response: GenerateResponse) -> bytes:
    """Return the lines that the program writes for an answer."""
    events: list[dict[str, Any]] = [
        {"type": "thread.started", "thread_id": response.request_id},
        {"type": "turn.started"},
    ]
    if response.reasoning:
        events.append({"type": "item.completed", "item": {"type": "reasoning", "text": response.reasoning[:-2]}})
    events.append({"type": "item.completed", "item": {"type": "agent_message", "text": response.text or ""}})
    usage = response.usage
    counts = (
        {}
        if usage is None
        else {
            "input_tokens": usage.input_tokens,
            "cached_input_tokens": usage.cached_tokens,
            "cache_write_input_tokens": usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_output_tokens": usage.reasoning_tokens,
        }
    )
    events.append({"type": "turn.completed", "usage": counts})
    return b"".join(dumps(event) + b"\n" for event in events)


def encode_claude_events(response: GenerateResponse, *, live: bool = False) -> bytes:
    """Return the lines that the program writes for an answer."""
    text, usage = response.text or "", response.usage or Usage()
    events: list[dict[str, Any]] = [{"type": "system", "subtype": "init", "session_id": response.request_id}]
    if live:
        middle = len(text) // 2
        events += [_delta("text_delta", text=part) for part in (text[:middle], text[middle:]) if part]
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if response.reasoning:
        content.insert(0, {"type": "thinking", "thinking": response.reasoning})
    events.append({"type": "assistant", "message": {"model": response.model, "content": content}})
    cached, written = usage.cached_tokens or 0, usage.cache_write_tokens or 0
    events.append(
        {
            "type": "result",
            "subtype": "success",
            "is_error": False,
            "result": text,
            "stop_reason": response.raw_finish_reason,
            "session_id": response.request_id,
            "total_cost_usd": None if response.cost is None else response.cost.usd,
            "structured_output": response.structured,
            "usage": {
                "input_tokens": None if usage.input_tokens is None else usage.input_tokens - cached - written,
                "output_tokens": usage.output_tokens,
                "cache_read_input_tokens": usage.cached_tokens,
                "cache_creation_input_tokens": usage.cache_write_tokens,
            },
        }
    )
    return b"".join(dumps(event) + b"\n" for event in events)


def _delta(kind: str, **facts: str) -> dict[str, Any]:
    return {"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": kind, **facts}}}


def encode_gemini_events(response: GenerateResponse) -> bytes:
    """Return the lines that the program writes for an answer."""
    text, usage = response.text or "", response.usage or Usage()
    thoughts = usage.reasoning_tokens or 0
    answer_tokens = (usage.output_tokens or 0) - thoughts
    middle = len(text) // 2
    events: list[dict[str, Any]] = [
        {"type": "init", "session_id": response.request_id, "model": response.model},
        {"type": "message", "role": "user", "content": "the prompt"},
    ]
    events += [
        {"type": "message", "role": "assistant", "content": part, "delta": True}
        for part in (text[:middle], text[middle:])
        if part
    ]
    stats = {
        "total_tokens": (usage.input_tokens or 0) + answer_tokens + thoughts,
        "input_tokens": usage.input_tokens,
        "output_tokens": answer_tokens,
        "cached": usage.cached_tokens,
    }
    events.append({"type": "result", "status": "success", "stats": stats})
    return b"".join(dumps(event) + b"\n" for event in events)


ENCODERS: dict[str, Callable[..., bytes]] = {
    "codex": encode_codex_events,
    "claude": encode_claude_events,
    "gemini": encode_gemini_events,
}
