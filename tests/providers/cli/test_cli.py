"""Command-line agents as providers, with real processes that behave and misbehave."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from llm_council import Council
from llm_council.errors import (
    AuthenticationFailed,
    CapabilityMissing,
    CommandFailed,
    CommandNotFound,
    ConfigurationError,
    EmptyReply,
    InvalidOption,
    MalformedReply,
    OutOfCredit,
    ReplyTooLarge,
    TimedOut,
    TruncatedReply,
    UnknownOption,
)
from llm_council.models import ImagePart, Limits, Message, ReasoningConfig, StructuredOutput, Tool
from llm_council.providers.base import GenerateRequest, call, examine, stream
from llm_council.providers.cli import _base
from llm_council.providers.cli.claude_code import ClaudeCodeProvider
from llm_council.providers.cli.codex import CodexProvider
from llm_council.providers.cli.gemini_cli import GeminiCliProvider
from llm_council.providers.registry import get_class
from llm_council.transports import _process

CLASSES = {"codex": CodexProvider, "claude": ClaudeCodeProvider, "gemini": GeminiCliProvider}
ASK = GenerateRequest(prompt="What is 6 times 7?")
LONG = 30.0  # seconds in which anything here ends, on any machine
CANARY = "OWN-KEY-canary-0123456789"


def is_dead(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return not state.strip() or state.strip().startswith("Z")


def await_death(pids: list[int]) -> None:
    ends = time.monotonic() + LONG
    assert pids
    while not all(map(is_dead, pids)):
        assert time.monotonic() < ends, f"one of {pids} lives on"
        time.sleep(0.02)


def await_hanging(scene, agent: str) -> list[int]:
    ends = time.monotonic() + LONG
    while not (pids := scene.hanging(agent)):
        assert time.monotonic() < ends
        time.sleep(0.02)
    return pids


def test_each_has_an_entry_point():
    for name, cls in (("codex", CodexProvider), ("claude-code", ClaudeCodeProvider), ("gemini-cli", GeminiCliProvider)):
        assert get_class(name) is cls
        assert cls.name == name


@pytest.mark.anyio
async def test_an_answer(scene, agent):
    adapter = scene.make(agent)
    response = await call(adapter, ASK)
    assert (response.text, response.finish_reason) == ("42", "stop")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (9, 3)
    assert (response.cost is not None) == (agent == "claude")
    pieces = [piece async for piece in stream(adapter, ASK)]
    assert "".join(piece.text for piece in pieces) == "42"
    assert [seen["stdin"] for seen in scene.seen(agent)] == ["What is 6 times 7?"] * 2


def test_blocking_calls(scene, agent):
    with scene.make(agent) as adapter:
        assert adapter.generate_sync(ASK).text == "42"
        assert "".join(piece.text for piece in adapter.stream_sync(ASK)) == "42"
        assert adapter.doctor_sync().ok is (agent != "gemini")  # which shows no sign-in here


# Finding it.


def test_a_missing_program_is_told_before_anything_is_started(scene, agent, monkeypatch):
    adapter = scene.make(agent, program=f"{agent}-that-is-nowhere")
    with pytest.raises(CommandNotFound, match="npm install -g") as caught:
        adapter.generate_sync(ASK)
    assert str(scene.bin) in caught.value.message
    assert caught.value.provider == adapter.name
    with pytest.raises(ConfigurationError, match="npm install"):
        Council(providers=[adapter]).run("Why?")
    assert not adapter.doctor_sync().ok
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CommandNotFound, match="/nowhere"):
        type(adapter)().check()


def test_a_program_in_the_folder_one_stands_in_is_not_run(scene, agent, monkeypatch):
    (scene.folder / "project").mkdir()
    scene.program(agent, at=scene.folder / "project")
    monkeypatch.chdir(scene.folder / "project")
    monkeypatch.setenv("PATH", f".{os.pathsep}{os.pathsep}/usr/bin")
    adapter = type(scene.make(agent))()
    (scene.bin / agent).unlink()
    with pytest.raises(CommandNotFound):
        adapter.generate_sync(ASK)
    assert scene.seen(agent) == []


def test_options():
    with pytest.raises(InvalidOption, match="at_once"):
        CodexProvider(at_once=0)
    with pytest.raises((TypeError, UnknownOption)):
        CodexProvider(yolo=True)
    with pytest.raises(InvalidOption, match="absolute"):
        CodexProvider(program="./codex").check()
    adapter = CodexProvider(name="mine", timeout={"total": 5}, limits={"stream": 1000}, profile={"efforts": ["low"]})
    assert (adapter.name, adapter._timeouts.total, adapter._limits.stream) == ("mine", 5, 1000)
    assert repr(adapter) == "<CodexProvider mine by codex>"
    assert "codex" in adapter.cache_identity()


# What it finds.

FOREIGN = (
    "OPENROUTER_API_KEY GROQ_API_KEY AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GOOGLE_APPLICATION_CREDENTIALS"
    " GITHUB_TOKEN LD_PRELOAD PYTHONPATH NODE_OPTIONS LLM_COUNCIL_PROVIDERS DYLD_INSERT_LIBRARIES"
).split()


def test_its_environment_is_its_own(scene, agent, monkeypatch):
    for name in FOREIGN:
        monkeypatch.setenv(name, "" if name in ("LD_PRELOAD", "DYLD_INSERT_LIBRARIES") else "canary-foreign")
    for name in {key for cls in CLASSES.values() for key in cls.KEYS}:
        monkeypatch.setenv(name, f"canary-key-of-{name}")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    adapter = scene.make(agent, variables={"AWS_REGION": "eu-1", "HTTPS_PROXY": None, "HOUSE_TOKEN": "own-canary-1"})
    adapter.generate_sync(ASK)
    (seen,) = scene.seen(agent)
    found = seen["environment"]
    assert "canary-foreign" not in str(seen)
    own = CLASSES[agent].KEYS
    assert {name for name, value in found.items() if value.startswith("canary-key-of")} == set(own)
    assert (found["XDG_CONFIG_HOME"], found["HOME"], found["LC_ALL"]) == ("/xdg", str(scene.home), "C.UTF-8")
    assert (found["AWS_REGION"], found["HOUSE_TOKEN"], found["BROWSER"]) == ("eu-1", "own-canary-1", "false")
    assert found["PATH"].split(os.pathsep)[0] == str(scene.bin)
    assert not set(FOREIGN) & set(found)
    assert "own-canary-1" not in repr(vars(adapter))
    assert b"own-canary-1" not in pickle.dumps(adapter)
    assert "canary" not in str(seen["argv"])


def test_it_works_in_an_empty_folder_or_where_it_is_told(scene, agent):
    (scene.folder / "mine").mkdir()
    (scene.folder / "mine" / "AGENTS.md").touch()
    scene.make(agent).generate_sync(ASK)
    scene.make(agent, folder=scene.folder / "mine").generate_sync(ASK)
    seen = {Path(saw["cwd"]): saw["found"] for saw in scene.seen(agent)}
    assert seen.pop(scene.folder / "mine") == ["AGENTS.md"]
    ((empty, found),) = seen.items()
    assert found == []
    assert not empty.exists()


def test_the_prompt_is_seen_by_nobody_else(scene, agent):
    turns = [Message("system", "secret-system"), Message("user", "secret-user")]
    schema = StructuredOutput(json_schema={"type": "object"})
    request = GenerateRequest(messages=turns, structured_output=schema, model="the-model")
    scene.make(agent).generate_sync(request)
    (seen,) = scene.seen(agent)
    assert "secret-user" in seen["stdin"]
    assert "secret" not in str(seen["argv"]) + str(seen["environment"])
    assert "the-model" in seen["argv"]


def test_a_large_prompt_arrives_whole(scene, agent):
    prompt = "naïve 数 " * 100_000
    assert scene.make(agent, answer="").generate_sync(GenerateRequest(prompt=prompt)).text == prompt


def test_what_it_cannot_be_told_is_said(scene, agent):
    adapter = scene.make(agent)
    request = GenerateRequest(prompt="Why?", temperature=0.5, top_p=0.5, stop="x", max_tokens=100)
    told = {change.field for change in adapter.generate_sync(request).adjustments}
    assert told == {"temperature", "top_p", "stop"} | ({"max_tokens"} if agent != "claude" else set())
    with pytest.raises(CapabilityMissing):
        adapter.generate_sync(GenerateRequest(prompt="Why?", tools=[Tool(name="look")]))
    image = ImagePart(data="iVBORw0KGgo=", media_type="image/png")
    with_image = GenerateRequest(messages=[Message("user", ("What?", image))])
    if agent == "codex":
        assert adapter.generate_sync(with_image).text == "42"
    else:
        with pytest.raises(CapabilityMissing):
            adapter.generate_sync(with_image)
    response = adapter.generate_sync(GenerateRequest(prompt="Why?", reasoning=ReasoningConfig(effort="max")))
    assert [change.field for change in response.adjustments] == ([] if agent == "claude" else ["reasoning"])


def test_a_schema_that_no_argument_can_carry_stands_in_the_prompt(scene):
    schema = {"type": "object", "description": "d" * 200_000}
    request = GenerateRequest(prompt="Why?", structured_output=StructuredOutput(json_schema=schema))
    response = scene.make("claude").generate_sync(request)
    (seen,) = scene.seen("claude")
    assert "ddd" in seen["stdin"]
    assert "--json-schema" not in seen["argv"]
    assert any(change.action == "emulated" for change in response.adjustments)


# How it misbehaves. One row of the list of faults each.


@pytest.mark.parametrize("mode", ["banner", "ansi", "crlf", "latin1", "no-read", "flood-err", "grandchild", "version"])
def test_an_answer_in_spite_of(scene, agent, mode):
    adapter = scene.make(agent, mode)
    prompt = "p" * 500_000 if mode in ("no-read", "flood-err") else "Why?"
    response = adapter.generate_sync(GenerateRequest(prompt=prompt, timeout_seconds=15))
    assert response.text == "42"
    assert ("warnings" in response.extra) == (mode == "latin1" or agent == "codex")


@pytest.mark.parametrize(
    ("mode", "cls"),
    [
        ("empty", EmptyReply),
        ("trunc", TruncatedReply),
        ("plain", MalformedReply),
        ("error-exit0", OutOfCredit),
        ("unauthorised", AuthenticationFailed),
        ("exit-7", CommandFailed),
        ("sigkill", CommandFailed),
        ("tty", CommandFailed),
        ("flood-out", ReplyTooLarge),
        ("one-line", ReplyTooLarge),
    ],
)
def test_no_answer_because_of(scene, agent, mode, cls, monkeypatch):
    monkeypatch.setenv(
        {"codex": "CODEX_API_KEY", "claude": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}[agent], CANARY
    )
    adapter = scene.make(agent, mode, limits=Limits(stream=3_000_000, event=1_000_000))
    with pytest.raises(cls) as caught:
        adapter.generate_sync(ASK)
    assert type(caught.value) is cls
    assert caught.value.provider == adapter.name
    assert CANARY not in f"{caught.value!r} {vars(caught.value)}"
    if mode == "exit-7":
        assert caught.value.exit_code == 7
        assert caught.value.stderr_tail == "it went wrong with ***\n"
    elif mode == "sigkill":
        assert caught.value.exit_code == -signal.SIGKILL
    elif mode == "tty":
        assert "log in" in caught.value.message
    elif mode == "unauthorised":
        assert "or set" in caught.value.message


@pytest.mark.parametrize("mode", ["hang", "ignore-term"])
def test_out_of_time_it_is_ended(scene, agent, mode):
    adapter = scene.make(agent, mode)
    with pytest.raises(TimedOut, match="did not answer within 2 s") as caught:
        adapter.generate_sync(GenerateRequest(prompt="Why?", timeout_seconds=2))
    assert caught.value.phase == "deadline"
    assert type(adapter).SIGN_IN in caught.value.message  # it may wait for that
    await_death(await_hanging(scene, agent))


@pytest.mark.anyio
async def test_cancelled_it_is_ended(scene):
    adapter = scene.make("claude", "ignore-term")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, adapter, ASK)
        pids = await anyio.to_thread.run_sync(await_hanging, scene, "claude")
        tasks.cancel_scope.cancel()
    await_death(pids)


@pytest.mark.anyio
async def test_a_stream_that_is_left_ends_its_program(scene):
    adapter = scene.make("codex", "hang")
    pieces = stream(adapter, ASK)
    with anyio.move_on_after(0.5):
        await anext(pieces)
    await pieces.aclose()
    pids = scene.hanging("codex")
    if pids:
        await anyio.to_thread.run_sync(await_death, pids)


@pytest.mark.anyio
async def test_so_many_at_once_and_no_more(scene, monkeypatch):
    adapter = scene.make("codex", at_once=2)
    running = most = 0

    @asynccontextmanager
    async def counted(*args, **options):
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            async with _process.running(*args, **options) as process:
                yield process
        finally:
            running -= 1

    monkeypatch.setattr(_base, "running", counted)
    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(call, adapter, ASK)
    assert len(scene.seen("codex")) == 6
    assert most == 2


@pytest.mark.anyio
async def test_waiting_for_a_place_counts(scene):
    adapter = scene.make("codex", "hang", at_once=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call, adapter, ASK)
        await anyio.to_thread.run_sync(await_hanging, scene, "codex")
        with pytest.raises(TimedOut, match="its turn") as caught:
            await call(adapter, GenerateRequest(prompt="Why?", timeout_seconds=1))
        assert caught.value.phase == "pool"
        tasks.cancel_scope.cancel()


def test_nothing_is_left_of_many_calls(scene):
    good, bad = scene.make("codex"), scene.make("gemini", "exit-1")
    good.generate_sync(ASK)
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(5):
        good.generate_sync(ASK)
        with pytest.raises(CommandFailed):
            bad.generate_sync(ASK)
    assert len(list(Path("/dev/fd").iterdir())) <= before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# Doctor.


def test_doctor_tells_of_sign_in(scene, agent, monkeypatch):
    key = {"codex": "CODEX_API_KEY", "claude": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}[agent]
    signed_out = scene.make(agent, "signed-out").doctor_sync()
    assert not signed_out.ok
    assert key in signed_out.message
    monkeypatch.setenv(key, CANARY)
    result = scene.make(agent).doctor_sync()
    assert result.ok, result.message
    assert result.details["program"] == str(scene.bin / agent)
    assert result.details["version"]
    assert "tried with" not in result.message
    assert CANARY not in repr(result)
    newer = scene.make(agent, "version").doctor_sync()
    assert newer.ok  # warned about, not refused
    assert "9.9.9" in newer.message
    assert "tried with" in newer.message


def test_doctor_makes_a_call_when_it_is_to(scene, agent, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", CANARY)
    assert scene.make(agent).doctor_sync(deep=True).ok
    assert len(scene.seen(agent)) == 1
    refused = scene.make(agent, "unauthorised").doctor_sync(deep=True)
    assert not refused.ok
    assert "or set" in refused.message


@pytest.mark.anyio
async def test_doctor_of_gemini_knows_google(scene):
    (scene.home / ".gemini").mkdir()
    (scene.home / ".gemini" / "oauth_creds.json").touch()
    result = await examine(scene.make("gemini"))
    assert result.ok
    assert "signed in by Google" in result.message
    assert (
        "a deep check tells"
        in (
            await examine(scene.make("gemini", variables={"GOOGLE_GENAI_USE_VERTEXAI": "true", "HOME": str(scene.bin)}))
        ).message
    )


# In a council.


def test_a_council_of_agents(scene):
    for name in ("codex", "claude", "gemini"):
        scene.program(name, answer='{"answer": "42", "reasoning": "six sevens"}')
    with Council(providers=["codex", "claude-code/opus", "gemini-cli"]) as council:
        result = council.run("What is 6 times 7?")
    assert result.success, result.error
    assert result.output["answer"] == "42"
    assert set(result.drafts) <= {"codex", "claude-code/opus", "gemini-cli"}
    assert all("opus" in seen["argv"] for seen in scene.seen("claude"))


COUNCIL = """
    import sys, tempfile
    tempfile.tempdir = sys.argv[1]
    from llm_council import Council
    Council(providers=["codex:2"]).run("Why?")
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_when_a_blocking_run_is_ended_its_agents_are(scene, number, status):
    scene.program("codex", "ignore-term")
    script = scene.folder / "run.py"
    script.write_text("\n".join(line.removeprefix("    ") for line in COUNCIL.splitlines()))
    with subprocess.Popen([sys.executable, str(script), str(scene.temporary)], stderr=subprocess.PIPE) as process:
        pids = await_hanging(scene, "codex")
        process.send_signal(number)
        _, errors = process.communicate(timeout=LONG)
    assert process.returncode in (status, -number)
    assert errors.count(b"Traceback") <= 1
    await_death(pids)
    ends = time.monotonic() + LONG
    while list(scene.temporary.iterdir()):
        assert time.monotonic() < ends
        time.sleep(0.02)
