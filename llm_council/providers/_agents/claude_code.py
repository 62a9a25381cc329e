"""The dialect of Claude Code: ``claude -p --output-format stream-json``, a prompt on stdin, events as lines of JSON.

Written for Claude Code 2.1.197. The last event, ``result``, holds the whole answer. Only its ``is_error`` distinguishes
success from failure: ``subtype`` is ``"success"`` for rejected API calls too. With ``--output-format json`` it is the
only event, and is decoded in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_council._wire import failures
from llm_council._wire.payloads import amount, dumps, get_text, need_object, tokens
from llm_council.errors import CommandFailed, ContentFiltered, TruncatedReply
from llm_council.models.limits import Limits
from llm_council.models.messages import ImagePart
from llm_council.models.reply import Cost, CostSource, FinishReason, GenerateChunk, Usage
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.errors import Ended, error_from_text, failed, wait_until
from llm_council.providers._agents.invocation import (
    AgentEvents,
    Argument,
    Attached,
    Invocation,
    flags,
    images_of,
    instructions,
    prompt,
)
from llm_council.providers._anthropic.reply import read_usage

__all__ = ["LONGEST_SCHEMA", "ClaudeCodeEvents", "encode_request"]

REMEDY = "run `claude` and /login, or set ANTHROPIC_API_KEY"

LONGEST_SCHEMA = 96 * 1024
"""Bytes of a schema that an argument can carry: Linux takes 128 KiB."""

_LIMITS = Limits()
_PROGRAM = "<synthetic>"
# The program's words for the reason of a notice (@anthropic-ai/claude-agent-sdk, SDKAssistantMessageError).
_NOTICES = {
    "authentication_failed": 401,
    "billing_error": 402,
    "rate_limit": 429,
    "invalid_request": 400,
    "server_error": 500,
}
_EXTRA = ("num_turns", "permission_denials", "terminal_reason", "service_tier")


def encode_request(request: GenerateRequest, *, live: bool = False) -> Invocation:
    """Build the program's arguments, stdin and environment for a fitted request.

    ``extra`` becomes long options: ``{"max_budget_usd": 1}`` is ``--max-budget-usd=1``.

    Args:
        request: the request.
        live: True streams the answer in pieces.

    Raises:
        InvalidOption: ``extra`` holds what JSON cannot carry.
    """
    arguments: list[Argument] = ["--print", "--output-format", "stream-json", "--verbose"]
    if live:
        arguments.append("--include-partial-messages")
    # Turn off tools, MCP servers, hooks, project settings and history: only the model's answer is wanted.
    arguments += ["--tools", "", "--strict-mcp-config", "--disable-slash-commands", "--no-session-persistence"]
    arguments += ["--setting-sources", "user", "--settings", '{"disableAllHooks":true}']
    if request.model:
        arguments += ["--model", request.model]
    if request.reasoning is not None and request.reasoning.effort is not None:
        arguments += ["--effort", str(request.reasoning.effort)]
    if request.structured_output is not None:
        arguments += ["--json-schema", dumps(request.structured_output.json_schema).decode()]
    system = instructions(request.turns())
    if system:
        arguments += ["--system-prompt-file", Attached(name="system.md", content=system.encode())]
    arguments += flags(request.extra)
    stdin = prompt(request.turns(), system=False).encode()
    images = images_of(request)
    if images:
        arguments += ["--input-format", "stream-json"]
        stdin = _with_images(stdin.decode(), images)
    # Claude Code's documentation, "Settings", environment variables. No option of the program limits tokens.
    variables = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    if request.max_tokens is not None:
        variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(request.max_tokens)
    return Invocation(arguments=tuple(arguments), stdin=stdin, variables=variables)


def _with_images(text: str, images: Sequence[ImagePart]) -> bytes:
    """Write the user's turn as a stream-json event, the only input format that takes images."""
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for image in images:
        source = {"type": "base64", "media_type": image.media_type, "data": image.data}
        content.append({"type": "image", "source": source})
    return dumps({"type": "user", "message": {"role": "user", "content": content}}) + b"\n"


class ClaudeCodeEvents(AgentEvents):
    """Decodes events as they arrive; the text comes in pieces if they were requested, else with the last event."""

    def __init__(self, limits: Limits = _LIMITS) -> None:
        super().__init__(limits)
        self._result: dict[str, Any] | None = None
        self._model: str | None = None
        self._thoughts = False
        self._message_id: str | None = None
        self._written: list[str] = []  # the texts of the last whole message
        self._retries = 0
        self._wait: float | None = None  # seconds before its last try, at least what the vendor asked for
        self._resets: float | None = None  # the Unix time at which the limit of its plan ends
        self._notice: str | None = None  # the last message, if the program wrote it and no model
        self._notice_kind: str | None = None  # what such a message is about, in the program's own word

    @property
    def finished(self) -> bool:
        """True once the ``result`` event has arrived."""
        return self._result is not None

    def _event(self, event: dict[str, Any]) -> GenerateChunk | None:
        match event.get("type"):
            case "system":
                return self._system(event)
            # Events of the program's own subagents name the call that began them; they are no part of the answer.
            case "stream_event" if event.get("parent_tool_use_id") is None:
                return self._piece(need_object(event.get("event"), "$.event"))
            case "assistant" if event.get("parent_tool_use_id") is None:
                self._notice_kind = get_text(event, "error", "$")
                return self._message(need_object(event.get("message"), "$.message"))
            case "rate_limit_event":
                info = event.get("rate_limit_info")
                if isinstance(info, dict) and info.get("status") == "rejected":
                    self._resets = amount(info.get("resetsAt"))
            case "result":
                self._result = event
        return None

    def _system(self, event: dict[str, Any]) -> GenerateChunk | None:
        if event.get("subtype") == "api_retry":
            self._retries += 1
            delay = amount(event.get("retry_delay_ms")) if event.get("error_status") == 429 else None
            self._wait = None if delay is None else delay / 1000
            self.note = f"retrying after {event.get('error') or event.get('error_status')}"
        elif event.get("subtype") == "init":
            return GenerateChunk(request_id=get_text(event, "session_id", "$"))
        return None

    def _piece(self, event: dict[str, Any]) -> GenerateChunk | None:
        if event.get("type") == "message_start":
            self._texts.clear()  # ``result`` repeats the current message alone
        if event.get("type") != "content_block_delta":
            return None
        delta = need_object(event.get("delta"), "$.event.delta")
        if delta.get("type") == "text_delta":
            text = get_text(delta, "text", "$.event.delta") or ""
            self._texts.append(text)
            return GenerateChunk(text=text) if text else None
        if delta.get("type") == "thinking_delta":
            thoughts = get_text(delta, "thinking", "$.event.delta")
            self._thoughts = True
            return GenerateChunk(reasoning=thoughts) if thoughts else None
        return None

    def _message(self, message: dict[str, Any]) -> GenerateChunk | None:
        model = get_text(message, "model", "$.message")
        # Messages that the program writes itself, about a used-up plan for example, carry this name, not a model's.
        content = message.get("content")
        blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
        # Each block arrives in an event of its own, with the id of its message.
        own_id = get_text(message, "id", "$.message")
        if own_id is None or own_id != self._message_id:
            self._message_id, self._written = own_id, []
        texts = [block["text"] for block in blocks if isinstance(block.get("text"), str)]
        if model == _PROGRAM:
            self._notice = "".join(texts)
        else:
            self._notice = None
            self._model = model or self._model
            self._written += texts
        thoughts = [block["thinking"] for block in blocks if isinstance(block.get("thinking"), str)]
        if thoughts and not self._thoughts:
            return GenerateChunk(reasoning="".join(thoughts))
        return None

    def _end(self, ended: Ended) -> GenerateChunk:
        result = self._result
        if result is None:
            self._broke_off(ended, "claude", REMEDY)
        whole = get_text(result, "result", "$")
        is_notice = bool(self._notice) and whole == self._notice
        if result.get("is_error") is True or is_notice:
            raise self._refusal(result, ended)
        if ended.exit_code:
            raise failed(self.note, ended, "claude", REMEDY)
        shown = self.partial
        # The last event may hold no text, although the events of the message did.
        text = whole or shown or "".join(self._written)
        usage = _usage(result)
        # Without the message's own event, as in ``--output-format json``: no model wrote a text of no tokens.
        if usage is not None and usage.output_tokens == 0 and error_from_text(text, remedy=REMEDY) is not None:
            raise self._refusal(result, ended)
        word = get_text(result, "stop_reason", "$")
        if not text.startswith(shown):
            raise TruncatedReply("claude began its answer anew after a part of it had been shown", partial=shown)
        usd = amount(result.get("total_cost_usd"))
        extra = {key: result[key] for key in _EXTRA if result.get(key) not in (None, "", [], {})}
        if self._retries:
            extra["retries"] = self._retries
        return GenerateChunk(
            text=text[len(shown) :],
            structured=result.get("structured_output"),
            finish_reason=FinishReason.STOP if word == "tool_use" else FinishReason.of(word),  # of its own tools
            raw_finish_reason=word,
            usage=usage,
            cost=None if usd is None else Cost(usd=usd, source=CostSource.REPORTED, complete=True),
            model=self._model or _only_model(result),
            request_id=get_text(result, "session_id", "$"),
            extra=extra,
        )

    def _refusal(self, result: dict[str, Any], ended: Ended) -> Exception:
        listed = result.get("errors")
        errors = "; ".join(item for item in listed if isinstance(item, str)) if isinstance(listed, list) else ""
        text = result.get("result")
        message = (text if isinstance(text, str) else "") or errors or str(result.get("subtype") or "it failed")
        status = result.get("api_error_status")
        partial = self.partial or None
        if result.get("stop_reason") == "refusal":
            return ContentFiltered(f"claude withheld its answer: {message}", partial=partial)
        if result.get("stop_reason") == "max_tokens":
            return TruncatedReply(f"claude: {message}", partial=partial, retryable=False)
        if not isinstance(status, int) or not 400 <= status <= 599:
            status = None
        subtype = result.get("subtype")
        if subtype in (None, "success", "error_during_execution"):
            wait = self._wait if self._resets is None else wait_until(self._resets, ended.at)
            known = error_from_text(message, remedy=REMEDY, status=status, at=ended.at, wait=wait, partial=partial)
            if known is not None:
                return known
            if self._notice_kind in _NOTICES:
                status = _NOTICES[self._notice_kind]
                return failures.error_of(message, status=status, delay=wait, remedy=REMEDY, partial=partial)
        if result.get("is_error") is not True:
            message = f"claude gave no answer, but a notice of its own: {message}"
        else:
            message = f"claude failed ({subtype}): {message}"
        return CommandFailed(message, exit_code=ended.exit_code, stderr_tail=ended.stderr, retryable=False)


def _models(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = result.get("modelUsage")
    rows = found.items() if isinstance(found, dict) else ()
    return {name: row for name, row in rows if isinstance(row, dict)}


def _only_model(result: dict[str, Any]) -> str | None:
    names = list(_models(result))
    # The name may end with the size of the context window: "claude-sonnet-4-5[1m]".
    return names[0].partition("[")[0] if len(names) == 1 else None


def _usage(result: dict[str, Any]) -> Usage | None:
    """Return the token counts; after a fallback to an unstreamed call ``usage`` is 0 and only ``modelUsage`` counts."""
    usage = read_usage(result.get("usage"))
    if usage is not None and (usage.input_tokens or usage.output_tokens):
        return usage
    total: Usage | None = None
    for row in _models(result).values():
        renamed = {
            "input_tokens": row.get("inputTokens"),
            "output_tokens": row.get("outputTokens"),
            "cache_read_input_tokens": row.get("cacheReadInputTokens"),
            "cache_creation_input_tokens": row.get("cacheCreationInputTokens"),
        }
        one = read_usage({key: tokens(value) for key, value in renamed.items()})
        total = one if total is None else total + one if one is not None else total
    return total or usage
