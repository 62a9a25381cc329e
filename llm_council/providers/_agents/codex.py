"""The dialect of OpenAI's Codex CLI: ``codex exec --json``, a prompt on stdin, events as lines of JSON.

Written for codex-cli 0.169.0. An item of type ``error`` is a warning, and an event of type ``error`` may be one: only
``turn.failed`` or a non-zero exit status mean that the call failed. The answer is the agent's last message; earlier
messages become reasoning.
"""

from __future__ import annotations

from typing import Any

from llm_council._wire import failures
from llm_council._wire.openai_chat.errors import error_inside
from llm_council._wire.payloads import dumps, get_text, loads_object, need_object, tokens
from llm_council.errors import AuthenticationFailed, CommandFailed, CouncilError
from llm_council.errors._secrets import MaskedText
from llm_council.models.limits import Limits
from llm_council.models.reply import FinishReason, GenerateChunk, Usage
from llm_council.models.request import GenerateRequest
from llm_council.providers._agents.errors import Ended, error_from_text, failed, wait_from_text
from llm_council.providers._agents.invocation import (
    AgentEvents,
    Argument,
    Attached,
    Invocation,
    attached_images,
    message_of,
    prompt,
)

__all__ = ["CodexEvents", "encode_request"]

REMEDY = "run `codex login`, or set CODEX_API_KEY"

_LIMITS = Limits()
_UNKNOWN = Usage()

# Turn off every tool: only the model's answer is wanted. The program warns of a setting that it does not know, and
# ignores it.
_WITHOUT = (
    "shell_tool",
    "unified_exec",
    "view_image",
    "apps",
    "plugins",
    "hooks",
    "multi_agent",
    "goals",
    "image_generation",
    "browser_use",
    "computer_use",
    "skill_search",
    "tool_suggest",
    "sleep_tool",
)


def encode_request(request: GenerateRequest) -> Invocation:
    """Build the program's arguments, stdin and environment for a fitted request.

    ``extra`` becomes settings: ``{"model_verbosity": "low"}`` is ``-c model_verbosity="low"``.

    Raises:
        InvalidOption: an image cannot be sent, or ``extra`` holds what JSON cannot carry.
    """
    arguments: list[Argument] = ["exec", "--json", "--skip-git-repo-check", "--ephemeral", "--color", "never"]
    arguments += ["--sandbox", "read-only"]
    settings: dict[str, Any] = {f"features.{name}": False for name in _WITHOUT}
    settings |= {"web_search": "disabled", "analytics.enabled": False, "check_for_update_on_startup": False}
    if request.reasoning is not None and request.reasoning.effort is not None:
        settings["model_reasoning_effort"] = str(request.reasoning.effort)
    settings |= request.extra
    for name, value in settings.items():
        arguments += ["-c", f"{name}={dumps(value).decode()}"]  # JSON's scalars and lists are TOML's
    if request.model:
        arguments += ["--model", request.model]
    images = attached_images(request)
    if images:
        arguments += ["--image", *images]
    if request.structured_output is not None:
        schema = Attached(name="schema.json", content=dumps(request.structured_output.json_schema))
        arguments += ["--output-schema", schema]
    arguments += ["--", "-"]  # the prompt comes from stdin: "--image" takes every word that follows up to "--"
    return Invocation(arguments=tuple(arguments), stdin=prompt(request.turns()).encode())


class CodexEvents(AgentEvents):
    """Decodes events as they arrive; the text of the answer comes with the last one."""

    def __init__(self, limits: Limits = _LIMITS) -> None:
        super().__init__(limits)
        self._answer: str | None = None
        self._failure: str | None = None
        self._failed: Any = None  # the error of the failed turn, in the program's form
        self._usage: Usage | None = None
        self._completed = False
        self._steps: dict[str, int] = {}

    @property
    def partial(self) -> str:
        """The agent's last message so far."""
        return self._answer or ""

    @property
    def words(self) -> MaskedText | None:
        """The agent's last message so far, as errors carry it; None if there is none."""
        return MaskedText([self.partial]) or None

    @property
    def finished(self) -> bool:
        """True once the agent has reported the end of its turn."""
        return self._completed or self._failure is not None

    def _event(self, event: dict[str, Any]) -> GenerateChunk | None:
        match event.get("type"):
            case "thread.started":
                return GenerateChunk(request_id=get_text(event, "thread_id", "$"))
            case "item.completed":
                return self._item(need_object(event.get("item"), "$.item"))
            case "turn.completed":
                self._completed = True
                self._usage = _usage(event.get("usage"))
            case "turn.failed":
                self._failed = event.get("error")
                words = message_of(self._failed) or message_of(_inner(self._failed))
                self._failure = words or self.note or "the turn failed"
            case "error":
                self.note = message_of(event) or self.note
        return None

    def _item(self, item: dict[str, Any]) -> GenerateChunk | None:
        word = item.get("type")
        if word == "agent_message":
            earlier, self._answer = self._answer, get_text(item, "text", "$.item") or ""
            return GenerateChunk(reasoning=f"{earlier}\n\n") if earlier else None  # a comment before the answer
        if word == "reasoning":
            text = get_text(item, "text", "$.item")
            return GenerateChunk(reasoning=f"{text}\n\n") if text else None
        if word == "error":
            self._warn(item.get("message"))
        elif isinstance(word, str):
            self._steps[word] = self._steps.get(word, 0) + 1
        return None

    def _end(self, ended: Ended) -> GenerateChunk:
        if self._failure is not None:
            typed = _typed(self._failed, self._failure, self.partial or None)
            if typed is not None:
                raise typed
            known = error_from_text(
                self._failure,
                remedy=REMEDY,
                at=ended.at,
                wait=wait_from_text(self.note, ended.at),
                partial=self.partial or None,
            )
            raise known or CommandFailed(
                f"codex: {self._failure}", exit_code=ended.exit_code, stderr_tail=ended.stderr, retryable=False
            )
        if ended.exit_code:
            raise failed(self.note or self._noise, ended, "codex", REMEDY)
        if not self._completed:
            self._broke_off(ended, "codex", REMEDY)
        return GenerateChunk(
            text=self._answer or "",
            finish_reason=FinishReason.STOP,
            raw_finish_reason="turn.completed",
            usage=self._usage,
            extra={"steps": self._steps} if self._steps else {},
        )


def _inner(value: Any) -> Any:
    """Return the error inside an error; None if there is none."""
    return value.get("error") if isinstance(value, dict) else None


def _typed(error: Any, message: str, partial: str | None) -> CouncilError | None:
    """Return the error of the API that the program passes on, as an object or as JSON in a message.

    Returns:
        None if there is no such object, or one without a code that says anything.
    """
    start = message.find("{")
    found = loads_object(message[start : message.rfind("}") + 1]) if start >= 0 else None
    for value in (found, error.get("message") if isinstance(error, dict) else None, error):
        body = value if isinstance(_inner(value), dict) else {"error": value}
        inner = _inner(body)
        if not isinstance(inner, dict):
            continue
        rows = [row for row in (inner, body) if isinstance(row, dict)]
        status = next((row["status"] for row in rows if isinstance(row.get("status"), int)), None)
        code = next((inner[key] for key in ("code", "type") if isinstance(inner.get(key), str)), None)
        if status is not None or (code is not None and failures.names_failure(code)):
            known = {**inner, "status": status} if status is not None else inner
            typed = error_inside({"error": known}, partial=partial)
            if isinstance(typed, AuthenticationFailed):
                return AuthenticationFailed(f"{typed.message}; {REMEDY}", status=typed.status, code=typed.code)
            return typed
    return None


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    usage = Usage(
        input_tokens=tokens(value.get("input_tokens")),
        output_tokens=tokens(value.get("output_tokens")),
        cached_tokens=tokens(value.get("cached_input_tokens")),
        cache_write_tokens=tokens(value.get("cache_write_input_tokens")),
        reasoning_tokens=tokens(value.get("reasoning_output_tokens")),
    )
    return None if usage == _UNKNOWN else usage
