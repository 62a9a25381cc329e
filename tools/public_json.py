"""Collect the keys of every JSON output, the exit statuses of ``council``, and the names that a user can give.

It runs the real commands in a temporary folder, with scripted providers and without a network.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from llm_council import cli, list_providers, register_provider, shutdown, subagents
from llm_council.errors import AuthenticationFailed, CouncilError
from llm_council.models import (
    Cost,
    GenerateRequest,
    GenerateResponse,
    Message,
    ReasoningConfig,
    ReasoningPart,
    StructuredOutput,
    Tool,
    ToolCall,
    Usage,
)
from llm_council.testing.cassettes import Recorder
from llm_council.testing.fakes import Script, ScriptedProvider

ANSWER = '{"answer": "Ulm", "reasoning": "The Danube passes it."}'
FULL_RESPONSE = GenerateResponse(
    text="Through Ulm.",
    structured={"city": "Ulm"},
    reasoning="It is a river.",
    reasoning_parts=[ReasoningPart(text="It is a river.", signature="s", vendor="v", data={"block": 1})],
    tool_calls=[ToolCall(id="1", name="look_up", arguments={"river": "Danube"}, extra={"vendor_field": 1})],
    usage=Usage(input_tokens=9, output_tokens=3, cached_tokens=1, cache_write_tokens=1, reasoning_tokens=1),
    cost=Cost(usd=0.01, source="reported", complete=True),
    model="model-1",
    finish_reason="stop",
    request_id="request-1",
    extra={"vendor_field": 1},
)
FULL_REQUEST = GenerateRequest(
    model="model-1",
    messages=[Message("user", "Where?", name="ada", tool_calls=FULL_RESPONSE.tool_calls, tool_call_id="1")],
    max_tokens=99,
    temperature=0.5,
    top_p=0.9,
    stop=["END"],
    tools=[Tool(name="look_up", description="Looks up a river.", strict=True)],
    tool_choice="auto",
    response_format={"type": "json_object"},
    structured_output=StructuredOutput(json_schema={"type": "object"}, name="other", strict=False),
    reasoning=ReasoningConfig(effort="low", budget_tokens=9),
    prompt_cache=True,
    cache="off",
    extra={"vendor_field": 1},
)
CONFIGURATION = """
council.providers = ["ada"]
council.reasoning = { effort = "low" }
providers.house = { kind = "openai-compatible", base_url = "https://house.example/v1" }
"""


def _interrupt(request: GenerateRequest) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "interrupted"


SCRIPTS: dict[str, Script] = {
    "ada": {"draft": FULL_RESPONSE, "critique": "Good.\nRANKING: A", "synthesise": "{}", "*": ANSWER},
    "bob": {"draft": "Through Ulm.", "critique": "Good.\nRANKING: A", "*": ANSWER},
    "invalid": "no JSON",
    "down": AuthenticationFailed("refused", status=401, request_id="request-2"),
    "interrupting": _interrupt,
}


def collect_json() -> dict[str, Any]:
    """Return the exit statuses, the keys of all JSON, and the names that a user can give."""
    built_in = [info.name for info in list_providers() if info.kind == "built-in"]
    roles = subagents.names()
    for name, script in SCRIPTS.items():
        made = {"__init__": lambda self, script=script, name=name: ScriptedProvider.__init__(self, script, name=name)}
        register_provider(name, type(name.title(), (ScriptedProvider,), {"name": name, **made}))
    with tempfile.TemporaryDirectory() as folder, chdir(folder), patch.dict(os.environ, {"HOME": folder}, clear=True):
        os.environ["LLM_COUNCIL_CONFIG"] = str(Path(folder, "config.toml"))
        Path("config.toml").write_text(CONFIGURATION, encoding="utf-8")
        statuses, printed = _run_all()
        printed["cassette"] = _cassette()
        shutdown()
    return {
        "exit_statuses": statuses,
        "json": {name: sorted({*key_paths(value)}) for name, value in printed.items()},
        "names": {
            "providers": sorted(built_in),
            "subagents": sorted({*(role.name for role in roles), *(alias for role in roles for alias in role.aliases)}),
            "modes": sorted(f"{role.name} {mode}" for role in roles for mode in role.modes),
        },
    }


def _run_all() -> tuple[dict[str, int], dict[str, Any]]:
    """Run every command that prints JSON, and every way of ending."""
    stored = ("--store", "runs.db")
    council = ("run", "Where?", "--json", "--strict", *stored)
    completed, result = run_command(*council, "-p", "ada,bob")
    degraded, lesser = run_command(*council, "-p", "ada,down")
    # A planner, since an advisor's answer may be prose.
    failed, lost = run_command("run", "planner", "Where?", "--json", "--strict", *stored, "-p", "invalid")
    printed = {"run": [json.loads(text) for text in (result, lesser, lost)]}
    run_id = printed["run"][0]["run_id"]
    for name, arguments in {
        "run --dry-run": (*council, "--dry-run", "-p", "ada,bob"),
        "resume": ("resume", run_id, "--json", *stored),
        "replay": ("replay", run_id, "--json", *stored),
        "runs list": ("runs", "list", "--json", *stored),
        "runs show": ("runs", "show", run_id, "--json", *stored),
        "runs export": ("runs", "export", run_id, *stored),
        "doctor": ("doctor", "ada", "--json"),
        "providers": ("providers", "--json"),
        "subagents": ("subagents", "--json"),
        "models list": ("models", "list", "--json"),
        "config show": ("config", "show", "--json"),
    }.items():
        printed[name] = json.loads(run_command(*arguments)[1])
    statuses = {
        "completed": completed,
        "degraded with --strict": degraded,
        "failed": failed,
        "usage": run_command("run")[0],
        "unknown provider": run_command("run", "Where?", "-p", "nobody")[0],
        "interrupted": run_command("run", "Where?", "-p", "interrupting")[0],
    }
    return statuses, printed


def run_command(*arguments: str) -> tuple[int, str]:
    """Run ``council`` in this process, and return its exit status and standard output."""
    out = io.StringIO()
    with patch.object(sys, "argv", ["council", *arguments]), redirect_stdout(out), redirect_stderr(io.StringIO()):
        try:
            cli.main()
        except SystemExit as exit_:
            return int(exit_.code or 0), out.getvalue()
    return 0, out.getvalue()


def _cassette() -> Any:
    """Record a call whose request and response have everything set, and one that fails."""
    for script in (FULL_RESPONSE, SCRIPTS["down"]):
        try:
            Recorder(ScriptedProvider(script), "cassette.json").generate_sync(FULL_REQUEST)
        except CouncilError:
            continue
    return json.loads(Path("cassette.json").read_text(encoding="utf-8"))


def key_paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of every key in a JSON value; ``[]`` stands for any item of a list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.{key}".removeprefix(".")
            yield from key_paths(item, f"{path}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for item in value:
            yield from key_paths(item, f"{path}[]")
