"""Agents as their vendors publish them list the tools of ``council mcp``, call one and answer, before a fake model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_council.models import GenerateRequest, GenerateResponse, ToolCall
from llm_council.testing.servers import Asked, FakeVendor, Raw

pytest.importorskip("mcp", reason="the environment real installs it")

SERVER = '''
"""council mcp with scripted seats."""
import sys
from llm_council.providers import registry
from llm_council.testing.fakes import ScriptedProvider
from llm_council.cli import main

script = {"draft": "I think so.", "critique": "A: fine", "synthesise": "The council says forty-two."}
sys.argv = ["council", "mcp", "-p", "ann,bob,cy", "--no-store"]
with registry.overriding(**{name: ScriptedProvider(script, name=name) for name in ("ann", "bob", "cy")}):
    main()
'''
KEY = "key-of-nobody-0123456789"
TASK = "Ask the council what the answer is."
_WAITS = 5  # for the server, on a busy machine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, with the server beside."""
    for variable in [key for key in os.environ if key.startswith(("OPENAI", "CODEX", "ANTHROPIC", "CLAUDE", "G"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "server.py").write_text(SERVER)
    return tmp_path


def calling(request: GenerateRequest) -> GenerateResponse:
    """Call the tool convene once, and then answer with what it said."""
    results = [turn for turn in request.turns() if turn.role == "tool"]
    names = [tool.name for tool in request.tools if tool.name.endswith("convene")]
    if not names and any(tool.name == "WaitForMcpServers" for tool in request.tools) and len(results) < _WAITS:
        # Claude Code begins before its servers are there, and offers this tool in the meantime.
        wait = ToolCall(id=f"wait_{len(results)}", name="WaitForMcpServers", arguments="{}")
        return GenerateResponse(tool_calls=[wait], finish_reason="tool_calls")
    if any("forty-two" in result.text for result in results) or not names:
        return GenerateResponse(text=f"It said: {results[-1].text if results else 'nothing'}")
    call = ToolCall(id="call_1", name=names[0], arguments=json.dumps({"task": "What is the answer?"}))
    return GenerateResponse(tool_calls=[call], finish_reason="tool_calls")


def run(program: Path, home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run an agent in its home."""
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", **variables}
    return subprocess.run(
        [str(program), *words], cwd=home, env=environment, capture_output=True, text=True, timeout=90, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_claude_code(home: Path, tool: Callable[[str], Path]) -> None:
    servers = {"mcpServers": {"council": {"command": sys.executable, "args": [str(home / "server.py")]}}}
    (home / "mcp.json").write_text(json.dumps(servers))
    vendor = FakeVendor("anthropic", calling)
    with vendor.serve():
        done = run(
            tool("claude"), home, "-p", TASK, "--model", "claude-sonnet-5-5", "--mcp-config", "mcp.json",
            "--strict-mcp-config", "--allowedTools", "mcp__council__convene", "--output-format", "json",
            ANTHROPIC_BASE_URL=vendor.url.removesuffix("/v1"), ANTHROPIC_API_KEY=KEY, DISABLE_TELEMETRY="1",
            DISABLE_AUTOUPDATER="1", CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        )  # fmt: skip
    assert "forty-two" in json.loads(done.stdout)["result"], (done.stdout[-2000:], done.stderr[-2000:])


def test_gemini_cli(home: Path, tool: Callable[[str], Path]) -> None:
    (home / ".gemini").mkdir()
    settings: dict[str, Any] = {
        "mcpServers": {"council": {"command": sys.executable, "args": [str(home / "server.py")], "trust": True}},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False, "maxAttempts": 1},
    }
    (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
    vendor = FakeVendor("gemini", calling)
    with vendor.serve():
        done = run(
            tool("gemini"), home, "-m", "gemini-2.5-flash", "-o", "json", "-p", TASK,
            "--allowed-mcp-server-names", "council",
            GEMINI_API_KEY=KEY, GOOGLE_GEMINI_BASE_URL=vendor.url.removesuffix("/v1"),
            GEMINI_CLI_TRUST_WORKSPACE="true",
        )  # fmt: skip
    assert "forty-two" in json.loads(done.stdout)["response"], (done.stdout[-2000:], done.stderr[-2000:])


def _codex(asked: Asked) -> Any:
    """Answer Codex, which offers the tools of a server in a namespace, and wants the namespace in the call."""
    outputs = [item for item in asked.json["input"] if item.get("type") == "function_call_output"]
    found = [
        (row["name"], tool["name"])
        for outer in asked.json.get("tools", ())
        if outer.get("type") == "namespace"
        for tool in outer.get("tools", ())
        for row in [outer]
        if tool["name"].endswith("convene")
    ]
    if outputs or not found:
        said = json.dumps(outputs[-1]["output"]) if outputs else "no tool is offered"
        item: dict[str, Any] = {
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": f"It said: {said}", "annotations": []}],
        }  # fmt: skip
    else:
        namespace, name = found[0]
        item = {
            "type": "function_call", "id": "fc_1", "call_id": "call_1", "namespace": namespace, "name": name,
            "arguments": json.dumps({"task": "What is the answer?"}), "status": "completed",
        }  # fmt: skip
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    response = {"id": "resp_1", "object": "response", "status": "completed", "output": [item], "usage": usage}
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    return Raw("".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events).encode())


class _ForCodex(FakeVendor):
    """A fake vendor that reads the tools of a namespace."""

    def reply(self, asked: Asked) -> Any:
        """Record a request, and return the reply to it."""
        self.said = _codex(asked) if asked.method == "POST" else self.said
        return super().reply(asked)


def test_codex(home: Path, tool: Callable[[str], Path]) -> None:
    vendor = _ForCodex("responses")
    (home / ".codex").mkdir()
    with vendor.serve():
        (home / ".codex" / "config.toml").write_text(
            'model = "gpt-5.4"\nmodel_provider = "loopback"\ncheck_for_update_on_startup = false\n'
            f'[analytics]\nenabled = false\n[model_providers.loopback]\nname = "loopback"\nbase_url = "{vendor.url}"\n'
            'env_key = "CODEX_API_KEY"\nwire_api = "responses"\nrequest_max_retries = 0\nstream_max_retries = 0\n'
            f'[mcp_servers.council]\ncommand = "{sys.executable}"\nargs = ["{home / "server.py"}"]\n'
            'default_tools_approval_mode = "approve"\nstartup_timeout_sec = 60\nrequired = true\n'
        )
        done = run(
            tool("codex"), home, "exec", "--skip-git-repo-check", "--json", "-s", "read-only", TASK, CODEX_API_KEY=KEY
        )
    assert "forty-two" in done.stdout, (done.stdout[-2000:], done.stderr[-2000:])
