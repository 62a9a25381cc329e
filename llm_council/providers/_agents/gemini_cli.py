"""The dialect of Gemini CLI: ``gemini --output-format stream-json``, a prompt on stdin, events as lines of JSON.

Written for Gemini CLI 0.61.0. With ``--output-format json`` it prints one object instead, which is decoded too: on
stdout if there is an answer, else on stderr among warnings. An exit status is an HTTP status modulo 256, or one of the
program's own. After a blocked prompt it is 0.
"""

from __future__ import annotations

import re
from typing import Any

from llm_council._wire import failures
from llm_council._wire.payloads import get_text, loads, tokens
from llm_council.errors import AuthenticationFailed, CommandFailed, ContentFiltered, CouncilError, MalformedReply
from llm_council.models.limits import Limits
from llm_council.models.reply import FinishReason, GenerateChunk, Usage
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.errors import Ended, error_from_text, failed, last_object, wait_from_text
from llm_council.providers._agents.invocation import (
    AgentEvents,
    Argument,
    Attached,
    Invocation,
    flags,
    instructions,
    message_of,
    prompt,
)
from llm_council.providers._google import errors as gemini_errors

__all__ = ["GeminiCliEvents", "encode_request", "status_of"]

REMEDY = "run `gemini` and sign in, or set GEMINI_API_KEY"

_LIMITS = Limits()
# Gemini CLI's documentation, "Policy engine": the rule with the highest priority decides, and 999 is the highest.
_NO_TOOLS = b'[[rule]]\ntoolName = "*"\ndecision = "deny"\npriority = 999\n'
_NO_SIGN_IN = 41
_NO_METHOD = re.compile(r"(?i)set an auth method|specify the GEMINI_API_KEY")
_REASON = 500  # characters of stderr that may hold the reason
_TRACE = 4096  # characters of stderr among which the program writes how long it would have waited
_MEANT = {42: "it refused its input", 52: "its configuration is wrong", 53: "it used up its turns"}
_WITHHELD = ("NO_FINISH_REASON", "SAFETY_BLOCKED", "PROHIBITED_CONTENT", "RECITATION")


def encode_request(request: GenerateRequest) -> Invocation:
    """Build the program's arguments, stdin and environment for a fitted request.

    ``extra`` becomes long options: ``{"debug": True}`` is ``--debug``.

    Raises:
        InvalidOption: ``extra`` holds what JSON cannot carry.
    """
    # Read-only, every tool denied, no extensions: only the model's answer is wanted.
    arguments: list[Argument] = ["--output-format", "stream-json", "--skip-trust", "--approval-mode", "plan"]
    arguments += ["--policy", Attached(name="no-tools.toml", content=_NO_TOOLS), "--extensions", "none"]
    if request.model:
        arguments += ["--model", request.model]
    arguments += flags(request.extra)
    variables: dict[str, Argument] = {"GEMINI_TELEMETRY_ENABLED": "false"}
    system = instructions(request.turns())
    if system:
        # Documentation, "System prompt override": this file replaces the program's own system prompt.
        variables["GEMINI_SYSTEM_MD"] = Attached(name="system.md", content=system.encode())
    stdin = prompt(request.turns(), system=False).encode()
    return Invocation(arguments=tuple(arguments), stdin=stdin, variables=variables)


def status_of(exit_code: int) -> int | None:
    """Return the HTTP status that an exit status encodes; None if it encodes none."""
    # A process's exit status has eight bits: of 429, 173 is left.
    status = exit_code + 256
    return status if status in (400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504) else None


class GeminiCliEvents(AgentEvents):
    """Decodes events as they arrive."""

    def __init__(self, limits: Limits = _LIMITS) -> None:
        super().__init__(limits)
        self._result: dict[str, Any] | None = None
        self._model: str | None = None
        self._session: str | None = None
        self._steps = 0

    @property
    def finished(self) -> bool:
        """True once the ``result`` event has arrived."""
        return self._result is not None

    def _event(self, event: dict[str, Any]) -> GenerateChunk | None:
        match event.get("type"):
            case "init":
                self._model = get_text(event, "model", "$")
                self._session = get_text(event, "session_id", "$")
                return GenerateChunk(model=self._model, request_id=self._session)
            case "message" if event.get("role") == "assistant":
                text = get_text(event, "content", "$") or ""
                self._texts.append(text)
                return GenerateChunk(text=text) if text else None
            case "tool_use":
                self._steps += 1
            case "error":
                if event.get("severity") == "error":
                    self.note = message_of(event) or self.note
                else:
                    self._warn(event.get("message"))
            case "result":
                self._result = event
            case None if "response" in event or "error" in event:
                return self._whole(event)
        return None

    def _whole(self, event: dict[str, Any]) -> GenerateChunk | None:
        """Decode the single object of ``--output-format json``."""
        text = get_text(event, "response", "$") or ""
        self._session = get_text(event, "session_id", "$")
        self._texts.append(text)
        self._result = {"error": event.get("error"), "stats": event.get("stats")}
        return GenerateChunk(text=text) if text else None

    def _end(self, ended: Ended) -> GenerateChunk:
        result = self._result
        refused = result is not None and (result.get("status") == "error" or bool(result.get("error")))
        if result is None or (ended.exit_code and not refused):
            if ended.exit_code:
                raise self._died(ended)
            self._broke_off(ended, "gemini", REMEDY)
        stats = result.get("stats")
        models = stats.get("models") if isinstance(stats, dict) else None
        rows = {name: row for name, row in models.items() if isinstance(row, dict)} if isinstance(models, dict) else {}
        withheld = _withheld(rows)
        if refused:
            raise self._refusal(result, ended, withheld)
        if not self.partial.strip() and withheld:
            raise ContentFiltered(f"gemini withheld its answer ({withheld})")
        return GenerateChunk(
            finish_reason=FinishReason.STOP,
            raw_finish_reason="success",
            usage=_usage(stats, rows),
            model=self._model or _main_model(rows),
            request_id=self._session,
            extra={"steps": self._steps} if self._steps else {},
        )

    def _refusal(self, result: dict[str, Any], ended: Ended, withheld: str) -> CouncilError:
        message = message_of(result.get("error")) or self.note or "it failed"
        if withheld or (not self.partial and "without a finish reason" in message):
            return ContentFiltered(f"gemini withheld its answer ({withheld or 'blocked'}): {message}")
        return _meaning(message, status_of(ended.exit_code), ended, self.partial or None)

    def _died(self, ended: Ended) -> CouncilError:
        found = last_object(ended.stderr) or {}
        error = found.get("error")
        if isinstance(error, dict):
            code = error.get("code")
            status = code if isinstance(code, int) and 400 <= code <= 599 else status_of(ended.exit_code)
            if ended.exit_code == _NO_SIGN_IN:
                return _no_sign_in(message_of(error))
            return _meaning(message_of(error), status, ended, self.partial or None)
        if ended.exit_code == _NO_SIGN_IN:
            return _no_sign_in(self.note or ended.stderr.strip()[-_REASON:])
        status = status_of(ended.exit_code)
        text = self.note or self._noise
        if status is not None and not text:
            return failures.error_of("gemini passed on a refusal", status=status)
        return failed(text or _MEANT.get(ended.exit_code, ""), ended, "gemini", REMEDY)


def _no_sign_in(reason: str) -> AuthenticationFailed:
    """Return the error of a program that ended before its first request, with the reason that it gave.

    Only without a reason, or where the program found no way to sign in, the remedy is a key. The other reasons, such as
    a kind of sign-in that is not allowed, or a missing project, name their own (packages/cli/src/config/auth.ts).
    """
    words = " ".join(reason.split())
    if not words:
        return AuthenticationFailed(f"gemini is not signed in ({REMEDY})", status=401)
    remedy = REMEDY if _NO_METHOD.search(words) else "run `gemini` to choose another way to sign in"
    return AuthenticationFailed(f"gemini could not sign in: {words} ({remedy})", status=401)


def _meaning(message: str, status: int | None, ended: Ended, partial: str | None) -> CouncilError:
    """Return the error that a message describes; it may contain Google's own error as JSON."""
    start = message.find("{")
    if start >= 0:
        try:
            error = gemini_errors.error_inside(loads(message[start : message.rfind("}") + 1]), partial=partial)
        except MalformedReply:
            error = None
        if isinstance(error, AuthenticationFailed):
            return AuthenticationFailed(f"{error.message}; {REMEDY}", status=error.status, code=error.code)
        if error is not None:
            return error
    # The message names no time; the program's log of its retries, on stderr, may.
    wait = wait_from_text(ended.stderr[-_TRACE:], ended.at)
    known = error_from_text(message, remedy=REMEDY, status=status, at=ended.at, wait=wait, partial=partial)
    return known or CommandFailed(
        f"gemini: {message}", exit_code=ended.exit_code, stderr_tail=ended.stderr, retryable=False
    )


def _withheld(rows: dict[str, dict[str, Any]]) -> str:
    """Return the reason for which an answer was withheld, from the error counts of each model; empty if none."""
    for row in rows.values():
        api = row.get("api")
        kinds = api.get("errorsByType") if isinstance(api, dict) else None
        if isinstance(kinds, dict):
            found = next((kind for kind in _WITHHELD if kinds.get(kind)), "")
            if found:
                return found
    return ""


def _main_model(rows: dict[str, dict[str, Any]]) -> str | None:
    """Return the model that answered; a router model may be listed beside it."""
    main = [name for name, row in rows.items() if isinstance(row.get("roles"), dict) and "main" in row["roles"]]
    found = main or list(rows)
    return found[0] if len(found) == 1 else None


def _usage(stats: Any, rows: dict[str, dict[str, Any]]) -> Usage | None:
    """Return the token counts: a sum in a stream, one row per model in the single object."""
    if isinstance(stats, dict) and "total_tokens" in stats:
        sent, received = tokens(stats.get("input_tokens")), tokens(stats.get("output_tokens"))
        total = tokens(stats.get("total_tokens"))
        if sent is None or received is None:
            return None
        thoughts = max(total - sent - received, 0) if total is not None else 0  # in the total alone
        return Usage(
            input_tokens=sent,
            output_tokens=received + thoughts,
            cached_tokens=tokens(stats.get("cached")),
            reasoning_tokens=thoughts if total is not None else None,
        )
    usage: Usage | None = None
    for row in rows.values():
        counts = row.get("tokens")
        if isinstance(counts, dict):
            thoughts = tokens(counts.get("thoughts")) or 0
            received = tokens(counts.get("candidates"))
            one = Usage(
                input_tokens=tokens(counts.get("prompt", counts.get("input"))),
                output_tokens=None if received is None else received + thoughts,
                cached_tokens=tokens(counts.get("cached")),
                reasoning_tokens=tokens(counts.get("thoughts")),
            )
            usage = one if usage is None else usage + one
    return usage
