"""Payloads and event streams of the three agents, written by hand with the field names that the programs document.

Codex CLI 0.169.0, Claude Code 2.1.197, Gemini CLI 0.61.0. Nothing here uses the encoders of ``agent_mirrors``: a name
that is misspelt in a decoder and in its mirror alike turns one of these tests red.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from agent_mirrors import decode_response

from llm_council import models as m
from llm_council.errors import (
    AuthenticationFailed,
    CommandFailed,
    ContentFiltered,
    OutOfCredit,
    ProviderError,
    RateLimited,
    RequestRejected,
    ServerFailed,
    TruncatedReply,
)
from llm_council.models import Cost, FinishReason, GenerateRequest, GenerateResponse, ImagePart, Message, Usage
from llm_council.providers._agents import claude_code, codex, gemini_cli
from llm_council.providers._agents.errors import Ended
from llm_council.providers._agents.invocation import Attached, Invocation

AT = datetime(2026, 8, 8, 12, 0, tzinfo=UTC)
IMAGE = m.ImagePart(data="iVBORw0KGgo=", media_type="image/png")
PNG = b"\x89PNG\r\n\x1a\n"

REQUEST = GenerateRequest(
    messages=[Message("system", "Be brief."), Message("user", ("What is it?", IMAGE))],
    model="the-model",
    max_tokens=500,
    reasoning=m.ReasoningConfig(effort="high"),
    structured_output=m.StructuredOutput(json_schema={"type": "object"}),
    extra={"model_verbosity": "low"},
)


def events(*lines: dict[str, Any]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def decode(dialect: Any, *lines: dict[str, Any], exit_code: int = 0, stderr: str = "") -> GenerateResponse:
    found: GenerateResponse = decode_response(dialect, events(*lines), Ended(exit_code=exit_code, stderr=stderr, at=AT))
    return found


def error_of(dialect: Any, *lines: dict[str, Any], exit_code: int = 1, stderr: str = "") -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        decode(dialect, *lines, exit_code=exit_code, stderr=stderr)
    return caught.value


# What the programs are started with.


def test_codex_request() -> None:
    settings = [
        "features.shell_tool=false",
        "features.unified_exec=false",
        "features.view_image=false",
        "features.apps=false",
        "features.plugins=false",
        "features.hooks=false",
        "features.multi_agent=false",
        "features.goals=false",
        "features.image_generation=false",
        "features.browser_use=false",
        "features.computer_use=false",
        "features.skill_search=false",
        "features.tool_suggest=false",
        "features.sleep_tool=false",
        'web_search="disabled"',
        "analytics.enabled=false",
        "check_for_update_on_startup=false",
        'model_reasoning_effort="high"',
        'model_verbosity="low"',
    ]
    assert codex.encode_request(REQUEST) == Invocation(
        arguments=(
            *("exec", "--json", "--skip-git-repo-check", "--ephemeral", "--color", "never"),
            *("--sandbox", "read-only"),
            *(word for setting in settings for word in ("-c", setting)),
            *("--model", "the-model"),
            *("--image", Attached(name="image-0.png", content=PNG)),
            *("--output-schema", Attached(name="schema.json", content=b'{"type":"object"}')),
            *("--", "-"),
        ),
        stdin=b"Be brief.\n\nWhat is it?",
        variables={},
    )


def test_claude_request() -> None:
    invocation = claude_code.encode_request(REQUEST, live=True)
    assert invocation.arguments == (
        *("--print", "--output-format", "stream-json", "--verbose", "--include-partial-messages"),
        *("--tools", "", "--strict-mcp-config", "--disable-slash-commands", "--no-session-persistence"),
        *("--setting-sources", "user", "--settings", '{"disableAllHooks":true}'),
        *("--model", "the-model", "--effort", "high", "--json-schema", '{"type":"object"}'),
        *("--system-prompt-file", Attached(name="system.md", content=b"Be brief.")),
        *("--model-verbosity=low", "--input-format", "stream-json"),
    )
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    content = [{"type": "text", "text": "What is it?"}, {"type": "image", "source": source}]
    assert json.loads(invocation.stdin) == {"type": "user", "message": {"role": "user", "content": content}}
    assert invocation.stdin.endswith(b"}\n")
    assert invocation.variables == {
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "500",
    }


def test_gemini_request() -> None:
    turns = [Message("system", "Be brief."), Message("user", "Why?")]
    request = GenerateRequest(messages=turns, model="the-model", extra={"debug": True, "include_directories": ["a"]})
    no_tools = b'[[rule]]\ntoolName = "*"\ndecision = "deny"\npriority = 999\n'
    assert gemini_cli.encode_request(request) == Invocation(
        arguments=(
            *("--output-format", "stream-json", "--skip-trust", "--approval-mode", "plan"),
            *("--policy", Attached(name="no-tools.toml", content=no_tools), "--extensions", "none"),
            *("--model", "the-model", "--debug", "--include-directories=a"),
        ),
        stdin=b"Why?",
        variables={
            "GEMINI_TELEMETRY_ENABLED": "false",
            "GEMINI_SYSTEM_MD": Attached(name="system.md", content=b"Be brief."),
        },
    )


def test_a_conversation_is_one_prompt_in_json() -> None:
    call = m.ToolCall(id="c1", name="look", arguments="{}")
    turns = [
        Message("user", "Why?", name="ann"),
        Message("assistant", "I look.", tool_calls=(call,)),
        Message("tool", "seen", name="look", tool_call_id="c1"),
    ]
    head, _, rows = codex.encode_request(GenerateRequest(messages=turns)).stdin.decode().partition("\n\n")
    assert head == (
        "Here is a conversation as JSON, oldest turn first. Write the assistant's next turn: its text alone."
    )
    assert json.loads(rows) == [
        {"role": "user", "content": "Why?", "name": "ann"},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [{"id": "c1", "name": "look", "arguments": "{}"}],
        },
        {"role": "tool", "content": "seen", "name": "look", "tool_call_id": "c1"},
    ]


# Codex's events.


def codex_item(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "item.completed", "item": {"id": "item_0", "type": kind, **fields}}


def test_codex_reply() -> None:
    usage = {
        "input_tokens": 100,
        "cached_input_tokens": 40,
        "cache_write_input_tokens": 7,
        "output_tokens": 30,
        "reasoning_output_tokens": 20,
    }
    last = {"type": "turn.completed", "usage": usage}
    assert decode(
        codex,
        {"type": "thread.started", "thread_id": "thread-1"},
        {"type": "turn.started"},
        codex_item("error", message="Model metadata not found."),
        codex_item("reasoning", text="Let me see."),
        codex_item("agent_message", text="I look first."),
        codex_item("command_execution", command="ls", aggregated_output="", exit_code=0, status="completed"),
        {"type": "error", "message": "Reconnecting... 2/5"},
        codex_item("agent_message", text="Paris"),
        last,
    ) == GenerateResponse(
        text="Paris",
        reasoning="Let me see.\n\nI look first.\n\n",
        finish_reason=FinishReason.STOP,
        raw_finish_reason="turn.completed",
        request_id="thread-1",
        usage=Usage(input_tokens=100, output_tokens=30, cached_tokens=40, cache_write_tokens=7, reasoning_tokens=20),
        extra={"steps": {"command_execution": 1}, "warnings": ("Model metadata not found.",)},
    )


def test_codex_failures() -> None:
    unauthorised = "unexpected status 401 Unauthorized: Missing bearer"
    error = error_of(
        codex, codex_item("agent_message", text="Par"), {"type": "turn.failed", "error": {"message": unauthorised}}
    )
    assert (type(error), error.status) == (AuthenticationFailed, 401)  # type: ignore[attr-defined]
    assert error.message.startswith(f"{unauthorised} (run `codex login`, or set CODEX_API_KEY)")
    assert str(error.partial) == "Par"  # type: ignore[attr-defined]
    retried = {"type": "error", "message": "Reconnecting... 5/5 (Please try again in 7.5s.)"}
    limited = {"type": "turn.failed", "error": {"message": "exceeded retry limit, last status: 429"}}
    error = error_of(codex, retried, limited)
    assert (type(error), error.retry_after) == (RateLimited, 7.5)
    error = error_of(codex, {"type": "error", "message": "something that nobody foresaw"})
    assert (type(error), error.message) == (
        CommandFailed,
        "codex ended with 1: something that nobody foresaw",
    )
    error = error_of(codex, {"type": "thread.started", "thread_id": "t"}, exit_code=0)
    assert (type(error), error.message) == (TruncatedReply, "codex ended before its answer did")
    error = error_of(codex, {"type": "turn.failed", "error": {"message": "unforeseen"}}, exit_code=0)
    assert (type(error), error.message, error.retryable) == (CommandFailed, "codex: unforeseen", False)


# Claude Code's events.


def claude_result(**fields: Any) -> dict[str, Any]:
    return {"type": "result", "subtype": "success", "is_error": False, **fields}


def claude_piece(event: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    return {"type": "stream_event", "event": event, "parent_tool_use_id": parent, "session_id": "session-1"}


def claude_delta(kind: str, parent: str | None = None, **fields: str) -> dict[str, Any]:
    delta = {"type": kind, **fields}
    return claude_piece({"type": "content_block_delta", "index": 0, "delta": delta}, parent)


def claude_message(model: str, *content: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    message = {"model": model, "role": "assistant", "content": list(content)}
    return {"type": "assistant", "message": message, "parent_tool_use_id": parent}


def test_claude_reply() -> None:
    last = claude_result(
        result="Paris it is",
        stop_reason="end_turn",
        session_id="session-1",
        total_cost_usd=0.25,
        num_turns=2,
        permission_denials=[{"tool_name": "Bash"}],
        terminal_reason="completed",
        service_tier="standard",
        structured_output={"city": "Paris"},
        usage={
            "input_tokens": 10,
            "cache_creation_input_tokens": 7,
            "cache_read_input_tokens": 40,
            "output_tokens": 30,
        },
        modelUsage={"claude-other": {"inputTokens": 1}},
    )
    retried = {"error_status": 529, "retry_delay_ms": 500, "error": "overloaded"}
    assert decode(
        claude_code,
        {"type": "system", "subtype": "init", "session_id": "session-1", "model": "claude-alias"},
        {"type": "system", "subtype": "api_retry", **retried},
        claude_piece({"type": "message_start", "message": {}}),
        claude_delta("thinking_delta", thinking="Let me see."),
        claude_delta("text_delta", text="Paris"),
        claude_delta("text_delta", parent="tool-1", text="a helper's words"),
        claude_message("claude-sub", {"type": "thinking", "thinking": "no"}, parent="tool-1"),
        claude_message(
            "claude-main", {"type": "thinking", "thinking": "already shown"}, {"type": "text", "text": "Paris"}
        ),
        claude_message("<synthetic>", {"type": "text", "text": "no model wrote this"}),
        last,
    ) == GenerateResponse(
        text="Paris it is",
        reasoning="Let me see.",
        structured={"city": "Paris"},
        finish_reason=FinishReason.STOP,
        raw_finish_reason="end_turn",
        model="claude-main",
        request_id="session-1",
        usage=Usage(input_tokens=57, output_tokens=30, cached_tokens=40, cache_write_tokens=7),
        cost=Cost(usd=0.25, source=m.CostSource.REPORTED, complete=True),
        extra={
            "num_turns": 2,
            "permission_denials": [{"tool_name": "Bash"}],
            "terminal_reason": "completed",
            "service_tier": "standard",
            "retries": 1,
        },
    )


def test_claude_reply_without_pieces() -> None:
    row = {"inputTokens": 5, "outputTokens": 2, "cacheReadInputTokens": 3, "cacheCreationInputTokens": 4}
    response = decode(
        claude_code,
        claude_message("<synthetic>", {"type": "thinking", "thinking": "Hm."}),
        claude_result(result="42", stop_reason="tool_use", usage={}, modelUsage={"claude-x[1m]": row}),
    )
    assert (response.text, response.reasoning, response.model) == ("42", "Hm.", "claude-x")
    assert (response.finish_reason, response.raw_finish_reason) == (FinishReason.STOP, "tool_use")
    assert response.usage == Usage(input_tokens=12, output_tokens=2, cached_tokens=3, cache_write_tokens=4)


def test_claude_restarts_its_text_with_each_message() -> None:
    response = decode(
        claude_code,
        claude_piece({"type": "message_start", "message": {}}),
        claude_delta("text_delta", text="I look. "),
        claude_piece({"type": "message_start", "message": {}}),
        claude_delta("text_delta", text="Paris"),
        claude_result(result="Paris", stop_reason="end_turn"),
    )
    assert response.text == "I look. Paris"


def test_claude_names_its_session_in_the_first_event_and_in_the_last() -> None:
    first = claude_code.ClaudeCodeEvents().feed(
        events({"type": "system", "subtype": "init", "session_id": "session-1", "model": "claude-alias"})
    )
    assert first == [m.GenerateChunk(request_id="session-1")]
    assert claude_code.ClaudeCodeEvents().feed(events({"type": "system", "subtype": "status", "session_id": "s"})) == []
    last = claude_result(result="Paris", stop_reason="end_turn", session_id="session-2")
    assert decode(claude_code, last).request_id == "session-2"


def test_claude_leaves_out_what_its_helpers_write() -> None:
    """Events of a helper agent carry the id of the tool call that started it."""
    response = decode(
        claude_code,
        claude_message("claude-main", {"type": "text", "text": "Paris"}),
        claude_message("claude-sub", {"type": "thinking", "thinking": "no"}, parent="tool-1"),
        claude_piece({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "no"}}, parent="tool-1"),
        claude_result(result="Paris", stop_reason="end_turn"),
    )
    assert (response.text, response.reasoning, response.model) == ("Paris", None, "claude-main")


def test_claude_failures() -> None:
    def failed(**fields: Any) -> dict[str, Any]:
        return claude_result(**{"is_error": True, "api_error_status": None, "stop_reason": "stop_sequence", **fields})

    error = error_of(claude_code, failed(result="API Error: Overloaded", api_error_status=529))
    assert (type(error), error.status) == (ServerFailed, 529)  # type: ignore[attr-defined]
    error = error_of(claude_code, failed(result="no", stop_reason="refusal"))
    assert (type(error), error.message) == (ContentFiltered, "claude withheld its answer: no")
    error = error_of(claude_code, failed(result="cut", stop_reason="max_tokens"))
    assert (type(error), error.message, error.retryable) == (TruncatedReply, "claude: cut", False)
    error = error_of(claude_code, failed(subtype="error_max_turns", errors=["first", "second"]))
    assert (type(error), error.message) == (CommandFailed, "claude failed (error_max_turns): first; second")
    error = error_of(claude_code, failed(subtype="error_max_turns", result=None))
    assert error.message == "claude failed (error_max_turns): error_max_turns"
    error = error_of(claude_code, failed(subtype="error_during_execution", result="Invalid bearer token"))
    assert type(error) is AuthenticationFailed
    error = error_of(
        claude_code,
        {"type": "system", "subtype": "api_retry", "error_status": 429, "retry_delay_ms": 7500, "error": "rate_limit"},
        failed(result="API Error: Request rejected", api_error_status=429),
    )
    assert (type(error), error.retry_after) == (RateLimited, 7.5)
    info = {"status": "rejected", "resetsAt": int(AT.timestamp()) + 900, "rateLimitType": "five_hour"}
    error = error_of(
        claude_code,
        {"type": "rate_limit_event", "rate_limit_info": info},
        failed(result="You've hit your session limit", api_error_status=429),
    )
    assert (type(error), error.retry_after) == (OutOfCredit, 900)


def test_claude_ends_without_a_result() -> None:
    begun = {"type": "system", "subtype": "init", "session_id": "session-1"}
    assert error_of(claude_code, begun, exit_code=0).message == "claude ended before its answer did"
    done = claude_result(result="Paris", stop_reason="end_turn")
    assert error_of(claude_code, done, exit_code=3).message == "claude ended with 3"
    retry = {"type": "system", "subtype": "api_retry", "error_status": None, "retry_delay_ms": 1, "error": "odd"}
    assert error_of(claude_code, retry).message == "claude ended with 1: retrying after odd"
    assert error_of(claude_code, {**retry, "error": None, "error_status": 418}).message == (
        "claude ended with 1: retrying after 418"
    )


# Gemini CLI's events.


def test_gemini_reply() -> None:
    stats = {
        "total_tokens": 150,
        "input_tokens": 100,
        "output_tokens": 30,
        "cached": 40,
        "duration_ms": 5,
        "tool_calls": 1,
        "models": {},
    }
    last = {"type": "result", "status": "success", "stats": stats}
    assert decode(
        gemini_cli,
        {"type": "init", "session_id": "session-1", "model": "gemini-x"},
        {"type": "message", "role": "user", "content": "What is it?"},
        {"type": "tool_use", "tool_name": "look", "tool_id": "t1", "parameters": {}},
        {"type": "tool_result", "tool_id": "t1", "status": "error"},
        {"type": "error", "severity": "warning", "message": "Loop detected"},
        {"type": "message", "role": "assistant", "content": "Par", "delta": True},
        {"type": "message", "role": "assistant", "content": "is", "delta": True},
        last,
    ) == GenerateResponse(
        text="Paris",
        finish_reason=FinishReason.STOP,
        raw_finish_reason="success",
        model="gemini-x",
        request_id="session-1",
        usage=Usage(input_tokens=100, output_tokens=50, cached_tokens=40, reasoning_tokens=20),
        extra={"steps": 1, "warnings": ("Loop detected",)},
    )


def gemini_model(**fields: Any) -> dict[str, Any]:
    return {"api": {"totalRequests": 1, "totalErrors": 0, "errorsByType": {}}, **fields}


def test_gemini_whole_reply() -> None:
    tokens = {"input": 60, "prompt": 100, "candidates": 30, "total": 150, "cached": 40, "thoughts": 20, "tool": 0}
    small = {"input": 3, "candidates": 1, "cached": 0, "thoughts": 0}
    whole = {
        "session_id": "session-1",
        "response": "Paris",
        "stats": {
            "models": {
                "gemini-router": gemini_model(tokens=small, roles={"utility_router": {}}),
                "gemini-x": gemini_model(tokens=tokens, roles={"main": {}}),
            }
        },
    }
    assert decode(gemini_cli, whole) == GenerateResponse(
        text="Paris",
        finish_reason=FinishReason.STOP,
        raw_finish_reason="success",
        model="gemini-x",
        request_id="session-1",
        usage=Usage(input_tokens=103, output_tokens=51, cached_tokens=40, reasoning_tokens=20),
    )


@pytest.mark.parametrize("reason", ["NO_FINISH_REASON", "SAFETY_BLOCKED", "PROHIBITED_CONTENT", "RECITATION"])
def test_gemini_withholds_its_answer(reason: str) -> None:
    row = {"api": {"totalRequests": 1, "totalErrors": 1, "errorsByType": {reason: 1}}}
    whole = {"session_id": "s", "response": "", "stats": {"models": {"gemini-x": row}}}
    error = error_of(gemini_cli, whole, exit_code=0)
    assert (type(error), error.message) == (ContentFiltered, f"gemini withheld its answer ({reason})")


def test_gemini_that_reports_or_exits_with_a_failure_has_failed() -> None:
    for line in ({"type": "result", "status": "error"}, {"error": {"message": "Odd."}, "response": ""}):
        assert type(error_of(gemini_cli, line, exit_code=0)) is CommandFailed
    assert type(error_of(gemini_cli, {"type": "result"}, exit_code=1)) is CommandFailed


def test_an_error_carries_the_text_that_arrived_before_it() -> None:
    begun = {"type": "message", "role": "assistant", "content": "Par", "delta": True}
    models = {"gemini-x": gemini_model(api={"errorsByType": {"SAFETY_BLOCKED": 1}})}
    last = {"type": "result", "status": "error", "error": {"message": "Blocked."}, "stats": {"models": models}}
    error = error_of(gemini_cli, begun, last)
    assert (type(error), str(error.partial)) == (ContentFiltered, "Par")  # type: ignore[attr-defined]


def test_an_image_without_a_known_kind_is_sent_as_png() -> None:
    for media_type, name in (
        ("image/", "image-0.png"),
        ("image/JPEG", "image-0.jpeg"),
        ("image/svg+xml", "image-0.svgxml"),
    ):
        request = GenerateRequest(messages=[Message("user", [ImagePart(data="aGk=", media_type=media_type)])])
        assert Attached(name=name, content=b"hi") in codex.encode_request(request).arguments


def test_gemini_failures() -> None:
    def failed(message: str) -> dict[str, Any]:
        return {"type": "result", "status": "error", "error": {"type": "Error", "message": message}}

    error = error_of(gemini_cli, failed("unforeseen"))
    assert (type(error), error.message) == (CommandFailed, "gemini: unforeseen")
    error = error_of(gemini_cli, failed("the stream ended without a finish reason"))
    assert type(error) is ContentFiltered
    assert error.message == ("gemini withheld its answer (blocked): the stream ended without a finish reason")
    noted = {"type": "error", "severity": "error", "message": "the model is at capacity"}
    assert type(error_of(gemini_cli, noted)) is ServerFailed
    whole = {"session_id": "s", "error": {"type": "Error", "message": "unforeseen", "code": 1}}
    assert error_of(gemini_cli, whole).message == "gemini: unforeseen"
    reply = {"session_id": "s", "error": {"type": "Error", "message": "slow down", "code": 429}}
    error = error_of(gemini_cli, exit_code=1, stderr=f"Warning\n{json.dumps(reply, indent=2)}\n")
    assert (type(error), error.message) == (RateLimited, "slow down (HTTP 429)")
    google = {"error": {"code": 400, "message": "Bad field", "status": "INVALID_ARGUMENT"}}
    error = error_of(gemini_cli, failed(f"[API Error: {json.dumps(google)}]"))
    assert (type(error), error.status) == (RequestRejected, 400)  # type: ignore[attr-defined]
    assert type(error_of(gemini_cli, failed("slow down"), exit_code=173)) is RateLimited
    assert error_of(gemini_cli, {"session_id": "s", "response": "Paris"}, exit_code=3).message == "gemini ended with 3"
    cut = {"type": "init", "session_id": "s", "model": "gemini-x"}
    assert error_of(gemini_cli, cut, exit_code=0).message == "gemini ended before its answer did"
    assert error_of(gemini_cli, cut, exit_code=3).message == "gemini ended with 3"
    assert "it refused its input" in error_of(gemini_cli, exit_code=42).message
    assert "its configuration is wrong" in error_of(gemini_cli, exit_code=52).message
    assert "it used up its turns" in error_of(gemini_cli, exit_code=53).message
    assert type(error_of(gemini_cli, exit_code=41)) is AuthenticationFailed
