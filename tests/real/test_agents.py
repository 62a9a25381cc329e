"""The command-line agents themselves, as their vendors publish them, before a server of ours on loopback.

Each gets a home of its own, a loopback address, and telemetry and updates off, by the variables and settings that its
vendor documents.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_council import Council, get_provider
from llm_council.errors import AuthenticationFailed, CapabilityMissing, ProviderError, RateLimited
from llm_council.models import CostSource, GenerateRequest, ImagePart, Message, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers._agents.provider import CommandLineProvider
from llm_council.testing.servers import FakeVendor, Raw, Refuse, Said

TEXT = '{"capital": "Paris"}'
PROGRAMS = {"codex": "codex", "claude-code": "claude", "gemini-cli": "gemini"}
MODELS = {"codex": "gpt-5.4", "claude-code": "claude-sonnet-5-5", "gemini-cli": "gemini-2.5-flash"}
KEYS = {"codex": "CODEX_API_KEY", "claude-code": "ANTHROPIC_API_KEY", "gemini-cli": "GEMINI_API_KEY"}
SCHEMA = {
    "type": "object",
    "properties": {"capital": {"type": "string"}},
    "required": ["capital"],
    "additionalProperties": False,
}
PIXEL = ImagePart(
    data="iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
    media_type="image/png",
)
ASK = GenerateRequest(prompt="What is the capital of France?", timeout_seconds=60)


@pytest.fixture(params=list(PROGRAMS))
def program(request: pytest.FixtureRequest, tool: Callable[[str], Path]) -> Path:
    return tool(PROGRAMS[request.param])


@pytest.fixture
def name(program: Path) -> str:
    return next(name for name, file in PROGRAMS.items() if file == program.name)


@pytest.fixture
def home(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the agents an empty home, without this machine's sign-ins."""
    for variable in [key for key in os.environ if key.startswith(("OPENAI", "CODEX", "ANTHROPIC", "CLAUDE", "G"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path


def codex_at(home: Path, url: str) -> None:
    (home / ".codex").mkdir(exist_ok=True)
    (home / ".codex" / "config.toml").write_text(
        f'model_provider = "loopback"\n[model_providers.loopback]\nname = "loopback"\nbase_url = "{url}/v1"\n'
        'env_key = "CODEX_API_KEY"\nwire_api = "responses"\nrequest_max_retries = 0\nstream_max_retries = 0\n'
    )


def gemini_at(home: Path) -> None:
    (home / ".gemini").mkdir(exist_ok=True)
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False, "maxAttempts": 1},
    }
    (home / ".gemini" / "settings.json").write_text(json.dumps(settings))


@pytest.fixture
def agent(
    name: str, home: Path, mock_server: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CommandLineProvider]:
    """Make a provider whose program is signed in, and talks to the server on loopback."""

    def make(url: str = mock_server, **options: Any) -> CommandLineProvider:
        monkeypatch.setenv(KEYS[name], "key-of-nobody-0123456789")
        variables: dict[str, str] = {}
        if name == "codex":
            codex_at(home, url)
        elif name == "claude-code":
            variables = {"ANTHROPIC_BASE_URL": url, "CLAUDE_CODE_MAX_RETRIES": "0"}
        else:
            gemini_at(home)
            variables = {"GOOGLE_GEMINI_BASE_URL": url}
        adapter = get_provider(name, default_model=MODELS[name], variables=variables, **options)
        assert isinstance(adapter, CommandLineProvider)
        return adapter

    return make


def test_a_stream_equals_the_whole_answer(name: str, agent: Callable[..., CommandLineProvider]) -> None:
    adapter = agent()
    turns = [Message("system", "Be brief."), Message("user", "What is the capital of France?")]
    response = adapter.generate_sync(GenerateRequest(messages=turns, timeout_seconds=60))
    assert response.text == TEXT
    assert response.finish_reason == "stop"
    assert response.usage is not None
    assert response.request_id
    if name == "claude-code":
        assert response.cost is not None
        assert response.cost.source is CostSource.REPORTED
    most = 0
    for _ in range(4):  # pieces that come faster than they are read, on a busy machine, are read as one
        pieces = list(adapter.stream_sync(ASK))
        assert "".join(piece.text for piece in pieces) == TEXT
        most = max(most, sum(bool(piece.text) for piece in pieces))
        if most > 1 or not adapter.capabilities.streaming:
            break
    assert most > 1 or not adapter.capabilities.streaming


def test_effort_and_schema_are_taken(name: str, agent: Callable[..., CommandLineProvider]) -> None:
    schema = StructuredOutput(json_schema=SCHEMA)
    request = GenerateRequest(
        prompt="Capital?", structured_output=schema, reasoning=ReasoningConfig(effort="low"), timeout_seconds=60
    )
    response = agent().generate_sync(request)
    assert json.loads(response.text or "") == {"capital": "Paris"}
    assert response.structured == ({"capital": "Paris"} if name == "claude-code" else None)


def test_images_are_taken(agent: Callable[..., CommandLineProvider]) -> None:
    adapter = agent()
    request = GenerateRequest(messages=[Message("user", ("What is this?", PIXEL))], timeout_seconds=60)
    if adapter.capabilities.multimodal:
        assert adapter.generate_sync(request).text == TEXT
    else:
        with pytest.raises(CapabilityMissing):
            adapter.generate_sync(request)


SPEAKS = {"codex": "responses", "claude-code": "anthropic", "gemini-cli": "gemini"}


def test_the_vendor_receives_our_prompt(name: str, agent: Callable[..., CommandLineProvider]) -> None:
    """A fake vendor records the requests of the agent."""
    vendor = FakeVendor(SPEAKS[name], "It is so.")
    with vendor.serve():
        adapter = agent(url=vendor.url.removesuffix("/v1"))
        turns = [Message("system", "Speak as turn-one."), Message("user", ("What is this?", PIXEL))]
        if name == "gemini-cli":
            turns[1] = Message("user", "What is this?")
        response = adapter.generate_sync(GenerateRequest(messages=turns, max_tokens=77, timeout_seconds=60))
    assert response.text == "It is so."
    asked = vendor.calls[-1]
    assert asked.holds("turn-one")
    assert asked.holds("What is this?")
    assert name == "gemini-cli" or asked.holds(PIXEL.data)
    assert asked.holds(77) is (name == "claude-code")  # or the adjustments say that it was not
    assert any(change.field == "max_tokens" for change in response.adjustments) is (name != "claude-code")
    tools = [row for tool in asked.json.get("tools") or () for row in tool.get("functionDeclarations", [tool])]
    offered = {tool.get("name") for tool in tools}
    assert offered <= {"request_user_input", "update_plan"}, offered  # nothing that reads, runs or reaches anything


def test_a_tool_reaches_the_model_and_its_call_comes_back(name: str, agent: Callable[..., CommandLineProvider]) -> None:
    vendor = FakeVendor(SPEAKS[name], 'I look.\n{"tool_calls": [{"name": "look_at", "arguments": {"city": "Oslo"}}]}')
    with vendor.serve():
        adapter = agent(url=vendor.url.removesuffix("/v1"))
        tool = Tool(name="look_at", description="Look at turn-seven.")
        response = adapter.generate_sync(GenerateRequest(prompt="Rain?", tools=[tool], timeout_seconds=60))
    assert [(call.name, call.parse()) for call in response.tool_calls] == [("look_at", {"city": "Oslo"})]
    assert (response.text or "").strip() == "I look."
    assert response.finish_reason == "tool_calls"
    asked = vendor.calls[-1]
    assert asked.holds("Look at turn-seven.")
    tools = [row for tool in asked.json.get("tools") or () for row in tool.get("functionDeclarations", [tool])]
    assert {tool.get("name") for tool in tools} <= {"request_user_input", "update_plan"}  # its own are off as ever


@pytest.mark.parametrize(("status", "cls"), [(401, AuthenticationFailed), (429, RateLimited)])
def test_a_refusal_of_the_vendor_is_typed(
    agent: Callable[..., CommandLineProvider], status: int, cls: type[ProviderError]
) -> None:
    request = GenerateRequest(prompt=f"refuse with {status}", timeout_seconds=60)
    with pytest.raises(cls) as caught:
        agent().generate_sync(request)
    assert "key-of-nobody" not in f"{caught.value!r} {vars(caught.value)}"


SLOW_DOWN = {
    "code": 429,
    "message": "Resource has been exhausted.",
    "status": "RESOURCE_EXHAUSTED",
    "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}],
}
BUSY = {"code": "rate_limit_exceeded", "message": "Rate limit reached for gpt-x. Please try again in 7.5s."}
FAILED = {"type": "response.failed", "response": {"id": "r-1", "status": "failed", "error": BUSY}}
LATER: dict[str, Said] = {
    "codex": Raw(f"event: response.failed\ndata: {json.dumps(FAILED)}\n\n".encode()),
    "claude-code": Refuse(status=429, retry_after=7.5),
    "gemini-cli": Raw(json.dumps({"error": SLOW_DOWN}).encode(), status=429, media_type="application/json"),
}


def test_the_vendors_retry_after_is_passed_on(name: str, agent: Callable[..., CommandLineProvider]) -> None:
    vendor = FakeVendor(SPEAKS[name], LATER[name])
    with vendor.serve():
        adapter = agent(url=vendor.url.removesuffix("/v1"))
        adapter._variables |= {"CLAUDE_CODE_MAX_RETRIES": "1"} if name == "claude-code" else {}  # it tells by waiting
        with pytest.raises(RateLimited) as caught:
            adapter.generate_sync(ASK)
    assert caught.value.retry_after is not None
    assert 7 <= caught.value.retry_after <= 8


def test_the_doctor_knows_whether_the_agent_is_signed_in(
    name: str, home: Path, agent: Callable[..., CommandLineProvider]
) -> None:
    signed_out = get_provider(name).doctor_sync()
    assert not signed_out.ok
    assert KEYS[name] in signed_out.message
    result = agent().doctor_sync()
    assert result.ok, result.message
    assert result.details["version"]


def test_files_of_the_current_project_are_not_read(
    agent: Callable[..., CommandLineProvider], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    for file in ("AGENTS.md", "CLAUDE.md", "GEMINI.md", ".env"):
        (project / file).write_text("canary-of-the-project")
    monkeypatch.chdir(project)
    assert agent().generate_sync(ASK).text == TEXT
    assert sorted(path.name for path in project.iterdir()) == [".env", "AGENTS.md", "CLAUDE.md", "GEMINI.md"]


def test_a_council_of_one_agent_answers(agent: Callable[..., CommandLineProvider]) -> None:
    with Council(providers=[agent(timeout={"total": 60})]) as council:
        result = council.run("What is the capital of France?", schema=SCHEMA)
    assert result.success, result.error
    assert result.output == {"capital": "Paris"}
