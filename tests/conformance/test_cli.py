"""Every command-line agent keeps every promise, with a fake vendor in place of its process."""

from __future__ import annotations

import base64
import json
import math
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, ClassVar

import anyio
import pytest
from agent_mirrors import encode_claude_events, encode_codex_events, encode_gemini_events

from llm_council._wire import prompted_tools
from llm_council.errors import TimedOut
from llm_council.errors._secrets import Secret
from llm_council.models import FinishReason, GenerateRequest, GenerateResponse
from llm_council.providers._agents import provider
from llm_council.providers._agents.invocation import Attached
from llm_council.providers.cli.claude_code import ClaudeCodeProvider
from llm_council.providers.cli.codex import CodexProvider
from llm_council.providers.cli.gemini_cli import GeminiCliProvider
from llm_council.testing.conformance import ProviderConformance, Stage
from llm_council.testing.servers import Asked, Dialect, FakeVendor, Refuse
from llm_council.testing.servers._exchange import Ending, Sent
from llm_council.transports._process import Command

pytestmark = pytest.mark.slow


def _plain(value: str | Secret | Attached) -> Any:
    if isinstance(value, Attached):
        text = value.content.decode("utf-8", "ignore")
        return {"file": value.name, "text": text, "base64": base64.b64encode(value.content).decode()}
    return int(value) if isinstance(value, str) and value.isdigit() else value if isinstance(value, str) else "***"


class Played:
    """A fake process: the vendor's bytes are its stdout, and the HTTP status becomes its exit status."""

    def __init__(self, sent: Sent) -> None:
        self.sent = sent
        self.pieces = [] if sent.silent else list(sent.pieces)
        self.left = True
        self.seconds = math.inf

    async def read(self) -> bytes:
        await anyio.sleep(self.sent.delay)
        if self.pieces:
            return self.pieces.pop(0)
        if self.sent.ending is Ending.HANG:
            await anyio.sleep(self.seconds)
            raise TimedOut("the program did not end in time")
        return b""

    def hurry(self, seconds: float) -> None:
        self.seconds = seconds

    async def wait(self) -> int:
        self.left = False
        return 0 if self.sent.status < 400 else 1

    def tail(self) -> str:
        return ""


class Agent(Dialect):
    """The dialect of a command-line agent."""

    path: ClassVar[str] = ""
    encode: ClassVar[Callable[..., bytes]]

    def read(self, asked: Asked) -> GenerateRequest | None:
        if self.facts(asked) is not None:
            return None
        return GenerateRequest(prompt=asked.json["stdin"] or "-", stream=True)

    def facts(self, asked: Asked) -> Any:
        words = shlex.split(asked.path)
        if words == ["--version"]:
            return "version 1.2.3"
        return {"loggedIn": True} if words[-1:] == ["status"] else None

    def whole(self, response: GenerateResponse) -> Any:
        raise NotImplementedError

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        lines = type(self).encode(prompted_tools.calls_as_text(response)).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def frame(self, event: Any) -> bytes:
        events = event if isinstance(event, list) else [event]
        return b"".join(json.dumps(one).encode() + b"\n" for one in events)


class Codex(Agent):
    name = "codex"
    encode = encode_codex_events

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        if response.finish_reason == FinishReason.LENGTH:
            message = "Incomplete response returned, reason: max_output_tokens"
            return [{"type": "turn.failed", "error": {"message": message}}]
        return super().events(response, request)

    def refusal(self, refuse: Refuse) -> Any:
        wait = "" if refuse.retry_after is None else f" Please try again in {refuse.retry_after}s."
        message = f"unexpected status {refuse.status} Refused: {refuse.message}{wait}, url: https://x"
        return {"type": "turn.failed", "error": {"message": message}}


class ClaudeCode(Agent):
    name = "claude-code"
    encode = encode_claude_events

    def events(self, response: GenerateResponse, request: GenerateRequest) -> Iterable[Any]:
        lines = type(self).encode(prompted_tools.calls_as_text(response), live=True).split(b"\n")
        events = [json.loads(line) for line in lines if line]
        if response.finish_reason == FinishReason.LENGTH:
            events[-1] |= {"is_error": True, "stop_reason": "max_tokens"}
        return events

    def refusal(self, refuse: Refuse) -> Any:
        facts = {"result": f"API Error: {refuse.message}", "api_error_status": refuse.status}
        last = {"type": "result", "subtype": "success", "is_error": True, **facts}
        if refuse.retry_after is None:
            return last
        waited = {"retry_delay_ms": refuse.retry_after * 1000, "error_status": refuse.status, "error": "rate_limit"}
        return [{"type": "system", "subtype": "api_retry", **waited}, last]


class GeminiCli(Agent):
    name = "gemini-cli"
    encode = encode_gemini_events
    usage: ClassVar[tuple[str, ...]] = ("stats",)

    def refusal(self, refuse: Refuse) -> Any:
        kind = {"@type": "type.googleapis.com/google.rpc.RetryInfo"}
        wait = [] if refuse.retry_after is None else [{**kind, "retryDelay": f"{refuse.retry_after}s"}]
        inner = {"error": {"code": refuse.status, "message": refuse.message, "status": "REFUSED", "details": wait}}
        return {"type": "result", "status": "error", "error": {"message": f"[API Error: {json.dumps(inner)}]"}}


class AgentConformance(ProviderConformance):
    """The tests of every agent, with a fake vendor in place of its process."""

    __test__ = False

    backends = ("asyncio", "trio")
    options: ClassVar = {"program": sys.executable}

    @pytest.fixture(autouse=True)
    def _patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch

    @contextmanager
    def playing(self, said: Any) -> Iterator[Stage]:
        assert isinstance(self.speaks, Dialect)
        vendor = FakeVendor(self.speaks, said)

        @asynccontextmanager
        async def running(command: Command, **_: Any) -> AsyncIterator[Played]:
            body = {
                "arguments": [_plain(argument) for argument in command.arguments],
                "stdin": command.stdin.decode(),
                "environment": {name: _plain(value) for name, value in command.environment.items()},
            }
            path = shlex.join(argument for argument in command.arguments if isinstance(argument, str))
            process = Played(vendor.reply(Asked(method="RUN", path=path, body=json.dumps(body).encode())))
            try:
                yield process
            finally:
                vendor.end(left=process.left)

        self.patch.setattr(provider, "running", running)
        with self.surroundings():
            yield Stage(self.make("", ""), vendor)


class TestCodex(AgentConformance):
    __test__ = True
    provider = CodexProvider
    speaks = Codex()
    key_variable = "CODEX_API_KEY"


class TestClaudeCode(AgentConformance):
    __test__ = True
    provider = ClaudeCodeProvider
    speaks = ClaudeCode()
    key_variable = "ANTHROPIC_API_KEY"


class TestGeminiCli(AgentConformance):
    __test__ = True
    provider = GeminiCliProvider
    speaks = GeminiCli()
    key_variable = "GEMINI_API_KEY"
    not_kept: ClassVar = {"finish": "Gemini CLI does not say that an answer was cut at its length"}
